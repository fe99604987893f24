"""Inputs where floating point goes wrong: ties, neighbours, cancellation, both ends of the range.

Hypothesis draws a handful of values and a seed, and the seed spreads the values over the array:
cheap at any size, and full of ties.
"""

import math
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import strategies as st

import halfspace
from halfspace import basis as bases
from halfspace import cascade, cascade_fit, cascade_shape, codes
from halfspace.code_rows import GROUPS

from . import oracle
from .sizes import SMALL, TILE

DTYPES = (np.float32, np.float64)


class Problem(NamedTuple):
    points: np.ndarray
    normals: np.ndarray
    offsets: np.ndarray


@cache
def rngs():
    return st.integers(0, 2**32 - 1).map(np.random.default_rng)


@cache
def finite(dtype):
    """Finite values of a float type: hard ones, small integers, and anything at all."""
    info = np.finfo(dtype)
    hard = [0, 1, 0.1, 1 + info.eps, 1e8, info.tiny, info.smallest_subnormal, info.max]
    return (
        st.sampled_from([dtype(sign * value) for value in hard for sign in (1, -1)])
        | st.integers(-4, 4).map(dtype)
        | st.floats(width=info.bits, allow_nan=False, allow_infinity=False).map(dtype)
    )


@cache
def moderate(dtype):
    """Values that can be scaled by 2**±40, alone or multiplied, without losing a bit."""
    size = st.floats(2.0**-40, 2.0**40, width=np.finfo(dtype).bits)
    return (size | size.map(lambda x: -x) | st.integers(-4, 4)).map(dtype)


@cache
def pools(dtype, values):
    return st.lists(values(dtype), min_size=1, max_size=8).map(lambda pool: np.array(pool, dtype))


@cache
def sizes(max_n):
    return st.integers(0, max_n) | st.sampled_from((TILE - 1, TILE, TILE + 1))


@st.composite
def arrays(draw, shape, dtype, values=finite):
    """An array (n, d): entries from a pool, scaled columns, or neighbours of a few rows."""
    pool, rng = draw(pools(dtype, values)), draw(rngs())
    kind = draw(st.sampled_from(("pool", "gauss", "neighbours")))
    limit = np.finfo(dtype).max
    if kind == "pool":
        return rng.choice(pool, shape)
    if kind == "gauss":
        scales = np.clip(rng.choice(pool, shape[1]), -limit / 8, limit / 8).astype(dtype)
        return np.clip(rng.standard_normal(shape), -8, 8).astype(dtype) * scales
    rows = rng.choice(pool, (3, shape[1]))[rng.integers(3, size=shape[0])]
    toward = rng.choice(np.array([-limit, limit], dtype), shape)
    moves = (rng.random(shape) < 0.5) & (rows != 0)
    return np.where(moves, np.nextafter(rows, toward), rows)


ANYWHERE = st.sampled_from((0.0, -0.0, math.inf, -math.inf)) | finite(np.float64).map(float)


@st.composite
def offsets(draw, points, normal):
    """Mostly thresholds that cut closest: a point's score as float64, or one step beside it."""
    if len(points) == 0 or draw(st.integers(0, 3)) == 0:
        return draw(ANYWHERE)
    row = draw(st.integers(0, len(points) - 1))
    score = oracle.rounded(oracle.scores(points[row : row + 1], normal)[0])
    beside = (math.nextafter(score, -math.inf), math.nextafter(score, math.inf))
    return draw(st.sampled_from((score, *beside)))


@st.composite
def queries(draw, points, max_m=4, min_m=1, values=finite):
    """Normals (m, d), of a dtype of their own, and offsets (m,) for given points."""
    dtype = draw(st.sampled_from(DTYPES))
    m, d = draw(st.integers(min_m, max_m)), points.shape[1]
    normals = draw(arrays((m, d), dtype, values))
    if draw(st.integers(0, 7)) == 0:  # along an axis
        normals = normals * (np.arange(d) == draw(st.integers(0, d - 1)))
    return normals, np.array([draw(offsets(points, normal)) for normal in normals], np.float64)


@st.composite
def problems(draw, dtype=None, dims=range(1, 7), max_n=SMALL, max_m=4, values=finite):
    """Points and a batch of queries that cut close to them."""
    dtype = draw(st.sampled_from(DTYPES)) if dtype is None else dtype
    shape = draw(sizes(max_n)), draw(st.sampled_from(dims))
    points = draw(arrays(shape, dtype, values))
    return Problem(points, *draw(queries(points, max_m, values=values)))


@st.composite
def identifiers(draw, n):
    """n distinct int64 in no order, of either sign and anywhere in the range."""
    step = draw(st.integers(1, 2**20))
    start = draw(st.integers(-(2**63), 2**63 - 1 - step * n))
    return draw(rngs()).permutation(n) * step + start


# What the fit of a cascade may be: anything, since it only decides the speed.


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


def any_steps(sample, bits, rng):
    """The steps for a sample, or too small, too large or beside it."""
    steps = codes.fit_steps(sample, bits)
    if rng.random() < 0.5:
        return steps
    step = steps.step * (10.0 ** rng.uniform(-2, 2, len(steps.step))).astype(np.float32)
    low = steps.low + step * np.float32(rng.integers(-3, 4))
    inverse = (1.0 / step.astype(np.float64)).astype(np.float32)
    arrays = (codes.frozen(array) for array in (low, step, inverse))
    return codes.Steps(*arrays, steps.middle, steps.most)


def choose_always(monkeypatch, p, bits, rows):
    """Have every cascade made with one shape."""
    shape, shares = cascade_shape.Shape(p, bits, rows), np.array([[0.02], [0.001], [1.0], [2.0]])
    choice = cascade_shape._Choice(shape, *shares)
    monkeypatch.setattr(cascade_shape, "_choose", lambda *_: choice)


def any_fit(points, normals, expected_count, *, rng):
    n, d = points.shape
    sample = points[rng.permutation(n)[: rng.integers(1, 200)]]
    basis = any_basis(sample, normals, rng)
    u, lengths = bases.transformed(basis, sample)
    u = u[lengths <= basis.reach]
    bits, rows = int(rng.choice(sorted(GROUPS))), bool(rng.integers(2))
    shape = cascade_fit.Shape(int(rng.integers(1, d + 1)), bits, rows)
    steps, row_steps = any_steps(u[:, : shape.p], bits, rng), any_steps(u, 8, rng)
    off, row_off = (
        np.linalg.norm(codes.rounded(u[:, : len(s.low)], s)[1].astype(np.float64), axis=1)
        for s in (steps, row_steps)
    )
    rest = np.linalg.norm(u[:, shape.p :].astype(np.float64), axis=1)
    return cascade_fit.Fit(
        shape,
        int(rng.integers(1, shape.p + 1)),
        basis,
        steps,
        codes.fit_ladder(off + 1e-3, steps.most),
        codes.fit_ladder(rest + 1e-18, steps.most),
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
