"""Integer products of all codes with queries, and what they say: the best key, a view, bins.

Rows are queries, those of a head one after another. A thread has a lane of `TILES` tiles and shares
each word of codes among the queries of a head: codes are read once for every `SHARED` of them. A
query's codes are pairs of bytes (`integer_dot.paired_products`), two instructions for four
coordinates, whose sum is the processor's product.

A key without a code gets a product of its own: the least whose bound is its score or more, by
`product_above`. So all that follows need not tell them apart.
"""

import math

import numpy as np

from halfspace.code_rows import FINER
from halfspace.cuda.target import Kernel, cuda, device, dot4
from halfspace.cuda.words import WORD
from halfspace.tiles import TILE

from ..code_bounds import FURTHEST, LOWEST, NOWHERE
from ..coded_keys import LEAST_UNIT, View
from .arithmetic import bin_of, bins_a_product, dot, missed_weight, view_fields

SHARED = (1, 4)
"""Queries of a head that share what is read of its codes, fewest first: a kernel each."""

TILES, UNROLLED = 2, 2
"""Tiles a thread has a lane of, and words of each that are asked for at once."""

HIGHEST, BEYOND = np.int32(FURTHEST), np.int32(FURTHEST + 1)
"""No bar is above the former, so a key whose product is the latter is always read."""

LAST_SLOT, SLOTS = 2**32 - 1, 2**32

LEVEL, AT, CONSTANT, UNIT, STEP, SHORT, WIDEN, STRIDE, RATIO = range(len(View._fields))
"""Columns of views: fields of `View`."""


def least_product(score, error, constant, unit):
    """Least product whose bound is above a score that is off by `error`; BEYOND for none.

    `constant` and `unit` are those of bounds in nats, rounded as `view_fields` has them.
    """
    slack = error + 1e-14 * (1.0 + abs(score) + abs(constant))
    place = (score - constant + slack) / unit
    place += abs(place) * 2.0**-50 + 1.0
    # In this order, a NaN is read too.
    if not (place < FURTHEST and unit > LEAST_UNIT):
        return BEYOND
    return np.int32(math.ceil(max(place, np.float64(LOWEST))))


product_above = device(least_product)


def place_of_product(product, slot):
    """Place of a key among those of a row: unique, ties to the earlier slot; 0 is below all."""
    return (np.int64(product) - NOWHERE) * SLOTS + (LAST_SLOT - slot)


place_of = device(place_of_product)


