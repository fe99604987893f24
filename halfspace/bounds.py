"""Bounds of nodes: each a centre with a parallelotope, an ellipsoid and a ball, all at once.

A node stores a centre c, rows b_1 … b_p, a spread s, a residual e and a radius r, measured on its
points x after everything was rounded to the floats it is stored in: there are |t_j| <= 1 with

    x = c + sum_j t_j b_j + f,    ||t|| <= s,    ||f|| <= e,    ||x - c|| <= r

Whatever the rows are, it follows for every normal w (triangle inequality; Cauchy-Schwarz) that

    |<w, x> - <w, c>| <= min(sum_j |<w, b_j>|, s ||(<w, b_1> … <w, b_p>)||) + ||w|| e
    |<w, x> - <w, c>| <= ||w|| r

Rows in the node's own frame make that a box and an ellipsoid: a patch of a surface of diameter h
has thickness O(h^2), so a plane that touches the surface crosses few patches. Many points fill a
box, so rows of larger nodes are the half-widths along the principal axes. The 64 points of a tile
fill none in `ROUND_DIMENSIONS` or more, so a tile's rows are the semi-axes of the least ellipsoid
around them (`enclosing.py`): in d = 8 planes cross a sixth fewer tiles, and half as many or fewer
where they cut few points off. Rows cost d^2 floats a node; above
`ORIENTED_DIMENSIONS` the rows are the half-widths h along the coordinate axes, stored as one row
(there |<w, x> - <w, c>| <= <|w|, h>, and e = 0).

Rounding. The t_j are taken as float64 computed them and the residual f is measured for those very
numbers, so neither eigenvectors nor rounded rows need be good. Points, centre and rows are scaled
by a power of two (exactly, but for underflow below 2^-1022 of their extent) and x_i - c_i is one
subtraction, so with u = 2^-53 a coordinate of f is off by at most
(d + 4) u (|x_i - c_i| + sum_j |b_ji|), and f by (d + 4) u (r + sum_j ||b_j||). Evaluating the
bounds is off by what `query.py` allows for a vector as long as the node's *norm*,
||c|| + (1 + s) sum_j ||b_j|| + e + r, four times over.
"""

import math

import numpy as np

from . import parallel
from .enclosing import Room, enclose, load_steps
from .jit import MARGIN_COVERED, kernel, part
from .tiles import TILE, Tiles, tile_scores

ORIENTED_DIMENSIONS = 8
"""Up to here nodes have frames of their own: beyond, d^2 floats a node cost more than they save."""

ROUND_DIMENSIONS = 4
"""From here on a tile's rows are those of an ellipsoid: with fewer, its points fill a box."""

SWEEPS = 12
"""Jacobi sweeps no covariance outlasts."""

COVARIANCE_TILES = 64
"""Tiles of a node that its principal axes are taken from."""

RADIUS, NORM, SPREAD, RESIDUAL = 0, 1, 2, 3
"""Rows of a block of reaches; the last two only where frames are oriented."""


def frame_shape(dim: int) -> tuple[int, int]:
    """Rows of a node's frame in so many dimensions, and its reaches."""
    return (dim, 4) if 1 < dim <= ORIENTED_DIMENSIONS else (1, 2)


@part(inline=True)
def widened(value, like):
    """`value`, larger than rounding to the floats of the array `like` could make it smaller."""
    if like.itemsize == 4:
        return like.dtype.type(value * (1.0 + 2.0**-22) + 2.0**-140)
    return like.dtype.type(value * (1.0 + 2.0**-48) + 2.0**-1060)


@part
def _middle(data, count, first, last, centre):
    """Fill `centre` with the middle of the bounding box; returns its extent, a power of two."""
    extent = 0.0
    for j in range(centre.size):
        low = high = np.float64(data[first, j, 0])
        for t in range(first, last):
            for lane in range(min(TILE, count - t * TILE)):
                low = min(low, np.float64(data[t, j, lane]))
                high = max(high, np.float64(data[t, j, lane]))
        # Halved before they are added: the sum may overflow.
        centre[j] = data.dtype.type(0.5 * low + 0.5 * high)
        extent = max(extent, 0.5 * high - 0.5 * low)
    return math.ldexp(1.0, min(max(math.frexp(extent)[1] + 1, -1000), 1000))


