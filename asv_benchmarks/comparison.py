"""The comparison with peers that the documentation shows: python -m asv_benchmarks.comparison.

Plays everybody against us in the same rounds, one thread each, by processor time; keeps what came
out in ``comparison.json`` and writes the tables of ``docs/comparison.md`` from it. ``--from-file``
writes the tables alone. Larger and longer are `versus`, `high`, `decode` and `prefill`.
"""

import argparse
import datetime
import json
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import numpy as np

import halfspace

from . import data, decode, prefill, sizes, truth
from .clock import by_processor_time, held_to, medians, without_collections
from .comparison_page import PACKAGES, Results, Row, written
from .contestants import (
    Built,
    Contestant,
    NumpyColumns,
    NumpyProduct,
    NumpyRows,
    ScipyBallUnsorted,
    present,
)
from .duel import Asked, Limits, Side, Way, duel, pace
from .high_contestants import (
    OURS,
    TOLD,
    FaissPanorama,
    FaissPanoramaTurned,
    FaissScaled,
    Setting,
    SklearnBall,
    TorchRows,
)

KEPT = Path(__file__).with_suffix(".json")

PAGE = Path(__file__).parents[1] / "docs" / "comparison.md"

POINTS = 200_000

FEW = 1_000
"""Points of the small cases, where calls cost more than work."""

QUERIES = 500

BATCH = 500

CHECKED = 20

SHARE = 0.001
"""Of the points, in a report."""

BEST = 100

LIMITS = Limits(rounds=3, seconds=0.3, calls=32)

TOKENS = 65_536

PREFILL_LENGTH = 8_192

ROUNDS = 3
"""Of builds."""

LOW = (NumpyRows, NumpyColumns, NumpyProduct, ScipyBallUnsorted, FaissScaled, SklearnBall)

HIGH = (NumpyRows, FaissScaled, FaissPanorama, FaissPanoramaTurned, TorchRows)

HIGH_BATCHED = (NumpyProduct, FaissScaled, FaissPanoramaTurned)


class Site(NamedTuple):
    """Points, and how they are asked about."""

    group: str
    kind: str
    n: int
    d: int
    way: str

    @property
    def told(self) -> bool:
        """Whether our index is told what will be asked: what is meant for many dimensions."""
        return self.d > 8


SITES = (
    *(Site("Reports in batches", "gauss", POINTS, d, "batch") for d in (2, 3, 4, 8, 64)),
    Site("Reports in batches", "decaying", POINTS, 64, "batch"),
    *(Site("Reports one at a time", "gauss", POINTS, d, "one") for d in (3, 16, 64, 128)),
    Site("Reports one at a time", "decaying", POINTS, 64, "one"),
    Site("Reports one at a time", "gauss", FEW, 3, "one"),
    Site("Reports one at a time", "gauss", FEW, 64, "one"),
    Site("The best 100, one at a time", "gauss", POINTS, 64, "best"),
    Site("The best 100, one at a time", "decaying", POINTS, 64, "best"),
    Site("The best 100, one at a time", "gauss", FEW, 64, "best"),
)

BUILDS = (2, 3, 8)


def way(site: Site) -> Way:
    """How the queries of a site are asked, and of whom."""
    if site.way == "batch":
        peers = HIGH_BATCHED if site.told else LOW
        size = sizes.queries(BATCH)
        return Way(f"batches of {size}", size, peers, lambda c, w, b: c.report(w, b))
    peers = HIGH if site.told else LOW
    if site.way == "one":
        return Way("one at a time", 1, peers, lambda c, w, b: [c.report_one(w[0], b[0])])
    return Way("best", 1, peers, lambda c, w, _: [c.top(w[0], BEST)], truth.wrong_best)


def ours(site: Site, setting: Setting) -> Contestant:
    """Our index."""
    return OURS[TOLD](setting) if site.told else Built(setting.points, setting.threads)


def play(site: Site) -> Iterator[Row]:
    """Let all meet ours at one site."""
    asked_queries = sizes.queries(QUERIES)
    drawn = data.HIGH_GENERATORS[site.kind](sizes.points(site.n) + 2 * asked_queries, site.d)
    points, normals = data.held_back(drawn, 2 * asked_queries)
    told, normals = normals[asked_queries:], normals[:asked_queries]
    count = max(1, round(SHARE * len(points)))
    checked = normals[: sizes.queries(CHECKED)]
    if site.way == "best":
        asked = Asked(normals, np.zeros(len(normals), points.dtype))
        truths = truth.tops(points, checked, BEST)
    else:
        asked = Asked(normals, data.kth_scores(points, normals, count))
        truths = truth.insides(points, checked, asked.offsets[: len(checked)])
    setting = Setting(points, told, count, 1)
    ours(site, setting._replace(points=points[:FEW]))  # compiled before the clock runs
    champion, how = ours(site, setting), way(site)
    with without_collections():
        side = Side(champion, pace(champion, how, asked, LIMITS))
        for peer in present(how.peers)[0]:
            rival = peer(points, 1)
            outcome = duel(side, rival, how, asked, truths, LIMITS)
            case = f"{site.kind}, {len(points):,} x {site.d}"
            times = outcome.own_time, outcome.time
            package = PACKAGES[peer.family]
            yield Row(site.group, case, package, peer.name, *times, outcome.wrong)


