"""Publisher: how a change of what there is becomes what there is, for `Dynamic`.

A change makes a new forest of parts of the old one, and publishes it by one assignment. Writers
take turns. Segments are built by the writer, or beside changes by a thread in the background.
"""

import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from numpy.typing import ArrayLike

from .background import Background
from .buffer import Buffer
from .changes import Change, all_located, as_columns, check_new, fitting
from .dynamic_state import DynamicState
from .forest import Forest
from .forest_view import ForestView
from .journal import Journal
from .planner import build_as_planned, structure_name
from .rebuilding import Loose, growth, merged, next_merge, rebuilt, succeeded
from .static_index import StaticIndex
from .tombstones import Rows, Segment

MOST_STALE = 4
"""Segments that may wait for the background before a writer takes part in the work."""


class Publisher(ForestView):
    """An index whose forest is replaced, by one writer at a time; readers never wait."""

    state: Callable[[], DynamicState]

    def _start(
        self, structure: str | type[StaticIndex], buffer_size: int, options: Mapping
    ) -> None:
        self._structure = structure_name(structure)
        self._buffer_size, self._options = buffer_size, dict(options)
        self._background: Background | None = None
        # Told of each change before it is published; where it raises, nothing is changed.
        self._journal: Journal | None = None
        self._closed = False
        self._forget_locks()
        _publishers.add(self)

    def _forget_locks(self) -> None:
        # A change takes the first; a rebuild beside changes the second, and the first to install.
        self._changing, self._merging = threading.RLock(), threading.RLock()

    @contextmanager
    def _writing(self, name: str) -> Iterator[Forest]:
        """What there is, which nobody else changes meanwhile."""
        if self._background is not None:
            self._background.raise_failure()
            if sum(segment.stale for segment in self._forest.segments) >= MOST_STALE:
                self._rebuild_waiting()
        with self._changing:
            if self._closed:
                raise ValueError(f"{name}: expected an open index, got a closed one")
            yield self._forest

    def _apply(self, forest: Forest, change: Change) -> None:
        """Publish `forest` with a change that was checked but for ids."""
        if len(change.deleted):
            forest = forest.without(all_located(forest, change.deleted))
        if change.inserted.count:
            if change.own_ids:
                check_new(forest, change.inserted.ids)
            forest = self._added(forest, change.inserted)
            forest = forest.replaced(own_ids=forest._own_ids or change.own_ids)
        if self._background is None and _next_merge(forest):
            segments = rebuilt(forest.segments, growth(forest.buffer.dim), self._build)
            forest = forest.replaced(segments=segments)
        self._publish(forest, change)
        if self._background is not None and _next_merge(forest):
            self._background.wake()

    def _publish(self, forest: Forest, change: Change) -> None:
        """Let everybody see a forest, which is one with a change, once that is logged."""
        journal = self._journal
        if journal is None:
            self._forest = forest
            return

        def publish() -> None:
            self._forest = forest

        journal.commit(change, publish, lambda: self._forest is forest)
        journal.checkpoint_if_due(self.state)

    def _added(self, forest: Forest, rows: Rows) -> Forest:
        """Forest with more points, whose ids are new."""
        buffer, segments, rows = forest.buffer, forest.segments, fitting(rows, forest)
        if not len(forest):
            buffer = buffer.none(rows.points.dtype)
        used, size = buffer.used + rows.count, self._buffer_size
        next_id = max(forest.next_id, int(rows.ids.max(initial=-1)) + 1)
        if used > size and len(buffer) + rows.count <= size // 2:  # most of it is dead
            buffer = buffer.none().appended(buffer.rows()).appended(rows)
        elif used <= size:
            buffer = buffer.appended(rows)
        elif self._background is None:
            parts = [*segments, *_loose(buffer), Loose(rows)]
            segments = rebuilt(parts, growth(buffer.dim), self._build)
            buffer = buffer.none(rows.points.dtype)
        else:
            # Two at most wait for the background: what was there, and this if it is as large.
            segments, buffer = [*segments, *buffer.sealed()], buffer.none().appended(rows)
            if rows.count > size:
                segments, buffer = [*segments, *buffer.sealed()], buffer.none()
        return forest.replaced(segments=segments, buffer=buffer, next_id=next_id)

    def _build(self, rows: Rows) -> StaticIndex:
        weights = rows.weights if rows.weights.shape[1] else None
        return build_as_planned(
            rows.points, self._structure, ids=rows.ids, weights=weights, **self._options
        )

    def _compact(self) -> None:
        """Make one segment of all."""
        if self._background is None:
            with self._writing("compact") as forest:
                parts = [*forest.segments, *_loose(forest.buffer)]
                if len(parts) > 1 or any(part.stale or part.dead for part in parts):
                    segments = [merged(parts, self._build)]
                    self._forest = forest.replaced(segments=segments, buffer=forest.buffer.none())
            return
        with self._merging:
            with self._writing("compact") as forest:
                segments = (*forest.segments, *forest.buffer.sealed())
                self._forest = forest.replaced(segments=segments, buffer=forest.buffer.none())
            if len(segments) > 1 or any(part.stale or part.dead for part in segments):
                self._replace(segments)

    def _replace(self, sources: tuple[Segment, ...]) -> None:
        """Make one of some segments, while others change them."""
        new = merged(sources, self._build)
        with self._changing:
            forest = self._forest
            self._forest = forest.replaced(segments=succeeded(forest.segments, sources, new))

    def _build_beside(self) -> None:
        """Have a thread build what waits for it, from now on."""
        self._background = Background(self._rebuild_waiting)
        if _next_merge(self._forest):
            self._background.wake()

    def _rebuild_waiting(self) -> None:
        """Build what waits for it, beside changes."""
        with self._merging:
            while not self._closed and (span := _next_merge(self._forest)):
                self._replace(self._forest.segments[slice(*span)])

    def _as_columns(self, weights: ArrayLike | None, n: int) -> np.ndarray:
        forest = self._forest
        return as_columns(weights, n, forest._weights_ndim, forest.buffer.columns)


def _next_merge(forest: Forest) -> tuple[int, int] | None:
    return next_merge(forest.segments, growth(forest.buffer.dim))


def _loose(buffer: Buffer) -> list[Loose]:
    return [Loose(buffer.rows())] if len(buffer) else []


_publishers: weakref.WeakSet[Publisher] = weakref.WeakSet()


def _after_fork() -> None:
    """In a child there is no other thread, and no one to give back a lock."""
    for publisher in list(_publishers):
        publisher._forget_locks()
        if publisher._background is not None:
            publisher._background.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
