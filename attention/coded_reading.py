"""Reading keys by their codes: bounds on all scores, then floats of the few that matter.

A key's 8-bit codes bound its score from above by one integer product (`halfspace.code_filter`),
which is all that is read of most keys. With L the exact score of the key whose bound is highest,
keys whose product reaches a bar at or below that of L are read in float64, and the mass of the
others is at most the sum of exp(bound) over them (`code_bounds.py`). A histogram of a few tiles
tells where the bar may be; what a rule needs is checked against what was read, and the bar is
lowered until it holds. So codes and samples decide the speed and the tightness of the bound, never
whether it holds.

For a query, n d bytes of codes are read one after another, and O(d) for each key above the bar.
"""

import math
from typing import NamedTuple

import numpy as np

from halfspace.basis import Basis
from halfspace.code_filter import aim_at_codes, bar_of
from halfspace.codes import Leading
from halfspace.integer_dot import BLOCK, paired_products, room_of
from halfspace.jit import kernel, part
from halfspace.predicate import LIMBS, exact_sign
from halfspace.prefetch import prefetch_row
from halfspace.quickselect import select
from halfspace.tiles import TILE, used_lanes

from .code_bounds import (
    BINS_PER_NAT,
    EDGES,
    FURTHEST,
    GUESS_BINS,
    LOWEST,
    MOST_PRODUCT,
    NOWHERE,
    SUM_ERROR,
    collect,
    highest,
    mass_below,
    sample_histogram,
)
from .exponential import LARGEST_EXPONENT, LOG2_E, exponentials
from .reading import add_values, average_relu, dot, four_dots, largest
from .selection import SHARE, TOP_R

AHEAD = 24
"""Rows that are asked for before their turn."""

SURE = 1.0 + 1e-9
"""Covers the rounding of sums and exponentials of masses."""

LEAST_SAMPLE, MOST_STRIDE = 32, 16
"""Tiles that a histogram is made of at least, and of which one in how many at least."""

OPTIMISM = 0.55
"""Part of the values' width that an output is expected to be from the far end of their range."""

LEAST_UNIT = 1e-290
"""Below so many nats a product, codes say nothing."""

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

    weights: np.ndarray  # (2 queries of whole blocks, room) int8, pairs
    bounds: np.ndarray  # (m, 3) float64: constant, unit, gap of `aim_at_codes`


class Scratch(NamedTuple):
    """For one query after another."""

    chosen: np.ndarray  # (slots + 1,) int64
    scores: np.ndarray  # (slots,) float64, of the chosen
    weights: np.ndarray  # (slots,) float64
    places: np.ndarray  # (slots,) int64
    counts: np.ndarray  # (GUESS_BINS + 1,) int64
    bins: np.ndarray  # (64,) int32
    limbs: np.ndarray  # (LIMBS,) int64, zeros


class Read(NamedTuple):
    """What was read for one query, and what was not."""

    size: int  # keys read
    missed: float  # upper bound on the mass of others, in units of exp(level)
    level: float
    top: float  # the largest score
    mass: float  # of what was read, in units of exp(top); 0 where no average was taken yet


class View(NamedTuple):
    """What codes say of one query's keys."""

    level: float  # L, in nats
    at: int  # the bound of this product is L or less
    constant: float  # of bounds, in nats
    unit: float  # nats a product
    step: float  # powers of two a product, float32
    short: float  # nats that the bound of `at` is below L
    widen: float  # what rounding may make of a mass
    stride: int  # of the histogram
    ratio: float  # about what a weight is of its bound


