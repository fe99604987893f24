"""Half-spaces made ready for the device: what `query.prepare` makes of each, side by side."""

from typing import NamedTuple

import numpy as np

from ..inputs import Queries
from ..jit import kernel
from ..query import prepare
from .scratch import Scratch

LEVEL, NORM, RELATIVE, ABSOLUTE, UNIT, OFFSET = range(6)
"""Columns of `Ready.scalars`: fields of `query.Halfspace`."""

KIND, LEAST_SIGN = range(2)
"""Columns of `Ready.signs`: the same."""


class Ready(NamedTuple):
    """Half-spaces on the device and, where the host goes on with them, on the host."""

    normals: object  # (m, d) float64, as given
    narrows: object  # (m, d) in the floats of the points, scaled
    scalars: object  # (m, 6) float64
    signs: object  # (m, 2) int32
    host_normals: np.ndarray
    host_scalars: np.ndarray
    host_signs: np.ndarray

    @property
    def size(self) -> int:
        """How many they are."""
        return len(self.host_normals)


@kernel
def _prepare_all(normals, offsets, closed, narrows, scalars, signs):
    for q in range(offsets.size):
        query = prepare(normals[q], offsets[q], closed[q], narrows[q])
        scalars[q, LEVEL], scalars[q, NORM] = query.level, query.norm
        scalars[q, RELATIVE], scalars[q, ABSOLUTE] = query.relative, query.absolute
        scalars[q, UNIT], scalars[q, OFFSET] = query.unit, query.offset
        signs[q, KIND], signs[q, LEAST_SIGN] = query.kind, query.least_sign


def make_ready(
    queries: Queries, closed: np.ndarray, dtype: np.typing.DTypeLike, scratch: Scratch
) -> Ready:
    """Half-spaces ready for points of that dtype; `closed` (m,) bool."""
    m, d = queries.normals.shape
    narrows = np.empty((m, d), dtype)
    scalars, signs = np.empty((m, 6)), np.empty((m, 2), np.int32)
    _prepare_all(queries.normals, queries.offsets, closed, narrows, scalars, signs)
    return Ready(
        scratch.copy("normals", queries.normals),
        scratch.copy("narrows", narrows),
        scratch.copy("scalars", scalars),
        scratch.copy("signs", signs),
        queries.normals,
        scalars,
        signs,
    )


def at_levels(ready: Ready, levels: np.ndarray, scratch: Scratch) -> Ready:
    """The same normals against other levels, in the scale of the filters."""
    scalars = ready.host_scalars.copy()
    scalars[:, LEVEL] = levels
    return ready._replace(scalars=scratch.copy("scalars", scalars), host_scalars=scalars)
