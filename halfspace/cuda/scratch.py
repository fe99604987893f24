"""Scratch of launches: arrays on the device that are used again, each thread's and stream's own.

Asking the device for memory takes longer than a query of a small index, and may wait for all that
runs. What is scratch in one call is scratch in the next: calls of one thread in one stream run one
after another, so they may share it.
"""

import threading

import numpy as np

from .runtime import empty, line
from .streams import handle_of
from .words import clear

MOST_STREAMS = 4
"""Streams whose scratch a thread keeps; programs may make one for each call."""


class Scratch:
    """Arrays by name, for launches in one stream."""

    def __init__(self, stream: object) -> None:
        self.stream = stream
        self._rooms: dict[str, object] = {}
        self._views: dict[str, tuple[tuple, object]] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> object:
        """Array of that name, whatever it holds."""
        dtype = np.dtype(dtype)
        kind, view = self._views.get(name, (None, None))
        if kind != (shape, dtype):
            view = self._view(name, shape, dtype)
            self._views[name] = (shape, dtype), view
        return view

    def _view(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> object:
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if not size:
            return empty(shape, dtype)
        if name not in self._rooms or self._rooms[name].size < size:
            self._views.pop(name, None)
            self._rooms.pop(name, None)  # before there is more, so that both need not fit
            self._rooms[name] = empty((size,), np.uint8)
        return self._rooms[name][:size].view(dtype).reshape(*shape)

    def zeros(self, name: str, shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> object:
        """Array of that name, all zero."""
        array = self.take(name, shape, dtype)
        clear(self.stream, *line(array.size), array.reshape(array.size))
        return array

    def copy(self, name: str, array: np.ndarray) -> object:
        """Array of that name, with what a host array holds."""
        copy = self.take(name, array.shape, array.dtype)
        if array.size:
            copy.copy_to_device(np.ascontiguousarray(array), stream=self.stream)
        return copy


class Scratches(threading.local):
    """The scratch of this thread, by stream: of those used last."""

    def __init__(self) -> None:
        self._by_stream: dict[int, Scratch] = {}

    def of(self, stream: object) -> Scratch:
        """Scratch for launches in that stream."""
        handle = handle_of(stream)
        found = self._by_stream.pop(handle, None) or Scratch(stream)
        # Now the last. What is dropped is only freed when the device has no more use for it.
        self._by_stream[handle] = found
        if len(self._by_stream) > MOST_STREAMS:
            del self._by_stream[next(iter(self._by_stream))]
        return found
