"""parts: Part 1 against Part 2 of half-space reporting, in decoding and in prefilling."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

import halfspace
from halfspace.shallow_cuttings import MOST_DIMENSIONS

from ..rules import TopR
from . import clouds, figures, timing
from .study import EXPERIMENT, Finding, Study, Table, Track, check_least, grouped, setting, silent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARTS = {"PartitionTree": 1, "ShallowCuttings": 2}
"""The structures, and which part each is."""

ALONE = 16
"""Queries that are asked one by one in a round."""

WARM = 1 << 12
"""Points of an index that is built first, so that nothing is compiled while it is timed."""


@dataclass(frozen=True)
class Settings:
    """What is run."""

    dims: tuple[int, ...] = setting((2, 3, 4), "Dimensions, 2 to 6.")
    exponents: tuple[int, ...] = setting(
        (14, 16, 18), "Numbers of points, as powers of 2.", quick=(12, 14)
    )
    kinds: tuple[str, ...] = setting(("iid", "sphere"), "Kinds of points.")
    few: int = setting(64, "Points of a small report; a large one has n^(4/5).")
    queries: int = setting(256, "Queries of a batch.", quick=64)
    rounds: int = setting(9, "Rounds of timing.", quick=5)

    def __post_init__(self) -> None:
        clouds.check(self.kinds, self.dims, self.exponents, most=MOST_DIMENSIONS, least=7)
        check_least("few", (self.few,), 1, most=64)
        check_least("queries", (self.queries,), ALONE)
        check_least("rounds", (self.rounds,), 1)


class Row(NamedTuple):
    """One structure over one cloud, asked for reports of k points."""

    kind: str
    d: int
    n: int
    k: int
    structure: str
    levels: int  # of conflict lists; a tree alone has none
    build: float  # seconds
    nbytes: int
    alone: float  # seconds a query, one a call, as in decoding
    batch: float  # seconds a query, many a call, as in prefilling
    reported: float  # mean ids of a query


def build(name: str, points: np.ndarray, k: int) -> halfspace.Index:
    """Build a structure for reports of k points."""
    options = {"expected_count": k} if name == "ShallowCuttings" else {}
    return getattr(halfspace, name)(points, **options)


def run(settings: Settings, track: Track = silent) -> list[Row]:
    """Build and ask both structures over every cloud."""
    warm = clouds.make("iid", WARM, 2, ALONE)
    for name in PARTS:
        index = build(name, warm.points, 8)
        index.report(warm.normals, clouds.offsets(warm, 8))
        index.report(warm.normals[0], 1.0)
    rows: list[Row] = []
    for kind, d in track([*product(settings.kinds, settings.dims)], "clouds"):
        for n in clouds.sizes(kind, d, settings.exponents):
            cloud = clouds.make(kind, n, d, settings.queries)
            for k in (settings.few, TopR().count(n)):
                rows += measure(kind, cloud, k, settings.rounds)
    return rows


def measure(kind: str, cloud: clouds.Cloud, k: int, rounds: int) -> Iterator[Row]:
    """Rows of both structures over a cloud; their queries take turns."""
    offsets, normals = clouds.offsets(cloud, k), cloud.normals
    built = {name: timing.timed(lambda name=name: build(name, cloud.points, k)) for name in PARTS}

    def batch(index: halfspace.Index) -> object:
        return index.report(normals, offsets)

    def alone(index: halfspace.Index) -> object:
        return [index.report(normals[i], offsets[i]) for i in range(ALONE)]

    tasks = {
        (name, ask.__name__): lambda index=index, ask=ask: ask(index)
        for ask in (batch, alone)
        for name, (index, _) in built.items()
    }
    taken = timing.medians(tasks, rounds)
    for name, (index, seconds) in built.items():
        yield Row(
            kind,
            index.dim,
            len(index),
            k,
            name,
            len(index.structure.depths) if name == "ShallowCuttings" else 0,
            seconds,
            index.nbytes,
            taken[name, "alone"] / ALONE,
            taken[name, "batch"] / len(normals),
            float(np.mean(index.count(normals, offsets))),
        )


class Pair(NamedTuple):
    """Part 1 and Part 2 over the same cloud."""

    one: Row
    two: Row

    def crossover(self, way: str) -> float:
        """Queries after which Part 2 is ahead, its build paid; infinite where it never is."""
        saved = getattr(self.one, way) - getattr(self.two, way)
        if saved <= 0.0:
            return math.inf
        return max(0.0, (self.two.build - self.one.build) / saved)

    def cheaper(self, queries: float, way: str) -> int:
        """Which part takes less for so many queries, its build included."""
        one, two = (row.build + queries * getattr(row, way) for row in self)
        return 1 if one <= two else 2


def pairs(rows: Sequence[Row]) -> list[Pair]:
    """Rows of the two parts, side by side."""
    both = grouped(rows, "kind", "d", "n", "k").values()
    ordered = (sorted(mine, key=lambda row: PARTS[row.structure]) for mine in both)
    return [Pair(*mine) for mine in ordered if len(mine) == 2]


def table(rows: Sequence[Row]) -> Table:
    """A line for each cloud and size of report; Part 1 and Part 2 in one cell."""
    header = (
        "points",
        "n",
        "k",
        "levels of Part 2",
        "build",
        "one a call",
        "batch",
        "memory",
        "Part 2 pays after",
        "for n queries",
    )
    return Table(header, [_cells(pair) for pair in pairs(rows)])


def _cells(pair: Pair) -> tuple[str, ...]:
    one, two = pair
    return (
        f"{one.kind} d = {one.d}",
        f"{one.n:,}",
        f"{one.k:,}",
        str(two.levels),
        *(
            " / ".join(timing.duration(getattr(row, way)) for row in pair)
            for way in ("build", "alone", "batch")
        ),
        " / ".join(f"{row.nbytes / 1e6:.1f}" for row in pair) + " MB",
        _queries(pair.crossover("batch")),
        f"Part {pair.cheaper(one.n, 'batch')}",
    )


def _queries(count: float) -> str:
    return "never" if math.isinf(count) else f"{count:,.0f}"


def crossover(rows: Sequence[Row]) -> str:
    """Experiment 3: when Part 2's costly build pays, where its levels serve a report and not."""
    both = pairs(rows)
    shallow = [pair for pair in both if pair.two.levels]
    deep = [pair for pair in both if not pair.two.levels]
    told = [_shallow(shallow)] if shallow else []
    return " ".join([*told, _deep(deep)] if deep else told)