@kernel
def aim_queries(head, queries):
    """Bring queries (m, head_dim), float64, in the terms of the codes."""
    m, d = queries.shape
    width = room_of(head.leading.codes.shape[1], head.leading.bits)
    weights = np.zeros((-(-m // BLOCK) * BLOCK, 2, width), np.int8)
    bounds, scratch, codes = np.empty((m, 3)), np.empty((3, d)), np.zeros(width, np.int32)
    for q in range(m):
        bounds[q] = aim_at_codes(
            head.basis, head.leading, queries[q], head.reach, scratch, codes, weights[q]
        )
    return Aims(weights.reshape(-1, width), bounds)


@part
def fill_tiles(codes, always, weights, q, count, first, last, out):
    """Products of tiles first … last - 1 with `count` queries from q on; those not coded, any."""
    for t in range(first, last):
        if always[t] != _ALL:
            paired_products(codes, t, weights, q, count, out)


@kernel
def fill_products(head, weights, q, count, first, last, out):
    """Products of tiles first … last - 1 with 1 or `BLOCK` queries from q on, (count, slots)."""
    fill_tiles(head.leading.codes, head.always, weights, q, count, first, last, out)


@part
def list_uncoded(always, length, row, chosen):
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
def score_chosen(keys, query, scale, chosen, first, last, scores):
    """Scores in float64, in nats, of chosen keys first … last - 1."""
    fours = first + (last - first) // 4 * 4
    for i in range(first, fours, 4):
        for j in range(min(i + AHEAD, last), min(i + AHEAD + 4, last)):
            prefetch_row(keys, chosen[j])
        a, b, c, e = four_dots(query, keys, chosen[i], chosen[i + 1], chosen[i + 2], chosen[i + 3])
        scores[i], scores[i + 1] = scale * a, scale * b
        scores[i + 2], scores[i + 3] = scale * c, scale * e
    for i in range(fours, last):
        scores[i] = scale * dot(query, keys, chosen[i])


@part
def _sum_weights(scratch, first, last, level):
    """Mass of chosen keys first … last - 1, in units of exp(level)."""
    exponentials(scratch.scores[first:last], level, scratch.weights[first:last])
    total = 0.0
    for i in range(first, last):
        total += scratch.weights[i]
    return total


@part
def _product_of(level, constant, unit, blur):
    """Largest product whose bound is `level` or less; where that cannot be said, all are above."""
    place = (level - constant) / unit
    if not (place > -FURTHEST and unit > LEAST_UNIT and blur < LARGEST_EXPONENT):
        return np.int32(-FURTHEST)
    return np.int32(math.floor(min(place, FURTHEST)))


@part
def look(head, query, scale, bounds, error, row, level, scratch):
    """Level and histogram of a query's coded keys; `level` is that of keys without a code."""
    best = highest(row)
    constant, unit = scale * bounds[0], scale * bounds[1]
    level = max(level, scale * dot(query, head.keys, best))
    blur = error + 1e-14 * (1.0 + abs(level) + abs(constant))
    at, unit = _product_of(level, constant, unit, blur), max(unit, LEAST_UNIT)
    step = np.float32(min(unit * LOG2_E, 1e30))
    widen = (1.0 + SUM_ERROR) * math.exp(min(blur, LARGEST_EXPONENT))
    stride = min(max(row.size // TILE // LEAST_SAMPLE, 1), MOST_STRIDE)
    per_bin = np.float32(min(unit * BINS_PER_NAT, 1e30))
    sample_histogram(row, at, per_bin, stride, scratch.bins, scratch.counts)
    ratio = math.exp(min(level - constant - unit * np.float64(row[best]), 0.0))
    short = max(level - constant - unit * np.float64(at), 0.0)
    return View(level, at, constant, unit, step, short, widen, stride, ratio)


@part
def bar_below(view, nats):
    """Least product of keys whose bound is at most so many nats below L, never above `at`."""
    return np.int32(max(np.float64(view.at) - max(nats / view.unit, 0.0) - 1.0, LOWEST))


@part
def _bar_of_offset(bounds, offset, at):
    """Product that all keys of <q, k> >= offset reach, below `at`."""
    bar = min(bar_of(bounds[0], bounds[1], offset), at - np.int32(1))
    return max(bar, LOWEST)


@part
def _missed(view, row, bar):
    """Upper bound on the mass of keys below the bar, in units of exp(L)."""
    if bar <= LOWEST:
        return 0.0
    return mass_below(row, bar, view.at, view.step) * view.widen


@part
def _below(counts, first):
    """Bound on the mass of bins from `first` on, of the keys that the histogram counts."""
    total = 0.0
    for i in range(first, GUESS_BINS + 1):
        total += counts[i] * EDGES[i]
    return total


@part
def guess_place(view, counts, share, first, mass, per_count):
    """First bin from `first` on that may be missed for a share of the mass; GUESS_BINS for none.

    `mass` is that of the bins before; each key counted stands for `per_count`.
    """
    below = per_count * _below(counts, first)
    for i in range(first, GUESS_BINS):
        if below <= share * (mass + below):
            return i
        here = per_count * counts[i] * EDGES[i]
        below, mass = below - here, mass + view.ratio * here
    return GUESS_BINS


@part
def _lower(head, query, scale, row, new, bar, size, scratch):
    """Read what reaches the new bar and not the present one; the bar then, and keys read."""
    new = min(new, bar)
    more = collect(row, new, bar, scratch.chosen, size)
    score_chosen(head.keys, query, scale, scratch.chosen, size, more, scratch.scores)
    return new, more


@part
def _furthest(output, low, high):
    """Largest distance of a coordinate from the far end of the values' range."""
    most = 0.0
    for c in range(output.size):
        most = max(most, max(high[c] - output[c], output[c] - low[c]))
    return most


@part
def average(values, scratch, size, output):
    """Fill the softmax-weighted mean of the chosen values; the top score and the mass."""
    scores, weights, chosen = scratch.scores[:size], scratch.weights[:size], scratch.chosen[:size]
    top, mass = largest(scores), 0.0
    exponentials(scores, top, weights)
    for i in range(size):
        mass += weights[i]
    # Normalised first, so that no sum exceeds the largest value.
    for i in range(size):
        weights[i] /= mass
    for c in range(output.size):
        output[c] = 0.0
    add_values(output, weights, values, chosen)
    return top, mass


@part
def _step(missed, wanted):
    """Bins to go down where so much is missed, and less is wanted."""
    if not wanted > 0.0:
        return GUESS_BINS
    # Each nat down is likely to leave less than 1 / e.
    return 1 + np.int64(0.7 * BINS_PER_NAT * math.log(max(missed / wanted, 1.0)))


@part
def read_share(head, query, scale, cut, q, row, size, view, scratch, output):
    """Read until the share missed is what the rule allows.

    With `cut.left` it is an error that is allowed, and the share rests on where the output is.
    """
    share, left, slack = cut.parameters[q], cut.left[q], cut.slack[q]
    wanted = share
    if left > 0.0:
        wanted = max(share, min(1.0, left / (OPTIMISM * cut.width[q] + slack)))
    mass, bar, place = _sum_weights(scratch, 0, size, view.level), MOST_PRODUCT, 0
    while True:
        guess = guess_place(
            view, scratch.counts, wanted, place, max(mass, 1.0), np.float64(view.stride)
        )
        before, place = size, max(place, guess)
        new = LOWEST if place >= GUESS_BINS else bar_below(view, place / BINS_PER_NAT)
        bar, size = _lower(head, query, scale, row, new, bar, size, scratch)
        mass += _sum_weights(scratch, before, size, view.level)
        missed = _missed(view, row, bar)
        if missed == 0.0 or missed <= wanted * (mass + missed):
            if not left > 0.0 or missed == 0.0:
                return Read(size, missed, view.level, -np.inf, 0.0)
            top, total = average(head.values, scratch, size, output)
            allowed = max(share, left / (_furthest(output, cut.low[q], cut.high[q]) + slack))
            if missed <= allowed * (mass + missed):
                return Read(size, missed, view.level, top, total)
            wanted = max(share, 0.97 * allowed)
        place = min(place + _step(missed, wanted * (mass + missed)), GUESS_BINS)


@part
def _place_of(counts, wanted):
    """First bin before which there are so many; GUESS_BINS where only the open one may do."""
    place, seen = 0, 0
    while place < GUESS_BINS and seen < wanted:
        seen += counts[place]
        place += 1
    return place


@part
def _nats_of(view, row, wanted, scratch):
    """How far below L so many keys of the histogram's are, about, and how finely that is known."""
    per_nat, place = np.float64(BINS_PER_NAT), _place_of(scratch.counts, wanted)
    # Scores of any size, so wider bins until the open one is not needed.
    while place >= GUESS_BINS and per_nat * view.unit > 1e-7:
        per_nat /= 8.0
        per_bin = np.float32(min(per_nat * view.unit, 1e30))
        sample_histogram(row, view.at, per_bin, view.stride, scratch.bins, scratch.counts)
        place = _place_of(scratch.counts, wanted)
    return place / per_nat, 1.0 / per_nat


@part
def _read_top(head, query, scale, rank, error, row, size, view, scratch):
    """Read until the `rank` keys of largest score are among those read: how many, and the bar."""
    expected, uncoded = rank / np.float64(view.stride), size
    wanted = expected + 3.0 * math.sqrt(expected) + 3.0 if view.stride > 1 else expected
    bar, (nats, step) = MOST_PRODUCT, _nats_of(view, row, wanted, scratch)
    while True:
        bar, size = _lower(head, query, scale, row, bar_below(view, nats), bar, size, scratch)
        # Those without a code are as good as any, so not as good as these.
        if size - uncoded >= rank or bar <= LOWEST:
            break
        nats, step = nats + step, 2.0 * step
    if not 0 < rank <= size:
        return size, bar
    nats = view.level - _ranked(rank, size, scratch) + error
    bar, size = _lower(head, query, scale, row, bar_below(view, nats), bar, size, scratch)
    return size, bar


@part
def _ranked(rank, size, scratch):
    """The score of such rank, from the best down, of `size` chosen."""
    for i in range(size):
        scratch.weights[i] = scratch.scores[i]
    select(scratch.weights[:size], scratch.places, size - rank)
    return scratch.weights[size - rank]


@part
def _drop(scratch, i, level):
    """The mass of chosen key i, which is not read after all."""
    return math.exp(min(scratch.scores[i] - level, LARGEST_EXPONENT))


@part
def _keep_best(rank, level, size, scratch):
    """Keep the `rank` chosen of largest score, ties to the earlier; the mass of the others."""
    if size <= rank:
        return size, 0.0
    scores, chosen = scratch.scores, scratch.chosen
    least, ties = np.inf, 0
    if rank:
        least, ties = _ranked(rank, size, scratch), rank
        for i in range(size):
            ties -= scores[i] > least
    kept, left = 0, 0.0
    for i in range(size):
        if scores[i] > least or (scores[i] == least and ties > 0):
            ties -= scores[i] == least
            scores[kept], chosen[kept] = scores[i], chosen[i]
            kept += 1
        else:
            left += _drop(scratch, i, level)
    return kept, left


@part
def _keep_inside(keys, normal, offset, scale, error, level, size, scratch):
    """Keep the chosen with <q, k> >= offset, exactly decided; the mass of the others."""
    scores, chosen, b = scratch.scores, scratch.chosen, scale * offset
    around = error + 4e-16 * abs(b)
    kept, left = 0, 0.0
    for i in range(size):
        away = scores[i] - b
        inside = away > around
        if abs(away) <= around:
            key = keys[chosen[i]]
            inside = exact_sign(normal, key, key[:0], offset, scratch.limbs) >= 0
        if inside:
            scores[kept], chosen[kept] = scores[i], chosen[i]
            kept += 1
        else:
            left += _drop(scratch, i, level)
    return kept, left


@part
def _read(head, query, scale, cut, q, bounds, length, row, scratch, output):
    """Read for one query what its cut asks for."""
    error, kind = cut.errors[q], cut.kind
    size = list_uncoded(head.always, length, row, scratch.chosen)
    score_chosen(head.keys, query, scale, scratch.chosen, 0, size, scratch.scores)
    level, missed, left, coded = largest(scratch.scores[:size]), 0.0, 0.0, size < length
    view = View(level, np.int32(0), 0.0, 1.0, np.float32(1.0), 0.0, 1.0, 1, 1.0)
    if coded:
        view = look(head, query, scale, bounds, error, row, level, scratch)
        level = view.level
    if kind == SHARE:
        if coded:
            return read_share(head, query, scale, cut, q, row, size, view, scratch, output)
        return Read(size, 0.0, level, -np.inf, 0.0)
    bar = LOWEST
    if kind == TOP_R:
        rank = np.int64(cut.parameters[q])
        if coded:
            size, bar = _read_top(head, query, scale, rank, error, row, size, view, scratch)
        level = largest(scratch.scores[:size])
        size, left = _keep_best(rank, level, size, scratch)
    else:
        if coded:
            bar = _bar_of_offset(bounds, cut.offsets[q], view.at)
            before, size = size, collect(row, bar, MOST_PRODUCT, scratch.chosen, size)
            score_chosen(head.keys, query, scale, scratch.chosen, before, size, scratch.scores)
        level = largest(scratch.scores[:size])
        size, left = _keep_inside(
            head.keys, query, cut.offsets[q], scale, error, level, size, scratch
        )
    if coded:
        missed = _missed(view, row, bar) * math.exp(min(view.level - level, LARGEST_EXPONENT))
    missed = (missed + left * math.exp(min(error, LARGEST_EXPONENT))) * SURE
    return Read(size, missed, level, -np.inf, 0.0)


@kernel
def make_scratch(slots):
    """Room for one query after another over so many slots."""
    return Scratch(
        np.empty(slots + 1, np.int64),
        np.empty(slots),
        np.empty(slots),
        np.empty(slots, np.int64),
        np.empty(GUESS_BINS + 1, np.int64),
        np.empty(TILE, np.int32),
        np.zeros(LIMBS, np.int64),
    )


@part
def take(got, head, q, length, scratch, readings):
    """Enter what was read for query q."""
    size, top, mass = got.size, got.top, got.mass
    readings.looked[q], readings.reported[q], readings.missed[q] = length, size, got.missed
    if size:
        if not mass > 0.0:
            top, mass = average(head.values, scratch, size, readings.output[q])
        readings.top[q], readings.mass[q] = top, mass
        # From units of exp(level) to units of exp(top).
        moved = math.exp(min(got.level - top, LARGEST_EXPONENT))
        readings.missed[q] = got.missed * moved * SURE if got.missed else 0.0


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
    scratch = make_scratch(slots)
    block = BLOCK if m > 1 else 1
    rows = filled if filled.size else np.empty((block, slots), np.int32)
    for first in range(0, m, block):
        last = min(first + block, m)
        if not filled.size:
            tiles = (np.max(lengths[first:last]) + TILE - 1) // TILE
            fill_tiles(codes, head.always, aims.weights, first, block, 0, tiles, rows)
        for q in range(first, last):
            length = lengths[q]
            if not length:
                continue
            row, output = rows[q - first, : (length + TILE - 1) // TILE * TILE], readings.output[q]
            got = _read(
                head, queries[q], scale, cut, q, aims.bounds[q], length, row, scratch, output
            )
            take(got, head, q, length, scratch, readings)


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
    chosen, scores = np.empty(slots + 1, np.int64), np.empty(slots)
    rows = np.empty((BLOCK, slots), np.int32)
    for first in range(0, m, BLOCK):
        last = min(first + BLOCK, m)
        tiles = (np.max(lengths[first:last]) + TILE - 1) // TILE
        fill_tiles(codes, head.always, aims.weights, first, BLOCK, 0, tiles, rows)
        for q in range(first, last):
            row = rows[q - first, : (lengths[q] + TILE - 1) // TILE * TILE]
            size = list_uncoded(head.always, lengths[q], row, chosen)
            bar = bar_of(aims.bounds[q, 0], aims.bounds[q, 1], offsets[q])
            size = collect(row, max(bar, LOWEST), MOST_PRODUCT, chosen, size)
            score_chosen(head.keys, queries[q], scale, chosen, 0, size, scores)
            average_relu(
                head.values, chosen[:size], scores[:size], threshold, power, errors[q], q, readings
            )
