"""Input checks of the cache: one clear exception, before anything changes."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from halfspace.inputs import MOST_POINTS, as_array, as_count, as_real

from .inputs import LARGEST_SCORE, check_values, output_dtype

KEPT = (np.dtype(np.float32), np.dtype(np.float64))
"""Dtypes that kernels read."""


class Asked(NamedTuple):
    """Queries of the right shape; a row is a query of a kv head, those of one side by side."""

    queries: np.ndarray  # (kv heads, m, head_dim) float64, read-only once they are known to do
    lengths: np.ndarray  # (m,) int64, tokens that each sees
    dtype: np.dtype  # of the output
    shape: tuple[int, ...]  # of rows, as they came


def check_dtype(dtype: DTypeLike) -> np.dtype:
    """Check a dtype that rows are kept in."""
    try:
        wanted = np.dtype(dtype)
    except TypeError:
        raise TypeError(f"dtype: expected float32 or float64, got {dtype!r}") from None
    if wanted not in KEPT or dtype is None:
        raise TypeError(
            f"dtype: expected float32 or float64, got {dtype if dtype is None else wanted}"
        )
    return wanted.newbyteorder("=")


def as_shape(shape: int | tuple[int, ...], name: str) -> tuple[int, ...]:
    """Lengths of axes, each at least 1."""
    if isinstance(shape, (str, bytes)):
        raise TypeError(f"{name}: expected integers, got {shape!r}")
    try:
        axes = tuple(shape)
    except TypeError:
        axes = (shape,)
    return tuple(as_count(axis, name, least=1) for axis in axes)


def as_ancestors(idx: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    """Rows of the first axis of a batch, int64; `shape` is that of the batch and of its heads."""
    if len(shape) < 2:
        raise ValueError("batch_shape: expected an axis to reorder, got ()")
    rows = as_array(idx, "idx")
    if rows.dtype.kind not in "iu" and rows.size:
        raise TypeError(f"idx: expected integers, got {rows.dtype}")
    if rows.ndim != 1 or not rows.size:
        raise ValueError(f"idx: expected shape (rows,), at least one, got shape {rows.shape}")
    outside = np.flatnonzero((rows < 0) | (rows >= shape[0]))
    if outside.size:
        at = outside[0]
        raise ValueError(f"idx: expected 0 … {shape[0] - 1}, got {rows[at]} at {at}")
    return rows.astype(np.int64)


def as_tokens(
    rows: ArrayLike, name: str, shape: tuple[int | None, ...], dtype: np.dtype, held: int
) -> np.ndarray:
    """Keys or values, finite, that `dtype` holds; None in `shape` stands for any number.

    `held` tokens are there already.
    """
    array = as_real(rows, name)
    axes = zip(array.shape, shape, strict=False)
    if array.ndim != len(shape) or any(b not in (a, None) for a, b in axes):
        wanted = ", ".join("t" if axis is None else str(axis) for axis in shape)
        raise ValueError(f"{name}: expected shape ({wanted}), got shape {array.shape}")
    if array.dtype != dtype and not np.can_cast(array.dtype, dtype):
        came = getattr(rows, "dtype", array.dtype)
        raise TypeError(f"{name}: expected a dtype that the cache's {dtype} holds, got {came}")
    if held + array.shape[-2] > MOST_POINTS:
        raise ValueError(
            f"{name}: expected at most {MOST_POINTS - held} more tokens, got {array.shape[-2]}"
        )
    check_finite(array, name)
    if dtype.itemsize == 8:
        check_values(array, name)
    return array


def check_finite(array: np.ndarray, name: str) -> None:
    """Raise ValueError that says where the first NaN or infinity is."""
    finite = np.isfinite(array)
    if np.count_nonzero(finite) < finite.size:
        at = np.argwhere(~finite)[0].tolist()
        raise ValueError(f"{name}: expected finite numbers, got {array[tuple(at)]} at {at}")


def as_asked(
    query: ArrayLike, shape: tuple[int, ...], head_dim: int, count: int, dtype: np.dtype
) -> Asked:
    """Queries of the last of `count` tokens; `shape` is that of batch and kv heads.

    Their numbers are checked by `check_scores`, which takes them as they come from here.
    """
    real = as_real(query, "query")
    *batch, kv_heads = shape
    if real.ndim != len(shape) + 2 or real.shape[:-3] != tuple(batch):
        wanted = ", ".join([*map(str, batch), "heads", "length", str(head_dim)])
        raise ValueError(f"query: expected shape ({wanted}), got shape {real.shape}")
    heads, length, d = real.shape[-3:]
    if d != head_dim:
        raise ValueError(f"query: expected head_dim {head_dim} as of key, got {d}")
    if heads % kv_heads:
        raise ValueError(f"query: expected a multiple of the cache's {kv_heads} heads, got {heads}")
    if length > count:
        raise ValueError(
            f"query: expected length at most {count}, the tokens there are, got {length}"
        )
    group = heads // kv_heads
    queries = real.astype(np.float64, order="C").reshape(math.prod(shape), group * length, d)
    lengths = np.arange(count - length + 1, count + 1)
    same = type(query) is np.ndarray and query.dtype == dtype
    return Asked(
        queries,
        np.tile(lengths, group) if group != 1 else lengths,
        dtype if same else output_dtype(np.asarray(query), np.empty(0, dtype)),
        real.shape[:-1],
    )


def check_scores(asked: Asked, norms: np.ndarray, key_norms: np.ndarray, scale: float) -> None:
    """Check that queries are finite, and that scores with keys of such norms stay within float64.

    Norms are of queries, (rows,), and of keys, by row.
    """
    check_finite(asked.queries.reshape(*asked.shape, asked.queries.shape[-1]), "query")
    with np.errstate(over="ignore"):
        largest = (norms * key_norms).max(initial=0.0) * max(scale, 1.0)
    if not largest < LARGEST_SCORE:
        raise ValueError(f"query: expected scores below {LARGEST_SCORE}, got up to {largest}")
