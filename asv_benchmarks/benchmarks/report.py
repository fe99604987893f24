"""Half-spaces over Gaussian points: how long, how much memory, and how much work they take."""

import numpy as np

from .. import data
from .common import DTYPES, STRUCTURES, Suite, points, queries, skip_deep, structure_class


class HalfSpaces(Suite):
    """Report, count and sum by structure, dimension, selectivity and dtype."""

    params = (STRUCTURES, (2, 3, 4, 8, 32), (0.001, 0.1), DTYPES)
    param_names = ("structure", "d", "selectivity", "dtype")

    def prepare(self, structure: str, d: int, selectivity: float, dtype: str) -> None:
        skip_deep(structure, d)
        build = structure_class(structure)
        rows = data.gauss(points(), d, dtype)
        self.normals = data.normals(queries(), d, dtype)
        self.offsets = data.offsets(rows, self.normals, selectivity)
        self.index = build(rows, weights=np.ones(len(rows)))
        for answer in (self.index.report, self.index.count, self.index.sum):
            answer(self.normals[:2], self.offsets[:2])

    def time_report_batch(self, *params: object) -> None:
        self.index.report(self.normals, self.offsets)

    def time_report_one(self, *params: object) -> None:
        self.index.report(self.normals[0], self.offsets[0])

    def time_count(self, *params: object) -> None:
        self.index.count(self.normals, self.offsets)

    def time_sum(self, *params: object) -> None:
        self.index.sum(self.normals, self.offsets)

    def peakmem_report(self, *params: object) -> None:
        self.index.report(self.normals, self.offsets)

    def track_nodes_visited(self, *params: object) -> float:
        return float(np.mean(self.index.work(self.normals, self.offsets).nodes_visited))

    def track_points_touched(self, *params: object) -> float:
        return float(np.mean(self.index.work(self.normals, self.offsets).points_touched))

    def track_exact_tests(self, *params: object) -> float:
        return float(np.mean(self.index.work(self.normals, self.offsets).exact_tests))

    track_nodes_visited.unit = "nodes/query"
    track_points_touched.unit = "points/query"
    track_exact_tests.unit = "tests/query"
