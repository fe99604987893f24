"""Certified filters on codes: what a half-space asks of them, so that no point is lost.

With the notation of `basis.py` and `codes.py`, a_j = w'_j step_j, and L = <w, m> + Σ w'_j low_j,

    <w, x> = L + Σ_{j<=p} a_j (c_j + ρ_j) + <w'_rest, u_rest> + e,   |e| as in `Basis`.

*Leading codes.* The weights become signed bytes k_j, a_j = g k_j + δ_j, so that

    Σ a_j c_j <= g Σ k_j c_j + Σ δ_j middle_j + ||δ|| spread,

and with the ladders' codes r (of ||ρ||) and s (of ||u_rest||), k_r = ⌈||a|| step_r / g⌉ and k_s
alike,

    <w, x> <= constant + g (Σ k_j c_j + k_r r + k_s s),
    constant = L + Σ δ_j middle_j + ||δ|| spread + ||a|| first_r + ||w'_rest|| first_s + |e|.

So a point is outside {<w, x> >= b} where its integer product is below ⌈(b - constant) / g⌉.

*Heads.* The same holds for all points of a tile with the codes of its centre in place of c, the
radius in place of ||ρ|| and ||w'_p|| in place of ||a||, since <w'_p, u_p - centre> is at most
||w'_p|| times the radius.

*Row codes.* All coordinates, weights a_j in float32:

    |<w, x> - L - fl(Σ a_j c_j)| <= ||a|| residual + γ_{d+4}(2^-24) 255 Σ |a_j| + |e|.

Constants are float64; sums of at most 4 d + 64 terms of which are off by γ times the sum of their
magnitudes, which is added (`slack`), as is what under- and overflow may do. Where anything is not
finite, nothing is settled.
"""

import math
from typing import NamedTuple

import numpy as np

from .code_rows import FINER, MOST_PAIRED, MOST_QUERY
from .jit import REASSOCIATED, part
from .query import DOUBLE, SINGLE, gamma

_LEAST, _MOST = -(2**31), 2**31 - 1


class Aim(NamedTuple):
    """A normal in the terms of the filters, but for the arrays `aim` fills."""

    leading: tuple[float, float]  # constant and g of leading codes
    heads: tuple[float, float]  # and of heads
    centre: float  # L of the row codes
    error: float  # of an estimate by row codes


@part
def _root_above(squares):
    """Upper bound on the root of a sum of squares, whose terms may have underflowed."""
    return math.sqrt(squares + 2.0**-1000) * (1.0 + 1e-6)


@part
def _project(basis, normal, factors, scaled, projected):
    """Fill S^-1 w and w'; <w, m>, the sum of its terms' magnitudes, and ||S^-1 w||."""
    d = scaled.size
    base, size, squares = 0.0, 0.0, 0.0
    projected[:] = 0.0
    for i in range(d):
        weight = normal[i] * factors[0] * factors[1]
        base += weight * basis.centre[i]
        size += abs(weight * basis.centre[i])
        weight /= basis.scale[i]
        scaled[i] = weight
        squares += weight * weight
        for j in range(d):
            projected[j] += basis.inverse[i, j] * weight
    return base, size, _root_above(squares)


@part
def _lost(basis, projected, norm):
    """|e|, what the basis's rounding may do."""
    lost = norm * basis.inverse_error
    for j in range(projected.size):
        lost += abs(projected[j]) * basis.errors[j]
    return lost * (1.0 + 1e-6)


@part
def _slack(d, size, reach):
    """What rounding may do to a constant whose terms' magnitudes add up to `size`."""
    return gamma(4 * d + 64, DOUBLE) * size + d * 2.0**-1040 * (1.0 + reach) + 2.0**-1000


@part
def _aim_leading(leading, of_tiles, most, projected, base, size, lost, weights, query):
    """Fill the signed bytes of a query; constant, the sum of magnitudes behind it, and g."""
    steps, d, p = leading.steps, projected.size, leading.steps.low.size
    largest, squares, plain, rest = 0.0, 0.0, 0.0, 0.0
    for j in range(p):
        plain += projected[j] * projected[j]
        weights[j] = projected[j] * steps.step[j]
        largest = max(largest, abs(weights[j]))
        squares += weights[j] * weights[j]
        base += projected[j] * steps.low[j]
        size += abs(projected[j] * steps.low[j])
    for j in range(p, d):
        rest += projected[j] * projected[j]
    norm, rest = _root_above(squares), _root_above(rest)
    lever = _root_above(plain) if of_tiles else norm
    by_residual, by_rest = lever * leading.residual.step, rest * leading.rest.step
    unit = max(max(largest, by_residual), by_rest) / most * (1.0 + 1e-6)
    # Without NaN too, which `max` may have passed over.
    if not (1e-290 < unit < 1e290 and norm + lever + rest < 1e290):
        return np.inf, 0.0, 1.0
    off = 0.0
    for j in range(p):
        code = np.rint(weights[j] / unit)
        query[j] = code
        left = weights[j] - unit * code
        off += left * left
        base += left * steps.middle[j]
        size += abs(weights[j] * steps.middle[j])
    query[p] = min(np.ceil(by_residual / unit), most)
    base += lever * leading.residual.first + _root_above(off) * leading.spread + lost
    size += lever * leading.residual.first + norm * leading.spread + lost
    if p < d:
        query[p + 1] = min(np.ceil(by_rest / unit), most)
        base += rest * leading.rest.first
        size += rest * leading.rest.first
    return base, size, unit


