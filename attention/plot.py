"""Pictures of certified attention: errors against keys read, keys read by head, bounds and errors.

Needs matplotlib (the extra ``plot``). Each function draws into axes, those given or new ones, and
returns them: ``axes.figure.savefig("picture.png")``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from . import data, dense
from .attended import Attended
from .decode import Decoder
from .rules import TopR

COUNTS = 24
"""Numbers of keys that a curve of errors is drawn through."""

LEAST_ERROR = 1e-17
"""Errors are drawn no smaller: zero has no logarithm."""

CELL = 0.75
"""Inches of a cell of a heat map."""


def _axes(axes: Axes | None, size: tuple[float, float] = (7.0, 4.5)) -> Axes:
    if axes is None:
        axes = Figure(figsize=size, layout="constrained").add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _errors(got: Attended, exact: np.ndarray) -> np.ndarray:
    """Largest error of a coordinate, (..., length)."""
    return np.abs(got.output - exact).max(axis=-1)


def errors(heads: Sequence[tuple[data.Head, np.ndarray]], *, axes: Axes | None = None) -> Axes:
    """Draw median error and certified bound of TopR(r) against r, for each head.

    Parameters
    ----------
    heads : sequence of (Head, ndarray)
        Heads, and the queries (m, head_dim) to ask each for.
    axes : matplotlib.axes.Axes, optional
        Where to draw; new ones if not given.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> from attention import data, plot
    >>> head = data.load("sharp")
    >>> few = head._replace(key=head.key[:500], value=head.value[:500])
    >>> len(plot.errors([(few, head.query[:4])]).lines)
    3
    """
    axes = _axes(axes)
    for i, (head, queries) in enumerate(heads):
        decoder = Decoder(head.key, head.value)
        exact, _ = dense.softmax(queries, head.key, head.value)
        counts = np.unique(np.geomspace(min(8, len(decoder)), len(decoder), COUNTS).astype(int))
        medians = []
        for r in counts:
            got = decoder.softmax(queries, TopR(int(r)))
            medians.append((np.median(got.bound), np.median(_errors(got, exact))))
        bounds, found = np.transpose(medians)
        axes.loglog(counts, bounds, color=f"C{i}", label=f"{head.name}: certified bound")
        axes.loglog(counts, found, color=f"C{i}", linestyle="--", label=f"{head.name}: true error")
    axes.axvline(
        TopR().count(len(decoder)), color="0.6", linewidth=1.0, label=r"the paper's $n^{4/5}$"
    )
    axes.set_xlabel("keys read per query")
    axes.set_ylabel("largest error of a coordinate (median over queries)")
    axes.set_ylim(bottom=1e-7)
    axes.legend(fontsize="small")
    return axes


def save_errors(heads: Sequence[tuple[data.Head, np.ndarray]], path: Path) -> None:
    """Draw `errors` into a file."""
    errors(heads).figure.savefig(path)


def keys_read(
    share: ArrayLike,
    *,
    rows: Sequence[object] | None = None,
    columns: Sequence[object] | None = None,
    axes: Axes | None = None,
) -> Axes:
    """Draw the share of keys read as a heat map, such as a row for each layer, a column a head.

    Parameters
    ----------
    share : array_like, shape (rows, columns)
        From 0 to 1, such as ``got.reported.mean(axis=-1) / n``; NaN leaves a cell empty.
    rows, columns : sequence, optional
        Labels; their numbers if not given.
    axes : matplotlib.axes.Axes, optional
        Where to draw; new ones if not given.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        Another shape, a share that is none, labels that are too many or too few.

    Examples
    --------
    >>> from attention import plot
    >>> axes = plot.keys_read([[0.1, 1.0]], rows=["layer 0"])
    >>> [text.get_text() for text in axes.texts]
    ['10%', '100%']
    """
    table = np.asarray(share, np.float64)
    if table.ndim != 2:
        raise ValueError(f"share: expected shape (rows, columns), got shape {table.shape}")
    known = table[~np.isnan(table)]
    if known.size and not (known.min() >= 0.0 and known.max() <= 1.0):
        raise ValueError(f"share: expected 0 … 1, got {known.min()} … {known.max()}")
    names = []
    for name, labels, size in zip(("rows", "columns"), (rows, columns), table.shape, strict=True):
        names.append([str(i) for i in range(size)] if labels is None else [*map(str, labels)])
        if len(names[-1]) != size:
            raise ValueError(f"{name}: expected {size} labels, got {len(names[-1])}")
    height, width = (CELL * size for size in table.shape)
    axes = _axes(axes, (width + 2.2, height + 1.2))
    image = axes.imshow(table, cmap="cividis", vmin=0.0, vmax=1.0, aspect="auto")
    axes.set_yticks(range(table.shape[0]), names[0])
    axes.set_xticks(range(table.shape[1]), names[1])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for (i, j), value in np.ndenumerate(table):
        if value == value:
            colour = "black" if value > 0.6 else "white"
            style = {"ha": "center", "va": "center", "fontsize": "small", "color": colour}
            axes.text(j, i, _percent(value), **style)
    bar = axes.figure.colorbar(image, ax=axes, label="share of keys read")
    bar.outline.set_visible(False)
    return axes


def _percent(share: float) -> str:
    """Two digits of a share."""
    percent = 100.0 * share
    return f"{percent:.0f}%" if percent >= 9.95 or percent == 0.0 else f"{percent:.1f}%"


def bound_against_error(
    heads: Mapping[str, tuple[Attended, ArrayLike]], *, axes: Axes | None = None
) -> Axes:
    """Draw each row's certified bound against the error it made: no dot is below the line.

    Parameters
    ----------
    heads : mapping of str to (Attended, array_like)
        By name: what a call returned, and exact outputs (..., length, value_dim).
    axes : matplotlib.axes.Axes, optional
        Where to draw; new ones if not given.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        Exact outputs of another shape.

    Examples
    --------
    >>> import attention
    >>> from attention import data, plot
    >>> head = data.load("sharp")
    >>> got = attention.softmax_attention(head.query[:8], head.key, head.value)
    >>> exact, _ = attention.dense.softmax(head.query[:8], head.key, head.value)
    >>> plot.bound_against_error({"sharp": (got, exact)}).get_title()
    'bounds broken: 0 of 8'
    """
    axes, broken, total = _axes(axes, (5.5, 5.0)), 0, 0
    low, high = np.inf, LEAST_ERROR
    for i, (name, (got, exact)) in enumerate(heads.items()):
        truth = np.asarray(exact)
        if truth.shape != got.output.shape:
            raise ValueError(
                f"{name}: expected exact outputs of shape {got.output.shape}, got {truth.shape}"
            )
        found = _errors(got, truth).ravel()
        bounds = got.bound.ravel()
        broken, total = broken + int((~(found <= bounds)).sum()), total + len(bounds)
        shown = np.maximum(found, LEAST_ERROR)
        style = {"s": 8, "color": f"C{i}", "linewidths": 0, "alpha": 0.7}
        axes.scatter(shown, np.maximum(bounds, LEAST_ERROR), label=name, **style)
        low = min(low, shown.min(initial=np.inf))
        high = max(high, bounds.max(initial=LEAST_ERROR))
    ends = [min(low, high), high]
    axes.plot(ends, ends, color="0.4", linewidth=1.0, label="bound = error")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("true error, largest of a coordinate")
    axes.set_ylabel("certified bound")
    axes.set_title(f"bounds broken: {broken} of {total}", fontsize="medium")
    axes.legend(fontsize="small", frameon=False)
    return axes
