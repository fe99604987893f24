"""Points that pass a cascade's leading codes: settled stage by stage, many at a time.

How many lanes of a tile pass is no processor's guess, and a wrong guess takes as long as three
points. So masks that pass are spread out into a list of slots, whose rows are asked for from
memory; when the list is long, and most rows have come, every stage walks it without branches and
keeps what is inside or open at the front of it.
"""

from typing import NamedTuple

import numpy as np

from .code_filter import row_product, row_score
from .jit import kernel, part
from .predicate import exact_sign
from .prefetch import EARLY, prefetch, prefetch_row, rows_ahead
from .query import REGULAR, Halfspace, gamma, rescaled, settled_range
from .tiles import TILE, lowest_lane

LONG = 65536
"""Bytes of rows that a list may be of, about: it is settled then, while they are near."""

_ONE = np.uint64(1)


class Given(NamedTuple):
    """Half-spaces as they came."""

    normals: np.ndarray  # (m, d) float64
    offsets: np.ndarray  # (m,) float64
    like: Halfspace  # one of them made ready, for what all have in common


class Waiting(NamedTuple):
    """Masks that passed, and the list of lanes; queries come side by side."""

    tiles: np.ndarray  # (room,) int64
    queries: np.ndarray  # (room,) int64
    lanes: np.ndarray  # (room,) uint64
    slots: np.ndarray  # (64 room + as many as are not too long,) int64, as those below
    owners: np.ndarray  # int64, queries of the slots
    scores: np.ndarray  # float64, in the floats of the stage
    inside: np.ndarray  # bool, whether that is settled


class Found(NamedTuple):
    """Where covers go, query q's parts from starts[q] on and up to ends[q]."""

    parts: np.ndarray
    masks: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    counts: np.ndarray
    work: np.ndarray
    done: np.ndarray  # (m,) bool, queries that want no more
    decided: np.ndarray  # (m,) int64, last slots that the exact predicate met, or -1
    verdicts: np.ndarray  # (m,) bool, what it said of them
    stop_at_first: bool


@kernel
def make_waiting(room, long):
    """Room for so many masks, one more of no consequence, and a list that they make too long."""
    listed = room * TILE + long
    return Waiting(
        np.empty(room + 1, np.int64),
        np.empty(room + 1, np.int64),
        np.empty(room + 1, np.uint64),
        np.empty(listed, np.int64),
        np.empty(listed, np.int64),
        np.empty(listed),
        np.empty(listed, np.bool_),
    )


class Rows(NamedTuple):
    """Where the rows are that the first stage reads of slots."""

    base: int  # address of that of slot 0
    size: int  # bytes


@part(inline=True)
def first_rows(codes, points):
    """Row codes where there are any, or else points."""
    if codes.shape[0]:
        return Rows(codes.ctypes.data, codes.shape[1])
    return Rows(points.ctypes.data, points.shape[1] * points.itemsize)


@part(inline=True)
def ask_for(rows, slots, first, last):
    """Ask memory for the rows of some slots."""
    for j in range(first, last):
        prefetch(rows.base + rows.size * slots[j], rows.size)


@part(inline=True)
def ask_for_lanes(rows, t, lanes):
    """Ask memory for the rows of lanes of a tile."""
    while EARLY and lanes:
        prefetch(rows.base + rows.size * (t * TILE + lowest_lane(lanes)), rows.size)
        lanes &= lanes - _ONE


@part
def spread(waiting, number, kinds, first):
    """Add the lanes of the first masks to a list of so many; its length."""
    last = first
    for i in range(number):
        slot, q, left = waiting.tiles[i] * TILE, waiting.queries[i], waiting.lanes[i]
        inside = kinds[q] != REGULAR
        while left:
            waiting.slots[last] = slot + lowest_lane(left)
            waiting.owners[last], waiting.inside[last] = q, inside
            last += 1
            left &= left - _ONE
    return last


