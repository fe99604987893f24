"""What the benchmarks share: cases, sizes, and settings under which runs are alike."""

import time
from typing import NamedTuple

import numpy as np

import halfspace

from .. import data, sizes

POINTS = 100_000

QUERIES = 200

CASES = {
    f"{structure}, d = {d}": (structure, d)
    for structure, dims in {
        "Scan": (3, 64),
        "KDTree": (3, 8),
        "PartitionTree": (3, 4),
        "ShallowCuttings": (2, 3),
        "Cascade": (16, 64),
    }.items()
    for d in dims
}
"""Structures, each in dimensions that it is meant for."""


class HalfSpaces(NamedTuple):
    """Half-spaces to ask for."""

    normals: np.ndarray  # (m, d)
    offsets: np.ndarray  # (m,)

    def few(self) -> "HalfSpaces":
        """The first two: enough to compile."""
        return HalfSpaces(self.normals[:2], self.offsets[:2])


def points(d: int) -> np.ndarray:
    """Gaussian points of a benchmark."""
    return data.gauss(sizes.points(POINTS), d)


def half_spaces(rows: np.ndarray, selectivity: float) -> HalfSpaces:
    """Half-spaces in random directions that hold such a share of the points."""
    normals = data.normals(sizes.queries(QUERIES), rows.shape[1])
    return HalfSpaces(normals, data.offsets(rows, normals, selectivity))


def structure_class(structure: str) -> type[halfspace.Index]:
    """Class of that name; the benchmark is skipped in versions that have none."""
    found = getattr(halfspace, structure, None)
    if found is None:
        raise NotImplementedError(f"no {structure} in this version")
    return found


class Suite:
    """Settings every class of benchmarks has: `setup` warms up, and one thread keeps runs alike.

    Of one thread, processor time is what matters: what else the machine does shows less in it.
    """

    timer = staticmethod(time.process_time)
    warmup_time = 0.0
    rounds = 1
    repeat = (3, 10, 2.0)
    timeout = 300.0

    def setup(self, *params: object) -> None:
        halfspace.set_threads(1)
        self.prepare(*params)

    def prepare(self, *params: object) -> None:
        """Make everything that is not to be timed."""
        raise NotImplementedError
