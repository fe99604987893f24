"""load: an index from a file, mapped into memory.

What a file may hold is a table here: nothing else is made of one, whatever it says. Answers are as
safe as the file is whole, which its checksums tell; that no access leaves an array is checked of
sizes and indices in any case, also of files that were made to deceive.
"""

import os

from .array_file import InvalidFile, read
from .dynamic import Dynamic
from .dynamic_state import KIND, restored_dynamic
from .index import Index
from .state import restored
from .structures import STRUCTURES

KINDS = {entry.make._kind: entry.make for entry in STRUCTURES.values()} | {KIND: Dynamic}
"""What files may hold."""


def load(path: str | os.PathLike, *, mmap: bool = True, verify: bool = True) -> Index:
    """Read an index that `Index.save` wrote. It answers as the one that was saved.

    Parameters
    ----------
    path : str or path-like
    mmap : bool, optional
        Map the file into memory: pages are read when they are asked for, and processes that load
        the same file share them. False reads all of it at once, and the file may change after.
    verify : bool, optional
        Check all checksums, which reads the whole file once (some 2 to 4 GB/s from memory, or as
        fast as the disk). False for files that are known to be whole: opening takes milliseconds,
        whatever the size, and a file that was altered may give wrong answers. Sizes, and indices
        into arrays, are checked in any case, so that no access leaves the file.

    Returns
    -------
    Index
        Of the class that was saved. Its arrays are read-only.

    Raises
    ------
    OSError
        The file cannot be opened.
    InvalidFile
        It is no saved index; it was truncated or altered; its version is another. The message says
        which part is wrong.

    Notes
    -----
    Replace a file that is in use by `save`, which leaves what is mapped as it is. One that is
    truncated in place takes its pages away from those who map it, and the system ends them.

    Examples
    --------
    >>> import tempfile, numpy as np, halfspace
    >>> index = halfspace.KDTree(np.random.default_rng(0).standard_normal((10_000, 3)))
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     index.save(f"{directory}/points.hsf")
    ...     again = halfspace.load(f"{directory}/points.hsf")
    >>> again.count([1.0, 2.0, 2.0], 9.0)
    10
    """
    file = read(path, mmap=mmap, verify=verify)
    kind = KINDS.get(file.kind)
    try:
        if kind is None:
            raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {file.kind!r}")
        if "changes" in file.metadata:
            raise ValueError("expected a saved index, got part of a directory for Dynamic.open")
        if kind is Dynamic:
            return Dynamic.from_state(restored_dynamic(file.metadata, file.arrays))
        return restored(kind, file.metadata, file.arrays)
    except ValueError as wrong:
        raise InvalidFile(f"{os.fspath(path)}: {wrong}") from None
