"""threshold: sparsity and error over the threshold b, for softmax and ReLU attention."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .. import dense
from ..attended import Attended
from ..bounds import active_keys, paper_threshold
from ..rules import Threshold
from . import figures
from .heads import Head, captured, gaussian, packaged
from .study import QUESTION, Finding, Study, Table, Track, check_least, grouped, setting, silent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SOFTMAX, RELU, ORACLE = "softmax", "relu", "softmax, b a query"
"""Ways: one b for all queries of a head, and the best b of each query, by hindsight."""

TARGETS = (0.1, 0.01, 0.001)
"""Relative errors that a threshold is sought for."""

MANY = (0.99, 0.97, 0.95, 0.9, 0.85, 0.75, 0.65)
"""Shares of the keys that are tried besides 1, 1/2, 1/4, …"""

SERVED = 90.0
"""Percentage of queries that a threshold has to serve."""


@dataclass(frozen=True)
class Settings:
    """What is run."""

    queries: int = setting(128, "Queries a head.", quick=24)
    keys: int = setting(32_768, "Keys of the Gaussian head, of 64 dimensions.", quick=4096)
    captures: tuple[Path, ...] = setting((), "Files .npz with more heads.")

    def __post_init__(self) -> None:
        check_least("queries", (self.queries,), 2)
        check_least("keys", (self.keys,), 16)


class Row(NamedTuple):
    """A head read at a threshold b, or by the best b of each query for a target."""

    source: str
    head: str
    n: int
    way: str
    b: float | None
    paper: bool  # whether b is the paper's
    target: float | None  # of ORACLE
    active: float  # mean share of the keys
    most: float  # largest share
    empty: float  # share of the queries with no key at all
    relative: float | None  # median error / norm of the exact output; ReLU's own for ReLU
    served: float | None  # that percentile of it
    bound: float | None  # median, certified


def thresholds(scores: np.ndarray) -> list[float]:
    """Thresholds above which there are all of the scores, and ever fewer, down to one row's best.

    Examples
    --------
    >>> import numpy as np
    >>> from attention.studies.threshold import thresholds
    >>> thresholds(np.arange(64.0).reshape(8, 8))[:3]
    [0.0, 1.0, 2.0]
    """
    flat = np.sort(scores, axis=None)
    shares = [*MANY, *(0.5**i for i in range(int(np.log2(scores.shape[1])) + 2))]
    places = [min(len(flat) - 1, len(flat) - max(1, round(s * len(flat)))) for s in shares]
    return sorted({float(flat[place]) for place in places})


def the_papers(head: Head) -> float:
    """The paper's b for a head, from the spread of its queries' and keys' coordinates."""
    query_std, key_std = (float(np.sqrt(np.mean(rows**2.0))) for rows in (head.query, head.key))
    m, d = head.query.shape
    return paper_threshold(len(head.key), m, d, query_std=query_std, key_std=key_std)


def run(settings: Settings, track: Track = silent) -> list[Row]:
    """Measure every head."""
    heads = [*packaged(settings.queries), gaussian(settings.keys, 64, 1.0, settings.queries)]
    for path in settings.captures:
        heads += captured(path, settings.queries)
    rows: list[Row] = []
    for head in track(heads, "heads"):
        rows += measure(head)
    return rows


def measure(head: Head) -> Iterator[Row]:
    """Rows of one head."""
    scores, exact, decoder = head.scores(), head.exact(), head.decoder()
    papers = the_papers(head)
    for b in sorted({*thresholds(scores), papers}):
        got = decoder.softmax(head.query, Threshold(b))
        yield _row(head, SOFTMAX, b, b == papers, got, exact)
        got = decoder.relu(head.query, threshold=b)
        own, _ = dense.relu(head.query, head.key, head.value, threshold=b)
        yield _row(head, RELU, b, b == papers, got, own)
    needs = needed(scores, head.value, exact) / len(head.key)
    for target, need in zip(TARGETS, needs, strict=True):
        share = float(need.mean()), float(need.max())
        kind = (head.source, head.name, len(head.key), ORACLE, None, False, target)
        yield Row(*kind, *share, 0.0, None, None, None)


