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
from .code_stage import CodeRates, code_rates
from .contestants import Contestant, present
from .duel import Asked, Limits, Outcome, Side, Way, duel, pace, wrong_ids
from .high_contestants import (
    AUTOS,
    BATCHED,
    OURS,
    REFERENCE,
    RIVALS,
    SINGLE,
    TOLD,
    TOP,
    Setting,
    suits,
)
from .high_sites import Choice, Site

BEST = 100

CHECKED = 32
"""Queries whose ids are held against the truth."""

WARMING = 2000
"""Points over which everything is built first, so that nothing is compiled while it is timed."""

NEAREST = 2
"""Structures that what `build` chose meets by itself: the fastest may seem so by chance."""

LEAST_ROUNDS, MOST_ROUNDS = 9, 63
"""Rounds of a duel that tells apart what takes nearly the same time."""

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
    skipped: tuple[str, ...] = ()  # words in the names of contestants

    def plays(self, name: str) -> bool:
        """Whether a contestant takes part."""
        return name == REFERENCE or not any(word in name for word in self.skipped)

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
    codes: CodeRates | None  # of its first stage alone; of one thread


class Beaten(NamedTuple):
    """What `build` chose beside the best of the structures that are told as much."""

    structure: str
    ratio: float  # times its time, in one duel


class Cell(NamedTuple):
    """What came out for points and a size of report; by way of asking and contestant."""

    site: Site
    shape: tuple[int, int]
    label: str
    count: int
    outcomes: dict[str, dict[str, Outcome]]
    builds: dict[str, float]  # seconds, of ours
    held: dict[str, float]  # bytes over those of the points, of ours
    autos: dict[str, dict[str, Beaten]]  # by way of asking and what is told
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


def entrants(ways: Sequence[Way], d: int, plan: Plan) -> dict[str, tuple[Callable, list[Way]]]:
    """Everybody but the reference: how they are made, and in which ways they can be asked."""
    found = {name: (make, list(ways)) for name, make in OURS.items() if name != REFERENCE}
    peers = dict.fromkeys(peer for way in ways for peer in way.peers)
    for peer in present(list(peers))[0]:
        its_ways = [way for way in ways if peer in way.peers]
        found[peer.name] = (lambda s, peer=peer: peer(s.points, s.threads), its_ways)
    return {name: how for name, how in found.items() if plan.plays(name) and suits(name, d)}


def warm(setting: Setting, plan: Plan) -> None:
    """Build all of ours once, small, and compile what is not tried on small sets."""
    if len(setting.points) <= WARMING:
        return
    halfspace.warmup((setting.points.dtype.type,))
    small = setting._replace(points=setting.points[:WARMING], count=min(setting.count, WARMING))
    for name, make in OURS.items():
        if plan.plays(name) and suits(name, setting.points.shape[1]):
            make(small)


def bytes_read(index: halfspace.Index, asked: Asked) -> float | None:
    """Bytes that a query makes it read, if it tells."""
    tell = getattr(index, "bytes_read", None)
    if tell is None:
        return None
    told = [tell(w, b) for w, b in zip(*asked, strict=True)]
    return statistics.mean(sum(x.values()) if isinstance(x, dict) else int(x) for x in told)


