"""KVCache: equal to attention over all tokens that were appended, whatever was done in between."""

import copy
import math
import pickle

import numpy as np
import pytest
from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from attention import (
    Error,
    KVCache,
    Mass,
    Threshold,
    TopR,
    dense,
    relu_attention,
    softmax_attention,
)

from .caches import arrays, fields, filled, same
from .sizes import JIT, examples

RULES = (TopR(3), Threshold(0.2), Mass(0.9), Error(1e-2), Error(math.inf))
ONE_BY_ONE = 20_000 if JIT else 200
CHUNK = 100 if JIT else 20
SLACK = 1e-12  # what the float64 reference rounds

each_rule = pytest.mark.parametrize("rule", RULES, ids=str)


def by_pickle(cache):
    return pickle.loads(pickle.dumps(cache))


def assert_near(got, output, lse):
    assert (np.abs(got.output - output).max(axis=-1, initial=0.0) <= got.bound + SLACK).all()
    known = np.isfinite(got.lse_bound) & np.isfinite(lse)
    assert (np.abs(got.lse - lse)[known] <= got.lse_bound[known] + SLACK).all()


def assert_softmax(cache, query, asked, key, value):
    """What a cache answers is certified, against dense attention over the tokens it has."""
    got = cache.attend(query, asked)
    assert got.output.shape == (*query.shape[:-1], value.shape[-1])
    for field in fields(got)[1:]:
        assert field.shape == query.shape[:-1]
    assert_near(got, *dense.softmax(query, key, value, scale=cache.scale, causal="lower_right"))
    return got


class Cache(RuleBasedStateMachine):
    """A cache and the arrays it stands for."""

    @initialize(
        batch=st.sampled_from([(), (1,), (2,), (2, 1)]),
        kv_heads=st.integers(1, 3),
        d=st.integers(1, 6),
        c=st.integers(1, 4),
        dtype=st.sampled_from([np.float32, np.float64]),
        scale=st.sampled_from([None, 0.5, 3.0]),
        window=st.sampled_from([None, 0, 100]),
    )
    def make(self, batch, kv_heads, d, c, dtype, scale, window):
        self.cache = KVCache(d, c, kv_heads, batch, dtype=dtype, scale=scale, window=window)
        self.heads, self.dtype = (*batch, kv_heads), dtype
        self.key, self.value = (np.empty((*self.heads, 0, dim), dtype) for dim in (d, c))

    @rule(
        t=st.integers(0, 3) | st.integers(0, CHUNK),
        seed=st.integers(0, 2**32),
        size=st.sampled_from([1e-3, 1.0, 1.0, 50.0]),
        narrow=st.booleans(),
    )
    def append(self, t, seed, size, narrow):
        dims = self.key.shape[-1], self.value.shape[-1]
        dtype = np.float16 if narrow else self.dtype
        key, value = (size * x for x in arrays(*((*self.heads, t, dim) for dim in dims), seed=seed))
        key, value = key.astype(dtype), value.astype(dtype)
        self.cache.append(key, value)
        self.key = np.concatenate([self.key, key], axis=-2).astype(self.dtype)
        self.value = np.concatenate([self.value, value], axis=-2).astype(self.dtype)

    @rule(
        asked=st.sampled_from(RULES) | st.integers(-9, 1).map(lambda power: Error(10.0**power)),
        group=st.integers(1, 3),
        length=st.integers(0, 6),
        seed=st.integers(0, 2**32),
    )
    def attend(self, asked, group, length, seed):
        query = self.queries(group, length, seed)
        got = assert_softmax(self.cache, query, asked, self.key, self.value)
        assert got.output.dtype == self.dtype
        options = {"rule": asked, "scale": self.cache.scale, "causal": "lower_right"}
        other = softmax_attention(query, self.key, self.value, **options)
        apart = np.abs(got.output - other.output).max(axis=-1, initial=0.0)
        assert (apart <= got.bound + other.bound).all()

    @rule(threshold=st.floats(-2.0, 2.0), power=st.integers(1, 3), seed=st.integers(0, 2**32))
    def relu(self, threshold, power, seed):
        query = self.queries(2, 2, seed)
        got = self.cache.relu(query, threshold=threshold, power=power)
        options = {"scale": self.cache.scale, "causal": "lower_right"}
        other = relu_attention(
            query, self.key, self.value, threshold=threshold, power=power, **options
        )
        apart = np.abs(got.output - other.output).max(axis=-1, initial=0.0)
        assert (apart <= got.bound + other.bound).all()

    def queries(self, group, length, seed):
        *batch, kv_heads = self.heads
        assume(length <= self.key.shape[-2])
        shape = (*batch, group * kv_heads, length, self.key.shape[-1])
        return 2.0 * arrays(shape, dtype=self.dtype, seed=seed)[0]

    @rule(share=st.floats(0.0, 1.0))
    def crop(self, share):
        count = round(share * self.key.shape[-2])
        self.cache.crop(count)
        self.key, self.value = self.key[..., :count, :], self.value[..., :count, :]

    @precondition(lambda self: len(self.heads) > 1)
    @rule(data=st.data())
    def reorder(self, data):
        rows = st.lists(st.integers(0, self.heads[0] - 1), min_size=1, max_size=3)
        idx = data.draw(rows)
        self.cache.reorder(idx)
        self.key, self.value = self.key[idx], self.value[idx]
        self.heads = self.key.shape[:-2]

    @rule()
    def copied(self):
        self.cache = by_pickle(self.cache)

    @invariant()
    def holds_what_came(self):
        if hasattr(self, "cache"):
            assert len(self.cache) == self.key.shape[-2]
            assert np.array_equal(self.cache.keys, self.key)
            assert np.array_equal(self.cache.values, self.value)


