"""The exact predicate: error-free transformations, both stages, both sides of every boundary."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfspace.jit import kernel
from halfspace.predicate import (
    LIMBS,
    SPLITTABLE,
    compensated,
    exact_sign,
    two_product,
    two_sum,
)

NO_POINT = np.empty(0)

finite = st.floats(allow_nan=False, allow_infinity=False)
moderate = st.floats(min_value=2.0**-400, max_value=2.0**400) | st.floats(
    min_value=-(2.0**400), max_value=-(2.0**-400)
)
small_integers = st.integers(-9, 9).map(float)


@kernel
def _sum_of(a, b):
    return two_sum(a, b)


@kernel
def _product_of(a, b):
    return two_product(a, b)


@kernel
def _sign_of(normal, plus, minus, offset, limbs):
    return exact_sign(normal, plus, minus, offset, limbs)


@kernel
def _compensated(normal, plus, minus, offset):
    return compensated(normal, plus, minus, offset)


def rational(normal, plus, minus, offset):
    score = sum(Fraction(w) * Fraction(p) for w, p in zip(normal, plus, strict=True))
    if len(minus):
        score -= sum(Fraction(w) * Fraction(p) for w, p in zip(normal, minus, strict=True))
    return score - Fraction(offset)


def sign_of(normal, plus, minus, offset):
    limbs = np.zeros(LIMBS, np.int64)
    sign = _sign_of(
        np.array(normal, float), np.array(plus, float), np.array(minus, float), offset, limbs
    )
    assert not limbs.any(), "the accumulator must be left at zero"
    return sign


def truth(normal, plus, minus, offset):
    exact = rational(normal, plus, minus, offset)
    return (exact > 0) - (exact < 0)


def vectors(elements, least=1):
    return st.integers(least, 6).flatmap(
        lambda d: st.tuples(*[st.lists(elements, min_size=d, max_size=d) for _ in range(3)])
    )


@given(moderate, moderate)
def test_two_sum_and_two_product_lose_nothing(a, b):
    total, error = _sum_of(a, b)
    assert Fraction(total) + Fraction(error) == Fraction(a) + Fraction(b)
    if 2.0**-900 < abs(a * b) < 2.0**900:
        product, error = _product_of(a, b)
        assert Fraction(product) + Fraction(error) == Fraction(a) * Fraction(b)


@given(vectors(finite), finite)
def test_sign_of_any_floats(vectors, offset):
    normal, plus, minus = vectors
    assert sign_of(normal, plus, NO_POINT, offset) == truth(normal, plus, NO_POINT, offset)
    assert sign_of(normal, plus, minus, 0.0) == truth(normal, plus, minus, 0.0)


@given(vectors(small_integers | finite), st.integers(-1, 1))
def test_sign_next_to_the_rounded_score(vectors, steps):
    normal, plus, _ = vectors
    try:
        offset = float(rational(normal, plus, NO_POINT, 0))
    except OverflowError:
        return
    for _ in range(abs(steps)):
        offset = math.nextafter(offset, math.inf * steps)
    if np.isfinite(offset):
        assert sign_of(normal, plus, NO_POINT, offset) == truth(normal, plus, NO_POINT, offset)


@given(vectors(small_integers))
def test_ties_between_integers_are_settled_by_the_compensated_sum(vectors):
    normal, plus, _ = vectors
    offset = float(rational(normal, plus, NO_POINT, 0))
    value, bound = _compensated(np.array(normal), np.array(plus), NO_POINT, offset)
    assert (value, bound) == (0.0, 0.0)


@given(vectors(moderate), moderate)
def test_compensated_error_is_within_its_bound(vectors, offset):
    normal, plus, minus = vectors
    value, bound = _compensated(np.array(normal), np.array(plus), np.array(minus), offset)
    if bound < np.inf:
        assert abs(Fraction(value) - rational(normal, plus, minus, offset)) <= Fraction(bound)


@pytest.mark.parametrize(
    ("normal", "plus", "offset"),
    [
        ([5e-324], [5e-324], 0.0),  # the product underflows to zero
        ([1.7e308, -1.7e308], [1.7e308, 1.7e308], 0.0),  # overflows, cancels
        ([1e300, 1.0], [1e300, -1.0], 1.7e308),
        ([1.0, 1.0, 1.0], [1e16, 1.0, -1e16], 1.0),  # plain float64 says 0
        ([1e300, 1e-300], [1e-300, 1e300], 2.0),
        ([SPLITTABLE * 4.0, 1.0], [2.0**-1000, 1.0], 1.0),
        ([0.1, 0.2, -0.3], [1.0, 1.0, 1.0], 0.0),
        ([0.0], [0.0], 5e-324),
        ([1.0], [-0.0], 0.0),
        ([2.0**-1074, 2.0**-1074], [2.0**-1074, -(2.0**-1074)], 0.0),
        ([1.7976931348623157e308] * 6, [1.7976931348623157e308] * 6, -1.7e308),
    ],
)
def test_named_hard_cases(normal, plus, offset):
    assert sign_of(normal, plus, NO_POINT, offset) == truth(normal, plus, NO_POINT, offset)
    assert sign_of(normal, [-x for x in plus], NO_POINT, -offset) == -truth(
        normal, plus, NO_POINT, offset
    )
