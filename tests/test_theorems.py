"""What the paper states: hypotheses are checked, and what follows from them holds."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from attention import Decoder, TopR, bounds, dense
from attention import data as packaged

from . import attention_oracle as truth
from .attention_strategies import heads, largest
from .sizes import JIT, examples
from .strategies import rngs

NUMBERS = st.integers(1, 10**7)

# Running times


@given(n=NUMBERS, d=st.integers(2, 300), data=st.data())
def test_costs_of_reporting(n, d, data):
    k = data.draw(st.integers(0, n))
    first, second = (bounds.reporting_costs(n, d, k, part=part) for part in (1, 2))
    half = d // 2
    assert first.build == pytest.approx(n * math.log2(n))
    assert first.query == pytest.approx(d * n / n ** (1 / half) + d * k)
    assert math.isinf(second.build) or second.build == pytest.approx(n**half, rel=1e-9)
    assert (second.build == math.inf) == (n**half >= 2**1024)
    assert second.query == pytest.approx(d * math.log2(n) + d * k)
    # Part 1 never loses to a scan that reports as much, nor Part 2 to Part 1 by more than the log.
    assert first.query <= d * n + d * k
    assert second.query <= first.query + d * math.log2(n)


@given(n=NUMBERS, m=NUMBERS, d=st.integers(2, 20))
def test_costs_of_attention(n, m, d):
    k = bounds.active_keys(n)
    assert k == pytest.approx(2 * n**0.8)
    assert math.ceil(k) >= TopR().count(n)
    decode, prefill = bounds.decode_costs(n, m, d), bounds.prefill_costs(n, m, d)
    for costs, part in ((decode, 2), (prefill, 1)):
        one = bounds.reporting_costs(n, d, 0, part=part)
        assert costs.build == one.build
        assert costs.query == pytest.approx(m * (one.query + d * k))


@given(d=st.integers(2, 40))
def test_powers_of_n(d):
    """log2 of the growth from n to n^2, over log2 n, where constants and logarithms drop out."""
    n, half = 2**20, d // 2
    few, many = (bounds.reporting_costs(x, d, 0, part=1).query for x in (n, n * n))
    assert math.log2(many / few) / 20 == pytest.approx(1 - 1 / half)
    few, many = (bounds.reporting_costs(x, d, 0, part=2).build for x in (n, n * n))
    assert many == math.inf or math.log2(many / few) / 20 == pytest.approx(half)
    few, many = (bounds.active_keys(x) for x in (n, n * n))
    assert math.log2(many / few) / 20 == pytest.approx(0.8)


def test_hypotheses_of_costs():
    for call, says in (
        (lambda: bounds.reporting_costs(0, 2, 0, part=1), "n: expected at least 1, got 0"),
        (lambda: bounds.reporting_costs(9, 1, 0, part=1), "d: expected at least 2, got 1"),
        (lambda: bounds.reporting_costs(9, 2, -1, part=1), "k: expected at least 0, got -1"),
        (lambda: bounds.reporting_costs(9, 2, 10, part=1), "k: expected at most n = 9, got 10"),
        (lambda: bounds.reporting_costs(9, 2, 0, part=3), "part: expected 1 or 2, got 3"),
        (lambda: bounds.reporting_costs(9, 2, 0, part=0), "part: expected at least 1, got 0"),
        (lambda: bounds.active_keys(0), "n: expected at least 1, got 0"),
        (lambda: bounds.decode_costs(9, 0, 2), "m: expected at least 1, got 0"),
        (lambda: bounds.prefill_costs(9, 1, 1), "d: expected at least 2, got 1"),
    ):
        with pytest.raises(ValueError, match=says):
            call()
    with pytest.raises(TypeError, match=r"n: expected an integer, got float"):
        bounds.decode_costs(9.0, 1, 2)
    with pytest.raises(TypeError, match=r"m: expected an integer, got str"):
        bounds.prefill_costs(9, "1", 2)


# Gaussian activation

DELTAS = st.floats(1e-300, 1.0)


@given(m=NUMBERS, d=st.integers(1, 300), delta=DELTAS, std=st.floats(0.0, 1e100))
def test_scale_and_threshold(m, d, delta, std):
    scale = bounds.activation_scale(m, d, query_std=std, key_std=0.5, delta=delta)
    ratio = math.log(m / delta) / d if delta > 1e-200 else (math.log(m) - math.log(delta)) / d
    assert scale == pytest.approx(2.0 * std * math.sqrt(1.0 + ratio))
    # The length that the proof needs is below.
    x = ratio * d
    assert std * math.sqrt((d + 2.0 * math.sqrt(d * x) + 2.0 * x) / d) * 0.5 <= scale / 2.0
    for n in (1, 7, 32_768):
        b = bounds.paper_threshold(n, m, d, query_std=std, key_std=0.5, delta=delta)
        assert b == pytest.approx(scale * math.sqrt(0.4 * math.log(n)))
        if std > 1e-200:
            assert math.exp(-0.5 * (b / scale) ** 2) == pytest.approx(n**-0.2)


@examples(0.5)
@given(data=st.data())
def test_few_gaussian_keys_are_active(data):
    """The lemma, where it fails for one drawing in 100 million or less."""
    rng, d = data.draw(rngs()), data.draw(st.integers(1, 40))
    n, m = data.draw(st.integers(200, 2000)), data.draw(st.integers(1, 5))
    query_std, key_std = data.draw(st.floats(1e-3, 1e3)), data.draw(st.floats(1e-3, 1e3))
    assert bounds.activation_failure(n, m, delta=1e-9) <= 1e-8
    b = bounds.paper_threshold(n, m, d, query_std=query_std, key_std=key_std, delta=1e-9)
    query, key = rng.normal(0, query_std, (m, d)), rng.normal(0, key_std, (n, d))
    active = (query @ key.T / math.sqrt(d) >= b).sum(axis=1)
    assert (active <= bounds.active_keys(n)).all()


@given(n=NUMBERS, m=NUMBERS, delta=DELTAS)
def test_failure_is_a_probability(n, m, delta):
    failure = bounds.activation_failure(n, m, delta=delta)
    assert min(delta, 1.0) <= failure <= 1.0
    chernoff = m * (math.e / 4.0) ** (n**0.8)
    assert failure == pytest.approx(min(1.0, delta + chernoff), rel=1e-6)


def test_a_binomial_is_twice_its_mean_less_often_than_allowed():
    """The last step of the lemma, in exact arithmetic."""
    for n in (1, 2, 10, 32, 243):
        p = Fraction(round(n**-0.2 * 2**40), 2**40)
        least = math.ceil(2 * n**0.8)
        tail = sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(least, n + 1))
        assert float(tail) <= (math.e / 4.0) ** (n**0.8) * (1.0 + 1e-9)


def test_nothing_is_active_at_the_papers_threshold():
    """As the documentation says: the lemma's count is no estimate."""
    rng = np.random.default_rng(0)
    n, m, d = 2000, 50, 64
    b = bounds.paper_threshold(n, m, d, query_std=1.0, key_std=1.0)
    query, key = rng.standard_normal((m, d)), rng.standard_normal((n, d))
    assert (query @ key.T / math.sqrt(d)).max() < b


