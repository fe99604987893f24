"""Integer products of codes: masks are those of plain loops and of plain arithmetic."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfspace.code_rows import BLOCK, GROUPS, ROW
from halfspace.integer_dot import (
    Errand,
    products,
    products_by_loops,
    survivors,
    survivors_by_loops,
    sweep,
    sweep_by_loops,
)
from halfspace.jit import kernel
from halfspace.tiles import TILE

from .oracle import unpacked
from .sizes import examples
from .strategies import rngs


@kernel
def _masks(codes, normals, q, count, bars, bits, by_loops):
    sums, out = np.empty(TILE, np.int32), np.zeros((codes.shape[0], BLOCK), np.uint64)
    for t in range(codes.shape[0]):
        ahead = 99 * (t % 3 - 1)  # also beyond the last one, and before the first
        if by_loops:
            survivors_by_loops(codes, t, ahead, normals, q, count, bars, bits, sums, out[t])
        else:
            survivors(codes, t, ahead, normals, q, count, bars, bits, sums, out[t])
    return out[:, :count]


@pytest.mark.parametrize("bits", sorted(GROUPS))
@pytest.mark.parametrize("count", [1, BLOCK])
@examples(0.5)
@given(rng=rngs(), rows=st.integers(1, 20), extreme=st.booleans())
def test_survivors_are_those_of_plain_loops(bits, count, rng, rows, extreme):
    size, held = GROUPS[bits]
    rows, width = rows * size, rows * held
    tiles = rng.integers(0, 256, (2, rows, ROW), dtype=np.uint8)
    normals = rng.integers(-127, 128, (8, width)).astype(np.int8)
    if extreme:
        tiles, normals = tiles | np.uint8(0xF0), np.where(normals < 0, -127, 127).astype(np.int8)
    products = unpacked(tiles, bits) @ normals.astype(np.int64).T
    bars = np.array([rng.choice(column) for column in products.T])
    bars = (bars + rng.integers(-1, 2, 8)).astype(np.int32)
    bars[rng.integers(8)] = rng.choice([-(2**31), 2**31 - 1])
    q = int(rng.integers(0, 8 - count + 1))
    masks = _masks(tiles, normals, q, count, bars, bits, False)
    assert np.array_equal(masks, _masks(tiles, normals, q, count, bars, bits, True))
    reached = (products >= bars)[:, q : q + count].reshape(2, TILE, count)
    want = (reached.astype(object) << np.arange(TILE).astype(object)[:, None]).sum(axis=1)
    assert masks.tolist() == want.tolist()


@kernel
def _swept(codes, first, wanted, last, normals, bars, bits, out, slots, errand, by_loops):
    sums = np.empty(TILE, np.int32)
    if by_loops:
        return sweep_by_loops(
            codes, first, wanted, last, False, normals, bars, bits, sums, out, slots, errand
        )
    return sweep(codes, first, wanted, last, False, normals, bars, bits, sums, out, slots, errand)


@pytest.mark.parametrize("bits", sorted(GROUPS))
@pytest.mark.parametrize("by_loops", [False, True])
@examples(0.5)
@given(rng=rngs(), last=st.integers(1, 7), first=st.integers(0, 2), each=st.integers(0, 3))
def test_a_sweep_is_the_survivors_of_its_tiles(bits, by_loops, rng, last, first, each):
    size, held = GROUPS[bits]
    codes = rng.integers(0, 256, (9, 2 * size, ROW), dtype=np.uint8)
    normals = rng.integers(-127, 128, (1, 2 * held)).astype(np.int8)
    products = unpacked(codes, bits) @ normals[0].astype(np.int64)
    bars = np.array([rng.choice([np.quantile(products, 0.99), products.max() + 1])], np.int32)
    wanted = int(rng.integers(0, 2**7))
    out, slots = np.full(TILE, 99, np.uint64), rng.integers(0, 9 * TILE, 5)
    errand = Errand(1, int(rng.integers(2, 6)), each, slots.ctypes.data, 8)
    got = _swept(
        codes, first, np.uint64(wanted), last, normals, bars, bits, out, slots, errand, by_loops
    )
    masks = _masks(codes, np.repeat(normals, BLOCK, axis=0), 0, 1, np.repeat(bars, 4), bits, True)
    read = [bit for bit in range(last) if wanted >> bit & 1]
    assert [out[bit] for bit in read] == [masks[first + bit, 0] for bit in read]
    assert int(got) == sum(1 << bit for bit in read if masks[first + bit, 0])
    assert set(np.flatnonzero(out != 99)) <= set(read)


@kernel
def _all_products(codes, normals, q, bits, by_loops):
    out = np.empty(codes.shape[0] * TILE, np.int32)
    for t in range(codes.shape[0]):
        if by_loops:
            products_by_loops(codes, t, 0, normals, q, bits, out)
        else:
            products(codes, t, 0, normals, q, bits, out)
    return out


@pytest.mark.parametrize("bits", sorted(GROUPS))
@examples(0.5)
@given(rng=rngs(), rows=st.integers(1, 20))
def test_products_are_those_of_plain_arithmetic(bits, rng, rows):
    size, held = GROUPS[bits]
    tiles = rng.integers(0, 256, (3, rows * size, ROW), dtype=np.uint8)
    normals = rng.integers(-127, 128, (2, rows * held)).astype(np.int8)
    want = unpacked(tiles, bits) @ normals[1].astype(np.int64)
    for by_loops in (False, True):
        assert _all_products(tiles, normals, 1, bits, by_loops).tolist() == want.tolist()
