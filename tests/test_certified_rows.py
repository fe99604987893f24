"""Cuts and certificates of many rows in one call, against extended precision, at extremes."""

import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attention import Decoder, Error, KVCache, Mass, Sampled, Threshold, TopR, bounds, dense
from attention.attended import certified
from attention.cuts import Measures, cut_of
from attention.inputs import LARGEST_VALUE
from attention.reading import Readings
from attention.sampled import Estimates
from attention.spread import spread_of, unknown_spread
from attention.tails import BINS

from .attention_oracle import EXTENDED
from .sizes import examples
from .strategies import rngs

UNIT = 2.0**-53
SIZES = (0.0, 5e-324, 1e-310, 1e-30, 1.0, 1e30, LARGEST_VALUE)


@st.composite
def certified_rows(draw):
    """Readings of some rows, errors of their scores, and ranges of values, at their extremes."""
    rng, m, c = draw(rngs()), draw(st.integers(1, 5)), draw(st.integers(1, 4))
    size = draw(st.sampled_from(SIZES))
    ends = np.sort(size * rng.uniform(-1, 1, (2, m, c)), axis=0)
    output = np.clip(ends[0] + rng.random((m, c)) * (ends[1] / 2 - ends[0] / 2) * 2, *ends)
    reported = rng.choice((0, 1, 2, 1000, 2**31), m)
    output[reported == 0] = 0.0
    mass = np.where(reported > 0, rng.choice((1.0, 1e-200, 1.5, 1e12), m), 0.0)
    missed = rng.choice((0.0, 5e-324, 1e-9, 1.0, 1e280), m)
    errors = rng.choice((0.0, 1e-17, 1e-9, 0.5, 5.0, 1e3, 1e290), m)
    looked = np.maximum(reported, rng.integers(0, 2, m))
    top = np.where(reported > 0, rng.choice((-1e290, -700.0, 0.0, 1e290), m), -np.inf)
    peak = rng.choice((0.0, 1e-300, 1e-9, 1.0, 1e280, np.inf), m)
    readings = Readings(output, top, mass, missed, np.zeros(m), reported, looked, peak)
    sampled = rng.random(m) < 0.5 * (reported > 0)
    estimates = Estimates(
        np.where(sampled, rng.random(m), 0.0), np.where(sampled, mass * 1e-3, 0.0), sampled
    )
    return readings, bounds.ValueRange(*ends), errors, estimates


def least_bound(readings, values, errors, estimates, q, spread=None):
    """The certificate of row q by its formula, in extended precision and without any margin."""
    mass, missed = EXTENDED(readings.mass[q]), EXTENDED(readings.missed[q])
    read = int(readings.reported[q]) + 32 * int(estimates.sampled[q])
    summed = EXTENDED(int(readings.reported[q]) + 4) * EXTENDED(UNIT)
    off = np.expm1(min(EXTENDED(errors[q]) + EXTENDED(746 * UNIT), EXTENDED(700)))
    total = mass + EXTENDED(estimates.mass_error[q])
    drift = total * (off + EXTENDED(4 * UNIT) + summed / (1 - summed))
    low, high, output = (array[q].astype(EXTENDED) for array in (*values, readings.output))
    reach = np.maximum(high - output, output - low).max()
    if drift >= mass:
        return max(reach, abs(output).max()), EXTENDED(np.inf)
    size = np.maximum(abs(low), abs(high)).max()
    terms = EXTENDED(read + 4) * EXTENDED(UNIT)
    rounding = drift / mass * (high - low).max() + 2 * terms / (1 - terms) * size
    rounding += EXTENDED(estimates.bound[q])
    certain = max(mass - drift - EXTENDED(estimates.mass_error[q]), EXTENDED(0))
    share = missed / (certain + missed) if certain > 0 else EXTENDED(1)
    moved = -np.log1p(-share) if share < 1 else EXTENDED(np.inf)
    away = share * (np.maximum(high - output, output - low) + rounding)
    if spread is not None and certain > 0 and readings.peak[q] < np.inf:
        mass = min(missed, certain)
        far = np.sqrt(EXTENDED(readings.peak[q])) * np.sqrt(mass) / (certain + mass)
        count, centre, sums, squares = (field[0].astype(EXTENDED) for field in spread[:4])
        mean = output - centre
        with np.errstate(invalid="ignore"):
            radius = np.sqrt(np.maximum(squares - 2 * mean * sums + count * mean**2, 0))
            other = far * (radius + np.sqrt(count) * rounding)
        away = np.where(np.isnan(other), away, np.minimum(away, other))
        if readings.peak[q] > 0:
            peak = EXTENDED(readings.peak[q])
            furthest = [
                least_furthest(spread, c, low[c], high[c], output[c], rounding, missed / peak)
                for c in range(len(output))
            ]
            away = np.minimum(away, peak / certain * np.array(furthest))
    return away.max() + rounding, moved


