"""perplexity: what a language model loses when its attention reads fewer keys."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..rules import Error, Rule, Sampled, TopR
from . import figures, texts
from .heads import MODEL, MODULES, located
from .study import EXPERIMENT, Finding, Study, Table, Track, setting, silent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .language_model import Reader

KNEE = 0.01
"""Share by which perplexity may be larger than that of dense attention, below the knee."""

PROBED = 32
"""Queries of each head and chunk whose mass is looked at."""


@dataclass(frozen=True)
class Settings:
    """What is run."""

    model: str = setting(MODEL, "Folder or name on the hub of a causal language model.")
    text: str = setting("docstrings", f"What it reads: {', '.join(texts.KINDS)}, a text file.")
    r: tuple[int, ...] = setting(
        (4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048),
        "Keys that each query reads: TopR(r).",
        quick=(4, 32, 256),
    )
    eps: tuple[float, ...] = setting(
        (1e-3, 1e-2, 1e-1, 1.0), "Errors that each output may have: Error(eps).", quick=(1e-3, 1.0)
    )
    sampled: tuple[float, ...] = setting(
        (0.05, 0.5), "Errors of outputs that are sampled: Sampled(eps).", quick=(0.5,)
    )
    tokens: int = setting(20_480, "Tokens of the text that are read.", quick=2048)
    context: int = setting(4096, "Tokens of a window; each is read by itself.", quick=1024)
    dtype: str = setting("float32", "Of the model; auto for the one it is stored in.")
    device: str = setting("cpu", "Where the model runs; attention is on the host.")

    def __post_init__(self) -> None:
        if self.context < 2:
            raise ValueError(f"context: expected at least 2, got {self.context}")
        if not (self.r or self.eps or self.sampled):
            raise ValueError("r, eps, sampled: expected a value of one of them, got none")
        for r in self.r:
            TopR(r)
        for eps in (*self.eps, *self.sampled):
            Error(eps)

    def rules(self) -> list[Rule]:
        """Every rule that is run."""
        sampled = map(Sampled, self.sampled)
        return [*map(TopR, sorted(self.r)), *map(Error, sorted(self.eps)), *sampled]


class Row(NamedTuple):
    """A rule over all layers, or a head."""

    kind: str  # "dense", "TopR", "Error", "Sampled" or "head"
    value: float  # r or eps; of a head, the eps by which its keys were read
    layer: int | None  # of a head
    head: int | None
    perplexity: float | None  # of a rule
    read: float | None  # share of the keys seen that were read
    mass: float | None  # of a head: share of the softmax mass of the n^(4/5) best keys
    bound: float | None  # of a rule: the largest certified
    context: int


def run(settings: Settings, track: Track = silent) -> list[Row]:
    """Read the text by dense attention and by each rule."""
    from .language_model import perplexity, read_text

    reader = read_text(
        located(settings.model),
        texts.read(settings.text),
        tokens=settings.tokens,
        context=settings.context,
        dtype=settings.dtype,
        device=settings.device,
    )
    n = settings.context
    rows = [Row("dense", n, None, None, perplexity(reader), 1.0, None, 0.0, n)]
    shares: dict[Rule, np.ndarray] = {}
    for rule in track(settings.rules(), "rules"):
        row, shares[rule] = by_rule(reader, rule)
        rows.append(row)
    return [*rows, *by_head(reader, shares)]


def by_rule(reader: "Reader", rule: Rule) -> tuple[Row, np.ndarray]:
    """Perplexity by a rule, and what each layer and head read."""
    from .language_model import perplexity_by

    got = perplexity_by(reader, rule)
    kind, value = type(rule).__name__, rule.r if isinstance(rule, TopR) else rule.eps
    context = reader.windows.shape[1]
    read = float(got.read.mean())
    return Row(kind, value, None, None, got.perplexity, read, None, got.bound, context), got.read


def by_head(reader: "Reader", shares: dict[Rule, np.ndarray]) -> Iterator[Row]:
    """Mass of each head's best keys, and what it read by the smallest eps."""
    from .language_model import mass_of_best

    least = min((rule for rule in shares if isinstance(rule, Error)), key=_eps, default=None)
    for (layer, head), mass in np.ndenumerate(mass_of_best(reader, PROBED)):
        read = None if least is None else float(shares[least][layer, head])
        value = 0.0 if least is None else least.eps
        context = reader.windows.shape[1]
        yield Row("head", value, layer, head, None, read, float(mass), None, context)


def _eps(rule: Error) -> float:
    return rule.eps


def of_kind(rows: Sequence[Row], kind: str) -> list[Row]:
    """Rows of a kind."""
    return [row for row in rows if row.kind == kind]


def increase(row: Row, rows: Sequence[Row]) -> float:
    """Share by which a rule's perplexity is above that of dense attention."""
    return row.perplexity / of_kind(rows, "dense")[0].perplexity - 1.0


def knee(rows: Sequence[Row]) -> Row | None:
    """Least r from which on perplexity is within 1 % of that of dense attention."""
    found = None
    for row in sorted(of_kind(rows, "TopR"), key=lambda row: -row.value):
        if increase(row, rows) > KNEE:
            break
        found = row
    return found


