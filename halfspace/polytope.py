"""Polytope ranges: the points inside several half-spaces at once, among them simplices and boxes.

The walk of the tree is that for one half-space with a list of faces: a face whose half-space holds
all of a node is dropped below it, a node outside any face is pruned, and a node inside all of them
is taken whole. A node is opened only where a face crosses it, so with crossing number O(n^(1-1/d))
h faces take O(h n^(1-1/d) + k) to report and O(h n^(1-1/d)) to count.

Source: simplex range searching, Matousek 1992, Chan 2012.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from . import cover
from .bounds import score_ranges
from .inputs import Polytopes, as_polytopes
from .jit import kernel, part
from .predicate import LIMBS
from .query import NONE, REGULAR, Halfspace, gamma, prepare, rescaled
from .report import Report
from .tiles import (
    TILE,
    lanes_above,
    lanes_not_below,
    lowest_lane,
    popcount,
    tile_mask,
    used_lanes,
)
from .tree import FANOUT, children_of, used_nodes

if TYPE_CHECKING:
    from .index import Index
    from .static_index import StaticIndex

_ONE = np.uint64(1)
_FULL = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


class Faces(NamedTuple):
    """The half-spaces of one polytope, made ready for filtering."""

    normals: np.ndarray  # (h, d) as given
    offsets: np.ndarray  # (h,)
    closed: np.ndarray  # (h,) bool
    narrows: np.ndarray  # (h, d) scaled normals, in the dtype of the points
    sizes: np.ndarray  # (h, d) their absolute values
    scaled: np.ndarray  # (h, 2) scaled offset, norm of the scaled normal
    kinds: tuple[Halfspace, Halfspace]  # what all open faces share, and all closed ones


@part
def _kinds(zero, narrow):
    """`Faces.kinds`; `zero` (d,) and `narrow` (d,), in the dtype of the points, are scratch."""
    return prepare(zero, 0.0, False, narrow), prepare(zero, 0.0, True, narrow)


@part
def _prepare_faces(faces, listed):
    """List the faces that are planes in `listed` (h,); how many, or -1 where one has no points."""
    planes = 0
    for f in range(faces.offsets.size):
        narrow = faces.narrows[f]
        query = prepare(faces.normals[f], faces.offsets[f], faces.closed[f], narrow)
        if query.kind == NONE:
            return -1
        if query.kind == REGULAR:
            faces.scaled[f, 0], faces.scaled[f, 1] = query.level, query.norm
            for j in range(narrow.size):
                faces.sizes[f, j] = abs(narrow[j])
            listed[planes] = f
            planes += 1
    return planes


@part(inline=True)
def _face(faces, f):
    """Face f as a half-space."""
    like = faces.kinds[1 if faces.closed[f] else 0]
    error = gamma(faces.normals.shape[1], like.unit)
    return rescaled(like, faces.offsets[f], faces.scaled[f, 0], faces.scaled[f, 1], error)


class Walk(NamedTuple):
    """Where a walk of the tree stands.

    Row l is of the block open at level l, whose children are blocks of level l - 1 or, at level 0,
    tiles; the last level is above the root. The block's faces are listed in row l + 1.
    """

    blocks: np.ndarray  # (levels,) int64
    pending: np.ndarray  # (levels,) uint64, lanes still to open
    straddlers: np.ndarray  # (levels, h) uint64, lanes that a listed face leaves open
    listed: np.ndarray  # (levels + 1, h) int64, faces not dropped
    lengths: np.ndarray  # (levels + 1,) int64, how many


@part(inline=True)
def _inside_tile(tiles, t, faces, listed, length, scores, limbs, work, q):
    """Lanes of tile t inside all listed faces; `work` counts a point once a face tested."""
    mask = used_lanes(tiles.ranks.size, t)
    for i in range(length):
        if not mask:
            break
        f = listed[i]
        work[q, 1] += popcount(mask)
        mask, tests = tile_mask(
            tiles.data,
            tiles.norms,
            t,
            mask,
            faces.normals,
            f,
            faces.narrows[f],
            _face(faces, f),
            scores,
            limbs,
        )
        work[q, 2] += tests
    return mask


@part(inline=True)
def _test_block(tree, faces, walk, level, scratch, low, high, work, q):
    """Test the nodes of a block, to open those that a face crosses; mask of those inside all."""
    block, bounds = walk.blocks[level], (tree.centres, tree.frames, tree.reaches)
    possible, opened = used_nodes(tree.nodes.last, block), np.uint64(0)
    for i in range(walk.lengths[level + 1]):
        if not possible:
            break
        f = walk.listed[level + 1, i]
        work[q, 0] += popcount(possible)
        query = _face(faces, f)
        narrow, size = faces.narrows[f], faces.sizes[f]
        score_ranges(bounds, block, narrow, size, query, scratch, low, high)
        bar = low.dtype.type(query.level)
        possible &= lanes_not_below(high, bar)
        crossed = possible & ~lanes_above(low, bar)
        walk.straddlers[level, i] = crossed
        opened |= crossed
    walk.pending[level] = possible & opened
    return possible & ~opened


@part(inline=True)
def _open_next(levels, walk, level):
    """Take the next pending child of a block and list its faces; the child."""
    lane = lowest_lane(walk.pending[level])
    walk.pending[level] &= walk.pending[level] - _ONE
    length = 0
    for i in range(walk.lengths[level + 1]):
        if (walk.straddlers[level, i] >> np.uint64(lane)) & _ONE:
            walk.listed[level, length] = walk.listed[level + 1, i]
            length += 1
    walk.lengths[level] = length
    return children_of(levels, level, walk.blocks[level]) + lane


@kernel
def cover_polytopes_tree(
    tree, normals, offsets, closed, stop_at_first, indptr, parts, masks, counts, work
):
    """Cover polytopes by walks of the tree, depth first; see `cover.covers` for the arguments.

    Row q of `normals` (m, h, d), `offsets` (m, h) and `closed` (m, h) is a polytope.
    """
    tiles, count = tree.tiles, tree.tiles.ranks.size
    first, last, levels = tree.nodes.first, tree.nodes.last, tree.levels
    (room, d, _), dtype = tiles.data.shape, tiles.data.dtype
    h, height = offsets.shape[1], levels.size - 1
    if not room:
        return offsets.shape[0]
    narrows, sizes, scaled = np.empty((h, d), dtype), np.empty((h, d), dtype), np.empty((h, 2))
    low, high, limbs = np.empty(TILE, dtype), np.empty(TILE, dtype), np.zeros(LIMBS, np.int64)
    scratch = np.empty((2, TILE), dtype)
    kinds = _kinds(np.zeros(d), np.empty(d, dtype))
    walk = Walk(
        np.empty(height + 1, np.int64),
        np.empty(height + 1, np.uint64),
        np.ones((height + 1, h), np.uint64),
        np.empty((height + 2, h), np.int64),
        np.empty(height + 2, np.int64),
    )
    blocks, pending, lengths, leaf = walk.blocks, walk.pending, walk.lengths, walk.listed[0]
    at = 0
    for q in range(offsets.shape[0]):
        if parts.size - at < room:
            return q
        faces = Faces(normals[q], offsets[q], closed[q], narrows, sizes, scaled, kinds)
        planes = _prepare_faces(faces, walk.listed[height + 1])
        level, lengths[height + 1], blocks[height] = height, planes, levels[height]
        pending[height] = np.uint64(planes >= 0)
        while level <= height:
            if not pending[level]:
                level += 1
                continue
            child = _open_next(levels, walk, level)
            if level == 0:
                mask = _inside_tile(tiles, child, faces, leaf, lengths[0], low, limbs, work, q)
                if mask:
                    parts[at], masks[at] = child, mask
                    counts[q] += popcount(mask)
                    at += 1
            else:
                level -= 1
                blocks[level] = child
                inside = _test_block(tree, faces, walk, level, scratch, low, high, work, q)
                while inside:
                    v = child * FANOUT + lowest_lane(inside)
                    inside &= inside - _ONE
                    parts[at], masks[at] = ~v, _FULL
                    counts[q] += min(last[v] * TILE, count) - first[v] * TILE
                    at += 1
            if stop_at_first and counts[q]:
                break
        indptr[q + 1] = at
    return offsets.shape[0]


@kernel
def cover_polytopes_scan(
    scan, normals, offsets, closed, stop_at_first, indptr, parts, masks, counts, work
):
    """Cover polytopes by testing every tile; see `cover_polytopes_tree`."""
    tiles, h = scan.tiles, offsets.shape[1]
    (room, d, _), dtype = tiles.data.shape, tiles.data.dtype
    narrows, sizes, scaled = np.empty((h, d), dtype), np.empty((h, d), dtype), np.empty((h, 2))
    scores, limbs, listed = np.empty(TILE, dtype), np.zeros(LIMBS, np.int64), np.empty(h, np.int64)
    kinds = _kinds(np.zeros(d), np.empty(d, dtype))
    at = 0
    for q in range(offsets.shape[0]):
        if parts.size - at < room:
            return q
        faces = Faces(normals[q], offsets[q], closed[q], narrows, sizes, scaled, kinds)
        planes = _prepare_faces(faces, listed)
        for t in range(room if planes >= 0 else 0):
            mask = _inside_tile(tiles, t, faces, listed, planes, scores, limbs, work, q)
            if mask:
                parts[at], masks[at] = t, mask
                counts[q] += popcount(mask)
                at += 1
                if stop_at_first:
                    break
        indptr[q + 1] = at
    return offsets.shape[0]


def covers(
    polytopes: Polytopes,
    index: "StaticIndex",
    consume: Callable[[cover.Covers], cover.Kept],
    stop_at_first: bool = False,
) -> list[cover.Kept]:
    """Covers of polytopes; see `cover.covers`."""
    return cover.covers(
        index._polytope_cover,
        polytopes.normals,
        polytopes.offsets,
        closed=polytopes.closed,
        stop_at_first=stop_at_first,
        nanoseconds=index._query_nanoseconds() * polytopes.offsets.shape[1],
        consume=consume,
    )


def report_polytope(
    index: "Index",
    normals: ArrayLike,
    offsets: ArrayLike,
    *,
    closed: bool | ArrayLike = True,
    max_results: int | None = None,
) -> np.ndarray | Report:
    """Ids of the points inside all half-spaces {x : <w_i, x> >= b_i} of each polytope.

    O(h n^(1-1/d) + k) for a polytope of h faces that holds k points, where `report` takes
    O(n^(1-1/d) + k).

    Parameters
    ----------
    normals : array_like, shape (h, d) or (m, h, d)
        Inward normals of the h faces of one polytope, or of m; finite. With h = 0 all points are
        inside. Polytopes of fewer faces than others are padded by zero normals with offset
        ``-inf``, which hold all points (with offset 0 only where they are closed).
    offsets : array_like, scalar or shape (h,) or (m, h)
        One for all faces, or as many as normals. ``-inf`` takes all points, ``inf`` none.
    closed : bool or array_like of bool, shape (h,) or (m, h), optional
        False for the open half-space <w_i, x> > b_i: one for all faces, for each face of all
        polytopes, or for each face.
    max_results : int, optional
        Raise rather than return more ids than this in all.

    Returns
    -------
    ndarray of int64 or Report
        Ascending ids for one polytope; a `Report` for many.

    Raises
    ------
    TypeError
        Not real numbers, or `closed` not of booleans.
    ValueError
        Wrong shapes, NaN anywhere, an infinite normal.
    ResultTooLarge
        More than `max_results` ids; raised before they are allocated.

    Examples
    --------
    The triangle with corners (0, 0), (2, 0), (0, 2), with and without its boundary:

    >>> import halfspace
    >>> index = halfspace.build([[0.0, 0.0], [0.5, 0.5], [1.0, 1.0], [2.0, 2.0]])
    >>> normals, offsets = [[1, 0], [0, 1], [-1, -1]], [0, 0, -2]
    >>> index.report_polytope(normals, offsets)
    array([0, 1, 2])
    >>> index.report_polytope(normals, offsets, closed=[True, True, False])
    array([0, 1])
    """
    polytopes = as_polytopes(normals, offsets, closed, index.dim)
    return index._reported(partial(covers, polytopes), polytopes.single, max_results)


def count_polytope(
    index: "Index",
    normals: ArrayLike,
    offsets: ArrayLike,
    *,
    closed: bool | ArrayLike = True,
) -> int | np.ndarray:
    """Count the points inside all half-spaces of each polytope: int, or int64 (m,).

    Parameters and errors as for `report_polytope`. O(h n^(1-1/d)) for h faces.

    Examples
    --------
    >>> import halfspace
    >>> index = halfspace.build([[0.0], [1.0], [2.0]])
    >>> index.count_polytope([[1.0], [-1.0]], [0.5, -2.0])
    2
    """
    polytopes = as_polytopes(normals, offsets, closed, index.dim)
    counts = index._counted(partial(covers, polytopes))
    return int(counts[0]) if polytopes.single else counts
