"""Which keys to read: a histogram of filter scores, cut where a rule has enough.

Scores are binned by their distance below the best, 32 bins a nat. A bin's mass is known to lie
between its count times exp of its two ends, widened by the filter's error, so the mass kept above a
cut and missed below it are bounded without an exponential per key. The last bin holds everything
further down than the bins reach; exp(-44) a key bounds it.
"""

import numpy as np

from halfspace.jit import part
from halfspace.quickselect import select
from halfspace.tiles import TILE

BINS_PER_NAT = 32
BINS = 44 * BINS_PER_NAT + 1
"""The last one is open below."""

ABSENT = BINS
"""In place of a bin: no candidate."""

SHARE, TOP_R, THRESHOLD = 0, 1, 2
"""Kinds of cut: largest share of the mass that may be missed, number of keys, half-space."""

EDGES = np.exp(-np.arange(BINS + 1) / BINS_PER_NAT) * (1.0 + 1e-12)
"""Upper end of each bin's weights, rounded up."""
EDGES.flags.writeable = False


@part
def fill_bins(scores, top, bins):
    """Bin of every score, by its distance in nats below `top`; ABSENT for ``-inf``."""
    for i in range(scores.size):
        distance = min((top - scores[i]) * BINS_PER_NAT, BINS - 1.0)
        bins[i] = np.int32(distance) if scores[i] > -np.inf else ABSENT


@part
def add_to_histogram(bins, times, counts):
    """Add every bin to `counts`, `times` times."""
    for i in range(bins.size):
        counts[bins[i]] += times


@part
def keys_before(counts, place):
    """Keys in the bins before one."""
    total = 0
    for i in range(place):
        total += counts[i]
    return total


@part
def fill_masses(counts, widen, beyond, kept, missed):
    """Bounds on the mass above and below a cut before each bin, in units of the top weight.

    Parameters
    ----------
    counts : int64 array, shape (BINS + 1,)
    widen : float
        exp of the filter's error: how far a weight may be off.
    beyond : float
        Bound on the mass of keys that are no candidates.
    kept, missed : float64 arrays, shape (BINS + 1,)
        Filled: lower bound on the mass of bins before i, upper bound on that of bins from i on.
    """
    end = BINS
    while end > 0 and counts[end - 1] == 0:
        end -= 1
    less, more = 1.0 - 1e-11, 1.0 + 1e-11  # rounding of the sums
    mass = 0.0
    for i in range(end):
        kept[i] = mass * less
        mass += counts[i] * (EDGES[i + 1] / widen * less if i < BINS - 1 else 0.0)
    kept[end:] = mass * less
    missed[end:] = beyond * more
    mass = beyond
    for i in range(end - 1, -1, -1):
        mass += counts[i] * EDGES[i] * widen
        missed[i] = mass * more


@part
def find_cut(kind, parameter, counts, kept, missed):
    """First bin that need not be read whole; and for TOP_R, how many of its keys must be."""
    seen = 0
    for i in range(BINS):
        if kind == TOP_R and seen + counts[i] > parameter:
            return i, np.int64(parameter) - seen
        if kind == SHARE and kept[i] > 0.0 and missed[i] <= parameter * (kept[i] + missed[i]):
            return i, 0
        seen += counts[i]
    return BINS, 0


@part
def _add_best_of_bin(scores, bins, tiles, cut, extra, chosen, size, members, places):
    """Append the slots of the `extra` best scores in bin `cut` to `chosen`, ties to the earlier."""
    count = 0
    for i in range(bins.size):
        if bins[i] == cut:
            members[count], places[count] = scores[i], i
            count += 1
    select(members[:count], places[:count], count - extra)
    least, ties = members[count - extra], extra
    for i in range(count):
        ties -= members[i] > least
    for i in range(bins.size):
        if bins[i] == cut and scores[i] >= least and (scores[i] > least or ties > 0):
            ties -= scores[i] == least
            chosen[size] = tiles[i // TILE] * TILE + i % TILE
            size += 1


@part
def select_keys(scores, bins, tiles, cut, extra, members, places, chosen):
    """Slots of the candidates in bins before `cut`, and of the `extra` best of that bin.

    Parameters
    ----------
    scores, bins : float64 and int32 arrays, shape (64 t,)
    tiles : int64 array, shape (t,)
        The tile each 64 scores belong to.
    cut, extra
        Of `find_cut`.
    members, places : float64 and int64 arrays, shape (64 t,)
        Scratch.
    chosen : int64 array, shape (64 t,)
        Filled, as far as the returned number. Equal scores go to the earlier slot.
    """
    size = 0
    for i in range(tiles.size):
        for lane in range(TILE):
            # Written always, kept if it counts: no branch to mispredict.
            chosen[size] = tiles[i] * TILE + lane
            size += bins[i * TILE + lane] < cut
    if extra:
        _add_best_of_bin(scores, bins, tiles, cut, extra, chosen, size, members, places)
    return size + extra
