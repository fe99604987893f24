"""Fans: cones over planes at one depth, fine enough that hardly anything is read in vain.

For a depth k and directions u_1 … u_m the planes {<u_j, x> = c_j} with k points above each bound a
convex polytope Q = ∩ {<u_j, x> <= c_j}. In the normal cone of a vertex v of Q, where d planes meet,
<w, v> = Σ s_f c_f is the least bound that the planes give on what lies beyond their conflict lists
(linear programming duality), so the cones of that fan are the best for them. They are the facets of
the convex hull of the dual points u_j / (c_j - <u_j, o>), o inside Q, which Qhull finds. A cone is
*loose* if far fewer than k points lie above the plane through v along a direction inside the cone;
then that direction becomes one more plane at depth k, and the hull is taken again, until no cone is
loose.

This is Matoušek's shallow cutting (1992: O((n/k)^⌊d/2⌋) cones, conflict lists of O(k) points) made
by local improvement. Hulls of random samples (Clarkson, Shor 1989) give the same bounds, but a
sample's facet has some d n/r points above it, with large variance, where a plane here has k.

Nothing in this file decides an answer: a poor fan, or a wrong one, costs time (see `cuttings.py`).
"""

from typing import NamedTuple

import numpy as np
from scipy.spatial import ConvexHull, QhullError

from . import parallel
from .cuttings import MOST_STEPS, Cuttings, walk
from .jit import kernel
from .quickselect import select
from .tiles import TILE, Tiles, tile_scores

LOOSE = {2: 0.5, 3: 0.4}
"""A cone is loose if fewer than so many times k points lie above its vertex's plane, by d."""

LOOSE_ABOVE = 0.25
"""The same in more dimensions, where cones are many and small ones dear."""

MOST_ROUNDS = 10
"""Hulls taken for a level, at most: where scores tie, a cone may stay loose whatever is added."""

PROBE_SCORES = 2048
"""Scores of a conflict list that a depth is estimated from, about."""

SPARSE_STEP = 8
"""Where fewer scores than one in so many are used, no others are computed."""

LEAST_HEIGHT = 1e-6
"""Least distance of a plane from the origin, in spreads of the points."""

OUTLIER_DISTANCE = 100.0
"""Points further than so many median distances from the median do not count for the frame."""

CENTRE_SAMPLE = 1 << 16
"""Points that the origin and the spreads are estimated from."""


