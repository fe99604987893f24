"""Dynamic: points that come and go, over any structure (the logarithmic method).

What there is at an instant is a `Forest` that does not change (`forest.py`): static segments whose
sizes fall geometrically from each to the next, and a small buffer that is scanned. A change makes a
new forest that shares what is the same and publishes it by one assignment; so readers never wait
and never see half a batch. Deletes leave tombstones (`tombstones.py`); `rebuilding.py` says when
segments are built anew, and `publisher.py` has it done, by the writer or by a thread in the
background, and what came of it seen.

Insert O(log n) rebuilds of a point, amortised: O(log² n) over a structure built in O(n log n).
Delete O(log n) searches and O(n / 64) bits, and a rebuild per point amortised. Queries take the sum
over O(log n) segments: what the structure takes for n points times a constant where that grows like
a power of n, and O(log n) times it at most.

Source: Bentley, Saxe 1980; Overmars 1983.
"""

from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from .buffer import Buffer
from .changes import NO_IDS, Change, all_located, as_rows, next_ids
from .dynamic_state import DynamicState
from .forest import Forest
from .inputs import as_count, as_ids, as_normals, as_points, as_weights
from .opening import checkpoint, flush, open_dynamic, save_dynamic
from .publisher import Publisher
from .rebuilding import HIGH_DIMENSION
from .static_index import StaticIndex
from .tombstones import Rows, Segment

LOW_BUFFER, HIGH_BUFFER = 8192, 32768
"""Points that are scanned before they are built into a segment, where nobody says, below
`HIGH_DIMENSION` and from there on: in three dimensions a scan of the first takes as long as a call,
in many a query takes longer, and so does fitting a structure to few points."""


