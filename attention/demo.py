"""The demo: certified decoding of packaged real heads, and half-space reports on the same keys.

Every output is checked on the spot against dense attention in float64; of every head's reports, the
first few against rational arithmetic.
"""

import math
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

import halfspace

from . import data, dense
from .attended import Attended
from .decode import Decoder
from .rules import Error, TopR

ROUNDS = 3
"""Times are medians of so many passes over the queries."""

TABLE_WIDTH = 100
"""Columns the tables need; a narrower terminal wraps them."""

RATIONAL_QUERIES = 8
"""Half-space reports per head that are checked in rational arithmetic, key by key."""


class Row(NamedTuple):
    """One line of the decoding table."""

    head: str
    rule: str
    read: float  # share of keys, mean over queries
    bound: float  # medians
    error: float
    ratio: float
    broken: int
    microseconds: float
    dense_microseconds: float


class SpaceRow(NamedTuple):
    """One line of the half-space table."""

    head: str
    structure: str
    ids: float
    wrong: int
    wrong_numpy: int
    microseconds: float
    numpy_microseconds: float


def _microseconds(call: Callable[[], object], queries: int) -> float:
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e6 * float(np.median(times)) / queries


def _dense_numpy(head: data.Head, queries: np.ndarray) -> np.ndarray:
    """Attention as numpy users write it, float32, the whole batch by matrix products."""
    scores = queries @ head.key.T * np.float32(1.0 / math.sqrt(queries.shape[1]))
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights @ head.value / weights.sum(axis=1, keepdims=True)


def _errors(got: Attended, exact: np.ndarray) -> np.ndarray:
    return np.abs(got.output - exact).max(axis=-1)


def _activation_threshold(head: data.Head, queries: np.ndarray) -> float:
    """Threshold that about n^(4/5) of the keys exceed: the paper's count of activated entries."""
    scores = queries @ head.key.T / math.sqrt(queries.shape[1])
    return float(np.quantile(scores, 1.0 - len(head.key) ** -0.2))


def decode_head(head: data.Head, queries: np.ndarray, advance: Callable[[], object]) -> list[Row]:
    """Decode the queries by three rules, timed and checked."""
    decoder = Decoder(head.key, head.value)
    threshold = _activation_threshold(head, queries)
    exact, _ = dense.softmax(queries, head.key, head.value)
    exact_relu, _ = dense.relu(queries, head.key, head.value, threshold=threshold)
    dense_time = _microseconds(lambda: _dense_numpy(head, queries), len(queries))
    rows = []
    for name, attend, truth in (
        ("Error(1e-3)", lambda q: decoder.softmax(q, Error(1e-3), dtype=np.float32), exact),
        ("TopR()", lambda q: decoder.softmax(q, TopR(), dtype=np.float32), exact),
        ("relu", lambda q: decoder.relu(q, threshold=threshold, dtype=np.float32), exact_relu),
    ):
        got = attend(queries)
        errors = _errors(got, truth)
        rows.append(
            Row(
                head.name,
                name,
                float(got.reported.mean()) / len(decoder),
                float(np.median(got.bound)),
                float(np.median(errors)),
                float(np.median(got.bound / np.maximum(errors, 1e-300))),
                int((~(errors <= got.bound)).sum()),
                _microseconds(lambda a=attend: a(queries), len(queries)),
                dense_time,
            )
        )
        advance()
    return rows


def _rational_ids(points: np.ndarray, normal: np.ndarray, offset: float) -> np.ndarray:
    """Ids inside the half-space in exact rational arithmetic; float64 only for the clear ones."""
    scores = points.astype(np.float64) @ normal.astype(np.float64)
    near = np.abs(scores - offset) <= 1e-9 * (1.0 + np.abs(scores).max())
    inside = scores >= offset
    weights = [Fraction(float(w)) for w in normal]
    for i in np.flatnonzero(near):
        score = sum(w * Fraction(float(x)) for w, x in zip(weights, points[i], strict=True))
        inside[i] = score >= Fraction(offset)
    return np.flatnonzero(inside)


