"""Heads of attention where certificates go wrong: ties, huge logits, outliers, mixed floats."""

import math
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import strategies as st

from attention import Error, Mass, Threshold, TopR
from attention.spread import spread_of, with_more

from . import attention_oracle as truth
from .sizes import JIT, SMALL, TILE
from .strategies import rngs

DTYPES = (np.float16, np.float32, np.float64)
KEYS = 2 * SMALL if JIT else SMALL
MAGNITUDES = {
    np.float16: (1e-4, 1, 10),
    np.float32: (1e-30, 1, 1e30),
    np.float64: (1e-250, 1, 1e250),
}
SIZES = (0.0, 5e-324, 1e-310, 1e-160, 1e-30, 1.0, 1e30, 1e150, 1e200)
"""Of values that are told apart from nothing, or whose squares are not."""

STRUCTURES = {"scan": range(1, 41), "kd_tree": range(1, 7), "cascade": range(1, 41)}

each_structure = pytest.mark.parametrize("structure", STRUCTURES)


class Head(NamedTuple):
    query: np.ndarray
    key: np.ndarray
    value: np.ndarray
    scale: float | None

    @property
    def factor(self):
        """The scale in force."""
        return 1.0 / math.sqrt(self.key.shape[1]) if self.scale is None else self.scale

    def softmax(self, lengths=None):
        """Exact rows; of each query over only so many first keys, if `lengths` are given."""
        return [
            truth.softmax(q, self.key[:n], self.value[:n], self.factor)
            for q, n in self._rows(lengths)
        ]

    def relu(self, threshold, power, lengths=None):
        return [
            truth.relu(q, self.key[:n], self.value[:n], self.factor, threshold, power)
            for q, n in self._rows(lengths)
        ]

    def _rows(self, lengths):
        lengths = [len(self.key)] * len(self.query) if lengths is None else lengths
        return zip(self.query, lengths, strict=True)


@st.composite
def keys(draw, n, d, dtype):
    kinds = ("gauss", "ties", "duplicates", "far", "neighbours")
    rng, kind = draw(rngs()), draw(st.sampled_from(kinds))
    x = rng.standard_normal((n, d))
    if kind == "ties":
        x = rng.integers(-3, 4, (n, d))
    elif kind == "duplicates":
        x = rng.standard_normal((3, d))[rng.integers(3, size=n)]
    elif kind == "far":
        x = x + 50.0 * rng.standard_normal(d)
    x = x.astype(dtype)
    if kind == "neighbours":
        x = np.where(rng.random((n, d)) < 0.5, x[:1], np.nextafter(x[:1], dtype(9)))
    return x


@st.composite
def values(draw, n, c, dtype):
    kinds = ("gauss", "constant", "signs", "ties", "far", "outlier")
    rng, kind = draw(rngs()), draw(st.sampled_from(kinds))
    x = rng.standard_normal((n, c))
    if kind == "constant":
        x = np.full((n, c), 0.1)
    elif kind == "signs":
        x = np.sign(x)
    elif kind == "ties":
        x = rng.integers(-3, 4, (n, c))
    elif kind == "far":
        x = 1000.0 + 0.01 * x
    elif kind == "outlier":
        x[rng.random(n) < 0.02] *= 1000.0
    return (x * draw(st.sampled_from(MAGNITUDES[dtype]))).astype(dtype)


@st.composite
def scales(draw, query, key):
    """None, a power of two (scores stay exact), or what makes the largest logit of a given size."""
    kind = draw(st.sampled_from(("default", "power", "spread", "spread")))
    if kind == "default":
        return None
    if kind == "power":
        return 2.0 ** draw(st.integers(-3, 3))
    size = float(np.abs(query.astype(float) @ key.astype(float).T).max(initial=0.0))
    spread = draw(st.sampled_from((1e-3, 1.0, 10.0, 30.0, 1e3, 1e6, 1e13)))
    return spread / size if size else spread


