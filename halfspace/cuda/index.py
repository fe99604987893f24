"""CudaIndex: an index whose points are on a device, with the contract and ids of the processor's.

Queries run in groups, so that scratch is bounded; what is done for one group is in `engine.py`.
Checks are those of `inputs.py`, and the shapes of answers those of `index.py`.
"""

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from ..devices import device_number
from ..index import Index
from ..inputs import Queries, as_count, as_normals, as_polytopes, as_queries
from ..report import Report, ResultTooLarge, Top, Work
from .engine import Engine
from .finders import finder_of
from .runtime import empty, get, put, require, synchronize
from .scratch import Scratch, Scratches
from .streams import as_stream, leave, on_host
from .top import sample_bytes, top_of

SCRATCH_BYTES = 1 << 28
"""Scratch that a group of queries may take, where that of one is less."""

Made = TypeVar("Made")


class CudaIndex:
    """An index on a CUDA device: the answers of `Index`, the same ids.

    Made by ``index.to("cuda")``; of a `ShallowCuttings`, its tree goes there. Answers, shapes and
    errors are those of `Index`, and queries may lie on the device too. All that asks, but for
    `iter_report`, takes one more argument, `stream`, in which kernels are launched: None, a stream
    of numba, CuPy or torch, or a handle. Queries on a device are read after what is queued in it,
    and in the stream that their arrays tell. `report`, `report_polytope` and `top` take `on_device`
    as well: True leaves the answer there, in arrays with ``__cuda_array_interface__``. They are
    complete when the call returns or, with a stream, when that is, and they tell it.

    Reads are safe from many threads. The index it was made of is kept on the host.

    Parameters
    ----------
    index : Index
        On the processor.
    number : int
        Of the device.

    Raises
    ------
    CudaUnavailable
        There is no such device, or nothing to run it with.
    OutOfDeviceMemory
        The index, or later an answer, does not fit.

    Examples
    --------
    >>> import halfspace
    >>> host = halfspace.Scan([[0.0], [1.0], [2.0]], weights=[10.0, 20.0, 30.0])
    >>> index = host.to("cuda")  # doctest: +SKIP
    >>> index.report([1.0], 1.0), index.count([1.0], 1.0)  # doctest: +SKIP
    (array([1, 2]), 2)
    >>> index.any([1.0], 3.0), index.sum([1.0], 1.0)  # doctest: +SKIP
    (False, 50.0)
    >>> index.top([1.0], 2).ids  # doctest: +SKIP
    array([2, 1])
    >>> box = [[1.0], [-1.0]], [1.0, -1.0]
    >>> index.report_polytope(*box), index.count_polytope(*box)  # doctest: +SKIP
    (array([1]), 1)
    >>> [part.indices for part in index.iter_report([[1.0]], [1.0])]  # doctest: +SKIP
    [array([1, 2])]
    >>> index.work([1.0], 1.0).points_touched  # doctest: +SKIP
    array([3])
    >>> index.dim, index.device, index.to("cpu") is host  # doctest: +SKIP
    (1, 'cuda:0', True)
    >>> index.nbytes > 0, "cuda:0" in index.explain()  # doctest: +SKIP
    (True, True)
    """

    def __init__(self, index: Index, number: int = 0) -> None:
        self._host, self._number = index, number
        self._scratches = Scratches()
        with require(number):
            self._engine = Engine(finder_of(index), put(index._ids), put(index._weights))
            synchronize()  # streams of others do not wait for copies in this one

    def __len__(self) -> int:
        return len(self._host)

    @property
    def dim(self) -> int:
        """Dimension d of the points."""
        return self._host.dim

    @property
    def device(self) -> str:
        """Where it is: ``"cuda:0"``, say."""
        return f"cuda:{self._number}"

    @property
    def nbytes(self) -> int:
        """Bytes held in arrays on the device, without scratch."""
        held = (*self._engine.finder.arrays, self._engine.ids, self._engine.weights)
        return sum(array.nbytes for array in held)

    def __repr__(self) -> str:
        kind = type(self._host).__name__
        return f"CudaIndex({kind}, {len(self)} points, d = {self.dim}, {self.device})"

    def __reduce__(self) -> tuple:
        return CudaIndex, (self._host, self._number)

    def explain(self) -> str:
        """Say in a few lines what this index is, and where."""
        return f"{self._host.explain()}\n  device   {self.device}, {self.nbytes / 1e6:.1f} MB there"

    def to(self, device: str) -> "Index | CudaIndex":
        """Return the index on a device; parameters and errors as for `Index.to`."""
        number = device_number(device)
        if number is None:
            return self._host
        return self if number == self._number else CudaIndex(self._host, number)

    def _here(self, array: ArrayLike, stream: object) -> ArrayLike:
        return on_host(array, self._number, stream)

    def _queries(self, normals: ArrayLike, offsets: ArrayLike, stream: object) -> Queries:
        return as_queries(self._here(normals, stream), self._here(offsets, stream), self.dim)

    def _by_groups(
        self,
        make: Callable[[slice, Scratch], Made],
        m: int,
        each: int,
        stream: object,
    ) -> list[Made]:
        """What `make` makes of every group of m queries that take `each` bytes of scratch."""
        size = max(1, SCRATCH_BYTES // max(1, each))
        with require(self._number):
            scratch = self._scratches.of(as_stream(stream))
            return [make(slice(a, min(m, a + size)), scratch) for a in range(0, m, size)]

    def _halfspaces(self, queries: Queries, closed: bool) -> Callable:
        """What gives a group's bits by rank; how many queries there are, and their scratch."""
        sides = np.full(len(queries.offsets), bool(closed))

        def bits(some: slice, scratch: Scratch) -> object:
            return self._engine.inside(_part(queries, some), sides[some], scratch)

        return bits, len(sides), self._engine.query_bytes

    def _polytopes(
        self, normals: ArrayLike, offsets: ArrayLike, closed: ArrayLike, stream: object
    ) -> tuple:
        """The same of polytopes, and whether there is a single one."""
        arrays = (self._here(array, stream) for array in (normals, offsets, closed))
        given = as_polytopes(*arrays, self.dim)

        def bits(some: slice, scratch: Scratch) -> object:
            faces = (np.ascontiguousarray(array[some]) for array in given[:3])
            return self._engine.inside_polytopes(*faces, scratch)

        m, h, _ = given.normals.shape
        return (bits, m, (1 + max(h, 1)) * self._engine.query_bytes), given.single

    def _counted(self, asked: tuple, stream: object) -> np.ndarray:
        bits, m, each = asked

        def count(some: slice, scratch: Scratch) -> np.ndarray:
            return self._engine.count(bits(some, scratch), scratch)

        counts = self._by_groups(count, m, each, stream)
        return np.concatenate([np.zeros(0, np.int64), *counts])

    def _reported(
        self, asked: tuple, single: bool, max_results: int | None, on_device: bool, stream: object
    ) -> np.ndarray | Report:
        bits, m, each = asked
        if max_results is not None:
            limit = as_count(max_results, "max_results")
            total = int(self._counted(asked, stream).sum())
            if total > limit:
                raise ResultTooLarge(f"report: expected at most {limit} results, got {total}")
        engine = self._engine

        def ids(some: slice, scratch: Scratch) -> tuple[object, np.ndarray]:
            listed, starts = engine.list(bits(some, scratch), engine.ids, np.int64, scratch)
            return listed if on_device else get(listed, scratch.stream), starts

        found = self._by_groups(ids, m, each, stream)
        none = np.empty(0, np.int64)
        indices = self._joined([ids for ids, _ in found], none, on_device, stream)
        if single:
            return self._left([indices], stream)[0] if on_device else indices
        counts = [np.diff(starts) for _, starts in found]
        indptr = np.cumsum(np.concatenate([np.zeros(1, np.int64), *counts]))
        if on_device:
            indptr, indices = self._left([indptr, indices], stream)
        return Report(indptr, indices, None if self._host._own_ids else len(self))

    def _joined(self, pieces: list, none: np.ndarray, on_device: bool, stream: object) -> object:
        """Arrays one after another along the first axis; `none` where there are none."""
        if len(pieces) == 1:
            return pieces[0]
        if not on_device:
            return np.concatenate([none, *pieces])
        with require(self._number):
            first, flow = 0, as_stream(stream)
            if not pieces:
                return put(none)
            whole = empty((sum(map(len, pieces)), *none.shape[1:]), none.dtype)
            for piece in pieces:
                if piece.size:
                    whole[first : first + len(piece)].copy_to_device(piece, stream=flow)
                first += len(piece)
        return whole

    def _left(self, arrays: list, stream: object) -> list:
        """Arrays that answers leave on the device, those of the host copied."""
        with require(self._number):
            flow = as_stream(stream)
            return leave([put(a, flow) if isinstance(a, np.ndarray) else a for a in arrays], flow)

    def report(
        self,
        normals: ArrayLike,
        offsets: ArrayLike,
        *,
        closed: bool = True,
        max_results: int | None = None,
        on_device: bool = False,
        stream: object = None,
    ) -> np.ndarray | Report:
        """Ids of the points inside each half-space, as `Index.report`.

        What the structure takes, and O(n / 8) bytes a query to list them.
        """
        queries = self._queries(normals, offsets, stream)
        asked = self._halfspaces(queries, closed)
        return self._reported(asked, queries.single, max_results, on_device, stream)

    def count(
        self,
        normals: ArrayLike,
        offsets: ArrayLike,
        *,
        closed: bool = True,
        stream: object = None,
    ) -> int | np.ndarray:
        """Count the points inside each half-space, as `Index.count`."""
        queries = self._queries(normals, offsets, stream)
        counts = self._counted(self._halfspaces(queries, closed), stream)
        return int(counts[0]) if queries.single else counts

    def report_polytope(
        self,
        normals: ArrayLike,
        offsets: ArrayLike,
        *,
        closed: bool | ArrayLike = True,
        max_results: int | None = None,
        on_device: bool = False,
        stream: object = None,
    ) -> np.ndarray | Report:
        """Ids of the points inside all half-spaces of each polytope, as `Index.report_polytope`."""
        asked, single = self._polytopes(normals, offsets, closed, stream)
        return self._reported(asked, single, max_results, on_device, stream)

    def count_polytope(
        self,
        normals: ArrayLike,
        offsets: ArrayLike,
        *,
        closed: bool | ArrayLike = True,
        stream: object = None,
    ) -> int | np.ndarray:
        """Count the points inside all half-spaces of each polytope, as `Index.count_polytope`."""
        asked, single = self._polytopes(normals, offsets, closed, stream)
        counts = self._counted(asked, stream)
        return int(counts[0]) if single else counts

    def iter_report(
        self,
        normals: ArrayLike,
        offsets: ArrayLike,
        *,
        max_bytes: int = 1 << 28,
        closed: bool = True,
    ) -> Iterator[Report]:
        """Report a large batch piece by piece, in order, as `Index.iter_report`."""
        given = self._here(normals, None), self._here(offsets, None)
        return Index.iter_report(self, *given, max_bytes=max_bytes, closed=closed)

    _pieces = Index._pieces

    def any(
        self,
        normals: ArrayLike,
        offsets: ArrayLike,
        *,
        closed: bool = True,
        stream: object = None,
    ) -> bool | np.ndarray:
        """Whether any point is inside each half-space, as `Index.any`."""
        queries = self._queries(normals, offsets, stream)
        sides = np.full(len(queries.offsets), bool(closed))

        def occupied(some: slice, scratch: Scratch) -> np.ndarray:
            to = self._engine.find(_part(queries, some), sides[some], scratch, stop=True)
            return get(to.found, scratch.stream) != 0

        found = self._by_groups(occupied, len(sides), self._engine.query_bytes, stream)
        found = np.concatenate([np.zeros(0, bool), *found])
        return bool(found[0]) if queries.single else found

    def sum(
        self,
        normals: ArrayLike,
        offsets: ArrayLike,
        *,
        closed: bool = True,
        stream: object = None,
    ) -> float | np.ndarray:
        """Sum the weights of the points inside each half-space, in float64, as `Index.sum`.

        The order of the sum is that of the ids, in parts: the same at every call.
        """
        ndim, engine = self._host._weights_ndim, self._engine
        if not ndim:
            raise ValueError("sum: expected an index built with weights=, got one without")
        queries = self._queries(normals, offsets, stream)
        bits, m, each = self._halfspaces(queries, closed)
        sums = self._by_groups(
            lambda some, scratch: engine.sum(bits(some, scratch), scratch),
            m,
            each + engine.sum_bytes,
            stream,
        )
        sums = np.concatenate([np.zeros((0, engine.weights.shape[1])), *sums])
        if ndim == 1:
            sums = sums[:, 0]
            return float(sums[0]) if queries.single else sums
        return sums[0] if queries.single else sums

    def top(
        self, normals: ArrayLike, k: int, *, on_device: bool = False, stream: object = None
    ) -> Top:
        """Return the k points furthest along each normal, as `Index.top`."""
        rows, single = as_normals(self._here(normals, stream), self.dim)
        m, k = len(rows), min(as_count(k, "k"), len(self))

        def blocks(some: slice, scratch: Scratch) -> list[tuple[object, object]]:
            found = top_of(self._engine, rows[some], k, SCRATCH_BYTES, scratch)
            if on_device:
                return found
            return [tuple(get(array, scratch.stream) for array in block) for block in found]

        each = self._engine.query_bytes + sample_bytes(self._engine, k)
        groups = self._by_groups(blocks, m if k else 0, each, stream)
        found = [block for group in groups for block in group]
        rest = 0 if k else m
        scores, ids = (
            self._joined(
                [block[i] for block in found], np.empty((rest, k), kind), on_device, stream
            )
            for i, kind in enumerate((np.float64, np.int64))
        )
        if on_device:
            scores, ids = self._left([scores, ids], stream)
        return Top(scores[0], ids[0]) if single else Top(scores, ids)

    def work(
        self,
        normals: ArrayLike,
        offsets: ArrayLike,
        *,
        closed: bool = True,
        stream: object = None,
    ) -> Work:
        """Count what `report` does for each query, as `Index.work`.

        Floats are added up in another order than on the processor, so the few points that filters
        leave open may be others, and the nodes that straddle by a rounding error.
        """
        queries = self._queries(normals, offsets, stream)
        sides = np.full(len(queries.offsets), bool(closed))

        def counters(some: slice, scratch: Scratch) -> np.ndarray:
            to = self._engine.find(_part(queries, some), sides[some], scratch, counting=True)
            return get(to.work, scratch.stream)

        rows = self._by_groups(counters, len(sides), self._engine.query_bytes, stream)
        rows = np.concatenate([np.zeros((0, 3), np.int64), *rows])
        return Work(*(column.copy() for column in rows.T))


def _part(queries: Queries, some: slice) -> Queries:
    return Queries(queries.normals[some], queries.offsets[some], False)
