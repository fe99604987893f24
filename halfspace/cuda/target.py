"""The one place that imports numba's CUDA target: kernels and device functions.

The target is numba-cuda's, which takes the place of `numba.cuda`; where only its successor is
installed, that; else numba's own. Only what all of them and the simulator
(``NUMBA_ENABLE_CUDASIM=1``) have in common is used, so the same kernels run in all: atomic adds and
ors, no barriers, no instructions of warps. Two functions have a form for the simulator and one for
the device: `two_product` and `dot4`.

What the processor computes with parts of kernels (`halfspace.jit.part`), the device computes with
the very same source: `device` makes a device function of a part and of all it calls.

libNVVM contracts a product and a sum to a fused multiply-add, and numba has no switch for it.
Filters allow for that: their margins hold for any order of sums, fused or not. The error-free
transformations of `predicate.py` do not: where a product is rounded, its rounding error is taken
from that very value. So `two_product` is replaced by one of explicit instructions, ``mul.rn``,
which is never contracted, and ``fma.rn``, which gives the product's error exactly. `two_sum` has no
products of its own, and all that remain are products by powers of two or terms of error bounds.
"""

import functools
import importlib.util
import threading
import warnings
from collections.abc import Callable
from types import FunctionType, ModuleType

import numba
import numpy as np

from .. import predicate
from .errors import OutOfDeviceMemory, is_short_of_memory


def _import_target() -> ModuleType | None:
    plain, successor = map(importlib.util.find_spec, ("numba_cuda", "numba_cuda_mlir"))
    if successor and not plain and not getattr(numba.config, "ENABLE_CUDASIM", False):
        from numba_cuda_mlir import cuda

        return cuda
    try:
        from numba import cuda
    except ImportError:
        return None
    return cuda


cuda = _import_target()
"""The target; kernels have to know it by this name."""

SIMULATED = cuda is not None and "simulator" in cuda.jit.__module__
"""Whether kernels run in Python, a thread for each of the device's."""

MOST_LAUNCHES = 1024
"""Shapes of launches that a kernel keeps."""


def shortage(wanted: str) -> OutOfDeviceMemory:
    """Error that says what there was no room for, and what is left."""
    try:
        left = f"{cuda.current_context().get_memory_info()[0]} bytes"
    except Exception:  # there may be no context either
        left = "an unknown number of bytes"
    return OutOfDeviceMemory(f"cuda: expected room for {wanted} on the device, it has {left} left")


_simulation = threading.Lock()
"""The simulator runs one kernel at a time."""


class Kernel:
    """A function that runs on the device, compiled there when it is first launched.

    Parameters
    ----------
    function : callable
        Over device arrays and scalars; it may call what `device` made. It loops over its work by
        the size of the grid, whatever that is.
    """

    made: list["Kernel"] = []  # noqa: RUF012 (all kernels there are)

    def __init__(self, function: Callable) -> None:
        self.function = function
        self._launches: dict[tuple, Callable] = {}
        Kernel.made.append(self)
        functools.update_wrapper(self, function)

    @functools.cached_property
    def _compiled(self) -> Callable:
        return cuda.jit(self.function)

    def __call__(
        self, stream: object, grid: tuple[int, ...], block: tuple[int, ...], *arguments: object
    ) -> None:
        """Launch it in a stream; a grid of no blocks is none.

        Raises
        ------
        OutOfDeviceMemory
            There is no room to load it, or for what its threads keep in memory.
        """
        if not min(grid):
            return
        try:
            self._launch(stream, grid, block, arguments)
        except Exception as error:
            if not is_short_of_memory(error):
                raise
            raise shortage(f"kernel {self.__name__}, {grid} blocks of {block} threads,") from error

    def _launch(self, stream: object, grid: tuple, block: tuple, arguments: tuple) -> None:
        if not SIMULATED:
            self._configured(grid, block, stream)(*arguments)
            return
        with _simulation, warnings.catch_warnings():
            # Its threads do not inherit numpy's error state.
            warnings.simplefilter("ignore", RuntimeWarning)
            self._compiled[grid, block, stream](*arguments)

    def _configured(self, *configuration: object) -> Callable:  # pragma: no cover (devices only)
        launch = self._launches.get(configuration)
        if launch is None:
            if len(self._launches) >= MOST_LAUNCHES:
                self._launches.clear()
            with warnings.catch_warnings():
                # Numba finds few blocks too few; little work needs no more.
                warnings.simplefilter("ignore")
                launch = self._launches[configuration] = self._compiled[configuration]
        return launch


