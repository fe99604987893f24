"""Reports over points that are not Gaussian: shapes in space, and keys of a trained transformer."""

import numpy as np

from .. import data, sizes
from .suite import POINTS, QUERIES, HalfSpaces, Suite, half_spaces, structure_class

SELECTIVITY = 0.01


class _Reports(Suite):
    def make(self, structure: str, rows: np.ndarray, asked: HalfSpaces) -> None:
        """Index the rows and report a first time."""
        self.asked = asked
        self.index = structure_class(structure)(rows)
        self.index.report(*asked.few())

    def time_report(self, *params: object) -> None:
        self.index.report(*self.asked)


class Shapes(_Reports):
    """Report by structure and shape of the data, d = 3."""

    params = (("KDTree", "PartitionTree"), tuple(data.GENERATORS))
    param_names = ("structure", "shape")

    def prepare(self, structure: str, shape: str) -> None:
        rows = data.GENERATORS[shape](sizes.points(POINTS), 3)
        self.make(structure, rows, half_spaces(rows, SELECTIVITY))


class Keys(_Reports):
    """Report by structure and head: keys and queries as attention meets them, d = 32."""

    params = (("Scan", "Cascade"), ("sharp", "between", "flat"))
    param_names = ("structure", "head")

    def prepare(self, structure: str, head: str) -> None:
        keys, queries = data.keys_and_queries(head, sizes.points(POINTS), sizes.queries(QUERIES))
        offsets = data.offsets(keys, queries, SELECTIVITY)
        self.make(structure, keys, HalfSpaces(queries, offsets))
