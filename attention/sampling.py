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

So deviations of two means of independent, bounded terms are all there is to bound. In coordinate c
the terms of D' / W lie in an interval that values' range and low, high span; R is its width and V
the sample variance. Each of these fails with probability p at most:

    R sqrt(ln(2/p) / 2N)                               Hoeffding (1963), Theorem 2,
    sqrt(2 V ln(4/p) / N) + 7 R ln(4/p) / (3 (N - 1))  Maurer and Pontil (2009), Theorem 4 twice,

https://arxiv.org/abs/0907.3740. Both get half of p, and the lesser is taken. Further, |T - T'| is
at most W (high - low), certainly. There are value_dim + 1 means, and the sample is looked at after
K numbers of draws, fixed before the first: with p = delta / (K (value_dim + 1)) all of these bounds
hold at once with probability 1 - delta, so they hold wherever it is that sampling stops. The output
and every coordinate of it are then within (1). No distribution is assumed, nor that N is large.

What is not as above, in floats:

* The generator, splitmix64 of seed, query and number of the draw, stands for independent uniform
  numbers on a grid of 2^-53: this the probability is over.
* Keys are drawn by cumulative sums that are rounded. With t tiles and n slots, tiles' probabilities
  are off by 2 t u in all (u = 2^-53), and each boundary between lanes by the grid, the rounding of
  the point that is looked up, and up to 64 u of its tile: all probabilities by (4 n + 2 t + 8192) u
  in all. W is off by (t + 72) u of itself, sums of N terms by (N + 8) u. So the means are off by
  16 (n + N + 1024) u times the largest term, at most (`_slack`).
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
from halfspace.tiles import TILE

from .selection import BINS, BINS_PER_NAT

FEWEST = 128
"""Draws before the sample is looked at for the first time."""

GROWTH = 1.25
"""Of the number of draws, from one look to the next that may be taken."""

AHEAD = 16
"""Draws whose rows are asked for before they are read."""

MIDDLES = np.exp(-(np.arange(BINS + 1) + 0.5) / BINS_PER_NAT).astype(np.float32)
"""Proposals by bin: weights in the middle of each, nothing in the last and for no candidate."""
MIDDLES[BINS - 1 :] = 0.0
MIDDLES.flags.writeable = False

HALF_BIN = 0.5 / BINS_PER_NAT + 1e-6
"""How far, in nats, a binned score can be from its proposal, which is a float32."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


class Prior(NamedTuple):
    """What is known of a head's values, and wanted of it, before a draw."""

    low: np.ndarray  # (value_dim,) float64, least value of each coordinate
    high: np.ndarray  # (value_dim,) greatest
    centre: np.ndarray  # (value_dim,) any point, best near the mean of the values
    spread: float  # standard deviation of a coordinate, the largest, as a guess
    width: float  # largest of high - low
    delta: float  # probability that a bound of a query may be broken with


class Tail(NamedTuple):
    """Keys that may be drawn, for one query, and what goes with them. Masses are in one unit."""

    weights: np.ndarray  # (64 t,) float32 proposals by slot, 0 for slots that are not in the tail
    low: float  # of weight / proposal, certified
    high: float
    unit: float  # logarithm of the unit of masses and proposals
    heavy: float  # mass of the keys that were read
    mean: np.ndarray  # (value_dim,) float64, mean of their values


class Scratch(NamedTuple):
    """Room to work in, for t tiles."""

    cumulative: np.ndarray  # (t,) float64
    slots: np.ndarray  # (AHEAD,) int64
    sums: np.ndarray  # (value_dim + 1,) float64: of terms, the last of ratios
    squares: np.ndarray  # (value_dim + 1,)


class Estimate(NamedTuple):
    """What sampling gave. Without `enough` only `draws` means anything."""

    enough: bool
    draws: int
    bound: float  # on the distance of any coordinate from the mean over heavy keys and tail
    mass: float  # of the tail, estimated
    mass_error: float  # bound on its error


@np.errstate(over="ignore")
def seeds(seed: int, queries: np.ndarray) -> np.ndarray:
    """State of each query's generator, (m,) uint64, from the seed and the query's bytes."""
    words = np.ascontiguousarray(queries, np.float64).view(np.uint64)
    state = np.full(len(words), seed, np.uint64)
    for j in range(words.shape[1]):
        state = _mix((state ^ words[:, j]) + _GOLDEN)
    return state


def _mix(z):
    """Finaliser of splitmix64."""
    z = (z ^ (z >> np.uint64(30))) * _FIRST
    z = (z ^ (z >> np.uint64(27))) * _SECOND
    return z ^ (z >> np.uint64(31))


