"""The error that softmax attention returns bounds the one it made, and it reads what it says."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attention import Decoder, Error, Mass, Threshold, TopR, bounds, data, dense, softmax_attention

from . import oracle
from .attention_oracle import EPS, assert_certified
from .attention_strategies import (
    STRUCTURES,
    errors,
    heads,
    masses,
    output_dtypes,
    rules,
    thresholds,
    top_r,
)
from .sizes import JIT, LARGE, TILE, examples

each_structure = pytest.mark.parametrize("structure", STRUCTURES)


def decoder_of(head, structure="scan"):
    return Decoder(head.key, head.value, scale=head.scale, structure=structure)


@each_structure
@examples(2)
@given(data=st.data())
def test_the_true_error_is_within_the_bound(structure, data):
    head = data.draw(heads(STRUCTURES[structure]))
    decoder, rows = decoder_of(head, structure), head.softmax()
    dtype = data.draw(output_dtypes(head))
    for rule in data.draw(rules(head)):
        got = decoder.softmax(head.query, rule, dtype=dtype)
        assert got.output.dtype == dtype
        assert_certified(got, rows)


@examples(1)
@given(data=st.data())
def test_and_when_queries_see_only_the_first_keys(data):
    head = data.draw(heads())
    visible = data.draw(
        st.lists(st.integers(0, len(head.key)), min_size=len(head.query), max_size=len(head.query))
    )
    decoder, rows = decoder_of(head), head.softmax(visible)
    for rule in data.draw(rules(head)):
        got = decoder.softmax(head.query, rule, lengths=np.array(visible))
        assert_certified(got, rows)
        assert (got.reported <= visible).all()


@pytest.mark.parametrize("causal", ["upper_left", "lower_right"])
@examples(0.5)
@given(data=st.data())
def test_and_in_causal_attention(causal, data):
    head = data.draw(heads(max_m=5))
    rows = head.softmax(dense.visible(len(head.query), len(head.key), causal))
    for rule in data.draw(rules(head)):
        got = softmax_attention(*head[:3], rule=rule, scale=head.scale, causal=causal)
        assert got.output.dtype == np.result_type(*head[:3])
        assert_certified(got, rows)


@each_structure
@examples(0.5)
@given(data=st.data())
def test_top_r_reads_r_keys(structure, data):
    head = data.draw(heads(STRUCTURES[structure]))
    rule = data.draw(top_r(len(head.key)))
    got = decoder_of(head, structure).softmax(head.query, rule)
    assert got.reported.tolist() == [rule.count(len(head.key))] * len(head.query)


@each_structure
@given(data=st.data())
def test_threshold_reads_the_keys_of_the_half_space(structure, data):
    head = data.draw(heads(STRUCTURES[structure]))
    rule = data.draw(thresholds(head))
    got = decoder_of(head, structure).softmax(head.query, rule)
    cut = rule.b / head.factor
    assert got.reported.tolist() == [oracle.count(head.key, q, cut) for q in head.query]


@each_structure
def test_threshold_reads_ties(structure):
    """Scores are k, exactly, for k = -100 … 100, each twice."""
    key = np.repeat(np.arange(-100.0, 101.0), 2)[:, None]
    decoder = Decoder(key, np.ones((402, 1)), scale=1.0, structure=structure)
    for level in (-100, -99, -50, -1, 0, 1, 50, 99, 100):
        for b, read in (
            (math.nextafter(level, math.inf), 200 - 2 * level),
            (level, 202 - 2 * level),
            (math.nextafter(level, -math.inf), 202 - 2 * level),
        ):
            assert decoder.softmax([[1.0]], Threshold(b)).reported.tolist() == [read]


@each_structure
def test_threshold_whose_half_space_is_beyond_float64(structure):
    decoder = Decoder([[1.0], [2.0]], [[1.0], [2.0]], scale=1e-10, structure=structure)
    assert decoder.softmax([[1.0]], Threshold(1e300)).reported.tolist() == [0]
    assert decoder.softmax([[1.0]], Threshold(-1e300)).reported.tolist() == [2]


@each_structure
@examples(0.5)
@given(data=st.data())
def test_mass_reads_keys_that_hold_the_share(structure, data):
    head = data.draw(heads(STRUCTURES[structure]))
    rule = data.draw(masses())
    decoder, rows = decoder_of(head, structure), head.softmax()
    got = decoder.softmax(head.query, rule)
    everything = decoder.softmax(head.query, Error(0.0))
    for i, row in enumerate(rows):
        if row.log is None:
            continue
        # The share of what was read, as far as the two lse are known.
        off = got.lse[i] - float(row.base) - float(row.log)
        unsure = everything.lse_bound[i] + 1e-15 * (1.0 + abs(float(row.base)))
        assert math.exp(min(0.0, off + unsure)) >= rule.p
        assert rule.p < 1 or got.reported[i] == len(head.key)
        assert got.reported[i] >= 1


@each_structure
@given(data=st.data())
def test_error_is_kept(structure, data):
    """The bound is at most eps wherever eps is well above what rounding alone costs."""
    head = data.draw(heads(STRUCTURES[structure]))
    rule, dtype = data.draw(errors(head)), data.draw(output_dtypes(head))
    decoder = decoder_of(head, structure)
    got = decoder.softmax(head.query, rule, dtype=dtype)
    size = float(np.abs(head.value).max(initial=0))
    cast = np.finfo(dtype).eps * size + float(np.finfo(dtype).smallest_subnormal)
    rounding = decoder.softmax(head.query, Error(0.0)).bound + cast
    kept = 4.0 * rounding <= rule.eps
    assert (got.bound <= rule.eps)[kept].all()
    assert (got.reported >= min(1, len(head.key))).all()


@each_structure
@examples(0.5)
@given(data=st.data())
def test_error_zero_reads_every_key(structure, data):
    head = data.draw(heads(STRUCTURES[structure]))
    got = decoder_of(head, structure).softmax(head.query, Error(0.0))
    vary = len(head.key) and (head.value != head.value[0]).any()
    if vary:
        assert (got.reported == len(head.key)).all()


@each_structure
def test_no_keys_no_doubt(structure):
    decoder = Decoder(np.empty((0, 3)), np.empty((0, 2)), structure=structure)
    for rule in (TopR(), Threshold(0.0), Mass(0.9), Error(1e-3)):
        output, lse, bound, reported = got = decoder.softmax(np.ones((2, 3)), rule)
        assert output.tolist() == [[0.0, 0.0]] * 2
        assert lse.tolist() == [-math.inf] * 2
        assert bound.tolist() == got.lse_bound.tolist() == [0.0] * 2
        assert reported.tolist() == [0, 0]


@each_structure
def test_nothing_read_is_not_certain(structure):
    got = Decoder([[1.0], [2.0]], [[-3.0], [2.0]], structure=structure).softmax(
        [[1.0]], Threshold(math.inf)
    )
    assert (got.output.tolist(), got.lse.tolist()) == ([[0.0]], [-math.inf])
    assert (got.bound.tolist(), got.lse_bound.tolist()) == ([3.0], [math.inf])
