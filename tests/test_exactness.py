"""Every structure answers as real arithmetic does, on inputs chosen to make floats disagree."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from . import oracle
from .sizes import examples
from .strategies import DTYPES, problems
from .structures import each_structure, each_structure_and_dim

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)


def check(index, problem, k):
    points, normals, offsets = problem
    for closed in (True, False):
        want = [oracle.report(points, w, b, closed) for w, b in zip(normals, offsets, strict=True)]
        got = index.report(normals, offsets, closed=closed)
        assert [ids.tolist() for ids in got] == want
        assert index.report(normals[0], offsets[0], closed=closed).tolist() == want[0]
        counts = [len(ids) for ids in want]
        assert index.count(normals, offsets, closed=closed).tolist() == counts
        assert index.any(normals, offsets, closed=closed).tolist() == [c > 0 for c in counts]
    best = [oracle.top(points, w, k) for w in normals]
    assert index.top(normals, k).ids.tolist() == best
    assert index.top(normals[0], k).ids.tolist() == best[0]


@each_dtype
@each_structure
@examples(5.5)
@given(data=st.data())
def test_low_dimension(structure, dtype, data):
    problem = data.draw(problems(dtype, structure.dims_to(6), max_m=3))
    k = data.draw(st.integers(0, len(problem.points) + 2))
    check(structure.build(problem.points), problem, k)


@each_dtype
@each_structure_and_dim(16, 33)
@examples(1)
@given(data=st.data())
def test_high_dimension(structure, d, dtype, data):
    problem = data.draw(problems(dtype, [d], max_m=2))
    check(structure.build(problem.points), problem, k=data.draw(st.integers(1, 8)))


@each_structure_and_dim(2, 3, 8)
@examples(0.5)
@given(data=st.data())
def test_points_within_rounding_of_the_boundary(structure, d, data):
    """Nothing but hard cases: all points are solved for to lie on <w, x> = b, then rounded."""
    dtype = data.draw(st.sampled_from(DTYPES))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    w = rng.uniform(0.5, 2, d) * rng.choice([-1, 1], d)
    b = float(rng.standard_normal() * 2.0 ** data.draw(st.integers(-20, 20)))
    points = rng.standard_normal((data.draw(st.integers(1, 130)), d))
    points[:, -1] = (b - points[:, :-1] @ w[:-1]) / w[-1]
    points = points.astype(dtype)
    normals = np.array([w, -w])
    check(structure.build(points), (points, normals, np.array([b, -b])), k=5)
