"""The first stage of a cascade alone: how fast its codes are read by one query, on one thread."""

from collections.abc import Callable

import numpy as np

import halfspace
from halfspace.cascade_stages import MOST, make_targets
from halfspace.integer_dot import Errand, make_sums, sweep
from halfspace.jit import kernel
from halfspace.tiles import TILE, used_lanes


@kernel
def _read_codes(codes, bits, targets, slots):
    """Compare the codes of all tiles with a bar; how many tiles have lanes that pass."""
    sums, passing, tiles = make_sums(), np.empty(TILE, np.uint64), np.int64(0)
    for first in range(0, codes.shape[0], TILE):
        wanted = used_lanes(codes.shape[0], first // TILE)
        errand = Errand(slots[0], slots[0], slots[0], slots[0], slots[0])
        some = sweep(
            codes,
            first,
            wanted,
            TILE,
            True,
            targets.leading,
            targets.bars,
            bits,
            sums,
            passing,
            slots,
            errand,
        )
        tiles += some != 0
    return tiles


def code_stage(index: halfspace.Cascade, normal: np.ndarray) -> Callable[[], int]:
    """A run of the first stage over all codes, which no point passes, ready to be timed."""
    cascade = index.structure
    normals, offsets = np.asarray(normal, np.float64)[None], np.zeros(1)
    targets = make_targets(cascade, normals, offsets, True, 1)
    targets = targets._replace(bars=np.full_like(targets.bars, MOST))
    nothing, leading = np.zeros(1, np.int64), cascade.leading
    return lambda: _read_codes(leading.codes, leading.bits, targets, nothing)
