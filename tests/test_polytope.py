"""Polytope ranges are the intersections of their half-spaces, whatever the structure."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import halfspace
from halfspace import cover, polytope
from halfspace.inputs import as_polytopes

from . import oracle
from .built import index_of, points_of, rivals
from .datasets import DATASETS
from .sizes import JIT, LARGE, MANY, TILE, examples
from .strategies import DTYPES, identifiers, problems, queries, rngs
from .structures import each_static, each_structure, each_structure_and_dim
from .test_errors import says

MORE_THAN_A_MASK = 70  # faces

each_dataset = pytest.mark.parametrize("dataset", DATASETS)


def through(points, normals, rng):
    """Offsets that put each face through a point, as near as float64 comes."""
    if len(points) == 0:
        return np.zeros(len(normals))
    rows = rng.integers(len(points), size=len(normals))
    pairs = zip(rows, normals, strict=True)
    return np.array([oracle.rounded(oracle.scores(points[i : i + 1], w)[0]) for i, w in pairs])


def boxes(points, rng):
    """Sides along the axes, through points."""
    sides = np.vstack([np.eye(points.shape[1]), -np.eye(points.shape[1])])
    return sides, through(points, sides, rng)


def simplices(points, rng):
    """Normals that sum to zero, so that the simplex is bounded or empty."""
    normals = rng.integers(-3, 4, (points.shape[1], points.shape[1]))
    normals = np.vstack([normals, -normals.sum(axis=0)]).astype(np.float64)
    return normals, through(points, normals, rng)


def hyperplanes(points, rng):
    """Two opposite half-spaces: nothing but ties, where the offset is a score exactly."""
    normal = rng.integers(-3, 4, points.shape[1]).astype(np.float64)
    offset = through(points, normal[None], rng)[0]
    return np.array([normal, -normal]), np.array([offset, -offset])


def slices(points, rng):
    """Parallel faces that look away from each other: nearly always empty."""
    normal = rng.standard_normal(points.shape[1])
    return np.array([normal, -normal]), through(points, np.array([normal, -normal]), rng)


def crowds(points, rng):
    """More faces than a mask has bits, most of them far out."""
    normals = rng.standard_normal((MORE_THAN_A_MASK, points.shape[1]))
    low = np.full(len(normals), -1e3 * min(abs(points.astype(float)).max(initial=1.0), 1e300))
    few = rng.integers(len(normals), size=4)
    low[few] = through(points, normals[few], rng)
    return normals, low


@st.composite
def polytopes(draw, points):
    """Faces of a polytope: normals (h, d), offsets (h,), closed (h,)."""
    rng = draw(rngs())
    shape = draw(st.sampled_from((None, boxes, simplices, hyperplanes, slices, crowds)))
    faces = draw(queries(points, max_m=5)) if shape is None else shape(points, rng)
    closed = rng.random(len(faces[1])) < draw(st.sampled_from((0.0, 0.5, 1.0)))
    return *faces, closed


def padded(many):
    """Polytopes of any number of faces as one batch."""
    h = max(len(offsets) for _, offsets, _ in many)
    d = many[0][0].shape[1]
    normals, offsets = np.zeros((len(many), h, d)), np.full((len(many), h), -np.inf)
    closed = np.zeros((len(many), h), bool)
    for q, (w, b, sides) in enumerate(many):
        normals[q, : len(b)], offsets[q, : len(b)], closed[q, : len(b)] = w, b, sides
    return normals, offsets, closed


def lists(report):
    return [ids.tolist() for ids in report]


def work_of(index, normals, offsets):
    faces = as_polytopes(normals, offsets, True, index.dim)
    return np.concatenate(polytope.covers(faces, index, lambda block: block.work))


@each_dataset
@each_structure_and_dim(1, 2, 3, 8)
@examples(0.06)
@given(data=st.data(), dtype=st.sampled_from(DTYPES))
def test_every_answer(structure, d, dataset, data, dtype):
    points = points_of(dataset, d, dtype)
    index = index_of(structure, dataset, d, dtype)
    many = data.draw(st.lists(polytopes(points), min_size=1, max_size=3))
    want = [oracle.report_polytope(points, *faces) for faces in many]
    for (normals, offsets, closed), ids in zip(many, want, strict=True):
        got = index.report_polytope(normals, offsets, closed=closed)
        assert got.dtype == np.int64
        assert got.tolist() == ids
        assert index.count_polytope(normals, offsets, closed=closed) == len(ids)
    normals, offsets, closed = padded(many)
    assert lists(index.report_polytope(normals, offsets, closed=closed)) == want
    counts = index.count_polytope(normals, offsets, closed=closed)
    assert counts.dtype == np.int64
    assert counts.tolist() == [len(ids) for ids in want]


@each_structure
@examples(2.0)
@given(data=st.data(), closed=st.booleans())
def test_one_half_space_is_a_report(structure, data, closed):
    points, normals, offsets = data.draw(problems(dims=structure.dims_to(6)))
    index = structure.build(points)
    want = lists(index.report(normals, offsets, closed=closed))
    faces = normals[:, None], offsets[:, None]
    assert lists(index.report_polytope(*faces, closed=closed)) == want
    alone = zip(*faces, want, strict=True)
    for w, b, ids in alone:
        assert index.report_polytope(w, b, closed=closed).tolist() == ids
    if isinstance(index, halfspace.ShallowCuttings | halfspace.Cascade | halfspace.Dynamic):
        return  # reports are read from lists or codes, polytopes from the tree or the points
    finite = np.isfinite(offsets) & normals.any(axis=1)
    work = index.work(normals, offsets)
    assert work_of(index, *faces)[finite].tolist() == np.transpose(work)[finite].tolist()


@each_structure
@examples(2.0)
@given(data=st.data())
def test_any_finite_faces_and_the_callers_ids(structure, data):
    points, normals, offsets = data.draw(problems(dims=structure.dims_to(6), max_m=6))
    ids = data.draw(identifiers(len(points)))
    closed = data.draw(rngs()).random(len(offsets)) < 0.5
    index = structure.build(points, ids=ids)
    want = oracle.report_polytope(points, normals, offsets, closed, ids)
    assert index.report_polytope(normals, offsets, closed=closed).tolist() == want


@each_structure
def test_only_ties_lie_in_a_hyperplane(structure):
    points = DATASETS["integer_grid"](3, np.random.default_rng(0), np.float32, n=LARGE)
    index, normal = structure.build(points), np.array([1.0, -2.0, 1.0])
    on = np.flatnonzero(points @ normal == 2.0)
    assert on.size
    faces = np.array([normal, -normal]), np.array([2.0, -2.0])
    assert index.report_polytope(*faces).tolist() == on.tolist()
    for closed in (False, [True, False], [False, True]):
        assert index.report_polytope(*faces, closed=closed).size == 0
    above = math.nextafter(2.0, 3.0)
    assert index.count_polytope(faces[0], [above, -2.0]) == 0


@each_structure
@pytest.mark.parametrize("n", [0, 1, TILE - 1, TILE, TILE + 1, LARGE + 1])
def test_no_faces_hold_all_points(structure, n):
    index = structure.build(np.random.default_rng(n).standard_normal((n, 3)))
    everything = list(range(n))
    none = np.empty((0, 3))
    assert index.report_polytope(none, np.empty(0)).tolist() == everything
    assert index.report_polytope(none, 0.0, closed=[]).tolist() == everything
    assert index.count_polytope(none, 7.0) == n
    assert index.count_polytope(np.empty((2, 0, 3)), np.empty((2, 0))).tolist() == [n, n]
    report = index.report_polytope(np.empty((0, 4, 3)), np.empty((0, 4)))
    assert (len(report), report.indptr.tolist()) == (0, [0])


@each_structure
def test_padding_holds_all_points(structure):
    index = structure.build([[0.0, 0.0], [1.0, 1.0]])
    for offset, closed, size in (
        (-np.inf, True, 2),
        (-np.inf, False, 2),
        (0.0, True, 2),
        (0.0, False, 0),
        (np.inf, True, 0),
    ):
        normals = [[1.0, 0.0], [0.0, 0.0]]
        assert index.count_polytope(normals, [0.0, offset], closed=[True, closed]) == size


def large_batch(points, rng, m):
    """Boxes, simplices and crowds through points, padded."""
    shapes = (boxes, simplices, crowds)
    many = [shapes[q % 3](points, rng) for q in range(m)]
    return padded([(*faces, np.ones(len(faces[1]), bool)) for faces in many])


@pytest.mark.parametrize("dataset", ["gauss", "integer_grid", "duplicates", "flat", "sphere"])
@pytest.mark.parametrize("d", [2, 3, 8])
@examples(0.05)
@given(rng=rngs(), dtype=st.sampled_from(DTYPES))
def test_structures_agree_on_many_points(dataset, d, rng, dtype):
    normals, offsets, closed = large_batch(
        points_of(dataset, d, dtype, n=LARGE), rng, 6 if JIT else 3
    )
    scan, *others = rivals(dataset, d, dtype)
    truth = scan.report_polytope(normals, offsets, closed=closed)
    for index in others:
        report = index.report_polytope(normals, offsets, closed=closed)
        assert report.indptr.tolist() == truth.indptr.tolist()
        assert np.array_equal(report.indices, truth.indices)


@each_structure
def test_threads_and_batches_do_not_matter(structure):
    points = points_of("gauss", 3, np.float32, n=LARGE)
    normals, offsets, closed = large_batch(points, np.random.default_rng(0), MANY)
    index, before = structure.build(points), halfspace.get_threads()
    try:
        halfspace.set_threads(1)
        one = index.report_polytope(normals, offsets, closed=closed)
        halfspace.set_threads(2)
        two = index.report_polytope(normals, offsets, closed=closed)
        counts = index.count_polytope(normals, offsets, closed=closed)
    finally:
        halfspace.set_threads(before)
    assert one.indptr.tolist() == two.indptr.tolist()
    assert np.array_equal(one.indices, two.indices)
    assert counts.tolist() == np.diff(one.indptr).tolist()
    assert counts.max() > 0
    for q in range(0, MANY, 7):
        alone = index.report_polytope(normals[q], offsets[q], closed=closed[q])
        assert alone.tolist() == one[q].tolist()


@pytest.mark.parametrize("d", [2, 3])
def test_a_tree_does_less_than_a_scan(d):
    points = points_of("gauss", d, np.float32, n=LARGE)
    sides = np.vstack([np.eye(d), -np.eye(d)])
    offsets = np.full((9, 2 * d), -0.2) - np.linspace(-0.8, 0.8, 9)[:, None] * sides.sum(axis=1)
    normals = np.repeat(sides[None], 9, axis=0)
    scanned, walked = (
        work_of(build(points), normals, offsets)[:, 1]
        for build in (halfspace.Scan, halfspace.KDTree)
    )
    assert (walked <= scanned).all()
    assert walked.sum() < (0.1 if JIT else 0.95) * scanned.sum()


@each_static
def test_whole_nodes_are_taken_unseen(structure):
    """Points well inside cost nothing, except to those without nodes."""
    points = points_of("gauss", 2, np.float32, n=LARGE)
    index = structure.build(points)
    everything = np.vstack([np.eye(2), -np.eye(2)]), np.full(4, -100.0)
    assert index.count_polytope(*everything) == LARGE
    touched = work_of(index, *everything)[0, 1]
    assert touched == (0 if len(index.nodes.last) else 4 * LARGE)


@each_static
def test_a_cover_may_stop_at_the_first_point(structure):
    index = structure.build(points_of("gauss", 2, np.float32, n=LARGE))
    faces = as_polytopes([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0], True, 2)
    (found,) = cover.covers(
        index._polytope_cover,
        *faces[:2],
        closed=faces.closed,
        stop_at_first=True,
        nanoseconds=0.0,
        consume=cover.keep,
    )
    assert 0 < found.counts[0] < index.count_polytope(*faces[:2])[0]


@each_structure
def test_max_results_is_never_a_silent_cap(structure):
    index = structure.build(points_of("gauss", 2, np.float64))
    normals, offsets = np.eye(2)[None].repeat(3, axis=0), np.zeros((3, 2))
    total = int(index.count_polytope(normals, offsets).sum())
    assert total > 3
    report = index.report_polytope(normals, offsets, max_results=total)
    assert len(report.indices) == total
    with pytest.raises(halfspace.ResultTooLarge, match=says(total, total - 1)):
        index.report_polytope(normals, offsets, max_results=total - 1)
    with pytest.raises(ValueError, match=says("max_results", -1)):
        index.report_polytope(normals, offsets, max_results=-1)


TRIANGLE = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])


@each_structure
@pytest.mark.parametrize("ask", ["report_polytope", "count_polytope"])
@pytest.mark.parametrize(
    ("normals", "offsets", "closed", "kind", "words"),
    [
        (TRIANGLE[0], 0.0, True, ValueError, ("normals", "shape", "h, 2", "m, h, 2")),
        (TRIANGLE[None, None], 0.0, True, ValueError, ("normals", "shape", "1, 1, 3, 2")),
        (np.ones((3, 4)), 0.0, True, ValueError, ("normals", "h, 2", "3, 4")),
        ([], [], True, ValueError, ("normals", "h, 2")),
        (TRIANGLE * np.nan, 0.0, True, ValueError, ("normals", "nan", "row 0")),
        (
            np.vstack([TRIANGLE[:2], [[np.inf, 0.0]]]),
            0.0,
            True,
            ValueError,
            ("normals", "inf", "row 2"),
        ),
        (TRIANGLE, [0.0, 0.0], True, ValueError, ("offsets", "scalar", 3, 2)),
        (TRIANGLE, np.zeros((1, 3)), True, ValueError, ("offsets", "1, 3")),
        (TRIANGLE[None], np.zeros(3), True, ValueError, ("offsets", "1, 3")),
        (TRIANGLE[None], np.zeros((2, 3)), True, ValueError, ("offsets", "1, 3", "2, 3")),
        (TRIANGLE, [0.0, np.nan, 0.0], True, ValueError, ("offsets", "nan", "row 1")),
        (TRIANGLE, np.nan, True, ValueError, ("offsets", "nan")),
        (TRIANGLE, 0.0, [True, False], ValueError, ("closed", "scalar", 3, 2)),
        (TRIANGLE, 0.0, np.ones((1, 3), bool), ValueError, ("closed", "1, 3")),
        (TRIANGLE, 0.0, 1, TypeError, ("closed", "booleans")),
        (TRIANGLE, 0.0, None, TypeError, ("closed", "booleans")),
        (TRIANGLE, 0.0, [1.0, 0.0, 1.0], TypeError, ("closed", "booleans", "float64")),
        (TRIANGLE.astype(complex), 0.0, True, TypeError, ("normals", "complex128")),
        (TRIANGLE > 0, 0.0, True, TypeError, ("normals", "bool")),
        (TRIANGLE, "0", True, TypeError, ("offsets",)),
        (TRIANGLE, None, True, TypeError, ("offsets",)),
    ],
)
def test_bad_polytopes(structure, ask, normals, offsets, closed, kind, words):
    index = structure.build(np.random.default_rng(0).standard_normal((20, 2)))
    with pytest.raises(kind, match=says(*words)):
        getattr(index, ask)(normals, offsets, closed=closed)


@pytest.mark.parametrize("threads", [1, 2])
def test_every_polytope_of_a_large_batch_keeps_its_own_sides(threads):
    """Blocks and threads cut a batch: each piece must take its share of `closed`, too."""
    points, m = np.arange(3.0)[:, None], cover.BLOCK_QUERIES + 3
    closed = np.random.default_rng(0).random((m, 1)) < 0.5
    before = halfspace.get_threads()
    halfspace.set_threads(threads)
    counts = halfspace.KDTree(points).count_polytope(
        np.ones((m, 1, 1)), np.ones((m, 1)), closed=closed
    )
    halfspace.set_threads(before)
    assert counts.tolist() == np.where(closed[:, 0], 2, 1).tolist()
