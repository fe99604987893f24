"""Sites of the benchmark of many dimensions: points, and normals that ask about them."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from attention.data import heads

from . import data, sizes

KINDS = (*data.HIGH_GENERATORS, "keys", "embeddings")

DIMENSIONS = (16, 32, 64, 128, 256)

NORMALS = 512
"""Rows held back: half of them ask, the others are what an index may be told before."""


class Site(NamedTuple):
    """Points that are not there before they are loaded."""

    kind: str
    name: str
    load: Callable[[], data.Drawn]


class Choice(NamedTuple):
    """Which sites are wanted."""

    kinds: Sequence[str] = KINDS
    dims: Sequence[int] = DIMENSIONS
    points: int = 1_000_000
    any_normals: bool = False
    capture: Path | None = None
    embeddings: Path | None = None


def drawn(kind: str, d: int, n: int, any_normals: bool) -> data.Drawn:
    """Seeded points, and normals of their law or of any direction."""
    points, normals = data.held_back(data.HIGH_GENERATORS[kind](n + NORMALS, d), NORMALS)
    return data.Drawn(points, data.normals(NORMALS, d) if any_normals else normals)


def some_of(count: int) -> np.ndarray:
    """At most `NORMALS` of so many rows, in any order: neighbours in a text are alike."""
    return np.random.default_rng(0).choice(count, min(count, NORMALS), replace=False)


def captured(path: Path, head: str, n: int) -> data.Drawn:
    """Keys and queries of one head of a capture."""
    with np.load(path) as arrays:
        keys, queries = arrays[f"k_{head}"], arrays[f"q_{head}"]
    asked = np.ascontiguousarray(queries[some_of(len(queries))], np.float32)
    return data.Drawn(np.ascontiguousarray(keys[:n], np.float32), asked)


def key_sites(choice: Choice, n: int) -> Iterator[Site]:
    """Heads of a capture, or else those that the package has."""
    if choice.capture is None:
        for head in heads():
            yield Site("keys", f"keys {head}", partial(data.keys_and_queries, head, n, NORMALS))
        return
    with np.load(choice.capture) as arrays:
        found = [name[2:] for name in arrays.files if name.startswith("k_")]
    for head in found:
        yield Site("keys", f"keys {head}", partial(captured, choice.capture, head, n))


def embedded(path: Path, n: int) -> data.Drawn:
    """Embeddings, some of them held back, from all over the file."""
    rows = np.load(path, mmap_mode="r")
    asking = some_of(len(rows))
    points = np.ascontiguousarray(np.delete(rows, asking, axis=0)[:n], np.float32)
    return data.Drawn(points, np.ascontiguousarray(rows[asking], np.float32))


def sites(choice: Choice) -> tuple[list[Site], list[str]]:
    """All that can be had of what is wanted, and what to say of the rest."""
    n = sizes.points(choice.points)
    found, complaints = [], []
    for kind in choice.kinds:
        if kind in data.HIGH_GENERATORS:
            found += [
                Site(kind, f"{kind} {d}", partial(drawn, kind, d, n, choice.any_normals))
                for d in choice.dims
            ]
        elif kind == "keys":
            found += key_sites(choice, n)
        elif choice.embeddings is None:
            complaints.append("embeddings: left out, no --embeddings FILE.npy was given")
        else:
            found.append(Site(kind, kind, partial(embedded, choice.embeddings, n)))
    return found, complaints
