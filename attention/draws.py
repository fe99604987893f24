"""Independent draws of keys, each with its share of given weights.

Draw number j of a query uses number j of a generator that starts from a seed and the query itself,
so it is the same whatever else is asked. The sums of the weights up to each tile are searched for
the number, then the tile is walked.

* The generator, splitmix64 of seed, query and number of the draw, stands for independent uniform
  numbers on a grid of 2^-53: this the probability is over.
* Keys are drawn by cumulative sums that are rounded. With t tiles and n slots, tiles' probabilities
  are off by 2 t u in all (u = 2^-53), and each boundary between lanes by the grid, the rounding of
  the point that is looked up, and up to 64 u of its tile: all probabilities by (4 n + 2 t + 8192) u
  in all. W is off by (t + 72) u of itself, sums of N terms by (N + 8) u. So the means are off by
  16 (n + N + 1024) u times the largest term, at most.
"""

import numpy as np

from halfspace.jit import REASSOCIATED, part
from halfspace.tiles import TILE

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@np.errstate(over="ignore")
def seeds(seed: int, queries: np.ndarray) -> np.ndarray:
    """State of each query's generator, (m,) uint64, from the seed and the query's bytes."""
    words = np.ascontiguousarray(queries, np.float64).view(np.uint64)
    # Mixed first, or else neighbouring seeds would meet in neighbouring queries.
    state = _mix(np.full(len(words), seed, np.uint64) + _GOLDEN)
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
def uniform(state, number):
    """Draw `number` of a generator: one of the 2^53 multiples of 2^-53 in [0, 1)."""
    word = _mixed(state + _GOLDEN * np.uint64(number + 1))
    return np.float64(word >> np.uint64(11)) * 2.0**-53


@part(flags=REASSOCIATED)
def _tile_sum(weights, tile):
    total = 0.0
    for lane in range(TILE):
        total += np.float64(weights[tile * TILE + lane])
    return total


@part
def accumulate(weights, cumulative):
    """Sums of `weights` up to the end of each tile."""
    total = 0.0
    for t in range(cumulative.size):
        total += _tile_sum(weights, t)
        cumulative[t] = total


@part
def find(weights, cumulative, uniform):
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


@part
def slack(slots, draws):
    """How far rounding moves a mean, in units of its largest term."""
    return 2.0**-49 * (slots + draws + 1024)
