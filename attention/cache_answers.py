"""What a cache answers: certified rows in the shape of the queries, and statistics."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from . import bounds
from .attended import Attended, certified
from .cache_inputs import Asked
from .reading import Cut, Readings

if TYPE_CHECKING:
    from .cache import KVCache


class CacheStatistics(NamedTuple):
    """What a cache holds and has read, by head: arrays (..., kv_heads)."""

    tokens: np.ndarray  # int64
    coded: np.ndarray  # int64, those with codes; all others are read by every query
    share: np.ndarray  # float64, of the keys that queries saw, those read; NaN before any query
    nbytes: np.ndarray  # int64


def certified_softmax(
    asked: Asked,
    values: bounds.ValueRange,
    cut: Cut,
    readings: Readings,
) -> Attended:
    """Certify what was read for softmax attention."""
    got = certified(readings, values, asked.dtype, errors=cut.errors, spread=cut.spread)
    return shaped(got, asked)


def certified_relu(asked: Asked, values: bounds.ValueRange, readings: Readings) -> Attended:
    """Certify what was read for ReLU attention."""
    moved = readings.drift + bounds.gamma(readings.reported + 4) * readings.mass
    return shaped(certified(readings._replace(drift=moved), values, asked.dtype), asked)


def shaped(got: Attended, asked: Asked) -> Attended:
    """Rows in the shape of the queries."""
    rows = (field.reshape(asked.shape) for field in (*got[1:], got.lse_bound, got.sampled))
    return Attended(got.output.reshape(*asked.shape, got.output.shape[-1]), *rows)


def statistics(cache: "KVCache") -> CacheStatistics:
    """Tokens, those with codes, the mean share read so far, and bytes, by head.

    Examples
    --------
    >>> import attention
    >>> cache = attention.KVCache(1, num_kv_heads=2, dtype=float, scale=1.0)
    >>> cache.append([[[0.0], [1.0]]] * 2, [[[5.0], [7.0]]] * 2)
    >>> got = cache.attend([[[1.0]]] * 2)
    >>> cache.statistics().tokens, cache.statistics().share
    (array([2, 2]), array([1., 1.]))
    """
    heads, (seen, read) = cache._heads.heads, cache._heads.seen_and_read
    share = np.where(seen > 0, read / np.maximum(seen, 1), np.nan)
    columns = (
        np.full(heads, len(cache)),
        np.full(heads, cache._heads.coded),
        share,
        np.full(heads, cache.nbytes // heads),
    )
    return CacheStatistics(*(column.reshape(cache._shape) for column in columns))


def explain(cache: "KVCache") -> str:
    """What is held and how it is read, in a few lines.

    Examples
    --------
    >>> import attention
    >>> cache = attention.KVCache(1, num_kv_heads=2, dtype=float, scale=1.0)
    >>> cache.append([[[0.0], [1.0]]] * 2, [[[5.0], [7.0]]] * 2)
    >>> print(cache.explain())
    2 tokens in 2 heads of 1 dimensions, float64, 0.0 MB
    0 with 8-bit codes, which tell a query what to read
    2 without, which every query reads
    queries have read nothing yet
    """
    tokens, heads, coded = len(cache), cache._heads.heads, cache._heads.coded
    seen, read = (int(count.sum()) for count in cache._heads.seen_and_read)
    share = f"{read / seen:.1%} of the keys they saw" if seen else "nothing yet"
    return (
        f"{tokens} tokens in {heads} heads of {cache._head_dim} dimensions, {cache._dtype}, "
        f"{cache.nbytes / 1e6:.1f} MB\n"
        f"{coded} with 8-bit codes, which tell a query what to read\n"
        f"{tokens - coded} without, which every query reads\n"
        f"queries have read {share}"
    )
