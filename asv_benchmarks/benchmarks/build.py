"""What an index costs before its first answer; `memory.py` has its bytes."""

import attention

from .. import data, sizes
from .suite import CASES, Suite, points, structure_class

KEYS = 50_000

HEAD_DIM = 64


class Build(Suite):
    """Building by structure and dimension."""

    params = (tuple(CASES),)
    param_names = ("structure",)

    def prepare(self, case: str) -> None:
        structure, d = CASES[case]
        self.build = structure_class(structure)
        self.rows = points(d)
        self.build(self.rows[:1000])

    def time_build(self, case: str) -> None:
        self.build(self.rows)


class BuildDecoder(Suite):
    """Indexing the keys of a head."""

    params = ((3, HEAD_DIM),)
    param_names = ("head_dim",)

    def prepare(self, head_dim: int) -> None:
        self.key, self.value = data.gauss(2 * sizes.points(KEYS), head_dim).reshape(2, -1, head_dim)
        attention.Decoder(self.key[:3000], self.value[:3000])

    def time_build(self, head_dim: int) -> None:
        attention.Decoder(self.key, self.value)
