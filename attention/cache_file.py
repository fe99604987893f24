"""What a cache is made of as arrays by name, and as one .npz file of them, without pickles."""

import os

import numpy as np

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
    return frozen(as_stored(arrays[name], like.shape, like.dtype, name))


def as_stored(array: np.ndarray, shape: tuple[int, ...], dtype: np.dtype, name: str) -> np.ndarray:
    """Copy of an array that is to be of such shape and dtype."""
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"{name}: expected {dtype} {shape}, got {array.dtype} {array.shape}")
    return np.array(array, order="C")


def write_arrays(path: str | os.PathLike, arrays: dict[str, np.ndarray]) -> None:
    """Write one .npz file, called as `path` says."""
    with open(path, "wb") as file:
        np.savez(file, format=np.array(FORMAT), **arrays)


def read_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Arrays of a file that `write_arrays` wrote."""
    with np.load(path, allow_pickle=False) as file:
        if int(file["format"]) != FORMAT:
            raise ValueError(f"format: expected {FORMAT}, got {file['format']}")
        return {name: file[name] for name in file.files}
