"""Timing as in `attention.studies.timing`, everybody held to as many threads."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib import import_module

import halfspace
from attention.studies.timing import (
    by_processor_time,
    medians,
    seconds,
    without_collections,
)

__all__ = ["by_processor_time", "held_to", "medians", "seconds", "without_collections"]


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
