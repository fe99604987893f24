"""One suite over every structure, data set and dimension: all answers, against the oracle.

On more points than rational arithmetic can take, the structures are held against Scan.
"""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import halfspace

from . import oracle
from .built import index_of, points_of, rivals, weights_of
from .datasets import DATASETS
from .sizes import JIT, LARGE, TILE, examples
from .strategies import DTYPES, queries, rngs
from .structures import each_structure, each_structure_and_dim

DIMS = (1, 2, 3, 8)
each_dataset = pytest.mark.parametrize("dataset", DATASETS)


def score_is_near(score, exact, size, d):
    """A score is rounded: within the error of any summation order, unless that overflows."""
    if size >= np.finfo(np.float64).max:
        return not math.isnan(score)
    error = size * Fraction(d + 2, 2**52) + d * Fraction(5e-324)
    return abs(Fraction(float(score)) - exact) <= error


def joined(reports):
    """The answers of consecutive reports, as lists."""
    return [ids.tolist() for report in reports for ids in report]


@each_dataset
@each_structure_and_dim(*DIMS)
@examples(0.04)
@given(data=st.data(), dtype=st.sampled_from(DTYPES), closed=st.booleans())
def test_every_answer(structure, d, dataset, data, dtype, closed):
    points = points_of(dataset, d, dtype)
    weights = weights_of(len(points))
    index = index_of(structure, dataset, d, dtype)
    normals, offsets = batch = data.draw(queries(points))
    pairs = list(zip(normals, offsets, strict=True))

    want = [oracle.report(points, w, b, closed) for w, b in pairs]
    report = index.report(*batch, closed=closed)
    assert joined([report]) == want
    assert [index.report(w, b, closed=closed).tolist() for w, b in pairs] == want
    if closed:
        max_bytes = data.draw(st.integers(1, 8 * len(points) + 64))
        assert joined(index.iter_report(*batch, max_bytes=max_bytes)) == want

    counts = [oracle.count(points, w, b, closed) for w, b in pairs]
    assert index.count(*batch, closed=closed).tolist() == counts
    assert [index.count(w, b, closed=closed) for w, b in pairs] == counts
    occupied = [oracle.any_(points, w, b, closed) for w, b in pairs]
    assert index.any(*batch, closed=closed).tolist() == occupied
    assert [index.any(w, b, closed=closed) for w, b in pairs] == occupied

    sums = [oracle.sums(points, weights, w, b, closed) for w, b in pairs]
    assert index.sum(*batch, closed=closed).tolist() == sums
    assert [index.sum(w, b, closed=closed).tolist() for w, b in pairs] == sums


@each_dataset
@each_structure_and_dim(*DIMS)
@examples(0.04)
@given(data=st.data(), dtype=st.sampled_from(DTYPES))
def test_top(structure, d, dataset, data, dtype):
    points = points_of(dataset, d, dtype)
    index = index_of(structure, dataset, d, dtype)
    normals, _ = data.draw(queries(points))
    k = data.draw(st.integers(0, len(points) + 2))
    scores, ids = index.top(normals, k)
    assert ids.shape == scores.shape == (len(normals), min(k, len(points)))
    assert ids.tolist() == [oracle.top(points, w, k) for w in normals]
    assert (scores[:, :-1] >= scores[:, 1:]).all()
    for w, row, best in zip(normals, scores, ids, strict=True):
        exact = oracle.scores(points, w)
        size = oracle.scores(abs(points.astype(np.float64)), abs(w.astype(np.float64)))
        pairs = zip(row, best, strict=True)
        assert all(score_is_near(score, exact[i], size[i], d) for score, i in pairs)
        one = index.top(w, k)
        assert one.ids.tolist() == best.tolist()
        assert one.scores.tolist() == row.tolist()


@each_dataset
@each_structure_and_dim(*DIMS)
@examples(0.02)
@given(data=st.data(), dtype=st.sampled_from(DTYPES))
def test_work_is_counted_and_repeats(structure, d, dataset, data, dtype):
    points = points_of(dataset, d, dtype)
    index = index_of(structure, dataset, d, dtype)
    batch = data.draw(queries(points))
    work = index.work(*batch)
    for name in ("nodes_visited", "points_touched", "exact_tests"):
        counter = getattr(work, name)
        assert counter.dtype == np.int64
        assert counter.shape == (len(batch[1]),)
        assert (counter >= 0).all()
        assert counter.tolist() == getattr(index.work(*batch), name).tolist()
        alone = [
            np.ravel(getattr(index.work(w, b), name)).tolist() for w, b in zip(*batch, strict=True)
        ]
        assert alone == [[c] for c in counter.tolist()]
    if isinstance(index, halfspace.Dynamic):
        return  # touches points that are dead, too
    assert (work.points_touched <= -(-len(points) // TILE) * TILE).all()
    assert (work.exact_tests <= len(points)).all()


@each_structure
@examples(0.5)
@given(data=st.data())
def test_sums_of_any_weights(structure, data):
    """Summing rounds, by at most n units in the last place of the sum of the sizes."""
    points = points_of("gauss", 3, np.float64)
    n = len(points)
    weights = data.draw(st.lists(st.floats(-1e100, 1e100), min_size=n, max_size=n).map(np.array))
    w, b = (array[0] for array in data.draw(queries(points, max_m=1)))
    (want,) = oracle.sums(points, weights[:, None], w, b)
    (size,) = oracle.sums(points, abs(weights)[:, None], w, b)
    got = np.ravel(structure.build(points, weights=weights).sum(w, b))
    assert got.shape == (1,)
    assert abs(got[0] - want) <= n * 2.0**-52 * size


@pytest.mark.parametrize(
    "dataset", ["gauss", "integer_grid", "duplicates", "flat", "mixed_scales", "line"]
)
@pytest.mark.parametrize("d", [3, 8])
@examples(0.1)
@given(data=st.data(), dtype=st.sampled_from(DTYPES))
def test_structures_agree_on_many_points(dataset, d, data, dtype):
    batch = data.draw(queries(points_of(dataset, d, dtype, n=LARGE)))
    k = data.draw(st.integers(1, 100))
    truth, *others = rivals(dataset, d, dtype)
    report, best = truth.report(*batch), truth.top(batch[0], k)
    for index in others:
        assert index.report(*batch).indptr.tolist() == report.indptr.tolist()
        assert np.array_equal(index.report(*batch).indices, report.indices)
        assert np.array_equal(index.count(*batch), truth.count(*batch))
        assert np.array_equal(index.any(*batch), truth.any(*batch))
        assert np.array_equal(index.sum(*batch), truth.sum(*batch))
        assert np.array_equal(index.top(batch[0], k).ids, best.ids)


@pytest.mark.parametrize("d", [2, 3])
@examples(0.2)
@given(rng=rngs())
def test_a_tree_touches_fewer_points_than_a_scan(d, rng):
    points = points_of("gauss", d, np.float32, n=LARGE)
    normals = rng.standard_normal((16, d))
    offsets = 2.5 * np.linalg.norm(normals, axis=1)  # cuts off 0.6 % of a normal distribution
    scanned, touched = (
        build(points).work(normals, offsets).points_touched
        for build in (halfspace.Scan, halfspace.KDTree)
    )
    assert (touched <= scanned).all()
    share = 0.3 if JIT else 0.75  # five tiles are hardly a tree
    assert touched.sum() < share * scanned.sum()
