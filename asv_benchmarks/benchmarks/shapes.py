"""Points that are not Gaussian: shapes in three dimensions, and keys of a trained transformer."""

import numpy as np

from .. import data
from .common import STRUCTURES, Suite, points, queries, structure_class

SELECTIVITY = 0.01


class _Reports(Suite):
    def make(self, structure: str, rows: np.ndarray, normals: np.ndarray) -> None:
        """Index the rows and cut off one in a hundred of them along every normal."""
        self.normals, self.offsets = normals, data.offsets(rows, normals, SELECTIVITY)
        self.index = structure_class(structure)(rows)
        self.index.report(self.normals[:2], self.offsets[:2])

    def time_report_batch(self, *params: object) -> None:
        self.index.report(self.normals, self.offsets)

    def track_points_touched(self, *params: object) -> float:
        return float(np.mean(self.index.work(self.normals, self.offsets).points_touched))

    track_points_touched.unit = "points/query"


class Shapes(_Reports):
    """Report by structure and shape of the data, d = 3."""

    params = (STRUCTURES, tuple(data.GENERATORS))
    param_names = ("structure", "shape")

    def prepare(self, structure: str, shape: str) -> None:
        self.make(structure, data.GENERATORS[shape](points(), 3), data.normals(queries(), 3))


class Keys(_Reports):
    """Report by structure and head: keys and queries as attention meets them, d = 32."""

    params = (("Scan", "KDTree", "PartitionTree"), ("sharp", "between", "flat"))
    param_names = ("structure", "head")

    def prepare(self, structure: str, head: str) -> None:
        self.make(structure, *data.keys_and_queries(head, points(), queries()))
