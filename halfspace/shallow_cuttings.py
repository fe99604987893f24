"""ShallowCuttings (Part 2): conflict lists for every depth, for points that stay and d <= 6.

Levels of depths k_1 > k_2 > …, each half the one before, from n / 16 down to 32. Each is a fan of
cones (`fan.py`) whose conflict lists hold what lies above planes with k_i points above, so O(k_i)
points. A query finds its cone level by level, O(1) steps each expected, and scans the list of the
finest level that is certified to hold its half-space (`cuttings.py`): O(log n + k) for reports of
k points; deeper ones go to a tree (Part 1) under it all. Conflict lists are themselves half-space
reports, and each level's are taken from the level before.

Space: a level of c cones takes O(c k_i / 64) tile numbers, O(n) where c = O(n / k_i): on any points
for d <= 3, on smooth bodies and spheres in any dimension. The worst case is c = (n / k)^⌊d/2⌋ (the
moment curve), so levels that would not fit into `memory` are not made, and what is left of it turns
lists of tile numbers into lists of points, sorted by id, which are read two to four times faster.
That is the trade of Part 2: with s between n and n^⌊d/2⌋, time n / s^(1/⌊d/2⌋) + k.

In one dimension the points are sorted, and the tree over them is a B-tree: no level is needed.

Source: Matoušek 1992, "Reporting points in halfspaces"; Chan 2000, "Random sampling, halfspace
range reporting, and construction of (≤k)-levels in three dimensions"; Afshani, Chan 2009.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from . import cover
from .conflict_lists import Lists, copied_bytes, copy_lists, first_tiles, merge_lists
from .cuttings import Cuttings, cover_cuttings, top_cuttings, walk
from .fan import Fan, frame_of, make_fan
from .index import Index
from .inputs import as_count
from .jit import kernel
from .kd_tree import order_points
from .polytope import cover_polytopes_tree
from .tiles import TILE, Tiles, arrays_of, frozen, make_tiles
from .tree import BoundedTree, make_tree

MOST_DIMENSIONS = 6

COARSEST_SHARE = 16
"""The coarsest level is that of n over this."""

POINTS_PER_CONE = 2
"""A level has no more cones than points over this, so that the search takes linear space."""

FINEST_DEPTH = 32
"""Finer levels would save less than a tile a query."""

STEP = 2
"""Ratio of the depths of consecutive levels."""

DEFAULT_MEMORY = 32
"""Bytes the index may take for each byte of points, where `memory` is not given."""


class _Level(NamedTuple):
    """One level's rows of `Cuttings`."""

    depth: int
    fan: Fan
    solvers: np.ndarray
    residuals: np.ndarray
    lists: Lists

    @property
    def nbytes(self) -> int:
        cones, d = self.fan.cones.shape
        return cones * _cone_bytes(d) + self.lists.entries.nbytes


def _cone_bytes(d: int) -> int:
    """Bytes of a cone but for its list: solver, offsets, residual, neighbours, finer, list."""
    return 8 * (d * d + d + 1) + 4 * (d + 1) + 16


def _solvers(fan: Fan) -> tuple[np.ndarray, np.ndarray]:
    """Matrices that give shares, and bounds on what is left per unit of ||w||; see `cuttings`."""
    spans = fan.normals[fan.cones].transpose(0, 2, 1)
    d = spans.shape[1]
    regular = np.abs(np.linalg.det(spans)) > 1e-100
    solvers = np.full(spans.shape, np.nan)
    solvers[regular] = np.linalg.inv(spans[regular])
    left = np.linalg.norm(np.eye(d) - spans @ solvers, axis=(1, 2))
    sizes = np.linalg.norm(spans, axis=(1, 2)) * np.linalg.norm(solvers, axis=(1, 2))
    residuals = 1.001 * left + 4.0 * (d + 2) * 2.0**-53 * sizes
    return solvers, np.where(np.isnan(residuals), np.inf, residuals)


@kernel
def _link(normals, cones, neighbours, finer_solvers, finer_neighbours, finer):
    """Fill `finer`: for every cone, the finer one that holds its middle.

    Neighbours are taken one after another, so that each walk starts near its end.
    """
    c, d = cones.shape
    w, shares = np.empty(d), np.empty(d)
    waiting, start = np.empty(c, np.int64), np.zeros(c, np.int64)
    done, size = np.zeros(c, np.bool_), 0
    for seed in range(c):
        if done[seed]:
            continue
        waiting[size], done[seed] = seed, True
        size += 1
        while size:
            size -= 1
            cone = waiting[size]
            w[:] = 0.0
            for f in range(d):
                for j in range(d):
                    w[j] += normals[cones[cone, f], j] / d
            found, _ = walk(finer_solvers, finer_neighbours, start[cone], w, shares)
            if found < 0:
                found = np.int64(0)
            finer[cone] = found
            for f in range(d):
                beside = neighbours[cone, f]
                if beside >= 0 and not done[beside]:
                    start[beside], done[beside] = found, True
                    waiting[size] = beside
                    size += 1


