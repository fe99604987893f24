"""What products of codes say of many scores, and the exponentials behind it: plain arithmetic."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from attention.code_bounds import (
    LEAST_DRAWN,
    MOST_PRODUCT,
    NOWHERE,
    RUNGS,
    SUM_ERROR,
    SUMMED,
    collect,
    fill_weights,
    highest,
    mass_below,
    masses_below,
    sample_histogram,
)
from attention.exponential import exponentials
from halfspace.code_rows import BLOCK, FINER, ROW
from halfspace.integer_dot import paired_by_loops, paired_products
from halfspace.jit import kernel
from halfspace.tiles import TILE

from .oracle import unpacked
from .sizes import examples
from .strategies import rngs


@kernel
def _exponentials(scores, shift, out):
    exponentials(scores, shift, out)


@kernel
def _parts(row, most, bar, at, step, faint, chosen, weights, places, counts):
    fill_weights(row, bar, at, step, weights)
    sample_histogram(row, at, step, 1, places, counts)
    best = highest(row, most)
    mass = mass_below(row, most, bar, at, step, faint)
    return best, mass, collect(row, most, bar, MOST_PRODUCT, chosen, 0)


@kernel
def _masses(row, bars, at, step, totals):
    masses_below(row, bars, at, step, totals)


@kernel
def _paired(codes, normals, q, count, by_loops, out):
    for t in range(codes.shape[0]):
        if by_loops:
            paired_by_loops(codes, t, 9, normals, q, count, out)
        else:
            paired_products(codes, t, 9, normals, q, count, out)


@examples(0.5)
@given(rng=rngs(), shift=st.sampled_from([0.0, 3.25, -500.0, 1e6]))
def test_exponentials(rng, shift):
    below = np.concatenate([rng.uniform(-700.0, 0.0, 200), rng.uniform(-1.0, 0.0, 100), [0.0]])
    scores, out = shift + below, np.empty(301)
    _exponentials(scores, shift, out)
    want = np.exp((scores - shift).astype(np.longdouble))
    assert (np.abs(out - want) <= 4.0 * 2.0**-53 * want).all()


def test_exponentials_beyond_what_floats_hold():
    out = np.empty(3)
    _exponentials(np.array([-1e300, -np.inf, 1e300]), 0.0, out)
    assert (out[:2] <= 2.0**-1020).all()
    assert 1e280 < out[2] < np.inf


@examples(1.0)
@given(
    rng=rngs(),
    tiles=st.integers(1, 5),
    step=st.sampled_from([1e-6, 1e-3, 0.3, 1e30]),
    faint=st.sampled_from([-1e3, -100.0, -3.0]),
)
def test_products_are_counted_summed_and_collected(rng, tiles, step, faint):
    row = rng.integers(-(10**6), 10**6, tiles * TILE).astype(np.int32)
    row[rng.random(row.size) < 0.1] = NOWHERE
    row[rng.integers(row.size)] = 10**6
    at = np.int32(rng.integers(-(10**6), 10**6))
    bar = np.int32(min(at, rng.integers(-(10**6), 10**6)))
    chosen, weights = np.empty(row.size + 1, np.int64), np.empty(row.size, np.float32)
    places, counts = np.empty(TILE, np.int32), np.empty(33, np.int64)
    most, step, faint = np.empty(tiles, np.int32), np.float32(step), np.float32(faint)
    best, mass, size = _parts(row, most, bar, at, step, faint, chosen, weights, places, counts)
    assert row[best] == row.max()
    assert most.tolist() == row.reshape(-1, TILE).max(axis=1).tolist()
    assert chosen[:size].tolist() == np.flatnonzero(row >= bar).tolist()
    below = (row < bar) & (row > NOWHERE)
    powers = (row.astype(np.float64) - at) * np.float64(step)
    want = np.exp2(powers[below]).sum()
    # No more than what is raised to the least power, and faint tiles.
    assert want <= mass * (1.0 + SUM_ERROR)
    assert mass <= 1.07 * want + row.size * 1.1 * 2.0 ** max(float(faint), -124.0)
    drawn = below & (powers >= LEAST_DRAWN * (1.0 - 1e-6))
    assert (weights[~drawn] == 0.0).all()
    sure = below & (powers >= LEAST_DRAWN * (1.0 + 1e-6) + 1e-3)
    assert np.allclose(weights[sure], np.exp2(powers[sure]), rtol=SUM_ERROR)
    assert counts.sum() == row.size


@examples(0.5)
@given(rng=rngs(), rows=st.integers(1, 20), count=st.sampled_from([1, 2, BLOCK]))
def test_paired_products_are_those_of_twice_the_digits(rng, rows, count):
    codes = rng.integers(0, 256, (2, rows, ROW), dtype=np.uint8)
    coarse, fine = rng.integers(-127, 128, (6, 4 * rows)), rng.integers(-32, 32, (6, 4 * rows))
    pairs = np.stack([coarse, fine], axis=1).reshape(12, 4 * rows).astype(np.int8)
    q = int(rng.integers(0, 6 - count + 1))
    out = np.zeros((2, BLOCK, 2 * TILE), np.int32)
    for by_loops in (False, True):
        _paired(codes, pairs, q, count, by_loops, out[int(by_loops)])
    want = unpacked(codes, 8) @ (FINER * coarse + fine).T
    want = want.reshape(2 * TILE, 6).T[q : q + count]
    assert np.array_equal(out[0, :count], want)
    assert np.array_equal(out[1, :count], want)


@examples(1.0)
@given(
    rng=rngs(),
    n=st.sampled_from([TILE, SUMMED - TILE, SUMMED, 5 * SUMMED + TILE]),
    step=st.sampled_from([1e-6, 1e-3, 0.3, 1e30]),
)
def test_masses_below_several_bars(rng, n, step):
    """Never below the sums, but for `SUM_ERROR`, and hardly above."""
    row = rng.integers(-50_000, 1_000, n).astype(np.int32)
    row[rng.random(n) < 0.2] = NOWHERE
    at = np.int32(rng.integers(-5_000, 500))
    bars = np.sort(rng.integers(at - 30_000, at + 1, RUNGS))[::-1].astype(np.int32)
    step, totals = np.float32(step), np.full(RUNGS, np.nan)
    _masses(row, bars, at, step, totals)
    for bar, total in zip(bars, totals, strict=True):
        some = row[(row < bar) & (row > NOWHERE)].astype(np.float64) - at
        want = np.exp2(np.maximum(some * np.float64(step), -1e4)).sum()
        assert total * (1.0 + SUM_ERROR) >= want
        assert total <= 1.07 * want + 2.0**-124 * n
