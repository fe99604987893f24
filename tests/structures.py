"""Every structure under test and the dimensions it is meant for: one line to add another."""

from collections.abc import Callable
from typing import NamedTuple

import pytest

import halfspace


class Structure(NamedTuple):
    build: Callable
    dims: range

    def dims_to(self, d):
        return [k for k in range(1, d + 1) if k in self.dims]


STRUCTURES = {
    "Scan": Structure(halfspace.Scan, range(1, 257)),
    "KDTree": Structure(halfspace.KDTree, range(1, 257)),
    "PartitionTree": Structure(halfspace.PartitionTree, range(1, 257)),
}

each_structure = pytest.mark.parametrize("structure", STRUCTURES.values(), ids=STRUCTURES)


def each_structure_and_dim(*dims):
    cells = [(name, s, d) for name, s in STRUCTURES.items() for d in dims if d in s.dims]
    return pytest.mark.parametrize(
        ("structure", "d"),
        [(s, d) for _, s, d in cells],
        ids=[f"{name}-{d}d" for name, _, d in cells],
    )
