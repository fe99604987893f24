"""Running times that the paper proves (arXiv 2410.10165), of n keys and m queries in R^d.

These are orders of growth: what is returned is the expression inside the O(·), not a number of
operations.
"""

import math
from typing import NamedTuple

from halfspace.inputs import as_count

from .activation import active_keys


class Costs(NamedTuple):
    """Orders of growth, up to constants that depend on d alone; ``inf`` beyond float64.

    Examples
    --------
    >>> from attention import bounds
    >>> bounds.reporting_costs(1000, 4, 10, part=2)
    Costs(build=1000000.0, query=79.863...)
    """

    build: float
    query: float


def _power(n: int, exponent: int) -> float:
    """n^exponent as a float."""
    return math.inf if exponent * math.log2(n) >= 1024 else float(n) ** exponent


def reporting_costs(n: int, d: int, k: int, *, part: int) -> Costs:
    """Corollary 3.1: half-space reporting of k of n points in R^d.

    Part 1 builds in O(n log n) and reports in O(d n^(1 - 1/floor(d/2)) + d k), for keys that
    change. Part 2 builds in O(n^floor(d/2)) and reports in O(d log n + d k), for keys that stay.

    Parameters
    ----------
    n : int
        Points, at least 1.
    d : int
        Dimensions, at least 2.
    k : int
        Reported points, 0 … n.
    part : {1, 2}

    Returns
    -------
    Costs
        Of the build, and of one query.

    Raises
    ------
    TypeError, ValueError
        Not integers, or out of these ranges.

    Notes
    -----
    From Agarwal, Eppstein and Matoušek (1992); `PartitionTree` and `ShallowCuttings` of `halfspace`
    are of these kinds. The bounds gain on a scan, O(d n), only for few dimensions: at n = 32,768
    Part 1 without output is 1/181 of a scan at d = 4 and 1/13 at d = 8, but 1/1.4 at d = 64, before
    the constant, which grows with d. Part 2's build is 10^9 at d = 4 and 10^144 at d = 64. What the
    structures do is measured in docs/measured.md.

    Examples
    --------
    >>> from attention.bounds import reporting_costs
    >>> reporting_costs(65_536, 4, 10, part=1)
    Costs(build=1048576.0, query=1064.0)
    >>> reporting_costs(65_536, 4, 10, part=2)
    Costs(build=4294967296.0, query=104.0)
    """
    n, d = as_count(n, "n", least=1), as_count(d, "d", least=2)
    k, part = as_count(k, "k"), as_count(part, "part", least=1)
    if k > n:
        raise ValueError(f"k: expected at most n = {n}, got {k}")
    if part > 2:
        raise ValueError(f"part: expected 1 or 2, got {part}")
    half = d // 2
    if part == 1:
        return Costs(n * math.log2(n), d * n ** (1.0 - 1.0 / half) + d * k)
    return Costs(_power(n, half), d * math.log2(n) + d * k)


def decode_costs(n: int, m: int, d: int) -> Costs:
    """Order of growth of Algorithm 1, decoding: m queries over n keys that stay, O(m n^(4/5)).

    Part 2 is built once, and each query reports at most 2 n^(4/5) keys, with the probability of
    `activation_failure`: m (d log n + 2 d n^(4/5)) in all.

    Parameters
    ----------
    n, m : int
        Keys and queries, at least 1.
    d : int
        Dimensions, at least 2.

    Returns
    -------
    Costs
        Of the build, and of all m queries.

    Raises
    ------
    TypeError, ValueError
        Not integers, or out of these ranges.

    Notes
    -----
    Softmax attention has it for the n^(4/5) best keys, which need not hold its mass: they miss 63 %
    of it on the packaged flat head (n = 7,168, mean of 256 queries), 24 % on the one between, 0.3 %
    on the sharp one, and 56 % where all is Gaussian (n = 32,768, d = 64).

    Examples
    --------
    >>> from attention.bounds import decode_costs
    >>> costs = decode_costs(1024, 10, 2)
    >>> costs.build, round(costs.query)
    (1024.0, 10440)
    """
    return _attention_costs(n, m, d, part=2)


def prefill_costs(n: int, m: int, d: int) -> Costs:
    """Order of growth of Algorithm 2, prefill: O(m n^(1 - 1/floor(d/2)) + m n^(4/5)).

    Part 1 is built for keys that come with their queries; else as `decode_costs`. At d >= 12 the
    first term is the larger power of n, and at d = 64 it is n^0.97.

    Examples
    --------
    >>> from attention.bounds import prefill_costs
    >>> costs = prefill_costs(1024, 1024, 2)
    >>> costs.build, round(costs.query)
    (10240.0, 1050624)
    """
    return _attention_costs(n, m, d, part=1)


def _attention_costs(n: int, m: int, d: int, part: int) -> Costs:
    m = as_count(m, "m", least=1)
    build, query = reporting_costs(n, d, 0, part=part)
    return Costs(build, m * (query + d * active_keys(n)))
