"""Pictures of points in the plane: half-spaces and what they hold, cells of a tree, cuttings.

Needs matplotlib (the extra ``plot``). Each function draws into axes, those given or new ones, and
returns them: ``axes.figure.savefig("picture.png")``. What is drawn is rounded as pictures are; what
is reported is exact.
"""

from typing import NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from .cuttings import find_cones
from .inputs import Queries, as_queries
from .shallow_cuttings import ShallowCuttings
from .static_index import StaticIndex
from .tiles import TILE
from .tree import FANOUT, BoundedTree

INSIDE, CROSSED, OUTSIDE, ACCENT = "#0072b2", "#d55e00", "#9a9a9a", "#009e73"

LEVEL_COLOURS = "viridis"
"""Colours of levels, coarse to fine."""

MARGIN = 0.05
"""Of the extent, that axes leave around points."""


def _axes(axes: Axes | None) -> Axes:
    if axes is None:
        axes = Figure(figsize=(5.5, 5.0), layout="constrained").add_subplot()
    axes.set_aspect("equal")
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _points(index: StaticIndex) -> np.ndarray:
    """Points (n, 2) by rank of their ids."""
    if not isinstance(index, StaticIndex):
        raise TypeError(f"index: expected one structure in memory, got {type(index).__name__}")
    if index.dim != 2:
        raise ValueError(f"index: expected points of 2 dimensions, got {index.dim}")
    # Of a structure over a tree, the first are those of the tree, and the rest copies.
    tiles = getattr(index.structure, "tree", index.structure).tiles
    slots = tiles.data.transpose(0, 2, 1).reshape(-1, 2)[: len(tiles.ranks)]
    rows = np.empty((len(index), 2))
    rows[tiles.ranks] = slots
    return rows


def _one(index: StaticIndex, normal: ArrayLike, offset: float) -> Queries:
    found = as_queries(normal, offset, index.dim)
    if not found.single:
        raise ValueError(f"normal: expected one of shape (2,), got {found.normals.shape}")
    return found


def _frame(axes: Axes, points: np.ndarray) -> None:
    """Limits that hold the points."""
    if not len(points):
        return
    low, high = points.min(axis=0), points.max(axis=0)
    room = MARGIN * max(1e-300, (high - low).max())
    axes.set_xlim(low[0] - room, high[0] + room)
    axes.set_ylim(low[1] - room, high[1] + room)


def _draw_halfspace(axes: Axes, points: np.ndarray, query: Queries) -> None:
    """The line, its side, shaded, and its normal, beside the points that are inside."""
    normal, offset = query.normals[0], float(query.offsets[0])
    size = float(np.hypot(*normal))
    if not size or not np.isfinite(offset):
        return
    unit, along = normal / size, np.array([-normal[1], normal[0]]) / size
    inside = points[points @ normal >= offset]
    near = inside if len(inside) else points
    middle = near.mean(axis=0) if len(near) else np.zeros(2)
    extent = float(np.ptp(points, axis=0).max()) if len(points) else 1.0
    foot = middle + (offset / size - middle @ unit) * unit
    ends = np.array([foot - 4.0 * extent * along, foot + 4.0 * extent * along])
    axes.plot(*ends.T, color=INSIDE, linewidth=1.2, scalex=False, scaley=False)
    side = [ends[0], ends[1], ends[1] + 8.0 * extent * unit, ends[0] + 8.0 * extent * unit]
    axes.add_collection(
        PolyCollection([side], facecolor=INSIDE, alpha=0.08, zorder=0), autolim=False
    )
    axes.annotate(
        "",
        xy=foot + 0.12 * extent * unit,
        xytext=foot,
        arrowprops={"arrowstyle": "-|>", "color": "black", "linewidth": 1.2},
        zorder=4,
    )


def report(
    index: StaticIndex,
    normal: ArrayLike,
    offset: float,
    *,
    closed: bool = True,
    axes: Axes | None = None,
) -> Axes:
    """Draw the points, a half-space, and the points that are reported.

    Parameters
    ----------
    index : StaticIndex
        Of points (n, 2): any structure but `Dynamic`.
    normal : array_like, shape (2,)
        Finite.
    offset : float
        Not NaN.
    closed : bool, optional
        False for the open half-space.
    axes : matplotlib.axes.Axes, optional
        Where to draw; new ones if not given.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError, ValueError
        Not such an index; points of another dimension; queries as for `Index.report`.

    Examples
    --------
    >>> import numpy as np, halfspace
    >>> from halfspace import plot
    >>> index = halfspace.Scan(np.random.default_rng(0).standard_normal((300, 2)))
    >>> axes = plot.report(index, [1.0, 2.0], 1.5)
    >>> axes.get_title()
    '70 of 300 points'
    """
    points, query = _points(index), _one(index, normal, offset)
    inside = np.zeros(len(points), bool)
    ids = index.report(query.normals[0], query.offsets[0], closed=closed)
    inside[np.searchsorted(index.ids_of(np.arange(len(points))), ids)] = True
    axes = _axes(axes)
    size = _dot_size(len(points))
    axes.scatter(*points[~inside].T, s=size, color=OUTSIDE, linewidths=0)
    axes.scatter(*points[inside].T, s=size, color=INSIDE, linewidths=0)
    _frame(axes, points)
    _draw_halfspace(axes, points, query)
    axes.set_title(f"{len(ids)} of {len(points)} points", fontsize="medium")
    return axes


