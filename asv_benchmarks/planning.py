"""What the planner chooses beside what is best: python -m asv_benchmarks.planning.

Every structure is built and asked once for each set of points and size of report; numbers of
queries, all in one call, as `build` is told, combine the two. It is called for real, and what it
takes beyond building what it chose, run-offs included, is added to that. One thread for everybody;
the least of several rounds counts, on a machine that is shared with others.
"""

import argparse
import datetime
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import halfspace
from halfspace.planner import structure_name

from . import data, sizes
from .clock import held_to, seconds, without_collections
from .tables import markdown, show

QUERIES = (1, 100, 10_000, 1_000_000)

REPORTED = (10, 100)

SHARE = 0.01
"""Of the points, in the largest reports."""

NEAR = 1.25
"""Times the best that a choice may take."""

WORST = 2.0

TARGET = 0.9
"""Share of the cells where a choice must be near the best."""

KINDS = ("gauss", "sphere", "clustered", "cube")

DIMENSIONS = (2, 3, 4, 6, 8, 16)

SITES = (
    *((1_000, d, kind) for d in DIMENSIONS for kind in KINDS),
    *((10_000, d, kind) for d in DIMENSIONS for kind in KINDS),
    *((100_000, d, kind) for d in DIMENSIONS for kind in KINDS[:3]),
    *((1_000_000, d, "gauss") for d in (2, 3, 4, 8)),
    (1_000_000, 3, "clustered"),
)
"""Number of points, their dimension and their kind."""

LARGEST_CUTTINGS = {2: 1_000_000, 3: 1_000_000, 4: 1_000_000, 5: 4_000, 6: 4_000}
"""Points up to which shallow cuttings are measured, by dimension.

Beyond, they take from seconds to minutes to build, and answer no sooner than a tree.
"""


BUILT_FOR_COUNT = ("shallow_cuttings", "cascade")
"""Structures that are built for reports of one size, as `halfspace.build` does where it is told."""


class Plan(NamedTuple):
    """How much a run does."""

    sites: tuple[tuple[int, int, str], ...]
    queries: int  # a batch
    scans: int  # scores a batch of scans computes, about
    rounds: int
    patience: float  # seconds of building after which it is not repeated


FULL = Plan(SITES, 1000, 20_000_000, 3, 0.3)


class Cost(NamedTuple):
    """What a structure takes, in seconds."""

    build: float
    query: float

    def total(self, queries: int) -> float:
        return self.build + queries * self.query


class Cell(NamedTuple):
    """What the planner chose for one use of one set of points."""

    n: int
    d: int
    kind: str
    reported: int
    queries: int
    chosen: str
    best: str
    taken: float  # seconds, planning and all
    least: float  # seconds of the best
    planning: float  # seconds

    @property
    def ratio(self) -> float:
        return self.taken / self.least


def contestants(n: int, d: int, reported: int) -> dict[str, Callable[[np.ndarray], object]]:
    """How each structure that is measured is built."""
    found: dict[str, Callable[[np.ndarray], object]] = {
        "scan": halfspace.Scan,
        "kd_tree": halfspace.KDTree,
        "partition_tree": halfspace.PartitionTree,
        "cascade": lambda points: halfspace.Cascade(points, expected_count=reported),
    }
    if n <= LARGEST_CUTTINGS.get(d, 0):
        found["shallow_cuttings"] = lambda points: halfspace.ShallowCuttings(
            points, expected_count=reported
        )
    return found


def least_seconds(task: Callable[[], object], rounds: int, patience: float) -> float:
    """Least time of a few calls, of which none is made after a long one."""
    passed = [seconds(task)]
    while len(passed) < rounds and passed[-1] <= patience:
        passed.append(seconds(task))
    return min(passed)


