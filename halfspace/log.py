"""Log: records behind one another in a file, each whole or not there.

    start      64 bytes: magic, version, the number of the record before the first, checksum
    records    32 bytes of marker, checksum, number, length and the payload's checksum; the payload

A record that the file ends within was being written when the process ended; it is dropped. Anything
else that is not as it was written is damage, and is refused unless records from there on may be
given up: whatever a crash leaves of the last write, it is never a whole record with other bytes,
since file systems lengthen a file only when the bytes are there.
"""

import os
import struct
import time
import zlib
from pathlib import Path
from typing import NamedTuple

from .array_file import InvalidFile
from .atomic_file import replacing

MAGIC = b"\x89HSL\r\n\x1a\n"
VERSION = 1
MARKER = b"\xd7REC"

BATCH_SECONDS = 1.0
"""Seconds that records may wait for the disk where they are flushed in batches."""

POLICIES = ("always", "batch", "never")

_START = struct.Struct("<8sI4xQ36xI")  # magic, version, number, checksum of all before
_RECORD = struct.Struct("<4sIQQI4x")  # marker, checksum of what follows, number, length, checksum

EMPTY = _START.size
"""Bytes of a log without records."""

_sync = getattr(os, "fdatasync", os.fsync)


class Contents(NamedTuple):
    """What a log holds."""

    base: int  # number of the record before the first
    payloads: list[memoryview]
    end: int  # where the last whole record ends
    damage: str  # what is wrong after it; empty where nothing is


def start(path: Path, base: int) -> None:
    """Put a log without records in the place of `path`; the first is to be number base + 1."""
    content = _START.pack(MAGIC, VERSION, base, 0)[:-4]
    with replacing(path) as file:
        file.write(content + struct.pack("<I", zlib.crc32(content)))


def _base(content: bytes) -> int:
    """Check the start of a log; the number of the record before the first."""
    if not content.startswith(MAGIC) or len(content) < _START.size:
        raise InvalidFile(f"expected a log, got {len(content)} bytes {content[:8]!r}")
    _, version, base, checksum = _START.unpack_from(content)
    if version != VERSION:
        raise InvalidFile(f"expected log version {VERSION}, got {version}")
    if zlib.crc32(content[: _START.size - 4]) != checksum:
        raise InvalidFile("start: expected its checksum to hold: the log was altered")
    return base


class _Header(NamedTuple):
    number: int
    length: int
    checksum: int


def _header(content: bytes, at: int) -> _Header | None:
    """Header of the record there, if there is one."""
    if content[at : at + len(MARKER)] != MARKER or at + _RECORD.size > len(content):
        return None
    _, checksum, *fields = _RECORD.unpack_from(content, at)
    whole = zlib.crc32(content[at + 8 : at + _RECORD.size]) == checksum
    return _Header(*fields) if whole else None


def _payload(content: bytes, at: int, header: _Header) -> memoryview | None:
    """Payload of the record there, if it is as it was written."""
    payload = memoryview(content)[at + _RECORD.size : at + _RECORD.size + header.length]
    return payload if zlib.crc32(payload) == header.checksum else None


def _later_records(content: bytes, at: int) -> int:
    """Whole records after a place."""
    found = 0
    while (at := content.find(MARKER, at)) >= 0:
        header = _header(content, at)
        whole = header is not None and _payload(content, at, header) is not None
        found += whole
        at += _RECORD.size + header.length if whole else 1
    return found


def read(path: Path) -> Contents:
    """Read what there is.

    Raises
    ------
    OSError
        It cannot be opened.
    InvalidFile
        It is no log, or its start was altered.
    """
    content = path.read_bytes()
    try:
        base = _base(content)
    except InvalidFile as wrong:
        raise InvalidFile(f"{path}: {wrong}") from None
    payloads, at, damage = [], EMPTY, ""
    while at + _RECORD.size <= len(content):
        number, header = base + 1 + len(payloads), _header(content, at)
        if header is not None and at + _RECORD.size + header.length > len(content):
            break
        payload = None if header is None else _payload(content, at, header)
        if payload is None or header.number != number:
            more = _later_records(content, at + 1)
            damage = f"{path}: expected record {number} at byte {at}, got other bytes" + (
                f", and {more} whole ones after them" if more else ""
            )
            break
        payloads.append(payload)
        at += _RECORD.size + len(payload)
    return Contents(base, payloads, at, damage)


class Log:
    """A log to append to.

    Parameters
    ----------
    path : Path
    end : int
        Where the last whole record ends; what comes after is cut off.
    number : int
        Of that record.
    fsync : {"always", "batch", "never"}
        Flush to the disk each record, or at most once in `BATCH_SECONDS`, or when `flush` is
        called.
    """

    def __init__(self, path: Path, end: int, number: int, fsync: str) -> None:
        self._path, self._fsync = path, fsync
        self._file = open(path, "r+b", buffering=0)  # noqa: SIM115 (closed by `close`)
        self._file.truncate(end)
        self._file.seek(end)
        self.end, self.number = end, number
        self._flushed = time.monotonic()

    def append(self, payload: bytes) -> None:
        """Append a record.

        Raises
        ------
        OSError
            It is not there, or `cut` has to take it off; the disk is full, say.
        """
        fields = struct.pack("<QQI4x", self.number + 1, len(payload), zlib.crc32(payload))
        record = b"".join([MARKER, struct.pack("<I", zlib.crc32(fields)), fields, payload])
        try:
            left = memoryview(record)
            while left:
                left = left[self._file.write(left) :]
            wait = BATCH_SECONDS if self._fsync == "batch" else 0.0
            if self._fsync != "never" and time.monotonic() - self._flushed >= wait:
                self.flush()
        except OSError as error:
            reason = f"could not write: {error.strerror}"
            raise type(error)(error.errno, reason, os.fspath(self._path)) from error
        self.end, self.number = self.end + len(record), self.number + 1

    def cut(self, end: int, number: int) -> None:
        """Take off what comes after record `number`, which ends there."""
        self._file.truncate(end)
        self._file.seek(end)
        self.end, self.number = end, number
        _sync(self._file.fileno())

    def flush(self) -> None:
        """Flush all records to the disk."""
        _sync(self._file.fileno())
        self._flushed = time.monotonic()

    def is_at(self, path: Path) -> bool:
        """Whether that is the name of this log, and not of one in its place."""
        return os.path.samestat(os.fstat(self._file.fileno()), path.stat())

    def close(self) -> None:
        """Close the file, as it is."""
        self._file.close()
