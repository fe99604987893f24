"""A causal language model of transformers: its perplexity by a rule, and where its heads look.

Needs torch and transformers (the extra ``torch``). A text is cut into windows that are read each by
itself, chunk by chunk, so that logits of a chunk are all that is held.
"""

import inspect
import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, PreTrainedModel

from .. import huggingface
from ..rules import Rule, TopR
from .probes import Probe, attending, watched

CHUNK = 1024
"""Tokens read at once."""

DENSE = "sdpa"
"""Torch's own attention, in transformers."""


class Reader(NamedTuple):
    """A model, and windows of a text in its tokens."""

    model: PreTrainedModel
    windows: torch.Tensor  # (count, context) int64


def read_text(
    name: str, text: str, *, tokens: int, context: int, dtype: str, device: str
) -> Reader:
    """Load a model, and cut the beginning of a text into windows of `context` tokens.

    Parameters
    ----------
    name : str
        Folder of a model, or its name on the hub.
    text : str
    tokens : int
        Of the text, in all; as many whole windows as that has are read.
    context : int
        Tokens of a window.
    dtype : str
        Of the model: "float32", "bfloat16", …, or "auto".
    device : str
        Where it runs. Sparse attention is on the host wherever that is.

    Raises
    ------
    ValueError
        No such model, or a text of too few tokens.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
        model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, attn_implementation=DENSE)
    except OSError as error:
        raise ValueError(f"model: expected a folder or a name, got {name!r}: {error}") from error
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    count = min(tokens, len(ids)) // context
    if not count:
        raise ValueError(f"text: expected at least {context} tokens, got {min(tokens, len(ids))}")
    windows = torch.tensor(ids[: count * context]).reshape(count, context)
    return Reader(model.to(device).eval(), windows.to(device))


@torch.no_grad()
def perplexity(reader: Reader) -> float:
    """Perplexity of every token but the first of each window, by the attention that is set."""
    return math.exp(sum(_losses(reader)) / (reader.windows.numel() - len(reader.windows)))


def _losses(reader: Reader) -> Iterator[float]:
    """Sum of the negative log-likelihoods of each chunk."""
    for ids, logits in _read(reader):
        yield torch.nn.functional.cross_entropy(logits.float(), ids, reduction="sum").item()


def _read(reader: Reader) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield tokens (t,) and their logits (t, vocabulary), chunk by chunk."""
    model, name = reader.model, cache_argument(reader.model)
    for window in reader.windows:
        cache = DynamicCache(config=model.config)
        for first in range(0, len(window) - 1, CHUNK):
            ids = window[first : first + CHUNK + 1]
            out = model(input_ids=ids[None, :-1], use_cache=True, **{name: cache})
            yield ids[1:], out.logits[0]


def cache_argument(model: PreTrainedModel) -> str:
    """Name of the argument that takes a cache: "cache", or "past_key_values" in older versions."""
    names = inspect.signature(model.forward).parameters
    return "cache" if "cache" in names else "past_key_values"


class ByRule(NamedTuple):
    """What a model makes of a text by a rule."""

    perplexity: float
    read: np.ndarray  # (layers, heads) share of the keys seen
    bound: float  # largest of an output


def perplexity_by(reader: Reader, rule: Rule) -> ByRule:
    """Perplexity with every layer following a rule, and what that read."""
    config = huggingface.HSRConfig(prefill=rule, decode=rule, dense_below=0)
    huggingface.register(config, "hsr-study")
    with attending(reader.model, "hsr-study"), huggingface.statistics() as collected:
        found = perplexity(reader)
    bound = max(float(of.bound.max()) for of in collected.layers.values())
    return ByRule(found, collected.share_read(), bound)


class MassProbe(Probe):
    """Adds up the mass of each query's n^(4/5) best keys; a batch of one.

    Parameters
    ----------
    queries : int
        Of each call that are looked at, evenly spaced.
    """

    def __init__(self, queries: int) -> None:
        self.queries = queries
        self.sums: dict[int, torch.Tensor] = {}
        self.counts: dict[int, int] = {}

    def look(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float,
    ) -> None:
        """Look at evenly spaced queries."""
        length, n = query.shape[2], key.shape[2]
        picked = torch.linspace(0, length - 1, min(self.queries, length)).long().unique()
        layer = module.layer_idx
        held = _mass_of_best(query[0, :, picked], key[0], scale, picked + (n - length) + 1)
        self.sums[layer] = self.sums.get(layer, 0.0) + held.sum(dim=1)
        self.counts[layer] = self.counts.get(layer, 0) + len(picked)

    def shares(self) -> np.ndarray:
        """Mean share of the mass, (layers, heads)."""
        layers = sorted(self.sums)
        return np.array([(self.sums[i] / self.counts[i]).tolist() for i in layers])


def _mass_of_best(
    query: torch.Tensor, key: torch.Tensor, scale: float, lengths: torch.Tensor
) -> torch.Tensor:
    """Share of the softmax mass of each query's n^(4/5) best of its first `lengths` keys.

    `query` is (heads, m, d), `key` (kv_heads, n, d); the result (heads, m) in float64.
    """
    heads, m, d = query.shape
    groups = query.double().reshape(len(key), -1, d)
    scores = (groups @ key.double().mT * scale).reshape(heads, m, -1)
    unseen = torch.arange(key.shape[1]) >= lengths[:, None]
    scores = scores.masked_fill(unseen.to(scores.device), -torch.inf)
    mass = scores.softmax(dim=-1).sort(dim=-1, descending=True).values.cumsum(dim=-1)
    best = torch.tensor([TopR().count(n) - 1 for n in lengths.tolist()], device=mass.device)
    return mass.gather(-1, best.expand(heads, m)[..., None])[..., 0]


@torch.no_grad()
def mass_of_best(reader: Reader, queries: int) -> np.ndarray:
    """Mean share of the softmax mass that the n^(4/5) best of n keys have, (layers, heads).

    Parameters
    ----------
    reader : Reader
    queries : int
        Of each head and chunk that are looked at.
    """
    probe = MassProbe(queries)
    with watched(reader.model, probe):
        _exhaust(_read(reader))
    return probe.shares()


def _exhaust(items: Iterable[Any]) -> None:
    for _ in items:
        pass
