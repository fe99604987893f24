"""The ellipsoid of a sample's covariance: which points are outermost, in any affine frame."""

import math

from .bounds import principal_axes
from .jit import part


@part
def fit_ellipsoid(sample, rows, centre, matrix, frame):
    """Mean of the sample points in `rows`, and a frame (d, d) in which their covariance is one."""
    d = centre.size
    centre[:] = 0.0
    matrix[:] = 0.0
    for k in range(rows.size):
        for i in range(d):
            centre[i] += sample[rows[k], i] / rows.size
    for k in range(rows.size):
        for i in range(d):
            for j in range(d):
                product = (sample[rows[k], i] - centre[i]) * (sample[rows[k], j] - centre[j])
                matrix[i, j] += product / rows.size
    principal_axes(matrix, frame)
    trace = 0.0
    for i in range(d):
        trace += matrix[i, i]
    for i in range(d):
        scale = 1.0 / math.sqrt(max(matrix[i, i], 1e-12 * trace) + 1e-300)
        for j in range(d):
            frame[i, j] *= scale


@part
def inwards(point, centre, frame):
    """Minus the squared distance from the centre, in the frame."""
    key = 0.0
    for i in range(centre.size):
        along = 0.0
        for j in range(centre.size):
            along += frame[i, j] * (point[j] - centre[j])
        key -= along * along
    return key if key == key else 0.0
