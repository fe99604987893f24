"""Means over a tail of many light keys, estimated from a sample: the bound, with its proof.

Flat heads have no small set of keys that matters: what is left out weighs too much, whichever keys
are read. But the mean of values over that tail can be estimated. Let w_i be the weights as float64
computes them, H and m their sum and the mean of values over the keys that are read (the heavy
ones), and T = sum w_i, D = sum w_i (v_i - a) over the tail, for a centre a fixed before any draw.
Every key of the tail has a proposal u_i > 0 with low <= r_i = w_i / u_i <= high, both certified,
and W = sum u_i. Draw keys i_1 … i_N independently with probabilities u_i / W; then

    T' = (W / N) sum r_i,     D' = (W / N) sum r_i (v_i - a)

have the means T and D. With x the mean over heavy keys and tail, x' = a + y its estimate,

    x = a + (H (m - a) + D) / (H + T),      y = (H (m - a) + D') / (H + T'),

multiply the first by its denominator and take off y (H + T) = H (m - a) + D' + y (T - T'):

    x - x' = ((D - D') - y (T - T')) / (H + T).                                     (1)

So deviations of value_dim + 1 means of independent terms are all there is to bound: of r, and of
r (v - a) in each coordinate. They are in intervals that low, high and the values' range span, and
`deviations.py` has finite-sample bounds for that, of the kind of Hoeffding (1963) and Maurer and
Pontil (2009, https://arxiv.org/abs/0907.3740). With delta / (2 (value_dim + 1)) for each side, they
hold at once and after every draw, with probability 1 - delta; then so does (1), for all
coordinates, wherever it is that sampling stops. Further, |T - T'| is at most W (high - low),
certainly. What has to be fixed before the draws that count (a, where the terms' means are guessed
to be, the slopes) comes from a pilot: a few draws of its own, which are not used again.

What is not as above, in floats:

* Keys are drawn, and sums are summed, with rounding: `draws.py` says what that moves the means by.
* Weights are those of rounded scores; and so are the keys' that are read. `bounds.weight_drift` has
  that for all keys, with their whole mass.
* Values are of a size whose squares neither overflow nor vanish beside the width of the range; the
  caller sees to it.
"""

import math
from typing import NamedTuple

import numpy as np

from halfspace.jit import MARGIN_COVERED, REASSOCIATED, part
from halfspace.prefetch import prefetch_row

from .deviations import Means, choose_slopes, clear, confidence, deviation, draws_needed
from .draws import RUN, accumulate, fill_guide, find, guide_size, slack, uniform
from .selection import BINS, BINS_PER_NAT

FEWEST = 64
"""Draws before the sample is looked at for the first time."""

PILOT_PART = 16
"""A pilot draws as many as are expected to be needed, divided by this, within limits."""

FEWEST_PILOT, MOST_PILOT = 64, 512

TRUSTED = 64
"""Draws that what was known before a pilot counts for."""

EARLY = 0.85
"""Part of the expected number of draws after which the sample is looked at first."""

GROWTH = 1.05
"""Of the number of draws, from one look to the next."""

AHEAD = 16
"""Draws whose rows are asked for before they are read."""

MIDDLES = np.exp(-(np.arange(BINS + 1) + 0.5) / BINS_PER_NAT).astype(np.float32)
"""Proposals by bin: weights in the middle of each, nothing in the last and for no candidate."""
MIDDLES[BINS - 1 :] = 0.0
MIDDLES.flags.writeable = False

HALF_BIN = 0.5 / BINS_PER_NAT + 1e-6
"""How far, in nats, a binned score can be from its proposal, which is a float32."""


class Prior(NamedTuple):
    """What is known of a head's values, and wanted of it, before a draw."""

    low: np.ndarray  # (value_dim,) float64, least value of each coordinate
    high: np.ndarray  # (value_dim,) greatest
    centre: np.ndarray  # (value_dim,) any point, best near the mean of the values
    spread: np.ndarray  # (value_dim,) standard deviation of each coordinate, as a guess
    width: float  # largest of high - low
    delta: float  # probability that a bound of a query may be broken with
    price: float  # keys that are read in order while one is drawn


class Tail(NamedTuple):
    """Keys that may be drawn, for one query, and what goes with them. Masses are in one unit."""

    weights: np.ndarray  # (slots,) float32 proposals by slot, 0 for slots that are not in the tail
    low: float  # of weight / proposal, certified
    high: float
    unit: float  # logarithm of the unit of masses and proposals
    heavy: float  # mass of the keys that were read
    mean: np.ndarray  # (value_dim,) float64, mean of their values


class Scratch(NamedTuple):
    """Room to work in, for as many slots or more."""

    cumulative: np.ndarray  # (slots / RUN,) float64
    guide: np.ndarray  # (guide_size(slots / RUN),) int32
    slots: np.ndarray  # (AHEAD,) int64
    means: Means
    centre: np.ndarray  # (value_dim,) float64, of the terms


