"""Rows read in whole by float32 products: their bounds hold, and flat heads are read so."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attention import Decoder, Error, Mass, TopR, bounds, prefill, products, softmax_attention
from attention.reading import make_readings

from .attention_oracle import assert_certified
from .attention_strategies import heads, output_dtypes
from .sizes import JIT, examples


@pytest.fixture
def eager(monkeypatch):
    """Whatever may be read in whole is."""
    monkeypatch.setattr(prefill, "MANY", 1)
    monkeypatch.setattr(prefill, "reads_most", lambda *_: True)


def flat_head(n, d, m, rng, dtype=np.float32):
    """Queries, keys and values none of which stands out."""
    query, key, value = (rng.standard_normal((rows, d)).astype(dtype) for rows in (m, n, n))
    return query, key, value + dtype(3.0)


@pytest.mark.usefixtures("eager")
@examples(2)
@given(data=st.data())
def test_the_true_error_is_within_the_bound(data):
    head = data.draw(heads())
    visible = [data.draw(st.integers(0, len(head.key))) for _ in head.query]
    rule = data.draw(st.sampled_from([Error(0.5), Error(1e-2), Mass(0.9)]))
    decoder = Decoder(head.key, head.value, scale=head.scale, structure="cascade")
    dtype = data.draw(output_dtypes(head))
    got = decoder.softmax(head.query, rule, lengths=np.array(visible, np.int64), dtype=dtype)
    assert_certified(got, head.softmax(visible))


def test_blocks_of_keys_and_queries_join():
    """More of both than a block holds, and rows that see none, one and all."""
    rng, m = np.random.default_rng(0), products.ROWS + 3
    n = 2 * products.BLOCK + 5
    query, key, value = flat_head(n, 3, m, rng)
    visible = rng.integers(0, n + 1, m)
    visible[:4] = 0, 1, n, products.BLOCK
    wide, span, readings = query.astype(np.float64), bounds.value_range(value), make_readings(m, 3)
    key_norm = float(bounds.norms(key).max())
    rounding = products.rounding_of(bounds.norms(wide), key_norm, 0.5, 3, span)
    extra = products.read_all(wide, key, value, visible, span, rounding, 0.5, readings)
    assert (readings.reported == visible).all()
    scores = 0.5 * wide @ key.T.astype(np.float64)
    weights = np.exp(scores) * (np.arange(n) < visible[:, None])
    total = weights.sum(axis=1, keepdims=True)
    want = np.divide(
        weights @ value.astype(np.float64), total, where=total > 0, out=np.zeros((m, 3))
    )
    error = np.abs(readings.output - want).max(axis=1)
    assert (error <= rounding.drift * span.width + extra.bound).all()
    some = visible > 0
    lse = readings.top[some] + np.log(readings.mass[some])
    assert (np.abs(lse - np.log(total[some, 0])) <= 1.01 * rounding.drift[some] + 1e-12).all()
    assert (readings.mass[~some] == 0.0).all()
    assert (readings.output[~some] == 0.0).all()


@pytest.mark.parametrize("rule", [Error(5e-2), Mass(0.99)])
@pytest.mark.parametrize("structure", ["scan", "cascade", "kd_tree"])
def test_flat_heads_are_read_in_whole_and_sharp_ones_are_not(rule, structure, monkeypatch):
    monkeypatch.setattr(prefill, "MANY", 8)
    rng, n = np.random.default_rng(0), 4000 if JIT else 700
    query, key, value = flat_head(n, 4, 16, rng)
    read = []
    monkeypatch.setattr(
        products, "read_all", lambda *a, f=products.read_all: read.append(len(a[0])) or f(*a)
    )
    decoder = Decoder(key, value, structure=structure)
    got = decoder.softmax(query, rule)
    assert read == [16]
    assert (got.reported == n).all()
    decoder.softmax(40.0 * query, rule)
    decoder.softmax(query, TopR(5))
    assert read == [16]


def test_errors_that_float32_cannot_keep_are_kept(monkeypatch):
    monkeypatch.setattr(prefill, "MANY", 8)
    monkeypatch.setattr(prefill, "reads_most", lambda *_: True)
    query, key, value = flat_head(300, 4, 16, np.random.default_rng(1), np.float64)
    got = softmax_attention(query, key, value, rule=Error(1e-9))
    assert (got.bound <= 1e-9).all()


def test_scores_beyond_float32_are_left_to_float64():
    span = bounds.value_range(np.ones((2, 1)))
    for norm, key_norm in ((1e16, 1.0), (1.0, 1e16), (1e6, 1e6)):
        assert np.isinf(products.rounding_of(np.array([norm]), key_norm, 1.0, 4, span).drift).all()
