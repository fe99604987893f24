"""The floor under any scan: how fast this machine reads memory."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np


class Reads:
    """Simple numpy loops over more memory than caches hold; the fastest of them is the floor."""

    def __init__(self, nbytes: int, threads: int) -> None:
        self._source = np.ones(max(threads, nbytes // 8), np.int64)
        self._target = np.zeros_like(self._source)
        edges = np.linspace(0, len(self._source), threads + 1).astype(int)
        self._slices = [slice(first, last) for first, last in pairwise(edges)]
        self._pool = ThreadPoolExecutor(threads)

    def tasks(self) -> dict[str, Callable[[], object]]:
        """The loops, to be timed."""
        loops = {
            "sum": lambda part: self._source[part].sum(),
            "max": lambda part: self._source[part].view(np.uint8).max(),
            "copy": lambda part: np.copyto(self._target[part], self._source[part]),
        }
        return {
            name: lambda loop=loop: list(self._pool.map(loop, self._slices))
            for name, loop in loops.items()
        }

    def rate(self, taken: dict[str, float]) -> float:
        """Bytes a second of the fastest loop, given the seconds of each."""
        # A copy reads and writes.
        moved = {"sum": 1, "max": 1, "copy": 2}
        return max(self._source.nbytes * times / taken[name] for name, times in moved.items())
