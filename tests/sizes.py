"""How much every test does, in one place: interpreted kernels are about a hundred times slower."""

import math
import os

from hypothesis import settings
from numba import config

JIT = not config.DISABLE_JIT
TILE = 64  # points per tile, so that sizes can straddle it
SMALL = 150 if JIT else 70  # points where rational arithmetic is the oracle: more than one tile
LARGE = 40_000 if JIT else 300  # points where structures are compared with one another
MANY = 64 if JIT else 8  # queries, enough to be worth sharing out among threads


def examples(share):
    """Run `share` times as many hypothesis examples as the profile in force says."""
    return settings(max_examples=math.ceil(share * settings().max_examples))


SCALE = int(os.environ.get("HALFSPACE_TEST_SCALE", "1"))
"""How many times as long to run what is never long enough: damaged files, killed processes."""
