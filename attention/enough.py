"""When enough was read: how much a rule lets be missed, by whichever certificate says less.

`excess` says how many times what a rule allows is missed. A share of the mass is compared with the
share allowed; an error that is allowed with the least of what (1) of `bounds.py`, (3) of
`spread.py` and (4) of `tails.py` say of each coordinate, once it is known where the output is.
Before that `Spans` are expected, and from them and a histogram of a few tiles of keys `guess_place`
tells where the bar may be. Where keys are read by the thousand, what a sample is off by costs more
than to look at all: there the masses below several bars are summed up, and `climb` goes to the bar
that they, and the excess found so far, say is enough. Nothing certified rests on either guess.
"""

import math
from typing import NamedTuple

import numpy as np

from halfspace.jit import REASSOCIATED, kernel, part

from .code_bounds import BINS_PER_NAT, EDGES, GUESS_BINS, RUNGS
from .selection import keys_before
from .spread import moved_mean, pull, radius, what_missed
from .tails import expected_furthest

EXPECTED_REACH = 0.55
"""Part of the values' width that an output is expected to be from the far end of their range."""

EXPECTED_SHIFT = 0.8
"""Standard deviations of the values that an output is expected to be from their centre."""

EXPECTED_RADIUS = 1.1
"""Times the values' distances from their centre, all squared and added up, that R is expected."""

HEAVY, FEW, MOST = 32.0, 1 / 16, 3 / 4
"""Keys are read first, where it is not expected that most are, that leave so many times as much as
may be missed, but few."""

AIMED = 0.9
"""Part of what may be missed that a guess aims at: a sample is not exact, and another pass costs
more than some keys."""

AIMED_SURELY = 0.95
"""The same where masses are known."""

MANY = 1 / 32
"""Where more keys are expected to be read, to look at the mass of all costs less than to read too
many."""

RUNG, BEFORE = 4, 3
"""How far apart the bins are from which on masses are known then, and which of them is where a
sample says."""

FAR = 2.0
"""And where so many times what is allowed is missed."""

SLOPE, LEAST_RISE = 11.0, 1 / 8
"""Bins that leave a part 1 / e of an excess, as measured on Gaussian and trained heads (9 to 13),
and bins to go down at least."""

DRIFTS = 4.0
"""Times the rounding error of a score that may be lost of an error allowed."""


class Spans(NamedTuple):
    """How far from an output values are, the rounding of the output included."""

    reach: float  # largest distance of a coordinate from the far end of its range
    radius: float  # largest R of (3)
    shift: float  # from the values' centre


@part
def expected_spans(cut, q):
    """Spans of an output that is not known yet."""
    root = math.sqrt(cut.spread.count[cut.heads[q]])
    shift, reach = root * cut.slack[q], EXPECTED_REACH * cut.width[q] + cut.slack[q]
    away = EXPECTED_SHIFT * cut.radius[q] / root + cut.slack[q]
    return Spans(reach, EXPECTED_RADIUS * cut.radius[q] + shift, away)


@part
def spans_of(cut, q, output):
    """Spans of an output."""
    head, reach, largest, away = cut.heads[q], 0.0, 0.0, 0.0
    for c in range(output.size):
        reach = max(reach, max(cut.high[q, c] - output[c], output[c] - cut.low[q, c]))
        away = max(away, abs(output[c] - cut.spread.centre[head, c]))
        far = radius(cut.spread, head, c, output[c])
        # In this order, for it may be undefined.
        largest = largest if far <= largest else far
    shift = math.sqrt(cut.spread.count[head]) * cut.slack[q]
    return Spans(reach + cut.slack[q], largest + shift, away + cut.slack[q])


@part
def share_sought(cut, q, spans):
    """Share of the mass that may be missed at least, where an output has such spans."""
    share, left = cut.parameters[q], cut.left[q]
    return max(share, min(1.0, left / spans.reach)) if left > 0.0 else share


@part
def _times(found, allowed):
    return found / allowed if allowed > 0.0 else np.inf


@part
def excess(cut, q, output, missed, mass, peak):
    """How many times what is allowed is missed, where keys of at most `peak` each were not read."""
    if missed == 0.0:
        return 0.0
    if not mass > 0.0:
        return np.inf
    share, left = missed / (mass + missed), cut.left[q]
    times = _times(share, cut.parameters[q])
    if not left > 0.0:
        return times
    others, head = what_missed(share, peak, missed, mass), cut.heads[q]
    error = moved_mean(output, cut.low, cut.high, q, cut.spread, head, others, cut.slack[q])
    return min(times, error * (1.0 + DRIFTS * cut.errors[q]) / left)


