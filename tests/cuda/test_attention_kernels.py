"""Kernels of attention one by one, against plain numpy."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from attention import code_bounds
from attention.coded_keys import View
from attention.cuda import averages, bars, held, lister, products, ranks
from attention.cuda.arithmetic import exp
from halfspace.code_rows import FINER
from halfspace.cuda.runtime import by_rows, get, line, put
from halfspace.cuda.scratch import Scratch
from halfspace.cuda.target import SIMULATED

from .. import oracle
from ..sizes import TILE


@pytest.mark.parametrize("m", [1, 4, 6])
@pytest.mark.parametrize("words", [1, 4, 5])
def test_products_of_all_codes(m, words):
    """Pairs of bytes, any number of queries and words, an odd number of tiles, heads in a row."""
    rng = np.random.default_rng(m)
    heads, tiles, head = 3, 3, 1
    codes = rng.integers(0, 256, (heads, tiles, words, 4 * TILE)).astype(np.uint8)
    weights = rng.integers(-127, 128, (2 * m, 2, 4 * words)).astype(np.int8)
    lengths = rng.integers(0, tiles * TILE + 1, 2 * m)
    lengths[0] = tiles * TILE
    always = np.zeros((heads, tiles, 2), np.uint32)
    always[1, 1, 1] = 4
    found, best = put(np.zeros((2 * m, tiles * TILE), np.int32)), put(np.zeros(2 * m, np.int64))
    products.fill_products[4 if m > 1 else 1](
        0,
        *line(99),
        put(codes.view(np.uint32)),
        put(always),
        head,
        m,
        put(lengths),
        put(weights.view(np.int32)),
        found,
        best,
    )
    for r in range(2 * m):
        h = head + r // m
        coarse, fine = oracle.unpacked(codes[h], 8) @ weights[r].T.astype(np.int64).T[..., None]
        want = (FINER * coarse + fine).ravel()
        want[lengths[r] :] = code_bounds.NOWHERE
        if h == 1:
            want[TILE + 34] = code_bounds.NOWHERE
        assert get(found)[r].tolist() == want.tolist()
        place = int(get(best)[r])
        if want.max() > code_bounds.NOWHERE:
            assert products.LAST_SLOT - place % products.SLOTS == want.argmax()
            assert place // products.SLOTS + code_bounds.NOWHERE == want.max()
        else:
            assert place == 0


def test_products_of_scores_bound_them():
    rng = np.random.default_rng(0)
    for _ in range(300):
        constant, score = rng.standard_normal(2) * 10.0 ** rng.integers(-3, 12)
        unit, error = 10.0 ** rng.integers(-9, 9), 10.0 ** rng.integers(-12, 2)
        product = products.least_product(score, error, constant, unit)
        if product != products.BEYOND:
            bound = Fraction(constant) + Fraction(unit) * int(product)
            assert bound >= Fraction(score) + Fraction(error)
            assert product <= products.HIGHEST
    assert products.least_product(1.0, 0.0, math.inf, 1.0) == products.BEYOND
    assert products.least_product(1.0, 0.0, 0.0, 1e-300) == products.BEYOND
    assert products.least_product(-1e300, 0.0, 0.0, 1.0) == code_bounds.LOWEST


def view(at, step):
    values = View(0.0, at, 0.0, step / math.log2(math.e), step, 0.0, 1.0, 1, 1.0)
    return np.array([values], np.float64)


def test_marks_and_the_mass_that_is_missed():
    rng = np.random.default_rng(0)
    found = rng.integers(-2000, 100, (2, 3 * TILE)).astype(np.int32)
    found[:, 5] = code_bounds.NOWHERE
    views = np.concatenate([view(0, 0.02), view(40, 0.01)])
    levels = np.array([-100, -10, code_bounds.LOWEST], np.int32)
    rows = np.array([1, 0, 1])
    marked, missed = put(np.zeros((3, 6), np.uint32)), put(np.zeros((3, 1, 7)))
    products.mark_reaching(
        0, *line(9), put(found), put(views), put(rows), put(levels), marked, missed
    )
    bits = np.unpackbits(get(marked).view(np.uint8), axis=1, bitorder="little").astype(bool)
    for a, r in enumerate(rows):
        assert np.array_equal(bits[a], found[r] >= levels[a])
        below = found[r][(found[r] < levels[a]) & (found[r] > code_bounds.NOWHERE)]
        mass = np.exp2((below - views[r, products.AT]) * views[r, products.STEP]).sum()
        total = get(missed)[a].sum() * (1.0 + code_bounds.SUM_ERROR)
        assert mass <= total <= 1.08 * mass + 1e-30


def test_histograms_of_samples():
    rng = np.random.default_rng(0)
    found = rng.integers(-4000, 100, (2, 5 * TILE)).astype(np.int32)
    found[1, 3] = code_bounds.NOWHERE
    views = np.concatenate([view(0, 0.02), view(50, 0.5)])
    counts = put(np.zeros((2, code_bounds.GUESS_BINS + 1), np.int32))
    products.count_bins(0, *line(9), put(found), put(views), bars.FINEST, 2, counts)
    for r in range(2):
        sampled = found[r].reshape(5, TILE)[::2].ravel()
        per_bin = np.float32(views[r, products.UNIT] * bars.FINEST)
        distance = (views[r, products.AT] - sampled).astype(np.float32) * per_bin
        want = np.minimum(np.maximum(distance, 0), code_bounds.GUESS_BINS).astype(int)
        assert np.array_equal(get(counts)[r], np.bincount(want, minlength=counts.shape[1]))


@pytest.mark.parametrize("kind", ["gauss", "ties", "wide"])
def test_the_best_of_lists(kind):
    rng = np.random.default_rng(0)
    totals, wanted = np.array([40, 1, 0, 25]), np.array([7, 1, 0, 25])
    starts = np.concatenate([[0], np.cumsum(totals)])
    scores = rng.standard_normal(starts[-1])
    if kind == "ties":
        scores = rng.integers(0, 3, starts[-1]).astype(float)
    elif kind == "wide":
        scores *= 10.0 ** rng.integers(0, 60, starts[-1])
    lists = [slice(*ends) for ends in itertools.pairwise(starts)]
    tops = np.array([scores[some].max(initial=-np.inf) for some in lists])
    slots = np.concatenate([np.arange(n) for n in totals]).astype(np.int32)
    kept = put(np.zeros(starts[-1], np.int8))
    last = ranks.keep_best(
        by_rows(40, 4), put(starts), put(tops), put(slots), put(scores), wanted, kept, Scratch(0)
    )
    for a, some in enumerate(lists):
        with np.errstate(over="ignore"):
            below = (tops[a] - scores[some]).astype(np.float32)
        best = np.argsort(below, kind="stable")[: wanted[a]]
        assert np.flatnonzero(get(kept)[some]).tolist() == sorted(best.tolist())
        if wanted[a]:
            assert get(last)[a] == scores[some][best[-1]]


def test_sums_over_many_splits():
    rng = np.random.default_rng(0)
    n = 3 * averages.SPLIT + 5
    values = rng.standard_normal((2, n, 3))
    starts = np.array([0, n, n, n + 70])
    slots = np.concatenate([np.arange(n), np.arange(70)]).astype(np.int32)
    weights, extras = rng.random((2, n + 70))
    kept = (rng.random(n + 70) < 0.5).astype(np.int8)
    sums = put(np.zeros((3, 3 + averages.SUMS, 4)))
    arrays = (put(a) for a in (slots, kept, weights, extras))
    rows = put(np.array([0, 1, 1]))
    averages.sum_splits(0, *line(99), put(values), 0, 1, rows, put(starts), *arrays, sums)
    got = get(sums).sum(axis=2)
    for a, h in enumerate((0, 1, 1)):
        some = slice(starts[a], starts[a + 1])
        want = weights[some] @ values[h, slots[some]]
        beside = [weights[some].sum(), extras[some].sum(), kept[some].sum()]
        assert np.allclose(got[a], [*want, *beside], rtol=1e-14, atol=1e-14)


def test_pieces_of_lists():
    pieces = list(lister._pieces(np.array([5, 1, 9, 0, 0, 3, 3]), 0, 6 * lister.LIST_BYTES))
    assert pieces == [(0, 2), (2, 3), (3, 7)]
    assert list(lister._pieces(np.array([99]), 0, 6)) == [(0, 1)]


def test_tiles_with_keys_that_have_no_code():
    marks = np.zeros((2, 4), np.uint64)
    marks[0, 1], marks[1, 2] = 1, ~np.uint64(0) << np.uint64(10)
    room = held.Room(np.empty(0), np.empty(0), marks, np.empty(0))
    assert held.uncoded_tiles(room, 4 * TILE).tolist() == [1, 2]
    assert held.uncoded_tiles(room, 2 * TILE + 10).tolist() == [1]
    assert held.uncoded_tiles(room, 0).tolist() == []


@pytest.mark.skipif(not SIMULATED, reason="called from the host")
def test_exponentials_are_the_processors():
    for x in (0.0, -1e-300, -0.3, -700.0, -1e300):
        assert exp(x) == pytest.approx(math.exp(x), rel=1e-15, abs=2.0**-1020)
