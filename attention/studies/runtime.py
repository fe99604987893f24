"""runtime: certified sparse attention against dense attention, over context lengths."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..attended import Attended
from ..decode import Decoder
from ..heads import softmax_attention
from ..rules import Error, Rule, Sampled
from . import figures, timing
from .dense_rivals import rivals
from .heads import Head, gaussian, packaged
from .study import EXPERIMENT, Finding, Study, Table, Track, check_least, grouped, setting, silent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DECODE, CHUNK, PREFILL = "decode", "chunk", "prefill"
"""One query a call over keys that are indexed; many a call; a whole causal prompt, from scratch."""

CHUNK_QUERIES = 64

TITLES = {
    DECODE: "one query a call",
    CHUNK: f"{CHUNK_QUERIES} queries a call",
    PREFILL: "whole causal prompts",
}

FRESH = 64
"""Queries that take turns."""

CHECKED = 4
"""Calls, or rows of a prompt, whose errors are measured against float64."""

RULES: dict[str, Callable[[float], Rule]] = {
    "Error": Error,
    "Sampled": lambda eps: Sampled(5.0 * eps, 1e-3, seed=0),
}


@dataclass(frozen=True)
class Settings:
    """What is run."""

    dims: tuple[int, ...] = setting((16, 64, 128), "Head dimensions.", quick=(64,))
    stds: tuple[float, ...] = setting(
        (1.0, 3.0, 6.0), "Sharpness: standard deviations of Gaussian scores.", quick=(1.0, 6.0)
    )
    exponents: tuple[int, ...] = setting(
        (10, 12, 14, 16, 18, 20), "Keys, as powers of 2.", quick=(10, 13, 16)
    )
    chunk_exponents: tuple[int, ...] = setting(
        (10, 12, 14, 16, 18),
        f"Those of them that are asked {CHUNK_QUERIES} queries a call too.",
        quick=(10, 13, 16),
    )
    prefill_exponents: tuple[int, ...] = setting(
        (10, 12, 14), "Tokens of whole prompts, as powers of 2.", quick=(10, 11)
    )
    eps: float = setting(0.01, "Error of a coordinate that is allowed; five times that if sampled.")
    rounds: int = setting(5, "Rounds of timing; half as many of prompts.", quick=3)

    def __post_init__(self) -> None:
        check_least("dims", self.dims, 1, most=1024)
        check_least("stds", self.stds, 0.0, most=1e3)
        check_least("exponents", self.exponents, 4, most=26)
        check_least("chunk-exponents", self.chunk_exponents, 4, most=26)
        check_least("prefill-exponents", self.prefill_exponents, 4, most=18)
        check_least("eps", (self.eps,), 1e-12, most=1.0)
        check_least("rounds", (self.rounds,), 1)


class Row(NamedTuple):
    """One way on one head of n keys."""

    way: str  # DECODE, CHUNK or PREFILL
    head: str
    d: int
    n: int
    rule: str
    seconds: float  # a query
    dense: float  # of the best dense rival
    rival: str
    build: float  # seconds to index the keys; 0 where that is part of `seconds`
    read: float  # mean share of the keys
    error: float  # largest of the checked rows
    bound: float  # of those rows
    broken: int  # of those rows, beyond their bound

    @property
    def gain(self) -> float:
        """Times as fast as dense."""
        return self.dense / self.seconds


def run(settings: Settings, track: Track = silent) -> list[Row]:
    """Time everybody on every head."""
    rows: list[Row] = []
    cases = [*product(settings.dims, sorted(settings.exponents))]
    for d, exponent in track(cases, "decoding"):
        ways = (DECODE, CHUNK) if exponent in settings.chunk_exponents else (DECODE,)
        rows += indexed([*_gaussians(1 << exponent, d, settings.stds)], settings, ways)
    for head in track(packaged(FRESH), "real heads"):
        rows += indexed([head], settings, (DECODE, CHUNK))
    cases = [*product(settings.dims, sorted(settings.prefill_exponents))]
    for d, exponent in track(cases, "prompts"):
        for head in _gaussians(1 << exponent, d, settings.stds, whole=True):
            rows.append(prompt(head, settings))
    return rows


def _gaussians(n: int, d: int, stds: Sequence[float], whole: bool = False) -> Iterator[Head]:
    """The same Gaussian keys, asked by queries of different sharpness."""
    head = gaussian(n, d, 1.0, n if whole else FRESH)
    for std in stds:
        yield head._replace(name=f"std {std:g}", query=head.query * np.float32(std))


def indexed(heads: Sequence[Head], settings: Settings, ways: Sequence[str]) -> Iterator[Row]:
    """Rows of heads of the same keys, which are indexed before: one query a call, and many."""
    decoder, build = timing.timed(heads[0].decoder)
    for head, way in product(heads, ways):
        yield from asked(head, decoder, build, way, settings)


def asked(
    head: Head, decoder: Decoder, build: float, way: str, settings: Settings
) -> Iterator[Row]:
    """Rows of a head whose keys are in a decoder, a row a rule."""
    size = {DECODE: 1, CHUNK: CHUNK_QUERIES}[way]
    starts = range(0, len(head.query) - size + 1, size)
    queries = _in_turns(head.query, cycle(starts), size)
    rules = {
        name: make(settings.eps) for name, make in RULES.items() if way == DECODE or name == "Error"
    }

    def ours(rule: Rule, some: np.ndarray) -> Attended:
        return decoder.softmax(some, rule, dtype=np.float32)

    tasks: dict[str, Callable[[], object]] = {
        name: lambda rule=rule: ours(rule, queries()) for name, rule in rules.items()
    }
    tasks |= rivals(head, queries, causal=False)
    timing.medians(tasks, 1)  # compiles
    taken = timing.medians(tasks, settings.rounds)
    for name, rule in rules.items():
        places = [np.arange(start, start + size) for start in starts[:CHECKED]]
        got = [ours(rule, head.query[some]) for some in places]
        checks = _checks(head, np.concatenate(places), got)
        yield _row(way, head, name, taken, size, build, checks)


def _in_turns(rows: np.ndarray, starts: Iterator[int], size: int) -> Callable[[], np.ndarray]:
    """Other rows with every call."""

    def some() -> np.ndarray:
        start = next(starts)
        return rows[start : start + size]

    return some


def prompt(head: Head, settings: Settings) -> Row:
    """The row of a whole causal prompt, everything from scratch."""
    rule, length = Error(settings.eps), len(head.key)

    def ours() -> Attended:
        return softmax_attention(head.query, head.key, head.value, rule=rule, causal="upper_left")

    tasks = {"Error": ours} | rivals(head, lambda: head.query, causal=True)
    timing.medians(tasks, 1)
    taken = timing.medians(tasks, max(1, settings.rounds // 2))
    seen = head._replace(lengths=np.arange(1, length + 1))
    checks = _checks(seen, np.arange(length), [ours()])
    return _row(PREFILL, seen, "Error", taken, length, 0.0, checks)


class Checks(NamedTuple):
    """What was read, and errors against float64."""

    read: float  # mean share of the keys
    error: float  # largest
    bound: float
    broken: int


def _checks(head: Head, asked: np.ndarray, got: Sequence[Attended]) -> Checks:
    """Look at answers to these queries: what all read, how far a few are off."""
    output, bound, reported = (
        np.concatenate([getattr(each, name) for each in got])
        for name in ("output", "bound", "reported")
    )
    few = np.linspace(0, len(asked) - 1, min(CHECKED, len(asked))).astype(int)
    some = head._replace(query=head.query[asked[few]], lengths=head.lengths[asked[few]])
    errors = np.abs(output[few] - some.exact()).max(axis=1)
    return Checks(
        float(np.mean(reported / head.lengths[asked])),
        float(errors.max()),
        float(bound[few].max()),
        # What float64 itself may be off by.
        int((errors > bound[few] + 1e-12).sum()),
    )


def _row(
    way: str,
    head: Head,
    rule: str,
    taken: dict[str, float],
    size: int,
    build: float,
    checks: Checks,
) -> Row:
    best = min((name for name in taken if name not in RULES), key=taken.__getitem__)
    name = head.name if head.source == "gaussian" else f"{head.source} {head.name}"
    n, d = head.key.shape
    return Row(way, name, d, n, rule, taken[rule] / size, taken[best] / size, best, build, *checks)


Line = tuple[str, str, int, str]
"""Way, head, dimensions, rule."""


def lines(rows: Sequence[Row]) -> dict[Line, list[Row]]:
    """Rows of each way, head, dimension and rule by growing n."""
    return grouped(sorted(rows, key=lambda row: row.n), "way", "head", "d", "rule")


def crossover(line: Sequence[Row]) -> int | None:
    """Least n from which on all are faster than dense; None if the largest is not.

    Examples
    --------
    >>> from attention.studies.runtime import crossover
    >>> crossover([])
    """
    found = None
    for row in reversed(line):
        if row.gain <= 1.0:
            break
        found = row.n
    return found


def table(rows: Sequence[Row]) -> Table:
    """A line for each way, head, dimension and rule: the most keys, and the crossover."""
    header = (
        "way",
        "head",
        "d",
        "rule",
        "n",
        "time",
        "dense",
        "times as fast",
        "keys read",
        "error",
        "bound",
        "broken",
        "index pays after queries",
        "faster from n on",
    )
    cells = []
    for (way, head, d, rule), line in lines(rows).items():
        last, start = line[-1], crossover(line)
        cells.append(
            (
                way,
                head,
                str(d),
                rule,
                f"{last.n:,}",
                timing.duration(last.seconds),
                f"{timing.duration(last.dense)} {last.rival}",
                f"{last.gain:.2f}×",
                f"{last.read:.1%}",
                f"{last.error:.1g}",
                f"{last.bound:.1g}",
                str(sum(row.broken for row in line)),
                _paid(last),
                "never" if start is None else f"{start:,}",
            )
        )
    return Table(header, sorted(cells, key=lambda cell: [*TITLES].index(cell[0])))


def _paid(row: Row) -> str:
    if row.way == PREFILL:
        return "–"
    return f"{row.build / (row.dense - row.seconds):,.0f}" if row.gain > 1.0 else "never"


def speed(rows: Sequence[Row]) -> str:
    """Experiment 2: from which context length on it is faster than dense, by how much."""
    found = lines(rows)
    told = []
    for way in TITLES:
        mine = [line for key, line in found.items() if key[0] == way]
        if mine:
            told.append(_of_way(way, mine))
    broken = sum(row.broken for row in rows)
    bounds = "every checked bound holds" if not broken else f"{broken} checked bounds are broken"
    return f"{' '.join(told)} Threshold search and certificate are inside the time, and {bounds}."


def _of_way(way: str, mine: Sequence[Sequence[Row]]) -> str:
    ahead = [line for line in mine if crossover(line) is not None]
    what = {DECODE: "Decoding", CHUNK: "In chunks of queries", PREFILL: "Prefilling from scratch"}
    if not ahead:
        best = max((line[-1] for line in mine), key=lambda row: row.gain)
        return (
            f"{what[way]} it is faster than dense in none of {len(mine)} cases at the largest n"
            f" ({best.gain:.2f} times as fast at best)."
        )
    starts = sorted(crossover(line) for line in ahead)
    best = max((line[-1] for line in ahead), key=lambda row: row.gain)
    return (
        f"{what[way]} it is faster than dense in {len(ahead)} of {len(mine)} cases, from n ="
        f" {starts[0]:,} to {starts[-1]:,} on, and at most {best.gain:.1f} times ({best.head}, d ="
        f" {best.d}, n = {best.n:,}, {best.rule}, {best.read:.1%} of the keys read)."
    )


def plot(rows: Sequence[Row], figure: "Figure") -> None:
    """Times as fast as dense against n, a panel a way."""
    found = lines(rows)
    ways = [way for way in TITLES if any(key[0] == way for key in found)]
    panels = figure.subplots(1, len(ways), squeeze=False, sharey=True)[0]
    heads = list(dict.fromkeys(key[1] for key in found if key[0] == DECODE))
    heads += [key[1] for key in found if key[1] not in heads]
    dims = sorted({key[2] for key in found})
    marks = dict(zip(dims, "osD^vP*X", strict=False))
    for axes, way in zip(panels, ways, strict=True):
        for (mine, head, d, rule), line in found.items():
            if mine == way:
                axes.loglog(
                    [row.n for row in line],
                    [row.gain for row in line],
                    "-" if rule == "Error" else ":",
                    marker=marks.get(d, "."),
                    markersize=4,
                    linewidth=1.2,
                    color=f"C{heads.index(head)}",
                )
        axes.axhline(1.0, color="0.6", linewidth=1.0)
        axes.set_title(TITLES[way], fontsize="medium")
        axes.set_xlabel("keys")
        axes.set_xscale("log", base=2)
    figures.plain(*panels)
    panels[0].set_ylabel("times as fast as dense")
    for i, head in enumerate(heads):
        figures.entry(panels[-1], head, color=f"C{i}")
    for d in dims:
        figures.entry(panels[-1], f"d = {d}", marks.get(d, "."), color="0.3", markersize=4)
    figures.entry(panels[-1], "Error", "-", color="0.3")
    figures.entry(panels[-1], "Sampled", ":", color="0.3")
    named = panels[-1].get_legend_handles_labels()
    figure.legend(*named, loc="outside right upper", **figures.LEGEND)


STUDY = Study(
    name="runtime",
    title="Running time against dense attention",
    about=(
        "Certified attention, `Error(eps)` and `Sampled(5 eps, 0.001)`, against dense float32 (the"
        " faster of numpy's and torch's, where that is installed), in turns: one query a call over"
        " indexed keys, 64 a call, and whole causal prompts from scratch. Heads are Gaussian with"
        " scores of a given standard deviation, and those of a trained encoder."
    ),
    settings=Settings,
    row=Row,
    run=run,
    table=table,
    plot=plot,
    findings=(
        Finding(
            EXPERIMENT,
            2,
            "Running time against dense attention",
            "O(m n^(4/5)) instead of O(m n) for decoding, O(m n^(1−1/⌊d/2⌋) + m n^(4/5)) for"
            " prefilling, by proof; perplexities are measured, times are not.",
            speed,
        ),
    ),
)
