"""What a device is asked for: itself, memory, and the shapes of launches."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np

from ..tiles import TILE
from .errors import CudaUnavailable, OutOfDeviceMemory, is_short_of_memory
from .target import SIMULATED, cuda, shortage

THREADS = 8 if SIMULATED else 256
"""Threads of a block."""

MOST_ROWS = 2 if SIMULATED else 65_535
"""Blocks of a grid in its second direction."""

INSTALL = "pip install 'halfspace-reporting[cuda]'"


def require(number: int = 0) -> AbstractContextManager:
    """Context in which device `number` is in use.

    Raises
    ------
    CudaUnavailable
        Without a CUDA target, a driver or that device.
    OutOfDeviceMemory
        In the context, whatever asks for room that there is not.
    """
    if cuda is None:
        raise CudaUnavailable(f"cuda: expected numba's CUDA target, found none: {INSTALL}")
    if not cuda.is_available():
        raise CudaUnavailable(
            f"cuda: expected a CUDA device and its driver, found none (and {INSTALL})"
        )
    if not number < len(cuda.gpus):
        raise CudaUnavailable(f"cuda: expected device {number}, found {len(cuda.gpus)} in all")
    return _in_use(number)


@contextmanager
def _in_use(number: int) -> Iterator[None]:
    try:
        with cuda.gpus[number]:
            yield
    except OutOfDeviceMemory:
        raise
    except Exception as error:
        if not is_short_of_memory(error):
            raise
        raise shortage("more") from error


def resident_threads() -> int:
    """Threads that the current device holds at once."""
    if SIMULATED:
        return 2 * THREADS
    card = cuda.current_context().device
    return card.MULTIPROCESSOR_COUNT * card.MAX_THREADS_PER_MULTI_PROCESSOR


def line(work: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Grid and block for so many items, a thread each, at most as many as the device holds."""
    wanted = -(-work // THREADS)
    return (min(wanted, max(1, resident_threads() // THREADS)),), (THREADS,)


def by_tiles(tiles: int, rows: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Grid and block for rows of tiles: x is the lane, y the tile of a block, grid's y the row."""
    side_by_side = max(1, THREADS // TILE)
    wanted = -(-tiles // side_by_side)
    held = max(1, resident_threads() // (TILE * side_by_side))
    return (min(wanted, held), min(rows, MOST_ROWS)), (TILE, side_by_side)


def by_rows(longest: int, rows: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Grid and block for lists side by side: x goes along a list, the grid's y is the list."""
    wanted, held = max(1, -(-longest // THREADS)), max(1, resident_threads() // THREADS)
    return (min(wanted, held), min(rows, MOST_ROWS)), (THREADS,)


def _allocate(shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> object:
    return cuda.device_array(shape, dtype)


def empty(shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> object:
    """Array on the device, not initialised.

    Raises
    ------
    OutOfDeviceMemory
        It has no room for it.
    """
    try:
        return _allocate(shape, dtype)
    except Exception as error:
        if not is_short_of_memory(error):
            raise
        wanted = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
        raise shortage(f"{wanted} bytes") from error


def put(array: np.ndarray, stream: object = 0) -> object:
    """Copy of an array on the device, C order."""
    copy = empty(array.shape, array.dtype)
    if array.size:
        copy.copy_to_device(np.ascontiguousarray(array), stream=stream)
    return copy


def get(array: object, stream: object = 0) -> np.ndarray:
    """Copy of a device array on the host, complete when this returns."""
    copy = np.empty(array.shape, array.dtype)
    if copy.size:
        array.copy_to_host(copy, stream=stream)
        if stream:
            stream.synchronize()
    return copy


def synchronize() -> None:
    """Wait for all that runs on the current device."""
    cuda.synchronize()
