"""statistics(): what each layer and head of a model read, and how far it may be off."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import numpy as np

from ..attended import Attended

_ACTIVE: ContextVar[tuple["Statistics", ...]] = ContextVar("attention.huggingface", default=())


@dataclass
class LayerStatistics:
    """What the query heads of one layer did.

    Attributes
    ----------
    queries : int
        Of each head that saw a key, answered with a certificate.
    seen : ndarray of int64, shape (heads,)
        Keys that they saw, summed over queries.
    read : ndarray of int64, shape (heads,)
        Those of them that were read; drawn ones count as often as they were drawn.
    bound : ndarray of float64, shape (heads,)
        Largest bound on the error of a coordinate of an output.
    bounds : ndarray of float64, shape (heads,)
        Bounds, summed over queries.
    dense : int
        Queries of each head answered by torch's dense attention, or behind a mask that is neither
        causal nor padding: without a certificate.

    Examples
    --------
    >>> from attention.huggingface import LayerStatistics
    >>> LayerStatistics.of(heads=2).read
    array([0, 0])
    """

    queries: int
    seen: np.ndarray
    read: np.ndarray
    bound: np.ndarray
    bounds: np.ndarray
    dense: int = 0

    @classmethod
    def of(cls, heads: int) -> "LayerStatistics":
        """Nothing yet.

        Parameters
        ----------
        heads : int
            Query heads of the layer.

        Returns
        -------
        LayerStatistics

        Examples
        --------
        >>> from attention.huggingface import LayerStatistics
        >>> LayerStatistics.of(heads=3).bound
        array([0., 0., 0.])
        """
        counts, errors = np.zeros((2, heads), np.int64), np.zeros((2, heads))
        return cls(0, *counts, *errors)


@dataclass
class Statistics:
    """What the layers of a model did, by layer; see `statistics`.

    Attributes
    ----------
    layers : dict of int to LayerStatistics
        By layer, counted from 0; -1 for modules that have no ``layer_idx``.

    Examples
    --------
    >>> import numpy as np
    >>> from attention import softmax_attention
    >>> from attention.huggingface import Statistics
    >>> query, key, value = np.random.default_rng(0).standard_normal((3, 1, 2, 100, 8))
    >>> read = Statistics()
    >>> read.add(0, softmax_attention(query, key, value), seen=np.full((1, 100), 100))
    >>> print(read)  # doctest: +ELLIPSIS
    layer  head  queries  dense  keys seen  keys read   share  largest bound
        0     0      100      0      100.0      100.0  100.0%  ...
        0     1      100      0      100.0      100.0  100.0%  ...
    """

    layers: dict[int, LayerStatistics] = field(default_factory=dict)

    def _layer(self, layer: int, heads: int) -> LayerStatistics:
        return self.layers.setdefault(layer, LayerStatistics.of(heads))

    def add(self, layer: int, got: Attended, seen: np.ndarray) -> None:
        """Add what a layer answered.

        Parameters
        ----------
        layer : int
            Counted from 0.
        got : Attended
            Of its heads: bounds and numbers of keys read are (rows, heads, length).
        seen : ndarray of int, shape (rows, length)
            How many keys each query may look at; 0 for padding.

        Examples
        --------
        >>> import numpy as np
        >>> from attention import TopR, softmax_attention
        >>> from attention.huggingface import Statistics
        >>> query, key, value = np.random.default_rng(0).standard_normal((3, 1, 2, 100, 8))
        >>> got, read = softmax_attention(query, key, value, rule=TopR(10)), Statistics()
        >>> read.add(3, got, seen=np.full((1, 100), 100))
        >>> read.layers[3].read
        array([1000, 1000])
        """
        of = self._layer(layer, got.bound.shape[1])
        of.queries += int(np.count_nonzero(seen))
        of.seen += seen.sum()
        of.read += got.reported.sum(axis=(0, 2))
        of.bound = np.maximum(of.bound, got.bound.max(axis=(0, 2), initial=0.0))
        of.bounds += got.bound.sum(axis=(0, 2))

    def add_dense(self, layer: int, heads: int, queries: int) -> None:
        """Add queries that have no certificate.

        Parameters
        ----------
        layer : int
            Counted from 0.
        heads : int
            Query heads of the layer.
        queries : int
            Of each head.

        Examples
        --------
        >>> from attention.huggingface import Statistics
        >>> read = Statistics()
        >>> read.add_dense(0, heads=4, queries=12)
        >>> read.layers[0].dense
        12
        """
        self._layer(layer, heads).dense += queries

    def share_read(self) -> np.ndarray:
        """Share of the keys seen that were read, by layer and head; NaN where none was seen.

        Returns
        -------
        ndarray of float64, shape (layers, heads)
            Layers in ascending order.

        Examples
        --------
        >>> import numpy as np
        >>> from attention import TopR, softmax_attention
        >>> from attention.huggingface import Statistics
        >>> query, key, value = np.random.default_rng(0).standard_normal((3, 1, 2, 100, 8))
        >>> got, read = softmax_attention(query, key, value, rule=TopR(10)), Statistics()
        >>> read.add(0, got, seen=np.full((1, 100), 100))
        >>> read.share_read()
        array([[0.1, 0.1]])
        """
        layers = [self.layers[i] for i in sorted(self.layers)]
        heads = max((len(of.seen) for of in layers), default=0)
        share = np.full((len(layers), heads), np.nan)
        for row, of in zip(share, layers, strict=True):
            row[: len(of.seen)] = np.where(of.seen > 0, of.read / np.maximum(of.seen, 1), np.nan)
        return share

    def __str__(self) -> str:
        """One line a layer and head."""
        lines = ["layer  head  queries  dense  keys seen  keys read   share  largest bound"]
        for i, of in sorted(self.layers.items()):
            each = np.maximum(of.queries, 1)
            lines += [
                f"{i:5}  {head:4}  {of.queries:7}  {of.dense:5}  {seen / each:9.1f}  "
                f"{read / each:9.1f}  {read / max(seen, 1):6.1%}  {bound:13.1e}"
                for head, (seen, read, bound) in enumerate(
                    zip(of.seen, of.read, of.bound, strict=True)
                )
            ]
        return "\n".join(lines)


@contextmanager
def statistics() -> Iterator[Statistics]:
    """Collect what models with ``attn_implementation="hsr"`` read within a ``with`` block.

    Yields
    ------
    Statistics
        Filled while the block runs, by calls in the same thread. Blocks may be nested.

    Examples
    --------
    >>> import torch
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> from attention.huggingface import HSRConfig, register, statistics
    >>> register(HSRConfig(dense_below=0), "hsr-always")
    >>> config = LlamaConfig(
    ...     vocab_size=64,
    ...     hidden_size=32,
    ...     intermediate_size=32,
    ...     num_hidden_layers=1,
    ...     num_attention_heads=2,
    ...     attn_implementation="hsr-always",
    ... )
    >>> model = LlamaForCausalLM(config).eval()
    >>> with torch.no_grad(), statistics() as read:
    ...     logits = model(torch.arange(40)[None]).logits
    >>> read.layers[0].queries, read.layers[0].seen.tolist()  # of each head
    (40, [820, 820])
    >>> bool((read.layers[0].bound <= 1e-3).all())
    True
    """
    collected = Statistics()
    token = _ACTIVE.set((*_ACTIVE.get(), collected))
    try:
        yield collected
    finally:
        _ACTIVE.reset(token)


def active() -> tuple[Statistics, ...]:
    """Those that are collecting now."""
    return _ACTIVE.get()
