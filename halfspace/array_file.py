"""One file of named arrays that can be mapped into memory, with checksums; nothing is pickled.

    preamble   64 bytes: magic, version, lengths, checksums of the header and of itself
    header     JSON: what the file holds, and of every array name, dtype, shape, place and checksum
    arrays     one after another, each from a multiple of 64 bytes on, with zeros up to the next

Every byte is under a checksum (CRC-32), lengths have to add up to that of the file, and an array
lies where the one before it ends, so none can reach out of the file or into another.
`docs/file-format.md` says it byte by byte.

One file and not a directory: a single rename replaces it, it cannot be left half old and half new,
and nothing in it names another file.
"""

import io
import json
import math
import mmap as memory_map
import os
import stat
import struct
import zlib
from typing import BinaryIO, NamedTuple

import numpy as np

from .atomic_file import replacing
from .tiles import LINE, frozen, line_zeros

MAGIC = b"\x89HSF\r\n\x1a\n"
"""Not text, and not the same after a transfer as text."""

VERSION = 1
"""Of the format; others are refused."""

DTYPES = ("<f4", "<f8", "<i4", "<i8", "<u8", "|u1", "|b1")
"""All there are in files: little-endian, plain."""

MOST_HEADER = 1 << 20
"""Bytes of a header; a longer one is refused unread."""

MOST_AXES, MOST_SIZE = 4, 1 << 48
"""Of an array; and bytes of a file."""

PIECE = 1 << 24
"""Bytes that are checked or written at a time, so that an interrupt is soon noticed."""

_PREAMBLE = struct.Struct("<8sIIQI32xI")  # magic, version, header, file, and two checksums

_OTHERS = {
    b"\x80": "a pickle",
    b"\x93NUMPY": "a .npy file",
    b"PK\x03\x04": "a zip archive (.npz or .zip)",
    b"\x1f\x8b": "a gzip archive",
    b"{": "JSON",
    b"\x89HSF": "a file that was altered as if it were text",
}


class InvalidFile(ValueError):
    """A file that is not what `save` wrote; the message says what is wrong with it.

    Examples
    --------
    >>> import tempfile, halfspace
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "points.hsf"
    ...     halfspace.Scan([[0.0], [1.0]]).save(path)
    ...     damaged = bytearray(path.read_bytes())
    ...     damaged[-1] ^= 1
    ...     _ = path.write_bytes(damaged)
    ...     try:
    ...         halfspace.load(path)
    ...     except halfspace.InvalidFile:
    ...         print("a bit is not what it was")
    a bit is not what it was
    """


class ArrayFile(NamedTuple):
    """What a file holds."""

    kind: str
    metadata: dict  # of what JSON has
    arrays: dict[str, np.ndarray]  # read-only


def _padding(size: int) -> int:
    return -size % LINE


def _bytes(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1).view(np.uint8)


def _checksum(content: np.ndarray | memoryview) -> int:
    """CRC-32 of bytes, and of the zeros after them."""
    value = 0
    for start in range(0, len(content), PIECE):
        value = zlib.crc32(content[start : start + PIECE], value)
    return zlib.crc32(bytes(_padding(len(content))), value)


def _plain(name: str, array: np.ndarray) -> np.ndarray:
    """The array in C order, with the dtype of files."""
    dtype = array.dtype.newbyteorder("<")
    if dtype.str not in DTYPES:
        raise TypeError(f"{name}: expected one of {', '.join(DTYPES)}, got {array.dtype}")
    return np.ascontiguousarray(array, dtype).reshape(array.shape)


