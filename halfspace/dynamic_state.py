"""What of a `Dynamic` is stored: its segments, as any index, what is dead in them, the buffer."""

from typing import NamedTuple

import numpy as np

from .layout import Stored, expect
from .state import restored, stored
from .static_index import StaticIndex
from .structures import STRUCTURES
from .tombstones import Rows, Segment

KIND = "dynamic"
"""Name in files."""

_WORDS = {
    "segments": list,
    "next_id": int,
    "own_ids": bool,
    "weights_ndim": int,
    "structure": str,
    "buffer_size": int,
    "options": dict,
}

_COUNTS = ("expected_count", "expected_queries")


class DynamicState(NamedTuple):
    """All that a `Dynamic` is, in arrays and a few words; see `Dynamic.from_state`."""

    segments: tuple[StaticIndex, ...]  # oldest first
    dead: tuple[np.ndarray, ...]  # int64 ids of the dead points of each
    waiting: tuple[bool, ...]  # whether each is a scan for now, to be built
    buffer: Rows  # live points of the buffer, in the order they came
    next_id: int
    own_ids: bool
    weights_ndim: int
    structure: str
    buffer_size: int
    options: dict[str, int | np.ndarray]  # of `build`: queries, expected_count, expected_queries


def stored_dynamic(state: DynamicState) -> tuple[dict, dict[str, np.ndarray]]:
    """Metadata and arrays, as `restored_dynamic` takes them."""
    segments, arrays = [], {}
    of_each = zip(state.segments, state.dead, state.waiting, strict=True)
    for i, (index, dead, waiting) in enumerate(of_each):
        metadata, parts = stored(index)
        segments.append({"kind": index._kind, "metadata": metadata, "waiting": waiting})
        arrays |= {f"segments.{i}.{name}": array for name, array in parts.items()}
        arrays[f"dead.{i}"] = dead
    arrays |= {f"buffer.{name}": array for name, array in state.buffer._asdict().items()}
    options = dict(state.options)
    if "queries" in options:
        arrays["options.queries"] = options.pop("queries")
    words = {name: getattr(state, name) for name in list(_WORDS)[1:-1]}
    return {"segments": segments, **words, "options": options}, arrays


def restored_dynamic(metadata: dict, arrays: dict[str, np.ndarray]) -> DynamicState:
    """The state that `stored_dynamic` gave.

    Raises
    ------
    ValueError
        As `state.restored`; segments or buffer of another dimension than others; a dead point that
        is in no segment.
    """
    for word, wanted in _WORDS.items():
        got = metadata.get(word)
        expect(type(got) is wanted, word, wanted.__name__, repr(got))
    structure, rest = metadata["structure"], dict(arrays)
    expect(structure in ("auto", *STRUCTURES), "structure", "one that is known", repr(structure))
    expect(metadata["buffer_size"] >= 1, "buffer_size", "at least 1", metadata["buffer_size"])
    expect(abs(metadata["next_id"]) <= 2**63, "next_id", "64 bits", metadata["next_id"])
    sizes = {}
    buffer = Rows(
        _taken("buffer.points", "f4 f8", "n d", sizes, rest),
        _taken("buffer.ids", "i8", "n", sizes, rest),
        _taken("buffer.weights", "f8", "n w", sizes, rest),
    )
    axes = metadata["weights_ndim"]
    fits = axes in (0, 1, 2) and (axes == 2 or sizes["w"] == axes)
    expect(fits and sizes["d"] >= 1, "weights_ndim", f"that of {sizes['w']} columns", axes)
    segments, dead, waiting = [], [], []
    for i, described in enumerate(metadata["segments"]):
        segments.append(_segment(i, described, sizes, rest))
        dead.append(_taken(f"dead.{i}", "i8", "dead", {}, rest))
        there = not len(dead[i]) or (Segment(segments[i]).ranks_of(dead[i]) >= 0).all()
        expect(there, f"dead.{i}", "ids of its points")
        # Files of before have no such word.
        waiting.append(described.get("waiting", False))
        expect(type(waiting[i]) is bool, f"segments.{i}.waiting", "bool", repr(waiting[i]))
    options = _options(metadata["options"], sizes, rest)
    expect(not rest, next(iter(rest), ""), f"no such array of {KIND}", "one")
    words = (metadata[name] for name in list(_WORDS)[1:-1])
    each = tuple(segments), tuple(dead), tuple(waiting)
    return DynamicState(*each, buffer, *words, options)


def _taken(name: str, dtypes: str, shape: str, sizes: dict[str, int], arrays: dict) -> np.ndarray:
    expect(name in arrays, name, "an array", "none")
    Stored(dtypes, shape).check(name, arrays[name], sizes)
    return arrays.pop(name)


def _segment(i: int, described: object, sizes: dict[str, int], arrays: dict) -> StaticIndex:
    """Take the arrays of segment i, and make it of them."""
    name = f"segments.{i}"
    sound = isinstance(described, dict) and isinstance(described.get("metadata"), dict)
    expect(sound, name, "kind and metadata", repr(described))
    kind = described.get("kind")
    expect(kind in STRUCTURES, name, f"one of {', '.join(STRUCTURES)}", repr(kind))
    own = [key for key in arrays if key.startswith(f"{name}.")]
    parts = {key.removeprefix(f"{name}."): arrays.pop(key) for key in own}
    try:
        index = restored(STRUCTURES[kind].make, described["metadata"], parts)
    except ValueError as wrong:
        raise ValueError(f"{name}.{wrong}") from None
    shape = index.dim, index._weights.shape[1]
    wanted = sizes["d"], sizes["w"]
    expect(shape == wanted, name, f"dimensions and columns {wanted}", shape)
    expect(index._own_ids, name, "ids", "none")
    return index


def _options(words: dict, sizes: dict[str, int], arrays: dict) -> dict[str, int | np.ndarray]:
    sound = words.keys() <= set(_COUNTS) and all(type(n) is int and n >= 0 for n in words.values())
    expect(sound, "options", f"counts of {', '.join(_COUNTS)}", repr(words))
    if "options.queries" not in arrays:
        return words
    known = {"d": sizes["d"]}
    return {"queries": _taken("options.queries", "f8", "m d", known, arrays), **words}
