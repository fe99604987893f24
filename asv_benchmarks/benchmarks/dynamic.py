"""Points that come and go, and what it takes to ask in between."""

import tempfile
import time
from pathlib import Path

import halfspace

from .. import sizes
from .suite import Suite, half_spaces, points

BATCHES = 50

SELECTIVITY = 0.001


class Dynamic(Suite):
    """Inserts, deletes and reports by structure."""

    params = (("kd_tree, d = 3", "cascade, d = 16"),)
    param_names = ("structure",)

    def prepare(self, case: str) -> None:
        self.structure, _, d = case.partition(", d = ")
        self.rows = points(int(d))
        self.batch = max(1, len(self.rows) // BATCHES)
        self.asked = half_spaces(self.rows, SELECTIVITY)
        self.index = self.grown()
        self.index.report(*self.asked.few())
        self.index.delete(self.index.insert(self.rows[: self.batch]))

    def grown(self) -> halfspace.Dynamic:
        """All points, batch by batch."""
        index = halfspace.Dynamic(self.rows[:0], structure=self.structure)
        for first in range(0, len(self.rows), self.batch):
            index.insert(self.rows[first : first + self.batch])
        return index

    def time_insert(self, case: str) -> None:
        self.grown()

    def time_insert_and_delete(self, case: str) -> None:
        self.index.delete(self.index.insert(self.rows[: self.batch]))

    def time_report(self, case: str) -> None:
        self.index.report(*self.asked)


class Changes(Suite):
    """A batch of changes where every call is logged and kept."""

    timer = staticmethod(time.perf_counter)  # waiting for the disk is part of it
    params = (("never", "batch", "always"),)
    param_names = ("fsync",)

    def prepare(self, fsync: str) -> None:
        self.rows = points(3)[: sizes.points(1000)]
        self.folder = tempfile.TemporaryDirectory()
        self.index = halfspace.Dynamic.open(
            Path(self.folder.name) / "points", self.rows, fsync=fsync
        )
        self.time_logged(fsync)

    def teardown(self, fsync: str) -> None:
        self.index.close()
        self.folder.cleanup()

    def time_logged(self, fsync: str) -> None:
        self.index.delete(self.index.insert(self.rows))
