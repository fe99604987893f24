"""Splits of points by a plane: across their principal axis, or any other."""

import math

import numpy as np

from .jit import part
from .quickselect import select

AXIS_SAMPLE = 256
"""Points that estimate a principal axis."""

POWER_ITERATIONS = 8


@part
def principal_axis(points, sample, axis, product):
    """Approximate leading eigenvector of the covariance of `points`; `sample` (s, d) is scratch."""
    count, d = min(points.shape[0], sample.shape[0]), points.shape[1]
    step = points.shape[0] / count
    widest, spread = 0, -1.0
    for j in range(d):
        total = 0.0
        low = high = np.float64(points[0, j])
        for i in range(count):
            value = np.float64(points[int(i * step), j])
            sample[i, j] = value
            total += value / count
            low, high = min(low, value), max(high, value)
        for i in range(count):
            sample[i, j] -= total
        if high - low > spread:
            widest, spread = j, high - low
    axis[:] = 0.0
    axis[widest] = 1.0
    if not 0.0 < spread < np.inf:
        return
    for i in range(count):
        for j in range(d):
            sample[i, j] /= spread
    for _ in range(POWER_ITERATIONS):
        product[:] = 0.0
        for i in range(count):
            dot = 0.0
            for j in range(d):
                dot += sample[i, j] * axis[j]
            for j in range(d):
                product[j] += dot * sample[i, j]
        norm = 0.0
        for j in range(d):
            norm += product[j] * product[j]
        if not 0.0 < norm < np.inf:
            return
        for j in range(d):
            axis[j] = product[j] / math.sqrt(norm)


@part
def project(points, axis, keys):
    """Fill `keys` with the points' projections on the axis."""
    for i in range(points.shape[0]):
        key = 0.0
        for j in range(axis.size):
            key += axis[j] * points[i, j]
        keys[i] = key if key == key else 0.0


@part
def divide(points, order, middle, keys, rows, moved):
    """Reorder points and order so that the `middle` of least key come first.

    `rows` and `moved` are scratch for as many points.
    """
    n, d = points.shape
    for i in range(n):
        rows[i] = i
    select(keys[:n], rows, middle)
    for i in range(n):
        for j in range(d):
            moved[i, j] = points[rows[i], j]
        rows[i] = order[rows[i]]
    for i in range(n):
        order[i] = rows[i]
        for j in range(d):
            points[i, j] = moved[i, j]