def _product_kernel(queries: int) -> Kernel:
    """`fill_products` for so many queries at a time."""
    sums, asked_for = queries * TILES, UNROLLED * TILES

    def fill_products(codes, always, head, m, lengths, weights, products, best):
        words, rows, tiles = codes.shape[2], products.shape[0], products.shape[1] // TILE
        a_head = (m + queries - 1) // queries
        runs, groups = (tiles + TILES - 1) // TILES, rows // m * a_head
        coarse = cuda.local.array(sums, np.int32)
        fine = cuda.local.array(sums, np.int32)
        read = cuda.local.array(asked_for, np.uint32)
        for item in range(cuda.grid(1), groups * runs * TILE, cuda.gridsize(1)):
            lane, run, group = item % TILE, item // TILE % runs, item // TILE // runs
            h, first = head + group // a_head, group // a_head * m + group % a_head * queries
            last = min(first + queries, (group // a_head + 1) * m)
            for i in range(sums):
                coarse[i], fine[i] = 0, 0
            # Unsigned, indices need no look whether they count from the end.
            mine, column = np.uint64(h), np.uint64(lane)
            for k in range(0, words - UNROLLED + 1, UNROLLED):
                for j in range(UNROLLED):
                    for u in range(TILES):
                        tile = np.uint64(min(run * TILES + u, tiles - 1))
                        read[j * TILES + u] = codes[mine, tile, np.uint64(k + j), column]
                for j in range(UNROLLED):
                    for i in range(queries):
                        r, at = np.uint64(min(first + i, last - 1)), np.uint64(k + j)
                        one, two = weights[r, np.uint64(0), at], weights[r, np.uint64(1), at]
                        for u in range(TILES):
                            s = i * TILES + u
                            coarse[s] = dot4(read[j * TILES + u], one, coarse[s])
                            fine[s] = dot4(read[j * TILES + u], two, fine[s])
            for k in range(words // UNROLLED * UNROLLED, words):
                for u in range(TILES):
                    tile = np.uint64(min(run * TILES + u, tiles - 1))
                    read[u] = codes[mine, tile, np.uint64(k), column]
                for i in range(queries):
                    r, at = np.uint64(min(first + i, last - 1)), np.uint64(k)
                    one, two = weights[r, np.uint64(0), at], weights[r, np.uint64(1), at]
                    for u in range(TILES):
                        s = i * TILES + u
                        coarse[s] = dot4(read[u], one, coarse[s])
                        fine[s] = dot4(read[u], two, fine[s])
            for u in range(TILES):
                tile = run * TILES + u
                slot, bit = tile * TILE + lane, np.uint32(1) << np.uint32(lane % WORD)
                known = tile < tiles and (always[h, min(tile, tiles - 1), lane // WORD] & bit) == 0
                for i in range(queries):
                    product = np.int32(FINER * coarse[i * TILES + u] + fine[i * TILES + u])
                    r = min(first + i, last - 1)
                    if not known or slot >= lengths[r]:
                        product = NOWHERE
                    if first + i < last and tile < tiles:
                        products[r, slot] = product
                        # Most are below what was seen long ago, however old that is.
                        if product > NOWHERE and place_of(product, slot) > best[r]:
                            cuda.atomic.max(best, r, place_of(product, slot))

    fill_products.__name__ += f"_{queries}"
    fill_products.__doc__ = f"""Products of all keys with {queries} queries at a time.

    Parameters
    ----------
    codes : uint32 array, shape (heads, tiles, words, 64)
    always : uint32 array, shape (heads, tiles, 2)
        Lanes that codes say nothing of; they go NOWHERE.
    head, m : int
        The first of the heads that are asked, and queries of each.
    lengths : int64 array, shape (rows,)
        Keys that each sees; others go NOWHERE.
    weights : int32 array, shape (rows, 2, words)
        Four signed bytes each, of the coarse and the fine code of a query.
    products : int32 array, shape (rows, 64 tiles)
        Filled.
    best : int64 array, shape (rows,)
        Zeros; of the largest product, and its slot.
    """
    return Kernel(fill_products)


fill_products = {queries: _product_kernel(queries) for queries in SHARED}
"""By the queries that share what is read."""


@Kernel
def fill_uncoded(
    always, tiles, keys, head, m, asked, lengths, bounds, errors, scale, products, best
):
    """Give keys without a code a product of their own.

    Parameters
    ----------
    always, head, m, lengths, products, best
        As for `fill_products`.
    tiles : int64 array, shape (k,)
        Where such keys are, of any head.
    keys : float array, shape (heads, slots, head_dim)
    asked : float64 array, shape (rows, head_dim)
        The queries.
    bounds : float64 array, shape (rows, 3)
        Of `aim_at_codes`.
    errors : float64 array, shape (rows,)
        Bounds on the rounding error of a score.
    scale : float
    """
    each = tiles.size * TILE
    for item in range(cuda.grid(1), products.shape[0] * each, cuda.gridsize(1)):
        r, place = item // each, item % each
        tile, lane, h = tiles[place // TILE], place % TILE, head + r // m
        slot, bit = tile * TILE + lane, np.uint32(1) << np.uint32(lane % WORD)
        if slot >= lengths[r] or (always[h, tile, lane // WORD] & bit) == 0:
            continue
        score = scale * dot(asked[r], keys[h], slot)
        constant, unit = scale * bounds[r, 0], scale * bounds[r, 1]
        product = product_above(score, errors[r], constant, unit)
        products[r, slot] = product
        if place_of(product, slot) > best[r]:
            cuda.atomic.max(best, r, place_of(product, slot))


@Kernel
def fill_views(keys, head, m, asked, bounds, errors, scale, tiles, best, views):
    """What codes say of the keys of each row, (rows, 9) float64; zeros where it sees none."""
    for r in range(cuda.grid(1), best.size, cuda.gridsize(1)):
        for i in range(views.shape[1]):
            views[r, i] = 0.0
        if not best[r]:
            continue
        slot, product = LAST_SLOT - best[r] % SLOTS, best[r] // SLOTS + NOWHERE
        level = scale * dot(asked[r], keys[head + r // m], slot)
        fields = view_fields(level, product, scale, bounds[r], errors[r], tiles)
        views[r, LEVEL], views[r, AT] = fields[LEVEL], fields[AT]
        views[r, CONSTANT], views[r, UNIT] = fields[CONSTANT], fields[UNIT]
        views[r, STEP], views[r, SHORT] = fields[STEP], fields[SHORT]
        views[r, WIDEN], views[r, STRIDE] = fields[WIDEN], fields[STRIDE]
        views[r, RATIO] = fields[RATIO]


@Kernel
def count_bins(products, views, per_nat, stride, counts):
    """Add every `stride`-th tile's products to histograms (rows, bins) by distance below AT."""
    tiles, last = products.shape[1] // TILE, np.float32(counts.shape[1] - 1)
    sampled = (tiles + stride - 1) // stride * TILE
    for i in range(cuda.grid(1), sampled * products.shape[0], cuda.gridsize(1)):
        r, place = i // sampled, i % sampled
        slot = place // TILE * stride * TILE + place % TILE
        at, step = np.int32(views[r, AT]), bins_a_product(views[r, UNIT], per_nat)
        cuda.atomic.add(counts, (r, bin_of(products[r, slot], at, step, last)), 1)


@Kernel
def mark_reaching(products, views, chosen, bars, marked, missed):
    """Mark the keys whose product reaches the bar of their row, and bound the mass of the others.

    Parameters
    ----------
    products, views
        As they were filled.
    chosen : int64 array, shape (k,)
        The rows that are asked.
    bars : int32 array, shape (k,)
        No higher than AT.
    marked : uint32 array, shape (k, words)
        Bits are added.
    missed : float64 array, shape (k, 1, strips)
        Filled with parts of the mass, in units of exp(level), without what `View.widen` covers;
        with zeros where there are no views.
    """
    strips = missed.shape[2]
    for item in range(cuda.grid(1), missed.size, cuda.gridsize(1)):
        a, strip = item // strips, item % strips
        r, total = chosen[a], 0.0
        at, step = np.int32(0), np.float32(0.0)
        if views.shape[0]:
            at, step = np.int32(views[r, AT]), np.float32(views[r, STEP])
        for slot in range(strip, products.shape[1], strips):
            product = products[r, slot]
            if product >= bars[a]:
                bit = np.uint32(1) << np.uint32(slot % WORD)
                cuda.atomic.or_(marked, (a, slot // WORD), bit)
            elif views.shape[0]:
                total += np.float64(missed_weight(product, bars[a], at, step))
        missed[a, 0, strip] = total


@Kernel
def mark_visible(lengths, chosen, marked):
    """Mark all keys that the chosen rows see."""
    for i in range(cuda.grid(1), marked.size, cuda.gridsize(1)):
        a, word = i // marked.shape[1], i % marked.shape[1]
        seen = min(max(lengths[chosen[a]] - WORD * word, 0), WORD)
        marked[a, word] = np.uint32((np.int64(1) << seen) - 1)
