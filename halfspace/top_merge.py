"""The k best of several indices, from the k best of each, in exact order.

The candidates of a query are laid out in tiles of their own and offered to one heap (`ranking.py`),
whose ties fall to the smaller id. O(r k (d + log k)) for r indices, and less where scores, which
are known to about a unit in the last place, say that a candidate cannot enter.
"""

from typing import NamedTuple

import numpy as np

from .jit import kernel
from .predicate import LIMBS, UNIT
from .ranking import Best, least_useful, offer, sort_best
from .tiles import TILE, frozen

GATHERED_FLOATS = 1 << 20
"""Coordinates of candidates that are laid out at a time."""


class Candidates(NamedTuple):
    """The best of one index for each query, best first."""

    tiles: np.ndarray  # (tiles, d, 64), of the index
    slots: np.ndarray  # (m, k)
    scores: np.ndarray  # (m, k)
    ids: np.ndarray  # (m, k)


@kernel
def _merge(data, ids, given, normals, slots, scores):
    """Slots among candidates, `given` scores (m, c) of them, and scores of the k best; (m, k)."""
    count, room = given.shape[1], ids.size // max(1, given.shape[0])
    errors, size, limbs = np.empty(slots.shape[1]), np.zeros(1, np.int64), np.zeros(LIMBS, np.int64)
    for q in range(slots.shape[0]):
        size[0] = 0
        best = Best(slots[q], scores[q], errors, size)
        for i in range(count):
            bar, score = least_useful(best), given[q, i]
            margin = 8.0 * UNIT * (abs(score) + abs(bar)) + 2.0**-1060
            # Where the score or the bar is infinite so is the margin, and the candidate is offered.
            if not score < bar - margin:
                offer(data, ids, normals[q], best, q * room + i, limbs)
        sort_best(data, ids, normals[q], best, limbs)


def _laid_out(many: list[Candidates], first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Points in tiles, and ids by slot, of the candidates of queries first … last."""
    count, d = sum(each.slots.shape[1] for each in many), many[0].tiles.shape[1]
    tiles = -(-count // TILE)
    dtype = np.result_type(*(each.tiles.dtype for each in many))
    rows, ids = (
        np.zeros((last - first, tiles * TILE, d), dtype),
        np.zeros((last - first, tiles * TILE), np.int64),
    )
    at = 0
    for each in many:
        slots = each.slots[first:last]
        end = at + slots.shape[1]
        rows[:, at:end] = each.tiles[slots // TILE, :, slots % TILE]
        ids[:, at:end] = each.ids[first:last]
        at = end
    data = rows.reshape(-1, TILE, d).transpose(0, 2, 1)
    return frozen(np.ascontiguousarray(data)), frozen(ids.reshape(-1))


def merge_places(
    many: list[Candidates], normals: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Scores (m, k) of the k best of all, best first, and their places; there are as many.

    A place is a column of the candidates of a query, those of all indices side by side.
    """
    m, given = len(normals), np.concatenate([each.scores for each in many], axis=1)
    scores, places = np.empty((m, k)), np.empty((m, k), np.int64)
    step = max(1, GATHERED_FLOATS // max(1, given.shape[1] * normals.shape[1]))
    for first in range(0, m if k else 0, step):
        last = min(first + step, m)
        data, names = _laid_out(many, first, last)
        slots = places[first:last]
        _merge(data, names, given[first:last], normals[first:last], slots, scores[first:last])
        slots %= len(names) // (last - first)
    return scores, places


def merge_tops(
    many: list[Candidates], normals: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Scores and ids (m, k) of the k best of all, best first; there are as many."""
    scores, places = merge_places(many, normals, k)
    ids = np.concatenate([each.ids for each in many], axis=1)
    return scores, np.take_along_axis(ids, places, axis=1)
