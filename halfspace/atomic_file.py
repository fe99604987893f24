"""Files that are replaced whole: whoever opens the path finds the old one or the new one.

The new one is written beside it under another name, flushed to the disk, and renamed; then the
directory is flushed, so that the name lasts too. What fails on the way leaves the old file as it
was, and nothing beside it. A process that is killed may leave a hidden file that ends in ``.tmp``.
"""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


def sync_directory(directory: Path) -> None:
    """Flush the names in a directory to the disk."""
    if os.name != "posix":  # pragma: no cover (elsewhere a directory cannot be opened)
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Open a file to write, which takes the place of `path` when all went well.

    A link is followed: what it points to is replaced.

    Raises
    ------
    OSError
        It cannot be written: no such directory, no permission, no space, or a directory itself.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(f"{os.fspath(path)}: expected a file to write, got a directory")
    new = target.with_name(f".{target.name[:100]}.{secrets.token_hex(8)}.tmp")
    try:
        with open(new, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            new.unlink()
        if isinstance(error, OSError) and error.errno:
            reason = f"could not write: {error.strerror}"
            raise type(error)(error.errno, reason, os.fspath(path)) from error
        raise
    sync_directory(target.parent)