class Frame(NamedTuple):
    """Coordinates in which the points are centred and, about, isotropic."""

    centre: np.ndarray  # (d,) float64
    axes: np.ndarray  # (d, d) float64: a direction u there is the normal axes @ u here

    def normals(self, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Unit normals (m, d) of directions (m, d), and what each was divided by."""
        normals = directions @ self.axes.T
        lengths = np.linalg.norm(normals, axis=1)
        return normals / lengths[:, None], lengths


class Fan(NamedTuple):
    """One level's planes and the cones between them."""

    normals: np.ndarray  # (m, d) float64, unit
    offsets: np.ndarray  # (m,) float64
    cones: np.ndarray  # (cones, d) int64, the planes that span each
    neighbours: np.ndarray  # (cones, d) int32
    directions: np.ndarray  # (m, d) float64, the planes' in the frame


def frame_of(tiles: Tiles) -> Frame | None:
    """Frame of the points in tiles, from a sample of them; None where their squares overflow."""
    step = max(1, len(tiles.data) * TILE // CENTRE_SAMPLE)
    slots = np.arange(0, tiles.count, step)
    rows = tiles.data[slots // TILE, :, slots % TILE].astype(np.float64)
    # One point far off must not make all others seem one.
    distances = np.abs(rows - np.median(rows, axis=0)).max(axis=1)
    usual = np.median(distances)
    near = rows[distances <= OUTLIER_DISTANCE * usual] if usual > 0.0 else rows
    centre = near.mean(axis=0)
    covariance = np.cov(near - centre, rowvar=False)
    if not np.isfinite(covariance).all():
        return None
    spread, axes = np.linalg.eigh(covariance)
    # A flat set keeps a little thickness: its planes across must not be infinitely far apart.
    spread = np.sqrt(np.maximum(spread, max(spread[-1], 1e-300) * 1e-12))
    return Frame(centre, axes / spread)


@kernel
def _probe(cuttings, normals, limits, k, enough, offsets):
    """Offset of the plane with k points above, for every normal; NaN if `enough` are above a limit.

    Estimated from the finest list of the normal's cone, or from all points where there is no level.
    """
    data, count = cuttings.tiles.data, cuttings.tree.tiles.ranks.size
    solvers, neighbours, finer = cuttings.solvers, cuttings.neighbours, cuttings.finer
    levels, lists, entries = cuttings.levels.size - 1, cuttings.lists, cuttings.entries
    d = data.shape[1]
    scores = np.empty(TILE)
    keys, rows, shares = np.empty(0), np.empty(0, np.int32), np.empty(d)
    for q in range(normals.shape[0]):
        cone = np.int64(0)
        for level in range(levels):
            if level:
                cone = np.int64(finer[cone])
            found, _ = walk(solvers, neighbours, cone, normals[q], MOST_STEPS, shares)
            if found >= 0:
                cone = found
        first, size = np.int64(0), cuttings.tree.tiles.data.shape[0]
        if levels:
            first, size = lists[cone, 0], lists[cone, 1]
        # An odd step takes other lanes from every tile: the sample is spread over all of them.
        step = max(1, size * TILE // PROBE_SCORES) | 1
        if keys.size < size * TILE // step + 1:
            keys = np.empty(size * TILE // step + 1)
            rows = np.empty(keys.size, np.int32)
        taken, over, tile = 0, 0, np.int64(-1)
        for place in range(0, size * TILE, step):
            i, lane = place // TILE, place % TILE
            t = np.int64(entries[first + i]) if levels else i
            if t * TILE + lane >= count:
                continue
            if step > SPARSE_STEP:
                score = 0.0
                for j in range(d):
                    score += normals[q, j] * data[t, j, lane]
            else:
                if t != tile:
                    tile_scores(data, t, normals[q], scores)
                    tile = t
                score = scores[lane]
            keys[taken] = -score
            over += score > limits[q]
            taken += 1
        offsets[q] = np.nan
        if taken and over * step < enough:
            rank = min(max(k // step, 1), taken) - 1
            select(keys[:taken], rows[:taken], rank)
            offsets[q] = -keys[rank]


def probe(
    cuttings: Cuttings, normals: np.ndarray, limits: np.ndarray, k: int, enough: float
) -> np.ndarray:
    """Offsets (m,) with about k points above; NaN where about `enough` are above `limits` (m,)."""
    offsets = np.empty(len(normals))
    parallel.run(
        [
            lambda a=a, b=b: _probe(cuttings, normals[a:b], limits[a:b], k, enough, offsets[a:b])
            for a, b in parallel.parts(len(normals), 10.0 * k + 1000.0)
        ]
    )
    return offsets


def _dual_hull(directions: np.ndarray, heights: np.ndarray) -> ConvexHull | None:
    try:
        return ConvexHull(directions / heights[:, None])
    except (QhullError, ValueError):
        return None


def _vertices(directions: np.ndarray, heights: np.ndarray, cones: np.ndarray) -> np.ndarray:
    """Points where each cone's planes meet; NaN where they do not."""
    planes = directions[cones]
    regular = np.abs(np.linalg.det(planes)) > 1e-14
    vertices = np.full(cones.shape, np.nan)
    vertices[regular] = np.linalg.solve(planes[regular], heights[cones][regular][:, :, None])[
        :, :, 0
    ]
    return vertices


def _middles(planes: np.ndarray) -> np.ndarray:
    """Unit directions within cones (c, d, d).

    As far from one of a cone's directions as from another, or their mean where that is outside.
    """
    equal = np.ones((*planes.shape[:2], 1))
    centres = np.linalg.solve(planes, equal)
    shares = np.linalg.solve(planes.transpose(0, 2, 1), centres)[:, :, 0]
    inside = (shares > 0).all(axis=1)[:, None]
    middles = np.where(inside, centres[:, :, 0], planes.mean(axis=1))
    return middles / np.linalg.norm(middles, axis=1, keepdims=True)


def make_fan(
    cuttings: Cuttings, frame: Frame, directions: np.ndarray, k: int, most_cones: int
) -> Fan | None:
    """Fan of planes at depth k, from `directions` (m, d) in the frame on.

    Parameters
    ----------
    cuttings : Cuttings
        The levels so far; the finest one's depth at least k.
    most_cones : int
        More cones are given up: None is returned, as where Qhull finds no hull.
    """

    def heights_of(new: np.ndarray, limits: np.ndarray, enough: float) -> tuple[np.ndarray, ...]:
        normals, lengths = frame.normals(new)
        base = normals @ frame.centre
        offsets = probe(cuttings, normals, base + limits / lengths, k, enough)
        return np.maximum((offsets - base) * lengths, LEAST_HEIGHT), offsets

    d = len(frame.centre)
    enough = k * LOOSE.get(d, LOOSE_ABOVE)
    heights, offsets = heights_of(directions, np.full(len(directions), np.inf), 1.0)
    tested, expected = 0, 0.0
    for _ in range(MOST_ROUNDS):
        if expected > most_cones:
            return None
        hull = _dual_hull(directions, heights)
        if hull is None or len(hull.simplices) > most_cones:
            return None
        # Cones of directions that were all there before were tested before.
        cones = hull.simplices[hull.simplices.max(axis=1) >= tested]
        vertices = _vertices(directions, heights, cones)
        usable = ~np.isnan(vertices[:, 0])
        vertices = vertices[usable]
        within = _middles(directions[cones[usable]])
        limits = (within * vertices).sum(axis=1)
        new_heights, new_offsets = heights_of(within, limits, enough)
        loose = new_heights < limits * (1.0 - 1e-13)
        if not loose.any():
            break
        tested = len(directions)
        # A hull costs as much as it has facets: too many are forecast, not found out.
        growth = 1.0 + np.count_nonzero(loose) / len(directions)
        expected = len(hull.simplices) * growth ** (1.0 if d <= 4 else 1.5)
        directions = np.concatenate([directions, within[loose]])
        heights = np.concatenate([heights, new_heights[loose]])
        offsets = np.concatenate([offsets, new_offsets[loose]])
    used, cones = np.unique(hull.simplices, return_inverse=True)
    return Fan(
        frame.normals(directions[used])[0],
        offsets[used],
        cones.reshape(hull.simplices.shape),
        hull.neighbors.astype(np.int32),
        directions[used],
    )
