"""Certificates from second moments: they hold over the reals, and pay where values are spread."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import attention
from attention import bounds, data, growing_heads, growth
from attention.attended import certified
from attention.coded_head import LEAST_CODED
from attention.reading import make_readings
from attention.spread import Spread, pull, radius, spread_of, unknown_spread, with_more
from halfspace.jit import kernel

from .attention_oracle import EXTENDED, means_of_part_and_whole
from .attention_strategies import spreads
from .caches import changed, filled
from .datasets import cloud
from .sizes import JIT, examples
from .strategies import rngs


@kernel
def find_radius(spread, head, c, mean):
    return radius(spread, head, c, mean)


@kernel
def find_pull(peak, missed, certain):
    return pull(peak, missed, certain)


@examples(2)
@given(valued=spreads(), rng=rngs())
def test_the_radius_is_an_upper_bound(valued, rng):
    values, spread = valued
    assert spread.count.tolist() == [len(values)]
    for c in range(2):
        mean = rng.choice([*values[:, c], values[:, c].mean(), 0.0, -values[0, c]])
        if not np.isfinite(mean):
            continue
        found = find_radius(spread, 0, c, mean)
        exact = sum((Fraction(float(v)) - Fraction(mean)) ** 2 for v in values[:, c])
        assert not np.isfinite(found) or Fraction(found) ** 2 >= exact


@examples(2)
@given(valued=spreads(), rng=rngs(), power=st.sampled_from((0, 3, 200)))
def test_the_certificate_holds_over_the_reals(valued, rng, power):
    (values, spread), read = valued, int(rng.integers(1, len(valued[0]) + 1))
    weights = np.exp(-power * rng.random(len(values)))
    mass = bounds.certain_mass(float(weights[:read].sum()), 0.0)
    missed = float(weights[read:].sum()) * (1 + 1e-12)
    far = find_pull(float(weights[read:].max(initial=0.0)), missed, mass)
    for c, (mine, whole) in enumerate(
        zip(*means_of_part_and_whole(weights, values, read), strict=True)
    ):
        mean = float(mine)
        if not (far < np.inf and np.isfinite(find_radius(spread, 0, c, mean))):
            continue
        moved = abs(Fraction(mean) - mine) * (1 + len(values))
        bound = Fraction(far) * (Fraction(find_radius(spread, 0, c, mean)) + moved)
        assert abs(mine - whole) <= bound


@given(
    numbers=st.tuples(*[st.sampled_from((0.0, 5e-324, 1e-300, 1e-3, 1.0, 1e12, 1e300, np.inf))] * 3)
)
def test_the_pull_is_that_of_the_worst_mass(numbers):
    peak, missed, certain = numbers
    found = find_pull(*numbers)
    assert found >= 0.0 or certain == np.inf
    if not certain > 0.0 or peak == np.inf:
        assert found == np.inf
        return
    if certain == np.inf:
        return
    for mass in (missed, missed / 2, min(missed, certain), min(missed, certain / 3)):
        if mass < np.inf:
            p, w, k = (EXTENDED(x) for x in (peak, mass, certain))
            assert found >= np.sqrt(p) * np.sqrt(w) / (k + w)


def test_values_of_which_nothing_is_known():
    assert not np.isfinite(find_radius(unknown_spread(3), 0, 1, 0.5))
    readings = make_readings(2, 3)._replace(
        mass=np.ones(2), missed=np.ones(2), peak=np.full(2, 1e-3), top=np.zeros(2)
    )
    readings = readings._replace(reported=np.full(2, 7), looked=np.full(2, 9))
    span, float64 = bounds.ValueRange(-np.ones(3), np.ones(3)), np.dtype(np.float64)
    plain = certified(readings, span, float64)
    # Half of the weight is missed, and the far end is 1 away.
    assert plain.bound == pytest.approx(0.5)
    none = certified(readings._replace(peak=np.full(2, np.inf)), span, float64)
    assert np.array_equal(plain.bound, none.bound)


def test_the_smaller_certificate_is_taken_by_row_and_head():
    readings = make_readings(4, 1)._replace(
        mass=np.ones(4), missed=np.ones(4), peak=np.array([1e-3, 1.0, 1e-3, 1.0]), top=np.zeros(4)
    )
    readings = readings._replace(reported=np.full(4, 7), looked=np.full(4, 2000))
    span, heads = bounds.ValueRange(np.array([-1.0]), np.array([1.0])), np.zeros((2, 1))
    spread = Spread(np.full(2, 1000.0), heads, heads, np.array([[40.0], [10.0]]))
    got = certified(readings, span, np.dtype(np.float64), spread=spread)
    # sqrt(p W) / (K + W) R with K = W = 1, or a half.
    want = [0.5 * np.sqrt(1e-3 * 40.0), 0.5, 0.5 * np.sqrt(1e-3 * 10.0), 0.5]
    assert got.bound == pytest.approx(want, rel=1e-6)


def test_it_pays_on_a_head_that_is_flat():
    head = data.load("flat")
    decoder = attention.Decoder(head.key, head.value, structure="cascade")
    query = head.query[: 40 if JIT else 2]
    got = decoder.softmax(query, attention.TopR())
    decoder._spread = unknown_spread(decoder.value_dim)
    plain = decoder.softmax(query, attention.TopR())
    exact, _ = attention.dense.softmax(query, head.key, head.value)
    assert np.array_equal(got.output, plain.output)
    assert (np.abs(got.output - exact).max(axis=1) <= got.bound).all()
    assert np.median(got.bound) < 0.7 * np.median(plain.bound)


def exact_sums(cache, head):
    values = cache._heads.values[head].astype(np.float64)
    return np.sqrt((values * values).sum(axis=0))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_cache_that_changes_keeps_enough(dtype):
    counts = []
    for cache in changed(dtype):
        spread = cache._heads._spread
        for head in range(2):
            for c, exact in enumerate(exact_sums(cache, head)):
                assert find_radius(spread, head, c, 0.0) >= exact
        counts.append(spread.count.tolist())
    assert counts[:2] == [[30.0, 30.0], [33.0, 33.0]]
    assert counts[2][0] >= 21.0
    assert max(counts[-1]) <= 2 * 19 + 9


def test_a_growing_decoder_keeps_enough():
    keys, values = cloud(LEAST_CODED, 16), cloud(LEAST_CODED, 2, seed=1)
    decoder = attention.Decoder(keys, values, structure="cascade", growing=True)
    decoder.extend(keys[:5], 9.0 * values[:5])
    assert decoder._spread.count.tolist() == [LEAST_CODED + 5]
    decoder.crop(100)
    assert decoder._spread.count.tolist() == [100]
    want = spread_of(values[None, :100])
    assert np.array_equal(decoder._spread.squares, want.squares)


def test_values_that_came_one_by_one_and_were_rounded_away():
    one, small = spread_of(np.array([[[1.0], [-1.0]]])), np.sqrt(0.98 * 2.0**-52)
    more = with_more(one, np.array([[[small]]]))
    assert more.squares == one.squares == 2.0
    # So it is however many follow.
    count = 30_000_000
    found = find_radius(one._replace(count=one.count + count), 0, 0, 0.0)
    assert Fraction(found) ** 2 >= 2 + count * Fraction(small) ** 2


def interrupted(*_):
    raise KeyboardInterrupt


def holds_all(span, norm, keys, values):
    """Whether a range and a norm are of all these keys and values, or more."""
    inside = (span.low <= values).all() and (values <= span.high).all()
    return inside and (bounds.norms(keys) <= norm).all()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("with_more", lambda decoder: decoder.extend(9.0 * cloud(5, 16), 9.0 * cloud(5, 2))),
        ("spread_of", lambda decoder: decoder.crop(100)),
    ],
)
def test_a_decoder_that_is_interrupted_knows_enough(monkeypatch, name, change):
    keys, values = cloud(LEAST_CODED, 16), cloud(LEAST_CODED, 2, seed=1)
    decoder = attention.Decoder(keys, values, structure="cascade", growing=True)
    monkeypatch.setattr(growth, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        change(decoder)
    assert holds_all(decoder._values, decoder._key_norm, *decoder._head.rows())
    assert decoder._spread.count[0] >= len(decoder)


def test_a_cache_that_is_interrupted_measures_again(monkeypatch):
    monkeypatch.setattr(growing_heads, "CHUNK", 64)
    cache, key, value = filled(40, dtype=np.float64, d=4)
    calls, norms = iter(range(40)), bounds.norms
    with monkeypatch.context() as patch:
        patch.setattr(bounds, "norms", lambda keys: interrupted() if next(calls) else norms(keys))
        with pytest.raises(KeyboardInterrupt):
            cache.attend(key[:, -1:])
    cache.attend(key[:, -1:])
    measures = cache._heads.measures()
    for h in range(2):
        span = bounds.ValueRange(measures.low[h], measures.high[h])
        assert holds_all(span, measures.norms[h], key[h], value[h])
        assert measures.spread.count[h] >= len(cache)
