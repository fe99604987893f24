"""Every structure that goes to a device, a few points each: kernels take milliseconds a launch."""

import pytest

import halfspace

STRUCTURES = {
    name: getattr(halfspace, name)
    for name in ("Scan", "KDTree", "PartitionTree", "ShallowCuttings", "Cascade")
}

each_structure = pytest.mark.parametrize("build", STRUCTURES.values(), ids=STRUCTURES)

FEW = 70
"""Points: more than a tile."""
