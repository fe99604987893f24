"""Sampled attention: bounds fail no more often than delta, and sampling is only where it pays."""

import math
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit
from scipy import stats

import halfspace
from attention import (
    Attended,
    Decoder,
    Error,
    Sampled,
    dense,
    merge,
    scaled_dot_product_attention,
    softmax_attention,
)
from attention import sampled as sampled_module
from attention.draws import GUIDED, RUN, accumulate, fill_guide, find, seeds, uniform

from .attention_oracle import EPS, EXTENDED, assert_certified
from .attention_strategies import errors, heads, largest, output_dtypes
from .sizes import JIT, TILE, examples
from .strategies import rngs

N = 4_000
QUERIES = 2_500 if JIT else 8
REPEATS = 4 if JIT else 1
UNLIKELY = 1e-9
"""A delta at which no failure is to be seen."""

VALUES = {
    "signs": lambda rng, shape: np.sign(rng.standard_normal(shape)),
    "gauss": lambda rng, shape: rng.standard_normal(shape),
    "rare": lambda rng, shape: (rng.random(shape) < 0.01).astype(float),
    "far": lambda rng, shape: 1e3 + rng.uniform(-1.0, 1.0, shape),
}


def flat(kind="gauss", n=N, m=3, d=8, c=2, seed=0):
    """Queries, keys and values of a head whose weights differ by a factor of 20 or so."""
    rng = np.random.default_rng(seed)
    query = rng.standard_normal((m, d), dtype=np.float32)
    key = rng.standard_normal((n, d), dtype=np.float32)
    return query, key, VALUES[kind](rng, (n, c))


def off(got, query, key, value, **options):
    exact, lse = dense.softmax(query, key, value, **options)
    return np.abs(got.output - exact).max(axis=-1), np.abs(got.lse - lse)


# The guarantee


@pytest.mark.parametrize(
    ("kind", "c", "eps", "delta"),
    [
        ("signs", 1, 0.1, 0.3),
        ("signs", 1, 0.1, 0.05),
        ("signs", 3, 0.2, 1e-3),
        ("gauss", 4, 0.2, 0.05),
        ("rare", 2, 0.03, 0.3),
        ("far", 2, 0.1, 0.05),
    ],
)
def test_bounds_fail_no_more_often_than_delta(kind, c, eps, delta):
    """10,000 pairs of query and head each: sharp where values are signs in one coordinate."""
    failed = of_lse = rows = 0
    for seed in range(REPEATS):
        query, key, value = flat(kind, m=QUERIES, c=c, seed=seed)
        got = Decoder(key, value, structure="scan").softmax(query, Sampled(eps, delta, seed))
        error, of_log = off(got, query, key, value)
        assert (error <= got.bound + 1e-11)[~got.sampled].all()
        assert (got.bound <= eps).all()
        failed += (error > got.bound + 1e-11)[got.sampled].sum()
        of_lse += (of_log > got.lse_bound + 1e-11)[got.sampled].sum()
        rows += got.sampled.sum()
    assert rows > 0.9 * REPEATS * QUERIES
    print(f"{kind}, {c}: {failed} and {of_lse} of {rows} failed, delta = {delta}")
    for count in (failed, of_lse):
        assert stats.binomtest(int(count), int(rows), delta, "greater").pvalue > 1e-6


@pytest.mark.skipif(not JIT, reason="takes many queries")
def test_bounds_are_not_loose():
    """Of one coordinate at the ends of its range: a fifth of the bound would not do."""
    query, key, value = flat("signs", m=QUERIES, c=1)
    got = Decoder(key, value, structure="scan").softmax(query, Sampled(0.1, 0.05))
    error, _ = off(got, query, key, value)
    failed = int((error > got.bound / 5.0).sum())
    assert stats.binomtest(failed, QUERIES, 0.05, "greater").pvalue < 1e-6
    assert (error > got.bound / 2.0).mean() > 0.05


