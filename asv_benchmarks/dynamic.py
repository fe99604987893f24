"""Points that come one batch at a time: what that costs, and what it costs to ask.

    python -m asv_benchmarks.dynamic                      inserts and queries, beside a static build
    python -m asv_benchmarks.dynamic load --seconds 60    readers and a writer, answers checked

Both print tables; the second exits 1 if an answer was wrong.
"""

import argparse
import itertools
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

import halfspace

from . import data
from .clock import held_to, medians, seconds
from .tables import show

POINTS = 1_000_000

BATCH = 1000
"""Points of an insert."""

QUERIES = 64

ROUNDS = 7

CASES = (("kd_tree", 3), ("kd_tree", 16), ("cascade", 16))

REPORTED = 100, 1000
"""Points a report holds."""


class Growth(NamedTuple):
    """What it took to insert all points, and to build them at once."""

    structure: str
    d: int
    inserting: float  # seconds
    building: float
    segments: int

    def row(self) -> list[str]:
        return [
            f"{self.structure} d={self.d}",
            f"{self.inserting:.2f} s",
            f"{self.building:.2f} s",
            f"{self.inserting / self.building:.2f}",
            f"{self.segments}",
        ]


def grown(points: np.ndarray, structure: str, batch: int) -> tuple[halfspace.Dynamic, float]:
    """Index that all points were inserted into, and how long that took."""
    index = halfspace.Dynamic(points[:0], structure=structure)

    def insert() -> None:
        for first in range(0, len(points), batch):
            index.insert(points[first : first + batch])

    return index, seconds(insert)


def questions(points: np.ndarray, m: int) -> dict[str, Callable[[halfspace.Index], object]]:
    """What is asked of both: batches, and queries one by one."""
    normals = data.normals(m, points.shape[1])
    asked = {}
    for k in REPORTED:
        offsets = data.kth_scores(points, normals, k)
        pairs = list(zip(normals, offsets, strict=True))
        asked |= {
            f"report {k}, batch": lambda index, b=offsets: index.report(normals, b),
            f"report {k}, one by one": lambda index, p=pairs: [index.report(*q) for q in p],
            f"count {k}, batch": lambda index, b=offsets: index.count(normals, b),
            f"count {k}, one by one": lambda index, p=pairs: [index.count(*q) for q in p],
        }
    return asked


def compare(structure: str, d: int, n: int, batch: int, rounds: int) -> tuple[Growth, list]:
    """Figures of one structure, and rows of its queries."""
    points = data.gauss(n, d)
    warm = halfspace.Dynamic(points[:20_000], structure=structure)  # compiles
    warm.insert(points[:10_000])
    halfspace.build(points[:20_000], structure).count(np.ones(d), 0.0)
    index, inserting = grown(points, structure, batch)
    static = halfspace.build(points, structure)
    building = min(seconds(lambda: halfspace.build(points, structure)) for _ in range(3))
    growth = Growth(structure, d, inserting, building, len(index.snapshot().parts))
    rows = []
    for name, ask in questions(points, QUERIES).items():
        tasks = {"dynamic": lambda ask=ask: ask(index), "static": lambda ask=ask: ask(static)}
        ask(index), ask(static)
        took = medians(tasks, rounds)
        rows.append(
            [
                f"{structure} d={d} {name}",
                f"{1e6 * took['dynamic'] / QUERIES:.1f} µs",
                f"{1e6 * took['static'] / QUERIES:.1f} µs",
                f"{took['dynamic'] / took['static']:.2f}",
            ]
        )
    return growth, rows


def inserts(n: int, batch: int, rounds: int) -> None:
    """Tables of inserts and queries, beside one static build."""
    found = [compare(structure, d, n, batch, rounds) for structure, d in CASES]
    show(
        f"{n} points, {batch} at a time, beside one build",
        ("index", "inserts", "build", "ratio", "segments"),
        [growth.row() for growth, _ in found],
    )
    show(
        f"A query over {n} points, {QUERIES} queries",
        ("query", "dynamic", "static", "ratio"),
        [row for _, rows in found for row in rows],
    )


class Sample(NamedTuple):
    """An answer to be checked, and what it was given by."""

    snapshot: halfspace.Index
    normal: np.ndarray
    offset: float
    ids: np.ndarray


class Latencies:
    """Times in classes 2 % wide, so that many of them take no more room than few."""

    LEAST, RATIO = 1e-7, 1.02

    def __init__(self) -> None:
        self.counts = np.zeros(1200, np.int64)

    def add(self, passed: float) -> None:
        place = int(math.log(max(passed, self.LEAST) / self.LEAST) / math.log(self.RATIO))
        self.counts[min(place, len(self.counts) - 1)] += 1

    def quantile(self, share: float) -> float:
        """Upper end of the class that the quantile is in, in seconds."""
        place = int(np.searchsorted(np.cumsum(self.counts), share * self.counts.sum()))
        return self.LEAST * self.RATIO ** (place + 1)


