"""The demo's figure: true error and certified bound against the number of keys read."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from . import data, dense
from .decode import Decoder
from .rules import TopR


def plot_errors(heads: list[tuple[data.Head, np.ndarray]], path: Path) -> None:
    """Draw median error and bound of TopR(r) against r for each head into `path`.

    Needs matplotlib (the extra ``plot``).
    """
    figure = Figure(figsize=(7.0, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for i, (head, queries) in enumerate(heads):
        decoder = Decoder(head.key, head.value)
        exact, _ = dense.softmax(queries, head.key, head.value)
        counts = np.unique(np.geomspace(8, len(decoder), 24).astype(int))
        bounds, errors = [], []
        for r in counts:
            got = decoder.softmax(queries, TopR(int(r)))
            bounds.append(np.median(got.bound))
            errors.append(np.median(np.abs(got.output - exact).max(axis=-1)))
        axes.loglog(counts, bounds, color=f"C{i}", label=f"{head.name}: certified bound")
        axes.loglog(counts, errors, color=f"C{i}", linestyle="--", label=f"{head.name}: true error")
    axes.axvline(
        TopR().count(len(decoder)), color="0.6", linewidth=1.0, label=r"the paper's $n^{4/5}$"
    )
    axes.set_xlabel("keys read per query")
    axes.set_ylabel("largest error of a coordinate (median over queries)")
    axes.set_ylim(bottom=1e-7)
    axes.legend(fontsize="small")
    figure.savefig(path)
