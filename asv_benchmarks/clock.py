"""Timing: tasks take turns, one run each a round, and the median of a task's rounds counts."""

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module

import halfspace

_now = time.perf_counter


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
    """How long one call takes, without freeing its answer."""
    start = _now()
    answer = task()
    passed = _now() - start
    del answer
    return passed


def medians(tasks: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of every task over interleaved rounds."""
    taken: dict[str, list[float]] = {name: [] for name in tasks}
    with without_collections():
        for _ in range(rounds):
            for name, task in tasks.items():
                taken[name].append(seconds(task))
    return {name: statistics.median(passed) for name, passed in taken.items()}


@contextmanager
def held_to(threads: int) -> Iterator[list[str]]:
    """Hold everybody to that many threads; yields what to say of those who cannot be held."""
    before = halfspace.get_threads()
    complaints = []
    halfspace.set_threads(threads)
    with ExitStack() as stack:
        stack.callback(halfspace.set_threads, before)
        with suppress(ImportError):
            faiss = import_module("faiss")
            stack.callback(faiss.omp_set_num_threads, faiss.omp_get_max_threads())
            faiss.omp_set_num_threads(threads)
        try:
            stack.enter_context(import_module("threadpoolctl").threadpool_limits(threads))
        except ImportError:
            complaints.append(
                "threadpoolctl is not installed: BLAS takes as many threads as it likes"
                f" (set OPENBLAS_NUM_THREADS={threads})"
            )
        yield complaints
