"""ShallowCuttings (Part 2): conflict lists for every depth, for points that stay and d <= 6.

Levels of depths k_1 > k_2 > …, each half the one before, from n / 16 down to 32 at most. Each is a
fan of cones (`fan.py`) whose conflict lists hold what lies above planes with k_i points above, so
O(k_i) points. A query finds its cone level by level, a few steps each, and scans the list of the
finest level that is certified to hold its half-space (`cuttings.py`): O(log n + k) for reports of
k points; deeper ones go to a tree (Part 1) under it all, and so do those of levels whose lists are
no shorter than what the tree would touch. Conflict lists are themselves half-space reports, and
each level's are taken from the level before.

Space: a level of c cones takes O(c k_i / 64) tile numbers or O(c k_i) copied points. The theory has
c = O((n / k_i)^⌊d/2⌋), so O(n) for d <= 3; smooth bodies and spheres keep to n / k_i in any
dimension, moment curves reach the worst case. Levels that would not fit into `memory` are not made,
and what is left of it turns numbers into copies, sorted by id, which are read two to four times
faster. That is the trade of Part 2: with s between n and n^⌊d/2⌋, time n / s^(1/⌊d/2⌋) + k.

In one dimension the points are sorted, and the tree over them is a B-tree: no level is needed.

Source: Matoušek 1992, "Reporting points in halfspaces"; Chan 2000, "Random sampling, halfspace
range reporting, and construction of (≤k)-levels in three dimensions"; Afshani, Chan 2009.
"""

import numpy as np
from numpy.typing import ArrayLike

from . import cover
from .conflict_lists import first_tiles
from .cuttings import Cuttings, check_cuttings, cover_cuttings, top_cuttings
from .exchange import exchanged
from .inputs import as_count
from .kd_tree import order_points
from .levels import make_cuttings
from .polytope import cover_polytopes_tree
from .static_index import StaticIndex
from .tiles import bytes_of, make_tiles
from .tree import make_tree

MOST_DIMENSIONS = 6

DEFAULT_MEMORY = 32
"""Bytes the index may take for each byte of points, where `memory` is not given."""

LEAST_DEFAULT_MEMORY = 1 << 24
"""Bytes it may take in any case then."""


class ShallowCuttings(StaticIndex):
    """Conflict lists for every depth over a tree, for points that stay, d <= 6.

    Report, any and top take O(log n + k) expected for shallow half-spaces, of k points; deep ones,
    of more than about n / 30 points, take what a tree takes. Building is costly.
    Answers and errors as for `Index`.

    Parameters
    ----------
    points, ids, weights
        As for `Index`, with d <= 6.
    memory : int, optional
        Bytes the index may take; 32 times those of the points, or 16 MB if that is more, where it
        is not given. With less, fewer and leaner levels are made. Building takes several times
        that for a while.
    expected_count : int, optional
        Points a report is expected to hold: levels for fewer are not made, and memory goes to
        those for as many.

    Raises
    ------
    TypeError
        `memory` or `expected_count` is not an integer, or as for `Index`.
    ValueError
        d > 6; `memory` below what the tree alone takes; or as for `Index`.

    Examples
    --------
    >>> import numpy as np, halfspace
    >>> points = np.random.default_rng(0).standard_normal((2_000, 3))
    >>> index = halfspace.ShallowCuttings(points)
    >>> index.report([1.0, 2.0, 2.0], 7.5).tolist()
    [363, 854, 1107, 1251, 1806, 1970]
    """

    _kind, _arrays, _check = "shallow_cuttings", Cuttings, staticmethod(check_cuttings)
    _views = frozenset({"tree.tiles"})
    _cover_kernel = cover_cuttings
    _top_kernel = top_cuttings
    _polytope_kernel = cover_polytopes_tree

    def __init__(
        self,
        points: ArrayLike,
        *,
        ids: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        memory: int | None = None,
        expected_count: int | None = None,
    ) -> None:
        self._memory = None if memory is None else as_count(memory, "memory")
        self._expected_count = (
            None if expected_count is None else as_count(expected_count, "expected_count")
        )
        super().__init__(points, ids=ids, weights=weights)

    def _build(self, points: np.ndarray, ranks: np.ndarray, weights: np.ndarray) -> Cuttings:
        d = points.shape[1]
        if d > MOST_DIMENSIONS:
            raise ValueError(
                f"points: expected at most {MOST_DIMENSIONS} dimensions for ShallowCuttings, "
                f"got {d}"
            )
        order = np.argsort(points[:, 0], kind="stable") if d == 1 else order_points(points)
        order = exchanged(points, order)
        tree = make_tree(make_tiles(points, order, ranks), weights[order])
        taken = bytes_of((make_cuttings(tree, 0), self._ids)) + weights.nbytes
        memory = self._memory
        if memory is None:
            memory = max(taken, LEAST_DEFAULT_MEMORY, DEFAULT_MEMORY * points.nbytes)
        if memory < taken:
            raise ValueError(f"memory: expected at least {taken} bytes, got {memory}")
        return make_cuttings(tree, memory - taken, self._expected_count)

    @property
    def nodes(self) -> cover.Nodes:
        """Nodes that covers refer to: those of the tree."""
        return self.structure.tree.nodes

    def __len__(self) -> int:
        return self.structure.tree.tiles.count

    def _with_views(self, structure: Cuttings, count: int) -> Cuttings:
        tree = structure.tree._replace(tiles=first_tiles(structure.tiles, count))
        return structure._replace(tree=tree)

    def explain(self) -> str:
        """Say in a few lines what this index is: structure, levels, sizes, why it was chosen."""
        cuttings = self.structure
        levels = ", ".join(
            f"{depth} ({cones} cones, {'points' if own else 'tiles'}{'' if worth else ', unused'})"
            for depth, cones, own, worth in zip(
                cuttings.depths,
                np.diff(cuttings.levels),
                cuttings.copied,
                cuttings.worth,
                strict=True,
            )
        )
        return f"{super().explain()}\n  levels   {levels or 'none: the tree answers'}"

    def _query_nanoseconds(self) -> float:
        # Between what a list and what the tree takes.
        n, d = len(self), self.dim
        return min(20_000.0, 1000.0 + 20.0 * d * n ** (1.0 - 1.0 / d))
