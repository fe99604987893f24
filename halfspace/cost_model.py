"""Cost model: nanoseconds and bytes of every structure, from counters and calibrated constants.

A query's time is linear in what `Index.work` counts: nodes tested, points scored, and ids reported.
The constants are those of one thread of one machine (`python -m asv_benchmarks.planning` compares
what they predict with what a machine measures); only their ratios decide anything.

How many nodes and points a tree visits on n points is extrapolated from trees over samples. A
tree's leaves are cells of 64 points, its nodes cells of 64², 64³ …; of r cells a hyperplane crosses
c r^p, whatever the size of a cell. A sample of n/64 points thus has for leaves what the full set
has one level up, and the same c and p tell both the points touched and the nodes visited.
Theory says p <= 1 - 1/d for planes that split the points evenly, less for shallow ones.
"""

import math
from typing import NamedTuple

from . import exchange
from .bounds import frame_shape
from .tiles import TILE
from .tree import FANOUT

CALL = 220.0
"""ns a query of a scan, whatever the points."""

SCAN_POINT, SCAN_COORDINATE = 0.24, 0.0144
"""ns a point scored by a scan: fixed, and for each byte of its coordinates."""

SCAN_ID, SCAN_HIT = 0.9, 9.5
"""ns an id reported by a scan, in order as found; and a tile that holds any."""

TREE_CALL = 600.0
"""ns a query of a tree."""

NODE, NODE_FRAME, NODE_WIDE = 1.6, 0.085, 2.65
"""ns a node tested, for each entry of its oriented frame; and one without."""

TREE_POINT, TREE_COORDINATE = 0.46, 0.0125
"""ns a point scored by a tree, whose queries share what they read."""

CACHED, FAR_COORDINATE = 2.0**25, 0.055
"""Bytes of points that stay in cache, and ns for each byte of those that do not."""

TREE_ID = 4.8
"""ns an id reported by a tree: it must be sorted."""

CUTTINGS_CALL = 130.0
"""ns a query of shallow cuttings."""

CONE, CONE_ENTRY = 32.0, 0.6
"""ns a cone seen on a walk, and for each entry of its solver."""

LIST_COORDINATE = 0.036
"""ns a point of a conflict list scored, for each byte of its coordinates."""

LIST_ID = 1.9
"""ns an id reported from a conflict list that is in order."""

CASCADE_CALL, CASCADE_CALL_ENTRY = 1400.0, 0.12
"""ns a query of a cascade, and for each entry of its basis."""

CODE_POINT, CODE_COORDINATE = 0.05, 0.0046
"""ns a point whose leading codes are read, shared by a batch, and for each coordinate."""

PASSED_POINT, PASSED_COORDINATE = 26.0, 0.06
"""ns a point that passes, and for each coordinate."""

OPENED_TILE = 30.0
"""ns to go to a tile that is not the next one."""

OPEN_POINT, OPEN_COORDINATE = 12.0, 0.8
"""ns a point whose floats are read, and for each coordinate."""

CASCADE_BUILD, CASCADE_BUILD_COORDINATE = 10.0, 6.8
"""ns a point to build a cascade, and for each of its coordinates."""

CASCADE_ORDER = 300.0
"""ns a point to put points in order, where that lets a cascade skip tiles."""

CASCADE_FIT, CASCADE_FIT_COORDINATE = 3e6, 3e5
"""ns to fit a cascade to samples, and for each of their coordinates."""

SCAN_BUILD, SCAN_BUILD_COORDINATE = 10.0, 0.95
"""ns a point to build a scan, and for each of its coordinates."""

KD_BUILD, KD_BUILD_COORDINATE, KD_BUILD_FRAME = 130.0, 27.0, 1.6
"""ns a point to build a kd-tree, for each coordinate, and for each entry of its oriented frame."""

KD_BUILD_WIDE, KD_BUILD_WIDE_COORDINATE = 20.0, 25.5
"""The same for a tree without oriented frames."""

KD_BUILD_EXCHANGE = 1.3
"""Times as much to build either where tiles exchange points."""

KD_BUILD_DOUBLING = 0.05
"""Share by which a point's cost grows each time that points beyond `FEW` double."""

