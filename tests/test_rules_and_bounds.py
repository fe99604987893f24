"""Rules, the certificate's formulas against rational arithmetic, and the cut of a histogram."""

import math
from dataclasses import FrozenInstanceError
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from attention import Error, Mass, Threshold, TopR, bounds, selection
from attention.bounds import ValueRange

from . import attention_oracle as truth
from .attention_oracle import EPS, EXTENDED
from .attention_strategies import heads, largest
from .sizes import TILE, examples
from .strategies import DTYPES, arrays, rngs

BINS, PER_NAT = selection.BINS, selection.BINS_PER_NAT

# Rules


def test_rules_are_values():
    for rule, twin, other, text in (
        (TopR(3), TopR(r=3), TopR(4), "TopR(r=3)"),
        (Threshold(0.5), Threshold(b=0.5), Threshold(1), "Threshold(b=0.5)"),
        (Mass(0.9), Mass(p=0.9), Mass(1), "Mass(p=0.9)"),
        (Error(), Error(eps=1e-3), Error(1e-2), "Error(eps=0.001)"),
        (TopR(), TopR(None), TopR(1), "TopR(r=None)"),
    ):
        assert rule == twin != other
        assert hash(rule) == hash(twin)
        assert repr(rule) == text
        with pytest.raises(FrozenInstanceError):
            rule.new = 1


def test_top_r_counts():
    for n in range(300):
        assert TopR(7).count(n) == min(7, n)
        # The least integer whose fifth power is at least n^4.
        count = TopR().count(n)
        assert count**5 >= n**4
        assert count == 0 or (count - 1) ** 5 < n**4
    for root in (10, 16, 25):
        assert TopR().count(root**5) == root**4
    assert TopR(np.int64(3)).count(9) == 3


@pytest.mark.parametrize("number", [np.float64(0.5), np.float32(0.5), np.int64(1), 1])
def test_numbers_of_any_kind(number):
    assert Threshold(number).b == Mass(number).p == Error(number).eps == number


def test_bad_rules():
    for rule, bad, says in (
        (TopR, 0, "r: .*at least 1.*0"),
        (TopR, -3, "r: .*at least 1.*-3"),
        (Mass, -0.1, "p: .*0.* to 1.*-0.1"),
        (Mass, 1.1, "p: .*0.* to 1.*1.1"),
        (Mass, math.inf, "p: .*inf"),
        (Error, -1e-9, "eps: .*0.*-1e-09"),
        (Error, -math.inf, "eps: .*-inf"),
    ):
        with pytest.raises(ValueError, match=says):
            rule(bad)
    for rule, name in ((Threshold, "b"), (Mass, "p"), (Error, "eps")):
        for bad in (math.nan, None, "1", 1j, [1.0], True):
            with pytest.raises((TypeError, ValueError), match=f"^{name}: expected a number"):
                rule(bad)
    for bad in (1.5, "2", [1]):
        with pytest.raises(TypeError, match=r"^r: expected an integer"):
            TopR(bad)


# Bounds, in exact arithmetic


def fractions(array):
    return [[Fraction(float(x)) for x in row] for row in np.atleast_2d(array)]


@st.composite
def mixtures(draw):
    """Weights and values of keys, exact; which of them are read; and weights that are off."""
    n, c = draw(st.integers(1, 12)), draw(st.integers(1, 3))
    rng = draw(rngs())
    weights = np.exp(rng.uniform(-draw(st.sampled_from((0, 5, 40))), 0, n))
    values = rng.integers(-4, 5, (n, c)) * draw(st.sampled_from((1e-8, 1.0, 1e8)))
    read = np.sort(rng.permutation(n)[: draw(st.integers(1, n))])
    wrong = weights * (1.0 + rng.uniform(-1, 1, n) * draw(st.sampled_from((0.0, 1e-9, 0.1))))
    return weights, values, read, wrong


def upwards(x):
    return math.nextafter(float(x), math.inf)


