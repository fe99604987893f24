"""What of an index is stored: its arrays by name, and a few words."""

import os
from typing import TYPE_CHECKING

import numpy as np

from . import array_file
from .inputs import MOST_POINTS
from .layout import Stored, build, expect, flatten

if TYPE_CHECKING:
    from .static_index import StaticIndex

_WORDS = {"points": int, "dim": int, "own_ids": bool, "weights_ndim": int, "reason": str}
"""Metadata of every index; some structures have more."""


def save(index: "StaticIndex", path: str | os.PathLike) -> None:
    """Write the index to one file, which `halfspace.load` maps into memory.

    Parameters
    ----------
    path : str or path-like
        Of the file, as it is to be called. A file that is there is replaced at once: whoever opens
        it, and whenever the machine stops, it is the old one or the new one, whole.

    Raises
    ------
    OSError
        It cannot be written, the disk is full, say; a file that was there is as before.

    Notes
    -----
    O(bytes). Nothing is pickled.

    Examples
    --------
    >>> import tempfile, halfspace
    >>> index = halfspace.build([[0.0, 0.0], [3.0, 4.0]], ids=[70, 50])
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     index.save(f"{directory}/points.hsf")
    ...     halfspace.load(f"{directory}/points.hsf").report([1.0, 1.0], 7.0)
    array([50])
    """
    array_file.write(path, index._kind, *stored(index))


def stored(index: "StaticIndex") -> tuple[dict, dict[str, np.ndarray]]:
    """Metadata and arrays of an index, as `restored` takes them."""
    metadata = {
        "points": len(index),
        "dim": index.dim,
        "own_ids": index._own_ids,
        "weights_ndim": index._weights_ndim,
        "reason": index._reason,
    }
    arrays = {"ids": index._ids, "weights": index._weights}
    return metadata | index._description(), arrays | flatten(index.structure, index._views)


def restored(
    kind: type["StaticIndex"], metadata: dict, arrays: dict[str, np.ndarray]
) -> "StaticIndex":
    """An index of such a kind that has what `stored` gave.

    Raises
    ------
    ValueError
        Something is missing, too much, or not as it is declared; or kernels would read beyond an
        array, or for ever.
    """
    for word, wanted in _WORDS.items():
        if type(metadata.get(word)) is not wanted:
            got = metadata.get(word)
            raise ValueError(f"{word}: expected {wanted.__name__}, got {got!r}")
    points, dim = metadata["points"], metadata["dim"]
    expect(0 <= points <= MOST_POINTS, "points", f"0 … {MOST_POINTS}", points)
    expect(dim >= 1, "dim", "at least 1", dim)
    index, rest = kind.__new__(kind), dict(arrays)
    index._reason = metadata["reason"]
    _take_ids(index, metadata["own_ids"], points, rest)
    columns = _take_weights(index, metadata["weights_ndim"], points, rest)
    structure = build(kind._arrays, rest, {"d": dim, "w": columns}, kind._views)
    expect(not rest, next(iter(rest), ""), f"no such array of {kind._kind}", "one")
    kind._check(structure, points)
    index.structure = index._with_views(structure, points)
    vars(index).update(kind._recall(index.structure, metadata))
    return index


def _take(name: str, declared: Stored, sizes: dict[str, int], arrays: dict) -> np.ndarray:
    if name not in arrays:
        raise ValueError(f"{name}: expected an array, got none")
    declared.check(name, arrays[name], sizes)
    return arrays.pop(name)


def _take_ids(index: "StaticIndex", own: bool, points: int, arrays: dict) -> None:
    index._own_ids, wanted = own, points if own else 0
    index._ids = _take("ids", Stored("i8", "ids"), {"ids": wanted}, arrays)


def _take_weights(index: "StaticIndex", axes: int, points: int, arrays: dict) -> int:
    """Take weights of none, one or two axes; how many columns they have."""
    expect(axes in (0, 1, 2), "weights_ndim", "0, 1 or 2", axes)
    sizes = {"n": points} | ({"w": axes} if axes < 2 else {})
    index._weights_ndim = axes
    index._weights = _take("weights", Stored("f8", "n w"), sizes, arrays)
    return sizes["w"]
