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
from .fan import Fan, frame_of, make_fan, probe
from .jit import Bound, kernel
from .tiles import TILE, Tiles, frozen
from .tree import BoundedTree, cover_tree

COARSEST_SHARE = 16
"""The coarsest level is that of n over this."""

POINTS_PER_CONE = {5: 8, 6: 8}
"""A level has no more cones than points over this, 1 in fewer dimensions: the search is linear."""

FINEST_DEPTH = 32
"""Finer levels would save less than a tile a query."""

STEP = 2
"""Ratio of the depths of consecutive levels."""

COST_SAMPLE = 64
"""Cones of a level that its lists are held against the tree on."""

NODE_COST = 2.0
"""Points that are scored in the time a node is tested."""


LIST_COST = 1.25
"""Points of a tree that are scored in the time of a list's: lists are seldom in a cache."""


class _Level(NamedTuple):
    """One level's rows of `Cuttings`."""

    depth: int
    fan: Fan
    solvers: np.ndarray
    residuals: np.ndarray
    lists: Lists
    costs: np.ndarray  # (3,) points the tree touches, nodes included, at this depth, at that of
    # the next level, and for the single furthest point

    @property
    def cones_bytes(self) -> int:
        cones, d = self.fan.cones.shape
        return cones * cone_bytes(d) + LEVEL_BYTES

    def pays(self, scanned: np.ndarray, *, finest: bool) -> bool:
        """Whether scanning lists of so many points costs less than the tree.

        That is for reports between this depth and the next one's, or of one point.
        """
        return LIST_COST * scanned.mean() < self.costs[[0, 2 if finest else 1]].mean()

    @property
    def numbered(self) -> np.ndarray:
        """Points scanned where a list names tiles, by cone."""
        return TILE * np.diff(self.lists.indptr)


def cone_bytes(d: int) -> int:
    """Bytes of a cone but for its list: solver, offsets, residual, neighbours, finer, list."""
    return 8 * (d * d + d + 1) + 4 * (d + 1) + 16


LEVEL_BYTES = 32
"""Bytes of a level beside those of its cones."""


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
    usable = np.linalg.norm(spans, axis=1).max(axis=1) <= 1.001
    return solvers, np.where(usable & ~np.isnan(residuals), residuals, np.inf)


@kernel
def _link(normals, cones, neighbours, finer_solvers, finer_neighbours, finer):
    """Fill `finer`: for every cone, the finer one that holds its middle.

    Neighbours are taken one after another, so that each walk starts near its end.
    """
    (c, d), most = cones.shape, finer_solvers.shape[0]
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
            found, _ = walk(finer_solvers, finer_neighbours, start[cone], w, most, shares)
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


def _tree_costs(cuttings: Cuttings, fan: Fan, depth: int) -> np.ndarray:
    """Points that the tree touches, nodes included, for reports as in `_Level.costs`."""
    cones = fan.cones[np.linspace(0, len(fan.cones) - 1, COST_SAMPLE).astype(int)]
    normals = fan.normals[cones].mean(axis=1)
    unlimited = np.full(len(normals), np.inf)
    shallower = [probe(cuttings, normals, unlimited, k, 1.0) for k in (int(depth / STEP), 1)]
    # For equal shares, T is the mean of the offsets.
    offsets = np.concatenate([fan.offsets[cones].mean(axis=1), *shallower])
    work = cover.covers(
        Bound(cover_tree, cuttings.tree),
        frozen(np.tile(normals, (3, 1))),
        frozen(np.nan_to_num(offsets)),
        closed=True,
        stop_at_first=False,
        nanoseconds=10.0 * depth,
        consume=lambda block: block.work,
    )
    nodes, points, _ = np.concatenate(work).reshape(3, -1, 3).mean(axis=1).T
    return points + NODE_COST * nodes


def _level(cuttings: Cuttings, fan: Fan, depth: int) -> _Level:
    """Conflict lists of a fan, by reports from the levels so far, and all else of its level."""
    blocks = cover.covers(
        Bound(cover_cuttings, cuttings),
        frozen(fan.normals),
        frozen(fan.offsets),
        closed=False,
        stop_at_first=False,
        nanoseconds=10.0 * depth,
        consume=cover.keep,
    )
    lists = merge_lists(fan.cones, blocks, cuttings.tree)
    return _Level(depth, fan, *_solvers(fan), lists, _tree_costs(cuttings, fan, depth))


def most_cones(n: int, d: int) -> int:
    """Cones a level may have, memory aside."""
    return int(n // POINTS_PER_CONE.get(d, 1))


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
    directions, memory = np.concatenate([np.eye(d), -np.eye(d)]), room
    for depth in depths:
        # A list is hardly shorter than 1.5 depths.
        each = cone_bytes(d) + 4 * (3 * depth // (2 * TILE) + 1)
        fan = make_fan(cuttings, frame, directions, depth, min(most_cones(n, d), room // each))
        if fan is None:
            break
        level = _level(cuttings, fan, depth)
        room -= level.cones_bytes
        if level.pays(level.numbered, finest=False):
            room -= level.lists.entries.nbytes
        if room < 0:
            break
        if levels:
            finer[-1][:] = _links(levels[-1].fan, level) + sum(map(len, finer))
        levels.append(level)
        finer.append(np.full(len(fan.cones), -1, np.int32))
        cuttings = _assemble(tree, reach, levels, finer)
        directions = fan.directions
    room = memory - sum(level.cones_bytes for level in levels)
    copied, numbers = _forms(levels, tree.tiles, room, expected_count)
    # Levels after the last that is of use are not walked.
    used = int(np.flatnonzero(copied | numbers).max(initial=-1)) + 1
    copied, numbers = copied[:used].copy(), numbers[:used].copy()
    cuttings = _assemble(tree, reach, levels[:used], finer[:used])
    cuttings = place_lists(cuttings, [level.lists for level in levels[:used]], copied, numbers)
    return cuttings._replace(worth=frozen(copied | numbers))


def _forms(
    levels: list[_Level], tiles: Tiles, room: int, expected_count: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Which levels' lists are to be copies of points, and which tile numbers, within `room` bytes.

    Each only where it pays; a level may get neither.
    """
    numbers, copied = np.zeros(len(levels), bool), np.zeros(len(levels), bool)
    for i, level in enumerate(levels):
        size = level.lists.entries.nbytes
        if size <= room and level.pays(level.numbered, finest=i + 1 == len(levels)):
            numbers[i] = True
            room -= size
    for i in sorted(range(len(levels)), key=lambda i: _copying_order(levels[i], expected_count)):
        level = levels[i]
        growth = copied_bytes(level.lists, tiles) - numbers[i] * level.lists.entries.nbytes
        if growth <= room and level.pays(level.lists.points, finest=i + 1 == len(levels)):
            copied[i], numbers[i] = True, False
            room -= growth
    return copied, numbers


def _copying_order(level: _Level, expected_count: int | None) -> tuple:
    """What is copied first: lists for the expected reports, else of least size, then short ones.

    Short lists gain most: of their tiles, fewer points are conflicts.
    """
    if expected_count is not None:
        return (abs(math.log2(level.depth / (2 * expected_count + 1))),)
    return round(math.log2(1 + level.lists.points.sum())), level.depth
