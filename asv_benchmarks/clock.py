"""Timing: rivals take turns, one run each a round, and the median of a rival's rounds counts."""

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module


@contextmanager
def without_collections() -> Iterator[None]:
    """Keep the garbage collector out of what is timed."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def seconds(task: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    result = task()
    passed = time.perf_counter() - start
    del result  # freeing the answer is not part of finding it
    return passed


def medians(tasks: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of every task over interleaved rounds."""
    taken: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            with without_collections():
                taken[name].append(seconds(task))
    return {name: statistics.median(passed) for name, passed in taken.items()}


def limit_threads(threads: int) -> list[str]:
    """Hold everybody to that many threads; returns what could not be held."""
    import halfspace

    halfspace.set_threads(threads)
    complaints = []
    try:
        import_module("faiss").omp_set_num_threads(threads)
    except ImportError:
        pass
    try:
        import_module("threadpoolctl").threadpool_limits(threads)
    except ImportError:
        complaints.append(
            "threadpoolctl is not installed: BLAS takes as many threads as it likes"
            f" (set OPENBLAS_NUM_THREADS={threads})"
        )
    return complaints