class Load:
    """Readers and a writer at once, over an index whose size stays about the same."""

    def __init__(self, n: int, d: int, readers: int, *, background: bool) -> None:
        rng = np.random.default_rng(0)
        self.index = halfspace.Dynamic(
            rng.standard_normal((n, d)).astype(np.float32),
            structure="kd_tree",
            background=background,
        )
        self.n, self.d, self.readers = n, d, readers
        self.stop = threading.Event()
        self.latencies = [Latencies() for _ in range(readers)]
        self.written, self.checked, self.wrong = 0, 0, 0
        self.failures: list[BaseException] = []
        self.lock = threading.Lock()

    def write(self) -> None:
        """Insert, move and delete at full speed."""
        rng, oldest = np.random.default_rng(1), 0
        while not self.stop.is_set():
            ids = self.index.insert(rng.standard_normal((BATCH, self.d)).astype(np.float32))
            moved = ids[rng.permutation(BATCH)[:100]]
            self.index.update(moved, rng.standard_normal((100, self.d)).astype(np.float32))
            self.index.delete(np.arange(oldest, oldest + BATCH))
            oldest += BATCH
            self.written += 2 * BATCH + 100

    def read(self, number: int) -> None:
        """Ask, and keep a question now and then to be checked."""
        rng = np.random.default_rng(100 + number)
        for turn in itertools.count():
            if self.stop.is_set():
                return
            normal = rng.standard_normal(self.d)
            offset = 2.5 * float(np.linalg.norm(normal))
            started = time.perf_counter()
            snapshot = self.index.snapshot()
            ids = snapshot.report(normal, offset)
            self.latencies[number].add(time.perf_counter() - started)
            if turn % 200 == 0:
                self.check(Sample(snapshot, normal, offset, ids))

    def check(self, sample: Sample) -> None:
        """Hold an answer against all points of the snapshot, by products in float64.

        Points are float32 and so few coordinates that float64 decides but for a hair, and those
        are settled by the exact predicate of a scan over them alone.
        """
        rows = sample.snapshot.rows()
        scores = rows.points.astype(np.float64) @ sample.normal
        near = abs(scores - sample.offset) <= 1e-9 * (1.0 + abs(sample.offset))
        want = rows.ids[(scores >= sample.offset) & ~near]
        if near.any():
            scan = halfspace.Scan(rows.points[near], ids=rows.ids[near])
            want = np.concatenate([want, scan.report(sample.normal, sample.offset)])
        same = np.array_equal(np.sort(want), sample.ids)
        counted = sample.snapshot.count(sample.normal, sample.offset) == len(want)
        with self.lock:
            self.checked += 1
            self.wrong += not (same and counted)

    def guarded(self, task: Callable[..., None], *arguments: int) -> None:
        try:
            task(*arguments)
        except BaseException as error:
            self.failures.append(error)
            self.stop.set()

    def run(self, duration: float) -> list[tuple[float, float]]:
        """Seconds since the start and megabytes held, sampled."""
        threads = [threading.Thread(target=self.guarded, args=(self.write,))]
        threads += [
            threading.Thread(target=self.guarded, args=(self.read, i)) for i in range(self.readers)
        ]
        start, held = time.perf_counter(), []
        for thread in threads:
            thread.start()
        while (passed := time.perf_counter() - start) < duration and not self.stop.is_set():
            held.append((passed, resident()))
            self.stop.wait(min(1.0, duration / 20))
        self.stop.set()
        for thread in threads:
            thread.join()
        self.index.close()
        return held


def resident() -> float:
    """Megabytes of memory this process holds."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def load(duration: float, n: int, d: int, readers: int, *, background: bool) -> int:
    """Tables of a load; how many answers were wrong, or failures there were."""
    work = Load(n, d, readers, background=background)
    started = time.perf_counter()
    held = work.run(duration)
    took = time.perf_counter() - started
    latencies = Latencies()
    for each in work.latencies:
        latencies.counts += each.counts
    # The first fifth fills pools and caches.
    late = [megabytes for passed, megabytes in held if passed >= duration / 5] or [held[-1][1]]
    third = max(1, len(late) // 3)
    first, last = np.median(late[:third]), np.median(late[-third:])
    show(
        f"{readers} readers and a writer for {took:.0f} s over {n} points in {d} dimensions"
        + (", rebuilt in the background" if background else ""),
        ("figure", "value"),
        [
            ["queries a second", f"{latencies.counts.sum() / took:.0f}"],
            ["query p50", f"{1e3 * latencies.quantile(0.5):.2f} ms"],
            ["query p99", f"{1e3 * latencies.quantile(0.99):.2f} ms"],
            ["points written a second", f"{work.written / took:.0f}"],
            ["answers checked", f"{work.checked}"],
            ["answers wrong", f"{work.wrong}"],
            ["memory, first and last third", f"{first:.1f} MB, {last:.1f} MB"],
            ["memory growth", f"{100 * (last / first - 1):+.2f} %"],
        ],
    )
    for failure in work.failures:
        print(f"{type(failure).__name__}: {failure}")
    return work.wrong + len(work.failures)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", choices=("inserts", "load"), default="inserts")
    parser.add_argument("--points", type=int, default=None)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--readers", type=int, default=8)
    parser.add_argument("--dim", type=int, default=3)
    parser.add_argument("--background", action="store_true")
    asked = parser.parse_args(arguments)
    if asked.part == "load":
        n = asked.points or 100_000
        return int(
            load(asked.seconds, n, asked.dim, asked.readers, background=asked.background) > 0
        )
    with held_to(1):
        inserts(asked.points or POINTS, asked.batch, asked.rounds)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
