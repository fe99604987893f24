"""Small heads in place of the packaged ones, and what holds of every study's rows."""

import numpy as np
from matplotlib.figure import Figure

from attention.data import Head

from .sizes import JIT

KEYS, QUERIES = (700, 6) if JIT else (100, 2)

SIZE = 8 if JIT else 7
"""Points that structures are built over, as a power of 2."""


def made_up(name):
    """A sharp head, and a flat one."""
    rng = np.random.default_rng(len(name))
    query, key, value = (
        rng.standard_normal((rows, 6), dtype=np.float32) for rows in (QUERIES, KEYS, KEYS)
    )
    return Head(name, np.float32(4.0 if name == "sharp" else 0.2) * query, key, value)


def check(study, rows):
    """Whatever is made of rows is text, of one width, and drawn."""
    table = study.table(rows)
    assert table.lines
    assert {len(line) for line in table.lines} == {len(table.header)}
    for finding in study.findings:
        assert finding.state(rows).endswith(".")
    figure = Figure(figsize=(4.0, 2.0))
    study.plot(rows, figure)
    assert all(axes.has_data() for axes in figure.axes)
