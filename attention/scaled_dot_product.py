"""scaled_dot_product_attention: torch's function, by attention that reads only what matters.

Heads that read the same keys and values are asked together. What a mask leaves is attended to as
`masks.py` has it, or, where too few rows share it and any way within eps will do, read in full by
`blockwise.py`.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from . import bounds, interop
from .blockwise import masked_softmax
from .decode import Decoder
from .heads import softmax_attention
from .inputs import check_rule
from .masks import Kept, distinct, kept, with_bias
from .rules import Error, Rule, Sampled
from .sdpa_inputs import Inputs, check_any_scale, check_inputs, check_options

DEFAULT_RULE = Error(1e-3)

SHARED_ROWS = 256
"""Rows from which an index of what their mask leaves can pay, where any way within eps will do.

Measured on one core, float32: break-even there on heads with sharp scores (n = 7,168, d = 32, and n
= 32,768, d = 64). Reading flat heads in full stays up to twice as fast.
"""

LEAST_SCALE = 2.0**-64
"""Below this, the coordinate that goes with a bias would be too large beside the others."""


class _Head(NamedTuple):
    """Keys and values that some queries share, and how they are asked."""

    key: np.ndarray  # (n, head_dim)
    value: np.ndarray  # (n, value_dim)
    scale: float
    rule: Rule


def scaled_dot_product_attention(
    query: ArrayLike,
    key: ArrayLike,
    value: ArrayLike,
    attn_mask: ArrayLike | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    rule: Rule = DEFAULT_RULE,
) -> Any:
    """Softmax attention with the arguments, shapes and result of torch's function of that name.

    Parameters
    ----------
    query : array_like, shape (..., L, E)
    key : array_like, shape (..., S, E)
    value : array_like, shape (..., S, Ev)
        Finite floats of one dtype and one library: numpy, torch, or any that speaks DLPack. Leading
        axes broadcast. Arrays on a device are copied to the host, and the result is copied back.
    attn_mask : array_like, shape that broadcasts to (..., L, S), optional
        At least two axes. Booleans: true for keys that take part. Floats: added to the scores;
        finite or ``-inf``.
    dropout_p : float, optional
        0; there is no dropout.
    is_causal : bool, optional
        Query i sees keys 0 … i ("upper_left"). Not with `attn_mask`.
    scale : float, optional
        Of scores, finite; 1 / sqrt(E) if not given.
    enable_gqa : bool, optional
        Query head h, of axis -3, reads key head h // (Hq / Hk), and likewise for values.
    rule : TopR, Threshold, Mass, Error or Sampled, optional
        When a row has read enough. Keyword only.

    Returns
    -------
    array, shape (..., L, Ev)
        Of the library, dtype and device of `query`. A row that sees no key is 0.

    Raises
    ------
    TypeError
        Not floats, dtypes or libraries that differ, a mask of integers, not a rule.
    ValueError
        Shapes that do not fit; NaN or infinities; dropout; a mask and `is_causal` at once; a tensor
        of torch that asks for its gradient; scores beyond 1e300.

    See Also
    --------
    softmax_attention : returns a bound on the error of every row, too.

    Notes
    -----
    What a mask leaves is indexed once for all rows of a head that share it; masks that are runs of
    keys (padding, causal masks of any offset) need no index of their own, and a bias is one more
    coordinate of the keys. With `Error` or `Sampled`, where fewer than 256 rows share a mask, they
    are read in full instead, in float64: their error is that of rounding. Any other rule gets what
    it asks for of every row, which takes an index a row where each has a mask of its own.

    ``Error(eps)`` holds against real arithmetic on the given arrays, before a result of 16 bits is
    rounded to its dtype, wherever float64 can tell: where rounding alone may exceed eps, all keys
    are read, and only `softmax_attention` says what was reached. So does ``Sampled(eps, delta)``,
    for each row with probability 1 - delta at least. Where biases are added, keys that are 800 nats
    below the best of a row, whatever the query, count as masked.

    O(S E) a head for an index, and what the rule has read; O(L S (E + Ev)) for the rows that are
    read in full, in blocks of some 30 MB.

    Examples
    --------
    >>> import numpy as np, attention
    >>> rng = np.random.default_rng(0)
    >>> q, k, v = rng.standard_normal((3, 2, 4, 100, 16), dtype=np.float32)
    >>> padding = np.arange(100) < np.array([[[[100]]], [[[60]]]])
    >>> out = attention.scaled_dot_product_attention(q, k, v, padding)
    >>> out.shape, out.dtype
    ((2, 4, 100, 16), dtype('float32'))
    >>> short, _ = attention.dense.softmax(q[1], k[1, :, :60], v[1, :, :60])
    >>> bool(np.abs(out[1] - short).max() <= 1e-3)
    True
    """
    check_rule(rule)
    check_options(dropout_p, is_causal, enable_gqa, attn_mask)
    inputs = check_inputs(query, key, value, attn_mask, bool(enable_gqa))
    factor = check_any_scale(scale, inputs.key.shape[-1])
    if factor <= 0.0:
        # The sign goes to the queries; without one, all scores are 0.
        inputs = inputs._replace(query=inputs.query * np.sign(factor).astype(inputs.query.dtype))
        factor = -factor or 1.0
    shape = (len(inputs.reads), inputs.query.shape[1], inputs.value.shape[2])
    result = np.zeros(shape, inputs.value.dtype)
    if result.size and inputs.key.shape[1]:
        _fill(result, inputs, factor, rule, bool(is_causal))
    return interop.to_kind_of(query, result.reshape(*inputs.batch, *shape[1:]))


def _fill(result: np.ndarray, inputs: Inputs, scale: float, rule: Rule, causal: bool) -> None:
    """Attend with each pair of key and value heads, for all queries that read it."""
    masks = None
    if inputs.mask is not None:
        masks = distinct(inputs.mask, inputs.batch, result.shape[1], inputs.key.shape[1])
        pattern = masks.pattern.reshape(len(result), result.shape[1])
    pairs, places = np.unique(inputs.reads[:, 1:], axis=0, return_inverse=True)
    for i, (k, v) in enumerate(pairs):
        members = np.flatnonzero(places.ravel() == i)
        queries = inputs.query[inputs.reads[members, 0]]
        head = _Head(inputs.key[k], inputs.value[v], scale, rule)
        if masks is None:
            result[members] = softmax_attention(
                queries,
                head.key[None],
                head.value[None],
                rule=rule,
                scale=scale,
                causal="upper_left" if causal else None,
            ).output
            continue
        rows = queries.reshape(-1, queries.shape[-1])
        outputs = _masked(rows, head, masks.rows, pattern[members].ravel())
        result[members] = outputs.reshape(queries.shape[:2] + outputs.shape[1:])


def _masked(queries: np.ndarray, head: _Head, masks: np.ndarray, pattern: np.ndarray) -> np.ndarray:
    """Attend with queries (m, head_dim) that each have a row of `masks`; (m, value_dim)."""
    output = np.zeros((len(queries), head.value.shape[1]), head.value.dtype)
    least = SHARED_ROWS if isinstance(head.rule, Error | Sampled) else 1
    reach = _reach(queries, head)
    runs, rest = defaultdict(list), []
    for p, rows in _by_pattern(pattern):
        left = kept(masks[p], reach)
        if left.run is not None:
            first, last = left.run
            runs[first].append((rows, last))
        elif len(rows) >= least and (left.bias is None or head.scale >= LEAST_SCALE):
            output[rows] = _of_set(queries[rows], head, left)
        else:
            rest.append(rows)
    for first, parts in runs.items():
        rows = np.concatenate([members for members, _ in parts])
        if len(rows) >= least:
            lasts = np.concatenate([np.full(len(members), last) for members, last in parts])
            output[rows] = _of_prefixes(queries[rows], head, first, lasts)
        else:
            rest.append(rows)
    if rest:
        rows = np.sort(np.concatenate(rest))
        output[rows], _ = masked_softmax(
            queries[rows],
            head.key,
            head.value,
            scale=head.scale,
            masks=masks,
            pattern=pattern[rows],
        )
    return output


def _reach(queries: np.ndarray, head: _Head) -> np.ndarray:
    """Largest magnitude the score of each key can have, (n,)."""
    with np.errstate(over="ignore"):
        largest = bounds.norms(queries).max(initial=0.0) * head.scale
        return bounds.norms(head.key) * largest


def _by_pattern(pattern: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each pattern, and who has it."""
    order = np.argsort(pattern, kind="stable")
    used, starts = np.unique(pattern[order], return_index=True)
    yield from zip(used.tolist(), np.split(order, starts[1:]), strict=True)


def _of_prefixes(queries: np.ndarray, head: _Head, first: int, lasts: np.ndarray) -> np.ndarray:
    """Attend to keys from `first` on, each query up to its own last; (m, value_dim)."""
    part = slice(first, int(lasts.max()))
    if (lasts == part.stop).all():
        return _whole(queries, head.key[part], head.value[part], head)
    decoder = Decoder(head.key[part], head.value[part], scale=head.scale, structure="scan")
    got = decoder.softmax(queries, head.rule, lengths=lasts - first, dtype=head.value.dtype)
    return got.output


def _of_set(queries: np.ndarray, head: _Head, left: Kept) -> np.ndarray:
    """Attend to the keys that a mask leaves, with their biases; (m, value_dim)."""
    key, value = head.key[left.keys], head.value[left.keys]
    if left.bias is not None:
        queries, key = with_bias(queries, key, left.bias, head.scale)
    return _whole(queries, key, value, head)


def _whole(queries: np.ndarray, key: np.ndarray, value: np.ndarray, head: _Head) -> np.ndarray:
    return softmax_attention(queries, key, value, rule=head.rule, scale=head.scale).output
