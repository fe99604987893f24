"""Answers of more than one array: Report (ids of many queries), Top, Work."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


class ResultTooLarge(ValueError):
    """A report would hold more ids than `max_results` allows; raised before it is allocated.

    Examples
    --------
    >>> import halfspace
    >>> index = halfspace.Scan([[0.0], [1.0]])
    >>> try:
    ...     index.report([1.0], 0.0, max_results=1)
    ... except halfspace.ResultTooLarge as error:
    ...     print(error)
    report: expected at most 1 results, got 2
    """


def check_total(total: int, limit: int | None) -> None:
    """Raise ResultTooLarge where a report of so many ids is above the limit."""
    if limit is not None and total > limit:
        raise ResultTooLarge(f"report: expected at most {limit} results, got {total}")


class Report:
    """Ids reported for each of m half-spaces, in CSR form.

    Attributes
    ----------
    indptr : ndarray of int64, shape (m + 1,)
        Query i owns ``indices[indptr[i]:indptr[i + 1]]``.
    indices : ndarray of int64, shape (indptr[-1],)
        Ids, ascending within a query.

    Examples
    --------
    >>> import halfspace
    >>> index = halfspace.build([[0.0], [1.0], [2.0]])
    >>> report = index.report([[1.0], [-1.0]], [1.0, 0.0])
    >>> len(report), report[0].tolist(), report[1].tolist()
    (2, [1, 2], [0])
    >>> [ids.tolist() for ids in report]
    [[1, 2], [0]]
    """

    __slots__ = ("_columns", "indices", "indptr")

    def __init__(self, indptr: np.ndarray, indices: np.ndarray, columns: int | None = None) -> None:
        self.indptr = indptr
        self.indices = indices
        self._columns = columns

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def __getitem__(self, query: int) -> np.ndarray:
        """Ids of one query, ascending: a view, int64."""
        m = len(self)
        if not -m <= query < m:
            raise IndexError(f"query {query} of a report of {m}")
        query %= m
        return self.indices[self.indptr[query] : self.indptr[query + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[query] for query in range(len(self)))

    def __repr__(self) -> str:
        return f"Report({len(self)} queries, {len(self.indices)} ids)"

    def to_scipy(self) -> "csr_matrix":
        """Membership as a sparse boolean matrix (m, n), one row a query, one column a point.

        Raises
        ------
        ValueError
            The index was built with the caller's `ids`, which are not column numbers.

        Examples
        --------
        >>> import halfspace
        >>> index = halfspace.build([[0.0], [1.0], [2.0]])
        >>> index.report([[1.0], [-1.0]], [1.0, 0.0]).to_scipy().toarray()
        array([[False,  True,  True],
               [ True, False, False]])
        """
        from scipy.sparse import csr_matrix

        if self._columns is None:
            raise ValueError("to_scipy: expected ids 0 … n-1 as columns, got the caller's own ids")
        ones = np.ones(len(self.indices), bool)
        return csr_matrix((ones, self.indices, self.indptr), (len(self), self._columns))


class Top(NamedTuple):
    """The k points furthest along each normal, best first, ties to the smaller id.

    `scores` are <w, x> in float64, to about one unit in the last place, and `ids` int64; both (k,)
    for one normal and (m, k) for many.

    Examples
    --------
    >>> import halfspace
    >>> index = halfspace.build([[0.0], [1.0], [2.0]])
    >>> best = index.top([1.0], k=2)
    >>> best.scores, best.ids
    (array([2., 1.]), array([2, 1]))
    """

    scores: np.ndarray
    ids: np.ndarray


class Work(NamedTuple):
    """Deterministic counters of what `report` does for each query, int64 (m,) each.

    A point that repeats the last one that was decided exactly is not decided again, nor counted.

    Examples
    --------
    >>> import halfspace
    >>> index = halfspace.Scan([[0.0], [1.0], [2.0]])
    >>> index.work([[1.0], [-1.0]], [1.0, 0.0])
    Work(nodes_visited=array([0, 0]), points_touched=array([3, 3]), exact_tests=array([1, 1]))
    """

    nodes_visited: np.ndarray
    points_touched: np.ndarray
    exact_tests: np.ndarray
