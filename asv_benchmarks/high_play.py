"""How the benchmark of many dimensions is played: cells of one site and one size of report."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

import halfspace

from . import data, sizes, truth
from .bandwidth import Reads
from .clock import medians, without_collections
from .contestants import Contestant, present
from .duel import Asked, Limits, Outcome, Way, duel, wrong_ids
from .high_contestants import BATCHED, OURS, REFERENCE, SINGLE, TOP, Setting, suits
from .high_sites import Choice, Site

BEST = 100

CHECKED = 32
"""Queries whose ids are held against the truth."""

WARMING = 2000
"""Points over which everything is built first, so that nothing is compiled while it is timed."""

BANDWIDTH_BYTES = 1 << 28

COUNTS: dict[str, Callable[[int], int]] = {
    "10": lambda n: min(n, 10),
    "0.1 %": lambda n: max(1, n // 1000),
    "1 %": lambda n: max(1, n // 100),
    "n^(4/5)": lambda n: round(n**0.8),
}
"""Ids a report."""

ONE = Way("one at a time", 1, SINGLE, lambda c, w, b: [c.report_one(w[0], b[0])])

BEST_ONE = Way(
    f"best {BEST}, one at a time",
    1,
    TOP,
    lambda c, w, _: [c.top(w[0], BEST)],
    truth.wrong_best,
)


def batches(size: int) -> Way:
    """Many queries a call."""
    return Way(f"batches of {size}", size, BATCHED, lambda c, w, b: c.report(w, b))


class Plan(NamedTuple):
    """What a run does."""

    choice: Choice = Choice()
    ways: tuple[Way, ...] = (ONE, batches(32), batches(256), BEST_ONE)
    counts: tuple[str, ...] = tuple(COUNTS)
    limits: Limits = Limits(3, 0.5, 32)

    def shrunk(self) -> "Plan":
        """The plan at the scale the environment asks for."""
        limits = self.limits
        return self._replace(
            ways=tuple(way._replace(size=sizes.queries(way.size)) for way in self.ways),
            limits=Limits(
                sizes.rounds(limits.rounds),
                limits.seconds * sizes.scale(),
                sizes.queries(limits.calls),
            ),
        )


class Floor(NamedTuple):
    """What the reference reads a query one at a time."""

    nbytes: float
    rate: float  # bytes a second that this machine reads


class Cell(NamedTuple):
    """What came out for points and a size of report; by way of asking and contestant."""

    site: Site
    shape: tuple[int, int]
    label: str
    count: int
    outcomes: dict[str, dict[str, Outcome]]
    builds: dict[str, float]  # seconds, of ours
    held: dict[str, float]  # bytes over those of the points, of ours
    rotation: float  # seconds of a product (n, d) @ (d, d)
    floor: Floor | None


class Task(NamedTuple):
    """What all contestants of a cell are asked."""

    label: str
    count: int
    ways: list[Way]
    asked: Asked
    truths: list[np.ndarray]


def rotation_seconds(points: np.ndarray, rounds: int) -> float:
    """Seconds of one product that rotates all the points."""
    d = points.shape[1]
    axes, out = data.gauss(d, d, points.dtype.name), np.empty_like(points)
    return medians({"product": lambda: np.matmul(points, axes, out=out)}, rounds)["product"]


def tasks(points: np.ndarray, normals: np.ndarray, plan: Plan) -> Iterator[Task]:
    """One for every size of report, and one for the best."""
    checked = normals[: sizes.queries(CHECKED)]
    reports = [way for way in plan.ways if way != BEST_ONE and way.size <= len(normals)]
    if reports:
        counts = [COUNTS[label](len(points)) for label in plan.counts]
        offsets = data.kth_scores(points, normals, counts).T
        for label, count, column in zip(plan.counts, counts, offsets, strict=True):
            truths = truth.insides(points, checked, column[: len(checked)])
            yield Task(label, count, reports, Asked(normals, column), truths)
    if BEST_ONE in plan.ways:
        asked = Asked(normals, np.zeros(len(normals), points.dtype))
        yield Task("best", BEST, [BEST_ONE], asked, truth.tops(points, checked, BEST))


def entrants(ways: Sequence[Way], d: int) -> dict[str, tuple[Callable, list[Way]]]:
    """Everybody but the reference: how they are made, and in which ways they can be asked."""
    found = {name: (make, list(ways)) for name, make in OURS.items() if name != REFERENCE}
    peers = dict.fromkeys(peer for way in ways for peer in way.peers if suits(peer, d))
    for peer in present(list(peers))[0]:
        its_ways = [way for way in ways if peer in way.peers]
        found[peer.name] = (lambda s, peer=peer: peer(s.points, s.threads), its_ways)
    return found


def warm(setting: Setting) -> None:
    """Build all of ours once, small."""
    small = setting.points[:WARMING]
    for make in OURS.values():
        make(setting._replace(points=small, count=min(setting.count, len(small))))


def bytes_read(index: halfspace.Index, asked: Asked) -> float | None:
    """Bytes that a query makes it read, if it tells."""
    tell = getattr(index, "bytes_read", None)
    if tell is None:
        return None
    told = [tell(w, b) for w, b in zip(*asked, strict=True)]
    return statistics.mean(sum(x.values()) if isinstance(x, dict) else int(x) for x in told)


def play(site: Site, setting: Setting, task: Task, plan: Plan, rotation: float) -> Cell:
    """Let everybody meet the reference."""
    builds, held = {}, {}

    def made(name: str, make: Callable[[Setting], Contestant]) -> Contestant:
        start = time.perf_counter()
        contestant = make(setting)
        if name in OURS:
            builds[name] = time.perf_counter() - start
            held[name] = contestant.index.nbytes / setting.points.nbytes
        return contestant

    warm(setting)
    reference = made(REFERENCE, OURS[REFERENCE])
    outcomes: dict[str, dict[str, Outcome]] = {way.title: {} for way in task.ways}
    for name, (make, ways) in entrants(task.ways, setting.points.shape[1]).items():
        contestant = made(name, make)
        for way in ways:
            outcomes[way.title][name] = duel(
                reference, contestant, way, task.asked, task.truths, plan.limits
            )
        del contestant
    for way in task.ways:
        own_time = statistics.median(o.own_time for o in outcomes[way.title].values())
        wrong = wrong_ids(reference, way, task.asked, task.truths, own_time)
        own = {REFERENCE: Outcome(own_time, own_time, *wrong)}
        outcomes[way.title] = own | outcomes[way.title]
    floor = None
    if ONE in task.ways:
        floor = floor_of(reference.index, task.asked, plan, setting.threads)
    return Cell(
        site,
        setting.points.shape,
        task.label,
        task.count,
        outcomes,
        builds,
        held,
        rotation,
        floor,
    )


def floor_of(index: halfspace.Index, asked: Asked, plan: Plan, threads: int) -> Floor | None:
    """What the index reads, and how fast that could be."""
    nbytes = bytes_read(index, asked.part(0, plan.limits.calls))
    if nbytes is None:
        return None
    reads = Reads(int(BANDWIDTH_BYTES * min(1.0, sizes.scale())), threads)
    return Floor(nbytes, reads.rate(medians(reads.tasks(), plan.limits.rounds)))


def play_site(site: Site, plan: Plan, threads: int) -> Iterator[Cell]:
    """Cells of one site, one after another."""
    points, normals = site.load()
    told, asked = normals[1::2], np.ascontiguousarray(normals[::2])
    rotation = rotation_seconds(points, plan.limits.rounds)
    for task in tasks(points, asked, plan):
        setting = Setting(points, told, task.count, threads)
        # Collecting garbage takes longer than many a timing: once a cell is enough.
        with without_collections():
            cell = play(site, setting, task, plan, rotation)
        yield cell
