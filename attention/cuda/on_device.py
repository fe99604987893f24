"""OnDevice: what a decoder and a cache have in common once their keys are on a device."""

from typing import TYPE_CHECKING, Self

from halfspace.cuda.runtime import require
from halfspace.cuda.streams import as_stream
from halfspace.devices import device_number

from ..attended import Attended
from .answers import deliver, to_host
from .heads import CudaHeads

if TYPE_CHECKING:
    from ..cache import KVCache
    from ..decode import Decoder


class OnDevice:
    """Keys and values on a CUDA device, and on the host the `Decoder` or `KVCache` they are of.

    Parameters
    ----------
    host : Decoder or KVCache
    number : int
        Of the device.
    """

    _heads: CudaHeads | None

    def __init__(self, host: "Decoder | KVCache", number: int) -> None:
        self._host, self._number = host, number

    def __len__(self) -> int:
        return len(self._host)

    def __reduce__(self) -> tuple:
        return type(self), (self._host, self._number)

    @property
    def scale(self) -> float:
        """Of scores."""
        return self._host.scale

    @property
    def device(self) -> str:
        """Where it is: ``"cuda:0"``, say."""
        return f"cuda:{self._number}"

    @property
    def nbytes(self) -> int:
        """Bytes held on the device, with what is free for more, without scratch."""
        return self._heads.nbytes if self._heads else 0

    def to(self, device: str) -> "Decoder | KVCache | Self":
        """Return the same on a device; parameters and errors as for `Decoder.to`."""
        number = device_number(device)
        if number is None:
            return self._host
        return self if number == self._number else type(self)(self._host, number)

    def _arrived(self, array: object, name: str, stream: object) -> object:
        """An array on the host, where it may have come from."""
        return to_host(array, name, self._number, stream)

    def _deliver(self, got: Attended, on_device: bool, stream: object) -> Attended:
        with require(self._number):
            return deliver(got, on_device, as_stream(stream))
