"""What a device is asked for: itself, memory, the shapes of launches, and streams."""

from contextlib import AbstractContextManager

import numpy as np

from ..tiles import TILE
from .target import SIMULATED, cuda

THREADS = 8 if SIMULATED else 256
"""Threads of a block."""

MOST_ROWS = 2 if SIMULATED else 65_535
"""Blocks of a grid in its second direction."""

INSTALL = "pip install 'halfspace-reporting[cuda]'"


class CudaUnavailable(RuntimeError):
    """There is no CUDA target, no driver or no such device."""


class OutOfDeviceMemory(MemoryError):
    """An array has no room on the device."""


def require(number: int = 0) -> AbstractContextManager:
    """Context in which device `number` is in use.

    Raises
    ------
    CudaUnavailable
        Without a CUDA target, a driver or that device.
    """
    if cuda is None:
        raise CudaUnavailable(f"cuda: expected numba's CUDA target, found none: {INSTALL}")
    if not cuda.is_available():
        raise CudaUnavailable(
            f"cuda: expected a CUDA device and its driver, found none (and {INSTALL})"
        )
    if not number < len(cuda.gpus):
        raise CudaUnavailable(f"cuda: expected device {number}, found {len(cuda.gpus)} in all")
    return cuda.gpus[number]


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


def _short_of_memory(error: Exception) -> bool:
    return getattr(error, "code", None) == 2 or "OUT_OF_MEMORY" in str(error).upper()


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
        if not _short_of_memory(error):
            raise
        wanted = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
        raise OutOfDeviceMemory(
            f"cuda: expected room for {wanted} bytes on the device, "
            f"it has {cuda.current_context().get_memory_info()[0]} left"
        ) from error


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


def as_stream(stream: object) -> object:
    """Stream of numba, from numba's own, a handle, or one of CuPy or torch."""
    if stream is None:
        return 0
    if hasattr(stream, "auto_synchronize"):
        return stream
    for name in ("cuda_stream", "ptr"):  # torch, CuPy
        stream = getattr(stream, name, stream)
    if isinstance(stream, bool) or not isinstance(stream, int):
        raise TypeError(
            "stream: expected None, a stream of numba, CuPy or torch, or a handle, "
            f"got {type(stream).__name__}"
        )
    return cuda.external_stream(stream) if stream else 0


def on_host(values: object) -> object:
    """What lies on a device, as a host array; anything else as it is."""
    if not hasattr(values, "__cuda_array_interface__"):
        return values
    return cuda.as_cuda_array(values).copy_to_host()
