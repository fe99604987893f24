"""Arenas: memory is kept for the next call, and never lent twice at once."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest

import attention
from attention.arenas import Arenas
from attention.coded_head import LEAST_CODED, CodedHead
from attention.coded_rules import make_scratch, words_of
from halfspace.code_rows import BLOCK
from halfspace.jit import kernel
from halfspace.tiles import LINE, TILE

from .datasets import cloud
from .sizes import JIT


def test_what_was_lent_is_lent_again():
    lender = Arenas()
    with lender.lend(100) as first:
        assert len(first) >= 100
        assert first.ctypes.data % LINE == 0
        with lender.lend(100) as second:
            assert not np.shares_memory(first, second)
    with lender.lend(100) as again:
        assert any(again is one for one in (first, second))
    with lender.lend(1000) as larger:
        assert len(larger) >= 1000


def test_it_is_not_lent_again_after_an_error():
    lender = Arenas()
    with pytest.raises(KeyboardInterrupt), lender.lend(10) as arena:
        raise KeyboardInterrupt
    with lender.lend(10) as again:
        assert not np.shares_memory(again, arena)


def test_a_copy_has_memory_of_its_own():
    lender = Arenas()
    with lender.lend(10) as arena, pickle.loads(pickle.dumps(lender)).lend(10) as other:
        assert not np.shares_memory(arena, other)


@kernel
def fill_scratch(slots, arena):
    """Write all that a scratch has room for, each array a number of its own."""
    scratch, rest = make_scratch(slots, arena)
    scratch.chosen[:], scratch.scores[:], scratch.weights[:], scratch.places[:] = 1, 2.0, 3.0, 4
    scratch.most[:], rest[:] = 5, 6
    sums = scratch.chosen.sum(), scratch.places.sum(), scratch.most.sum(), rest.size
    return sums, scratch.scores.sum() + scratch.weights.sum()


@pytest.mark.parametrize("tiles", [0, 1, 63, 64, 65, 1000])
@pytest.mark.parametrize("queries", [1, BLOCK])
def test_arrays_of_a_scratch_do_not_meet(tiles, queries):
    slots = tiles * TILE
    with Arenas().lend(words_of(slots, queries)) as arena:
        whole, halves = fill_scratch(slots, arena[: words_of(slots, queries)])
    assert whole[:3] == (slots + 1, 4 * slots, 5 * tiles)
    assert whole[3] >= queries * slots
    assert halves == 5.0 * slots


def test_threads_share_a_head():
    keys, values = cloud(LEAST_CODED, 16), cloud(LEAST_CODED, 3, seed=1)
    decoder = attention.Decoder(keys, values)
    queries = 3.0 * cloud(32 if JIT else 3, 16, seed=2)
    rule = attention.Error(1e-2)
    alone = [decoder.softmax(query[None], rule).output for query in queries]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda query: decoder.softmax(query[None], rule).output, queries))
    assert all(map(np.array_equal, got, alone))


def test_a_smaller_arena_grows_with_its_head():
    head = CodedHead(cloud(LEAST_CODED, 8), cloud(LEAST_CODED, 3))
    with ExitStack() as stack:
        stack.enter_context(head._scratch.lend(words_of(LEAST_CODED, 1)))
    head.extend(cloud(LEAST_CODED, 8, seed=3), cloud(LEAST_CODED, 3, seed=4))
    with head._scratch.lend(words_of(2 * LEAST_CODED, 1)) as arena:
        assert len(arena) >= words_of(2 * LEAST_CODED, 1)


RULES = (
    attention.TopR(5),
    attention.Mass(0.9),
    attention.Threshold(0.5),
    attention.Error(1e-2),
    attention.Sampled(0.05, 1e-2, seed=3),
)


@pytest.mark.parametrize("queries", [1, 2, BLOCK + 1] if JIT else [2])
@pytest.mark.parametrize("word", [-1, 0x7FF8_0000_0000_0000] if JIT else [-1])
def test_what_is_in_an_arena_does_not_matter(queries, word):
    keys, values = cloud(LEAST_CODED + 70, 16), cloud(LEAST_CODED + 70, 3, seed=1)
    asked = 3.0 * cloud(queries, 16, seed=2)
    decoder = attention.Decoder(keys, values)

    def answers():
        softmax = [decoder.softmax(asked, rule) for rule in RULES]
        return [*softmax, decoder.relu(asked, threshold=1.0)]

    before = answers()
    kept = [*decoder._head._products._free, *decoder._head._scratch._free]
    assert kept
    for arena in kept:
        arena[:] = word
    for got, want in zip(answers(), before, strict=True):
        assert np.array_equal(got.output, want.output)
        assert np.array_equal(got.bound, want.bound)
        assert np.array_equal(got.reported, want.reported)
    assert all(not (arena == word).all() for arena in kept)