@examples(1)
@given(data=st.data())
def test_the_error_is_within_the_bound(data):
    """Whatever values and scores are; with a delta at which sampling pays, but never fails."""
    rng, dtype = data.draw(rngs()), data.draw(st.sampled_from((np.float32, np.float64)))
    n, c = data.draw(st.sampled_from((N, N + 1, N - N % TILE))), data.draw(st.integers(1, 5))
    size = data.draw(st.sampled_from((1e-30, 1.0, 1e20)))
    value = VALUES[data.draw(st.sampled_from(sorted(VALUES)))](rng, (n, c)) * size
    spread = data.draw(st.sampled_from((0.0, 0.1, 1.0, 3.0, 10.0)))
    query, key = spread * rng.standard_normal((2, 4)), rng.standard_normal((n, 4)).astype(dtype)
    lengths = np.array([n, data.draw(st.integers(0, n))])
    reach = float(np.ptp(value, axis=0).max())
    rule = Sampled(reach * data.draw(st.sampled_from((0.3, 0.1, 0.01))), UNLIKELY)
    decoder = Decoder(key, value, structure="scan")
    got = decoder.softmax(query, rule, lengths=lengths)
    assert (got.reported <= lengths).all()
    assert (got.bound <= rule.eps).all()
    for i, length in enumerate(lengths):
        exact, lse = dense.softmax(query[i : i + 1], key[:length], value[:length], dtype=EXTENDED)
        doubt = 4.0 * EPS * (n + 100.0) * (1.0 + largest(value))
        assert np.abs(got.output[i] - exact[0]).max() <= got.bound[i] + doubt
        if length:
            assert abs(got.lse[i] - lse[0]) <= got.lse_bound[i] + 1e-15


@examples(1)
@given(data=st.data())
def test_it_is_certified_where_sampling_does_not_pay(data):
    head = data.draw(heads())
    eps, dtype = data.draw(errors(head)).eps, data.draw(output_dtypes(head))
    decoder = Decoder(head.key, head.value, scale=head.scale, structure="scan")
    got = decoder.softmax(head.query, Sampled(eps, UNLIKELY), dtype=dtype)
    assert got.output.dtype == dtype
    assert_certified(got, head.softmax())
    assert (got.reported <= len(head.key)).all()


# Estimates


@njit
def _drawn(weights, cumulative, guide, state, slots):
    accumulate(weights, cumulative)
    fill_guide(cumulative, guide)
    for j in range(slots.size):
        slots[j] = find(weights, cumulative, guide, uniform(state, j))