@part
def _covariance(data, count, first, last, centre, unit, steps, mean, matrix):
    """Covariance (d, d), up to scale, of the points of at most `COVARIANCE_TILES` tiles."""
    d, used = centre.size, min(last - first, COVARIANCE_TILES)
    mean[:] = 0.0
    matrix[:] = 0.0
    for s in range(used):
        load_steps(data, count, first + s * (last - first) // used, centre, unit, steps)
        for i in range(d):
            total = 0.0
            for lane in range(TILE):
                total += steps[i, lane]
            mean[i] += total / (used * TILE)
            for j in range(i + 1):
                total = 0.0
                for lane in range(TILE):
                    total += steps[i, lane] * steps[j, lane]
                matrix[i, j] += total / (used * TILE)
    for i in range(d):
        for j in range(i + 1):
            matrix[i, j] -= mean[i] * mean[j]
            matrix[j, i] = matrix[i, j]


@part
def principal_axes(matrix, axes):
    """Fill `axes` (d, d), by rows, with eigenvectors of a symmetric matrix, which is diagonalised.

    Cyclic Jacobi rotations (Golub, Van Loan 2013, section 8.5).
    """
    d = matrix.shape[0]
    for i in range(d):
        for j in range(d):
            axes[i, j] = 1.0 if i == j else 0.0
    for _ in range(SWEEPS):
        rotated = False
        for p in range(d - 1):
            for q in range(p + 1, d):
                off = matrix[p, q]
                if not abs(off) > 1e-17 * (abs(matrix[p, p]) + abs(matrix[q, q])):
                    continue
                rotated = True
                theta = 0.5 * (matrix[q, q] - matrix[p, p]) / off
                tangent = math.copysign(1.0, theta) / (abs(theta) + math.hypot(1.0, theta))
                cosine = 1.0 / math.hypot(1.0, tangent)
                sine = tangent * cosine
                for k in range(d):
                    a, b = matrix[k, p], matrix[k, q]
                    matrix[k, p], matrix[k, q] = cosine * a - sine * b, sine * a + cosine * b
                for k in range(d):
                    a, b = matrix[p, k], matrix[q, k]
                    matrix[p, k], matrix[q, k] = cosine * a - sine * b, sine * a + cosine * b
                    a, b = axes[p, k], axes[q, k]
                    axes[p, k], axes[q, k] = cosine * a - sine * b, sine * a + cosine * b
        if not rotated:
            return


@part
def _along(axis, steps, along):
    """Fill `along` (64,) with the products of an axis (d,) and the steps."""
    along[:] = 0.0
    for i in range(axis.size):
        for lane in range(TILE):
            along[lane] += axis[i] * steps[i, lane]


@part
def _fit(data, count, first, last, unit, steps, along, axes, centre, low, high):
    """Move `centre` to the middle of the points' box along the axes; `low` becomes half-widths."""
    d = centre.size
    low[:], high[:] = np.inf, -np.inf
    for t in range(first, last):
        load_steps(data, count, t, centre, unit, steps)
        for j in range(d):
            _along(axes[j], steps, along)
            for lane in range(TILE):
                low[j], high[j] = min(low[j], along[lane]), max(high[j], along[lane])
    for i in range(d):
        step = 0.0
        for j in range(d):
            step += axes[j, i] * (0.5 * low[j] + 0.5 * high[j])
        moved = data.dtype.type(centre[i] + step * unit)
        # The rounded centre is off the middle, which in a thin box matters.
        step = (moved - centre[i]) / unit
        centre[i] = moved
        for j in range(d):
            low[j] -= axes[j, i] * step
            high[j] -= axes[j, i] * step
    for j in range(d):
        low[j] = max(-low[j], high[j])


@part
def _fit_tile(data, count, t, unit, steps, along, axes, matrix, room, centre, widths):
    """Move `centre` to that of the least ellipsoid around a tile's points, and fill `axes`.

    `widths` become its semi-axes, all shortened alike, as far as the box of the points allows.
    """
    d, share = centre.size, 0.0
    load_steps(data, count, t, centre, unit, steps)
    enclose(steps, matrix, room)
    principal_axes(matrix, axes)
    for j in range(d):
        centre[j] = data.dtype.type(centre[j] + room.mean[j] * unit)
    load_steps(data, count, t, centre, unit, steps)
    for j in range(d):
        _along(axes[j], steps, along)
        half = 0.0
        for lane in range(TILE):
            half = max(half, abs(along[lane]))
        # No semi-axis of a least ellipsoid is longer than d half-widths (John 1948): what is, in a
        # flat set, is rounding.
        widths[j] = min(max(math.sqrt(max(d * matrix[j, j], 0.0)), half), d * half)
        share = max(share, half / widths[j] if half > 0.0 else 0.0)
    for j in range(d):
        widths[j] *= share


@part
def _largest(squares):
    """Root of the largest of some sums of squares, rounded up."""
    largest = 0.0
    for lane in range(TILE):
        # The order of the comparison lets a NaN through.
        largest = largest if squares[lane] <= largest else squares[lane]
    return math.sqrt(largest) * (1.0 + 1e-10)


@part
def _add_squares(steps, squares):
    squares[:] = 0.0
    for i in range(steps.shape[0]):
        for lane in range(TILE):
            squares[lane] += steps[i, lane] * steps[i, lane]


@part
def _take_out(axis, width, row, steps, along, squares):
    """Take t_j b_j off the steps, so that the residual is left; add the squares of t_j."""
    if not width > 0.0:
        return
    _along(axis, steps, along)
    for lane in range(TILE):
        along[lane] = min(max(along[lane] / width, -1.0), 1.0)
        squares[lane] += along[lane] * along[lane]
    for i in range(row.size):
        for lane in range(TILE):
            steps[i, lane] -= along[lane] * row[i]


@part
def _measure(data, count, first, last, unit, steps, along, squares, axes, widths, rows, centre):
    """Radius, spread and residual, in units, about a centre and rows (p, d) in units."""
    radius = spread = residual = 0.0
    for t in range(first, last):
        load_steps(data, count, t, centre, unit, steps)
        _add_squares(steps, squares)
        radius = max(radius, _largest(squares))
        if rows.shape[0]:
            squares[:] = 0.0
            for j in range(rows.shape[0]):
                _take_out(axes[j], widths[j], rows[j], steps, along, squares)
            spread = max(spread, _largest(squares))
            _add_squares(steps, squares)
            residual = max(residual, _largest(squares))
    return radius, spread, residual


@part
def _norm(vector):
    """Norm of a vector, rounded up; infinite where it is beyond float64."""
    largest = squares = 0.0
    for j in range(vector.size):
        largest = max(largest, abs(np.float64(vector[j])))
    if largest == 0.0:
        return 0.0
    for j in range(vector.size):
        squares += (vector[j] / largest) ** 2
    return largest * math.sqrt(squares) * (1.0 + 1e-10) + 2.0**-1074


@kernel
def bound_nodes(data, count, first, last, centres, frames, reaches):
    """Bound nodes over tiles first[v] … last[v]; fills (v, d), (v, p, d) and (v, 2 or 4)."""
    d, p = centres.shape[1], frames.shape[1]
    oriented = reaches.shape[1] > NORM + 1
    limit = 1e30 if data.itemsize == 4 else 1e300
    steps, along, squares = np.empty((d, TILE)), np.empty(TILE), np.empty(TILE)
    matrix, axes, rows = np.empty((d, d)), np.empty((d, d)), np.empty((p if oriented else 0, d))
    centre, low, high = np.empty(d), np.empty(d), np.empty(d)
    room = Room(
        np.empty((d, TILE)),
        np.empty(TILE),
        np.empty(TILE),
        np.empty(TILE),
        np.empty(d),
        np.empty((d, d)),
    )
    for v in range(first.size):
        a, b = first[v], last[v]
        unit = _middle(data, count, a, b, centre)
        total = 0.0
        if oriented:
            if b - a == 1 and d >= ROUND_DIMENSIONS:
                _fit_tile(data, count, a, unit, steps, along, axes, matrix, room, centre, low)
            else:
                _covariance(data, count, a, b, centre, unit, steps, low, matrix)
                principal_axes(matrix, axes)
                _fit(data, count, a, b, unit, steps, along, axes, centre, low, high)
            for j in range(d):
                for i in range(d):
                    frames[v, j, i] = axes[j, i] * low[j] * (1.0 + 2.0**-20) * unit
                    rows[j, i] = np.float64(frames[v, j, i]) / unit
                total += _norm(frames[v, j])
        else:
            _half_widths(data, count, a, b, unit, steps, centre, low)
            for i in range(d):
                frames[v, 0, i] = widened(low[i] * unit, frames)
            total = _norm(frames[v, 0])
        radius, spread, residual = _measure(
            data, count, a, b, unit, steps, along, squares, axes, low, rows, centre
        )
        for i in range(d):
            centres[v, i] = centre[i]
        rounding = 4.0 * (d + 2) * 2.0**-53
        reaches[v, RADIUS] = widened(radius * unit, reaches)
        norm = _norm(centre) + total * (1.0 + spread) + (radius + residual) * unit
        if oriented:
            residual = residual * unit + rounding * (radius * unit + total)
            reaches[v, SPREAD] = widened(spread, reaches)
            reaches[v, RESIDUAL] = widened(residual, reaches)
        # Beyond the limit a score may overflow the floats it is summed in: nothing is settled.
        reaches[v, NORM] = widened(norm, reaches) if norm * (d + 1) < limit else np.inf


@part
def _half_widths(data, count, first, last, unit, steps, centre, widths):
    widths[:] = 0.0
    for t in range(first, last):
        load_steps(data, count, t, centre, unit, steps)
        for j in range(centre.size):
            for lane in range(TILE):
                widths[j] = max(widths[j], abs(steps[j, lane]))


def bound_level(tiles: Tiles, first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, ...]:
    """Bounds of nodes over tiles first[v] … last[v]: centres (v, d), rows (v, p, d), reaches.

    Reaches (v, 2) or, of oriented bounds, (v, 4). O(n d^2) for n points below, by all threads.
    """
    d, dtype = tiles.data.shape[1], tiles.data.dtype
    rows, columns = frame_shape(d)
    nodes = len(first)
    bounds = tuple(np.empty((nodes, *s), dtype) for s in ((d,), (rows, d), (columns,)))
    pieces = parallel.parts(nodes, 10.0 * TILE * d * (rows + 2) * (last - first).max())
    parallel.run(
        [
            lambda a=a, b=b: bound_nodes(
                tiles.data, tiles.count, first[a:b], last[a:b], *(x[a:b] for x in bounds)
            )
            for a, b in pieces
        ]
    )
    return bounds


@part(flags=MARGIN_COVERED, inline=True)
def score_ranges(bounds, block, narrow, size, query, scratch, low, high):
    """Ranges of the scaled scores of a block's nodes, widened by the rounding margin.

    A node of infinite norm gets the whole line, or NaN, and is never settled. `bounds` are the
    arrays centres, frames and reaches of a tree. `size` (d,) is |narrow|; `scratch` (2, 64);
    `low` and `high` (64,) are filled.
    """
    centres, frames, reaches = bounds
    tile_scores(centres, block, narrow, low)
    norm, relative = low.dtype.type(query.norm), low.dtype.type(4.0 * query.relative)
    absolute = low.dtype.type(4.0 * (query.absolute + query.unit * abs(query.level)))
    if reaches.shape[1] <= SPREAD:
        tile_scores(frames, block, size, high)
    else:
        _oriented_reaches(frames, reaches, block, narrow, norm, scratch, high)
    for lane in range(TILE):
        middle = low[lane]
        reach = min(high[lane], norm * reaches[block, RADIUS, lane])
        reach += relative * reaches[block, NORM, lane] + absolute
        low[lane], high[lane] = middle - reach, middle + reach


@part(flags=MARGIN_COVERED, inline=True)
def _oriented_reaches(frames, reaches, block, narrow, norm, scratch, high):
    along, squares = scratch[0], scratch[1]
    # Squares that underflow would make the ellipsoid too small.
    least = high.dtype.type(2.0**-80 if high.itemsize == 4 else 2.0**-900)
    high[:] = 0.0
    squares[:] = 0.0
    for j in range(narrow.size):
        tile_scores(frames, block * narrow.size + j, narrow, along)
        for lane in range(TILE):
            high[lane] += abs(along[lane])
            squares[lane] += along[lane] * along[lane]
    for lane in range(TILE):
        round_reach = reaches[block, SPREAD, lane] * math.sqrt(squares[lane])
        if squares[lane] > least:
            high[lane] = min(high[lane], round_reach)
        high[lane] += norm * reaches[block, RESIDUAL, lane]
