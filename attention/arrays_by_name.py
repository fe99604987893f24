"""Nested named tuples as arrays by name, and one .npz file of them, without pickles."""

import os

import numpy as np

from halfspace.atomic_file import replacing
from halfspace.tiles import frozen

FORMAT = 1
"""Of the file; another one is refused."""


def arrays_by_name(stack: object, name: str) -> dict[str, np.ndarray]:
    """Arrays of nested named tuples, by the names of fields joined with dots."""
    if not isinstance(stack, tuple):
        return {name: stack}
    found = {}
    for field, each in stack._asdict().items():
        found |= arrays_by_name(each, f"{name}.{field}")
    return found


def from_arrays(like: object, name: str, arrays: dict[str, np.ndarray]) -> object:
    """Named tuples of arrays as `arrays_by_name` named them, of the shapes that `like` has."""
    if isinstance(like, tuple):
        fields = like._asdict().items()
        return type(like)._make(from_arrays(each, f"{name}.{key}", arrays) for key, each in fields)
    return frozen(as_stored(arrays[name], like, name).copy())


def as_stored(array: np.ndarray, like: np.ndarray, name: str) -> np.ndarray:
    """Check that an array has the shape and dtype of `like`."""
    if array.shape != like.shape or array.dtype != like.dtype:
        wanted, came = (f"{a.dtype} {a.shape}" for a in (like, array))
        raise ValueError(f"{name}: expected {wanted}, got {came}")
    return array


def write_arrays(path: str | os.PathLike, arrays: dict[str, np.ndarray]) -> None:
    """Write one .npz file, called as `path` says, in place of another if there is one."""
    with replacing(path) as file:
        np.savez(file, format=np.array(FORMAT), **arrays)


def read_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Arrays of a file that `write_arrays` wrote."""
    # numpy leaves a file open that turns out to be none of its own.
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
        if int(arrays["format"]) != FORMAT:
            raise ValueError(f"format: expected {FORMAT}, got {arrays['format']}")
        return {name: arrays[name] for name in arrays.files}
