"""to: the same index on another device."""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .cuda import CudaIndex
    from .static_index import StaticIndex


def device_number(device: str) -> int | None:
    """Number of a CUDA device; None for the processor."""
    if not isinstance(device, str):
        raise TypeError(f"device: expected a string, got {type(device).__name__}")
    named = re.fullmatch(r"cpu|cuda(?::(\d+))?", device)
    if not named:
        raise ValueError(f"device: expected 'cpu', 'cuda' or 'cuda:N', got {device!r}")
    return None if device == "cpu" else int(named[1] or 0)


def to(index: "StaticIndex", device: str) -> "StaticIndex | CudaIndex":
    """Return the index on a device, with the same answers.

    Parameters
    ----------
    device : str
        ``"cpu"``, ``"cuda"`` or ``"cuda:N"``. CUDA needs the extra ``cuda``.

    Returns
    -------
    StaticIndex or CudaIndex
        The index itself where it is there already.

    Raises
    ------
    TypeError
        `device` is not a string.
    ValueError
        It names none of these.
    CudaUnavailable
        There is no such device, or nothing to run it with.
    OutOfDeviceMemory
        The index does not fit.

    Examples
    --------
    >>> import halfspace
    >>> index = halfspace.build([[0.0], [1.0], [2.0]])
    >>> index.to("cpu") is index
    True
    """
    number = device_number(device)
    if number is None:
        return index
    from .cuda import CudaIndex

    return CudaIndex(index, number)
