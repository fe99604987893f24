"""Saved files by docs/file-format.md alone: taken apart, changed, and put together again."""

import json
import struct
import zlib
from typing import NamedTuple

import numpy as np

MAGIC = b"\x89HSF\r\n\x1a\n"


def padded(content):
    return content + bytes(-len(content) % 64)


class Parts(NamedTuple):
    """A file in parts; `assembled` puts any such parts together under checksums that hold."""

    header: dict
    arrays: dict[str, np.ndarray]


def take_apart(content):
    magic, version, header_size, size, header_crc = struct.unpack("<8sIIQI", content[:28])
    assert (magic, version, size) == (MAGIC, 1, len(content))
    assert content[28:60] == bytes(32)
    assert struct.unpack("<I", content[60:64]) == (zlib.crc32(content[:60]),)
    text = content[64 : 64 + header_size]
    assert zlib.crc32(text) == header_crc
    header, arrays, end = json.loads(text), {}, 64 + header_size
    for entry in header["arrays"]:
        dtype, shape = np.dtype(entry["dtype"]), tuple(entry["shape"])
        nbytes = dtype.itemsize * int(np.prod(shape))
        start = 64 + header_size + entry["offset"]
        assert start == end
        end = start + nbytes + -nbytes % 64
        assert zlib.crc32(content[start:end]) == entry["crc32"]
        assert not any(content[start + nbytes : end])
        arrays[entry["name"]] = np.frombuffer(content[start : start + nbytes], dtype).reshape(shape)
    assert end == size
    return Parts(header, arrays)


def assembled(header, arrays, *, version=1, text=None):
    """A file of such a header, whose table is made anew unless it is given, and arrays."""
    table, body = [], b""
    for name, array in arrays.items():
        content = padded(array.tobytes())
        entry = {"name": name, "dtype": array.dtype.str, "shape": list(array.shape)}
        table.append(entry | {"offset": len(body), "crc32": zlib.crc32(content)})
        body += content
    if text is None:
        text = json.dumps(header | {"arrays": header.get("arrays", table)}).encode()
    text += b" " * (-len(text) % 64)
    size = 64 + len(text) + len(body)
    preamble = struct.pack("<8sIIQI32x", MAGIC, version, len(text), size, zlib.crc32(text))
    return preamble + struct.pack("<I", zlib.crc32(preamble)) + text + body


def changed(content, *, arrays=None, kind=None, **metadata):
    """The file with other arrays (None takes one away), kind or words of its metadata."""
    header, there = take_apart(content)
    there = {k: v for k, v in (there | (arrays or {})).items() if v is not None}
    words = header["metadata"] | metadata
    return assembled(
        {
            "kind": kind or header["kind"],
            "metadata": {k: v for k, v in words.items() if v is not ...},
        },
        there,
    )