def drawn(weights, count, seed=0):
    slots, state = np.empty(count, np.int64), seeds(seed, np.zeros((1, 1)))[0]
    with np.errstate(over="ignore"):
        runs = weights.size // RUN
        _drawn(weights, np.empty(runs), np.empty(runs // GUIDED + 1, np.int32), state, slots)
    return slots


def walked(weights, run, left):
    """The slot of a run in which a point falls that is so far into it."""
    found = None
    for slot in range(RUN * run, RUN * run + RUN):
        if weights[slot] > 0.0:
            found, left = slot, left - np.float64(weights[slot])
            if left < 0.0:
                break
    return found


@njit
def _found(weights, cumulative, guide, points, slots):
    accumulate(weights, cumulative)
    fill_guide(cumulative, guide)
    for j in range(points.size):
        slots[j] = find(weights, cumulative, guide, points[j])


@examples(1)
@given(rng=rngs(), tiles=st.integers(1, 5), power=st.sampled_from([0.0, 1.0, 9.0]))
def test_every_point_falls_in_its_slot(rng, tiles, power):
    """Wherever the guide begins, ends of runs included."""
    weights = np.exp(power * rng.standard_normal(tiles * TILE)).astype(np.float32)
    weights[rng.random(weights.size) < rng.choice([0.0, 0.5, 0.95])] = 0.0
    weights[rng.integers(weights.size)] = 1.0
    runs = weights.size // RUN
    cumulative, guide = np.empty(runs), np.empty(runs // GUIDED + 1, np.int32)
    ends = weights.reshape(-1, RUN).sum(axis=1, dtype=float).cumsum()
    edges = np.nextafter((ends / ends[-1])[:, None], [0.0, 0.5, 1.0]).ravel()
    points = np.concatenate([rng.random(200), edges, [0.0, 1.0 - 2.0**-53]])
    points = np.minimum(points, 1.0 - 2.0**-53)
    slots = np.empty(points.size, np.int64)
    _found(weights, cumulative, guide, points, slots)
    run = np.minimum(np.searchsorted(cumulative, points * cumulative[-1], side="right"), runs - 1)
    assert np.array_equal(slots // RUN, run)
    assert (weights[slots] > 0.0).all()
    before = np.where(run > 0, cumulative[run - 1], 0.0)
    left = points * cumulative[-1] - before
    assert slots.tolist() == [walked(weights, *at) for at in zip(run, left, strict=True)]


def test_keys_are_drawn_by_their_weights():
    rng = np.random.default_rng(0)
    weights = np.exp(rng.standard_normal(5 * TILE)).astype(np.float32)
    weights[rng.random(weights.size) < 0.5] = 0.0
    weights[TILE : 2 * TILE] = weights[-TILE:] = 0.0
    count = 1_000_000 if JIT else 5_000
    times = np.bincount(drawn(weights, count), minlength=weights.size)
    some = weights > 0.0
    assert not times[~some].any()
    expected = weights[some] / weights.sum(dtype=float) * count
    assert stats.chisquare(times[some], expected * (count / expected.sum())).pvalue > 1e-6


def test_draws_look_independent_and_uniform():
    weights = np.ones(4 * TILE, np.float32)
    slots = drawn(weights, 200_000 if JIT else 5_000)
    pairs = np.histogram2d(slots[:-1] % 16, slots[1:] % 16, bins=16)[0].ravel()
    assert stats.chisquare(pairs).pvalue > 1e-6


def test_seeds_depend_on_every_number():
    query = np.random.default_rng(0).standard_normal((1, 5))
    states = {int(seeds(seed, query)[0]) for seed in range(100)}
    for j in range(5):
        other = query.copy()
        other[0, j] = np.nextafter(other[0, j], 9.0)
        states.add(int(seeds(0, other)[0]))
    states.add(int(seeds(0, query[:, ::-1])[0]))
    assert len(states) == 106
    assert seeds(3, np.repeat(query, 4, axis=0)).tolist() == [int(seeds(3, query)[0])] * 4


def test_output_and_mass_are_unbiased():
    """Over seeds, up to the bias of a ratio and of when to stop, which are of second order."""
    query, key, value = flat("gauss", m=1, c=3)
    decoder = Decoder(key, value, structure="scan")
    rows = [decoder.softmax(query, Sampled(0.3, 0.05, s)) for s in range(1_000 if JIT else 30)]
    output = np.concatenate([got.output for got in rows])
    mass = np.exp(np.concatenate([got.lse for got in rows]))
    exact, lse = dense.softmax(query, key, value)
    for sample, truth in ((output, exact[0]), (mass[:, None], np.exp(lse))):
        error = sample.std(axis=0) / math.sqrt(len(rows))
        assert (np.abs(sample.mean(axis=0) - truth) <= 6.0 * error).all()


# What is read


def test_flat_heads_are_sampled():
    query, key, value = flat("gauss", m=8, c=16)
    decoder = Decoder(key, value, structure="scan")
    got, dropped = (decoder.softmax(query, rule) for rule in (Sampled(0.4), Error(0.4)))
    assert got.sampled.all()
    assert not dropped.sampled.any()
    assert (got.bound <= 0.4).all()
    assert (2 * got.reported < dropped.reported).all()


@pytest.mark.parametrize(
    ("scale", "eps"), [(30, 1e-4), (30, 0.05), (1, 0.0), (1, 1e-9), (1, 10.0), (1, math.inf)]
)
def test_sharp_heads_are_dropped_as_with_error(scale, eps):
    """And flat ones, if eps cannot be reached by sampling, or by reading next to nothing."""
    query, key, value = flat(m=4)
    decoder = Decoder(key, value, structure="scan", scale=scale)
    got, want = (decoder.softmax(query, rule) for rule in (Sampled(eps), Error(eps)))
    assert not got.sampled.any()
    assert got.reported.tolist() == want.reported.tolist()
    for mine, other in zip((*got, got.lse_bound), (*want, want.lse_bound), strict=True):
        assert mine == pytest.approx(other, rel=1e-9, abs=1e-14)


def test_draws_in_vain_are_followed_by_dropping(monkeypatch):
    """A guess of the spread that is far too low has sampling tried where it cannot succeed."""
    query, key, value = flat("signs", m=4)
    value[:] = np.where(np.arange(N) % 2, 1.0, -1.0)[:, None]
    aim = sampled_module.aim

    def hopeful(*arguments):
        made = aim(*arguments)
        spread = np.full_like(made.prior.spread, 1e-9)
        return made._replace(prior=made.prior._replace(spread=spread))

    monkeypatch.setattr(sampled_module, "aim", hopeful)
    decoder = Decoder(key, value, structure="scan")
    got, want = (decoder.softmax(query, rule) for rule in (Sampled(0.02), Error(0.02)))
    assert not got.sampled.any()
    assert got.bound == pytest.approx(want.bound)
    assert ((got.reported > want.reported) | (got.reported == N)).all()


# One answer


def same(a, b):
    pairs = zip((*a, a.lse_bound, a.sampled), (*b, b.lse_bound, b.sampled), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


def test_a_seed_gives_one_answer():
    query, key, value = flat()
    decoder = Decoder(key, value, structure="scan")
    first, again, other = (decoder.softmax(query, Sampled(0.2, seed=s)) for s in (1, 1, 2**64 - 1))
    assert same(first, again)
    assert first.sampled.all()
    assert (first.output != other.output).any(axis=1).all()


def test_threads_and_batches_do_not_matter():
    query, key, value = flat(m=16)
    decoder, before = Decoder(key, value, structure="scan"), halfspace.get_threads()
    try:
        answers = []
        for threads in (1, 2):
            halfspace.set_threads(threads)
            answers.append(decoder.softmax(query, Sampled(0.2)))
    finally:
        halfspace.set_threads(before)
    assert same(*answers)
    for i in range(16):
        one = decoder.softmax(query[i : i + 1], Sampled(0.2))
        assert same(one, Attended(*(x[i : i + 1] for x in answers[0]), *more(answers[0], i)))


def more(got, i):
    return got.lse_bound[i : i + 1], got.sampled[i : i + 1]


# Heads of all kinds


@pytest.mark.parametrize("n", [0, 1, 2, TILE, TILE + 1])
def test_few_keys_are_all_read(n):
    query, key, value = flat(n=n)
    got = Decoder(key, value, structure="scan").softmax(query, Sampled(1e-3))
    want, _ = dense.softmax(query, key, value)
    assert got.output == pytest.approx(want)
    assert got.reported.tolist() == [n] * len(query)
    assert (got.bound <= (1e-12 if n else 0.0)).all()


def test_constant_values_need_one_key():
    query, key, _ = flat()
    got = Decoder(key, np.full((N, 2), 0.1), structure="scan").softmax(query, Sampled())
    assert got.output == pytest.approx(0.1)
    assert (got.reported < 10).all()
    assert not got.sampled.any()


def test_equal_scores():
    """One bin has all keys, so none can be left to a sample while the best are read."""
    query, key, value = flat()
    got = Decoder(0.0 * key, value, structure="scan").softmax(query, Sampled(0.3))
    assert got.output == pytest.approx(np.broadcast_to(value.mean(axis=0), got.output.shape))
    assert (got.bound <= 0.3).all()


def test_huge_logits():
    query, key, value = flat()
    best = (query.astype(float) @ key.T.astype(float)).argmax(axis=1)
    for scale in (1e3, 1e9, 1e30):
        decoder = Decoder(key, value, structure="scan", scale=scale)
        got, want = (decoder.softmax(query, rule) for rule in (Sampled(0.1), Error(0.1)))
        assert got.output == pytest.approx(value[best], abs=0.1)
        # At 1e30 rounding alone may move any score past the best.
        assert got.bound == pytest.approx(want.bound)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_dtypes(dtype):
    arrays = [array.astype(dtype) for array in flat(c=1)]
    got = softmax_attention(*arrays, rule=Sampled(0.1, UNLIKELY))
    assert got.output.dtype == dtype
    assert got.sampled.all()
    assert (off(got, *arrays)[0] <= got.bound).all()
    assert (got.bound <= 0.1 + 1e-3).all()


@pytest.mark.parametrize("causal", ["upper_left", "lower_right"])
def test_causal(causal):
    query, key, value = flat(m=9)
    got = softmax_attention(query, key, value, rule=Sampled(0.2, UNLIKELY), causal=causal)
    assert (off(got, query, key, value, causal=causal)[0] <= got.bound).all()
    assert (got.bound <= 0.2).all()
    assert got.sampled.all() == (causal == "lower_right")


def test_grouped_heads():
    _, key, value = (np.stack(pair) for pair in zip(flat(seed=1), flat(seed=2), strict=True))
    query = np.random.default_rng(0).standard_normal((4, 3, 8), dtype=np.float32)
    got = softmax_attention(query, key, value, rule=Sampled(0.2, UNLIKELY))
    assert got.sampled.shape == got.bound.shape == (4, 3)
    assert got.sampled.all()
    assert (off(got, query, key, value)[0] <= got.bound).all()
    torchlike = scaled_dot_product_attention(
        query, key, value.astype(np.float32), enable_gqa=True, rule=Sampled(0.2, UNLIKELY)
    )
    assert np.abs(torchlike - dense.softmax(query, key, value)[0]).max() <= 0.2


def test_masked_rows_that_few_share_are_read_in_full():
    query, key, value = flat(m=3, n=300)
    mask = np.random.default_rng(0).random((3, 300)) < 0.5
    got = scaled_dot_product_attention(query, key, value.astype(np.float32), mask, rule=Sampled())
    for i in range(3):
        want, _ = dense.softmax(query[i : i + 1], key[mask[i]], value[mask[i]])
        assert got[i] == pytest.approx(want[0], abs=1e-6)


def test_a_tree_is_looked_at_whole():
    query, key, value = flat(n=max(N, 2_048), m=2, d=3)
    decoder = Decoder(key, value, structure="kd_tree")
    got = decoder.softmax(query, Sampled(0.2, UNLIKELY))
    assert got.sampled.all()
    assert (off(got, query, key, value)[0] <= got.bound).all()


def test_merged_and_replaced_rows_stay_sampled():
    query, key, value = flat(m=2)
    rules = (Sampled(0.2, UNLIKELY), Error(0.2))
    a, b = (
        Decoder(key[part], value[part], structure="scan").softmax(query, rule)
        for part, rule in zip((slice(N // 2), slice(N // 2, N)), rules, strict=True)
    )
    assert a.sampled.all()
    assert not b.sampled.any()
    for joined in (merge(a, b), merge(b, a)):
        assert joined.sampled.all()
        assert (off(joined, query, key, value)[0] <= joined.bound).all()
    assert not merge(b, b).sampled.any()
    for copy in (a._replace(output=a.output), pickle.loads(pickle.dumps(a))):
        assert copy.sampled.all()
    assert not Attended._make(a).sampled.any(), "four fields say nothing of the sixth"


# The rule


def test_the_rule_is_a_value():
    assert Sampled() == Sampled(0.05, 1e-3, 0) != Sampled(seed=1)
    assert hash(Sampled()) == hash(Sampled(eps=0.05))
    assert repr(Sampled()) == "Sampled(eps=0.05, delta=0.001, seed=0)"


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"eps": -1.0}, ValueError, "eps: expected a number from 0.0 to inf, got -1.0"),
        ({"eps": math.nan}, TypeError, "eps: expected a number, got nan"),
        ({"eps": "1"}, TypeError, "eps: expected a number, got '1'"),
        ({"delta": 0.0}, ValueError, "delta: expected a number between 0 and 1, got 0.0"),
        ({"delta": 1}, ValueError, "delta: expected a number between 0 and 1, got 1"),
        ({"delta": 2.0}, ValueError, "delta: expected a number from 0.0 to 1.0, got 2.0"),
        ({"delta": None}, TypeError, "delta: expected a number, got None"),
        ({"seed": -1}, ValueError, r"seed: expected 0 … 2\^64 - 1, got -1"),
        ({"seed": 2**64}, ValueError, r"seed: expected 0 … 2\^64 - 1, got 18446744073709551616"),
        ({"seed": 1.0}, TypeError, "seed: expected an integer, got float"),
        ({"seed": True}, TypeError, "seed: expected an integer, got bool"),
    ],
)
def test_bad_rules(options, error, match):
    with pytest.raises(error, match=match):
        Sampled(**options)


def test_it_is_no_rule_for_looks():
    query, key, value = flat(n=9)
    with pytest.raises(TypeError, match="rule: expected TopR, Threshold, Mass, Error or Sampled"):
        softmax_attention(query, key, value, rule=SimpleNamespace(eps=0.1, delta=0.1, seed=0))
