"""How work grows with n, beside the theory: python -m asv_benchmarks.complexity.

A power of n is fitted to the mean of deterministic counters over random directions: points touched,
and nodes visited as well. Shallow half-spaces hold a fixed number of points, deep ones a fixed
share; points of nodes that lie inside as a whole are never touched, so the counters of deep ones
are those of counting. Builds are timed by the clock, so their exponents are noisy.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import halfspace
from attention.studies.exponents import fitted

from . import data, sizes
from .tables import show

STRUCTURES = ("KDTree", "PartitionTree", "ShallowCuttings", "Scan")

LARGEST_DIMENSION = {"ShallowCuttings": 6}

BYTES_A_BYTE = {"ShallowCuttings": 32}
"""Bytes that a structure may take for each byte of points: exponents are at equal space a point."""

SHALLOW_COUNT = 32

DEEP_SHARE = 0.1

DEPTHS: dict[str, Callable[[int], int]] = {
    "shallow": lambda n: min(SHALLOW_COUNT, n),
    "deep": lambda n: max(1, round(DEEP_SHARE * n)),
}
"""Points in a half-space, of n."""

TITLES = {
    "shallow": f"shallow half-spaces of {SHALLOW_COUNT} points",
    "deep": f"deep half-spaces of {DEEP_SHARE:.0%} of the points",
}

COUNTERS = ("points_touched", "work")

LABELS = {"points_touched": "points", "work": "nodes + points", "seconds": "build"}


class Plan(NamedTuple):
    """What a run measures."""

    structures: tuple[str, ...]
    dims: tuple[int, ...]
    kinds: tuple[str, ...]
    sizes: tuple[int, ...]
    queries: int
    seed: int
    patience: float  # seconds; after a build that takes longer, none of more points


class Work(NamedTuple):
    """Means over the queries."""

    structure: str
    kind: str
    d: int
    n: int
    depth: str
    reported: float
    nodes_visited: float
    points_touched: float

    @property
    def work(self) -> float:
        return self.nodes_visited + self.points_touched


class Build(NamedTuple):
    structure: str
    kind: str
    d: int
    n: int
    seconds: float


class Fit(NamedTuple):
    """An exponent of n, its standard error, and that of the theory; None where there is none."""

    structure: str
    kind: str
    d: int
    depth: str
    counter: str
    exponent: float | None
    error: float | None
    theory: float | None


class Study(NamedTuple):
    """All that was measured."""

    plan: Plan
    work: list[Work]
    builds: list[Build]


def theory(structure: str, depth: str, d: int) -> float | None:
    """Exponent of n in the bound for a query, without logarithms and the term of the output.

    For points in general position and the worst half-space: what is measured may well be below.
    """
    if structure == "Scan":
        return 1.0
    if depth == "shallow" and structure == "PartitionTree":
        return 1.0 - 1.0 / (d // 2)
    if depth == "shallow" and structure == "ShallowCuttings":
        return 0.0
    return 1.0 - 1.0 / d


def able(names: Sequence[str], d: int) -> list[str]:
    """Names of structures that are there and take d dimensions."""
    return [
        name
        for name in names
        if hasattr(halfspace, name) and d <= LARGEST_DIMENSION.get(name, sys.maxsize)
    ]


def queries(plan: Plan, points: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Random directions, and offsets of each depth."""
    normals = data.normals(plan.queries, points.shape[1], seed=plan.seed + 1)
    counts = {depth: count(len(points)) for depth, count in DEPTHS.items()}
    return normals, {depth: data.kth_scores(points, normals, k) for depth, k in counts.items()}


def build(name: str, points: np.ndarray) -> halfspace.Index:
    """Build a structure, with space in proportion to the points where it takes what it is given."""
    space = BYTES_A_BYTE.get(name)
    options = {} if space is None else {"memory": space * points.nbytes}
    return getattr(halfspace, name)(points, **options)


def measure(plan: Plan, kind: str, d: int) -> Iterator[tuple[Build, list[Work]]]:
    """Build every structure over ever more points, and count what queries cost."""
    # In float32, many points on a surface are further off it than shallow planes cut into it.
    everything = data.GENERATORS[kind](max(plan.sizes), d, "float64", plan.seed)
    names = able(plan.structures, d)
    for name in names:
        build(name, everything[: min(plan.sizes)])  # compiles
    for n in sorted(plan.sizes):
        points = everything[:n]
        normals, offsets = queries(plan, points)
        for name in tuple(names):
            start = time.perf_counter()
            index = build(name, points)
            passed = time.perf_counter() - start
            if passed > plan.patience and n < max(plan.sizes):
                print(f"{name}, {kind}, d = {d}: {n:,} points took {passed:.0f} s, so no more")
                names.remove(name)
            yield (
                Build(name, kind, d, n, passed),
                [count_work(index, name, kind, depth, normals, b) for depth, b in offsets.items()],
            )


def count_work(
    index: halfspace.Index,
    name: str,
    kind: str,
    depth: str,
    normals: np.ndarray,
    offsets: np.ndarray,
) -> Work:
    """Mean counters of the queries."""
    counted = index.work(normals, offsets)
    return Work(
        name,
        kind,
        index.dim,
        len(index),
        depth,
        float(np.mean(index.count(normals, offsets))),
        float(counted.nodes_visited.mean()),
        float(counted.points_touched.mean()),
    )


def run(plan: Plan) -> Study:
    """Measure everything, with word of it on stderr."""
    study = Study(plan, [], [])
    for kind in plan.kinds:
        for d in plan.dims:
            print(f"measuring {kind}, d = {d}", file=sys.stderr)
            for build, work in measure(plan, kind, d):
                study.builds.append(build)
                study.work.extend(work)
    return study


