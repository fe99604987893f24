"""Heads that studies look at: those that ship with the package, captured ones, Gaussian ones."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .. import data
from ..decode import Decoder
from . import texts
from .study import check_least, setting

PARTS = ("query", "key", "value")

PACKAGED = "encoder"
"""Where the heads that ship with the package come from."""

MODEL = "tiny_llama"
"""Name of the language model that ships with the package."""

MODULES = ("torch", "transformers")
"""What models need."""

BLOCK = 1 << 16
"""Keys that are widened to float64 at once."""


class Head(NamedTuple):
    """Queries over the keys and values of a head; the scale of a score is 1 / sqrt(head_dim)."""

    source: str
    name: str
    query: np.ndarray  # (m, head_dim) float32
    key: np.ndarray  # (n, head_dim) float32
    value: np.ndarray  # (n, value_dim) float32
    lengths: np.ndarray  # (m,) int64: each query sees so many first keys

    def decoder(self) -> Decoder:
        """The keys and values, indexed so that every query can see its first ones alone."""
        everything = bool((self.lengths == len(self.key)).all())
        return Decoder(self.key, self.value, structure="auto" if everything else "cascade")

    def at(self, temperature: float) -> "Head":
        """The same, with scores divided by a temperature."""
        return self._replace(query=self.query / np.float32(temperature))

    def scores(self) -> np.ndarray:
        """Scores (m, n) float64; minus infinity where a key is not seen."""
        query = self.query.astype(np.float64) / math.sqrt(self.key.shape[1])
        found = np.empty((len(query), len(self.key)))
        for some in self._blocks():
            found[:, some] = query @ self.key[some].T.astype(np.float64)
        found[np.arange(len(self.key)) >= self.lengths[:, None]] = -np.inf
        return found

    def exact(self) -> np.ndarray:
        """Softmax attention (m, value_dim) over all that each query sees, in float64."""
        scores = self.scores()
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        blocks = self._blocks()
        sums = sum(weights[:, some] @ self.value[some].astype(np.float64) for some in blocks)
        return sums / weights.sum(axis=1, keepdims=True)

    def _blocks(self) -> Iterator[slice]:
        return (slice(a, a + BLOCK) for a in range(0, len(self.key), BLOCK))


def every(source: str, name: str, arrays: Iterable[np.ndarray], queries: int) -> Head:
    """A head whose queries see all keys; `queries` of them, spread evenly."""
    query, key, value = (np.asarray(array, np.float32) for array in arrays)
    chosen = query[spread(len(query), queries)]
    return Head(source, name, chosen, key, value, np.full(len(chosen), len(key), np.int64))


def spread(length: int, count: int) -> np.ndarray:
    """At most `count` of `length` positions, in the middle of parts of equal size.

    Examples
    --------
    >>> from attention.studies.heads import spread
    >>> spread(10, 2)
    array([2, 7])
    """
    count = min(count, length)
    return ((np.arange(count) + 0.5) * length / max(count, 1)).astype(np.int64)


def packaged(queries: int, names: Sequence[str] | None = None) -> list[Head]:
    """The heads of `attention.data`, each with at most so many queries.

    Examples
    --------
    >>> from attention.studies.heads import packaged
    >>> [head.name for head in packaged(4)], packaged(4)[0].query.shape
    (['sharp', 'between', 'flat'], (4, 32))
    """
    loaded = map(data.load, data.heads() if names is None else names)
    return [every(PACKAGED, head.name, head[1:], queries) for head in loaded]


def captured(path: Path, queries: int) -> list[Head]:
    """Heads of an .npz file, each with at most so many queries.

    Parameters
    ----------
    path : Path
        Arrays (rows, head_dim) named ``NAME_query``, ``NAME_key``, ``NAME_value``, or ``q_NAME``,
        ``k_NAME``, ``v_NAME``.
    queries : int

    Returns
    -------
    list of Head
        Their source is the file's name.

    Raises
    ------
    ValueError
        There is no such file, it has none of these, or their shapes do not go together.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError) as error:
        raise ValueError(f"captures: expected an .npz file at {path}, got {error}") from error
    found = []
    for name in _names(arrays):
        parts = [arrays.get(f"{name}_{part}", arrays.get(f"{part[0]}_{name}")) for part in PARTS]
        _check(path, name, parts)
        found.append(every(path.stem, name, parts, queries))
    if not found:
        wanted = "NAME_query, NAME_key, NAME_value or q_NAME, k_NAME, v_NAME"
        raise ValueError(f"captures: expected arrays {wanted} in {path}, got {[*arrays]}")
    return found


