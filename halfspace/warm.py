"""warmup: compile the kernels before the first real query."""

import numpy as np

from .dynamic import Dynamic
from .scan import Scan
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
        turns = np.arange(1100.0)
        points = np.stack([np.cos(turns), np.sin(turns)], axis=1).astype(dtype)
        for structure in STRUCTURES.values():
            index = structure.make(points, weights=np.ones(1100))
            index.report(np.ones((2, 2)), [1.0, 1.4])
            index.report_polytope(np.ones((1, 2, 2)), 1.0)
            index.sum([1.0, 1.0], 1.0)
            index.top([1.0, 1.0], 3)
        changed = Dynamic(points, structure="kd_tree", weights=np.ones(1100), buffer=64)
        changed.update([0], points[:1])
        changed.report(np.ones((2, 2)), [1.0, 1.4])
        changed.sum([1.0, 1.0], 1.0)
        changed.top([1.0, 1.0], 3)
        # A batch large enough for products, whatever its dimension.
        Scan(np.zeros((1100, 16), dtype)).count(np.ones((64, 16)), 1.0)
