"""Causal prefill: as many queries as keys, by kind of head."""

import numpy as np

import attention

from .. import prefill, sizes
from .suite import Suite

LENGTH = 4096

HEADS = {case.name: case.make for case in prefill.CASES}


class Prefill(Suite):
    """Softmax attention of a causal head."""

    params = (tuple(HEADS),)
    param_names = ("head",)

    def prepare(self, head: str) -> None:
        self.head = HEADS[head](sizes.points(LENGTH), np.random.default_rng(0))
        prefill.ours(self.head)

    def time_softmax(self, head: str) -> None:
        prefill.ours(self.head)

    def peakmem_softmax(self, head: str) -> None:
        prefill.ours(self.head)


class Masked(Suite):
    """Torch's function with a padding mask that all rows share."""

    params = ((1,),)
    param_names = ("heads",)

    def prepare(self, heads: int) -> None:
        n = sizes.points(LENGTH)
        query, key, value = np.random.default_rng(0).standard_normal(
            (3, heads, n, prefill.HEAD_DIM), dtype=np.float32
        )
        self.head, self.mask = (4.0 * query, key, value), (np.arange(n) < n * 3 // 4)[None]
        self.time_shared_mask(heads)

    def time_shared_mask(self, heads: int) -> None:
        attention.scaled_dot_product_attention(
            *self.head, self.mask, rule=attention.Error(prefill.EPS)
        )
