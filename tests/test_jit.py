"""How kernels are compiled: what would corrupt memory is refused."""

from typing import NamedTuple

import numba
import numpy as np
import pytest

from halfspace.jit import kernel, part

from .sizes import JIT

needs_compiler = pytest.mark.skipif(not JIT, reason="nothing is compiled")


class Ends(NamedTuple):
    first: np.ndarray
    size: int


@part
def _first_half(values):
    return Ends(values[: values.size // 2], values.size)


@kernel
def _sum_of_first_half(values):
    return _first_half(values).first.sum()


@part
def _size(values):
    return values.size


@needs_compiler
def test_a_part_that_returns_arrays_is_refused():
    """References to them would not be counted, and memory freed that is in use."""
    with pytest.raises((TypeError, numba.TypingError), match="a part to return no arrays"):
        _sum_of_first_half(np.ones(4))


@needs_compiler
def test_a_part_is_not_called_from_python():
    with pytest.raises(TypeError, match="_size is a part of kernels"):
        _size(np.ones(4))