def least_furthest(spread, c, low, high, mean, rounding, keys):
    """N of `tails.py` for a coordinate, upwards or downwards, by its formula."""
    counts, first, step = spread.counts[0, c], spread.first[0, c], EXTENDED(spread.step[0, c])
    edges = first + np.arange(BINS + 1) * step
    up = np.append(np.minimum(edges[1:-1], high), high) - mean + rounding
    down = mean - np.append(low, np.maximum(edges[1:-1], low)) + rounding
    sums = []
    for away, some in ((up[::-1], counts[::-1]), (down, counts)):
        before = np.append(0, np.cumsum(some)[:-1])
        taken = np.clip(keys - before, 0, some)
        sums.append((taken * np.maximum(away, 0)).sum())
    return max(sums)


@st.composite
def spreads(draw, value_dim):
    """Sums of some values, of any size."""
    rng, size = draw(rngs()), draw(st.sampled_from(SIZES))
    return spread_of(size * rng.standard_normal((1, draw(st.integers(0, 40)), value_dim)))


@examples(4)
@given(
    rows=certified_rows(),
    dtype=st.sampled_from((np.float16, np.float32, np.float64)),
    data=st.data(),
)
def test_certificates_are_never_below_their_formula(rows, dtype, data):
    readings, values, errors, estimates = rows
    spread = data.draw(st.none() | spreads(readings.output.shape[1]))
    with np.errstate(over="ignore"):
        got = certified(readings, values, np.dtype(dtype), estimates, errors, spread)
    for q, read in enumerate(readings.reported):
        with np.errstate(over="ignore"):
            cast = np.abs(got.output[q].astype(EXTENDED) - readings.output[q]).max()
        if not read:
            seen = readings.looked[q] > 0
            assert got.bound[q] == (values.size[q] if seen else 0.0)
            assert got.lse_bound[q] == (np.inf if seen else 0.0)
            assert got.lse[q] == -np.inf
            continue
        least, least_lse = least_bound(readings, values, errors, estimates, q, spread)
        assert got.bound[q] * (1 + EXTENDED(1e-15)) >= least + cast
        assert got.lse_bound[q] >= least_lse
        assert not np.isnan(got.bound[q])
        assert got.lse[q] == readings.top[q] + np.log(readings.mass[q])


@examples(2)
@given(rows=certified_rows())
def test_rows_are_certified_as_the_formulas_for_arrays_say(rows):
    readings, values, errors, estimates = rows
    none = Estimates(*(np.zeros_like(field) for field in estimates))
    got = certified(readings, values, np.dtype(np.float64), none, errors)
    drift = bounds.weight_drift(readings.mass, errors, readings.reported)
    parts = readings.output, bounds.missed_share(readings.mass, readings.missed, drift)
    with np.errstate(over="ignore"):
        within = bounds.drift_share(drift, readings.mass)
        want = bounds.output_bound(*parts, within, readings.reported, values)
    read = readings.reported > 0
    assert got.bound[read] == pytest.approx(want[read], rel=1e-14)
    known = certified(readings._replace(drift=drift), values, np.dtype(np.float64), none)
    assert np.array_equal(known.bound, got.bound)
    assert np.array_equal(known.lse_bound, got.lse_bound)


def test_one_range_of_values_is_for_all_rows():
    numbers, counts = np.ones((4, 3)), np.ones((2, 3), np.int64)
    readings = Readings(np.zeros((3, 2)), *numbers, *counts, np.full(3, np.inf))
    one = bounds.ValueRange(np.array([-1.0, 0.0]), np.array([2.0, 7.0]))
    each = bounds.ValueRange(*(np.repeat(end[None], 3, axis=0) for end in one))
    both = (certified(readings, values, np.dtype(np.float64)) for values in (one, each))
    for field, other in zip(*both, strict=True):
        assert np.array_equal(field, other)


# Cuts


def measures(key_norm=1.0, low=(-1.0, 0.0), high=(2.0, 1.0)):
    spread = unknown_spread(len(low))
    return Measures(np.array([key_norm]), np.array([low]), np.array([high]), spread)


def plan(rule, rows, held=None, unit=0.0, scale=0.5, n=1000):
    rows = np.asarray(rows, np.float64)
    held = measures() if held is None else held
    return cut_of(rule, rows[None], np.full(len(rows), n), held, scale, unit)


@examples(2)
@given(rng=rngs(), power=st.sampled_from((-320, -300, -160, 0, 150, 300)))
def test_norms_of_queries_are_upper_bounds(rng, power):
    rows = rng.standard_normal((3, rng.integers(1, 9))) * 10.0**power
    rows[0, 0] = rng.choice((0.0, -0.0, 5e-324))
    made = plan(TopR(1), rows, measures(0.0))
    for norm, row in zip(made.norms, rows, strict=True):
        assert sum(Fraction(x) ** 2 for x in row.tolist()) <= Fraction(norm) ** 2
    assert made.norms == pytest.approx(bounds.norms(rows), rel=1e-14)
    assert made.sound


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e301])
@pytest.mark.parametrize("norm", [0.0, 1.0])
def test_queries_that_will_not_do_are_found(wrong, norm):
    """Among zeros, too, and beside keys that make nothing of them; only scores can be too large."""
    for row in ([0.0, wrong, 0.0], [wrong, 1.0, 2.0]):
        made = plan(Error(0.1), [[1.0, 2.0, 3.0], row, [0.0, 0.0, 0.0]], measures(norm))
        assert made.sound == (norm == 0.0 and wrong == 1e301)