_mixed = part(_mix)


@part
def _uniform(state, number):
    """Draw `number` of a generator: one of the 2^53 multiples of 2^-53 in [0, 1)."""
    word = _mixed(state + _GOLDEN * np.uint64(number + 1))
    return np.float64(word >> np.uint64(11)) * 2.0**-53


# How many draws


@part
def _levels(first, limit):
    """Numbers of draws, `first` to `limit`, after which the sample may be looked at."""
    if limit <= first:
        return 1
    return 1 + np.int64(math.ceil(math.log(limit / first) / math.log(GROWTH)))


@part
def _level(first, limit, i):
    return np.int64(min(np.float64(limit), math.ceil(first * GROWTH**i)))


@part
def _log(delta, looks, means):
    """ln(4 / p), where half of a mean's share of delta goes to p at each look."""
    return math.log(8.0 * looks * means / delta)


@part
def _deviation(variance, width, draws, log):
    """How far a mean may be off: the lesser of Maurer and Pontil's bound and Hoeffding's."""
    bernstein = math.sqrt(2.0 * variance * log / draws) + 7.0 * width * log / (3.0 * (draws - 1))
    return min(bernstein, width * math.sqrt((log - math.log(2.0)) / (2.0 * draws)))


@part
def _needed(deviation, width, goal, log):
    """Draws, about, after which a mean is off by `goal` at most."""
    a, b = deviation * math.sqrt(2.0 * log), 7.0 * width * log / 3.0
    root = (a + math.sqrt(a * a + 4.0 * b * goal)) / (2.0 * goal)
    return min(1.0 + root * root, width * width * log / (2.0 * goal * goal))


@part
def choose_heavy(counts, prior, target, limit):
    """Bins to read before the rest is sampled, so that the fewest reads in all are expected.

    Heavy keys would be drawn more than once; all light ones are too many to read.

    Parameters
    ----------
    counts : int64 array, shape (BINS + 1,)
        Keys in each bin of `selection.fill_bins`.
    prior : Prior
    target : float
        Bound that is wanted; positive.
    limit : int
        Reads that are too many.

    Returns
    -------
    int
        The first bin of the tail; 0 if `limit` reads are not enough.
    """
    log = _log(prior.delta, _levels(FEWEST, limit), prior.centre.size + 1)
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
        if read + FEWEST >= best or share <= 1e-12:
            break
        draws = max(np.float64(FEWEST), _needed(prior.spread, prior.width, target / share, log))
        if read + draws < best:
            best, cut = read + draws, i + 1
    return cut


# Draws


@part(flags=REASSOCIATED)
def _tile_sum(weights, tile):
    total = 0.0
    for lane in range(TILE):
        total += np.float64(weights[tile * TILE + lane])
    return total


@part
def _accumulate(weights, cumulative):
    """Sums of `weights` up to the end of each tile."""
    total = 0.0
    for t in range(cumulative.size):
        total += _tile_sum(weights, t)
        cumulative[t] = total


@part
def _find(weights, cumulative, uniform):
    """Slot in which a point of [0, 1) falls, where each has its share of the weights."""
    # Below the last sum, as uniform <= 1 - 2^-53: there is a tile, and its weights are not all 0.
    point = uniform * cumulative[-1]
    first, last = 0, cumulative.size - 1
    while first < last:
        middle = (first + last) // 2
        if cumulative[middle] > point:
            last = middle
        else:
            first = middle + 1
    if first:
        point -= cumulative[first - 1]
    found = 0
    for slot in range(first * TILE, first * TILE + TILE):
        weight = np.float64(weights[slot])
        if weight > 0.0:
            found = slot
            point -= weight
            if point < 0.0:
                break
    return found


@part(flags=REASSOCIATED)
def _score(query, keys, slot):
    total = 0.0
    for j in range(query.size):
        total += query[j] * np.float64(keys[slot, j])
    return total


@part(flags=MARGIN_COVERED)
def _add_term(ratio, values, slot, centre, sums, squares):
    """Add r (v - a) and its square, and the ratio r and its square."""
    last = centre.size
    for c in range(last):
        term = ratio * (np.float64(values[slot, c]) - centre[c])
        sums[c] += term
        squares[c] += term * term
    sums[last] += ratio
    squares[last] += ratio * ratio


