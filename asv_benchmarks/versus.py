"""Half-space reports beside those of numpy, scipy and FAISS: python -m asv_benchmarks.versus.

One run on one machine, as many threads for everybody. Contestants take turns over several rounds
and medians are compared; compiling is timed only where the table says so.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

import halfspace

from . import data, sizes, truth
from .bandwidth import Reads
from .clock import held_to, medians, seconds
from .contestants import Built, Contestant, present
from .high import show_high
from .shallow import show_shallow
from .startup import startups
from .tables import show

DIMENSIONS = (2, 3, 4, 8)

SCAN_DIMENSIONS = (3, 8, 64)

STARTUP_POINTS = 10_000

BANDWIDTH_BYTES = 1 << 28

BUSY = 0.9
"""Processor time over elapsed time below which a run was disturbed."""


class Plan(NamedTuple):
    """How much a run does."""

    points: int
    reported: int  # ids a query
    queries: int  # a batch
    rounds: int
    build_rounds: int
    exact_queries: int  # whose ids are checked one by one
    seconds: float  # for one timing of a contestant to whom the batch is all the same

    def shrunk(self) -> "Plan":
        """The plan at the scale the environment asks for."""
        points = sizes.points(self.points)
        return self._replace(
            points=points,
            reported=max(1, self.reported * points // self.points),
            queries=sizes.queries(self.queries),
            exact_queries=sizes.queries(self.exact_queries),
            rounds=sizes.rounds(self.rounds),
            build_rounds=sizes.rounds(self.build_rounds),
            seconds=self.seconds * sizes.scale(),
        )


FULL = Plan(1_000_000, 1000, 1000, 5, 3, 50, 0.5)

QUICK = Plan(100_000, 100, 1000, 3, 3, 20, 0.1)


class Target(NamedTuple):
    """A family of contestants whose best must take at least `ratio` times as long as we do."""

    family: str
    d: int
    ratio: float
    of_build: bool = False


TARGETS = (
    Target("numpy", 3, 30.0),
    Target("numpy", 4, 15.0),
    Target("numpy", 8, 5.0),
    Target("cKDTree", 2, 1.0),
    Target("cKDTree", 3, 1.0),
    Target("cKDTree", 4, 1.0),
    Target("cKDTree", 3, 0.5, of_build=True),
)


class Match(NamedTuple):
    """What all contestants did on points of one dimension, by name."""

    d: int
    times: dict[str, float]  # seconds a query
    asked: dict[str, int]  # queries a timing
    wrong: dict[str, int]  # ids, over `Plan.exact_queries` queries
    builds: dict[str, float]  # seconds
    reported: float  # ids a query


def affordable(
    contestant: Contestant, normals: np.ndarray, offsets: np.ndarray, budget: float
) -> int:
    """Number of queries a timing asks, after a first call that is not timed."""
    few = min(4, len(normals))
    contestant.report(normals[:few], offsets[:few])
    if contestant.by_batch:
        return len(normals)
    each = seconds(lambda: contestant.report(normals[:few], offsets[:few])) / few
    return int(np.clip(budget / each, few, len(normals)))


def build_seconds(points: np.ndarray, rounds: int) -> dict[str, float]:
    """Seconds to build our tree and scipy's."""
    from scipy.spatial import cKDTree

    halfspace.KDTree(points[:1000])
    return medians(
        {"ours": lambda: halfspace.KDTree(points), "cKDTree": lambda: cKDTree(points)}, rounds
    )


def count_wrong(
    contestants: Sequence[Contestant], points: np.ndarray, normals: np.ndarray, plan: Plan
) -> dict[str, int]:
    """Wrong ids of every contestant, where each plane goes through the float32 score of a point."""
    normals = normals[: plan.exact_queries]
    offsets = data.offsets(points, normals, plan.reported / plan.points)
    truths = truth.insides(points, normals, offsets)
    return {c.name: truth.wrong(c.report(normals, offsets), truths) for c in contestants}