def _dot_size(n: int) -> float:
    """Square points a dot, smaller where there are many."""
    return float(np.clip(12000.0 / max(n, 1), 1.5, 14.0))


class Cells(NamedTuple):
    """Cells of one level of a tree: parallelograms that hold the points of a node each."""

    corners: np.ndarray  # (cells, 4, 2)
    inside: np.ndarray  # bool (cells,): settled, all points are inside
    crossed: np.ndarray  # bool (cells,): the line may cut through the points


def tree_cells(tree: BoundedTree, level: int, query: Queries) -> Cells:
    """Parallelograms of the nodes of a level (0 is that of the leaves), held against a half-space.

    They are drawn, not certified: the tree itself rounds their bounds outwards.
    """
    blocks = slice(tree.levels[level], tree.levels[level + 1])
    nodes = slice(blocks.start * FANOUT, blocks.stop * FANOUT)
    used = tree.nodes.last[nodes] > tree.nodes.first[nodes]
    centres = tree.centres[blocks].transpose(0, 2, 1).reshape(-1, 2)[used].astype(np.float64)
    rows = tree.frames[2 * blocks.start : 2 * blocks.stop].astype(np.float64)
    rows = rows.reshape(-1, 2, 2, TILE).transpose(0, 3, 1, 2).reshape(-1, 2, 2)[used]
    signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    corners = centres[:, None] + signs @ rows
    scores = corners @ query.normals[0]
    low, high = scores.min(axis=1), scores.max(axis=1)
    offset = query.offsets[0]
    return Cells(corners, low >= offset, (low < offset) & (high >= offset))


def cells(
    index: StaticIndex,
    normal: ArrayLike,
    offset: float,
    *,
    level: int = 0,
    axes: Axes | None = None,
) -> Axes:
    """Draw the cells of a tree, and which of them a half-space's line crosses.

    Only points of crossed cells are looked at; others are taken or left as a whole.

    Parameters
    ----------
    index : KDTree, PartitionTree or ShallowCuttings
        Of points (n, 2).
    normal, offset, axes
        As for `report`.
    level : int, optional
        0 for the leaves, which hold 64 points each; 1 for nodes of 64 leaves, and so on.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError, ValueError
        As for `report`; a structure without a tree; no such level.

    Examples
    --------
    >>> import numpy as np, halfspace
    >>> from halfspace import plot
    >>> index = halfspace.KDTree(np.random.default_rng(0).standard_normal((640, 2)))
    >>> plot.cells(index, [1.0, 2.0], 1.5).get_title()
    '10 cells of KDTree: 7 crossed, 0 inside, 3 outside'
    """
    points, query = _points(index), _one(index, normal, offset)
    tree = getattr(index.structure, "tree", index.structure)
    if not isinstance(tree, BoundedTree):
        raise TypeError(f"index: expected a structure with a tree, got {type(index).__name__}")
    levels = len(tree.levels) - 1
    if not 0 <= level < levels:
        raise ValueError(f"level: expected 0 … {levels - 1}, got {level}")
    found, axes = tree_cells(tree, level, query), _axes(axes)
    axes.scatter(*points.T, s=0.6 * _dot_size(len(points)), color="0.55", linewidths=0, zorder=1)
    outside = ~found.inside & ~found.crossed
    for chosen, colour, label in (
        (found.inside, INSIDE, "taken as a whole"),
        (found.crossed, CROSSED, "crossed: points are looked at"),
        (outside, OUTSIDE, "left as a whole"),
    ):
        some = found.corners[chosen]
        style = {"facecolor": (colour, 0.16), "edgecolor": colour, "linewidth": 0.7}
        axes.add_collection(PolyCollection(some, label=label, **style), autolim=False)
    axes.legend(fontsize="x-small", frameon=False, loc="lower left")
    _frame(axes, np.concatenate([points, found.corners.reshape(-1, 2)]))
    _draw_halfspace(axes, points, query)
    axes.set_title(
        f"{len(found.corners)} cells of {type(index).__name__}: {found.crossed.sum()} crossed, "
        f"{found.inside.sum()} inside, {outside.sum()} outside",
        fontsize="medium",
    )
    return axes


