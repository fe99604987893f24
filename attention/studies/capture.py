"""Heads of a transformers model while it reads a text: queries, keys and values of every layer.

Needs torch and transformers (the extra ``torch``).
"""

from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from .heads import Head, spread
from .probes import Probe, watched


class Capture(Probe):
    """Keeps the queries of some positions, and all keys and values.

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

    def look(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
    ) -> None:
        """Keep the heads of the first of the batch."""
        causal = bool(getattr(module, "is_causal", True))
        query, key, value = query[0], key[0], value[0]
        heads, length, d = query.shape
        n, layer = key.shape[1], len(self.heads) // heads
        first = length // 2 if causal else 0
        chosen = first + spread(length - first, self.queries)
        lengths = chosen + (n - length) + 1 if causal else np.full(len(chosen), n)
        asked, keys, values = (each.float().cpu().numpy() for each in (query, key, value))
        # Scores are divided by the root of d wherever heads are looked at.
        asked = asked[:, chosen] * np.float32(scale * d**0.5)
        for h in range(heads):
            kv = h * len(keys) // heads
            rows = (asked[h], keys[kv], values[kv], lengths.astype(np.int64))
            self.heads.append(Head(self.source, f"{layer}.{h}", *rows))


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
    with watched(model.eval(), probe):
        model(input_ids=torch.tensor([ids]))
    return probe.heads
