"""How the work of decoding and prefilling grows with n: ``python -m asv_benchmarks.growth``.

Every query reads its n^(4/5) best keys of n Gaussian ones, the number that the paper
(arXiv 2410.10165) proves its running times for. The work of one is counted, not timed: what a
structure tests and touches to find them, and the keys. Prefilling asks n such queries of an index
that was built for them, in n log n. A power of n is fitted to both.
"""

import argparse
from collections.abc import Iterator, Sequence
from math import log2
from typing import NamedTuple

import numpy as np

import halfspace
from attention.studies.exponents import fitted

from . import data, sizes
from .tables import show

STRUCTURES = {4: ("KDTree", "PartitionTree"), 8: ("KDTree", "PartitionTree")}
"""By d; certified codes for all other d."""

DIMENSIONS = (4, 8, 32, 64, 128)

LIMIT, LIMITED = 0.85, (4, 8)
"""Power of n that decoding is to stay below, and where."""

LAST = 5
"""Sizes at the end, to which a power is fitted as well: few keys are all near the plane."""

KEYS = 4 / 5
"""Power of n that is the number of keys read."""


class Growth(NamedTuple):
    """Means over queries, by n."""

    structure: str
    d: int
    n: list[int]
    decode: list[float]
    prefill: list[float]


def decode_work(index: halfspace.Index, points: np.ndarray, normals: np.ndarray) -> float:
    """What a query tests, touches and reads in the mean."""
    k = round(len(points) ** KEYS)
    found = index.work(normals, data.kth_scores(points, normals, k))
    return float(np.mean(found.nodes_visited + found.points_touched)) + k


def growth(structure: str, d: int, exponents: Sequence[int], queries: int) -> Growth:
    """Count the work of one structure at 2^exponents points."""
    made = Growth(structure, d, [], [], [])
    for exponent in exponents:
        n = 2**exponent
        points, normals = data.gauss(n, d, "float32"), data.normals(queries, d, seed=1)
        index = getattr(halfspace, structure)(points)
        work = decode_work(index, points, normals)
        made.n.append(n)
        made.decode.append(work)
        made.prefill.append(n * (log2(n) + work))
    return made


def all_growth(dims: Sequence[int], exponents: Sequence[int], queries: int) -> Iterator[Growth]:
    """Every structure of every d."""
    for d in dims:
        for structure in STRUCTURES.get(d, ("Cascade",)):
            yield growth(structure, d, exponents, queries)


def _power(n: Sequence[int], work: Sequence[float]) -> str:
    found = fitted(n, work)
    return "" if found is None else f"{found[0]:.3f}"


def _row(made: Growth) -> list[str]:
    part_one = max(KEYS, 1.0 - 1.0 / max(made.d // 2, 1))
    wanted = f"at most {LIMIT}" if made.d in LIMITED else ""
    return [
        *(str(made.d), made.structure, f"{made.n[-1]:,}"),
        *(f"{made.decode[-1] / made.n[-1]:.1%}", _power(made.n, made.decode), wanted),
        _power(made.n[-LAST:], made.decode[-LAST:]),
        *(f"{part_one:.3f}", _power(made.n, made.prefill), f"{1 + part_one:.3f}"),
    ]


def show_growth(dims: Sequence[int], exponents: Sequence[int], queries: int) -> None:
    """Print the powers of n beside those of the theory."""
    rows = [_row(made) for made in all_growth(dims, exponents, queries)]
    decoding = ["decode: of n", "power of n", "wanted", f"of the last {2 ** (LAST - 1)}x", "theory"]
    header = ["d", "structure", "n, up to", *decoding, "prefill: power of n", "theory"]
    show("Work of finding and reading the n^(4/5) best keys", header, rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--dims", nargs="+", type=int, default=DIMENSIONS, metavar="D")
    parser.add_argument("--least", type=int, default=12, metavar="E", help="from 2^E keys; 12")
    parser.add_argument("--most", type=int, default=20, metavar="E", help="to 2^E keys; 20")
    parser.add_argument("--queries", type=int, default=32, metavar="M", help="of each n; 32")
    given = parser.parse_args(argv)
    shrunk = round(log2(min(1.0, sizes.scale())))
    exponents = range(max(6, given.least + shrunk), max(9, given.most + shrunk + 1))
    show_growth(given.dims, exponents, sizes.queries(given.queries))


if __name__ == "__main__":
    main()