def test_hypotheses_of_activation():
    for name, bad in (("query_std", -1.0), ("key_std", math.inf), ("delta", 0.0), ("delta", 1.5)):
        options = {"query_std": 1.0, "key_std": 1.0, "delta": 0.1} | {name: bad}
        with pytest.raises(ValueError, match=f"{name}: expected a number from .* to .*, got {bad}"):
            bounds.activation_scale(1, 1, **options)
        with pytest.raises(ValueError, match=name):
            bounds.paper_threshold(1, 1, 1, **options)
    with pytest.raises(ValueError, match=r"n: expected at least 1, got 0"):
        bounds.paper_threshold(0, 1, 1, query_std=1.0, key_std=1.0)
    with pytest.raises(ValueError, match=r"m: expected at least 1, got 0"):
        bounds.activation_failure(1, 0)
    with pytest.raises(ValueError, match=r"delta: expected .* got 2"):
        bounds.activation_failure(1, 1, delta=2)
    with pytest.raises(TypeError, match=r"delta: expected a number, got '0.1'"):
        bounds.activation_scale(1, 1, query_std=1.0, key_std=1.0, delta="0.1")


# Errors


@given(data=st.data())
def test_the_certificate_and_the_theorem(data):
    """In rational arithmetic; the certificate coordinate by coordinate, and never the larger."""
    rng, n, c = data.draw(rngs()), data.draw(st.integers(1, 12)), data.draw(st.integers(1, 3))
    weights = [Fraction(float(w)) for w in np.exp(rng.uniform(-9.0, 0.0, n))]
    values = rng.integers(-4, 5, (n, c)) * data.draw(st.sampled_from((1e-8, 1.0, 1e8)))
    values += data.draw(st.sampled_from((0.0, 5.0)))
    read = rng.permutation(n)[: data.draw(st.integers(1, n))]
    rest = np.setdiff1d(np.arange(n), read)
    exact = truth.means(weights, values)
    mean = truth.means([weights[j] for j in read], values[read])
    total, missed = sum(weights), sum((weights[j] for j in rest), Fraction(0))
    tau, span = float(missed / total), bounds.value_range(values)
    output = np.array([float(x) for x in mean])
    bound = bounds.certificate(output, np.float64(tau), span)
    assert bound.shape == (c,)
    theorem = bounds.general(float(missed), float(total), largest(values))
    slack = 1e-14 * largest(values)
    for got, most, want in zip(mean, bound, exact, strict=True):
        assert abs(got - want) <= most + slack
        assert most <= theorem + slack
    # The equality behind it.
    if len(rest):
        others = truth.means([weights[j] for j in rest], values[rest])
        for got, other, want in zip(mean, others, exact, strict=True):
            assert got - want == missed / total * (got - other)