@part
def _expected_excess(cut, q, spans, missed, mass, peak):
    """`excess` of an output of which only the spans are known, or expected."""
    share, left = missed / (mass + missed), cut.left[q]
    times = _times(share, cut.parameters[q])
    if left > 0.0:
        error = share * spans.reach
        other = pull(peak, missed, mass) * spans.radius
        error = other if other < error else error
        if peak > 0.0:
            means = cut.spread.furthest
            away = expected_furthest(means, cut.heads[q], missed / peak) + spans.shift
            error = min(error, missed / mass * away)
        times = min(times, error / left)
    return times


@part(flags=REASSOCIATED)
def _below(counts, first):
    """Bound on the mass of bins from `first` on, of the keys that the histogram counts."""
    total = 0.0
    for i in range(first, GUESS_BINS + 1):
        total += counts[i] * EDGES[i]
    return total


@part
def guess_place(cut, q, spans, view, counts, first, mass, times):
    """First bin that, with those after it, is `times` as much as may be missed; or GUESS_BINS.

    `first` is the least, and `mass` that of the bins before; each key counted stands for as many as
    the view's stride.
    """
    each = np.float64(view.stride)
    below = each * _below(counts, first)
    for i in range(first, GUESS_BINS):
        if _expected_excess(cut, q, spans, below, mass, EDGES[i]) <= times:
            return i
        here = each * counts[i] * EDGES[i]
        below, mass = max(below - here, 0.0), mass + view.ratio * here
    return GUESS_BINS


@part
def heavy_place(cut, q, spans, view, counts, n):
    """First bin, of n keys, that is not read first; 0 where all are read at once."""
    place = guess_place(cut, q, spans, view, counts, 0, 1.0, AIMED)
    if keys_before(counts, place) * view.stride > MOST * n:
        return 0
    place, keys = guess_place(cut, q, spans, view, counts, 0, 1.0, HEAVY), 0
    for i in range(place):
        keys += counts[i] * view.stride
        if keys > FEW * n:
            return i
    return place


@part
def rung_place(heavy, guess, j):
    """Bin of rung j of a ladder from the first that was not read up to around a guess."""
    return heavy if j == 0 else max(guess + RUNG * (j - BEFORE), heavy + np.float64(j))


@part
def _below_rungs(masses, heavy, guess, place):
    """Mass of the bins from `place` on, between that of two rungs."""
    j = 0
    while j < RUNGS - 2 and rung_place(heavy, guess, j + 1) <= place:
        j += 1
    first, last = rung_place(heavy, guess, j), rung_place(heavy, guess, j + 1)
    if not masses[j + 1] > 0.0:
        return masses[j]
    fall = math.log(masses[j + 1] / masses[j]) * (place - first) / (last - first)
    return masses[j] * math.exp(fall)


@part
def climb(cut, q, spans, view, masses, heavy, guess, place, mass, missed, peak, found):
    """Where, beyond bin `place`, just as much as may be missed is expected to be; not always whole.

    `masses` are those of the bins from each rung on. At `place` the excess is `found`, which says
    how far others are off that rest on the spans.
    """
    expected = _expected_excess(cut, q, spans, missed, mass, peak)
    if not (0.0 < expected < np.inf and found < np.inf):
        return step_down(place, found)
    first, last = min(place + LEAST_RISE, np.float64(GUESS_BINS)), np.float64(GUESS_BINS)
    while last - first > LEAST_RISE:
        middle = 0.5 * (first + last)
        below = _below_rungs(masses, heavy, guess, middle)
        more = mass + view.ratio * max(missed - below, 0.0)
        times = _expected_excess(cut, q, spans, below, more, math.exp(-middle / BINS_PER_NAT))
        if times * found <= AIMED_SURELY * expected:
            last = middle
        else:
            first = middle
    return last


@part
def step_down(place, found):
    """Where, beyond bin `place` with such an excess, just as much as may be missed is likely."""
    if not found < np.inf:
        return np.float64(GUESS_BINS)
    fall = max(SLOPE * math.log(max(found, 1.0) / AIMED_SURELY), LEAST_RISE)
    return min(place + fall, np.float64(GUESS_BINS))


@kernel
def keys_needed(cut, q, shares):
    """Keys that are expected to be read, of which the shares of the mass are known, largest first.

    Parameters
    ----------
    cut : Cut
        Of kind SHARE.
    q : int
    shares : float array, shape (n,)
    """
    spans, kept, n = expected_spans(cut, q), 0.0, shares.size
    for i in range(n):
        kept += shares[i]
        peak = shares[i + 1] if i + 1 < n else 0.0
        if _expected_excess(cut, q, spans, max(1.0 - kept, 0.0), kept, peak) <= 1.0:
            return i + 1
    return n


@part
def bins_down(times):
    """Bins to go down where so many times too much is missed."""
    if not times < np.inf:
        return GUESS_BINS
    # Each nat down is likely to leave less than 1 / e.
    return 1 + np.int64(0.7 * BINS_PER_NAT * math.log(max(times, 1.0)))
