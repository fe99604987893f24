"""Changes of a `Dynamic`: what one is, and the checks that do without a lock or need one."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .forest import Forest, Located
from .inputs import as_points, as_weights
from .tombstones import Rows

LARGEST_ID = int(np.iinfo(np.int64).max)

NO_IDS = np.empty(0, np.int64)


class Change(NamedTuple):
    """A change, checked but for whether ids are there: what goes, and then what comes."""

    deleted: np.ndarray  # (k,) int64, distinct
    inserted: Rows  # their ids are distinct
    own_ids: bool  # whether those are the caller's


def as_rows(points: ArrayLike, dim: int) -> np.ndarray:
    """Points (n, dim), as `as_points` has them."""
    rows = as_points(points)
    if rows.shape[1] != dim:
        raise ValueError(f"points: expected shape (n, {dim}), got shape {rows.shape}")
    return rows


def as_columns(weights: ArrayLike | None, n: int, ndim: int, columns: int) -> np.ndarray:
    """Weights (n, columns) for an index whose weights have so many axes and columns."""
    if ndim == 0:
        if weights is not None:
            raise ValueError("weights: expected none, as the index was built without, got some")
        return np.empty((n, 0))
    shape = f"({n},)" if ndim == 1 else f"({n}, {columns})"
    if weights is None:
        raise ValueError(f"weights: expected shape {shape}, as the index was built with, got none")
    array = as_weights(weights, n)
    if array.ndim != ndim or array.shape[1:] != (columns,)[: ndim - 1]:
        raise ValueError(f"weights: expected shape {shape}, got shape {array.shape}")
    return array.reshape(n, columns)


def next_ids(forest: Forest, n: int) -> np.ndarray:
    """The next n ids to give out."""
    if forest.next_id + n - 1 > LARGEST_ID:
        raise ValueError(
            f"ids: expected some, as the largest there was, {forest.next_id - 1}, leaves no room "
            f"for {n} more, got none"
        )
    return forest.next_id + np.arange(n)


def all_located(forest: Forest, ids: np.ndarray) -> Located:
    """Where the points of such ids are, all of which have to be there."""
    located = forest.located(ids)
    missing = located.places < 0
    if missing.any():
        raise ValueError(f"ids: expected ids of points in the index, got {ids[missing][0]}")
    return located


def check_new(forest: Forest, ids: np.ndarray) -> None:
    """Raise ValueError where there is a point of such an id already."""
    taken = forest.located(ids).places >= 0
    if taken.any():
        raise ValueError(f"ids: expected ids of no point in the index, got {ids[taken][0]}")


def fitting(rows: Rows, forest: Forest) -> Rows:
    """Rows in the floats of the forest's, where these hold them and there are any."""
    dtype = forest.buffer.dtype
    if len(forest) and rows.points.dtype != dtype:
        with np.errstate(over="ignore"):
            points = rows.points.astype(dtype)
        if np.array_equal(points, rows.points):
            return rows._replace(points=points)
    return rows
