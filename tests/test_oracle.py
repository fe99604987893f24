"""The oracle against schoolbook fractions and against answers worked out by hand."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given

from . import oracle
from .datasets import DATASETS
from .strategies import DTYPES, problems


def schoolbook(points, normal):
    return [
        sum(
            (Fraction(a) * Fraction(b) for a, b in zip(x, normal.tolist(), strict=True)),
            Fraction(0),
        )
        for x in points.tolist()
    ]


@given(problems())
def test_every_answer_is_its_definition(problem):
    points, normals, offsets = problem
    for w, b in zip(normals, offsets, strict=True):
        scores = schoolbook(points, w)
        within = [i for i, s in enumerate(scores) if s >= b]  # a Fraction compares exactly
        strictly = [i for i, s in enumerate(scores) if s > b]
        assert oracle.scores(points, w) == scores
        assert oracle.report(points, w, b) == within
        assert oracle.report(points, w, b, closed=False) == strictly
        assert oracle.count(points, w, b) == len(within)
        assert oracle.any_(points, w, b, closed=False) == bool(strictly)
        best = sorted(range(len(points)), key=lambda i: (-scores[i], i))
        assert oracle.top(points, w, 5) == best[:5]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", DATASETS)
def test_data_sets_are_what_they_say(name, dtype):
    for d in (1, 2, 3, 8):
        points = DATASETS[name](d, np.random.default_rng(0), dtype)
        again = DATASETS[name](d, np.random.default_rng(0), dtype)
        assert points.ndim == 2
        assert points.shape[1] == d
        assert np.isfinite(points).all()
        assert points.dtype == again.dtype
        assert points.tobytes() == again.tobytes()
        assert [[Fraction(v) for v in x] for x in points.tolist()] == [
            [Fraction(v) for v in x] for x in points.astype(np.float64).tolist()
        ]


def test_rounding_is_not_believed():
    points = np.array([[0.1], [0.2], [0.3]])
    assert oracle.report(points, np.array([3.0]), 0.3) == [0, 1, 2]  # 3 * 0.1 > 0.3 as stored
    assert oracle.report(points * 3, np.array([1.0]), 0.3 * 3, closed=False) == []
    assert oracle.report(np.array([[1e308, 1e308, 1.0]]), np.array([10.0, -10.0, 1.0]), 1.0) == [0]
    assert oracle.report(np.array([[5e-324]]), np.array([0.5]), 0.0, closed=False) == [0]


def test_all_or_none():
    points = np.arange(6.0).reshape(3, 2)
    zero = np.zeros(2)
    assert oracle.report(points, zero, 0.0) == [0, 1, 2]
    assert oracle.report(points, zero, -0.0, closed=False) == []
    assert oracle.report(points, zero, -np.inf, closed=False) == [0, 1, 2]
    assert oracle.report(points, zero, np.inf) == []
    assert oracle.report(np.empty((0, 2)), zero, 0.0) == []
    assert oracle.top(points, zero, 2, ids=[5, -1, 3]) == [-1, 3]


def test_ids_and_sums():
    points = np.array([[1], [2], [3]], np.int8)
    weights = np.array([[1e100, 1.0], [1.0, 2.0], [-1e100, 4.0]])
    assert oracle.report(points, np.array([1.0]), 2.0, ids=[9, 7, -4]) == [-4, 7]
    assert oracle.top(points, np.array([-1.0]), 2, ids=[9, 7, -4]) == [9, 7]
    assert oracle.sums(points, weights, np.array([1.0]), 1.0) == [1.0, 7.0]
    assert oracle.sums(points, weights, np.array([1.0]), 4.0) == [0.0, 0.0]
    assert oracle.rounded(Fraction(-(2**2000))) == -np.inf