def _row(head: Head, way: str, b: float, paper: bool, got: Attended, exact: np.ndarray) -> Row:
    relative = relative_errors(got.output, exact)
    share = got.reported / len(head.key)
    return Row(
        head.source,
        head.name,
        len(head.key),
        way,
        float(b),
        paper,
        None,
        float(share.mean()),
        float(share.max()),
        float((got.reported == 0).mean()),
        float(np.median(relative)),
        float(np.percentile(relative, SERVED)),
        float(np.median(got.bound)),
    )


def relative_errors(output: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Norm of the error of each row, of that of the exact row; 0 where both are zero."""
    norms = np.linalg.norm(exact, axis=1)
    off = np.linalg.norm(output - exact, axis=1)
    return np.divide(off, norms, out=np.where(off > 0.0, np.inf, 0.0), where=norms > 0.0)


def needed(scores: np.ndarray, value: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Best keys from which on a query's error stays within each of `TARGETS`, (3, m) int64.

    O(n value_dim) a query.
    """
    found = np.empty((len(TARGETS), len(scores)), np.int64)
    for q, row in enumerate(scores):
        order = np.argsort(-row, kind="stable")
        weights = np.exp(row[order] - row[order[0]])[:, None]
        means = np.cumsum(weights * value[order], axis=0) / np.cumsum(weights, axis=0)
        off = np.linalg.norm(means - exact[q], axis=1) / max(np.linalg.norm(exact[q]), 1e-300)
        for t, target in enumerate(TARGETS):
            beyond = np.flatnonzero(off > target)
            found[t, q] = 1 if not len(beyond) else min(beyond[-1] + 2, len(row))
    return found


class Best(NamedTuple):
    """The largest b that serves a target in a head, and what thresholds a query would read."""

    target: float
    fixed: Row
    oracle: Row

    @property
    def excess(self) -> float:
        """Times as many keys as thresholds a query."""
        return self.fixed.active / self.oracle.active


def by_head(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows of each head."""
    return grouped(rows, "source", "head")


def best(mine: Sequence[Row]) -> list[Best]:
    """The best b of a head for each target."""
    fixed = sorted((row for row in mine if row.way == SOFTMAX), key=lambda row: row.b)
    found = []
    for oracle in (row for row in mine if row.way == ORACLE):
        good = fixed[0]
        for row in fixed:
            if row.served > oracle.target:
                break
            good = row
        found.append(Best(oracle.target, good, oracle))
    return found


def papers(mine: Sequence[Row], way: str) -> Row:
    """The row of a head at the paper's b."""
    return next(row for row in mine if row.paper and row.way == way)


def emptied(mine: Sequence[Row]) -> Row:
    """The largest b at which ReLU attention leaves no query of a head without a key."""
    full = [row for row in mine if row.way == RELU and row.empty == 0.0]
    return max(full, key=lambda row: row.b)


def table(rows: Sequence[Row]) -> Table:
    """A line for each head and target."""
    header = (
        "head",
        "n",
        "error for 9 of 10 queries",
        "best b",
        "keys active",
        "with a b for each query",
        "paper's b",
        "keys active there",
        "queries without a key",
        "ReLU: largest b without such",
        "keys active",
    )
    heads = by_head(rows).values()
    return Table(header, [line for mine in heads for line in _lines(mine)])


def _lines(mine: Sequence[Row]) -> list[tuple[str, ...]]:
    at, relu = papers(mine, SOFTMAX), emptied(mine)
    return [
        (
            f"{at.source} {at.head}",
            f"{at.n:,}",
            f"{found.target:.1%}",
            f"{found.fixed.b:.3g}",
            _percent(found.fixed.active),
            _percent(found.oracle.active),
            f"{at.b:.3g}",
            _percent(at.active),
            f"{at.empty:.0%}",
            f"{relu.b:.3g}",
            _percent(relu.active),
        )
        for found in best(mine)
    ]


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 or share == 0.0 else f"{share:.1g}".replace("e-0", "e-")


def choice(rows: Sequence[Row]) -> str:
    """Open question 1: how the paper's b does, and how far a fixed b gets."""
    heads = by_head(rows)
    at = [papers(mine, SOFTMAX) for mine in heads.values()]
    void = sum(row.empty >= 0.5 for row in at)
    crowded = sum(row.most * row.n > active_keys(row.n) for row in at)
    busiest = max(at, key=lambda row: row.active)
    on_average = (
        f"{busiest.head} has {busiest.active:.1%} of its keys active on average, the most"
        if busiest.active
        else "not one key of any head is active"
    )
    found = [each for mine in heads.values() for each in best(mine) if each.target == TARGETS[1]]
    least, most = (pick(found, key=lambda each: each.fixed.b) for pick in (min, max))
    excess = sorted(each.excess for each in found)
    verdict = (
        "so b belongs to the query, not to n, and `Error(eps)` finds it in the call"
        if excess[-1] > 1.5
        else "so one b for a head does about as well"
    )
    return (
        f"At the paper's b, {min(row.b for row in at):.3g} to {max(row.b for row in at):.3g}, most"
        f" queries have no key at all in {void} of {len(at)} heads, and {crowded} have a query with"
        f" more than 2 n^(4/5): {on_average}."
        f" For an error of {TARGETS[1]:.0%} in nine of ten queries the best b is anywhere from"
        f" {least.fixed.b:.3g} ({least.fixed.head}) to {most.fixed.b:.3g} ({most.fixed.head}) and"
        f" reads {excess[0]:.1f} to {excess[-1]:.1f} times as many keys as a b for each query"
        f" would, {verdict}."
    )


def plot(rows: Sequence[Row], figure: "Figure") -> None:
    """Active keys against b on the left, error against active keys on the right."""
    left, right = figure.subplots(1, 2)
    for i, ((source, head), mine) in enumerate(by_head(rows).items()):
        line = sorted((row for row in mine if row.way == SOFTMAX), key=lambda row: row.b)
        shown = [row for row in line if row.active > 0.0]
        name = f"{source} {head}"
        left.semilogy(
            [row.b for row in shown], [row.active for row in shown], color=f"C{i}", label=name
        )
        at = papers(mine, SOFTMAX)
        floor = 0.5 / max(row.n for row in rows)
        left.plot(at.b, max(at.active, floor), "v", color=f"C{i}")
        right.loglog(
            [row.active for row in shown], [max(row.served, 1e-8) for row in shown], color=f"C{i}"
        )
        oracle = [row for row in mine if row.way == ORACLE]
        right.plot(
            [row.active for row in oracle], [row.target for row in oracle], "o", color=f"C{i}"
        )
    figures.entry(left, "the paper's b (lowest: no key)", "v", color="0.3")
    figures.entry(right, "a b for each query", "o", color="0.3")
    right.set_ylim(1e-4, 3.0)
    left.set(xlabel="threshold b", ylabel="share of keys active")
    right.set(xlabel="share of keys active", ylabel="relative error (nine of ten queries)")
    figures.plain(left, right)
    figures.legend(left, right)


STUDY = Study(
    name="threshold",
    title="The threshold",
    about=(
        "Softmax attention over the keys whose score reaches b, and ReLU attention with threshold"
        " b, over b from where all keys are active to where one in the head is: real heads, and a"
        " Gaussian one as in the paper's lemma. The best b is the largest with which nine of ten"
        " queries stay within an error; beside it what the best b of each query would read."
    ),
    settings=Settings,
    row=Row,
    run=run,
    table=table,
    plot=plot,
    findings=(
        Finding(
            QUESTION,
            1,
            "The choice of the threshold b",
            "b = σ_a √(0.4 ln n) leaves at most 2 n^(4/5) keys active in a row, with high"
            " probability, for Gaussian keys; how to choose it in practice is left open.",
            choice,
        ),
    ),
)