@st.composite
def heads(draw, dims=STRUCTURES["scan"], max_n=KEYS, max_m=3):
    """Queries, some of them zero or a key themselves, keys, values and a scale."""
    q_dtype, k_dtype, v_dtype = (draw(st.sampled_from(DTYPES)) for _ in range(3))
    d, c = draw(st.sampled_from(dims)), draw(st.integers(1, 9))
    few, tiles = st.integers(0, 9), st.sampled_from((TILE - 1, TILE, TILE + 1))
    n = draw(few | tiles | st.integers(0, max_n))
    m = draw(st.integers(1, max_m))
    key, value = draw(keys(n, d, k_dtype)), draw(values(n, c, v_dtype))
    rng = draw(rngs())
    query = rng.standard_normal((m, d))
    for row in range(m):
        kind = rng.integers(5)
        if kind == 0:
            query[row] = 0.0
        elif kind == 1 and n:
            query[row] = key[rng.integers(n)]
        elif kind == 2:
            query[row] = rng.integers(-3, 4, d)
    query = query.astype(q_dtype)
    return Head(query, key, value, draw(scales(query, key)))


@st.composite
def integer_heads(draw, dims=STRUCTURES["scan"]):
    """Small integers and a scale that is a power of two: float64 scores are exact."""
    d, n = draw(st.sampled_from(dims)), draw(st.integers(0, KEYS))
    rng, dtype = draw(rngs()), draw(st.sampled_from(DTYPES))
    query, key, value = (rng.integers(-3, 4, (k, d)).astype(dtype) for k in (2, n, n))
    return Head(query, key, value, 2.0 ** draw(st.integers(-3, 3)))


def levels(head):
    """Finite floats on and beside the scores of the first query, and anywhere."""
    exact = truth.scores(head.query[0], head.key[:5], head.factor)
    near = [0.0, *map(float, exact)]
    beside = [math.nextafter(x, way) for x in near for way in (math.inf, -math.inf)]
    near, beside = st.sampled_from(near), st.sampled_from(beside)
    return near | near | beside | st.floats(-1e6, 1e6)


def top_r(n):
    return st.just(TopR()) | st.integers(1, n + 2).map(TopR)


def thresholds(head):
    return (levels(head) | st.sampled_from((-math.inf, math.inf))).map(Threshold)


def masses():
    return (st.sampled_from((0, 0.5, 0.9, 1)) | st.floats(0.0, 1.0)).map(Mass)


def errors(head):
    """Tolerances from far below rounding to far above the values."""
    size = largest(head.value) or 1.0
    some = st.integers(-18, 1).map(lambda power: size * 10.0**power)
    return (some | st.sampled_from((0.0, math.inf))).map(Error)


def rules(head):
    """One rule of each kind."""
    return st.tuples(top_r(len(head.key)), thresholds(head), masses(), errors(head))


def output_dtypes(head):
    """Floats that hold every value."""
    size = largest(head.value)
    return st.sampled_from([dtype for dtype in DTYPES if size <= float(np.finfo(dtype).max)])


def largest(array):
    """Largest magnitude, 0 for nothing."""
    return float(np.abs(array).max(initial=0))


@st.composite
def spreads(draw):
    """Values (n, 2) of any sizes and places, and their sums; they came in parts."""
    rng, n = draw(rngs()), draw(st.integers(1, 60))
    size, place = draw(st.sampled_from(SIZES)), draw(st.sampled_from(SIZES))
    values = size * rng.standard_normal((n, 2)) + place * draw(st.sampled_from((-1.0, 1.0)))
    values[rng.random((n, 2)) < 0.1] *= draw(st.sampled_from((1.0, 9.0)))
    ends = np.sort(rng.integers(0, n + 1, draw(st.integers(0, 3))))
    first, *others = np.split(values, ends)
    spread = spread_of(first[None])
    for part in others:
        spread = with_more(spread, part[None])
    return values, spread
