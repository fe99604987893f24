"""What a rule has each query read, in the terms of `selection`: a share, a number, a half-space."""

import math

import numpy as np

from . import bounds, selection
from .reading import Cut
from .rules import Mass, Rule, Threshold, TopR


def cut_of(
    rule: Rule,
    visible: np.ndarray,
    errors: np.ndarray,
    unit: float,
    values: bounds.ValueRange,
    scale: float,
) -> Cut:
    """The cut of queries that see so many keys.

    Parameters
    ----------
    rule : TopR, Threshold, Mass or Error
    visible : ndarray of int64, shape (m,)
    errors : ndarray of float64, shape (m,)
        Bounds on the rounding error of a float64 score.
    unit : float
        Relative rounding error of the output's dtype.
    values : ValueRange
        Of the head, or of each query's.
    scale : float
        Of scores.
    """
    m = len(visible)
    offsets, left, slack = np.zeros((3, m))
    if isinstance(rule, TopR):
        kind = selection.TOP_R
        lengths, places = np.unique(visible, return_inverse=True)
        parameters = np.array([rule.count(int(n)) for n in lengths], np.float64)[places]
    elif isinstance(rule, Threshold):
        offset = rule.b / scale
        kind, parameters = selection.THRESHOLD, np.zeros(m)
        if math.isfinite(offset):
            offsets = np.full(m, offset)
        else:
            kind = selection.TOP_R
            parameters = visible.astype(np.float64) if offset < 0.0 else np.zeros(m)
    elif isinstance(rule, Mass):
        kind, parameters = selection.SHARE, np.full(m, 1.0 - rule.p)
    else:
        kind = selection.SHARE
        left, slack = _allowed_errors(rule.eps, visible, errors, unit, values)
        parameters = _shares(left, values.width + slack)
    low, high = (np.broadcast_to(end, (m, end.shape[-1])) for end in (values.low, values.high))
    width = np.broadcast_to(values.width, m)
    # Copied, though one row would do as it is: kernels are compiled for what can be written to.
    ends = (each.copy() for each in (low, high, width))
    return Cut(kind, parameters, offsets, errors, left, slack, *ends)


def relu_offsets(
    threshold: float, norms: np.ndarray, key_norms: np.ndarray | float, scale: float, d: int
) -> tuple[np.ndarray, np.ndarray]:
    """Offsets below which a product <q, k> has no weight, and bounds on the errors of scores.

    Parameters
    ----------
    threshold : float
    norms : ndarray of float64, shape (m,)
        Of queries.
    key_norms : float or ndarray of float64, shape (m,)
        Largest norm of a key, of the head or of each query's.
    scale : float
    d : int
        head_dim.
    """
    errors = bounds.score_error(norms, key_norms, scale, d)
    errors += bounds.UNIT * 4.0 * (abs(threshold) + norms * key_norms * scale)
    with np.errstate(over="ignore"):
        return bounds.nudged((threshold - errors) / scale, -4.0), errors


def _allowed_errors(
    eps: float,
    visible: np.ndarray,
    errors: np.ndarray,
    unit: float,
    values: bounds.ValueRange,
) -> tuple[np.ndarray, np.ndarray]:
    """What missed mass may cost of eps, and what rounding does at most."""
    drift_share = bounds.weight_drift(np.ones(len(visible)), errors, visible)
    rounding = bounds.rounding_bound(drift_share, visible, values)
    # Where all weights may be rounding, no bound is reached.
    rounding[drift_share >= 1.0] = np.inf
    left = eps * (1.0 - 1e-9) - rounding - unit * values.size
    return np.maximum(left, 0.0), rounding


def _shares(left: np.ndarray, furthest: np.ndarray) -> np.ndarray:
    """Shares of the mass that may be missed where it may be so far from what was read."""
    with np.errstate(over="ignore"):
        share = np.divide(left, furthest, out=np.ones_like(left), where=furthest > 0.0)
    return np.clip(share, 0.0, 1.0)
