"""Dense attention in float32, as users have it: what certified attention is timed against."""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

import numpy as np

from .heads import Head

BLOCK = 256
"""Rows of a causal prompt that numpy takes at once."""


def dense_numpy(head: Head, query: np.ndarray) -> np.ndarray:
    """Attention over all keys as numpy users write it, in float32."""
    scores = query @ head.key.T * np.float32(head.key.shape[1] ** -0.5)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights @ head.value / weights.sum(axis=1, keepdims=True)


def causal_numpy(head: Head) -> np.ndarray:
    """The same for a causal prompt, block by block of its rows."""
    rows = []
    for a in range(0, len(head.query), BLOCK):
        b = min(a + BLOCK, len(head.query))
        scores = head.query[a:b] @ head.key[:b].T * np.float32(head.key.shape[1] ** -0.5)
        scores[np.arange(b) > np.arange(a, b)[:, None]] = -np.inf
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        rows.append(weights @ head.value[:b] / weights.sum(axis=1, keepdims=True))
    return np.concatenate(rows)


def rivals(head: Head, queries: Callable[[], np.ndarray], causal: bool) -> dict[str, Callable]:
    """Dense contestants: numpy, and torch where it is installed."""
    if causal:
        found = {"numpy": lambda: causal_numpy(head)}
    else:
        found = {"numpy": lambda: dense_numpy(head, queries())}
    if find_spec("torch") is None:
        return found
    torch = import_module("torch")
    dense = torch.nn.functional.scaled_dot_product_attention
    key, value = (torch.from_numpy(rows)[None, None] for rows in (head.key, head.value))

    def by_torch() -> object:
        return dense(torch.from_numpy(queries())[None, None], key, value, is_causal=causal)

    return found | {"torch": by_torch}
