"""Touched work that must not grow: python -m asv_benchmarks.counters --check.

Points, nodes and bytes that queries touch, keys that attention reads, bytes that are held: counted,
not timed, so that they are the same on every machine up to the rounding of its BLAS.
`counters.json` has those that were last agreed to. ``--check`` counts again and exits with 1 where
one has grown by more than 5 %, or is not in the file; ``--update`` writes the file anew, for
whoever means it. The asv suite shows the same counters over time.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import attention
import halfspace
from attention.data import load

from . import data, prefill, sizes
from .tables import show

BASELINE = Path(__file__).with_suffix(".json")

GROWTH = 0.05
"""Share by which a counter may grow."""

POINTS = 50_000

QUERIES = 100

SELECTIVITIES = (0.001, 0.1)

SITES = (
    *(("gauss", structure, d) for structure in ("KDTree", "PartitionTree") for d in (2, 3, 8)),
    *(("gauss", "ShallowCuttings", d) for d in (2, 3)),
    ("sphere", "KDTree", 3),
    ("clustered", "KDTree", 3),
    ("clustered", "PartitionTree", 3),
    ("clustered", "ShallowCuttings", 3),
    ("gauss", "Cascade", 16),
    ("decaying", "Cascade", 16),
    ("decaying", "Cascade", 64),
)
"""Points, structure and dimension. What a scan touches is never more nor less than all."""

BATCHES = 20
"""In which points come to a `Dynamic`."""

RULES: dict[str, attention.rules.Rule] = {
    "Mass(0.95)": attention.Mass(0.95),
    "Error(0.01)": attention.Error(1e-2),
    "Sampled(0.1, 0.01)": attention.Sampled(0.1, 1e-2),
}

HEAD_QUERIES = 32

KV_HEADS, HEAD_DIM, TOKENS = 2, 64, 8_000

PREFILL_LENGTH = 2048

Counters = dict[str, float]


def asked(rows: np.ndarray, selectivity: float) -> tuple[np.ndarray, np.ndarray]:
    """Normals and offsets of half-spaces that hold such a share of the points."""
    normals = data.normals(sizes.queries(QUERIES), rows.shape[1])
    return normals, data.offsets(rows, normals, selectivity)


def work(index: halfspace.Index, rows: np.ndarray, selectivity: float) -> Iterator[tuple]:
    """What a report touches, by counter: means over the queries."""
    normals, offsets = asked(rows, selectivity)
    found = index.work(normals, offsets)
    yield "nodes", float(found.nodes_visited.mean())
    yield "points", float(found.points_touched.mean())
    if isinstance(index, halfspace.Cascade):
        yield "bytes of codes", float(np.mean(index.bytes_read(normals, offsets)))


def of_structures() -> Counters:
    """Nodes and points a query, and bytes a point."""
    found = {}
    generators = data.GENERATORS | data.HIGH_GENERATORS
    for kind, structure, d in SITES:
        rows = generators[kind](sizes.points(POINTS), d)
        index = getattr(halfspace, structure)(rows)
        case = f"{structure}, {kind} d = {d}"
        found[f"{case}: bytes / point"] = index.nbytes / len(rows)
        for share in SELECTIVITIES:
            for name, value in work(index, rows, share):
                found[f"{case}, {share:.1%}: {name} / query"] = value
    return found


def of_crossings() -> Counters:
    """Cells that a plane crosses."""
    rows = data.gauss(sizes.points(POINTS), 3)
    tree = halfspace.PartitionTree(rows)
    crossed = tree.crossing_number(*asked(rows, SELECTIVITIES[1]))
    return {"PartitionTree, gauss d = 3: cells crossed / query": float(np.mean(crossed))}


def of_changes() -> Counters:
    """What a query touches after inserts and deletes."""
    rows = data.gauss(sizes.points(POINTS), 3)
    index = halfspace.Dynamic(rows[:0], structure="kd_tree")
    for batch in np.array_split(rows, BATCHES):
        ids = index.insert(batch)
        index.delete(ids[::5])
    found = {"Dynamic, gauss d = 3: bytes / point": index.nbytes / len(index)}
    for name, value in work(index, rows, SELECTIVITIES[0]):
        found[f"Dynamic, gauss d = 3: {name} / query"] = value
    return found


def of_heads() -> Counters:
    """Keys that a query of a trained head reads, by rule."""
    found = {}
    for head in ("sharp", "between", "flat"):
        loaded = load(head)
        n = sizes.points(len(loaded.key))
        decoder = attention.Decoder(loaded.key[:n], loaded.value[:n])
        query = loaded.query[: sizes.queries(HEAD_QUERIES)]
        for name, rule in RULES.items():
            read = decoder.softmax(query, rule).reported
            found[f"head {head}, {name}: keys / query"] = float(read.mean())
    return found


def of_caches() -> Counters:
    """Bytes a token of a head, and keys that sharp queries read."""
    n = sizes.points(TOKENS)
    rows = data.gauss(3 * KV_HEADS * n, HEAD_DIM).reshape(3, KV_HEADS, n, HEAD_DIM)
    cache = attention.KVCache(HEAD_DIM, num_kv_heads=KV_HEADS)
    cache.append(*rows[1:])
    got = cache.attend(8.0 * rows[0, :, -8:], attention.Error(1e-2))
    return {
        "cache: bytes / token": cache.nbytes / (n * KV_HEADS),
        "cache, Error(0.01): keys / query": float(got.reported.mean()),
    }


def of_prefill() -> Counters:
    """Keys that a row of a causal head reads."""
    found = {}
    for case in prefill.CASES:
        head = case.make(sizes.points(PREFILL_LENGTH), np.random.default_rng(0))
        found[f"prefill {case.name}: keys / row"] = float(prefill.ours(head).reported.mean())
    return found


GROUPS: tuple[Callable[[], Counters], ...] = (
    of_structures,
    of_crossings,
    of_changes,
    of_heads,
    of_caches,
    of_prefill,
)


def count() -> Counters:
    """All counters, by name."""
    before = halfspace.get_threads()
    halfspace.set_threads(1)
    try:
        return {name: value for group in GROUPS for name, value in group().items()}
    finally:
        halfspace.set_threads(before)


def names() -> list[str]:
    """Names of the counters that were agreed to."""
    return list(json.loads(BASELINE.read_text(encoding="utf-8"))["counters"])


def read(path: Path) -> Counters:
    """Counters that were agreed to."""
    agreed = json.loads(path.read_text(encoding="utf-8"))
    if agreed["scale"] != sizes.scale():
        raise ValueError(
            f"{path}: expected counters at {sizes.VARIABLE}={sizes.scale():g},"
            f" got those at {agreed['scale']:g}"
        )
    return agreed["counters"]


def write(path: Path, found: Counters) -> None:
    """Agree to counters."""
    agreed = {"scale": sizes.scale(), "counters": {k: round(v, 4) for k, v in found.items()}}
    path.write_text(json.dumps(agreed, indent=2) + "\n", encoding="utf-8")


class Change(NamedTuple):
    """A counter that is not what was agreed to; None where there is none."""

    name: str
    agreed: float | None
    found: float | None

    @property
    def worse(self) -> bool:
        """Whether it stands in the way: it has grown, is new, or is gone."""
        return self.agreed is None or self.found is None or self.found > self.agreed

    def row(self) -> list[str]:
        shown = ("none" if value is None else f"{value:,.1f}" for value in self[1:])
        share = f"{self.found / self.agreed - 1.0:+.1%}" if self.agreed and self.found else ""
        return [self.name, *shown, share, "GROWN" if self.worse else "less"]


def changes(agreed: Counters, found: Counters) -> list[Change]:
    """Counters that differ by more than `GROWTH`, or are on one side only."""
    every = [Change(name, agreed.get(name), found.get(name)) for name in agreed | found]
    return [
        change
        for change in every
        if change.agreed is None
        or change.found is None
        or abs(change.found - change.agreed) > GROWTH * change.agreed
    ]


def check(agreed: Counters, found: Counters) -> int:
    """Print what has changed; 1 if anything has grown."""
    differing = changes(agreed, found)
    if differing:
        header = ["", "agreed", "now", "", ""]
        show("Touched work that has changed", header, [change.row() for change in differing])
    worse = [change for change in differing if change.worse]
    print(
        f"{len(found)} counters: {len(worse)} grown by more than {GROWTH:.0%},"
        f" {len(differing) - len(worse)} fallen as much"
    )
    if differing:
        print("where that is meant: python -m asv_benchmarks.counters --update", file=sys.stderr)
    return int(bool(worse))


def main(argv: Sequence[str] | None = None) -> int:
    """Check or update; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m asv_benchmarks.counters", description=__doc__)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--check", action="store_true", help="exit with 1 where work has grown")
    action.add_argument("--update", action="store_true", help="agree to what is counted now")
    parser.add_argument("--baseline", type=Path, default=BASELINE, metavar="FILE.json")
    given = parser.parse_args(argv)
    if given.check:
        return check(read(given.baseline), count())
    write(given.baseline, count())
    return 0


if __name__ == "__main__":
    sys.exit(main())
