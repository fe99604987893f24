"""TokenIndex: the tokens of one layer of a model, each row of the batch without its padding."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from ..attended import Attended
from ..cache import KVCache
from ..rules import Rule
from .rows import gathered


class _Group(NamedTuple):
    """Rows of the batch that start alike, and what is indexed of them."""

    rows: np.ndarray  # (r,) int64
    start: int
    cache: KVCache  # of batch_shape (r,)


class TokenIndex:
    """One `KVCache` for all rows of the batch that have equally many tokens of padding.

    Parameters
    ----------
    starts : sequence of int
        First token of each row of the batch that is none of padding.
    scale : float
        Of scores.
    kv_heads, head_dim, value_dim : int
    dtype : {float32, float64}
        That keys and values are kept in.

    Examples
    --------
    >>> import numpy as np
    >>> from attention import Error
    >>> from attention.huggingface.token_index import TokenIndex
    >>> rng = np.random.default_rng(0)
    >>> key, value = rng.standard_normal((2, 2, 1, 50, 8), dtype=np.float32)
    >>> index = TokenIndex([0, 20], 0.5, kv_heads=1, head_dim=8, value_dim=8, dtype=np.float32)
    >>> index.extend(key, value)
    >>> got = index.attend(rng.standard_normal((2, 4, 1, 8), dtype=np.float32), Error(1e-3))
    >>> got.output.shape, len(index)
    ((2, 4, 1, 8), 50)
    """

    def __init__(
        self,
        starts: Sequence[int],
        scale: float,
        *,
        kv_heads: int,
        head_dim: int,
        value_dim: int,
        dtype: DTypeLike,
    ) -> None:
        self.starts, self.scale = list(starts), scale
        self._count = 0
        self._groups = []
        for start in sorted(set(self.starts)):
            rows = np.flatnonzero(np.equal(self.starts, start))
            cache = KVCache(head_dim, value_dim, kv_heads, len(rows), dtype=dtype, scale=scale)
            self._groups.append(_Group(rows, start, cache))

    def __len__(self) -> int:
        """Tokens that were given, padding included."""
        return self._count

    def extend(self, key: np.ndarray, value: np.ndarray) -> None:
        """Append tokens (batch, kv_heads, t, dim), those of padding included."""
        for rows, start, cache in self._groups:
            real = slice(max(start - self._count, 0), None)
            cache.append(key[rows, :, real], value[rows, :, real])
        self._count += key.shape[2]

    def crop(self, count: int) -> None:
        """Keep `count` tokens, padding included."""
        self._count = min(self._count, count)
        for _, start, cache in self._groups:
            cache.crop(min(len(cache), max(self._count - start, 0)))

    def take(self, rows: np.ndarray) -> None:
        """Let row b of the batch be what row ``rows[b]`` was."""
        groups = []
        for members, start, cache in self._groups:
            new = np.flatnonzero(np.isin(rows, members))
            if len(new):
                cache.reorder(np.searchsorted(members, rows[new]))
                groups.append(_Group(new, start, cache))
        self._groups = groups
        self.starts = [self.starts[row] for row in rows]

    def attend(self, query: np.ndarray, rule: Rule) -> Attended:
        """Attention of the last tokens' queries (batch, heads, length, head_dim).

        Queries of padding see nothing: 0, with a bound of 0.
        """
        parts = []
        for rows, start, cache in self._groups:
            real = min(query.shape[2], max(self._count - start, 0))
            first = query.shape[2] - real
            parts.append((rows, first, cache.attend(query[rows, :, first:], rule)))
        return gathered(query, parts)
