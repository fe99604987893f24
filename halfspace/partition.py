"""Partition of one node's points into classes, by multiplicative reweighting.

Each node's points are partitioned into classes, in whole units of the tree's implicit shape. A test
set of hyperplanes (`planes.py`) stands for the queries, all of weight 1. The largest class is split
again and again by one of

* a hyperplane along the normal of a test plane drawn by weight, at the middle or so as to carve a
  cap of one class off;
* a hyperplane across the principal axis, the k-d tree's split;
* an ellipsoid: the outermost points in whitened coordinates, one class of them, are taken off as a
  layer. A plane that cuts few points off then crosses the layer and nothing below it;

whichever costs least: the weight of the planes that cross either part, times the part's size to a
power. Each plane that crosses both parts doubles its weight, so the most crossed planes decide the
next splits. Splitting greedily rather than carving classes one by one off the rest keeps cells
round, and with it bounds tight; layers serve the shallow planes, for which caps alone leave every
class of the hull long.

O(m) for m points and a test set of constant size.

Source: Matousek 1992, "Efficient partition trees"; Chan 2012, "Optimal partition trees".
"""

from typing import NamedTuple

import numpy as np

from .ellipsoid import fit_ellipsoid, inwards
from .jit import kernel, part
from .planes import (
    DIRECTIONS,
    PlaneSet,
    crosses,
    draw_plane,
    draw_sample,
    fill_planes,
    score_sample,
    split_cost,
)
from .quickselect import select
from .splits import AXIS_SAMPLE, divide, principal_axis, project

SAMPLE_SHARE, LEAST_SAMPLE, MOST_SAMPLE = 8, 256, 1024
"""One point in so many is in a node's sample, within these limits."""

LEAST_PLANES, MOST_PLANES = 16, 128
"""Planes of a test set: one for `SAMPLE_SHARE` points, within these limits."""

DRAWN = 12
"""Test planes drawn as candidates for a split."""

LAYER_DIMENSIONS = 16
"""Up to here layers are tried: beyond, all points are outermost."""

SIZE_EXPONENT = 0.9
"""A part counts by its size to this power: by what a plane that crosses it goes on to cross."""

PREFERENCE = 0.95
"""Factor on the principal axis's cost: a sample's noise must not beat the rounder cell."""

_ONE = np.uint64(1)


class _Scratch(NamedTuple):
    keys: np.ndarray  # (s,)
    rows: np.ndarray  # (s,) int64
    front: np.ndarray  # (words,) uint64
    back: np.ndarray  # (words,) uint64
    axis: np.ndarray  # (d,)
    product: np.ndarray  # (d,)
    matrix: np.ndarray  # (d, d)
    frame: np.ndarray  # (d, d)
    sample: np.ndarray  # (d, AXIS_SAMPLE)
    along: np.ndarray  # (AXIS_SAMPLE,)


class _Split(NamedTuple):
    """The best split yet: points of least key come first."""

    axis: np.ndarray  # (d,) of a hyperplane; of an ellipsoid its centre
    frame: np.ndarray  # (d, d) of an ellipsoid
    mask: np.ndarray  # (words,) uint64, sample points that come first


@part
def _copy(source, target):
    for i in range(source.size):
        target[i] = source[i]


