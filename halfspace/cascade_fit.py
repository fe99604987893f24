"""How a cascade is made: its basis, and how many coordinates of how many bits, chosen by cost.

A sample of the points goes through every filter that may be made, with half-spaces of the size that
reports are expected to have along a sample of the normals; bytes to read and points that pass are
priced by constants of one machine. What is chosen decides the speed alone.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import parallel
from .basis import Basis, fit_basis, norm_within, transformed
from .cascade_stages import CascadeArrays
from .codes import (
    ROOM,
    Ladder,
    Leading,
    Rows,
    Steps,
    encode,
    encode_heads,
    fit_leading,
    fit_steps,
    leading_width,
    make_heads,
    rounded,
)
from .integer_dot import GROUPS, MOST_QUERY, ROW
from .kd_tree import order_points
from .tiles import TILE, frozen, line_zeros

LEAST_SAMPLE, MOST_SAMPLE = 1024, 4096
SAMPLED, SAMPLED_COORDINATE = 16, 32
"""A basis is fitted to one point in so many, or so many points a coordinate where that is more,
within the limits above: else a small index would take longer to fit than to encode."""

DIRECTIONS = 16
"""Normals that filters are tried on."""

OTHERS = 8
"""One normal in so many is any where nobody says which there will be."""

USUAL_SHARE = 0.001
"""Share of the points a report is expected to hold where nobody says."""

LEAST_FOUND = 4
"""Points of the sample that a half-space holds at least."""

REACH = 4.0
"""Points further out than so many times the furthest of the sample are left to the exact stage."""

CHUNK = 1 << 20
"""Coordinates that are transformed at a time."""

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

MOST_OPENED = 0.6
"""Share of a sample's tiles up to which order pays; those of all points are smaller."""

MOST_MEMORY = 1.5
"""Times the bytes of float32 points that are taken in all, where d does not force more."""

OTHER_BYTES = 5.0
"""A point, beside points and codes: ranks, norms, heads of few coordinates."""


class Shape(NamedTuple):
    """Leading codes of p coordinates, and whether there are row codes."""

    p: int
    bits: int
    rows: bool


class Fit(NamedTuple):
    """What samples decided."""

    shape: Shape
    heads: int  # leading coordinates that heads of tiles hold
    basis: Basis
    steps: Steps
    residual: Ladder
    rest: Ladder
    row_steps: Steps
    row_residual: float
    opened: float  # share of tiles expected to be read; below 1 where neighbours share them
    passed: float  # share of points expected to pass the leading codes
    open: float  # and the row codes
    nanoseconds: float  # expected, a point of a query

    def text(self, n: int, d: int) -> str:
        """Lines for `explain`."""
        width = leading_width(d, self.shape.p, self.shape.bits)
        order = "as they came"
        if self.opened < 1.0:
            order = f"neighbours share tiles, {self.opened:.1%} of which are read"
        lines = [
            f"  order    {order}",
            f"  leading  {self.shape.p} of {d} coordinates, {self.shape.bits} bits: {width} "
            f"bytes a point, {self.passed:.3%} pass",
        ]
        if self.shape.rows:
            lines.append(f"  rows     {d} bytes a point that passed, {self.open:.3%} stay open")
        lines.append(f"  expected {self.nanoseconds * n / 1e6:.3f} ms a query")
        return "\n".join(lines)

    def expected(self) -> list[float]:
        """What was expected of it: the last four fields."""
        return [float(number) for number in self[-4:]]


def recall_fit(cascade: CascadeArrays, expected: list[float]) -> Fit:
    """The fit that a cascade was made by, from its arrays and `Fit.expected`."""
    numbers = isinstance(expected, list) and [type(number) for number in expected]
    if numbers != [float] * 4 or not np.isfinite(expected).all():
        raise ValueError(f"expected: expected four finite numbers, got {expected!r}")
    leading, rows = cascade.leading, cascade.rows
    shape = Shape(len(leading.steps.low), leading.bits, len(rows.codes) > 0)
    of_leading = leading.steps, leading.residual, leading.rest
    heads = len(cascade.heads.steps.low)
    return Fit(shape, heads, cascade.basis, *of_leading, rows.steps, rows.residual, *expected)


