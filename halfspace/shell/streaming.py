"""Half-space queries over files that need not fit into memory, a chunk at a time; as exact as ever.

Each chunk becomes an index of its own, of the structure that pays for so many queries (a scan for
few), and is dropped before the next is read. Memory is that of one chunk with its index, about four
times its bytes, and of the answers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Protocol

import numpy as np
from tqdm import tqdm

from ..index import Index
from ..inputs import Queries, as_normals
from ..joining import Part, as_top, follow_reports, join_reports, join_tops, part_report, part_top
from ..planner import build_as_planned
from ..point_files import PointFile
from ..report import Report, ResultTooLarge, Top

QUERIES = 4096
"""Queries that an index is asked at a time, so that there is progress to show."""

PENDING = 16
"""Parts whose k best wait to be joined."""

BAR = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"


def progress(desc: str, total: float = 1.0) -> tqdm:
    """Bar on the terminal, after a second; none where standard error is no terminal."""
    return tqdm(total=total, desc=desc, delay=1.0, disable=None, leave=False, bar_format=BAR)


class Asked(Protocol):
    """What answers: a file, or an index."""

    dim: int

    def report(self, queries: Queries, closed: bool, limit: int | None) -> Report:
        """Ids in each half-space."""

    def count(self, queries: Queries, closed: bool) -> np.ndarray:
        """How many there are."""

    def top(self, normals: np.ndarray, k: int) -> Top:
        """The k best along each normal."""


class AskedFile:
    """A file of points, read once for each answer."""

    def __init__(self, file: PointFile, nbytes: int, structure: str) -> None:
        self.file, self.dim = file, file.dim
        self._nbytes, self._structure = nbytes, structure

    def _parts(self, queries: int) -> Iterator[Part]:
        """One chunk after another, indexed for so many queries."""
        with progress(self.file.path.name) as bar:
            for chunk in self.file.chunks(self._nbytes):
                index = build_as_planned(chunk.rows, self._structure, expected_queries=queries)
                first, share = chunk.first, chunk.share
                del chunk
                yield Part(index, first)
                del index
                bar.update(share - bar.n)

    def report(self, queries: Queries, closed: bool, limit: int | None) -> Report:
        """Ids in each half-space."""
        reports, total, points = [_no_report(len(queries.offsets))], 0, 0
        for part in self._parts(len(queries.offsets)):
            with _of_all(limit, total) as left:
                reports.append(part_report(part, queries, closed, left))
            total += len(reports[-1].indices)
            points = part.first + len(part.index)
        return join_reports(reports, points)

    def count(self, queries: Queries, closed: bool) -> np.ndarray:
        """How many there are."""
        counts = np.zeros(len(queries.offsets), np.int64)
        for part in self._parts(len(counts)):
            counts += part.index.count(queries.normals, queries.offsets, closed=closed)
        return counts

    def top(self, normals: np.ndarray, k: int) -> Top:
        """The k best along each normal."""
        normals, _ = as_normals(normals, self.dim)
        parts = []
        for part in self._parts(len(normals)):
            parts.append(part_top(part, normals, k))
            if len(parts) > PENDING:
                parts = [join_tops(parts, normals, k)]
        if not parts:
            return Top(np.empty((len(normals), 0)), np.empty((len(normals), 0), np.int64))
        return as_top(join_tops(parts, normals, k), single=False)


class AskedIndex:
    """An index that was built before."""

    def __init__(self, index: Index, name: str) -> None:
        self._index, self._name, self.dim = index, name, index.dim

    def _slices(self, queries: int) -> Iterator[slice]:
        with progress(self._name) as bar:
            for first in range(0, queries, QUERIES):
                yield slice(first, first + QUERIES)
                bar.update(min(1.0, (first + QUERIES) / queries) - bar.n)

    def report(self, queries: Queries, closed: bool, limit: int | None) -> Report:
        """Ids in each half-space."""
        ask = partial(self._index.report, closed=closed)
        reports, total = [], 0
        for some in self._slices(len(queries.offsets)):
            with _of_all(limit, total) as left:
                found = ask(queries.normals[some], queries.offsets[some], max_results=left)
            reports.append(found)
            total += len(found.indices)
        return follow_reports(reports)

    def count(self, queries: Queries, closed: bool) -> np.ndarray:
        """How many there are."""
        found = [
            self._index.count(queries.normals[some], queries.offsets[some], closed=closed)
            for some in self._slices(len(queries.offsets))
        ]
        return np.concatenate([np.zeros(0, np.int64), *found])

    def top(self, normals: np.ndarray, k: int) -> Top:
        """The k best along each normal."""
        found = [self._index.top(normals[some], k) for some in self._slices(len(normals))]
        if not found:
            return self._index.top(normals, k)
        return Top(*(np.concatenate(fields) for fields in zip(*found, strict=True)))


@contextmanager
def _of_all(limit: int | None, total: int) -> Iterator[int | None]:
    """How many more ids there may be; where there are more, name the limit of all."""
    try:
        yield None if limit is None else limit - total
    except ResultTooLarge:
        raise ResultTooLarge(f"report: expected at most {limit} results, got more") from None


def _no_report(queries: int) -> Report:
    return Report(np.zeros(queries + 1, np.int64), np.empty(0, np.int64))
