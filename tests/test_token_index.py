"""The index of a layer's tokens: like dense attention over what a plain list of tokens has."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attention import Error, Sampled, dense
from attention.huggingface.cache import HSRLayer
from attention.huggingface.patterns import left_padding
from attention.huggingface.rows import attend_rows
from attention.huggingface.token_index import TokenIndex

from .sizes import JIT, examples

HEADS, KV_HEADS, DIM, SCALE = 4, 2, 8, 0.4
LONGEST = 100 if JIT else 12


def tokens(rng, rows, count):
    """Keys and values (rows, kv_heads, count, DIM) of float32."""
    return rng.standard_normal((2, rows, KV_HEADS, count, DIM), dtype=np.float32)


def empty(starts):
    """An index of no tokens."""
    sizes = {"kv_heads": KV_HEADS, "head_dim": DIM, "value_dim": DIM}
    return TokenIndex(starts, SCALE, dtype=np.float32, **sizes)


def check(got, query, key, value, starts):
    """Every output is within its bound of dense attention; 0 where nothing is seen."""
    length, n, group = query.shape[2], key.shape[2], HEADS // KV_HEADS
    for row, start in enumerate(starts):
        for head in range(HEADS):
            for i in range(length):
                at, end = (row, head, i), n - length + i + 1
                if end <= start:
                    assert not got.output[at].any()
                    assert (got.bound[at], got.reported[at]) == (0, 0)
                    continue
                part = row, head // group, slice(start, end)
                exact, _ = dense.softmax(query[at][None], key[part], value[part], scale=SCALE)
                assert np.abs(got.output[at] - exact).max() <= got.bound[at] <= 1e-3
                assert 0 < got.reported[at] <= end - start


@examples(0.5)
@given(st.data())
def test_it_follows_every_change(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    starts = data.draw(st.lists(st.integers(0, LONGEST), min_size=1, max_size=4))
    key, value = tokens(rng, len(starts), data.draw(st.integers(1, LONGEST)))
    index = empty(starts)
    index.extend(key, value)
    for _ in range(data.draw(st.integers(1, 4))):
        change = data.draw(st.sampled_from(("extend", "crop", "take")))
        n = key.shape[2]
        if change == "extend":
            more = tokens(rng, len(starts), data.draw(st.integers(0, 9)))
            key, value = np.concatenate([(key, value), more], axis=3)
            index.extend(*more)
        elif change == "crop":
            count = data.draw(st.integers(0, n))
            key, value = key[:, :, :count], value[:, :, :count]
            index.crop(count)
        else:
            rows = st.integers(0, len(starts) - 1)
            taken = np.array(data.draw(st.lists(rows, min_size=1, max_size=5)))
            key, value, starts = key[taken], value[taken], [starts[i] for i in taken]
            index.take(taken)
        assert (len(index), index.starts) == (key.shape[2], starts)
        length = data.draw(st.integers(0, min(3, len(index))))
        query = rng.standard_normal((len(starts), HEADS, length, DIM), dtype=np.float32)
        check(index.attend(query, Error(1e-3)), query, key, value, starts)
        whole = attend_rows(query, key, value, starts, Error(1e-3), SCALE, True)
        check(whole, query, key, value, starts)


def test_rows_keep_whether_they_are_sampled():
    rng = np.random.default_rng(0)
    key, value = tokens(rng, 2, 3 * LONGEST)
    index = empty([0, 5])
    index.extend(key, value)
    query = rng.standard_normal((2, HEADS, 1, DIM), dtype=np.float32)
    got = index.attend(query, Sampled(0.5, 1e-2))
    whole = attend_rows(query, key, value, [0, 5], Sampled(0.5, 1e-2), SCALE, True)
    for each in (got, whole):
        assert each.sampled.shape == each.lse_bound.shape == (2, HEADS, 1)
        assert (each.bound <= 0.5).all()


def fill(layer, rng, count, rows=2):
    """Update a layer with random tokens; the keys that attention is given."""
    key, value = (torch.from_numpy(part) for part in tokens(rng, rows, count))
    return layer.update(key, value)[0]


def asked(layer, starts, rng):
    """Attention of the last token, checked."""
    key, value = layer.keys.numpy(), layer.values.numpy()
    query = rng.standard_normal((len(key), HEADS, 1, DIM), dtype=np.float32)
    check(layer.attend(query, starts, Error(1e-3), SCALE), query, key, value, starts)


def test_a_layer_follows_what_transformers_does_to_it():
    rng, layer = np.random.default_rng(0), HSRLayer()
    layer.crop(0)  # before there is anything
    layer.batch_repeat_interleave(2)
    layer.batch_select_indices(torch.tensor([0]))
    fill(layer, rng, 9)
    asked(layer, [0, 3], rng)
    layer.batch_repeat_interleave(2)
    asked(layer, [0, 0, 3, 3], rng)
    layer.batch_select_indices(torch.tensor([False, True, True, False]))
    asked(layer, [0, 3], rng)
    layer.reorder_cache(torch.tensor([1, 1]))
    asked(layer, [3, 3], rng)
    layer.crop(-4)
    asked(layer, [3, 3], rng)
    fill(layer, rng, 6)
    asked(layer, [3, 3], rng)
    asked(layer, [0, 0], rng)  # another mask: indexed anew
    layer.reset()
    fill(layer, rng, 5, rows=3)
    asked(layer, [0, 0, 0], rng)


def test_what_is_kept_knows_nothing_of_the_layer():
    layer = HSRLayer()
    key = fill(layer, np.random.default_rng(0), 3)
    assert vars(key)
    assert not vars(layer.keys)


def test_masks_are_told_apart():
    causal = torch.ones(1, 1, 5, 9, dtype=torch.bool).tril(4)
    assert left_padding(causal) == [0]
    padding = causal.clone()
    padding[..., :3] = False
    assert left_padding(padding) == [3]
    assert left_padding(torch.cat([causal, padding])) == [0, 3]
    hole = causal.clone()
    hole[..., 2, 1] = False
    nothing = torch.zeros(1, 1, 1, 4, dtype=torch.bool)
    kept = causal.clone()
    assert left_padding(kept) == [0]
    kept[..., :2] = False
    assert left_padding(kept) == [2]
    with torch.inference_mode():
        assert left_padding(causal.clone()) == [0]
    for other in (hole, causal.float(), nothing, causal.mT, causal.expand(1, 2, 5, 9)):
        assert left_padding(other) is None


@pytest.mark.parametrize("length", [0, 1])
def test_no_queries_and_no_tokens(length):
    none = np.zeros((2, KV_HEADS, 0, DIM), np.float32)
    query = np.zeros((2, HEADS, length, DIM), np.float32)
    got = attend_rows(query, none, none, [0, 0], Error(1e-3), SCALE, False)
    assert got.output.shape == (2, HEADS, length, DIM)
    assert not got.output.any()
