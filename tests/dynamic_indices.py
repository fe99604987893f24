"""Indices that points were inserted into, and what they hold."""

import numpy as np

from halfspace.dynamic import Dynamic

from .datasets import cloud

NORMAL = np.array([1.0, 2.0, -1.0])


def everything(index):
    return index.report(np.zeros(index.dim), 0.0).tolist()


def grown(n=600, d=3, step=50, **options):
    """An index that points were inserted into step by step, and the points."""
    points = cloud(n, d)
    index = Dynamic(points[:0], **({"structure": "kd_tree", "buffer": 32} | options))
    for first in range(0, n, step):
        index.insert(points[first : first + step])
    return index, points
