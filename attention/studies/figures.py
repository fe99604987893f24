"""What the pictures of all studies share."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEGEND: dict[str, Any] = {"fontsize": "small", "frameon": False}


def plain(*panels: "Axes") -> None:
    """Leave out the frame's upper and right side."""
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)


def entry(axes: "Axes", label: str, look: str = "-", **style: Any) -> None:
    """Add to a panel's legend what no single line of it stands for."""
    axes.plot([], [], look, label=label, **style)


def legend(*panels: "Axes", of: "Axes | None" = None) -> None:
    """Put legends into panels: each its own, or that of another one."""
    for axes in panels:
        axes.legend(*(of or axes).get_legend_handles_labels(), **LEGEND)
