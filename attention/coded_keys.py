"""What codes say of a query's keys: an upper bound on every score, and on the mass below a bar.

A key's 8-bit codes bound its score from above by one integer product (`halfspace.code_filter`),
which is all that is read of most keys. With L the exact score of the key whose bound is highest,
the mass of keys whose product is below a bar, at or below that of L, is at most the sum of
exp(bound) over them (`code_bounds.py`).

For a query, n d bytes of codes are read one after another.
"""

import math
from typing import NamedTuple

import numpy as np

from halfspace.basis import Basis
from halfspace.code_filter import aim_at_codes, bar_of
from halfspace.code_rows import BLOCK, room_of
from halfspace.codes import Leading
from halfspace.integer_dot import AHEAD, paired_products
from halfspace.jit import kernel, part
from halfspace.tiles import TILE, used_lanes

from .code_bounds import (
    BINS_PER_NAT,
    FURTHEST,
    LOWEST,
    NOWHERE,
    SUM_ERROR,
    highest,
    mass_below,
    sample_histogram,
)
from .exponential import LARGEST_EXPONENT, LOG2_E
from .reading import dot

SURE = 1.0 + 1e-9
"""Covers the rounding of sums and exponentials of masses."""

LEAST_SAMPLE, MOST_STRIDE = 16, 16
"""Tiles that a histogram is made of at least, and of which one in how many at least."""

LEAST_SHARE, FAINT_BITS = 1e-30, 6.0
"""Keys that all together miss less than such a part of a share, down to the least, are bounded tile
by tile."""

LEAST_UNIT = 1e-290
"""Below so many nats a product, codes say nothing."""

_ONE = np.uint64(1)

_ALL = ~np.uint64(0)


class CodedKeys(NamedTuple):
    """Keys and values of one head by slot, and the codes of keys. All arrays are read-only."""

    keys: np.ndarray  # (64 tiles, head_dim)
    values: np.ndarray  # (64 tiles, value_dim)
    always: np.ndarray  # (tiles,) uint64, lanes that codes say nothing of
    leading: Leading
    basis: Basis
    reach: float  # upper bound on the norms of coded keys


class Aims(NamedTuple):
    """Queries in the terms of the codes."""

    weights: np.ndarray  # (2 queries of whole blocks, room) int8, pairs
    bounds: np.ndarray  # (m, 3) float64: constant, unit, gap of `aim_at_codes`


class View(NamedTuple):
    """What codes say of one query's keys."""

    level: float  # L, in nats
    at: int  # the bound of this product is L or less
    constant: float  # of bounds, in nats
    unit: float  # nats a product
    step: float  # powers of two a product, float32
    short: float  # nats that the bound of `at` is below L
    widen: float  # what rounding may make of a mass
    stride: int  # of the histogram
    ratio: float  # about what a weight is of its bound


