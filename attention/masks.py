"""Attention masks: which queries share one, and what it leaves of the keys.

A mask that many rows share is a set of keys, and the rows attend to that set alone. A *run*, keys
first … last - 1, needs not even that: rows whose runs start alike see prefixes of the same keys,
which covers padding and causal masks of any kind. A bias that rows share is one more coordinate of
the keys: scale <q, k> + b = scale <(q, 1 / scale), (k, b)>, so the keys that matter are a
half-space still.
"""

import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np

NEGLIGIBLE = 800.0
"""A key that many nats below the best has no weight in float64: exp(-746) is 0."""


class Masks(NamedTuple):
    """Distinct rows of a mask, and who has which."""

    rows: np.ndarray  # (patterns, n) bool, or float with -inf
    pattern: np.ndarray  # (*batch, length) int64


class Kept(NamedTuple):
    """Keys that a row of a mask leaves."""

    keys: np.ndarray  # ascending, int64
    bias: np.ndarray | None  # of each, float64; None if they are all alike

    @property
    def run(self) -> tuple[int, int] | None:
        """First key and one past the last if nothing between them is missing, nor biased."""
        first, last = (int(self.keys[0]), int(self.keys[-1]) + 1) if self.keys.size else (0, 0)
        return (first, last) if self.bias is None and last - first == self.keys.size else None


def unrepeated(mask: np.ndarray) -> np.ndarray:
    """`mask` with one of everything that was broadcast along an axis but the last; a view.

    Examples
    --------
    >>> import numpy as np
    >>> from attention.masks import unrepeated
    >>> unrepeated(np.broadcast_to(np.ones((5, 1, 7)), (5, 6, 7))).shape
    (5, 1, 7)
    """
    steps = zip(mask.strides[:-1], mask.shape, strict=False)
    return mask[tuple(slice(0, 1) if step == 0 and size else slice(None) for step, size in steps)]


def distinct(mask: np.ndarray, batch: tuple[int, ...], length: int, n: int) -> Masks:
    """Find the distinct rows of a mask.

    Parameters
    ----------
    mask : ndarray, shape that broadcasts to (*batch, length, n)
        Booleans or floats; at least two axes.
    batch : tuple of int
    length, n : int

    Returns
    -------
    Masks
        O(size of `mask`) time, and no copy of it.

    Examples
    --------
    >>> import numpy as np
    >>> from attention.masks import distinct
    >>> masks = distinct(np.array([[True, False], [True, True], [True, False]]), (), 3, 2)
    >>> masks.rows.tolist(), masks.pattern.tolist()
    ([[True, False], [True, True]], [0, 1, 0])
    """
    mask = unrepeated(mask)
    rows = mask.reshape(math.prod(mask.shape[:-1]), mask.shape[-1])
    pattern = np.empty(len(rows), np.int64)
    chosen: list[int] = []
    alike: dict[int, list[int]] = {}
    for i, row in enumerate(rows):
        places = alike.setdefault(hash(row.tobytes()), [])
        found = next((p for p in places if np.array_equal(rows[chosen[p]], row)), len(chosen))
        if found == len(chosen):
            places.append(found)
            chosen.append(i)
        pattern[i] = found
    return Masks(
        np.broadcast_to(rows if len(chosen) == len(rows) else rows[chosen], (len(chosen), n)),
        np.broadcast_to(pattern.reshape(mask.shape[:-1]), (*batch, length)),
    )


def kept(row: np.ndarray, reach: np.ndarray) -> Kept:
    """Keys that a row of a mask leaves, for queries whose scores are within ± `reach`.

    Parameters
    ----------
    row : ndarray, shape (n,)
        Booleans, or biases: finite or ``-inf``.
    reach : ndarray, shape (n,)
        Largest magnitude a score of each key can have.

    Returns
    -------
    Kept
        Biases lose what they have in common where that is exact. Keys whose weight is certainly
        below exp(-800) of the best one's are left out: finite stand-ins for -inf are such.

    Examples
    --------
    >>> import numpy as np
    >>> from attention.masks import kept
    >>> left = kept(np.array([0.0, -1e9, 0.0, -np.inf]), np.ones(4))
    >>> left.keys.tolist(), left.bias, left.run
    ([0, 2], None, None)
    """
    if row.dtype == np.bool_:
        return Kept(np.flatnonzero(row), None)
    bias = row.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        best = (bias - reach).max(initial=-np.inf)
        keys = np.flatnonzero((bias > -np.inf) & (bias + reach >= best - NEGLIGIBLE))
        bias = _centred(bias[keys])
    return Kept(keys, bias if bias.any() else None)


def _centred(bias: np.ndarray) -> np.ndarray:
    """Subtract the largest bias if that loses nothing.

    Where all are within a factor of 2, differences are exact (Sterbenz).
    """
    if not bias.size or 2.0 * np.ptp(bias) > np.abs(bias).max():
        return bias
    return bias - bias.max()


def with_bias(
    query: np.ndarray, key: np.ndarray, bias: np.ndarray, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """Queries and keys whose scaled scores are scale <q, k> + bias.

    Parameters
    ----------
    query : ndarray, shape (m, head_dim)
    key : ndarray, shape (n, head_dim)
    bias : ndarray of float64, shape (n,)
    scale : float
        Positive, and not so small that 1 / scale overflows.

    Returns
    -------
    query, key : ndarray, shapes (m, head_dim + e) and (n, head_dim + e)
        e = 1 where 1 / scale is a float64, else 2: the second coordinate holds what the first
        rounds off.

    Examples
    --------
    >>> import numpy as np
    >>> from attention.masks import with_bias
    >>> q, k = with_bias(np.ones((1, 1)), np.ones((2, 1)), np.array([0.0, 3.0]), 0.5)
    >>> (0.5 * q @ k.T).tolist()
    [[0.5, 3.5]]
    """
    inverse = 1 / Fraction(scale)
    high = float(inverse)
    low = float(inverse - Fraction(high))
    weights = [high, low] if low else [high]
    with np.errstate(over="ignore"):
        narrow = bias.astype(key.dtype)
    column = narrow if np.array_equal(narrow, bias) else bias
    rows = np.broadcast_to(np.array(weights), (len(query), len(weights)))
    columns = np.repeat(column[:, None], len(weights), axis=1)
    return np.hstack([query, rows]), np.hstack([key, columns])