def report_head(head: data.Head, queries: np.ndarray, dims: int, structure: str) -> SpaceRow:
    """Report the 1 % of keys furthest along each query, in the keys' first `dims` coordinates.

    Each offset is itself the float32 score of a key, so ties and near-ties are the rule.
    """
    points = np.ascontiguousarray(head.key[:, :dims])
    normals = np.ascontiguousarray(queries[:, :dims])
    scores = points @ normals.T
    place = len(points) - len(points) // 100
    offsets = np.partition(scores, place, axis=0)[place].astype(np.float64)
    index = halfspace.build(points, structure)
    report = index.report(normals, offsets)
    by_numpy = [
        np.flatnonzero(points @ w >= np.float32(b)) for w, b in zip(normals, offsets, strict=True)
    ]
    wrong = wrong_numpy = 0
    for i in range(min(RATIONAL_QUERIES, len(normals))):
        truth = _rational_ids(points, normals[i], float(offsets[i]))
        wrong += len(np.setxor1d(report[i], truth))
        wrong_numpy += len(np.setxor1d(by_numpy[i], truth))

    def scan_numpy() -> None:
        for w, b in zip(normals, offsets, strict=True):
            np.flatnonzero(points @ w >= b)

    return SpaceRow(
        head.name,
        repr(index),
        len(report.indices) / len(report),
        wrong,
        wrong_numpy,
        _microseconds(lambda: index.report(normals, offsets), len(normals)),
        _microseconds(scan_numpy, len(normals)),
    )


def _decoding_table(rows: list[Row]) -> Table:
    table = Table(
        title="Certified decoding of real heads (times a query in one batch)", show_edge=False
    )
    table.add_column("head")
    table.add_column("rule")
    for name in (
        "keys read",
        "bound",
        "true error",
        "bound / error",
        "broken",
        "time",
        "numpy",
    ):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row.head,
            row.rule,
            f"{row.read:.1%}",
            f"{row.bound:.1e}",
            f"{row.error:.1e}",
            f"{row.ratio:.1f}",
            str(row.broken),
            f"{row.microseconds:.0f} µs",
            f"{row.dense_microseconds:.0f} µs",
            end_section=row.rule == "relu",
        )
    return table


def _space_table(rows: list[SpaceRow]) -> Table:
    table = Table(
        title="Half-space reports on the same keys, offsets that tie with a key", show_edge=False
    )
    table.add_column("head")
    table.add_column("index")
    for name in ("ids", "wrong", "wrong by numpy", "time", "numpy"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row.head,
            row.structure,
            f"{row.ids:.0f}",
            str(row.wrong),
            str(row.wrong_numpy),
            f"{row.microseconds:.0f} µs",
            f"{row.numpy_microseconds:.0f} µs",
        )
    return table


def run_demo(queries: int, plot: Path | None = None) -> bool:
    """Run the demo, print its tables, and return whether every bound and every id held."""
    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    draw = None if plot is None else _plotter()
    heads = [data.load(name) for name in data.heads()]
    rows: list[Row] = []
    space: list[SpaceRow] = []
    with tqdm(total=1 + 5 * len(heads), desc="compiling", leave=False) as progress:
        _warm(heads[0])
        progress.update()
        for head in heads:
            progress.set_description(f"head {head.name}")
            some = head.query[:queries]
            rows += decode_head(head, some, progress.update)
            for dims, structure in ((head.key.shape[1], "auto"), (3, "kd_tree")):
                space.append(report_head(head, some, dims, structure))
                progress.update()
    n, d = heads[0].key.shape
    console.print(f"{n} keys x {d} a head, {len(some)} queries, {halfspace.get_threads()} threads")
    console.print(_decoding_table(rows))
    console.print(_space_table(space))
    broken, wrong = sum(row.broken for row in rows), sum(row.wrong for row in space)
    console.print(f"bounds broken: {broken}; wrong ids: {wrong}")
    if draw is not None:
        draw([(head, head.query[:queries]) for head in heads], plot)
        console.print(f"figure: {plot}")
    return broken == 0 and wrong == 0


def _plotter() -> Callable[[list[tuple[data.Head, np.ndarray]], Path], None]:
    """Import what draws the figure first: its absence should not be found out last."""
    from .plot import save_errors

    return save_errors


def _warm(head: data.Head) -> None:
    """Compile what the demo times, so that no time includes it."""
    decoder = Decoder(head.key[:200], head.value[:200])
    decoder.softmax(head.query[:2], Error(1e-3))
    decoder.relu(head.query[:2], threshold=0.0)
    for structure in ("scan", "kd_tree"):
        halfspace.build(head.key[:200], structure).report(head.query[:2], [0.0, 0.0])
