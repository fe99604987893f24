"""How large every benchmark is, in one place."""

import os

VARIABLE = "HALFSPACE_BENCH_SCALE"
"""Environment variable that multiplies every size; 1, the full size, if it is not set."""

LEAST_POINTS = 130
"""Points a shrunk benchmark keeps: more than two tiles."""


def scale() -> float:
    """Share of the full sizes to run at."""
    text = os.environ.get(VARIABLE, "1")
    try:
        share = float(text)
    except ValueError:
        raise ValueError(f"{VARIABLE}: expected a number, got {text!r}") from None
    if not 0.0 < share < float("inf"):
        raise ValueError(f"{VARIABLE}: expected a number above 0, got {text!r}")
    return share


def points(full: int) -> int:
    """Number of points where the full size has `full`."""
    return max(min(full, LEAST_POINTS), round(full * scale()))


def queries(full: int) -> int:
    """Number of queries where the full size has `full`."""
    return max(min(full, 2), round(full * scale()))


def rounds(full: int) -> int:
    """Number of repetitions where the full size has `full`."""
    return max(1, min(full, round(full * scale())))
