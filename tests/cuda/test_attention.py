"""Attention on a device: its bounds hold, and it reads what rules ask for."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attention import Decoder, Error, KVCache, Mass, Threshold, TopR, dense
from attention.cuda import heads as cuda_heads
from attention.spread import unknown_spread

from ..attention_oracle import assert_certified
from ..attention_strategies import Head, heads, levels, output_dtypes, rules
from ..sizes import TILE, examples
from .structures import FEW

RULES = TopR(), TopR(5), Threshold(0.5), Mass(0.9), Error(0.05), Error(0.0)


def pair(head, **options):
    """A decoder by codes on the processor, and on a device."""
    host = Decoder(head.key, head.value, scale=head.scale, structure="cascade", **options)
    return host, host.to("cuda")


def gaussian(n=FEW, d=5, c=3, m=2, dtype=np.float32, seed=0, sharpness=3.0):
    rng = np.random.default_rng(seed)
    query, key, value = (rng.standard_normal(shape) for shape in ((m, d), (n, d), (n, c)))
    return Head(sharpness * query, key.astype(dtype), value.astype(dtype), None)


@examples(0.4)
@given(data=st.data())
def test_the_true_error_is_within_the_bound(data):
    """Ties, duplicates, huge logits, values far from zero, no keys at all, floats of any width."""
    head = data.draw(heads(range(1, 12), max_n=FEW, max_m=2))
    _, decoder = pair(head)
    rows, dtype = head.softmax(), data.draw(output_dtypes(head))
    for rule in data.draw(rules(head)):
        got = decoder.softmax(head.query, rule, dtype=dtype)
        assert got.output.dtype == dtype
        assert_certified(got, rows)


@examples(0.4)
@given(data=st.data(), power=st.integers(1, 3))
def test_it_is_in_relu_attention(data, power):
    head = data.draw(heads(range(1, 12), max_n=FEW, max_m=2))
    host, decoder = pair(head)
    threshold = data.draw(levels(head))
    got = decoder.relu(head.query, threshold=threshold, power=power)
    assert_certified(got, head.relu(threshold, power))
    want = host.relu(head.query, threshold=threshold, power=power)
    assert (np.abs(got.output - want.output).max(axis=1) <= got.bound + want.bound).all()


@examples(0.2)
@given(data=st.data())
def test_it_is_where_queries_see_only_the_first_keys(data):
    head = data.draw(heads(range(1, 12), max_n=FEW, max_m=2))
    visible = np.array([data.draw(st.integers(0, len(head.key))) for _ in head.query])
    _, decoder = pair(head)
    for rule in data.draw(rules(head)):
        got = decoder.softmax(head.query, rule, lengths=visible)
        assert_certified(got, head.softmax(visible))
        assert (got.reported <= visible).all()
    got = decoder.relu(head.query, threshold=0.0, power=2, lengths=visible)
    assert_certified(got, head.relu(0.0, 2, visible))


@pytest.mark.parametrize("n", [1, TILE, 3 * TILE + 1])
def test_it_reads_what_the_processor_reads(n):
    head = gaussian(n, dtype=(np.float32, np.float64)[n % 2], seed=n)
    host, decoder = pair(head)
    # A device does not say how heavy the keys are that are listed and not kept.
    host._spread = unknown_spread(host.value_dim)
    for rule in RULES:
        got, want = decoder.softmax(head.query, rule), host.softmax(head.query, rule)
        if rule in (Mass(0.9), Error(0.05)) and n > 1:
            # It asks a histogram where to stop, and the processor, what it has read as well.
            exact, lse = dense.softmax(head.query, head.key, head.value, scale=head.scale)
            for each in got, want:
                assert (abs(each.output - exact).max(axis=1) <= each.bound).all()
                if isinstance(rule, Error):
                    assert (each.bound <= rule.eps).all()
                else:
                    assert (np.exp(each.lse - lse) >= rule.p * (1 - 1e-12)).all()
            assert (got.reported <= 1.2 * want.reported + 1).all()
            continue
        assert got.reported.tolist() == want.reported.tolist()
        assert np.allclose(got.output, want.output, rtol=0, atol=1e-12)
        assert np.allclose(got.lse, want.lse, rtol=1e-12)
        assert (got.bound <= 1.01 * want.bound + 1e-12).all()
        assert not got.sampled.any()


@pytest.mark.parametrize("size", [2.0**-1060, 2.0**-1022, 2.0**990, 3e307])
def test_values_at_both_ends_of_float64(size):
    head = gaussian(dtype=np.float64)
    head = head._replace(value=size * np.clip(head.value, -1, 1))
    _, decoder = pair(head)
    assert_certified(decoder.softmax(head.query, Mass(0.9)), head.softmax())
    assert_certified(decoder.relu(head.query, threshold=0.0), head.relu(0.0, 1))


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_scores_of_any_size(rule):
    """Scores so far apart that histograms do not reach; and so large that codes say nothing."""
    head = gaussian(2 * TILE + 9, d=4, dtype=np.float64)
    for factor in (1e4, 1e17, 1e290):
        wide = head._replace(query=factor * head.query)
        _, decoder = pair(wide)
        got = decoder.softmax(wide.query, rule)
        assert_certified(got, wide.softmax())
        if isinstance(rule, TopR):
            assert (got.reported == rule.count(len(head.key))).all()


def test_best_keys_are_those_of_largest_score():
    rng = np.random.default_rng(0)
    key, query = rng.integers(-3, 4, (100, 4)), rng.integers(-3, 4, (2, 4))
    value = np.arange(100.0)[:, None]
    decoder = Decoder(key, value, scale=1.0, structure="cascade").to("cuda")
    for rank in (1, 7, 99):
        got = decoder.softmax(query, TopR(rank))
        for row, scores in enumerate(query @ key.T):
            best = np.argsort(-scores, kind="stable")[:rank]
            weights = np.exp(scores[best] - scores.max())
            assert got.reported[row] == rank
            assert got.output[row, 0] == pytest.approx(weights @ best / weights.sum(), rel=1e-12)


def test_thresholds_are_decided_exactly():
    key = np.arange(90.0)[:, None] / 3.0
    decoder = Decoder(key, key, scale=1.0, structure="cascade").to("cuda")
    query = np.array([[3.0], [0.1]])
    at = float(key[40, 0]) * 3.0
    for b in (math.nextafter(at, 0.0), at, math.nextafter(at, math.inf)):
        want = Decoder(key, key, scale=1.0, structure="scan").softmax(query, Threshold(b))
        assert decoder.softmax(query, Threshold(b)).reported.tolist() == want.reported.tolist()


def test_everything_is_read_where_nothing_can_be_skipped():
    head = gaussian()
    uncoded = Decoder(head.key, head.value, structure="scan", growing=False)
    _, decoder = pair(head)
    for rule in (Error(0.0), Mass(1.0), Threshold(-math.inf), TopR(FEW)):
        assert decoder.softmax(head.query, rule).reported.tolist() == [FEW, FEW]
    assert uncoded.to("cuda").softmax(head.query, Error(0.0)).reported.tolist() == [FEW, FEW]


def test_heads_without_codes(monkeypatch):
    monkeypatch.setattr("attention.coded_head.LEAST_CODED", 10**9)
    head = gaussian()
    decoder = Decoder(head.key, head.value, structure="kd_tree").to("cuda")
    for rule in RULES:
        assert_certified(decoder.softmax(head.query, rule), head.softmax())
    assert decoder.softmax(head.query, TopR(7)).reported.tolist() == [7, 7]
    assert_certified(decoder.relu(head.query, threshold=0.5), head.relu(0.5, 1))


def test_keys_far_out_have_no_code_and_are_found():
    head = gaussian(3 * TILE, d=3)
    far = head.key.copy()
    far[[5, 100]] *= 1e4
    head = head._replace(key=far)
    host, decoder = pair(head)
    assert host._head.room.always.any()
    for rule in RULES:
        got = decoder.softmax(head.query, rule)
        assert_certified(got, head.softmax())
        # The processor reads what has no code in any case.
        assert (got.reported <= host.softmax(head.query, rule).reported).all()
    assert_certified(decoder.relu(head.query, threshold=0.5), head.relu(0.5, 1))


# Batches of heads.


def filled(t, batch=(2,), kv_heads=2, d=5, **options):
    rng = np.random.default_rng(t)
    key, value = rng.standard_normal((2, *batch, kv_heads, t, d), dtype=np.float32)
    cache = KVCache(d, num_kv_heads=kv_heads, batch_shape=batch, **options)
    cache.append(key, value)
    return cache, key, value


def within(got, query, key, value):
    exact, _ = dense.softmax(query, key, value, causal="lower_right")
    return (np.abs(got.output - exact).max(axis=-1) <= got.bound + 1e-6).all()


@pytest.mark.parametrize("group", [1, 5])
def test_grouped_queries_of_batches(group):
    cache, key, value = filled(TILE + 9, (2,) if group == 1 else ())
    shape = *cache.batch_shape, 2 * group, 1, 5
    query = 2.0 * np.random.default_rng(0).standard_normal(shape)
    on_device = cache.to("cuda")
    for rule in (TopR(9), Threshold(1.0), Mass(0.8), Error(0.1)):
        got, want = on_device.attend(query, rule), cache.attend(query, rule)
        assert got.output.shape == shape
        assert within(got, query, key, value)
        if isinstance(rule, TopR | Threshold):
            assert np.array_equal(got.reported, want.reported)
            assert np.allclose(got.output, want.output, atol=1e-9)
        elif isinstance(rule, Error):
            assert (got.bound <= rule.eps + 1e-6).all()
    got = on_device.relu(query, threshold=0.5, power=3)
    want = cache.relu(query, threshold=0.5, power=3)
    assert np.array_equal(got.reported, want.reported)
    assert np.allclose(got.output, want.output, atol=1e-9)
    assert on_device.statistics().share.shape == (*cache.batch_shape, 2)


@pytest.mark.parametrize("scratch", [1, 20 * TILE])
def test_queries_in_groups_and_lists_in_pieces(monkeypatch, scratch):
    cache, _, _ = filled(TILE + 3, batch=())
    query = 2.0 * np.random.default_rng(0).standard_normal((6, 1, 5))
    on_device, some = cache.to("cuda"), (TopR(5), Threshold(0.5), Error(0.05))
    want = [on_device.attend(query, rule) for rule in some]
    monkeypatch.setattr(cuda_heads, "SCRATCH_BYTES", scratch)
    for rule, other in zip(some, want, strict=True):
        got = on_device.attend(query, rule)
        assert got.output.tolist() == other.output.tolist()
        assert got.bound.tolist() == other.bound.tolist()


def test_tokens_are_followed():
    cache, _, _ = filled(TILE + 3, kv_heads=1)
    on_device = cache.to("cuda")
    rng = np.random.default_rng(1)

    def step(t=1):
        more = rng.standard_normal((2, 2, 1, t, 5), dtype=np.float32)
        on_device.append(*more)
        check()

    def check():
        query = 2.0 * rng.standard_normal((*cache.batch_shape, 1, 1, 5))
        got, want = on_device.attend(query, TopR(9)), cache.attend(query, TopR(9))
        assert len(on_device) == len(cache)
        assert np.array_equal(got.reported, want.reported)
        assert np.allclose(got.output, want.output, atol=1e-9)
        assert within(got, query, cache.keys, cache.values)

    for t in (1, TILE, 70):  # within a tile, beyond it with codes made, codes made anew
        step(t)
    held = on_device._heads._held
    step()
    assert on_device._heads._held is held  # appended in place
    step(5 * TILE)  # more than there is room for
    on_device.crop(100)
    check()
    on_device.reorder([1, 0])
    check()
    cache.crop(90)
    cache.append(*rng.standard_normal((2, 2, 1, 30, 5), dtype=np.float32))
    check()


def test_a_cache_may_be_empty():
    cache = KVCache(4, num_kv_heads=2).to("cuda")
    assert cache.attend(np.zeros((2, 0, 4))).output.shape == (2, 0, 4)
    cache.append(*np.ones((2, 2, 1, 4), np.float32))
    got = cache.attend(np.ones((4, 1, 4)), Error(0.1))
    assert got.output.tolist() == np.ones((4, 1, 4)).tolist()
    assert got.reported.tolist() == [[1]] * 4


@pytest.mark.parametrize("n", [3, FEW])
def test_a_decoder_that_grows_is_followed(n):
    """Also where it is as long as before, of other keys."""
    rng = np.random.default_rng(0)
    query, key, value = rng.standard_normal((3, n + 5, 4))
    host = Decoder(key[:n], value[:n], growing=True)
    here = host.to("cuda")
    for more in (key[n:], key[n:] - 9.0):
        host.extend(more, 10.0 + value[n:])
        assert len(here) == len(host) == n + 5
        keys, values = host._head.rows()
        for got in (here.softmax(query, Error(0.0)), here.relu(query, threshold=0.0)):
            assert got.bound.max() < 1e-6
        exact, _ = dense.softmax(query, keys, values, scale=host.scale)
        got = here.softmax(query, Error(1e-3))
        assert (np.abs(got.output - exact).max(axis=1) <= got.bound + 1e-12).all()
        host.crop(n)
