"""Certified bounds of codes: they hold whatever was fitted, and where they are tight."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import halfspace
from halfspace import basis as bases
from halfspace import cascade_fit, codes
from halfspace.code_filter import aim, bar_of, row_product
from halfspace.code_rows import GROUPS
from halfspace.jit import kernel
from halfspace.query import prepare
from halfspace.tiles import TILE

from . import oracle
from .datasets import DATASETS, cloud
from .oracle import unpacked
from .sizes import JIT, SMALL, examples
from .strategies import DTYPES, build_anyhow, choose_always, queries, rngs


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
    heads, leading = (
        np.zeros(unpacked(each.codes, each.bits).shape[1], np.int8)
        for each in (arrays.heads, arrays.leading)
    )
    scores = oracle.scores(arrays.points[:n], normal)
    levels = np.array([below(score) for score in scores])
    estimates, bars = np.full(len(arrays.points), np.nan), np.zeros(n, np.int32)
    aimed, factors = _aimed(arrays, normal, heads, leading, estimates, levels, bars)
    products = unpacked(tiles, arrays.leading.bits) @ leading.astype(np.int64)
    above = unpacked(arrays.heads.codes, arrays.leading.bits) @ heads.astype(np.int64)
    asked, by_rows = (
        np.unpackbits(marks.view(np.uint8), bitorder="little")[:n] == 0
        for marks in (arrays.always, arrays.bare)
    )
    scale = Fraction(factors[0]) * Fraction(factors[1])
    for i in np.flatnonzero(asked | by_rows):
        exact = scores[i] * scale
        bounds = (aimed.leading, products[i]), (aimed.heads, above[i // TILE])
        for (constant, unit), product in bounds if asked[i] else ():
            if math.isfinite(constant):
                assert exact <= Fraction(constant) + Fraction(unit) * int(product)
        assert products[i] >= bars[i] or not asked[i]
        if by_rows[i] and math.isfinite(aimed.error) and math.isfinite(aimed.centre):
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


def test_a_small_sample_leaves_few_points_without_codes(monkeypatch):
    """A basis fitted to few points makes them, and no others, look narrow along some axes."""
    monkeypatch.setattr(cascade_fit.fit_cascade, "__defaults__", (None, 160))
    points = cloud(2000, 64, np.float32, np.random.default_rng(0))
    arrays = halfspace.Cascade(points).structure
    for marked in (arrays.always, arrays.bare):
        assert np.unpackbits(marked.view(np.uint8)).sum() <= 0.02 * len(points)


@examples(0.5)
@given(rng=rngs(), p=st.integers(1, 7), bits=st.sampled_from(sorted(GROUPS)))
def test_bounds_hold_where_they_are_tight(rng, p, bits):
    """Normals along what was left out of a point, or along what was rounded: Cauchy's equality."""
    points = cloud(SMALL, 8, np.float64, rng)
    with pytest.MonkeyPatch.context() as patch:
        choose_always(patch, p, bits, True)
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
