"""How things on a GPU are timed, and lines of the table of ratios."""

import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from halfspace.cuda.target import Kernel, cuda


class Target(NamedTuple):
    """A figure and what it is to reach."""

    name: str
    least: float


class Clock(NamedTuple):
    """When no further part is to be begun."""

    start: float
    most: float

    def left(self) -> float:
        """Seconds until then."""
        return self.start + self.most - time.perf_counter()


@contextmanager
def ended_after(seconds: float, last_words: Callable[[], None]) -> Iterator[None]:
    """End the process with exit code 3 if what is done in this context takes longer.

    Nothing that may hang, on a device or on the way to it, can keep it from that.
    """

    def end() -> None:
        print(f"it is ended: more than {seconds:.0f} s")
        last_words()
        sys.stdout.flush()
        os._exit(3)

    timer = threading.Timer(max(seconds, 0.0), end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def median(task: Callable[[], object], rounds: int) -> float:
    """Median seconds of a task that may still be running on the device when it returns."""
    taken = []
    for _ in range(rounds + 1):
        cuda.synchronize()
        start = time.perf_counter()
        answer = task()
        cuda.synchronize()
        taken.append(time.perf_counter() - start)
        del answer
    return statistics.median(taken[1:])  # the first may compile


@contextmanager
def kernel_times(into: dict[str, float]) -> Iterator[None]:
    """Add up how long each kernel runs, in seconds; launches wait for one another."""
    launch = Kernel.__call__

    def timed(kernel: Kernel, *arguments: object) -> None:
        cuda.synchronize()
        start = time.perf_counter()
        launch(kernel, *arguments)
        cuda.synchronize()
        into[kernel.__name__] += time.perf_counter() - start

    Kernel.__call__ = timed
    try:
        yield
    finally:
        Kernel.__call__ = launch


def row(target: Target, figure: float) -> list[str]:
    """A line of the table."""
    met = "met" if figure >= target.least else "MISSED"
    return [target.name, f"{figure:.2f}", f"{target.least:.2f}", met]


class WrongAnswer(Exception):
    """An answer is not what it has to be."""
