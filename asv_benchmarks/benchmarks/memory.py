"""Memory: what a process takes at most while it builds and asks. Its bytes are in `counters`."""

import attention

from .. import data, sizes
from .suite import CASES, Suite, half_spaces, points, structure_class

SELECTIVITY = 0.1

TOKENS = 20_000

KV_HEADS = 8

HEAD_DIM = 64


class Index(Suite):
    """Building an index, and a large report."""

    params = (tuple(CASES),)
    param_names = ("structure",)

    def prepare(self, case: str) -> None:
        structure, d = CASES[case]
        self.build, self.rows = structure_class(structure), points(d)
        self.asked = half_spaces(self.rows, SELECTIVITY)

    def peakmem_build_and_report(self, case: str) -> None:
        self.build(self.rows).report(*self.asked)


class Cache(Suite):
    """Filling a cache, and one query of each of its heads."""

    params = ((KV_HEADS,),)
    param_names = ("heads",)

    def prepare(self, heads: int) -> None:
        tokens = sizes.points(TOKENS)
        self.key, self.value = data.gauss(2 * heads * tokens, HEAD_DIM).reshape(
            2, heads, tokens, HEAD_DIM
        )

    def peakmem_append_and_attend(self, heads: int) -> None:
        cache = attention.KVCache(HEAD_DIM, num_kv_heads=heads)
        cache.append(self.key, self.value)
        cache.attend(self.key[:, -1:])