TestCache = Cache.TestCase
TestCache.settings = settings(examples(0.5), stateful_step_count=15 if JIT else 6)


def test_tokens_one_by_one_with_a_query_each():
    d, n = 4, ONE_BY_ONE
    key, value, query = arrays(*[(1, n, d)] * 3)
    cache, asked = KVCache(d), Error(1e-2)
    for i in range(n):
        cache.append(key[:, i : i + 1], value[:, i : i + 1])
        got = cache.attend(4.0 * query[:, i : i + 1], asked)
        scores = 2.0 * (key[0, : i + 1] @ query[0, i]).astype(np.float64)
        weights = np.exp(scores - scores.max())
        exact = weights @ value[0, : i + 1] / weights.sum()
        # The reference takes float32 scores.
        assert np.abs(got.output[0, 0] - exact).max() <= got.bound[0, 0] + 1e-4
        assert got.bound[0, 0] <= 1e-2
    if JIT:
        assert cache.statistics().share.item() < 0.9
    assert np.array_equal(cache.keys, key)


@each_rule
@pytest.mark.parametrize("length", [0, 1, 7])
@pytest.mark.parametrize(("batch", "kv_heads"), [((), 1), ((), 3), ((2,), 2), ((2, 1), 1)], ids=str)
def test_shapes_and_groups(rule, length, batch, kv_heads):
    cache, key, value = filled(batch=batch, kv_heads=kv_heads)
    (query,) = arrays((*batch, 4 * kv_heads, length, 6))
    assert_softmax(cache, query, rule, key, value)


@pytest.mark.parametrize("rule", [TopR(1), Mass(1.0), Error(1e-9)], ids=str)
def test_an_empty_cache(rule):
    cache = KVCache(4, 3, 2)
    got = cache.attend(np.empty((4, 0, 4), np.float32), rule)
    assert got.output.shape == (4, 0, 3)
    with pytest.raises(ValueError, match=r"query: expected length at most 0.*got 1"):
        cache.attend(np.ones((4, 1, 4)), rule)
    cache.append(*arrays((2, 5, 4), (2, 5, 3)))
    cache.crop(0)
    assert len(cache) == 0
    assert cache.keys.shape == (2, 0, 4)
    assert cache.relu(np.empty((2, 0, 4)), threshold=0.0).lse.shape == (2, 0)


