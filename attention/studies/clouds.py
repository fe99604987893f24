"""Points and normals that structures are tried on."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from .. import data
from .study import check_known, check_least

POWERS = {"iid": 0.0, "decaying": 1.0}
"""Gaussian coordinates of standard deviations i^-power."""

REAL = "encoder"
"""Keys of a head that ships with the package along their principal axes, asked by its queries."""

SPHERE = "sphere"

KINDS = (*POWERS, SPHERE, REAL)


class Cloud(NamedTuple):
    """Points, and normals of half-spaces to ask for."""

    points: np.ndarray  # (n, d) float32
    normals: np.ndarray  # (m, d) float32


def check(
    kinds: Sequence[str],
    dims: Sequence[int],
    exponents: Sequence[int],
    *,
    most: int = 1024,
    least: int = 6,
) -> None:
    """Check settings of clouds: kinds, dimensions up to `most`, powers of 2 from `least` on.

    Examples
    --------
    >>> from attention.studies import clouds
    >>> clouds.check(("iid",), (2, 7), (10,), most=6)
    Traceback (most recent call last):
    ValueError: dims: expected values from 2 to 6, got (2, 7)
    """
    check_known("kinds", kinds, KINDS)
    check_least("dims", dims, 2, most=most)
    check_least("exponents", exponents, least, most=26)


def sizes(kind: str, d: int, exponents: Iterable[int]) -> list[int]:
    """Numbers of points, ascending, that a kind has in d dimensions for powers of 2.

    Examples
    --------
    >>> from attention.studies import clouds
    >>> clouds.sizes("iid", 3, (5, 4)), clouds.sizes("encoder", 99, (5, 4))
    ([16, 32], [])
    """
    return sorted({largest(kind, d, 1 << each) for each in exponents} - {0})


def largest(kind: str, d: int, n: int) -> int:
    """Most of n points that a kind has in d dimensions; 0 where it has none.

    Examples
    --------
    >>> from attention.studies.clouds import largest
    >>> largest("iid", 64, 1 << 20), largest("encoder", 8, 1 << 20), largest("encoder", 64, 4096)
    (1048576, 7168, 0)
    """
    if kind != REAL:
        return n
    rows, dims = data.load(data.heads()[0]).key.shape
    return min(n, rows) if d <= dims else 0


def make(kind: str, n: int, d: int, m: int, seed: int = 0) -> Cloud:
    """Make a cloud.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    n, d, m : int
        Points, dimensions, normals; of the encoder's head at most what `largest` says.
    seed : int, optional

    Returns
    -------
    Cloud
        The first n points of a larger cloud of the same seed.

    Examples
    --------
    >>> from attention.studies import clouds
    >>> clouds.make("decaying", 100, 5, 7).points.shape
    (100, 5)
    """
    if kind == REAL:
        return _head(n, d, m)
    rng, asking = (np.random.default_rng((seed, d, part)) for part in range(2))
    points = rng.standard_normal((n, d), dtype=np.float32)
    normals = asking.standard_normal((m, d), dtype=np.float32)
    if kind == SPHERE:
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        return Cloud(points, normals)
    deviations = np.arange(1.0, d + 1.0, dtype=np.float32) ** np.float32(-POWERS[kind])
    return Cloud(points * deviations, normals * deviations)


def _head(n: int, d: int, m: int) -> Cloud:
    """Keys and queries of the sharpest head in the d first principal axes of all its keys."""
    head = data.load(data.heads()[0])
    axes = np.linalg.eigh(np.cov(head.key.T.astype(np.float64)))[1][:, ::-1][:, :d]
    chosen = np.random.default_rng(0).permutation(len(head.key))[:n]
    keys, queries = (
        np.ascontiguousarray(rows @ axes, np.float32) for rows in (head.key[chosen], head.query)
    )
    return Cloud(keys, queries[np.arange(m) % len(queries)])


def offsets(cloud: Cloud, k: int) -> np.ndarray:
    """Offsets (m,) float64 of half-spaces that hold k points each, ties and rounding apart.

    Examples
    --------
    >>> import halfspace
    >>> from attention.studies import clouds
    >>> cloud = clouds.make("sphere", 500, 3, 4)
    >>> halfspace.Scan(cloud.points).count(cloud.normals, clouds.offsets(cloud, 20)).tolist()
    [20, 20, 20, 20]
    """
    scores = cloud.normals.astype(np.float64) @ cloud.points.T.astype(np.float64)
    place = len(cloud.points) - k
    ranked = np.partition(scores, [max(place - 1, 0), place], axis=1)
    # Between two scores, so that no rounding of the offset moves a point.
    return (ranked[:, place] + ranked[:, max(place - 1, 0)]) / 2.0
