"""The dense reference against rational arithmetic, in float64 and in long double."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attention import dense

from . import attention_oracle as truth
from .attention_oracle import EXTENDED, lse_doubt, lse_excess
from .attention_strategies import Head, heads, integer_heads, largest
from .sizes import examples

each_arithmetic = pytest.mark.parametrize("dtype", [np.float64, EXTENDED])


def assert_close(output, lse, row, head, eps):
    """Within the error of dense arithmetic of unit `eps`: of scores, weights, sums."""
    n, d = head.key.shape
    size = largest(head.query) * largest(head.key) * d * head.factor
    drift = math.expm1(min(2.0 * (d + 3) * eps * size, 700.0)) + (n + 8) * eps
    assert truth.error(output, row) <= 3.0 * drift * largest(head.value)
    if row.log is None:
        assert lse == -math.inf
    else:
        off = abs(lse_excess(lse, row))
        assert off <= 2.0 * drift + 2.0**-52 * (1.0 + abs(float(lse))) + lse_doubt(row)


@each_arithmetic
@given(data=st.data())
def test_softmax(dtype, data):
    head = data.draw(heads())
    causal = data.draw(st.sampled_from((None, "upper_left", "lower_right")))
    lengths = dense.visible(len(head.query), len(head.key), causal)
    output, lse = dense.softmax(*head[:3], scale=head.scale, causal=causal, dtype=dtype)
    assert output.dtype == lse.dtype == dtype
    assert output.shape == (len(head.query), head.value.shape[1])
    for out, log, row in zip(output, lse, head.softmax(lengths), strict=True):
        assert_close(out, log, row, head, float(np.finfo(dtype).eps))


@each_arithmetic
@examples(0.5)
@given(data=st.data())
def test_relu_of_exact_scores(dtype, data):
    """Weights are exact, so an output is one rounded sum over another."""
    head = data.draw(integer_heads())
    power = data.draw(st.integers(1, 3))
    threshold = head.factor * data.draw(st.integers(-20, 20))
    causal = data.draw(st.sampled_from((None, "upper_left", "lower_right")))
    lengths = dense.visible(len(head.query), len(head.key), causal)
    output, lse = dense.relu(
        *head[:3], threshold=threshold, power=power, scale=head.scale, causal=causal, dtype=dtype
    )
    rows = head.relu(threshold, power, lengths)
    eps = float(np.finfo(dtype).eps)
    for out, log, row in zip(output, lse, rows, strict=True):
        assert truth.error(out, row) <= 2.0 * eps * largest(head.value)
        if row.log is None:
            assert log == -math.inf
        else:
            assert abs(lse_excess(log, row)) <= 2.0**-51 * (1.0 + abs(float(log)))


def test_heads_and_batches():
    """Query head h reads key head h // 3, in every item of the batch."""
    rng = np.random.default_rng(0)
    query = rng.standard_normal((2, 6, 3, 4))
    key, value = rng.standard_normal((2, 2, 5, 4)), rng.standard_normal((2, 2, 5, 3))
    softmax, softmax_lse = dense.softmax(query, key, value)
    relu, relu_lse = dense.relu(query, key, value, threshold=0.1, power=2)
    assert softmax.shape == relu.shape == (2, 6, 3, 3)
    for b in range(2):
        for h in range(6):
            head = Head(query[b, h], key[b, h // 3], value[b, h // 3], None)
            rows = zip(head.softmax(), head.relu(0.1, 2), strict=True)
            for i, (soft, hard) in enumerate(rows):
                assert truth.error(softmax[b, h, i], soft) <= 1e-14
                assert abs(lse_excess(softmax_lse[b, h, i], soft)) <= 1e-14
                assert truth.error(relu[b, h, i], hard) <= 1e-14
                assert (hard.log is None) == (relu_lse[b, h, i] == -math.inf)


def test_visible():
    for length in range(6):
        for n in range(6):
            rows = range(length)
            assert dense.visible(length, n, None).tolist() == [n for _ in rows]
            left = [sum(j <= i for j in range(n)) for i in rows]
            assert dense.visible(length, n, "upper_left").tolist() == left
            right = [sum(j - n <= i - length for j in range(n)) for i in rows]
            assert dense.visible(length, n, "lower_right").tolist() == right
    for unknown in ("lower", True, 1):
        with pytest.raises(ValueError, match=f"causal.*upper_left.*lower_right.*{unknown}"):
            dense.visible(2, 3, unknown)
