"""Cascade: its bounds hold whatever was fitted, its masks are those of plain loops, and it pays."""

import math
import pickle
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import halfspace
from halfspace import basis as bases
from halfspace import cascade, cascade_fit, codes
from halfspace.cascade_stages import make_targets
from halfspace.code_filter import aim, bar_of, row_product
from halfspace.integer_dot import (
    BLOCK,
    MOST_BYTE,
    MOST_NIBBLE,
    ROW,
    survivors,
    survivors_by_loops,
)
from halfspace.jit import kernel
from halfspace.query import prepare
from halfspace.tiles import LINE, TILE, popcount, used_lanes

from . import oracle
from .datasets import DATASETS, gauss
from .sizes import JIT, LARGE, SMALL, examples
from .strategies import DTYPES, queries, rngs

PLENTY = 20_000 if JIT else 640


# What a fit may be: anything, since it only decides the speed.


def any_basis(sample, normals, rng):
    """The basis for a sample, or one of no use, or one whose inverse is hardly one."""
    fitted = bases.fit_basis(sample, normals, 10.0 ** rng.integers(-1, 2))
    d = sample.shape[1]
    kind = rng.choice(["fitted", "random", "stretched", "singular", "triangular"])
    if kind == "fitted":
        return fitted
    forward = rng.standard_normal((d, d))
    if kind == "stretched":
        forward *= 10.0 ** rng.integers(-7, 8, d)
    elif kind == "singular":
        forward = 1.0 + 1e-4 * forward
    elif kind == "triangular":
        forward = np.triu(forward)
    forward = forward.astype(np.float32)
    inverse = np.linalg.inv(forward.astype(np.float64))
    if rng.random() < 0.3:
        inverse += 1e-5 * rng.standard_normal((d, d)) * np.abs(inverse)
    with np.errstate(all="ignore"):
        return bases._with_errors(fitted.centre, fitted.scale, forward, inverse, fitted.reach)


def any_steps(sample, most, rng):
    """The steps for a sample, or too small, too large or beside it."""
    steps = codes.fit_steps(sample, most)
    if rng.random() < 0.5:
        return steps
    step = steps.step * (10.0 ** rng.uniform(-2, 2, len(steps.step))).astype(np.float32)
    low = steps.low + step * np.float32(rng.integers(-3, 4))
    inverse = (1.0 / step.astype(np.float64)).astype(np.float32)
    arrays = (codes.frozen(array) for array in (low, step, inverse))
    return codes.Steps(*arrays, steps.middle, most)


def any_fit(points, normals, expected_count, *, rng):
    n, d = points.shape
    sample = points[rng.permutation(n)[: rng.integers(1, 200)]]
    basis = any_basis(sample, normals, rng)
    u, lengths = bases.transformed(basis, sample)
    u = u[lengths <= basis.reach]
    nibbles, rows = (rng.integers(2, size=2) > 0).tolist()
    shape = cascade_fit.Shape(int(rng.integers(1, d + 1)), nibbles, rows)
    most = MOST_NIBBLE if nibbles else MOST_BYTE
    steps, row_steps = any_steps(u[:, : shape.p], most, rng), any_steps(u, MOST_BYTE, rng)
    off, row_off = (
        np.linalg.norm(codes.rounded(u[:, : len(s.low)], s)[1].astype(np.float64), axis=1)
        for s in (steps, row_steps)
    )
    rest = np.linalg.norm(u[:, shape.p :].astype(np.float64), axis=1)
    return cascade_fit.Fit(
        shape,
        basis,
        steps,
        codes.fit_ladder(off + 1e-3, most),
        codes.fit_ladder(rest + 1e-18, most),
        row_steps,
        cascade_fit._most_residual(row_off, d),
        opened=float(rng.choice([0.5, 1.0])),
        passed=1.0,
        open=1.0,
        nanoseconds=1.0,
    )


def build_anyhow(points, rng, **options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cascade, "fit_cascade", partial(any_fit, rng=rng))
        return halfspace.Cascade(points, **options)


def cloud(n, d, dtype=np.float32, seed=0):
    return gauss(d, np.random.default_rng(seed), dtype, n)