@examples(5)
@given(mixture=mixtures())
def test_the_output_is_within_its_bound(mixture):
    """Properties (1) and (2): what was missed, and weights that are off."""
    weights, values, read, wrong = mixture
    w, v = fractions(weights)[0], fractions(values)
    exact = truth.means(w, values)
    missed = sum(w) - sum(w[j] for j in read)
    drift = sum(abs(Fraction(wrong[j]) - w[j]) for j in read)
    mass = sum(Fraction(wrong[j]) for j in read)
    mean = truth.means([Fraction(wrong[j]) for j in read], values[read])

    share = bounds.missed_share(*(np.array([upwards(x)]) for x in (mass, missed, drift)))
    tau = missed / sum(w)
    # Its last places are covered by the factor of `output_bound`.
    assert tau <= Fraction(share[0]) * (1 + Fraction(2.0**-51)) <= 1 + Fraction(2.0**-51)

    span = ValueRange(values.min(axis=0), values.max(axis=0))
    output = np.array([[float(x) for x in mean]])
    drift_share = np.array([min(1.0, upwards(drift / mass))])
    bound = bounds.output_bound(output, share, drift_share, np.array([len(read)]), span)
    for c, x in enumerate(exact):
        off = abs(Fraction(output[0, c]) - x)
        low, high = min(row[c] for row in v), max(row[c] for row in v)
        assert off <= Fraction(bound[0])
        # The proof, piece by piece: (2), then (1).
        right = sum(w[j] * v[j][c] for j in read) / sum(w[j] for j in read)
        assert abs(mean[c] - right) <= drift * (high - low) / mass
        assert abs(right - x) <= tau * max(high - right, right - low)
    # The theorem's bound for the same share is never below, rounding apart.
    rounding = bounds.rounding_bound(drift_share, np.array([len(read)]), span)[0]
    theorem = bounds.general(float(share[0]), 1.0, largest(values))
    assert bound[0] <= theorem * (1.0 + 1e-9) + 3.0 * rounding


def test_the_bound_and_the_theorem_are_attained():
    """Values at opposite ends, the read ones at the other end than the missed."""
    span = ValueRange(np.array([-1.0]), np.array([1.0]))
    for tau in (0.0, 0.25, 0.5, 1.0):
        share = bounds.missed_share(*(np.array([x]) for x in (1.0 - tau, tau, 0.0)))
        assert share == pytest.approx(tau, abs=1e-11)
        bound = bounds.output_bound(np.array([[1.0]]), share, np.zeros(1), np.array([1]), span)
        assert 2.0 * tau <= bound[0] <= 2.0 * tau + 1e-10
        assert bounds.general(tau, 1.0, 1.0) == 2.0 * tau


def test_nothing_certain_misses_everything():
    for mass, missed, drift, share in ((1, 0, 0, 0), (1, 0, 2, 1), (0, 1, 0, 1), (0, 0, 0, 1)):
        arrays = (np.array([float(x)]) for x in (mass, missed, drift))
        assert bounds.missed_share(*arrays).tolist() == [share]


def assert_norms(rows):
    for norm, row in zip(bounds.norms(rows), fractions(rows), strict=True):
        square = sum(x * x for x in row)
        assert square <= Fraction(norm) ** 2
        least = max(Fraction(norm) - Fraction(5e-322), 0)
        assert least**2 <= Fraction(1.000001) * square


@examples(2)
@given(data=st.data(), dtype=st.sampled_from(DTYPES))
def test_norms_are_upper_bounds(data, dtype):
    shape = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    rows = data.draw(arrays(shape, dtype))
    # The others may have no norm in float64.
    assert_norms(rows[np.abs(rows.astype(float)).max(axis=1) < 1e307])


def test_norms_at_both_ends():
    assert_norms(np.array([[5e-324, 5e-324], [1e-323, 0.0], [0.0, -0.0], [1e307, -1e307]]))
    assert bounds.norms(np.empty((0, 3))).tolist() == []


@examples(2)
@given(data=st.data())
def test_scores_are_within_their_error(data):
    head = data.draw(heads())
    query, key, scale = head.query.astype(float), head.key.astype(float), head.factor
    norm = float(bounds.norms(key).max(initial=0.0))
    errors = bounds.score_error(bounds.norms(query), norm, scale, key.shape[1])
    for q, error in zip(query, errors, strict=True):
        orders = (q @ key.T, (q * key).sum(axis=1), (q * key)[:, ::-1].cumsum(axis=1)[:, -1])
        exact = truth.scores(q, key, scale)
        for order in orders:
            got = scale * order
            assert all(
                abs(Fraction(x) - y) <= Fraction(error) for x, y in zip(got, exact, strict=True)
            )


