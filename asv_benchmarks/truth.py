"""Wrong ids: what a report has too much or too little, against rational arithmetic."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

NEAR = 1e-12
"""Relative distance to the plane within which float64 sums of exact products are not trusted."""


def inside(points: np.ndarray, normal: np.ndarray, offset: float) -> np.ndarray:
    """Ids of the float32 points with <normal, x> >= offset over the reals, ascending."""
    wide, w, b = points.astype(np.float64), normal.astype(np.float64), float(offset)
    scores = wide @ w  # products of float32 are exact in float64, their sums nearly
    sizes = np.abs(wide) @ np.abs(w) + abs(b)
    within = scores >= b
    for row in np.flatnonzero(np.abs(scores - b) <= NEAR * sizes):
        within[row] = _score(points[row], normal) >= Fraction(b)
    return np.flatnonzero(within)


def _score(point: np.ndarray, normal: np.ndarray) -> Fraction:
    pairs = zip(point.tolist(), normal.tolist(), strict=True)
    return sum((Fraction(x) * Fraction(w) for x, w in pairs), Fraction(0))


def wrong(answers: Sequence[Sequence[int]], truths: Sequence[np.ndarray]) -> int:
    """Ids in one of answer and truth but not in the other, over all queries."""
    return sum(
        len(np.setxor1d(np.asarray(answer, np.int64), truth))
        for answer, truth in zip(answers, truths, strict=True)
    )
