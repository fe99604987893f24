"""Streams of callers, and what comes in from a device and goes out on it, in the order of those.

What runs on a device runs later than it is asked for, in the order of its stream. Arrays tell
theirs by the CUDA array interface, version 3: whoever reads waits for what is queued there.
"""

from collections.abc import Sequence

from .runtime import require, synchronize
from .target import cuda

TELLS_STREAMS = 3
"""Version of the CUDA array interface from which on arrays tell their stream."""

DLPACK_DEVICES = 2, 13
"""DLPack's kDLCUDA and kDLCUDAManaged."""


def handle_of(stream: object) -> int:
    """Handle of a stream of numba; of one without, an integer of its own."""
    handle = getattr(stream, "handle", stream)
    handle = getattr(handle, "value", handle)
    try:
        # Handles of bindings are no int, and there is another object at each call.
        return int(handle or 0)
    except TypeError:
        return id(stream)


def as_stream(stream: object) -> object:
    """Stream of numba, from numba's own, a handle, or one of CuPy or torch; 0 for the default."""
    if stream is None:
        return 0
    if hasattr(stream, "auto_synchronize"):
        return stream if handle_of(stream) else 0
    handle = stream
    for name in ("cuda_stream", "ptr"):  # torch, CuPy
        handle = getattr(handle, name, handle)
    if isinstance(handle, bool) or not isinstance(handle, int):
        raise TypeError(
            "stream: expected None, a stream of numba, CuPy or torch, or a handle, "
            f"got {type(stream).__name__}"
        )
    if not handle:
        return 0
    made = cuda.external_stream(handle)
    made.owner = stream  # which lives as long as arrays that tell it
    return made


def device_of(values: object, otherwise: int) -> int | None:
    """Number of the device that an array lies on, `otherwise` of one that does not say; or None."""
    if hasattr(values, "__dlpack_device__"):
        kind, number = values.__dlpack_device__()
        return int(number) if kind in DLPACK_DEVICES else None
    return otherwise if hasattr(values, "__cuda_array_interface__") else None


def wait_for(values: object, number: int, stream: object) -> int | None:
    """Wait for what the caller has queued in `stream` of device `number`, if an array is on any.

    Its device, or None; so what writes it in that stream is done.
    """
    where = device_of(values, number)
    if where is not None:
        with require(number):
            flow = as_stream(stream)
            if flow:
                flow.synchronize()
    return where


def on_host(values: object, number: int, stream: object) -> object:
    """What lies on a device, as a host array, complete; anything else as it is.

    What writes it may be queued in `stream`, of device `number`, or in the stream that the array
    tells; where it is of a kind that tells none, all that its device does is waited for.
    """
    where = wait_for(values, number, stream)
    if where is None:
        return values
    with require(where):
        told = values.__cuda_array_interface__
        if told["version"] < TELLS_STREAMS:
            synchronize()
        elif told.get("stream") is not None:
            cuda.external_stream(told["stream"]).synchronize()
        try:
            # Without a stream, a copy is complete when it returns.
            return cuda.as_cuda_array(values, sync=False).bind().copy_to_host()
        except NotImplementedError as error:
            raise TypeError(
                f"expected an array on a device without a mask and negative strides: {error}"
            ) from error


def leave(arrays: Sequence[object], flow: object) -> list[object]:
    """Arrays to be left on the current device, after what is queued for them in a stream.

    They tell it; of the default stream, which others need not wait for, they are complete.
    """
    if not flow:
        synchronize()
    return [array.bind(flow) for array in arrays]