def test_no_tokens_change_nothing():
    cache, key, value = filled()
    cache.append(key[:, :0], value[:, :0])
    assert np.array_equal(cache.values, value)


def test_relu_is_exact():
    cache, key, value = filled()
    (query,) = arrays((4, 3, 6))
    got = cache.relu(query, threshold=0.5, power=2)
    assert_near(got, *dense.relu(query, key, value, threshold=0.5, power=2, causal="lower_right"))
    assert (got.bound < 1e-5).all()
    nothing = cache.relu(query, threshold=1e6)
    assert (nothing.output == 0.0).all()
    assert np.isneginf(nothing.lse).all()


def test_appending_more_gives_the_same_tokens_as_appending_at_once():
    whole, key, value = filled()
    parts = KVCache(6, num_kv_heads=2)
    for i in range(0, key.shape[1], 7):
        parts.append(key[:, i : i + 7], value[:, i : i + 7])
    assert np.array_equal(whole.keys, parts.keys)
    (query,) = arrays((2, 1, 6))
    a, b = (cache.attend(query, Error(1e-3)) for cache in (whole, parts))
    assert (np.abs(a.output - b.output).max(axis=-1) <= a.bound + b.bound).all()


# dtypes


@pytest.mark.parametrize("kept", [np.float32, np.float64])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16", "int8", ">f4"])
def test_dtypes(kept, dtype):
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    key, value = (np.round(4.0 * x).astype(dtype) for x in arrays(*[(2, 90, 4)] * 2))
    cache = KVCache(4, num_kv_heads=2, dtype=kept)
    if kept == np.float32 and key.dtype == np.float64:
        with pytest.raises(TypeError, match=r"key: expected .* float32 holds, got float64"):
            cache.append(key, value)
        assert len(cache) == 0
        return
    cache.append(key, value)
    assert cache.keys.dtype == kept
    assert np.array_equal(cache.keys, key.astype(kept))
    for asked in (np.float16, np.float32, np.float64):
        (query,) = arrays((2, 1, 4), dtype=asked)
        got = assert_softmax(cache, query, Error(1e-2), key.astype(kept), value.astype(kept))
        assert got.output.dtype == np.promote_types(asked, kept)


def test_integers_and_lists():
    cache = KVCache(2, dtype=np.float64)
    cache.append([[[1, 2], [3, 4]]], [[[5, 6], [7, 8]]])
    assert cache.values.tolist() == [[[5.0, 6.0], [7.0, 8.0]]]
    assert cache.attend([[[0, 0]]]).output.tolist() == [[[6.0, 7.0]]]


# what stays and what does not


def test_inputs_are_left_alone():
    given = arrays((2, 90, 4), (2, 90, 4), (2, 1, 4), dtype=np.float64)
    before = [x.copy() for x in given]
    for x in given[:2]:
        x.flags.writeable = False
    cache = KVCache(4, num_kv_heads=2, dtype=np.float64)
    cache.append(*given[:2])
    cache.attend(given[2])
    assert given[2].flags.writeable
    assert all(np.array_equal(x, y) for x, y in zip(given, before, strict=True))
    given[2][:] = 0.0
    assert np.array_equal(cache.keys, before[0])


def test_views_are_read_only_and_no_copies():
    cache, *_ = filled(batch=(2,))
    for view in (cache.keys, cache.values):
        assert not view.flags.writeable
        assert not view.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        cache.keys[:] = 0.0


def test_reordered_rows_go_apart():
    cache, key, value = filled(batch=(2,))
    cache.reorder([1, 1, 0])
    assert cache.batch_shape == (3,)
    more = arrays(*[(3, 2, 90, 6)] * 2, seed=1)
    cache.append(*more)
    key, value = (
        np.concatenate([old[[1, 1, 0]], new], axis=-2)
        for old, new in zip((key, value), more, strict=True)
    )
    assert np.array_equal(cache.keys, key)
    (query,) = arrays((3, 4, 2, 6))
    assert_softmax(cache, query, Error(1e-3), key, value)


