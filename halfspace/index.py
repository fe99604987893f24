"""Index: what every structure answers.

A structure lays its points out in tiles and knows how to *cover* a half-space (`cover.py`) and how
to find the best k (`ranking.py`); checks, batching, threads and the shape of answers are here,
once.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from . import cover, parallel
from .devices import to
from .inputs import Queries, as_count, as_ids, as_normals, as_points, as_queries, as_weights
from .jit import Bound
from .polytope import count_polytope, report_polytope
from .report import Report, ResultTooLarge, Top, Work
from .tiles import arrays_of, bytes_of, frozen

NO_NODES = cover.Nodes(
    frozen(np.empty(0, np.int32)), frozen(np.empty(0, np.int32)), frozen(np.empty((0, 0)))
)

STREAM_QUERIES = 4096
"""Queries whose answers `iter_report` sizes at a time."""


class Index(ABC):
    """Points made ready for half-space queries {x : <w, x> >= b}.

    Every answer is that of real arithmetic on the given floats, ties included, whatever the
    structure, the number of threads or the shape of the batch; only `sum` adds its weights in
    float64, in an order of the structure's own. Reads are safe from many threads.

    Parameters
    ----------
    points : array_like, shape (n, d)
        Finite; float32 or float64, narrower floats and integers are widened without loss. Copied.
    ids : array_like of int, shape (n,), optional
        Distinct 64-bit ids; 0 … n-1 if not given.
    weights : array_like, shape (n,) or (n, w), optional
        Finite weights for `sum`.

    Raises
    ------
    TypeError
        Not real numbers.
    ValueError
        Wrong shape, a NaN or an infinity (the row is named), integers float64 cannot hold, repeated
        ids.
    """

    structure: NamedTuple
    """Flat, read-only arrays with a field `tiles`; usable in compiled code."""

    _cover_kernel: ClassVar[Callable]
    _top_kernel: ClassVar[Callable]
    _polytope_kernel: ClassVar[Callable]

    def __init__(
        self,
        points: ArrayLike,
        *,
        ids: ArrayLike | None = None,
        weights: ArrayLike | None = None,
    ) -> None:
        rows = as_points(points)
        self._reason = "chosen by hand"
        ranks = np.arange(len(rows), dtype=np.int32)
        self._ids = np.empty(0, np.int64)
        if ids is not None:
            given = as_ids(ids, len(rows))
            by_id = np.argsort(given)
            ranks[by_id] = np.arange(len(rows), dtype=np.int32)
            self._ids = given[by_id]
        self._own_ids = ids is not None
        self._weights_ndim = 0
        columns = np.empty((len(rows), 0))
        if weights is not None:
            columns = as_weights(weights, len(rows))
            self._weights_ndim = columns.ndim
            columns = columns[:, None] if columns.ndim == 1 else columns
        self.structure = self._build(rows, ranks, columns)
        self._weights = frozen(columns[by_id] if self._own_ids else columns.copy())
        frozen(self._ids)

    @abstractmethod
    def _build(self, points: np.ndarray, ranks: np.ndarray, weights: np.ndarray) -> NamedTuple:
        """Flat arrays of the structure, with a field `tiles`.

        Parameters
        ----------
        points : ndarray, shape (n, d)
            Checked, float32 or float64.
        ranks : ndarray of int32, shape (n,)
            Rank of each row's id.
        weights : ndarray of float64, shape (n, w)
            w = 0 where there are none.
        """

    @abstractmethod
    def _query_nanoseconds(self) -> float:
        """Rough cost of one query, to decide whether threads pay."""

    @property
    def nodes(self) -> cover.Nodes:
        """Nodes that covers refer to; none for a structure without."""
        return getattr(self.structure, "nodes", NO_NODES)

    def __len__(self) -> int:
        return self.structure.tiles.count

    @property
    def dim(self) -> int:
        """Dimension d of the points."""
        return self.structure.tiles.data.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes held in arrays."""
        return bytes_of((self.structure, self._ids, self._weights))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} points, d = {self.dim})"

    @cached_property
    def _cover(self) -> Bound:
        return Bound(type(self)._cover_kernel, self.structure)

    @cached_property
    def _polytope_cover(self) -> Bound:
        # A structure over a tree is asked as that tree.
        structure = getattr(self.structure, "tree", self.structure)
        return Bound(type(self)._polytope_kernel, structure)

    @cached_property
    def _top(self) -> Bound:
        return Bound(type(self)._top_kernel, self.structure)

    def __getstate__(self) -> dict:
        return {name: value for name, value in vars(self).items() if not isinstance(value, Bound)}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        # A pickle forgets that arrays were read-only, and kernels are compiled for that.
        for array in arrays_of((self.structure, self._ids, self._weights)):
            frozen(array)

    def _covers(
        self,
        queries: Queries,
        closed: bool,
        consume: Callable[[cover.Covers], cover.Kept],
        *,
        stop_at_first: bool = False,
    ) -> list[cover.Kept]:
        return cover.covers(
            self._cover,
            queries.normals,
            queries.offsets,
            closed=bool(closed),
            stop_at_first=stop_at_first,
            nanoseconds=self._query_nanoseconds(),
            consume=consume,
        )

    def _counts(self, queries: Queries, closed: bool) -> np.ndarray:
        counts = self._covers(queries, closed, lambda block: block.counts)
        return np.concatenate([np.zeros(0, np.int64), *counts])

    def cover(
        self, normals: ArrayLike, offsets: ArrayLike, *, closed: bool = True
    ) -> list[cover.Covers]:
        """Canonical covers of the half-spaces, for compiled code that walks the points itself.

        Parameters and errors as for `report`. The blocks are in query order; `structure.tiles` and
        `nodes` say what their parts hold.
        """
        return self._covers(as_queries(normals, offsets, self.dim), closed, cover.keep)

    def report(
        self,
        normals: ArrayLike,
        offsets: ArrayLike,
        *,
        closed: bool = True,
        max_results: int | None = None,
    ) -> np.ndarray | Report:
        """Ids of the points inside each half-space {x : <w, x> >= b}.

        Parameters
        ----------
        normals : array_like, shape (d,) or (m, d)
            Finite. A zero normal takes all points or none.
        offsets : array_like, scalar or shape (m,)
            ``-inf`` takes all points, ``inf`` none.
        closed : bool, optional
            False for the open half-space <w, x> > b.
        max_results : int, optional
            Raise rather than return more ids than this in all.

        Returns
        -------
        ndarray of int64 or Report
            Ascending ids for one query; a `Report` for many.

        Raises
        ------
        ValueError
            Wrong shapes, NaN anywhere, an infinite normal.
        ResultTooLarge
            More than `max_results` ids; raised before they are allocated.

        Examples
        --------
        >>> import halfspace
        >>> index = halfspace.build([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
        >>> index.report([1.0, 1.0], 1.0)
        array([1, 2])
        >>> index.report([1.0, 1.0], 1.0, closed=False)
        array([2])
        """
        queries = as_queries(normals, offsets, self.dim)
        return self._reported(partial(self._covers, queries, closed), queries.single, max_results)

    def _reported(
        self,
        find: Callable[[Callable], list],
        single: bool,
        max_results: int | None,
    ) -> np.ndarray | Report:
        """List the ids of the covers that `find` hands to what it is given."""
        limit = None if max_results is None else as_count(max_results, "max_results")
        if limit is not None:
            total = sum(find(lambda block: int(block.counts.sum())))
            if total > limit:
                raise ResultTooLarge(f"report: expected at most {limit} results, got {total}")
        blocks = find(cover.keep)
        indices = cover.fill(blocks, self.nodes, self.structure.tiles.ranks, self._ids, len(self))
        if single:
            return indices
        indptr = np.cumsum(np.concatenate([np.zeros(1, np.int64), *(b.counts for b in blocks)]))
        return Report(indptr, indices, None if self._own_ids else len(self))

    report_polytope = report_polytope
    count_polytope = count_polytope
    to = to

    def iter_report(
        self,
        normals: ArrayLike,
        offsets: ArrayLike,
        *,
        max_bytes: int = 1 << 28,
        closed: bool = True,
    ) -> Iterator[Report]:
        """Report a large batch piece by piece, in order, in bounded memory.

        Parameters
        ----------
        normals, offsets, closed
            As for `report`, many queries or one.
        max_bytes : int, optional
            Size of the ids of one piece; a piece holds at least one query.

        Yields
        ------
        Report
            Of the next queries.

        Examples
        --------
        >>> import halfspace
        >>> index = halfspace.build([[0.0], [1.0], [2.0]])
        >>> pieces = index.iter_report([[1.0]] * 3, [0.0, 1.0, 2.0], max_bytes=24)
        >>> [piece.indices.tolist() for piece in pieces]
        [[0, 1, 2], [1, 2, 2]]
        """
        # Copied: the caller's arrays may change before the last piece is asked for.
        queries = as_queries(np.array(normals), np.array(offsets), self.dim)
        limit = as_count(max_bytes, "max_bytes") // np.dtype(np.int64).itemsize
        return self._pieces(queries, limit, closed)

    def _pieces(self, queries: Queries, limit: int, closed: bool) -> Iterator[Report]:
        first, sized, ends = 0, 0, np.zeros(1, np.int64)
        while first < len(queries.offsets):
            if sized == first:
                sized = min(first + STREAM_QUERIES, len(queries.offsets))
                counts = self.count(
                    queries.normals[first:sized], queries.offsets[first:sized], closed=closed
                )
                ends = np.cumsum(counts)
            done = len(ends) - (sized - first)
            before = ends[done - 1] if done else 0
            last = first + max(1, int(np.searchsorted(ends[done:] - before, limit, "right")))
            yield self.report(
                queries.normals[first:last], queries.offsets[first:last], closed=closed
            )
            first = last

    def count(
        self, normals: ArrayLike, offsets: ArrayLike, *, closed: bool = True
    ) -> int | np.ndarray:
        """Count the points inside each half-space: int, or int64 (m,).

        Parameters and errors as for `report`.

        Examples
        --------
        >>> import halfspace
        >>> halfspace.build([[0.0], [1.0], [2.0]]).count([1.0], 1.0)
        2
        """
        queries = as_queries(normals, offsets, self.dim)
        counts = self._counts(queries, closed)
        return int(counts[0]) if queries.single else counts

    def any(
        self, normals: ArrayLike, offsets: ArrayLike, *, closed: bool = True
    ) -> bool | np.ndarray:
        """Whether any point is inside each half-space: bool, or bool (m,).

        Parameters and errors as for `report`. Stops at the first point found.

        Examples
        --------
        >>> import halfspace
        >>> halfspace.build([[0.0], [1.0], [2.0]]).any([1.0], 3.0)
        False
        """
        queries = as_queries(normals, offsets, self.dim)
        found = self._covers(queries, closed, lambda b: np.diff(b.indptr) > 0, stop_at_first=True)
        found = np.concatenate([np.zeros(0, bool), *found])
        return bool(found[0]) if queries.single else found

    def sum(
        self, normals: ArrayLike, offsets: ArrayLike, *, closed: bool = True
    ) -> float | np.ndarray:
        """Sum the weights of the points inside each half-space, in float64.

        Parameters and errors as for `report`; ValueError where the index has no weights.

        Returns
        -------
        float or ndarray of float64
            For weights (n,): a float, or (m,). For weights (n, w): (w,) or (m, w).

        Examples
        --------
        >>> import halfspace
        >>> index = halfspace.build([[0.0], [1.0], [2.0]], weights=[1.0, 10.0, 100.0])
        >>> index.sum([1.0], 1.0)
        110.0
        """
        if not self._weights_ndim:
            raise ValueError("sum: expected an index built with weights=, got one without")
        queries = as_queries(normals, offsets, self.dim)
        nodes, ranks, weights = self.nodes, self.structure.tiles.ranks, self._weights
        sums = self._covers(queries, closed, lambda b: cover.weight_sums(b, nodes, ranks, weights))
        sums = np.concatenate([np.zeros((0, weights.shape[1])), *sums])
        if self._weights_ndim == 1:
            sums = sums[:, 0]
            return float(sums[0]) if queries.single else sums
        return sums[0] if queries.single else sums

    def top(self, normals: ArrayLike, k: int) -> Top:
        """Return the k points furthest along each normal, best first, ties to the smaller id.

        Parameters
        ----------
        normals : array_like, shape (d,) or (m, d)
            Finite.
        k : int
            At least 0; at most n are returned.

        Returns
        -------
        Top
            Scores and ids, (min(k, n),) or (m, min(k, n)). The order is that of real arithmetic.

        Raises
        ------
        TypeError
            `k` is not an integer.
        ValueError
            `k` is negative, or normals as for `report`.

        Examples
        --------
        >>> import halfspace
        >>> halfspace.build([[0.0], [2.0], [2.0]]).top([1.0], 2)
        Top(scores=array([2., 2.]), ids=array([1, 2]))
        """
        rows, single = as_normals(normals, self.dim)
        k = min(as_count(k, "k"), len(self))
        slots = np.empty((len(rows), k), np.int64)
        scores = np.empty((len(rows), k))
        if k:
            parallel.run(
                [
                    partial(self._top, rows[a:b], slots[a:b], scores[a:b])
                    for a, b in parallel.parts(len(rows), self._query_nanoseconds() + 100.0 * k)
                ]
            )
            # The order is exact, each score rounded: a later one must not seem larger.
            np.minimum.accumulate(scores, axis=1, out=scores)
        ids = self.structure.tiles.ranks[slots].astype(np.int64)
        if self._own_ids:
            ids = self._ids[ids]
        return Top(scores[0], ids[0]) if single else Top(scores, ids)

    def work(self, normals: ArrayLike, offsets: ArrayLike, *, closed: bool = True) -> Work:
        """Count what `report` does for each query: deterministic, whatever the machine.

        Parameters and errors as for `report`.

        Examples
        --------
        >>> import halfspace
        >>> index = halfspace.Scan([[0.0], [1.0], [2.0]])
        >>> index.work([1.0], 1.0).points_touched
        array([3])
        """
        queries = as_queries(normals, offsets, self.dim)
        work = self._covers(queries, closed, lambda block: block.work)
        rows = np.concatenate([np.zeros((0, 3), np.int64), *work])
        return Work(*(column.copy() for column in rows.T))

    def explain(self) -> str:
        """Say in a few lines what this index is: structure, sizes, why it was chosen."""
        tiles = self.structure.tiles
        lines = [
            f"{type(self).__name__}: {type(self).__doc__.splitlines()[0]}",
            f"  points   {len(self)} x {self.dim}, {tiles.data.dtype}, in {len(tiles.data)} tiles",
            f"  nodes    {np.count_nonzero(self.nodes.last)}",
            f"  memory   {self.nbytes / 1e6:.1f} MB",
            f"  why      {self._reason}",
        ]
        return "\n".join(lines)
