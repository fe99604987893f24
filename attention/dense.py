"""Dense attention in float64 (or longer): the reference that everything else is checked against.

Softmax rows are softmax(S) V with S = scale q K^T; ReLU rows are A V / sum(A) with
A = max(0, S - b)^power, and 0 where no key is active.
"""

import numpy as np
from numpy.typing import ArrayLike


def visible(length: int, n: int, causal: str | None) -> np.ndarray:
    """Keys each of `length` queries may see of n: a prefix, int64 (length,).

    Raises
    ------
    ValueError
        `causal` is not None, "upper_left" or "lower_right".

    Examples
    --------
    >>> from attention.dense import visible
    >>> visible(3, 5, "upper_left"), visible(3, 5, "lower_right")
    (array([1, 2, 3]), array([3, 4, 5]))
    """
    if causal is None:
        return np.full(length, n, np.int64)
    if not isinstance(causal, str) or causal not in ("upper_left", "lower_right"):
        raise ValueError(f'causal: expected None, "upper_left" or "lower_right", got {causal!r}')
    shift = n - length if causal == "lower_right" else 0
    return np.clip(np.arange(1, length + 1) + shift, 0, n)


def _scores(
    query: ArrayLike, key: ArrayLike, scale: float | None, causal: str | None, dtype: type
) -> tuple[np.ndarray, np.ndarray]:
    q, k = np.asarray(query).astype(dtype), np.asarray(key).astype(dtype)
    if q.ndim > 2 and q.shape[-3] != k.shape[-3]:
        k = np.repeat(k, q.shape[-3] // k.shape[-3], axis=-3)
    scale = dtype(scale if scale is not None else 1.0 / np.sqrt(q.shape[-1]))
    scores = (q @ np.swapaxes(k, -1, -2)) * scale
    lengths = visible(q.shape[-2], k.shape[-2], causal)
    return scores, np.arange(k.shape[-2]) < lengths[:, None]


def _average(weights: np.ndarray, value: ArrayLike, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    v = np.asarray(value).astype(dtype)
    if v.ndim > 2 and weights.shape[-3] != v.shape[-3]:
        v = np.repeat(v, weights.shape[-3] // v.shape[-3], axis=-3)
    total = weights.sum(-1)
    output = (weights @ v) / np.where(total == 0, 1, total)[..., None]
    return output, total


def softmax(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    scale: float | None = None,
    causal: str | None = None,
    dtype: type = np.float64,
) -> tuple[np.ndarray, np.ndarray]:
    """Softmax attention over all visible keys.

    Parameters
    ----------
    query : array_like, shape (..., heads, length, head_dim)
    key, value : array_like, shapes (..., kv_heads, n, head_dim) and (..., kv_heads, n, value_dim)
        Query head h reads key head h // (heads / kv_heads).
    scale : float, optional
        1 / sqrt(head_dim) if not given.
    causal : {None, "upper_left", "lower_right"}, optional
    dtype : type, optional
        Arithmetic: ``np.float64`` or ``np.longdouble``.

    Returns
    -------
    output : ndarray, shape (..., heads, length, value_dim)
    lse : ndarray, shape (..., heads, length)

    Examples
    --------
    >>> import numpy as np
    >>> from attention import dense
    >>> output, lse = dense.softmax([[0.0]], [[1.0], [2.0]], [[3.0], [5.0]])
    >>> output.tolist(), np.round(lse, 3).tolist()
    ([[4.0]], [0.693])
    """
    scores, seen = _scores(query, key, scale, causal, dtype)
    scores = np.where(seen, scores, -np.inf)
    top = scores.max(-1, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0)
    output, total = _average(np.exp(scores - top[..., None]), value, dtype)
    with np.errstate(divide="ignore"):
        return output, np.log(total) + top


def relu(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    threshold: float,
    power: int = 1,
    scale: float | None = None,
    causal: str | None = None,
    dtype: type = np.float64,
) -> tuple[np.ndarray, np.ndarray]:
    """ReLU^power attention over all visible keys; parameters and shapes as for `softmax`.

    Returns
    -------
    output, lse : ndarray
        Zero and ``-inf`` in rows where no score exceeds `threshold`.

    Examples
    --------
    >>> from attention import dense
    >>> output, lse = dense.relu([[1.0]], [[1.0], [2.0]], [[3.0], [5.0]], threshold=1.0)
    >>> output.tolist(), lse.tolist()
    ([[5.0]], [0.0])
    """
    scores, seen = _scores(query, key, scale, causal, dtype)
    active = np.where(seen, np.maximum(scores - dtype(threshold), 0), 0) ** power
    output, total = _average(active, value, dtype)
    with np.errstate(divide="ignore"):
        return output, np.log(total)
