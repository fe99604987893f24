"""Algorithm 2 of arXiv 2410.10165: as many queries as keys, and the way that suits a head.

Queries of a sharp head need few keys: certified codes find them, and only they are read
(`coded_head.py`). On a flat head they would read most keys one by one, which products of whole
matrices do faster (`products.py`). A few queries tell which it is: how many keys they need is known
from all their scores. Either way every row has its bound; the guess decides the speed alone.
"""

import math

import numpy as np
from numpy.typing import NDArray

from . import products
from .bounds import ValueRange
from .enough import keys_needed
from .products import Rounding
from .reading import Cut
from .rules import Error, Mass, Rule

MANY = 64
"""Queries from which it pays to ask a few first."""

APART, MOST_ASKED = 64, 16
"""One in so many queries is asked first, and so many at most."""

CODED_KEY, CODED_COORDINATE = 0.6, 0.015
"""Rough nanoseconds for a key whose codes a query looks at, and for each coordinate."""

READ_COORDINATE = 0.3
"""And for each coordinate of a key that is read, and of its value."""


def whole_rounding(
    rule: Rule,
    cut: Cut,
    norms: NDArray,
    key_norm: float,
    scale: float,
    d: int,
    values: ValueRange,
) -> Rounding | None:
    """What float32 does to rows read in whole, where that leaves them what the rule promises."""
    if not isinstance(rule, Error | Mass):
        return None
    rounding = products.rounding_of(norms, key_norm, scale, d, values)
    if not np.isfinite(rounding.drift).all():
        return None
    if isinstance(rule, Error):
        lost = rounding.drift * float(values.width) + rounding.output
        return rounding if (lost <= 0.95 * cut.left).all() else None
    return rounding


def reads_most(
    queries: NDArray, keys: NDArray, visible: NDArray, cut: Cut, scale: float, value_dim: int
) -> bool:
    """Whether matrix products are likely to be faster than reading what rows need.

    Parameters
    ----------
    queries : ndarray of float64, shape (m, head_dim)
    keys : ndarray, shape (n, head_dim)
    visible : ndarray of int64, shape (m,)
    cut : Cut
        Of kind SHARE.
    scale : float
    value_dim : int
    """
    m, d = queries.shape
    count = int(np.clip(m // APART, 1, MOST_ASKED))
    # Not at the ends: a first token is like no other.
    asked = ((np.arange(count) + 0.5) * m / count).astype(np.int64)
    asked = asked[visible[asked] > 0]
    if not len(asked):
        return False
    seen, needed = visible[asked], 0
    shares = products.shares_of(queries[asked], keys, seen, scale)
    for q, share in zip(asked, shares, strict=True):
        needed += keys_needed(cut, int(q), np.ascontiguousarray(share))
    looking = seen.sum() * (CODED_KEY + CODED_COORDINATE * d)
    reading = needed * READ_COORDINATE * (d + value_dim)
    whole = math.fsum(products.nanoseconds(float(n), d, value_dim) for n in seen)
    return bool(looking + reading > whole)