class Ring:
    """Where everybody meets the reference, one after another."""

    def __init__(self, setting: Setting, task: Task, limits: Limits) -> None:
        self.setting, self.task, self.limits = setting, task, limits
        self.builds: dict[str, float] = {}
        self.held: dict[str, float] = {}
        self.reference = self.made(REFERENCE, OURS[REFERENCE])
        self.paces = {way: pace(self.reference, way, task.asked, limits) for way in task.ways}
        self.outcomes: dict[Way, dict[str, Outcome]] = {way: {} for way in task.ways}
        self.autos: dict[Way, dict[str, Beaten]] = {way: {} for way in task.ways}

    def made(self, name: str, make: Callable[[Setting], Contestant], batch: int = 1) -> Contestant:
        """A contestant; of ours it is noted what making it takes."""
        start = time.perf_counter()
        contestant = make(self.setting._replace(batch=batch))
        if name in OURS:
            self.builds[name] = time.perf_counter() - start
            self.held[name] = contestant.index.nbytes / self.setting.points.nbytes
        return contestant

    def meet(self, name: str, contestant: Contestant, ways: Sequence[Way]) -> None:
        """Let a contestant meet the reference."""
        for way in ways:
            side = Side(self.reference, self.paces[way])
            self.outcomes[way][name] = duel(
                side, contestant, way, self.task.asked, self.task.truths, self.limits
            )

    def meet_best(self, name: str, contestant: Contestant, ways: Sequence[Way]) -> None:
        """Let what `build` chose meet the two best structures that are told no more than it was."""
        for way in ways:
            times = {REFERENCE: 1.0} | {n: o.ratio for n, o in self.outcomes[way].items()}
            rivals = sorted((n for n in RIVALS[name] if n in times), key=times.__getitem__)
            met = [self.beaten(name, contestant, way, rival) for rival in rivals[:NEAREST]]
            if met:
                self.autos[way][name] = max(met, key=lambda beaten: beaten.ratio)

    def beaten(self, name: str, contestant: Contestant, way: Way, rival: str) -> Beaten:
        """One structure in a duel with what `build` chose."""
        other = self.reference if rival == REFERENCE else OURS[rival](self.setting)
        limits = self.many_rounds(name, way)
        side = Side(other, pace(other, way, self.task.asked, limits))
        found = duel(side, contestant, way, self.task.asked, self.task.truths, limits)
        return Beaten(rival, found.ratio)

    def many_rounds(self, name: str, way: Way) -> Limits:
        """As much time as a duel has, in many rounds, of which some may be disturbed."""
        rounds, longest, _ = self.limits
        calls = len(self.task.asked.offsets)
        each = min(longest / 3, self.outcomes[way][name].time * calls)
        most = int(np.clip(rounds * longest / each, LEAST_ROUNDS, MOST_ROUNDS))
        return Limits(sizes.rounds(most), longest / 3, calls)

    def own_outcome(self, way: Way) -> Outcome:
        """What the reference did in all its duels."""
        taken = statistics.median(outcome.own_time for outcome in self.outcomes[way].values())
        wrong = wrong_ids(self.reference, way, self.task.asked, self.task.truths, taken)
        return Outcome(taken, taken, *wrong)


def play(site: Site, setting: Setting, task: Task, plan: Plan, rotation: float) -> Cell:
    """Let everybody meet the reference."""
    warm(setting, plan)
    ring = Ring(setting, task, plan.limits)
    for name, (make, ways) in entrants(task.ways, setting.points.shape[1], plan).items():
        # Told all, it is told how it will be asked.
        for some in [[way] for way in ways] if name == TOLD else [ways]:
            contestant = ring.made(name, make, some[0].size)
            ring.meet(name, contestant, some)
            if name in AUTOS:
                ring.meet_best(name, contestant, some)
    return Cell(
        site,
        setting.points.shape,
        task.label,
        task.count,
        {w.title: {REFERENCE: ring.own_outcome(w)} | ring.outcomes[w] for w in task.ways},
        ring.builds,
        ring.held,
        {way.title: ring.autos[way] for way in task.ways},
        rotation,
        floor_of(ring.reference.index, task, plan, setting.threads),
    )


def floor_of(index: halfspace.Index, task: Task, plan: Plan, threads: int) -> Floor | None:
    """What the index reads for queries one at a time, and how fast that could be."""
    if ONE not in task.ways:
        return None
    nbytes = bytes_read(index, task.asked.part(0, plan.limits.calls))
    if nbytes is None:
        return None
    reads = Reads(int(BANDWIDTH_BYTES * min(1.0, sizes.scale())), threads)
    rounds = plan.limits.rounds
    rate = reads.rate(medians(reads.tasks(), rounds))
    codes = None
    if threads == 1:
        codes = code_rates(index, task.asked.normals[0], reads, plan.limits)
    return Floor(nbytes, rate, codes)


def play_site(site: Site, plan: Plan, threads: int) -> Iterator[Cell]:
    """Cells of one site, one after another."""
    points, normals = site.load()
    told, asked = (np.ascontiguousarray(normals[first::2]) for first in (1, 0))
    rotation = rotation_seconds(points, plan.limits.rounds)
    for task in tasks(points, asked, plan):
        setting = Setting(points, told, task.count, threads)
        # Collecting garbage takes longer than many a timing: once a cell is enough.
        with without_collections():
            cell = play(site, setting, task, plan, rotation)
        yield cell