@examples(2)
@given(data=st.data())
def test_weights_are_within_their_drift(data):
    """Scores off by an error at most, exp rounded: the drift covers it, and is not much more."""
    rng, n = data.draw(rngs()), data.draw(st.integers(1, 50))
    error = data.draw(st.sampled_from((0.0, 1e-15, 1e-9, 1e-3, 1.0)))
    scores = rng.uniform(-data.draw(st.sampled_from((1.0, 40.0, 700.0))), 0.0, n)
    exact = np.exp((scores + error * rng.uniform(-1, 1, n)).astype(EXTENDED) - scores.max())
    weights = np.exp(scores - scores.max())
    mass = np.array([weights.sum()])
    drift = bounds.weight_drift(mass, np.array([error]), np.array([n]))
    assert np.abs(weights - exact).sum() <= drift[0] + n * EPS
    assert drift[0] <= mass[0] * (1.001 * math.expm1(error) + 1e-12)


def test_value_range():
    values = np.array([[1.0, -2.0], [3.0, -8.0]], np.float16)
    span = bounds.value_range(values)
    assert (span.low.tolist(), span.high.tolist()) == ([1.0, -8.0], [3.0, -2.0])
    assert span.low.dtype == span.high.dtype == np.float64
    assert (span.width, span.size) == (6.0, 8.0)
    none = bounds.value_range(np.empty((0, 2)))
    assert (none.low.tolist(), none.width, none.size) == ([0.0, 0.0], 0.0, 0.0)


def test_gamma():
    for k in (1, 5, 10**6):
        exact = Fraction(k, 2**53) / (1 - Fraction(k, 2**53))
        assert float(bounds.gamma(k)) == pytest.approx(float(exact), rel=1e-15)


@pytest.mark.parametrize(("n", "m", "d", "delta"), [(1000, 1, 64, 0.01), (9, 7, 3, 0.5)])
def test_paper_threshold(n, m, d, delta):
    b = bounds.paper_threshold(n, m, d, query_std=2.0, key_std=0.5, delta=delta)
    sigma = 4.0 * math.sqrt((d + math.log(m) - math.log(delta)) / d)
    assert b == pytest.approx(sigma * math.sqrt(2.0 * math.log(n) / 5.0), rel=1e-12)


def test_few_gaussian_keys_reach_the_papers_threshold():
    """At most 2 n^(4/5) of them; and the theorem is no target: nothing may be active."""
    rng = np.random.default_rng(0)
    n, m, d = 4000, 8, 16
    b = bounds.paper_threshold(n, m, d, query_std=1.0, key_std=1.0)
    query, key = rng.standard_normal((m, d)), rng.standard_normal((n, d))
    active = (query @ key.T / math.sqrt(d) >= b).sum(axis=1)
    assert (active <= 2 * n**0.8).all()
    assert active.max() < 10


# Selection


# Compiled here each time: a cached kernel of the tests would not notice changes in `attention`.
@njit
def _bin(scores, bins, counts):
    selection.fill_bins(scores, scores.max(), bins)
    selection.add_to_histogram(bins, 1, counts)


@njit
def _bound(counts, widen, beyond, kept, missed):
    selection.fill_masses(counts, widen, beyond, kept, missed)


@njit
def _cut(kind, parameter, counts, kept, missed):
    return selection.find_cut(kind, parameter, counts, kept, missed)


@njit
def _select(scores, bins, tiles, cut, extra, members, places, chosen):
    return selection.select_keys(scores, bins, tiles, cut, extra, members, places, chosen)


def histogram(scores):
    bins, counts = np.empty(scores.size, np.int32), np.zeros(BINS + 1, np.int64)
    _bin(scores, bins, counts)
    return bins, counts


def masses(counts, widen, beyond):
    kept, missed = np.empty(BINS + 1), np.empty(BINS + 1)
    _bound(counts, widen, beyond, kept, missed)
    return kept, missed


def chosen(scores, tiles, cut, extra):
    bins, _ = histogram(scores)
    members, (places, slots) = np.empty(scores.size), np.empty((2, scores.size), np.int64)
    size = _select(scores, bins, tiles, cut, extra, members, places, slots)
    return sorted(slots[:size].tolist())


@st.composite
def scored(draw):
    """Scores of whole tiles, some of them ``-inf`` for no candidate, with many ties."""
    rng, tiles = draw(rngs()), draw(st.integers(1, 3))
    spread = draw(st.sampled_from((0.01, 1.0, 20.0, 100.0)))
    scores = rng.uniform(-spread, 0.0, TILE * tiles) + draw(st.sampled_from((0.0, -300.0, 900.0)))
    if draw(st.booleans()):
        scores = np.round(scores)
    scores[rng.random(scores.size) < draw(st.sampled_from((0.0, 0.5, 0.9)))] = -np.inf
    scores[rng.integers(scores.size)] = 0.0
    return scores


