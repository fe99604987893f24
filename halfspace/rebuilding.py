"""Rebuilding: which segments of a forest are made one, and when (the logarithmic method).

Segments stand in the order of their age. Whenever one is made, it takes up those before it that are
less than g times as large, so from each to the next sizes fall to 1/g or less, and with what died
since to 3/(2g) or less: n points are in O(log n) segments, and a point is built into one at least
1 + 1/g times as large as the last, so O(log n) times: with a structure built in O(n log n), an
insert takes O(log² n) amortised. A segment is built anew when a third of it is dead, which that
many deletes pay for.

A larger g means fewer segments to ask and more points to build: one million points, 1,000 at a
time by a buffer of 32,768, are built 3.7 times each with g = 3 and 2.6 times with g = 2, into 3
segments and 4.

Source: Bentley, Saxe 1980; Overmars 1983, "The Design of Dynamic Data Structures".
"""

from collections.abc import Callable, Sequence

import numpy as np

from . import parallel
from .static_index import StaticIndex
from .tombstones import Rows, Segment

DEAD_SHARE = 1 / 3
"""Share of dead points from which on a segment is built anew."""

HIGH_DIMENSION = 8
"""From here on most of a query's time goes into points, which are as many in more segments."""

LOW_GROWTH, HIGH_GROWTH = 3, 2
"""Times that a segment is at least as large as the next, below that dimension and from there on."""

JOIN_NANOSECONDS = 30.0
"""Estimated cost of copying a point together with others."""


class Loose:
    """Points that wait to be built into a segment, beside segments."""

    stale = True
    dead = 0

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return self._rows.count

    def rows(self) -> Rows:
        """All of them."""
        return self._rows


def _has_to_go(part: Segment | Loose) -> bool:
    return part.stale or part.dead > DEAD_SHARE * (len(part) + part.dead)


def growth(d: int) -> int:
    """Times that a segment of d-dimensional points is at least as large as the next.

    Examples
    --------
    >>> from halfspace.rebuilding import growth
    >>> growth(3), growth(16)
    (3, 2)
    """
    return LOW_GROWTH if d < HIGH_DIMENSION else HIGH_GROWTH


def next_merge(parts: Sequence[Segment | Loose], times: int) -> tuple[int, int] | None:
    """First and one past the last of the parts to make one next; None where all is well.

    All is well where none is stale and few of each are dead. What is made takes up those before it
    that are less than `times` as large.

    Examples
    --------
    >>> import numpy as np
    >>> from halfspace.rebuilding import Loose, next_merge
    >>> def loose(n):
    ...     return Loose(Rows(np.zeros((n, 1)), np.arange(n), np.zeros((n, 0))))
    >>> next_merge([loose(4), loose(4)], 3)
    (0, 2)
    >>> next_merge([], 3) is None
    True
    """
    sizes = [len(part) for part in parts]
    going = [i for i, part in enumerate(parts) if _has_to_go(part)]
    if not going:
        return None
    first, last = going[-1], going[-1] + 1
    if last < len(parts) and sizes[first] < times * sizes[last]:
        last = len(parts)
    total = sum(sizes[first:last])
    while first and (_has_to_go(parts[first - 1]) or sizes[first - 1] < times * total):
        first -= 1
        total += sizes[first]
    return first, last


def merged(parts: Sequence[Segment | Loose], build: Callable[[Rows], StaticIndex]) -> Segment:
    """One segment of the live points of all parts."""
    rows = parallel.interruptible(
        lambda: Rows.joined([part.rows() for part in parts]),
        JOIN_NANOSECONDS * sum(map(len, parts)),
    )
    return Segment(build(rows))


def rebuilt(
    parts: Sequence[Segment | Loose], times: int, build: Callable[[Rows], StaticIndex]
) -> list[Segment]:
    """Segments in which all is well, with the live points of all parts."""
    parts = [part for part in parts if len(part)]
    while span := next_merge(parts, times):
        first, last = span
        parts[first:last] = [merged(parts[first:last], build)]
    return parts


def succeeded(now: Sequence[Segment], sources: Sequence[Segment], new: Segment) -> list[Segment]:
    """Segments `now`, with `new` in the place of the sources it was made of.

    What died in them since is dead in `new` too. Sources are known by their indices.
    """
    made_of = {id(source.index): source for source in sources}
    current = {id(segment.index): segment for segment in now}
    dead = []
    for key, source in made_of.items():
        gone = source.alive()
        if key in current:
            gone &= ~current[key].alive()
        dead.append(source.index.ids_of(source.index.structure.tiles.ranks[: len(gone)][gone]))
    dead = np.concatenate(dead)
    if len(dead):
        new = new.without(new.ranks_of(dead))
    places = [i for i, segment in enumerate(now) if id(segment.index) in made_of]
    left = [segment for segment in now if id(segment.index) not in made_of]
    first = places[0] if places else 0
    return [*left[:first], *([new] if len(new) else []), *left[first:]]
