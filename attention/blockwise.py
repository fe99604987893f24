"""Dense softmax attention in float64, block by block: any mask, any bias, memory of one block.

For rows whose masks have nothing in common. Every visible key is read, so what is left of the
error is rounding, and that is bounded (`bounds.py`; nothing is missed, tau = 0). The running
maximum is that of Milakov and Gimelshein (arXiv 1805.02867): when a block raises it, what was
summed before is scaled down by exp of the difference.
"""

from typing import NamedTuple

import numpy as np

from . import bounds
from .inputs import LARGEST_SCORE, check_values

ROWS = 256
"""Queries of a block."""

KEYS = 4096
"""Keys of a block: its scores take 8 MB."""

LARGE_VALUE = 1e280
"""Beyond this, sums over the keys could overflow."""

SHRUNK = 2.0**-64
"""What such values are multiplied by."""


class _Sums(NamedTuple):
    """Of one block of queries, in units of exp(top)."""

    top: np.ndarray  # (m,)
    mass: np.ndarray  # (m,)
    output: np.ndarray  # (m, value_dim)


def masked_softmax(
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    *,
    scale: float,
    masks: np.ndarray,
    pattern: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Softmax attention of rows that each have a mask or a bias of their own.

    Parameters
    ----------
    query : ndarray, shape (m, head_dim)
    key : ndarray, shape (n, head_dim)
    value : ndarray, shape (n, value_dim)
        Finite floats.
    scale : float
        Of scores; positive.
    masks : ndarray, shape (patterns, n)
        Booleans, true for keys that take part, or floats that are added to scores: finite or
        ``-inf``.
    pattern : ndarray of int64, shape (m,)
        Which row of `masks` each query has.

    Returns
    -------
    output : ndarray of float64, shape (m, value_dim)
        0 where every key is masked.
    bound : ndarray of float64, shape (m,)
        For every coordinate, ``|output - exact| <= bound``: rounding alone.

    Raises
    ------
    ValueError
        Scores or values that could overflow.

    Notes
    -----
    O(m n (head_dim + value_dim)) time by matrix products; O(1) memory beside the output.

    Biases are taken relative to a row's largest, so that a row with nothing but huge negative ones
    keeps the differences between its scores.

    Examples
    --------
    >>> import numpy as np
    >>> from attention.blockwise import masked_softmax
    >>> masks = np.array([[True, False], [True, True], [False, False]])
    >>> output, bound = masked_softmax(
    ...     np.zeros((3, 1)),
    ...     np.ones((2, 1)),
    ...     np.array([[3.0], [5.0]]),
    ...     scale=1.0,
    ...     masks=masks,
    ...     pattern=np.arange(3),
    ... )
    >>> output.tolist(), bool((bound < 1e-12).all())
    ([[3.0], [4.0], [0.0]], True)
    """
    check_values(value)
    norms, key_norm = bounds.norms(query), float(bounds.norms(key).max(initial=0.0))
    with np.errstate(over="ignore"):
        reach = norms * key_norm * max(scale, 1.0)
    if not reach.max(initial=0.0) < LARGEST_SCORE:
        raise ValueError(f"query: expected scores below {LARGEST_SCORE}, got up to {reach.max()}")
    output, mass = np.zeros((len(query), value.shape[1])), np.zeros(len(query))
    for a in range(0, len(query), ROWS):
        rows = slice(a, a + ROWS)
        output[rows], mass[rows] = _attend(query[rows], key, value, scale, masks, pattern[rows])
    errors = bounds.score_error(norms, key_norm, scale, key.shape[1])
    # Twice, for rescaling rounds score differences once more.
    errors += 746.0 * bounds.UNIT
    if masks.dtype != np.bool_:
        # Keys that have weight lie within exp's range of the best: |bias| <= 746 + 2 reach.
        errors += 4.0 * bounds.UNIT * (800.0 + 4.0 * reach)
    return output, _certify(output, mass, errors, len(key), bounds.value_range(value))


def _attend(
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    scale: float,
    masks: np.ndarray,
    pattern: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Outputs and masses of a block of queries."""
    m, query = len(query), query.astype(np.float64)
    shrink = SHRUNK if float(np.abs(value).max(initial=0.0)) > LARGE_VALUE else 1.0
    levels = _levels(masks, pattern)
    sums = _Sums(np.full(m, -np.inf), np.zeros(m), np.zeros((m, value.shape[1])))
    for c in range(0, len(key), KEYS):
        part = slice(c, c + KEYS)
        scores = (query @ key[part].T.astype(np.float64)) * scale
        _mask(scores, masks[pattern, part], levels)
        sums = _add(sums, scores, value[part].astype(np.float64) * shrink)
    empty = sums.mass == 0.0
    return sums.output / np.where(empty, 1.0, sums.mass)[:, None] / shrink, sums.mass


def _levels(masks: np.ndarray, pattern: np.ndarray) -> np.ndarray:
    """Largest bias of each row, 0 if it has none; (m,)."""
    if masks.dtype == np.bool_:
        return np.zeros(len(pattern))
    used, places = np.unique(pattern, return_inverse=True)
    largest = np.array([masks[p].max(initial=-np.inf) for p in used], np.float64)
    return np.where(np.isneginf(largest), 0.0, largest)[places]


def _mask(scores: np.ndarray, mask: np.ndarray, levels: np.ndarray) -> None:
    """Mask, or add the biases to, a block of scores, in place."""
    if mask.dtype == np.bool_:
        scores[~mask] = -np.inf
        return
    with np.errstate(over="ignore"):
        scores += mask.astype(np.float64) - levels[:, None]


def _add(sums: _Sums, scores: np.ndarray, values: np.ndarray) -> _Sums:
    """Sums with a block of keys more."""
    top = np.maximum(sums.top, scores.max(axis=1, initial=-np.inf))
    base = np.where(np.isneginf(top), 0.0, top)
    before = np.exp(sums.top - base)
    scores -= base[:, None]
    weights = np.exp(scores, out=scores)
    return _Sums(
        top,
        sums.mass * before + weights.sum(axis=1),
        sums.output * before[:, None] + weights @ values,
    )


def _certify(
    output: np.ndarray,
    mass: np.ndarray,
    errors: np.ndarray,
    n: int,
    values: bounds.ValueRange,
) -> np.ndarray:
    """Bounds on the rounding of outputs; 0 for rows without a key."""
    # Each block rounds what came before some ten times: exp, its argument, products, sums.
    terms = np.full(len(mass), n + 16 * (n // KEYS + 1))
    drift = bounds.weight_drift(mass, errors, terms)
    share = np.divide(drift, mass, out=np.ones_like(mass), where=mass > drift)
    bound = bounds.output_bound(output, np.zeros_like(mass), share, terms, values)
    return np.where(mass == 0.0, 0.0, bound)
