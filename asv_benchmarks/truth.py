"""Wrong ids: what a report has too much or too little, against rational arithmetic."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

NEAR = 1e-12
"""Relative distance to the plane within which float64 sums of exact products are not trusted."""

CHUNK = 1 << 16
"""Points whose scores are computed at a time."""


def inside(points: np.ndarray, normal: np.ndarray, offset: float) -> np.ndarray:
    """Ids of the float32 points with <normal, x> >= offset over the reals, ascending."""
    return insides(points, normal[np.newaxis], np.array([offset]))[0]


def insides(points: np.ndarray, normals: np.ndarray, offsets: np.ndarray) -> list[np.ndarray]:
    """The same of every half-space."""
    columns, wide_offsets = normals.T.astype(np.float64), offsets.astype(np.float64)
    found: list[list[np.ndarray]] = [[] for _ in normals]
    for first in range(0, len(points), CHUNK):
        wide = points[first : first + CHUNK].astype(np.float64)
        scores = wide @ columns  # products of float32 are exact in float64, their sums nearly
        sizes = np.abs(wide) @ np.abs(columns) + np.abs(wide_offsets)
        within = scores >= wide_offsets
        for row, query in np.argwhere(np.abs(scores - wide_offsets) <= NEAR * sizes):
            score = _score(points[first + row], normals[query])
            within[row, query] = score >= Fraction(wide_offsets[query])
        for query, ids in enumerate(found):
            ids.append(np.flatnonzero(within[:, query]) + first)
    return [np.concatenate(ids) for ids in found]


def tops(points: np.ndarray, normals: np.ndarray, k: int) -> list[np.ndarray]:
    """Ids of the k best along every normal, and of all whose score is that of the last of them."""
    columns = normals.T.astype(np.float64)
    starts = range(0, len(points), CHUNK)
    scores = np.concatenate([points[i : i + CHUNK].astype(np.float64) @ columns for i in starts])
    largest = float(np.abs(points).max())
    return [
        _best(points, w, column, largest, k) for w, column in zip(normals, scores.T, strict=True)
    ]


def _best(
    points: np.ndarray, normal: np.ndarray, scores: np.ndarray, largest: float, k: int
) -> np.ndarray:
    last = np.partition(scores, len(scores) - k)[len(scores) - k]
    margin = NEAR * largest * float(np.abs(normal).sum(dtype=np.float64))
    sure = np.flatnonzero(scores > last + margin)
    near = np.flatnonzero(np.abs(scores - last) <= margin)
    exact = [_score(points[row], normal) for row in near]
    least = sorted(exact, reverse=True)[k - len(sure) - 1]
    return np.concatenate([sure, near[[score >= least for score in exact]]])


def _score(point: np.ndarray, normal: np.ndarray) -> Fraction:
    pairs = zip(point.tolist(), normal.tolist(), strict=True)
    return sum((Fraction(x) * Fraction(w) for x, w in pairs), Fraction(0))


def wrong(answers: Sequence[Sequence[int]], truths: Sequence[np.ndarray]) -> int:
    """Ids in one of answer and truth but not in the other, over all queries."""
    return sum(
        len(np.setxor1d(np.asarray(answer, np.int64), truth))
        for answer, truth in zip(answers, truths, strict=True)
    )


def wrong_best(answers: Sequence[Sequence[int]], truths: Sequence[np.ndarray]) -> int:
    """Ids in an answer that are not among the best."""
    pairs = zip(answers, truths, strict=True)
    return sum(len(np.setdiff1d(np.asarray(answer, np.int64), best)) for answer, best in pairs)
