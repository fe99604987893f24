"""Attention over rows of a batch that begin at different tokens, put together again."""

from collections.abc import Sequence

import numpy as np

from ..attended import Attended
from ..heads import softmax_attention
from ..rules import Rule

Part = tuple[np.ndarray, int, Attended]
"""Rows of the batch, the first of their queries that is there, and what those attended to."""


def gathered(query: np.ndarray, parts: Sequence[Part]) -> Attended:
    """Outputs of all rows (batch, heads, length); 0 for queries that are in no part."""
    if len(parts) == 1 and parts[0][1] == 0:
        return parts[0][2]
    shape = query.shape[:3]
    one = parts[0][2].output
    output = np.zeros((*shape, one.shape[-1]), one.dtype)
    lse, bound, lse_bound = np.full(shape, -np.inf), np.zeros(shape), np.zeros(shape)
    reported, sampled = np.zeros(shape, np.int64), np.zeros(shape, np.bool_)
    whole = Attended(output, lse, bound, reported, lse_bound, sampled)
    for rows, first, got in parts:
        for field in (*Attended._fields, "lse_bound", "sampled"):
            getattr(whole, field)[rows, :, first:] = getattr(got, field)
    return whole


def attend_rows(
    query: np.ndarray,
    key: np.ndarray,
    value: np.ndarray,
    starts: Sequence[int],
    rule: Rule,
    scale: float,
    causal: bool,
) -> Attended:
    """Attention of the last tokens' queries, each row of the batch from its first token on.

    Parameters
    ----------
    query : ndarray, shape (batch, heads, length, head_dim)
    key, value : ndarray, shape (batch, kv_heads, n, dim)
    starts : sequence of int
        First token of each row.
    rule : TopR, Threshold, Mass, Error or Sampled
    scale : float
        Of scores.
    causal : bool
        Whether queries see only tokens up to their own.

    Returns
    -------
    Attended
        Queries of padding see nothing: 0, with a bound of 0.

    Examples
    --------
    >>> import numpy as np
    >>> from attention import Error
    >>> from attention.huggingface.rows import attend_rows
    >>> rng = np.random.default_rng(0)
    >>> query, key, value = rng.standard_normal((3, 2, 1, 5, 4))
    >>> got = attend_rows(query, key, value, [0, 2], Error(1e-3), 0.5, True)
    >>> got.reported.tolist()
    [[[1, 2, 3, 4, 5]], [[0, 0, 1, 2, 3]]]
    """
    length, n = query.shape[2], key.shape[2]
    places = np.asarray(starts)
    parts = []
    for start in np.unique(places):
        rows = np.flatnonzero(places == start)
        first = max(0, start - (n - length)) if causal else 0
        parts.append(
            (
                rows,
                int(first),
                softmax_attention(
                    query[rows, :, first:],
                    key[rows, :, start:],
                    value[rows, :, start:],
                    rule=rule,
                    scale=scale,
                    causal="lower_right" if causal else None,
                ),
            )
        )
    return gathered(query, parts)


def seen(starts: Sequence[int], length: int, n: int, causal: bool) -> np.ndarray:
    """Keys that each query of each row sees, int64 (batch, length)."""
    ends = np.arange(n - length + 1, n + 1) if causal else np.full(length, n)
    return np.maximum(ends - np.asarray(starts)[:, None], 0)