def builds() -> Iterator[Row]:
    """Trees, ours and scipy's."""
    from scipy.spatial import cKDTree

    for d in BUILDS:
        points = data.gauss(sizes.points(POINTS), d)
        halfspace.KDTree(points[:FEW])
        tasks = {"ours": lambda p=points: halfspace.KDTree(p), "peer": lambda p=points: cKDTree(p)}
        taken = medians(tasks, ROUNDS)
        case = f"gauss, {len(points):,} x {d}"
        yield Row("Building a k-d tree", case, "scipy", "scipy cKDTree", *taken.values(), None)


def decoding() -> Iterator[Row]:
    """One new query of each head."""
    n = sizes.points(TOKENS)
    error = decode.attention.Error(decode.EPS)
    cases = (
        ("sharp, 1 head", decode.synthetic(1, 1, n, 128, decode.SHARP), error),
        ("sharp, 8 heads of 4 queries", decode.synthetic(8, 4, n // 4, 128, decode.SHARP), error),
        ("flat, 1 head, sampled", decode.synthetic(1, 1, n, 128, decode.FLAT), decode.SAMPLED),
        ("flat, 1 head", decode.synthetic(1, 1, n, 128, decode.FLAT), error),
    )
    for name, make, rule in cases:
        outcome = decode.play(decode.Case(name, make, rule, 1.0), 1)
        yield from _attention("Decoding", name, outcome.times)


def prefilling() -> Iterator[Row]:
    """All rows of a causal head."""
    for case in prefill.CASES:
        outcome = prefill.play(case, sizes.points(PREFILL_LENGTH), 1)
        yield from _attention("Causal prefill", case.name, outcome.times)


def _attention(group: str, case: str, times: dict[str, float]) -> Iterator[Row]:
    for name, taken in times.items():
        if name != "attention":
            yield Row(group, case, name.split()[0], name, times["attention"], taken, None)


def rows() -> Iterator[Row]:
    """Everything that is compared."""
    for site in SITES:
        yield from play(site)
    yield from builds()
    yield from decoding()
    yield from prefilling()


def versions() -> dict[str, str]:
    """Of ours and of all peers that are installed."""
    found = {}
    for package, distribution in {
        "halfspace": "halfspace-reporting",
        "numpy": "numpy",
        "scipy": "scipy",
        "faiss": "faiss-cpu",
        "scikit-learn": "scikit-learn",
        "torch": "torch",
    }.items():
        try:
            found[package] = version(distribution)
        except PackageNotFoundError:
            continue
    return found


def measured(note: str) -> Results:
    """Play everything, and say of it where and when."""
    load = os.getloadavg()[0]
    machine = f"{platform.machine()}, {os.cpu_count()} processors"
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    found = []
    with held_to(1) as complaints, by_processor_time():
        for complaint in complaints:
            print(complaint)
        for row in rows():
            found.append(row)
            print(f"{row.group}, {row.case}, {row.peer}: {row.ratio:.2f}x", file=sys.stderr)
    return Results(date, machine, round(load, 1), note, versions(), found)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, unless told not to, and write the page's tables."""
    parser = argparse.ArgumentParser(prog="python -m asv_benchmarks.comparison")
    parser.add_argument("--from-file", action="store_true", help="tables only, of the kept results")
    parser.add_argument("--note", default="", help="to be said of the machine")
    parser.add_argument("--json", type=Path, default=KEPT, metavar="FILE.json")
    parser.add_argument("--page", type=Path, default=PAGE, metavar="FILE.md")
    given = parser.parse_args(argv)
    if not given.from_file:
        results = measured(given.note)
        given.json.write_text(json.dumps(results.as_dict(), indent=1) + "\n", encoding="utf-8")
    results = Results.of_dict(json.loads(given.json.read_text(encoding="utf-8")))
    page = given.page.read_text(encoding="utf-8")
    given.page.write_text(written(page, results), encoding="utf-8")


if __name__ == "__main__":
    main()
