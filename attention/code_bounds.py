"""What integer products of codes say of many scores at once: counts, sums of weights, slots.

A query's products p bound scores from above, score <= constant + unit p (`halfspace.code_filter`).
With `at` a product whose bound is L or less, the weight exp(score - L) of a key is at most
2^((p - at) step), step = unit log2(e). So one pass in float32 bounds the mass of all keys of
products below a bar, and a histogram of a few tiles tells where to try.
"""

import numpy as np

from halfspace.jit import REASSOCIATED, part
from halfspace.tiles import TILE, lowest_lane

from .exponential import LEAST_POWER_SINGLE, power_above, power_of_two
from .lanes import largest_lane, reaching

NOWHERE = np.int32(-(2**30))
"""In place of a product: codes say nothing of the key, or the query does not see it."""

LOWEST = np.int32(NOWHERE + 1)
"""A bar that every product reaches."""

MOST_PRODUCT = np.int32(2**31 - 1)
"""Beyond any product."""

FURTHEST = 2**29
"""Bars are within."""

BINS_PER_NAT = 8
GUESS_BINS = 44 * BINS_PER_NAT
"""Bins below L that a histogram has; the last one is open below."""

SUM_ERROR = 1e-4
"""Covers what float32 rounds of the weights and sums of `mass_below`."""

LEAST_DRAWN = np.float32(-60.0)
"""Keys whose weights are below this power of two of the best are not worth a draw."""

RUNGS = 5
"""Bars whose masses are summed at once."""

SUMMED = 1024
"""Weights that are summed in float32, in any order: 2^-14 of them is lost at most."""

_ONE = np.uint64(1)

EDGES = np.exp(-np.arange(GUESS_BINS + 1) / BINS_PER_NAT)
EDGES.flags.writeable = False


@part
def fill_most(row, most):
    """Fill the largest product of every tile."""
    for t in range(row.size // TILE):
        most[t] = largest_lane(row, t * TILE)


@part
def highest(row, most):
    """Slot of the largest product of one tile or more; fill the largest of every tile."""
    fill_most(row, most)
    best, place = NOWHERE, 0
    for t in range(row.size // TILE):
        if most[t] > best:
            best, place = most[t], t * TILE
    return place + lowest_lane(reaching(row, place, best))


@part(flags=REASSOCIATED, inline=True)
def missed_weight(product, bar, at, step):
    """Bound on the weight of a key whose product is below the bar, in float32; 0 of all others."""
    power = max(np.float32(np.int32(product - at)) * step, LEAST_POWER_SINGLE)
    weight = power_above(power)
    return weight if (product < bar) & (product > NOWHERE) else np.float32(0.0)


@part(flags=REASSOCIATED)
def _tile_mass(row, bar, at, step):
    total = np.float32(0.0)
    for i in range(TILE):
        total += missed_weight(row[i], bar, at, step)
    return total


@part
def mass_below(row, most, bar, at, step, faint):
    """Bound on the sum of 2^((p - at) step) over products p < bar <= at, but for those NOWHERE.

    At most 1.07 times the sum, and as much again as 2^faint for every product of a tile that has
    none above that.
    """
    total = 0.0
    for t in range(row.size // TILE):
        power = max(np.float32(np.int32(most[t] - at)) * step, LEAST_POWER_SINGLE)
        if power < faint:
            total += TILE * np.float64(power_above(power))
        else:
            total += np.float64(_tile_mass(row[t * TILE : (t + 1) * TILE], bar, at, step))
    return total


@part(flags=REASSOCIATED)
def _add_masses(row, bars, at, step, totals):
    """Add up the weights of some products below each of `RUNGS` bars."""
    a, b, c, d, e = bars[0], bars[1], bars[2], bars[3], bars[4]
    none = np.float32(0.0)
    v, w, x, y, z = none, none, none, none, none
    for i in range(row.size):
        weight = missed_weight(row[i], a, at, step)
        v += weight
        w += weight if row[i] < b else none
        x += weight if row[i] < c else none
        y += weight if row[i] < d else none
        z += weight if row[i] < e else none
    totals[0] += np.float64(v)
    totals[1] += np.float64(w)
    totals[2] += np.float64(x)
    totals[3] += np.float64(y)
    totals[4] += np.float64(z)


@part
def masses_below(row, bars, at, step, totals):
    """Fill what `mass_below` says of `RUNGS` bars, of which the first is the largest."""
    totals[:] = 0.0
    for start in range(0, row.size, SUMMED):
        _add_masses(row[start : min(start + SUMMED, row.size)], bars, at, step, totals)


@part(flags=REASSOCIATED)
def _tile_weights(row, bar, at, step, weights):
    none = np.float32(0.0)
    for i in range(TILE):
        power = max(np.float32(np.int32(row[i] - at)) * step, LEAST_POWER_SINGLE)
        weight = power_of_two(power)
        drawn = (row[i] < bar) & (row[i] > NOWHERE) & (power >= LEAST_DRAWN)
        weights[i] = weight if drawn else none


@part
def fill_weights(row, bar, at, step, weights):
    """2^((p - at) step) for products p < bar <= at; 0 elsewhere, and below 2^LEAST_DRAWN."""
    for start in range(0, row.size, TILE):
        end = start + TILE
        _tile_weights(row[start:end], bar, at, step, weights[start:end])


@part
def collect(row, most, bar, upto, chosen, size):
    """Append the slots of products from `bar` to below `upto`; returns how many there are then."""
    for t in range(row.size // TILE):
        if most[t] < bar:
            continue
        start = t * TILE
        found = reaching(row, start, bar) & ~reaching(row, start, upto)
        while found:
            chosen[size] = start + lowest_lane(found)
            size += 1
            found &= found - _ONE
    return size


@part(inline=True)
def bin_of(product, at, step, last):
    """Bin of a product by its distance below `at`, `step` bins a product; `last` is open below."""
    place = min(max(np.float32(np.int32(at - product)) * step, np.float32(0.0)), last)
    return np.int32(place if product > NOWHERE else last)


@part
def _fill_places(row, at, step, last, places):
    for i in range(TILE):
        places[i] = bin_of(row[i], at, step, last)


@part
def sample_histogram(row, at, step, stride, places, counts):
    """Counts of every `stride`-th tile's products by distance below `at`, `step` bins a product.

    The last bin is open below.
    """
    last = np.float32(counts.size - 1)
    counts[:] = 0
    for start in range(0, row.size, stride * TILE):
        _fill_places(row[start : start + TILE], at, step, last, places)
        for i in range(TILE):
            counts[places[i]] += 1
