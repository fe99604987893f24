"""error-vs-r: what softmax attention loses when it reads r keys of n."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..decode import Decoder
from ..rules import TopR
from . import figures
from .heads import MODULES, Head, Sources
from .study import CHECK, EXPERIMENT, Finding, Study, Table, Track, grouped, setting, silent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEGLIGIBLE = 0.01
"""Relative error that is called negligible here."""

LEAST_R = 4

SINGLE_HEADS = 8
"""Heads of a source that have lines of their own; of more only medians are shown."""


@dataclass(frozen=True)
class Settings(Sources):
    """What is run."""

    temperatures: tuple[float, ...] = setting(
        (0.5, 1.0, 2.0), "Temperatures that scores are divided by; 1 is always among them."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(0.0 < each < float("inf") for each in self.temperatures):
            raise ValueError(f"temperatures: expected numbers above 0, got {self.temperatures}")


class Row(NamedTuple):
    """One head at one temperature, r keys read of n; medians over its queries."""

    source: str
    head: str
    temperature: float
    n: int
    r: int
    paper: bool  # whether r is the paper's n^(4/5)
    missed: float  # share of the softmax mass
    relative: float  # error / norm of the exact output
    error: float  # of the worst coordinate
    bound: float  # certified


def counts(n: int) -> list[int]:
    """Powers of two from 4, the paper's n^(4/5), and shares of n that approach it.

    Examples
    --------
    >>> from attention.studies.error_vs_r import counts
    >>> counts(40)
    [4, 8, 16, 20, 30, 32, 35, 38, 39, 40]
    """
    powers = [LEAST_R << i for i in range(n.bit_length())]
    most = {n - (n >> i) for i in range(2, 7)}
    return sorted(
        {r for r in powers if r < n} | {r for r in most if r >= LEAST_R} | {TopR().count(n), n}
    )


def missed_mass(head: Head, counts: Sequence[int]) -> np.ndarray:
    """Share of the softmax mass outside the r best keys, (len(counts), m)."""
    scores = -np.sort(-head.scores(), axis=1)
    mass = np.cumsum(np.exp(scores - scores[:, :1]), axis=1)
    return np.maximum(0.0, 1.0 - mass[:, np.asarray(counts) - 1].T / mass[:, -1])


def measure(head: Head, temperature: float, decoder: Decoder) -> Iterator[Row]:
    """Rows of a head at a temperature."""
    asked, n = head.at(temperature), len(head.key)
    exact, grid = asked.exact(), counts(n)
    norms = np.maximum(np.linalg.norm(exact, axis=1), np.finfo(float).tiny)
    everything = bool((asked.lengths == n).all())
    lengths = None if everything else asked.lengths
    for r, missed in zip(grid, missed_mass(asked, grid), strict=True):
        got = decoder.softmax(asked.query, TopR(r), lengths=lengths)
        off = got.output - exact
        yield Row(
            head.source,
            head.name,
            temperature,
            n,
            r,
            r == TopR().count(n),
            *(
                float(np.median(values))
                for values in (
                    missed,
                    np.linalg.norm(off, axis=1) / norms,
                    np.abs(off).max(axis=1),
                    got.bound,
                )
            ),
        )


def run(settings: Settings, track: Track = silent) -> list[Row]:
    """Measure every head at every temperature."""
    temperatures = sorted({1.0, *settings.temperatures})
    rows: list[Row] = []
    for head in track(settings.gather(), "heads"):
        decoder = head.decoder()
        for temperature in temperatures:
            rows += measure(head, temperature, decoder)
    return rows


def needed(rows: Sequence[Row]) -> int:
    """Least r of a head at a temperature whose error is negligible."""
    return min((row.r for row in rows if row.relative <= NEGLIGIBLE), default=rows[0].n)


def by_head(rows: Sequence[Row]) -> dict[tuple[str, str, float], list[Row]]:
    """Rows of each (source, head, temperature)."""
    return grouped(rows, "source", "head", "temperature")


def table(rows: Sequence[Row]) -> Table:
    """A line for each head and temperature."""
    header = (
        "head",
        "temperature",
        "n",
        "r = n^(4/5)",
        "missed mass",
        "relative error",
        "error",
        "certified bound",
        f"r for {NEGLIGIBLE:.0%} error",
        "of n",
    )
    found: dict[tuple[str, float], list[list[Row]]] = {}
    for (source, _, temperature), mine in by_head(rows).items():
        found.setdefault((source, temperature), []).append(mine)
    lines = []
    for heads in found.values():
        if len(heads) <= SINGLE_HEADS:
            lines += [_line(f"{mine[0].source} {mine[0].head}", [mine]) for mine in heads]
        else:
            lines.append(_line(f"{heads[0][0].source}, median of {len(heads)}", heads))
    return Table(header, lines)


def _line(name: str, heads: Sequence[Sequence[Row]]) -> tuple[str, ...]:
    """Medians over heads of one source at one temperature."""
    at = [row for mine in heads for row in mine if row.paper]

    def median(field: str) -> float:
        return float(np.median([getattr(row, field) for row in at]))

    least = float(np.median([needed(mine) for mine in heads]))
    return (
        name,
        f"{at[0].temperature:g}",
        f"{at[0].n:,}",
        f"{at[0].r:,}",
        f"{median('missed'):.2%}",
        f"{median('relative'):.2%}",
        f"{median('error'):.2g}",
        f"{median('bound'):.2g}",
        f"{least:,.0f}",
        f"{least / at[0].n:.1%}",
    )


def at_paper(rows: Sequence[Row], temperature: float | None = None) -> list[Row]:
    """Rows where r is the paper's, at one temperature or all."""
    return [row for row in rows if row.paper and temperature in (None, row.temperature)]


