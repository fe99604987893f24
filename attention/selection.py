"""Which keys to read: a histogram of filter scores, cut where a rule has enough.

Scores are binned by their distance below the best, 32 bins a nat. A bin's mass is known to lie between
its count times exp of its two ends, widened by twice the filter's error, so the mass kept above a cut
and missed below it are bounded without an exponential per key. The last bin holds everything further
down than the bins reach; exp(-44) a key bounds it.
"""

import numpy as np

from halfspace.jit import part
from halfspace.quickselect import select
from halfspace.tiles import TILE

BINS_PER_NAT = 32
BINS = 44 * BINS_PER_NAT + 1
"""The last one is open below."""

SHARE, TOP_R, THRESHOLD = 0, 1, 2
"""Kinds of cut: largest share of the mass that may be missed, number of keys, half-space."""

EDGES = np.exp(-np.arange(BINS + 1) / BINS_PER_NAT) * (1.0 + 1e-12)
"""Upper end of each bin's weights, rounded up."""
EDGES.flags.writeable = False


@part
def bin_of(score, top):
    """Bin of a score, a distance in nats below `top`."""
    distance = (top - score) * BINS_PER_NAT
    return np.int64(distance) if distance < BINS - 1 else BINS - 1


@part
def add_to_histogram(scores, top, times, counts):
    """Add every score's bin to `counts`, `times` times; ``-inf`` marks what is no candidate."""
    for i in range(scores.size):
        if scores[i] > -np.inf:
            counts[bin_of(scores[i], top)] += times


@part
def fill_masses(counts, widen, beyond, kept, missed):
    """Bounds on the mass above and below a cut before each bin, in units of the top weight.

    Parameters
    ----------
    counts : int64 array, shape (BINS,)
    widen : float
        exp of twice the filter's error: how far a weight may be off.
    beyond : float
        Bound on the mass of keys that are no candidates.
    kept, missed : float64 arrays, shape (BINS + 1,)
        Filled: lower bound on the mass of bins before i, upper bound on that of bins from i on.
    """
    kept[0] = 0.0
    for i in range(BINS):
        lowest = EDGES[i + 1] / widen * (1.0 - 1e-11) if i < BINS - 1 else 0.0
        kept[i + 1] = kept[i] + counts[i] * lowest
    missed[BINS] = beyond
    for i in range(BINS - 1, -1, -1):
        missed[i] = missed[i + 1] + counts[i] * EDGES[i] * widen
    for i in range(BINS + 1):  # rounding of the sums
        kept[i] *= 1.0 - 1e-11
        missed[i] *= 1.0 + 1e-11


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
def _least_of_bin(scores, top, cut, extra, members, places):
    """Score of the `extra`-th best in bin `cut`, and how many of its equals belong to the best."""
    size = 0
    for i in range(scores.size):
        if scores[i] > -np.inf and bin_of(scores[i], top) == cut:
            members[size] = scores[i]
            size += 1
    select(members[:size], places, size - extra)
    least, ties = members[size - extra], extra
    for i in range(size):
        ties -= members[i] > least
    return least, ties


@part
def select_keys(scores, tiles, top, cut, extra, members, chosen):
    """Slots of the candidates in bins before `cut`, and of the `extra` best of that bin.

    Parameters
    ----------
    scores : float64 array, shape (64 t,)
        ``-inf`` marks what is no candidate.
    tiles : int64 array, shape (t,)
        The tile each 64 scores belong to.
    top, cut, extra
        Of the histogram, and of `find_cut`.
    members : float64 array, shape (64 t,)
        Scratch.
    chosen : int64 array, shape (64 t,)
        Filled, as far as the returned number. Equal scores go to the earlier slot.
    """
    least, ties = np.inf, 0
    if extra:
        least, ties = _least_of_bin(scores, top, cut, extra, members, chosen)
    size = 0
    for i in range(scores.size):
        if scores[i] == -np.inf:
            continue
        place = bin_of(scores[i], top)
        if place == cut:
            if scores[i] == least and ties > 0:
                ties -= 1
            elif not scores[i] > least:
                continue
        elif place > cut:
            continue
        chosen[size] = tiles[i // TILE] * TILE + i % TILE
        size += 1
    return size
