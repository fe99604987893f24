"""Cascade: certified filters on ever more bytes a point, then the exact predicate; d >= 8.

In high dimension no bounding shape prunes, but few points are near the plane, and a few bits of
each coordinate tell which. A query runs through

1. *leading codes* of every point: p coordinates of a basis made for data and queries, 4, 6 or 8
   bits each, with the norms of what was rounded and left out as two more coordinates, so that a
   point's upper bound is one integer product (`integer_dot.py`);
2. *row codes* of those that pass: all coordinates, a byte each, which settle nearly all;
3. the float filter and the exact predicate for the rest.

O(n p) codes of 4 to 8 bits are read, and O(d) for each survivor. How many survive rests on p, bits
and basis (`cascade_fit.py`), which are chosen from the data and a sample of queries; whether
anything is missed does not: `code_filter.py` has the bounds. Up to 64 queries share a tile while it
is in cache. `top` keeps the k-th best lower bound seen so far as its offset.

Sources: filter and refine by vector approximation: Weber, Schek, Blott 1998 (VA-file);
inner products bounded by a norm of what is left out: Teflioudi, Gemulla 2015 (LEMP).
"""

import numpy as np
from numpy.typing import ArrayLike

from .cascade_cover import cover_cascade
from .cascade_fit import encode_all, fit_cascade, order_of, recall_fit
from .cascade_stages import CascadeArrays, check_cascade
from .cascade_top import top_cascade
from .inputs import as_count, as_normals
from .polytope import cover_polytopes_scan
from .static_index import StaticIndex
from .tiles import TILE, make_rows, on_lines, tile_view, tiles_of_rows


class Cascade(StaticIndex):
    """Certified 4-, 6- or 8-bit filters in a basis made for the data, then the exact predicate.

    For d >= 8, where trees do not prune. Build O(n d^2), query O(n p) codes and O(d)
    for each point that passes. Points and codes of n >> d points, without ids and weights, take at
    most 1.5 times the memory of float32, 2.5 times for float64, from d = 16 on.
    Answers and errors as for `Index`; what is chosen from samples only decides the speed. Points
    beyond 1e120 or so have no codes, and are read by every query.

    Parameters
    ----------
    points, ids, weights
        As for `Index`.
    queries : array_like, shape (m, d), optional
        Normals like those to come, from a few dozen on: the basis and the codes are made for them.
        Without any, they are taken to be like the points, seen from their median, and some any.
    expected_count : int, optional
        Points a report is expected to hold; 0.1 % of them if not given.

    Raises
    ------
    TypeError
        `expected_count` is not an integer, or as for `Index`.
    ValueError
        Queries of another dimension or not finite; or as for `Index`.

    Examples
    --------
    >>> import numpy as np, halfspace
    >>> points = np.random.default_rng(0).standard_normal((2_000, 32))
    >>> index = halfspace.Cascade(points)
    >>> index.report(np.ones(32), 16.0).tolist()
    [34, 118, 1772]
    """

    _kind, _arrays, _check = "cascade", CascadeArrays, staticmethod(check_cascade)
    _views = frozenset({"tiles.data"})
    _cover_kernel = cover_cascade
    _top_kernel = top_cascade
    _polytope_kernel = cover_polytopes_scan

    def __init__(
        self,
        points: ArrayLike,
        *,
        ids: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        queries: ArrayLike | None = None,
        expected_count: int | None = None,
    ) -> None:
        self._expected_count = (
            None if expected_count is None else as_count(expected_count, "expected_count")
        )
        self._queries = queries
        super().__init__(points, ids=ids, weights=weights)
        del self._queries

    def _build(self, points: np.ndarray, ranks: np.ndarray, weights: np.ndarray) -> CascadeArrays:
        normals = self._queries
        if normals is not None:
            normals = as_normals(normals, points.shape[1], "queries")[0]
        self._fit = fit_cascade(points, normals, self._expected_count)
        order = order_of(points, self._fit) if self._fit.opened < 1.0 else np.argsort(ranks)
        rows = make_rows(points, order)
        tiles = tiles_of_rows(rows, ranks[order])
        return CascadeArrays(tiles, rows, *encode_all(rows, len(points), self._fit))

    def _with_views(self, structure: CascadeArrays, count: int) -> CascadeArrays:
        points, leading, rows = on_lines(structure.points), structure.leading, structure.rows
        return structure._replace(
            tiles=structure.tiles._replace(data=tile_view(points)),
            points=points,
            leading=leading._replace(codes=on_lines(leading.codes)),
            rows=rows._replace(codes=on_lines(rows.codes)),
        )

    def _description(self) -> dict:
        return {"expected": self._fit.expected()}

    @staticmethod
    def _recall(structure: CascadeArrays, description: dict) -> dict:
        return {"_fit": recall_fit(structure, description.get("expected"))}

    def _query_nanoseconds(self) -> float:
        return 1000.0 + len(self) * self._fit.nanoseconds

    def bytes_read(self, normals: ArrayLike, offsets: ArrayLike) -> int | np.ndarray:
        """Bytes of codes that `report` reads one after another: heads, leading codes of open tiles.

        Parameters and errors as for `report`. Rows of points that pass come on top of that.

        Returns
        -------
        int or ndarray of int64
            For one query, or (m,).

        Examples
        --------
        >>> import numpy as np, halfspace
        >>> index = halfspace.Cascade(np.random.default_rng(0).standard_normal((640, 32)))
        >>> index.bytes_read(np.ones(32), 1.0) / 640
        37.6
        """
        codes = self.structure.leading.codes
        each = codes[:1].nbytes // TILE
        read = self.work(normals, offsets).points_touched * each + self.structure.heads.codes.nbytes
        return int(read[0]) if np.ndim(normals) == 1 and np.ndim(offsets) == 0 else read

    def explain(self) -> str:
        """Say in a few lines what this index is: structure, stages, sizes, why it was chosen."""
        return f"{super().explain()}\n{self._fit.text(len(self), self.dim)}"
