"""Contestants for many dimensions: rivals that only come up there, and all that is ours.

mlpack's FastMKS is none of them: asked a second time from Python, its models give wrong ids or
crash (4.8.0).
"""

from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple

import numpy as np

import halfspace

from .contestants import (
    BALL_RADII,
    Built,
    Contestant,
    FaissFlat,
    NumpyProduct,
    NumpyRows,
    ScipyBall,
)

PANORAMA_LEVELS = 8

PANORAMA_BATCH = 2048
"""Points of a block; of 128, 512 and 2048 with 4 to 32 levels, among the fastest."""

BALL_DIMENSIONS = 32
"""Dimensions beyond which no ball tree is tried."""

EXPECTED_QUERIES = 100_000


class FaissScaled(FaissFlat):
    """Batches by one call, as normals are divided by their offsets; rounding moves the planes."""

    name, by_batch = "faiss IndexFlatIP", True

    def report(self, normals: np.ndarray, offsets: np.ndarray) -> list[np.ndarray]:
        if len(offsets) == 1 or np.any(offsets <= 0.0):
            return super().report(normals, offsets)
        return super().report(normals / offsets[:, np.newaxis], np.ones_like(offsets))


class FaissPanorama(FaissScaled):
    """Flat search that drops a point once the coordinates to come cannot bring it in."""

    name, family, by_batch = "faiss Panorama", "faiss Panorama", False

    def __init__(self, points: np.ndarray, threads: int) -> None:
        d = points.shape[1]
        made = import_module("faiss").IndexFlatIPPanorama
        self.index = made(d, min(PANORAMA_LEVELS, d), PANORAMA_BATCH)
        self.index.add(points)

    @classmethod
    def missing(cls) -> str | None:
        what = super().missing()
        if what is None and not hasattr(import_module("faiss"), "IndexFlatIPPanorama"):
            return "this faiss does not have it"
        return what


class FaissPanoramaTurned(FaissPanorama):
    """The same along the principal axes of the points; the clock runs while normals are turned."""

    name = "faiss Panorama, principal axes"

    def __init__(self, points: np.ndarray, threads: int) -> None:
        moments = (points.T @ points).astype(np.float64)
        self.axes = np.linalg.eigh(moments)[1][:, ::-1].astype(points.dtype)
        super().__init__(points @ self.axes, threads)

    def report(self, normals: np.ndarray, offsets: np.ndarray) -> list[np.ndarray]:
        return super().report(normals @ self.axes, offsets)

    def top(self, normal: np.ndarray, k: int) -> np.ndarray:
        return super().top(normal @ self.axes, k)


class TorchRows(Contestant):
    """One product a query."""

    name, family, package = "torch nonzero(X @ w >= b)", "torch", "torch"

    def __init__(self, points: np.ndarray, threads: int) -> None:
        self.torch = import_module("torch")
        self.torch.set_num_threads(threads)
        self.points = self.torch.from_numpy(points)

    def report(self, normals: np.ndarray, offsets: np.ndarray) -> list[np.ndarray]:
        pairs = zip(self.torch.from_numpy(normals), offsets.tolist(), strict=True)
        return [(self.points @ w >= b).nonzero()[:, 0].numpy() for w, b in pairs]

    def top(self, normal: np.ndarray, k: int) -> np.ndarray:
        scores = self.points @ self.torch.from_numpy(normal)
        return self.torch.topk(scores, k).indices.numpy()


class SklearnBall(ScipyBall):
    """The same by scikit-learn's ball tree."""

    name, family, package = "scikit-learn BallTree, huge ball", "BallTree", "sklearn"

    def __init__(self, points: np.ndarray, threads: int) -> None:
        self.tree = import_module("sklearn.neighbors").BallTree(points)
        self.radius = BALL_RADII * float(points.std())

    def report(self, normals: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        return self.tree.query_radius(self.centres(normals, offsets), self.radius)


class Setting(NamedTuple):
    """What a contestant is made from."""

    points: np.ndarray
    normals: np.ndarray  # like those to come
    count: int  # ids a report
    threads: int
    batch: int = 1  # queries a call


class Own(Built):
    """An index of ours."""

    def __init__(self, index: halfspace.Index) -> None:
        self.index = index
        self.by_batch = not isinstance(index, halfspace.Scan)


def told(structure: Callable[..., halfspace.Index], **wishes: int) -> Callable[[Setting], Own]:
    """How an index is made that knows what will be asked."""
    return lambda s: Own(structure(s.points, queries=s.normals, expected_count=s.count, **wishes))


REFERENCE = "Cascade"
"""Ours to which all others are compared."""

UNTOLD = "Cascade, told nothing"

BUILT = "build"

TOLD = "build, told all"

STRUCTURES: dict[str, Callable[[Setting], Contestant]] = {
    REFERENCE: told(halfspace.Cascade),
    UNTOLD: lambda s: Own(halfspace.Cascade(s.points)),
    "Scan": lambda s: Own(halfspace.Scan(s.points)),
    "KDTree": lambda s: Own(halfspace.KDTree(s.points)),
    "PartitionTree": lambda s: Own(halfspace.PartitionTree(s.points)),
}
"""Ours that are asked for by name."""

AUTOS: dict[str, Callable[[Setting], Contestant]] = {
    BUILT: lambda s: Own(halfspace.build(s.points)),
    TOLD: lambda s: told(
        halfspace.build, expected_queries=EXPECTED_QUERIES, expected_batch=s.batch
    )(s),
}
"""What `build` chooses, told nothing and told all."""

OURS = STRUCTURES | AUTOS

RIVALS = {BUILT: tuple(name for name in STRUCTURES if name != REFERENCE), TOLD: tuple(STRUCTURES)}
"""Structures that are told no more than what `build` is."""

PARTITION_DIMENSIONS = 32
"""Dimensions beyond which no partition tree is tried."""

SINGLE = (NumpyRows, FaissScaled, FaissPanorama, FaissPanoramaTurned, TorchRows, SklearnBall)
"""Rivals asked one query at a time."""

BATCHED = (NumpyProduct, FaissScaled, FaissPanorama, FaissPanoramaTurned)

TOP = (NumpyRows, FaissScaled, FaissPanorama, FaissPanoramaTurned, TorchRows)


def suits(name: str, d: int) -> bool:
    """Whether a contestant is worth trying in that many dimensions."""
    most = {SklearnBall.name: BALL_DIMENSIONS, "PartitionTree": PARTITION_DIMENSIONS}
    return d <= most.get(name, d)
