"""Attention of transformers models, looked at while a model reads.

Needs torch and transformers (the extra ``torch``). A probe is called where transformers hands
queries, keys and values to attention, after positions are applied, so any model that uses its
attention interface will do.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "hsr-probe"
"""Of the attention that is looked at."""


class Probe(ABC):
    """Torch's attention, which sees what it is given."""

    @abstractmethod
    def look(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
    ) -> None:
        """Look at the arguments of a call: (batch, heads, length, head_dim), and their scale."""

    def __call__(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        scaling: float | None = None,
        **more: Any,
    ) -> tuple[torch.Tensor, None]:
        """Attend as transformers does by "sdpa", and look."""
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        self.look(module, query, key, value, scale)
        more["scaling"] = scaling
        return sdpa_attention_forward(module, query, key, value, attention_mask, **more)


@contextmanager
def attending(model: PreTrainedModel, implementation: str) -> Iterator[None]:
    """Set a model's attention for the time of a ``with`` block."""
    before = model.config._attn_implementation
    model.set_attn_implementation(implementation)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextmanager
def watched(model: PreTrainedModel, probe: Probe) -> Iterator[None]:
    """Let a probe look at all attention of a model for the time of a ``with`` block."""
    AttentionInterface.register(NAME, probe)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    with attending(model, NAME):
        yield