def table(rows: Sequence[Row]) -> Table:
    """A line for each rule, then one for each head."""
    header = ("rule or head", "perplexity", "to dense", "keys read", "bound", "mass of n^(4/5)")
    lines = []
    for row in rows:
        read = "" if row.read is None else f"{row.read:.1%}"
        if row.kind == "head":
            name = f"layer {row.layer}, head {row.head}, Error({row.value:g})"
            lines.append((name, "", "", read, "", f"{row.mass:.1%}"))
            continue
        name = "dense" if row.kind == "dense" else f"{row.kind}({row.value:g})"
        change = f"{increase(row, rows):+.3%}"
        lines.append((name, f"{row.perplexity:.3f}", change, read, f"{row.bound:.1g}", ""))
    return Table(header, lines)


def by_number(rows: Sequence[Row]) -> str:
    """Where perplexity begins to rise as r falls."""
    ranked, at = sorted(of_kind(rows, "TopR"), key=lambda row: row.value), knee(rows)
    if not ranked:
        return "No r was asked for."
    dense, worst = of_kind(rows, "dense")[0], ranked[0]
    at_worst = (
        f"with r = {worst.value:g} of {worst.context:,} keys it is {increase(worst, rows):+.1%}"
    )
    if at is None:
        return f"No r asked for is within {KNEE:.0%} of dense attention; {at_worst}."
    return (
        f"The knee is at r = {at.value:g}: from there on perplexity is within {KNEE:.0%} of dense"
        f" attention's {dense.perplexity:.1f}; {at_worst}."
    )


def by_error(rows: Sequence[Row]) -> str:
    """What certified errors and samples cost."""
    parts = [
        f"{row.kind}({row.value:g}) changes it by {increase(row, rows):+.3%}, reading"
        f" {row.read:.0%} of the keys"
        for row in (*of_kind(rows, "Error"), *of_kind(rows, "Sampled"))
    ]
    return f"{'; '.join(parts)}." if parts else "Neither eps nor samples were asked for."


def by_mass(rows: Sequence[Row]) -> str:
    """How much mass the paper's number of keys has."""
    heads = sorted(of_kind(rows, "head"), key=lambda row: row.mass)
    mean = sum(row.mass for row in heads) / len(heads)
    least, most = heads[0], heads[-1]
    return (
        f"Of the softmax mass, the n^(4/5) best of n keys have {mean:.1%} in the mean of"
        f" {len(heads)} heads, from {least.mass:.1%} (layer {least.layer}, head {least.head})"
        f" to {most.mass:.1%} (layer {most.layer}, head {most.head}). The claim holds to 1 % in"
        f" {sum(row.mass >= 0.99 for row in heads)} of them."
    )


def plot(rows: Sequence[Row], figure: "Figure") -> None:
    """Draw perplexity against r, and its increase against the keys read by each kind of rule."""
    left, right = figure.subplots(1, 2)
    ranked = sorted(of_kind(rows, "TopR"), key=lambda row: row.value)
    left.plot(
        [row.value for row in ranked], [row.perplexity for row in ranked], "o-", label="TopR(r)"
    )
    left.axhline(of_kind(rows, "dense")[0].perplexity, color="0.5", linestyle="--", label="dense")
    if (at := knee(rows)) is not None:
        left.axvline(at.value, color="0.8", label=f"knee: r = {at.value:g}")
    left.set(xlabel="keys read, r", ylabel="perplexity")
    left.set_xscale("log", base=2)
    for kind in ("TopR", "Error", "Sampled"):
        mine = sorted(of_kind(rows, kind), key=lambda row: row.value)
        increases = [max(abs(increase(row, rows)), LEAST_DRAWN) for row in mine]
        right.plot([row.read for row in mine], increases, "o-", label=kind)
    right.set(xlabel="share of keys read", ylabel="|change of perplexity|", yscale="log")
    figures.plain(left, right)
    figures.legend(left, right)


LEAST_DRAWN = 1e-7
"""Changes are drawn no smaller: zero has no logarithm."""

STUDY = Study(
    name="perplexity",
    title="Perplexity against the keys that attention reads",
    about=(
        "A causal language model reads a text, window by window, and every layer's softmax"
        " attention follows a rule: the r best keys of each query (the paper's experiment), outputs"
        " within a certified eps, or sampled ones. Heads are listed with the keys they read by the"
        " smallest eps, and with the share of the softmax mass that their n^(4/5) best keys have."
        " Rows that need most of their keys are read in whole by float32 products, which is faster,"
        " where eps leaves room for the rounding: so a larger eps may read more."
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
            "Perplexity against the number of activated entries",
            "with softmax over the top r of 32,768 keys, the perplexity of Llama 3.1 8B, Mistral"
            " Nemo 12B and Phi 3.5 Mini rises only for very small r.",
            by_number,
        ),
        Finding(
            EXPERIMENT,
            1,
            "Perplexity against certified error",
            "nothing: errors of outputs are bounded before the keys are known, not certified.",
            by_error,
        ),
        Finding(
            EXPERIMENT,
            1,
            "Mass of the n^(4/5) best keys",
            "the n^(4/5) massively activated entries hold nearly all of the mass, so that the error"
            " of leaving out the others is provably negligible.",
            by_mass,
        ),
    ),
    requires=MODULES,
    extra="torch",
)