@kernel
def aim_queries(head, queries):
    """Bring queries (m, head_dim), float64, in the terms of the codes."""
    m, d = queries.shape
    width = room_of(head.leading.codes.shape[1], head.leading.bits)
    weights = np.zeros((-(-m // BLOCK) * BLOCK, 2, width), np.int8)
    bounds, scratch, codes = np.empty((m, 3)), np.empty((3, d)), np.zeros(width, np.int32)
    for q in range(m):
        bounds[q] = aim_at_codes(
            head.basis, head.leading, queries[q], head.reach, scratch, codes, weights[q]
        )
    return Aims(weights.reshape(-1, width), bounds)


@part
def fill_tiles(codes, always, weights, q, count, first, last, out):
    """Products of tiles first … last - 1 with `count` queries from q on; those not coded, any."""
    for t in range(first, last):
        if always[t] != _ALL:
            paired_products(codes, t, AHEAD, weights, q, count, out)


@kernel
def fill_products(head, weights, q, count, first, last, out):
    """Products of tiles first … last - 1 with 1 or `BLOCK` queries from q on, (count, slots)."""
    fill_tiles(head.leading.codes, head.always, weights, q, count, first, last, out)


@part
def list_uncoded(always, length, row, chosen):
    """Slots of visible keys that have no code; they and what is not visible go NOWHERE."""
    size, tiles = 0, (length + TILE - 1) // TILE
    for t in range(tiles):
        seen = used_lanes(length, t)
        if seen & ~always[t] == _ALL:
            continue
        for lane in range(TILE):
            slot, bit = t * TILE + lane, _ONE << np.uint64(lane)
            if always[t] & seen & bit:
                chosen[size] = slot
                size += 1
            if (always[t] | ~seen) & bit:
                row[slot] = NOWHERE
    return size


@part
def _product_of(level, constant, unit, blur):
    """Largest product whose bound is `level` or less; where that cannot be said, all are above."""
    place = (level - constant) / unit
    if not (place > -FURTHEST and unit > LEAST_UNIT and blur < LARGEST_EXPONENT):
        return np.int32(-FURTHEST)
    return np.int32(math.floor(min(place, FURTHEST)))


@part
def stride_of(tiles):
    """A histogram of so many tiles is made of one in how many."""
    return min(max(tiles // LEAST_SAMPLE, 1), MOST_STRIDE)


@part
def view_fields(level, product, scale, bounds, error, tiles):
    """Fields of the view of keys in so many tiles, of which `product` is the largest."""
    constant, unit = scale * bounds[0], scale * bounds[1]
    blur = error + 1e-14 * (1.0 + abs(level) + abs(constant))
    at, unit = _product_of(level, constant, unit, blur), max(unit, LEAST_UNIT)
    step = np.float32(min(unit * LOG2_E, 1e30))
    widen = (1.0 + SUM_ERROR) * math.exp(min(blur, LARGEST_EXPONENT))
    stride = stride_of(tiles)
    ratio = math.exp(min(level - constant - unit * np.float64(product), 0.0))
    short = max(level - constant - unit * np.float64(at), 0.0)
    return level, at, constant, unit, step, short, widen, stride, ratio


@part
def bins_a_product(unit, per_nat):
    """Bins of a histogram that a product is worth."""
    return np.float32(min(unit * per_nat, 1e30))


@part
def look(head, query, scale, bounds, error, row, level, scratch):
    """Level and histogram of a query's coded keys; `level` is that of keys without a code."""
    best = highest(row, scratch.most)
    level = max(level, scale * dot(query, head.keys, best))
    view = View(*view_fields(level, row[best], scale, bounds, error, row.size // TILE))
    per_bin = bins_a_product(view.unit, BINS_PER_NAT)
    sample_histogram(row, view.at, per_bin, view.stride, scratch.bins, scratch.counts)
    return view


@part
def bar_below(view, nats):
    """Least product of keys whose bound is at most so many nats below L, never above `at`."""
    return np.int32(max(np.float64(view.at) - max(nats / view.unit, 0.0) - 1.0, LOWEST))


@part
def bar_of_offset(bounds, offset, at):
    """Product that all keys of <q, k> >= offset reach, below `at`."""
    bar = min(bar_of(bounds[0], bounds[1], offset), at - np.int32(1))
    return max(bar, LOWEST)


@part
def peak_below(view, bar):
    """Upper bound on the weight of each key below the bar, at most `at`, in units of exp(L)."""
    if bar <= LOWEST:
        return 0.0
    return math.exp(view.unit * (np.float64(bar) - 1.0 - np.float64(view.at))) * view.widen


@part
def missed_below(view, row, most, bar, share):
    """Upper bound on the mass of keys below the bar, in units of exp(L), where a share matters."""
    if bar <= LOWEST:
        return 0.0
    faint = np.float32(math.log2(max(share, LEAST_SHARE) / row.size) - FAINT_BITS)
    return mass_below(row, most, bar, view.at, view.step, faint) * view.widen
