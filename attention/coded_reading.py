"""Reading keys by their codes: bounds on all scores, then floats of the few that matter.

A key's 8-bit codes bound its score from above by one integer product (`halfspace.code_filter`),
which is all that is read of most keys. With L the exact score of the key whose bound is highest, a
histogram of how far the bounds lie below L tells where to cut: keys above the cut are read in
float64, and the mass below it is at most the sum over bins of count times exp(upper end). What a
rule needs is checked against what was read, and the cut moves down until it holds; so codes decide
the speed and the tightness of the bound, never whether it holds.

For a query, n d bytes of codes are read one after another, and O(d) for each key above the cut.
"""

import math
from typing import NamedTuple

import numpy as np

from halfspace.basis import Basis
from halfspace.code_filter import aim_at_codes, bar_of
from halfspace.codes import Leading
from halfspace.integer_dot import BLOCK, MOST_QUERY, products, room_of
from halfspace.jit import MARGIN_COVERED, kernel, part
from halfspace.predicate import LIMBS, exact_sign
from halfspace.prefetch import prefetch_row
from halfspace.quickselect import select
from halfspace.tiles import TILE, used_lanes

from .reading import LARGEST_EXPONENT, add_values, average_relu, dot, largest
from .selection import (
    ABSENT,
    BINS,
    BINS_PER_NAT,
    EDGES,
    SHARE,
    TOP_R,
    add_to_histogram,
)

NOWHERE = np.int32(-(2**30))
"""In place of a product: codes say nothing of the key, or the query does not see it."""

MOST_PRODUCT = np.int32(2**31 - 1)
"""Beyond any product."""

MOST_CODE = 255
"""Largest code of a coordinate."""

AHEAD = 8
"""Rows that are asked for before their turn."""

SURE = 1.0 + 1e-9
"""Covers the rounding of sums and exponentials of masses."""

_ONE = np.uint64(1)
_ALL = ~np.uint64(0)


class CodedKeys(NamedTuple):
    """Keys and values of one head by slot, and the codes of keys. All arrays are read-only."""

    keys: np.ndarray  # (64 tiles, head_dim)
    values: np.ndarray  # (64 tiles, value_dim)
    always: np.ndarray  # (tiles,) uint64, lanes that codes say nothing of
    leading: Leading
    basis: Basis
    reach: float  # upper bound on the norms of coded keys


class Aims(NamedTuple):
    """Queries in the terms of the codes."""

    weights: np.ndarray  # (whole blocks, room) int8
    bounds: np.ndarray  # (m, 2) float64: constant and unit, <q, k> <= constant + unit * product


class _Room(NamedTuple):
    """Scratch for one query after another."""

    bins: np.ndarray  # (slots,) int32
    chosen: np.ndarray  # (slots + 1,) int64
    scores: np.ndarray  # (slots,) float64, of the chosen
    spare: np.ndarray  # (slots,) float64
    places: np.ndarray  # (slots,) int64
    counts: np.ndarray  # (BINS + 1,) int64
    missed: np.ndarray  # (BINS + 1,) float64


