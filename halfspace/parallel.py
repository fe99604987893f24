"""Threads: how many, how a batch is spread over them, and how one stops waiting for them.

Kernels release the GIL, so plain Python threads run them side by side. Unlike a compiled parallel
loop this may be entered from many threads at once, survives a fork, and compiles nothing extra.

A kernel does not hear Ctrl-C, so the main thread never runs one for long: it waits for another
thread that does, and KeyboardInterrupt reaches it at once. What it waited for starts no task any
more, and ends when the task that it is at does.
"""

import contextlib
import contextvars
import itertools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from .inputs import as_count

Result = TypeVar("Result")

PARALLEL_NANOSECONDS = 400_000
"""Estimated work below which handing out to threads costs more than it saves."""

LONG_NANOSECONDS = 20_000_000
"""Estimated work from which on the main thread waits for another one rather than do it."""

WAKE_SECONDS = 0.05
"""The main thread wakes up so often while it waits, for systems where a signal does not wake it."""

NAME = "halfspace-work"
"""Name of the threads that do what the main thread waits for."""

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


class Cancelled(BaseException):
    """Nobody waits for this work any more."""


def _unless_cancelled(cancelled: threading.Event | None, task: Callable[[], Result]) -> Result:
    _worker.cancelled = cancelled  # for what the task calls, in whatever thread it is
    check()
    return task()


def check() -> None:
    """Raise Cancelled where nobody waits for the work of this thread any more."""
    cancelled = getattr(_worker, "cancelled", None)
    if cancelled is not None and cancelled.is_set():
        raise Cancelled


def run(tasks: Sequence[Callable[[], Result]]) -> list[Result]:
    """Call every task, side by side where that may help, and return the results in order.

    After an error or an interrupt tasks may still run: what they write to has to be theirs.
    """
    if len(tasks) == 1:
        check()
        return [tasks[0]()]
    cancelled = getattr(_worker, "cancelled", None)
    # A task that itself calls run() stays in its thread: waiting for the pool it occupies can hang.
    if not tasks or _threads == 1 or getattr(_worker, "busy", False):
        return [_unless_cancelled(cancelled, task) for task in tasks]
    futures = []
    try:
        with contextlib.suppress(RuntimeError):  # at shutdown the interpreter starts no threads
            futures.extend(_executor().submit(_unless_cancelled, cancelled, t) for t in tasks)
        rest = [_unless_cancelled(cancelled, task) for task in tasks[len(futures) :]]
        return [*map(_awaited, futures), *rest]
    finally:
        for future in futures:
            future.cancel()


def _awaited(future: Future[Result]) -> Result:
    """Result of a future, waited for as KeyboardInterrupt allows."""
    while True:
        with contextlib.suppress(TimeoutError):
            return future.result(WAKE_SECONDS)
        if future.done():  # the task itself timed out
            return future.result()


def _carry_out(work: Callable[[], Result], future: Future[Result], stop: threading.Event) -> None:
    _worker.cancelled = stop
    try:
        future.set_result(work())
    except BaseException as error:  # raised by who waits, if anyone still does
        future.set_exception(error)


def interruptible(work: Callable[[], Result], nanoseconds: float) -> Result:
    """Call `work`, which is estimated to take so long, such that KeyboardInterrupt ends the call.

    Where that comes, results are dropped: whatever `work` writes to has to be its own.
    """
    if nanoseconds < LONG_NANOSECONDS or threading.current_thread() is not threading.main_thread():
        return work()
    future: Future[Result] = Future()
    stop, context = threading.Event(), contextvars.copy_context()
    arguments = _carry_out, work, future, stop
    thread = threading.Thread(target=context.run, args=arguments, name=NAME, daemon=True)
    try:
        thread.start()  # which may be interrupted when the work has begun
        return _awaited(future)
    finally:
        stop.set()


def parts(count: int, nanoseconds: float) -> list[tuple[int, int]]:
    """Cut range(count) into contiguous parts for `run`.

    `nanoseconds` estimates the cost of one item; little work stays in one part.
    """
    total = count * nanoseconds
    if total < PARALLEL_NANOSECONDS:
        return [(0, count)] if count else []
    tasks = _threads * TASKS_PER_THREAD if _threads > 1 else 1
    # Short enough to be given up soon, even where there is one thread.
    pieces = min(count, max(tasks, int(total // LONG_NANOSECONDS)))
    edges = [count * i // pieces for i in range(pieces + 1)]
    return list(itertools.pairwise(edges))
