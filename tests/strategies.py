"""Inputs where floating point goes wrong: ties, neighbours, cancellation, both ends of the range.

Hypothesis draws a handful of values and a seed, and the seed spreads the values over the array:
cheap at any size, and full of ties.
"""

import math
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from . import oracle
from .sizes import SMALL, TILE

DTYPES = (np.float32, np.float64)


class Problem(NamedTuple):
    points: np.ndarray
    normals: np.ndarray
    offsets: np.ndarray


def rngs():
    return st.integers(0, 2**32 - 1).map(np.random.default_rng)


def finite(dtype):
    """Finite values of a float type: hard ones, small integers, and anything at all."""
    info = np.finfo(dtype)
    hard = [0, 1, 0.1, 1 + info.eps, 1e8, info.tiny, info.smallest_subnormal, info.max]
    return (
        st.sampled_from([dtype(sign * value) for value in hard for sign in (1, -1)])
        | st.integers(-4, 4).map(dtype)
        | st.floats(width=info.bits, allow_nan=False, allow_infinity=False).map(dtype)
    )


def moderate(dtype):
    """Values that can be scaled by 2**±40, alone or multiplied, without losing a bit."""
    size = st.floats(2.0**-40, 2.0**40, width=np.finfo(dtype).bits)
    return (size | size.map(lambda x: -x) | st.integers(-4, 4)).map(dtype)


@st.composite
def arrays(draw, shape, dtype, values):
    """An array (n, d): entries from a pool, scaled columns, or neighbours of a few rows."""
    pool = np.array(draw(st.lists(values, min_size=1, max_size=8)), dtype)
    rng = draw(rngs())
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


@st.composite
def points(draw, dtype, dims, max_n=SMALL, values=None):
    d = draw(st.sampled_from(dims))
    n = draw(st.integers(0, max_n) | st.sampled_from((TILE - 1, TILE, TILE + 1)))
    return draw(arrays((n, d), dtype, finite(dtype) if values is None else values(dtype)))


@st.composite
def offsets_near(draw, points, normal):
    """Thresholds that cut closest: a point's score rounded to float64, or one step beside it."""
    row = draw(st.integers(0, len(points) - 1))
    score = oracle.rounded(oracle.scores(points[row : row + 1], normal)[0])
    beside = (math.nextafter(score, -math.inf), math.nextafter(score, math.inf))
    return draw(st.sampled_from((score, *beside)))


def offsets(points, normal):
    anywhere = st.sampled_from((0.0, -0.0, np.inf, -np.inf)) | finite(np.float64).map(float)
    if len(points) == 0:
        return anywhere
    near = offsets_near(points, normal)
    return st.one_of(near, near, near, anywhere)


@st.composite
def queries(draw, points, max_m=4, min_m=1, values=None):
    """Normals (m, d), of a dtype of their own, and offsets (m,) for given points."""
    dtype = draw(st.sampled_from(DTYPES))
    m, d = draw(st.integers(min_m, max_m)), points.shape[1]
    normals = draw(arrays((m, d), dtype, finite(dtype) if values is None else values(dtype)))
    if draw(st.integers(0, 7)) == 0:  # along an axis
        normals = normals * (np.arange(d) == draw(st.integers(0, d - 1)))
    return normals, np.array([draw(offsets(points, normal)) for normal in normals], np.float64)


@st.composite
def problems(draw, dtype=None, dims=(1, 2, 3, 4, 5, 6), max_n=SMALL, max_m=4, values=None):
    """Points and a batch of queries that cut close to them."""
    dtype = draw(st.sampled_from(DTYPES)) if dtype is None else dtype
    x = draw(points(dtype, dims, max_n, values))
    return Problem(x, *draw(queries(x, max_m, values=values)))


@st.composite
def identifiers(draw, n):
    """n distinct int64 in no order, of either sign and anywhere in the range."""
    step = draw(st.integers(1, 2**20))
    start = draw(st.integers(-(2**63), 2**63 - 1 - step * n))
    return draw(rngs()).permutation(n) * step + start