@part
def _aim_rows(rows, projected, base, size, lost, weights):
    """Fill the float32 weights of row codes; L, the sum of its magnitudes, and the error."""
    steps, total, squares = rows.steps, 0.0, 0.0
    for j in range(projected.size):
        weight = projected[j] * steps.step[j]
        weights[j] = weight
        total += abs(weight)
        squares += weight * weight
        base += projected[j] * steps.low[j]
        size += abs(projected[j] * steps.low[j])
    error = _root_above(squares) * rows.residual + lost
    error += gamma(projected.size, SINGLE) * steps.most * total + projected.size * 2.0**-110
    # Beyond this a sum may overflow float32.
    return base, size, error if steps.most * total < 1e30 else np.inf


@part
def aim(
    basis, heads, leading, rows, normal, query, reach, scratch, for_heads, for_leading, for_rows
):
    """A half-space's normal in the terms of all filters, in the scale of `query`.

    Parameters
    ----------
    basis, heads, leading, rows : Basis, Leading, Leading, Rows
    normal : float64 array, shape (d,)
    query : Halfspace
        As `prepare` made it.
    reach : float
        Upper bound on the norm of points that filters are asked about.
    scratch : float64 array, shape (3, d)
    for_heads, for_leading : int8 array
        Filled; zeros from p + 2 on.
    for_rows : float32 array, shape (d,)
        Filled where there are row codes.
    """
    scaled, projected, weights, d = scratch[0], scratch[1], scratch[2], normal.size
    base, size, norm = _project(basis, normal, query.factors, scaled, projected)
    lost = _lost(basis, projected, norm)
    above, terms, head_unit = _aim_leading(
        heads, True, np.float64(MOST_QUERY), projected, base, size, lost, weights, for_heads
    )
    above += _slack(d, terms, reach)
    constant, terms, unit = _aim_leading(
        leading, False, np.float64(MOST_QUERY), projected, base, size, lost, weights, for_leading
    )
    constant += _slack(d, terms, reach)
    centre, error = 0.0, np.inf
    if rows.codes.shape[0]:
        centre, terms, error = _aim_rows(rows, projected, base, size, lost, for_rows)
        error += _slack(d, terms, reach)
    return Aim((constant, unit), (above, head_unit), centre, error)


@part
def aim_at_codes(basis, leading, normal, reach, scratch, codes, pair):
    """A normal in the terms of leading codes alone: constant and g, as above.

    Parameters
    ----------
    basis, leading, normal, reach, scratch
        As for `aim`.
    codes : int32 array, shape (r,)
        Scratch; zeros from p + 2 on.
    pair : int8 array, shape (2, r)
        Filled: the normal's codes are 64 times the first and the second, for `paired_products`.

    Returns
    -------
    constant, g, gap : float
        ``constant + g * product - gap <= <normal, x> <= constant + g * product`` for every point
        that is not marked in `always`; infinite, 1, infinite, where nothing can be said.
    """
    scaled, projected, spare = scratch[0], scratch[1], scratch[2]
    base, size, norm = _project(basis, normal, (1.0, 1.0), scaled, projected)
    lost = _lost(basis, projected, norm)
    most = np.float64(min(MOST_QUERY, MOST_PAIRED // (leading.steps.most * codes.size)) * FINER)
    constant, terms, unit = _aim_leading(
        leading, False, most, projected, base, size, lost, spare, codes
    )
    for j in range(codes.size):
        coarse = (codes[j] + FINER // 2) // FINER
        pair[0, j], pair[1, j] = coarse, codes[j] - FINER * coarse
    slack = _slack(normal.size, terms, reach)
    gap = _gap(leading, projected, unit) + 2.0 * (lost + slack)
    return constant + slack, unit, gap if constant < np.inf else np.inf


@part
def _gap(leading, projected, unit):
    """How far a point may be below the bound of its codes, but for rounding."""
    steps, p = leading.steps, leading.steps.low.size
    squares, rest = 0.0, 0.0
    for j in range(p):
        squares += (projected[j] * steps.step[j]) ** 2
    for j in range(p, projected.size):
        rest += projected[j] * projected[j]
    # Codes of the query are off by half a unit, those of the ladders by one.
    off, most = _root_above(0.25 * unit * unit * p) + 2.0**-499, leading.residual.most
    by_residual = _root_above(squares) * (leading.residual.first + most * leading.residual.step)
    by_rest = _root_above(rest) * (leading.rest.first + most * leading.rest.step)
    gap = 2.0 * (by_residual + off * leading.spread)
    if p < projected.size:
        gap += 2.0 * by_rest + unit * most
    return (gap + unit * most) * (1.0 + 1e-6)


@part
def bar_of(constant, unit, level):
    """Least integer product of a point that may score `level` or more, clamped to 32 bits."""
    bar = (level - constant) / unit
    bar -= abs(bar) * 2.0**-50
    if not bar > _LEAST:
        return np.int32(_LEAST)
    return np.int32(math.ceil(min(bar, np.float64(_MOST))))


@part(flags=REASSOCIATED, inline=True)
def row_product(codes, slot, weights, q):
    """Product of a point's row codes and the weights of query q."""
    total = np.float32(0.0)
    for j in range(codes.shape[1]):
        total += np.float32(codes[slot, j]) * weights[q, j]
    return np.float64(total)


@part(flags=REASSOCIATED, inline=True)
def row_score(points, slot, normals, q):
    """Score of a point, in the floats of the points, for the normal of query q."""
    total = points.dtype.type(0.0)
    for j in range(points.shape[1]):
        total += points[slot, j] * normals[q, j]
    return np.float64(total)
