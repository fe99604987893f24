"""dimension: what becomes of half-space reporting as dimensions grow, against the theory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

import halfspace

from . import clouds, figures, timing
from .exponents import fitted
from .study import QUESTION, Finding, Study, Table, Track, check_least, grouped, setting, silent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STRUCTURES = ("PartitionTree", "KDTree", "Cascade", "Scan")

FILTER = "filter"
"""Not a structure: the share of points that the leading coordinates alone cannot rule out."""

LEADING = 8
"""Coordinates of that filter, along principal axes."""

SLACK = 0.1
"""By which a fitted power may exceed the theory's, which leaves out logarithms."""

APART = 5.0
"""Times that kinds of points are apart at the same d where the spectrum is said to decide."""

LOST = 0.5
"""Share of the points touched from which a tree is called no better than a scan."""


@dataclass(frozen=True)
class Settings:
    """What is run."""

    dims: tuple[int, ...] = setting(
        (2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256, 512),
        "Dimensions.",
        quick=(2, 4, 8, 16, 32, 128, 512),
    )
    exponents: tuple[int, ...] = setting(
        (11, 12, 13, 14, 15), "Numbers of points, as powers of 2.", quick=(10, 11, 12, 13)
    )
    kinds: tuple[str, ...] = setting(("iid", "decaying", clouds.REAL), "Kinds of points.")
    count: int = setting(32, "Points of a report.", quick=16)
    queries: int = setting(64, "Queries.", quick=32)
    rounds: int = setting(9, "Rounds of timing, at the most points.")
    tree_dims: int = setting(64, "Partition trees only up to so many dimensions.", quick=32)

    def __post_init__(self) -> None:
        clouds.check(self.kinds, self.dims, self.exponents, most=4096)
        check_least("count", (self.count,), 1, most=32)
        check_least("queries", (self.queries,), 1)
        check_least("rounds", (self.rounds,), 1)


class Row(NamedTuple):
    """A structure over a cloud; means over the queries."""

    kind: str
    d: int
    n: int
    structure: str
    k: int
    touched: float  # points looked at; of the filter, points that it leaves
    nodes: float
    query: float | None  # seconds a query in a batch, at the most points

    @property
    def share(self) -> float:
        """Of the points that are touched."""
        return self.touched / self.n