class Estimate(NamedTuple):
    """What sampling gave. Without `enough` only `draws` means anything."""

    enough: bool
    draws: int
    bound: float  # on the distance of any coordinate from the mean over heavy keys and tail
    mass: float  # of the tail, estimated
    mass_error: float  # bound on its error


@part(counted=True)
def make_sampling(slots, value_dim):
    """Room to sample from up to so many slots in."""
    runs, room = slots // RUN, np.empty((5, value_dim + 1))
    means = Means(room[0], room[1], room[2], room[3], room[4])
    sums, guide = np.empty(runs), np.empty(guide_size(runs), np.int32)
    return Scratch(sums, guide, np.empty(AHEAD, np.int64), means, np.empty(value_dim))


# How many draws


@part
def _pilot(draws):
    """Draws of a pilot, where so many are expected to be needed."""
    return np.int64(min(max(draws / PILOT_PART, np.float64(FEWEST_PILOT)), np.float64(MOST_PILOT)))


@part
def _largest(array):
    best = 0.0
    for i in range(array.size):
        best = max(best, array[i])
    return best


@part
def choose_heavy(counts, prior, target, limit):
    """Bins to read before the rest is sampled, so that this is expected to take the least time.

    Heavy keys would be drawn more than once; all light ones are too many to read.

    Parameters
    ----------
    counts : int64 array, shape (BINS + 1,)
        Keys in each bin of `selection.fill_bins`.
    prior : Prior
    target : float
        Bound that is wanted; positive.
    limit : int
        Reads that take as long as is allowed.

    Returns
    -------
    int
        The first bin of the tail; 0 if `limit` is not enough.
    """
    log, spread = confidence(prior.delta, prior.centre.size + 1), _largest(prior.spread)
    total = 0.0
    for i in range(BINS - 1):
        total += counts[i] * np.float64(MIDDLES[i])
    above, read, cut, best = 0.0, 0, 0, np.float64(limit)
    for i in range(BINS - 1):
        if not counts[i]:
            continue
        read += counts[i]
        above += counts[i] * np.float64(MIDDLES[i])
        share = (total - above) / total
        if read + prior.price * (FEWEST_PILOT + FEWEST) >= best or share <= 1e-12:
            break
        draws = max(np.float64(FEWEST), draws_needed(spread, prior.width, target / share, log))
        time = read + prior.price * (draws + _pilot(draws))
        if time < best:
            best, cut = time, i + 1
    return cut


# Draws


@part(flags=REASSOCIATED)
def _score(query, keys, slot):
    total = 0.0
    for j in range(query.size):
        total += query[j] * np.float64(keys[slot, j])
    return total


@part(flags=MARGIN_COVERED)
def _add_term(ratio, values, slot, centre, means):
    """Add X - g and its square, for X = r (v - a) of each coordinate, and for r."""
    sums, squares, guesses, last = means.sums, means.squares, means.guesses, centre.size
    for c in range(last):
        term = ratio * (np.float64(values[slot, c]) - centre[c]) - guesses[c]
        sums[c] += term
        squares[c] += term * term
    term = ratio - guesses[last]
    sums[last] += term
    squares[last] += term * term


@part
def _draw(first, last, state, tail, query, keys, values, scale, scratch):
    """Add the terms of draws number `first` to `last`."""
    slots = scratch.slots
    for start in range(first, last, AHEAD):
        size = min(AHEAD, last - start)
        for i in range(size):
            slots[i] = find(
                tail.weights, scratch.cumulative, scratch.guide, uniform(state, start + i)
            )
            prefetch_row(keys, slots[i])
            prefetch_row(values, slots[i])
        for i in range(size):
            weight = math.exp(scale * _score(query, keys, slots[i]) - tail.unit)
            ratio = weight / np.float64(tail.weights[slots[i]])
            _add_term(ratio, values, slots[i], scratch.centre, scratch.means)


# Bounds


@part
def _fill_widths(prior, centre, low, high, widths):
    """Widths of the intervals that r (v - a) and r are in."""
    for c in range(centre.size):
        below, above = prior.low[c] - centre[c], prior.high[c] - centre[c]
        least = (high if below < 0.0 else low) * below
        most = (high if above > 0.0 else low) * above
        widths[c] = (most - least) * (1.0 + 1e-9)
    widths[centre.size] = (high - low) * (1.0 + 1e-9)


@part
def _start(tail, prior, scratch):
    """Centre and guesses of a pilot."""
    means, last = scratch.means, scratch.centre.size
    for c in range(last):
        scratch.centre[c], means.guesses[c] = prior.centre[c], 0.0
    means.guesses[last] = 1.0
    _fill_widths(prior, scratch.centre, tail.low, tail.high, means.widths)
    clear(means)


@part
def _shift(tail, total, means, centre, draws, c):
    """Estimate of coordinate c of the output less the centre: y."""
    last = centre.size
    mass = total * (means.guesses[last] + means.sums[last] / draws)
    moved = total * (means.guesses[c] + means.sums[c] / draws)
    return (tail.heavy * (tail.mean[c] - centre[c]) + moved) / (tail.heavy + mass)


