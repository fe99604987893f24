"""Heads of a transformers model while it reads a text: queries, keys and values of every layer.

Needs torch and transformers (the extra ``torch``). They are taken where transformers hands them to
attention, after positions are applied, so any model that uses its attention interface will do.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface, AttentionMaskInterface, AutoModel, AutoTokenizer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from .heads import Head, spread

NAME = "hsr-capture"
"""Of the attention that keeps what it is given."""


class Capture:
    """Torch's attention, which keeps the queries of some positions, and all keys and values.

    Parameters
    ----------
    source : str
        Of the heads.
    queries : int
        A head; of a causal one in the second half of its positions, which see most keys.
    """

    def __init__(self, source: str, queries: int) -> None:
        self.source, self.queries = source, queries
        self.heads: list[Head] = []

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
        """Attend as transformers does by "sdpa", and keep the first of the batch."""
        self._keep(query[0], key[0], value[0], scaling, bool(getattr(module, "is_causal", True)))
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **more
        )

    def _keep(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
        causal: bool,
    ) -> None:
        heads, length, d = query.shape
        n, layer = key.shape[1], len(self.heads) // heads
        first = length // 2 if causal else 0
        chosen = first + spread(length - first, self.queries)
        lengths = chosen + (n - length) + 1 if causal else np.full(len(chosen), n)
        # Scores are divided by the root of d wherever heads are looked at.
        scale = 1.0 if scaling is None else scaling * d**0.5
        asked, keys, values = (each.float().cpu().numpy() for each in (query, key, value))
        for h in range(heads):
            kv = h * len(keys) // heads
            rows = (asked[h, chosen] * np.float32(scale), keys[kv], values[kv])
            self.heads.append(Head(self.source, f"{layer}.{h}", *rows, lengths.astype(np.int64)))


@torch.no_grad()
def of_model(name: str, text: str, kind: str, *, tokens: int, queries: int) -> list[Head]:
    """Heads of a model that reads the beginning of a text.

    Parameters
    ----------
    name : str
        Folder of a model, or its name on the hub; an encoder or a causal one.
    text : str
    kind : str
        Name of the text, which becomes part of the heads' source.
    tokens : int
        Of the text; fewer where the model takes fewer.
    queries : int
        A head.

    Returns
    -------
    list of Head
        Named ``layer.head``, from 0.

    Raises
    ------
    ValueError
        No such model; a text of too few tokens.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model = AutoModel.from_pretrained(name, dtype=torch.float32, attn_implementation="sdpa")
    except OSError as error:
        raise ValueError(f"models: expected a folder or a name, got {name!r}: {error}") from error
    most = getattr(model.config, "max_position_embeddings", None) or tokens
    wanted = min(tokens, most)
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"][:wanted]
    if len(ids) < wanted:
        raise ValueError(f"texts: expected at least {wanted} tokens in {kind}, got {len(ids)}")
    probe = Capture(f"{Path(name).name} {Path(kind).stem}", queries)
    AttentionInterface.register(NAME, probe)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
    model.eval()(input_ids=torch.tensor([ids]))
    return probe.heads
