"""What the partition tree and its bounds owe beyond the answers every structure gives."""

import math
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import halfspace
from halfspace.bounds import ORIENTED_DIMENSIONS, RADIUS, RESIDUAL, SPREAD
from halfspace.tiles import arrays_of

from . import oracle
from .datasets import DATASETS
from .sizes import JIT, LARGE, SMALL, TILE, examples
from .strategies import DTYPES, arrays, queries

HARD = ("sphere", "flat", "duplicates", "integer_grid", "line", "outlier", "moment_curve")
SOME = 2000 if JIT else 2 * TILE + 1  # points enough for several classes, soon partitioned


def cloud(n=SOME, d=3, dtype=np.float64):
    return np.random.default_rng(d).standard_normal((n, d)).astype(dtype)


def directions(m, d):
    return np.random.default_rng(m).standard_normal((m, d))


def kth_largest(points, normals, k):
    return np.sort(points.astype(np.float64) @ normals.T, axis=0)[-k]


def same(a, b):
    pairs = zip(arrays_of(a.structure), arrays_of(b.structure), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_seed_decides(dtype):
    points = cloud(dtype=dtype)
    first, again, other = (halfspace.PartitionTree(points, seed=s) for s in (3, 3, 4))
    assert same(first, again)
    assert not same(first, other)
    assert same(halfspace.PartitionTree(points), halfspace.PartitionTree(points, seed=0))


def test_threads_decide_nothing():
    points, before, trees = cloud(LARGE), halfspace.get_threads(), []
    try:
        for threads in (1, 2):
            halfspace.set_threads(threads)
            trees.append(halfspace.PartitionTree(points, queries=directions(20, 3)))
    finally:
        halfspace.set_threads(before)
    assert same(*trees)


def node_bounds(tree, block, lane):
    """Centre, rows, and reaches of a node, as the traversals read them."""
    d = tree.centres.shape[1]
    p = len(tree.frames) // len(tree.centres)
    rows = tree.frames[block * p : (block + 1) * p, :, lane]
    rows = rows if p == d else np.diag(rows[0])
    return tree.centres[block, :, lane], rows, tree.reaches[block, :, lane]


def half_width(bounds, normal):
    """The bound's reach along a normal, in float64."""
    _, rows, reaches = bounds
    along, norm = rows.astype(np.float64) @ normal, np.linalg.norm(normal)
    reach = abs(along).sum()
    if len(reaches) > SPREAD:
        reach = min(reach, reaches[SPREAD] * np.linalg.norm(along)) + norm * reaches[RESIDUAL]
    return min(reach, norm * reaches[RADIUS])


@pytest.mark.parametrize("d", [2, 3, ORIENTED_DIMENSIONS + 1])
def test_crossing_number_counts_cells_that_straddle(d):
    points, normals = cloud(d=d), directions(16, d)
    offsets = kth_largest(points, normals, 20)
    index = halfspace.PartitionTree(points)
    tree, got = index.structure, index.crossing_number(normals, offsets)
    assert (got.dtype, got.shape) == (np.int64, (16,))
    assert index.crossing_number(normals[0], offsets[0]) == got[0]
    assert isinstance(index.crossing_number(normals[0], offsets[0]), int)
    for w, b, crossed in zip(normals, offsets, got, strict=True):
        straddling = 0
        for t in range(len(tree.tiles.data)):
            bounds = node_bounds(tree, t // TILE, t % TILE)
            straddling += abs(bounds[0] @ w - b) <= half_width(bounds, w)
        assert crossed == straddling  # one block: no bounds above the tiles'
    assert index.crossing_number(normals, np.full(16, np.inf)).tolist() == [0] * 16
    assert index.crossing_number(np.zeros(d), 0.0) == 0


def test_crossing_number_needs_the_nodes_above_too():
    points, normals = cloud(LARGE), directions(16, 3)
    index = halfspace.PartitionTree(points)
    crossed = index.crossing_number(normals, kth_largest(points, normals, 20))
    tree, offsets = index.structure, kth_largest(points, normals, 20)
    for w, b, some in zip(normals, offsets, crossed, strict=True):
        scores = np.einsum("tjl,j->tl", tree.tiles.data[:-1], w)
        assert some >= ((scores.max(axis=1) >= b) & (scores.min(axis=1) < b)).sum()
        assert some <= len(tree.tiles.data)


@pytest.mark.skipif(not JIT, reason="five tiles leave little to choose")
@pytest.mark.parametrize("d", [3, 6])
@pytest.mark.parametrize("with_offsets", [False, True])
def test_queries_that_are_known_cross_fewer_cells(d, with_offsets):
    points, rng = cloud(LARGE, d, np.float32), np.random.default_rng(9)
    skew = 10.0 ** -np.linspace(0, 2, d)
    known, held_back = (rng.standard_normal((200, d)) * skew for _ in range(2))
    offsets = kth_largest(points, held_back, 32)
    sample = (known, kth_largest(points, known, 32)) if with_offsets else known
    aware = halfspace.PartitionTree(points, queries=sample)
    blind = halfspace.PartitionTree(points)
    crossed, would = (index.crossing_number(held_back, offsets).sum() for index in (aware, blind))
    assert crossed <= 0.75 * would


@pytest.mark.skipif(not JIT, reason="needs tens of thousands of points")
@pytest.mark.parametrize("shape", ["gauss", "sphere"])
def test_shallow_queries_touch_nearly_constant_work(shape):
    touched = []
    for n in (4096, 65536):
        points = DATASETS[shape](3, np.random.default_rng(1), np.float64, n=n)
        normals = directions(100, 3)
        work = halfspace.PartitionTree(points).work(normals, kth_largest(points, normals, 32))
        touched.append(work.points_touched.mean())
    assert touched[1] <= touched[0] * 16**0.15  # exponent 0.10, and room for so few queries


@cache
def hard_index(dataset, d, dtype):
    points = DATASETS[dataset](d, np.random.default_rng(d), dtype)
    return halfspace.PartitionTree(points, weights=np.arange(len(points)) + 1.0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [1, 3, ORIENTED_DIMENSIONS, ORIENTED_DIMENSIONS + 1])
@pytest.mark.parametrize(
    "dataset",
    [
        "gauss",
        "line",
        "outlier",
        "moment_curve",
        "far",
        "subnormal",
        "huge",
        "largest",
        "mixed_scales",
    ],
)
@examples(0.02)
@given(data=st.data())
def test_every_point_is_within_the_bounds_of_its_nodes(dataset, d, dtype, data):
    index = hard_index(dataset, d, dtype)
    tree = index.structure
    w = data.draw(arrays((1, d), np.float64))[0]
    exact_w = [Fraction(float(value)) for value in w]
    norm = root_above(sum(value * value for value in exact_w))
    for v in np.flatnonzero(tree.nodes.last):
        centre, rows, reaches = node_bounds(tree, v // TILE, v % TILE)
        if not np.isfinite(reaches).all():
            continue  # never settled, or by the other bounds: no claim
        middle = dot(exact_w, centre)
        along = [dot(exact_w, row) for row in rows]
        reach = sum(map(abs, along))
        if len(reaches) > SPREAD:
            # Both sides squared: a root is no fraction.
            round_ = Fraction(float(reaches[SPREAD])) ** 2 * sum(a * a for a in along)
            residual = norm * Fraction(float(reaches[RESIDUAL]))
        else:
            round_, residual = reach**2, 0
        ball = norm * Fraction(float(reaches[RADIUS]))
        first, last = tree.nodes.first[v] * TILE, min(tree.nodes.last[v] * TILE, len(index))
        for slot in range(first, last, 5):
            off = abs(dot(exact_w, tree.tiles.data[slot // TILE, :, slot % TILE]) - middle)
            assert off <= reach + residual
            assert off <= residual or (off - residual) ** 2 <= round_
            assert off <= ball


def root_above(square):
    """Root of a fraction, rounded up in its 40th digit or so."""
    shift = max(0, 140 - square.numerator.bit_length() + square.denominator.bit_length())
    return Fraction(
        math.isqrt((square.numerator << 2 * shift) // square.denominator) + 1, 1 << shift
    )


def dot(w, x):
    return sum(a * Fraction(float(b)) for a, b in zip(w, x, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [2, 5])
@pytest.mark.parametrize("dataset", [*HARD, "all_equal"])
def test_sets_made_to_break_it(dataset, d, dtype):
    make = DATASETS[dataset]
    points = make(d, np.random.default_rng(d), dtype)
    index = halfspace.PartitionTree(points)
    normals = directions(6, d)
    for k in (1, len(points) // 3):
        offsets = kth_largest(points, normals, k)
        want = [oracle.report(points, w, b) for w, b in zip(normals, offsets, strict=True)]
        assert [ids.tolist() for ids in index.report(normals, offsets)] == want
        assert index.count(normals, offsets).tolist() == [len(ids) for ids in want]


@pytest.mark.parametrize("d", [1, 2, 5])
@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_as_few_points_as_dimensions(d, extra):
    points = cloud(d + extra, d)
    index = halfspace.PartitionTree(points, queries=directions(3, d))
    assert index.count(np.zeros(d), 0.0) == d + extra
    assert index.report(np.eye(d)[0], -100.0).tolist() == list(range(d + extra))
    assert (
        halfspace.PartitionTree(np.empty((0, d)), queries=(np.eye(d), 0.0)).count(np.ones(d), 0.0)
        == 0
    )


def test_nodes_hold_every_point_once_and_sum_their_weights():
    points = cloud(LARGE)
    weights = np.random.default_rng(0).integers(-9, 9, (len(points), 2)).astype(np.float64)
    index = halfspace.PartitionTree(points, weights=weights)
    tree, nodes = index.structure, index.nodes
    ranks = tree.tiles.ranks
    assert sorted(ranks.tolist()) == list(range(len(points)))
    for level, (start, end) in enumerate(zip(tree.levels, tree.levels[1:], strict=False)):
        blocks = slice(start * TILE, end * TILE)
        first, last, sums = nodes.first[blocks], nodes.last[blocks], nodes.sums[blocks]
        used = last > 0
        assert (first[used][1:] == last[used][:-1]).all()
        assert (last - first)[used][:-1].tolist() == [TILE**level] * (used.sum() - 1)
        for a, b, total in zip(first[used], last[used], sums[used], strict=True):
            assert total.tolist() == weights[ranks[a * TILE : b * TILE]].sum(axis=0).tolist()
        assert not sums[~used].any()


@examples(0.2)
@given(data=st.data())
def test_queries_move_no_answer(data):
    points = cloud(SMALL, 3)
    normals, offsets = data.draw(queries(points))
    sample = data.draw(st.sampled_from([normals, (normals, offsets), normals[:0]]))
    index = halfspace.PartitionTree(points, queries=sample, seed=data.draw(st.integers(0, 2**64)))
    want = [oracle.report(points, w, b) for w, b in zip(normals, offsets, strict=True)]
    assert [ids.tolist() for ids in index.report(normals, offsets)] == want


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"queries": np.ones((4, 2))}, ValueError, "queries: expected shape"),
        ({"queries": (np.ones((4, 3)), np.ones(3))}, ValueError, "offsets: expected"),
        ({"queries": np.full((1, 3), np.nan)}, ValueError, "row 0"),
        ({"queries": np.array([["a"] * 3])}, TypeError, "queries"),
        ({"seed": -1}, ValueError, "seed"),
        ({"seed": 0.5}, TypeError, "seed"),
    ],
)
def test_errors(arguments, error, message):
    with pytest.raises(error, match=message):
        halfspace.PartitionTree(cloud(10), **arguments)


def test_it_can_be_asked_for_by_name():
    for name in ("partition_tree", "PartitionTree"):
        assert isinstance(halfspace.build(cloud(100), name), halfspace.PartitionTree)