@part
def _draw(first, last, state, tail, query, keys, values, scale, centre, scratch):
    """Add the terms of draws number `first` to `last`."""
    slots = scratch.slots
    for start in range(first, last, AHEAD):
        size = min(AHEAD, last - start)
        for i in range(size):
            slots[i] = _find(tail.weights, scratch.cumulative, _uniform(state, start + i))
            prefetch_row(keys, slots[i])
            prefetch_row(values, slots[i])
        for i in range(size):
            weight = math.exp(scale * _score(query, keys, slots[i]) - tail.unit)
            ratio = weight / np.float64(tail.weights[slots[i]])
            _add_term(ratio, values, slots[i], centre, scratch.sums, scratch.squares)


# Bounds


@part
def _slack(slots, draws):
    """How far rounding moves a mean, in units of its largest term."""
    return 2.0**-49 * (slots + draws + 1024)


@part
def _variance(total, square, draws):
    """Sample variance or more, from rounded sums of terms and of their squares."""
    spread = max(0.0, square - total * total / draws)
    return (spread + 2.0**-49 * (draws + 8) * square) / (draws - 1)


@part
def _width(prior, c, low, high):
    """Width of the interval that r (v - a) is in, in coordinate c."""
    below, above = prior.low[c] - prior.centre[c], prior.high[c] - prior.centre[c]
    least = (high if below < 0.0 else low) * below
    most = (high if above > 0.0 else low) * above
    return (most - least) * (1.0 + 1e-12)


@part
def _certify(prior, tail, scratch, draws, log, output):
    """Estimate of the output, its bound, that of the mass, and the worst mean's deviation."""
    low, high, last = tail.low, tail.high, prior.centre.size
    total, slack = scratch.cumulative[-1], _slack(tail.weights.size, draws)
    mass = total * scratch.sums[last] / draws
    variance = _variance(scratch.sums[last], scratch.squares[last], draws)
    off = min(high - low, _deviation(variance, high - low, draws, log))
    mass_error = total * (off + high * slack) * (1.0 + 1e-12)
    least = tail.heavy + max(total * low * (1.0 - slack), mass - mass_error)
    bound, worst, widest = 0.0, 0.0, 0.0
    for c in range(last):
        shift = tail.heavy * (tail.mean[c] - prior.centre[c]) + total * scratch.sums[c] / draws
        shift /= tail.heavy + mass
        reach = high * max(
            abs(prior.high[c] - prior.centre[c]), abs(prior.low[c] - prior.centre[c])
        )
        variance = _variance(scratch.sums[c], scratch.squares[c], draws)
        width = _width(prior, c, low, high)
        off = total * (_deviation(variance, width, draws, log) + reach * slack)
        off += abs(shift) * mass_error
        if off >= bound:
            bound, worst, widest = off, variance, width
        # The exact output is in the values' range, so to go there is to come no further from it.
        output[c] = min(max(prior.centre[c] + shift, prior.low[c]), prior.high[c])
    return bound / least * (1.0 + 1e-9), mass, mass_error, worst, widest


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
        Draws that are not worth it.
    state : uint64
        Of `seeds`.
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
    _accumulate(tail.weights, scratch.cumulative)
    total, means, widest = scratch.cumulative[-1], prior.centre.size + 1, 0.0
    for c in range(prior.centre.size):
        widest = max(widest, _width(prior, c, tail.low, tail.high))
    nothing = Estimate(False, 0, 0.0, 0.0, 0.0)
    if limit < FEWEST or not total > 0.0:
        return nothing
    # Fewer draws than would do without any variance are not worth a look.
    goal = target * (tail.heavy + total) / total
    least = _needed(0.0, widest, goal, _log(prior.delta, _levels(FEWEST, limit), means))
    if least > limit:
        return nothing
    first = np.int64(max(np.float64(FEWEST), math.ceil(least)))
    looks = _levels(first, limit)
    log = _log(prior.delta, looks, means)
    scratch.sums[:], scratch.squares[:] = 0.0, 0.0
    done, look = 0, 0
    while look < looks:
        draws = _level(first, limit, look)
        _draw(done, draws, state, tail, query, keys, values, scale, prior.centre, scratch)
        done = draws
        bound, mass, mass_error, worst, width = _certify(prior, tail, scratch, done, log, output)
        if bound <= target:
            return Estimate(True, done, bound, mass, mass_error)
        per_unit = bound / _deviation(worst, width, done, log)
        look += 1
        while look < looks and target < per_unit * _deviation(
            worst, width, _level(first, limit, look), log
        ):
            look += 1
    return Estimate(False, done, 0.0, 0.0, 0.0)