@part
def _by_rows(codes, bare, targets, waiting, count):
    """Settle slots by row codes; how many are inside or open."""
    kept, slots, owners, inside = 0, waiting.slots, waiting.owners, waiting.inside
    scores, ranges, ahead = waiting.scores, targets.ranges, rows_ahead(codes)
    for j in range(count):
        if not EARLY:
            prefetch_row(codes, slots[min(j + ahead, count - 1)])
        scores[j] = row_product(codes, slots[j], targets.rows, owners[j])
    for j in range(count):
        slot, q, score, sure = slots[j], owners[j], scores[j], inside[j]
        slots[kept], owners[kept], scores[kept], inside[kept] = slot, q, score, sure
        unsaid = (bare[slot // TILE] >> np.uint64(slot % TILE)) & _ONE
        kept += (unsaid != 0) | sure | (not score < ranges[q, 4])
    for j in range(kept):
        slot, q = slots[j], owners[j]
        unsaid = (bare[slot // TILE] >> np.uint64(slot % TILE)) & _ONE
        inside[j] |= (unsaid == 0) & (ranges[q, 2] + scores[j] - ranges[q, 3] > ranges[q, 0])
    return kept


@part
def _by_points(points, norms, given, targets, waiting, count):
    """Settle slots by their points' floats; how many are inside or open."""
    kept, slots, owners, inside = 0, waiting.slots, waiting.owners, waiting.inside
    query, scores = given.like, waiting.scores
    error, ahead = gamma(points.shape[1], query.unit), rows_ahead(points)
    for j in range(count):
        if not EARLY:
            prefetch_row(points, slots[min(j + ahead, count - 1)])
        scores[j] = row_score(points, slots[j], targets.narrow, owners[j])
    for j in range(count):
        slot, q = slots[j], owners[j]
        level, norm = targets.ranges[q, 0], targets.ranges[q, 1]
        query = rescaled(query, given.offsets[q], level, norm, error)
        low, high = settled_range(query, level, norms[slot // TILE])
        sure = inside[j] | (scores[j] > high)
        slots[kept], owners[kept], inside[kept] = slot, q, sure
        kept += sure | (not scores[j] < low)
    return kept


@part
def _same(points, first, second):
    """Whether the points of two slots are the same."""
    same = True
    for k in range(points.shape[1]):
        same &= points[first, k] == points[second, k]
    return same


@part
def _exactly(points, given, q, slot, found, limbs):
    """Whether the point of a slot is inside, by the exact predicate.

    One that is the same as the query's last is not decided again: many ties are of one point.
    """
    if found.decided[q] < 0 or not _same(points, found.decided[q], slot):
        point = points[slot]
        sign = exact_sign(given.normals[q], point, point[:0], given.offsets[q], limbs)
        found.decided[q], found.verdicts[q] = slot, sign >= given.like.least_sign
        found.work[q, 2] += 1
    return found.verdicts[q]


@part
def _add(found, q, slot):
    """Add a point to the cover of query q, whose slots come in order."""
    t, bit, at = slot // TILE, _ONE << np.uint64(slot % TILE), found.ends[q]
    if at > found.starts[q] and found.parts[at - 1] == t:
        found.masks[at - 1] |= bit
    else:
        found.parts[at], found.masks[at], found.ends[q] = t, bit, at + 1
    found.counts[q] += 1
    found.done[q] |= found.stop_at_first


@part
def settle(cascade, given, targets, waiting, count, found, limbs):
    """Settle a list of so many slots, and add what is inside to the covers."""
    points, codes, owners = cascade.points, cascade.rows.codes, waiting.owners
    if codes.shape[0]:
        count = _by_rows(codes, cascade.bare, targets, waiting, count)
        ask_for(first_rows(codes[:0], points), waiting.slots, np.int64(0), count)
    count = _by_points(points, cascade.tiles.norms, given, targets, waiting, count)
    for j in range(count):
        q, slot = owners[j], waiting.slots[j]
        if found.done[q]:
            continue
        if waiting.inside[j] or _exactly(points, given, q, slot, found, limbs):
            _add(found, q, slot)