def _names(arrays: Iterable[str]) -> list[str]:
    suffixed = [name.removesuffix("_query") for name in arrays if name.endswith("_query")]
    return suffixed + [name.removeprefix("q_") for name in arrays if name.startswith("q_")]


def _check(path: Path, name: str, parts: Sequence[np.ndarray | None]) -> None:
    shapes = [None if part is None else part.shape for part in parts]
    alike = (
        all(shape is not None and len(shape) == 2 and shape[0] for shape in shapes)
        and shapes[0][1] == shapes[1][1]
        and shapes[1][0] == shapes[2][0]
    )
    if not alike:
        raise ValueError(
            f"captures: expected query (m, d), key (n, d), value (n, c) of {name} in {path},"
            f" got shapes {shapes}"
        )


def gaussian(n: int, d: int, std: float, queries: int, seed: int = 0) -> Head:
    """Independent Gaussian keys, values and queries, scores of such a standard deviation.

    Examples
    --------
    >>> from attention.studies.heads import gaussian
    >>> head = gaussian(20_000, 16, 3.0, 4)
    >>> bool(2.0 < head.scores().std() < 4.0)
    True
    """
    rng = np.random.default_rng((seed, n, d))
    key, value = (rng.standard_normal((n, d), dtype=np.float32) for _ in range(2))
    query = np.float32(std) * rng.standard_normal((queries, d), dtype=np.float32)
    return every("gaussian", f"std {std:g}", (query, key, value), queries)


def located(model: str) -> str:
    """Folder of the model that ships with the package; any other name as it is.

    Examples
    --------
    >>> from attention.studies.heads import located
    >>> located("of/mine")
    'of/mine'
    """
    return str(data.tiny_llama()) if model == MODEL else model


def of_models(models: Sequence[str], kinds: Sequence[str], tokens: int, queries: int) -> list[Head]:
    """Heads of transformers models that read texts; see `capture.of_model` and `texts.read`.

    Where torch or transformers is not installed, the packaged model has none.

    Raises
    ------
    ValueError
        torch or transformers is not installed, and another model is asked for; no such model or
        text.
    """
    missing = [name for name in MODULES if find_spec(name) is None]
    if missing and any(name != MODEL for name in models):
        raise ValueError(f"models: expected {', '.join(missing)} to be installed (extra torch)")
    if missing or not models:
        return []
    from .capture import of_model

    return [
        head
        for name in map(located, models)
        for kind in kinds
        for head in of_model(name, texts.read(kind), kind, tokens=tokens, queries=queries)
    ]


@dataclass(frozen=True)
class Sources:
    """Which heads are looked at: settings that studies share."""

    queries: int = setting(64, "Queries a head.", quick=16)
    captures: tuple[Path, ...] = setting((), "Files .npz with more heads.")
    models: tuple[str, ...] = setting(
        (MODEL,), "Folders or hub names of transformers models; a comma alone: none."
    )
    texts: tuple[str, ...] = setting(
        ("docstrings", "source", "numbers"), f"What they read: {', '.join(texts.KINDS)}, files."
    )
    tokens: int = setting(4096, "Tokens that they read.", quick=1024)

    def __post_init__(self) -> None:
        check_least("queries", (self.queries,), 1)
        check_least("tokens", (self.tokens,), 16)

    def gather(self) -> list[Head]:
        """Packaged heads, captured ones, those of models."""
        found = packaged(self.queries)
        for path in self.captures:
            found += captured(path, self.queries)
        return found + of_models(self.models, self.texts, self.tokens, self.queries)