def test_other_keys_after_a_crop_to_nothing_get_codes_of_their_own():
    cache, *_ = filled()
    cache.crop(0)
    key, value = (1000.0 + x for x in arrays(*[(2, 200, 6)] * 2, seed=1))
    cache.append(key, value)
    (query,) = arrays((2, 1, 6))
    got = assert_softmax(cache, query, Error(1e-3), key, value)
    assert (got.bound < 1.0).all(), "the range of values forgot what was cropped"


def test_saved(tmp_path):
    cache, *_ = filled(batch=(2,), scale=0.3, window=70)
    (query,) = arrays((2, 4, 3, 6))
    cache.attend(query)
    want, path = cache.attend(query), tmp_path / "a cache"
    cache.save(path)
    again = KVCache.load(path)
    assert [p.name for p in tmp_path.iterdir()] == ["a cache"]
    assert same(again.attend(query), want)
    assert repr(again) == repr(cache)
    assert again.scale == 0.3
    cache.attend(query)
    for one, other in zip(cache.statistics(), again.statistics(), strict=True):
        assert one.shape == (2, 2)
        assert one.dtype == other.dtype
    assert np.array_equal(cache.statistics().share, again.statistics().share)
    with np.load(path, allow_pickle=False) as file:
        assert file["keys"].shape == (4, len(cache), 6)
    more = arrays(*[(2, 2, 300, 6)] * 2, seed=1)
    for each in (cache, again):
        each.append(*more)
    assert same(cache.attend(query), again.attend(query))


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    cache, key, value = filled()
    path = tmp_path / "cache"
    cache.save(path)
    before = path.read_bytes()
    cache.append(key, value)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="could not write: No space left on device"):
        cache.save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["cache"]


def test_an_empty_cache_is_saved(tmp_path):
    KVCache(3, 2).save(tmp_path / "empty.npz")
    again = KVCache.load(tmp_path / "empty.npz")
    assert len(again) == 0
    again.append(*arrays((1, 2, 3), (1, 2, 2)))
    assert again.attend(np.ones((1, 1, 3))).output.shape == (1, 1, 2)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, by_pickle])
def test_copies_go_apart(copied):
    cache, key, value = filled()
    (query,) = arrays((2, 1, 6))
    want, other = cache.attend(query), copied(cache)
    assert same(other.attend(query), want)
    other.append(key, value)
    assert len(cache) == key.shape[1]
    assert same(cache.attend(query), want)


@each_rule
@pytest.mark.parametrize("kv_heads", [1, 3])
def test_threads_do_not_matter(rule, kv_heads, threads):
    (query,) = arrays((2 * kv_heads, 30 if JIT else 5, 6))
    results = []
    for count in (1, 2):
        threads(count)
        cache, *_ = filled(kv_heads=kv_heads)
        results.append((cache.attend(query, rule), cache.relu(query, threshold=0.1)))
    for one, two in zip(*results, strict=True):
        assert same(one, two)


# statistics


def test_statistics_and_explanation():
    cache, key, _ = filled(kv_heads=3)
    stats = cache.statistics()
    assert stats.tokens.tolist() == [len(cache)] * 3
    assert (stats.coded >= len(cache) - 64).all()
    assert np.isnan(stats.share).all()
    assert stats.nbytes.sum() == cache.nbytes >= 3 * key[0].nbytes
    assert "nothing yet" in cache.explain()
    got = cache.attend(np.ones((3, 1, 6)), TopR(30))
    assert np.allclose(cache.statistics().share, got.reported[:, 0] / len(cache))
    assert f"{30 / len(cache):.1%}" in cache.explain()
    assert repr(cache).startswith(f"KVCache({len(cache)} tokens, head_dim=6")


def test_window():
    cache, *_ = filled(500 if JIT else 150, window=140)
    assert (cache.statistics().coded >= len(cache) - 140).all()
    never, *_ = filled(window=10**6)
    assert (never.statistics().coded == 0).all()
