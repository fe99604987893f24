"""How the k best are found on the device: the steps of `best.py`, one after another."""

import numpy as np

from ..inputs import Queries
from ..tiles import TILE
from . import best
from .engine import Engine
from .lists import Counted, count_bits, list_numbers
from .queries import Ready, at_levels
from .runtime import empty, get, line
from .scratch import Scratch

LEAST_SLICES = 512
"""Slices of a sample that the bar is taken from, 64 groups each, where there are so many."""

GROUPS_PER_BEST = 8
"""Groups of that sample for each of the k best, at least."""

SAMPLED_SHARE = 16
"""One of so many points is in the sample, where those are enough."""

CANDIDATE_BYTES = 32
"""Room for one candidate."""

MOST_WASTE = 4
"""Places of candidates for each that is needed."""


def _slices(engine: Engine, k: int) -> int:
    """Slices of the sample."""
    wanted = max(LEAST_SLICES, -(-GROUPS_PER_BEST * k // TILE))
    return min(len(engine.tiles.norms), wanted)


def sample_bytes(engine: Engine, k: int) -> int:
    """Scratch that the bar of one query takes."""
    return 8 * TILE * _slices(engine, k)


def _bars(engine: Engine, ready: Ready, k: int, scratch: Scratch) -> np.ndarray:
    """Scores that at least k points reach for certain, in the scale of the filters."""
    tiles, m = engine.tiles, ready.size
    slices = _slices(engine, k)
    stride = len(tiles.norms) // slices
    span = max(1, -(-stride // SAMPLED_SHARE))
    maxima = scratch.take("maxima", (m, slices * TILE), np.float64)
    best.group_best(
        scratch.stream,
        *line(maxima.size),
        tiles.data,
        tiles.norms,
        tiles.count,
        ready.narrows,
        ready.scalars,
        span,
        stride,
        maxima,
    )
    return np.partition(get(maxima, scratch.stream), -k, axis=1)[:, -k]


def _candidates(engine: Engine, ready: Ready, k: int, scratch: Scratch) -> Counted:
    """Slots that may be among the k best of each query."""
    bars = _bars(engine, ready, k, scratch)
    # What is inside and what is left open are both wanted, so they go to one place.
    to = engine.room(ready.size, scratch)
    to = to._replace(unsettled=to.inside)
    engine.finder.find(at_levels(ready, bars, scratch), to, scratch)
    return count_bits(to.inside, scratch)


def _sorted(
    engine: Engine, ready: Ready, counted: Counted, width: int, scratch: Scratch
) -> tuple[object, object, object]:
    """Slots, scores and errors (m, width) of candidates, best first."""
    m, stream, tiles = ready.size, scratch.stream, engine.tiles
    starts = scratch.copy("starts", counted.starts)
    listed = scratch.take("listed", (int(counted.totals.sum()),), np.int64)
    names = scratch.take("no names", (0,), np.int64)
    list_numbers(counted, starts, names, listed, stream)
    slots = scratch.take("slots", (m, width), np.int64)
    scores, errors = (scratch.take(name, (m, width), np.float64) for name in ("scores", "errors"))
    each = line(slots.size)
    best.spread_out(stream, *each, listed, starts, slots)
    best.score_candidates(stream, *each, tiles.data, ready.normals, slots, scores, errors)
    size = 2
    while size <= width:
        distance = size // 2
        while distance:
            best.sort_step(
                stream,
                *line(m * width // 2),
                tiles.data,
                ready.normals,
                tiles.ranks,
                size,
                distance,
                slots,
                scores,
                errors,
            )
            distance //= 2
        size *= 2
    return slots, scores, errors


def top_of(
    engine: Engine, normals: np.ndarray, k: int, room: int, scratch: Scratch
) -> list[tuple[object, object]]:
    """Scores and ids (m, k) of the k best of each normal, on the device, in blocks of queries.

    `room` bytes of scratch may be taken, or what one query takes; 1 <= k <= n.
    """
    m = len(normals)
    queries, closed = Queries(normals, np.zeros(m), False), np.ones(m, bool)
    ready = engine.ready(queries, closed, scratch)
    counted = _candidates(engine, ready, k, scratch)
    widths = [1 << int(count - 1).bit_length() for count in counted.totals]
    width = max(widths)
    # Rows are as wide as the widest, so that of a normal with many ties is better alone.
    if m > 1 and (CANDIDATE_BYTES * m * width > room or m * width > MOST_WASTE * sum(widths)):
        halves = normals[: m // 2], normals[m // 2 :]
        return [block for half in halves for block in top_of(engine, half, k, room, scratch)]
    slots, scores, errors = _sorted(engine, ready, counted, width, scratch)
    found, ids = empty((m, k), np.float64), empty((m, k), np.int64)
    best.take_best(
        scratch.stream,
        *line(found.size),
        engine.tiles.data,
        ready.normals,
        engine.tiles.ranks,
        engine.ids,
        slots,
        scores,
        errors,
        found,
        ids,
    )
    best.descend(scratch.stream, *line(m), found)
    return [(found, ids)]
