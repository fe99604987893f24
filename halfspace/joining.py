"""Answers of parts of the points, joined into those of all of them.

Half-space queries are decomposable (Bentley, Saxe 1980): counts and sums add, reports and the k
best merge. The parts here are static indices that each number their points from 0 on; the ids of
one begin where those of the part before it end, so a joined report ascends as it is put together:
O(k) for k ids. The k best come with their points, and are ranked exactly once more
(`top_merge.py`): O(p k (d + log k)) for p parts.

For parts that are not all in memory, or not on one machine; `forest.py` asks those that are.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .inputs import Queries
from .memory import check_room
from .report import Report, Top
from .static_index import StaticIndex
from .tiles import TILE, make_rows, tile_view
from .top_merge import Candidates, merge_places


class Part(NamedTuple):
    """Some of the points."""

    index: StaticIndex  # without ids of its own
    first: int  # id of its first point


class PartTop(NamedTuple):
    """The k best points of a part along each normal, best first."""

    scores: np.ndarray  # (m, k) float64
    ids: np.ndarray  # (m, k) int64
    points: np.ndarray  # (m, k, d) float32 or float64


def part_report(part: Part, queries: Queries, closed: bool, limit: int | None = None) -> Report:
    """Ids of one part, of many half-spaces; ResultTooLarge where there are more than `limit`."""
    report = part.index.report(queries.normals, queries.offsets, closed=closed, max_results=limit)
    report.indices += part.first
    return report


def part_top(part: Part, normals: np.ndarray, k: int) -> PartTop:
    """The k best of one part, or all where they are fewer."""
    index, tiles = part.index, part.index.structure.tiles
    slots, scores = index.best_slots(normals, min(k, len(index)))
    points = tiles.data[slots // TILE, :, slots % TILE]
    return PartTop(scores, index.ids_of(tiles.ranks[slots]) + part.first, points)


def join_reports(parts: Sequence[Report], columns: int) -> Report:
    """Report of all points, `columns` in number, from those of parts in order."""
    counts = np.stack([np.diff(part.indptr) for part in parts], axis=1)
    ends = np.zeros(counts.size + 1, np.int64)
    np.cumsum(counts, out=ends[1:])
    starts = ends[:-1].reshape(counts.shape)
    check_room(ends[-1] * 8, "report")
    indices = np.empty(ends[-1], np.int64)
    for number, part in enumerate(parts):
        moved = np.repeat(starts[:, number] - part.indptr[:-1], counts[:, number])
        indices[moved + np.arange(len(moved))] = part.indices
    return Report(np.ascontiguousarray(ends[:: len(parts)]), indices, columns)


def follow_reports(reports: Sequence[Report], columns: int | None = None) -> Report:
    """One report of the queries of several, one after another."""
    starts = np.cumsum([0, *(len(report.indices) for report in reports)])
    ends = [r.indptr[1:] + start for r, start in zip(reports, starts[:-1], strict=True)]
    indices = np.concatenate([np.empty(0, np.int64), *(report.indices for report in reports)])
    return Report(np.concatenate([np.zeros(1, np.int64), *ends]), indices, columns)


def _candidates(part: PartTop) -> Candidates:
    m, k, d = part.points.shape
    rows = part.points.reshape(m * k, d)
    slots = np.arange(m * k).reshape(m, k)
    return Candidates(tile_view(make_rows(rows, slots.ravel())), slots, part.scores, part.ids)


def join_tops(parts: Sequence[PartTop], normals: np.ndarray, k: int) -> PartTop:
    """The k best of several parts, or all where they are fewer, in the order of real arithmetic."""
    k = min(k, sum(part.ids.shape[1] for part in parts))
    scores, places = merge_places([_candidates(part) for part in parts], normals, k)
    ids, points = (
        np.concatenate([getattr(part, name) for part in parts], axis=1)
        for name in ("ids", "points")
    )
    return PartTop(
        scores,
        np.take_along_axis(ids, places, axis=1),
        np.take_along_axis(points, places[:, :, None], axis=1),
    )


def as_top(best: PartTop, single: bool) -> Top:
    """Answer of `Index.top`, for one normal or many."""
    # The order is exact, each score rounded: a later one must not seem larger.
    scores = np.minimum.accumulate(best.scores, axis=1)
    return Top(scores[0], best.ids[0]) if single else Top(scores, best.ids)