@part
def _members(mask, rows):
    """Fill `rows` with the sample points of the mask; returns how many."""
    members = 0
    for i in range(rows.size):
        if (mask[i // 64] >> np.uint64(i % 64)) & _ONE:
            rows[members] = i
            members += 1
    return members


@part
def _cost(tests, share, members, scratch):
    """Cost of parting the sample points in scratch.rows by their keys; fills front and back."""
    keys, rows, front, back = scratch.keys[:members], scratch.rows, scratch.front, scratch.back
    front[:] = np.uint64(0)
    back[:] = np.uint64(0)
    if members:
        first = min(max(1, int(share * members + 0.5)), members - 1)
        select(keys, rows[:members], first)
        for i in range(members):
            bit = _ONE << np.uint64(rows[i] % 64)
            if i < first:
                front[rows[i] // 64] |= bit
            else:
                back[rows[i] // 64] |= bit
    return split_cost(tests, front, back, share, SIZE_EXPONENT)


@part
def _choose(points, tests, members, half, cap, state, scratch, best):
    """Fill `best` with the cheapest split; its share of the points, and whether by an ellipsoid.

    `half` and `cap` are the shares that may be split off.
    """
    sample, axis, rows = tests.sample, scratch.axis, scratch.rows[:members]
    least, best_share, best_round = np.inf, half, False
    for candidate in range(DRAWN + 3):
        share, factor, is_round = half, 1.0, candidate == DRAWN + 2
        if candidate < DRAWN:
            p = draw_plane(tests, state)
            # Caps are cut above the plane; halves, of which one may be larger, on either side.
            share = cap if candidate % 3 == 0 else half
            sign = 1.0 if share == half and candidate % 2 else -1.0
            for j in range(axis.size):
                axis[j] = sign * tests.normals[p, j]
        elif candidate == DRAWN:
            principal_axis(points, scratch.sample, scratch.along, axis, scratch.product)
            factor = PREFERENCE
        elif not is_round:
            for j in range(axis.size):
                axis[j] = -axis[j]
            factor = PREFERENCE
        elif axis.size > LAYER_DIMENSIONS or members < 2:
            continue
        if is_round:
            share = cap
            fit_ellipsoid(sample, rows, axis, scratch.matrix, scratch.frame)
            for i in range(members):
                scratch.keys[i] = inwards(sample[rows[i]], axis, scratch.frame)
        else:
            score_sample(sample, rows, axis, scratch.keys)
        cost = factor * _cost(tests, share, members, scratch)
        if candidate == 0 or cost < least:
            least, best_share, best_round = cost, share, is_round
            _copy(axis, best.axis)
            _copy(scratch.front, best.mask)
            for i in range(axis.size if is_round else 0):
                _copy(scratch.frame[i], best.frame[i])
    return best_share, best_round


@kernel
def partition(points, order, unit, target, normals, given, through, seed, ends, crossed):
    """Reorder points into classes of at most `target` units of `unit` points; how many.

    Parameters
    ----------
    points : float array, shape (m, d)
        Reordered, and `order` (m,) alike.
    normals : float64 array, shape (p, d)
        Normals of test planes; filled up from the first `given` on.
    through : float
        Share of planes through random points among those filled up.
    ends : int64 array, shape (classes,)
        Filled with one past each class's last point, in no order.
    crossed : bool array, shape (classes, p)
        Filled with whether each plane crosses each class.
    """
    m, d = points.shape
    s = min(m, max(LEAST_SAMPLE, min(MOST_SAMPLE, m // SAMPLE_SHARE)))
    words, planes, state = -(-s // 64), normals.shape[0], np.full(1, seed, np.int64)
    none = np.uint64(0)
    tests = PlaneSet(
        np.empty((s, d)),
        normals,
        np.empty(planes),
        np.full((planes, words), none),
        np.ones(planes),
        np.ones(planes, np.bool_),
    )
    scratch = _Scratch(
        np.empty(s),
        np.empty(s, np.int64),
        np.full(words, none),
        np.full(words, none),
        np.empty(d),
        np.empty(d),
        np.empty((d, d)),
        np.empty((d, d)),
        np.empty((d, AXIS_SAMPLE)),
        np.empty(AXIS_SAMPLE),
    )
    best = _Split(np.empty(d), np.empty((d, d)), np.full(words, none))
    keys, some = np.empty(m, points.dtype), np.empty(m, points.dtype)
    starts, masks = np.zeros(ends.size, np.int64), np.full((ends.size, words), none)
    sides, weights = tests.sides, tests.weights
    draw_sample(points, tests.sample, state)
    basis = np.empty((DIRECTIONS, d))
    fill_planes(tests, m, given, through, basis, scratch.keys, scratch.rows, state)
    for i in range(s):
        masks[0, i // 64] |= _ONE << np.uint64(i % 64)
    ends[0], classes = m, 1
    while True:
        c = np.argmax(ends[:classes] - starts[:classes])
        first, last = starts[c], ends[c]
        units = -(-(last - first) // unit)
        if units <= target:
            break
        for p in range(planes):
            tests.live[p] = crosses(sides, p, masks[c])
        members = _members(masks[c], scratch.rows)
        half = max(units // 2 // target, 1) * target * unit / (last - first)
        cap = target * unit / (last - first)
        share, is_round = _choose(
            points[first:last], tests, members, half, cap, state, scratch, best
        )
        if is_round:
            for i in range(first, last):
                keys[i - first] = inwards(points[i], best.axis, best.frame)
        else:
            project(points[first:last], best.axis, keys)
        middle = first + int(share * (last - first) + 0.5)
        divide(points[first:last], order[first:last], middle - first, keys, some)
        starts[classes], ends[classes], ends[c] = middle, last, middle
        for word in range(words):
            masks[classes, word] = masks[c, word] & ~best.mask[word]
            masks[c, word] &= best.mask[word]
        for p in range(planes):
            if crosses(sides, p, masks[c]) and crosses(sides, p, masks[classes]):
                weights[p] *= 2.0
        classes += 1
    for c in range(classes):
        for p in range(planes):
            crossed[c, p] = crosses(sides, p, masks[c])
    return classes
