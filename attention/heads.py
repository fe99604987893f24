"""softmax_attention and relu_attention: arrays of many heads, shaped as torch has them.

Query head h reads key head h // (heads / kv_heads), so the queries of a group share one index.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from halfspace.inputs import as_array

from .attended import Attended
from .decode import Decoder, choose
from .dense import visible
from .inputs import as_heads, check_heads, check_relu, check_rule, output_dtype
from .rules import Error, Rule

INDEX_QUERIES = 64
"""Queries of a head from which building an index pays."""


def softmax_attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    rule: Rule | None = None,
    scale: float | None = None,
    causal: str | None = None,
) -> Attended:
    """Softmax attention that reads only the keys a rule asks for, with a bound on its error.

    Parameters
    ----------
    query : array_like, shape (..., heads, length, head_dim)
    key : array_like, shape (..., kv_heads, n, head_dim)
    value : array_like, shape (..., kv_heads, n, value_dim)
        Finite floats; `heads` a multiple of `kv_heads`. Two axes stand for a single head.
    rule : TopR, Threshold, Mass, Error or Sampled, optional
        When a row has read enough; ``Error(1e-3)`` if not given.
    scale : float, optional
        Of scores; 1 / sqrt(head_dim) if not given. Positive.
    causal : {None, "upper_left", "lower_right"}, optional
        Query i sees keys 0 … i, or 0 … n - length + i.

    Returns
    -------
    Attended
        output (..., heads, length, value_dim) in the promoted dtype of the inputs; lse, bound and
        reported (..., heads, length). For every coordinate ``|output - exact| <= bound``; with
        `Sampled`, where rows are `sampled`, with probability 1 - delta.

    Raises
    ------
    TypeError
        Not real numbers, not a rule.
    ValueError
        Shapes that do not fit, NaN or infinities (the row is named), a scale that is not positive,
        an unknown `causal`.

    Notes
    -----
    Algorithm 1 of arXiv 2410.10165. The indexes are built in the call, O(n head_dim) a head; to ask
    the same keys again and again, keep a `Decoder`.

    Examples
    --------
    >>> import numpy as np, attention
    >>> rng = np.random.default_rng(0)
    >>> q, k, v = rng.standard_normal((3, 2, 500, 16))
    >>> got = attention.softmax_attention(q[:, :3], k, v, rule=attention.Error(1e-2))
    >>> got.output.shape, bool((got.bound <= 1e-2).all())
    ((2, 3, 16), True)
    """
    rule = Error() if rule is None else rule
    check_rule(rule)

    def attend(decoder: Decoder, rows: np.ndarray, lengths: np.ndarray | None, dtype: np.dtype):
        return decoder.softmax(rows, rule, lengths=lengths, dtype=dtype)

    return _attend(query, key, value, scale, causal, attend)


def relu_attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    *,
    threshold: float,
    power: int = 1,
    scale: float | None = None,
    causal: str | None = None,
) -> Attended:
    """ReLU^power attention, exact: rows of max(0, scale <q, k> - threshold)^power, normalised.

    Only the keys whose score exceeds the threshold have weight, and a half-space report finds all
    of them. A row without any gives 0 with ``lse = -inf``.

    Parameters
    ----------
    query, key, value, scale, causal
        As for `softmax_attention`.
    threshold : float
        Of scaled scores; at most 1e300 in size.
    power : int, optional
        At least 1.

    Returns
    -------
    Attended
        As for `softmax_attention`; `bound` is of rounding alone, `reported` the active keys.

    Raises
    ------
    TypeError, ValueError
        As for `softmax_attention`; a threshold that is not finite, a power below 1.

    Examples
    --------
    >>> import attention
    >>> got = attention.relu_attention([[1.0]], [[1.0], [2.0]], [[3.0], [5.0]], threshold=1.0)
    >>> got.output.tolist(), got.reported.tolist()
    ([[5.0]], [1])
    """
    check_relu(threshold, power)

    def attend(decoder: Decoder, rows: np.ndarray, lengths: np.ndarray | None, dtype: np.dtype):
        return decoder.relu(rows, threshold=threshold, power=power, lengths=lengths, dtype=dtype)

    return _attend(query, key, value, scale, causal, attend)


def _structure(n: int, d: int, queries: int, causal: str | None) -> str:
    if queries < INDEX_QUERIES:
        return "scan"
    name = choose(n, d)
    # Prefixes of keys are known only to what keeps their order.
    return "cascade" if causal is not None and name == "kd_tree" else name


def _attend(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    scale: float | None,
    causal: str | None,
    attend: Callable[[Decoder, np.ndarray, np.ndarray | None, np.dtype], Attended],
) -> Attended:
    query, key, value = (
        as_array(rows, name)
        for rows, name in zip((query, key, value), ("query", "key", "value"), strict=True)
    )
    check_heads(query, key, value)
    dtype = output_dtype(query, key, value)
    (length, d), n = query.shape[-2:], key.shape[-2]
    keys, values = as_heads(key), as_heads(value)
    heads = as_heads(query)
    group = len(heads) // max(len(keys), 1)
    groups = heads.reshape(len(keys), group * length, d)
    lengths = None if causal is None else np.tile(visible(length, n, causal), group)
    structure = _structure(n, d, group * length, causal)
    shape = (len(keys), group * length)
    outputs = np.zeros((*shape, value.shape[-1]), dtype)
    lse, bound, lse_bound = np.full(shape, -np.inf), np.zeros(shape), np.zeros(shape)
    reported, sampled = np.zeros(shape, np.int64), np.zeros(shape, np.bool_)
    for h in range(len(keys)):
        decoder = Decoder(keys[h], values[h], scale=scale, structure=structure)
        got = attend(decoder, groups[h], lengths, dtype)
        outputs[h], lse[h], bound[h], reported[h] = got
        lse_bound[h], sampled[h] = got.lse_bound, got.sampled
    rows = query.shape[:-1]
    return Attended(
        outputs.reshape(*rows, value.shape[-1]),
        *(field.reshape(rows) for field in (lse, bound, reported, lse_bound, sampled)),
    )