PARTITION_BUILD, PARTITION_BUILD_COORDINATE, PARTITION_BUILD_DOUBLING = 1170.0, 149.0, 0.01
"""The same three for a partition tree, whose bounds are a small part of its build."""

PARTITION_TESTED, PARTITION_BUILD_FURTHER = 16, 50.0
"""Coordinates up to which that holds, and what each beyond them costs."""

FEW = 2048

LEVEL_BUILD, CONE_BUILD_ENTRY, LIST_BUILD_ENTRY = 1e6, 1360.0, 42.0
"""ns to build a level, for each entry of a cone's solver, and for each of its conflict list."""


USUAL_CROSSING = 0.125
"""Constant of the cells a plane crosses, for each dimension, as for small reports of a cloud."""


class Load(NamedTuple):
    """What an index is wanted for."""

    n: int  # points
    d: int
    itemsize: int  # bytes of a coordinate
    count: float  # points a report holds
    queries: int  # in the index's life

    @property
    def point_bytes(self) -> int:
        """Bytes of a point's coordinates."""
        return self.d * self.itemsize


class Crossing(NamedTuple):
    """Of r cells a hyperplane crosses `scale` r^`power`."""

    scale: float
    power: float

    def of(self, cells: float) -> float:
        """Cells crossed of so many."""
        return min(cells, max(1.0, self.scale * cells**self.power))


def fitted(cells: tuple[float, float], crossed: tuple[float, float]) -> Crossing:
    """Crossing through two measurements, its power clamped to what can be."""
    power = math.log(crossed[1] / crossed[0]) / math.log(cells[1] / cells[0])
    power = min(1.0, max(0.0, power))
    return Crossing(crossed[1] / cells[1] ** power, power)


def blended(one: Crossing, other: Crossing, lean: float) -> Crossing:
    """Geometric mean of two laws, `lean` of it the first."""
    scale = one.scale**lean * other.scale ** (1.0 - lean)
    return Crossing(scale, one.power * lean + other.power * (1.0 - lean))


def expected_crossing(d: int) -> Crossing:
    """What theory expects where nothing was measured: c r^(1-1/d) of r cells."""
    return Crossing(USUAL_CROSSING * d, 1.0 - 1.0 / d)


class Visits(NamedTuple):
    """What a query visits."""

    nodes: float
    points: float


def tree_visits(load: Load, leaves: Crossing, nodes: Crossing) -> Visits:
    """Visits of a tree of which a query crosses cells by these laws."""
    tiles = load.n / TILE
    span = 1
    while tiles / span > FANOUT:
        span *= FANOUT
    visited = tiles / span
    while span > 1:
        cells = tiles / span
        # A box around more points than a sample's is wider: about two chances to be crossed.
        crossed = cells * (1.0 - (1.0 - nodes.of(cells) / cells) ** 2)
        span //= FANOUT
        visited += min(tiles / span, FANOUT * crossed)
    return Visits(visited, min(load.n, TILE * leaves.of(tiles)))


def least_visits(load: Load) -> Visits:
    """Visits of a query that crosses a single cell of every size."""
    return tree_visits(load, Crossing(1.0, 0.0), Crossing(1.0, 0.0))


def scan_query(load: Load) -> float:
    """Nanoseconds a query of a scan by itself; in batches of many dimensions it takes half."""
    point = SCAN_POINT + SCAN_COORDINATE * load.point_bytes
    hits = min(load.count, load.n / TILE)
    return CALL + load.n * point + SCAN_HIT * hits + SCAN_ID * load.count


def node_ns(d: int) -> float:
    """Nanoseconds to test a node of a tree."""
    return NODE + NODE_FRAME * d**2 if frame_shape(d)[0] > 1 else NODE_WIDE


def tree_query(load: Load, visits: Visits) -> float:
    """Nanoseconds a query of a tree that visits so much."""
    far = max(0.0, 1.0 - CACHED / (load.n * load.point_bytes))
    byte = (1.0 - far) * TREE_COORDINATE + far * FAR_COORDINATE
    point = TREE_POINT + byte * load.point_bytes
    return TREE_CALL + visits.nodes * node_ns(load.d) + visits.points * point + TREE_ID * load.count


