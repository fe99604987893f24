"""Upper bounds on the norms of points, whatever their magnitude.

Squares are summed in float64 as they are where that can neither overflow nor lose what counts, else
over the largest magnitude. d sums and roundings are d 2^-53 of the norm at most, below what bounds
are widened by for any d below 10^5.
"""

import math

import numpy as np

from .jit import REASSOCIATED, kernel, part

OVERFLOWING = 1e30, 1e300
"""Norms of float32 and float64 points, times d + 1, from which on a score may overflow the floats
it is summed in, so that nothing may be settled."""

WIDENED = 1.0 + 1e-10

LEAST_SQUARES, MOST_SQUARES = 1e-250, 1e300
"""Sums of squares that are right as they are: below, squares may have been rounded to nothing."""


@part(flags=REASSOCIATED)
def _squares(rows, i):
    """Sum of squares of row i."""
    total = 0.0
    for j in range(rows.shape[1]):
        total += np.float64(rows[i, j]) * np.float64(rows[i, j])
    return total


@part
def _scaled_norm(rows, i):
    """Norm of row i, by coordinates over the largest."""
    largest, total = 0.0, 0.0
    for j in range(rows.shape[1]):
        largest = max(largest, abs(np.float64(rows[i, j])))
    for j in range(rows.shape[1] if largest > 0.0 else 0):
        total += (np.float64(rows[i, j]) / largest) ** 2
    return largest * math.sqrt(total)


@kernel
def _upper_norms(rows, limit, norms):
    """Fill upper bounds on the norms; infinite from `limit` on."""
    for i in range(norms.size):
        squares = _squares(rows, i)
        if LEAST_SQUARES <= squares <= MOST_SQUARES:
            norm = math.sqrt(squares)
        else:
            norm = _scaled_norm(rows, i)
        norm = norm * WIDENED + 2.0**-1074 if norm > 0.0 else 0.0
        norms[i] = norm if norm < limit else np.inf


def upper_norms(rows: np.ndarray) -> np.ndarray:
    """Upper bounds on the norms of rows (n, d), float64; infinite where scores may overflow."""
    limit = OVERFLOWING[0] if rows.itemsize == 4 else OVERFLOWING[1]
    norms = np.empty(len(rows))
    _upper_norms(rows, limit / (rows.shape[1] + 1), norms)
    return norms
