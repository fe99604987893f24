"""What the benchmarks share: parameters, sizes, and an index that is ready to be timed."""

import halfspace

from .. import sizes

STRUCTURES = ("Scan", "KDTree", "PartitionTree", "ShallowCuttings", "Cascade")

DTYPES = ("float32", "float64")

POINTS = 200_000

QUERIES = 200

DEEPEST = {"KDTree": 16, "PartitionTree": 16, "ShallowCuttings": 6}
"""Dimensions that a structure is meant for, at most."""


def points() -> int:
    """Number of points of a benchmark."""
    return sizes.points(POINTS)


def queries() -> int:
    """Number of queries of a benchmark."""
    return sizes.queries(QUERIES)


def structure_class(structure: str) -> type[halfspace.Index]:
    """Class of that name; the benchmark is skipped in versions that have none."""
    found = getattr(halfspace, structure, None)
    if found is None:
        raise NotImplementedError(f"no {structure} in this version")
    return found


def skip_deep(structure: str, d: int) -> None:
    """Skip the benchmark if the structure is not meant for so many dimensions."""
    if d > DEEPEST.get(structure, d):
        raise NotImplementedError(f"{structure} in {d} dimensions")


class Suite:
    """Settings every class of benchmarks has: `setup` warms up, and one thread keeps runs alike."""

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