def test_edges_are_above_every_weight_of_their_bin():
    assert selection.EDGES.shape == (BINS + 1,)
    assert not selection.EDGES.flags.writeable
    exact = np.exp(-np.arange(BINS + 1, dtype=EXTENDED) / PER_NAT)
    above = selection.EDGES / exact - 1
    assert (above >= 0).all()
    assert (above <= 1e-11).all()


@given(data=st.data())
def test_scores_are_binned_by_their_distance_from_the_best(data):
    scores = data.draw(scored())
    bins, counts = histogram(scores)
    top = scores.max()
    for score, place in zip(scores, bins, strict=True):
        if score == -np.inf:
            assert place == selection.ABSENT
        elif place == BINS - 1:
            assert (top - score) * PER_NAT >= BINS - 1
        else:
            assert place <= (top - score) * PER_NAT < place + 1
    assert counts.tolist() == np.bincount(bins, minlength=BINS + 1).tolist()


@given(data=st.data())
def test_masses_above_and_below_a_cut_are_bounded(data):
    """Whatever the real scores are, within the error of those that were binned."""
    scores, error = data.draw(scored()), data.draw(st.sampled_from((0.0, 1e-6, 0.3)))
    beyond = data.draw(st.sampled_from((0.0, 1e-3, 10.0)))
    top = scores.max()
    bins, counts = histogram(scores)
    kept, missed = masses(counts, math.exp(error + 1e-12 * (1.0 + abs(top))), beyond)
    for way in (-1, 1, data.draw(rngs()).uniform(-1, 1, scores.size)):
        weights = np.exp((scores + way * error).astype(EXTENDED) - top)
        by_bin = np.zeros(BINS + 1, EXTENDED)
        np.add.at(by_bin, bins, weights)
        # Up to rounding of these sums of long doubles.
        above = np.concatenate([[0], by_bin[:BINS].cumsum()]) * (1 + scores.size * EPS)
        below = by_bin[:BINS].sum() - above[:-1]
        assert (kept <= above).all()
        assert (missed[:BINS] >= below + beyond * (1 - EPS) - scores.size * EPS).all()
        assert missed[BINS] >= beyond
    assert kept[BINS] > 0.0


@given(data=st.data())
def test_they_are_not_much_off(data):
    """A bin is 1/32 of a nat wide, and the last is open below."""
    scores = data.draw(scored())
    kept, missed = masses(histogram(scores)[1], 1.0, 0.0)
    weights = np.exp(scores - scores.max())
    assert kept[BINS] >= math.exp(-1.01 / PER_NAT) * weights.sum() - 1e-15
    assert missed[0] <= math.exp(1.01 / PER_NAT) * weights.sum() + scores.size * math.exp(-43)


@given(data=st.data())
def test_a_share_is_cut_at_the_first_bin_that_will_do(data):
    share = data.draw(st.sampled_from((0.0, 1.0)) | st.floats(0.0, 1.0))
    _, counts = histogram(data.draw(scored()))
    kept, missed = masses(counts, math.exp(1e-6), 0.0)
    will_do = (kept > 0.0) & (missed <= share * (kept + missed))
    want = np.append(will_do[:BINS], True).argmax()
    assert _cut(selection.SHARE, share, counts, kept, missed) == (want, 0)


@examples(2)
@given(data=st.data())
def test_the_top_r_are_selected_ties_to_the_earlier(data):
    scores, rng = data.draw(scored()), data.draw(rngs())
    tiles = np.sort(rng.permutation(9)[: scores.size // TILE])
    candidates = np.flatnonzero(scores > -np.inf)
    r, unused = data.draw(st.integers(0, candidates.size + 2)), np.zeros(BINS + 1)
    cut, extra = _cut(selection.TOP_R, float(r), histogram(scores)[1], unused, unused)
    order = sorted(candidates.tolist(), key=lambda i: (-scores[i], i))
    want = sorted(tiles[i // TILE] * TILE + i % TILE for i in order[:r])
    assert chosen(scores, tiles, cut, extra) == want


@given(data=st.data())
def test_all_bins_before_a_cut_are_selected(data):
    scores = data.draw(scored())
    cut = data.draw(st.integers(0, 70) | st.just(BINS))
    want = np.flatnonzero(histogram(scores)[0] < cut).tolist()
    assert chosen(scores, np.arange(scores.size // TILE), cut, 0) == want
