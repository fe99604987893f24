"""Certificates from how values are distributed: they hold over the reals, and less is read."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import attention
from attention import bounds
from attention.attended import certified
from attention.coded_head import LEAST_CODED
from attention.reading import make_readings
from attention.spread import spread_of, what_missed, with_more
from attention.tails import BINS, expected_furthest, furthest
from halfspace.jit import kernel

from .attention_oracle import means_of_part_and_whole
from .attention_strategies import spreads
from .caches import changed
from .datasets import cloud
from .sizes import JIT, examples
from .strategies import rngs


@kernel
def find_furthest(spread, head, c, low, high, mean, rounding, keys):
    counts, first, step = spread.counts[head, c], spread.first[head, c], spread.step[head, c]
    return furthest(counts, first, step, low, high, mean, rounding, keys)


@kernel
def find_missed(share, peak, missed, certain):
    return what_missed(share, peak, missed, certain)


@kernel
def expect(spread, keys):
    return expected_furthest(spread.furthest, 0, keys)


def knapsack(away, keys):
    """The most of a sum of so many of some numbers, the last one in part."""
    total, left = Fraction(0), Fraction(float(keys))
    for number in sorted(away, reverse=True):
        if number <= 0 or left <= 0:
            break
        total, left = total + min(left, 1) * number, left - 1
    return total


@examples(2)
@given(valued=spreads(), rng=rngs(), keys=st.sampled_from((0.0, 0.5, 1.0, 2.75, 1e9)))
def test_no_values_are_further_out(valued, rng, keys):
    values, spread = valued
    assert (spread.counts.sum(axis=2) == len(values)).all()
    for c in range(2):
        column = values[:, c]
        mean = rng.choice([*column, column.mean(), 0.0])
        exact = [Fraction(float(v)) - Fraction(float(mean)) for v in column]
        want = max(knapsack(exact, keys), knapsack([-x for x in exact], keys))
        found = find_furthest(spread, 0, c, column.min(), column.max(), mean, 0.0, keys)
        assert found == np.inf or Fraction(found) * (1 + Fraction(1, 10**15)) >= want


@examples(2)
@given(valued=spreads(), rng=rngs(), power=st.sampled_from((0, 3, 200)))
def test_the_certificate_holds_over_the_reals(valued, rng, power):
    (values, spread), read = valued, int(rng.integers(1, len(valued[0]) + 1))
    weights = np.exp(-power * rng.random(len(values)))
    mass = bounds.certain_mass(float(weights[:read].sum()), 0.0)
    missed = float(weights[read:].sum()) * (1 + 1e-12)
    others = find_missed(1.0, float(weights[read:].max(initial=0.0)), missed, mass)
    for c, (mine, whole) in enumerate(
        zip(*means_of_part_and_whole(weights, values, read), strict=True)
    ):
        mean, ends = float(mine), (values[:, c].min(), values[:, c].max())
        rounding = float(abs(Fraction(mean) - mine)) * (1 + 1e-9)
        if not (others.each < np.inf and rounding < np.inf):
            continue
        found = find_furthest(spread, 0, c, *ends, mean, rounding, others.keys)
        if found < np.inf:
            assert abs(mine - whole) <= Fraction(others.each) * Fraction(found)


def test_values_are_counted_whatever_they_are():
    """None of them is counted outside the bins: kernels do not check where they write."""
    values = np.array([[[np.nan], [np.inf], [-np.inf], [1.0], [2.0]]])
    spread = with_more(spread_of(np.array([[[0.0], [3.0]]])), values)
    assert spread.counts.sum() == 7
    assert spread.counts[0, 0, 0] == 2
    assert spread.counts[0, 0, -1] == 1


def test_nothing_is_said_of_what_is_not_known():
    for peak, missed, certain in ((1.0, 1.0, 0.0), (np.inf, 1.0, 1.0), (1.0, np.inf, 1.0)):
        assert find_missed(1.0, peak, missed, certain).each == np.inf
    assert find_missed(1.0, 0.0, 0.0, 1.0).each == np.inf
    known = find_missed(0.5, 0.25, 1.0, 2.0)
    assert known.each == pytest.approx(0.125)
    assert known.keys == pytest.approx(4.0)


@given(
    numbers=st.tuples(*[st.sampled_from((5e-324, 1e-310, 1e-300, 1e-3, 1.0, 3.0, 1e12, 1e300))] * 3)
)
def test_quotients_are_rounded_up(numbers):
    peak, missed, certain = map(Fraction, numbers)
    known = find_missed(1.0, *numbers)
    assert known.each == np.inf or Fraction(known.each) >= peak / certain
    assert known.keys == np.inf or Fraction(known.keys) >= missed / peak


def test_expected_distances_are_about_those_of_the_values():
    values = np.random.default_rng(0).standard_normal((1, 5000 if JIT else 500, 1))
    spread = spread_of(values)
    away = np.sort(abs(values[0, :, 0] - spread.centre[0, 0]))
    for keys in (64.0, 90.0, 128.0):
        # Of one side.
        assert expect(spread, keys) == pytest.approx(away[-2 * int(keys) :].mean(), rel=0.2)
    assert expect(spread, 1e9) == expect(spread, 1e300) == np.inf
    assert expect(spread._replace(furthest=np.empty((0, 0))), 1.0) == np.inf


def test_the_certificate_is_taken_by_coordinate():
    """A tenth is missed, of 2000 keys at least; one coordinate has two values far out."""
    values = np.zeros((1, 4000, 2))
    values[0, :, 0] = np.linspace(-1.0, 1.0, 4000)
    values[0, :2, 1] = -50.0, 50.0
    readings = make_readings(1, 2)._replace(
        mass=np.ones(1), missed=np.full(1, 0.1), peak=np.full(1, 0.1 / 2000), top=np.zeros(1)
    )
    readings = readings._replace(reported=np.full(1, 7), looked=np.full(1, 4000))
    span, spread = bounds.value_range(values[0]), spread_of(values)
    got = certified(readings, span, np.dtype(np.float64), spread=spread)
    plain = certified(readings, span, np.dtype(np.float64))
    assert plain.bound == pytest.approx(50.0 / 11.0)
    # The upper half of the first coordinate is 1/2 away in the mean; 2 of 2000 are 50 in the other.
    assert 0.05 <= got.bound[0] <= 0.05 * (1 + 5 / BINS)


def test_less_is_read():
    key, value = cloud(4000 if JIT else LEAST_CODED, 16), cloud(4000 if JIT else LEAST_CODED, 8)
    query = 4.0 * cloud(5, 16, seed=2)
    decoder = attention.Decoder(key, value, structure="cascade")
    got = decoder.softmax(query, attention.Error(1e-2))
    exact, _ = attention.dense.softmax(query, key, value)
    assert (abs(got.output - exact).max(axis=1) <= got.bound).all()
    assert (got.bound <= 1e-2).all()
    none = np.empty((0, 0))
    decoder._spread = decoder._spread._replace(counts=np.empty((0, 0, 0), np.int32), furthest=none)
    plain = decoder.softmax(query, attention.Error(1e-2))
    assert got.reported.sum() < 0.9 * plain.reported.sum()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_cache_that_changes_counts_enough(dtype):
    for cache in changed(dtype):
        spread, values = cache._heads._spread, cache._heads.values.astype(np.float64)
        for head in range(2):
            for c in range(4):
                column = values[head, :, c]
                want = knapsack([Fraction(float(v)) for v in column], 3.0)
                ends = column.min(), column.max()
                assert find_furthest(spread, head, c, *ends, 0.0, 0.0, 3.0) >= want
