"""Half-space queries over points on many machines: one index a partition, kept on a Dask worker.

Points are a `dask.array`, or files that the workers can read; each partition becomes an index where
Dask puts it, and the points themselves are let go. A query goes to every partition, and what comes
back is joined (`joining.py`): the same ids, in the same order, as one index over all points gives.

An index is a task of a Dask graph whose source is the chunk of the array or the file. So the index
of a worker that is lost is built anew from there by another, and whatever was asked of it is asked
again: that is Dask's doing, and nothing is kept twice for it.

Needs dask and distributed (the extra ``dask``).
"""

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from dask import delayed
from dask.delayed import Delayed
from distributed import Client, Future, default_client
from numpy.typing import ArrayLike

from .inputs import Queries, as_count, as_normals, as_queries
from .joining import (
    Part,
    PartTop,
    as_top,
    follow_reports,
    join_reports,
    join_tops,
    part_report,
    part_top,
)
from .planner import build as build_index
from .planner import structure_name
from .point_files import open_points
from .report import Report, Top, check_total
from .static_index import StaticIndex

MESSAGE_BYTES = 1 << 22
"""Bytes of normals that go to a partition at a time; larger messages slow a scheduler down."""

Source = Any
"""A `dask.array.Array` with rows in chunks, or a list of paths of files."""


def _read(path: str | os.PathLike) -> np.ndarray:
    return open_points(path).points()


def partitions(source: Source, name: str) -> list[Delayed]:
    """Rows of each partition, not computed yet.

    Raises
    ------
    TypeError
        Neither an array of Dask nor a list of paths.
    ValueError
        No partition.
    """
    if isinstance(source, list | tuple) and all(isinstance(p, str | os.PathLike) for p in source):
        found = [delayed(_read)(path) for path in source]
    elif hasattr(source, "to_delayed") and hasattr(source, "rechunk"):
        whole = source.rechunk(dict.fromkeys(range(1, source.ndim), -1))
        found = whole.to_delayed().ravel().tolist()
    else:
        raise TypeError(
            f"{name}: expected a dask.array or a list of paths, got {type(source).__name__}"
        )
    if not found:
        raise ValueError(f"{name}: expected at least one partition, got none")
    return found


def _made(make: Callable[..., Any], number: int, *blocks: np.ndarray) -> Any:
    """What `make` makes of a partition; errors say of which."""
    try:
        return make(*blocks)
    except (TypeError, ValueError) as wrong:
        raise type(wrong)(f"partition {number}: {wrong}") from wrong


