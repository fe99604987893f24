"""What a cache answers: certified rows in the shape of the queries, and statistics."""

from typing import NamedTuple

import numpy as np

from . import bounds
from .attended import Attended, certified
from .cache_inputs import Asked
from .reading import Cut, Readings
from .spread import Spread


class CacheStatistics(NamedTuple):
    """What a cache holds and has read, by head: arrays (..., kv_heads)."""

    tokens: np.ndarray  # int64
    coded: np.ndarray  # int64, those with codes; all others are read by every query
    share: np.ndarray  # float64, of the keys that queries saw, those read; NaN before any query
    nbytes: np.ndarray  # int64


def certified_softmax(
    asked: Asked,
    values: bounds.ValueRange,
    cut: Cut,
    readings: Readings,
    spread: Spread | None = None,
) -> Attended:
    """Certify what was read for softmax attention."""
    got = certified(readings, values, asked.dtype, errors=cut.errors, spread=spread)
    return shaped(got, asked)


def certified_relu(asked: Asked, values: bounds.ValueRange, readings: Readings) -> Attended:
    """Certify what was read for ReLU attention."""
    moved = readings.drift + bounds.gamma(readings.reported + 4) * readings.mass
    return shaped(certified(readings._replace(drift=moved), values, asked.dtype), asked)


def shaped(got: Attended, asked: Asked) -> Attended:
    """Rows in the shape of the queries."""
    rows = (field.reshape(asked.shape) for field in (*got[1:], got.lse_bound, got.sampled))
    return Attended(got.output.reshape(*asked.shape, got.output.shape[-1]), *rows)
