"""torch's function: shapes, masks and options as it has them, against dense float64."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attention import (
    Error,
    scaled_dot_product,
    scaled_dot_product_attention,
)

from .sdpa_oracle import arrays, assert_attends
from .sdpa_oracle import attention as truth
from .sizes import examples
from .strategies import rngs

INF = math.inf


# Shapes

SHAPES = [
    ((5, 4), (9, 4), (9, 3)),
    ((1, 1), (1, 1), (1, 1)),
    ((2, 5, 4), (2, 9, 4), (2, 9, 3)),
    ((2, 3, 5, 4), (2, 3, 9, 4), (2, 3, 9, 1)),
    ((2, 3, 4, 5, 4), (2, 3, 4, 9, 4), (2, 3, 4, 9, 2)),
    # Leading axes broadcast, each array's on its own.
    ((5, 4), (2, 9, 4), (2, 9, 3)),
    ((2, 5, 4), (9, 4), (9, 3)),
    ((2, 3, 5, 4), (3, 9, 4), (2, 1, 9, 3)),
    ((1, 3, 5, 4), (2, 1, 9, 4), (1, 1, 9, 3)),
    ((2, 3, 5, 4), (1, 1, 9, 4), (9, 3)),
    ((7, 1, 5, 4), (3, 9, 4), (1, 9, 3)),
]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("query", "key", "value"), SHAPES, ids=str)
def test_shapes(query, key, value, causal):
    assert_attends(*arrays(query, key, value), causal=causal)


@pytest.mark.parametrize(
    ("query", "key", "value"),
    [
        ((6, 5, 4), (2, 9, 4), (2, 9, 3)),
        ((6, 5, 4), (1, 9, 4), (3, 9, 3)),
        ((2, 6, 5, 4), (2, 3, 9, 4), (2, 3, 9, 3)),
        ((2, 6, 5, 4), (3, 9, 4), (1, 6, 9, 3)),
        ((1, 4, 5, 4), (3, 2, 9, 4), (3, 2, 9, 3)),
    ],
    ids=str,
)
def test_grouped_heads(query, key, value):
    given_arrays = arrays(query, key, value)
    assert_attends(*given_arrays, group=True)
    assert_attends(*given_arrays, group=True, causal=True)
    mask = np.random.default_rng(1).random((query[-3], 5, 9)) < 0.5
    assert_attends(*given_arrays, mask, group=True)


def test_a_group_needs_to_be_asked_for():
    query, key, value = arrays((6, 5, 4), (2, 9, 4), (2, 9, 3))
    with pytest.raises(ValueError, match=r"broadcast.*enable_gqa.*\(6, 5, 4\).*\(2, 9, 4\)"):
        scaled_dot_product_attention(query, key, value)
    # Grouping is not broadcasting: without it one head serves all, with it too.
    one = key[:1], value[:1]
    a, b = (scaled_dot_product_attention(query, *one, enable_gqa=on) for on in (False, True))
    assert np.array_equal(a, b)


@pytest.mark.parametrize("leading", [(), (3,), (2, 3)], ids=str)
@pytest.mark.parametrize(("length", "n"), [(3, 0), (0, 4), (0, 0)])
def test_nothing_to_ask_or_to_read(leading, length, n):
    qkv = arrays((*leading, length, 3), (*leading, n, 3), (*leading, n, 2))
    for mask in (None, np.ones((length, n), bool), np.zeros((1, n))):
        got = assert_attends(*qkv, mask)
        assert got.tolist() == np.zeros((*leading, length, 2)).tolist()
    assert_attends(*qkv, causal=True)


def test_an_empty_batch_and_no_coordinates():
    assert_attends(*arrays((0, 2, 3, 4), (0, 2, 5, 4), (0, 2, 5, 6)))
    assert_attends(*arrays((2, 3, 4), (2, 5, 4), (2, 5, 0)))


@st.composite
def broadcast(draw, shape):
    """A shape that broadcasts to `shape`."""
    shape = [draw(st.sampled_from((1, size))) for size in shape]
    return tuple(shape[draw(st.integers(0, len(shape))) :])


@st.composite
def problems(draw):
    """Queries, keys, values of shapes that broadcast, and a mask or none."""
    batch = draw(st.lists(st.integers(1, 3), max_size=3))
    length, n = draw(st.integers(1, 12)), draw(st.integers(1, 20) | st.sampled_from((64, 70)))
    d, c = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    rng = draw(rngs())
    query, key, value = (
        rng.standard_normal((*draw(broadcast(batch)), *shape))
        for shape in ((length, d), (n, d), (n, c))
    )
    query *= draw(st.sampled_from((0.0, 1.0, 30.0)))
    full = np.broadcast_shapes(*(x.shape[:-2] for x in (query, key, value)))
    kind = draw(st.sampled_from(("none", "bool", "runs", "bias", "shared", "stand-ins")))
    if kind == "none":
        return query, key, value, None
    shape = (*draw(broadcast(full)), draw(st.sampled_from((1, length))), n)
    mask = rng.random(shape) < draw(st.sampled_from((0.0, 0.1, 0.5, 0.9, 1.0)))
    if kind == "runs":
        first, last = np.sort(rng.integers(0, n + 1, (2, *shape[:-1], 1)), axis=0)
        mask = (np.arange(n) >= first * draw(st.integers(0, 1))) & (np.arange(n) < last)
    elif kind == "bias":
        mask = np.where(mask, rng.standard_normal(shape), -INF)
    elif kind == "shared":
        mask = np.where(mask, rng.standard_normal(n), -INF)
    elif kind == "stand-ins":
        mask = np.where(mask, 0.0, draw(st.sampled_from((-1e4, -1e9, np.finfo(np.float64).min))))
    return query, key, value, mask


@pytest.mark.parametrize("shared_from", [1, 8, 10**9])
@examples(2)
@given(problem=problems(), data=st.data())
def test_any_shape_and_any_mask(shared_from, problem, data):
    scale = data.draw(st.sampled_from((None, 0.3, 2.0, -0.5, 0.0)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scaled_dot_product, "SHARED_ROWS", shared_from)
        assert_attends(*problem, scale=scale)


# Numbers


@pytest.mark.parametrize(("dtype", "unit"), [(np.float16, 2e-3), (np.float32, 2e-7)])
def test_narrow_floats(dtype, unit, shared_rows):
    qkv = arrays((2, 9, 4), (2, 20, 4), (2, 20, 5), dtype=dtype)
    rng = np.random.default_rng(0)
    bias = np.where(rng.random((2, 1, 20)) < 0.8, rng.standard_normal((2, 1, 20)), -INF)
    for mask in (None, rng.random((1, 20)) < 0.5, bias, bias.astype(dtype)):
        got = assert_attends(*qkv, mask, within=1e-9 + unit)
        assert got.dtype == dtype


@pytest.mark.parametrize("size", [1e3, 1e8, 1e30, 1e100])
def test_huge_logits(size, shared_rows):
    """Products of small integers and a power of two: scores are exact in float64, too."""
    rng = np.random.default_rng(0)
    size = 2.0 ** round(math.log2(size))
    query, key = (rng.integers(-3, 4, (n, 4)).astype(float) for n in (9, 30))
    value = rng.standard_normal((30, 3))
    bias = rng.integers(-3, 4, 30) * size
    every = rng.integers(-3, 4, (9, 30)) * size
    for mask in (None, rng.random((1, 30)) < 0.5, rng.random((9, 30)) < 0.5, bias[None], every):
        assert_attends(query * size, key, value, mask, scale=1.0)
    # float64 cannot hold these scores beside one another; real arithmetic can.
    assert_attends(query, key, value, every, scale=1.0)


@pytest.mark.parametrize("size", [1e-300, 1e300])
def test_values_at_both_ends(size, shared_rows):
    query, key, value = arrays((9, 4), (20, 4), (20, 5))
    value = value * size
    for mask in (None, np.arange(20)[None] % 3 > 0, np.random.default_rng(0).random((9, 20)) < 0.5):
        got = scaled_dot_product_attention(query, key, value, mask, rule=Error(0.0))
        assert np.allclose(got / size, truth(query, key, value / size, mask), atol=1e-9)


@pytest.mark.parametrize("scale", [1.0, 0.3, 1e-3, -1.0, -0.3, 0.0, 0, 2, 1e-30, 1e5])
def test_scale(scale, shared_rows):
    query, key, value = arrays((9, 4), (20, 4), (20, 5))
    if abs(scale) > 1e3:
        query = query / abs(scale)
    bias = np.random.default_rng(0).standard_normal((1, 20))
    for mask in (None, bias > 0.0, bias):
        assert_attends(query, key, value, mask, scale=scale)


def test_layouts_and_inputs_left_alone():
    given_arrays = arrays((2, 9, 4), (2, 20, 4), (2, 20, 5))
    rng = np.random.default_rng(0)
    for mask in (rng.random((9, 20)) < 0.5, rng.random((2, 1, 20)) < 0.5, rng.random((9, 20))):
        everything = [*given_arrays, mask]
        before = [x.copy() for x in everything]
        want = scaled_dot_product_attention(*everything)
        for x in everything:
            x.flags.writeable = False
        for same in (
            everything,
            [np.asfortranarray(x) for x in everything],
            [np.repeat(x, 2, axis=-2)[..., ::2, :] for x in everything],
            [np.repeat(x, 2, axis=-1)[..., ::2] for x in everything],
            [x[..., ::-1, :].copy()[..., ::-1, :] for x in everything],
            [np.swapaxes(np.swapaxes(x, -1, -2).copy(), -1, -2) for x in everything],
            [*given_arrays, np.broadcast_to(mask, (2, 9, 20))],
        ):
            assert np.array_equal(scaled_dot_product_attention(*same), want)
        assert all(np.array_equal(x, y) for x, y in zip(everything, before, strict=True))


def test_other_byte_orders_and_lists():
    query, key, value = arrays((9, 4), (20, 4), (20, 5))
    want = scaled_dot_product_attention(query, key, value)
    got = scaled_dot_product_attention(*(x.astype(">f8") for x in (query, key, value)))
    assert np.array_equal(got, want)
    assert got.dtype.isnative
    lists = (x.tolist() for x in (query, key, value))
    assert np.array_equal(scaled_dot_product_attention(*lists), want)
    mask = np.ones((9, 20), bool)
    a, b = (scaled_dot_product_attention(query, key, value, m) for m in (mask, mask.tolist()))
    assert np.array_equal(a, b)


def test_the_result_is_writable():
    assert scaled_dot_product_attention(*arrays((9, 4), (20, 4), (20, 5))).flags.writeable
