"""Every structure under test and the dimensions it is meant for: one line to add another."""

from collections.abc import Callable, Container
from typing import NamedTuple

import numpy as np
import pytest

import halfspace
from halfspace import levels

from .sizes import JIT


class Structure(NamedTuple):
    build: Callable
    dims: Container[int]

    def dims_to(self, d):
        return [k for k in range(1, d + 1) if k in self.dims]


def fine_cuttings(points, **options):
    """Shallow cuttings with levels even for the few points that the oracle can take."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(levels, "COARSEST_SHARE", 4)
        patch.setattr(levels, "FINEST_DEPTH", 2)
        patch.setattr(levels, "POINTS_PER_CONE", dict.fromkeys(range(1, 7), 0.05))
        return halfspace.ShallowCuttings(points, **options)


def churned(points, *, ids=None, weights=None):
    """A dynamic index in which points were moved away and back: segments, tombstones, a buffer."""
    index = halfspace.Dynamic(points, structure="kd_tree", ids=ids, weights=weights, buffer=32)
    names = np.arange(len(index)) if ids is None else np.asarray(ids)
    rows = np.asarray(points)
    for places in (rows[::-1], rows):
        index.update(names[::10], places[::10])
    return index


STRUCTURES = {
    "Scan": Structure(halfspace.Scan, range(1, 257)),
    "KDTree": Structure(halfspace.KDTree, range(1, 257)),
    "PartitionTree": Structure(halfspace.PartitionTree, range(1, 257)),
    "ShallowCuttings": Structure(halfspace.ShallowCuttings, range(1, 7)),
    "Cascade": Structure(halfspace.Cascade, range(1, 257)),
}
if JIT:  # interpreted, building so many levels or segments takes too long to be done by every test
    STRUCTURES["fine_cuttings"] = Structure(fine_cuttings, range(1, 7))
    STRUCTURES["Dynamic"] = Structure(churned, (2, 3, 16))

each_structure = pytest.mark.parametrize("structure", STRUCTURES.values(), ids=STRUCTURES)

_STATIC = {name: structure for name, structure in STRUCTURES.items() if name != "Dynamic"}
each_static = pytest.mark.parametrize("structure", _STATIC.values(), ids=_STATIC)


def each_structure_and_dim(*dims):
    cells = [(name, s, d) for name, s in STRUCTURES.items() for d in dims if d in s.dims]
    return pytest.mark.parametrize(
        ("structure", "d"),
        [(s, d) for _, s, d in cells],
        ids=[f"{name}-{d}d" for name, _, d in cells],
    )
