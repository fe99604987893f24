"""Basis in which the first coordinates carry most of inner products: made for data and queries.

Points x go to u = T S (x - m), normals w to w' = T^-T S^-1 w, so that <w, x> = <w, m> + <w', u>: m
is the mean, S scales each coordinate by a power of two, exactly. With C the covariance of the
scaled points and G the second moment of the normals, C^(1/2) G C^(1/2) = U diag(λ) U^T, and

    T = diag(λ^(1/4)) U^T C^(-1/2)

gives u and w' the same second moment diag(λ^(1/2)), in descending order. Then for any p

    <w', u> <= first p terms + ||w'_rest|| ||u_rest||,

and the bound is as good as a fixed basis allows: it rests on Σ_{j>p} λ_j^(1/2). Without normals
G is the identity, and this is principal component analysis. Nothing certified rests on how T was
found, only on how far its computed inverse B is from one and on rounding; see `Basis`.
"""

import math
from typing import Annotated, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .jit import REASSOCIATED, kernel, part
from .layout import Stored
from .query import DOUBLE, SINGLE, relative_error
from .tiles import frozen

RIDGE = 1e-5
"""Least variance of any direction, of the mean one."""

LARGEST_EXPONENT = 400

FAR, NEARLY_ALL, FAR_ROUNDS = 8.0, 0.99, 3
"""Points of a sample so many times further out than nearly all others are left out, repeatedly."""


class Basis(NamedTuple):
    """A transform and what its rounding may do, for points with ||S (x - m)|| <= `reach`.

    With v = S^-1 w in real arithmetic, w' as `project` computes it and u as `transformed` does,

        |<w, x> - <w, m> - <w', u>| <= ||v|| `inverse_error` + Σ_j |w'_j| `errors`_j,

    where the first term holds ||I - B T||, the rounding of w' and of B itself, and the second the
    float32 product that makes u.
    """

    centre: Annotated[np.ndarray, Stored("f8", "d")]  # m
    scale: Annotated[np.ndarray, Stored("f8", "d")]  # powers of two, S
    forward: Annotated[np.ndarray, Stored("f4", "d d")]  # T
    inverse: Annotated[np.ndarray, Stored("f8", "d d")]  # B
    errors: Annotated[np.ndarray, Stored("f8", "d")]
    inverse_error: float
    reach: float


def _root(matrix: NDArray) -> tuple[NDArray, NDArray]:
    """Symmetric square root and its inverse of a positive definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    roots = np.sqrt(np.maximum(values, 1e-300))
    return (vectors * roots) @ vectors.T, (vectors / roots) @ vectors.T


def _with_ridge(moment: NDArray, share: float) -> NDArray:
    d = len(moment)
    mean = np.trace(moment) / d
    return moment + (share * mean if mean > 0.0 else 1.0) * np.eye(d)


def _scales(spread: NDArray) -> NDArray:
    """Powers of two near the inverse of the spread."""
    usable = np.isfinite(spread) & (spread > 0.0)
    logs = np.log2(np.where(usable, spread, 1.0))
    rest = logs[usable].mean() if usable.any() else 0.0
    exponents = -np.round(np.where(usable, logs, rest))
    return np.ldexp(1.0, np.clip(exponents, -LARGEST_EXPONENT, LARGEST_EXPONENT).astype(int))


def _second_moment(normals: NDArray, scale: NDArray) -> NDArray:
    """Of normals of unit length, in the scaled coordinates.

    It is blended with that of all directions as far as it may be chance: linear shrinkage by the
    variance of its entries, which is (1 - ||G||²) / m in all (Ledoit, Wolf 2004). That of a few
    normals is itself uncertain, and of one it is 0, so few are blended a little in any case.
    """
    d = len(scale)
    every = np.diag(scale**-2.0)
    every /= np.trace(every)
    largest = np.abs(normals).max(axis=1, initial=0.0)
    rows = normals[largest > 0.0] / largest[largest > 0.0, None] / scale
    lengths = np.linalg.norm(rows, axis=1)
    rows = rows[np.isfinite(lengths) & (lengths > 0.0)]
    if not len(rows):
        return every
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    seen = rows.T @ rows / len(rows)
    apart, variance = np.sum(np.square(seen - every)), (1.0 - np.sum(seen**2)) / len(rows)
    lean = len(rows) / (len(rows) + 0.02 * d) * max(0.0, 1.0 - variance / max(apart, 1e-300))
    return lean * seen + (1.0 - lean) * every


@np.errstate(all="ignore")
def _balanced(scaled: NDArray, moment: NDArray) -> NDArray:
    """T, float32, for a sample of scaled points and the second moment of normals."""
    d = scaled.shape[1]
    covariance = _with_ridge(scaled.T @ scaled / max(1, len(scaled)), RIDGE)
    try:
        root, inverse_root = _root(covariance)
        values, vectors = np.linalg.eigh(root @ _with_ridge(moment, RIDGE) @ root)
    except np.linalg.LinAlgError:
        return np.eye(d, dtype=np.float32)
    values = np.maximum(values[::-1], 1e-12 * values[-1])
    forward = (values**0.25)[:, None] * (vectors[:, ::-1].T @ inverse_root)
    # Of no consequence for the bounds; it keeps float32 in range.
    forward /= np.abs(forward).max()
    return forward.astype(np.float32)


def _standardised(wide: NDArray) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Centre and scale of points (s, d), the points so scaled, and their norms."""
    d = wide.shape[1]
    centre = wide.mean(axis=0) if len(wide) else np.zeros(d)
    centre = np.where(np.isfinite(centre), centre, 0.0)
    scale = _scales((wide - centre).std(axis=0) if len(wide) else np.zeros(d))
    scaled = (wide - centre) * scale
    return centre, scale, scaled, np.linalg.norm(scaled, axis=1)


