"""Changes of a `Dynamic` as bytes: what a log's records hold.

32 bytes   kind, whether ids are the caller's, float of the points ("f" or "d"), zero; d and w
           (uint32); how many ids are deleted and how many points inserted (uint64); zeros
arrays     deleted ids, then ids, weights and points of what is inserted, in C order
"""

import struct

import numpy as np

from .changes import Change
from .layout import expect
from .tombstones import Rows

CHANGE = 1
"""Kind of the only record there is."""

FLOATS = {"f": "<f4", "d": "<f8"}

_HEAD = struct.Struct("<B?sxIIQQ4x")


def encoded(change: Change) -> bytes:
    """Bytes of a change."""
    points, ids, weights = change.inserted
    char = points.dtype.char.encode()
    head = _HEAD.pack(
        CHANGE,
        change.own_ids,
        char,
        points.shape[1],
        weights.shape[1],
        len(change.deleted),
        len(ids),
    )
    parts = (
        (change.deleted, "<i8"),
        (ids, "<i8"),
        (weights, "<f8"),
        (points, FLOATS[points.dtype.char]),
    )
    return b"".join([head, *(np.ascontiguousarray(a, dtype).tobytes() for a, dtype in parts)])


def decoded(payload: memoryview) -> Change:
    """The change that such bytes are.

    Raises
    ------
    ValueError
        They are none.
    """
    expect(len(payload) >= _HEAD.size, "change", f"at least {_HEAD.size} bytes", len(payload))
    kind, own_ids, char, d, w, deleted, inserted = _HEAD.unpack_from(payload)
    float_ = FLOATS.get(char.decode("latin-1"))
    expect(kind == CHANGE and float_ is not None, "change", "one of float32 or float64", "another")
    shapes = (deleted,), (inserted,), (inserted, w), (inserted, d)
    dtypes = [np.dtype(name) for name in ("<i8", "<i8", "<f8", float_)]
    sizes = [
        int(np.prod(shape, dtype=object)) * dtype.itemsize
        for shape, dtype in zip(shapes, dtypes, strict=True)
    ]
    wanted = _HEAD.size + sum(sizes)
    expect(len(payload) == wanted, "change", f"{wanted} bytes", len(payload))
    at, arrays = _HEAD.size, []
    for shape, dtype, size in zip(shapes, dtypes, sizes, strict=True):
        array = np.frombuffer(payload[at : at + size], dtype).reshape(shape)
        arrays.append(array.astype(dtype.newbyteorder("=")))
        at += size
    gone, ids, weights, points = arrays
    return Change(gone, Rows(points, ids, weights), own_ids)
