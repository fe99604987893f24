"""What builds are made of: norms, ranks of keys, divisions of points, codes in their rows."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfspace.code_rows import GROUPS, ROW, pack
from halfspace.integer_dot import products_by_loops
from halfspace.jit import kernel
from halfspace.kd_tree import order_points
from halfspace.norms import OVERFLOWING, upper_norms
from halfspace.quickselect import LEAST_BRACKETED, key_of_rank
from halfspace.splits import divide, principal_axis
from halfspace.tiles import TILE

from .sizes import JIT


@kernel
def _key_of_rank(keys, k, some):
    return key_of_rank(keys, k, some)


@kernel
def _divide(points, order, middle, keys, some):
    divide(points, order, middle, keys, some)


@kernel
def _axis(points, sample, along, axis, product):
    principal_axis(points, sample, along, axis, product)


@kernel
def _pack(values, codes, bits, t, lane):
    pack(values, codes, bits, t, lane)


@kernel
def _product(codes, normals, bits, sums):
    products_by_loops(codes, 0, 0, normals, 0, bits, sums)


magnitudes = st.sampled_from([0.0, 5e-324, 1e-310, 1e-200, 1e-160, 1e-120, 1.0, 3.7, 1e150, 1e290])


@given(
    st.lists(magnitudes, min_size=1, max_size=9), st.integers(0, 8), st.sampled_from(["f4", "f8"])
)
def test_norms_are_bounded_closely_from_above(row, turn, dtype):
    signs = np.where(np.arange(len(row)) % (turn + 2) == 0, -1.0, 1.0)
    with np.errstate(over="ignore"):
        points = (np.array([row]) * signs).astype(dtype)
    points = points[:, np.isfinite(points[0])]
    exact = sum(Fraction(float(x)) ** 2 for x in points[0])
    found = upper_norms(points)[0]
    limit = OVERFLOWING[0] if dtype == "f4" else OVERFLOWING[1]
    if exact * (points.shape[1] + 1) ** 2 >= Fraction(limit * 1.001) ** 2:
        assert found == math.inf
    elif found < math.inf:
        assert Fraction(found) ** 2 >= exact
        least = Fraction(found) - Fraction(3, 2**1074)
        assert least <= 0 or least**2 <= exact * Fraction(1.0 + 3e-10)
    if not exact:
        assert found == 0.0


def test_norms_of_no_points():
    assert upper_norms(np.zeros((0, 3))).shape == (0,)
    assert upper_norms(np.zeros((2, 0))).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("n", [1, 2, 3, 100, LEAST_BRACKETED - 1, LEAST_BRACKETED, 2000])
@pytest.mark.parametrize("law", ["any", "ties", "equal", "sorted", "far"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_keys_of_ranks(n, law, dtype):
    rng = np.random.default_rng(n)
    keys = rng.standard_normal(n)
    if law == "ties":
        keys = np.floor(2.0 * keys)
    elif law == "equal":
        keys[:] = 3.0
    elif law == "sorted":
        keys.sort()
    elif law == "far":
        keys[rng.random(n) < 0.3] = np.inf
        keys[rng.random(n) < 0.3] = -np.inf
    keys = keys.astype(dtype)
    wanted, given_keys = np.sort(keys), keys.copy()
    for k in {0, n // 7, n // 2, n - 1}:
        assert _key_of_rank(keys, k, np.empty_like(keys)) == wanted[k]
    assert np.array_equal(keys, given_keys)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=60), st.data())
def test_divisions_put_the_least_keys_first(keys, data):
    middle = data.draw(st.integers(0, len(keys)))
    keys = np.array(keys, np.float64)
    points = np.stack([keys, np.arange(len(keys))], axis=1)
    order = np.arange(len(keys), dtype=np.int32)
    _divide(points, order, middle, keys.copy(), np.empty_like(keys))
    assert np.array_equal(points[:, 1], order)
    assert np.array_equal(points[:, 0], keys[order])
    assert sorted(order.tolist()) == list(range(len(keys)))
    if 0 < middle < len(keys):
        assert points[:middle, 0].max() <= points[middle:, 0].min()


def test_divisions_by_keys_that_are_no_numbers_lose_no_point():
    keys = np.array([np.nan, 1.0, np.nan, 0.0, np.nan, 2.0])
    points, order = np.arange(6.0)[:, None], np.arange(6, dtype=np.int32)
    _divide(points, order, 3, keys, np.empty(6))
    assert sorted(points[:, 0].tolist()) == list(range(6))


def test_the_principal_axis_of_a_long_cloud():
    rng = np.random.default_rng(0)
    direction = np.array([2.0, -1.0, 2.0]) / 3.0
    points = 10.0 * rng.standard_normal((700, 1)) * direction + rng.standard_normal((700, 3)) + 50
    axis = np.empty(3)
    _axis(points, np.empty((3, 256)), np.empty(256), axis, np.empty(3))
    assert abs(axis @ direction) > 0.99
    _axis(np.ones((5, 3)), np.empty((3, 256)), np.empty(256), axis, np.empty(3))
    assert axis.tolist() == [1.0, 0.0, 0.0]


def test_points_in_periods_are_sampled_evenly():
    """A period that the sample's own steps fall in with would show it one kind of points alone."""
    n = 256 * 8
    points = np.zeros((n, 2))
    points[:, 0] = np.where(np.arange(n) % 8 == 0, 0.0, np.random.default_rng(0).normal(size=n))
    points[::8, 1] = 1e-3 * np.arange(256)
    axis = np.empty(2)
    _axis(points, np.empty((2, 256)), np.empty(256), axis, np.empty(2))
    assert abs(axis[0]) > 0.99


@pytest.mark.parametrize("unit", [8, 16, TILE])
def test_orders_share_leaves_of_any_size(unit):
    rng = np.random.default_rng(unit)
    corners = rng.permutation(np.repeat(np.arange(8.0), unit))
    order = order_points(corners[:, None].astype(np.float32), unit)
    assert (corners[order].reshape(-1, unit) == np.sort(corners).reshape(-1, unit)).all()


@pytest.mark.parametrize("bits", sorted(GROUPS))
@pytest.mark.parametrize("groups", [1, 2, 3])
def test_codes_are_read_where_they_were_written(bits, groups):
    rows = GROUPS[bits][0] * groups
    room = GROUPS[bits][1] * groups
    rng = np.random.default_rng(bits)
    values = rng.integers(0, 2**bits, (TILE, room)).astype(np.uint8)
    codes = np.zeros((1, rows, ROW), np.uint8)
    for lane in range(TILE):
        _pack(values[lane], codes, bits, 0, lane)
    sums = np.empty(TILE, np.int32)
    for j in range(room if JIT else 3):
        normal = np.zeros((1, room), np.int8)
        normal[0, j] = 1
        _product(codes, normal, bits, sums)
        assert np.array_equal(sums, values[:, j])
