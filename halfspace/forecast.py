"""Forecasts: what each structure would cost on all points, from small ones over samples.

A half-space of k points of n has k s / n points of a sample of s where its share of the points
decides, as for planes that cut deep, and k where the shape of the tip does. Trees over two sizes of
sample are asked both ways; how cells crossed grow is fitted to each (`cost_model.Crossing`), and
the geometric mean is taken, for leaves leaning to the first way the more points a report has.

A level of shallow cuttings of depth k has cones by the ratio n / k, much the same whatever n, so
the levels over a sample are the coarsest of those over all points, and the rest continues them.

Samples, and so forecasts, are deterministic: no clock is read.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from . import cost_model
from .cascade_fit import fit_cascade
from .codes import leading_width
from .cost_model import Crossing, Load, Visits
from .cuttings import Cuttings
from .kd_tree import KDTree
from .levels import NODE_COST, cone_bytes, depths_of, most_cones
from .partition_tree import PartitionTree
from .shallow_cuttings import DEFAULT_MEMORY, LEAST_DEFAULT_MEMORY, ShallowCuttings
from .static_index import StaticIndex
from .tiles import TILE

SAMPLE_SIZES = (32768, 16384, 8192, 4096, 2048, 1024)
"""Points of the larger sample, the most that time allows."""

LEAST_SAMPLE = 256
"""Points from which on a sample says anything."""

STEP = 4
"""Ratio of the two sizes."""

LARGEST_SCORE = 1e308

DEEP = 4
"""A half-space asked of a sample holds at most one point in so many."""

SHALLOW = 28
"""Shallow cuttings answer reports of up to one point in so many from their lists."""


LEAST_OPENED = 0.002
"""Share of a cascade's tiles that a query reads at least."""

USUAL_LENGTH = 2.0
"""Points of a conflict list, in depths of its level, where a sample does not tell."""


CONES_A_LEVEL = 1.3
"""Cones that a walk sees on each level beyond those of a sample."""

NUMBERED = 3.5
"""Points scanned for each of a list where memory holds the numbers of its tiles instead."""