def assert_as_scan(index, points, normals, offsets, k=7):
    scan = halfspace.Scan(points)
    for closed in (True, False):
        got, want = (i.report(normals, offsets, closed=closed) for i in (index, scan))
        assert got.indptr.tolist() == want.indptr.tolist()
        assert np.array_equal(got.indices, want.indices)
        for ask in ("count", "any"):
            got, want = (getattr(i, ask)(normals, offsets, closed=closed) for i in (index, scan))
            assert got.tolist() == want.tolist()
    assert_same_top(index, scan, normals, k)


def assert_same_top(index, scan, normals, k):
    got, want = index.top(normals, k), scan.top(normals, k)
    assert got.ids.tolist() == want.ids.tolist()
    assert got.scores.tolist() == want.scores.tolist()


# Integer products.


@kernel
def _masks(codes, normals, q, count, bars, nibbles, by_loops):
    sums, out = np.empty(TILE, np.int32), np.zeros((codes.shape[0], BLOCK), np.uint64)
    for t in range(codes.shape[0]):
        if by_loops:
            survivors_by_loops(codes, t, normals, q, count, bars, nibbles, sums, out[t])
        else:
            survivors(codes, t, normals, q, count, bars, nibbles, sums, out[t])
    return out[:, :count]


def unpacked(tiles, nibbles):
    """Codes of every slot (slots, coordinates), int64."""
    t, rows, _ = tiles.shape
    halves = np.stack([tiles & 15, tiles >> 4], axis=2) if nibbles else tiles[:, :, None]
    sides = halves.shape[2]
    lanes = halves.reshape(t, rows, sides, TILE, 4).transpose(0, 3, 1, 2, 4)
    return lanes.reshape(t * TILE, rows * sides * 4).astype(np.int64)


@pytest.mark.parametrize("nibbles", [False, True])
@pytest.mark.parametrize("count", [1, BLOCK])
@examples(0.5)
@given(rng=rngs(), rows=st.integers(1, 40), extreme=st.booleans())
def test_survivors_are_those_of_plain_loops(nibbles, count, rng, rows, extreme):
    width = rows * (8 if nibbles else 4)
    tiles = rng.integers(0, 256, (2, rows, ROW), dtype=np.uint8)
    normals = rng.integers(-127, 128, (8, width)).astype(np.int8)
    if extreme:
        tiles, normals = tiles | np.uint8(0xF0), np.where(normals < 0, -127, 127).astype(np.int8)
    products = unpacked(tiles, nibbles) @ normals.astype(np.int64).T
    bars = np.array([rng.choice(column) for column in products.T])
    bars = (bars + rng.integers(-1, 2, 8)).astype(np.int32)
    bars[rng.integers(8)] = rng.choice([-(2**31), 2**31 - 1])
    q = int(rng.integers(0, 8 - count + 1))
    masks = _masks(tiles, normals, q, count, bars, nibbles, False)
    assert np.array_equal(masks, _masks(tiles, normals, q, count, bars, nibbles, True))
    reached = (products >= bars)[:, q : q + count].reshape(2, TILE, count)
    want = (reached.astype(object) << np.arange(TILE).astype(object)[:, None]).sum(axis=1)
    assert masks.tolist() == want.tolist()


# Certified bounds.


@kernel
def _aimed(index, normal, heads, leading, estimates, levels, bars):
    """Fill estimates by row codes, and bars of levels; the aim and the scale of the normal."""
    d = normal.size
    weights, scratch = np.zeros((1, d), np.float32), np.empty((3, d))
    query = prepare(normal, 0.0, True, np.empty(d, index.points.dtype))
    aimed = aim(
        index.basis, index.heads, index.leading, index.rows, normal, query, index.reach, scratch,
        heads, leading, weights[0],
    )  # fmt: skip
    for slot in range(index.rows.codes.shape[0]):
        estimates[slot] = row_product(index.rows.codes, slot, weights, 0)
    for i in range(levels.size):
        level = levels[i] * query.factors[0] * query.factors[1]
        bars[i] = bar_of(aimed.leading[0], aimed.leading[1], level)
    return aimed, query.factors


def below(score):
    """A float64 that is not above a fraction."""
    value = oracle.rounded(score)
    if math.isinf(value) or Fraction(value) <= score:
        return value
    return math.nextafter(value, -math.inf)


