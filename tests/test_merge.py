"""Partial attention over disjoint keys, joined: certified as if all keys had been there at once."""

import copy
import pickle
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attention import Attended, Decoder, Error, Threshold, TopR, merge

from .attention_oracle import assert_certified
from .attention_strategies import heads, largest, levels, output_dtypes, rules
from .sizes import examples
from .strategies import rngs

NOTHING = Threshold(np.inf)


@st.composite
def splits(draw, head):
    """Disjoint slices of the keys in no order, some of them empty."""
    parts = draw(st.integers(1, 5))
    places = draw(rngs()).integers(parts, size=len(head.key))
    return [head._replace(key=head.key[at], value=head.value[at]) for at in _each(places, parts)]


def _each(places, parts):
    return [places == part for part in range(parts)]


def decoder_of(head, factor):
    return Decoder(head.key, head.value, scale=factor)


def join(data, parts):
    """Merge neighbours in any order until one is left."""
    parts = list(parts)
    while len(parts) > 1:
        at = data.draw(st.integers(0, len(parts) - 2))
        parts[at : at + 2] = [merge(*parts[at : at + 2])]
    return parts[0]


def _fields(attended):
    return (*attended, attended.lse_bound)


def same(a, b):
    """Whether two results are equal bit for bit."""
    return all(np.array_equal(x, y) for x, y in zip(_fields(a), _fields(b), strict=True))


@examples(2)
@given(data=st.data())
def test_softmax_of_any_split(data):
    """Every part has a rule of its own; some read nothing."""
    head = data.draw(heads())
    dtype, parts = data.draw(output_dtypes(head)), []
    for part in data.draw(splits(head)):
        rule = data.draw(st.sampled_from((*data.draw(rules(part)), NOTHING)))
        parts.append(decoder_of(part, head.factor).softmax(head.query, rule, dtype=dtype))
    whole = join(data, parts)
    assert whole.output.dtype == dtype
    assert whole.reported.tolist() == sum(part.reported for part in parts).tolist()
    assert_certified(whole, head.softmax())


@given(data=st.data())
def test_relu_of_any_split(data):
    head = data.draw(heads())
    threshold, power = data.draw(levels(head)), data.draw(st.integers(1, 3))
    parts = [
        decoder_of(part, head.factor).relu(head.query, threshold=threshold, power=power)
        for part in data.draw(splits(head))
    ]
    assert_certified(join(data, parts), head.relu(threshold, power))


@given(data=st.data())
def test_the_order_does_not_matter(data):
    """Commutative but for the last places, associative within the bounds."""
    head = data.draw(heads())
    places = data.draw(rngs()).integers(3, size=len(head.key))
    a, b, c = (
        decoder_of(head._replace(key=head.key[at], value=head.value[at]), head.factor).softmax(
            head.query, data.draw(st.sampled_from(data.draw(rules(head))))
        )
        for at in _each(places, 3)
    )
    ab, ba = merge(a, b), merge(b, a)
    # What merge allows its own arithmetic.
    assert (np.abs(ab.output - ba.output) <= 2.0**-48 * largest(head.value)).all()
    assert np.array_equal(ab.lse, ba.lse)
    assert np.array_equal(ab.lse_bound, ba.lse_bound)
    assert np.array_equal(ab.reported, ba.reported)

    left, right = merge(ab, c), merge(a, merge(b, c))
    apart = np.abs(left.output - right.output).max(axis=1)
    assert (apart <= left.bound + right.bound).all()
    read = left.reported > 0
    apart = np.abs(left.lse[read] - right.lse[read])
    assert (apart <= (left.lse_bound + right.lse_bound)[read]).all()
    assert np.isneginf([left.lse[~read], right.lse[~read]]).all()
    assert np.array_equal(left.reported, right.reported)


