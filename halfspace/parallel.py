"""Threads: how many, and how a batch is spread over them.

Kernels release the GIL, so plain Python threads run them side by side. Unlike a compiled parallel
loop this may be entered from many threads at once, survives a fork, and compiles nothing extra.
"""

import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from .inputs import as_count

Result = TypeVar("Result")

PARALLEL_NANOSECONDS = 400_000
"""Estimated work below which handing out to threads costs more than it saves."""

TASKS_PER_THREAD = 4
"""Parts a batch is cut into for each thread, so that uneven parts even out."""

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
_worker = threading.local()


def _usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_threads = _usable_cpus()


def set_threads(count: int) -> None:
    """Use `count` threads for builds and batches from now on.

    Parameters
    ----------
    count : int
        At least 1. The default is the number of processors this process may use.

    Raises
    ------
    TypeError
        `count` is not an integer.
    ValueError
        `count` is below 1.

    Examples
    --------
    >>> import halfspace
    >>> before = halfspace.get_threads()
    >>> halfspace.set_threads(1)
    >>> halfspace.get_threads()
    1
    >>> halfspace.set_threads(before)
    """
    global _pool, _threads
    wanted = as_count(count, "threads", least=1)
    with _lock:
        _threads, _pool = wanted, None


def get_threads() -> int:
    """Return the number of threads builds and batches use.

    Examples
    --------
    >>> import halfspace
    >>> halfspace.get_threads() >= 1
    True
    """
    return _threads


def _forget_pool() -> None:
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def _executor() -> ThreadPoolExecutor:
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(
                _threads, "halfspace", initializer=lambda: setattr(_worker, "busy", True)
            )
        return _pool


def run(tasks: Sequence[Callable[[], Result]]) -> list[Result]:
    """Call every task, side by side where that may help, and return the results in order."""
    # A task that itself calls run() stays in its thread: waiting for the pool it occupies can hang.
    if len(tasks) < 2 or _threads == 1 or getattr(_worker, "busy", False):
        return [task() for task in tasks]
    futures = []
    with contextlib.suppress(RuntimeError):  # at shutdown: the interpreter starts no more threads
        futures.extend(_executor().submit(task) for task in tasks)
    rest = [task() for task in tasks[len(futures) :]]
    return [*(future.result() for future in futures), *rest]


def parts(count: int, nanoseconds: float) -> list[tuple[int, int]]:
    """Cut range(count) into contiguous parts for `run`.

    `nanoseconds` estimates the cost of one item; little work stays in one part.
    """
    if _threads == 1 or count * nanoseconds < PARALLEL_NANOSECONDS:
        return [(0, count)] if count else []
    pieces = min(count, _threads * TASKS_PER_THREAD)
    edges = [count * i // pieces for i in range(pieces + 1)]
    return list(itertools.pairwise(edges))
