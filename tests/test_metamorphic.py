"""Changes to a problem whose effect on the answer is known, so that no oracle limits its size."""

import math
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import halfspace

from .datasets import DATASETS
from .sizes import LARGE, MANY, examples
from .strategies import moderate, problems, queries, rngs
from .structures import each_structure, each_structure_and_dim


def answers(structure, points, *batch, k=7, **kwargs):
    """All that can be asked of an index, as arrays."""
    return asked(structure.build(points, **kwargs), *batch, k=k)


def asked(index, normals, offsets, k=7):
    report = index.report(normals, offsets)
    counts, occupied = index.count(normals, offsets), index.any(normals, offsets)
    return report.indptr, report.indices, counts, occupied, index.top(normals, k).ids


def assert_same(one, other):
    for mine, yours in zip(one, other, strict=True):
        np.testing.assert_array_equal(mine, yours)


def large(structure, **kwargs):
    return problems(dims=structure.dims_to(6), max_n=LARGE // 10, **kwargs)


@each_structure
@examples(0.3)
@given(data=st.data())
def test_order_of_the_points_does_not_matter(structure, data):
    points, *batch = data.draw(large(structure))
    ids = data.draw(rngs()).permutation(len(points))
    shuffled = answers(structure, points[ids], *batch, ids=ids)
    assert_same(shuffled, answers(structure, points, *batch))


@each_structure
@examples(0.3)
@given(data=st.data())
def test_order_of_the_coordinates_does_not_matter(structure, data):
    points, normals, offsets = data.draw(large(structure))
    axes = data.draw(st.permutations(range(points.shape[1])))
    shuffled = answers(structure, points[:, axes], normals[:, axes], offsets)
    assert_same(shuffled, answers(structure, points, normals, offsets))


@each_structure
@examples(0.3)
@given(data=st.data())
def test_one_more_dimension_of_zeros_changes_nothing(structure, data):
    points, normals, offsets = data.draw(large(structure))
    assume(points.shape[1] + 1 in structure.dims)
    lifted = np.column_stack([points, np.zeros(len(points), points.dtype)])
    tilted = np.column_stack([normals, normals[:, 0]])
    higher = answers(structure, lifted, tilted, offsets)
    assert_same(higher, answers(structure, points, normals, offsets))


@each_structure
@examples(0.3)
@given(data=st.data(), a=st.integers(-20, 20), b=st.integers(-20, 20))
def test_powers_of_two_scale_out(structure, data, a, b):
    points, normals, offsets = data.draw(large(structure, values=moderate))
    with np.errstate(over="ignore"):
        scaled = np.ldexp(offsets, a + b)
    assume(np.array_equal(np.ldexp(scaled, -a - b), offsets))
    elsewhere = answers(structure, np.ldexp(points, a), np.ldexp(normals, b), scaled)
    assert_same(elsewhere, answers(structure, points, normals, offsets))


@each_structure
@examples(0.3)
@given(data=st.data())
def test_a_whole_is_the_union_of_its_parts(structure, data):
    points, *batch = data.draw(large(structure))
    cut = data.draw(st.integers(0, len(points)))
    ids = np.arange(len(points))
    left = structure.build(points[:cut], ids=ids[:cut])
    right = structure.build(points[cut:], ids=ids[cut:])
    whole = structure.build(points)
    for one, two, both in zip(*(i.report(*batch) for i in (left, right, whole)), strict=True):
        assert np.array_equal(np.concatenate([one, two]), both)
    assert np.array_equal(left.count(*batch) + right.count(*batch), whole.count(*batch))
    assert np.array_equal(left.any(*batch) | right.any(*batch), whole.any(*batch))


@each_structure
@examples(0.3)
@given(data=st.data())
def test_copies_are_reported_together(structure, data):
    points, *batch = data.draw(large(structure))
    once = structure.build(points).report(*batch)
    twice = structure.build(np.concatenate([points, points])).report(*batch)
    for ids, doubled in zip(once, twice, strict=True):
        assert np.array_equal(doubled, np.concatenate([ids, ids + len(points)]))


@each_structure
@examples(0.3)
@given(data=st.data())
def test_opposite_half_spaces_partition_the_points(structure, data):
    points, normals, offsets = data.draw(large(structure))
    index = structure.build(points)
    sides = zip(
        index.report(normals, offsets), index.report(-normals, -offsets, closed=False), strict=True
    )
    for one, other in sides:
        assert np.array_equal(np.sort(np.concatenate([one, other])), np.arange(len(points)))


@each_structure
@examples(0.3)
@given(data=st.data())
def test_higher_thresholds_report_less(structure, data):
    points, normals, offsets = data.draw(large(structure))
    index = structure.build(points)
    ladder = np.sort([*offsets, *(math.nextafter(b, math.inf) for b in offsets)])
    reports = list(
        index.report(np.broadcast_to(normals[0], (len(ladder), len(normals[0]))), ladder)
    )
    for more, less in pairwise(reports):
        assert np.isin(less, more).all()


@each_structure
@examples(0.3)
@given(data=st.data())
def test_only_the_scores_crossed_matter(structure, data):
    """Lattice points have lattice scores, so a threshold half a step lower cuts off the same."""
    rng = data.draw(rngs())
    d = data.draw(st.sampled_from(structure.dims_to(6)))
    points = rng.integers(-9, 10, (data.draw(st.integers(0, LARGE // 10)), d)).astype(np.float32)
    normals, offsets = rng.integers(-9, 10, (4, d)).astype(float), rng.integers(-30, 30, 4)
    index = structure.build(points)
    closed = asked(index, normals, offsets)
    assert_same(closed, asked(index, normals, offsets - 0.5))
    strictly = index.report(normals, offsets - 1, closed=False)
    assert_same(closed[:2], (strictly.indptr, strictly.indices))


@each_structure
@examples(0.3)
@given(data=st.data())
def test_widening_changes_nothing(structure, data):
    points, normals, offsets = data.draw(large(structure, dtype=np.float32))
    index = structure.build(points)
    narrow = asked(index, normals, offsets)
    assert_same(narrow, answers(structure, points.astype(np.float64), normals, offsets))
    assert_same(narrow, asked(index, normals.astype(np.float64), offsets))


def crowded(data, dataset, d):
    """Many points and enough queries to be worth sharing out among threads."""
    points = DATASETS[dataset](d, np.random.default_rng(d), np.float32, n=LARGE)
    return points, *data.draw(queries(points, MANY, MANY))


@pytest.mark.parametrize("dataset", ["gauss", "integer_grid"])
@each_structure_and_dim(3, 8)
@examples(0.02)
@given(data=st.data())
def test_one_query_or_many(structure, d, dataset, data):
    points, normals, offsets = crowded(data, dataset, d)
    index = structure.build(points)
    indptr, indices, counts, occupied, best = asked(index, normals, offsets)
    pairs = list(zip(normals, offsets, strict=True))
    assert_same(np.split(indices, indptr[1:-1]), [index.report(w, b) for w, b in pairs])
    assert counts.tolist() == [index.count(w, b) for w, b in pairs]
    assert occupied.tolist() == [index.any(w, b) for w, b in pairs]
    assert_same(best, [index.top(w, 7).ids for w in normals])


@pytest.mark.parametrize("dataset", ["gauss", "integer_grid"])
@each_structure_and_dim(3, 8)
@examples(0.02)
@given(data=st.data())
def test_threads_do_not_change_the_answer(structure, d, dataset, data):
    points, *batch = crowded(data, dataset, d)
    with threads(1):
        index = structure.build(points)
        alone = asked(index, *batch)
    with threads(4):
        assert_same(asked(index, *batch), alone)
        assert_same(answers(structure, points, *batch), alone)


@contextmanager
def threads(k):
    before = halfspace.get_threads()
    halfspace.set_threads(k)
    try:
        yield
    finally:
        halfspace.set_threads(before)
