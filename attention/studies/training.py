"""A very small language model, trained on bytes: its heads at several points of the training.

Needs torch. Attention is softmax, or ReLU normalised by the row's sum as in `attention.dense.relu`,
with threshold 0; the rest is the same, so that the two can be compared.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from .heads import Head, spread

SOFTMAX, RELU = "softmax", "relu"

BYTES = 256

BATCH = 8
"""Sequences a step."""

RATE = 3e-3


class Sizes(NamedTuple):
    """Of the model."""

    layers: int
    heads: int
    head_dim: int
    context: int

    @property
    def width(self) -> int:
        """Of the residual stream."""
        return self.heads * self.head_dim


class Block(torch.nn.Module):
    """Attention and a feed-forward layer, each on normalised input."""

    def __init__(self, sizes: Sizes, kind: str) -> None:
        super().__init__()
        width = sizes.width
        self.sizes, self.kind = sizes, kind
        self.norms = torch.nn.ModuleList([torch.nn.LayerNorm(width) for _ in range(2)])
        self.project = torch.nn.Linear(width, 3 * width)
        self.out = torch.nn.Linear(width, width)
        self.feed = torch.nn.Sequential(
            torch.nn.Linear(width, 4 * width), torch.nn.GELU(), torch.nn.Linear(4 * width, width)
        )

    def qkv(self, x: torch.Tensor) -> torch.Tensor:
        """Queries, keys and values, (3, batch, heads, length, head_dim)."""
        rows = self.project(self.norms[0](x))
        rows = rows.unflatten(-1, (3, self.sizes.heads, self.sizes.head_dim))
        return rows.permute(2, 0, 3, 1, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Of (batch, length, width)."""
        query, key, value = self.qkv(x)
        if self.kind == SOFTMAX:
            mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        else:
            mixed = _relu_attention(query, key, value)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.feed(self.norms[1](x))


def _relu_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    scores = query @ key.mT * query.shape[-1] ** -0.5
    weights = functional.relu(scores).tril()
    return weights @ value / (weights.sum(dim=-1, keepdim=True) + 1e-6)


class Model(torch.nn.Module):
    """A decoder over bytes with learned positions."""

    def __init__(self, sizes: Sizes, kind: str) -> None:
        super().__init__()
        self.sizes, self.kind = sizes, kind
        self.embed = torch.nn.Embedding(BYTES, sizes.width)
        self.place = torch.nn.Embedding(sizes.context, sizes.width)
        self.blocks = torch.nn.ModuleList([Block(sizes, kind) for _ in range(sizes.layers)])
        self.norm = torch.nn.LayerNorm(sizes.width)
        for table in (self.embed, self.place):
            torch.nn.init.normal_(table.weight, std=0.02)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits (batch, length, 256)."""
        x = self.start(ids)
        for block in self.blocks:
            x = block(x)
        return self.norm(x) @ self.embed.weight.T

    def start(self, ids: torch.Tensor) -> torch.Tensor:
        """Input of the first block."""
        return self.embed(ids) + self.place.weight[: ids.shape[1]]


class Point(NamedTuple):
    """A point of the training."""

    step: int
    loss: float  # nats a byte, of the text that is held back
    heads: list[Head]


def train(
    text: str, sizes: Sizes, kind: str, steps: list[int], queries: int, seed: int = 0
) -> Iterator[Point]:
    """Train, and yield what the heads are after each of these numbers of steps.

    Parameters
    ----------
    text : str
        The last `sizes.context` bytes are held back: heads and loss are those on them.
    sizes : Sizes
    kind : {"softmax", "relu"}
    steps : list of int
        Ascending, from 0 on.
    queries : int
        A head.
    seed : int, optional

    Raises
    ------
    ValueError
        The text has fewer than three times as many bytes as the context.
    """
    data = np.frombuffer(text.encode("utf-8"), np.uint8)
    if len(data) < 3 * sizes.context:
        raise ValueError(f"texts: expected {3 * sizes.context} bytes to train, got {len(data)}")
    ids = torch.from_numpy(data.astype(np.int64))
    kept, held = ids[: -sizes.context - 1], ids[-sizes.context - 1 :]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Model(sizes, kind)
        optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95))
        rng, done = np.random.default_rng(seed), 0
        for wanted in steps:
            for _ in range(wanted - done):
                starts = rng.integers(0, len(kept) - sizes.context - 1, BATCH)
                rows = torch.stack([kept[i : i + sizes.context + 1] for i in starts.tolist()])
                _step(model, optimizer, rows)
            done = wanted
            yield Point(done, _loss(model, held[None]).item(), heads_of(model, held, queries))


def _loss(model: Model, rows: torch.Tensor) -> torch.Tensor:
    logits = model(rows[:, :-1])
    return functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())


def _step(model: Model, optimizer: torch.optim.Optimizer, rows: torch.Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    _loss(model, rows).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


@torch.no_grad()
def heads_of(model: Model, ids: torch.Tensor, queries: int) -> list[Head]:
    """Heads of the model reading these bytes; queries in the second half, which see most keys."""
    x, found = model.start(ids[None, :-1]), []
    half = x.shape[1] // 2
    chosen = half + spread(x.shape[1] - half, queries)
    for layer, block in enumerate(model.blocks):
        rows = block.qkv(x)[:, 0].numpy()
        for h in range(model.sizes.heads):
            query, key, value = rows[:, h]
            name = f"{layer}.{h}"
            found.append(Head(model.kind, name, query[chosen], key, value, chosen + 1))
        x = block(x)
    return found
