"""Run-off: where asking far outweighs building, what else may win is built too, and all are asked.

Forecasts tell apart what differs much (`planner.py`), not near ties, and structures differ in what
a batch saves. So the structure that was chosen is asked half-spaces of the size and kind that are
expected, one by one and in a batch, and so are others that might be faster, as many as can be built
in a small part of the time that all the asking to come takes. The winner is the one whose worse way
of the two is nearest to the best there: the least of max(t_1 / min t_1, t_m / min t_m). Where it is
known how many come in a call, it is the fastest that way.

Here a clock is read: which of two that are about as fast is taken may differ between builds. Their
answers do not.
"""

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple, Self

import numpy as np

from .index import Index
from .plans import Plan

BUILT_SHARE = 0.1
"""Of the time that asking is to take, what building others may."""

UNSURE = 4.0
"""Times its forecast that a build may take where only the least it can cost is known."""

HOPELESS = 8.0
"""Times what was measured of the chosen one that a forecast may be before nobody believes it."""

CLEAR, LOOKS = 1.5, 3
"""Times the first one's time, in both ways, from which on so many looks are enough."""

ROUNDS = 11

LEAST_ASKED = 0.1
"""Seconds of asking, as forecast, below which a run-off takes more than it may save."""

SINGLES, PROBE_SECONDS, PROBE_SHARE = 32, 0.02, 1e-3
"""Half-spaces asked one by one in a round, at most, and about how long a round may take; no more
than such a share of all the asking, in number and, the batch included, in time."""

BATCH = 2
"""Half-spaces in a batch, for each one asked by itself, where nobody says how many there are."""

PROBES = BATCH * SINGLES

MOST_IDS = 1 << 22
"""Ids that a batch of reports may hold."""

SAMPLE, RELIABLE = 32_768, 16.0
"""Points whose scores say where a half-space of the size that is expected lies, and how many of
them it is to hold at least."""

LARGEST_OFFSET = 1e300


