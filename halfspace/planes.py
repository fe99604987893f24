"""Test sets: hyperplanes that stand for the queries to come, and which of them cross a class.

Of a node's points a sample is kept, and for each test plane one bit a sample point: the side it is
on. Whether a plane crosses a class, the hull of some of the points, is then a few operations on
words. Planes are of two kinds:

* through d random points of the node (Matousek's), which fall as the points do in any affine frame;
* *shallow* ones, in the directions of planes known to cross the node, or blends of two of them, at
  a depth log-uniform between `SHALLOWEST` points and half of all. Queries that report few points
  are of this kind, and the bound n^(1-1/floor(d/2)) is about them.

Source: Matousek 1992, "Reporting points in halfspaces"; test sets there are section 3.
"""

import math
from typing import NamedTuple

import numpy as np

from .jit import part
from .quickselect import select

SHALLOWEST = 16
"""Least points above a shallow test plane."""

THROUGH_POINTS = 0.25
"""Share of planes through random points among those added to a test set."""

DIRECTIONS = 8
"""Directions a plane through random points contains, at most: beyond, its normal is random."""

_ONE = np.uint64(1)


class PlaneSet(NamedTuple):
    """Test planes {x : <w, x> = b} of one node, and their sides of its sample."""

    sample: np.ndarray  # (s, d) points
    normals: np.ndarray  # (p, d) unit
    offsets: np.ndarray  # (p,)
    sides: np.ndarray  # (p, words) uint64: bit i % 64 of word i // 64, is sample point i above?
    weights: np.ndarray  # (p,) doubled whenever the plane crosses one class more
    live: np.ndarray  # (p,) bool: crosses the class that is being split


@part
def uniform(state):
    """Next of Lehmer's pseudo-random numbers in (0, 1); `state` (1,) int64 in 1 … 2^31 - 2."""
    state[0] = state[0] * 48271 % 2147483647
    return state[0] / 2147483647.0


@part
def draw_sample(points, sample, state):
    """Fill `sample` (s, d) with points evenly spread over the rows."""
    m, s = points.shape[0], sample.shape[0]
    for i in range(s):
        row = i if s == m else min(m - 1, int((i + uniform(state)) * m / s))
        for j in range(points.shape[1]):
            sample[i, j] = points[row, j]


@part
def score_sample(sample, rows, normal, keys):
    """Fill `keys` with the scores of the sample points in `rows`."""
    for i in range(rows.size):
        key = 0.0
        for j in range(normal.size):
            key += normal[j] * sample[rows[i], j]
        keys[i] = key


@part
def _remove(vector, axis):
    """Take the part along the axis off the vector."""
    dot = squares = 0.0
    for j in range(axis.size):
        dot += vector[j] * axis[j]
        squares += axis[j] * axis[j]
    if squares > 0.0:
        for j in range(axis.size):
            vector[j] -= dot / squares * axis[j]


@part
def _normal_through_points(sample, normal, basis, state):
    """Random normal of a plane through random sample points, by Gram-Schmidt."""
    s, d = sample.shape
    for j in range(d):
        normal[j] = uniform(state) + uniform(state) + uniform(state) - 1.5
    first = int(uniform(state) * s)
    for k in range(min(d - 1, basis.shape[0])):
        row = int(uniform(state) * s)
        for j in range(d):
            basis[k, j] = sample[row, j] - sample[first, j]
        for i in range(k):
            _remove(basis[k], basis[i])
        _remove(normal, basis[k])
    return first


@part
def _scale_to_unit(normal):
    squares = 0.0
    for j in range(normal.size):
        squares += normal[j] * normal[j]
    if squares > 0.0:
        norm = math.sqrt(squares)
        for j in range(normal.size):
            normal[j] /= norm


@part
def fill_planes(tests, below, given, through, basis, keys, rows, state):
    """Complete a test set, the first `given` of whose normals are known, and take all sides.

    All offsets are drawn anew, since depths are relative to the node, of `below` points. `through`
    is the share of planes through random points.
    `basis` (k, d), `keys` (s,) and `rows` (s,) are scratch; `rows` is left as 0 … s - 1.
    """
    sample, normals, offsets, sides = tests.sample, tests.normals, tests.offsets, tests.sides
    s, d = sample.shape
    lowest = min(SHALLOWEST, 0.5 * below)
    ratio = 0.5 * below / lowest
    for p in range(offsets.size):
        first = -1
        if p >= given and (given == 0 or uniform(state) < through):
            first = _normal_through_points(sample, normals[p], basis, state)
        elif p >= given:
            a, b = int(uniform(state) * given), int(uniform(state) * given)
            share = uniform(state)
            for j in range(d):
                normals[p, j] = share * normals[a, j] + (1.0 - share) * normals[b, j]
        _scale_to_unit(normals[p])
        for i in range(s):
            rows[i] = i
        score_sample(sample, rows, normals[p], keys)
        if first >= 0 and uniform(state) < THROUGH_POINTS:
            offsets[p] = keys[first]
        else:
            depth = int(lowest * ratio ** uniform(state) * s / below)
            depth = min(max(1, depth), s - 1)
            select(keys, rows, s - depth)
            offsets[p] = keys[s - depth]
        for i in range(s):
            if keys[i] >= offsets[p]:
                sides[p, rows[i] // 64] |= _ONE << np.uint64(rows[i] % 64)
    for i in range(s):
        rows[i] = i


@part
def crosses(sides, p, mask):
    """Whether plane p has sample points of the mask on both sides."""
    above = below = np.uint64(0)
    for word in range(mask.size):
        above |= mask[word] & sides[p, word]
        below |= mask[word] & ~sides[p, word]
    return above != 0 and below != 0


@part
def draw_plane(tests, state):
    """One of the live planes, at random in proportion to weight."""
    total = 0.0
    for p in range(tests.weights.size):
        total += tests.weights[p] * tests.live[p]
    at, drawn = uniform(state) * total, 0
    for p in range(tests.weights.size):
        if tests.live[p]:
            drawn = p
            at -= tests.weights[p]
            if at < 0.0:
                break
    return drawn


@part
def split_cost(tests, front, back, share, exponent):
    """Weight of the live planes that cross the two parts of a class, by the parts' sizes."""
    of_front, of_back, cost = share**exponent, (1.0 - share) ** exponent, 0.0
    for p in range(tests.weights.size):
        if tests.live[p]:
            if crosses(tests.sides, p, front):
                cost += tests.weights[p] * of_front
            if crosses(tests.sides, p, back):
                cost += tests.weights[p] * of_back
    return cost
