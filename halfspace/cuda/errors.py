"""What cannot be done on a device ends in one of these."""


class CudaUnavailable(RuntimeError):
    """There is no CUDA target, no driver or no such device.

    Examples
    --------
    >>> import halfspace
    >>> from halfspace.cuda import CudaUnavailable
    >>> index = halfspace.Scan([[0.0], [1.0]])
    >>> try:
    ...     index = index.to("cuda:99")
    ... except CudaUnavailable:
    ...     print("stays on the processor")
    stays on the processor
    """


class OutOfDeviceMemory(MemoryError):
    """The device has no room for an array, or for what a kernel takes to run.

    Examples
    --------
    >>> from halfspace.cuda import OutOfDeviceMemory
    >>> try:
    ...     raise OutOfDeviceMemory("as `to` does where an index does not fit")
    ... except MemoryError:
    ...     print("stays on the processor")
    stays on the processor
    """


def is_short_of_memory(error: Exception) -> bool:
    """Whether that is what an error of the target or of its driver means."""
    return getattr(error, "code", None) == 2 or "OUT_OF_MEMORY" in str(error).upper()