def play(d: int, plan: Plan, threads: int, able: Sequence[type[Contestant]]) -> Match:
    """Let all contestants report the same half-spaces, in turns."""
    points = data.gauss(plan.points, d)
    normals = data.normals(plan.queries, d)
    # One offset for all, since a call of FAISS takes one: on Gaussian points k hardly varies.
    level = statistics.NormalDist().inv_cdf(1.0 - plan.reported / plan.points)
    offsets = np.full(plan.queries, level, np.float32)
    contestants = [contestant(points, threads) for contestant in able]
    asked = {c.name: affordable(c, normals, offsets, plan.seconds) for c in contestants}
    tasks = {
        c.name: lambda c=c, m=asked[c.name]: c.report(normals[:m], offsets[:m]) for c in contestants
    }
    taken = medians(tasks, plan.rounds)
    return Match(
        d,
        {name: taken[name] / asked[name] for name in taken},
        asked,
        count_wrong(contestants, points, normals, plan),
        build_seconds(points, plan.build_rounds),
        float(np.mean([len(ids) for ids in tasks[Built.name]()])),
    )


def show_reports(matches: Sequence[Match]) -> None:
    """Milliseconds a query, and the ratio to ours."""
    header = ["ms a query", *(f"d = {match.d}" for match in matches)]
    rows = []
    for name in matches[0].times:
        pairs = [(m.times[name], m.times[name] / m.times[Built.name]) for m in matches]
        rows.append([name, *(f"{1e3 * time:.4f} ({ratio:.2f}x)" for time, ratio in pairs)])
    rows.append(["ids a query", *(f"{match.reported:.0f}" for match in matches)])
    show("Reporting, and how often as long as halfspace.build each takes", header, rows)
    fewer = {name for m in matches for name in m.asked if m.asked[name] < max(m.asked.values())}
    for name in sorted(fewer):
        print(f"  {name}: asked {', '.join(str(m.asked[name]) for m in matches)} queries a time")


def show_wrong(matches: Sequence[Match], plan: Plan) -> None:
    """Ids too many or too few."""
    total = plan.exact_queries * plan.reported
    show(
        f"Wrong ids of {total:,}, offsets that are float32 scores of points",
        ["", *(f"d = {match.d}" for match in matches)],
        [[name, *(str(match.wrong[name]) for match in matches)] for name in matches[0].wrong],
    )


def show_builds(matches: Sequence[Match], plan: Plan) -> None:
    """Seconds to build the trees."""
    show(
        f"Building over {plan.points:,} points",
        ["", "halfspace.KDTree", "scipy cKDTree", "ours / theirs"],
        [
            [
                f"d = {match.d}",
                *(f"{match.builds[name]:.3f} s" for name in ("ours", "cKDTree")),
                f"{match.builds['ours'] / match.builds['cKDTree']:.2f}",
            ]
            for match in matches
        ],
    )


def best_ratio(target: Target, match: Match, families: dict[str, str]) -> tuple[str, float]:
    """Fastest contestant of the target's family, and its time over ours."""
    if target.of_build:
        return "cKDTree", match.builds["cKDTree"] / match.builds["ours"]
    family = [name for name in match.times if families[name] == target.family]
    name = min(family, key=match.times.__getitem__)
    return name, match.times[name] / match.times[Built.name]


def show_targets(matches: Sequence[Match], able: Sequence[type[Contestant]]) -> None:
    """Say whether every target is met."""
    families = {contestant.name: contestant.family for contestant in able}
    by_dimension = {match.d: match for match in matches}
    rows = []
    for target in TARGETS:
        name, ratio = best_ratio(target, by_dimension[target.d], families)
        rows.append(
            [
                f"{'build' if target.of_build else 'report'}, d = {target.d}: {name}",
                f"{target.ratio:g}x",
                f"{ratio:.2f}x",
                "met" if ratio >= target.ratio else "NOT MET",
            ]
        )
    show("Targets: times ours the best of a kind takes", ["", "at least", "measured", ""], rows)