def write(
    path: str | os.PathLike, kind: str, metadata: dict, arrays: dict[str, np.ndarray]
) -> None:
    """Write one file, in place of another if there is one; see `atomic_file.replacing`.

    Parameters
    ----------
    path : str or path-like
    kind : str
        What the arrays are of.
    metadata : dict
        Of what JSON has; small.
    arrays : dict of ndarray

    Raises
    ------
    OSError
        It cannot be written; the file there was is as before.
    """
    plain = {name: _plain(name, array) for name, array in arrays.items()}
    table, offset = [], 0
    for name, array in plain.items():
        table.append(
            {
                "name": name,
                "dtype": array.dtype.newbyteorder("<").str,
                "shape": list(array.shape),
                "offset": offset,
                "crc32": _checksum(_bytes(array)),
            }
        )
        offset += array.nbytes + _padding(array.nbytes)
    described = {"kind": kind, "metadata": metadata, "arrays": table}
    header = json.dumps(described, allow_nan=False, separators=(",", ":")).encode()
    header += b" " * _padding(len(header))
    if len(header) > MOST_HEADER:
        raise ValueError(
            f"metadata: expected a header of at most {MOST_HEADER} bytes, got {len(header)}"
        )
    size = _PREAMBLE.size + len(header) + offset
    preamble = _PREAMBLE.pack(MAGIC, VERSION, len(header), size, zlib.crc32(header), 0)[:-4]
    with replacing(path) as file:
        file.write(preamble + struct.pack("<I", zlib.crc32(preamble)) + header)
        for array in plain.values():
            content = _bytes(array)
            for start in range(0, len(content), PIECE):
                file.write(content[start : start + PIECE])
            file.write(bytes(_padding(len(content))))


