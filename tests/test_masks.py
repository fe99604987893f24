"""Masks taken apart: distinct rows, keys that are left, biases; and rows that are read in full."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attention import blockwise, masks
from attention.masks import distinct, kept, with_bias

from . import attention_oracle as truth
from .attention_strategies import heads, integer_heads
from .sizes import examples
from .strategies import rngs

INF = np.inf


@st.composite
def any_masks(draw):
    """A mask with few or many distinct rows, and what it broadcasts to."""
    batch = tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
    length, n = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    shape = [draw(st.sampled_from((1, size))) for size in (*batch, length, n)]
    shape = tuple(shape[draw(st.integers(0, len(batch))) :])
    rng = draw(rngs())
    pool = draw(st.sampled_from(([False, True], [0.0, -0.0, -INF, 1.5])))
    mask = rng.choice(np.array(pool), shape)
    if draw(st.booleans()):
        mask = np.broadcast_to(mask, (*batch, length, n))
    if draw(st.booleans()):
        mask = np.asfortranarray(mask)
    return mask, batch, length, n


@given(drawn=any_masks())
def test_distinct_rows_make_up_the_mask(drawn):
    mask, batch, length, n = drawn
    got = distinct(mask, batch, length, n)
    assert got.rows.dtype == mask.dtype
    assert got.pattern.shape == (*batch, length)
    assert np.array_equal(got.rows[got.pattern], np.broadcast_to(mask, (*batch, length, n)))
    assert len({row.tobytes() for row in got.rows}) == len(got.rows)
    assert set(np.unique(got.pattern)) == set(range(len(got.rows)))


def test_a_broadcast_mask_is_looked_at_once():
    mask = np.broadcast_to(np.ones((1, 1, 1, 9), bool), (50, 8, 1000, 9))
    got = distinct(mask, (50, 8), 1000, 9)
    assert got.rows.shape == (1, 9)
    assert got.pattern.strides[:2] == (0, 0)


def test_equal_hashes_are_no_equal_rows(monkeypatch):
    monkeypatch.setattr(masks, "hash", lambda row: 0, raising=False)
    mask = np.random.default_rng(0).random((9, 4)) < 0.5
    got = distinct(mask, (), 9, 4)
    assert np.array_equal(got.rows[got.pattern], mask)


@given(mask=st.lists(st.booleans(), max_size=9))
def test_kept_keys(mask):
    mask = np.array(mask, bool)
    for row in (mask, np.where(mask, 3.5, -INF), np.where(mask, -2.0, -1e5)[: mask.any() * 9]):
        left = kept(row, np.ones(len(row)))
        assert left.keys.tolist() == np.flatnonzero(mask[: len(row)]).tolist()
        assert left.bias is None
        runs = [i for i in range(len(mask)) if mask[i] and (i == 0 or not mask[i - 1])]
        assert (left.run is None) == (len(runs) > 1 and len(row) > 0)
        if left.run is not None:
            assert left.keys.tolist() == list(range(*left.run))


@given(data=st.data())
def test_keys_that_are_left_out_have_no_weight(data):
    rng, n = data.draw(rngs()), data.draw(st.integers(1, 9))
    size = data.draw(st.sampled_from((1.0, 300.0, 1e4, 1e300)))
    row, reach = rng.uniform(-size, size, n), rng.uniform(0.0, 400.0, n)
    row[rng.random(n) < 0.2] = -INF
    left = kept(row, reach)
    gone = np.setdiff1d(np.arange(n), left.keys)
    if len(left.keys) == 0:
        assert np.isneginf(row).all()
        return
    best = (row - reach).max()
    assert (row[gone] + reach[gone] < best - masks.NEGLIGIBLE + 1e-6 * size).all()
    # Their biases, exactly, up to what they have in common.
    bias = np.zeros(len(left.keys)) if left.bias is None else left.bias
    shifts = {Fraction(a) - Fraction(b) for a, b in zip(row[left.keys], bias, strict=True)}
    assert len(shifts) == 1


def test_a_common_bias_goes_only_if_that_is_exact():
    for row, left in (
        ([3.0, 3.0], None),
        ([-1e9, -1e9 + 0.25], [-0.25, 0.0]),
        ([1e9 + 0.5, 1e9], [0.0, -0.5]),
        ([0.1, 0.3], [0.1, 0.3]),
        ([-0.1, 0.3], [-0.1, 0.3]),
    ):
        bias = kept(np.array(row), np.zeros(2)).bias
        assert (None if bias is None else bias.tolist()) == left


@given(data=st.data())
def test_a_bias_is_one_more_coordinate(data):
    dtype = data.draw(st.sampled_from((np.float32, np.float64)))
    rng, scale = data.draw(rngs()), data.draw(st.floats(1e-6, 1e6))
    query, key = (rng.standard_normal((n, 3)).astype(dtype) for n in (2, 5))
    bias = rng.standard_normal(5) * data.draw(st.sampled_from((1.0, 1e6, 1e200)))
    q, k = with_bias(query, key, bias, scale)
    for i in range(2):
        plain, extended = (truth.scores(*qk, scale) for qk in ((query[i], key), (q[i], k)))
        for a, b, x in zip(plain, extended, bias, strict=True):
            assert abs(b - a - Fraction(x)) <= abs(Fraction(x)) / 2**100


def test_narrow_keys_stay_narrow_if_their_biases_are():
    query, key = np.ones((2, 3), np.float32), np.ones((2, 3), np.float32)
    for bias, dtype in (([0.5, 1.0], np.float32), ([0.1, 1.0], np.float64), ([1e300, 0], float)):
        assert with_bias(query, key, np.array(bias), 0.5)[1].dtype == dtype
    assert with_bias(query, key, np.ones(2), 0.5)[1].shape == (2, 4)
    assert with_bias(query, key, np.ones(2), 0.3)[1].shape == (2, 5)


# Rows read in full


def in_full(head, mask):
    pattern = np.arange(len(head.query))
    return blockwise.masked_softmax(
        head.query, head.key, head.value, scale=head.factor, masks=mask, pattern=pattern
    )


@pytest.fixture(params=[(1, 1), (2, 7), (256, 4096)], ids=str)
def blocks(request, monkeypatch):
    monkeypatch.setattr(blockwise, "ROWS", request.param[0])
    monkeypatch.setattr(blockwise, "KEYS", request.param[1])


def some_masks(data, head):
    rng, shape = data.draw(rngs()), (len(head.query), len(head.key))
    return rng.random(shape) < data.draw(st.sampled_from((0.0, 0.1, 0.7, 1.0)))


@pytest.mark.parametrize("block", [(1, 3), (2, 50), (256, 4096)], ids=str)
@examples(1)
@given(data=st.data())
def test_masked_rows_are_within_their_bound(block, data):
    head = data.draw(heads())
    mask = some_masks(data, head)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blockwise, "ROWS", block[0])
        patch.setattr(blockwise, "KEYS", block[1])
        output, bound = in_full(head, mask)
        also, _ = in_full(head, np.where(mask, np.float32(0.5), -INF))
    assert output.dtype == bound.dtype == np.float64
    for i, q in enumerate(head.query):
        row = truth.softmax(q, head.key[mask[i]], head.value[mask[i]], head.factor)
        assert 0.0 <= bound[i] < INF
        for got in (output[i], also[i]):
            assert truth.error(got, row) <= Fraction(bound[i]) + row.doubt
        if not mask[i].any():
            assert bound[i] == 0.0


@pytest.mark.parametrize("block", [(1, 3), (256, 4096)], ids=str)
@examples(1)
@given(data=st.data())
def test_biased_rows_are_within_their_bound(block, data):
    head = data.draw(integer_heads())
    rng, shape = data.draw(rngs()), (len(head.query), len(head.key))
    bias = rng.standard_normal(shape) * data.draw(st.sampled_from((0.1, 10.0, 1e3, 1e8)))
    bias -= data.draw(st.sampled_from((0.0, 1e4, 1e9)))
    mask = some_masks(data, head)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blockwise, "ROWS", block[0])
        patch.setattr(blockwise, "KEYS", block[1])
        output, bound = in_full(head, np.where(mask, bias, -INF))
    for i, q in enumerate(head.query):
        seen = mask[i]
        # The scale is a power of two, so these products are the scores that were asked for.
        query, key = with_bias(q[None], head.key[seen], bias[i, seen], head.factor)
        row = truth.softmax(query[0], key, head.value[seen], head.factor)
        assert truth.error(output[i], row) <= Fraction(bound[i]) + row.doubt


def test_the_bound_is_rounding_alone():
    rng = np.random.default_rng(0)
    query, key, value = rng.standard_normal((3, 300, 8))
    mask = rng.random((300, 300)) < 0.5
    for some in (mask, np.where(mask, rng.standard_normal((300, 300)), -INF)):
        _, bound = blockwise.masked_softmax(
            query, key, value, scale=0.3, masks=some, pattern=np.arange(300)
        )
        assert (bound <= 1e-10).all()


def test_rows_may_share_a_mask_and_come_in_any_order(blocks):
    rng = np.random.default_rng(0)
    query, key, value = rng.standard_normal((3, 9, 3))
    mask, pattern = rng.random((3, 9)) < 0.6, np.array([2, 0, 0, 1, 2, 2, 0, 1, 1])
    for some in (mask, np.where(mask, rng.standard_normal((3, 9)), -INF)):
        options = {"scale": 1.0}
        a, _ = blockwise.masked_softmax(query, key, value, masks=some, pattern=pattern, **options)
        b, _ = blockwise.masked_softmax(
            query, key, value, masks=some[pattern], pattern=np.arange(9), **options
        )
        assert np.array_equal(a, b)
