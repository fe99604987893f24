"""to: the keys of a decoder or of a cache on another device."""

from typing import TYPE_CHECKING

from halfspace.devices import device_number

if TYPE_CHECKING:
    from .cache import KVCache
    from .cuda import CudaCache, CudaDecoder
    from .decode import Decoder


def to(held: "Decoder | KVCache", device: str) -> "Decoder | KVCache | CudaDecoder | CudaCache":
    """Return the decoder or cache on a device: the same rules, and certificates of its own.

    Parameters
    ----------
    device : str
        ``"cpu"``, ``"cuda"`` or ``"cuda:N"``. CUDA needs the extra ``cuda``.

    Returns
    -------
    Decoder, KVCache, CudaDecoder or CudaCache
        The same where it is there already. On a device it keeps this one on the host, and follows
        its changes; a cache's batch, heads and grouped queries are one launch.

    Raises
    ------
    TypeError, ValueError
        `device` is not a string, or names none of these.
    CudaUnavailable
        There is no such device, or nothing to run it with.
    OutOfDeviceMemory
        Keys, values and codes do not fit.

    Examples
    --------
    >>> from attention import Decoder, KVCache
    >>> decoder, cache = Decoder([[1.0], [2.0]], [[3.0], [5.0]]), KVCache(4)
    >>> decoder.to("cpu") is decoder, cache.to("cpu") is cache
    (True, True)
    """
    number = device_number(device)
    return held if number is None else held._on_cuda(number)
