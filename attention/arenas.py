"""Memory that kernels write to, kept for the next call.

A system that is asked for tens of megabytes gives zeros, page by page as they are first touched,
and takes them back after each call: for a query of many keys that is a fifth of its time.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from halfspace.tiles import LINE

WORD = 8
"""Bytes of a word of an arena."""

SPARE = 8
"""Part of an arena that is added to what is asked for: keys that grow ask for more each time."""


class Arenas:
    """As many arenas as calls that were under way at once; threads may share this.

    Examples
    --------
    >>> from attention.arenas import Arenas
    >>> with Arenas().lend(5) as arena:
    ...     arena.dtype, len(arena) >= 5
    (dtype('int64'), True)
    """

    def __init__(self) -> None:
        self._free: list[np.ndarray] = []

    def __reduce__(self) -> tuple:
        """What is kept is of no use elsewhere."""
        return Arenas, ()

    @contextmanager
    def lend(self, words: int) -> Iterator[np.ndarray]:
        """An int64 array of at least so many words, from the start of a line of cache on.

        Nothing is known of what is in it, and it is another's after a block that ends well. After
        an error or an interrupt it is not kept: a thread that nobody waits for may write to it.
        """
        try:
            arena = self._free.pop()
        except IndexError:
            arena = None
        if arena is None or len(arena) < words:
            arena = _aligned(words + words // SPARE)
        yield arena
        self._free.append(arena)


def _aligned(words: int) -> np.ndarray:
    room = np.empty((words * WORD + LINE,), np.uint8)
    first = -room.ctypes.data % LINE
    return room[first : first + words * WORD].view(np.int64)
