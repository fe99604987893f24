"""The figure of the complexity study: work against n, a panel a dimension and kind of points."""

from pathlib import Path
from statistics import geometric_mean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from attention.studies.exponents import fitted

from .complexity import STRUCTURES, TITLES, Study, Work, theory

COLOURS = dict(zip(STRUCTURES, ("#0072b2", "#d55e00", "#009e73", "#7f7f7f"), strict=True))

WIDTHS = dict(zip(STRUCTURES, (2.8, 2.1, 1.4, 0.8), strict=True))
"""Thinner lines are drawn over thicker ones, so that both show where they coincide."""

PANEL = 1.9
"""Inches."""


def draw(study: Study, path: Path) -> None:
    """Draw nodes visited + points touched against n into `path`, theory dashed."""
    plan = study.plan
    rows = [(depth, kind) for depth in TITLES for kind in plan.kinds]
    present = [name for name in plan.structures if any(w.structure == name for w in study.work)]
    size = (PANEL * len(plan.dims) + 1.2, PANEL * len(rows) + 1.6)
    figure = Figure(figsize=size, layout="constrained")
    blocks = figure.subfigures(len(TITLES), 1, squeeze=False)[:, 0]
    for block, (depth, title) in zip(blocks, TITLES.items(), strict=True):
        block.suptitle(title, fontsize="medium", fontweight="bold")
        panels = block.subplots(
            len(plan.kinds), len(plan.dims), sharex=True, sharey=True, squeeze=False
        )
        for kind, line in zip(plan.kinds, panels, strict=True):
            line[0].set_ylabel(kind.replace("_", " "))
            for d, axes in zip(plan.dims, line, strict=True):
                chosen = [w for w in study.work if (w.depth, w.kind, w.d) == (depth, kind, d)]
                _panel(axes, chosen, present)
        for d, axes in zip(plan.dims, panels[0], strict=True):
            axes.set_title(f"d = {d}", fontsize="medium")
        for axes in panels[-1]:
            axes.set_xlabel("n", fontsize="small")
    handles = [Line2D([], [], color=COLOURS[name], marker=".", label=name) for name in present]
    handles.append(Line2D([], [], color="0.4", linestyle="--", label="slope of the bound"))
    handles.append(Line2D([], [], linestyle="", label="in panels: fitted exponent (bound)"))
    figure.legend(
        handles=handles,
        title="Nodes visited + points touched by a query",
        loc="outside upper center",
        ncols=min(len(handles), len(plan.dims)),
        frameon=False,
    )
    figure.savefig(path, dpi=130)


def _panel(axes: Axes, work: list[Work], names: list[str]) -> None:
    """One line a structure, its fitted exponent in the corner, and the slope of its bound."""
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize="small")
    place = 0.97
    for name in names:
        rows = [row for row in work if row.structure == name and row.work > 0.0]
        if not rows:
            continue
        n, values = [row.n for row in rows], [row.work for row in rows]
        axes.plot(n, values, color=COLOURS[name], marker=".", markersize=4, linewidth=WIDTHS[name])
        slope = theory(name, rows[0].depth, rows[0].d)
        middle, height = geometric_mean(n), geometric_mean(values)
        ends = [n[0], n[-1]]
        bound = [height * (end / middle) ** slope for end in ends]
        axes.plot(ends, bound, color=COLOURS[name], linestyle="--", linewidth=0.9)
        fit = fitted(n, values)
        if fit:
            axes.text(
                0.03,
                place,
                f"{fit[0]:.2f} ({slope:.2f})",
                transform=axes.transAxes,
                color=COLOURS[name],
                fontsize="x-small",
                verticalalignment="top",
            )
            place -= 0.09
