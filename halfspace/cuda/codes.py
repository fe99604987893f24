"""The integer filter of a cascade: codes of 4, 6 or 8 bits against half-spaces, then the rest.

A row of codes gives each lane four bytes, which one instruction multiplies with four weights and
adds up (`dot4`). The product is exact, so a lane passes here where it passes on the processor;
what passing means, and that no point is lost, is proved in `code_filter.py`. Lanes that pass are
settled by their row codes, then by their floats, and what is still open by `scoring.settle`.
"""

import numpy as np

from .. import code_rows, query
from ..tiles import TILE
from .queries import ABSOLUTE, KIND, LEVEL, RELATIVE, UNIT
from .scoring import score_margin
from .target import Kernel, cuda, dot4
from .words import WORD

ALL, NONE = query.ALL, query.NONE

SHARED = (1, 4)
"""Queries that share what is read of the codes, fewest first: a kernel each."""

NIBBLES, PAIRS = 0x0F0F0F0F, 0x03030303
CENTRE, ERROR = 2, 3
"""Columns of `Targets.ranges`."""


def _code_kernel(queries: int, bits: int) -> Kernel:
    """`test_codes` for so many queries at a time and codes of so many bits."""
    size, coordinates = code_rows.GROUPS[bits]
    fours = coordinates // 4
    four_bits, six_bits = bits == 4, bits == 6

    def test_codes(codes, count, weights, bars, signs, opened, always, passing):
        lane, tiles, rows, m = cuda.threadIdx.x, codes.shape[0], codes.shape[1], bars.shape[0]
        groups, gated = (m + queries - 1) // queries, opened.size > 0
        sums = cuda.local.array(queries, np.int32)
        step = cuda.gridDim.x * cuda.blockDim.y
        for group in range(cuda.blockIdx.y, groups, cuda.gridDim.y):
            first = group * queries
            for t in range(cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y, tiles, step):
                if t * TILE + lane >= count:
                    continue
                word, bit = 2 * t + lane // WORD, np.uint32(1) << np.uint32(lane % WORD)
                tile_word, tile_bit = t // WORD, np.uint32(1) << np.uint32(t % WORD)
                wanted = False
                for i in range(queries):
                    q = min(first + i, m - 1)
                    sums[i] = 0
                    if signs[q, KIND] != ALL and signs[q, KIND] != NONE:
                        wanted |= not gated or (opened[q, tile_word] & tile_bit) != 0
                if wanted:
                    # Unsigned, indices need no look whether they count from the end.
                    tile, column = np.uint64(t), np.uint64(lane)
                    for row in range(0, rows, size):
                        # Weights stand in the order of the coordinates, four to a word.
                        at = row // size * fours
                        if six_bits:
                            low = codes[tile, np.uint64(row + 2), column]
                        for k in range(fours):
                            four = codes[tile, np.uint64(row + k // 2), column]
                            if six_bits:
                                upper = (four >> (4 * (k % 2))) & NIBBLES
                                four = (upper << 2) | ((low >> (2 * k)) & PAIRS)
                            elif four_bits:
                                four = (four >> (4 * k)) & NIBBLES
                            for i in range(queries):
                                q = np.uint64(min(first + i, m - 1))
                                sums[i] = dot4(four, weights[q, np.uint64(at + k)], sums[i])
                unknown = (always[t, lane // WORD] & bit) != 0
                for i in range(queries):
                    q = first + i
                    if q >= m or signs[q, KIND] == NONE:
                        continue
                    passes = unknown or signs[q, KIND] == ALL
                    if not passes and (not gated or (opened[q, tile_word] & tile_bit) != 0):
                        passes = sums[i] >= bars[q]
                    if passes:
                        cuda.atomic.or_(passing, (q, word), bit)

    test_codes.__name__ += f"_{queries}_{bits}"
    test_codes.__doc__ = f"""Lanes whose {bits}-bit codes may be inside, of {queries} queries.

    Parameters
    ----------
    codes : uint32 array, shape (tiles, rows, 64)
    count : int
        Lanes in all.
    weights : int32 array, shape (m, words)
        Four signed bytes each.
    bars : int32 array, shape (m,)
    signs : array of `Ready`
    opened : uint32 array, shape (m, tile words)
        Tiles to be looked at; empty for all.
    always : uint32 array, shape (tiles, 2)
        Lanes that codes say nothing of; they pass.
    passing : uint32 array, shape (m, words)
        Bits are added.
    """
    return Kernel(test_codes)


test_codes = {
    (queries, bits): _code_kernel(queries, bits) for queries in SHARED for bits in code_rows.GROUPS
}
"""By the queries that share what is read, and by bits."""


@Kernel
def refine(
    data,
    norms,
    count,
    narrows,
    scalars,
    signs,
    codes,
    weights,
    ranges,
    bare,
    stop,
    found,
    passing,
    inside,
    unsettled,
):
    """Settle lanes that pass by their row codes, then by their floats.

    Parameters
    ----------
    data, norms, count, narrows, scalars, signs, stop, found, inside, unsettled
        As for `scoring.mask_tiles`.
    codes : uint8 array, shape (slots, d)
        Row codes, or none.
    weights : float32 array, shape (m, d)
    ranges : float64 array, shape (m, 5)
        Of `Targets`.
    bare : uint32 array, shape (tiles, 2)
        Lanes that row codes say nothing of.
    passing : uint32 array, shape (m, words)
    """
    d, width = data.shape[1], TILE * data.shape[0]
    zero = narrows.dtype.type(0.0)
    for i in range(cuda.grid(1), width * passing.shape[0], cuda.gridsize(1)):
        q, slot = i // width, i % width
        word, bit = slot // WORD, np.uint32(1) << np.uint32(slot % WORD)
        if (passing[q, word] & bit) == 0 or (stop and found[q]):
            continue
        t, lane, level = slot // TILE, slot % TILE, scalars[q, LEVEL]
        is_inside, is_open = signs[q, KIND] == ALL, signs[q, KIND] != ALL
        if is_open and codes.shape[0] and (bare[t, lane // WORD] & bit) == 0:
            total = np.float32(0.0)
            for j in range(d):
                total += np.float32(codes[slot, j]) * weights[q, j]
            score = ranges[q, CENTRE] + np.float64(total)
            if score - ranges[q, ERROR] > level:
                is_inside, is_open = True, False
            elif score + ranges[q, ERROR] < level:
                is_open = False
        if is_open:
            total = zero
            for j in range(d):
                total += narrows[q, j] * data[t, j, lane]
            score = np.float64(total)
            margin = score_margin(
                scalars[q, RELATIVE], scalars[q, ABSOLUTE], scalars[q, UNIT], level, norms[t]
            )
            if score > level + margin:
                is_inside, is_open = True, False
            elif score < level - margin:
                is_open = False
        if is_inside:
            cuda.atomic.or_(inside, (q, word), bit)
            if stop:
                found[q] = 1
        elif is_open:
            cuda.atomic.or_(unsettled, (q, word), bit)
