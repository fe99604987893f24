"""Index: what everything that holds points answers.

Checks of what comes in and the shape of answers are here, once. How a batch is answered is left to
those below: one structure (`static_index.py`), or several with points that come and go
(`forest.py`, `dynamic.py`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .cover import Covers, Kept
from .inputs import Queries, as_count, as_normals, as_queries
from .polytope import count_polytope, report_polytope
from .report import Report, Top, Work

if TYPE_CHECKING:
    from .static_index import StaticIndex

STREAM_QUERIES = 4096
"""Queries whose answers `iter_report` sizes at a time."""

Find = Callable[..., list[Kept]]
"""``find(index, consume, stop_at_first=False)``: cover a batch by a `StaticIndex`, and keep what
`consume` makes of each block; see `cover.covers`."""


class Listed(NamedTuple):
    """What a `Report` is made of."""

    indptr: np.ndarray
    indices: np.ndarray
    columns: int | None  # of the matrix, where ids are columns


def halfspaces(queries: Queries, closed: bool) -> Find:
    """How half-spaces are found."""
    return partial(_find_halfspaces, queries, bool(closed))


def _find_halfspaces(
    queries: Queries,
    closed: bool,
    index: "StaticIndex",
    consume: Callable[[Covers], Kept],
    stop_at_first: bool = False,
) -> list[Kept]:
    return index._covers(queries, closed, consume, stop_at_first=stop_at_first)


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

    Examples
    --------
    >>> import halfspace
    >>> index: halfspace.Index = halfspace.KDTree([[0.0, 0.0], [3.0, 4.0]])
    >>> index, len(index), index.count([3.0, 4.0], 5.0)
    (KDTree(2 points, d = 2), 2, 1)
    """

    _own_ids: bool
    """Whether ids are the caller's."""

    _weights_ndim: int
    """Axes of the weights as they were given; 0 where there are none."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of points."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """Dimension d of the points.

        Examples
        --------
        >>> import halfspace
        >>> halfspace.Scan([[0.0, 1.0, 2.0]]).dim
        3
        """

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes held in arrays.

        Examples
        --------
        >>> import numpy as np, halfspace
        >>> halfspace.Scan(np.zeros((640, 3), np.float32)).nbytes / 640
        16.125
        """

    @abstractmethod
    def explain(self) -> str:
        """Say in a few lines what this index is: structure, sizes, why it was chosen.

        Examples
        --------
        >>> import halfspace
        >>> print(halfspace.Scan([[0.0], [1.0]]).explain())
        Scan: Brute force over tiles: every point, every query.
          points   2 x 1, float64, in 1 tiles
          nodes    0
          memory   0.0 MB
          why      chosen by hand
        """

    @abstractmethod
    def _listed(self, find: Find, limit: int | None) -> Listed:
        """Ids in each range; ResultTooLarge where there are more than `limit`."""

    @abstractmethod
    def _counted(self, find: Find) -> np.ndarray:
        """Points in each range, int64 (m,)."""

    @abstractmethod
    def _occupied(self, find: Find) -> np.ndarray:
        """Whether there are any, bool (m,)."""

    @abstractmethod
    def _summed(self, find: Find) -> np.ndarray:
        """Their weights, float64 (m, w)."""

    @abstractmethod
    def _best(self, normals: np.ndarray, k: int) -> Top:
        """The k best along each normal, or all if they are fewer: (m, min(k, n))."""

    @abstractmethod
    def _worked(self, find: Find) -> np.ndarray:
        """Counters of `Work`, int64 (m, 3)."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} points, d = {self.dim})"

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
        return self._reported(halfspaces(queries, closed), queries.single, max_results)

    def _reported(self, find: Find, single: bool, max_results: int | None) -> np.ndarray | Report:
        limit = None if max_results is None else as_count(max_results, "max_results")
        listed = self._listed(find, limit)
        return listed.indices if single else Report(*listed)

    report_polytope = report_polytope
    count_polytope = count_polytope

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
        counts = self._counted(halfspaces(queries, closed))
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
        found = self._occupied(halfspaces(queries, closed))
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
        sums = self._summed(halfspaces(queries, closed))
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
        scores, ids = self._best(rows, as_count(k, "k"))
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
        rows = self._worked(halfspaces(queries, closed))
        return Work(*(column.copy() for column in rows.T))
