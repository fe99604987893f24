"""Memory: one clear MemoryError before an array is allocated that cannot be held.

Systems hand out memory that they do not have, and end a process that then writes to it; so what is
large is compared with what is free first.
"""

from contextlib import suppress
from pathlib import Path

WORTH_A_LOOK = 1 << 27
"""Bytes up to which nobody looks."""

_MEMINFO = Path("/proc/meminfo")
_GROUP_MOST = Path("/sys/fs/cgroup/memory.max")
_GROUP_NOW = Path("/sys/fs/cgroup/memory.current")


def free_bytes() -> int | None:
    """Bytes of memory that can be had, by the system and the group's limit; None if unknown."""
    known = []
    with suppress(OSError, KeyError, ValueError):
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        known.append(1024 * int(lines["MemAvailable"].split()[0]))
    with suppress(OSError, ValueError):  # no such group, or no limit
        known.append(max(0, int(_GROUP_MOST.read_text()) - int(_GROUP_NOW.read_text())))
    return min(known, default=None)


def check_room(nbytes: int, name: str) -> None:
    """Raise MemoryError where there is less memory than `name` is known to take."""
    if nbytes <= WORTH_A_LOOK:
        return
    free = free_bytes()
    if free is not None and nbytes > free:
        raise MemoryError(f"{name}: expected {nbytes} bytes of memory to be free, got {free}")