def _links(fan: Fan, level: _Level) -> np.ndarray:
    """For every cone of `fan`, the cone of the next `level` that holds its middle."""
    finer = np.empty(len(fan.cones), np.int32)
    _link(fan.normals, fan.cones, fan.neighbours, level.solvers, level.fan.neighbours, finer)
    return finer


def _reach(tiles: Tiles) -> float:
    """Upper bound on the points' norms, infinite where their squares overflow."""
    wide = (np.square(t, dtype=np.float64).sum(axis=0).max() for t in tiles.data)
    return float(np.sqrt(max(wide, default=0.0)) * (1.0 + 1e-10) + 1e-150)


def _assemble(
    tree: BoundedTree, reach: float, levels: list[_Level], finer: list[np.ndarray]
) -> Cuttings:
    """Cuttings of levels, all lists by tile numbers."""
    d = tree.tiles.data.shape[1]
    firsts = np.cumsum([0, *(len(level.fan.cones) for level in levels)])
    begins = np.cumsum([0, *(len(level.lists.entries) for level in levels)])
    lists = [
        np.stack([level.lists.indptr[:-1] + begin, np.diff(level.lists.indptr)], axis=1)
        for level, begin in zip(levels, begins[:-1], strict=True)
    ]

    def joined(shape: tuple[int, ...], dtype: type, parts: list[np.ndarray]) -> np.ndarray:
        return frozen(np.concatenate([np.empty((0, *shape), dtype), *parts]))

    neighbours = [
        level.fan.neighbours + np.where(level.fan.neighbours < 0, 0, first).astype(np.int32)
        for level, first in zip(levels, firsts[:-1], strict=True)
    ]
    return Cuttings(
        tiles=tree.tiles,
        tree=tree,
        levels=frozen(firsts.astype(np.int64)),
        depths=frozen(np.array([level.depth for level in levels], np.int64)),
        copied=frozen(np.zeros(len(levels), bool)),
        solvers=joined((d, d), np.float64, [level.solvers for level in levels]),
        offsets=joined((d,), np.float64, [lv.fan.offsets[lv.fan.cones] for lv in levels]),
        residuals=joined((), np.float64, [level.residuals for level in levels]),
        neighbours=joined((d,), np.int32, neighbours),
        finer=joined((), np.int32, finer),
        lists=joined((2,), np.int64, lists),
        entries=joined((), np.int32, [level.lists.entries for level in levels]),
        reach=frozen(np.array([reach])),
    )


def _level(cuttings: Cuttings, fan: Fan, depth: int) -> _Level:
    """Conflict lists of a fan, by reports from the levels so far, and all else of its level."""
    normals, offsets = frozen(fan.normals), frozen(fan.offsets)
    blocks = cover.covers(
        cover_cuttings,
        cuttings,
        normals,
        offsets,
        closed=False,
        stop_at_first=False,
        nanoseconds=10.0 * depth,
        consume=cover.keep,
    )
    lists = merge_lists(fan.cones, blocks, cuttings.tree)
    return _Level(depth, fan, *_solvers(fan), lists)


