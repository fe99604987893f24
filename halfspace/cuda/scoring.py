"""Scores of tiles against half-spaces: what is inside, what is open, and the exact test of that.

A thread is a lane of a tile and keeps the scores of a few queries in registers, so 64 lanes
read a coordinate of 64 points in one piece and each float of the points is read once for all
those queries. The margins are those of the processor's filter (`query.py`): they hold for any order
of sums, fused or not. What a margin leaves open is settled from the same floats in float64 and,
where that is not enough, in integers, by the processor's own source (`predicate.py`).

O(n d) for each group of queries; the floor is reading the points once.
"""

import numpy as np

from .. import predicate, query
from ..tiles import TILE
from .queries import ABSOLUTE, KIND, LEAST_SIGN, LEVEL, OFFSET, RELATIVE, UNIT
from .target import Kernel, cuda, device
from .words import WORD, lowest_lane, popcount

ALL, NONE = query.ALL, query.NONE

UNROLLED = 8
"""Coordinates of a point that are asked for at once."""

SHARED = (1, 4)
"""Queries that share what is read of the points, fewest first: a kernel each."""

score_margin = device(query.score_margin)
exact_sign = device(predicate.exact_sign)
LIMBS = predicate.LIMBS


def _tile_kernel(queries: int) -> Kernel:
    """`mask_tiles` for so many queries at a time."""

    def mask_tiles(
        data,
        norms,
        count,
        narrows,
        scalars,
        signs,
        opened,
        whole,
        stop,
        found,
        counting,
        work,
        inside,
        unsettled,
    ):
        lane, d, tiles, m = cuda.threadIdx.x, data.shape[1], data.shape[0], narrows.shape[0]
        groups, gated = (m + queries - 1) // queries, opened.size > 0
        scores = cuda.local.array(queries, data.dtype)
        asked = cuda.local.array(UNROLLED, data.dtype)
        step = cuda.gridDim.x * cuda.blockDim.y
        for group in range(cuda.blockIdx.y, groups, cuda.gridDim.y):
            first = group * queries
            for t in range(cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y, tiles, step):
                slot = t * TILE + lane
                word, bit = 2 * t + lane // WORD, np.uint32(1) << np.uint32(lane % WORD)
                tile_word, tile_bit = t // WORD, np.uint32(1) << np.uint32(t % WORD)
                wanted = False
                for i in range(queries):
                    q = min(first + i, m - 1)
                    scores[i] = 0
                    done = stop and found[q]
                    if not done and signs[q, KIND] != ALL and signs[q, KIND] != NONE:
                        wanted |= not gated or (opened[q, tile_word] & tile_bit) != 0
                if wanted:
                    # Unsigned, indices need no look whether they count from the end.
                    tile, column = np.uint64(t), np.uint64(lane)
                    for j in range(0, d - UNROLLED + 1, UNROLLED):
                        for k in range(UNROLLED):
                            asked[k] = data[tile, np.uint64(j + k), column]
                        for k in range(UNROLLED):
                            for i in range(queries):
                                q = np.uint64(min(first + i, m - 1))
                                scores[i] += narrows[q, np.uint64(j + k)] * asked[k]
                    for j in range(d // UNROLLED * UNROLLED, d):
                        for i in range(queries):
                            q = np.uint64(min(first + i, m - 1))
                            scores[i] += narrows[q, np.uint64(j)] * data[tile, np.uint64(j), column]
                if slot >= count:
                    continue
                for i in range(queries):
                    q = first + i
                    if q >= m or signs[q, KIND] == NONE:
                        continue
                    if signs[q, KIND] == ALL or (gated and (whole[q, tile_word] & tile_bit) != 0):
                        cuda.atomic.or_(inside, (q, word), bit)
                        if stop:
                            found[q] = 1
                        continue
                    if gated and (opened[q, tile_word] & tile_bit) == 0:
                        continue
                    if stop and found[q]:
                        continue
                    if counting and lane == 0:
                        cuda.atomic.add(work, (q, 1), min(TILE, count - t * TILE))
                    level, score = scalars[q, LEVEL], np.float64(scores[i])
                    margin = score_margin(
                        scalars[q, RELATIVE],
                        scalars[q, ABSOLUTE],
                        scalars[q, UNIT],
                        level,
                        norms[t],
                    )
                    # In this order, a NaN settles nothing.
                    if score > level + margin:
                        cuda.atomic.or_(inside, (q, word), bit)
                        if stop:
                            found[q] = 1
                    elif not score < level - margin:
                        cuda.atomic.or_(unsettled, (q, word), bit)

    mask_tiles.__name__ += f"_{queries}"
    mask_tiles.__doc__ = f"""Lanes inside, and lanes that stay open, of {queries} queries at a time.

    Parameters
    ----------
    data, norms : arrays of `Tiles`
    count : int
        Points.
    narrows, scalars, signs : arrays of `Ready`
    opened, whole : uint32 array, shape (m, tile words)
        Tiles to be looked at, and tiles that are all inside; empty where all are to be looked at.
    stop : bool
        Skip queries that `found`, int32 (m,), marks; mark those of which a point is inside.
    counting : bool
        Add the points that each query touches to column 1 of `work`, int64 (m, 3).
    inside, unsettled : uint32 array, shape (m, words)
        Bits are added.
    """
    return Kernel(mask_tiles)


mask_tiles = {queries: _tile_kernel(queries) for queries in SHARED}
"""By the queries that share what is read."""


def shared_by(m: int) -> int:
    """How many of m queries should share what is read."""
    return max(queries for queries in SHARED if queries == 1 or m > 1)


@Kernel
def settle(data, normals, scalars, signs, stop, found, counting, work, inside, unsettled):
    """Add those of the `unsettled` that are inside by the exact predicate; as for `mask_tiles`.

    A word is one thread's, so that nothing else writes it.
    """
    limbs = cuda.local.array(LIMBS, np.int64)
    for i in range(cuda.grid(1), unsettled.size, cuda.gridsize(1)):
        q, word = i // unsettled.shape[1], i % unsettled.shape[1]
        left = np.uint64(unsettled[q, word])
        if not left:
            continue
        if counting:
            cuda.atomic.add(work, (q, 2), popcount(left))
        for k in range(LIMBS):
            limbs[k] = 0
        while left and not (stop and found[q]):
            bit = lowest_lane(left)
            left &= left - np.uint64(1)
            slot = WORD * word + bit
            point = data[slot // TILE, :, slot % TILE]
            sign = exact_sign(normals[q], point, point[:0], scalars[q, OFFSET], limbs)
            if sign >= signs[q, LEAST_SIGN]:
                cuda.atomic.or_(inside, (q, word), np.uint32(1) << np.uint32(bit))
                if stop:
                    found[q] = 1
