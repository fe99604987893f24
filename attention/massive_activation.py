"""Massive activation (arXiv 2410.10165): a few keys that stand out, and the error of reading them.

What is returned with an answer is not this but the certificate of `bounds.py`.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from halfspace.inputs import as_count, as_points

from .inputs import LARGEST_SCORE, check_scale
from .rules import LARGEST, TopR, check_number

SCORES = 2**20
"""Scores of queries that are looked at together."""


class MassiveActivation(NamedTuple):
    """How far the n^gamma best keys of each query stand out.

    Examples
    --------
    >>> import numpy as np
    >>> from attention import bounds
    >>> keys = [[0.0], [0.0], [0.0], [9.0]]
    >>> found = bounds.massive_activation([[1.0]], keys, gamma=0.0, scale=1.0)
    >>> found.beta1.round(2), found.beta2
    (array([6.49]), array([0.]))
    """

    n: int
    gamma: float
    query_norm: np.ndarray  # (m,)
    beta1: np.ndarray  # (m,): mean score of the best keys / (query_norm ln n)
    beta2: np.ndarray  # (m,): largest score of the others / (query_norm ln n)

    @property
    def head(self) -> tuple[float, float, float]:
        """(gamma, beta1, beta2) that hold for all queries at once; beta1 may be below beta2.

        Examples
        --------
        >>> from attention import bounds
        >>> keys = [[0.0], [0.0], [0.0], [9.0]]
        >>> bounds.massive_activation([[1.0]], keys, gamma=0.0, scale=1.0).head
        (0.0, 6.4921..., 0.0)
        """
        least, most = self.beta1.min(initial=math.inf), self.beta2.max(initial=-math.inf)
        return self.gamma, float(least), float(most)

    def bound(self, value_max: float) -> np.ndarray:
        """Return `massive_activation_bound` for every query, (m,).

        Examples
        --------
        >>> from attention import bounds
        >>> keys = [[0.0], [0.0], [0.0], [9.0]]
        >>> found = bounds.massive_activation([[1.0]], keys, gamma=0.0, scale=1.0)
        >>> found.bound(1.0).round(5)
        array([0.00099])
        """
        return massive_activation_bound(
            self.n, self.query_norm, self.gamma, self.beta1, self.beta2, value_max
        )


def massive_activation(
    query: ArrayLike, key: ArrayLike, *, gamma: float = 0.8, scale: float | None = None
) -> MassiveActivation:
    """Measure the (gamma, beta1, beta2) massive activation of a head.

    A query q has it if its ceil(n^gamma) best keys have a mean score of at least beta1 ||q|| ln n,
    and no other key has a score above beta2 ||q|| ln n. Returned are the largest beta1 and the
    least beta2, in float64.

    Parameters
    ----------
    query : array_like, shape (m, head_dim)
    key : array_like, shape (n, head_dim)
        Finite; n >= 2.
    gamma : float, optional
        From 0 to 1; the default is that of the paper's n^(4/5).
    scale : float, optional
        Of scores; 1 / sqrt(head_dim) if not given. Positive. It is part of beta1 and beta2.

    Returns
    -------
    MassiveActivation
        Zeros for a query that is zero. If no key is left over, beta2 is of the worst.

    Raises
    ------
    TypeError, ValueError
        Not numbers, wrong shapes, NaN or infinities, out of these ranges.

    Notes
    -----
    O(m n head_dim) time.

    Examples
    --------
    >>> from attention.bounds import massive_activation
    >>> found = massive_activation([[2.0]], [[9.0], [1.0], [0.0], [0.0]], gamma=0.0, scale=1.0)
    >>> (found.beta1 / found.beta2).tolist()
    [9.0]
    """
    queries, keys = as_points(query, "query"), as_points(key, "key")
    if queries.shape[1] != keys.shape[1]:
        raise ValueError(
            f"query: expected head_dim {keys.shape[1]} as of key, got {queries.shape[1]}"
        )
    n = len(keys)
    if n < 2:
        raise ValueError(f"key: expected at least 2 rows, got {n}")
    check_number(gamma, "gamma", 0.0, 1.0)
    factor = check_scale(scale, keys.shape[1])
    count = TopR().count(n) if gamma == 0.8 else min(n, math.ceil(n**gamma))
    queries, keys = queries.astype(np.float64), keys.astype(np.float64)
    with np.errstate(over="ignore"):
        norms = np.linalg.norm(queries, axis=1)
        largest = norms.max(initial=0.0) * np.linalg.norm(keys, axis=1).max() * max(factor, 1.0)
    if not largest < LARGEST_SCORE:
        raise ValueError(f"query: expected scores below {LARGEST_SCORE}, got up to {largest}")
    best, next_best = np.empty((2, len(queries)))
    step = max(1, SCORES // n)
    for a in range(0, len(queries), step):
        rows = slice(a, a + step)
        scores = -np.sort(-(queries[rows] @ keys.T) * factor, axis=1)
        next_best[rows] = scores[:, min(count, n - 1)]
        # Where all are alike, the mean may be rounded to less.
        best[rows] = np.maximum(scores[:, :count].mean(axis=1), next_best[rows])
    units = np.where(norms > 0.0, norms, 1.0) * math.log(n)
    return MassiveActivation(n, float(gamma), norms, best / units, next_best / units)


def massive_activation_bound(
    n: int,
    query_norm: ArrayLike,
    gamma: float,
    beta1: ArrayLike,
    beta2: ArrayLike,
    value_max: float,
) -> np.ndarray:
    """Error of softmax attention over the n^gamma best keys, under massive activation.

    2 ||V||_inf / n^(gamma + (beta1 - beta2) ||q|| - 1), in every coordinate.

    Parameters
    ----------
    n : int
        Keys, at least 2.
    query_norm, beta1, beta2 : array_like, shapes that broadcast
        Of each query, as `massive_activation` measures them: query_norm >= 0, beta1 >= beta2.
    gamma : float
        From 0 to 1.
    value_max : float
        Largest magnitude of a value.

    Returns
    -------
    ndarray of float64

    Raises
    ------
    TypeError, ValueError
        Not numbers, or out of these ranges.

    Notes
    -----
    The best keys weigh n^gamma exp(mean score) at least (Jensen), which is
    n^(gamma + beta1 ||q||), and the others less than n^(1 + beta2 ||q||) in all; `general` gives
    the rest. Only beta1 - beta2 counts, so beta2 may be negative, unlike in the paper.

    It exceeds 2 ||V||_inf, as far as any two means of values can be apart, unless the best keys are
    (1 - gamma) ln n nats above the next one, on average: 2.1 nats at n = 32,768 and gamma = 0.8.
    Measured with gamma = 0.8 on the packaged heads (n = 7,168, 256 queries): so it does for every
    query of the flat head and of the one between, and for every Gaussian query (n = 32,768, d =
    64). On the sharp head its median is 0.85 ||V||_inf = 2.9, where the certificate's is 0.0024 and
    the error's 0.00027. With one beta1 and beta2 for all queries of a head it is void on all three.

    Examples
    --------
    >>> from attention.bounds import massive_activation_bound
    >>> float(massive_activation_bound(1024, 2.0, 0.8, 0.5, 0.1, 1.0))
    0.0312...
    """
    n = as_count(n, "n", least=2)
    check_number(gamma, "gamma", 0.0, 1.0)
    check_number(value_max, "value_max", 0.0, LARGEST)
    norm, high, low = (
        _finite(x, name)
        for x, name in ((query_norm, "query_norm"), (beta1, "beta1"), (beta2, "beta2"))
    )
    if (norm < 0.0).any():
        raise ValueError(f"query_norm: expected at least 0, got {norm.min()}")
    if (high < low).any():
        raise ValueError(f"beta1: expected at least beta2, got {beta1} and {beta2}")
    with np.errstate(over="ignore"):
        exponent = gamma + (high - low) * norm - 1.0
        return 2.0 * value_max * np.exp2(-exponent * math.log2(n))


def _finite(values: ArrayLike, name: str) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name}: expected numbers, got {array.dtype}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers, got {values}")
    return array.astype(np.float64)