def _depths(n: int, expected_count: int | None) -> list[int]:
    """Depths of the levels, coarsest first."""
    finest = max(FINEST_DEPTH, (expected_count or 0) // 2)
    depths = [n // COARSEST_SHARE]
    while depths[-1] >= finest:
        depths.append(int(depths[-1] / STEP))
    return depths[:-1]


@np.errstate(all="ignore")  # what overflows ends in a fan that certifies nothing, or in none
def make_cuttings(tree: BoundedTree, room: int, expected_count: int | None = None) -> Cuttings:
    """Levels over a tree, as many as `room` bytes hold, for reports of about `expected_count`."""
    n, d = tree.tiles.count, tree.tiles.data.shape[1]
    levels, finer = [], []
    reach = _reach(tree.tiles)
    cuttings = _assemble(tree, reach, levels, finer)
    depths = _depths(n, expected_count)
    frame = frame_of(tree.tiles) if d > 1 and depths and np.isfinite(reach) else None
    if frame is None:
        return cuttings
    directions = np.concatenate([np.eye(d), -np.eye(d)])
    for depth in depths:
        # A list is hardly shorter than 1.5 depths.
        cone_bytes = _cone_bytes(d) + 4 * (3 * depth // (2 * TILE) + 1)
        most_cones = min(n // POINTS_PER_CONE, room // cone_bytes)
        fan = make_fan(cuttings, frame, directions, depth, most_cones)
        level = None if fan is None else _level(cuttings, fan, depth)
        if level is None or level.nbytes > room:
            break
        room -= level.nbytes
        if levels:
            finer[-1][:] = _links(levels[-1].fan, level) + sum(map(len, finer))
        levels.append(level)
        finer.append(np.full(len(fan.cones), -1, np.int32))
        cuttings = _assemble(tree, reach, levels, finer)
        directions = fan.directions
    order = sorted(
        range(len(levels)), key=lambda i: _copying_order(levels[i], tree, expected_count)
    )
    return copy_lists(cuttings, [level.lists for level in levels], order, room)


def _copying_order(level: _Level, tree: BoundedTree, expected_count: int | None) -> tuple:
    """What is copied first: lists for the expected reports, then those of least size, then short ones.

    Short lists gain most: of their tiles, fewer points are conflicts.
    """
    if expected_count is not None:
        return (abs(math.log2(level.depth / (2 * expected_count + 1))),)
    return round(math.log2(1 + copied_bytes(level.lists, tree.tiles))), level.depth


class ShallowCuttings(Index):
    """Conflict lists for every depth over a tree, for points that stay, d <= 6.

    Report, any and top take O(log n + k) expected for shallow half-spaces, of k points; deep ones,
    of more than about n / 30 points, take what a tree takes. Building is costly.
    Answers and errors as for `Index`.

    Parameters
    ----------
    points, ids, weights
        As for `Index`, with d <= 6.
    memory : int, optional
        Bytes the index may take; 32 times those of the points where it is not given. With less,
        fewer and leaner levels are made.
    expected_count : int, optional
        Points a report is expected to hold: levels for fewer are not made, and memory goes to
        those for as many.

    Raises
    ------
    TypeError
        `memory` or `expected_count` is not an integer, or as for `Index`.
    ValueError
        d > 6; `memory` below what the tree alone takes; or as for `Index`.

    Examples
    --------
    >>> import numpy as np, halfspace
    >>> points = np.random.default_rng(0).standard_normal((20_000, 3))
    >>> index = halfspace.ShallowCuttings(points)
    >>> index.report([1.0, 2.0, 2.0], 11.0).tolist()
    []
    """

    _cover_kernel = cover_cuttings
    _top_kernel = top_cuttings
    _polytope_kernel = cover_polytopes_tree

    def __init__(
        self,
        points: ArrayLike,
        *,
        ids: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        memory: int | None = None,
        expected_count: int | None = None,
    ) -> None:
        self._memory = None if memory is None else as_count(memory, "memory")
        self._expected_count = (
            None if expected_count is None else as_count(expected_count, "expected_count")
        )
        super().__init__(points, ids=ids, weights=weights)

    def _build(self, points: np.ndarray, ranks: np.ndarray, weights: np.ndarray) -> Cuttings:
        d = points.shape[1]
        if d > MOST_DIMENSIONS:
            raise ValueError(
                f"points: expected at most {MOST_DIMENSIONS} dimensions for ShallowCuttings, "
                f"got {d}"
            )
        order = np.argsort(points[:, 0], kind="stable") if d == 1 else order_points(points)
        tree = make_tree(make_tiles(points, order, ranks), weights[order])
        taken = sum(array.nbytes for array in arrays_of(tree)) + weights.nbytes + self._ids.nbytes
        memory = self._memory
        if memory is None:
            memory = max(taken, DEFAULT_MEMORY * points.nbytes)
        if memory < taken:
            raise ValueError(f"memory: expected at least {taken} bytes, got {memory}")
        return make_cuttings(tree, memory - taken, self._expected_count)

    @property
    def nodes(self) -> cover.Nodes:
        """Nodes that covers refer to: those of the tree."""
        return self.structure.tree.nodes

    def __len__(self) -> int:
        return self.structure.tree.tiles.count

    def __getstate__(self) -> dict:
        # The tree's tiles are views: a pickle would hold them twice.
        tree = self.structure.tree._replace(tiles=len(self))
        return self.__dict__ | {"structure": self.structure._replace(tree=tree)}

    def __setstate__(self, state: dict) -> None:
        structure = state["structure"]
        tiles = first_tiles(structure.tiles, structure.tree.tiles)
        tree = structure.tree._replace(tiles=tiles)
        super().__setstate__(state | {"structure": structure._replace(tree=tree)})

    def explain(self) -> str:
        """Say in a few lines what this index is: structure, levels, sizes, why it was chosen."""
        cuttings = self.structure
        levels = ", ".join(
            f"{depth} ({cones} cones, {'points' if own else 'tiles'})"
            for depth, cones, own in zip(
                cuttings.depths, np.diff(cuttings.levels), cuttings.copied, strict=True
            )
        )
        return f"{super().explain()}\n  levels   {levels or 'none: the tree answers'}"

    def _query_nanoseconds(self) -> float:
        return 2000.0