def measure(points: np.ndarray, reported: Sequence[int], budget: Plan) -> dict[int, dict]:
    """Costs of every structure by name, for each number of points reported."""
    n, d = points.shape
    normals = data.normals(budget.queries, d)
    costs: dict[int, dict[str, Cost]] = {}
    built: dict[str, tuple[float, halfspace.Index]] = {}
    for k in reported:
        costs[k] = {}
        offsets = data.kth_scores(points, normals, k)
        for name, make in contestants(n, d, k).items():
            if name not in built or name in BUILT_FOR_COUNT:
                build = least_seconds(lambda m=make: m(points), budget.rounds, budget.patience)
                built[name] = build, make(points)
            build, index = built[name]
            m = min(len(normals), max(4, budget.scans // n)) if name == "scan" else len(normals)
            index.report(normals[:2], offsets[:2])
            ask = least_seconds(
                lambda i=index, m=m, b=offsets: i.report(normals[:m], b[:m]),
                budget.rounds,
                budget.patience,
            )
            costs[k][name] = Cost(build, ask / m)
    return costs


def judge(points: np.ndarray, kind: str, costs: dict[int, dict], rounds: int) -> list[Cell]:
    """Let the planner choose, for every size of report and number of queries."""
    n, d = points.shape
    cells = []
    for k, by_name in costs.items():
        for queries in QUERIES:

            def choose(k: int = k, m: int = queries) -> halfspace.Index:
                return halfspace.build(
                    points, expected_count=k, expected_queries=m, expected_batch=m
                )

            choice = structure_name(type(choose()))
            built = by_name[choice].build if choice in by_name else 0.0
            planning = max(0.0, least_seconds(choose, rounds, 0.1) - built)
            best = min(by_name, key=lambda name: by_name[name].total(queries))
            least = by_name[best].total(queries)
            # What was not measured is too dear to be a good choice.
            taken = by_name[choice].total(queries) if choice in by_name else np.inf
            cells.append(
                Cell(n, d, kind, k, queries, choice, best, taken + planning, least, planning)
            )
    return cells


def compile_all(plan_: Plan) -> None:
    """Have everything compiled before anything is timed."""
    for d in sorted({d for _, d, _ in plan_.sites}):
        points = data.gauss(min(4_000, max(n for n, _, _ in plan_.sites)), d)
        costs = measure(points, [10], plan_._replace(rounds=1))
        judge(points, "gauss", costs, 1)


def run(budget: Plan) -> list[Cell]:
    """All cells, and word of them on stderr."""
    cells: list[Cell] = []
    compile_all(budget)
    for n, d, kind in budget.sites:
        start = time.perf_counter()
        points = data.GENERATORS[kind](n, d)
        reported = sorted({k for k in (*REPORTED, round(SHARE * n)) if 0 < k <= n // 4})
        with without_collections():
            found = judge(points, kind, measure(points, reported, budget), budget.rounds)
        cells += found
        worst = max(cell.ratio for cell in found)
        taken = time.perf_counter() - start
        print(f"{kind} {n:,} x {d}: worst {worst:.2f}x, {taken:.1f} s", file=sys.stderr)
    return cells


def summary(cells: Sequence[Cell]) -> list[list[str]]:
    """A line for each number of queries, and one for all."""
    lines = []
    for queries in (*QUERIES, None):
        some = [cell for cell in cells if queries is None or cell.queries == queries]
        ratios = np.array([cell.ratio for cell in some])
        lines.append(
            [
                "all" if queries is None else f"{queries:,}",
                str(len(some)),
                f"{np.mean(ratios <= NEAR):.1%}",
                f"{np.median(ratios):.2f}x",
                f"{ratios.max():.2f}x",
                f"{1e3 * np.median([cell.planning for cell in some]):.1f} ms",
                f"{1e3 * max(cell.planning for cell in some):.1f} ms",
            ]
        )
    return lines


SUMMARY = ["queries", "cells", "within 1.25x", "median", "worst", "planning, median", "most"]


def by_site(cells: Sequence[Cell]) -> tuple[list[str], list[list[str]]]:
    """A line for each set of points and size of report: what was chosen, and its ratio."""
    header = ["points", "reported", *(f"{queries:,} queries" for queries in QUERIES)]
    lines: dict[tuple, list[str]] = {}
    for cell in cells:
        key = f"{cell.kind} {cell.n:,} x {cell.d}", f"{cell.reported:,}"
        other = "" if cell.chosen == cell.best else f" ({cell.best})"
        lines.setdefault(key, list(key)).append(f"{cell.chosen} {cell.ratio:.2f}x{other}")
    return header, list(lines.values())


def page(cells: Sequence[Cell], machine: str) -> str:
    """The page of the documentation."""
    return f"""# The planner, measured

`halfspace.build` prices every structure by what it takes to build it and to ask all the queries
that are expected, and takes the cheapest. Here its choice, the time it took to choose included, is
set beside the best structure in hindsight, as `python -m asv_benchmarks.planning` did on
{datetime.datetime.now(tz=datetime.UTC).date()} on {machine}, one thread.
A cell is a set of float32 points, a size of report and a number of queries, all in one call, all of
which `build` is told.

{markdown(SUMMARY, summary(cells))}

What was chosen, how many times as long as the best it took, and the best where it is another:

{markdown(*by_site(cells))}
"""


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m asv_benchmarks.planning", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="at most 10,000 points")
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="write the page of the docs")
    return parser.parse_args(argv)


def shrunk(budget: Plan, quick: bool) -> Plan:
    """The plan at the scale the environment asks for."""
    sites = [site for site in budget.sites if not quick or site[0] <= 10_000]
    scaled = dict.fromkeys((sizes.points(n), d, kind) for n, d, kind in sites)
    return budget._replace(
        sites=tuple(scaled),
        queries=sizes.queries(budget.queries),
        rounds=sizes.rounds(budget.rounds),
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run and print the comparison."""
    chosen = arguments(argv)
    machine = f"{platform.machine()}, {os.cpu_count()} processors"
    with held_to(1) as unheld:
        for complaint in unheld:
            print(complaint)
        cells = run(shrunk(FULL, chosen.quick))
    show(
        "The planner's choices, planning included, beside the best structure",
        SUMMARY,
        summary(cells),
    )
    poor = sorted((cell for cell in cells if cell.ratio > NEAR), key=lambda cell: -cell.ratio)
    show(
        "Choices that are not near the best",
        ["points", "reported", "queries", "chosen", "best", "ratio", "planning"],
        [
            [
                f"{cell.kind} {cell.n:,} x {cell.d}",
                str(cell.reported),
                f"{cell.queries:,}",
                cell.chosen,
                cell.best,
                f"{cell.ratio:.2f}x",
                f"{1e3 * cell.planning:.1f} ms",
            ]
            for cell in poor
        ],
    )
    near = np.mean([cell.ratio <= NEAR for cell in cells])
    met = near >= TARGET and max(cell.ratio for cell in cells) <= WORST
    print(
        f"\nwithin {NEAR:g}x in at least {TARGET:.0%}, never beyond {WORST:g}x: "
        f"{'met' if met else 'NOT MET'}"
    )
    if chosen.markdown:
        chosen.markdown.write_text(page(cells, machine), encoding="utf-8")


if __name__ == "__main__":
    main()