class Limits(NamedTuple):
    """What the caller asks of an index."""

    memory: int | None
    expected_count: int | None


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
        self._scores: dict[int, np.ndarray] = {}
        self._kd_visits: Visits | None = None

    def first(self, size: int) -> np.ndarray:
        """As many of the rows."""
        return self.points[:size]

    def tree(self, size: int) -> KDTree:
        """Tree over the first rows."""
        if size not in self._trees:
            self._trees[size] = KDTree(self.first(size))
        return self._trees[size]

    def _scores_of(self, size: int) -> np.ndarray:
        """Scores (m, size) of the first rows."""
        if size not in self._scores:
            normals = self.normals.astype(self.points.dtype)
            with np.errstate(all="ignore"):
                # Not by BLAS, whose threads can take longer to wake than this takes.
                self._scores[size] = np.einsum("qj,pj->qp", normals, self.first(size))
        return self._scores[size]

    def kd_visits(self, load: Load, size: int) -> Visits:
        """Visits of a kd-tree over all points, from `size` rows the first time it is asked."""
        if self._kd_visits is None:
            self._kd_visits = _extrapolated(load, self, size)
        return self._kd_visits

    def visits(self, index: StaticIndex, count: float) -> Visits:
        """Mean visits of half-spaces that hold about `count` of an index over the first rows."""
        size = len(index)
        kth = size - min(max(1, round(count)), max(1, size // DEEP))
        offsets = np.nan_to_num(np.partition(self._scores_of(size), kth, axis=1)[:, kth])
        offsets = np.clip(offsets.astype(np.float64), -LARGEST_SCORE, LARGEST_SCORE)
        work = index.work(self.normals, offsets)
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
    levels = len(depths_of(load.n, None))
    build = cost_model.cuttings_build(load, levels, 0.0, 0.0)
    query = cost_model.cuttings_query(load, levels, Visits(0.0, max(TILE, load.count)))
    return Forecast(build, query, cost_model.tree_bytes(load))


def expected_kd_tree(load: Load) -> Forecast:
    """What theory expects of a kd-tree, where samples would cost more than they may save."""
    law = cost_model.expected_crossing(load.d)
    visits = cost_model.tree_visits(load, law, law)
    return least_kd_tree(load)._replace(query=cost_model.tree_query(load, visits))


def _crossing(load: Load, sample: Sample, size: int, count: Callable[[int], float]) -> Crossing:
    sizes = size // STEP, size
    crossed = [max(1.0, sample.visits(sample.tree(s), count(s)).points / TILE) for s in sizes]
    return cost_model.fitted([s / TILE for s in sizes], crossed)


def _extrapolated(load: Load, sample: Sample, size: int) -> Visits:
    by_share = _crossing(load, sample, size, lambda s: load.count * s / load.n)
    by_count = _crossing(load, sample, size, lambda s: load.count)
    few = size // STEP // TILE
    lean = 0.5 + 0.25 * min(1.0, max(0.0, math.log(max(load.count, 1.0) / few, 8)))
    leaves, nodes = (cost_model.blended(by_share, by_count, w) for w in (lean, 0.5))
    return cost_model.tree_visits(load, leaves, nodes)


def kd_tree(load: Load, sample: Sample, size: int, limits: Limits) -> Forecast:
    """Forecast of a kd-tree, from trees over `size` rows and a quarter of them."""
    visits = sample.kd_visits(load, size)
    return least_kd_tree(load)._replace(query=cost_model.tree_query(load, visits))


def partition_tree(load: Load, sample: Sample, size: int, limits: Limits) -> Forecast:
    """Forecast of a partition tree: what it visits of a sample, beside what a kd-tree does."""
    tree = PartitionTree(sample.first(size), queries=sample.told)
    count = load.count if load.count < size / DEEP else load.count * size / load.n
    ours, theirs = (sample.visits(index, count) for index in (tree, sample.tree(size)))
    visits = Visits(
        *(
            min(1.0, ours[i] / max(theirs[i], 1.0)) * visited
            for i, visited in enumerate(sample.kd_visits(load, size))
        )
    )
    return least_partition_tree(load)._replace(query=cost_model.tree_query(load, visits))


class _Levels(NamedTuple):
    """Levels that all points would have."""

    depths: list[int]
    cones: list[float]
    lengths: list[float]  # of a conflict list, in depths; infinite where it is of no use

    def entries(self, i: int) -> float:
        """Points of all conflict lists of level i."""
        known = self.lengths[i] if self.lengths[i] < math.inf else USUAL_LENGTH
        return self.cones[i] * known * self.depths[i]

    def slots(self, i: int) -> float:
        """Points that the tiles of copies of those lists have room for."""
        return self.entries(i) + 0.5 * TILE * self.cones[i]


def _levels(load: Load, found: Cuttings, room: float, expected_count: int | None) -> _Levels:
    """Continue the levels of a sample's cuttings down to the finest that all points allow."""
    cones = np.diff(found.levels).astype(float).tolist()
    growth = float(load.d // 2)
    if len(cones) > 1:
        growth = min(max(0.0, math.log2(cones[-1] / cones[-2])), growth)
    spans = zip(found.levels[:-1], found.levels[1:], found.depths, found.copied, strict=True)
    lengths = [found.lists[a:b, 1].mean() / k if own else math.inf for a, b, k, own in spans]
    levels = _Levels([], [], [])
    for i, depth in enumerate(depths_of(load.n, expected_count)):
        more = cones[i] if i < len(cones) else cones[-1] * 2.0 ** (growth * (i - len(cones) + 1))
        room -= more * cone_bytes(load.d)
        if more > most_cones(load.n, load.d) or room < 0.0:
            break
        levels.depths.append(depth)
        levels.cones.append(more)
        levels.lengths.append(lengths[min(i, len(lengths) - 1)])
    return levels


def _listed(load: Load, sample: Sample, index: ShallowCuttings, levels: _Levels) -> tuple:
    """Cones that a query walks and what else it visits, from what it does on a sample."""
    found = index.structure
    count = min(load.count, len(index) / (2 * SHALLOW))
    visits = sample.visits(index, count)
    cones = min(visits.nodes, 2.0 * len(found.depths))
    # A list is as long as the report wants or as the finest level has it, whichever is more.
    here, there = (max(k, d[-1]) for k, d in ((count, found.depths), (load.count, levels.depths)))
    walked = cones + CONES_A_LEVEL * (len(levels.depths) - len(found.depths))
    return walked, Visits(visits.nodes - cones, visits.points * there / here)


def shallow_cuttings(load: Load, sample: Sample, size: int, limits: Limits) -> Forecast | None:
    """Forecast of shallow cuttings, from those over a sample; None where no level of it pays.

    The sample's have all the memory they like; what fits for all points is reckoned here.
    """
    hint = None
    if limits.expected_count is not None:
        hint = int(min(load.count, size / (2 * SHALLOW)))
    index = ShallowCuttings(sample.first(size), expected_count=hint)
    if not index.structure.worth.any():
        return None
    taken = cost_model.tree_bytes(load)
    usual = max(LEAST_DEFAULT_MEMORY, DEFAULT_MEMORY * load.n * load.point_bytes)
    room = max(0, (usual if limits.memory is None else limits.memory) - taken)
    levels = _levels(load, index.structure, room, limits.expected_count)
    if not levels.depths:
        return None
    entries = [levels.entries(i) for i in range(len(levels.depths))]
    build = cost_model.cuttings_build(load, len(entries), sum(levels.cones), sum(entries))
    fans = sum(levels.cones) * cone_bytes(load.d)
    copies = sum(map(levels.slots, range(len(entries)))) * (load.point_bytes + 4)
    nbytes = taken + min(room, fans + copies)
    of_tree = sample.kd_visits(load, size)
    query = cost_model.tree_query(load, of_tree)
    query += cost_model.CONE * len(levels.depths)
    asked = max(i for i in range(len(entries)) if i == 0 or levels.depths[i] >= load.count)
    # Lists grow with n, and trees visit ever less of it: of no use to a sample is of no use at all.
    rival = of_tree.points + NODE_COST * of_tree.nodes
    worth = levels.lengths[asked] * levels.depths[asked] < rival
    if load.count <= load.n / SHALLOW and worth:
        walked, visits = _listed(load, sample, index, levels)
        if fans + levels.slots(asked) * (load.point_bytes + 4) > room:
            visits = visits._replace(points=NUMBERED * visits.points)
        query = min(query, cost_model.cuttings_query(load, walked, visits))
    return Forecast(build, query, nbytes)


def least_cascade(load: Load) -> Forecast:
    """What a cascade costs at least, whatever the points."""
    query = cost_model.cascade_query(load, 1, LEAST_OPENED, load.count / load.n, 0.0)
    nbytes = cost_model.cascade_bytes(load, leading_width(load.d, 1, 4), True)
    return Forecast(cost_model.cascade_build(load), query, nbytes)


def cascade(load: Load, sample: Sample, size: int, limits: Limits) -> Forecast:
    """Forecast of a cascade: what is fitted to a sample would do to all points."""
    fit = fit_cascade(sample.first(size), sample.told, limits.expected_count, load.n, size)
    p, bits, rows = fit.shape
    passed = fit.passed if rows else 0.0
    query = cost_model.cascade_query(load, p, fit.opened, passed, fit.open)
    nbytes = cost_model.cascade_bytes(load, leading_width(load.d, p, bits), rows)
    build = cost_model.cascade_build(load)
    if fit.opened < 1.0:
        build += cost_model.CASCADE_ORDER * load.n
    return Forecast(build, query, nbytes)