class Envelope(NamedTuple):
    """One level of cuttings: the corners of the region that lies below all its planes."""

    corners: np.ndarray  # (cones, 2), one a cone, in order of angle
    depth: int  # points above each plane, about


def envelopes(index: ShallowCuttings) -> list[Envelope]:
    """Levels of cuttings in the plane, coarse to fine."""
    cuttings, found = index.structure, []
    for level, depth in enumerate(cuttings.depths.tolist()):
        cones = slice(cuttings.levels[level], cuttings.levels[level + 1])
        # The shares of w are A w, so the directions are rows of the inverse of A^T.
        normals = np.linalg.inv(cuttings.solvers[cones]).transpose(0, 2, 1)
        corners = np.linalg.solve(normals, cuttings.offsets[cones][:, :, None])[:, :, 0]
        middles = normals.sum(axis=1)
        found.append(Envelope(corners[np.argsort(np.arctan2(middles[:, 1], middles[:, 0]))], depth))
    return found


def cuttings(
    index: ShallowCuttings,
    normal: ArrayLike,
    offset: float,
    *,
    axes: Axes | None = None,
) -> Axes:
    """Draw shallow cuttings: a closed line a level, and the conflict list that answers a query.

    A level's planes have about so many points above each; its line is the border of what lies below
    all of them. The conflict list of the query's cone, at the finest level that is certified for it
    (the thick line), holds the whole half-space: no other point is looked at.

    Parameters
    ----------
    index : ShallowCuttings
        Of points (n, 2).
    normal, offset, axes
        As for `report`.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    TypeError, ValueError
        As for `report`; another structure.

    Examples
    --------
    >>> import numpy as np, halfspace
    >>> from halfspace import plot
    >>> points = np.random.default_rng(0).standard_normal((3000, 2))
    >>> plot.cuttings(halfspace.ShallowCuttings(points), [1.0, 2.0], 6.0).get_title()
    '4 of 3000 points reported, 77 looked at'
    """
    if not isinstance(index, ShallowCuttings):
        raise TypeError(f"index: expected ShallowCuttings, got {type(index).__name__}")
    points, query = _points(index), _one(index, normal, offset)
    levels, axes = envelopes(index), _axes(axes)
    level, listed = _conflict_list(index, query)
    inside = np.searchsorted(index.ids_of(np.arange(len(points))), _ids(index, query))
    size = _dot_size(len(points))
    axes.scatter(*points.T, s=0.6 * size, color="0.7", linewidths=0)
    if level >= 0:
        more = points[np.setdiff1d(listed, inside)]
        axes.scatter(*more.T, s=size, color=CROSSED, linewidths=0, label="looked at too")
    axes.scatter(*points[inside].T, s=size, color=INSIDE, linewidths=0, label="reported")
    colours = colormaps[LEVEL_COLOURS](np.linspace(0.85, 0.1, max(1, len(levels))))
    for number, (envelope, colour) in enumerate(zip(levels, colours, strict=True)):
        closed = np.concatenate([envelope.corners, envelope.corners[:1]])
        width = 2.0 if number == level else 0.8
        label = f"level of {envelope.depth} points above a plane"
        axes.plot(*closed.T, color=colour, linewidth=width, label=label)
    _frame(axes, np.concatenate([points, *(envelope.corners for envelope in levels)]))
    _draw_halfspace(axes, points, query)
    axes.legend(fontsize="x-small", frameon=False, loc="lower left", markerscale=2.0)
    how = f"{len(listed)} looked at" if level >= 0 else "by the tree: no list is certified"
    axes.set_title(f"{len(inside)} of {len(points)} points reported, {how}", fontsize="medium")
    return axes


def _ids(index: StaticIndex, query: Queries) -> np.ndarray:
    return index.report(query.normals[0], query.offsets[0])


def _conflict_list(index: ShallowCuttings, query: Queries) -> tuple[int, np.ndarray]:
    """Level that answers, -1 for none, and ranks of the points in the list of the query's cone."""
    cones, levels, seen = (np.empty(1, np.int64) for _ in range(3))
    structure = index.structure
    find_cones(structure, query.normals, query.offsets, True, cones, levels, seen)
    if levels[0] < 0:
        return -1, np.empty(0, np.int64)
    first, size = structure.lists[cones[0]].tolist()
    if structure.copied[levels[0]]:
        slots = first * TILE + np.arange(size)
    else:
        slots = structure.entries[first : first + size, None] * TILE + np.arange(TILE)
        slots = slots[slots < len(index)]
    return int(levels[0]), structure.tiles.ranks[slots]
