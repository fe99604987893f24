"""Reports in 16 to 256 dimensions, and the best 100: python -m asv_benchmarks.high.

A section of `versus`, which shows a part of it. Every contestant meets our reference by itself, in
the same rounds, and ratios are those of such duels. An index that can be told what will be asked is
told so by other queries of the same law.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .clock import held_to
from .contestants import present
from .duel import Limits
from .high_contestants import BATCHED, SINGLE, TOP
from .high_play import BEST_ONE, COUNTS, ONE, Plan, batches, play_site
from .high_sites import DIMENSIONS, KINDS, Choice, sites
from .high_tables import show_autos, show_builds, show_floor, show_site, show_targets

REDUCED = Plan(
    Choice(kinds=("gauss", "decaying"), dims=(64, 128)),
    ways=(ONE, batches(32), BEST_ONE),
    counts=("0.1 %",),
)
"""What `versus` shows."""

LEFT_OUT = "mlpack FastMKS: left out, a model asked again answers wrongly or crashes (4.8.0)"

WAYS = {"single": (ONE,), "batch": (batches(32), batches(256)), "top": (BEST_ONE,)}


def show_high(threads: int, plan: Plan | None = None) -> None:
    """Play all sites of a plan or of `REDUCED`; print times, ratios, whether they are as wanted."""
    plan = (plan or REDUCED).shrunk()
    chosen, complaints = sites(plan.choice)
    peers = dict.fromkeys((*SINGLE, *BATCHED, *TOP))
    for complaint in (*present(list(peers))[1], LEFT_OUT, *complaints):
        print(complaint)
    cells = []
    for site in chosen:
        print(f"playing {site.name}", file=sys.stderr)
        played = list(play_site(site, plan, threads))
        show_site(played)
        cells += played
    if not cells:
        return
    show_builds(cells)
    show_floor(cells)
    show_autos(cells)
    show_targets(cells)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m asv_benchmarks.high", description=__doc__)
    parser.add_argument("--dims", nargs="+", type=int, default=DIMENSIONS, metavar="D")
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS, help="of points")
    parser.add_argument("--counts", nargs="+", default=tuple(COUNTS), choices=COUNTS, help="of ids")
    parser.add_argument("--skip", nargs="+", default=(), metavar="WORD", help="in their names")
    parser.add_argument("--only", choices=WAYS, help="one way of asking")
    parser.add_argument("--points", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="for everybody; 1")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--queries", type=int, default=32, metavar="M", help="at most, one by one")
    parser.add_argument("--seconds", type=float, default=0.5, metavar="S", help="a timing, about")
    parser.add_argument("--any-normals", action="store_true", help="of all directions alike")
    parser.add_argument(
        "--capture", type=Path, metavar="FILE.npz", help="keys k_L_H, queries q_L_H"
    )
    parser.add_argument(
        "--embeddings", type=Path, metavar="FILE.npy", help="rows, some of them ask"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run and print what was chosen."""
    given = arguments(argv)
    choice = Choice(
        given.kinds, given.dims, given.points, given.any_normals, given.capture, given.embeddings
    )
    every = tuple(way for ways in WAYS.values() for way in ways)
    limits = Limits(given.rounds, given.seconds, given.queries)
    ways, counts = WAYS.get(given.only, every), tuple(given.counts)
    plan = Plan(choice, ways, counts, limits, tuple(given.skip))
    with held_to(given.threads) as unheld:
        for complaint in unheld:
            print(complaint)
        show_high(given.threads, plan)


if __name__ == "__main__":
    main()
