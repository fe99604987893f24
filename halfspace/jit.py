"""How kernels are compiled: without the GIL, cached by the sources they depend on.

Numba's own file cache is keyed by the file a function stands in; a change in a callee from another
file goes unseen and a stale binary runs. Here the key also holds a hash of every source file of the
packages a kernel may call into, so a cached kernel is never older than what it calls.
"""

import contextlib
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
from numba import types
from numba.core.caching import FunctionCache
from numba.core.codegen import get_host_cpu_features
from numba.core.compiler import CompileResult
from numba.core.dispatcher import Dispatcher
from numba.extending import overload

MARGIN_COVERED = frozenset({"contract", "nsz"})
"""LLVM flags where a margin covers the rounding error: fused multiply-add, unsigned zero."""

REASSOCIATED = MARGIN_COVERED | {"reassoc"}
"""The same, and any order of summation: for sums over the coordinates of one point."""

_HERE = Path(__file__).resolve().parent


@functools.cache
def _source_stamp(*packages: Path) -> str:
    digest = hashlib.sha256()
    for package in packages:
        for source in sorted(package.rglob("*.py")):
            digest.update(str(source.relative_to(package)).encode())
            digest.update(source.read_bytes())
    return digest.hexdigest()


def called_packages(function: Callable) -> list[Path]:
    """Folders of what a kernel may call: its own, ours, and those of the parts it can name."""
    named = [each for each in function.__globals__.values() if isinstance(each, Dispatcher)]
    sources = [each.__code__.co_filename for each in (function, *(f.py_func for f in named))]
    return sorted({_HERE, *(Path(source).resolve().parent for source in sources)})


class _StampedCache(FunctionCache):
    """Numba's file cache with the package's sources in the key."""

    def __init__(self, function: Callable) -> None:
        super().__init__(function)
        self._stamp = _source_stamp(*called_packages(function))

    def _index_key(self, sig, codegen):
        return (*super()._index_key(sig, codegen), self._stamp)


def has_feature(name: str) -> bool:
    """Whether kernels are compiled for a processor that has such instructions.

    It rests on the features that Numba tells LLVM and nothing else: they are in the key of what it
    caches, so that machines and settings that share a cached kernel agree.
    """
    if numba.config.DISABLE_JIT:
        return False
    told = numba.config.CPU_FEATURES
    return f"+{name}" in (get_host_cpu_features() if told is None else told).split(",")


def kernel(function: Callable) -> Callable:
    """Compile `function` in nopython mode, releasing the GIL, cached across processes.

    Parameters
    ----------
    function : callable
        Called from Python: plain code over scalars, flat arrays and named tuples of them.

    Returns
    -------
    callable
        The compiled dispatcher. With ``NUMBA_DISABLE_JIT=1`` the function itself, run under IEEE
        rules without numpy's floating-point warnings, as the compiled one is.
    """
    if numba.config.DISABLE_JIT:
        return np.errstate(all="ignore")(function)
    dispatcher = numba.njit(nogil=True, error_model="numpy", no_cfunc_wrapper=True)(function)
    with contextlib.suppress(RuntimeError):  # no writable place for a cache: compile each process
        dispatcher._cache = _StampedCache(function)
    return dispatcher


