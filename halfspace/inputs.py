"""Input checks: one clear exception that says what was expected and what came, before any work."""

import operator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

EXACT_INTEGER = 2**53
"""Every integer up to here is a float64."""

MOST_POINTS = 2**31 - 64


class Queries(NamedTuple):
    """Checked half-spaces: float64, contiguous, read-only."""

    normals: np.ndarray  # (m, d)
    offsets: np.ndarray  # (m,)
    single: bool  # one query came, one answer goes


class Polytopes(NamedTuple):
    """Checked intersections of half-spaces: contiguous, read-only."""

    normals: np.ndarray  # (m, h, d) float64
    offsets: np.ndarray  # (m, h) float64
    closed: np.ndarray  # (m, h) bool
    single: bool  # one polytope came, one answer goes


class CheckedPoints(NamedTuple):
    """What `as_points` gave, for it not to be looked at again."""

    rows: np.ndarray


def as_array(values: ArrayLike, name: str) -> np.ndarray:
    """`values` as an array, whose rows are all of one length."""
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected an array without a mask, got a masked one")
    try:
        return np.asarray(values)
    except ValueError as error:  # of rows of different lengths numpy says no name
        raise ValueError(f"{name}: expected rows of one length, got others: {error}") from None


def as_real(values: ArrayLike, name: str) -> np.ndarray:
    """`values` as float32 or float64, widened without loss."""
    if type(values) is np.ndarray and values.dtype.char in "fd" and values.dtype.isnative:
        return values
    array = as_array(values, name)
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "V" and array.dtype.name == "bfloat16":
        return array.astype(np.float32)
    if kind not in "fiu" or size > 8:
        raise TypeError(
            f"{name}: expected floats or integers of at most 64 bits, got {array.dtype}"
        )
    if kind == "f":
        return array.astype(np.float64 if size == 8 else np.float32, copy=False)
    if size <= 2:
        return array.astype(np.float32)
    wide = array.astype(np.float64)
    if size == 8:
        for position in np.argwhere(abs(wide) >= EXACT_INTEGER):
            at = tuple(position.tolist())
            if int(wide[at]) != int(array[at]):
                raise ValueError(
                    f"{name}: expected integers that float64 holds, got {array[at]} at {list(at)}"
                )
    return wide


def _first_bad_row(array: np.ndarray, bad: np.ndarray) -> tuple[int, object]:
    position = np.argwhere(bad)[0]
    return int(position[0]), array[tuple(position)]


def check_finite(array: np.ndarray, name: str) -> None:
    """Raise ValueError naming the first row that holds a NaN or an infinity."""
    finite = np.isfinite(array)
    # Several times faster for one query than all().
    if np.count_nonzero(finite) < finite.size:
        row, value = _first_bad_row(array, ~finite)
        raise ValueError(f"{name}: expected finite numbers, got {value} in row {row}")


def as_points(points: ArrayLike | CheckedPoints, name: str = "points") -> np.ndarray:
    """Points (n, d), d >= 1, float32 or float64, C order, finite."""
    if type(points) is CheckedPoints:
        return points.rows
    array = as_real(points, name)
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f"{name}: expected shape (n, d) with d >= 1, got shape {array.shape}")
    if len(array) > MOST_POINTS:
        raise ValueError(f"{name}: expected at most {MOST_POINTS} rows, got {len(array)}")
    check_finite(array, name)
    return np.ascontiguousarray(array)


def as_ids(ids: ArrayLike, n: int) -> np.ndarray:
    """Distinct ids (n,), int64."""
    array = as_array(ids, "ids")
    if array.dtype.kind not in ("iu" if array.size else "iuf"):  # [] is of floats
        raise TypeError(f"ids: expected integers, got {array.dtype}")
    if array.shape != (n,):
        raise ValueError(f"ids: expected shape ({n},), got shape {array.shape}")
    if array.dtype.kind == "u" and array.size and array.max() > np.iinfo(np.int64).max:
        raise ValueError(f"ids: expected 64-bit signed integers, got {array.max()}")
    array = array.astype(np.int64)
    if ascends(array):
        return array
    ordered = np.sort(array)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    if repeated.size:
        raise ValueError(f"ids: expected distinct integers, got {repeated[0]} more than once")
    return array


def ascends(ids: np.ndarray) -> bool:
    """Whether each is larger than the one before."""
    return bool((ids[1:] > ids[:-1]).all())


