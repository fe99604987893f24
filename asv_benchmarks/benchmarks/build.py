"""What an index costs before its first answer."""

from .. import data
from .common import DTYPES, STRUCTURES, Suite, points, skip_deep, structure_class


class Build(Suite):
    """Building by structure, dimension and dtype."""

    params = (STRUCTURES, (3, 8, 32), DTYPES)
    param_names = ("structure", "d", "dtype")

    def prepare(self, structure: str, d: int, dtype: str) -> None:
        skip_deep(structure, d)
        self.build = structure_class(structure)
        self.rows = data.gauss(points(), d, dtype)
        self.build(self.rows[:1000])

    def time_build(self, *params: object) -> None:
        self.build(self.rows)

    def peakmem_build(self, *params: object) -> None:
        self.build(self.rows)

    def track_nbytes(self, *params: object) -> int:
        return self.build(self.rows).nbytes

    track_nbytes.unit = "bytes"
