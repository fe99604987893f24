"""The first stage of a cascade alone: how fast its codes are read by one query, on one thread.

Queries are asked one after another, so that codes that caches hold are read from there, and faster
than memory allows. Beside that stands the first query after a while, when memory has them, and a
plain loop over as many bytes in the same state: reading little begins slowly.
"""

from collections.abc import Callable
from math import ceil
from typing import NamedTuple

import numpy as np

import halfspace
from halfspace.cascade_stages import MOST, make_targets
from halfspace.integer_dot import Errand, make_sums, sweep
from halfspace.jit import kernel
from halfspace.tiles import TILE, used_lanes

from .bandwidth import Reads
from .clock import medians, seconds
from .duel import Limits


class CodeRates(NamedTuple):
    """Bytes of codes a second."""

    in_turn: float  # one query after another
    first: float  # of a query, after other work
    plain: float  # of a plain loop, after other work


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


def code_rates(
    index: halfspace.Cascade, normal: np.ndarray, reads: Reads, limits: Limits
) -> CodeRates:
    """Time the stage, as often in turn as a timing lasts, and after other memory was read."""
    stage, codes = code_stage(index, normal), index.structure.leading.codes
    words = codes.reshape(-1).view(np.int64)
    stage()
    times = max(1, ceil(limits.seconds / seconds(stage)))
    taken = medians(
        {
            "in turn": lambda: [stage() for _ in range(times)],
            **reads.tasks(),
            "first": stage,
            **{f"{name} again": task for name, task in reads.tasks().items()},
            "plain": words.sum,
        },
        limits.rounds,
    )
    return CodeRates(
        codes.nbytes * times / taken["in turn"],
        codes.nbytes / taken["first"],
        codes.nbytes / taken["plain"],
    )
