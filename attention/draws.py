"""Independent draws of keys, each with its share of given weights.

Draw number j of a query uses number j of a generator that starts from a seed and the query itself,
so it is the same whatever else is asked. The sums of the weights up to each run of 8 slots are
searched for the number, from where a guide says, then the run is walked.

* The generator, splitmix64 of seed, query and number of the draw, stands for independent uniform
  numbers on a grid of 2^-53: this the probability is over.
* Keys are drawn by cumulative sums that are rounded. With n slots and u = 2^-53, runs'
  probabilities are off by n u / 4 in all, and each boundary between slots by the grid, the rounding
  of the point that is looked up, and up to 8 u of its run: all probabilities by (5 n + 64) u in
  all. The sum of all weights is off by (n / 8 + 16) u of itself, sums of N terms by (N + 8) u. So
  means are off by 16 (n + N + 1024) u times the largest term, at most.
"""

import numpy as np

from halfspace.jit import REASSOCIATED, kernel, part
from halfspace.tiles import frozen

RUN = 8
"""Slots whose weights are summed up before they are searched."""

GUIDED = 4
"""Runs for each entry of the guide to them."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def seeds(seed: int, queries: np.ndarray) -> np.ndarray:
    """State of each query's generator, (m,) uint64, from the seed and the query's bytes."""
    words = frozen(np.ascontiguousarray(queries, np.float64).view(np.uint64))
    states = np.empty(len(words), np.uint64)
    _fill_states(np.uint64(seed), words, states)
    return states


@part
def _mixed(z):
    """Finaliser of splitmix64."""
    z = (z ^ (z >> np.uint64(30))) * _FIRST
    z = (z ^ (z >> np.uint64(27))) * _SECOND
    return z ^ (z >> np.uint64(31))


@kernel
def _fill_states(seed, words, states):
    # Mixed first, or else neighbouring seeds would meet in neighbouring queries.
    first = _mixed(seed + _GOLDEN)
    for q in range(words.shape[0]):
        state = first
        for j in range(words.shape[1]):
            state = _mixed((state ^ words[q, j]) + _GOLDEN)
        states[q] = state


@part
def uniform(state, number):
    """Draw `number` of a generator: one of the 2^53 multiples of 2^-53 in [0, 1)."""
    word = _mixed(state + _GOLDEN * np.uint64(number + 1))
    return np.float64(word >> np.uint64(11)) * 2.0**-53


@part
def guide_size(runs):
    """Entries of the guide to so many runs."""
    return runs // GUIDED + 1


@part(flags=REASSOCIATED)
def _run_sum(weights, first):
    total = 0.0
    for slot in range(first, first + RUN):
        total += np.float64(weights[slot])
    return total


@part
def accumulate(weights, cumulative):
    """Sums of `weights` up to the end of each run."""
    total = 0.0
    for i in range(cumulative.size):
        total += _run_sum(weights, i * RUN)
        cumulative[i] = total


@part
def fill_guide(cumulative, guide):
    """Fill, for each of equal parts of [0, 1), how many runs surely end before what it starts with.

    As a guide table has it (Chen and Asau 1974), so that a search ends after a step or two.
    """
    parts, total = guide.size, cumulative[-1]
    guide[:] = 0
    if not total > 0.0:
        return
    # Rounded up by more than what places of points round.
    scale = parts / total * (1.0 + 2.0**-40)
    for i in range(cumulative.size - 1):
        after = np.int64(cumulative[i] * scale) + 1
        if after < parts:
            guide[after] = i + 1
    for g in range(1, parts):
        guide[g] = max(guide[g], guide[g - 1])


@part
def find(weights, cumulative, guide, uniform):
    """Slot in which a point of [0, 1) falls, where each has its share of the weights."""
    # Below the last sum, as uniform <= 1 - 2^-53: there is a run, and its weights are not all 0.
    point = uniform * cumulative[-1]
    first, last = np.int64(guide[np.int64(uniform * guide.size)]), cumulative.size - 1
    while first < last and cumulative[first] <= point:
        first += 1
    if first:
        point -= cumulative[first - 1]
    found = first * RUN
    for slot in range(first * RUN, first * RUN + RUN):
        weight = np.float64(weights[slot])
        # By arithmetic, as no one can tell where it will be.
        found += ((weight > 0.0) & (point >= 0.0)) * (slot - found)
        point -= weight
    return found


@part
def slack(slots, draws):
    """How far rounding moves a mean, in units of its largest term."""
    return 2.0**-49 * (slots + draws + 1024)
