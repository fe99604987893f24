"""Tables of the benchmark of many dimensions, and what it is meant to show."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from .duel import Outcome, Way
from .high_contestants import AUTOS, OURS, REFERENCE, FaissScaled
from .high_play import BEST_ONE, ONE, Cell, Floor, batches
from .tables import show

AUTO_SLACK = 1.1
"""Times the best of ours that what `build` chooses may take."""

MOST_MEMORY = 1.5
"""Bytes of an index over those of its points."""

MOST_ROTATIONS = 8.0
"""Time of a build over that of a product that rotates all points."""


class Target(NamedTuple):
    """Cells in which the best rival must take at least `ratio` times as long as the reference."""

    kind: str
    ways: tuple[Way, ...]
    ratio: float
    d: int | None = None  # any
    label: str | None = None  # any
    peer: str | None = None  # the best

    def meets(self, cell: Cell) -> bool:
        """Whether it is about that cell."""
        return (
            cell.site.kind == self.kind
            and self.d in (None, cell.shape[1])
            and self.label in (None, cell.label)
        )


BATCHES = (batches(32), batches(256))

TARGETS = (
    *(Target("gauss", (ONE,), 4.0, d, "0.1 %") for d in (64, 128, 256)),
    Target("decaying", (ONE,), 12.0, 128, "0.1 %"),
    Target("keys", (ONE,), 3.0, 32, "0.1 %"),
    Target("keys", (ONE,), 1.5, 32, "1 %"),
    Target("gauss", BATCHES, 1.0),
    Target("decaying", BATCHES, 2.0),
    *(Target(kind, (BEST_ONE,), 3.0, 128, peer=FaissScaled.name) for kind in ("gauss", "decaying")),
)


def shown_time(outcome: Outcome) -> str:
    """Milliseconds a query, and times the reference's."""
    return f"{1e3 * outcome.time:.3f} ({outcome.ratio:.2f}x)"


def show_site(cells: Sequence[Cell]) -> None:
    """Times, ratios and wrong ids at one site, a table for every way of asking."""
    n, d = cells[0].shape
    for title in dict.fromkeys(title for cell in cells for title in cell.outcomes):
        shown = [cell for cell in cells if title in cell.outcomes]
        rows = []
        for name in shown[0].outcomes[title]:
            outcomes = [cell.outcomes[title][name] for cell in shown]
            wrong, checked = (
                sum(column) for column in zip(*(o[2:] for o in outcomes), strict=True)
            )
            rows.append([name, *map(shown_time, outcomes), f"{wrong} in {checked}"])
        show(
            f"{cells[0].site.name}, {n:,} x {d}, {title}: ms a query (times {REFERENCE}'s)",
            ["", *(f"k = {cell.count:,}" for cell in shown), "wrong, queries"],
            rows,
        )


def shown_build(cell: Cell, name: str) -> str:
    """Seconds and size of an index of ours."""
    return f"{cell.builds[name]:.2f} s, {cell.held[name]:.2f}x" if name in cell.builds else ""


def show_builds(cells: Sequence[Cell]) -> None:
    """Seconds to build ours, beside a product that rotates all points, and their size."""
    ours = [name for name in OURS if any(name in cell.builds for cell in cells)]
    show(
        "Building, and bytes over those of the points",
        ["", "ids", "X @ R", *ours, f"{REFERENCE} / X @ R"],
        [
            [
                cell.site.name,
                cell.label,
                f"{cell.rotation:.2f} s",
                *(shown_build(cell, name) for name in ours),
                f"{rotations(cell):.1f}",
            ]
            for cell in cells
        ],
    )


def shown_rates(floor: Floor) -> list[str]:
    """Rates at which codes are read, and shares of the memory's."""
    rates = floor.codes or ()
    return [f"{rate / 1e9:.1f} GB/s, {rate / floor.rate:.0%}" for rate in rates] or [""] * 3


def show_floor(cells: Sequence[Cell]) -> None:
    """What the reference reads, at the bandwidth of the machine, beside what it takes."""
    rows = []
    for cell in cells:
        if cell.floor is None:
            continue
        n, d = cell.shape
        taken, least = cell.outcomes[ONE.title][REFERENCE].time, cell.floor.nbytes / cell.floor.rate
        rows.append(
            [
                cell.site.name,
                cell.label,
                f"{cell.floor.nbytes / 1e6:.1f}",
                f"{cell.floor.nbytes / (4 * n * d):.1%}",
                f"{cell.floor.rate / 1e9:.1f}",
                f"{1e3 * least:.3f}",
                f"{1e3 * taken:.3f}",
                f"{taken / least:.2f}x",
                *shown_rates(cell.floor),
            ]
        )
    if rows:
        reading = ["MB read", "of points", "GB/s", "floor ms"]
        alone = ["codes alone", "first after other work", "plain loop then"]
        header = ["", "ids", *reading, "ms", "times floor", *alone]
        show(f"How close {REFERENCE} comes to reading what it reads", header, rows)
    else:
        print(f"\nHow close to the floor: {REFERENCE} does not tell what it reads")


