"""Rules: when a row of attention has read enough.

A rule chooses which keys are read; the certificate that comes with the output does not depend on
it.
"""

import math
import numbers
import operator
import sys
from dataclasses import dataclass

LARGEST = sys.float_info.max
"""The largest finite number."""

LEAST = math.ulp(0.0)
"""The least positive number."""


def check_number(value: float, name: str, low: float, high: float) -> None:
    """Check that `value` is a number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or value != value:
        raise TypeError(f"{name}: expected a number, got {value!r}")
    try:
        float(value)
    except OverflowError:
        raise ValueError(f"{name}: expected a number that float64 holds, got {value}") from None
    if not low <= value <= high:
        raise ValueError(f"{name}: expected a number from {low} to {high}, got {value}")


@dataclass(frozen=True)
class TopR:
    """Read the r keys of largest score.

    Scores are those of the index's float filter: keys closer than its error may change places.

    Parameters
    ----------
    r : int or None
        At least 1; None is the paper's ceil(n^(4/5)) for n visible keys.

    Examples
    --------
    >>> from attention import TopR
    >>> TopR().count(1000), TopR(5).count(3)
    (252, 3)
    """

    r: int | None = None

    def __post_init__(self) -> None:
        if self.r is None:
            return
        try:
            value = operator.index(self.r)
        except TypeError:
            value = None
        if value is None or isinstance(self.r, bool):
            raise TypeError(f"r: expected an integer or None, got {type(self.r).__name__}")
        if value < 1:
            raise ValueError(f"r: expected at least 1, got {value}")

    def count(self, n: int) -> int:
        """Keys to read of n.

        Examples
        --------
        >>> from attention import TopR
        >>> TopR().count(131_072)
        12417
        """
        if self.r is not None:
            return min(n, operator.index(self.r))
        # The float may be off either way: the least r with r^5 >= n^4.
        r = round(n**0.8)
        while r**5 < n**4:
            r += 1
        while r > 0 and (r - 1) ** 5 >= n**4:
            r -= 1
        return r


@dataclass(frozen=True)
class Threshold:
    """Read the keys whose score, scale * <q, k>, is at least b.

    Parameters
    ----------
    b : float
        Not NaN. The half-space that is reported is <q, k> >= b / scale, rounded to float64.

    Examples
    --------
    >>> import attention
    >>> decoder = attention.Decoder([[0.0], [1.0], [2.0]], [[0.0], [10.0], [20.0]], scale=1.0)
    >>> decoder.softmax([[1.0]], attention.Threshold(1.0)).reported
    array([2])
    """

    b: float

    def __post_init__(self) -> None:
        check_number(self.b, "b", -math.inf, math.inf)


@dataclass(frozen=True)
class Mass:
    """Read the keys of largest score until they certainly hold the share p of the softmax mass.

    Parameters
    ----------
    p : float
        From 0 to 1.

    Examples
    --------
    >>> import attention
    >>> decoder = attention.Decoder([[0.0], [1.0], [2.0]], [[0.0], [10.0], [20.0]], scale=1.0)
    >>> decoder.softmax([[8.0]], attention.Mass(0.99)).reported
    array([1])
    """

    p: float

    def __post_init__(self) -> None:
        check_number(self.p, "p", 0.0, 1.0)


@dataclass(frozen=True)
class Error:
    """Read the keys of largest score until the output certainly is within eps of the exact one.

    Parameters
    ----------
    eps : float
        Largest error of any coordinate, in the units of the values; at least 0. Where rounding
        alone exceeds it, all keys are read and the bound says what was reached.

    Examples
    --------
    >>> import attention
    >>> decoder = attention.Decoder([[0.0], [1.0], [2.0]], [[0.0], [10.0], [20.0]], scale=1.0)
    >>> got = decoder.softmax([[20.0]], attention.Error(1e-3))
    >>> got.reported, bool(got.bound[0] <= 1e-3)
    (array([1]), True)
    """

    eps: float = 1e-3

    def __post_init__(self) -> None:
        check_number(self.eps, "eps", 0.0, math.inf)


@dataclass(frozen=True)
class Sampled:
    """Read heavy keys and a sample of the rest: within eps of the exact output, probably.

    For heads whose weights are spread over many keys. The bound on the output of a query holds with
    probability 1 - delta at least, for all coordinates at once, by finite-sample inequalities.
    Where dropping, as `Error` does, is expected to take less time than sampling, that is done;
    those rows, for which `Attended.sampled` is false, have bounds that are certain.

    Parameters
    ----------
    eps : float
        Largest error of any coordinate, in the units of the values; at least 0. Where rounding
        alone exceeds it, all keys are read and the bound says what was reached.
    delta : float
        Largest probability, over the draws, that the bound of a query does not hold; between 0 and
        1, neither included.
    seed : int
        Of the draws, 0 … 2^64 - 1. Together with the query's numbers it determines them: an answer
        does not depend on other queries, or on the number of threads.

    Notes
    -----
    Draws depend on seed and query only, so the same query draws alike each time it is asked, and
    bounds of equal queries may fail together. A seed must not be chosen for what it answers.

    `Attended.reported` counts heavy keys and draws. The method, and its proof, are in the
    docstrings of `attention.sampling` and `attention.deviations`.

    Examples
    --------
    >>> import numpy as np
    >>> from attention import Decoder, Error, Sampled
    >>> rng = np.random.default_rng(0)
    >>> keys, values = rng.standard_normal((20_000, 16)), rng.uniform(-1, 1, (20_000, 4))
    >>> decoder = Decoder(keys, values)
    >>> got = decoder.softmax(rng.standard_normal((3, 16)), Sampled(0.05, 1e-3))
    >>> bool(got.sampled.all()), bool((got.bound <= 0.05).all()), bool((got.reported < 5000).all())
    (True, True, True)
    """

    eps: float = 0.05
    delta: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        check_number(self.eps, "eps", 0.0, math.inf)
        check_number(self.delta, "delta", 0.0, 1.0)
        if not 0.0 < float(self.delta) < 1.0:
            raise ValueError(f"delta: expected a number between 0 and 1, got {self.delta}")
        try:
            value = None if isinstance(self.seed, bool) else operator.index(self.seed)
        except TypeError:
            value = None
        if value is None:
            raise TypeError(f"seed: expected an integer, got {type(self.seed).__name__}")
        if not 0 <= value < 2**64:
            raise ValueError(f"seed: expected 0 … 2^64 - 1, got {value}")


Rule = TopR | Threshold | Mass | Error | Sampled