def _without_far(wide: NDArray) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """`_standardised` without the few points that are far out: they would set the scale."""
    found = _standardised(wide)
    for _ in range(FAR_ROUNDS if len(wide) else 0):
        lengths = np.where(np.isnan(found[3]), np.inf, found[3])
        near = lengths <= FAR * np.quantile(lengths, NEARLY_ALL, method="lower")
        if near.all():
            break
        wide = wide[near]
        found = _standardised(wide)
    return found


@np.errstate(all="ignore")
def fit_basis(sample: NDArray, normals: NDArray | None, reach: float) -> Basis:
    """Basis for points like a sample (s, d) and, where given, normals (m, d).

    Points are taken to obey ||S (x - m)|| <= `reach` times the most any of the sample has, but for
    the few far out.
    """
    d = sample.shape[1]
    centre, scale, scaled, lengths = _without_far(sample.astype(np.float64))
    usable = np.isfinite(lengths) & (lengths < 1e15)
    scaled, largest = scaled[usable], lengths[usable].max(initial=0.0)
    every = np.diag(scale**-2.0) / np.sum(scale**-2.0)
    moment = every if normals is None else _second_moment(normals, scale)
    forward = _balanced(scaled, moment)
    try:
        inverse = np.linalg.inv(forward.astype(np.float64))
    except np.linalg.LinAlgError:
        forward = np.eye(d, dtype=np.float32)
        inverse = np.eye(d)
    if not (np.isfinite(forward).all() and np.isfinite(inverse).all()):
        forward, inverse = np.eye(d, dtype=np.float32), np.eye(d)
    return _with_errors(centre, scale, forward, inverse, max(1e-30, reach * largest))


def _with_errors(
    centre: NDArray, scale: NDArray, forward: NDArray, inverse: NDArray, reach: float
) -> Basis:
    d, wide = len(centre), forward.astype(np.float64)
    rows = np.linalg.norm(wide, axis=1) * (1.0 + 1e-6)
    both = np.linalg.norm(wide) * np.linalg.norm(inverse) * (1.0 + 1e-6)
    off = np.linalg.norm(np.eye(d) - inverse @ wide) + relative_error(d, DOUBLE) * both
    # The spare terms are for rounding S (x - m) to float32; the last summand is for underflow.
    errors = 1.01 * relative_error(d, SINGLE) * rows * reach + d * (1.0 + rows) * 2.0**-100
    inverse_error = 1.01 * (off + relative_error(d, DOUBLE) * both) * reach
    return Basis(
        frozen(centre),
        frozen(scale),
        frozen(forward),
        frozen(inverse),
        frozen(errors),
        float(inverse_error),
        float(reach),
    )


@part(flags=REASSOCIATED)
def _scale_row(rows, i, centre, scale, scaled):
    """Fill row i of S (x - m), in float32; the square of its norm."""
    total = 0.0
    for j in range(centre.size):
        away = (np.float64(rows[i, j]) - centre[j]) * scale[j]
        scaled[i, j] = away
        total += away * away
    return total


@kernel
def _scale_rows(rows, centre, scale, scaled, lengths):
    """Fill S (x - m), float32, and upper bounds on the norms."""
    for i in range(lengths.size):
        lengths[i] = math.sqrt(_scale_row(rows, i, centre, scale, scaled)) * (1.0 + 1e-6)


@np.errstate(all="ignore")
def transformed(basis: Basis, rows: NDArray, most: int | None = None) -> tuple[NDArray, NDArray]:
    """Points (n, d) as u, float32, and upper bounds on ||S (x - m)||, float64.

    Of u, the first `most` coordinates, or all.

    What is not finite stands for points that the basis says nothing of.
    """
    scaled, lengths = np.empty(rows.shape, np.float32), np.empty(len(rows))
    _scale_rows(rows, basis.centre, basis.scale, scaled, lengths)
    return scaled @ basis.forward[:most].T, lengths


def norm_within(basis: Basis) -> float:
    """Upper bound on the norm of points with ||S (x - m)|| within the basis's reach."""
    with np.errstate(over="ignore"):
        out = basis.reach / basis.scale.min(initial=1.0)
        return float((np.linalg.norm(basis.centre) + out) * (1.0 + 1e-6))
