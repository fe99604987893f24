"""What comes in from a device or the host, and answers on either."""

import numpy as np

from halfspace.cuda.runtime import put
from halfspace.cuda.streams import leave, on_host, wait_for

from ..attended import Attended
from ..inputs import check_rule
from ..interop import library, to_numpy
from ..rules import Rule, Sampled

ON_DEVICE = ("float16", "float32", "float64")
"""Dtypes of outputs that can be left on a device."""


def check_rule_here(rule: Rule) -> None:
    """Check that `rule` is one that queries on a device may have.

    Raises
    ------
    TypeError
        It is none, or `Sampled`.
    """
    check_rule(rule)
    if isinstance(rule, Sampled):
        raise TypeError(
            'rule: expected TopR, Threshold, Mass or Error on a device, got Sampled; use to("cpu")'
        )


def to_host(array: object, name: str, number: int, stream: object) -> object:
    """What lies on a device, as a host array, after what is queued for it; else as it is.

    That is what is queued in `stream` of device `number`, and in the stream that the array tells:
    of torch its current one. bfloat16 of torch becomes float32.
    """
    if library(array) != "torch":
        return on_host(array, number, stream)
    wait_for(array, number, stream)
    return to_numpy(array, name)


def deliver(got: Attended, on_device: bool, stream: object) -> Attended:
    """Return the answer as it is, or copied to the device in a stream that its arrays tell.

    Raises
    ------
    TypeError
        The output's dtype is one that arrays on the device cannot have.
    """
    if not on_device:
        return got
    if got.output.dtype.name not in ON_DEVICE:
        raise TypeError(
            f"dtype: expected one of {', '.join(ON_DEVICE)} on a device, got {got.output.dtype}"
        )
    fields = (*got, got.lse_bound, got.sampled)
    arrays = [put(np.ascontiguousarray(field), stream) for field in fields]
    return Attended(*leave(arrays, stream))
