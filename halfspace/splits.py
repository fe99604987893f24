"""Splits of points by a plane: across their principal axis, or any other."""

import math

import numpy as np

from .jit import REASSOCIATED, part
from .quickselect import key_of_rank

AXIS_SAMPLE = 256
"""Points that estimate a principal axis."""

POWER_ITERATIONS = 8


@part
def _draw(points, sample, count):
    """Fill `sample` (d, s) with coordinates of so many of the points, one of each stretch.

    It stands at a pseudo-random place of the stretch: points may come in periods.
    """
    step, state = points.shape[0] / count, 1
    for i in range(count):
        state = state * 48271 % 2147483647
        row = int((i + state / 2147483647) * step)
        for j in range(points.shape[1]):
            sample[j, i] = points[row, j]


@part(flags=REASSOCIATED)
def _sum(values, j, count):
    """Sum of the first values of row j, each over their number, so that it stays finite."""
    total, share = 0.0, 1.0 / count
    for i in range(count):
        total += values[j, i] * share
    return total


@part(flags=REASSOCIATED)
def _product(sample, j, along, count):
    """Product of row j and `along`."""
    total = 0.0
    for i in range(count):
        total += sample[j, i] * along[i]
    return total


@part(flags=REASSOCIATED)
def _project_sample(sample, axis, along, count):
    """Fill `along` (s,) with projections of a sample (d, s) on the axis."""
    along[:count] = 0.0
    for j in range(axis.size):
        for i in range(count):
            along[i] += axis[j] * sample[j, i]


@part
def _centre(sample, count):
    """Take its mean off every row of a sample (d, s); the row of widest range, and that range."""
    widest, spread = 0, -1.0
    for j in range(sample.shape[0]):
        mean = _sum(sample, j, count)
        low = high = sample[j, 0]
        for i in range(count):
            low, high = min(low, sample[j, i]), max(high, sample[j, i])
            sample[j, i] -= mean
        if high - low > spread:
            widest, spread = j, high - low
    return widest, spread


@part
def principal_axis(points, sample, along, axis, product):
    """Approximate leading eigenvector of the covariance of `points`.

    `sample` (d, s), `along` (s,) and `product` (d,) are scratch.
    """
    count, d = min(points.shape[0], along.size), points.shape[1]
    _draw(points, sample, count)
    widest, spread = _centre(sample, count)
    axis[:] = 0.0
    axis[widest] = 1.0
    if not 0.0 < spread < np.inf:
        return
    for j in range(d):
        for i in range(count):
            sample[j, i] /= spread
    for _ in range(POWER_ITERATIONS):
        _project_sample(sample, axis, along, count)
        norm = 0.0
        for j in range(d):
            product[j] = _product(sample, j, along, count)
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
def _swap(points, order, i, j):
    """Swap points i and j, and what `order` says of them."""
    order[i], order[j] = order[j], order[i]
    for c in range(points.shape[1]):
        points[i, c], points[j, c] = points[j, c], points[i, c]


@part
def divide(points, order, middle, keys, some):
    """Reorder points and order so that the `middle` of least key come first.

    Only those on the wrong side move, in one sweep over either side. `some` is scratch for as many
    keys.
    """
    n, less, level = points.shape[0], 0, 0
    if not middle < n:
        return
    edge = key_of_rank(keys[:n], middle, some)
    for i in range(n):
        less += keys[i] < edge
    for i in range(middle):
        level += keys[i] == edge
    # Of the points on the edge, those before the middle stay there as far as there is room.
    stay = min(level, middle - less)
    come = middle - less - stay
    i, j = 0, middle
    while True:
        while i < middle and (keys[i] < edge or (stay > 0 and keys[i] == edge)):
            stay -= keys[i] == edge
            i += 1
        while j < n and not (keys[j] < edge or (come > 0 and keys[j] == edge)):
            j += 1
        if i == middle or j == n:
            return
        come -= keys[j] == edge
        _swap(points, order, i, j)
        i += 1
        j += 1