@part
def _recentre(tail, prior, scratch, draws):
    """Take centre and guesses from a pilot of so many draws; its variances go to the squares."""
    means, centre, last = scratch.means, scratch.centre, scratch.centre.size
    total, ratio = scratch.cumulative[-1], means.guesses[last] + means.sums[last] / draws
    for c in range(last + 1):
        known = prior.spread[c] if c < last else means.widths[last] / 4.0
        variance = max(0.0, means.squares[c] - means.sums[c] * means.sums[c] / draws)
        means.squares[c] = (variance + TRUSTED * known * known) / (draws + TRUSTED)
    for c in range(last):
        to = centre[c] + _shift(tail, total, means, centre, draws, c)
        to = min(max(to, prior.low[c]), prior.high[c])
        guess = means.guesses[c] + means.sums[c] / draws - ratio * (to - centre[c])
        # Into the interval of the terms, or near: their widths are rounded up by more.
        below, above = prior.low[c] - to, prior.high[c] - to
        means.guesses[c] = min(max(guess, tail.high * below), tail.high * above)
        centre[c] = to
    means.guesses[last] = min(max(ratio, tail.low), tail.high)
    _fill_widths(prior, centre, tail.low, tail.high, means.widths)


@part
def _certify(tail, prior, scratch, draws, log, output):
    """Estimate of the output with its bound, and of the mass with its own."""
    means, centre, last = scratch.means, scratch.centre, scratch.centre.size
    low, high, total = tail.low, tail.high, scratch.cumulative[-1]
    rounding = slack(tail.weights.size, draws)
    mass = total * (means.guesses[last] + means.sums[last] / draws)
    off = min(high - low, deviation(means, last, draws, log))
    mass_error = total * (off + high * rounding) * (1.0 + 1e-12)
    least = tail.heavy + max(total * low * (1.0 - rounding), mass - mass_error)
    bound = 0.0
    for c in range(last):
        shift = _shift(tail, total, means, centre, draws, c)
        reach = high * max(abs(prior.high[c] - centre[c]), abs(prior.low[c] - centre[c]))
        off = total * (deviation(means, c, draws, log) + reach * rounding)
        bound = max(bound, off + abs(shift) * mass_error)
        # The exact output is in the values' range, so to go there is to come no further from it.
        output[c] = min(max(centre[c] + shift, prior.low[c]), prior.high[c])
    return bound / least * (1.0 + 1e-9), mass, mass_error


@part
def estimate(tail, prior, target, limit, state, query, keys, values, scale, scratch, output):
    """Estimate the mean of values over heavy keys and tail, to within `target`.

    Parameters
    ----------
    tail : Tail
    prior : Prior
    target : float
        Bound that is wanted; positive.
    limit : int
        Draws that are too many.
    state : uint64
        Of `draws.seeds`.
    query : float64 array, shape (head_dim,)
    keys, values : arrays, shapes (n, head_dim) and (n, value_dim)
        By slot.
    scale : float
    scratch : Scratch
    output : float64 array, shape (value_dim,)
        Filled.

    Returns
    -------
    Estimate
    """
    runs = tail.weights.size // RUN
    cumulative, guide = scratch.cumulative[:runs], scratch.guide[: guide_size(runs)]
    scratch = Scratch(cumulative, guide, scratch.slots, scratch.means, scratch.centre)
    accumulate(tail.weights, cumulative)
    total, means = cumulative[-1], scratch.means
    nothing = Estimate(False, 0, 0.0, 0.0, 0.0)
    if not (total > 0.0 and target > 0.0):
        return nothing
    log = confidence(prior.delta, prior.centre.size + 1)
    # Of the means of terms, for the output to be within `target`.
    goal = target * (tail.heavy + total) / total
    pilot = _pilot(draws_needed(_largest(prior.spread), prior.width, goal, log))
    if pilot + FEWEST >= limit:
        return nothing
    fill_guide(cumulative, guide)
    _start(tail, prior, scratch)
    _draw(0, pilot, state, tail, query, keys, values, scale, scratch)
    _recentre(tail, prior, scratch, pilot)
    needed = choose_slopes(means, goal, log, FEWEST)
    draws, looks = 0, math.ceil(EARLY * needed)
    if pilot + needed >= limit:
        return Estimate(False, pilot, 0.0, 0.0, 0.0)
    clear(means)
    while pilot + looks < limit:
        last = np.int64(looks)
        _draw(pilot + draws, pilot + last, state, tail, query, keys, values, scale, scratch)
        draws = last
        bound, mass, mass_error = _certify(tail, prior, scratch, draws, log, output)
        if bound <= target:
            return Estimate(True, pilot + draws, bound, mass, mass_error)
        looks = math.ceil(looks * GROWTH)
    return Estimate(False, pilot + draws, 0.0, 0.0, 0.0)
