"""Reports of half-spaces over Gaussian points, many queries a call and one."""

from .suite import CASES, Suite, half_spaces, points, structure_class


class _Asked(Suite):
    def prepare(self, case: str, selectivity: float) -> None:
        structure, d = CASES[case]
        rows = points(d)
        self.asked = half_spaces(rows, selectivity)
        self.first = self.asked.normals[0], self.asked.offsets[0]
        self.index = structure_class(structure)(rows)
        self.index.report(*self.asked.few())
        self.index.report(*self.first)


class Report(_Asked):
    """Report by structure and selectivity."""

    params = (tuple(CASES), (0.001, 0.1))
    param_names = ("structure", "selectivity")

    def time_batch(self, case: str, selectivity: float) -> None:
        self.index.report(*self.asked)


class ReportOne(_Asked):
    """The same for one query a call, by structure."""

    params = (tuple(CASES), (0.001,))
    param_names = ("structure", "selectivity")

    def time_one(self, case: str, selectivity: float) -> None:
        self.index.report(*self.first)