def _shallow(both: Sequence[Pair]) -> str:
    faster = [pair for pair in both if pair.two.batch < pair.one.batch]
    alone = sum(pair.two.alone < pair.one.alone for pair in both)
    dearer = np.median([pair.two.build / pair.one.build for pair in both])
    told = (
        f"Where Part 2 has conflict lists for a report it answers faster than Part 1 in"
        f" {len(faster)} of {len(both)} cases in batches and in {alone} one query a call, and takes"
        f" {dearer:.1f} times as long to build (median)"
    )
    if not faster:
        return f"{told}, so it never pays."
    gain = max(pair.one.batch / pair.two.batch for pair in faster)
    pays = [pair.crossover("batch") for pair in faster]
    cheaper = sum(pair.cheaper(pair.one.n, "batch") == 2 for pair in both)
    return (
        f"{told}: where it is faster, by up to {gain:.1f} times, that pays after"
        f" {np.median(pays):,.0f} queries (median; {min(pays):,.0f} to {max(pays):,.0f}), and for"
        f" as many queries as keys, a prompt, Part 2 is the cheaper in {cheaper} of {len(both)}."
    )


def _deep(both: Sequence[Pair]) -> str:
    faster = sum(pair.two.batch < pair.one.batch for pair in both)
    share = min(pair.one.k / pair.one.n for pair in both)
    return (
        f"Reports of {share:.1%} of the points and more, as n^(4/5) keys are at these n, lie deeper"
        f" than its lists in {len(both)} cases: there it is the tree under them, faster than Part 1"
        f" in {faster}."
    )


def plot(rows: Sequence[Row], figure: "Figure") -> None:
    """Total time against the number of queries, at the largest n, for each size of report."""
    both = pairs(rows)
    most = max(pair.one.n for pair in both)
    shown = [pair for pair in both if pair.one.n == most or pair.one.kind == clouds.REAL]
    depths = sorted({pair.one.k for pair in shown})
    panels = figure.subplots(1, len(depths), squeeze=False, sharey=True)[0]
    for axes, k in zip(panels, depths, strict=True):
        mine = [pair for pair in shown if pair.one.k == k]
        for i, pair in enumerate(mine):
            queries = np.geomspace(1, 1e6, 60)
            for row, style in zip(pair, ("--", "-"), strict=True):
                axes.loglog(queries, row.build + queries * row.batch, style, color=f"C{i}")
            figures.entry(axes, f"{pair.one.kind} d = {pair.one.d}", color=f"C{i}")
            where = pair.crossover("batch")
            if 1 <= where <= 1e6:
                axes.plot(where, pair.two.build + where * pair.two.batch, "o", color=f"C{i}")
        axes.axvline(mine[0].one.n, color="0.7", linewidth=1.0)
        axes.set_title(f"reports of {k:,} of {mine[0].one.n:,} points", fontsize="medium")
        axes.set_xlabel("queries (grey line: as many as keys)")
    panels[0].set_ylabel("seconds to build and ask")
    figures.entry(panels[-1], "Part 1", "--", color="0.3")
    figures.entry(panels[-1], "Part 2 (dot: ahead from here)", "-", color="0.3")
    figures.plain(*panels)
    figures.legend(panels[-1])


STUDY = Study(
    name="parts",
    title="Part 1 against Part 2",
    about=(
        "`PartitionTree` (Part 1: cheap to build) and `ShallowCuttings` (Part 2: fast to ask) over"
        " the same points: build time, time of a query one a call (as in decoding) and in batches"
        " (as in prefilling), and the number of queries after which Part 2's build has paid. Small"
        " reports have a fixed number of points, large ones the paper's n^(4/5)."
    ),
    settings=Settings,
    row=Row,
    run=run,
    table=table,
    plot=plot,
    findings=(
        Finding(
            EXPERIMENT,
            3,
            "Part 1 against Part 2",
            "Part 2, build O(n^⌊d/2⌋) and query O(log n + k), is for decoding, where keys stay;"
            " Part 1, build O(n log n) and query O(n^(1−1/⌊d/2⌋) + k), for prefilling.",
            crossover,
        ),
    ),
)
