"""Shapes of a cascade: how many coordinates of how many bits, the cheapest by a trial on a sample.

Every filter that may be made is tried on a sample, with half-spaces of the size that reports are
expected to have; bytes to read and points that pass are priced by constants of one machine.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .basis import Basis
from .code_rows import GROUPS, MOST_QUERY
from .codes import Steps, fit_steps, leading_width, rounded
from .kd_tree import order_points
from .tiles import TILE

GOOD = 1.25
"""Times the least cost for normals of the kind that is expected, which others may add to it."""

LEAST_FOUND = 4
"""Points of the sample that a half-space holds at least, by which shapes are chosen."""

TAIL, TAIL_LEAN = 8, 0.8
"""Half-spaces of fewer points lie further out: as much, for their logarithm, as that one does
beyond one of `TAIL` times as many points, but for a part of it, since tails get steeper."""

LEADING_BYTE, LEADING_POINT = {4: 0.026, 6: 0.034, 8: 0.031}, 0.1
"""ns a byte of leading codes read, of so many bits, and a point."""

ROW_POINT, ROW_COORDINATE = 20.0, 0.2
"""ns a point whose row codes are read, and for each coordinate."""

FLOAT_POINT, FLOAT_BYTE = 15.0, 0.15
"""ns a point whose floats are read, and for each byte of them."""

ORDER_COORDINATES = 12
"""Leading coordinates by which points are put in order, where that lets tiles be skipped."""

LEAST_TILE = 8
"""Points that a tile of the sample is made of, at least."""

MOST_OPENED = 0.825
"""Share of a sample's tiles up to which order pays: fewer ids of a report come in order then."""

MOST_MEMORY = 1.5
"""Times the bytes of float32 points that are taken in all, where d does not force more."""

OTHER_BYTES = 5.0
"""A point, beside points and codes: ranks, norms, heads of few coordinates."""


class Shape(NamedTuple):
    """Leading codes of p coordinates, and whether there are row codes."""

    p: int
    bits: int
    rows: bool


class Trial(NamedTuple):
    """A sample in the basis, and half-spaces to try filters on."""

    points: NDArray  # (s, d) float32
    normals: NDArray  # (q, d)
    scores: NDArray  # (s, q)
    offsets: NDArray  # (q,) of half-spaces with enough of the sample to tell filters apart
    far: NDArray  # (q,) of those that are expected, which may hold less than a point of it
    unlikely: int  # normals, the first of them, that are not of the kind that is expected


def try_out(basis: Basis, points: NDArray, normals: NDArray, share: float, unlikely: int) -> Trial:
    """Put points (s, d) of a basis and normals (q, d) to a trial, with reports of such a share."""
    projected = (normals / basis.scale) @ basis.inverse
    scores, size = points @ projected.T, len(points)
    found = min(size, max(LEAST_FOUND, round(share * size)))
    more = min(size, TAIL * found)
    ordered = np.partition(scores, [size - more, size - found], axis=0)
    offsets, wider = ordered[-found], ordered[-more]
    further = np.log(found / (share * size)) / np.log(TAIL) if share * size < found else 0.0
    far = offsets + TAIL_LEAN * further * (offsets - wider)
    return Trial(points, projected, scores, offsets, far, unlikely)


def coded(points: NDArray, steps: Steps) -> tuple[NDArray, NDArray]:
    """Codes (s, p) of as many coordinates as there are steps, and ||ρ|| of every point (s,)."""
    codes, residuals = rounded(points[:, : len(steps.low)], steps)
    return codes, np.linalg.norm(residuals, axis=1)


def _passed(trial: Trial, steps: Steps, p: int) -> NDArray:
    """Share of the sample that leading codes of p coordinates let pass, by normal (q,)."""
    codes, off = coded(trial.points, steps)
    weights = trial.normals[:, :p] * steps.step
    estimates = codes @ weights.T.astype(np.float32) + trial.normals[:, :p] @ steps.low
    largest = np.abs(weights).max(axis=1)
    lost = (
        largest
        / MOST_QUERY
        * np.sqrt(p / 12.0)
        * np.linalg.norm(codes - steps.middle, axis=1).max()
    )
    residual = np.outer(off, np.linalg.norm(weights, axis=1))
    rest = np.linalg.norm(trial.points[:, p:], axis=1)[:, None]
    rest = rest * np.linalg.norm(trial.normals[:, p:], axis=1)
    return np.mean(estimates + residual + rest + lost >= trial.offsets, axis=0)


class _Opened(NamedTuple):
    """Share of tiles that half-spaces open, and coordinates that heads are to hold for that."""

    share: float
    heads: int
    near: float  # share of those by which shapes are chosen