class _Trial(NamedTuple):
    """A sample in the basis, and half-spaces to try filters on."""

    points: NDArray  # (s, d) float32
    normals: NDArray  # (q, d)
    scores: NDArray  # (s, q)
    offsets: NDArray  # (q,)


def _try_out(basis: Basis, points: NDArray, normals: NDArray, share: float) -> _Trial:
    projected = (normals / basis.scale) @ basis.inverse
    scores = points @ projected.T
    found = min(len(points), max(LEAST_FOUND, round(share * len(points))))
    return _Trial(
        points, projected, scores, np.partition(scores, len(points) - found, axis=0)[-found]
    )


def _coded(points: NDArray, steps: Steps) -> tuple[NDArray, NDArray]:
    """Codes (s, p) of as many coordinates as there are steps, and ||ρ|| of every point (s,)."""
    codes, residuals = rounded(points[:, : len(steps.low)], steps)
    return codes, np.linalg.norm(residuals, axis=1)


def _passed(trial: _Trial, steps: Steps, p: int) -> float:
    """Share of the sample that leading codes of p coordinates let pass."""
    codes, off = _coded(trial.points, steps)
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
    return float(np.mean(estimates + residual + rest + lost >= trial.offsets))


def _opened(trial: _Trial, most: int, count: int) -> tuple[float, int]:
    """Share of tiles that half-spaces open, where neighbours share tiles, of so many points.

    And the coordinates, at most so many, that heads are to hold. Tiles of the sample are fewer, so
    they are made of fewer points.
    """
    u = trial.points[order_points(np.ascontiguousarray(trial.points[:, :ORDER_COORDINATES]))]
    size = int(np.clip(TILE * len(u) // max(1, count), LEAST_TILE, TILE))
    tiles = u[: len(u) // size * size].reshape(-1, size, u.shape[1])
    centres = tiles.mean(axis=1)
    away = tiles - centres[:, None]

    def share(p: int) -> float:
        radii = np.linalg.norm(away[..., :p], axis=2).max(axis=1)
        rests = np.linalg.norm(tiles[..., p:], axis=2).max(axis=1)
        highest = centres[:, :p] @ trial.normals[:, :p].T
        highest += np.outer(radii, np.linalg.norm(trial.normals[:, :p], axis=1))
        highest += np.outer(rests, np.linalg.norm(trial.normals[:, p:], axis=1))
        return float(np.mean(highest >= trial.offsets))

    return min((share(p), p) for p in {min(most, ORDER_COORDINATES), most})


def _widths(d: int) -> list[int]:
    """Numbers of leading coordinates worth a try."""
    return [p for p in (6, 14, 22, 30, 46, 62, 94, 126, 190) if p <= 0.75 * d] + [d]


def _reading(d: int, shape: Shape) -> float:
    """Nanoseconds to read the leading codes of a point."""
    return LEADING_POINT + LEADING_BYTE[shape.bits] * leading_width(d, shape.p, shape.bits)


def _memory(d: int, shape: Shape) -> float:
    """Bytes in all, for each of float32 points."""
    width = leading_width(d, shape.p, shape.bits)
    return 1.0 + (width * (1.0 + 1.0 / TILE) + shape.rows * d + OTHER_BYTES) / (4.0 * d)


def _choose(trial: _Trial, itemsize: int, opened: float) -> tuple[Shape, float, float, float]:
    """The cheapest shape, what passes its stages, and nanoseconds a point that takes.

    `opened` is the share of the leading codes that are read.
    """
    d = trial.points.shape[1]
    steps = {bits: fit_steps(trial.points, bits) for bits in sorted(GROUPS)}
    off = _coded(trial.points, steps[8])[1]
    error = np.outer(off, np.linalg.norm(trial.normals * steps[8].step, axis=1))
    unsettled = float(np.mean(np.abs(trial.scores - trial.offsets) <= error))
    best, least = None, np.inf
    for bits, each in steps.items():
        for p in _widths(d):
            shape = Shape(p, bits, p < d or bits < 8)
            if (p < d or bits < 8) and _memory(d, shape) > MOST_MEMORY:
                continue
            passed = _passed(trial, Steps(*(a[:p] for a in each[:4]), each.most), p)
            still_open = min(passed, unsettled) if shape.rows else passed
            settling = still_open * (FLOAT_POINT + FLOAT_BYTE * itemsize * d)
            if shape.rows:
                settling += passed * (ROW_POINT + ROW_COORDINATE * d)
            cost = opened * _reading(d, shape) + settling
            if best is None or cost < least:
                best, least = (shape, passed, still_open, settling), cost
    return best


def _tile_and_choose(
    trial: _Trial, itemsize: int, count: int
) -> tuple[tuple[Shape, float, float, float], float, int]:
    """What `_choose` says, the share of tiles that are read, 1 where order does not pay, and heads.

    Heads are of no use where the order is not made for them.
    """
    opened, heads = _opened(trial, trial.points.shape[1], count)
    if opened <= MOST_OPENED:
        chosen = _choose(trial, itemsize, opened)
        opened, heads = _opened(trial, chosen[0].p, count)
        if opened <= MOST_OPENED:
            return chosen, opened, heads
    chosen = _choose(trial, itemsize, 1.0)
    return chosen, 1.0, min(chosen[0].p, ORDER_COORDINATES)


def _likely_normals(sample: NDArray, rng: np.random.Generator) -> NDArray:
    """Normals like the points, seen from their median; any where all points are one."""
    if len(sample):
        with np.errstate(all="ignore"):
            # A mean would be where a few points far out pull it, and all normals alike.
            like = sample.astype(np.float64) - np.median(sample, axis=0)
            like /= np.abs(like).max(axis=1, keepdims=True)
        like = like[np.isfinite(like).all(axis=1)]
        if len(like):
            return like
    return rng.standard_normal((DIRECTIONS, sample.shape[1]))


def _told_apart(
    normals: NDArray | None, sample: NDArray, rng: np.random.Generator
) -> tuple[NDArray, NDArray]:
    """Normals to fit a basis to and others to try it on, where there are enough of them.

    Where there are none, they are taken to be like the points, and a few to be any.
    """
    told = normals is not None and len(normals) > 0
    if not told:
        normals = _likely_normals(sample, rng)
    if len(normals) < 2 * DIRECTIONS:
        return normals, normals
    picked = rng.permutation(len(normals))
    fitted, tried = normals[picked[DIRECTIONS:]], normals[picked[:DIRECTIONS]]
    if not told:
        fitted, tried = (_with_any(normals, rng) for normals in (fitted, tried))
    return fitted, tried


def _with_any(normals: NDArray, rng: np.random.Generator) -> NDArray:
    """Normals (m, d) in any order, some of which give way to any."""
    some = rng.standard_normal((len(normals) // OTHERS, normals.shape[1]))
    return np.concatenate([some, normals[len(some) :]])


def _asked(normals: NDArray) -> NDArray:
    """Normals (q, d) to try filters on, of those that are expected."""
    with np.errstate(all="ignore"):
        asked = normals[:DIRECTIONS] / np.abs(normals[:DIRECTIONS]).max(axis=1, keepdims=True)
    return asked[np.isfinite(asked).all(axis=1)]


def _sampled(n: int, d: int) -> int:
    """Points of n that a basis is fitted to."""
    return min(MOST_SAMPLE, max(LEAST_SAMPLE, n // SAMPLED, SAMPLED_COORDINATE * d))


def fit_cascade(
    points: NDArray,
    normals: NDArray | None,
    expected_count: float | None,
    count: int | None = None,
    rows: int | None = None,
) -> Fit:
    """Fit a cascade to a sample of points (n, d), or of `count` like them, and to normals.

    The basis is fitted to `rows` of them, or as many as pay, and to some of the normals, all else
    to as many others: where a sample scatters, its own basis makes it look narrower than the points
    are, and normals as if its first coordinates were all of them.
    """
    rng, count = np.random.default_rng(0), len(points) if count is None else count
    rows = _sampled(*points.shape) if rows is None else rows
    picked = np.sort(rng.choice(len(points), min(len(points), 2 * rows), replace=False))
    sample, d = points[picked], points.shape[1]
    mine, others = (sample, sample) if len(picked) == count else (sample[::2], sample[1::2])
    fitted, tried = _told_apart(normals, others, rng)
    basis = fit_basis(mine, fitted, REACH)
    u, lengths = transformed(basis, others)
    u = u[lengths <= basis.reach]
    share = USUAL_SHARE if expected_count is None else min(expected_count, count) / max(1, count)
    asked = _asked(tried)
    chosen, opened, heads = (Shape(d, 8, False), 1.0, 1.0, 1.0 + 0.1 * d), 1.0, d
    if len(u) >= TILE and len(asked):
        with np.errstate(all="ignore"):
            trial = _try_out(basis, u, asked, share)
            if np.isfinite(trial.scores).all():
                chosen, opened, heads = _tile_and_choose(trial, points.itemsize, count)
    with np.errstate(all="ignore"):
        (shape, passed, still_open, settling), row_steps = chosen, fit_steps(u, 8)
    return Fit(
        shape,
        heads,
        basis,
        *fit_leading(u, shape.p, shape.bits),
        row_steps,
        _most_residual(_coded(u, row_steps)[1], d),
        opened,
        passed,
        still_open,
        opened * _reading(d, shape) + settling,
    )


def _most_residual(residuals: NDArray, d: int) -> float:
    """Bound on row residuals that nearly all points keep."""
    return float(ROOM * residuals.max(initial=0.0) + 2e-4 * np.sqrt(d))


def _chunks(d: int, count: int) -> list[tuple[int, int]]:
    """Rows to transform at a time, whole tiles."""
    step = max(1, CHUNK // (d * TILE)) * TILE
    return [(first, min(first + step, count)) for first in range(0, count, step)]


def order_of(points: NDArray, fit: Fit) -> NDArray:
    """Rows (n, d) in an order in which neighbours share tiles, by their leading coordinates."""
    n, d = points.shape
    most = min(fit.shape.p, ORDER_COORDINATES)
    some = np.zeros((n, most), np.float32)

    def part(first: int, last: int) -> None:
        u, lengths = transformed(fit.basis, points[first:last], most)
        kept = lengths <= fit.basis.reach
        some[first:last][kept] = u[kept]

    parallel.run([lambda a=a, b=b: part(a, b) for a, b in _chunks(d, n)])
    return order_points(some)


def encode_all(
    points: NDArray, count: int, fit: Fit
) -> tuple[NDArray, NDArray, NDArray, float, Basis, Leading, Leading, Rows]:
    """Codes of the first `count` of some points (slots, d): the last fields of a cascade."""
    slots, d = points.shape
    shape, tiles = fit.shape, slots // TILE
    row_bytes = leading_width(d, shape.p, shape.bits) // 4
    codes = line_zeros((tiles, row_bytes, ROW), np.uint8)
    row_codes = line_zeros((slots if shape.rows else 0, d), np.uint8)
    always, bare = np.zeros(tiles, np.uint64), np.zeros(tiles, np.uint64)
    leading = Leading(codes, fit.steps, fit.residual, fit.rest, 0.0, shape.bits)
    rows = Rows(row_codes, fit.row_steps, fit.row_residual)
    heads = make_heads(tiles, fit.heads, fit.steps)

    def part(first: int, last: int) -> float:
        u, lengths = transformed(fit.basis, points[first:last])
        return encode(u, lengths, fit.basis.reach, first, leading, rows, always, bare, heads)

    spreads = parallel.run([lambda a=a, b=b: part(a, b) for a, b in _chunks(d, count)])
    leading = leading._replace(codes=frozen(codes), spread=max(spreads, default=0.0))
    rows = rows._replace(codes=frozen(row_codes))
    above = encode_heads(heads, leading, d)
    reach = norm_within(fit.basis)
    forced = frozen(_words(always != 0))
    return forced, frozen(always), frozen(bare), reach, fit.basis, above, leading, rows


def _words(marked: NDArray) -> NDArray:
    """Bits (n,) in words of 64, uint64 (ceil(n / 64),)."""
    padded = np.zeros(-(-len(marked) // TILE) * TILE, bool)
    padded[: len(marked)] = marked
    return np.packbits(padded, bitorder="little").view("<u8").astype(np.uint64)
