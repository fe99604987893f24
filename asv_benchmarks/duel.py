"""Duels: a contestant and a reference in the same rounds, so that two indexes fill the memory."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from . import truth
from .clock import medians, seconds
from .contestants import Contestant

CHECK_SECONDS = 10.0
"""Time the answers that are checked may take."""


class Way(NamedTuple):
    """How queries are asked."""

    title: str
    size: int  # queries a call
    peers: tuple[type[Contestant], ...]
    call: Callable[[Contestant, np.ndarray, np.ndarray], Sequence[Sequence[int]]]
    wrong: Callable[[Sequence[Sequence[int]], Sequence[np.ndarray]], int] = truth.wrong


class Asked(NamedTuple):
    """Half-spaces to ask for."""

    normals: np.ndarray  # (m, d)
    offsets: np.ndarray  # (m,)

    def part(self, first: int, size: int) -> "Asked":
        """Some of them."""
        rows = slice(first, first + size)
        return Asked(self.normals[rows], self.offsets[rows])


class Limits(NamedTuple):
    """How much a duel does."""

    rounds: int
    seconds: float  # a timing
    calls: int  # a timing, of one query


class Pace(NamedTuple):
    """How much a contestant is asked in a timing."""

    calls: int
    size: int  # queries a call

    @property
    def queries(self) -> int:
        """All of them."""
        return self.calls * self.size


class Outcome(NamedTuple):
    """How a duel ended."""

    time: float  # seconds a query
    own_time: float  # the reference's
    wrong: int  # ids
    checked: int  # queries

    @property
    def ratio(self) -> float:
        """Times the reference's time."""
        return self.time / self.own_time


def pace(contestant: Contestant, way: Way, asked: Asked, limits: Limits) -> Pace:
    """What a contestant answers in the time of a timing, after a first call that is not timed."""
    way.call(contestant, *asked.part(0, min(2, way.size)))
    alike = way.size > 1 and not contestant.by_batch
    few = min(4, way.size) if alike else way.size
    part = asked.part(0, few)
    affordable = int(limits.seconds * few / seconds(lambda: way.call(contestant, *part)))
    if alike:
        return Pace(1, int(np.clip(affordable, few, way.size)))
    most = min(limits.calls, len(asked.offsets) // way.size)
    return Pace(int(np.clip(affordable // way.size, 1, most)), way.size)


def answers(contestant: Contestant, way: Way, asked: Asked, pace: Pace) -> list[Sequence[int]]:
    """Answers to as many queries as the pace has."""
    parts = (asked.part(i * pace.size, pace.size) for i in range(pace.calls))
    return [answer for part in parts for answer in way.call(contestant, *part)]


def wrong_ids(
    contestant: Contestant, way: Way, asked: Asked, truths: Sequence[np.ndarray], each: float
) -> tuple[int, int]:
    """Wrong ids, and in how many queries of `each` seconds they were looked for."""
    few = int(np.clip(CHECK_SECONDS / each, 1, len(truths)))
    size = min(way.size, few)
    paced = Pace(few // size, size)
    found = answers(contestant, way, asked, paced)
    return way.wrong(found, truths[: paced.queries]), paced.queries


class Side(NamedTuple):
    """A contestant, and what it is asked in a timing."""

    contestant: Contestant
    pace: Pace


def duel(
    champion: Side,
    contestant: Contestant,
    way: Way,
    asked: Asked,
    truths: Sequence[np.ndarray],
    limits: Limits,
) -> Outcome:
    """Time both in turns, and check the contestant's answers."""
    sides = {"own": champion, "other": Side(contestant, pace(contestant, way, asked, limits))}
    taken = medians(
        {name: partial(answers, one, way, asked, paced) for name, (one, paced) in sides.items()},
        limits.rounds,
    )
    own_time, time = (taken[name] / side.pace.queries for name, side in sides.items())
    return Outcome(time, own_time, *wrong_ids(contestant, way, asked, truths, time))
