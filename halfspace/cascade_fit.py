"""How a cascade is made: a basis fitted to samples of points and normals, a shape, and all codes.

Bases are fitted to one half of a sample, and shapes tried on the other (`cascade_shape.py`). What
is chosen decides the speed alone.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import parallel
from .basis import Basis, fit_basis, norm_within, transformed
from .cascade_shape import ORDER_COORDINATES, Shape, coded, reading, tile_and_choose, try_out
from .cascade_stages import CascadeArrays
from .code_rows import ROW
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
)
from .kd_tree import order_points
from .tiles import TILE, frozen, line_zeros

LEAST_SAMPLE, MOST_SAMPLE = 1024, 4096
SAMPLED, SAMPLED_COORDINATE = 16, 32
"""A basis is fitted to one point in so many, or so many points a coordinate where that is more,
within the limits above: else a small index would take longer to fit than to encode."""

DIRECTIONS = 16
"""Normals that filters are tried on."""

OTHERS = 8
"""One normal in so many may be any where nobody says which there will be."""

USUAL_SHARE = 0.001
"""Share of the points a report is expected to hold where nobody says."""

LEAST_COUNT = 0.5
"""Points a report is taken to hold where none is expected."""

REACH = 4.0
"""Points further out than so many times the furthest of the sample are left to the exact stage."""

CHUNK = 1 << 20
"""Coordinates that are transformed at a time."""


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
) -> tuple[NDArray, NDArray, int]:
    """Normals to fit a basis to and others to try it on, where there are enough of them.

    Where there are none, they are taken to be like the points, and a few to be any: the first of
    those it is tried on, whose number comes with them.
    """
    told = normals is not None and len(normals) > 0
    if not told:
        normals = _likely_normals(sample, rng)
    if len(normals) < 2 * DIRECTIONS:
        return normals, normals, 0
    picked = rng.permutation(len(normals))
    fitted, tried = normals[picked[DIRECTIONS:]], normals[picked[:DIRECTIONS]]
    if told:
        return fitted, tried, 0
    return _with_any(fitted, rng), _with_any(tried, rng), DIRECTIONS // OTHERS


def _with_any(normals: NDArray, rng: np.random.Generator) -> NDArray:
    """Normals (m, d) in any order, the first of which give way to any."""
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
    fitted, tried, unlikely = _told_apart(normals, others, rng)
    basis = fit_basis(mine, fitted, REACH)
    u, lengths = transformed(basis, others)
    u = u[lengths <= basis.reach]
    share, told = USUAL_SHARE, expected_count is not None
    if told:
        share = min(max(expected_count, LEAST_COUNT), count) / max(1, count)
    asked = _asked(tried)
    chosen, opened, heads = (Shape(d, 8, False), 1.0, 1.0, 1.0 + 0.1 * d), 1.0, d
    if len(u) >= TILE and len(asked):
        with np.errstate(all="ignore"):
            trial = try_out(basis, u, asked, share, told, unlikely)
            if np.isfinite(trial.scores).all():
                chosen, opened, heads = tile_and_choose(trial, points.itemsize, count)
    with np.errstate(all="ignore"):
        (shape, passed, still_open, settling), row_steps = chosen, fit_steps(u, 8)
    return Fit(
        shape,
        heads,
        basis,
        *fit_leading(u, shape.p, shape.bits),
        row_steps,
        _most_residual(coded(u, row_steps)[1], d),
        opened,
        passed,
        still_open,
        opened * reading(d, shape, count) + settling,
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
