"""ShallowCuttings beyond what every structure must do: its certificate, its levels, its memory."""

import pickle
import tracemalloc
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

import halfspace
from halfspace import cuttings as kernels
from halfspace import levels
from halfspace.tiles import arrays_of
from halfspace.tree import make_tree

from . import oracle
from .datasets import DATASETS
from .sizes import JIT, LARGE, SMALL, TILE, examples
from .strategies import DTYPES, queries
from .structures import STRUCTURES, fine_cuttings

HULL_BREAKERS = (
    "sphere",
    "flat",
    "duplicates",
    "all_equal",
    "integer_grid",
    "line",
    "simplex",
    "outlier",
    "moment_curve",
    "far",
    "n=1",
)

compiled = pytest.mark.skipif(not JIT, reason="levels over many points need compiled kernels")


@njit
def cones_and_limits(cuttings, w, norm, cones, limits):
    """The cone of every level that holds w, or -1, and its T."""
    cone = np.int64(0)
    shares = np.empty(w.size)
    for level in range(cones.size):
        cone, _ = kernels.walk(cuttings.solvers, cuttings.neighbours, cone, w, 1000, shares)
        cones[level] = cone
        if cone < 0:
            break
        limits[level] = kernels.score_limit(
            cuttings.offsets, cuttings.residuals, cuttings.reach[0], cone, shares, norm
        )
        cone = np.int64(cuttings.finer[cone])


def conflicts(cuttings, level, cone):
    """Ids in the conflict list of a cone."""
    first, size = cuttings.lists[cone]
    ranks = cuttings.tiles.ranks
    if cuttings.copied[level]:
        return ranks[first * TILE : first * TILE + size]
    tiles = cuttings.entries[first : first + size]
    slots = (tiles[:, None] * TILE + np.arange(TILE)).ravel()
    return ranks[slots[slots < cuttings.tree.tiles.count]]


@pytest.mark.parametrize("dataset", ["gauss", *HULL_BREAKERS])
@pytest.mark.parametrize("d", [2, 3, 4] if JIT else [2])
@examples(0.1)
@given(data=st.data(), dtype=st.sampled_from(DTYPES), room=st.sampled_from([None, 0]))
def test_no_point_outside_a_list_scores_above_its_limit(d, dataset, data, dtype, room):
    points = DATASETS[dataset](d, np.random.default_rng(d), dtype)
    built = fine_cuttings(points)
    if room is not None:  # lists by tile number
        least = sum(a.nbytes for a in arrays_of(built.structure.tree))
        built = fine_cuttings(points, memory=least + 40_000)
    structure = built.structure
    normals, _ = data.draw(queries(points))
    for w in normals.astype(np.float64):
        w = w / (np.abs(w).max() or 1.0)
        cones = np.full(len(structure.depths), -1)
        limits = np.full(len(cones), np.nan)
        cones_and_limits(structure, w, np.linalg.norm(w) * (1.0 + 1e-12), cones, limits)
        exact = oracle.scores(points, w)
        for level in np.flatnonzero(np.isfinite(limits) & structure.worth & (cones >= 0)):
            listed = set(conflicts(structure, level, cones[level]).tolist())
            limit = Fraction(float(limits[level]))
            outside = [i for i, score in enumerate(exact) if score > limit and i not in listed]
            assert not outside, (level, limits[level])


