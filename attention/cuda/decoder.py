"""CudaDecoder: keys and values of one head on a device, with the rules of `Decoder`."""

import threading

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from ..attended import Attended
from ..coded_head import CodedHead
from ..decode import Decoder
from ..inputs import check_relu
from ..room import Room
from ..rules import Rule
from .answers import check_rule_here
from .heads import CudaHeads
from .on_device import OnDevice


class CudaDecoder(OnDevice):
    """A `Decoder` on a CUDA device: the same rules, and certificates of its own.

    Made by ``decoder.to("cuda")``; where that grows, what changed is followed before the next
    answer, by copying all. Whatever its structure was, keys have 8-bit codes on the device, or,
    where they are too few for codes, all are read. Answers, shapes and
    errors are those of `Decoder`. Outputs differ from the processor's by rounding, and by what was
    read, within both bounds; `reported` says how many keys that were: all that a query sees where
    nothing could be skipped.

    Queries may lie on the device; they are copied to the host, where they are checked and brought
    in the terms of the codes. Reads are safe from many threads.

    Parameters
    ----------
    decoder : Decoder
        It is kept on the host.
    number : int
        Of the device.

    Raises
    ------
    CudaUnavailable
        There is no such device, or nothing to run it with.
    OutOfDeviceMemory
        Keys, values and codes, or later scratch, do not fit.

    Examples
    --------
    >>> from attention import Decoder, Error
    >>> host = Decoder([[1.0], [2.0]], [[3.0], [5.0]])
    >>> decoder = host.to("cuda")  # doctest: +SKIP
    >>> decoder.softmax([[40.0]], Error(1e-3)).output  # doctest: +SKIP
    array([[5.]])
    >>> decoder.relu([[3.0]], threshold=4.0).output  # doctest: +SKIP
    array([[5.]])
    >>> decoder.dim, decoder.value_dim, decoder.scale  # doctest: +SKIP
    (1, 1, 1.0)
    >>> decoder.device, decoder.nbytes > 0, decoder.to("cpu") is host  # doctest: +SKIP
    ('cuda:0', True, True)
    """

    def __init__(self, decoder: Decoder, number: int = 0) -> None:
        super().__init__(decoder, number)
        self._lock = threading.Lock()
        self._load()

    def _load(self) -> None:
        changes, head = self._host._changes, self._host._head
        # What was held goes before there is more, so that both need not fit; without it, nothing
        # is up to date, however often there is no room.
        self._changes, self._heads = None, None
        if not isinstance(head, CodedHead):
            head = CodedHead(*head.rows(), whole=True)
        room = Room(*(array[None] for array in head.room))
        self._heads = CudaHeads(room, [head.fit], len(head), head.coded, self._number)
        self._changes = changes

    def _follow(self) -> None:
        """Hold what the host holds: its lengths, norms and ranges are part of certificates."""
        with self._lock:
            if self._changes != self._host._changes:
                self._load()

    def __repr__(self) -> str:
        return f"CudaDecoder({len(self)} keys, head_dim = {self.dim}, {self.device})"

    @property
    def dim(self) -> int:
        """head_dim."""
        return self._host.dim

    @property
    def value_dim(self) -> int:
        """Of values."""
        return self._host.value_dim

    def softmax(
        self,
        query: ArrayLike,
        rule: Rule,
        *,
        lengths: ArrayLike | None = None,
        dtype: DTypeLike = np.float64,
        on_device: bool = False,
        stream: object = None,
    ) -> Attended:
        """Softmax attention of each query, as `Decoder.softmax`.

        A byte of codes a coordinate is read of each key, and floats of those that reach the bar.

        Parameters
        ----------
        query, rule, lengths, dtype
            As for `Decoder.softmax`; of rules all but `Sampled`.
        on_device : bool, optional
            Leave the arrays of the answer there, with ``__cuda_array_interface__``: complete when
            the call returns or, with a stream, when that is, and they tell it.
        stream : optional
            That kernels are launched in: None, a stream of numba, CuPy or torch, or a handle.
            Queries on a device are read after what is queued in it, and in the stream that they
            tell.

        Raises
        ------
        OutOfDeviceMemory
            There is no room for scratch; besides the errors of `Decoder.softmax`.
        """
        check_rule_here(rule)
        host = self._host
        query = self._arrived(query, "query", stream)
        asked, cut = host._ask_softmax(query, rule, lengths, dtype)
        self._follow()
        self._heads.softmax(
            asked.queries[None],
            asked.visible,
            cut,
            host.scale,
            float(host._values.size),
            asked.readings,
            stream,
        )
        return self._deliver(host._certified_softmax(asked), on_device, stream)

    def relu(
        self,
        query: ArrayLike,
        *,
        threshold: float,
        power: int = 1,
        lengths: ArrayLike | None = None,
        dtype: DTypeLike = np.float64,
        on_device: bool = False,
        stream: object = None,
    ) -> Attended:
        """ReLU attention, as `Decoder.relu`; `on_device` and `stream` as for `softmax`."""
        threshold, power = check_relu(threshold, power)
        host = self._host
        query = self._arrived(query, "query", stream)
        asked, offsets = host._ask_relu(query, threshold, lengths, dtype)
        self._follow()
        self._heads.relu(
            asked.queries[None],
            asked.visible,
            offsets,
            asked.errors,
            host.scale,
            float(host._values.size),
            threshold,
            power,
            asked.readings,
            stream,
        )
        return self._deliver(host._certified_relu(asked), on_device, stream)
