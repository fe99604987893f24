"""What cannot be done on a device ends in one of these."""


class CudaUnavailable(RuntimeError):
    """There is no CUDA target, no driver or no such device."""


class OutOfDeviceMemory(MemoryError):
    """The device has no room for an array, or for what a kernel takes to run."""


def is_short_of_memory(error: Exception) -> bool:
    """Whether that is what an error of the target or of its driver means."""
    return getattr(error, "code", None) == 2 or "OUT_OF_MEMORY" in str(error).upper()
