"""scaled_dot_product_attention as torch defines it, straight from its definition, in float64."""

import math

import numpy as np


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
