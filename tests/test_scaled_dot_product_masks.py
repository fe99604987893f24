"""Masks of torch's function: every kind in practice, each way a row can be read."""

import math

import numpy as np
import pytest

from attention import (
    Error,
    Mass,
    Threshold,
    TopR,
    decode,
    scaled_dot_product,
    scaled_dot_product_attention,
    softmax_attention,
)

from .sdpa_oracle import TIGHT, arrays, assert_attends
from .sdpa_oracle import attention as truth
from .sizes import JIT

INF = math.inf


@pytest.fixture
def read_in_full(monkeypatch):
    """Numbers of rows that were read in full, where 8 that share a mask are not."""
    monkeypatch.setattr(scaled_dot_product, "SHARED_ROWS", 8)
    rows = []

    def spy(query, *args, **options):
        rows.append(len(query))
        return masked_softmax(query, *args, **options)

    masked_softmax = scaled_dot_product.masked_softmax
    monkeypatch.setattr(scaled_dot_product, "masked_softmax", spy)
    return rows


def masks(batch, heads, length, n):
    """By name: every kind of mask there is in practice, for (batch, heads, length, n)."""
    rng = np.random.default_rng(3)
    padding = np.arange(n) < rng.integers(1, n + 1, (batch, 1, 1, 1))
    left = np.arange(n) >= rng.integers(0, n, (batch, 1, 1, 1))
    causal = np.tri(length, n, n - length, dtype=bool)
    window = causal & ~np.tri(length, n, n - length - 5, dtype=bool)
    far = np.abs(np.arange(length)[:, None] - np.arange(n))
    slopes = 2.0 ** -np.arange(1.0, heads + 1)[:, None, None]
    return {
        "padding": padding,
        "left padding": left,
        "causal": causal,
        "causal and padding": causal & padding,
        "causal and left padding": causal & left,
        "window": window,
        "random": rng.random((length, n)) < 0.3,
        "random of each": rng.random((batch, heads, length, n)) < 0.3,
        "one set a batch": rng.random((batch, 1, 1, n)) < 0.5,
        "one set": rng.random((1, n)) < 0.5,
        "all or none": rng.random((length, 1)) < 0.5,
        "none": np.zeros((1, 1), bool),
        "bias of keys": rng.standard_normal((heads, 1, n)),
        "bias of keys, float32": rng.standard_normal((heads, 1, n)).astype(np.float32),
        "bias of keys, some -inf": np.where(left, rng.standard_normal((heads, 1, n)), -INF),
        "bias far below": rng.standard_normal((1, n)) - 1e6,
        "relative positions": -slopes * far,
        "relative positions, causal": np.where(causal, -slopes * far, -INF),
        "-inf": np.where(padding, 0.0, -INF),
        "-inf, causal": np.where(causal, 0.0, -INF),
        "stand-ins": np.where(padding & causal, 0.0, -1e9),
        "stand-ins, all": np.full((1, n), np.finfo(np.float64).min),
        "one number": np.full((1, 1), 2.5),
        "all -inf": np.full((length, 1), -INF),
    }


@pytest.mark.parametrize("kind", masks(1, 1, 2, 3))
def test_masks(kind, shared_rows):
    qkv = arrays((2, 3, 12, 4), (2, 3, 20, 4), (2, 3, 20, 5))
    mask = masks(2, 3, 12, 20)[kind]
    assert_attends(*qkv, mask)
    assert_attends(*qkv, mask, rule=Error(1e-2), within=1e-2)
    assert_attends(qkv[0], qkv[1][:, :1], qkv[2][:, :1], mask, group=True)


@pytest.mark.parametrize(
    ("kind", "in_full"),
    {
        "padding": 0,
        "left padding": 0,
        "causal": 0,
        "causal and padding": 0,
        "one set": 0,
        "bias of keys": 0,
        "bias of keys, some -inf": 0,
        "bias far below": 0,
        "-inf, causal": 0,
        "stand-ins": 0,
        "none": 0,
        "random": 12,
        "relative positions": 12,
    }.items(),
)
def test_masks_that_rows_share_are_read_by_index(kind, in_full, read_in_full):
    qkv = arrays((2, 3, 12, 4), (2, 3, 20, 4), (2, 3, 20, 5))
    scaled_dot_product_attention(*qkv, masks(2, 3, 12, 20)[kind])
    assert read_in_full == ([in_full] * 6 if in_full else [])


def test_rows_that_share_no_mask_are_read_in_full(read_in_full):
    query, key, value = arrays((7, 4), (20, 4), (20, 5))
    scaled_dot_product_attention(query, key, value, np.ones((1, 20), bool))
    assert read_in_full == [7]


