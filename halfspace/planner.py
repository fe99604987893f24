"""build: an index for the data at hand, chosen by a rule or by name."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from .index import Index
from .inputs import as_count, as_normals, as_points
from .kd_tree import KDTree
from .partition_tree import PartitionTree
from .scan import Scan

STRUCTURES: dict[str, Callable[..., Index]] = {
    "scan": Scan,
    "kd_tree": KDTree,
    "partition_tree": PartitionTree,
}

TREE_DIMENSIONS = 12
"""Above this a kd-tree's bounds straddle nearly every plane on data without structure."""

TREE_POINTS = 2048
"""Below this a scan of all points costs no more than walking a tree."""

TREE_SHARE = 0.5
"""A tree that touches a larger share of the points is no faster than a scan."""

SAMPLE_POINTS = 16_384
SAMPLE_QUERIES = 64

LARGEST_OFFSET = 1e308

USUAL_SHARE = 0.01
"""Share of the points a report is expected to hold where nobody says."""


def choose(n: int, d: int) -> tuple[str, str]:
    """Name the structure for n points in d dimensions, and say why.

    Examples
    --------
    >>> from halfspace.planner import choose
    >>> choose(1_000_000, 3)[0], choose(1_000_000, 64)[0], choose(100, 3)[0]
    ('kd_tree', 'scan', 'scan')
    """
    if n < TREE_POINTS:
        return "scan", f"{n} points are scanned faster than a tree is walked"
    if d > TREE_DIMENSIONS:
        return "scan", f"in {d} dimensions boxes and balls straddle most planes"
    return "kd_tree", f"in {d} dimensions boxes and balls settle most points unseen"


def _choose_by_sample(points: np.ndarray, normals: np.ndarray, share: float) -> tuple[str, str]:
    """Choose by what a tree over a sample of the points touches for a sample of the queries."""
    n = len(points)
    rows = np.linspace(0, n - 1, min(n, SAMPLE_POINTS)).astype(np.int64)
    some = normals[np.linspace(0, len(normals) - 1, min(len(normals), SAMPLE_QUERIES)).astype(int)]
    sample = KDTree(points[rows])
    offsets = sample.top(some, max(1, math.ceil(share * len(rows)))).scores[:, -1]
    offsets = np.clip(offsets, -LARGEST_OFFSET, LARGEST_OFFSET)
    touched = sample.work(some, offsets).points_touched.mean() / len(rows)
    name = "kd_tree" if touched < TREE_SHARE else "scan"
    return name, f"a tree over {len(rows)} points touched {touched:.0%} of them for such queries"


def _choose_for(
    points: np.ndarray,
    queries: ArrayLike | None,
    expected_count: int | None,
) -> tuple[str, str]:
    n, d = points.shape
    share = USUAL_SHARE if expected_count is None else min(1.0, expected_count / max(n, 1))
    name, reason = choose(n, d)
    if queries is not None:
        normals, _ = as_normals(queries, d)
        if len(normals) and n >= TREE_POINTS:
            name, reason = _choose_by_sample(points, normals, share)
    if name == "kd_tree" and share > TREE_SHARE:
        name, reason = "scan", f"reports of {share:.0%} of the points leave nothing to skip"
    return name, reason


def _aliases(name: str) -> tuple[str, str]:
    return name, name.replace("_", "")


def build(
    points: ArrayLike,
    structure: str = "auto",
    *,
    ids: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    queries: ArrayLike | None = None,
    expected_count: int | None = None,
    memory: int | None = None,
) -> Index:
    """Build an index over `points` for half-space queries.

    Parameters
    ----------
    points : array_like, shape (n, d)
        Finite; float32 or float64, narrower floats and integers are widened without loss.
    structure : {"auto", "scan", "kd_tree", "partition_tree"}, optional
        Upper or lower case, with or without underscores. "auto" chooses by n, d and what follows.
    ids : array_like of int, shape (n,), optional
        Distinct 64-bit ids; 0 … n-1 if not given.
    weights : array_like, shape (n,) or (n, w), optional
        Finite weights for `Index.sum`.
    queries : array_like, shape (m, d), optional
        Normals like those to come: "auto" then measures, on a sample, what a tree would touch.
    expected_count : int, optional
        Points a report is expected to hold; 1 % of them if not given.
    memory : int, optional
        Bytes the index may take.

    Returns
    -------
    Index
        `explain()` says what was built and why.

    Raises
    ------
    TypeError
        Not real numbers.
    ValueError
        An unknown structure; points, ids, weights or queries as for `Index`; a negative
        `expected_count`; an index larger than `memory`.

    Examples
    --------
    >>> import halfspace
    >>> index = halfspace.build([[0.0, 0.0], [3.0, 4.0]], ids=[70, 50])
    >>> index.report([1.0, 1.0], 7.0)
    array([50])
    """
    names = {"auto": "auto", **{alias: name for name in STRUCTURES for alias in _aliases(name)}}
    wanted = names.get(str(structure).lower())
    if wanted is None:
        known = ", ".join(["auto", *STRUCTURES])
        raise ValueError(f"structure: expected one of {known}, got {structure!r}")
    if expected_count is not None:
        as_count(expected_count, "expected_count")
    if memory is not None:
        as_count(memory, "memory")
    rows = as_points(points)
    if queries is not None:
        as_normals(queries, rows.shape[1])
    if wanted == "auto":
        name, reason = _choose_for(rows, queries, expected_count)
    else:
        name, reason = wanted, "chosen by hand"
    index = STRUCTURES[name](rows, ids=ids, weights=weights)
    if memory is not None and index.nbytes > memory and wanted == "auto":
        index, reason = Scan(rows, ids=ids, weights=weights), f"{name} takes {index.nbytes} bytes"
    if memory is not None and index.nbytes > memory:
        raise ValueError(f"memory: expected at least {index.nbytes} bytes, got {memory}")
    index._reason = reason
    return index