class Shards:
    """What is made of partitions, one object each, kept on the workers of a cluster.

    Parameters
    ----------
    client : distributed.Client, optional
        The current one if not given.
    """

    def __init__(self, client: Client | None) -> None:
        self.client = default_client() if client is None else client
        self.futures: tuple[Future, ...] = ()

    def __len__(self) -> int:
        return len(self.futures)

    def add(self, make: Callable[..., Any], sources: dict[str, Source]) -> None:
        """Add ``make(*rows)`` for the rows of each partition of the sources, side by side.

        Raises
        ------
        ValueError
            Sources of different numbers of partitions; or what `make` raises, with the number of
            the partition.
        """
        named = {name: partitions(source, name) for name, source in sources.items()}
        first, *others = named
        for name in others:
            if len(named[name]) != len(named[first]):
                raise ValueError(
                    f"{name}: expected as many partitions as {first} has, {len(named[first])}, "
                    f"got {len(named[name])}"
                )
        tasks = [
            delayed(_made, pure=False)(make, len(self) + number, *blocks)
            for number, blocks in enumerate(zip(*named.values(), strict=True))
        ]
        futures = self.client.compute(tasks)
        self.client.gather(self.client.map(_ready, futures, pure=False))
        self.futures = (*self.futures, *futures)

    def ask(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Return ``function(object, *arguments)`` of each object, in order, asked side by side."""
        asked = [
            self.client.submit(function, future, *arguments, pure=False) for future in self.futures
        ]
        return self.client.gather(asked)


def _ready(made: object) -> None:
    """Nothing: to wait for it, and hear its errors."""


def _make_index(structure: str, options: dict, *blocks: np.ndarray) -> StaticIndex:
    points, *weights = blocks
    return build_index(points, structure, weights=weights[0] if weights else None, **options)


def _facts(index: StaticIndex) -> tuple[int, int, int, int, str]:
    return len(index), index.dim, index._weights_ndim, index.nbytes, type(index).__name__


def _report(index: StaticIndex, queries: Queries, closed: bool) -> Report:
    return part_report(Part(index, 0), queries, closed)


def _count(index: StaticIndex, queries: Queries, closed: bool) -> np.ndarray:
    return index.count(queries.normals, queries.offsets, closed=closed)


def _any(index: StaticIndex, queries: Queries, closed: bool) -> np.ndarray:
    return index.any(queries.normals, queries.offsets, closed=closed)


def _sum(index: StaticIndex, queries: Queries, closed: bool) -> np.ndarray:
    return index.sum(queries.normals, queries.offsets, closed=closed)


def _top(index: StaticIndex, normals: np.ndarray, k: int) -> PartTop:
    return part_top(Part(index, 0), normals, k)


class DistributedIndex:
    """Points in partitions on the workers of a Dask cluster, asked as one index.

    Answers as `Index`: the same ids as on one machine, ties included, whatever the partitions are.
    Ids are row numbers over all partitions in order.

    Parameters
    ----------
    points : dask.array.Array, shape (n, d), or list of path
        Chunks of rows, or .npy, .npz, .csv and .parquet files that all workers can read. A
        partition has to fit into the memory of a worker some four times.
    structure : str, optional
        Of each partition, as for `build`.
    weights : dask.array.Array, shape (n,) or (n, w), or list of path, optional
        For `sum`, in as many partitions, with as many rows each.
    queries, expected_count, expected_queries : optional
        As for `build`, for each partition.
    client : distributed.Client, optional
        The current one if not given.

    Raises
    ------
    TypeError, ValueError
        As for `build`, with the number of the partition; partitions of different dimensions; no
        client.

    Notes
    -----
    A query takes what it takes of the largest partition, a round trip to the scheduler, and the
    answer's way back. Workers answer with the threads of `set_threads`: one each where a machine
    has as many workers as processors.

    Examples
    --------
    >>> import dask.array as da, numpy as np
    >>> from distributed import Client
    >>> from halfspace.distributed import DistributedIndex
    >>> points = np.random.default_rng(0).standard_normal((2_000, 3))
    >>> rows, ones = da.from_array(points, chunks=(500, 3)), da.ones(2_000, chunks=500)
    >>> half = [1.0, 2.0, 2.0], 7.5
    >>> with Client(processes=False, n_workers=2, dashboard_address=":0") as client:
    ...     index = DistributedIndex(rows[:1_500], weights=ones[:1_500], client=client)
    ...     index.append(rows[1_500:], ones[1_500:])
    ...     ids, best = index.report(*half), index.top(half[0], 2).ids
    ...     index.count(*half), index.any(*half), index.sum(*half)
    (6, True, 6.0)
    >>> ids.tolist(), best.tolist()
    ([363, 854, 1107, 1251, 1806, 1970], [1251, 1107])
    >>> len(index), index.dim, index.nbytes > points.nbytes
    (2000, 3, True)
    >>> print(index.explain())
    DistributedIndex(2000 points, d = 3, 4 shards), 0.1 MB
         0  500 points in Scan, 0.0 MB
         1  500 points in Scan, 0.0 MB
         2  500 points in Scan, 0.0 MB
         3  500 points in Scan, 0.0 MB
    """

    def __init__(
        self,
        points: Source,
        structure: str = "auto",
        *,
        weights: Source | None = None,
        queries: ArrayLike | None = None,
        expected_count: int | None = None,
        expected_queries: int | None = None,
        client: Client | None = None,
    ) -> None:
        options = {
            "queries": queries,
            "expected_count": expected_count,
            "expected_queries": expected_queries,
        }
        self._make = partial(_make_index, structure_name(structure), options)
        self._shards = Shards(client)
        self._weighted = weights is not None
        self._firsts, self._facts = np.zeros(1, np.int64), []
        self.append(points, weights)

    def append(self, points: Source, weights: Source | None = None) -> None:
        """Add partitions behind those there are; their ids follow.

        Parameters and errors as at the start; weights if, and only if, there are any already.
        """
        if (weights is not None) != self._weighted:
            wanted = "weights, as at the start" if self._weighted else "no weights, as at the start"
            raise ValueError(f"weights: expected {wanted}")
        more = Shards(self._shards.client)
        more.add(self._make, {"points": points, **({"weights": weights} if self._weighted else {})})
        facts = [*self._facts, *more.ask(_facts)]
        for name, place in (("dimensions", 1), ("axes of weights", 2)):
            if len({fact[place] for fact in facts}) > 1:
                known = ", ".join(str(fact[place]) for fact in facts)
                raise ValueError(f"points: expected partitions of equal {name}, got {known}")
        self._shards.futures += more.futures
        self._facts, self._firsts = facts, np.cumsum([0, *(fact[0] for fact in facts)])

    def __len__(self) -> int:
        return int(self._firsts[-1])

    @property
    def dim(self) -> int:
        """Dimension d of the points."""
        return self._facts[0][1]

    @property
    def nbytes(self) -> int:
        """Bytes held in arrays, on all workers."""
        return sum(fact[3] for fact in self._facts)

    def __repr__(self) -> str:
        return f"DistributedIndex({len(self)} points, d = {self.dim}, {len(self._shards)} shards)"

    def explain(self) -> str:
        """Say in a few lines what there is on the workers."""
        lines = [
            f"{self!r}, {self.nbytes / 1e6:.1f} MB",
            *(
                f"  {number:4}  {n} points in {kind}, {nbytes / 1e6:.1f} MB"
                for number, (n, _, _, nbytes, kind) in enumerate(self._facts)
            ),
        ]
        return "\n".join(lines)

    def report(
        self,
        normals: ArrayLike,
        offsets: ArrayLike,
        *,
        closed: bool = True,
        max_results: int | None = None,
    ) -> np.ndarray | Report:
        """Ids of the points inside each half-space; as `Index.report`."""
        queries = as_queries(normals, offsets, self.dim)
        limit = None if max_results is None else as_count(max_results, "max_results")
        if limit is not None:
            check_total(int(self._counted(queries, closed).sum()), limit)
        found = [self._joined(block, closed) for block in _blocks(queries)]
        report = follow_reports(found, len(self))
        return report.indices if queries.single else report

    def _joined(self, queries: Queries, closed: bool) -> Report:
        parts = self._shards.ask(_report, queries, bool(closed))
        # Arrays that came in a message may be read-only.
        moved = [
            Report(part.indptr, part.indices + first)
            for part, first in zip(parts, self._firsts[:-1], strict=True)
        ]
        return join_reports(moved, len(self))

    def count(
        self, normals: ArrayLike, offsets: ArrayLike, *, closed: bool = True
    ) -> int | np.ndarray:
        """Count the points inside each half-space; as `Index.count`."""
        queries = as_queries(normals, offsets, self.dim)
        counts = self._counted(queries, closed)
        return int(counts[0]) if queries.single else counts

    def _counted(self, queries: Queries, closed: bool) -> np.ndarray:
        return self._added(_count, queries, closed, np.zeros(0, np.int64))

    def any(
        self, normals: ArrayLike, offsets: ArrayLike, *, closed: bool = True
    ) -> bool | np.ndarray:
        """Whether any point is inside each half-space; as `Index.any`."""
        queries = as_queries(normals, offsets, self.dim)
        found = self._added(_any, queries, closed, np.zeros(0, bool))
        return bool(found[0]) if queries.single else found

    def sum(
        self, normals: ArrayLike, offsets: ArrayLike, *, closed: bool = True
    ) -> float | np.ndarray:
        """Sum the weights of the points inside each half-space; as `Index.sum`."""
        if not self._weighted:
            raise ValueError("sum: expected an index built with weights=, got one without")
        queries = as_queries(normals, offsets, self.dim)
        none = np.zeros(0) if self._facts[0][2] == 1 else self._no_sums()
        sums = self._added(_sum, queries, closed, none)
        if queries.single:
            return float(sums[0]) if sums.ndim == 1 else sums[0]
        return sums

    def _no_sums(self) -> np.ndarray:
        """Sums (0, w) of no query."""
        return self._shards.ask(_sum, Queries(np.empty((0, self.dim)), np.empty(0), False), True)[0]

    def _added(
        self, function: Callable, queries: Queries, closed: bool, none: np.ndarray
    ) -> np.ndarray:
        """What parts say of each query, added up; `none` for no query."""
        found = [
            np.add.reduce(self._shards.ask(function, block, bool(closed)), dtype=none.dtype)
            for block in _blocks(queries)
        ]
        return np.concatenate([none, *found])

    def top(self, normals: ArrayLike, k: int) -> Top:
        """Return the k points furthest along each normal, best first; as `Index.top`."""
        rows, single = as_normals(normals, self.dim)
        k = min(as_count(k, "k"), len(self))
        blocks = _blocks(Queries(rows, np.zeros(len(rows)), False))
        found = [self._best(block.normals, k) for block in blocks]
        none = PartTop(np.empty((0, k)), np.empty((0, k), np.int64), np.empty((0, k, self.dim)))
        joined = PartTop(*(np.concatenate(fields) for fields in zip(none, *found, strict=True)))
        return as_top(joined, single)

    def _best(self, normals: np.ndarray, k: int) -> PartTop:
        parts = self._shards.ask(_top, normals, k)
        moved = [
            part._replace(ids=part.ids + first)
            for part, first in zip(parts, self._firsts[:-1], strict=True)
        ]
        return join_tops(moved, normals, k)


def _blocks(queries: Queries) -> Iterator[Queries]:
    """Queries, as many at a time as go in a message."""
    step = max(1, MESSAGE_BYTES // (8 * (queries.normals.shape[1] + 1)))
    for first in range(0, len(queries.offsets), step):
        some = slice(first, first + step)
        yield Queries(queries.normals[some], queries.offsets[some], False)
