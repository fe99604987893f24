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
        """Keys to read of n."""
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
    """

    eps: float = 1e-3

    def __post_init__(self) -> None:
        check_number(self.eps, "eps", 0.0, math.inf)


Rule = TopR | Threshold | Mass | Error
