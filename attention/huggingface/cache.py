"""HSRCache: a cache of transformers that indexes what it keeps.

Tokens are kept as any `DynamicCache` keeps them, for whoever wants tensors; beside them a layer has
a `TokenIndex`, which is made when the layer is first asked for few queries and follows all changes.
"""

from collections.abc import Callable

import numpy as np
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from ..attended import Attended
from ..interop import to_numpy
from ..rules import Rule
from .token_index import TokenIndex

_LAYER = "_hsr_layer"
"""Attribute of the keys that `update` returns: the layer they are kept in."""


class HSRLayer(DynamicLayer):
    """Keys and values of one layer, and an index of them.

    What it adds to `DynamicLayer` is `attend`. Everything else is as there.
    """

    def __init__(self) -> None:
        super().__init__()
        self._index: TokenIndex | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append tokens (batch, kv_heads, t, dim); return all, as tensors that know the layer."""
        keys, values = super().update(key_states, value_states, *args, **kwargs)
        keys = keys.view_as(keys)  # what is kept is not to refer to the layer that keeps it
        setattr(keys, _LAYER, self)
        return keys, values

    def attend(self, query: np.ndarray, starts: list[int], rule: Rule, scale: float) -> Attended:
        """Attention of the last tokens, each row of the batch from its first token on.

        Parameters
        ----------
        query : ndarray, shape (batch, heads, length, head_dim)
        starts : list of int
            First token of each row.
        rule : TopR, Threshold, Mass, Error or Sampled
        scale : float
            Of scores; positive.
        """
        index = self._index
        if (
            index is None
            or (index.starts, index.scale) != (starts, scale)
            or len(index) > self.keys.shape[2]
        ):
            index = self._index = TokenIndex(
                starts,
                scale,
                kv_heads=self.keys.shape[1],
                head_dim=self.keys.shape[-1],
                value_dim=self.values.shape[-1],
                dtype=np.float64 if self.keys.dtype is torch.float64 else np.float32,
            )
        new = slice(len(index), None)
        index.extend(
            to_numpy(self.keys[:, :, new], "key"), to_numpy(self.values[:, :, new], "value")
        )
        return index.attend(query, rule)

    def reset(self) -> None:
        """Forget all tokens."""
        # Versions 4 of transformers would keep as many, all zero.
        self.keys = self.values = self._index = None
        self.is_initialized = False

    def crop(self, *args: int, **kwargs: int) -> None:
        """Remove the last tokens, as `DynamicLayer.crop` has it."""
        super().crop(*args, **kwargs)
        if self._index is not None:
            self._index.crop(self.get_seq_length())

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Let row b of the batch be what row ``beam_idx[b]`` was."""
        super().reorder_cache(beam_idx)
        self._take(lambda rows: rows[beam_idx.cpu()])

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row of the batch."""
        super().batch_repeat_interleave(repeats)
        self._take(lambda rows: rows.repeat_interleave(repeats))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these rows of the batch."""
        super().batch_select_indices(indices)
        self._take(lambda rows: rows[torch.as_tensor(indices).cpu()])

    def _take(self, pick: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Let the index follow what was picked of the rows of the batch."""
        if self._index is not None and self.get_seq_length():
            self._index.take(pick(torch.arange(len(self._index.starts))).numpy())
        else:
            self._index = None


class HSRCache(DynamicCache):
    """A cache that indexes keys as they come, for ``attn_implementation="hsr"``.

    Parameters
    ----------
    config : PretrainedConfig
        Of the model. Layers with a sliding window shorter than the model's longest text keep the
        cache that transformers gives them.

    Notes
    -----
    Tokens are kept twice, as tensors in the model's dtype and in the index, in float32 (float64
    for models in float64) with 8-bit codes beside them.

    Examples
    --------
    >>> from transformers import LlamaConfig
    >>> from attention.huggingface import HSRCache
    >>> cache = HSRCache(LlamaConfig(num_hidden_layers=2))
    >>> cache.layers
    [HSRLayer, HSRLayer]
    """

    def __init__(self, config: object) -> None:
        super().__init__(config=config)
        longest = getattr(config.get_text_config(), "max_position_embeddings", 0)
        self.layers = [HSRLayer() if _is_full(layer, longest) else layer for layer in self.layers]


def _is_full(layer: object, longest: int) -> bool:
    """Whether a layer of `DynamicCache` keeps all tokens of any text the model was made for."""
    if type(layer) is DynamicSlidingWindowLayer:
        return layer.sliding_window >= longest > 0
    return type(layer) is DynamicLayer


def layer_of(key: torch.Tensor) -> HSRLayer | None:
    """Layer that keys are kept in, if `HSRLayer.update` returned them."""
    return getattr(key, _LAYER, None)
