"""Powers of n fitted to what was measured at several n."""

import math
from collections.abc import Sequence

import numpy as np


def fitted(n: Sequence[float], values: Sequence[float]) -> tuple[float, float] | None:
    """Least-squares exponent of n in `values` and its standard error; None for fewer than 3 sizes.

    Sizes where the value is 0 say nothing about a power and are left out.

    Examples
    --------
    >>> from attention.studies.exponents import fitted
    >>> slope, error = fitted([1, 2, 4, 8], [3.0, 12.0, 48.0, 192.0])
    >>> round(slope, 6)
    2.0
    """
    n, values = np.asarray(n, float), np.asarray(values, float)
    used = values > 0.0
    if np.count_nonzero(used) < 3:
        return None
    x, y = np.log(n[used]), np.log(values[used])
    x -= x.mean()
    slope = float(x @ y / (x @ x))
    left = y - y.mean() - slope * x
    return slope, math.sqrt(float(left @ left) / (len(x) - 2) / float(x @ x))
