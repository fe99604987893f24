"""Stages of a cascade: its flat arrays, and half-spaces in the terms of every stage."""

from typing import Annotated, NamedTuple

import numpy as np

from .basis import Basis
from .code_filter import aim, bar_of
from .code_rows import BLOCK, room_of
from .codes import Leading, Rows, check_leading
from .jit import kernel
from .layout import Stored, expect
from .query import ALL, NONE, REGULAR, prepare
from .tiles import TILE, RowTiles, check_tiles

LEAST, MOST = -(2**31), 2**31 - 1


class CascadeArrays(NamedTuple):
    """A cascade's flat arrays, read-only."""

    tiles: RowTiles  # data is a view of the points
    points: Annotated[np.ndarray, Stored("f4 f8", "slots d")]  # whole tiles, row by row
    forced: Annotated[np.ndarray, Stored("u8", "heads")]  # tiles with lanes in `always`
    always: Annotated[np.ndarray, Stored("u8", "tiles")]  # lanes that leading codes say nothing of
    bare: Annotated[np.ndarray, Stored("u8", "tiles")]  # those that row codes say nothing of either
    reach: float  # upper bound on the norms of all others
    basis: Basis
    heads: Leading  # of tiles, in the steps of the points
    leading: Leading
    rows: Rows


def check_cascade(cascade: CascadeArrays, points: int) -> None:
    """Raise ValueError unless a stored cascade over so many points may be read."""
    (slots, d), tiles = cascade.points.shape, -(-points // TILE)
    expect(slots == tiles * TILE, "points", f"{tiles * TILE} rows", slots)
    check_tiles(cascade.tiles.norms, cascade.tiles.ranks, tiles, points)
    expect(len(cascade.tiles.ranks) == points, "tiles.ranks", f"{points}", len(cascade.tiles.ranks))
    for name, wanted in (("always", tiles), ("bare", tiles), ("forced", -(-tiles // TILE))):
        count = len(getattr(cascade, name))
        expect(count == wanted, name, f"{wanted}", count)
    p, bits = len(cascade.leading.steps.low), cascade.leading.bits
    check_leading(cascade.leading, "leading", tiles, d, p)
    check_leading(cascade.heads, "heads", len(cascade.forced), d, len(cascade.heads.steps.low))
    expect(cascade.heads.bits == bits, "heads.bits", f"{bits}", cascade.heads.bits)
    count = len(cascade.rows.codes)
    expect(count in (0, slots), "rows.codes", f"none or {slots}", count)
    count = len(cascade.rows.steps.low)
    expect(count == d, "rows.steps", f"{d} coordinates", count)


class Targets(NamedTuple):
    """Half-spaces in the terms of every stage, a row a query."""

    head_bars: np.ndarray  # int32
    heads: np.ndarray  # (m, 4 or 8 a row of codes) int8
    bars: np.ndarray  # int32, of leading codes
    leading: np.ndarray  # (m, 4 or 8 a row of codes) int8
    rows: np.ndarray  # (m, d) float32
    narrow: np.ndarray  # (m, d) in the floats of the points
    ranges: np.ndarray  # (m, 5) float64: level, norm; of row codes centre, error, least product
    scales: np.ndarray  # (m, 4) float64: constant and unit of leading codes, and of heads
    kinds: np.ndarray  # int64


@kernel
def make_targets(cascade, normals, offsets, closed, m):
    """Make the first m >= 1 queries ready; room for whole blocks, whose rest no point passes."""
    d, dtype, room = normals.shape[1], cascade.points.dtype, -(-m // BLOCK) * BLOCK
    width = room_of(cascade.leading.codes.shape[1], cascade.leading.bits)
    bars, leading = np.full(room, MOST, np.int32), np.zeros((room, width), np.int8)
    width = room_of(cascade.heads.codes.shape[1], cascade.heads.bits)
    head_bars, heads = np.full(room, MOST, np.int32), np.zeros((room, width), np.int8)
    rows, narrow = np.zeros((room, d), np.float32), np.zeros((room, d), dtype)
    ranges, kinds = np.zeros((room, 5)), np.full(room, NONE, np.int64)
    scales = np.ones((room, 4))
    scales[:, 0::2] = np.inf
    scratch = np.empty((3, d))
    for q in range(m):
        query = prepare(normals[q], offsets[q], closed, narrow[q])
        kinds[q], ranges[q, 0], ranges[q, 1] = query.kind, query.level, query.norm
        if query.kind == REGULAR:
            target = aim(
                cascade.basis,
                cascade.heads,
                cascade.leading,
                cascade.rows,
                normals[q],
                query,
                cascade.reach,
                scratch,
                heads[q],
                leading[q],
                rows[q],
            )
            scales[q, 0], scales[q, 1] = target.leading
            scales[q, 2], scales[q, 3] = target.heads
            bars[q] = bar_of(scales[q, 0], scales[q, 1], query.level)
            head_bars[q] = bar_of(scales[q, 2], scales[q, 3], query.level)
            ranges[q, 2], ranges[q, 3] = target.centre, target.error
            size = abs(query.level) + abs(target.centre) + target.error
            ranges[q, 4] = query.level - target.centre - target.error - 2.0**-50 * size
        elif query.kind == ALL:
            bars[q] = head_bars[q] = LEAST
    return Targets(head_bars, heads, bars, leading, rows, narrow, ranges, scales, kinds)