class Dynamic(Publisher):
    """Points that come and go, over any structure, in segments that grow geometrically.

    Inserts and deletes take amortised logarithmic time; queries what the structure takes, over the
    segments. Answers and errors as for `Index`. Any number of threads may ask while others change
    it: each answer is that of an instant between two changes, and no query waits.

    Parameters
    ----------
    points : array_like, shape (n, d)
        As for `Index`; n may be 0. More points have as many dimensions. They are held in the floats
        they come in; float64 that float32 holds are held so beside float32.
    structure : str or class, optional
        Of the segments: as for `build`, or a class.
    ids : array_like of int, shape (n,), optional
        Distinct 64-bit ids; 0 … n-1 if not given.
    weights : array_like, shape (n,) or (n, w), optional
        Finite weights for `sum`; then all that come later have as many. ``np.empty((0, w))`` where
        there are no points yet.
    buffer : int, optional
        Points that are scanned before they are built into a segment; 8192 if not given, 32768 from
        8 dimensions on.
    queries, expected_count, expected_queries : optional
        As for `build`, for each segment.
    background : bool, optional
        Build segments in a thread, so that changes do not wait for it. `close` ends it.

    Raises
    ------
    TypeError
        Not real numbers; not integers.
    ValueError
        As for `Index` and `build`.

    Notes
    -----
    Insert O(log² n) amortised for structures built in O(n log n); memory is at most twice that of
    the segments while one is built.

    Examples
    --------
    >>> import halfspace
    >>> index = halfspace.Dynamic([[0.0, 0.0], [1.0, 0.0]])
    >>> index.insert([[0.0, 2.0], [3.0, 3.0]])
    array([2, 3])
    >>> index.report([1.0, 1.0], 1.0)
    array([1, 2, 3])
    >>> index.delete([1])
    >>> before = index.snapshot()
    >>> index.update([2], [[-1.0, -1.0]])
    >>> index.report([1.0, 1.0], 1.0), before.report([1.0, 1.0], 1.0)
    (array([3]), array([2, 3]))
    """

    def __init__(
        self,
        points: ArrayLike,
        *,
        structure: str | type[StaticIndex] = "auto",
        ids: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        buffer: int | None = None,
        queries: ArrayLike | None = None,
        expected_count: int | None = None,
        expected_queries: int | None = None,
        background: bool = False,
    ) -> None:
        rows = as_points(points)
        options = {}
        if queries is not None:
            options["queries"] = as_normals(queries, rows.shape[1], "queries")[0].copy()
        if expected_count is not None:
            options["expected_count"] = as_count(expected_count, "expected_count")
        if expected_queries is not None:
            options["expected_queries"] = as_count(expected_queries, "expected_queries")
        names = np.arange(len(rows)) if ids is None else as_ids(ids, len(rows))
        columns, ndim = np.empty((len(rows), 0)), 0
        if weights is not None:
            columns = as_weights(weights, len(rows))
            ndim = columns.ndim
            columns = columns[:, None] if ndim == 1 else columns
        size = LOW_BUFFER if rows.shape[1] < HIGH_DIMENSION else HIGH_BUFFER
        if buffer is not None:
            size = as_count(buffer, "buffer", least=1)
        self._start(structure, size, options)
        empty = Buffer.empty(rows.shape[1], rows.dtype, columns.shape[1])
        forest = Forest((), empty, 0, ids is not None, ndim)
        self._forest = self._added(forest, Rows(rows, names, columns))
        if background:
            self._build_beside()

    @classmethod
    def from_state(cls, state: DynamicState, *, background: bool = False) -> Self:
        """One that is as `state` told. O(log n + dead).

        Examples
        --------
        >>> import halfspace
        >>> index = halfspace.Dynamic([[0.0], [1.0], [2.0]])
        >>> index.delete([1])
        >>> halfspace.Dynamic.from_state(index.state()).report([1.0], 0.0)
        array([0, 2])
        """
        self = cls.__new__(cls)
        self._start(state.structure, state.buffer_size, state.options)
        segments = [
            Segment(index, stale=stale)
            for index, stale in zip(state.segments, state.waiting, strict=True)
        ]
        segments = [
            segment.without(segment.ranks_of(dead)) if len(dead) else segment
            for segment, dead in zip(segments, state.dead, strict=True)
        ]
        points, _, weights = state.buffer
        buffer = Buffer.empty(points.shape[1], points.dtype, weights.shape[1])
        if len(points):
            buffer = buffer.appended(state.buffer)
        words = state.next_id, state.own_ids, state.weights_ndim
        self._forest = Forest([s for s in segments if len(s)], buffer, *words)
        if background:
            self._build_beside()
        return self

    def state(self) -> DynamicState:
        """All that it is at this instant, for `from_state`. O(n / 64).

        Examples
        --------
        >>> import halfspace
        >>> index = halfspace.Dynamic([[0.0], [1.0], [2.0]])
        >>> index.state().next_id
        3
        """
        forest = self._forest
        return DynamicState(
            tuple(segment.index for segment in forest.segments),
            tuple(segment.dead_ids() for segment in forest.segments),
            tuple(segment.stale for segment in forest.segments),
            forest.buffer.rows(),
            forest.next_id,
            forest._own_ids,
            forest._weights_ndim,
            self._structure,
            self._buffer_size,
            dict(self._options),
        )

    def __getstate__(self) -> dict:
        kept = "_forest", "_structure", "_buffer_size", "_options"
        words = {name: getattr(self, name) for name in kept}
        return words | {"background": self._background is not None, "closed": self._closed}

    def __setstate__(self, state: dict) -> None:
        self._start(state["_structure"], state["_buffer_size"], state["_options"])
        self._forest, self._closed = state["_forest"], state["closed"]
        if state["background"] and not self._closed:
            self._build_beside()

    def insert(
        self, points: ArrayLike, ids: ArrayLike | None = None, weights: ArrayLike | None = None
    ) -> np.ndarray:
        """Insert points, all at once.

        Parameters
        ----------
        points : array_like, shape (n, d)
            As at the start.
        ids : array_like of int, shape (n,), optional
            Distinct, and none of a point that is there; those of deleted points may come again. If
            not given, they follow the largest id there ever was.
        weights : array_like, shape (n,) or (n, w), optional
            As at the start, and only if there were any.

        Returns
        -------
        ndarray of int64, shape (n,)
            The ids.

        Raises
        ------
        TypeError, ValueError
            As for `Index`; an id that is there; weights missing, too many or of another shape; a
            closed index. Nothing is inserted then.
        RuntimeError
            Building in the background failed before; raised once, and nothing is inserted.

        Examples
        --------
        >>> import halfspace
        >>> index = halfspace.Dynamic([[0.0], [1.0]])
        >>> index.insert([[5.0]], ids=[70]), index.insert([[6.0]])
        (array([70]), array([71]))
        """
        rows = as_rows(points, self.dim)
        given = None if ids is None else as_ids(ids, len(rows))
        columns = self._as_columns(weights, len(rows))
        with self._writing("insert") as forest:
            names = next_ids(forest, len(rows)) if given is None else given
            self._apply(forest, Change(NO_IDS, Rows(rows, names, columns), given is not None))
        return names.copy()

    def delete(self, ids: ArrayLike) -> None:
        """Delete the points of such ids, all at once.

        Parameters
        ----------
        ids : array_like of int, shape (k,)
            Distinct, each of a point that is there.

        Raises
        ------
        TypeError
            Not integers.
        ValueError
            A wrong shape, an id more than once, one of no point that is there, or a closed index.
            Nothing is deleted then.
        RuntimeError
            Building in the background failed before; raised once, and nothing is deleted.

        Examples
        --------
        >>> import halfspace
        >>> index = halfspace.Dynamic([[0.0], [1.0], [2.0]])
        >>> index.delete([0, 2])
        >>> index.report([1.0], 0.0)
        array([1])
        """
        names = as_ids(ids, np.size(ids))
        with self._writing("delete") as forest:
            self._apply(forest, Change(names, forest.buffer.none().rows(), False))

    def update(self, ids: ArrayLike, points: ArrayLike, weights: ArrayLike | None = None) -> None:
        """Move the points of such ids, all at once; whoever asks finds all of them moved, or none.

        Parameters
        ----------
        ids : array_like of int, shape (n,)
            Distinct, each of a point that is there.
        points : array_like, shape (n, d)
            Where they go.
        weights : array_like, shape (n,) or (n, w), optional
            Theirs from now on; those they have if not given.

        Raises
        ------
        TypeError, ValueError, RuntimeError
            As for `insert` and `delete`. Nothing is moved then.

        Examples
        --------
        >>> import halfspace
        >>> index = halfspace.Dynamic([[0.0], [1.0]], weights=[1.0, 10.0])
        >>> index.update([0], [[5.0]])
        >>> index.sum([1.0], 1.0)
        11.0
        """
        rows = as_rows(points, self.dim)
        names = as_ids(ids, len(rows))
        columns = None if weights is None else self._as_columns(weights, len(rows))
        with self._writing("update") as forest:
            if columns is None:
                columns = forest.weights_of(all_located(forest, names))
            self._apply(forest, Change(names, Rows(rows, names, columns), False))

    def compact(self) -> None:
        """Build all points into one segment, without tombstones. O(a build).

        Examples
        --------
        >>> import numpy as np, halfspace
        >>> index = halfspace.Dynamic(np.arange(200.0)[:, None], structure="scan", buffer=64)
        >>> index.delete(np.arange(50))
        >>> index.compact()
        >>> len(index), len(index.snapshot().segments)
        (150, 1)
        """
        self._compact()

    def snapshot(self) -> Forest:
        """What there is at this instant: an index that answers the same, and does not change. O(1).

        Examples
        --------
        >>> import halfspace
        >>> index = halfspace.Dynamic([[0.0], [1.0]])
        >>> then = index.snapshot()
        >>> index.delete([0])
        >>> len(index), len(then)
        (1, 2)
        """
        return self._forest

    def close(self) -> None:
        """End the thread in the background, if there is one; from now on nothing may change.

        What `open` opened is flushed to the disk, and others may open it.

        Questions are still answered. Closing again does nothing.

        Raises
        ------
        RuntimeError
            Building in the background had failed.

        Examples
        --------
        >>> import halfspace
        >>> with halfspace.Dynamic([[0.0]], background=True) as index:
        ...     ids = index.insert([[1.0]])
        >>> index.report([1.0], 0.0)
        array([0, 1])
        """
        with self._changing:
            self._closed = True
        try:
            if self._background is not None:
                self._background.close()
                self._background.raise_failure()
        finally:
            if self._journal is not None:
                self._journal.close()

    open = classmethod(open_dynamic)
    checkpoint = checkpoint
    flush = flush
    save = save_dynamic

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def replay(self, change: Change) -> None:
        """Make a change that another told its journal.

        Examples
        --------
        >>> import numpy as np, halfspace
        >>> from halfspace.changes import Change
        >>> from halfspace.tombstones import Rows
        >>> index = halfspace.Dynamic([[0.0], [1.0], [2.0]])
        >>> come = Rows(np.array([[5.0]]), np.array([3]), np.empty((1, 0)))
        >>> index.replay(Change(np.array([0, 1]), come, False))
        >>> index.report([1.0], 0.0)
        array([2, 3])
        """
        with self._writing("replay") as forest:
            self._apply(forest, change)

    def explain(self) -> str:
        """Say in a few lines what this index is: its segments, their sizes, and tombstones."""
        _, *lines = self._forest.explain().splitlines()
        how = "in the background" if self._background is not None else "by whoever changes it"
        return "\n".join(
            [
                f"Dynamic: {type(self).__doc__.splitlines()[0]}",
                *lines,
                f"  built    {self._structure}, from {self._buffer_size} points on, {how}",
            ]
        )