def work_fits(study: Study) -> list[Fit]:
    """Exponents of the counters."""
    lines: dict[tuple, list[Work]] = {}
    for row in study.work:
        lines.setdefault((row.structure, row.kind, row.d, row.depth), []).append(row)
    return [
        _fit((*key, counter), [(row.n, getattr(row, counter)) for row in rows])
        for key, rows in lines.items()
        for counter in COUNTERS
    ]


def build_fits(study: Study) -> list[Fit]:
    """Exponents of build times."""
    lines: dict[tuple, list[tuple[int, float]]] = {}
    for row in study.builds:
        lines.setdefault((row.structure, row.kind, row.d), []).append((row.n, row.seconds))
    return [_fit((*key, "build", "seconds"), line) for key, line in lines.items()]


def _fit(key: tuple, line: list[tuple[int, float]]) -> Fit:
    structure, _, d, depth, _ = key
    exponent, error = fitted(*zip(*line, strict=True)) or (None, None)
    return Fit(*key, exponent, error, None if depth == "build" else theory(structure, depth, d))


def cell(fit: Fit | None) -> str:
    """Exponent and standard error."""
    return "–" if fit is None or fit.exponent is None else f"{fit.exponent:.2f} ±{fit.error:.2f}"


def show_fits(plan: Plan, fits: Sequence[Fit], title: str) -> None:
    """A table: rows are the counters of each structure and its bound, columns dimensions."""
    lines: dict[tuple[str, str], dict[int, Fit]] = {}
    for fit in fits:
        lines.setdefault((fit.structure, fit.counter), {})[fit.d] = fit
    rows = []
    for name in plan.structures:
        mine = {counter: line for (owner, counter), line in lines.items() if owner == name}
        for counter, line in mine.items():
            rows.append([f"{name}, {LABELS[counter]}", *(cell(line.get(d)) for d in plan.dims)])
        bounds = {d: fit.theory for line in mine.values() for d, fit in line.items()}
        if any(bound is not None for bound in bounds.values()):
            cells = (f"{bounds[d]:.2f}" if d in bounds else "–" for d in plan.dims)
            rows.append([f"{name}, bound", *cells])
    show(title, ["", *(f"d = {d}" for d in plan.dims)], rows)


def show_study(study: Study) -> None:
    """All tables."""
    plan = study.plan
    print(
        f"Exponents of n, fitted to {len(plan.sizes)} sizes from {min(plan.sizes):,} to"
        f" {max(plan.sizes):,}, {plan.queries} queries each: exponent ±standard error"
    )
    absent = [name for name in plan.structures if not hasattr(halfspace, name)]
    if absent:
        print(f"not in this version: {', '.join(absent)}")
    counted, built = work_fits(study), build_fits(study)
    for depth, title in TITLES.items():
        for kind in plan.kinds:
            fits = [fit for fit in counted if (fit.kind, fit.depth) == (kind, depth)]
            show_fits(plan, fits, f"{kind}: {title}")
    for kind in plan.kinds:
        fits = [fit for fit in built if fit.kind == kind]
        show_fits(plan, fits, f"{kind}: build time (by the clock: noisy)")


def as_json(study: Study) -> str:
    """Everything measured and fitted."""
    fits = work_fits(study) + build_fits(study)
    parts = {"work": study.work, "builds": study.builds, "fits": fits}
    lists = {name: [row._asdict() for row in rows] for name, rows in parts.items()}
    return json.dumps({"plan": study.plan._asdict(), **lists}, indent=1)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m asv_benchmarks.complexity", description=__doc__
    )
    kinds = tuple(data.GENERATORS)
    parser.add_argument("--structures", nargs="+", default=STRUCTURES, choices=STRUCTURES)
    parser.add_argument("--dims", nargs="+", type=int, default=range(2, 9), metavar="D")
    parser.add_argument("--kinds", nargs="+", default=kinds, choices=kinds, help="of points")
    parser.add_argument("--least", type=int, default=12, metavar="E", help="from 2^E points; 12")
    parser.add_argument("--most", type=int, default=20, metavar="E", help="to 2^E points; 20")
    parser.add_argument("--queries", type=int, default=32, metavar="M", help="a size and depth; 32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--patience", type=float, default=60.0, metavar="S", help="seconds a build may take; 60"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers too")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the work too (matplotlib)")
    chosen = parser.parse_args(argv)
    if min(chosen.dims) < 2:
        parser.error(f"--dims: expected at least 2, got {min(chosen.dims)}")
    if chosen.queries < 1:
        parser.error(f"--queries: expected at least 1, got {chosen.queries}")
    if not 0 <= chosen.least <= chosen.most:
        parser.error(
            f"--least, --most: expected 0 <= least <= most, got {chosen.least}, {chosen.most}"
        )
    return chosen


def plan_of(chosen: argparse.Namespace) -> Plan:
    """The plan at the scale the environment asks for."""
    counts = {sizes.points(2**e) for e in range(chosen.least, chosen.most + 1)}
    return Plan(
        tuple(chosen.structures),
        tuple(chosen.dims),
        tuple(chosen.kinds),
        tuple(sorted(counts)),
        sizes.queries(chosen.queries),
        chosen.seed,
        chosen.patience,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, fit and print; write and draw where asked."""
    chosen = arguments(argv)
    study = run(plan_of(chosen))
    show_study(study)
    if chosen.json:
        chosen.json.write_text(as_json(study))
    if chosen.plot:
        from .complexity_figure import draw

        draw(study, chosen.plot)


if __name__ == "__main__":
    main()
