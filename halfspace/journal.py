"""Journal: a directory that holds a `Dynamic`, and every change to it before it is acknowledged.

    points.hsf     what there was at a checkpoint, as `save` writes it, and the number of its change
    changes.log    changes since, numbered on (`log.py`, `change_records.py`)
    lock           locked by whoever has it open to write

A change is appended to the log, and flushed, before anybody sees it. A checkpoint replaces the file
of points, then the log by one that begins there: records of changes that the points already hold
are passed over, so the two need not be replaced at once. At any instant the directory holds the
changes that were acknowledged, and at most one more.

Source: write-ahead logging, Mohan et al. 1992, "ARIES".
"""

import errno
import os
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from . import array_file, log
from .array_file import InvalidFile
from .atomic_file import sync_directory
from .change_records import decoded, encoded
from .changes import Change
from .dynamic_state import KIND, DynamicState, restored_dynamic, stored_dynamic

try:
    import fcntl
except ImportError:  # pragma: no cover (a system without)
    fcntl = None

POINTS, CHANGES, LOCK = "points.hsf", "changes.log", "lock"
"""Names of the files."""

CHECKPOINT_BYTES = 1 << 26
"""Bytes of a log from which on a checkpoint is made, if the points' file is no larger."""

_open_journals: weakref.WeakSet = weakref.WeakSet()


class Found(NamedTuple):
    """What a directory held."""

    state: DynamicState
    changes: list[Change]


