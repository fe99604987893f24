"""Input checks of attention: one clear exception, before any work."""

import functools
import math
import numbers
import operator

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from halfspace.inputs import as_array

from .rules import Rule

LARGEST_VALUE = 4e307
"""Beyond this, differences of values could overflow."""

LARGEST_SCORE = 1e300
"""Beyond this, float64 scores could overflow."""

LARGEST_POWER = 64
"""Of ReLU."""


@functools.cache
def rounding_unit(dtype: DTypeLike) -> float:
    """Relative rounding error of a float dtype, bfloat16 included."""
    if np.dtype(dtype).name == "bfloat16":
        return 2.0**-9
    return float(np.finfo(dtype).eps) / 2.0


@functools.cache
def least_rounding(dtype: DTypeLike) -> float:
    """Rounding error of a float dtype for numbers however small: half the smallest of them."""
    if np.dtype(dtype).name == "bfloat16":
        return 2.0**-134
    return float(np.finfo(dtype).smallest_subnormal) / 2.0


def output_dtype(*arrays: np.ndarray) -> np.dtype:
    """Float dtype that all inputs promote to; float64 for integers."""
    dtype = np.result_type(*arrays)
    return dtype if dtype.kind == "f" or dtype.name == "bfloat16" else np.dtype(np.float64)


def check_scale(scale: float | None, head_dim: int) -> float:
    """Return the scale of scores, 1 / sqrt(head_dim) for None; positive and finite."""
    if scale is None:
        return 1.0 / math.sqrt(head_dim)
    value = check_real(scale, "scale")
    if not 0.0 < value < math.inf:
        raise ValueError(f"scale: expected a positive finite number, got {scale}")
    return value


def check_relu(threshold: float, power: int) -> tuple[float, int]:
    """Check a ReLU's threshold, of a size that scores may have, and its power, at least 1."""
    level = check_real(threshold, "threshold")
    if not abs(level) <= LARGEST_SCORE:
        raise ValueError(
            f"threshold: expected a finite number, at most {LARGEST_SCORE} in size, got {threshold}"
        )
    try:
        exponent = operator.index(power)
    except TypeError:
        raise TypeError(f"power: expected an integer, got {type(power).__name__}") from None
    if isinstance(power, bool) or not 1 <= exponent <= LARGEST_POWER:
        raise ValueError(f"power: expected 1 … {LARGEST_POWER}, got {power}")
    return level, exponent


def check_count(count: int) -> int:
    """Return a number of keys, at least 0."""
    try:
        value = operator.index(count)
    except TypeError:
        raise TypeError(f"count: expected an integer, got {type(count).__name__}") from None
    if isinstance(count, bool) or value < 0:
        raise ValueError(f"count: expected an integer, at least 0, got {count}")
    return value


def check_lengths(lengths: ArrayLike, m: int, n: int) -> np.ndarray:
    """Check how many of n keys each of m queries sees; int64 (m,)."""
    array = as_array(lengths, "lengths")
    if array.dtype.kind not in "iu" or array.shape != (m,):
        raise ValueError(
            f"lengths: expected integers of shape ({m},), got {array.dtype} {array.shape}"
        )
    outside = np.flatnonzero((array < 0) | (array > n))
    if outside.size:
        raise ValueError(f"lengths: expected 0 … {n}, got {array[outside[0]]} in row {outside[0]}")
    return array.astype(np.int64)


def check_rule(rule: object) -> None:
    """Check that `rule` is one."""
    if not isinstance(rule, Rule):
        raise TypeError(f"rule: expected TopR, Threshold, Mass, Error or Sampled, got {rule!r}")


def check_values(values: np.ndarray, name: str = "value") -> None:
    """Check that weighted sums of `values` stay within float64."""
    largest = float(np.abs(values).max(initial=0.0))
    if largest > LARGEST_VALUE:
        raise ValueError(f"{name}: expected magnitudes up to {LARGEST_VALUE}, got {largest}")


def check_output_dtype(dtype: DTypeLike) -> np.dtype:
    """Check a float dtype of at most 64 bits."""
    wanted = np.dtype(dtype)
    if wanted.name != "bfloat16" and (wanted.kind != "f" or wanted.itemsize > 8):
        raise TypeError(f"dtype: expected a float of at most 64 bits, got {wanted}")
    return wanted


def check_real(value: float, name: str) -> float:
    """Return a number as a float64, not necessarily finite."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: expected a number, got {value!r}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name}: expected a number that float64 holds, got {value}") from None


def check_heads(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> None:
    """Check that shapes (..., heads, length, head_dim) fit together, as torch has them."""
    for array, name in ((query, "query"), (key, "key"), (value, "value")):
        if array.ndim < 2:
            raise ValueError(
                f"{name}: expected shape (..., heads, length, dim), got shape {array.shape}"
            )
    if not query.ndim == key.ndim == value.ndim:
        raise ValueError(
            "query, key, value: expected as many axes each, got shapes "
            f"{query.shape}, {key.shape}, {value.shape}"
        )
    if key.shape[:-1] != value.shape[:-1]:
        raise ValueError(
            f"value: expected shape {key.shape[:-1]} + (value_dim,) as of key, got {value.shape}"
        )
    for array, name in ((key, "key"), (value, "value")):
        if array.shape[-1] == 0:
            raise ValueError(f"{name}: expected shape (..., d) with d >= 1, got {array.shape}")
    if query.shape[-1] != key.shape[-1]:
        raise ValueError(
            f"query: expected head_dim {key.shape[-1]} as of key, got {query.shape[-1]}"
        )
    if query.shape[:-3] != key.shape[:-3]:
        raise ValueError(
            f"query: expected batch shape {key.shape[:-3]} as of key, got {query.shape[:-3]}"
        )
    heads, key_heads = (query.shape[-3], key.shape[-3]) if query.ndim > 2 else (1, 1)
    if heads % key_heads if key_heads else heads:
        raise ValueError(
            f"query: expected a multiple of key's {key.shape[-3]} heads, got {query.shape[-3]}"
        )


def as_heads(array: ArrayLike) -> np.ndarray:
    """`array` with its leading axes, batch and heads, made one: (heads, length, dim)."""
    array = np.asarray(array)
    return array.reshape(math.prod(array.shape[:-2]), *array.shape[-2:])