def show_scan(plan: Plan, threads: int) -> None:
    """One query of a scan against reading its points once, both in the same rounds."""
    reads = Reads(int(BANDWIDTH_BYTES * min(1.0, sizes.scale())), threads)
    rows = []
    for d in SCAN_DIMENSIONS:
        points, normal = data.gauss(plan.points, d), data.normals(1, d)
        offset = data.offsets(points, normal, 0.001)
        index = halfspace.Scan(points)
        index.report(normal, offset)
        tasks = {"scan": lambda i=index, w=normal, b=offset: i.report(w, b)}
        taken = medians(tasks | reads.tasks(), plan.rounds)
        rate, reached = reads.rate(taken), points.nbytes / taken["scan"]
        rows.append(
            [
                f"d = {d}",
                f"{points.nbytes / 1e6:.1f}",
                *(f"{bytes_a_second / 1e9:.1f}" for bytes_a_second in (rate, reached)),
                f"{1e3 * points.nbytes / rate:.3f}",
                f"{1e3 * taken['scan']:.3f}",
                f"{rate / reached:.2f}x",
            ]
        )
    show(
        f"halfspace.Scan, one query over {plan.points:,} points, beside numpy's fastest loop",
        ["", "MB", "numpy GB/s", "scan GB/s", "floor ms", "scan ms", "times floor"],
        rows,
    )


def show_startup() -> None:
    """What the first answer of a fresh process waits for."""
    points = sizes.points(STARTUP_POINTS)
    header = ["seconds", "import numpy, numba", "import ours", "build", "first report", "process"]
    steps = startups(points)
    rows = [[name, *(f"{step:.3f}" for step in steps[name])] for name in steps]
    show(f"First answer of a fresh process, KDTree of {points:,} x 3", header, rows)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m asv_benchmarks.versus", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the points")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="for everybody; 1")
    parser.add_argument("--no-startup", action="store_true", help="do not time fresh processes")
    return parser.parse_args(argv)


def show_setting(plan: Plan, threads: int, complaints: Sequence[str]) -> None:
    """What is compared, on which machine, and who is missing."""
    print(
        f"{plan.points:,} Gaussian float32 points, batches of {plan.queries:,} queries,"
        f" about {plan.reported:,} ids each; threads: {threads}; rounds: {plan.rounds}\n"
        f"Python {platform.python_version()}, numpy {np.__version__}, {os.cpu_count()} processors"
    )
    if hasattr(os, "getloadavg"):
        print(f"load before this run: {os.getloadavg()[0]:.1f}")
    for complaint in complaints:
        print(complaint)


def play_all(plan: Plan, threads: int, able: Sequence[type[Contestant]]) -> list[Match]:
    """A match for every dimension, and word of it on stderr."""
    matches = []
    start, start_busy = time.perf_counter(), time.process_time()
    for d in DIMENSIONS:
        print(f"playing d = {d}", file=sys.stderr)
        matches.append(play(d, plan, threads, able))
    share = (time.process_time() - start_busy) / (time.perf_counter() - start)
    if share < BUSY:
        print(f"other processes got in the way: this one ran {share:.0%} of the time")
    return matches


def main(argv: Sequence[str] | None = None) -> None:
    """Run and print all comparisons."""
    chosen = arguments(argv)
    plan = (QUICK if chosen.quick else FULL).shrunk()
    able, missing = present()
    with held_to(chosen.threads) as unheld:
        show_setting(plan, chosen.threads, missing + unheld)
        matches = play_all(plan, chosen.threads, able)
        show_reports(matches)
        show_wrong(matches, plan)
        show_builds(matches, plan)
        show_targets(matches, able)
        if plan.points < FULL.points:
            print(f"  targets are meant for {FULL.points:,} points, not for {plan.points:,}")
        show_shallow(chosen.threads)
        show_high(chosen.threads)
        show_scan(plan, chosen.threads)
        if not chosen.no_startup:
            show_startup()


if __name__ == "__main__":
    main()
