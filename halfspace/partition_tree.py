"""PartitionTree."""

import math
import os

import numpy as np

from . import parallel
from .bounds import principal_axes
from .index import Index
from .jit import kernel, part
from .kd_tree import divide, principal_axis, project
from .quickselect import select
from .tiles import TILE, make_tiles
from .tree import FANOUT, BoundedTree, cover_tree, make_tree, top_tree

CLASSES = int(os.environ.get("CLASSES", 8))
PLANES = int(os.environ.get("PLANES", 128))
SAMPLE = int(os.environ.get("SAMPLE", 512))
CANDIDATES = int(os.environ.get("CANDIDATES", 12))
ALPHA = float(os.environ.get("ALPHA", 0.9))
REDRAW = int(os.environ.get("REDRAW", 2))
PRIOR = float(os.environ.get("PRIOR", 0.95))
LAYERS = int(os.environ.get("LAYERS", 1))
CAPS = int(os.environ.get("CAPS", 1))
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
def _add_planes(sample, shallowest, normals, offsets, given, state, basis, keys, rows):
    """Fill up the test set."""
    s, d = sample.shape
    for p in range(offsets.size):
        normal = normals[p]
        generic = p >= given and (given == 0 or _uniform(state) < GENERIC)
        if p < given:
            if p % 2 >= REDRAW:
                continue
        elif generic:
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
            depth = shallowest * (0.5 * s / shallowest) ** _uniform(state)
            depth = min(max(1, int(depth)), s - 1)
            select(keys[:s], rows, s - depth)
            offsets[p] = keys[s - depth]


@part
def _crosses(sides, p, mask):
    above = below = np.uint64(0)
    for word in range(mask.size):
        above |= mask[word] & sides[p, word]
        below |= mask[word] & ~sides[p, word]
    return above != 0 and below != 0


@part
def _ellipsoid(sample, rows, alive, mean, matrix, axes):
    """Mean and whitening matrix `axes` (d, d) of the points of the sample listed in rows."""
    d = mean.size
    mean[:] = 0.0
    matrix[:] = 0.0
    for k in range(alive):
        for i in range(d):
            mean[i] += sample[rows[k], i] / alive
    for k in range(alive):
        for i in range(d):
            for j in range(d):
                matrix[i, j] += (sample[rows[k], i] - mean[i]) * (sample[rows[k], j] - mean[j]) / alive
    principal_axes(matrix, axes)
    trace = 0.0
    for i in range(d):
        trace += matrix[i, i]
    for i in range(d):
        scale = 1.0 / math.sqrt(max(matrix[i, i], 1e-12 * trace) + 1e-300)
        for j in range(d):
            axes[i, j] *= scale


@part
def _inwards(points, mean, axes, keys):
    """Fill keys with minus the squared distances from the mean in whitened coordinates."""
    d = mean.size
    for k in range(points.shape[0]):
        key = 0.0
        for i in range(d):
            along = 0.0
            for j in range(d):
                along += axes[i, j] * (points[k, j] - mean[j])
            key -= along * along
        keys[k] = key if key == key else 0.0


@part
def _draw(weights, live, state):
    total = 0.0
    for p in range(weights.size):
        total += weights[p] * live[p]
    at, p = _uniform(state) * total, 0
    while p < weights.size - 1 and (at >= weights[p] * live[p]):
        at -= weights[p] * live[p]
        p += 1
    return p


