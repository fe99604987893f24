"""Data sets with indexes over them, made once for all tests."""

from functools import cache

import numpy as np

import halfspace

from .datasets import DATASETS
from .sizes import LARGE
from .structures import STRUCTURES


@cache
def points_of(dataset, d, dtype, **size):
    return DATASETS[dataset](d, np.random.default_rng(d), dtype, **size)


@cache
def weights_of(n):
    """Integers, so that sums are exact in any order, and both signs, so that they cancel."""
    return np.random.default_rng(n).integers(-(2**30), 2**30, (n, 2)).astype(np.float64)


@cache
def index_of(structure, dataset, d, dtype, **size):
    points = points_of(dataset, d, dtype, **size)
    return structure.build(points, weights=weights_of(len(points)))


@cache
def rivals(dataset, d, dtype):
    """Scan over many points, then all that have to agree with it."""
    points = points_of(dataset, d, dtype, n=LARGE)
    others = [s.build for name, s in STRUCTURES.items() if d in s.dims and name != "Scan"]
    return [build(points, weights=weights_of(LARGE)) for build in (halfspace.Scan, *others)]
