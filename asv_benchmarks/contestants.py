"""The contestants: each takes points once, then reports half-spaces {x : <w, x> >= b} by batch.

An answer is a sequence with the ids of every query, in whatever form comes naturally.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import import_module
from typing import ClassVar

import numpy as np

import halfspace

PRODUCT_SCORES = 1 << 19
"""Scores a batched product makes at a time: they stay in cache."""

BALL_RADII = 1e6
"""Radius of the ball that stands for a half-space, in spreads of the points."""


class Contestant(ABC):
    """Points made ready by one rival, on a given number of threads."""

    name: ClassVar[str]
    family: ClassVar[str]
    package: ClassVar[str | None] = None
    """Package it needs beyond those of halfspace."""
    by_batch: ClassVar[bool] = False
    """Whether its time for a query depends on how many are asked at once."""

    @abstractmethod
    def __init__(self, points: np.ndarray, threads: int) -> None: ...

    @classmethod
    def missing(cls) -> str | None:
        """What it needs and is not here."""
        try:
            if cls.package:
                import_module(cls.package)
        except ImportError:
            return f"{cls.package} is not installed"
        return None

    @abstractmethod
    def report(self, normals: np.ndarray, offsets: np.ndarray) -> Sequence[Sequence[int]]:
        """Ids of every half-space."""

    def report_one(self, normal: np.ndarray, offset: np.float32) -> Sequence[int]:
        """Ids of one half-space, asked by itself."""
        return self.report(normal[np.newaxis], offset[np.newaxis])[0]

    def top(self, normal: np.ndarray, k: int) -> Sequence[int]:
        """Ids of the k best, best first, of one that can."""
        raise NotImplementedError


class Built(Contestant):
    """What `halfspace.build` chooses."""

    name, family, by_batch = "halfspace.build", "ours", True

    def __init__(self, points: np.ndarray, threads: int) -> None:
        self.index = halfspace.build(points)

    def report(self, normals: np.ndarray, offsets: np.ndarray) -> halfspace.Report:
        return self.index.report(normals, offsets)

    def report_one(self, normal: np.ndarray, offset: np.float32) -> np.ndarray:
        return self.index.report(normal, offset)

    def top(self, normal: np.ndarray, k: int) -> np.ndarray:
        return self.index.top(normal, k).ids


class Scanned(Built):
    """Our brute force."""

    name, family, by_batch = "halfspace.Scan", "our scan", False

    def __init__(self, points: np.ndarray, threads: int) -> None:
        self.index = halfspace.Scan(points)


class NumpyRows(Contestant):
    """One product a query, points as they come."""

    name, family = "numpy flatnonzero(X @ w >= b), rows", "numpy"

    def __init__(self, points: np.ndarray, threads: int) -> None:
        self.points = points

    def report(self, normals: np.ndarray, offsets: np.ndarray) -> list[np.ndarray]:
        pairs = zip(normals, offsets, strict=True)
        return [np.flatnonzero(self.points @ w >= b) for w, b in pairs]

    def report_one(self, normal: np.ndarray, offset: np.float32) -> np.ndarray:
        return np.flatnonzero(self.points @ normal >= offset)

    def top(self, normal: np.ndarray, k: int) -> np.ndarray:
        scores = self.points @ normal
        best = np.argpartition(scores, len(scores) - k)[len(scores) - k :]
        return best[np.argsort(-scores[best])]


class NumpyColumns(NumpyRows):
    """One product a query, each coordinate contiguous."""

    name = "numpy flatnonzero(X @ w >= b), columns"

    def __init__(self, points: np.ndarray, threads: int) -> None:
        self.points = np.asfortranarray(points)


class NumpyProduct(Contestant):
    """All queries at once, by matrix products of a chunk of points that fits the cache."""

    name, family, by_batch = "numpy X @ W.T, batched", "numpy batched", True

    def __init__(self, points: np.ndarray, threads: int) -> None:
        self.points = points

    def report(self, normals: np.ndarray, offsets: np.ndarray) -> list[np.ndarray]:
        m, columns = len(normals), np.ascontiguousarray(normals.T)
        step = max(1, PRODUCT_SCORES // m)
        scores, inside = np.empty((step, m), self.points.dtype), np.empty((step, m), bool)
        found = []
        for first in range(0, len(self.points), step):
            chunk = self.points[first : first + step]
            rows = slice(len(chunk))
            np.matmul(chunk, columns, out=scores[rows])
            np.greater_equal(scores[rows], offsets, out=inside[rows])
            found.append(np.flatnonzero(inside[rows].ravel()) + first * m)
        ids, queries = np.divmod(np.concatenate(found), m)
        order = np.argsort(queries.astype(np.min_scalar_type(m)), kind="stable")
        return np.split(ids[order], np.cumsum(np.bincount(queries, minlength=m))[:-1])


class ScipyBall(Contestant):
    """A ball so large that its surface is nearly a plane where the points are."""

    name, family = "scipy cKDTree, huge ball", "cKDTree"
    ascending: ClassVar[bool] = True

    def __init__(self, points: np.ndarray, threads: int) -> None:
        from scipy.spatial import cKDTree

        self.tree, self.threads = cKDTree(points), threads
        self.radius = BALL_RADII * float(points.std())

    def centres(self, normals: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Centres (m, d) of the balls."""
        lengths = np.linalg.norm(normals.astype(np.float64), axis=1, keepdims=True)
        return normals / lengths * (offsets[:, np.newaxis] / lengths + self.radius)

    def report(self, normals: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        return self.tree.query_ball_point(
            self.centres(normals, offsets),
            self.radius,
            workers=self.threads,
            return_sorted=self.ascending,
        )


class ScipyBallUnsorted(ScipyBall):
    """The same, ids in no order."""

    name, ascending = "scipy cKDTree, huge ball, unsorted", False


class FaissFlat(Contestant):
    """Exhaustive range search by inner product; ids in no order."""

    name, family, package = "faiss IndexFlatIP.range_search", "faiss", "faiss"

    def __init__(self, points: np.ndarray, threads: int) -> None:
        self.index = import_module("faiss").IndexFlatIP(points.shape[1])
        self.index.add(points)

    def report(self, normals: np.ndarray, offsets: np.ndarray) -> list[np.ndarray]:
        # A call takes one radius for all its queries, and reports scores above it, not at it.
        radii = np.nextafter(offsets, np.float32(-np.inf), dtype=np.float32)
        if np.all(radii == radii[0]):
            return self._search(normals, radii[0])
        pairs = zip(normals, radii, strict=True)
        return [ids for normal, radius in pairs for ids in self._search(normal[None], radius)]

    def top(self, normal: np.ndarray, k: int) -> np.ndarray:
        return self.index.search(normal[np.newaxis], k)[1][0]

    def _search(self, normals: np.ndarray, radius: np.float32) -> list[np.ndarray]:
        ends, _, ids = self.index.range_search(normals, float(radius))
        return np.split(ids, ends[1:-1].astype(np.int64))


CONTESTANTS: tuple[type[Contestant], ...] = (
    Built,
    Scanned,
    NumpyRows,
    NumpyColumns,
    NumpyProduct,
    ScipyBall,
    ScipyBallUnsorted,
    FaissFlat,
)


def present(
    contestants: Sequence[type[Contestant]] = CONTESTANTS,
) -> tuple[list[type[Contestant]], list[str]]:
    """The contestants that can run here, and what to say of those that cannot."""
    missing = {contestant: contestant.missing() for contestant in contestants}
    able = [contestant for contestant, what in missing.items() if what is None]
    complaints = [f"{c.name}: left out, {what}" for c, what in missing.items() if what is not None]
    return able, complaints
