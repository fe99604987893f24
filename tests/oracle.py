"""The slow truth: every answer by exact rational arithmetic, straight from its definition.

A finite float is an integer times a power of two, so points and normal are brought to one power
of two each and all the arithmetic is on Python integers, which never round.
"""

import math
from fractions import Fraction
from functools import lru_cache

import numpy as np

from halfspace.code_rows import GROUPS

from .sizes import TILE


def _integers(numbers):
    """Integers and a shift such that `numbers == integers / 2**shift` exactly."""
    ratios = [value.as_integer_ratio() for value in numbers]
    shift = max((bottom.bit_length() - 1 for _, bottom in ratios), default=0)
    return [top << (shift + 1 - bottom.bit_length()) for top, bottom in ratios], shift


MOST_REMEMBERED = 4096
"""Numbers of an array that is remembered."""


@lru_cache(maxsize=16)
def _integers_of(data, dtype):
    return _integers(np.ndarray(len(data) // dtype.itemsize, dtype, data).tolist())


def _products(points, normal):
    """Dot products of `normal` with each row of as many numbers, all as `_integers` gives them."""
    (flat, shift), (w, normal_shift) = points, normal
    rows = (flat[i : i + len(w)] for i in range(0, len(flat), len(w)))
    return [sum(map(int.__mul__, row, w)) for row in rows], shift + normal_shift


@lru_cache(maxsize=16)
def _products_of(points, dtype, normal, normal_dtype):
    """The same by arrays' bytes, and remembered: tests ask for many answers about the same."""
    return _products(_integers_of(points, dtype), _integers_of(normal, normal_dtype))


def _dots(points, normal):
    """Integers and a shift such that `<normal, points[i]> == dots[i] / 2**shift` exactly."""
    points, normal = np.asarray(points), np.asarray(normal)
    if len(normal) != points.shape[1]:
        raise ValueError(f"normal of length {points.shape[1]} expected, got {len(normal)}")
    # Integers of a thousand bits for each of many numbers are too much to remember.
    if object in (points.dtype, normal.dtype) or points.size > MOST_REMEMBERED:
        return _products(*(_integers(array.ravel().tolist()) for array in (points, normal)))
    return _products_of(points.tobytes(), points.dtype, normal.tobytes(), normal.dtype)


def scores(points, normal):
    """<normal, x> of every point x, as fractions."""
    dots, shift = _dots(points, normal)
    return [Fraction(dot, 1 << shift) for dot in dots]


def rounded(score):
    """The float64 nearest to a fraction, infinite where it is out of range."""
    try:
        return float(score)
    except OverflowError:
        return math.inf if score > 0 else -math.inf


def inside(points, normal, offset, closed=True):
    """Whether each point lies in the half-space."""
    dots, shift = _dots(points, normal)
    offset = float(offset)
    if math.isinf(offset):
        return [offset < 0] * len(dots)
    top, bottom = offset.as_integer_ratio()
    threshold = top << shift
    if closed:
        return [dot * bottom >= threshold for dot in dots]
    return [dot * bottom > threshold for dot in dots]


def report(points, normal, offset, closed=True, ids=None):
    """Ids of the points in the half-space, ascending."""
    ids = range(len(points)) if ids is None else np.asarray(ids).tolist()
    within = inside(points, normal, offset, closed)
    return sorted(name for name, is_in in zip(ids, within, strict=True) if is_in)


def report_polytope(points, normals, offsets, closed, ids=None):
    """Ids of the points in all half-spaces, ascending; `closed` (h,) face by face."""
    ids = range(len(points)) if ids is None else np.asarray(ids).tolist()
    faces = [inside(points, *face) for face in zip(normals, offsets, closed, strict=True)]
    return sorted(name for i, name in enumerate(ids) if all(face[i] for face in faces))


def count(points, normal, offset, closed=True):
    return sum(inside(points, normal, offset, closed))


def any_(points, normal, offset, closed=True):
    return any(inside(points, normal, offset, closed))


def sums(points, weights, normal, offset, closed=True):
    """Column sums of the weights (n, w) over the half-space, each rounded once."""
    rows = np.asarray(weights)[report(points, normal, offset, closed)]
    return [math.fsum(column) for column in rows.T.tolist()]


def top(points, normal, k, ids=None):
    """Ids of the k points furthest along the normal: best first, ties to the smaller id."""
    ids = range(len(points)) if ids is None else np.asarray(ids).tolist()
    dots, _ = _dots(points, normal)
    order = sorted(zip(dots, ids, strict=True), key=lambda pair: (-pair[0], pair[1]))
    return [name for _, name in order[:k]]


def unpacked(tiles, bits):
    """Codes of every slot (slots, coordinates), int64."""
    size, held = GROUPS[bits]
    t, rows, _ = tiles.shape
    groups = tiles.reshape(t, rows // size, size, TILE, 4).astype(np.int64)
    fours = []
    for four in range(held // 4):
        codes = groups[:, :, four // 2 if bits < 8 else 0]
        if bits < 8:
            codes = (codes >> 4 * (four % 2)) & 15
        if bits == 6:
            codes = 4 * codes + ((groups[:, :, 2] >> 2 * four) & 3)
        fours.append(codes)
    return np.stack(fours, axis=2).transpose(0, 3, 1, 2, 4).reshape(t * TILE, rows // size * held)