def _opened(trial: Trial, most: int, count: int) -> _Opened:
    """Tiles that half-spaces open where neighbours share them, of so many points.

    Heads are to hold at most so many coordinates. Tiles of the sample are fewer, so they are made
    of fewer points.
    """
    size = int(np.clip(TILE * len(trial.points) // max(1, count), LEAST_TILE, TILE))
    some = np.ascontiguousarray(trial.points[:, :ORDER_COORDINATES])
    u = trial.points[order_points(some, size)]
    tiles = u[: len(u) // size * size].reshape(-1, size, u.shape[1])
    centres = tiles.mean(axis=1)
    # From the mean of the others: as far as points lie that a mean of few does not know of.
    away = (tiles - centres[:, None]) * (size / (size - 1))

    def shares(p: int) -> _Opened:
        radii = np.linalg.norm(away[..., :p], axis=2).max(axis=1)
        rests = np.linalg.norm(tiles[..., p:], axis=2).max(axis=1)
        highest = centres[:, :p] @ trial.normals[:, :p].T
        highest += np.outer(radii, np.linalg.norm(trial.normals[:, :p], axis=1))
        highest += np.outer(rests, np.linalg.norm(trial.normals[:, p:], axis=1))
        share, near = (float(np.mean(highest >= at)) for at in (trial.far, trial.offsets))
        return _Opened(share, p, near)

    return min(shares(p) for p in {min(most, ORDER_COORDINATES), most})


def _widths(d: int) -> list[int]:
    """Numbers of leading coordinates worth a try."""
    return [p for p in (6, 14, 22, 30, 46, 62, 94, 126, 190) if p <= 0.75 * d] + [d]


def reading(d: int, shape: Shape) -> float:
    """Nanoseconds to read the leading codes of a point."""
    return LEADING_POINT + LEADING_BYTE[shape.bits] * leading_width(d, shape.p, shape.bits)


def _memory(d: int, shape: Shape) -> float:
    """Bytes in all, for each of float32 points."""
    width = leading_width(d, shape.p, shape.bits)
    return 1.0 + (width * (1.0 + 1.0 / TILE) + shape.rows * d + OTHER_BYTES) / (4.0 * d)


class _Choice(NamedTuple):
    """A shape, and what passes its stages, and what settling that takes, by normal (q,)."""

    shape: Shape
    passed: NDArray
    still_open: NDArray
    settling: NDArray  # ns a point
    cost: NDArray  # ns a point, reading included

    def means(self) -> tuple[Shape, float, float, float]:
        """The same over all normals, but for the cost."""
        return self.shape, *(float(np.mean(each)) for each in self[1:4])


def _priced(
    trial: Trial, shape: Shape, steps: Steps, unsettled: NDArray, itemsize: int, opened: float
) -> _Choice:
    """What a shape costs, `opened` the share of the leading codes that are read."""
    d, p = trial.points.shape[1], shape.p
    passed = _passed(trial, Steps(*(a[:p] for a in steps[:4]), steps.most), p)
    still_open = np.minimum(passed, unsettled) if shape.rows else passed
    settling = still_open * (FLOAT_POINT + FLOAT_BYTE * itemsize * d)
    if shape.rows:
        settling += passed * (ROW_POINT + ROW_COORDINATE * d)
    return _Choice(shape, passed, still_open, settling, opened * reading(d, shape) + settling)


def _choose(trial: Trial, itemsize: int, near: float, opened: float) -> _Choice:
    """The cheapest shape of those that are good for normals of the kind that is expected.

    `near` and `opened` are the shares of the leading codes that are read by half-spaces by which
    it is chosen, and by those that are expected, as for which it is priced.
    """
    d = trial.points.shape[1]
    steps = {bits: fit_steps(trial.points, bits) for bits in sorted(GROUPS)}
    off = coded(trial.points, steps[8])[1]
    error = np.outer(off, np.linalg.norm(trial.normals * steps[8].step, axis=1))
    unsettled = np.mean(np.abs(trial.scores - trial.offsets) <= error, axis=0)
    shapes = [Shape(p, bits, p < d or bits < 8) for bits in steps for p in _widths(d)]
    choices = [
        _priced(trial, shape, steps[shape.bits], unsettled, itemsize, near)
        for shape in shapes
        if not shape.rows or _memory(d, shape) <= MOST_MEMORY
    ]
    expected = np.array([choice.cost[trial.unlikely :].mean() for choice in choices])
    good = np.flatnonzero(expected <= GOOD * expected.min())
    shape = min((choices[i] for i in good), key=lambda choice: choice.cost.mean()).shape
    far = trial._replace(offsets=trial.far)
    unsettled = np.mean(np.abs(far.scores - far.offsets) <= error, axis=0)
    return _priced(far, shape, steps[shape.bits], unsettled, itemsize, opened)


def tile_and_choose(
    trial: Trial, itemsize: int, count: int
) -> tuple[tuple[Shape, float, float, float], float, int]:
    """Means of what `_choose` says, the share of tiles that are read, and coordinates of heads.

    The share is 1 where order does not pay, and heads are of little use.
    """
    opened = _opened(trial, trial.points.shape[1], count)
    if opened.share <= MOST_OPENED:
        chosen = _choose(trial, itemsize, opened.near, opened.share)
        opened = _opened(trial, chosen.shape.p, count)
        if opened.share <= MOST_OPENED:
            return chosen.means(), opened.share, opened.heads
    chosen = _choose(trial, itemsize, 1.0, 1.0)
    return chosen.means(), 1.0, min(chosen.shape.p, ORDER_COORDINATES)
