"""Small reports in low dimensions: Part 1 and Part 2 beside KDTree, numpy and scipy's cKDTree.

A section of `versus`. Every query reports exactly k points, so that deep and shallow ones of one
offset do not hide one another.
"""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

import halfspace

from . import data, sizes, truth
from .clock import medians, seconds
from .contestants import NumpyRows, ScipyBall, ScipyBallUnsorted
from .tables import show

POINTS = 1_000_000

QUERIES = 1000

ROUNDS = 5

CHECKED = 20
"""Queries whose ids are held against the truth."""

SLOW_SECONDS = 0.5
"""Time for one timing of a contestant to whom the batch is all the same."""


class Case(NamedTuple):
    """Points, reports, and how many times as long peers must take at least."""

    kind: str
    d: int
    k: int
    numpy: float
    ckdtree: float


CASES = (
    Case("gauss", 2, 100, 250, 5),
    Case("gauss", 3, 1000, 200, 10),
    Case("sphere", 3, 1000, 100, 100),
    Case("gauss", 4, 1000, 40, 10),
    Case("gauss", 2, 10, 0, 0),
    Case("gauss", 3, 10, 0, 0),
    Case("gauss", 4, 10, 0, 0),
)

STRUCTURES: dict[str, Callable[[np.ndarray, int], halfspace.Index]] = {
    "ShallowCuttings": lambda points, k: halfspace.ShallowCuttings(points, expected_count=k),
    "PartitionTree": lambda points, _: halfspace.PartitionTree(points),
    "KDTree": lambda points, _: halfspace.KDTree(points),
}

PEERS = (NumpyRows, ScipyBall, ScipyBallUnsorted)


class Outcome(NamedTuple):
    """What a case came to, by name."""

    times: dict[str, float]  # seconds a query
    builds: dict[str, float]  # seconds
    sizes: dict[str, float]  # bytes over those of the points
    wrong: dict[str, int]  # ids, over `CHECKED` queries


def half_spaces(points: np.ndarray, k: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Random normals (m, d), and the offsets of the k-th highest scores (m,)."""
    normals = data.normals(m, points.shape[1])
    return normals, data.offsets(points, normals, k / len(points))


def play(case: Case, threads: int) -> Outcome:
    """Let all report the same half-spaces, in turns."""
    points = data.GENERATORS[case.kind](sizes.points(POINTS), case.d)
    k = max(1, case.k * len(points) // POINTS)
    normals, offsets = half_spaces(points, k, sizes.queries(QUERIES))
    asked, tasks, builds, held = {}, {}, {}, {}
    for name, structure in STRUCTURES.items():
        structure(points[:2000], k)
        start = time.perf_counter()
        index = structure(points, k)
        builds[name] = time.perf_counter() - start
        held[name] = index.nbytes / points.nbytes
        asked[name] = len(normals)
        tasks[name] = lambda i=index: i.report(normals, offsets)
    few = min(4, len(normals))
    for contestant in PEERS:
        peer = contestant(points, threads)
        each = seconds(lambda p=peer: p.report(normals[:few], offsets[:few])) / few
        asked[peer.name] = m = int(np.clip(SLOW_SECONDS / each, few, len(normals)))
        tasks[peer.name] = lambda p=peer, m=m: p.report(normals[:m], offsets[:m])
    checked = sizes.queries(CHECKED)
    truths = truth.insides(points, normals[:checked], offsets[:checked])
    wrong = {name: truth.wrong(list(task())[:checked], truths) for name, task in tasks.items()}
    taken = medians(tasks, sizes.rounds(ROUNDS))
    return Outcome({name: taken[name] / asked[name] for name in taken}, builds, held, wrong)


def fastest(times: dict[str, float], peers: Sequence[type]) -> float:
    """Time of the fastest of some contestants."""
    return min(times[peer.name] for peer in peers)


def by_case(
    cases: Sequence[Case], outcomes: Sequence[Outcome], cell: Callable[[Outcome, str], str]
) -> tuple[list[str], list[list[str]]]:
    """A table of a line a case and a column a contestant."""
    names = {peer.name: peer.__name__ for peer in PEERS}
    contestants = list(outcomes[0].times)
    rows = [
        [f"{case.kind} d = {case.d}, k = {case.k}", *(cell(outcome, c) for c in contestants)]
        for case, outcome in zip(cases, outcomes, strict=True)
    ]
    return ["", *(names.get(c, c) for c in contestants)], rows


def show_shallow(threads: int, cases: Sequence[Case] = CASES) -> None:
    """Play all cases, and print times, ratios and whether they are as wanted."""
    outcomes = [play(case, threads) for case in cases]

    def time_and_ratio(outcome: Outcome, name: str) -> str:
        ratio = outcome.times[name] / outcome.times["ShallowCuttings"]
        return f"{1e6 * outcome.times[name]:.2f} ({ratio:.1f}x)"

    def build_and_size(outcome: Outcome, name: str) -> str:
        if name not in outcome.builds:
            return ""
        return f"{outcome.builds[name]:.1f} s, {outcome.sizes[name]:.1f}x"

    for title, cell in (
        ("Small reports: µs a query, and how often as long as ShallowCuttings", time_and_ratio),
        ("Building, and bytes over those of the points", build_and_size),
        (
            f"Wrong ids, in {sizes.queries(CHECKED)} queries",
            lambda outcome, name: str(outcome.wrong[name]),
        ),
    ):
        show(title, *by_case(cases, outcomes, cell))
    rows = []
    for case, outcome in zip(cases, outcomes, strict=True):
        own = outcome.times["ShallowCuttings"]
        against = {
            "numpy": (fastest(outcome.times, [NumpyRows]), case.numpy),
            "cKDTree": (fastest(outcome.times, [ScipyBall, ScipyBallUnsorted]), case.ckdtree),
            "KDTree": (outcome.times["KDTree"], 1.0),
        }
        for name, (taken, wanted) in against.items():
            if wanted:
                met = "met" if taken / own >= wanted else "NOT MET"
                label = f"{case.kind}, d = {case.d}, k = {case.k}: {name}"
                rows.append([label, f"{wanted:g}x", f"{taken / own:.1f}x", met])
    show("Targets: times ShallowCuttings' it takes", ["", "at least", "measured", ""], rows)