def test_the_certificate_of_many_rows():
    span = bounds.ValueRange(np.array([-1.0, 10.0]), np.array([1.0, 11.0]))
    output, share = np.array([[[0.5, 10.5]], [[1.0, 10.0]]]), np.array([[0.5], [1.0]])
    got = bounds.certificate(output, share, span)
    assert got.tolist() == [[[0.75, 0.25]], [[2.0, 1.0]]]
    # Far from zero, the theorem does not know that all values are alike.
    assert bounds.general(0.5, 1.0, 11.0) == 11.0


def test_hypotheses_of_the_theorem():
    for args, says in (
        ((2.0, 1.0, 1.0), "missed: expected a number from 0.0 to 1.0, got 2.0"),
        ((-1.0, 1.0, 1.0), "missed: .*got -1.0"),
        ((0.0, 0.0, 1.0), "total: .*got 0.0"),
        ((0.0, math.inf, 1.0), "total: .*got inf"),
        ((0.0, 1.0, -1.0), "value_max: .*got -1.0"),
    ):
        with pytest.raises(ValueError, match=says):
            bounds.general(*args)
    with pytest.raises(TypeError, match=r"missed: expected a number, got nan"):
        bounds.general(math.nan, 1.0, 1.0)


def shares(query, key, scale, count):
    """What the best `count` keys miss of each query's weight."""
    scores = -np.sort(-(query.astype(float) @ key.astype(float).T) * scale, axis=1)
    weights = np.exp(scores - scores[:, :1])
    return weights[:, count:].sum(axis=1) / weights.sum(axis=1)


@examples(2)
@given(data=st.data())
def test_massive_activation(data):
    head = data.draw(heads())
    n, gamma = len(head.key), data.draw(st.floats(0.0, 1.0) | st.sampled_from((0.0, 0.8, 1.0)))
    assume(n >= 2)
    reach = largest(head.query.astype(float) @ head.key.astype(float).T) * head.factor
    assume(reach < 1e4)
    found = bounds.massive_activation(head.query, head.key, gamma=gamma, scale=head.scale)
    count = TopR().count(n) if gamma == 0.8 else math.ceil(n**gamma)
    assert (found.n, found.gamma) == (n, gamma)
    assert found.query_norm == pytest.approx(np.linalg.norm(head.query.astype(float), axis=1))
    for i, row in enumerate(head.query.astype(float) @ head.key.astype(float).T * head.factor):
        scores, unit = np.sort(row)[::-1], found.query_norm[i] * math.log(n)
        near = 1e-9 * (1.0 + np.abs(scores).max())
        assert abs(found.beta1[i] * unit - scores[:count].mean()) <= near
        assert abs(found.beta2[i] * unit - scores[min(count, n - 1)]) <= near
    assert found.head[1] <= found.beta1.min()
    assert found.head[2] >= found.beta2.max()
    missed = shares(head.query, head.key, head.factor, count)
    # What the theorem's proof is about: the missed share, for values of magnitude 1/2.
    assert (missed <= found.bound(0.5) * (1.0 + 1e-9 * (1.0 + reach)) + 1e-12).all()


def test_a_head_without_numbers():
    found = bounds.massive_activation(np.zeros((2, 3)), np.ones((9, 3)))
    assert found.beta1.tolist() == found.beta2.tolist() == [0.0, 0.0]
    assert found.bound(1.0) == pytest.approx([2.0 * 9**0.2] * 2)
    none = bounds.massive_activation(np.empty((0, 3)), np.ones((9, 3)))
    assert none.bound(1.0).shape == (0,)
    assert none.head == (0.8, math.inf, -math.inf)


