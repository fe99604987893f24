"""Tiles that exchanged points: the same points, closer together; and ellipsoids around tiles."""

import numpy as np
import pytest

import halfspace
from halfspace.bounds import RADIUS, ROUND_DIMENSIONS, SPREAD
from halfspace.enclosing import Room, enclose
from halfspace.exchange import LEAST_DIMENSIONS, MOST_DIMENSIONS, exchange, exchanged
from halfspace.jit import kernel
from halfspace.kd_tree import order_points
from halfspace.tiles import TILE
from halfspace.tree import FANOUT

from .datasets import DATASETS
from .sizes import JIT, SMALL

MANY = FANOUT * TILE + 1000 if JIT else SMALL


def cloud(n, d, dtype=np.float32):
    return np.random.default_rng(d).standard_normal((n, d)).astype(dtype)


def scatter(points, order):
    """Sum of squares about the tiles' means."""
    tiles = np.split(points[order].astype(np.float64), range(TILE, len(points), TILE))
    return sum(np.square(tile - tile.mean(axis=0)).sum() for tile in tiles)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", [LEAST_DIMENSIONS, 8, MOST_DIMENSIONS])
def test_tiles_lie_closer_together(d, dtype):
    points = cloud(MANY, d, dtype)
    before = order_points(points)
    after = exchanged(points, before)
    assert after.dtype == before.dtype
    assert sorted(after.tolist()) == list(range(len(points)))
    # Two tiles, of which one holds a few points, may have none to exchange.
    assert scatter(points, after) <= (0.97 if JIT else 1.0) * scatter(points, before)


def test_only_tiles_of_one_node_exchange_points():
    points = cloud(MANY, 4)
    before = order_points(points)
    after, step = exchanged(points, before), FANOUT * TILE
    for first in range(0, len(points), step):
        same = (sorted(order[first : first + step].tolist()) for order in (before, after))
        assert next(same) == next(same)


def test_points_move_with_their_rows():
    points, order = cloud(SMALL, 5), np.arange(SMALL, dtype=np.int32)
    moved = points.copy()
    exchange(moved, order)
    assert np.array_equal(moved, points[order])
    assert not np.array_equal(order, np.arange(SMALL))


@pytest.mark.parametrize("d", [1, LEAST_DIMENSIONS - 1, MOST_DIMENSIONS + 1])
def test_elsewhere_order_stays(d):
    order = np.arange(SMALL, dtype=np.int32)
    assert exchanged(cloud(SMALL, d), order) is order
    assert exchanged(cloud(TILE, 4), order[:TILE]).tolist() == list(range(TILE))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dataset", ["all_equal", "line", "largest", "huge", "subnormal"])
def test_sets_made_to_break_it(dataset, dtype):
    points = DATASETS[dataset](5, np.random.default_rng(0), dtype)
    order = exchanged(points, order_points(points))
    assert sorted(order.tolist()) == list(range(len(points)))


def test_threads_decide_nothing():
    points, before, found = cloud(MANY, 4), halfspace.get_threads(), []
    order = order_points(points)
    try:
        for threads in (1, 2):
            halfspace.set_threads(threads)
            found.append(exchanged(points, order))
    finally:
        halfspace.set_threads(before)
    assert np.array_equal(*found)


@kernel
def _enclose(steps, matrix, room):
    enclose(steps, matrix, room)


def ellipsoid(points):
    """Centre and matrix that `enclose` finds around 64 points."""
    d = points.shape[1]
    matrix = np.empty((d, d))
    lanes = (np.empty(TILE) for _ in range(3))
    room = Room(np.empty((d, TILE)), *lanes, np.empty(d), np.zeros((d, d)))
    _enclose(np.ascontiguousarray(points.T, np.float64), matrix, room)
    return room.mean, matrix


def width(points, mean, matrix):
    """Root mean square width of the ellipsoid of such a shape that holds the points."""
    away = points - mean
    furthest = np.einsum("ni,ij,nj->n", away, np.linalg.inv(matrix), away).max()
    return np.sqrt(furthest * np.trace(matrix))


def least_ellipsoid(points):
    """The same after very many rounds of the plain rule."""
    n, d = points.shape
    weights = np.full(n, 1.0 / n)
    for _ in range(2000):
        mean = weights @ points
        away = points - mean
        matrix = away.T @ (away * weights[:, None])
        keys = np.einsum("ni,ij,nj->n", away, np.linalg.inv(matrix), away)
        weights *= (keys + 1.0) / (d + 1)
    return mean, matrix


@pytest.mark.parametrize("d", [2, 4, 8])
@pytest.mark.parametrize("shape", ["gauss", "sphere"])
def test_ellipsoids_are_nearly_the_least(d, shape):
    points = cloud(TILE, d, np.float64)
    if shape == "sphere":
        points /= np.linalg.norm(points, axis=1)[:, None]
    found = width(points, *ellipsoid(points))
    assert found <= 1.05 * width(points, *least_ellipsoid(points))
    assert shape == "sphere" or found < width(points, points.mean(axis=0), np.cov(points.T))


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_ellipsoids_of_flat_sets_are_flat(rank):
    points = cloud(TILE, 6, np.float64)
    points[:, rank:] = 3.0
    mean, matrix = ellipsoid(points)
    assert np.abs(matrix[rank:]).max() < 1e-12
    assert np.allclose(mean[rank:], 3.0)
    assert rank == 0 or np.linalg.eigvalsh(matrix[:rank, :rank]).min() > 0.1


@pytest.mark.parametrize("d", [ROUND_DIMENSIONS, 8])
def test_tiles_in_many_dimensions_have_tight_bounds(d):
    """An ellipsoid half as wide again as the points are, where a ball is nearly twice as wide."""
    points, normals = cloud(SMALL, d), cloud(64, d, np.float64)
    index = halfspace.KDTree(points)
    tree = index.structure
    data = tree.tiles.data[0].astype(np.float64)
    rows = tree.frames[:d, :, 0].astype(np.float64)
    round_ = tree.reaches[0, SPREAD, 0] * np.linalg.norm(normals @ rows.T, axis=1)
    scores = normals @ data
    extent = 0.5 * (scores.max(axis=1) - scores.min(axis=1))
    ball = tree.reaches[0, RADIUS, 0] * np.linalg.norm(normals, axis=1)
    assert (round_ >= extent - 1e-6).all()
    assert round_.mean() < 0.95 * ball.mean()
