"""Attention that reads only the keys that matter, and proves how far it is from the exact output.

Scores of a row of attention are inner products <q, k>, so "keys whose score reaches b" is
half-space reporting with q as the normal (arXiv 2410.10165). Softmax attention keeps those keys and
bounds what it dropped; ReLU attention is non-zero exactly on them.
"""

from . import bounds, dense
from .attended import Attended, merge
from .cache import KVCache
from .decode import Decoder
from .heads import relu_attention, softmax_attention
from .rules import Error, Mass, Sampled, Threshold, TopR
from .scaled_dot_product import scaled_dot_product_attention

__all__ = [
    "Attended",
    "Decoder",
    "Error",
    "KVCache",
    "Mass",
    "Sampled",
    "Threshold",
    "TopR",
    "bounds",
    "dense",
    "merge",
    "relu_attention",
    "scaled_dot_product_attention",
    "softmax_attention",
]
