"""Points as small integers: what a coordinate is rounded to, and how far off each point may be.

Coordinate j of a transformed point is u_j = low_j + step_j (c_j + ρ_j) with a code c_j of 4, 6 or 8
bits, and a residual ρ_j, at most 1/2 in magnitude where no code was clamped. For weights a_j the
residuals then cost |Σ a_j ρ_j| <= ||a|| ||ρ||, and codes keep bounds on ||ρ||.

Two sets of codes are made of the same points. *Leading* codes hold the first p coordinates, in
tiles as `code_rows.py` says; behind them stand ||ρ|| and the norm of all coordinates that were
left out, both rounded up to steps of their own, so that an upper bound on an inner product is an
inner product of codes. *Row* codes hold all coordinates of one point side by side, a byte each.

*Heads* are leading codes of tiles: of the centre of a tile's points, with the radius around it in
place of ||ρ||, and the largest norm of what was left out.

A point that the bound of leading codes does not hold for is marked in `always`, one that that of
row codes does not hold for in `bare`, and they are not asked about it. Points out of the basis's
reach are both; else it is residuals beyond the last step, or the bound.
"""

import math
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .code_rows import GROUPS, ROW, pack, room_of
from .jit import REASSOCIATED, kernel, part
from .layout import Stored, expect
from .query import SINGLE, gamma
from .tiles import TILE, frozen

COVERED = {4: (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4), 6: (1.1, 1.0, 0.9, 0.8), 8: (1.25,)}
"""What codes of so many bits may cover, in ranges of a sample; with small steps, to be clamped adds
much to a residual, and few points are to be."""

JUDGED = 1024
"""Points of a sample, or up to twice as many, that ranges are judged by."""

ROOM = 1.3
"""What bounds taken from a sample are stretched by."""

FINE_ROOM = 2.0
"""The same, where there are steps enough."""

EVEN = 0.9
"""Quantile of coordinates' ranges, in deviations, that others are widened to."""

MOST_EVENED = 1.4
"""What a range is widened by at most."""

_ONE = np.uint64(1)


class Steps(NamedTuple):
    """How coordinates are rounded."""

    low: Annotated[np.ndarray, Stored("f4", "p")]
    step: Annotated[np.ndarray, Stored("f4", "p")]
    inverse: Annotated[np.ndarray, Stored("f4", "p")]  # of the step
    middle: Annotated[np.ndarray, Stored("f4", "p")]  # mean code
    most: int  # largest code


class Ladder(NamedTuple):
    """A number rounded up to a step: first + code * step, code <= most."""

    first: float
    step: float
    most: int


class Leading(NamedTuple):
    """Codes of the first p coordinates, in tiles."""

    codes: Annotated[np.ndarray, Stored("u1", "tiles rows 256")]
    steps: Steps
    residual: Ladder  # of ||ρ||, coordinate p of the codes
    rest: Ladder  # of the norm of what is left out, coordinate p + 1 where anything is
    spread: float  # bound on ||c - middle||
    bits: int


class Rows(NamedTuple):
    """Codes of all coordinates, row by row; no rows where they would tell nothing more."""

    codes: Annotated[np.ndarray, Stored("u1", "slots d")]
    steps: Steps
    residual: float  # bound on ||ρ||


class Heads(NamedTuple):
    """What heads are made of, by tile."""

    steps: Steps  # of the coordinates they hold, the first p
    centres: np.ndarray  # (tiles, p) uint8, codes
    radii: np.ndarray  # (tiles,) float64
    rests: np.ndarray  # (tiles,) float64


