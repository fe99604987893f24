"""Saving, opening and logging: `python -m asv_benchmarks.storage [directory]`.

Opening is timed with the file in the page cache: it is what a second process waits for. A query
after it brings in the pages it asks for.
"""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

import halfspace
from halfspace import log

from . import sizes
from .clock import medians, seconds
from .tables import show

BYTES = 1 << 30
"""Of points, each."""

ROUNDS = 5

CHANGES = 1000
"""Changes that are logged, a point each."""


class Case(NamedTuple):
    """What is saved."""

    structure: type
    d: int


CASES = (
    Case(halfspace.Scan, 128),
    Case(halfspace.Scan, 3),
    Case(halfspace.KDTree, 8),
    Case(halfspace.Cascade, 64),
)


class Stored(NamedTuple):
    """What a case came to, in seconds."""

    nbytes: int
    save: float
    open: float
    verified: float
    read: float  # into memory
    asked: float  # opening, and a first query


def play(case: Case, directory: Path) -> Stored:
    """Save and open one index."""
    n = sizes.points(BYTES // (4 * case.d))
    points = np.random.default_rng(0).standard_normal((n, case.d), dtype=np.float32)
    index, path = case.structure(points), directory / "points.hsf"
    normal, offset = np.ones(case.d), 4.5 * case.d**0.5
    want = index.count(normal, offset)
    save = seconds(lambda: index.save(path))

    def asked() -> None:
        assert halfspace.load(path, verify=False).count(normal, offset) == want

    ways = {
        "open": lambda: halfspace.load(path, verify=False),
        "verified": lambda: halfspace.load(path),
        "read": lambda: halfspace.load(path, mmap=False, verify=False),
        "asked": asked,
    }
    taken = medians(ways, sizes.rounds(ROUNDS))
    nbytes = path.stat().st_size
    path.unlink()
    return Stored(nbytes, save, **taken)


def logged(policy: str, directory: Path) -> float:
    """Changes a second that are logged."""
    count = sizes.queries(CHANGES)
    rows = np.random.default_rng(0).standard_normal((count, 1, 3))
    path = directory / policy
    with halfspace.Dynamic.open(path, np.empty((0, 3)), structure="scan", fsync=policy) as index:
        taken = seconds(lambda: [index.insert(row) for row in rows])
    return count / taken


def show_storage(directory: Path, cases: tuple[Case, ...] = CASES) -> None:
    """Play all cases, and print what they came to."""
    rows = []
    for case in cases:
        got = play(case, directory)
        rows.append(
            [
                f"{case.structure.__name__} d = {case.d}",
                f"{got.nbytes / 1e9:.2f} GB",
                f"{got.nbytes / got.save / 1e9:.2f} GB/s",
                f"{1e3 * got.open:.1f} ms",
                f"{1e3 * got.verified:.0f} ms",
                f"{1e3 * got.read:.0f} ms",
                f"{1e3 * got.asked:.1f} ms",
            ]
        )
    header = ["", "file", "save", "open", "open, verified", "read", "open and ask"]
    show("One file: save with fsync, open with verify=False, load, load(mmap=False)", header, rows)
    rates = [[policy, f"{logged(policy, directory):.0f}"] for policy in log.POLICIES]
    show("Dynamic.open: changes of one point a second", ["fsync", "changes/s"], rates)


def main(parent: str | None = None) -> None:
    """Use a directory of its own in `parent`, and leave nothing there."""
    directory = Path(tempfile.mkdtemp(dir=parent))
    try:
        show_storage(directory)
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main(*sys.argv[1:])