@kernel
def partition(points, order, unit, target, normals, offsets, given, seed, ends, crossed):
    """Reorder points into classes of at most `target` units of `unit` points."""
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
    _add_planes(sample, 16.0 * s / m, normals, offsets, given, state, basis, keys, rows)
    sides = np.zeros((planes, words), np.uint64)
    for i in range(s):
        rows[i] = i
    for p in range(planes):
        _scores(sample, normals[p], s, keys, rows)
        for i in range(s):
            if keys[i] >= offsets[p]:
                sides[p, i // 64] |= np.uint64(1) << np.uint64(i % 64)
    weights, live = np.ones(planes), np.ones(planes)
    most = ends.size
    masks = np.zeros((most, words), np.uint64)
    starts = np.zeros(most, np.int64)
    for i in range(s):
        masks[0, i // 64] |= np.uint64(1) << np.uint64(i % 64)
    ends[0], pieces = m, 1
    mask, rest, best_mask = np.empty(words, np.uint64), np.empty(words, np.uint64), np.empty(words, np.uint64)
    axis, best_axis, product = np.empty(d), np.empty(d), np.empty(d)
    mean, matrix, axes = np.empty(d), np.empty((d, d)), np.empty((d, d))
    scratch = np.empty((256, d))
    while True:
        piece = 0
        for c in range(pieces):
            if ends[c] - starts[c] > ends[piece] - starts[piece]:
                piece = c
        first, last = starts[piece], ends[piece]
        units = -(-(last - first) // unit)
        if units <= target:
            break
        alive = 0
        for i in range(s):
            if (masks[piece, i // 64] >> np.uint64(i % 64)) & np.uint64(1):
                rows[alive] = i
                alive += 1
        for p in range(planes):
            live[p] = _crosses(sides, p, masks[piece])
        half = max(units // 2 // target, 1) * target
        best, best_take, best_kind = np.inf, half, 0
        for candidate in range(CANDIDATES + 3):
            kind, take = 0, half
            if candidate < CANDIDATES:
                p = _draw(weights, live, state)
                sign = -1.0
                if candidate % 3 == 0 and CAPS:
                    take = target
                elif candidate % 2:
                    sign = 1.0
                for j in range(d):
                    axis[j] = sign * normals[p, j]
            elif candidate == CANDIDATES:
                principal_axis(points[first:last], scratch, axis, product)
            elif candidate == CANDIDATES + 1:
                for j in range(d):
                    axis[j] = -axis[j]
            else:
                if d > 16 or not LAYERS or alive < 2:
                    continue
                kind, take = 1, target
                _ellipsoid(sample, rows, alive, mean, matrix, axes)
            if kind:
                for i in range(alive):
                    _inwards(sample[rows[i]:rows[i] + 1], mean, axes, keys[i:i + 1])
            else:
                _scores(sample, axis, alive, keys, rows)
            sample_take = min(max(1, int(take * unit / (last - first) * alive + 0.5)), alive - 1)
            select(keys[:alive], rows, sample_take)
            mask[:] = np.uint64(0)
            rest[:] = np.uint64(0)
            for i in range(alive):
                bit = np.uint64(1) << np.uint64(rows[i] % 64)
                if i < sample_take:
                    mask[rows[i] // 64] |= bit
                else:
                    rest[rows[i] // 64] |= bit
            share = take * unit / (last - first)
            front, back = share**ALPHA, (1.0 - share) ** ALPHA
            cost = 0.0
            for p in range(planes):
                if live[p]:
                    cost += weights[p] * (
                        _crosses(sides, p, mask) * front
                        + _crosses(sides, p, rest) * back
                    )
            if kind == 0 and candidate >= CANDIDATES:
                cost *= PRIOR
            if cost < best:
                best, best_kind, best_take = cost, kind, take
                best_axis[:] = axis
                best_mask[:] = mask
        if best_kind:
            _inwards(points[first:last], mean, axes, all_keys)
        else:
            project(points[first:last], best_axis, all_keys)
        divide(points[first:last], order[first:last], best_take * unit, all_keys, all_rows, moved)
        starts[pieces], ends[pieces] = first + best_take * unit, last
        ends[piece] = starts[pieces]
        for word in range(words):
            masks[pieces, word] = masks[piece, word] & ~best_mask[word]
            masks[piece, word] = best_mask[word]
        for p in range(planes):
            if _crosses(sides, p, masks[piece]) and _crosses(sides, p, masks[pieces]):
                weights[p] *= DOUBLE
        pieces += 1
    for c in range(pieces):
        for p in range(planes):
            crossed[c, p] = _crosses(sides, p, masks[c])
    return pieces


def order_points(points, queries, seed):
    n, d = points.shape
    moved, order = points.copy(), np.arange(n, dtype=np.int32)

    def split(first, last, normals, offsets):
        tiles = -(-(last - first) // TILE)
        span = 1
        while span * FANOUT < tiles:
            span *= FANOUT
        units = -(-tiles // span)
        target = -(-units // CLASSES)
        w, b = np.zeros((PLANES, d)), np.zeros(PLANES)
        given = min(len(normals), PLANES)
        w[:given], b[:given] = normals[:given], offsets[:given]
        crossed = np.zeros((units, PLANES), np.bool_)
        ends = np.zeros(units, np.int64)
        pieces = partition(moved[first:last], order[first:last], span * TILE, target, w, b, given, seed * 1000003 + first * 31 + tiles, ends, crossed)
        ends = first + ends[:pieces]
        edges = [first, *np.sort(ends).tolist()]
        return [
            (a, b_, w[crossed[c]], b[crossed[c]])
            for a, b_, c in zip(edges[:-1], edges[1:], np.argsort(ends), strict=True)
            if b_ - a > TILE
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