def leading_width(d: int, p: int, bits: int) -> int:
    """Bytes that leading codes take for each point."""
    rows, coordinates = GROUPS[bits]
    return 4 * rows * -(-(p + 1 + (p < d)) // coordinates)


def check_leading(leading: Leading, name: str, tiles: int, d: int, p: int) -> None:
    """Raise ValueError unless stored codes of p coordinates of so many tiles may be read."""
    bits = leading.bits
    expect(1 <= p <= d, f"{name}.steps", f"1 … {d} coordinates", p)
    expect(bits in GROUPS, f"{name}.bits", f"one of {', '.join(map(str, GROUPS))}", bits)
    shape, wanted = leading.codes.shape[:2], (tiles, leading_width(d, p, bits) // 4)
    expect(shape == wanted, f"{name}.codes", f"{wanted} rows", shape)


def fit_steps(sample: NDArray, bits: int) -> Steps:
    """Steps for coordinates like those of a sample (s, p): the least mean square residuals."""
    most = 2**bits - 1
    low, high = (
        (sample.min(axis=0), sample.max(axis=0)) if len(sample) else np.zeros((2, sample.shape[1]))
    )
    middle, half = 0.5 * (low + high), np.maximum(0.5 * (high - low), 0.0)
    if bits == 8 and len(sample):
        half = _evened(half, sample.std(axis=0))
    judged, losses, steps = sample[:: max(1, len(sample) // JUDGED)], [], []
    for shrink in COVERED[bits]:
        step = 2.0 * half * shrink / most
        step = np.maximum(step, 1e-7 * step.max(initial=0.0)) + 1e-25
        start = middle - 0.5 * most * step
        codes = np.clip(np.rint((judged - start) / step), 0, most)
        losses.append(np.square(judged - start - codes * step).sum(axis=0))
        steps.append(step)
    best = np.argmin(losses, axis=0)
    step = np.take_along_axis(np.array(steps), best[None], axis=0)[0].astype(np.float32)
    start = (middle - 0.5 * most * step).astype(np.float32)
    mean = np.clip(np.rint((sample - start) / step), 0, most).mean(axis=0) if len(sample) else start
    return Steps(
        frozen(start),
        frozen(step),
        frozen((1.0 / step.astype(np.float64)).astype(np.float32)),
        frozen(np.asarray(mean, np.float32)),
        most,
    )


def _evened(half: NDArray, deviation: NDArray) -> NDArray:
    """Ranges of coordinates (p,) with those widened that a sample happens to have shown little of.

    Extremes of a sample scatter: where another coordinate goes further in its own deviations, so
    may this one.
    """
    wide = np.divide(half, deviation, out=np.zeros_like(half), where=deviation > 0.0)
    return np.clip(np.quantile(wide, EVEN) * deviation, half, MOST_EVENED * half)


def rounded(sample: NDArray, steps: Steps) -> tuple[NDArray, NDArray]:
    """Codes and residuals of a sample (s, p), both float32."""
    exact = (sample - steps.low) * steps.inverse
    codes = np.clip(np.rint(exact), 0, steps.most)
    return codes, exact - codes


def fit_ladder(values: NDArray, most: int) -> Ladder:
    """Steps for non-negative numbers like those of a sample, and a little beyond them."""
    if not len(values):
        return Ladder(0.0, 1.0, most)
    first, last = values.min() / ROOM, values.max() * (FINE_ROOM if most > 15 else ROOM)
    return Ladder(float(first), float(max((last - first) / most, 1e-6 * last, 1e-25)), most)


def fit_leading(u: NDArray, p: int, bits: int) -> tuple[Steps, Ladder, Ladder]:
    """Steps of the first p coordinates of a sample (s, d), of residuals and of what is left out."""
    steps = fit_steps(u[:, :p], bits)
    off = np.linalg.norm(rounded(u[:, :p], steps)[1], axis=1)
    rest = np.linalg.norm(u[:, p:], axis=1)
    return (
        steps,
        fit_ladder(1.001 * off + 1e-4 * np.sqrt(p), steps.most),
        fit_ladder(1.0001 * rest + 1e-18, steps.most),
    )


@part
def _climb(ladder, value):
    """Code of the step at or above a value; -1 where there is none."""
    # In this order, `max` keeps a NaN.
    code = np.ceil(max((value - ladder.first) / ladder.step * (1.0 + 1e-6), 0.0))
    return np.int64(code) if code <= ladder.most else np.int64(-1)


@part(flags=REASSOCIATED)
def _round(points, i, steps, codes):
    """Round the first coordinates of row i to codes, uint8, as many as there are steps.

    Bounds on the residual's norm and the codes' spread.
    """
    low, inverse, middle = steps.low, steps.inverse, steps.middle
    most = np.float32(steps.most)
    off, wide = np.float32(0.0), np.float32(0.0)
    for j in range(low.size):
        exact = (points[i, j] - low[j]) * inverse[j]
        code = min(max(np.floor(exact + np.float32(0.5)), np.float32(0.0)), most)
        residual, from_middle = exact - code, code - middle[j]
        off += residual * residual
        wide += from_middle * from_middle
        codes[j] = np.uint8(code)
    # `exact` is off by 4 * 2^-24 of itself, which is at most the largest code and the residual.
    extra, more = math.sqrt(low.size) * 1e-4, 1.0 + gamma(low.size + 8, SINGLE)
    return math.sqrt(off) * more + extra, math.sqrt(wide) * more + extra


@part(flags=REASSOCIATED)
def _norm_from(points, i, p):
    """Upper bound on the norm of row i's coordinates from p on."""
    total, rest = np.float32(0.0), points[i, p:]
    for j in range(rest.size):
        total += rest[j] * rest[j]
    return math.sqrt(np.float64(total)) * (1.0 + gamma(points.shape[1], SINGLE)) + 1e-18


@part
def _make_head(points, first, last, lanes, heads, t, mean):
    """Head of tile t, whose `lanes` are among rows first … last - 1."""
    p, steps, count = heads.centres.shape[1], heads.steps, 0
    mean[:] = 0.0
    for i in range(first, last):
        if (lanes >> np.uint64(i - first)) & _ONE:
            count += 1
            for j in range(p):
                mean[0, j] += points[i, j]
    for j in range(p):
        mean[0, j] /= np.float32(max(count, 1))
    _round(mean, 0, steps, heads.centres[t])
    for j in range(p):
        mean[0, j] = heads.centres[t, j]
    radius, rest = 0.0, 0.0
    for i in range(first, last):
        if (lanes >> np.uint64(i - first)) & _ONE:
            radius = max(radius, _distance(points, i, steps, mean))
            rest = max(rest, _norm_from(points, i, p))
    heads.radii[t], heads.rests[t] = math.sqrt(radius) * (1.0 + 1e-6), rest


@part(flags=REASSOCIATED)
def _distance(points, i, steps, codes):
    """Squared distance of row i from what codes stand for."""
    total, low, step = 0.0, steps.low, steps.step
    for j in range(low.size):
        away = np.float64(points[i, j]) - (
            np.float64(low[j]) + np.float64(step[j]) * np.float64(codes[0, j])
        )
        total += away * away
    return total


@kernel
def encode(points, lengths, reach, first, leading, rows, always, bare, heads):
    """Write the codes of transformed points (n, d), float32, into slots from `first` on.

    `first` is that of a tile, and its slots hold zeros. Heads are made where there is room for
    them. `lengths` are those that the basis's reach is compared with. Returns the largest spread of
    leading codes among points that are not marked in `always`.
    """
    p, d, most_spread = leading.steps.low.size, points.shape[1], 0.0
    codes, bits = leading.codes, leading.bits
    some = np.zeros(room_of(codes.shape[1], bits), np.uint8)
    for i in range(points.shape[0]):
        slot = first + i
        t, lane = slot // TILE, slot % TILE
        bit = _ONE << np.uint64(lane)
        if not lengths[i] <= reach:
            always[t] |= bit
            bare[t] |= bit
            continue
        residual, spread = _round(points, i, leading.steps, some)
        residual_code, rest_code = _climb(leading.residual, residual), np.int64(0)
        if p < d:
            rest_code = _climb(leading.rest, _norm_from(points, i, p))
        fits = residual_code >= 0 and rest_code >= 0
        if rows.codes.shape[0]:
            off, _ = _round(points, i, rows.steps, rows.codes[slot])
            if not off <= rows.residual:
                bare[t] |= bit
        if not fits:
            always[t] |= bit
            continue
        most_spread = max(most_spread, spread)
        some[p] = residual_code
        if p < d:
            some[p + 1] = rest_code
        pack(some, codes, bits, t, lane)
    mean = np.empty((1, heads.centres.shape[1]), np.float32)
    for start in range(0, points.shape[0] if heads.radii.size else 0, TILE):
        t, last = (first + start) // TILE, min(start + TILE, points.shape[0])
        _make_head(points, start, last, ~always[t], heads, t, mean)
    return most_spread


@kernel
def _put_heads(heads, leading, d):
    """Write the codes of heads; the largest spread."""
    p, codes, middle, most = heads.centres.shape[1], leading.codes, leading.steps.middle, 0.0
    some = np.zeros(room_of(codes.shape[1], leading.bits), np.uint8)
    for t in range(heads.radii.size):
        wide = 0.0
        for j in range(p):
            some[j] = heads.centres[t, j]
            wide += (np.float64(some[j]) - middle[j]) ** 2
        some[p] = _climb(leading.residual, heads.radii[t])
        if p < d:
            some[p + 1] = _climb(leading.rest, heads.rests[t])
        pack(some, codes, leading.bits, t // TILE, t % TILE)
        most = max(most, wide)
    return math.sqrt(most) * 1.001


def make_heads(tiles: int, p: int, steps: Steps) -> Heads:
    """Room for heads of so many tiles that hold the first p of the coordinates with such steps."""
    steps = Steps(*(frozen(each[:p].copy()) for each in steps[:4]), steps.most)
    return Heads(steps, np.empty((tiles, p), np.uint8), np.empty(tiles), np.empty(tiles))


def encode_heads(heads: Heads, leading: Leading, d: int) -> Leading:
    """Heads as leading codes of tiles, 64 a tile of theirs, in the steps of those of the points.

    They may hold fewer coordinates than those.
    """
    count, p = heads.centres.shape
    rows = leading_width(d, p, leading.bits) // 4
    codes = np.zeros((-(-count // TILE), rows, ROW), np.uint8)
    ladders = [fit_ladder(a, leading.residual.most) for a in (heads.radii, heads.rests)]
    made = Leading(codes, heads.steps, *ladders, 0.0, leading.bits)
    spread = _put_heads(heads, made, d)
    return made._replace(codes=frozen(codes), spread=spread)
