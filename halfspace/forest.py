"""Forest: points in several static indices and a buffer, asked as one; it does not change.

Half-space queries are decomposable (Bentley, Saxe 1980): counts and sums add, reports and the k
best merge. So a forest answers in the sum of what its segments take, whose sizes fall
geometrically (`rebuilding.py`).

Source: Bentley, Saxe 1980, "Decomposable searching problems I: static-to-dynamic transformation".
"""

import itertools
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from .buffer import Buffer
from .index import Find, Index, Listed
from .memory import check_room
from .report import Top, check_total
from .runs import merge_runs
from .tombstones import Rows, Segment
from .top_merge import Candidates, merge_tops


class Located(NamedTuple):
    """Where points are: their places (ranks, or slots of the buffer) by segment, buffer last."""

    parts: np.ndarray  # (k,) int64, number of the segment; as many as there are for the buffer
    places: np.ndarray  # (k,) int64


class Forest(Index):
    """What a `Dynamic` held at an instant. It does not change, and answers as any `Index`.

    Parameters
    ----------
    segments : sequence of Segment
        Oldest first.
    buffer : Buffer
        What came last.
    next_id : int
        Least id to give out.
    own_ids : bool
        Whether the caller gave some of the ids.
    weights_ndim : int
        Axes of the weights as they are given; 0 where there are none.
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        buffer: Buffer,
        next_id: int,
        own_ids: bool,
        weights_ndim: int,
    ) -> None:
        self.segments, self.buffer = tuple(segments), buffer
        self.next_id, self._own_ids, self._weights_ndim = next_id, own_ids, weights_ndim

    def replaced(self, **changes: object) -> "Forest":
        """The same with other segments, another buffer, `next_id` or `own_ids`."""
        now = {
            "segments": self.segments,
            "buffer": self.buffer,
            "next_id": self.next_id,
            "own_ids": self._own_ids,
            "weights_ndim": self._weights_ndim,
        }
        return Forest(**(now | changes))

    @cached_property
    def parts(self) -> tuple[Segment, ...]:
        """Segments to ask: at least one."""
        if len(self.buffer) or not self.segments:
            return (*self.segments, self.buffer.segment)
        return self.segments

    @cached_property
    def _count(self) -> int:
        return sum(map(len, self.segments)) + len(self.buffer)

    def __len__(self) -> int:
        return self._count

    @property
    def dim(self) -> int:
        """Dimension d of the points."""
        return self.buffer.dim

    @property
    def nbytes(self) -> int:
        """Bytes held in arrays."""
        return sum(segment.nbytes for segment in self.segments) + self.buffer.nbytes

    def explain(self) -> str:
        """Say in a few lines what this index is: its segments, their sizes, and tombstones."""
        live, dead = len(self.buffer), self.buffer.used - len(self.buffer)
        lines = [
            f"{type(self).__name__}: {type(self).__doc__.splitlines()[0]}",
            f"  points   {len(self)} x {self.dim}, {self.buffer.dtype}",
            f"  memory   {self.nbytes / 1e6:.1f} MB",
            *(
                f"  segment  {len(s)} live, {s.dead} dead, in {type(s.index).__name__}"
                for s in self.segments
            ),
            f"  buffer   {live} live, {dead} dead",
        ]
        return "\n".join(lines)

    def located(self, ids: np.ndarray) -> Located:
        """Where the live points of such ids are; places are -1 where there is none."""
        parts, places = np.zeros(len(ids), np.int64), np.full(len(ids), -1)
        holders = [*(segment.ranks_of for segment in self.segments), self.buffer.slots_of]
        for number, find in enumerate(holders):
            left = np.flatnonzero(places < 0)
            if not len(left):
                break
            found = find(ids[left])
            parts[left[found >= 0]] = number
            places[left] = found
        return Located(parts, places)

    def without(self, located: Located) -> "Forest":
        """The same without some points that are there."""
        segments, buffer = list(self.segments), self.buffer
        for number in np.unique(located.parts).tolist():
            places = located.places[located.parts == number]
            if number == len(segments):
                buffer = buffer.without(places)
            else:
                segments[number] = segments[number].without(places)
        return self.replaced(segments=[s for s in segments if len(s)], buffer=buffer)

    def weights_of(self, located: Located) -> np.ndarray:
        """Weights (k, w) of some points that are there."""
        weights = np.empty((len(located.places), self.buffer.columns))
        for number, holder in enumerate((*self.segments, self.buffer)):
            here = located.parts == number
            weights[here] = holder.weights_of(located.places[here])
        return weights

    def rows(self) -> Rows:
        """All live points."""
        return Rows.joined([part.rows() for part in self.parts])

    def _listed(self, find: Find, limit: int | None) -> Listed:
        if limit is not None:
            check_total(int(self._counted(find).sum()), limit)
        runs = len(self.parts)
        found = [part.covers(find) for part in self.parts]
        queries = sum(map(len, found[0]))
        ends = np.zeros(queries * runs + 1, np.int64)
        if queries == 1:  # as many a report is: numpy is called as little as may be
            ends[1:] = [*itertools.accumulate(int(covers[0].counts[0]) for covers in found)]
        else:
            counts = ends[1:].reshape(queries, runs)
            for number, covers in enumerate(found):
                first = 0
                for block in covers:
                    counts[first : first + len(block), number] = block.counts
                    first += len(block)
            np.cumsum(ends, out=ends)
        check_room(ends[-1] * 8, "report")
        indices = np.empty(ends[-1], np.int64)
        filled = 0
        for number, (part, covers) in enumerate(zip(self.parts, found, strict=True)):
            if any(len(block.parts) for block in covers):
                part.fill(covers, np.ascontiguousarray(ends[number:-1:runs]), indices)
                filled += 1
        if filled > 1:
            merge_runs(indices, ends, runs)
        columns = None if self._own_ids else self.next_id
        return Listed(np.ascontiguousarray(ends[::runs]), indices, columns)

    def _counted(self, find: Find) -> np.ndarray:
        return sum(part.counts(find) for part in self.parts)

    def _occupied(self, find: Find) -> np.ndarray:
        found = self.parts[-1].occupied(find)
        for part in self.parts[-2::-1]:
            if found.all():
                break
            found = found | part.occupied(find)
        return found

    def _summed(self, find: Find) -> np.ndarray:
        return sum(part.sums(find) for part in self.parts)

    def _worked(self, find: Find) -> np.ndarray:
        return sum(part.index._worked(find) for part in self.parts)

    def _best(self, normals: np.ndarray, k: int) -> Top:
        k, many = min(k, len(self)), []
        for part in self.parts:
            index, tiles = part.index, part.index.structure.tiles
            slots, scores = index.best_slots(normals, min(k, len(part)), part.live)
            many.append(Candidates(tiles.data, slots, scores, index.ids_of(tiles.ranks[slots])))
        if len(many) > 1:
            scores, ids = merge_tops(many, normals, k)
        else:
            scores, ids = many[0].scores, many[0].ids
        # The order is exact, each score rounded: a later one must not seem larger.
        np.minimum.accumulate(scores, axis=1, out=scores)
        return Top(scores, ids)