def part(
    function: Callable | None = None,
    *,
    flags: frozenset[str] = frozenset(),
    inline: bool = False,
    counted: bool = False,
) -> Callable:
    """Compile `function` as a part of kernels: called from compiled code only.

    It is cached with the kernels it is part of. Unless `counted`, it may neither allocate nor
    return arrays, so it is compiled without reference counts: what runs once a tile would cost less
    than counting references to its arrays.

    Parameters
    ----------
    function : callable
        As for `kernel`.
    flags : frozenset of str
        Named LLVM fast-math flags; only where the caller's margin covers what they may change.
    inline : bool
        Inline into every caller: for what runs once a tile.
    counted : bool
        With reference counts: for what makes or returns arrays, once a query at most.
    """
    if function is None:
        return functools.partial(part, flags=flags, inline=inline, counted=counted)
    function.is_part = True
    if numba.config.DISABLE_JIT:
        return function
    dispatcher = numba.njit(
        error_model="numpy",
        fastmath=set(flags),
        forceinline=inline,
        _nrt=counted,
        # No way in from Python or C: that is half the compile time of a small function.
        no_cpython_wrapper=True,
        no_cfunc_wrapper=True,
    )(function)
    # Without a wrapper, a call from Python would crash: never enter compiled versions in the
    # dispatcher's table of entry points, so that such a call ends in the exception.

    def add_overload(result: CompileResult) -> None:
        if not counted and _holds_arrays(result.signature.return_type):
            raise TypeError(f"{function.__name__}: expected a part to return no arrays")
        dispatcher.overloads[tuple(result.signature.args)] = result

    dispatcher.add_overload = add_overload
    dispatcher._compile_for_args = functools.partial(_refuse, function.__name__)
    return dispatcher


def shared(function: Callable) -> Callable:
    """Let kernels call, of numbers, what Python calls of arrays: a formula stands once.

    Parameters
    ----------
    function : callable
        Arithmetic and numpy's functions of its arguments, which are numbers or arrays.

    Returns
    -------
    callable
        The function, run under IEEE rules without numpy's floating-point warnings; kernels and
        parts may call it.

    Examples
    --------
    >>> import numpy as np
    >>> from halfspace.jit import kernel, shared
    >>> half = shared(lambda x: np.minimum(x, 8.0) / 2.0)
    >>> half(np.array([6.0, 10.0])), float(kernel(lambda x: half(x) + 1.0)(6.0))
    (array([3., 4.]), 4.0)
    """
    quiet = np.errstate(all="ignore")(function)
    if not numba.config.DISABLE_JIT:
        options = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
        overload(quiet, strict=False, jit_options=options)(lambda *arguments: function)
    return quiet


def _holds_arrays(kind: types.Type) -> bool:
    """Whether values of such a type refer to memory that is counted."""
    if isinstance(kind, types.BaseTuple):
        return any(map(_holds_arrays, kind))
    return isinstance(kind, types.Array)


class Bound:
    """A kernel and its first argument, a named tuple whose types are looked up once.

    Numba works out the type of every array in a nested tuple at each call, which takes longer than
    a query of a small structure.

    Parameters
    ----------
    function : callable
        A kernel, or a function that calls kernels, which is then called as it is.
    first : tuple
        Its first argument.
    """

    def __init__(self, function: Callable, first: tuple) -> None:
        self._function, self.first = function, first
        self._entries: dict[tuple[type, ...], Callable] = {}

    def __call__(self, *rest: object) -> object:
        """Call it with the rest of its arguments.

        Arrays have to be of the same dtype, dimension and layout at each place in all calls.
        """
        kinds = tuple(map(type, rest))
        entry = self._entries.get(kinds)
        if entry is None:
            entry = self._entries[kinds] = _entry(self._function, (self.first, *rest))
        return entry(self.first, *rest)


_entries: dict[tuple, Callable] = {}
"""Compiled code by kernel and kinds of arguments: asking Numba takes a millisecond."""


def _kind(argument: object) -> tuple | type:
    """What decides Numba's type of an argument."""
    if isinstance(argument, np.ndarray):
        flags = argument.flags
        layout = flags.c_contiguous, flags.f_contiguous, flags.aligned, flags.writeable
        return (argument.dtype, argument.ndim, *layout)
    if isinstance(argument, tuple):
        return (type(argument), *map(_kind, argument))
    return type(argument)


def _entry(function: Callable, arguments: tuple) -> Callable:
    """Compiled code of a kernel for such arguments; of anything else, itself."""
    if not hasattr(function, "overloads"):
        return function
    key = function, _kind(arguments)
    entry = _entries.get(key)
    if entry is None:
        kinds = tuple(map(numba.typeof, arguments))
        function.compile(kinds)
        entry = _entries[key] = function.overloads[kinds].entry_point
    return entry


def _refuse(name: str, *arguments: object) -> None:
    raise TypeError(f"{name} is a part of kernels: expected a call from compiled code")
