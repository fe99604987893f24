"""warmup: compile the kernels before the first real query."""

import numpy as np

from .structures import STRUCTURES


def warmup(dtypes: tuple[type, ...] = (np.float32, np.float64)) -> None:
    """Compile (or load from the cache) every kernel, so that the first real query does not wait.

    Parameters
    ----------
    dtypes : tuple of dtypes, optional
        Of the points to come.

    Examples
    --------
    >>> import numpy as np, halfspace
    >>> halfspace.warmup((np.float32,))
    """
    for dtype in dtypes:
        points = np.arange(400, dtype=dtype).reshape(200, 2)
        for structure in STRUCTURES.values():
            index = structure.make(points, weights=np.ones(200))
            index.report(np.ones((2, 2)), [10.0, 20.0])
            index.report_polytope(np.ones((1, 2, 2)), 10.0)
            index.sum([1.0, 1.0], 10.0)
            index.top([1.0, 1.0], 3)
