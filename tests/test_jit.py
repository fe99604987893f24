"""How kernels are compiled: what would corrupt memory is refused."""

from pathlib import Path
from typing import NamedTuple

import numba
import numpy as np
import pytest

import attention
import halfspace
from attention.cuda.bars import share_bars
from attention.tails import furthest
from halfspace.jit import called_packages, kernel, part, shared

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


@kernel
def _as_furthest(counts, first, step, low, high, mean, keys):
    return furthest(counts, first, step, low, high, mean, 0.0, keys)


@needs_compiler
def test_a_kernel_is_as_new_as_what_it_calls():
    """Be that in its package, above it, or elsewhere."""
    packages = {Path(package.__file__).parent for package in (halfspace, attention)}
    for function in (_as_furthest.py_func, share_bars.py_func):
        here = Path(function.__code__.co_filename).parent
        assert packages | {here} <= set(called_packages(function))


@needs_compiler
def test_a_part_is_not_called_from_python():
    with pytest.raises(TypeError, match="_size is a part of kernels"):
        _size(np.ones(4))


@shared
def _double(x):
    return 2.0 * x


@shared
def _quotient(x, y):
    return np.fmin(_double(x) / y, 1.0)


@kernel
def _fill_quotients(x, y, out):
    for i in range(x.size):
        out[i] = _quotient(x[i], y[i])


def test_a_formula_is_for_numbers_in_kernels_and_for_arrays():
    """Under IEEE rules in both: 0 / 0 is no error, and raises no warning."""
    x, y, out = np.array([0.0, 1.0, 3.0]), np.array([0.0, 8.0, 0.0]), np.empty(3)
    _fill_quotients(x, y, out)
    assert out.tolist() == _quotient(x, y).tolist() == [1.0, 0.25, 1.0]