def check_bounds(index, points, normal):
    arrays = index.structure
    tiles, n = arrays.leading.codes, len(points)
    heads, leading = np.zeros((2, tiles.shape[1] * (8 if arrays.leading.nibbles else 4)), np.int8)
    scores = oracle.scores(arrays.points[:n], normal)
    levels = np.array([below(score) for score in scores])
    estimates, bars = np.full(len(arrays.points), np.nan), np.zeros(n, np.int32)
    aimed, factors = _aimed(arrays, normal, heads, leading, estimates, levels, bars)
    products = unpacked(tiles, arrays.leading.nibbles) @ leading.astype(np.int64)
    above = unpacked(arrays.heads.codes, arrays.leading.nibbles) @ heads.astype(np.int64)
    asked, by_rows = (
        np.unpackbits(marks.view(np.uint8), bitorder="little")[:n] == 0
        for marks in (arrays.always, arrays.bare)
    )
    assert not (asked & ~by_rows).any()
    scale = Fraction(factors[0]) * Fraction(factors[1])
    for i in np.flatnonzero(by_rows):
        exact = scores[i] * scale
        bounds = (aimed.leading, products[i]), (aimed.heads, above[i // TILE])
        for (constant, unit), product in bounds if asked[i] else ():
            if math.isfinite(constant):
                assert exact <= Fraction(constant) + Fraction(unit) * int(product)
        assert products[i] >= bars[i] or not asked[i]
        if math.isfinite(aimed.error) and math.isfinite(aimed.centre):
            middle = Fraction(aimed.centre) + Fraction(estimates[i])
            assert abs(exact - middle) <= Fraction(aimed.error)
    return asked


@pytest.mark.parametrize("dtype", DTYPES)
@examples(1)
@given(data=st.data(), rng=rngs())
def test_bounds_hold_whatever_was_fitted(dtype, data, rng):
    dataset = data.draw(st.sampled_from(sorted(DATASETS)), label="dataset")
    points = DATASETS[dataset](data.draw(st.sampled_from((1, 3, 9, 20))), rng, dtype)[:70]
    points = halfspace.inputs.as_points(points)
    index = build_anyhow(points, rng)
    normals, _ = data.draw(queries(points, max_m=2))
    for normal in (*normals.astype(np.float64), rng.standard_normal(points.shape[1])):
        if normal.any():
            check_bounds(index, points, normal)


@examples(0.5)
@given(rng=rngs(), d=st.sampled_from((2, 8, 33)), dtype=st.sampled_from(DTYPES))
def test_bounds_of_ordinary_fits_hold(rng, d, dtype):
    scales = 10.0 ** rng.uniform(-3, 3, d)
    points = (rng.standard_normal((SMALL, d)) * scales + rng.uniform(-9, 9)).astype(dtype)
    index = halfspace.Cascade(points)
    assert check_bounds(index, points, rng.standard_normal(d) / scales).any()


@examples(0.5)
@given(rng=rngs(), p=st.integers(1, 7), nibbles=st.booleans())
def test_bounds_hold_where_they_are_tight(rng, p, nibbles):
    """Normals along what was left out of a point, or along what was rounded: Cauchy's equality."""
    points, shape = cloud(SMALL, 8, np.float64, rng), cascade_fit.Shape(p, nibbles, True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cascade_fit, "_choose", lambda *_: (shape, 0.1, 0.1, 1.0))
        index = halfspace.Cascade(points)
    basis, steps = index.structure.basis, index.structure.leading.steps
    u = bases.transformed(basis, points[rng.integers(SMALL)][None])[0].astype(np.float64)
    along = np.zeros((2, 8))
    along[0, p:] = u[0, p:]
    along[1, :p] = codes.rounded(u[:, :p], steps)[1][0] / steps.step
    for normal in along @ basis.forward * basis.scale:
        check_bounds(index, points, normal)


@kernel
def _norm(points, p):
    return codes._norm_from(points, 0, p)


def test_the_bound_on_a_norm_holds_where_small_terms_vanish():
    """However many lanes the terms are summed in, each of the small ones is lost."""
    points = np.full((1, 3 << 20 if JIT else 3 << 14), math.sqrt(0.99 * 2.0**-25), np.float32)
    points[0, : 256 if JIT else 1] = 1.0
    assert _norm(points, 0) >= math.sqrt(np.square(points.astype(np.float64)).sum())


# Answers.


@pytest.mark.parametrize("dataset", DATASETS)
@examples(0.06)
@given(data=st.data(), rng=rngs(), d=st.sampled_from((3, 9, 33)), dtype=st.sampled_from(DTYPES))
def test_any_fit_answers_exactly(dataset, data, rng, d, dtype):
    points = DATASETS[dataset](d, rng, dtype)
    index = build_anyhow(halfspace.inputs.as_points(points), rng)
    assert_as_scan(index, points, *data.draw(queries(points)), k=data.draw(st.integers(1, 9)))


def test_top_where_float32_scores_overflow():
    """The first point's score is 2e38, but summed in order it overflows on the way."""
    points = np.array([[2e38, 2e38, -2e38], [3e38, 0, 0]], np.float32)
    for index in (halfspace.Cascade(points), halfspace.Scan(points)):
        assert index.top(np.ones(3), 1).ids.tolist() == [1]


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5, 63, 64, 65, 300])
def test_batches_of_all_kinds_of_queries(m):
    rng = np.random.default_rng(m)
    points = cloud(10 * SMALL if JIT else SMALL, 8)
    normals = rng.standard_normal((m, 8))
    normals[rng.random(m) < 0.2] = 0.0
    offsets = rng.choice([-np.inf, np.inf, 0.0, 1.0, 2.0, 6.0], m)
    assert_as_scan(halfspace.Cascade(points), points, normals, offsets)