@examples(3)
@given(
    rng=rngs(),
    eps=st.sampled_from((0.0, 1e-300, 1e-9, 0.1, 1e30, math.inf)),
    size=st.sampled_from(SIZES),
    key_norm=st.sampled_from((0.0, 1e-300, 1.0, 1e16, 1e250)),
)
def test_what_may_be_missed_leaves_room_for_rounding(rng, eps, size, key_norm):
    """With the share missed and everything rounded, the output is within eps still."""
    low, high = np.sort(size * rng.uniform(-1, 1, (2, 3)), axis=0)
    held = measures(key_norm, low, high)
    cut, norms, _ = plan(Error(eps), rng.standard_normal((4, 3)), held, 2.0**-24)
    errors = bounds.score_error(norms, key_norm, 0.5, 3)
    assert np.array_equal(cut.errors, errors)
    drift = bounds.weight_drift(np.ones(4), errors, np.full(4, 1000))
    slack = bounds.rounding_bound(drift, np.full(4, 1000), held.values)
    width, size = high.astype(EXTENDED) - low, np.maximum(abs(low), abs(high)).max()
    for q in range(4):
        sure = drift[q] < 1.0
        assert cut.slack[q] == (pytest.approx(slack[q], rel=1e-14) if sure else np.inf)
        assert 0.0 <= cut.parameters[q] <= 1.0
        assert cut.left[q] >= 0.0
        if cut.left[q] > 0.0:
            whole = EXTENDED(cut.left[q]) + cut.slack[q] + 2.0**-24 * EXTENDED(size)
            assert sure
            assert whole <= EXTENDED(eps)
            lost = cut.parameters[q] * (EXTENDED(width.max()) + cut.slack[q])
            assert lost <= cut.left[q] * (1 + EXTENDED(1e-15))
        elif width.max() + slack[q] > 0.0:
            assert cut.parameters[q] == 0.0
    assert np.array_equal(cut.low, np.repeat(low[None], 4, axis=0))
    assert np.array_equal(cut.high, np.repeat(high[None], 4, axis=0))


def test_what_other_rules_ask():
    rows, lengths = np.ones((3, 2)), np.array([5, 1000, 5])
    for rule, parameters, offset in (
        (TopR(7), [5, 7, 5], 0.0),
        (TopR(), [TopR().count(n) for n in lengths.tolist()], 0.0),
        (Mass(0.75), [0.25] * 3, 0.0),
        (Threshold(3.0), [0.0] * 3, 6.0),
        (Threshold(-math.inf), lengths, 0.0),
        (Threshold(math.inf), [0.0] * 3, 0.0),
    ):
        spread = spread_of(np.zeros((2, 1, 1)))
        held = Measures(np.ones(2), np.zeros((2, 1)), np.ones((2, 1)), spread)
        cut = cut_of(rule, np.stack((rows, rows)), lengths, held, 0.5, 0.0).cut
        assert cut.parameters.tolist() == [*parameters, *parameters], rule
        assert cut.offsets.tolist() == [offset] * 6
        assert not cut.left.any()


# What is kept until keys change


@pytest.mark.parametrize("rule", [Error(1e-3), TopR(9), Sampled(0.3, 0.1)], ids=str)
def test_a_decoder_answers_from_the_keys_there_are(rule):
    rng = np.random.default_rng(5)
    key, query = rng.standard_normal((150, 6)), 2.0 * rng.standard_normal((2, 6))
    value = rng.uniform(-1.0, 1.0, (150, 2)) + np.arange(150)[:, None] / 20.0

    def same(decoder, n):
        got, (exact, _) = decoder.softmax(query, rule), dense.softmax(query, key[:n], value[:n])
        assert (np.abs(got.output - exact) <= got.bound[:, None]).all()
        assert (got.bound < 4.0).all()

    decoder = Decoder(key[:70], value[:70], growing=True)
    same(decoder, 70)
    decoder.extend(key[70:], value[70:])
    same(decoder, 150)
    same(pickle.loads(pickle.dumps(decoder)), 150)
    decoder.crop(30)
    same(decoder, 30)


def test_a_cache_takes_queries_of_any_kind():
    """Lists, other floats, other byte orders and strides: the output's dtype is the promoted."""
    rng = np.random.default_rng(6)
    cache = KVCache(4, num_kv_heads=1)
    cache.append(*rng.standard_normal((2, 1, 20, 4), dtype=np.float32))
    query = rng.integers(-3, 4, (2, 1, 4)).astype(np.float32)
    want = cache.attend(query)
    for other, dtype in (
        (query.tolist(), np.float64),
        (query.astype(np.float64), np.float64),
        (query.astype(np.float16), np.float32),
        (query.astype(">f4"), np.float32),
        (np.repeat(query, 2, axis=-1)[..., ::2], np.float32),
    ):
        got = cache.attend(other)
        assert got.output.dtype == dtype
        assert np.array_equal(got.output.astype(np.float32), want.output)
