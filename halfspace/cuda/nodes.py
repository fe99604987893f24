"""Nodes of a bounded tree against half-spaces, level by level from the root.

A thread is a node, 64 siblings side by side. A block of nodes is looked at where its parent
straddles the plane, taken as it is where its parent is inside, and left out otherwise; so after the
leaves every tile is known to be inside, outside or open. Bounds and margins are those of
`bounds.py`; they hold for any order of sums, fused or not.

O(nodes) to see which blocks are open, O(d) or O(d^2) for each of the nodes in those.
"""

import math

import numpy as np

from .. import bounds, query
from ..tree import FANOUT
from .queries import ABSOLUTE, KIND, LEVEL, NORM, RELATIVE, UNIT
from .target import Kernel, cuda
from .words import WORD

ALL, NONE = query.ALL, query.NONE
RADIUS, SIZE, SPREAD, RESIDUAL = bounds.RADIUS, bounds.NORM, bounds.SPREAD, bounds.RESIDUAL
LEAST_SQUARES = {4: 2.0**-80, 8: 2.0**-900}
"""By the size of floats; smaller squares may have underflowed, and make an ellipsoid too small."""


@Kernel
def test_nodes(
    centres,
    frames,
    reaches,
    last,
    narrows,
    scalars,
    signs,
    first,
    blocks,
    parents,
    least,
    counting,
    work,
    whole,
    straddling,
):
    """Mark the nodes of a level that are inside, and those that straddle the plane.

    Parameters
    ----------
    centres, frames, reaches : arrays of `BoundedTree`
    last : int32 array
        Last tiles of all nodes; zero for a lane that is none.
    narrows, scalars, signs : arrays of `Ready`
    first, blocks : int
        First block of the level, and how many.
    parents : int
        First block of the level above; negative for the root's.
    least : float
        Squares from here on are in range of the points' floats: see `LEAST_SQUARES`.
    counting : bool
        Add the nodes that each query tests to column 0 of `work`, int64 (m, 3).
    whole, straddling : uint32 array, shape (m, node words)
        Bits are added; those of the level above are read.
    """
    lane, d, m = cuda.threadIdx.x, centres.shape[1], narrows.shape[0]
    rows = frames.shape[0] // centres.shape[0]
    step = cuda.gridDim.x * cuda.blockDim.y
    zero = narrows.dtype.type(0.0)
    for q in range(cuda.blockIdx.y, m, cuda.gridDim.y):
        for i in range(cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y, blocks, step):
            block = first + i
            node = block * FANOUT + lane
            if not last[node] or signs[q, KIND] == ALL or signs[q, KIND] == NONE:
                continue
            word, bit = node // WORD, np.uint32(1) << np.uint32(node % WORD)
            if parents >= 0:
                parent = parents * FANOUT + i
                parent_word = parent // WORD
                parent_bit = np.uint32(1) << np.uint32(parent % WORD)
                if (whole[q, parent_word] & parent_bit) != 0:
                    cuda.atomic.or_(whole, (q, word), bit)
                    continue
                if (straddling[q, parent_word] & parent_bit) == 0:
                    continue
            if counting:
                cuda.atomic.add(work, (q, 0), 1)
            middle, reach, squares = zero, zero, zero
            # Unsigned, indices need no look whether they count from the end.
            row_of, column = np.uint64(q), np.uint64(lane)
            for j in range(d):
                centre = centres[np.uint64(block), np.uint64(j), column]
                middle += narrows[row_of, np.uint64(j)] * centre
            for row in range(rows):
                along, frame = zero, np.uint64(block * rows + row)
                for j in range(d):
                    weight = narrows[row_of, np.uint64(j)]
                    if reaches.shape[1] <= SPREAD:
                        weight = abs(weight)
                    along += weight * frames[frame, np.uint64(j), column]
                reach += abs(along)
                squares += along * along
            norm = scalars[q, NORM]
            low, high = np.float64(middle), np.float64(reach)
            if reaches.shape[1] > SPREAD:
                around = reaches[block, SPREAD, lane] * math.sqrt(np.float64(squares))
                if squares > least and around < high:
                    high = around
                high += norm * reaches[block, RESIDUAL, lane]
            ball = norm * reaches[block, RADIUS, lane]
            if ball < high:
                high = ball
            level = scalars[q, LEVEL]
            high += 4.0 * scalars[q, RELATIVE] * reaches[block, SIZE, lane]
            high += 4.0 * (scalars[q, ABSOLUTE] + scalars[q, UNIT] * abs(level))
            # In this order, a NaN settles nothing.
            if low - high > level:
                cuda.atomic.or_(whole, (q, word), bit)
            elif not low + high < level:
                cuda.atomic.or_(straddling, (q, word), bit)
