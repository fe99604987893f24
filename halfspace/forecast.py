"""Forecasts: what each structure would cost on all points, from small ones over samples.

A half-space of k points of n has k s / n points of a sample of s where its share of the points
decides, as for planes that cut deep, and k where the shape of the tip does. Trees over two sizes of
sample are asked both ways; how cells crossed grow is fitted to each (`cost_model.Crossing`), and
the geometric mean is taken, leaning to the first way the more points a report has.

A level of shallow cuttings of depth k has cones by the ratio n / k, much the same whatever n, so
the levels over a sample are the coarsest of those over all points, and the rest continues them.

Samples, and so forecasts, are deterministic: no clock is read.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from . import cost_model, shallow_cuttings
from .cost_model import Crossing, Load, Visits
from .index import Index
from .kd_tree import KDTree
from .partition_tree import PartitionTree
from .shallow_cuttings import ShallowCuttings
from .tiles import TILE

SAMPLE_SIZES = (8192, 4096, 2048, 1024)
"""Points of the larger sample, the most that time allows."""

STEP = 4
"""Ratio of the two sizes."""

LEAST_POINTS = 4 * SAMPLE_SIZES[-1]
"""Fewer points are too few to take samples of; trees are then judged by theory alone."""

LARGEST_SCORE = 1e308

DEEP = 4
"""A half-space asked of a sample holds at most one point in so many."""

SHALLOW = 28
"""Shallow cuttings answer reports of up to one point in so many from their lists."""


class Forecast(NamedTuple):
    """What a structure is predicted to cost."""

    build: float  # nanoseconds
    query: float  # nanoseconds
    nbytes: float

    def total(self, load: Load) -> float:
        """Nanoseconds to build it and ask all there is to ask."""
        return self.build + load.queries * self.query


class Sample:
    """Rows of the data, directions to ask along, and what was measured on them.

    Parameters
    ----------
    points : ndarray, shape (s, d)
        In random order.
    normals : ndarray of float64, shape (m, d)
        To measure with.
    told : ndarray of float64, shape (h, d), optional
        Others, of the same kind, to build with.
    """

    def __init__(self, points: np.ndarray, normals: np.ndarray, told: np.ndarray | None) -> None:
        self.points, self.normals, self.told = points, normals, told
        self._trees: dict[int, KDTree] = {}

    def first(self, size: int) -> np.ndarray:
        """As many of the rows."""
        return self.points[:size]

    def tree(self, size: int) -> KDTree:
        """Tree over the first rows."""
        if size not in self._trees:
            self._trees[size] = KDTree(self.first(size))
        return self._trees[size]

    def visits(self, index: Index, count: float) -> Visits:
        """Mean visits of half-spaces that hold about `count` of an index over the first rows."""
        size = len(index)
        kth = size - min(max(1, round(count)), max(1, size // DEEP))
        with np.errstate(all="ignore"):
            scores = np.nan_to_num(self.first(size).astype(np.float64) @ self.normals.T)
        offsets = np.partition(scores, kth, axis=0)[kth]
        work = index.work(self.normals, np.clip(offsets, -LARGEST_SCORE, LARGEST_SCORE))
        return Visits(work.nodes_visited.mean(), work.points_touched.mean())


def scan(load: Load) -> Forecast:
    """Forecast of a scan, in closed form."""
    build, query = cost_model.scan_build(load), cost_model.scan_query(load)
    return Forecast(build, query, cost_model.scan_bytes(load))


def least_kd_tree(load: Load) -> Forecast:
    """What a kd-tree costs at least, whatever the points."""
    query = cost_model.tree_query(load, cost_model.least_visits(load))
    return Forecast(cost_model.kd_build(load), query, cost_model.tree_bytes(load))


def least_partition_tree(load: Load) -> Forecast:
    """What a partition tree costs at least, whatever the points."""
    return least_kd_tree(load)._replace(build=cost_model.partition_build(load))


def least_shallow_cuttings(load: Load) -> Forecast:
    """What shallow cuttings cost at least, whatever the points."""
    levels = len(shallow_cuttings.depths(load.n, None))
    build = cost_model.cuttings_build(load, levels, 0.0, 0.0)
    visits = Visits(levels, max(TILE, load.count))
    return Forecast(build, cost_model.cuttings_query(load, visits), cost_model.tree_bytes(load))


def expected_kd_tree(load: Load) -> Forecast:
    """What theory expects of a kd-tree, where samples would cost more than they may save."""
    law = cost_model.expected_crossing(load.d)
    visits = cost_model.tree_visits(load, law, law)
    return least_kd_tree(load)._replace(query=cost_model.tree_query(load, visits))


def _crossing(load: Load, sample: Sample, size: int, count: Callable[[int], float]) -> Crossing:
    sizes = size // STEP, size
    crossed = [max(1.0, sample.visits(sample.tree(s), count(s)).points / TILE) for s in sizes]
    return cost_model.fitted([s / TILE for s in sizes], crossed)


def _kd_visits(load: Load, sample: Sample, size: int) -> Visits:
    by_share = _crossing(load, sample, size, lambda s: load.count * s / load.n)
    by_count = _crossing(load, sample, size, lambda s: load.count)
    few = size // STEP // TILE
    lean = 0.5 + 0.5 * min(1.0, max(0.0, math.log(max(load.count, 1.0) / few, 8)))
    shared, counted = (
        cost_model.tree_visits(load, leaves, by_share) for leaves in (by_share, by_count)
    )
    return Visits(shared.nodes, shared.points**lean * counted.points ** (1.0 - lean))


def kd_tree(load: Load, sample: Sample, size: int, memory: int | None) -> Forecast:
    """Forecast of a kd-tree, from trees over `size` rows and a quarter of them."""
    visits = _kd_visits(load, sample, size)
    return least_kd_tree(load)._replace(query=cost_model.tree_query(load, visits))


def partition_tree(load: Load, sample: Sample, size: int, memory: int | None) -> Forecast:
    """Forecast of a partition tree: what it visits of a sample, beside what a kd-tree does."""
    tree = PartitionTree(sample.first(size), queries=sample.told)
    count = load.count if load.count < size / DEEP else load.count * size / load.n
    ours, theirs = (sample.visits(index, count) for index in (tree, sample.tree(size)))
    visits = Visits(
        *(
            min(1.0, ours[i] / max(theirs[i], 1.0)) * visited
            for i, visited in enumerate(_kd_visits(load, sample, size))
        )
    )
    return least_partition_tree(load)._replace(query=cost_model.tree_query(load, visits))


class _Levels(NamedTuple):
    """Levels that all points would have."""

    depths: list[int]
    cones: float  # of all levels
    entries: float  # of all conflict lists
    nbytes: float


def _levels(load: Load, index: ShallowCuttings, memory: float) -> _Levels:
    """Continue the levels of a sample's cuttings down to the finest that all points allow."""
    found = index.structure
    cones = np.diff(found.levels).astype(float).tolist()
    growth = load.d // 2
    if len(cones) > 1:
        growth = min(max(0.0, math.log2(cones[-1] / cones[-2])), growth)
    length = found.lists[:, 1].sum() / (np.array(cones) * found.depths).sum()
    levels, room = _Levels([], 0.0, 0.0, 0.0), memory - cost_model.tree_bytes(load)
    for i, depth in enumerate(shallow_cuttings.depths(load.n, index.expected_count)):
        level = cones[i] if i < len(cones) else cones[-1] * 2.0 ** (growth * (i - len(cones) + 1))
        nbytes = level * (shallow_cuttings.cone_bytes(load.d) + 4.0 * depth / TILE)
        if level > load.n / shallow_cuttings.POINTS_PER_CONE or nbytes > room:
            break
        room -= nbytes
        copied = min(room, level * length * depth * (load.point_bytes + 4))
        room -= copied
        levels = _Levels(
            [*levels.depths, depth],
            levels.cones + level,
            levels.entries + level * length * depth,
            levels.nbytes + nbytes + copied,
        )
    return levels


def shallow_cuttings_(
    load: Load, sample: Sample, size: int, memory: int | None, expected_count: int | None
) -> Forecast | None:
    """Forecast of shallow cuttings, from those over a sample; None where they have no level."""
    room = shallow_cuttings.DEFAULT_MEMORY * load.n * load.point_bytes if memory is None else memory
    index = ShallowCuttings(
        sample.first(size), memory=None if memory is None else max(memory * size // load.n, 0)
    )
    return None