def theory(structure: str, d: int) -> float | None:
    """Exponent of n for a query of few points, without logarithms; None where there is none.

    Examples
    --------
    >>> from attention.studies.dimension import theory
    >>> theory("PartitionTree", 8), theory("KDTree", 8), theory("Scan", 8)
    (0.75, 0.875, 1.0)
    """
    if structure == "PartitionTree":
        return 1.0 - 1.0 / (d // 2)
    if structure == "KDTree":
        return 1.0 - 1.0 / d
    return None if structure == FILTER else 1.0


def run(settings: Settings, track: Track = silent) -> list[Row]:
    """Ask every structure over every cloud."""
    rows: list[Row] = []
    for kind, d in track([*product(settings.kinds, settings.dims)], "clouds"):
        sizes = clouds.sizes(kind, d, settings.exponents)
        for n in sizes:
            cloud = clouds.make(kind, n, d, settings.queries)
            rows += measure(kind, cloud, settings, last=n == sizes[-1])
    return rows


def measure(kind: str, cloud: clouds.Cloud, settings: Settings, *, last: bool) -> Iterator[Row]:
    """Rows of one cloud; only the last is timed, and filtered."""
    n, d = cloud.points.shape
    offsets = clouds.offsets(cloud, settings.count)
    indexes = {
        name: _build(name, cloud, settings.count)
        for name in STRUCTURES
        if name != "PartitionTree" or d <= settings.tree_dims
    }
    taken: dict[str, float] = {}
    if last:
        tasks = {
            name: lambda index=index: index.report(cloud.normals, offsets)
            for name, index in indexes.items()
        }
        timing.medians(tasks, 1)  # compiles
        taken = timing.medians(tasks, settings.rounds)
    for name, index in indexes.items():
        work = index.work(cloud.normals, offsets)
        seconds = taken[name] / len(offsets) if last else None
        touched, nodes = (float(np.mean(each)) for each in work[1::-1])
        yield Row(kind, d, n, name, settings.count, touched, nodes, seconds)
    if last:
        left = float(np.mean(survivors(cloud, offsets)))
        yield Row(kind, d, n, FILTER, settings.count, left, 0.0, None)


def _build(name: str, cloud: clouds.Cloud, count: int) -> halfspace.Index:
    if name == "Cascade":
        return halfspace.Cascade(cloud.points, queries=cloud.normals, expected_count=count)
    return getattr(halfspace, name)(cloud.points)


def survivors(cloud: clouds.Cloud, offsets: np.ndarray, leading: int = LEADING) -> np.ndarray:
    """Points whose score may reach the offset, by leading coordinates and norms alone, (m,).

    <w, x> <= <w_p, x_p> + ||w_rest|| ||x_rest|| along the points' principal axes, in float64.
    """
    points, normals = (rows.astype(np.float64) for rows in cloud)
    axes = np.linalg.eigh(np.cov(points.T))[1][:, ::-1]
    points, normals = points @ axes, normals @ axes
    rest = [np.linalg.norm(rows[:, leading:], axis=1) for rows in (normals, points)]
    highest = normals[:, :leading] @ points[:, :leading].T + np.outer(*rest)
    return (highest >= offsets[:, None] - 1e-9 * np.abs(offsets[:, None])).sum(axis=1)


class Growth(NamedTuple):
    """A structure over points of a kind, at the most points, and how its work grows."""

    largest: Row
    exponent: float | None


def growths(rows: Sequence[Row]) -> list[Growth]:
    """Exponents of points touched and nodes visited, for each kind, dimension and structure."""
    found = []
    for line in grouped(rows, "kind", "d", "structure").values():
        line.sort(key=lambda row: row.n)
        fit = fitted([row.n for row in line], [row.touched + row.nodes for row in line])
        found.append(Growth(line[-1], None if fit is None else fit[0]))
    return found


def table(rows: Sequence[Row]) -> Table:
    """A line for each kind and dimension: share touched, exponent and time of each structure."""
    header = ["points", "d", "n"]
    for name in STRUCTURES[:2]:
        header += [f"{name}: touched", "power of n", "theory", "a query"]
    header += ["Cascade: a query", "Scan: a query", f"left by {LEADING} coordinates"]
    found: dict[tuple[str, int], dict[str, Growth]] = {}
    for each in growths(rows):
        row = each.largest
        found.setdefault((row.kind, row.d), {})[row.structure] = each
    lines = []
    for (kind, d), mine in found.items():
        line = [kind, str(d), f"{next(iter(mine.values())).largest.n:,}"]
        for name in STRUCTURES[:2]:
            line += _tree_cells(mine.get(name))
        for name in STRUCTURES[2:]:
            line.append(timing.duration(mine[name].largest.query))
        lines.append((*line, f"{mine[FILTER].largest.share:.1%}" if FILTER in mine else "–"))
    return Table(tuple(header), lines)


def _tree_cells(growth: Growth | None) -> list[str]:
    if growth is None:
        return ["–"] * 4
    row = growth.largest
    power = "–" if growth.exponent is None else f"{growth.exponent:.2f}"
    bound = theory(row.structure, row.d)
    return [f"{row.share:.1%}", power, f"{bound:.2f}", timing.duration(row.query)]


def reach(rows: Sequence[Row]) -> str:
    """Open question 2: up to how many dimensions it works, and what is of use beyond."""
    found = [each for each in growths(rows) if each.exponent is not None]
    trees = [each for each in found if each.largest.structure == "PartitionTree"]
    kinds = list(dict.fromkeys(each.largest.kind for each in trees))
    told = []
    for kind in kinds:
        mine = [each.largest for each in trees if each.largest.kind == kind]
        good = [row.d for row in mine if row.share < LOST]
        told.append(f"{max(good)} on {kind} points" if good else f"no d on {kind} points")
    bounds = [(each.exponent, theory("PartitionTree", each.largest.d)) for each in trees]
    within = sum(exponent <= bound + SLACK for exponent, bound in bounds)
    first = (
        f"Part 1 touches less than half of the points up to d = {', '.join(told)}; its work stays"
        f" within {SLACK} of the theory's power of n in {within} of {len(trees)} cases"
    )
    return f"{first}. {_beyond(rows)}"


def _beyond(rows: Sequence[Row]) -> str:
    """What codes gain on a scan where trees are lost."""
    last = {(r.kind, r.d, r.structure): r for r in rows if r.query is not None}
    gains = {
        (kind, d): last[kind, d, "Scan"].query / row.query
        for (kind, d, name), row in last.items()
        if name == "Cascade" and d > LEADING
    }
    left = {(r.kind, r.d): r.share for r in rows if r.structure == FILTER and r.d > LEADING}
    if not gains:
        return f"No more than {LEADING} dimensions were tried, so nothing is said of more."
    best = max(gains, key=gains.__getitem__)
    return (
        f"Above d = {LEADING} certified codes (`Cascade`) take {1 / max(gains.values()):.2f} to"
        f" {1 / min(gains.values()):.2f} times a scan's time (least on {best[0]} points, d ="
        f" {best[1]}), and {LEADING} leading coordinates leave {min(left.values()):.1%} to"
        f" {max(left.values()):.0%} of the points{_spectra(left)}."
    )


def _spectra(left: dict[tuple[str, int], float]) -> str:
    """How far kinds of points are apart at the same d, where that is much."""
    by_dimension: dict[int, list[float]] = {}
    for (_, d), share in left.items():
        by_dimension.setdefault(d, []).append(share)
    apart = {d: max(shares) / min(shares) for d, shares in by_dimension.items()}
    widest = max(apart, key=apart.__getitem__)
    if apart[widest] < APART:
        return ""
    return (
        f", {apart[widest]:.0f} times apart at the same d = {widest}: the spectrum decides, more"
        " than d"
    )


def plot(rows: Sequence[Row], figure: "Figure") -> None:
    """Share of points touched on the left, time of a query on the right, against d."""
    left, right = figure.subplots(1, 2)
    last = [each.largest for each in growths(rows)]
    kinds = list(dict.fromkeys(row.kind for row in rows))
    styles = dict(zip(kinds, ("-", "--", ":", "-."), strict=False))
    for i, name in enumerate((*STRUCTURES, FILTER)):
        for kind in kinds:
            line = sorted(
                (row for row in last if (row.structure, row.kind) == (name, kind)),
                key=lambda row: row.d,
            )
            look = {"color": f"C{i}", "linestyle": styles[kind], "marker": ".", "linewidth": 1.2}
            dims = [row.d for row in line]
            if name in ("PartitionTree", "KDTree", FILTER):
                left.plot(dims, [row.share for row in line], **look)
            if name != FILTER:
                right.loglog(dims, [1e6 * row.query for row in line], **look)
        label = name if name != FILTER else f"left by {LEADING} coordinates"
        figures.entry(left, label, color=f"C{i}")
    for kind in kinds:
        figures.entry(left, f"{kind} points", styles[kind], color="0.3")
    left.set(xscale="log", xlabel="dimensions", ylabel="share of the points touched")
    right.set(xlabel="dimensions", ylabel="microseconds a query")
    figures.plain(left, right)
    figures.legend(right, of=left)


STUDY = Study(
    name="dimension",
    title="Dimensions",
    about=(
        "Half-space reports of a fixed number of points, d = 2 … 512: independent Gaussian points,"
        " ones whose spectrum decays (standard deviations 1/i), and keys of a trained encoder's"
        " sharpest head in their first principal coordinates, asked by its queries. The work is"
        " counted, points touched and nodes visited, and a power of n is fitted to it; times are of"
        " a query in a batch."
    ),
    settings=Settings,
    row=Row,
    run=run,
    table=table,
    plot=plot,
    findings=(
        Finding(
            QUESTION,
            2,
            "Many dimensions",
            "the bounds, n^(1−1/⌊d/2⌋) for a query of Part 1, take d for a small constant; what"
            " happens at the d of real heads, 64 to 128, is left open.",
            reach,
        ),
    ),
)