@kernel
def aim_queries(head, queries):
    """Bring queries (m, head_dim), float64, in the terms of the codes."""
    m, d = queries.shape
    width = room_of(head.leading.codes.shape[1], head.leading.bits)
    weights = np.zeros((-(-m // BLOCK) * BLOCK, width), np.int8)
    bounds, scratch = np.empty((m, 2)), np.empty((3, d))
    for q in range(m):
        bounds[q] = aim_at_codes(
            head.basis, head.leading, queries[q], head.reach, scratch, weights[q]
        )
    return Aims(weights, bounds)


@part
def _fill_products(codes, always, weights, q, count, first, last, out):
    """Products of tiles first … last - 1 with `count` queries from q on; those not coded, any."""
    for t in range(first, last):
        if always[t] != _ALL:
            products(codes, t, weights, q, count, out)


@kernel
def fill_products(head, weights, q, count, first, last, out):
    """Products of tiles first … last - 1 with 1 or `BLOCK` queries from q on, (count, slots)."""
    _fill_products(head.leading.codes, head.always, weights, q, count, first, last, out)


@part
def _list_uncoded(always, length, row, chosen):
    """Slots of visible keys that have no code; they and what is not visible go NOWHERE."""
    size, tiles = 0, (length + TILE - 1) // TILE
    for t in range(tiles):
        seen = used_lanes(length, t)
        if seen & ~always[t] == _ALL:
            continue
        for lane in range(TILE):
            slot, bit = t * TILE + lane, _ONE << np.uint64(lane)
            if always[t] & seen & bit:
                chosen[size] = slot
                size += 1
            if (always[t] | ~seen) & bit:
                row[slot] = NOWHERE
    return size


@part
def _highest(row):
    """Slot of the largest product."""
    most = NOWHERE
    for i in range(row.size):
        most = max(most, row[i])
    for i in range(row.size):
        if row[i] == most:
            return i
    return 0


@part(flags=MARGIN_COVERED)
def _fill_bins(row, at, per_product, bins):
    """Bin of every key by how far its bound lies below the product `at`."""
    last, none = np.float32(BINS - 1), np.float32(0.0)
    for i in range(row.size):
        distance = (at - np.float32(row[i])) * per_product
        place = np.int32(min(max(distance, none), last))
        bins[i] = place if row[i] > NOWHERE else np.int32(ABSENT)


@part
def _fill_missed(counts, widen, missed):
    """Upper bounds on the mass of bins from i on, in units of exp(L)."""
    missed[BINS] = 0.0
    for i in range(BINS - 1, -1, -1):
        missed[i] = missed[i + 1] + counts[i] * EDGES[i] * widen
    for i in range(BINS):
        missed[i] *= SURE


@part
def _collect(bins, first, last, chosen, size):
    """Append the slots of bins first … last - 1 to `chosen`; returns how many there are then."""
    for start in range(0, bins.size, TILE):
        wanted = 0
        for i in range(start, start + TILE):
            wanted += np.int32((bins[i] >= first) & (bins[i] < last))
        if wanted:
            for i in range(start, start + TILE):
                # Written always, kept if it counts: no branch to mispredict.
                chosen[size] = i
                size += (bins[i] >= first) & (bins[i] < last)
    return size


@part
def _score(keys, query, scale, chosen, first, last, scores):
    """Scores in float64, in nats, of chosen keys first … last - 1."""
    for i in range(first, last):
        prefetch_row(keys, chosen[min(i + AHEAD, last - 1)])
        scores[i] = scale * dot(query, keys, chosen[i])


@part
def _mass(scores, count, unit):
    """Sum of exp(score - unit)."""
    total = 0.0
    for i in range(count):
        total += math.exp(min(scores[i] - unit, LARGEST_EXPONENT))
    return total


@part
def _bin_of(nats):
    """Bins that hold every bound less than so many nats below L."""
    return np.int64(min(max(nats * BINS_PER_NAT, 0.0) + 2.0, np.float64(BINS)))


@part
def _cut_for(share, first, counts, missed, mass, ratio):
    """First bin from `first` on below which at most `share` of the mass is missed.

    `mass` is that of the bins before; the mass of others is taken to be `ratio` of their bound.
    """
    for i in range(first, BINS):
        if missed[i] <= share * (mass + missed[i]):
            return i
        mass += ratio * counts[i] * EDGES[i]
    return BINS


@part
def _read_share(head, query, scale, level, share, end, size, room, ratio):
    """Read until at most `share` of the mass is missed; where the cut is, and keys read."""
    mass = _mass(room.scores, size, level)
    while end < BINS and not room.missed[end] <= share * (mass + room.missed[end]):
        # What was read has more mass than that of its bins: a lower bound, where ratio is 0.
        last = max(end + 1, _cut_for(share, end, room.counts, room.missed, mass, ratio))
        more = _collect(room.bins, end, last, room.chosen, size)
        _score(head.keys, query, scale, room.chosen, size, more, room.scores)
        for i in range(size, more):
            mass += math.exp(min(room.scores[i] - level, LARGEST_EXPONENT))
        end, size, ratio = last, more, 0.5 * ratio
    return end, size


@part
def _ranked(rank, size, room):
    """The score of such rank, from the best down, of `size` chosen."""
    for i in range(size):
        room.spare[i] = room.scores[i]
    select(room.spare[:size], room.places, size - rank)
    return room.spare[size - rank]


@part
def _read_top(head, query, scale, level, rank, end, size, room):
    """Read until the `rank` keys of largest score are among those read."""
    seen, first = size, end
    while end < BINS and seen < rank:
        seen += room.counts[end]
        end += 1
    more = _collect(room.bins, first, end, room.chosen, size)
    _score(head.keys, query, scale, room.chosen, size, more, room.scores)
    if end < BINS and rank:
        least = _ranked(rank, more, room)
        last = max(end, _bin_of(level - least))
        size, more = more, _collect(room.bins, end, last, room.chosen, more)
        _score(head.keys, query, scale, room.chosen, size, more, room.scores)
        end = last
    return end, more


@part
def _keep_best(rank, level, size, room):
    """Keep the `rank` chosen of largest score, ties to the earlier; the mass of the others."""
    if size <= rank:
        return size, 0.0
    scores, chosen = room.scores, room.chosen
    least, ties = np.inf, 0
    if rank:
        least, ties = _ranked(rank, size, room), rank
        for i in range(size):
            ties -= scores[i] > least
    kept, left = 0, 0.0
    for i in range(size):
        if scores[i] > least or (scores[i] == least and ties > 0):
            ties -= scores[i] == least
            scores[kept], chosen[kept] = scores[i], chosen[i]
            kept += 1
        else:
            left += math.exp(min(scores[i] - level, LARGEST_EXPONENT))
    return kept, left


@part
def _keep_inside(keys, normal, offset, low, high, scale, level, size, room, limbs):
    """Keep the chosen with <q, k> >= offset, exactly decided; the mass of the others.

    Scores below `low` are outside, above `high` inside.
    """
    scores, chosen = room.scores, room.chosen
    kept, left = 0, 0.0
    for i in range(size):
        inside = scores[i] > high
        if low <= scores[i] <= high:
            key = keys[chosen[i]]
            inside = exact_sign(normal, key, key[:0], offset, limbs) >= 0
        if inside:
            scores[kept], chosen[kept] = scores[i], chosen[i]
            kept += 1
        else:
            left += math.exp(min(scores[i] - level, LARGEST_EXPONENT))
    return kept, left


@part
def _average(values, scores, chosen, output):
    """Softmax-weighted mean of the chosen values; the top score and the mass."""
    top, mass = largest(scores), 0.0
    for i in range(scores.size):
        scores[i] = math.exp(scores[i] - top)
        mass += scores[i]
    # Normalised first, so that no sum exceeds the largest value.
    for i in range(scores.size):
        scores[i] /= mass
    add_values(output, scores, values, chosen)
    return top, mass


@part
def _read(head, query, scale, cut, q, bounds, length, row, room, limbs):
    """Read for one query what its cut asks for: keys read, level, and the mass missed.

    Masses are in units of exp(level).
    """
    kind, parameter, offset, error = cut.kind, cut.parameters[q], cut.offsets[q], cut.errors[q]
    chosen, scores = room.chosen, room.scores
    size = _list_uncoded(head.always, length, row, chosen)
    _score(head.keys, query, scale, chosen, 0, size, scores)
    level, end, ratio = largest(scores[:size]), BINS, 0.0
    room.missed[BINS] = 0.0
    if size < length:
        highest = _highest(row)
        level = max(level, scale * dot(query, head.keys, highest))
        constant, unit = scale * bounds[0], scale * bounds[1]
        at = math.floor(min(max((level - constant) / unit, -(2.0**29)), 2.0**29))
        bins, most = room.bins, np.float64(MOST_CODE * MOST_QUERY * (query.size + 2))
        _fill_bins(row, np.float32(at), np.float32(min(unit * BINS_PER_NAT, 1e30)), bins)
        room.counts[:] = 0
        add_to_histogram(bins, 1, room.counts)
        # What float32 rounds of a distance in bins, and of products that it does not hold.
        blur = 1e-6 * BINS / BINS_PER_NAT + (2.0**-22 * unit * most if most >= 2.0**24 else 0.0)
        blur += error + 1e-12 * (1.0 + abs(level) + abs(constant))
        widen = math.exp(min(blur, LARGEST_EXPONENT))
        _fill_missed(room.counts, widen, room.missed)
        above = constant + unit * np.float64(row[highest])
        ratio = math.exp(min(level - above, 0.0))
        # Bounds of the first bin may lie any distance above the level.
        end = 1
        size = _collect(bins, 0, 1, chosen, size)
        first = size - room.counts[0]
        _score(head.keys, query, scale, chosen, first, size, scores)
    if kind == SHARE:
        end, size = _read_share(head, query, scale, level, parameter, end, size, room, ratio)
        return size, level, room.missed[end]
    if kind == TOP_R:
        rank = np.int64(parameter)
        end, size = _read_top(head, query, scale, level, rank, end, size, room)
        size, left = _keep_best(rank, level, size, room)
    else:
        last = max(end, _bin_of(level - scale * offset))
        more = _collect(room.bins, end, last, chosen, size) if size < length else size
        _score(head.keys, query, scale, chosen, size, more, scores)
        end, b = last, scale * offset
        around = error + 4e-16 * abs(b)
        size, left = _keep_inside(
            head.keys, query, offset, b - around, b + around, scale, level, more, room, limbs
        )
    widen = math.exp(min(error, LARGEST_EXPONENT))
    return size, level, (room.missed[end] + left * widen) * SURE


@kernel
def coded_rows(head, aims, queries, lengths, cut, scale, filled, readings):
    """Softmax attention of one head, by codes, for many queries.

    Parameters
    ----------
    head : CodedKeys
    aims : Aims
        Of these queries.
    queries : float64 array, shape (m, head_dim)
    lengths : int64 array, shape (m,)
        Each query sees the first so many slots.
    cut : Cut
    scale : float
    filled : int32 array, shape (1, slots) or (0, 0)
        Products of a single query, where they are known already.
    readings : Readings
        Filled.
    """
    codes, slots, m = head.leading.codes, head.keys.shape[0], queries.shape[0]
    room = _Room(
        np.empty(slots, np.int32),
        np.empty(slots + 1, np.int64),
        np.empty(slots),
        np.empty(slots),
        np.empty(slots, np.int64),
        np.empty(BINS + 1, np.int64),
        np.empty(BINS + 1),
    )
    limbs = np.zeros(LIMBS, np.int64)
    block = BLOCK if m > 1 else 1
    rows = filled if filled.size else np.empty((block, slots), np.int32)
    for first in range(0, m, block):
        last = min(first + block, m)
        if not filled.size:
            tiles = (np.max(lengths[first:last]) + TILE - 1) // TILE
            _fill_products(codes, head.always, aims.weights, first, block, 0, tiles, rows)
        for q in range(first, last):
            length = lengths[q]
            if not length:
                continue
            row = rows[q - first, : (length + TILE - 1) // TILE * TILE]
            mine = _Room(room.bins[: row.size], *room[1:])
            size, level, missed = _read(
                head, queries[q], scale, cut, q, aims.bounds[q], length, row, mine, limbs
            )
            readings.looked[q], readings.reported[q] = length, size
            readings.missed[q] = missed
            if size:
                top, mass = _average(
                    head.values, room.scores[:size], room.chosen[:size], readings.output[q]
                )
                readings.top[q], readings.mass[q] = top, mass
                # From units of exp(level) to units of exp(top).
                moved = math.exp(min(level - top, LARGEST_EXPONENT))
                readings.missed[q] = missed * moved * SURE if missed else 0.0


@kernel
def coded_relu(head, aims, queries, lengths, offsets, errors, scale, threshold, power, readings):
    """ReLU attention of one head, by codes, for many queries.

    Parameters
    ----------
    head, aims, queries, lengths, scale, readings
        As for `coded_rows`.
    offsets : float64 array, shape (m,)
        Keys with <q, k> below have no weight.
    errors : float64 array, shape (m,)
        Bound on the rounding error of a score.
    threshold, power
        As for `relu_rows`.
    """
    codes, slots, m = head.leading.codes, head.keys.shape[0], queries.shape[0]
    chosen, excess = np.empty(slots + 1, np.int64), np.empty(slots)
    rows = np.empty((BLOCK, slots), np.int32)
    for first in range(0, m, BLOCK):
        last = min(first + BLOCK, m)
        tiles = (np.max(lengths[first:last]) + TILE - 1) // TILE
        _fill_products(codes, head.always, aims.weights, first, BLOCK, 0, tiles, rows)
        for q in range(first, last):
            row = rows[q - first, : (lengths[q] + TILE - 1) // TILE * TILE]
            size = _list_uncoded(head.always, lengths[q], row, chosen)
            bar = bar_of(aims.bounds[q, 0], aims.bounds[q, 1], offsets[q])
            size = _collect(row, max(bar, NOWHERE + np.int32(1)), MOST_PRODUCT, chosen, size)
            _score(head.keys, queries[q], scale, chosen, 0, size, excess)
            average_relu(
                head.values,
                chosen[:size],
                excess[:size],
                threshold,
                power,
                errors[q],
                q,
                readings,
            )