@given(data=st.data())
def test_no_keys_change_nothing(data):
    head = data.draw(heads())
    got = decoder_of(head, head.factor).softmax(head.query, data.draw(rules(head))[3])
    none = head._replace(key=head.key[:0], value=head.value[:0])
    empty = decoder_of(none, head.factor).softmax(head.query, Error())
    for joined in merge(got, empty), merge(empty, got):
        assert np.array_equal(joined.output, got.output)
        assert np.array_equal(joined.lse, got.lse)
        assert np.array_equal(joined.reported, got.reported)
        assert (joined.bound >= got.bound).all()
        small = 2.0**-47 * largest(head.value)
        assert (joined.bound <= got.bound * (1.0 + 1e-9) + small).all()


def halves(rule, n=200):
    rng = np.random.default_rng(0)
    query, key, value = rng.standard_normal((3, n, 8))
    return [Decoder(key[at], value[at]).softmax(query[:5], rule) for at in _each(key[:, 0] > 0, 2)]


@pytest.mark.parametrize("eps", [1.0, 1e-2, 1e-6])
def test_good_parts_make_a_good_whole(eps):
    """Shares of the parts are known to about eps too, so the whole is certain to about 2 eps."""
    assert (merge(*halves(Error(eps))).bound <= 2.0 * eps).all()


def test_an_unread_part_leaves_everything_open():
    (read, _), (_, unread) = halves(Error(1e-3)), halves(NOTHING)
    assert np.isposinf(unread.lse_bound).all()
    whole = merge(read, unread)
    assert np.array_equal(whole.output, read.output)
    assert np.isposinf(whole.lse_bound).all()
    assert (whole.bound >= unread.bound + np.abs(read.output).max(axis=1)).all()
    both = merge(unread, unread)
    assert (both.output == 0.0).all()
    assert (both.bound >= unread.bound).all()


def test_without_a_bound_of_lse_the_shares_are_open():
    a, b = halves(TopR(20))
    assert np.isposinf(Attended(*a).lse_bound).all()
    open_, known = merge(Attended(*a), b), merge(a, b)
    assert np.array_equal(open_.output, known.output)
    assert np.isposinf(open_.lse_bound).all()
    # The exact row may be that of either half.
    for part in (a, b):
        assert (open_.bound >= np.abs(part.output - open_.output).max(axis=1)).all()
    assert (open_.bound > known.bound).all()


def test_dtypes_are_promoted():
    rng = np.random.default_rng(0)
    query, key, value = rng.standard_normal((3, 20, 4))
    ask = partial(Decoder(key, value).softmax, query, Error())
    half, single = ask(dtype=np.float16), ask(dtype=np.float32)
    assert merge(half, half).output.dtype == np.float16
    assert merge(half, single).output.dtype == np.float32
    assert merge(single, ask()).output.dtype == np.float64
    for field in ("lse", "bound", "lse_bound"):
        assert getattr(merge(half, half), field).dtype == np.float64
    assert merge(half, half).reported.dtype == np.int64


def test_shapes_must_be_equal():
    a, b = halves(TopR(2))
    fewer_rows, fewer_columns = Attended(*(x[:2] for x in b)), Attended(b.output[:, :3], *b[1:])
    for other, shape in ((fewer_rows, "2, 8"), (fewer_columns, "5, 3")):
        with pytest.raises(ValueError, match=rf"merge.*\(5, 8\).*\({shape}\)"):
            merge(a, other)
        with pytest.raises(ValueError, match=rf"merge.*\({shape}\).*\(5, 8\)"):
            merge(other, a)


def test_an_attended_is_a_tuple_of_four_that_keeps_its_fifth():
    a, _ = halves(TopR(2))
    output, lse, bound, reported = a
    assert output is a.output
    assert (output.shape, lse.shape, bound.shape, reported.shape) == ((5, 8), (5,), (5,), (5,))
    for twin in (copy.copy(a), copy.deepcopy(a), pickle.loads(pickle.dumps(a)), a._replace()):
        assert isinstance(twin, Attended)
        assert same(twin, a)
