"""Activation of Gaussian keys (arXiv 2410.10165): how high a threshold leaves 2 n^(4/5) of n.

An upper bound on activity, not a target: `paper_threshold` says what it leaves in practice.
"""

import math

from halfspace.inputs import as_count

from .rules import LARGEST, LEAST, check_number


def active_keys(n: int) -> float:
    """Return 2 n^(4/5), the most keys that the activation lemma lets be active in a row.

    Examples
    --------
    >>> from attention.bounds import active_keys
    >>> round(active_keys(32_768))
    8192
    """
    return 2.0 * as_count(n, "n", least=1) ** 0.8


def activation_scale(
    m: int, d: int, *, query_std: float, key_std: float, delta: float = 0.01
) -> float:
    """Return sigma_a = 4 sqrt(1 + ln(m / delta) / d) query_std key_std.

    With probability 1 - delta no score <q, k> / sqrt(d) of m Gaussian queries has a standard
    deviation above it, given the query.

    Parameters
    ----------
    m, d : int
        Queries and dimensions, at least 1.
    query_std, key_std : float
        Of the coordinates, which are independent, Gaussian, of mean 0.
    delta : float, optional
        In (0, 1].

    Raises
    ------
    TypeError, ValueError
        Not numbers, or out of these ranges.

    Notes
    -----
    The deviation is key_std ||q|| / sqrt(d). By Laurent and Massart (2000), ||q||^2 is above
    query_std^2 (d + 2 sqrt(d x) + 2 x) with probability at most exp(-x); for x = ln(m / delta) this
    is at most query_std^2 (2 d + 3 x), less than 16 query_std^2 (d + x), and m queries fail with
    probability at most delta. So the 4 could be sqrt(3).

    Examples
    --------
    >>> from attention.bounds import activation_scale
    >>> round(activation_scale(1, 64, query_std=1.0, key_std=1.0), 3)
    4.141
    """
    m, d = as_count(m, "m", least=1), as_count(d, "d", least=1)
    check_number(query_std, "query_std", 0.0, LARGEST)
    check_number(key_std, "key_std", 0.0, LARGEST)
    check_number(delta, "delta", LEAST, 1.0)
    return 4.0 * math.sqrt(1.0 + (math.log(m) - math.log(delta)) / d) * query_std * key_std


def paper_threshold(
    n: int, m: int, d: int, *, query_std: float, key_std: float, delta: float = 0.01
) -> float:
    """Compute the paper's threshold on scores, b = sigma_a sqrt(0.4 ln n).

    At most 2 n^(4/5) of n Gaussian keys have a score <q, k> / sqrt(d) of at least b, for any of m
    Gaussian queries, but for a probability of `activation_failure`.

    Parameters
    ----------
    n : int
        Keys, at least 1.
    m, d, query_std, key_std, delta
        As for `activation_scale`.

    Raises
    ------
    TypeError, ValueError
        As for `activation_scale`.

    Notes
    -----
    It is an upper bound on activity, not a target. Given the query, scores are independent and at
    least b with probability at most exp(-b^2 / (2 sigma_a^2)) = n^(-1/5), and the 4 in sigma_a, 2.3
    times what its proof needs, is in the exponent squared. Measured at n = 32,768, d = 64: b is
    8.45 for one query and 8.86 for 1,000; the best of 1,000 queries' 33 million scores is 5.96. So
    nothing is active, where the lemma allows 8,192 keys a query.

    Examples
    --------
    >>> from attention.bounds import paper_threshold
    >>> round(paper_threshold(32_768, 1, 64, query_std=1.0, key_std=1.0), 2)
    8.45
    """
    n = as_count(n, "n", least=1)
    scale = activation_scale(m, d, query_std=query_std, key_std=key_std, delta=delta)
    return scale * math.sqrt(0.4 * math.log(n))


def activation_failure(n: int, m: int, *, delta: float = 0.01) -> float:
    """Bound the probability that some row has more than 2 n^(4/5) keys at `paper_threshold`.

    Parameters
    ----------
    n, m : int
        Keys and queries, at least 1.
    delta : float, optional
        In (0, 1]; that of the threshold.

    Raises
    ------
    TypeError, ValueError
        Not numbers, or out of these ranges.

    Notes
    -----
    Queries are shorter than `activation_scale` assumes but for a probability of delta. Then the
    number of active keys of a row is at most binomial, n trials of probability n^(-1/5) and mean
    n^(4/5), and twice its mean with probability at most (e / 4)^(n^(4/5)) (Chernoff).

    Examples
    --------
    >>> from attention.bounds import activation_failure
    >>> activation_failure(32_768, 32_768), round(activation_failure(50, 1), 3)
    (0.01, 0.01)
    """
    n, m = as_count(n, "n", least=1), as_count(m, "m", least=1)
    check_number(delta, "delta", LEAST, 1.0)
    crowded = (1.0 - math.log(4.0)) * active_keys(n) / 2.0 + math.log(m)
    return min(1.0, delta + math.exp(min(crowded, 0.0)))
