"""bench: every structure on the caller's own points, timed, and held against one another."""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from ..index import Index
from ..inputs import Queries
from ..planner import random_directions
from ..structures import STRUCTURES
from .streaming import progress

ROUNDS = 3
"""Times of queries are medians of so many passes."""

TABLE_WIDTH = 90
"""Columns the table needs; a narrower terminal wraps it."""


class Line(NamedTuple):
    """What one structure took."""

    name: str
    build: float  # seconds
    query: float  # seconds a query, in one batch
    nbytes: int
    wrong: int  # ids that differ from those of a scan


def random_queries(points: np.ndarray, m: int, share: float) -> Queries:
    """Half-spaces in random directions that hold about such a share of the points."""
    normals = random_directions(points, m)
    rows = np.random.default_rng(0).integers(len(points), size=min(len(points), 1 << 14))
    offsets = np.quantile(points[rows] @ normals.T, 1.0 - share, axis=0)
    return Queries(normals, offsets, False)


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _query_seconds(index: Index, queries: Queries) -> float:
    ask = lambda: index.report(queries.normals, queries.offsets)  # noqa: E731
    ask()
    return float(np.median([_seconds(ask) for _ in range(ROUNDS)])) / len(queries.offsets)


def _numpy_seconds(points: np.ndarray, queries: Queries) -> float:
    def ask() -> None:
        for normal, offset in zip(queries.normals, queries.offsets, strict=True):
            np.flatnonzero(points @ normal.astype(points.dtype) >= offset)

    return _seconds(ask) / len(queries.offsets)


def measure(points: np.ndarray, queries: Queries) -> tuple[list[Line], float]:
    """Build and ask every structure; and what numpy takes for a query."""
    lines, want, d = [], None, points.shape[1]
    with progress("bench") as bar:
        for name, entry in STRUCTURES.items():
            if entry.most_dimensions is None or d <= entry.most_dimensions:
                entry.make(points[:1000])  # compiled, so that no time includes it
                start = time.perf_counter()
                index = entry.make(points)
                built = time.perf_counter() - start
                found = index.report(queries.normals, queries.offsets)
                want = found if want is None else want
                wrong = sum(len(np.setxor1d(a, b)) for a, b in zip(found, want, strict=True))
                taken = _query_seconds(index, queries)
                lines.append(Line(name, built, taken, index.nbytes, wrong))
            bar.update(1.0 / (len(STRUCTURES) + 1))
        return lines, _numpy_seconds(points, queries)


def table(lines: list[Line], numpy_seconds: float) -> Table:
    """Lines as a table."""
    found = Table(show_edge=False)
    found.add_column("structure")
    for name in ("build", "a query", "memory", "wrong ids"):
        found.add_column(name, justify="right")
    for line in lines:
        found.add_row(
            line.name,
            f"{line.build:.3f} s",
            f"{1e6 * line.query:.1f} µs",
            f"{line.nbytes / 1e6:.1f} MB",
            str(line.wrong),
        )
    found.add_row("numpy", "", f"{1e6 * numpy_seconds:.1f} µs", "", "")
    return found


def run_bench(points: np.ndarray, queries: Queries) -> bool:
    """Measure, print the table, and return whether all structures gave the same ids."""
    lines, numpy_seconds = measure(points, queries)
    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    n, d = points.shape
    ids = len(queries.offsets)
    console.print(f"{n} points x {d}, {points.dtype}, {ids} queries in one batch")
    console.print(table(lines, numpy_seconds))
    return all(line.wrong == 0 for line in lines)
