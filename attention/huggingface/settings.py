"""HSRConfig: which rule each layer of a model follows, and where attention stays dense."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from halfspace.inputs import as_count

from ..inputs import check_rule
from ..rules import Error, Rule

DENSE_BELOW = 512
"""Keys below which dense attention is used: a cache reads so many of the last tokens anyway."""


class LayerRules(NamedTuple):
    """Rules of one layer.

    Attributes
    ----------
    prefill : TopR, Threshold, Mass, Error or Sampled
        For calls of many queries.
    decode : TopR, Threshold, Mass, Error or Sampled
        For calls of few queries.

    Examples
    --------
    >>> from attention import Error, Sampled
    >>> from attention.huggingface import LayerRules
    >>> LayerRules(prefill=Error(1e-3), decode=Sampled(0.05)).prefill
    Error(eps=0.001)
    """

    prefill: Rule
    decode: Rule


@dataclass(frozen=True)
class HSRConfig:
    """Settings of ``attn_implementation="hsr"``.

    Parameters
    ----------
    prefill : TopR, Threshold, Mass, Error or Sampled, optional
        Rule for calls of 64 tokens or more.
    decode : TopR, Threshold, Mass, Error or Sampled, optional
        Rule for calls of fewer.
    layers : mapping of int to LayerRules, optional
        Layers, counted from 0, that have rules of their own.
    dense_layers : collection of int, optional
        Layers that keep torch's dense attention.
    dense_below : int, optional
        With fewer keys than this, a call is answered by torch's dense attention. 0: never.

    Raises
    ------
    TypeError, ValueError
        Not rules, not layers, a layer both dense and with rules.

    Examples
    --------
    >>> from attention import Error, TopR
    >>> from attention.huggingface import HSRConfig, LayerRules
    >>> config = HSRConfig(decode=TopR(64), layers={3: LayerRules(Error(1e-4), TopR(256))})
    >>> config.rule(0, 1), config.rule(3, 1), config.rule(3, 4096)
    (TopR(r=64), TopR(r=256), Error(eps=0.0001))
    """

    prefill: Rule = field(default_factory=Error)
    decode: Rule = field(default_factory=Error)
    layers: Mapping[int, LayerRules] = field(default_factory=dict)
    dense_layers: Collection[int] = frozenset()
    dense_below: int = DENSE_BELOW

    def __post_init__(self) -> None:
        check_rule(self.prefill)
        check_rule(self.decode)
        layers = {as_count(i, "layers"): LayerRules(*rules) for i, rules in self.layers.items()}
        for rules in layers.values():
            check_rule(rules.prefill)
            check_rule(rules.decode)
        dense = frozenset(as_count(i, "dense_layers") for i in self.dense_layers)
        if both := sorted(dense & layers.keys()):
            raise ValueError(f"dense_layers: expected layers without rules, got {both} in layers")
        object.__setattr__(self, "layers", MappingProxyType(layers))
        object.__setattr__(self, "dense_layers", dense)
        object.__setattr__(self, "dense_below", as_count(self.dense_below, "dense_below"))

    def rule(self, layer: int | None, queries: int) -> Rule:
        """Rule of a layer for a call of so many queries.

        Parameters
        ----------
        layer : int or None
            Counted from 0; None for modules that have no ``layer_idx``.
        queries : int
            Tokens of the call: a prefill, if 64 or more.

        Returns
        -------
        TopR, Threshold, Mass, Error or Sampled

        Examples
        --------
        >>> from attention import TopR
        >>> from attention.huggingface import HSRConfig
        >>> HSRConfig(decode=TopR(64)).rule(0, queries=1)
        TopR(r=64)
        """
        rules = self.layers.get(layer, self)
        return rules.prefill if queries >= MANY_QUERIES else rules.decode

    def is_dense(self, layer: int | None, keys: int) -> bool:
        """Whether a layer answers a call with so many keys by dense attention.

        Parameters
        ----------
        layer : int or None
            Counted from 0; None for modules that have no ``layer_idx``.
        keys : int
            That the call may look at.

        Returns
        -------
        bool

        Examples
        --------
        >>> from attention.huggingface import HSRConfig
        >>> config = HSRConfig(dense_layers=[0], dense_below=100)
        >>> config.is_dense(0, keys=5000), config.is_dense(1, keys=5000)
        (True, False)
        >>> config.is_dense(1, keys=99)
        True
        """
        return layer in self.dense_layers or keys < self.dense_below


MANY_QUERIES = 64
"""Queries from which a call is a prefill: so many are worth an index made for the call."""