@pytest.mark.parametrize("rows", [False, True])
def test_top_raises_its_bar_and_makes_room(rows, monkeypatch):
    """Points in ascending order are all the best so far; equal ones cannot be told apart."""
    shape = cascade_fit.Shape(8, rows, rows), 0.1, 0.1, 1.0
    monkeypatch.setattr(cascade_fit, "_choose", lambda *_: shape)
    n, k = (6000, 40) if JIT else (1300, 3)
    rising = cloud(n, 8)
    rising = rising[np.argsort(rising[:, 0])]
    equal = np.repeat(cloud(2, 8), n // 2, axis=0)
    for points in (rising, equal):
        normals = np.eye(8)[:2]
        assert_same_top(halfspace.Cascade(points), halfspace.Scan(points), normals, k)


def test_points_out_of_reach_are_left_to_the_exact_stage(monkeypatch):
    monkeypatch.setattr(cascade_fit, "REACH", 0.7)
    points = cloud(2 * SMALL, 8)
    index = halfspace.Cascade(points)
    marked = sum(int(lanes).bit_count() for lanes in index.structure.always)
    assert 10 < marked < len(points)
    normals = np.random.default_rng(1).standard_normal((9, 8))
    assert_as_scan(index, points, normals, np.linspace(-5, 5, 9))


@pytest.mark.parametrize("distance", [1e2, 1e6, 1e30])
def test_points_far_out_do_not_blunt_the_filters(distance):
    points = cloud(PLENTY, 64)
    points[5::320] *= np.float32(distance)
    index = halfspace.Cascade(points)
    normals = cloud(4, 64, np.float64, seed=1)
    assert passing(index, normals, share=0.01) < 0.3
    assert_as_scan(index, points, normals, np.full(4, 20.0))


def test_a_basis_that_overflows_settles_nothing(monkeypatch):
    def broken(sample, normals, reach):
        d = sample.shape[1]
        forward = np.eye(d, dtype=np.float32)
        inverse = np.where(np.add.outer(np.arange(d), np.arange(d)) % 2, 1.7e308, -1.7e308)
        with np.errstate(all="ignore"):
            return bases._with_errors(np.zeros(d), np.ones(d), forward, inverse, 100.0)

    monkeypatch.setattr(cascade_fit, "fit_basis", broken)
    points = cloud(SMALL, 8)
    assert_as_scan(halfspace.Cascade(points), points, np.ones((2, 8)), np.array([1.0, 3.0]))


def test_queries_that_lie_cost_only_speed():
    rng = np.random.default_rng(2)
    points, frame = cloud(LARGE // 2, 16), np.linalg.qr(rng.standard_normal((16, 16)))[0]
    told, asked = (rng.standard_normal((50, 8)) @ half for half in np.split(frame, 2))
    index = halfspace.Cascade(points, queries=told)
    assert_as_scan(index, points, asked, np.full(50, 8.0))


@pytest.mark.parametrize(
    "told", [np.zeros((3, 8)), np.ones(8), np.full((2, 8), 1e308), np.full((2, 8), 5e-324), []]
)
def test_queries_of_little_use(told):
    points = cloud(SMALL, 8)
    told = np.reshape(told, (-1, 8)) if np.size(told) == 0 else told
    for expected_count in (None, 0, 10**12):
        index = halfspace.Cascade(points, queries=told, expected_count=expected_count)
        assert_as_scan(index, points, np.eye(8), np.linspace(-2, 2, 8))


def test_a_pickle_holds_points_once():
    index = halfspace.Cascade(cloud(SMALL, 40))
    copy = pickle.loads(pickle.dumps(index))
    assert copy.nbytes == index.nbytes
    assert copy.structure.leading.codes.ctypes.data % LINE == 0
    assert np.shares_memory(copy.structure.tiles.data, copy.structure.points)
    assert_as_scan(copy, cloud(SMALL, 40), np.eye(40)[:5], np.full(5, 1.0))


# What it is good for.


@kernel
def _passing(index, normals, offsets):
    m, count, total = offsets.size, index.tiles.ranks.size, 0
    targets = make_targets(index, normals, offsets, True, m)
    sums, out = np.empty(TILE, np.int32), np.empty(BLOCK, np.uint64)
    for t in range(index.tiles.norms.size):
        for q in range(m):
            survivors(
                index.leading.codes, t, targets.leading, q, 1, targets.bars,
                index.leading.nibbles, sums, out,
            )  # fmt: skip
            total += popcount((out[0] | index.always[t]) & used_lanes(count, t))
    return total / (m * count)


def passing(index, normals, share=0.001):
    """Share of the points that leading codes let pass for half-spaces of a share of the points."""
    points = index.structure.points[: len(index)]
    return _passing(index.structure, normals, np.quantile(points @ normals.T, 1 - share, axis=0))


def test_few_points_pass_the_leading_codes():
    index = halfspace.Cascade(cloud(PLENTY, 64))
    assert 0.0009 < passing(index, np.random.default_rng(1).standard_normal((8, 64))) < 0.1


def test_a_basis_for_the_queries_lets_fewer_points_pass(monkeypatch):
    shape = cascade_fit.Shape(14, False, True), 0.1, 0.1, 1.0
    monkeypatch.setattr(cascade_fit, "_choose", lambda *_: shape)
    rng = np.random.default_rng(3)
    frame = np.linalg.qr(rng.standard_normal((32, 32)))[0]
    normals = (rng.standard_normal((300, 32)) * np.exp(-np.arange(32) / 4)) @ frame
    points = cloud(PLENTY, 32)
    aware, blind = (halfspace.Cascade(points, queries=told) for told in (normals[:200], None))
    assert passing(aware, normals[200:216]) < 0.2 * passing(blind, normals[200:216])


@pytest.mark.skipif(not JIT, reason="interpreted, so many points take too long")
@pytest.mark.parametrize("d", [32, 64, 128])
def test_memory_is_at_most_one_and_a_half_times_that_of_the_points(d):
    assert halfspace.Cascade(cloud(PLENTY, d)).nbytes <= 1.5 * PLENTY * d * 4


def test_explain_shows_the_stages(monkeypatch):
    chosen = cascade_fit.Shape(6, True, True), 0.02, 0.001, 1.0
    monkeypatch.setattr(cascade_fit, "_choose", lambda *_: chosen)
    index = halfspace.Cascade(cloud(SMALL, 8))
    text = index.explain()
    assert "leading  6 of 8 coordinates, 4 bits: 4 bytes a point, 2.000% pass" in text
    assert "rows     8 bytes a point that passed, 0.100% stay open" in text
    assert "ms a query" in text


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"queries": np.ones((3, 7))}, ValueError, "expected shape"),
        ({"queries": [[np.nan] * 8]}, ValueError, "finite"),
        ({"queries": [["a"] * 8]}, TypeError, "expected floats"),
        ({"expected_count": 1.5}, TypeError, "expected_count"),
        ({"expected_count": -1}, ValueError, "expected_count"),
    ],
)
def test_options_are_checked(options, error, message):
    with pytest.raises(error, match=message):
        halfspace.Cascade(cloud(SMALL, 8), **options)


def test_bytes_read_are_those_of_open_tiles():
    index = halfspace.Cascade(cloud(SMALL, 8))
    codes, heads = index.structure.leading.codes, index.structure.heads.codes
    assert index.bytes_read(np.ones(8), -1e9) <= codes.nbytes + heads.nbytes
    assert index.bytes_read(np.ones(8), 1e9) == heads.nbytes
    assert index.bytes_read(np.ones((3, 8)), 0.0).shape == (3,)
