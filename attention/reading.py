"""Reading keys: filter scores of candidates, float64 scores of the keys chosen, weighted values.

Everything a certificate needs is measured here: the mass that was read, the mass that may have been
missed, and how far rounding may have moved the weights.
"""

import math
from typing import NamedTuple

import numpy as np

from halfspace.jit import MARGIN_COVERED, kernel, part
from halfspace.predicate import LIMBS
from halfspace.prefetch import prefetch_row, rows_ahead
from halfspace.query import prepare
from halfspace.tiles import (
    TILE,
    Tiles,
    lowest_lane,
    popcount,
    tile_mask,
    tile_scores,
    used_lanes,
)

from .exponential import LARGEST_EXPONENT
from .selection import (
    ABSENT,
    BINS,
    THRESHOLD,
    add_to_histogram,
    fill_bins,
    fill_masses,
    find_cut,
    select_keys,
)
from .spread import Spread

ORDER_FREE = MARGIN_COVERED | {"reassoc"}
"""Flags of dot products whose bound holds for any order of summation."""

NO_NAN = frozenset({"nnan", "nsz"})
"""Flags of a maximum over scores, which are checked never to be NaN."""

COARSEST_ERROR = 0.5
"""Filter scores whose error, in nats, reaches this are replaced by float64 ones."""

ADDED_AT_ONCE = 8
"""Weighted values that are added up before they are added to an output."""

_ONE = np.uint64(1)


class Head(NamedTuple):
    """Keys and values of one head, by slot of its index. All arrays are read-only."""

    tiles: Tiles
    first: np.ndarray  # (nodes,) first tile below each node of the index
    last: np.ndarray  # (nodes,) one past the last
    keys: np.ndarray  # (n, head_dim)
    values: np.ndarray  # (n, value_dim)


class Candidates(NamedTuple):
    """Keys that each query looks at, as covers; empty `indptr`: every visible key."""

    indptr: np.ndarray  # (m + 1,) or (0,) int64
    parts: np.ndarray
    masks: np.ndarray
    floors: np.ndarray  # (m,) float64: scores of keys not in the cover are below


class Cut(NamedTuple):
    """What queries read of their candidates; kinds as in `selection`."""

    kind: int
    parameters: np.ndarray  # (m,) float64
    offsets: np.ndarray  # (m,) float64, for THRESHOLD: keys with <q, k> >= offset
    spread: Spread  # of the values of all heads
    heads: np.ndarray  # (m,) int64, whose
    errors: np.ndarray  # (m,) float64, bound on the rounding error of a float64 score
    left: np.ndarray  # (m,) float64, error that may be missed mass; 0 where only the share counts
    slack: np.ndarray  # (m,) float64, rounding of the output
    low: np.ndarray  # (m, value_dim) float64, range of the values
    high: np.ndarray  # (m, value_dim) float64
    width: np.ndarray  # (m,) float64, of the widest
    radius: np.ndarray  # (m,) float64, root of the largest of the spread's squares

    def of(self, rows: object) -> "Cut":
        """That of some queries."""
        some = (field if field is self.spread else field[rows] for field in self[1:])
        return Cut(self.kind, *some)


class Readings(NamedTuple):
    """What was read for each query. Masses are in units of exp(top)."""

    output: np.ndarray  # (m, value_dim) float64, weighted mean of the values read
    top: np.ndarray  # (m,) logarithm of the largest weight read, -inf if none
    mass: np.ndarray  # (m,) sum of the weights read
    missed: np.ndarray  # (m,) upper bound on the mass not read
    drift: np.ndarray  # (m,) upper bound on the sum of |weight - exact weight|
    reported: np.ndarray  # (m,) int64, keys read
    looked: np.ndarray  # (m,) int64, keys that may have weight
    peak: np.ndarray  # (m,) upper bound on the weight of any key not read, infinite if not known


