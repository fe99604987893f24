"""PartitionTree."""

import math
import os

import numpy as np

from . import parallel
from .index import Index
from .jit import kernel, part
from .kd_tree import divide, principal_axis
from .quickselect import select
from .tiles import TILE, make_tiles
from .tree import FANOUT, BoundedTree, cover_tree, make_tree, top_tree

CLASSES = int(os.environ.get("CLASSES", 8))
PLANES = int(os.environ.get("PLANES", 64))
SAMPLE = int(os.environ.get("SAMPLE", 512))
CANDIDATES = int(os.environ.get("CANDIDATES", 12))
ALPHA = float(os.environ.get("ALPHA", 0.5))
DOUBLE = float(os.environ.get("DOUBLE", 2.0))
GENERIC = float(os.environ.get("GENERIC", 0.25))
THROUGH = 9


@part
def _uniform(state):
    """Next of Lehmer's pseudo-random numbers in (0, 1)."""
    state[0] = state[0] * 48271 % 2147483647
    return state[0] / 2147483647.0


@part
def _plane_through(sample, state, normal, basis):
    """A normal of a plane through random points of the sample; returns one of the points."""
    s, d = sample.shape
    first = int(_uniform(state) * s)
    for j in range(d):
        normal[j] = _uniform(state) + _uniform(state) + _uniform(state) - 1.5
    for k in range(min(d - 1, basis.shape[0])):
        row = int(_uniform(state) * s)
        for j in range(d):
            basis[k, j] = sample[row, j] - sample[first, j]
        for i in range(k + 1):
            _remove(basis[k] if i < k else normal, basis[i if i < k else k])
    return first


@part
def _remove(vector, axis):
    """Take the part along an axis off the vector."""
    dot = norm = 0.0
    for j in range(axis.size):
        dot += vector[j] * axis[j]
        norm += axis[j] * axis[j]
    if norm > 0.0:
        for j in range(axis.size):
            vector[j] -= dot / norm * axis[j]


@part
def _scores(sample, normal, alive, keys, rows):
    """Scores of the sample points listed first in rows."""
    for i in range(alive):
        key = 0.0
        for j in range(normal.size):
            key += normal[j] * sample[rows[i], j]
        keys[i] = key


@part
def _add_planes(sample, normals, offsets, given, state, basis, keys, rows):
    """Fill up the test set."""
    s, d = sample.shape
    for p in range(given, offsets.size):
        normal = normals[p]
        generic = given == 0 or _uniform(state) < GENERIC
        if generic:
            first = _plane_through(sample, state, normal, basis)
        else:
            a, b = int(_uniform(state) * given), int(_uniform(state) * given)
            share = _uniform(state)
            for j in range(d):
                normal[j] = share * normals[a, j] + (1.0 - share) * normals[b, j]
        norm = 0.0
        for j in range(d):
            norm += normal[j] * normal[j]
        if norm > 0.0:
            for j in range(d):
                normal[j] /= math.sqrt(norm)
        for i in range(s):
            rows[i] = i
        _scores(sample, normal, s, keys, rows)
        if generic and _uniform(state) < 0.25:
            offsets[p] = keys[first]
        else:
            depth = max(1, int(math.exp(_uniform(state) * math.log(s / 2))))
            select(keys[:s], rows, s - depth)
            offsets[p] = keys[s - depth]


@part
def _crosses(sides, p, mask):
    above = below = np.uint64(0)
    for word in range(mask.size):
        above |= mask[word] & sides[p, word]
        below |= mask[word] & ~sides[p, word]
    return above != 0 and below != 0