@pytest.mark.parametrize("dataset", HULL_BREAKERS)
@pytest.mark.parametrize("d", [2, 3, 4, 5] if JIT else [2])
def test_sets_that_break_hulls(dataset, d):
    rng = np.random.default_rng(d)
    points = DATASETS[dataset](d, rng, np.float64)
    index = fine_cuttings(points)
    normals = rng.standard_normal((20 if JIT else 6, d))
    normals[:d] = np.eye(d)
    for w in normals:
        scores = sorted(oracle.scores(points, w))
        for place in (0, len(scores) // 2, -3, -1):
            b = oracle.rounded(scores[max(place, -len(scores))])
            for offset in (b, np.nextafter(b, np.inf), np.nextafter(b, -np.inf)):
                assert index.report(w, offset).tolist() == oracle.report(points, w, offset)
        assert index.top(w, 3).ids.tolist() == oracle.top(points, w, 3)


@pytest.mark.parametrize("n", range(1, 8))
@pytest.mark.parametrize("d", [2, 3, 6])
def test_fewer_points_than_a_simplex_has(n, d):
    points = np.random.default_rng(n).standard_normal((n, d))
    index = fine_cuttings(points)
    w = np.arange(1.0, d + 1)
    assert index.top(w, n).ids.tolist() == oracle.top(points, w, n)
    assert index.report(w, 0.0).tolist() == oracle.report(points, w, 0.0)


@given(data=st.data())
@examples(0.3)
def test_walks_that_go_astray_cost_time_only(data):
    """Neighbours and links are hints: with others, all answers stay."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    points = rng.standard_normal((SMALL, 2))
    index = fine_cuttings(points)
    structure, starts = index.structure, index.structure.levels
    neighbours, finer = structure.neighbours.copy(), structure.finer.copy()
    for level, (first, last) in enumerate(pairwise(starts)):
        neighbours[first:last] = rng.integers(first, last, (last - first, 2))
        if level + 2 < len(starts):
            finer[first:last] = rng.integers(last, starts[level + 2], last - first)
    neighbours[rng.random(neighbours.shape) < 0.1] = -1
    for array in (neighbours, finer):
        array.flags.writeable = False
    index.structure = structure._replace(neighbours=neighbours, finer=finer)
    normals, offsets = data.draw(queries(points))
    for w, b in zip(normals, offsets, strict=True):
        assert index.report(w, b).tolist() == oracle.report(points, w, b)
        assert index.any(w, b) == oracle.any_(points, w, b)
        assert index.top(w, 5).ids.tolist() == oracle.top(points, w, 5)


def shallow(points, k, m=64, seed=7):
    """Half-spaces of about k points each."""
    normals = np.random.default_rng(seed).standard_normal((m, points.shape[1]))
    scores = np.partition(points.astype(np.float64) @ normals.T, -k, axis=0)
    return normals, scores[-k]


@compiled
@pytest.mark.parametrize(
    ("kind", "d"), [("gauss", 2), ("gauss", 3), ("gauss", 4), ("sphere", 2), ("sphere", 3)]
)
def test_shallow_reports_touch_about_what_they_report(kind, d):
    points = DATASETS[kind](d, np.random.default_rng(0), np.float64, n=LARGE)
    index = halfspace.ShallowCuttings(points, memory=64 * points.nbytes)
    for k in (10, 100, 1000):
        batch = shallow(points, k)
        # Two tiles a report for those of few points.
        assert index.work(*batch).points_touched.mean() < 10 * k + 3 * TILE
        tree = halfspace.KDTree(points)
        assert index.report(*batch).indices.tolist() == tree.report(*batch).indices.tolist()


@compiled
@pytest.mark.parametrize("times", [2, 5, 10, 30])
@pytest.mark.parametrize("kind", ["gauss", "sphere"])
def test_memory_is_kept_and_used(kind, times):
    points = DATASETS[kind](3, np.random.default_rng(0), np.float32, n=LARGE)
    memory = times * points.nbytes
    index = halfspace.ShallowCuttings(points, memory=memory)
    assert index.nbytes <= memory
    whole = halfspace.ShallowCuttings(points, memory=1 << 30)
    assert index.nbytes >= min(0.25 * memory, 0.9 * whole.nbytes)
    batch = shallow(points, 50)
    assert np.array_equal(index.report(*batch).indices, whole.report(*batch).indices)


def test_memory_below_the_tree_is_refused():
    points = DATASETS["gauss"](3, np.random.default_rng(0), np.float32)
    with pytest.raises(ValueError, match=r"memory: expected at least [0-9]+ bytes, got 100"):
        halfspace.ShallowCuttings(points, memory=100)


@compiled
@pytest.mark.parametrize("name", [name for name in STRUCTURES if name != "fine_cuttings"])
def test_nbytes_is_what_is_held(name):
    points = DATASETS["gauss"](3, np.random.default_rng(0), np.float32, n=LARGE)
    STRUCTURES[name].build(points[:1000])  # compiled before it is measured
    tracemalloc.start()
    index = STRUCTURES[name].build(points)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert abs(held - index.nbytes) <= 0.1 * held


@compiled
def test_expected_count_decides_what_memory_is_spent_on():
    points = DATASETS["sphere"](3, np.random.default_rng(0), np.float32, n=LARGE)
    told = halfspace.ShallowCuttings(points, expected_count=400, memory=30 * points.nbytes)
    untold = halfspace.ShallowCuttings(points, memory=30 * points.nbytes)
    assert told.structure.depths.min() >= 200 > untold.structure.depths.min()
    assert told.structure.copied.any()
    batch = shallow(points, 400)
    assert np.array_equal(told.report(*batch).indices, untold.report(*batch).indices)


@pytest.mark.parametrize("threads", [2, 3])
def test_the_same_levels_whatever_the_number_of_threads(threads):
    points = DATASETS["sphere"](2, np.random.default_rng(0), np.float64, n=LARGE)
    before = halfspace.get_threads()
    built = []
    for count in (1, threads):
        halfspace.set_threads(count)
        built.append(halfspace.ShallowCuttings(points).structure)
    halfspace.set_threads(before)
    for one, other in zip(arrays_of(built[0]), arrays_of(built[1]), strict=True):
        assert np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def test_a_pickle_holds_every_tile_once():
    points = DATASETS["gauss"](2, np.random.default_rng(0), np.float64)
    index = fine_cuttings(points, weights=np.ones(len(points)))
    assert index.structure.copied.any()
    data = pickle.dumps(index)
    assert len(data) < 1.1 * index.nbytes + 10_000
    again = pickle.loads(data)
    assert again.nbytes == index.nbytes
    assert np.shares_memory(again.structure.tiles.data, again.structure.tree.tiles.data)
    for b in (-9.0, 0.0, 1.0, 2.0):
        assert again.report([1.0, 2.0], b).tolist() == index.report([1.0, 2.0], b).tolist()
        assert again.sum([1.0, 2.0], b) == index.sum([1.0, 2.0], b)


def test_levels_that_are_dropped_leave_nothing_behind(monkeypatch):
    monkeypatch.setattr(levels._Level, "pays", lambda self, scanned, finest: not finest)
    index = fine_cuttings(DATASETS["gauss"](2, np.random.default_rng(0), np.float64))
    assert index.structure.worth.base is index.structure.copied.base is None
    assert pickle.loads(pickle.dumps(index)).nbytes == index.nbytes


def test_one_dimension_is_a_sorted_array():
    points = DATASETS["gauss"](1, np.random.default_rng(0), np.float64, n=LARGE)
    index = halfspace.ShallowCuttings(points)
    tiles = index.structure.tiles
    in_order = tiles.data[:, 0, :].ravel()[: len(points)]
    assert (np.diff(in_order) >= 0).all()
    work = index.work([[1.0], [-1.0]], np.sort(points[:, 0])[[-100, LARGE // 2]] * [1.0, -1.0])
    assert (work.points_touched <= 2 * TILE).all()


def test_levels_are_explained():
    index = fine_cuttings(DATASETS["gauss"](2, np.random.default_rng(0), np.float64))
    assert f"{index.structure.depths[0]} (" in index.explain()
    none = halfspace.ShallowCuttings(np.ones((3, 2)))
    assert "levels   none: the tree answers" in none.explain()


@pytest.mark.parametrize(
    ("points", "options", "error", "match"),
    [
        (np.ones((9, 7)), {}, ValueError, r"points: expected at most 6 dimensions .* got 7"),
        (np.ones((9, 2)), {"memory": -1}, ValueError, "memory: expected at least 0, got -1"),
        (np.ones((9, 2)), {"memory": 1.5}, TypeError, "memory: expected an integer, got float"),
        (np.ones((9, 2)), {"expected_count": "3"}, TypeError, "expected_count: expected an int"),
    ],
)
def test_bad_options(points, options, error, match):
    with pytest.raises(error, match=match):
        halfspace.ShallowCuttings(points, **options)


def test_the_tree_under_the_levels_is_a_view():
    index = fine_cuttings(DATASETS["gauss"](2, np.random.default_rng(0), np.float64))
    structure = index.structure
    again = make_tree(structure.tree.tiles, np.zeros((len(index), 0)))
    assert np.array_equal(again.centres, structure.tree.centres)