class Probes(NamedTuple):
    """Half-spaces like those to come."""

    normals: np.ndarray  # (m, d) float64
    offsets: np.ndarray  # (m,)

    @classmethod
    def of(
        cls, index: Index, points: np.ndarray, normals: np.ndarray, count: int, queries: int
    ) -> Self:
        """Along some of the normals, each with about `count` of the points (n, d) of an index.

        They are as many as can be asked where so many queries are to come.
        """
        rng = np.random.default_rng(0)
        normals = normals[np.abs(normals).max(axis=1, initial=0.0) > 0.0]
        most = min(PROBES, BATCH * _affordable(queries), MOST_IDS // max(1, count) + 1)
        normals = normals[rng.permutation(len(normals))[:most]]
        size = min(SAMPLE, len(points))
        rank = count * size / len(points)
        if rank < RELIABLE or not len(normals):
            scores = index.top(normals, max(1, count)).scores[:, -1]
        else:
            rows = points[rng.choice(len(points), size, replace=False)]
            with np.errstate(all="ignore"):
                scores = rows.astype(np.float64) @ normals.T
            scores = np.partition(scores, size - round(rank), axis=0)[size - round(rank)]
        offsets = np.clip(np.nan_to_num(scores), -LARGEST_OFFSET, LARGEST_OFFSET)
        return cls(normals, offsets)

    def first(self, size: int) -> "Probes":
        """As many of them."""
        return Probes(self.normals[:size], self.offsets[:size])

    def repeated(self, size: int) -> "Probes":
        """As many of them, over and over: what a call takes by itself tells in none."""
        return Probes(*(np.resize(each, (size, *each.shape[1:])) for each in self))


def _affordable(queries: int) -> int:
    """Half-spaces that may be asked one by one in a round where so many queries are to come."""
    return min(SINGLES, int(PROBE_SHARE * queries))


class Pace(NamedTuple):
    """Seconds a query."""

    alone: float
    batch: float

    def over(self, other: Self) -> tuple[float, float]:
        """Times the other's."""
        return self.alone / other.alone, self.batch / other.batch

    def text(self) -> str:
        """Both, in milliseconds."""
        return f"{1e3 * self.alone:.3g} ms alone, {1e3 * self.batch:.3g} in a batch"


def _pace(index: Index, singles: Probes, batch: Probes) -> Pace:
    start = time.perf_counter()
    for normal, offset in zip(*singles, strict=True):
        index.report(normal, offset)
    middle = time.perf_counter()
    index.report(*batch)
    end = time.perf_counter()
    return Pace((middle - start) / len(singles.offsets), (end - middle) / len(batch.offsets))


class _Course:
    """What every contender is asked, as much as the first one answers in the time there is."""

    def __init__(self, index: Index, probes: Probes, queries: int, batch: int | None) -> None:
        few, some = probes.first(2), probes.first(SINGLES)
        _pace(index, few, few)  # compiles
        pace = _pace(index, few, some)
        longest = min(PROBE_SECONDS, PROBE_SHARE * queries * min(_told(pace, batch)))
        singles = int(longest / (pace.alone + BATCH * pace.batch))
        singles = int(np.clip(singles, 2, max(2, _affordable(queries))))
        self.singles, size = probes.first(singles), BATCH * singles
        if batch is not None:
            count = index.count(probes.normals[0], probes.offsets[0])
            size = min(batch, MOST_IDS // max(1, count) + 1, max(2, int(longest / pace.batch)))
        self.batch = probes.repeated(size)

    def look(self, index: Index) -> Pace:
        """Least times of a few rounds, after one that is not timed: one may be disturbed."""
        few = self.singles.first(2)
        _pace(index, few, few)
        looks = [_pace(index, self.singles, self.batch) for _ in range(LOOKS)]
        return Pace(*np.min(looks, axis=0))

    def rounds(self, contenders: Iterable[Index]) -> list[Pace]:
        """Median times of all, asked in turns."""
        contenders = list(contenders)
        paces = [
            [_pace(index, self.singles, self.batch) for index in contenders] for _ in range(ROUNDS)
        ]
        return [Pace(*np.median(each, axis=0)) for each in np.swapaxes(paces, 0, 1)]


def _room(plan: Plan, pace: Pace, batch: int | None) -> float:
    """Seconds that building others may take."""
    return BUILT_SHARE * plan.expected_queries * min(_told(pace, batch))


def _contenders(plan: Plan, pace: Pace, batch: int | None, memory: int | None) -> list[str]:
    """Others that may be faster than the chosen one, best first, each of them cheap to build."""
    room, found = _room(plan, pace, batch), []
    known = [candidate for candidate in plan.candidates if candidate.query == candidate.query]
    for candidate in sorted(known, key=lambda each: each.query):
        build = candidate.build * (UNSURE if candidate.note.startswith("ruled out") else 1.0)
        fits = memory is None or candidate.nbytes <= memory
        hopeful = fits and candidate.query <= HOPELESS * max(pace)
        if candidate.name != plan.structure and hopeful and build <= room:
            found.append(candidate.name)
    return found


def pays(plan: Plan, batch: int | None, memory: int | None) -> bool:
    """Whether there is room for a run-off even if the forecast is short by as much as it may be."""
    query = next(each.query for each in plan.candidates if each.name == plan.structure)
    pace = Pace(HOPELESS * query, HOPELESS * query)
    enough = _affordable(plan.expected_queries) >= 2
    enough = enough and plan.expected_queries * query >= LEAST_ASKED
    return enough and bool(_contenders(plan, pace, batch, memory))


def _told(both: tuple[float, float], batch: int | None) -> tuple[float, ...]:
    """Of numbers alone and in a batch, those that count where calls are known to be of a size."""
    return both if batch is None else both[:1] if batch == 1 else both[1:]


def run_off(
    index: Index,
    plan: Plan,
    memory: int | None,
    make: Callable[[str], Index],
    probes: Probes,
    batch: int | None = None,
) -> tuple[Index, str]:
    """Let the index that a plan chose run against others; the winner, and a line for each.

    Parameters
    ----------
    index : Index
        What `plan.structure` names.
    plan : Plan
    memory : int, optional
        Bytes the winner may take.
    make : callable
        Index of a structure, by its name.
    probes : Probes
        At least one.
    batch : int, optional
        Queries in a call; if not given, one and many count alike.

    Returns
    -------
    Index, str
        Nothing is said where no other was worth a try, or memory was short. All that are about as
        fast are held at once.
    """
    try:
        return _run(index, plan, memory, make, probes, batch)
    except MemoryError:  # of what is not needed
        return index, ""


def _run(
    index: Index,
    plan: Plan,
    memory: int | None,
    make: Callable[[str], Index],
    probes: Probes,
    batch: int | None,
) -> tuple[Index, str]:
    """`run_off`, where there is memory for it."""
    course = _Course(index, probes, plan.expected_queries, batch)
    paces = {plan.structure: course.look(index)}
    running, first = {plan.structure: index}, paces[plan.structure]
    end = time.perf_counter() + _room(plan, first, batch)
    for name in _contenders(plan, first, batch, memory):
        if time.perf_counter() > end:
            break
        try:
            rival = make(name)
        except ValueError:  # all was checked but whether it fits into `memory`
            continue
        if memory is not None and rival.nbytes > memory:
            continue
        paces[name] = course.look(rival)
        if min(_told(paces[name].over(first), batch)) <= CLEAR:
            running[name] = rival
    if len(paces) == 1:
        return index, ""
    if len(running) > 1:
        paces.update(zip(running, course.rounds(running.values()), strict=True))
    best = Pace(*np.min([paces[each] for each in running], axis=0))
    winner = min(running, key=lambda each: max(_told(paces[each].over(best), batch)))
    lines = [f"{each}: {pace.text()}" for each, pace in paces.items()]
    return running[winner], "\n".join([f"of those that were asked, {winner} won", *lines])
