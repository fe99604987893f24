"""When enough was read: either certificate may say so, and means grow as more is read."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attention import Decoder, Error, Mass, TopR, bounds, dense
from attention.code_bounds import GUESS_BINS
from attention.coded_keys import View
from attention.coded_rules import _average_more, make_scratch, words_of
from attention.cuts import Measures, cut_of
from attention.enough import (
    AIMED_SURELY,
    EXPECTED_RADIUS,
    EXPECTED_REACH,
    EXPECTED_SHIFT,
    climb,
    excess,
    expected_spans,
    keys_needed,
)
from attention.spread import spread_of, unknown_spread
from halfspace.jit import kernel
from halfspace.tiles import TILE

from .attention_oracle import EXTENDED
from .sizes import JIT, examples
from .strategies import rngs

N = 4000 if JIT else 700


def head(rng, n=N, d=8, outliers=4, size=20.0):
    """Flat scores, and values of which a few are far out."""
    key, value = rng.standard_normal((2, n, d))
    value[rng.choice(n, outliers, replace=False)] *= size
    return key, value, rng.standard_normal((3, d))


def by_first_alone(decoder):
    """The same decoder, which knows the ranges of its values alone."""
    decoder._spread = unknown_spread(decoder.value_dim)
    return decoder


@pytest.mark.parametrize(("eps", "part"), [(0.3, 0.7), (0.1, 0.9)])
def test_errors_are_reached_by_the_second_certificate(eps, part):
    key, value, query = head(np.random.default_rng(0))
    part = part if JIT else 1.0  # of few keys, more are needed
    made = {"structure": "cascade", "scale": 0.5}
    both = Decoder(key, value, **made).softmax(query, Error(eps))
    first = by_first_alone(Decoder(key, value, **made)).softmax(query, Error(eps))
    assert (both.bound <= eps).all()
    assert (first.bound <= eps).all()
    assert (both.reported < part * first.reported).all()


def test_little_more_is_read_than_the_error_needs():
    """The best keys, as many as were read but for a part, are not enough for it."""
    key, value, query = head(np.random.default_rng(1))
    decoder = Decoder(key, value, structure="cascade", scale=0.5)
    got = decoder.softmax(query, Error(0.1))
    for q, read in zip(query, got.reported, strict=True):
        assert decoder.softmax(q[None], TopR(int(0.8 * read))).bound[0] > 0.1


@pytest.mark.parametrize("rule", [Error(0.05), Mass(0.98)])
def test_heavy_keys_that_are_neighbours(rule):
    """A sample of tiles sees all of them, or none."""
    rng = np.random.default_rng(2)
    key, value, query = head(rng, n=20 * TILE)
    decoders = []
    for first in (0, 7 * TILE, 19 * TILE):
        heavy = key.copy()
        heavy[first : first + TILE] += 3.0 * query[0] / np.linalg.norm(query[0])
        decoders.append(Decoder(heavy, value, structure="cascade", scale=1.0))
    for decoder in decoders:
        got, want = decoder.softmax(query, rule), decoder.softmax(query, TopR(len(decoder)))
        assert (abs(got.output - want.output).max(axis=1) <= got.bound + want.bound).all()
        if isinstance(rule, Error):
            assert (got.bound <= rule.eps).all()
        else:
            assert (np.exp(got.lse - want.lse) >= rule.p - 1e-9).all()


@pytest.mark.parametrize("rule", [Error(0.05), Error(1e-4), Mass(0.98)])
@pytest.mark.parametrize("std", [1.0, 4.0, 1e3, 1e6])
def test_passes_end_however_scores_spread(rule, std):
    """Also where many keys are read, and where a product is worth more than a bin."""
    rng = np.random.default_rng(4)
    key, value, query = head(rng, n=40 * TILE)
    query *= std / np.linalg.norm(query, axis=1, keepdims=True)
    # Neighbours are alike, so that a sample of tiles misleads.
    key = key + 2.0 * np.repeat(rng.standard_normal((40, key.shape[1])), TILE, axis=0)
    decoder = Decoder(key, value, structure="cascade", scale=1.0)
    got, want = decoder.softmax(query, rule), dense.softmax(query, key, value, scale=1.0)
    assert (abs(got.output - want[0]).max(axis=1) <= got.bound).all()
    if isinstance(rule, Error):
        assert (got.bound <= rule.eps).all()
    else:
        assert (np.exp(got.lse - want[1]) >= rule.p - 1e-6).all()


@kernel
def next_place(cut, masses, place, mass, missed, peak, found):
    """Of a ladder from bin 0 on, around bin 40."""
    spans = expected_spans(cut, 0)
    view = View(0.0, np.int32(0), 0.0, 1.0, np.float32(1.0), 0.0, 1.0, 1, 1.0)
    return climb(cut, 0, spans, view, masses, 0.0, 40.0, place, mass, missed, peak, found)


@pytest.mark.parametrize("found", [1.5, 3.0, 30.0])
def test_a_ladder_is_climbed_to_where_enough_is_read(found):
    """Where masses fall by a factor e every 11 bins, in whatever units the excess is."""
    cut = cut_of(Mass(0.99), np.ones((1, 1, 2)), np.array([9]), wide(), 1.0, 0.0).cut
    rungs = np.array([0.0, 32.0, 36.0, 40.0, 44.0])
    masses = 0.01 * found * np.exp(-rungs / 11.0)
    place = next_place(cut, masses, 0.0, 1.0, masses[0], 1.0, found)
    assert place == pytest.approx(11.0 * np.log(found / AIMED_SURELY), abs=0.5)
    assert 350.0 < next_place(cut, masses, 350.0, 1.0, masses[0], 1.0, 1e9) <= GUESS_BINS
    assert next_place(cut, masses, 0.0, 1.0, masses[0], 1.0, np.inf) == GUESS_BINS
    assert next_place(cut, np.zeros(5), 7.0, 1.0, 0.0, 1.0, 1.01) > 7.0


@kernel
def times_too_much(cut, output, missed, mass, peak):
    return excess(cut, 0, output, missed, mass, peak)


def wide():
    """Measures of values between -1 and 1."""
    value = np.array([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0]])
    return Measures(np.ones(1), value[:1], value[1:2], spread_of(value[None]))


@kernel
def widened(values, scores, ends, arena, output):
    """The mean of all values, taken in part after part."""
    scratch, _ = make_scratch(scores.size // TILE * TILE + TILE, arena)
    top, mass, averaged = -np.inf, 0.0, 0
    for end in ends:
        for i in range(averaged, end):
            scratch.chosen[i], scratch.scores[i] = i, scores[i]
        top, mass = _average_more(values, scratch, averaged, end, top, mass, output)
        averaged = end
    return top, mass


@examples(2)
@given(rng=rngs(), n=st.integers(1, 60), size=st.sampled_from([1e-300, 1.0, 1e300]))
def test_means_that_grow(rng, n, size):
    """As near to the exact one as the bound on rounding says, however they grow."""
    values = size * rng.standard_normal((n, 3))
    scores = np.sort(rng.normal(0.0, 5.0, n))[::-1].copy()
    ends = np.append(np.sort(rng.integers(1, n + 1, rng.integers(0, 6))), n)
    output = np.full(3, np.nan)
    arena = np.empty(words_of((n // TILE + 1) * TILE, 1), np.int64)
    top, mass = widened(values, scores, ends, arena, output)
    weights = np.exp((scores - scores[0]).astype(EXTENDED))
    exact = (weights[:, None] * values.astype(EXTENDED)).sum(axis=0) / weights.sum()
    drift = bounds.drift_share(bounds.weight_drift(mass, 0.0, n), mass)
    spans = float(abs(values).max()), float(np.ptp(values, axis=0).max())
    assert top == scores[0]
    assert mass == pytest.approx(float(weights.sum()), rel=1e-12)
    assert (abs(output - exact) <= bounds.mean_rounding(drift, n, *spans)).all()


def furthest(means, missed, peak):
    """Mean distances of missed / peak values, between those of powers of two."""
    known = means[means > 0.0]
    count = np.divide(missed, peak, out=np.full(len(missed), 2.0**99), where=peak > 0.0)
    places = np.log2(np.maximum(count, 1.0))
    away = np.interp(places, np.arange(len(known)), known)
    return np.where(np.floor(places) + 1 < len(known), away, np.inf)


@examples(2)
@given(rng=rngs(), n=st.integers(1, 200), eps=st.sampled_from([0.01, 0.1, 1.0]))
def test_keys_needed_are_the_fewest(rng, n, eps):
    key, value, query = head(rng, n=max(n, 5), d=2)
    low, high = bounds.value_range(value)
    held = Measures(bounds.norms(key).max()[None], low[None], high[None], spread_of(value[None]))
    for rule in (Error(eps), Mass(1.0 - 0.1 * eps)):
        lengths = np.full(len(query), len(key))
        cut = cut_of(rule, query[None], lengths, held, 1.0, 0.0).cut
        share = rng.exponential(size=len(key)) ** 2
        share = np.sort(share / share.sum())[::-1].copy()
        kept = np.cumsum(share)
        missed, peak = np.maximum(1.0 - kept, 0.0), np.append(share[1:], 0.0)
        enough = missed <= cut.parameters[0] * (1 + 1e-12)
        if cut.left[0] > 0.0:
            mass = np.minimum(missed, kept)
            radius = EXPECTED_RADIUS * np.sqrt(held.spread.squares.max())
            far = np.sqrt(peak * mass) / (kept + mass) * radius
            reach = EXPECTED_REACH * (high - low).max()
            enough |= np.minimum(missed * reach, far) <= cut.left[0] * (1 + 1e-6)
            shift = EXPECTED_SHIFT * radius / EXPECTED_RADIUS / np.sqrt(len(key))
            away = furthest(held.spread.furthest[0], missed, peak) + shift
            told = np.isfinite(away)
            moved = missed / kept * np.where(told, away, 0.0)
            enough |= told & (moved <= cut.left[0] * (1 + 1e-6))
        least = int(np.flatnonzero(enough)[0]) + 1 if enough.any() else len(share)
        assert abs(keys_needed(cut, 0, share) - least) <= 1


def test_nothing_is_enough_of_nothing():
    """What is undefined is not taken for an answer."""
    cut = cut_of(Error(0.1), np.ones((1, 1, 2)), np.array([9]), wide(), 1.0, 0.0).cut
    nowhere = np.full(2, np.nan)
    assert times_too_much(cut, nowhere, 1.0, 0.0, 1.0) == np.inf
    assert times_too_much(cut, np.zeros(2), 0.0, 1.0, 0.0) == 0.0
    assert 0.0 < times_too_much(cut, np.zeros(2), 1e-9, 1.0, 1e-12) < 1.0
    assert times_too_much(cut, np.zeros(2), 1.0, 1.0, np.inf) > 1.0


@pytest.mark.parametrize("eps", [7e-45, 2.1e-44, 1e-40])
def test_errors_of_the_least_floats(eps):
    """Rounding to float32 costs as much for all numbers that are too small to be normal."""
    rng = np.random.default_rng(3)
    key = rng.standard_normal((300, 4), dtype=np.float32)
    value = (1e-40 * rng.standard_normal((300, 2))).astype(np.float32)
    decoder = Decoder(key, value, structure="cascade", scale=2.0)
    queries = rng.standard_normal((40, 4), dtype=np.float32)
    got = decoder.softmax(queries, Error(eps), dtype=np.float32)
    assert (got.bound <= eps).all()
