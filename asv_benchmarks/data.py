"""Seeded points and half-spaces."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

CLUSTERS = 64

CLUSTER_WIDTH = 0.02


def gauss(n: int, d: int, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    """Standard normal points (n, d)."""
    return np.random.default_rng(seed).standard_normal((n, d), dtype=np.dtype(dtype).type)


def sphere(n: int, d: int, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    """Points (n, d) on the unit sphere, as embeddings often are."""
    directions = gauss(n, d, "float64", seed)
    return (directions / np.linalg.norm(directions, axis=1, keepdims=True)).astype(dtype)


def cube(n: int, d: int, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    """Points (n, d) uniform in the cube [-1, 1]^d."""
    return np.random.default_rng(seed).uniform(-1.0, 1.0, (n, d)).astype(dtype)


def ball(n: int, d: int, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    """Points (n, d) uniform in the unit ball."""
    radii = np.random.default_rng((seed, d)).random((n, 1)) ** (1.0 / d)
    return (radii * sphere(n, d, "float64", seed)).astype(dtype)


def moment_curve(n: int, d: int, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    """Points (t, t², …, t^d), t uniform in [-1, 1]: hulls have as many facets as any can."""
    t = np.random.default_rng(seed).uniform(-1.0, 1.0, (n, 1))
    return (t ** np.arange(1, d + 1)).astype(dtype)


def clustered(n: int, d: int, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    """Points (n, d) in narrow Gaussian clusters around uniform centres."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(-1.0, 1.0, (CLUSTERS, d))
    spread = CLUSTER_WIDTH * rng.standard_normal((n, d))
    return (centres[rng.integers(CLUSTERS, size=n)] + spread).astype(dtype)


def decaying(
    n: int, d: int, dtype: str = "float32", seed: int = 0, *, power: float = 1.0
) -> np.ndarray:
    """Normal points (n, d), standard deviations 1, 2^-p, 3^-p, … along random orthogonal axes."""
    axes = np.linalg.qr(gauss(d, d, "float64", seed))[0]
    stretched = axes * np.arange(1.0, d + 1.0)[:, np.newaxis] ** -power
    return gauss(n, d, dtype, seed + 1) @ stretched.astype(dtype)


GENERATORS: dict[str, Callable[..., np.ndarray]] = {
    "gauss": gauss,
    "cube": cube,
    "ball": ball,
    "sphere": sphere,
    "moment_curve": moment_curve,
    "clustered": clustered,
}


HIGH_GENERATORS: dict[str, Callable[..., np.ndarray]] = {
    "gauss": gauss,
    "decaying": decaying,
    "slow": partial(decaying, power=0.5),
    "clustered": clustered,
}
"""Points of many dimensions."""


class Drawn(NamedTuple):
    """Points and normals of one law."""

    points: np.ndarray  # (n, d)
    normals: np.ndarray  # (m, d)


def held_back(rows: np.ndarray, m: int) -> Drawn:
    """Rows (n + m, d) of which the last m ask."""
    return Drawn(rows[: len(rows) - m], rows[len(rows) - m :])


def keys_and_queries(head: str, n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    """At most n keys and m queries (float32, 32 dimensions) of a head of a trained transformer.

    Queries come in any order: neighbours in a text are alike.
    """
    from attention.data import load

    loaded = load(head)
    asked = np.random.default_rng(0).permutation(len(loaded.query))[:m]
    return loaded.key[:n], loaded.query[asked]


def normals(m: int, d: int, dtype: str = "float32", seed: int = 1) -> np.ndarray:
    """Unit normals (m, d), uniform in direction."""
    return sphere(m, d, dtype, seed)


def offsets(points: np.ndarray, normals: np.ndarray, selectivity: float) -> np.ndarray:
    """Offsets (m,), scores of points, with about that share of the points inside."""
    return kth_scores(points, normals, max(1, round(selectivity * len(points))))


def kth_scores(points: np.ndarray, normals: np.ndarray, k: int | Sequence[int]) -> np.ndarray:
    """The k-th largest score along each normal (m,): offsets of half-spaces that hold k points.

    Several k, shape (c,), give several offsets (m, c).
    """
    kth = len(points) - np.asarray(k)
    found = [np.partition(points @ normal, kth)[kth] for normal in normals]
    return np.array(found, points.dtype)
