"""The mask function that transformers calls once a forward pass, before any layer.

Attention here is causal by the places of keys and queries, so the causal mask itself need not be
made; padding and all else that takes keys away is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import masking_utils
from transformers.masking_utils import causal_mask_function, sdpa_mask

_BIDIRECTIONAL = getattr(masking_utils, "bidirectional_mask_function", None)
"""Versions of 4 have none, and make no masks of that kind by this way."""


def hsr_mask(
    batch_size: int,
    *,
    kv_length: int,
    kv_offset: int = 0,
    mask_function: Callable = causal_mask_function,
    attention_mask: torch.Tensor | None = None,
    local_size: int | None = None,
    allow_is_causal_skip: bool = True,
    **more: Any,
) -> torch.Tensor | None:
    """Mask of a forward pass, as ``sdpa_mask`` of transformers makes it; None if just causal.

    Parameters
    ----------
    batch_size, kv_length, kv_offset, mask_function, attention_mask, more
        As for ``sdpa_mask``.
    local_size : int, optional
        Tokens of a sliding window.
    allow_is_causal_skip : bool, optional
        Whether the mask is causal but for padding and a window.

    Returns
    -------
    torch.Tensor of bool, shape (batch, 1, length, kv_length), or None
        None also where torch's dense attention would need a mask: for queries of the last of many
        tokens.

    Raises
    ------
    ValueError
        A cache of fixed size.
    """
    length, offset = _queries(more)
    if mask_function is not _BIDIRECTIONAL:
        if kv_offset + kv_length != offset + length:
            raise ValueError(
                "hsr attention: expected a cache that grows, such as HSRCache or DynamicCache, "
                f"got one of {kv_length} places for {offset + length} tokens: a static cache"
            )
        short = local_size is None or kv_length <= local_size
        if allow_is_causal_skip and short and _is_whole(attention_mask, kv_offset, kv_length):
            return None
    return sdpa_mask(
        batch_size,
        kv_length=kv_length,
        kv_offset=kv_offset,
        mask_function=mask_function,
        attention_mask=attention_mask,
        local_size=local_size,
        allow_is_causal_skip=False,
        **more,
    )


def _is_whole(attention_mask: torch.Tensor | None, first: int, count: int) -> bool:
    """Whether so many tokens from the first on all take part, in all rows of the batch."""
    if attention_mask is None:
        return True
    part = attention_mask[:, first : first + count]
    return part.shape[1] == count and bool(part.all())


def _queries(more: dict[str, Any]) -> tuple[int, int]:
    """Number and place of the queries; versions before 5.4 or so tell the places of all."""
    if "cache_position" in more:
        places = more["cache_position"]
        return len(places), int(places[0]) if len(places) else 0
    return more["q_length"], int(more.get("q_offset", 0))
