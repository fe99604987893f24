"""The k points furthest along a normal."""

from .. import data, sizes
from .suite import CASES, QUERIES, Suite, points, structure_class


class Top(Suite):
    """Top by structure and k."""

    params = (tuple(CASES), (1, 100))
    param_names = ("structure", "k")

    def prepare(self, case: str, k: int) -> None:
        structure, d = CASES[case]
        self.normals = data.normals(sizes.queries(QUERIES), d)
        self.index = structure_class(structure)(points(d))
        self.index.top(self.normals[:2], k)

    def time_top(self, case: str, k: int) -> None:
        self.index.top(self.normals, k)
