"""Scan of a batch by matrix products: queries share a chunk of tiles while it is in cache.

A chunk of tiles (t, d, 64) times a group of g normals (g, d) is t products (g, d) x (d, 64) by
BLAS, small enough for its kernels that copy nothing: 64 scores of a query stand side by side, as
masks of a tile want them. They are folded into covers while they are in cache, so there is never a
matrix of all queries by all points. O(g n d) a group, and each float of the points is read once
for it.

However BLAS orders a sum of products, fused or not, the score is within the bound of `query.py`
(Higham 2002, Accuracy and Stability of Numerical Algorithms, section 3.1), and so is that of
`tile_scores`: the two differ by less than two margins. Where a score by BLAS is further than that
and a margin from the plane, both settle it alike. A tile of which any other lane is left goes to
`tile_mask`, so answers and counters of work are those of a scan query by query, whatever the BLAS.
"""

from typing import NamedTuple

import numpy as np

from .cover import close_gaps
from .jit import kernel, part
from .predicate import LIMBS
from .query import ALL, REGULAR, gamma, prepare, rescaled, settled_range
from .tiles import TILE, Tiles, lanes_above, lanes_not_below, popcount, tile_mask, used_lanes

GROUP = 64
"""Queries that share a chunk at most."""

PRODUCT = 1 << 18
"""Multiplications of one product at most: up to here OpenBLAS starts no threads of its own."""

SCORE_BYTES = 1 << 19
"""Scores of a chunk: they stay in cache."""

WIDENING = 3.0
"""Widths of `settled_range`, two margins each, that scores by BLAS leave open on either side."""

LEAST_DIMENSION, LEAST_ENTRIES = 8, 48
"""Dimension, and entries of a group's normals, from which on products may be faster."""

LEAST_MULTIPLICATIONS = 1 << 20
"""Multiplications of a group with all points from which on they are worth the calls they take."""


def group_size(queries: int, tiles: int, d: int, room: int) -> int:
    """How many of so many queries share chunks, where covers have room for so many parts."""
    return min(queries, room // max(1, tiles), GROUP, PRODUCT // (TILE * d))


def products_pay(group: int, n: int, d: int) -> bool:
    """Whether products are faster than scanning n points for each query of a group."""
    entries = group * d
    wide = d >= LEAST_DIMENSION and group > 1 and entries >= LEAST_ENTRIES
    return wide and entries * n >= LEAST_MULTIPLICATIONS


class Group(NamedTuple):
    """Half-spaces made ready, a row each."""

    narrows: np.ndarray  # (g, d) scaled normals, in the floats of the points
    kinds: np.ndarray  # (g,) int64
    levels: np.ndarray  # (g,) float64, scaled offsets
    norms: np.ndarray  # (g,) float64, of scaled normals


@kernel
def prepare_group(tiles, normals, offsets, closed, size, work):
    """Make the first `size` half-spaces ready, and count the points that each is to touch."""
    narrows = np.empty((size, normals.shape[1]), tiles.data.dtype)
    kinds, levels, norms = np.empty(size, np.int64), np.empty(size), np.empty(size)
    for q in range(size):
        query = prepare(normals[q], offsets[q], closed, narrows[q])
        kinds[q], levels[q], norms[q] = query.kind, query.level, query.norm
        work[q, 1] = tiles.ranks.size if query.kind == REGULAR else 0
    return Group(narrows, kinds, levels, norms)


@part(inline=True)
def product_mask(scores, used, query, norm):
    """Lanes inside by their scores from BLAS, and whether that settles all of them."""
    low, high = settled_range(query, query.level, norm)
    gap, kind = WIDENING * (high - low), scores.dtype.type
    possible = lanes_not_below(scores, kind(query.level - gap)) & used
    if not possible:
        return possible, True
    inside = lanes_above(scores, kind(query.level + gap)) & possible
    return inside, inside == possible


@kernel
def fold_scores(
    tiles, first, scores, group, normals, offsets, closed, parts, masks, ends, counts, work
):
    """Add tiles from `first` on, by their scores (t, g, 64), to covers that end at `ends` (g,)."""
    data, norms, count = tiles.data, tiles.norms, tiles.ranks.size
    narrows, kinds, levels, sizes = group
    limbs, lane_scores = np.zeros(LIMBS, np.int64), np.empty(TILE, data.dtype)
    like = prepare(normals[0], offsets[0], closed, np.empty(normals.shape[1], data.dtype))
    error = gamma(narrows.shape[1], like.unit)
    for i in range(scores.shape[0]):
        t = first + i
        used, norm = used_lanes(count, t), norms[t]
        for q in range(ends.size):
            mask = used if kinds[q] == ALL else np.uint64(0)
            if kinds[q] == REGULAR:
                query = rescaled(like, offsets[q], levels[q], sizes[q], error)
                mask, settled = product_mask(scores[i, q], used, query, norm)
                if not settled:
                    mask, tests = tile_mask(
                        data, norms, t, used, normals, q, narrows[q], query, lane_scores, limbs
                    )
                    work[q, 2] += tests
            if mask:
                at = ends[q]
                parts[at], masks[at], ends[q] = t, mask, at + 1
                counts[q] += popcount(mask)


def cover_products(
    tiles: Tiles,
    normals: np.ndarray,
    offsets: np.ndarray,
    closed: bool,
    size: int,
    indptr: np.ndarray,
    parts: np.ndarray,
    masks: np.ndarray,
    counts: np.ndarray,
    work: np.ndarray,
) -> int:
    """Cover the first `size` half-spaces; how many that are.

    Parameters
    ----------
    tiles : Tiles
    normals, offsets, closed, indptr, parts, masks, counts, work
        As for `cover.covers`, with room for as many parts as there are tiles for each query.
    size : int
        At least 1, at most as many as `group_size` says.
    """
    data, room = tiles.data, len(tiles.data)
    group = prepare_group(tiles, normals, offsets, closed, size, work)
    step = min(room, max(1, SCORE_BYTES // (size * TILE * data.itemsize)))
    scores, ends = np.empty((step, size, TILE), data.dtype), np.arange(size) * room
    for first in range(0, room, step):
        chunk = data[first : first + step]
        found = scores[: len(chunk)]
        with np.errstate(all="ignore"):  # scores that overflow settle nothing
            np.matmul(group.narrows, chunk, out=found)
        fold_scores(
            tiles, first, found, group, normals, offsets, closed, parts, masks, ends, counts, work
        )
    close_gaps(parts, masks, ends, room, indptr)
    return size