@kernel
def partition(points, order, sizes, normals, offsets, given, seed, crossed):
    """Reorder points into classes of such sizes."""
    m, d = points.shape
    planes, s = offsets.size, min(m, SAMPLE)
    words = -(-s // 64)
    state = np.full(1, 1 + seed % 2147483645, np.int64)
    sample, basis = np.empty((s, d)), np.empty((THROUGH, d))
    keys, rows = np.empty(s), np.empty(s, np.int64)
    all_keys, all_rows = np.empty(m, points.dtype), np.empty(m, np.int32)
    moved = np.empty_like(points)
    for i in range(s):
        row = min(m - 1, int((i + _uniform(state)) * m / s)) if s < m else i
        for j in range(d):
            sample[i, j] = points[row, j]
    _add_planes(sample, normals, offsets, given, state, basis, keys, rows)
    sides = np.zeros((planes, words), np.uint64)
    for i in range(s):
        rows[i] = i
    for p in range(planes):
        _scores(sample, normals[p], s, keys, rows)
        for i in range(s):
            if keys[i] >= offsets[p]:
                sides[p, i // 64] |= np.uint64(1) << np.uint64(i % 64)
    weights = np.ones(planes)
    alive, first = s, 0
    mask, rest, best_mask = np.empty(words, np.uint64), np.empty(words, np.uint64), np.empty(words, np.uint64)
    axis, best_axis, product = np.empty(d), np.empty(d), np.empty(d)
    scratch = np.empty((256, d))
    for c in range(sizes.size - 1):
        left = m - first
        share = sizes[c] / left
        take = min(max(1, int(share * alive + 0.5)), alive - 1)
        total = weights.sum()
        best = np.inf
        for candidate in range(CANDIDATES + 2):
            if candidate < CANDIDATES:
                at = _uniform(state) * total
                p = 0
                while p < planes - 1 and at >= weights[p]:
                    at -= weights[p]
                    p += 1
                for j in range(d):
                    axis[j] = -normals[p, j]
            elif candidate == CANDIDATES:
                principal_axis(points[first:], scratch, axis, product)
            else:
                for j in range(d):
                    axis[j] = -axis[j]
            _scores(sample, axis, alive, keys, rows)
            select(keys[:alive], rows, take)
            mask[:] = np.uint64(0)
            rest[:] = np.uint64(0)
            for i in range(alive):
                bit = np.uint64(1) << np.uint64(rows[i] % 64)
                if i < take:
                    mask[rows[i] // 64] |= bit
                else:
                    rest[rows[i] // 64] |= bit
            cost = 0.0
            for p in range(planes):
                cost += weights[p] * (
                    _crosses(sides, p, mask) * sizes[c] ** ALPHA
                    + _crosses(sides, p, rest) * (left - sizes[c]) ** ALPHA
                )
            if cost < best:
                best = cost
                best_axis[:] = axis
                best_mask[:] = mask
        divide(points[first:], order[first:], sizes[c], best_axis, all_keys, all_rows, moved)
        first += sizes[c]
        for p in range(planes):
            crossed[c, p] = _crosses(sides, p, best_mask)
            if crossed[c, p]:
                weights[p] *= DOUBLE
        kept = 0
        for i in range(alive):
            rows[i] = rows[i]
        for i in range(alive):
            row = rows[i]
            if not (best_mask[row // 64] >> np.uint64(row % 64)) & np.uint64(1):
                rows[kept] = row
                kept += 1
        alive = kept
    rest[:] = np.uint64(0)
    for i in range(alive):
        rest[rows[i] // 64] |= np.uint64(1) << np.uint64(rows[i] % 64)
    for p in range(planes):
        crossed[sizes.size - 1, p] = _crosses(sides, p, rest)


def _class_tiles(tiles):
    span = 1
    while span * FANOUT < tiles:
        span *= FANOUT
    units = -(-tiles // span)
    classes = min(CLASSES, units)
    edges = [units * i // classes * span for i in range(classes)] + [tiles]
    return np.diff(edges)


def order_points(points, queries, seed):
    n, d = points.shape
    moved, order = points.copy(), np.arange(n, dtype=np.int32)

    def split(first, last, normals, offsets):
        tiles = -(-(last - first) // TILE)
        sizes = _class_tiles(tiles) * TILE
        sizes[-1] = last - first - sizes[:-1].sum()
        w, b = np.zeros((PLANES, d)), np.zeros(PLANES)
        given = min(len(normals), PLANES)
        w[:given], b[:given] = normals[:given], offsets[:given]
        crossed = np.zeros((len(sizes), PLANES), np.bool_)
        partition(moved[first:last], order[first:last], sizes, w, b, given, seed * 1000003 + first * 31 + tiles, crossed)
        ends = first + np.cumsum(sizes)
        return [
            (end - size, end, w[c], b[c])
            for size, end, c in zip(sizes.tolist(), ends.tolist(), crossed, strict=True)
            if size > TILE
        ]

    ranges = [(0, n, np.zeros((0, d)), np.zeros(0))] if n > TILE else []
    while ranges:
        found = parallel.run([lambda r=r: split(*r) for r in ranges])
        ranges = [r for some in found for r in some]
    return order


class PartitionTree(Index):
    """PartitionTree."""

    _cover_kernel = cover_tree
    _top_kernel = top_tree

    def __init__(self, points, *, ids=None, weights=None, queries=None, seed=0):
        self._queries, self._seed = queries, seed
        super().__init__(points, ids=ids, weights=weights)

    def _build(self, points, ranks, weights):
        order = order_points(points, self._queries, self._seed)
        return make_tree(make_tiles(points, order, ranks), weights[order]), order

    def _query_nanoseconds(self):
        n, d = len(self), self.dim
        return 1000.0 + min(0.1 * n * (d + 4), 20.0 * d * n ** (1.0 - 1.0 / d))
