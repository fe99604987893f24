"""build: an index for the data at hand, chosen by a rule or by name."""

from collections.abc import Callable

from numpy.typing import ArrayLike

from .index import Index
from .inputs import as_points
from .kd_tree import KDTree
from .scan import Scan

STRUCTURES: dict[str, Callable[..., Index]] = {"scan": Scan, "kd_tree": KDTree}

TREE_DIMENSIONS = 12
"""Above this a kd-tree's bounds straddle nearly every plane on data without structure."""

TREE_POINTS = 2048
"""Below this a scan of all points costs no more than walking a tree."""


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


def build(
    points: ArrayLike,
    structure: str = "auto",
    *,
    ids: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> Index:
    """Build an index over `points` for half-space queries.

    Parameters
    ----------
    points : array_like, shape (n, d)
        Finite; float32 or float64, narrower floats and integers are widened without loss.
    structure : {"auto", "scan", "kd_tree"}, optional
        Upper or lower case, with or without underscores. "auto" chooses by n and d.
    ids : array_like of int, shape (n,), optional
        Distinct 64-bit ids; 0 … n-1 if not given.
    weights : array_like, shape (n,) or (n, w), optional
        Finite weights for `Index.sum`.

    Returns
    -------
    Index
        `explain()` says what was built and why.

    Raises
    ------
    TypeError
        Not real numbers.
    ValueError
        An unknown structure, or points, ids or weights as for `Index`.

    Examples
    --------
    >>> import halfspace
    >>> index = halfspace.build([[0.0, 0.0], [3.0, 4.0]], ids=[70, 50])
    >>> index.report([1.0, 1.0], 7.0)
    array([50])
    """
    names = {name.replace("_", ""): name for name in STRUCTURES}
    wanted = str(structure).lower().replace("_", "")
    if wanted != "auto" and wanted not in names:
        known = ", ".join(["auto", *STRUCTURES])
        raise ValueError(f"structure: expected one of {known}, got {structure!r}")
    rows = as_points(points)
    reason = "chosen by hand"
    if wanted == "auto":
        name, reason = choose(*rows.shape)
    else:
        name = names[wanted]
    index = STRUCTURES[name](rows, ids=ids, weights=weights)
    index._reason = reason
    return index