def as_weights(weights: ArrayLike, n: int) -> np.ndarray:
    """Weights (n,) or (n, w), float64, finite."""
    array = as_real(weights, "weights")
    if array.ndim not in (1, 2) or len(array) != n:
        raise ValueError(f"weights: expected shape ({n},) or ({n}, w), got shape {array.shape}")
    check_finite(array, "weights")
    return np.ascontiguousarray(array, np.float64)


def as_normals(normals: ArrayLike, dim: int, name: str = "normals") -> tuple[np.ndarray, bool]:
    """Normals (m, dim), float64, finite; and whether a single one (dim,) came."""
    array = as_real(normals, name)
    single = array.ndim == 1
    if array.ndim not in (1, 2) or array.shape[-1] != dim:
        raise ValueError(f"{name}: expected shape ({dim},) or (m, {dim}), got shape {array.shape}")
    if single:
        array = array[None]
    check_finite(array, name)
    return _as_argument(array), single


def as_queries(normals: ArrayLike, offsets: ArrayLike, dim: int) -> Queries:
    """Half-spaces; one normal meets one or many offsets, many normals one offset or as many."""
    rows, single = as_normals(normals, dim)
    if type(offsets) is float and offsets == offsets:  # as most come, and in a third of the time
        levels = np.array([offsets]) if single else np.full(len(rows), offsets)
        return Queries(rows, _as_argument(levels), single)
    levels = as_real(offsets, "offsets")
    if levels.ndim > 1 or not (levels.ndim == 0 or single or len(levels) == len(rows)):
        raise ValueError(
            f"offsets: expected a scalar or shape ({len(rows)},), as many as normals, "
            f"got shape {levels.shape}"
        )
    missing = np.isnan(levels)
    if np.count_nonzero(missing) if levels.ndim else missing:
        row = int(np.argwhere(np.atleast_1d(missing))[0, 0])
        raise ValueError(f"offsets: expected numbers, got nan in row {row}")
    single = single and levels.ndim == 0
    if not levels.ndim:
        levels = levels.repeat(len(rows))
    elif len(rows) != len(levels):
        rows = _as_argument(np.repeat(rows, len(levels), axis=0))
    return Queries(rows, _as_argument(levels), single)


def _for_faces(array: np.ndarray, name: str, shapes: list[tuple[int, ...]]) -> np.ndarray:
    """`array` if it has one of the shapes, the last that of all faces; spread over them."""
    if array.shape not in shapes:
        known = " or ".join(f"shape {shape}" if shape else "a scalar" for shape in shapes)
        raise ValueError(f"{name}: expected {known}, as many as faces, got shape {array.shape}")
    return np.broadcast_to(array, shapes[-1])


def as_polytopes(
    normals: ArrayLike, offsets: ArrayLike, closed: bool | ArrayLike, dim: int
) -> Polytopes:
    """Polytopes as `Index.report_polytope` takes them; one gets a leading axis."""
    rows = as_real(normals, "normals")
    if rows.ndim not in (2, 3) or rows.shape[-1] != dim:
        raise ValueError(
            f"normals: expected shape (h, {dim}) or (m, h, {dim}), got shape {rows.shape}"
        )
    check_finite(rows, "normals")
    faces = rows.shape[:-1]
    levels = _for_faces(as_real(offsets, "offsets"), "offsets", [(), faces])
    missing = np.isnan(levels)
    if missing.any():
        row, _ = _first_bad_row(levels, missing)
        raise ValueError(f"offsets: expected numbers, got nan in row {row}")
    sides = as_array(closed, "closed")
    if sides.dtype != bool and sides.size:
        raise TypeError(f"closed: expected booleans, got {sides.dtype}")
    sides = _for_faces(sides, "closed", [(), faces[-1:], faces])
    single = rows.ndim == 2
    if single:
        rows, levels, sides = rows[None], levels[None], sides[None]
    return Polytopes(_as_argument(rows), _as_argument(levels), _as_argument(sides, bool), single)


def as_count(k: int, name: str, *, least: int = 0) -> int:
    """Return an integer, at least `least`."""
    try:
        value = operator.index(k)
    except TypeError:
        value = None
    if value is None or isinstance(k, bool):
        raise TypeError(f"{name}: expected an integer, got {type(k).__name__}")
    if value < least:
        raise ValueError(f"{name}: expected at least {least}, got {value}")
    return value


def _as_argument(array: np.ndarray, dtype: type = np.float64) -> np.ndarray:
    """Read-only view or copy of that dtype: one type for the kernels, whatever came."""
    view = np.ascontiguousarray(array, dtype)
    view = view.view() if view.flags.aligned else view.copy()
    view.setflags(write=False)
    return view
