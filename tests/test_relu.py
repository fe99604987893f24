"""ReLU attention is exact: it reads the active keys, all of them, and bounds its rounding."""

import math
from contextlib import suppress
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attention import Decoder, dense, relu_attention
from attention import data as packaged

from . import attention_oracle as truth
from .attention_oracle import EPS, EXTENDED, assert_certified
from .attention_strategies import (
    DTYPES,
    KEYS,
    STRUCTURES,
    Head,
    each_structure,
    heads,
    integer_heads,
    largest,
    levels,
    output_dtypes,
)
from .sizes import JIT, examples

each_prefix = pytest.mark.parametrize("structure", ["scan", "cascade"])  # of keys
each_power = pytest.mark.parametrize("power", [1, 2, 3])


def decoder_of(head, structure="scan"):
    return Decoder(head.key, head.value, scale=head.scale, structure=structure)


def score_error(query, head, threshold):
    """Bound on the rounding error of float64 scores of `query`, less the threshold."""
    size = largest(query) * largest(head.key) * head.key.shape[1] * head.factor
    return Fraction(2.0**-50) * (head.key.shape[1] + 8) * Fraction(size + abs(threshold) + 1e-300)


@each_structure
@each_power
@given(data=st.data())
def test_the_true_error_is_within_the_bound(structure, power, data):
    head = data.draw(heads(STRUCTURES[structure]))
    threshold, dtype = data.draw(levels(head)), data.draw(output_dtypes(head))
    got = decoder_of(head, structure).relu(
        head.query, threshold=threshold, power=power, dtype=dtype
    )
    assert got.output.dtype == dtype
    assert_certified(got, head.relu(threshold, power))
    for query, reported in zip(head.query, got.reported, strict=True):
        scores = truth.scores(query, head.key, head.factor)
        unsure = score_error(query, head, threshold)
        least = sum(score > threshold + unsure for score in scores)
        assert least <= reported <= sum(score > threshold - unsure for score in scores)


@each_prefix
@each_power
@examples(0.3)
@given(data=st.data())
def test_it_is_where_queries_see_only_the_first_keys(structure, power, data):
    head = data.draw(heads(STRUCTURES[structure]))
    visible = [data.draw(st.integers(0, len(head.key))) for _ in head.query]
    threshold = data.draw(levels(head))
    got = decoder_of(head, structure).relu(
        head.query, threshold=threshold, power=power, lengths=np.array(visible)
    )
    assert_certified(got, head.relu(threshold, power, visible))


@each_structure
@each_power
@examples(0.5)
@given(data=st.data())
def test_exact_scores_are_read_exactly(structure, power, data):
    """Keys on the threshold have no weight, and all that is uncertain is a few roundings."""
    head = data.draw(integer_heads(STRUCTURES[structure]))
    threshold = head.factor * data.draw(st.integers(-30, 30))
    got = decoder_of(head, structure).relu(head.query, threshold=threshold, power=power)
    rows = head.relu(threshold, power)
    assert_certified(got, rows)
    for i, query in enumerate(head.query):
        scores = truth.scores(query, head.key, head.factor)
        active = sum(score > threshold for score in scores)
        assert got.reported[i] == active
        if active:
            assert got.bound[i] <= 1e-8
            assert got.lse_bound[i] <= 1e-8
        else:
            assert got.output[i].tolist() == [0.0] * head.value.shape[1]
            assert got.lse[i] == -math.inf


@each_prefix
def test_queries_that_see_no_key_get_zero(structure):
    """Where there is none, and where there are some."""
    query, key = np.ones((3, 4)), np.ones((5, 4))
    for keys, lengths in ((key[:0], None), (key, np.zeros(3, int)), (key, np.array([0, 5, 0]))):
        got = Decoder(keys, keys, structure=structure).relu(query, threshold=0.5, lengths=lengths)
        seen = np.zeros(3) if lengths is None else lengths
        assert got.reported.tolist() == seen.tolist()
        assert np.isneginf(got.lse).tolist() == (seen == 0).tolist()
        assert (got.output[seen == 0] == 0.0).all()


@each_structure
@each_power
@pytest.mark.parametrize("threshold", [1e3, 1e300])
def test_no_active_key_gives_zero_for_certain(structure, power, threshold):
    rng = np.random.default_rng(0)
    query, key, value = rng.standard_normal((3, KEYS, 4))
    decoder = Decoder(key, value, structure=structure)
    got = decoder.relu(query[:3], threshold=threshold, power=power)
    assert (got.output == 0.0).all()
    assert got.lse.tolist() == [-math.inf] * 3
    assert got.bound.tolist() == got.lse_bound.tolist() == [0.0] * 3
    assert got.reported.tolist() == [0] * 3


@each_structure
@each_power
def test_a_low_threshold_makes_every_key_active(structure, power):
    rng = np.random.default_rng(0)
    head = Head(*rng.standard_normal((3, KEYS, 4)), None)._replace(query=np.eye(4))
    for threshold in (-30.0, -1e8):
        got = decoder_of(head, structure).relu(head.query, threshold=threshold, power=power)
        assert got.reported.tolist() == [KEYS] * 4
        assert (got.bound <= 1e-9).all()
        assert_certified(got, head.relu(threshold, power))