def rivalry(target: Target, cell: Cell, way: Way) -> tuple[float, str]:
    """Times the reference's that the fastest rival takes, and its name."""
    outcomes = cell.outcomes.get(way.title, {})
    names = [name for name in outcomes if name not in OURS and target.peer in (None, name)]
    return min(((outcomes[name].ratio, name) for name in names), default=(float("inf"), ""))


def rival_rows(cells: Sequence[Cell]) -> Iterable[list[str]]:
    """Whether rivals take as long as they should, by the cell where they are closest."""
    for target in TARGETS:
        for way in target.ways:
            found = [
                (*rivalry(target, cell, way), cell)
                for cell in cells
                if way.title in cell.outcomes and target.meets(cell)
            ]
            if not found:
                continue
            ratio, name, cell = min(found, key=lambda entry: entry[0])
            what = f"{cell.site.name}, {way.title}, {cell.label}: {name}"
            met = "met" if ratio >= target.ratio else "NOT MET"
            yield [what, f"at least {target.ratio:g}x", f"{ratio:.2f}x", met]


def most_row(
    what: str, most: float, cells: Sequence[Cell], value: Callable[[Cell], float]
) -> list[str]:
    """Whether something is small enough wherever it is measured."""
    worst = max(cells, key=value)
    met = "met" if value(worst) <= most else "NOT MET"
    where = f"{worst.site.name}, {worst.label}"
    return [f"{what} ({where})", f"at most {most:g}x", f"{value(worst):.2f}x", met]


def shown_autos(cell: Cell, name: str) -> Iterable[str]:
    """Ways in which `build` was asked, and what it took there over the best structure."""
    for title, beaten in cell.autos.items():
        if name in beaten:
            yield f"{beaten[name].ratio:.2f} of {beaten[name].structure} ({title})"


def show_autos(cells: Sequence[Cell]) -> None:
    """What `build` chose beside the best structures that are told no more."""
    names = [name for name in AUTOS if name in cells[0].builds]
    rows = [
        [cell.site.name, f"{cell.count:,}", name, ", ".join(shown_autos(cell, name))]
        for cell in cells
        for name in names
    ]
    if rows:
        title = "What build chose: times the best of the structures that are told no more"
        show(title, ["", "ids", "", "ratios"], rows)


def over_best(cell: Cell, name: str) -> float:
    """Times the best structure, told no more, that `build` takes, in the way where it is worst."""
    return max(beaten[name].ratio for beaten in cell.autos.values() if name in beaten)


def over_best_row(cells: Sequence[Cell], name: str) -> list[str]:
    """Whether what `build` makes is near the best structure everywhere."""
    what = f"{name} / best structure told no more"
    return most_row(what, AUTO_SLACK, cells, lambda c: over_best(c, name))


def rotations(cell: Cell) -> float:
    """Time of the reference's build over that of a product that rotates all points."""
    return cell.builds[REFERENCE] / cell.rotation


def show_targets(cells: Sequence[Cell]) -> None:
    """Say whether every target is met that this run has cells for; the worst cell counts."""
    rows = [
        *rival_rows(cells),
        *(over_best_row(cells, name) for name in AUTOS if any(shown_autos(cells[0], name))),
        most_row("bytes / points'", MOST_MEMORY, cells, lambda c: c.held[REFERENCE]),
    ]
    if at_128 := [cell for cell in cells if cell.shape[1] == 128]:
        rows.append(most_row("build / X @ R", MOST_ROTATIONS, at_128, rotations))
    own_wrong = sum(
        outcome.wrong
        for cell in cells
        for outcomes in cell.outcomes.values()
        for name, outcome in outcomes.items()
        if name in OURS
    )
    rows.append(["wrong ids of ours", "0", str(own_wrong), "NOT MET" if own_wrong else "met"])
    show(f"Targets, for {REFERENCE}", ["", "wanted", "measured", ""], rows)
    print("  meant for 1,000,000 points, 131,072 keys")