def make_readings(m: int, value_dim: int) -> Readings:
    """Return readings to be filled."""
    return Readings(
        np.zeros((m, value_dim)),
        np.full(m, -np.inf),
        np.zeros(m),
        np.zeros(m),
        np.zeros(m),
        np.zeros(m, np.int64),
        np.zeros(m, np.int64),
        np.full(m, np.inf),
    )


@part(flags=ORDER_FREE)
def dot(query, keys, slot):
    """<query, keys[slot]> in float64, summed in any order."""
    total = 0.0
    for j in range(query.size):
        total += query[j] * np.float64(keys[slot, j])
    return total


@part(flags=MARGIN_COVERED)
def add_values(output, weights, values, slots):
    """Add the weighted values of the slots to `output`, eight at a time."""
    eights, ahead = slots.size - slots.size % ADDED_AT_ONCE, rows_ahead(values)
    for i in range(0, eights, ADDED_AT_ONCE):
        for j in range(i + ahead, min(i + ahead + ADDED_AT_ONCE, slots.size)):
            prefetch_row(values, slots[j])
        a, b, c, d = weights[i], weights[i + 1], weights[i + 2], weights[i + 3]
        e, f, g, h = weights[i + 4], weights[i + 5], weights[i + 6], weights[i + 7]
        p, q, r, s = slots[i], slots[i + 1], slots[i + 2], slots[i + 3]
        t, u, v, w = slots[i + 4], slots[i + 5], slots[i + 6], slots[i + 7]
        for k in range(output.size):
            some = (a * values[p, k] + b * values[q, k]) + (c * values[r, k] + d * values[s, k])
            more = (e * values[t, k] + f * values[u, k]) + (g * values[v, k] + h * values[w, k])
            output[k] += some + more
    for i in range(eights, slots.size):
        for k in range(output.size):
            output[k] += weights[i] * values[slots[i], k]