class Journal:
    """A directory, locked for writing.

    Parameters
    ----------
    path : str or path-like
        Made if it is not there.
    fsync : {"always", "batch", "never"}
        As for `Log`.

    Raises
    ------
    OSError
        It cannot be made or written; BlockingIOError if another has it open.
    ValueError
        An unknown policy; a directory that holds something else.
    """

    def __init__(self, path: str | os.PathLike, fsync: str) -> None:
        if fsync not in log.POLICIES:
            known = ", ".join(map(repr, log.POLICIES))
            raise ValueError(f"fsync: expected one of {known}, got {fsync!r}")
        self.path, self._fsync = Path(path), fsync
        self._log: log.Log | None = None
        self._in_doubt, self._points_bytes = False, 0
        if not self.path.exists():
            self.path.mkdir()
            sync_directory(self.path.parent)
        strangers = {name for name in os.listdir(self.path) if not name.startswith(".")}
        strangers -= {POINTS, CHANGES, LOCK}
        if strangers:
            raise ValueError(
                f"{self.path}: expected a directory of an index, or an empty one, "
                f"got one with {min(strangers)!r}"
            )
        self._lock = _locked(self.path / LOCK)
        _open_journals.add(self)
        for name in os.listdir(self.path):  # what a writer left that was killed
            if name.startswith((f".{POINTS}.", f".{CHANGES}.")) and name.endswith(".tmp"):
                (self.path / name).unlink()

    def begin(self, state: DynamicState) -> None:
        """Hold `state` from now on, where there was nothing."""
        # In this order, so that points without a log are never of a process that was killed.
        log.start(self.path / CHANGES, 0)
        self._write_points(state, 0)
        self._open_log(0)

    def read(self, *, recover: bool, mmap: bool = True, verify: bool = True) -> Found | None:
        """What there is, if there is anything; changes follow.

        Parameters
        ----------
        recover : bool
            Give up changes from the first on that is damaged.
        mmap, verify : bool
            As for `halfspace.load`, of the points.

        Raises
        ------
        OSError
            A file cannot be read.
        InvalidFile
            A file is not what was written.
        """
        points, changes = self.path / POINTS, self.path / CHANGES
        if not points.exists():
            contents = log.read(changes) if changes.exists() else None
            if contents is not None and (contents.base or contents.payloads or contents.damage):
                raise InvalidFile(f"{points}: expected a file, got none beside {CHANGES}")
            return None
        if not changes.exists():
            raise InvalidFile(f"{changes}: expected a file, got none beside {POINTS}")
        file = array_file.read(points, mmap=mmap, verify=verify)
        number = file.metadata.get("changes")
        if file.kind != KIND or type(number) is not int or not 0 <= number < 2**63:
            raise InvalidFile(f"{points}: expected points with a number of changes, got others")
        try:
            state = restored_dynamic(file.metadata, file.arrays)
        except ValueError as wrong:
            raise InvalidFile(f"{points}: {wrong}") from None
        self._points_bytes = points.stat().st_size
        return Found(state, self._read_log(changes, number, recover))

    def _read_log(self, path: Path, number: int, recover: bool) -> list[Change]:
        """Changes after that of such a number; the log is open then."""
        contents = log.read(path)
        last, damage = contents.base + len(contents.payloads), contents.damage
        if contents.base > number:
            raise InvalidFile(
                f"{path}: expected changes from {number + 1} on, got them from "
                f"{contents.base + 1} on"
            )
        if damage and not recover:
            kept = max(0, last - number)
            raise InvalidFile(f"{damage}; recover=True keeps the {kept} changes before it")
        try:
            changes = [decoded(payload) for payload in contents.payloads[number - contents.base :]]
        except ValueError as wrong:
            raise InvalidFile(f"{path}: {wrong}") from None
        if damage:
            path.with_name(f".{CHANGES}.damaged").write_bytes(path.read_bytes())
        if last < number:
            # Of a checkpoint that did not come to replacing the log.
            log.start(path, number)
            self._open_log(number)
        else:
            self._log = log.Log(path, contents.end, last, self._fsync)
        return changes

    def commit(
        self, change: Change, publish: Callable[[], None], is_published: Callable[[], bool]
    ) -> None:
        """Log a change, then publish it; where either fails, it is in the log only if it is public.

        Raises
        ------
        OSError
            It could not be written, and is not published.
        """
        writer = self._writer()
        end, number = writer.end, writer.number
        try:
            self._in_doubt = True
            writer.append(encoded(change))
            publish()
        except BaseException:
            if not is_published():
                writer.cut(end, number)
            self._in_doubt = False
            raise
        self._in_doubt = False

    @property
    def due(self) -> bool:
        """Whether the log is so long that a checkpoint pays."""
        return self._writer().end > max(CHECKPOINT_BYTES, self._points_bytes)

    def checkpoint(self, state: DynamicState) -> None:
        """Put down `state`, which holds all changes so far, and begin a new log."""
        writer = self._writer()
        self._write_points(state, writer.number)
        self._in_doubt = True
        try:
            log.start(self.path / CHANGES, writer.number)
        except BaseException:
            # A log that was replaced is written by nobody any more.
            self._in_doubt = not writer.is_at(self.path / CHANGES)
            raise
        writer.close()
        self._open_log(writer.number)
        self._in_doubt = False

    def checkpoint_if_due(self, state: Callable[[], DynamicState]) -> None:
        """The same, where it pays; where it fails, the log goes on, with a warning."""
        if not self.due:
            return
        try:
            self.checkpoint(state())
        except OSError as error:
            warnings.warn(f"no checkpoint, the log goes on: {error}", RuntimeWarning, stacklevel=4)

    def _write_points(self, state: DynamicState, number: int) -> None:
        metadata, arrays = stored_dynamic(state)
        array_file.write(self.path / POINTS, KIND, metadata | {"changes": number}, arrays)
        self._points_bytes = (self.path / POINTS).stat().st_size

    def _open_log(self, number: int) -> None:
        """Open a log that begins after such a change."""
        self._log = log.Log(self.path / CHANGES, log.EMPTY, number, self._fsync)

    def flush(self) -> None:
        """Flush all changes to the disk."""
        self._writer().flush()

    def close(self) -> None:
        """Flush all changes, and let others open the directory. Closing again does nothing."""
        try:
            if self._log is not None:
                self._log.flush()
        finally:
            self.forget()

    def forget(self) -> None:
        """Leave everything to the process that has it open; this is a fork of it."""
        if self._log is not None:
            self._log.close()
        self._log = None
        self._lock.close()

    def _writer(self) -> log.Log:
        if self._log is None:
            raise ValueError(f"{self.path}: expected an open journal, got a closed or forked one")
        if self._in_doubt:
            raise ValueError(f"{self.path}: expected a log without doubt: open it again")
        return self._log


def _locked(path: Path) -> "object":
    """The lock's file, open and locked; the system unlocks it when the process ends."""
    if fcntl is None:  # pragma: no cover (a system without)
        raise NotImplementedError("Dynamic.open: expected a system that locks files by flock")
    file = open(path, "a+b", buffering=0)  # noqa: SIM115 (closed by the journal)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read(32).decode(errors="replace") or "unknown"
        file.close()
        reason = f"expected no other writer, got one: process {owner}"
        raise BlockingIOError(errno.EWOULDBLOCK, reason, os.fspath(path.parent)) from None
    file.truncate(0)
    file.write(str(os.getpid()).encode())
    return file


def _forget_journals() -> None:
    for journal in list(_open_journals):
        journal.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_journals)
