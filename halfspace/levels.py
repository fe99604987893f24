"""Levels of shallow cuttings: built from the deepest on, each from the one before.

Memory goes to the cones first, without which there is no walk to a finer level; then to lists of
tile numbers where they are shorter than what the tree would touch; what is left, to copies of the
points of lists, for the expected reports or the smallest lists first.
"""

import math
from typing import NamedTuple

import numpy as np

from . import cover
from .conflict_lists import Lists, copied_bytes, merge_lists, place_lists
from .cuttings import Cuttings, cover_cuttings, walk
from .fan import Fan, frame_of, make_fan
from .jit import kernel
from .tiles import TILE, Tiles, frozen
from .tree import BoundedTree, cover_tree

COARSEST_SHARE = 16
"""The coarsest level is that of n over this."""

POINTS_PER_CONE = 2
"""A level has no more cones than points over this, so that the search takes linear space."""

FINEST_DEPTH = 32
"""Finer levels would save less than a tile a query."""

STEP = 2
"""Ratio of the depths of consecutive levels."""

COST_SAMPLE = 64
"""Cones of a level that its lists are held against the tree on."""

NODE_COST = 2.0
"""Points that are scored in the time a node is tested."""


class _Level(NamedTuple):
    """One level's rows of `Cuttings`."""

    depth: int
    fan: Fan
    solvers: np.ndarray
    residuals: np.ndarray
    lists: Lists
    tree_cost: float  # points the tree would touch for such reports, nodes included

    @property
    def cones_bytes(self) -> int:
        cones, d = self.fan.cones.shape
        return cones * cone_bytes(d)

    @property
    def numbers_pay(self) -> bool:
        """Whether scanning the tiles that a list names costs less than the tree."""
        return TILE * len(self.lists.entries) < self.tree_cost * len(self.lists.points)

    @property
    def copies_pay(self) -> bool:
        """Whether scanning copies of a list's points costs less than the tree."""
        return self.lists.points.mean() < self.tree_cost


def cone_bytes(d: int) -> int:
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
        worth=frozen(np.ones(len(levels), bool)),
        solvers=joined((d, d), np.float64, [level.solvers for level in levels]),
        offsets=joined((d,), np.float64, [lv.fan.offsets[lv.fan.cones] for lv in levels]),
        residuals=joined((), np.float64, [level.residuals for level in levels]),
        neighbours=joined((d,), np.int32, neighbours),
        finer=joined((), np.int32, finer),
        lists=joined((2,), np.int64, lists),
        entries=joined((), np.int32, [level.lists.entries for level in levels]),
        reach=frozen(np.array([reach])),
    )


def _tree_cost(cuttings: Cuttings, fan: Fan, depth: int) -> float:
    """Points that the tree touches for reports that a level's lists are for, nodes included."""
    cones = fan.cones[np.linspace(0, len(fan.cones) - 1, COST_SAMPLE).astype(int)]
    # For equal shares, T is the mean of the offsets.
    work = cover.covers(
        cover_tree,
        cuttings.tree,
        frozen(fan.normals[cones].mean(axis=1)),
        frozen(fan.offsets[cones].mean(axis=1)),
        closed=True,
        stop_at_first=False,
        nanoseconds=10.0 * depth,
        consume=lambda block: block.work,
    )
    nodes, points, _ = np.concatenate(work).mean(axis=0)
    return points + NODE_COST * nodes


def _level(cuttings: Cuttings, fan: Fan, depth: int) -> _Level:
    """Conflict lists of a fan, by reports from the levels so far, and all else of its level."""
    blocks = cover.covers(
        cover_cuttings,
        cuttings,
        frozen(fan.normals),
        frozen(fan.offsets),
        closed=False,
        stop_at_first=False,
        nanoseconds=10.0 * depth,
        consume=cover.keep,
    )
    lists = merge_lists(fan.cones, blocks, cuttings.tree)
    return _Level(depth, fan, *_solvers(fan), lists, _tree_cost(cuttings, fan, depth))


def depths_of(n: int, expected_count: int | None) -> list[int]:
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
    depths = depths_of(n, expected_count)
    frame = frame_of(tree.tiles) if d > 1 and depths and np.isfinite(reach) else None
    if frame is None:
        return cuttings
    directions = np.concatenate([np.eye(d), -np.eye(d)])
    for depth in depths:
        # A list is hardly shorter than 1.5 depths.
        per_cone = cone_bytes(d) + 4 * (3 * depth // (2 * TILE) + 1)
        most_cones = min(n // POINTS_PER_CONE, room // per_cone)
        fan = make_fan(cuttings, frame, directions, depth, most_cones)
        if fan is None:
            break
        level = _level(cuttings, fan, depth)
        room -= level.cones_bytes + level.numbers_pay * level.lists.entries.nbytes
        if room < 0:
            break
        if levels:
            finer[-1][:] = _links(levels[-1].fan, level) + sum(map(len, finer))
        levels.append(level)
        finer.append(np.full(len(fan.cones), -1, np.int32))
        cuttings = _assemble(tree, reach, levels, finer)
        directions = fan.directions
    return _with_lists(cuttings, levels, max(room, 0), expected_count)


def _with_lists(
    cuttings: Cuttings, levels: list[_Level], room: int, expected_count: int | None
) -> Cuttings:
    """Cuttings with lists as points where they pay and `room` bytes allow, else with what pays."""
    tiles = cuttings.tree.tiles
    numbers = np.array([level.numbers_pay for level in levels], bool)
    copied = np.zeros(len(levels), bool)
    order = sorted(range(len(levels)), key=lambda i: _copying_order(levels[i], expected_count))
    for i in order:
        growth = copied_bytes(levels[i].lists, tiles)
        growth -= numbers[i] * levels[i].lists.entries.nbytes
        if levels[i].copies_pay and growth <= room:
            copied[i] = True
            room -= growth
    cuttings = place_lists(cuttings, [level.lists for level in levels], copied, numbers)
    return cuttings._replace(worth=frozen(copied | numbers))


def _copying_order(level: _Level, expected_count: int | None) -> tuple:
    """What is copied first: lists for the expected reports, else of least size, then short ones.

    Short lists gain most: of their tiles, fewer points are conflicts.
    """
    if expected_count is not None:
        return (abs(math.log2(level.depth / (2 * expected_count + 1))),)
    return round(math.log2(1 + level.lists.points.sum())), level.depth
