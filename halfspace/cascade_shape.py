"""Shapes of a cascade: how many coordinates of how many bits, the cheapest by a trial on a sample.

Every filter that may be made is tried on a sample, with half-spaces of the size that reports are
expected to have; bytes to read and points that pass are priced by constants of one machine.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .basis import Basis
from .code_rows import GROUPS, MOST_QUERY
from .codes import Steps, fit_steps, leading_width, rounded
from .kd_tree import order_points
from .tiles import TILE

GOOD, WIDE_GOOD = 1.25, 1.75
"""Times the least cost for normals of the kind that is expected, which others may add to it; which
others and wide reports may."""

LEAST_FOUND = 4
"""Points of the sample that a half-space holds at least, by which shapes are chosen."""

TAIL, TAIL_LEAN = 8, 0.8
"""Half-spaces of fewer points lie further out: as much, for their logarithm, as that one does
beyond one of `TAIL` times as many points, but for a part of it, since tails get steeper."""

LEADING_POINT = 0.1
"""ns a point whose leading codes are read."""

LEADING_BYTE = {4: 0.026, 6: 0.034, 8: 0.031}
CACHED_BYTE = {4: 0.018, 6: 0.0165, 8: 0.0145}
"""ns a byte of them, of so many bits; and where caches hold all of them."""

CACHED_CODES, CACHED_ALL = 9 << 20, 28 << 20
"""Bytes up to which caches hold leading codes, and points and all codes."""

WIDE_SHARE, WIDE_SLACK = 0.1, 1.3
"""Where nobody says how many points reports hold: points of wide ones, and times the least cost of
usual ones that these may take where wide ones gain."""

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


class Settling(NamedTuple):
    """Nanoseconds to settle a point that passes the leading codes: a point, and what it has."""

    rows: tuple[float, float]  # by row codes; each coordinate
    floats: tuple[float, float]  # by the floats of few points that row codes leave; each byte
    direct: tuple[float, float]  # by the floats of all that pass; each byte

    def of(
        self, d: int, itemsize: int, passed: NDArray, still_open: NDArray, rows: bool
    ) -> NDArray:
        """Of all points, by the shares that pass and stay open, with or without row codes."""
        (point, each), size = self.floats if rows else self.direct, itemsize * d
        taken = still_open * (point + each * size)
        return taken + passed * (self.rows[0] + self.rows[1] * d) if rows else taken


MEMORY = Settling((20.0, 0.2), (15.0, 0.15), (15.0, 0.15))
CACHE = Settling((4.0, 0.15), (15.0, 0.15), (5.0, 0.05))


class Trial(NamedTuple):
    """A sample in the basis, and half-spaces to try filters on."""

    points: NDArray  # (s, d) float32
    normals: NDArray  # (q, d)
    scores: NDArray  # (s, q)
    offsets: NDArray  # (q,) of half-spaces with enough of the sample to tell filters apart
    far: NDArray  # (q,) of those that are expected, which may hold less than a point of it
    wide: NDArray | None  # (q,) of wide ones, where nobody says which are expected
    unlikely: int  # normals, the first of them, that are not of the kind that is expected


def try_out(
    basis: Basis, points: NDArray, normals: NDArray, share: float, told: bool, unlikely: int
) -> Trial:
    """Put points (s, d) of a basis and normals (q, d) to a trial, with reports of such a share.

    Where nobody told it, wide ones are tried too.
    """
    projected = (normals / basis.scale) @ basis.inverse
    scores, size = points @ projected.T, len(points)
    found = min(size, max(LEAST_FOUND, round(share * size)))
    more = min(size, TAIL * found)
    many = max(1, round(WIDE_SHARE * size))
    ordered = np.partition(scores, [size - many, size - more, size - found], axis=0)
    offsets, wider = ordered[-found], ordered[-more]
    further = np.log(found / (share * size)) / np.log(TAIL) if share * size < found else 0.0
    far = offsets + TAIL_LEAN * further * (offsets - wider)
    wide = None if told else ordered[-many]
    return Trial(points, projected, scores, offsets, far, wide, unlikely)


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


def reading(d: int, shape: Shape, count: int) -> float:
    """Nanoseconds to read the leading codes of one of so many points."""
    width = leading_width(d, shape.p, shape.bits)
    each = CACHED_BYTE if count * width <= CACHED_CODES else LEADING_BYTE
    return LEADING_POINT + each[shape.bits] * width


def _memory(d: int, shape: Shape) -> float:
    """Bytes in all, for each of float32 points."""
    width = leading_width(d, shape.p, shape.bits)
    return 1.0 + (width * (1.0 + 1.0 / TILE) + shape.rows * d + OTHER_BYTES) / (4.0 * d)


def _shapes(d: int) -> list[Shape]:
    """All that may be chosen."""
    shapes = [Shape(p, bits, p < d or bits < 8) for bits in sorted(GROUPS) for p in _widths(d)]
    return [shape for shape in shapes if not shape.rows or _memory(d, shape) <= MOST_MEMORY]


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


class _Prices:
    """What shapes cost for so many points in the floats of a size."""

    def __init__(self, trial: Trial, itemsize: int, count: int) -> None:
        self.trial, self.itemsize, self.count = trial, itemsize, count
        self.steps = {bits: fit_steps(trial.points, bits) for bits in sorted(GROUPS)}
        off = coded(trial.points, self.steps[8])[1]
        self.error = np.outer(off, np.linalg.norm(trial.normals * self.steps[8].step, axis=1))

    def at(self, shapes: Sequence[Shape], offsets: NDArray, opened: float) -> list[_Choice]:
        """Of shapes, for half-spaces that have such a share of the leading codes read."""
        trial = self.trial._replace(offsets=offsets)
        unsettled = np.mean(np.abs(trial.scores - offsets) <= self.error, axis=0)
        return [self._of(trial, shape, unsettled, opened) for shape in shapes]

    def _of(self, trial: Trial, shape: Shape, unsettled: NDArray, opened: float) -> _Choice:
        d, p, steps = trial.points.shape[1], shape.p, self.steps[shape.bits]
        passed = _passed(trial, Steps(*(a[:p] for a in steps[:4]), steps.most), p)
        still_open = np.minimum(passed, unsettled) if shape.rows else passed
        held = self.count * (self.itemsize * d + leading_width(d, p, shape.bits) + shape.rows * d)
        rates = CACHE if held <= CACHED_ALL else MEMORY
        settling = rates.of(d, self.itemsize, passed, still_open, shape.rows)
        cost = opened * reading(d, shape, self.count) + settling
        return _Choice(shape, passed, still_open, settling, cost)


def _within(times: float, costs: Sequence[float], choices: Sequence[_Choice]) -> list[_Choice]:
    """Choices that cost at most so many times what the cheapest does."""
    most = times * min(costs)
    return [choice for choice, cost in zip(choices, costs, strict=True) if cost <= most]


def _choose(trial: Trial, itemsize: int, count: int, near: float, opened: float) -> _Choice:
    """The cheapest shape of those that are good for normals of the kind that is expected.

    Where nobody says how many points reports hold, it is the cheapest for wide ones of those that
    are nearly the cheapest for usual ones. `near` and `opened` are the shares of the leading codes
    that are read by half-spaces by which it is chosen, and by those that are expected, as for which
    it is priced.
    """
    prices = _Prices(trial, itemsize, count)
    choices = prices.at(_shapes(trial.points.shape[1]), trial.offsets, near)
    likely = [choice.cost[trial.unlikely :].mean() for choice in choices]
    choices = _within(GOOD if trial.wide is None else WIDE_GOOD, likely, choices)
    if trial.wide is None:
        shape = min(choices, key=lambda choice: choice.cost.mean()).shape
    else:
        usual = [choice.cost.mean() for choice in choices]
        near_best = [choice.shape for choice in _within(WIDE_SLACK, usual, choices)]
        wide = prices.at(near_best, trial.wide, 1.0)
        shape = min(wide, key=lambda choice: choice.cost.mean()).shape
    return prices.at([shape], trial.far, opened)[0]


def tile_and_choose(
    trial: Trial, itemsize: int, count: int
) -> tuple[tuple[Shape, float, float, float], float, int]:
    """Means of what `_choose` says, the share of tiles that are read, and coordinates of heads.

    The share is 1 where order does not pay, and heads are of little use.
    """
    opened = _opened(trial, trial.points.shape[1], count)
    if opened.share <= MOST_OPENED:
        chosen = _choose(trial, itemsize, count, opened.near, opened.share)
        opened = _opened(trial, chosen.shape.p, count)
        if opened.share <= MOST_OPENED:
            return chosen.means(), opened.share, opened.heads
    chosen = _choose(trial, itemsize, count, 1.0, 1.0)
    return chosen.means(), 1.0, min(chosen.shape.p, ORDER_COORDINATES)
