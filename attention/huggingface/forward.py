"""The attention function that transformers calls once a layer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from ..attended import Attended
from ..interop import to_numpy
from ..rules import Rule
from ..scaled_dot_product import scaled_dot_product_attention
from . import statistics
from .cache import layer_of
from .patterns import causal, left_padding
from .rows import attend_rows, seen
from .settings import MANY_QUERIES, HSRConfig

UNSUPPORTED = {
    "softcap": "a softcap on scores",
    "s_aux": "attention sinks (s_aux)",
    "position_bias": "a position bias",
    "output_attentions": "output_attentions",
}
"""Arguments for which there is no half-space report, or no answer; and what they ask for."""


class HSRAttention:
    """Attention as transformers calls it, with settings.

    Parameters
    ----------
    config : HSRConfig
        Rules, and layers that stay dense.
    """

    def __init__(self, config: HSRConfig) -> None:
        self.config = config

    def __call__(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        is_causal: bool | None = None,
        **more: Any,
    ) -> tuple[torch.Tensor, None]:
        """Attend.

        Parameters
        ----------
        module : torch.nn.Module
            The layer; its ``layer_idx`` tells which settings it follows.
        query : torch.Tensor, shape (batch, heads, length, head_dim)
        key, value : torch.Tensor, shape (batch, kv_heads, n, dim)
        attention_mask : torch.Tensor, shape (batch, 1 or heads, length, n), optional
            Booleans, or biases. Without one, queries are those of the last tokens.
        dropout : float, optional
            0.
        scaling : float, optional
            Of scores; 1 / sqrt(head_dim) if not given.
        is_causal : bool, optional
            Whether queries see tokens up to their own; as the module has it if not given.

        Returns
        -------
        torch.Tensor, shape (batch, length, heads, value_dim), and None

        Raises
        ------
        ValueError
            What there is no sparse attention for: named in the message.
        """
        check_supported(module, (query, key, value), dropout, more)
        layer, (length, n) = getattr(module, "layer_idx", None), (query.shape[2], key.shape[2])
        if is_causal is None:
            is_causal = getattr(module, "is_causal", True)
        window = more.get("sliding_window")
        if self.config.is_dense(layer, n) or (window is not None and n > window):
            _count_dense(layer, query)
            if attention_mask is None and is_causal and 1 < length < n:
                attention_mask = causal(length, n, query.device)[None, None]
            # Versions 4 of transformers hand this on to torch as it is: for the first of n tokens.
            is_causal = is_causal and attention_mask is None and length > 1
            return sdpa_attention_forward(
                module,
                query,
                key,
                value,
                attention_mask,
                scaling=scaling,
                is_causal=is_causal,
                **more,
            )
        scale = 1.0 / math.sqrt(query.shape[-1]) if scaling is None else float(scaling)
        output = _attend(
            query,
            key,
            value,
            attention_mask,
            self.config.rule(layer, length),
            scale,
            is_causal,
            layer,
        )
        if torch.is_grad_enabled() and any(t.requires_grad for t in (query, key, value)):
            output = _WithoutBackward.apply(output, query, key, value)
        return output.transpose(1, 2).contiguous(), None


def check_supported(
    module: torch.nn.Module,
    tensors: tuple[torch.Tensor, ...],
    dropout: float,
    more: dict[str, Any],
) -> None:
    """Raise one error that names what there is no sparse attention for."""
    for name, what in UNSUPPORTED.items():
        if more.get(name) is not None and more[name] is not False:
            raise ValueError(
                f"hsr attention: expected a layer without {what}, got {name}; "
                'use attn_implementation="eager"'
            )
    if dropout:
        raise ValueError(f"hsr attention: expected dropout 0, got {dropout}; use model.eval()")
    asks = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    if module.training and asks:
        raise ValueError(
            "hsr attention: expected inference, got a model in training that asks for gradients; "
            "use model.eval() and torch.no_grad()"
        )


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    rule: Rule,
    scale: float,
    is_causal: bool,
    layer: int | None,
) -> torch.Tensor:
    """Sparse attention, shaped (batch, heads, length, value_dim)."""
    starts = [0] if mask is None else left_padding(mask)
    if starts is None:
        _count_dense(layer, query)
        return scaled_dot_product_attention(
            query.detach(),
            key.detach(),
            value.detach(),
            mask,
            scale=scale,
            enable_gqa=True,
            rule=rule,
        )
    if len(starts) < len(query):
        starts = starts * len(query)  # one for all rows
    is_causal = is_causal or mask is not None
    length, n = query.shape[2], key.shape[2]
    queries = to_numpy(query.detach(), "query")
    kept = layer_of(key)
    if kept is not None and length < MANY_QUERIES and is_causal:
        got = kept.attend(queries, starts, rule, scale)
    else:
        arrays = queries, to_numpy(key.detach(), "key"), to_numpy(value.detach(), "value")
        got = attend_rows(*arrays, starts, rule, scale, is_causal)
    _count(layer, got, seen(starts, length, n, is_causal))
    return torch.from_numpy(got.output).to(dtype=query.dtype, device=query.device)


def _count(layer: int | None, got: Attended, keys: np.ndarray) -> None:
    for collected in statistics.active():
        collected.add(-1 if layer is None else layer, got, keys)


def _count_dense(layer: int | None, query: torch.Tensor) -> None:
    batch, heads, length, _ = query.shape
    for collected in statistics.active():
        collected.add_dense(-1 if layer is None else layer, heads, batch * length)


class _WithoutBackward(torch.autograd.Function):
    """An output that asks for gradients as its inputs do, and has none."""

    @staticmethod
    def forward(ctx: Any, output: torch.Tensor, *inputs: torch.Tensor) -> torch.Tensor:
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> None:
        raise RuntimeError(
            'hsr attention: there is no backward pass; use attn_implementation="sdpa" for gradients'
        )
