"""Counts and sums of half-spaces, whose answers do not list points."""

import numpy as np

from .suite import CASES, Suite, half_spaces, points, structure_class

SELECTIVITY = 0.1


class Count(Suite):
    """Count and sum by structure."""

    params = (tuple(CASES),)
    param_names = ("structure",)

    def prepare(self, case: str) -> None:
        structure, d = CASES[case]
        rows = points(d)
        self.asked = half_spaces(rows, SELECTIVITY)
        self.index = structure_class(structure)(rows, weights=np.ones(len(rows)))
        for answer in (self.index.count, self.index.sum):
            answer(*self.asked.few())

    def time_count(self, case: str) -> None:
        self.index.count(*self.asked)

    def time_sum(self, case: str) -> None:
        self.index.sum(*self.asked)