def test_a_row_that_sees_nothing_is_zero(shared_rows):
    qkv = arrays((2, 9, 4), (2, 20, 4), (2, 20, 5))
    mask = np.random.default_rng(0).random((9, 20)) < 0.5
    mask[::2] = False
    for blind in (mask, np.where(mask, 0.0, -INF), np.where(mask, 0.7, -INF)):
        got = assert_attends(*qkv, blind)
        assert (got[:, ::2] == 0.0).all()
        assert (got[:, 1::2] != 0.0).all()


def test_a_mask_of_finite_numbers_hides_nothing():
    """Where all keys have the same stand-in for -inf, real arithmetic sees all of them."""
    query, key, value = arrays((9, 4), (20, 4), (20, 5))
    got = scaled_dot_product_attention(query, key, value, np.full((9, 20), -1e30), rule=TIGHT)
    assert np.abs(got - truth(query, key, value)).max() <= 2e-9


def test_true_means_take_part():
    value = np.array([[3.0], [5.0]])
    got = scaled_dot_product_attention(
        np.zeros((2, 1)), np.zeros((2, 1)), value, np.eye(2, dtype=bool)
    )
    assert got.tolist() == value.tolist()


def test_causal_is_upper_left(shared_rows):
    for length, n in ((12, 20), (20, 12), (12, 12)):
        qkv = arrays((length, 4), (n, 4), (n, 5))
        got = assert_attends(*qkv, causal=True)
        by_mask = assert_attends(*qkv, np.tri(length, n, dtype=bool))
        assert np.abs(got - by_mask).max() <= 2e-9


def test_no_mask_is_softmax_attention():
    query, key, value = arrays((2, 3, 9, 4), (2, 3, 20, 4), (2, 3, 20, 5))
    for rule in (TopR(3), Threshold(0.1), Mass(0.7), Error(1e-2)):
        for causal in (False, True):
            got = scaled_dot_product_attention(query, key, value, is_causal=causal, rule=rule)
            want = softmax_attention(
                query, key, value, rule=rule, causal="upper_left" if causal else None
            )
            assert np.array_equal(got, want.output)
    default = softmax_attention(query, key, value, rule=Error(1e-3)).output
    assert np.array_equal(scaled_dot_product_attention(query, key, value), default)


def test_a_rule_applies_to_what_a_mask_leaves():
    key, value = np.arange(20.0)[:, None], np.arange(20.0)[:, None]
    mask = np.arange(20) % 3 == 0
    for left in (mask[None], np.where(mask, 0.0, -INF)[None]):
        got = scaled_dot_product_attention(np.ones((9, 1)), key, value, left, rule=TopR(1))
        assert got.tolist() == [[18.0]] * 9
    bias = np.where(np.arange(20) == 4, 100.0, np.arange(20.0))[None]
    got = scaled_dot_product_attention(np.ones((9, 1)), key, value, bias, rule=TopR(1))
    assert got.tolist() == [[4.0]] * 9


def test_a_rule_applies_to_every_row(read_in_full):
    """Also to rows whose mask nobody shares; only within an error any way will do."""
    mask = np.random.default_rng(0).random((9, 20)) < 0.5
    query, value = np.ones((9, 1)), np.arange(20.0)[:, None]
    for bias in (mask, np.where(mask, value.ravel()[::-1] * 3.0, -INF)):
        scores = value.ravel() + (np.where(mask, 0.0, -INF) if bias is mask else bias)
        got = scaled_dot_product_attention(query, value, value, bias, scale=1.0, rule=TopR(1))
        assert got.ravel().tolist() == scores.argmax(axis=1).tolist()
        got = scaled_dot_product_attention(
            query, value, value, bias, scale=1.0, rule=Threshold(1e3)
        )
        assert not got.any()
    assert read_in_full == []
    scaled_dot_product_attention(query, value, value, mask, rule=Error(1.0))
    assert read_in_full == [9]


def test_many_keys_of_few_dimensions(shared_rows, monkeypatch):
    """A tree is under the index then."""
    m, n = (70, 3000) if JIT else (20, 300)
    monkeypatch.setattr(decode, "LEAST_KEYS", n // 2)
    query, key, value = arrays((m, 3), (n, 3), (n, 2))
    mask = np.random.default_rng(0).random((1, n)) < 0.9
    bias = np.where(mask, np.random.default_rng(1).standard_normal(n), -INF)
    for some in (mask, bias):
        assert_attends(4.0 * query, key, value, some, rule=Error(1e-4), within=1e-4)