def accuracy(rows: Sequence[Row]) -> str:
    """Experiment 1: whether the error at n^(4/5) is negligible, and what r makes it so."""
    here = at_paper(rows, 1.0)
    good = sum(row.relative <= NEGLIGIBLE for row in here)
    best, worst = (pick(here, key=lambda row: row.relative) for pick in (min, max))
    shares = [needed(mine) / mine[0].n for key, mine in by_head(rows).items() if key[2] == 1.0]
    verdict = "all" if good == len(here) else "none" if not good else f"{good}"
    return (
        f"With the n^(4/5) best keys {verdict} of {len(here)} heads are within {NEGLIGIBLE:.0%} of"
        f" the exact output: {best.source} {best.head} is off by {best.relative:.2%} (missed mass"
        f" {best.missed:.2%}), {worst.head} by {worst.relative:.0%} (missed mass"
        f" {worst.missed:.0%}). An error of {NEGLIGIBLE:.0%} takes {min(shares):.1%} of the keys"
        f" in the easiest head and {max(shares):.0%} in the hardest, so "
        + (
            "no one power of n serves all."
            if max(shares) > 4.0 * min(shares)
            else "one power of n serves all of them."
        )
    )


def conditions(rows: Sequence[Row]) -> str:
    """Check 1: whether that holds at other temperatures, and in all heads."""
    temperatures = sorted({row.temperature for row in rows})
    missed = {t: float(np.median([r.missed for r in at_paper(rows, t)])) for t in temperatures}
    told = ", ".join(f"{share:.1%} at temperature {t:g}" for t, share in missed.items())
    here = at_paper(rows, 1.0)
    least, most = (pick(here, key=lambda row: row.missed) for pick in (min, max))
    by_source: dict[str, list[float]] = {}
    for row in here:
        by_source.setdefault(row.source, []).append(row.missed)
    sources = ", ".join(f"{name} {np.median(each):.2%}" for name, each in by_source.items())
    held = [t for t in temperatures if all(r.relative <= NEGLIGIBLE for r in at_paper(rows, t))]
    verdict = (
        f"the error is negligible in every head at temperature {', '.join(f'{t:g}' for t in held)}"
        if held
        else "at none of them is the error negligible in every head"
    )
    return (
        f"The n^(4/5) best keys of the median head miss {told}; {verdict}."
        f" Between heads at temperature 1 the missed mass runs from {least.missed:.2%}"
        f" ({least.source} {least.head}) to {most.missed:.0%} ({most.source} {most.head});"
        f" by what is read, the median head: {sources}."
    )


def plot(rows: Sequence[Row], figure: "Figure") -> None:
    """Error against the share of keys read on the left, temperatures at n^(4/5) on the right."""
    left, right = figure.subplots(1, 2)
    heads = list(dict.fromkeys((row.source, row.head) for row in rows))
    sources = list(dict.fromkeys(source for source, _ in heads))
    single = len(heads) <= SINGLE_HEADS
    for i, (source, head) in enumerate(heads):
        mine = [row for row in rows if (row.source, row.head) == (source, head)]
        colour = f"C{i if single else sources.index(source)}"
        _curves(left, right, mine, colour, 1.5 if single else 0.7)
        if single:
            figures.entry(left, f"{source} {head}", color=colour)
    if not single:
        for i, source in enumerate(sources):
            figures.entry(left, source, color=f"C{i}")
    left.axhline(NEGLIGIBLE, color="0.6", linewidth=1.0)
    left.set(xlabel="share of keys read (dot: n^(4/5) keys)", ylabel="relative error (median)")
    left.set_ylim(1e-5, 3.0)
    right.set(xlabel="temperature", ylabel="mass missed by the n^(4/5) best keys")
    right.set_ylim(1e-7, 1.5)
    figures.plain(left, right)
    figures.legend(left)


def _curves(left: "Axes", right: "Axes", mine: Sequence[Row], colour: str, width: float) -> None:
    """Draw a head into both panels."""
    line = [row for row in mine if row.temperature == 1.0]
    shares, errors = zip(*((r.r / r.n, max(r.relative, 1e-8)) for r in line), strict=True)
    left.loglog(shares, errors, color=colour, linewidth=width)
    dots = [(row.r / row.n, max(row.relative, 1e-8)) for row in line if row.paper]
    left.plot(*zip(*dots, strict=True), "o", color=colour, markersize=3 + width)
    warm = sorted(at_paper(mine), key=lambda row: row.temperature)
    missed = [max(row.missed, 1e-8) for row in warm]
    temperatures = [row.temperature for row in warm]
    right.semilogy(temperatures, missed, "o-", color=colour, markersize=3, linewidth=width)


STUDY = Study(
    name="error-vs-r",
    title="Error against the number of keys read",
    about=(
        "Softmax attention over the r keys of largest score, against all keys in float64: on real"
        " heads of a trained encoder, on those of the packaged language model over texts of several"
        " kinds, and on captured ones where they are given, at several temperatures. All figures"
        " are medians over queries; the bound is the certificate that comes with each output."
    ),
    settings=Settings,
    row=Row,
    run=run,
    table=table,
    plot=plot,
    findings=(
        Finding(
            EXPERIMENT,
            1,
            "Accuracy against the number of activated entries",
            "reading the n^(4/5) massively activated entries of softmax attention costs an error"
            " that is provably negligible.",
            accuracy,
        ),
        Finding(
            CHECK,
            1,
            "Accuracy under other conditions",
            "the error falls as n^-(γ + (β1 − β2)‖q‖ − 1) for heads with massive activation; it is"
            " seen in the perplexity of three models on one text.",
            conditions,
        ),
    ),
    wants=MODULES,
    wanted_for="heads of models",
    extra="torch",
)
