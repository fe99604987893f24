"""Dynamic on disk: `open` a directory that every change is written to, or `save` one file."""

import os
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from . import array_file
from .array_file import InvalidFile
from .changes import Change, as_rows
from .dynamic_state import KIND, stored_dynamic
from .journal import CHANGES, Found, Journal

if TYPE_CHECKING:
    from .dynamic import Dynamic


def save_dynamic(index: "Dynamic", path: str | os.PathLike) -> None:
    """Write what there is at this instant to one file, for `halfspace.load`.

    Parameters and errors as for `StaticIndex.save`. What `open` opened goes on writing to its
    directory, not to this file.

    Examples
    --------
    >>> import tempfile, halfspace
    >>> index = halfspace.Dynamic([[0.0], [1.0]])
    >>> index.delete([0])
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     index.save(f"{directory}/points.hsf")
    ...     halfspace.load(f"{directory}/points.hsf").report([1.0], 0.0)
    array([1])
    """
    array_file.write(path, KIND, *stored_dynamic(index.state()))


def open_dynamic(
    cls: type["Dynamic"],
    path: str | os.PathLike,
    points: ArrayLike | None = None,
    *,
    fsync: str = "always",
    recover: bool = False,
    mmap: bool = True,
    verify: bool = True,
    background: bool = False,
    **options: object,
) -> "Dynamic":
    """Open a directory that holds a `Dynamic`, and every change to it, or make one.

    A change is in the directory's log before the call that makes it returns. After the process or
    the machine stops, at whatever instant, opening it again gives all changes whose calls had
    returned, and any other whole or not at all.

    Parameters
    ----------
    path : str or path-like
        Of the directory; one process at a time may have it open.
    points, **options : optional
        What it starts with where it is made, as for `Dynamic`; shape (0, d) for no points. Where
        there is one, `points` have to have its dimension, and nothing else is made of them.
    fsync : {"always", "batch", "never"}, optional
        When the log is flushed to the disk: at every change; by the first change a second after
        the last time; or when `flush`, `checkpoint` or `close` is called. A process that is killed
        loses nothing in any case; a machine that stops may lose what was not flushed.
    recover : bool, optional
        Where part of the log was altered, give up the changes from there on, of which a copy is
        kept in ``.changes.log.damaged``. If not, that is an error. What was being written when the
        process ended is dropped in any case: no call had returned.
    mmap, verify
        As for `halfspace.load`, of what there was at the last checkpoint.
    background : bool, optional
        As for `Dynamic`.

    Returns
    -------
    Dynamic
        `close` it, or use it in a ``with``. Changes may also raise OSError, where the disk is full,
        say; then they are not made.

    Raises
    ------
    OSError
        It cannot be read or written. BlockingIOError: another has it open.
    InvalidFile
        A file in it was altered, truncated or taken away; its version is another.
    ValueError, TypeError
        There is none, and no points to make one of; points of another dimension; an unknown policy;
        a directory that holds other things; or as for `Dynamic`.

    Notes
    -----
    O(bytes of the checkpoint) to verify, and what the changes since took. A checkpoint is made when
    the log is longer than 64 MB and than the file of points, so that it adds a constant factor to
    what is written.

    Examples
    --------
    >>> import tempfile, numpy as np, halfspace
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     with halfspace.Dynamic.open(f"{directory}/points", np.empty((0, 2))) as index:
    ...         ids = index.insert([[0.0, 1.0], [2.0, 3.0]])
    ...     with halfspace.Dynamic.open(f"{directory}/points") as index:
    ...         index.report([1.0, 1.0], 2.0)
    array([1])
    """
    journal, index = Journal(path, fsync), None
    try:
        found = journal.read(recover=bool(recover), mmap=mmap, verify=verify)
        if found is None:
            if points is None:
                raise ValueError(
                    f"points: expected some, if of shape (0, d), as {os.fspath(path)} holds no "
                    "index, got none"
                )
            index = cls(points, background=background, **options)
            journal.begin(index.state())
        else:
            if points is not None:
                as_rows(points, found.state.buffer.points.shape[1])
            index = cls.from_state(found.state, background=background)
            _replay(index, found, os.path.join(path, CHANGES))
    except BaseException:
        if index is not None:
            index.close()
        journal.close()
        raise
    index._journal = journal
    return index


def _replay(index: "Dynamic", found: Found, path: str) -> None:
    """Make the changes that were logged."""
    for number, change in enumerate(found.changes, 1):
        try:
            _check_shapes(change, index)
            index.replay(change)
        except ValueError as wrong:
            raise InvalidFile(f"{path}: change {number}: {wrong}") from None


def _check_shapes(change: Change, index: "Dynamic") -> None:
    points, _, weights = change.inserted
    shape, wanted = (points.shape[1], weights.shape[1]), (index.dim, index._forest.buffer.columns)
    if shape != wanted:
        raise ValueError(f"expected dimension and columns {wanted}, got {shape}")


def _journal(index: "Dynamic", name: str) -> Journal:
    if index._journal is None:
        raise ValueError(f"{name}: expected an index that Dynamic.open opened, got one in memory")
    return index._journal


def checkpoint(index: "Dynamic") -> None:
    """Write what there is to the directory, and begin a new log. O(bytes).

    Opening is faster then. It is also done where it pays, by itself.

    Raises
    ------
    OSError
        It cannot be written; the directory holds what it held.
    ValueError
        An index that `open` did not open, or a closed one.

    Examples
    --------
    >>> import tempfile, halfspace
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with halfspace.Dynamic.open(f"{folder}/points", [[0.0]]) as index:
    ...         ids = index.insert([[1.0], [2.0]])
    ...         index.checkpoint()  # the log is empty again
    ...     with halfspace.Dynamic.open(f"{folder}/points") as index:
    ...         print(index.report([1.0], 1.0))
    [1 2]
    """
    journal = _journal(index, "checkpoint")
    with index._writing("checkpoint"):
        journal.checkpoint(index.state())


def flush(index: "Dynamic") -> None:
    """Flush all changes to the disk, where `fsync` does not do so at each.

    Raises
    ------
    OSError
        The disk refused.
    ValueError
        An index that `open` did not open, or a closed one.

    Examples
    --------
    >>> import tempfile, halfspace
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with halfspace.Dynamic.open(f"{folder}/points", [[0.0]], fsync="never") as index:
    ...         ids = index.insert([[1.0], [2.0]])
    ...         index.flush()  # on the disk from here on
    """
    journal = _journal(index, "flush")
    with index._writing("flush"):
        journal.flush()