def test_many_queries_are_measured_in_parts(monkeypatch):
    rng = np.random.default_rng(0)
    query, key = rng.standard_normal((20, 3)), rng.standard_normal((50, 3))
    want = bounds.massive_activation(query, key)
    monkeypatch.setattr("attention.massive_activation.SCORES", 150)
    got = bounds.massive_activation(query, key)
    assert got.beta1 == pytest.approx(want.beta1)
    assert got.beta2 == pytest.approx(want.beta2)


@given(
    n=st.integers(2, 10**6),
    norm=st.floats(0.0, 50.0),
    gamma=st.floats(0.0, 1.0),
    betas=st.tuples(st.floats(-2.0, 2.0), st.floats(-2.0, 2.0)),
)
def test_the_bound_of_massive_activation(n, norm, gamma, betas):
    low, high = sorted(betas)
    got = bounds.massive_activation_bound(n, norm, gamma, high, low, 3.0)
    assert got == pytest.approx(6.0 * n ** -(gamma + (high - low) * norm - 1.0), rel=1e-6, abs=0.0)
    # It is that of `general` for the masses of the proof.
    best, others = gamma + high * norm, 1.0 + low * norm
    if best >= others:
        share = n ** (others - best)
        assert got == pytest.approx(bounds.general(share, 1.0, 3.0), rel=1e-6)


@pytest.mark.parametrize("name", packaged.heads())
def test_packaged_heads(name):
    """The theorem, the certificate and the error, in this order, on real heads."""
    _, query, key, value = packaged.load(name)
    if not JIT:
        query, key, value = query[::64], key[:150], value[:150]
    got = Decoder(key, value).softmax(query, TopR())
    exact, _ = dense.softmax(query, key, value)
    size, span = largest(value), bounds.value_range(value)
    missed = shares(query, key, 1.0 / math.sqrt(key.shape[1]), TopR().count(len(key)))
    # TopR ranks by a float filter.
    missed = missed * (1.0 + 1e-4) + 1e-6
    certificate = bounds.certificate(got.output, missed, span).max(axis=1)
    theorem = np.array([bounds.general(min(x, 1.0), 1.0, size) for x in missed])
    massive = bounds.massive_activation(query, key).bound(size)
    assert (np.abs(got.output - exact).max(axis=1) <= certificate + 1e-9).all()
    assert (certificate <= theorem * (1.0 + 1e-9)).all()
    assert (theorem <= np.maximum(massive * 1.001 + 1e-5, 0.0)).all() or not JIT


def test_hypotheses_of_massive_activation():
    query, key = np.ones((2, 3)), np.ones((9, 3))
    for call, says in (
        (lambda: bounds.massive_activation(query[:, :2], key), "query: expected head_dim 3 .*2"),
        (lambda: bounds.massive_activation(query[0], key), r"query: expected shape .*\(3,\)"),
        (lambda: bounds.massive_activation(query, key[:1]), "key: expected at least 2 rows, got 1"),
        (lambda: bounds.massive_activation(query, key * np.nan), "key: .*finite.*nan in row 0"),
        (lambda: bounds.massive_activation(query, key, gamma=1.1), "gamma: .*1.0, got 1.1"),
        (lambda: bounds.massive_activation(query, key, scale=-1.0), "scale: .*positive.*-1.0"),
        (lambda: bounds.massive_activation(query * 1e200, key * 1e200), "query: .*scores below"),
        (lambda: bounds.massive_activation_bound(1, 1, 0.5, 1, 0, 1), "n: .*at least 2, got 1"),
        (lambda: bounds.massive_activation_bound(2, -1, 0.5, 1, 0, 1), "query_norm: .*0, got -1"),
        (lambda: bounds.massive_activation_bound(2, 1, 1.5, 1, 0, 1), "gamma: .*1.5"),
        (
            lambda: bounds.massive_activation_bound(2, 1, 0.5, 0, 1, 1),
            "beta1: .*beta2, got 0 and 1",
        ),
        (lambda: bounds.massive_activation_bound(2, 1, 0.5, math.inf, 0, 1), "beta1: .*finite"),
        (lambda: bounds.massive_activation_bound(2, 1, 0.5, 1, 0, -1), "value_max: .*-1"),
    ):
        with pytest.raises(ValueError, match=says):
            call()
    for call, says in (
        (lambda: bounds.massive_activation(query > 0, key), "query: .*bool"),
        (lambda: bounds.massive_activation(query, key, gamma="1"), "gamma: .*number, got '1'"),
        (lambda: bounds.massive_activation_bound(2.5, 1, 0.5, 1, 0, 1), "n: .*integer"),
        (lambda: bounds.massive_activation_bound(2, "1", 0.5, 1, 0, 1), "query_norm: .*numbers"),
    ):
        with pytest.raises(TypeError, match=says):
            call()
