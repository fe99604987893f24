"""StaticIndex: points in one structure, which does not change.

A structure lays its points out in tiles and knows how to *cover* a half-space (`cover.py`) and how
to find the best k (`ranking.py`); batching, threads and what is made of covers are here, once.
"""

from abc import abstractmethod
from collections.abc import Callable
from functools import cached_property, partial
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from . import cover, parallel
from .devices import to
from .index import Find, Index, Listed
from .inputs import Queries, as_ids, as_points, as_queries, as_weights, ascends
from .jit import Bound
from .layout import without
from .memory import check_room
from .report import Top, check_total
from .state import save
from .tiles import ALL_LIVE, arrays_of, bytes_of, frozen

NO_NODES = cover.Nodes(
    frozen(np.empty(0, np.int32)), frozen(np.empty(0, np.int32)), frozen(np.empty((0, 0)))
)


BUILD_NANOSECONDS = 100.0
"""What a build takes for each coordinate, about, or more."""

_BOUND = frozenset({"_cover", "_polytope_cover", "_top"})
"""Attributes that are compiled code."""


class StaticIndex(Index):
    """Points in one structure, which does not change.

    Parameters, answers and errors as for `Index`.
    """

    structure: NamedTuple
    """Flat, read-only arrays with a field `tiles`; usable in compiled code."""

    _kind: ClassVar[str]
    """Name in files."""

    _arrays: ClassVar[type]
    """Named tuple of `structure`."""

    _views: ClassVar[frozenset[str]] = frozenset()
    """Parts of it that are views of others, by name."""

    _check: ClassVar[Callable[[NamedTuple, int], None]]
    """Raises ValueError where arrays of so many points, as stored, are not safe to be asked."""

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
        check_room(rows.nbytes, f"{type(self).__name__}: build")
        parallel.interruptible(
            lambda: self._make(rows, ids, weights), BUILD_NANOSECONDS * rows.size
        )

    def _make(self, rows: np.ndarray, ids: ArrayLike | None, weights: ArrayLike | None) -> None:
        """Build of points that were checked."""
        self._reason = "chosen by hand"
        ranks = np.arange(len(rows), dtype=np.int32)
        self._ids, by_id = np.empty(0, np.int64), slice(None)
        if ids is not None:
            self._ids = as_ids(ids, len(rows))
            if not ascends(self._ids):
                by_id = np.argsort(self._ids)
                ranks[by_id] = np.arange(len(rows), dtype=np.int32)
                self._ids = self._ids[by_id]
        self._own_ids = ids is not None
        self._weights_ndim = 0
        columns = np.empty((len(rows), 0))
        if weights is not None:
            columns = as_weights(weights, len(rows))
            self._weights_ndim = columns.ndim
            columns = columns[:, None] if columns.ndim == 1 else columns
        self.structure = self._build(rows, ranks, columns)
        self._weights = frozen(columns[by_id].copy())
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

    def _with_views(self, structure: NamedTuple, count: int) -> NamedTuple:
        """Structure of so many points with what `_views` names."""
        return structure

    def _description(self) -> dict:
        """What is stored beside arrays, of what JSON has."""
        return {}

    @staticmethod
    def _recall(structure: NamedTuple, description: dict) -> dict:
        """Attributes that `_description` told; ValueError if it is no such description."""
        return {}

    @abstractmethod
    def _query_nanoseconds(self) -> float:
        """Rough cost of one query, to decide whether threads pay."""

    @property
    def nodes(self) -> cover.Nodes:
        """Nodes that covers refer to; none for a structure without.

        Examples
        --------
        >>> import numpy as np, halfspace
        >>> tree = halfspace.KDTree(np.random.default_rng(0).standard_normal((640, 2)))
        >>> int(np.count_nonzero(tree.nodes.last))
        10
        """
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
        state = {name: value for name, value in vars(self).items() if name not in _BOUND}
        # A pickle would not know what are views, and hold them twice.
        return state | {"structure": without(self.structure, self._views), "count": len(self)}

    def __setstate__(self, state: dict) -> None:
        count = state.pop("count")
        self.__dict__.update(state)
        self.structure = self._with_views(self.structure, count)
        # A pickle forgets that arrays were read-only, and kernels are compiled for that.
        for array in arrays_of((self.structure, self._ids, self._weights)):
            frozen(array)

    save = save
    to = to

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

    def cover(
        self, normals: ArrayLike, offsets: ArrayLike, *, closed: bool = True
    ) -> list[cover.Covers]:
        """Canonical covers of the half-spaces, for compiled code that walks the points itself.

        Parameters and errors as for `report`. The blocks are in query order; `structure.tiles` and
        `nodes` say what their parts hold.

        Examples
        --------
        >>> import halfspace
        >>> index = halfspace.Scan([[0.0], [1.0], [2.0]])
        >>> (block,) = index.cover([[1.0], [1.0]], [1.0, 5.0])
        >>> block.counts
        array([2, 0])
        """
        return self._covers(as_queries(normals, offsets, self.dim), closed, cover.keep)

    def _listed(self, find: Find, limit: int | None) -> Listed:
        if limit is not None:
            check_total(sum(find(self, lambda block: block.total)), limit)
        blocks = find(self, cover.keep)
        indptr = np.zeros(sum(map(len, blocks)) + 1, np.int64)
        if len(indptr) == 2:
            indptr[1] = blocks[0].counts[0]
        else:
            np.concatenate([np.zeros(1, np.int64), *(b.counts for b in blocks)]).cumsum(out=indptr)
        check_room(indptr[-1] * 8, "report")
        indices = np.empty(indptr[-1], np.int64)
        ranks = self.structure.tiles.ranks
        cover.fill(blocks, self.nodes, ranks, self._ids, len(self), indptr[:-1], indices)
        return Listed(indptr, indices, None if self._own_ids else len(self))

    def _counted(self, find: Find) -> np.ndarray:
        counts = find(self, lambda block: block.counts)
        return np.concatenate([np.zeros(0, np.int64), *counts])

    def _occupied(self, find: Find) -> np.ndarray:
        found = find(self, lambda block: np.diff(block.indptr) > 0, stop_at_first=True)
        return np.concatenate([np.zeros(0, bool), *found])

    def _summed(self, find: Find) -> np.ndarray:
        nodes, ranks, weights = self.nodes, self.structure.tiles.ranks, self._weights
        sums = find(self, lambda block: cover.weight_sums(block, nodes, ranks, weights))
        return np.concatenate([np.zeros((0, weights.shape[1])), *sums])

    def _worked(self, find: Find) -> np.ndarray:
        work = find(self, lambda block: block.work)
        return np.concatenate([np.zeros((0, 3), np.int64), *work])

    def _best(self, normals: np.ndarray, k: int) -> Top:
        slots, scores = self.best_slots(normals, min(k, len(self)))
        # The order is exact, each score rounded: a later one must not seem larger.
        np.minimum.accumulate(scores, axis=1, out=scores)
        return Top(scores, self.ids_of(self.structure.tiles.ranks[slots]))

    def best_slots(
        self, normals: np.ndarray, k: int, live: np.ndarray = ALL_LIVE
    ) -> tuple[np.ndarray, np.ndarray]:
        """Slots and scores (m, k) of the k best of so many live points, best first.

        Examples
        --------
        >>> import numpy as np, halfspace
        >>> slots, scores = halfspace.Scan([[0.0], [2.0], [1.0]]).best_slots(np.array([[1.0]]), 2)
        >>> slots, scores
        (array([[1, 2]]), array([[2., 1.]]))
        """
        check_room(len(normals) * k * 16, "top")
        slots, scores = np.empty((len(normals), k), np.int64), np.empty((len(normals), k))
        if k:
            each = self._query_nanoseconds() + 100.0 * k
            tasks = [
                partial(self._top, normals[a:b], live, slots[a:b], scores[a:b])
                for a, b in parallel.parts(len(normals), each)
            ]
            parallel.interruptible(lambda: parallel.run(tasks), each * len(normals))
        return slots, scores

    def ids_of(self, ranks: np.ndarray) -> np.ndarray:
        """Ids, int64, of such ranks.

        Examples
        --------
        >>> import numpy as np, halfspace
        >>> halfspace.Scan([[0.0], [1.0]], ids=[7, 5]).ids_of(np.array([1, 0]))
        array([7, 5])
        """
        return self._ids[ranks] if self._own_ids else ranks.astype(np.int64)

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