def read(path: str | os.PathLike, *, mmap: bool = True, verify: bool = True) -> ArrayFile:
    """Read what `write` wrote.

    Parameters
    ----------
    path : str or path-like
    mmap : bool, optional
        Map the file into memory, so that what is not asked for is not read and processes share
        pages; else read all of it.
    verify : bool, optional
        Check the arrays' checksums, which reads all of the file. Those of preamble and header are
        checked in any case.

    Raises
    ------
    OSError
        It cannot be opened.
    InvalidFile
        It is not such a file, or not as it was written.
    """
    name = os.fspath(path)
    # What is not a file, a pipe say, is not to be waited for.
    with open(path, "rb", opener=lambda p, flags: os.open(p, flags | _NO_WAIT)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise InvalidFile(f"{name}: expected a regular file, got something else")
        try:
            header_size = _read_preamble(file, status.st_size)
            kind, metadata, table = _read_header(file, header_size)
            first = _PREAMBLE.size + header_size
            _check_places(table, status.st_size - first)
            content = _content(file, status.st_size, mmap)
            arrays = {entry["name"]: _array(content, first, entry, verify) for entry in table}
        except InvalidFile as wrong:
            raise InvalidFile(f"{name}: {wrong}") from None
    return ArrayFile(kind, metadata, arrays)


_NO_WAIT = getattr(os, "O_NONBLOCK", 0)


def _read_preamble(file: BinaryIO, size: int) -> int:
    """Check the preamble; the length of the header."""
    preamble = file.read(_PREAMBLE.size)
    if not preamble.startswith(MAGIC):
        known = (what for start, what in _OTHERS.items() if preamble.startswith(start))
        start = f"bytes {preamble[:8]!r}" if preamble else "an empty file"
        raise InvalidFile(f"expected a saved index, got {next(known, start)}")
    if len(preamble) < _PREAMBLE.size:
        raise InvalidFile(
            f"expected at least {_PREAMBLE.size} bytes, got {size}: the file is truncated"
        )
    _, version, header, length, _, checksum = _PREAMBLE.unpack(preamble)
    if version != VERSION:
        raise InvalidFile(f"expected format version {VERSION}, got {version}")
    if zlib.crc32(preamble[:-4]) != checksum:
        raise InvalidFile("preamble: expected its checksum to hold: the file was altered")
    if length != size:
        what = "truncated" if size < length else "longer than what was written"
        raise InvalidFile(f"expected {length} bytes, got {size}: the file is {what}")
    if header > min(MOST_HEADER, size - _PREAMBLE.size) or header % LINE:
        raise InvalidFile(f"header: expected at most {MOST_HEADER} bytes in lines, got {header}")
    return header


def _read_header(file: BinaryIO, size: int) -> tuple[str, dict, list[dict]]:
    """What the header says, checked as far as it can be without the arrays."""
    file.seek(0)
    checksum = _PREAMBLE.unpack(file.read(_PREAMBLE.size))[4]
    header = file.read(size)
    if zlib.crc32(header) != checksum:
        raise InvalidFile("header: expected its checksum to hold: the file was altered")
    try:
        described = json.loads(header)
    except (ValueError, RecursionError) as wrong:
        raise InvalidFile(f"header: expected JSON, got what is none ({wrong})") from None
    parts = {"kind": str, "metadata": dict, "arrays": list}
    if not isinstance(described, dict) or described.keys() != parts.keys():
        raise InvalidFile(f"header: expected an object of {', '.join(parts)}, got another")
    for part, kind in parts.items():
        if not isinstance(described[part], kind):
            got = type(described[part]).__name__
            raise InvalidFile(f"header: expected {part} to be a {kind.__name__}, got a {got}")
    return described["kind"], described["metadata"], described["arrays"]


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < MOST_SIZE


def _size(entry: dict) -> int:
    return math.prod(entry["shape"]) * np.dtype(entry["dtype"]).itemsize


def _check_places(table: list, room: int) -> None:
    """Check that the arrays' entries are entries, and that they lie one after another in `room`."""
    fields, end, names = {"name", "dtype", "shape", "offset", "crc32"}, 0, set()
    for i, entry in enumerate(table):
        if not isinstance(entry, dict) or entry.keys() != fields:
            raise InvalidFile(f"header: expected array {i} to have {', '.join(sorted(fields))}")
        name, shape = entry["name"], entry["shape"]
        if not isinstance(name, str) or name in names:
            raise InvalidFile(f"header: expected names, each once, got {name!r} for array {i}")
        names.add(name)
        if entry["dtype"] not in DTYPES:
            known = ", ".join(DTYPES)
            raise InvalidFile(f"{name}: expected one of {known}, got {entry['dtype']!r}")
        if not isinstance(shape, list) or len(shape) > MOST_AXES or not all(map(_is_size, shape)):
            raise InvalidFile(f"{name}: expected a shape of sizes, got {shape!r}")
        if not _is_size(entry["offset"]) or entry["offset"] != end:
            raise InvalidFile(f"{name}: expected it at {end}, got {entry['offset']!r}")
        size = _size(entry)
        end += size + _padding(size)
        if end > room:
            raise InvalidFile(f"{name}: expected it to end by {room}, got {end}: beyond the file")
    if end != room:
        raise InvalidFile(f"expected arrays to fill {room} bytes, got {end}")


def _content(file: io.BufferedReader, size: int, mmap: bool) -> memoryview:
    """All bytes of the file, read-only, mapped or read."""
    if mmap:
        return memoryview(memory_map.mmap(file.fileno(), 0, access=memory_map.ACCESS_READ))
    content = line_zeros((size,), np.uint8)
    file.seek(0)
    if file.readinto(content) != size:
        raise InvalidFile(f"expected {size} bytes, got fewer: the file changed meanwhile")
    return memoryview(frozen(content))


def _array(content: memoryview, first: int, entry: dict, verify: bool) -> np.ndarray:
    """View of an array in the file's content, read-only."""
    name, dtype, shape, size = entry["name"], np.dtype(entry["dtype"]), entry["shape"], _size(entry)
    start = first + entry["offset"]
    part = content[start : start + size]
    rest = bytes(content[start + size : start + size + _padding(size)])
    if verify and (_checksum(part) != entry["crc32"] or any(rest)):
        raise InvalidFile(f"{name}: expected its checksum to hold: the file was altered")
    array = np.frombuffer(part, dtype) if size else np.empty(0, dtype)
    return frozen(array.reshape(shape).astype(dtype.newbyteorder("="), copy=False))