@each_structure
def test_thresholds_have_the_sizes_of_scores(structure):
    """The farthest are as good as others; with those beyond, differences could overflow."""
    key = np.array([[9e299], [-9e299], [0.0]])
    decoder = Decoder(key, key / 9e299, scale=1.0, structure=structure)
    got = decoder.relu(np.ones((1, 1)), threshold=-1e300)
    assert got.reported.tolist() == [3]
    assert abs(got.output[0, 0] - 1.8 / 3.0) <= got.bound[0] < 1e-9
    for beyond in (-1.7e308, 1.01e300, math.inf, math.nan):
        with pytest.raises(
            ValueError, match=r"threshold: expected a finite number, at most 1e\+300"
        ):
            decoder.relu(np.ones((1, 1)), threshold=beyond)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_output_has_the_dtype_of_the_inputs(dtype):
    rng = np.random.default_rng(0)
    query, key, value = rng.standard_normal((3, 40, 4)).astype(dtype)
    head = Head(query[:3], key, value, None)
    got = relu_attention(*head[:3], threshold=0.1)
    assert got.output.dtype == dtype
    assert_certified(got, head.relu(0.1, 1))
    # Rounding to the dtype is all there is to it.
    assert (got.bound <= 2.0 * np.finfo(dtype).eps * largest(value)).all() or dtype == np.float64


@pytest.mark.parametrize("causal", ["upper_left", "lower_right"])
@examples(0.5)
@given(data=st.data())
def test_causal(causal, data):
    head = data.draw(heads(max_m=5))
    threshold, power = data.draw(levels(head)), data.draw(st.integers(1, 3))
    got = relu_attention(
        *head[:3], threshold=threshold, power=power, scale=head.scale, causal=causal
    )
    lengths = dense.visible(len(head.query), len(head.key), causal)
    assert_certified(got, head.relu(threshold, power, lengths))


@each_power
def test_the_bound_of_lse_covers_its_sum(power):
    """Weights whose sum loses nearly half a unit at each addition from 128 to 256."""
    weight = 0.75 + 2.0**-46 - 2.0**-51
    head = Head(np.ones((1, 1)), np.full((300, 1), weight ** (1 / power)), np.ones((300, 1)), 1.0)
    got = decoder_of(head).relu(head.query, threshold=0.0, power=power)
    assert_certified(got, head.relu(0.0, power))


def test_the_bound_of_lse_covers_its_logarithm():
    """It is far from zero where the only weight is tiny, or large."""
    for weight in 10.0 ** np.arange(-300, 300, 7):
        head = Head(np.ones((1, 1)), np.array([[weight]]), np.ones((1, 1)), 1.0)
        got = decoder_of(head).relu(head.query, threshold=0.0)
        assert_certified(got, head.relu(0.0, 1))


EXTREMES = {
    "weight underflows": (1e-100, 1e-100, 0.0, 2, None),
    "weight and its error underflow": (1e-160, 1e-170, 0.0, 2, None),
    "score underflows": (1e-160, 1e-170, 0.0, 1, 1e-5),
    "weight overflows": (1e60, 1e60, 0.0, 3, None),
    "low threshold overflows": (1.0, 1.0, -1e120, 3, None),
    "high power overflows": (1.0, 1e7, 0.0, 60, None),
    "half-space overflows": (1.0, 1.0, 1e300, 1, 1e-9),
    "half-space overflows below": (1.0, 1.0, -1e300, 1, 1e-9),
}


@each_structure
@pytest.mark.parametrize(
    ("query", "key", "threshold", "power", "scale"), EXTREMES.values(), ids=EXTREMES
)
def test_extremes_are_certified_or_refused(structure, query, key, threshold, power, scale):
    head = Head(np.array([[query]]), np.array([[key], [0.5 * key]]), np.array([[1.0], [2]]), scale)
    # Weights beyond float64 may be refused, but must not pass for an answer.
    with suppress(ValueError):
        got = decoder_of(head, structure).relu(head.query, threshold=threshold, power=power)
        assert_certified(got, head.relu(threshold, power))


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("name", packaged.heads())
def test_trained_heads(name, structure):
    _, query, key, value = packaged.load(name)
    query = query[::4]
    if not JIT:
        query, key, value = query[::16], key[:KEYS], value[:KEYS]
    query, key = (x[:, : max(STRUCTURES[structure])] for x in (query, key))
    decoder = Decoder(key, value, structure=structure)
    for threshold, power in ((0.0, 1), (1.0, 2), (-2.0, 3)):
        got = decoder.relu(query, threshold=threshold, power=power)
        output, lse = dense.relu(
            query, key, value, threshold=threshold, power=power, dtype=EXTENDED
        )
        off = np.abs(got.output - output).max(axis=1)
        # The reference adds up n products.
        doubt = 2.0 * EPS * len(key) * largest(value)
        assert (off <= got.bound + doubt).all()
        some = np.isfinite(lse)
        assert (got.reported[some] > 0).all()
        off = np.abs(got.lse[some] - lse[some])
        assert (off <= got.lse_bound[some] + 2.0 * EPS * len(key)).all()
        assert (got.bound <= 1e-6 * largest(value)).all()


def test_keys_below_the_threshold_do_not_blunt_the_bound():
    rng = np.random.default_rng(0)
    query, key, value = rng.standard_normal((3, 200, 4))
    top = (key @ query[0]).max() / 2.0
    for structure in STRUCTURES:
        decoder = Decoder(key, value, structure=structure)
        got = decoder.relu(query[:1], threshold=top - 1e-3, power=3)
        assert got.reported.tolist() == [1]
        assert got.bound[0] < 1e-6
