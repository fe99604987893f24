"""generality: how sparse heads are, over architectures and over training."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..rules import TopR
from . import figures, texts
from .heads import MODULES, Head, Sources, gaussian
from .study import (
    CHECK,
    QUESTION,
    Finding,
    Study,
    Table,
    Track,
    check_least,
    grouped,
    setting,
    silent,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HELD = 0.99
"""Share of the mass that the n^(4/5) best keys of a sparse head hold."""

POINTS = (0, 1 / 16, 1 / 4, 1)
"""Points of the training, of its steps."""

TRAINED = ("softmax", "relu")
"""Attention of the models that are trained here."""

SHOWN = (("nearly", "o-", "99 % of the mass"), ("active", "s--", "any weight"))
"""Lines of the picture of training: figure, style, label."""


@dataclass(frozen=True)
class Settings(Sources):
    """What is run."""

    keys: int = setting(8192, "Keys of the Gaussian heads.", quick=2048)
    steps: int = setting(200, "Steps of training a small model here; 0: none.", quick=64)
    layers: int = setting(3, "Its layers.", quick=2)
    heads: int = setting(4, "Its heads a layer.")
    head_dim: int = setting(32, "Their dimensions.", quick=16)
    context: int = setting(256, "Bytes that it reads at once.")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least("keys", (self.keys,), 64)
        check_least("steps", (self.steps,), 0)
        check_least("layers, heads, head-dim", (self.layers, self.heads, self.head_dim), 1)
        check_least("context", (self.context,), 16)


class Row(NamedTuple):
    """A head; medians over its queries."""

    source: str
    head: str
    trained: bool  # whether it was trained here
    step: int | None  # steps of training
    loss: float | None  # nats a byte then
    n: int
    most: float  # share of the keys that holds 90 % of the mass
    nearly: float  # 99 %
    active: float  # with weight at all
    missed: float  # mass outside the n^(4/5) best keys
    std: float  # of the scores of a query


def weights_of(head: Head, relu: bool) -> np.ndarray:
    """Weights (m, n) of all keys, each row adding up to 1, or 0 where no key is active."""
    scores = head.scores()
    if relu:
        weights = np.maximum(scores, 0.0)
    else:
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    total = weights.sum(axis=1, keepdims=True)
    return np.divide(weights, total, out=np.zeros_like(weights), where=total > 0.0)


def row_of(head: Head, step: int | None = None, loss: float | None = None) -> Row:
    """Measure a head."""
    weights, lengths = weights_of(head, head.source == TRAINED[1]), head.lengths
    mass = np.cumsum(-np.sort(-weights, axis=1), axis=1)
    # A row without an active key needs none.
    some = mass[:, -1] > 0.0
    reach = [some * ((mass < share).sum(axis=1) + 1) / lengths for share in (0.9, HELD)]
    paper = np.array([TopR().count(int(n)) for n in lengths])
    missed = mass[:, -1] - mass[np.arange(len(mass)), paper - 1]
    scores = head.scores()
    spreads = [row[:n].std() for row, n in zip(scores, lengths, strict=True)]
    figures = (*reach, (weights > 0.0).sum(axis=1) / lengths, missed, spreads)
    return Row(
        head.source,
        head.name,
        step is not None,
        step,
        loss,
        len(head.key),
        *(float(min(1.0, np.median(each))) for each in figures[:4]),
        float(np.median(figures[4])),
    )


def run(settings: Settings, track: Track = silent) -> list[Row]:
    """Measure heads of every source, and train."""
    heads = settings.gather()
    heads += [gaussian(settings.keys, 64, std, settings.queries) for std in (1.0, 4.0)]
    rows = [row_of(head) for head in track(heads, "heads")]
    if settings.steps and find_spec("torch") is not None:
        for kind in track(TRAINED, "training"):
            rows += _trained(kind, settings)
    return rows


def _trained(kind: str, settings: Settings) -> Iterator[Row]:
    """Rows of a model at several points of its training."""
    from .training import Sizes, train

    sizes = Sizes(settings.layers, settings.heads, settings.head_dim, settings.context)
    steps = sorted({round(share * settings.steps) for share in POINTS})
    for point in train(texts.read("topics"), sizes, kind, steps, settings.queries):
        for head in point.heads:
            yield row_of(head, point.step, point.loss)


class Group(NamedTuple):
    """Heads of one source, at one point of its training."""

    source: str
    step: int | None
    rows: list[Row]

    def median(self, name: str) -> float:
        """Of a figure, over the heads."""
        return float(np.median([getattr(row, name) for row in self.rows]))

    @property
    def sparse(self) -> int:
        """Heads whose n^(4/5) best keys hold nearly all of the mass."""
        return sum(row.missed <= 1.0 - HELD for row in self.rows)

    @property
    def label(self) -> str:
        """Name for readers."""
        return self.source if self.step is None else f"trained {self.source}, step {self.step}"


def groups(rows: Sequence[Row]) -> list[Group]:
    """Heads by source and step."""
    return [Group(*key, mine) for key, mine in grouped(rows, "source", "step").items()]


def table(rows: Sequence[Row]) -> Table:
    """A line for each source and step: medians over its heads, and the extremes."""
    header = (
        "heads of",
        "heads",
        "n",
        "loss",
        "score std",
        "keys for 90 % of the mass",
        "99 %",
        "least … most",
        "keys active",
        "missed by n^(4/5)",
        "heads that miss < 1 %",
    )
    lines = []
    for group in groups(rows):
        shares = [row.nearly for row in group.rows]
        loss = group.rows[0].loss
        lines.append(
            (
                group.label,
                str(len(group.rows)),
                f"{group.rows[0].n:,}",
                "–" if loss is None else f"{loss:.2f}",
                f"{group.median('std'):.2g}",
                f"{group.median('most'):.1%}",
                f"{group.median('nearly'):.1%}",
                f"{min(shares):.1%} … {max(shares):.0%}",
                f"{group.median('active'):.0%}",
                f"{group.median('missed'):.1%}",
                f"{group.sparse} of {len(group.rows)}",
            )
        )
    return Table(header, lines)


def patterns(rows: Sequence[Row]) -> str:
    """Check 3: how many heads have the sparsity that the paper needs."""
    given = [group for group in groups(rows) if group.step is None]
    heads = [row for group in given for row in group.rows]
    sparse = sum(group.sparse for group in given)
    least, most = (pick(heads, key=lambda row: row.nearly) for pick in (min, max))
    by_source = ", ".join(
        f"{group.sparse} of {len(group.rows)} ({group.source})" for group in given
    )
    return (
        f"In {sparse} of {len(heads)} heads the n^(4/5) best keys hold {HELD:.0%} of the mass:"
        f" {by_source}. {HELD:.0%} of the mass takes from {least.nearly:.2%} ({least.source}"
        f" {least.head}) to {most.nearly:.0%} ({most.source} {most.head}) of the keys, so sparsity"
        f" {'is a property of single heads' if 0 < sparse < len(heads) else 'is the same in all'}."
    )


def training(rows: Sequence[Row]) -> str:
    """Open question 3: what architectures and training do to it."""
    told = []
    for kind in TRAINED:
        mine = sorted(
            (group for group in groups(rows) if group.source == kind and group.step is not None),
            key=lambda group: group.step,
        )
        if len(mine) > 1:
            told.append(_over_training(kind, mine[0], mine[-1]))
    given = [group for group in groups(rows) if group.step is None]
    sources = ", ".join(f"{group.source} {group.median('nearly'):.0%}" for group in given)
    first = f"The median head takes for {HELD:.0%} of its mass, of its keys: {sources}."
    if not told:
        return (
            f"{first} Nothing was trained here (that needs torch), so nothing is said of training."
        )
    return f"{first} {' '.join(told)}"


def _over_training(kind: str, first: Group, last: Group) -> str:
    before, after = first.median("nearly"), last.median("nearly")
    change = "little changed"
    if not 0.9 * before <= after <= 1.1 * before:
        change = "sparser" if after < before else "denser"
    return (
        f"Trained with {kind} attention for {last.step} steps (loss {first.rows[0].loss:.2f} to"
        f" {last.rows[0].loss:.2f} nats a byte) they are {change}, {before:.0%} to {after:.0%},"
        f" and {last.median('active'):.0%} of the keys have weight at all."
    )


def plot(rows: Sequence[Row], figure: "Figure") -> None:
    """Heads sorted by the share of keys they need on the left, training on the right."""
    trained = [group for group in groups(rows) if group.step is not None]
    panels = figure.subplots(1, 2 if trained else 1, squeeze=False)[0]
    for i, group in enumerate(each for each in groups(rows) if each.step is None):
        shares = sorted(row.nearly for row in group.rows)
        places = (np.arange(len(shares)) + 0.5) / len(shares)
        panels[0].semilogy(places, shares, "o-", color=f"C{i}", markersize=4, label=group.label)
    panels[0].set(
        xlabel="heads of a source, in order", ylabel="share of keys with 99 % of the mass"
    )
    if trained:
        for kind, colour in zip(TRAINED, ("C0", "C1"), strict=True):
            mine = [group for group in trained if group.source == kind]
            steps = [group.step for group in mine]
            for name, style, what in SHOWN:
                shares = [group.median(name) for group in mine]
                label = f"{kind}: {what}"
                panels[1].plot(steps, shares, style, color=colour, markersize=4, label=label)
        panels[1].set(xlabel="steps of training", ylabel="share of keys (median head)")
        panels[1].set_ylim(0.0, 1.05)
        panels[1].set_xscale("symlog", linthresh=10)
    figures.plain(*panels)
    figures.legend(*panels)


STUDY = Study(
    name="generality",
    title="How general sparsity is",
    about=(
        "How few keys hold the mass of a row: heads of a trained encoder, those of the packaged"
        " language model over texts of several kinds, Gaussian ones, captured ones and those of any"
        " transformers model by flags, and a very small causal model over"
        " bytes that is trained here, with softmax and with ReLU attention, at several points of"
        " its training (where torch is installed). Medians over queries; causal ones in the second"
        " half of the text."
    ),
    settings=Settings,
    row=Row,
    run=run,
    table=table,
    plot=plot,
    findings=(
        Finding(
            QUESTION,
            3,
            "Generality over architectures and training",
            "sparsity is assumed, of Gaussian keys for ReLU and by massive activation for softmax;"
            " whether it holds over architectures and training is left open.",
            training,
        ),
        Finding(
            CHECK,
            3,
            "Sparsity patterns",
            "n^(4/5) entries of a row are massively activated, and the rest may be dropped.",
            patterns,
        ),
    ),
    wants=MODULES,
    wanted_for="heads of models, and training",
    extra="torch",
)