@part
def _list_tiles(first, last, indptr, parts, masks, q, count, tiles, lanes):
    """Tiles and lanes, of the first `count` slots, that query q looks at; returns their number."""
    used = 0
    if not indptr.size:
        for t in range((count + TILE - 1) // TILE):
            tiles[used], lanes[used] = t, used_lanes(count, t)
            used += 1
        return used
    for s in range(indptr[q], indptr[q + 1]):
        if parts[s] >= 0:
            lanes[used] = masks[s] & used_lanes(count, parts[s])
            tiles[used] = parts[s]
            used += 1
            continue
        for t in range(first[~parts[s]], last[~parts[s]]):
            tiles[used], lanes[used] = t, used_lanes(count, t)
            used += 1
    return used


@part
def _score_tiles(data, tiles, lanes, narrow, unit, lane_scores, scores):
    """Scores by the filter, in nats, of the listed lanes; ``-inf`` elsewhere."""
    for i in range(tiles.size):
        tile_scores(data, tiles[i], narrow, lane_scores)
        for lane in range(TILE):
            listed = (lanes[i] >> np.uint64(lane)) & _ONE
            scores[i * TILE + lane] = unit * lane_scores[lane] if listed else -np.inf


@part
def _score_keys(keys, tiles, lanes, query, scale, scores):
    """Scores in float64, in nats, of the listed lanes; ``-inf`` elsewhere."""
    for i in range(tiles.size):
        for lane in range(TILE):
            listed = (lanes[i] >> np.uint64(lane)) & _ONE
            slot = tiles[i] * TILE + lane
            scores[i * TILE + lane] = scale * dot(query, keys, slot) if listed else -np.inf


@part
def score_lanes(
    data, keys, tiles, lanes, row, query, narrow, widest, scale, rounding, lane_scores, scores
):
    """Scores, in nats, of the listed lanes, ``-inf`` elsewhere; returns a bound on their error.

    By the filter, for keys of norm <= `widest`; in float64, off by `rounding`, if that is coarse.
    """
    unit = scale / query.factors[0] / query.factors[1]
    error = unit * (query.relative * widest + query.absolute)
    if error < COARSEST_ERROR:
        _score_tiles(data, tiles, lanes, narrow, unit, lane_scores, scores)
        return error
    _score_keys(keys, tiles, lanes, row, scale, scores)
    return rounding


@part(flags=NO_NAN)
def largest(scores):
    """Largest score; ``-inf`` for none."""
    best = -np.inf
    for i in range(scores.size):
        best = max(best, scores[i])
    return best


@part
def _drop_outside(data, norms, tiles, lanes, queries, q, narrow, query, lane_scores, limbs, bins):
    """Take lanes outside the half-space, exactly decided, out of their bins."""
    for i in range(tiles.size):
        inside, _ = tile_mask(
            data, norms, tiles[i], lanes[i], queries, q, narrow, query, lane_scores, limbs
        )
        for lane in range(TILE):
            if not (inside >> np.uint64(lane)) & _ONE:
                bins[i * TILE + lane] = ABSENT


@part
def average_softmax(keys, values, slots, query, scale, weights, output):
    """Softmax-weighted mean of the chosen values; returns the top score and the mass."""
    for i in range(slots.size):
        weights[i] = scale * dot(query, keys, slots[i])
    top, mass = largest(weights), 0.0
    for i in range(slots.size):
        weights[i] = math.exp(weights[i] - top)
        mass += weights[i]
    # Normalised first, so that no sum exceeds the largest value.
    for i in range(slots.size):
        weights[i] /= mass
    add_values(output, weights, values, slots)
    return top, mass


@kernel
def softmax_rows(head, candidates, queries, lengths, cut, scale, readings):
    """Softmax attention of one head for many queries.

    Parameters
    ----------
    head : Head
    candidates : Candidates
        A query's best key is always among them.
    queries : float64 array, shape (m, head_dim)
    lengths : int64 array, shape (m,)
        Visible keys: the first so many slots. All of them where the candidates are covers.
    cut : Cut
    scale : float
    readings : Readings
        Filled.
    """
    data, norms, _ = head.tiles
    keys, values, first, last = head.keys, head.values, head.first, head.last
    indptr, parts, masks, floors = candidates
    kind, parameters, offsets, errors = cut.kind, cut.parameters, cut.offsets, cut.errors
    outputs, tops, masses, missing, _, reported, looked, _ = readings
    room = data.shape[0]
    narrow, lane_scores = np.empty(data.shape[1], data.dtype), np.empty(TILE, data.dtype)
    tiles, lanes = np.empty(room, np.int64), np.empty(room, np.uint64)
    scores, bins = np.empty(room * TILE), np.empty(room * TILE, np.int32)
    chosen, places = np.empty(room * TILE + 1, np.int64), np.empty(room * TILE, np.int64)
    spare, counts = np.empty(room * TILE), np.empty(BINS + 1, np.int64)
    kept, missed = np.empty(BINS + 1), np.empty(BINS + 1)
    limbs, widest = np.zeros(LIMBS, np.int64), 0.0
    for t in range(room):
        widest = max(widest, norms[t])
    for q in range(queries.shape[0]):
        used = _list_tiles(first, last, indptr, parts, masks, q, lengths[q], tiles, lanes)
        if not used:
            continue
        looked[q] = lengths[q]
        query = prepare(queries[q], offsets[q], True, narrow)
        found, listed, mine = scores[: used * TILE], lanes[:used], tiles[:used]
        error = score_lanes(
            data,
            keys,
            mine,
            listed,
            queries[q],
            query,
            narrow,
            widest,
            scale,
            errors[q],
            lane_scores,
            found,
        )
        best, binned = largest(found), bins[: used * TILE]
        fill_bins(found, best, binned)
        counts[:] = 0
        add_to_histogram(binned, 1, counts)
        if kind == THRESHOLD:
            _drop_outside(
                data, norms, mine, listed, queries, q, narrow, query, lane_scores, limbs, binned
            )
            add_to_histogram(binned, -1, counts)
        beyond, unseen = 0.0, lengths[q]
        for i in range(used):
            unseen -= popcount(lanes[i])
        if unseen:
            beyond = unseen * math.exp(min(LARGEST_EXPONENT, floors[q] - best)) * (1.0 + 1e-9)
        widen = math.exp(min(LARGEST_EXPONENT, error + 1e-12 * (1.0 + abs(best))))
        fill_masses(counts, widen, beyond, kept, missed)
        end, extra, left = BINS, 0, missed[0]
        if kind != THRESHOLD:
            end, extra = find_cut(kind, parameters[q], counts, kept, missed)
            left = missed[end]
        size = select_keys(found, binned, mine, end, extra, spare, places, chosen)
        reported[q], missing[q] = size, left
        if size:
            tops[q], masses[q] = average_softmax(
                keys, values, chosen[:size], queries[q], scale, spare[:size], outputs[q]
            )
            # From units of exp(best) to units of exp(top).
            missing[q] = left * math.exp(min(LARGEST_EXPONENT, best - tops[q])) * (1.0 + 1e-9)


@part
def raised(x, power):
    """x^power by repeated products: off by power - 1 units of rounding at most."""
    result = 1.0
    for _ in range(power):
        result *= x
    return result


@part
def relu_drift(ratio, error, power):
    """Bound on what an error of such size in `ratio` may do to max(0, ratio)^power."""
    # A hair more than the error, so that rounding of this sum does not matter either.
    most = ratio + error * (1.0 + 1e-9)
    return power * error * raised(most, power - 1) if most > 0.0 else 0.0


@part
def average_relu(values, slots, scores, threshold, power, error, q, readings):
    """Readings of query q: every slot has weight max(0, score - threshold)^power.

    `slots` and `scores` are used up; `error` bounds that of a score.
    """
    size = slots.size
    for i in range(size):
        scores[i] -= threshold
    readings.looked[q] = size
    unit = largest(scores)
    if not unit > 0.0:
        return
    # Weights in units of the largest: powers of the excess itself may over- or underflow.
    error, active, drift, mass = error / unit, 0, 0.0, 0.0
    for i in range(size):
        ratio = scores[i] / unit
        drift += relu_drift(ratio, error, power)
        if ratio > 0.0:
            slots[active], scores[active] = slots[i], raised(ratio, power)
            mass += scores[active]
            active += 1
    readings.reported[q], readings.top[q] = active, power * math.log(unit)
    readings.drift[q], readings.mass[q] = drift, mass
    for i in range(active):
        scores[i] /= mass
    add_values(readings.output[q], scores[:active], values, slots[:active])


@kernel
def relu_rows(head, candidates, queries, lengths, scale, threshold, power, errors, readings):
    """ReLU attention of one head for many queries; every candidate is read.

    Parameters
    ----------
    head, queries, lengths, scale, readings
        As for `softmax_rows`.
    candidates : Candidates
        Covers that hold every key whose real score exceeds `threshold`.
    errors : float64 array, shape (m,)
        Bound on the rounding error of a score.
    """
    keys, values, first, last = head.keys, head.values, head.first, head.last
    indptr, parts, masks, _ = candidates
    room = head.tiles.data.shape[0]
    tiles, lanes = np.empty(room, np.int64), np.empty(room, np.uint64)
    slots, scores = np.empty(room * TILE, np.int64), np.empty(room * TILE)
    for q in range(queries.shape[0]):
        used = _list_tiles(first, last, indptr, parts, masks, q, lengths[q], tiles, lanes)
        size = 0
        for i in range(used):
            while lanes[i]:
                slots[size] = tiles[i] * TILE + lowest_lane(lanes[i])
                lanes[i] &= lanes[i] - _ONE
                scores[size] = scale * dot(queries[q], keys, slots[size])
                size += 1
        average_relu(values, slots[:size], scores[:size], threshold, power, errors[q], q, readings)
