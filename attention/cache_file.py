"""Caches in files: all that a `KVCache` is, as arrays by name, and one .npz file of them."""

import os
import zipfile
from typing import TYPE_CHECKING

import numpy as np

from .arrays_by_name import read_arrays, write_arrays
from .cache_inputs import check_finite
from .inputs import check_values

if TYPE_CHECKING:
    from .cache import KVCache


def state_of(cache: "KVCache") -> dict[str, np.ndarray]:
    """Arrays by name, without what is free."""
    window = -1 if cache._window is None else cache._window
    return {
        "shape": np.array(cache._shape),
        "settings": np.array((cache._head_dim, cache._value_dim, window)),
        "scale": np.array(cache._scale),
        **cache._heads.state(),
    }


def restore(cache: "KVCache", state: dict[str, np.ndarray]) -> None:
    """Make a cache what `state_of` told."""
    for name in ("keys", "values"):
        check_finite(state[name], name)
    check_values(state["values"], "values")
    *batch, kv_heads = state["shape"].tolist()
    head_dim, value_dim, window = state["settings"].tolist()
    cache.__init__(
        head_dim,
        value_dim,
        kv_heads,
        tuple(batch),
        dtype=state["keys"].dtype,
        scale=float(state["scale"]),
        window=None if window < 0 else window,
    )
    cache._heads.restore(state)


def save_cache(cache: "KVCache", path: str | os.PathLike) -> None:
    """Write everything to one .npz file, codes included: they take longer to make than to read.

    Parameters
    ----------
    path : str or path-like
        Of the file, as it is to be called. Nothing in it is pickled. A file that is there is
        replaced whole, or stays as it is.

    Examples
    --------
    >>> import tempfile, attention
    >>> cache = attention.KVCache(1, num_kv_heads=2, dtype=float, scale=1.0)
    >>> cache.append([[[0.0], [1.0]]] * 2, [[[5.0], [7.0]]] * 2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cache.save(f"{folder}/cache.npz")
    ...     again = attention.KVCache.load(f"{folder}/cache.npz")
    >>> len(again), again.keys.shape
    (2, (2, 2, 1))
    """
    write_arrays(path, state_of(cache))


def load_cache(cls: type["KVCache"], path: str | os.PathLike) -> "KVCache":
    """Read what `save` wrote. The cache answers as the one that was saved.

    Raises
    ------
    OSError
        No such file.
    ValueError
        Not a file that `save` wrote.

    Examples
    --------
    >>> import tempfile, attention
    >>> cache = attention.KVCache(1, num_kv_heads=2, dtype=float, scale=1.0)
    >>> cache.append([[[0.0], [1.0]]] * 2, [[[5.0], [7.0]]] * 2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cache.save(f"{folder}/cache.npz")
    ...     again = attention.KVCache.load(f"{folder}/cache.npz")
    >>> again.keys.tolist() == cache.keys.tolist()
    True
    """
    cache = cls.__new__(cls)
    try:
        restore(cache, read_arrays(path))
    except (KeyError, TypeError, ValueError, zipfile.BadZipFile, EOFError) as wrong:
        raise ValueError(
            f"path: expected a file that KVCache.save wrote, got {os.fspath(path)!r}"
        ) from wrong
    return cache
