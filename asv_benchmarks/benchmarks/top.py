"""The k points furthest along a normal."""

from .. import data
from .common import DTYPES, STRUCTURES, Suite, points, queries, skip_deep, structure_class


class Top(Suite):
    """Top by structure, dimension, k and dtype."""

    params = (STRUCTURES, (3, 8, 32), (1, 100), DTYPES)
    param_names = ("structure", "d", "k", "dtype")

    def prepare(self, structure: str, d: int, k: int, dtype: str) -> None:
        skip_deep(structure, d)
        self.normals = data.normals(queries(), d, dtype)
        self.index = structure_class(structure)(data.gauss(points(), d, dtype))
        self.index.top(self.normals[:2], k)

    def time_top(self, structure: str, d: int, k: int, dtype: str) -> None:
        self.index.top(self.normals, k)