def cuttings_query(load: Load, cones: float, visits: Visits) -> float:
    """Nanoseconds a query of shallow cuttings that sees so many cones; the rest is a tree's."""
    cone = CONE + CONE_ENTRY * load.d**2
    point = LIST_COORDINATE * load.point_bytes
    listed = cones * cone + visits.points * point + LIST_ID * load.count
    return CUTTINGS_CALL + listed + visits.nodes * node_ns(load.d)


def cascade_query(load: Load, p: int, opened: float, passed: float, still_open: float) -> float:
    """Nanoseconds a query of a cascade whose leading codes hold p coordinates.

    `opened`, `passed` and `still_open` are shares of the points whose leading codes, row codes and
    floats are read. Heads are as many points as there are tiles.
    """
    point = (opened + 1.0 / TILE) * (CODE_POINT + CODE_COORDINATE * (p + 2))
    if opened < 1.0:
        point += opened / TILE * OPENED_TILE
    point += passed * (PASSED_POINT + PASSED_COORDINATE * load.d)
    point += still_open * (OPEN_POINT + OPEN_COORDINATE * load.d)
    call = CASCADE_CALL + CASCADE_CALL_ENTRY * load.d**2
    return call + load.n * point + SCAN_ID * load.count


def scan_build(load: Load) -> float:
    """Nanoseconds to build a scan."""
    return load.n * (SCAN_BUILD + SCAN_BUILD_COORDINATE * load.d)


def kd_build(load: Load) -> float:
    """Nanoseconds to build a kd-tree."""
    point = KD_BUILD_WIDE + KD_BUILD_WIDE_COORDINATE * load.d
    if frame_shape(load.d)[0] > 1:
        point = KD_BUILD + KD_BUILD_COORDINATE * load.d + KD_BUILD_FRAME * load.d**2
    if exchange.LEAST_DIMENSIONS <= load.d <= exchange.MOST_DIMENSIONS:
        point *= KD_BUILD_EXCHANGE
    return load.n * point * (1.0 + KD_BUILD_DOUBLING * _doublings(load.n))


def partition_build(load: Load) -> float:
    """Nanoseconds to build a partition tree."""
    point = PARTITION_BUILD + PARTITION_BUILD_COORDINATE * min(load.d, PARTITION_TESTED)
    point += PARTITION_BUILD_FURTHER * max(0, load.d - PARTITION_TESTED)
    return load.n * point * (1.0 + PARTITION_BUILD_DOUBLING * _doublings(load.n))


def cuttings_build(load: Load, levels: int, cones: float, entries: float) -> float:
    """Nanoseconds to build shallow cuttings: a tree, and levels of so many cones and list entries.

    Both are sums over the levels.
    """
    return (
        kd_build(load)
        + LEVEL_BUILD * levels
        + CONE_BUILD_ENTRY * load.d**2 * cones
        + LIST_BUILD_ENTRY * entries
    )


def cascade_build(load: Load) -> float:
    """Nanoseconds to build a cascade."""
    fit = CASCADE_FIT + CASCADE_FIT_COORDINATE * load.d
    return fit + load.n * (CASCADE_BUILD + CASCADE_BUILD_COORDINATE * load.d)


def _doublings(n: int) -> float:
    return math.log2(max(n, FEW) / FEW)


def scan_bytes(load: Load) -> int:
    """Bytes of a scan."""
    tiles = -(-load.n // TILE)
    return tiles * (TILE * load.point_bytes + 8) + 4 * load.n


def cascade_bytes(load: Load, width: int, rows: bool) -> int:
    """Bytes of a cascade whose leading codes take so many a point."""
    tiles = -(-load.n // TILE)
    basis = 12 * load.d**2 + 60 * load.d
    return scan_bytes(load) + tiles * (8 + TILE * (width + rows * load.d)) + basis


def tree_bytes(load: Load) -> int:
    """Bytes of a tree."""
    rows, reaches = frame_shape(load.d)
    node = load.itemsize * (load.d * (1 + rows) + reaches) + 8
    nodes = -(-load.n // TILE)
    blocks, levels = -(-nodes // FANOUT), min(1, nodes)
    while nodes > FANOUT:
        nodes = -(-nodes // FANOUT)
        blocks += -(-nodes // FANOUT)
        levels += 1
    return scan_bytes(load) + blocks * FANOUT * node + 8 * (levels + 1)
