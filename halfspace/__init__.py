"""Half-space range searching with exact answers.

For points X in R^d and a closed half-space {x : <w, x> >= b}: which points are inside (`report`),
how many (`count`), whether any (`any`), the sum of their weights (`sum`), and the k furthest along
w (`top`). Every answer is that of real arithmetic on the given floats, ties included.

>>> import numpy as np
>>> import halfspace
>>> points = np.random.default_rng(0).standard_normal((10_000, 3))
>>> index = halfspace.build(points)
>>> index.count([1.0, 2.0, 2.0], 9.0)
10
"""

from .array_file import InvalidFile
from .cascade import Cascade
from .dynamic import Dynamic
from .index import Index
from .kd_tree import KDTree
from .parallel import get_threads, set_threads
from .partition_tree import PartitionTree
from .planner import build
from .report import Report, ResultTooLarge, Top, Work
from .scan import Scan
from .shallow_cuttings import ShallowCuttings
from .storage import load
from .warm import warmup

__all__ = [
    "Cascade",
    "Dynamic",
    "Index",
    "InvalidFile",
    "KDTree",
    "PartitionTree",
    "Report",
    "ResultTooLarge",
    "Scan",
    "ShallowCuttings",
    "Top",
    "Work",
    "build",
    "get_threads",
    "load",
    "set_threads",
    "warmup",
]
