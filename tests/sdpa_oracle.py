"""scaled_dot_product_attention as torch defines it, in float64; and what is held against it."""

import math

import numpy as np

from attention import Error, scaled_dot_product_attention

TIGHT = Error(1e-9)


def _repeated(array, heads):
    return np.repeat(array, heads // array.shape[-3], axis=-3)


def attention(query, key, value, mask=None, *, causal=False, scale=None, group=False):
    """Softmax attention of float64 copies; rows without a key are 0."""
    q, k, v = (np.asarray(x).astype(np.float64) for x in (query, key, value))
    if group:
        k, v = (_repeated(x, q.shape[-3]) for x in (k, v))
    scores = q @ np.swapaxes(k, -1, -2) * (1.0 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if causal:
        mask = np.tri(*scores.shape[-2:], dtype=bool)
    if mask is not None:
        mask = np.asarray(mask)
        if mask.dtype == bool:
            scores = np.where(mask, scores, -np.inf)
        else:
            # What all biases of a row have in common would drown the scores.
            mask = mask.astype(np.float64)
            level = mask.max(axis=-1, keepdims=True, initial=-np.inf)
            with np.errstate(over="ignore"):
                scores = scores + (mask - np.where(np.isneginf(level), 0.0, level))
    top = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isneginf(top), 0.0, top))
    total = weights.sum(axis=-1, keepdims=True)
    return weights @ v / np.where(total == 0.0, 1.0, total)


def arrays(*shapes, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def assert_attends(query, key, value, mask=None, *, rule=TIGHT, within=2e-9, **options):
    """As the definition has it; `group` and `causal` stand for torch's names."""
    got = scaled_dot_product_attention(
        query,
        key,
        value,
        mask,
        is_causal=options.get("causal", False),
        enable_gqa=options.get("group", False),
        scale=options.get("scale"),
        rule=rule,
    )
    want = attention(query, key, value, mask, **options)
    assert isinstance(got, np.ndarray)
    assert (got.shape, got.dtype) == (want.shape, np.asarray(query).dtype)
    assert np.abs(got.astype(np.float64) - want).max(initial=0.0) <= within
    return got
