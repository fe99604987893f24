"""The certificates of many rows in one call; formulas, and their proofs, are in `bounds.py`."""

import numpy as np

from halfspace.jit import kernel, part

from . import bounds
from .sampled import ROUNDED, heavier_drift
from .spread import moved_mean, what_missed


@part
def _drift(drift, total, errors, q, reported, sampled):
    """Bound on the sum of |weight - exact weight| of row q; as known, where there are no errors."""
    if not errors.size:
        return drift[q]
    moved = bounds.weight_drift(total, errors[q], reported[q])
    return moved + heavier_drift(total) if sampled[q] else moved


@part
def _spans(output, low, high, q, row):
    """Largest of outputs and of distances to the ends of the range; its size and its width."""
    reach, largest, size, width = 0.0, 0.0, 0.0, 0.0
    for c in range(output.shape[1]):
        mean, least, most = output[q, c], low[row, c], high[row, c]
        reach = max(reach, max(most - mean, mean - least))
        largest = max(largest, abs(mean))
        size = max(size, max(abs(least), abs(most)))
        width = max(width, most - least)
    return max(reach, largest), size, width


@part
def _cast_error(output, rounded, q):
    """What rounding to the output's dtype has moved."""
    most = 0.0
    for c in range(output.shape[1]):
        most = max(most, abs(rounded[q, c] - output[q, c]))
    return most


@kernel
def certify_rows(
    output,
    top,
    mass,
    missed,
    drift,
    reported,
    looked,
    peak,
    rounded,
    estimated,
    mass_error,
    sampled,
    errors,
    low,
    high,
    spread,
    lse,
    bound,
    lse_bound,
):
    """Certify what was read, and estimated, of values in a range.

    Parameters
    ----------
    output, top, mass, missed, drift, reported, looked, peak
        Of `Readings`.
    rounded : float64 array, shape (m, value_dim)
        The output, rounded to its dtype.
    estimated, mass_error, sampled
        Of `Estimates`.
    errors : float64 array, shape (m,) or (0,)
        Bounds on the errors of softmax scores; without them, `drift` is what there is.
    low, high : float64 array, shape (m, value_dim) or (1, value_dim)
        Ranges of the values.
    spread : Spread
        Of as many heads as rows are divided among.
    lse, bound, lse_bound : float64 array, shape (m,)
        Filled; as of `Attended`.
    """
    m = output.shape[0]
    for q in range(m):
        row, head = q if low.shape[0] == m else 0, q * spread.count.size // m
        largest, size, width = _spans(output, low, high, q, row)
        moved = _drift(drift, mass[q] + mass_error[q], errors, q, reported, sampled)
        within = bounds.drift_share(moved, mass[q])
        moved += mass_error[q]
        share = bounds.missed_share(mass[q], missed[q], moved)
        terms = reported[q] + (ROUNDED if sampled[q] else 0)
        rounding = bounds.mean_rounding(within, terms, size, width) + estimated[q]
        lse[q] = top[q] + np.log(mass[q])
        if reported[q] == 0:
            # Zero is exact only if there was nothing that may have weight.
            bound[q], lse_bound[q] = (size, np.inf) if looked[q] > 0 else (0.0, 0.0)
        else:
            error = largest
            if within < 1.0:
                certain = bounds.certain_mass(mass[q], moved)
                others = what_missed(share, peak[q], missed[q], certain)
                error = rounding + moved_mean(
                    output[q], low, high, row, spread, head, others, rounding
                )
            bound[q] = bounds.outward(error)
            within = bounds.drift_share(moved, mass[q])
            lse_bound[q] = bounds.lse_bound(top[q], mass[q], share, within)
        bound[q] += _cast_error(output, rounded, q)