def _fused_product(a, b):  # pragma: no cover (compiled code only)
    product = libdevice.dmul_rn(a, b)
    return product, libdevice.fma(a, b, -product)


def dot4_by_bytes(codes, weights, total):
    """`dot4` in plain arithmetic."""
    for j in range(4):
        weight = (np.int64(weights) >> (8 * j)) & 255
        code = (np.int64(codes) >> (8 * j)) & 255
        total += code * (weight - 256 * (weight >> 7))
    return total


def _dot4_instruction() -> Callable:
    """`dot4` in the device's instruction."""
    from llvmlite import ir
    from numba.core import types

    try:
        from numba.cuda.extending import intrinsic
    except ImportError:  # numba's own target
        from numba.extending import intrinsic

    @intrinsic
    def dot4(typing_context, codes, weights, total):
        def generate(context, builder, signature, arguments):  # pragma: no cover (compiling only)
            word = ir.IntType(32)
            kind = ir.FunctionType(word, [word] * 3)
            text = "dp4a.u32.s32 $0, $1, $2, $3;"
            return builder.call(ir.InlineAsm(kind, text, "=r,r,r,r"), arguments)

        return types.int32(types.uint32, types.int32, types.int32), generate

    return dot4


def _parts_called(function: Callable) -> list[str]:
    """Names of the parts of kernels among the globals that a function uses."""
    known = function.__globals__
    names = (name for name in function.__code__.co_names if name in known)
    return [name for name in names if _is_part(known[name])]


def _is_part(value: object) -> bool:
    # Where numba is told not to compile, parts are functions.
    return getattr(getattr(value, "py_func", value), "is_part", False)


_made: dict[Callable, Callable] = {}


def device(function: Callable) -> Callable:
    """Make a device function of a part of kernels and of all parts it calls.

    Parameters
    ----------
    function : callable
        Made by `halfspace.jit.part`, or a plain function over such.

    Returns
    -------
    callable
        To be called from kernels. In the simulator a plain function, of the same source.
    """
    if function in _made or cuda is None:
        return _made.get(function, function)
    source = getattr(function, "py_func", function)
    known = dict(source.__globals__)
    known |= {name: device(known[name]) for name in _parts_called(source)}
    twin = FunctionType(
        source.__code__, known, source.__name__, source.__defaults__, source.__closure__
    )
    _made[function] = twin if SIMULATED else cuda.jit(device=True)(twin)
    return _made[function]


def substitute(function: Callable, twin: Callable) -> None:
    """Let `twin` take the place of a part of kernels on the device, but for the simulator.

    For parts that the device has an instruction for, or no way to compile.
    """
    if cuda is not None and not SIMULATED:
        _made[function] = cuda.jit(device=True)(twin)


if cuda is None or SIMULATED:
    dot4 = dot4_by_bytes
    _made[predicate.two_product] = getattr(predicate.two_product, "py_func", predicate.two_product)
else:
    libdevice = importlib.import_module(f"{cuda.__name__}.libdevice")
    # What makes an instruction of it is numba's own way of compiling.
    dot4 = device(dot4_by_bytes) if "mlir" in cuda.__name__ else _dot4_instruction()
    substitute(predicate.two_product, _fused_product)
"""`dot4`: total + the products of four unsigned codes and four signed weights, a byte each."""
