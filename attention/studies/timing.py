"""Timing: tasks take turns, one run each a round, and the median of a task's rounds counts."""

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

_now = time.perf_counter

WALL, PROCESSOR = "wall", "processor"
"""Clocks."""


def clock() -> str:
    """Which clock times, `WALL` unless it is said otherwise.

    Examples
    --------
    >>> from attention.studies import timing
    >>> with timing.by_processor_time():
    ...     timing.clock()
    'processor'
    """
    return PROCESSOR if _now is time.process_time else WALL


@contextmanager
def by_processor_time() -> Iterator[None]:
    """Time by the processor time of this process: for one thread, on a machine that is shared."""
    global _now
    before, _now = _now, time.process_time
    try:
        yield
    finally:
        _now = before


@contextmanager
def without_collections() -> Iterator[None]:
    """Keep the garbage collector out of what is timed, unless it is kept out already."""
    if not gc.isenabled():
        yield
        return
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def seconds(task: Callable[[], object]) -> float:
    """How long one call takes, without freeing its answer.

    Examples
    --------
    >>> from attention.studies.timing import seconds
    >>> seconds(lambda: None) >= 0.0
    True
    """
    start = _now()
    answer = task()
    passed = _now() - start
    del answer
    return passed


def timed(task: Callable[[], T]) -> tuple[T, float]:
    """What one call gives, and how long it took.

    Examples
    --------
    >>> from attention.studies.timing import timed
    >>> timed(lambda: 3)[0]
    3
    """
    start = _now()
    answer = task()
    return answer, _now() - start


def medians(tasks: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of every task over interleaved rounds.

    Parameters
    ----------
    tasks : mapping of str to callable
    rounds : int
        At least 1.

    Returns
    -------
    dict of str to float

    Examples
    --------
    >>> from attention.studies.timing import medians
    >>> sorted(medians({"a": list, "b": dict}, 3))
    ['a', 'b']
    """
    taken: dict[str, list[float]] = {name: [] for name in tasks}
    with without_collections():
        for _ in range(rounds):
            for name, task in tasks.items():
                taken[name].append(seconds(task))
    return {name: statistics.median(passed) for name, passed in taken.items()}


def duration(seconds: float) -> str:
    """Seconds as text, with a unit that suits.

    Examples
    --------
    >>> from attention.studies.timing import duration
    >>> duration(0.0123), duration(2.5e-6), duration(75.0)
    ('12.3 ms', '2.5 µs', '75 s')
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"
