"""Covers of a cascade: heads first, then the codes of the tiles that those open, then what passes.

A *head* stands for a tile as a leading code does for a point: the code of its centre, with the
radius around it in place of the residual. 64 heads are tested like 64 points, and what all its
queries skip of a tile is never read. Up to 64 queries share a tile while it is in cache; one alone
reads a stretch of tiles at a time. What passes is listed, and settled when the list is long.
"""

from typing import NamedTuple

import numpy as np

from .cascade_stages import make_targets
from .code_rows import BLOCK
from .cover import close_gaps
from .integer_dot import AHEAD, Errand, make_sums, rows_ahead, survivors, sweep
from .jit import kernel, part
from .predicate import LIMBS
from .query import NONE, prepare
from .settling import (
    LONG,
    Found,
    Given,
    ask_for,
    ask_for_lanes,
    first_rows,
    make_waiting,
    settle,
    spread,
)
from .tiles import TILE, lowest_lane, popcount, used_lanes

GROUP = 64
"""Queries that share a tile while it is in cache."""

STRETCH = 16
"""Tiles that one query reads before what passed is listed."""

WAITING = 2 * GROUP
"""Masks there is room for before they are listed: more than what all queries add."""

LEAST_ROW = 64
"""Bytes that a row counts for at least, to decide whether a list is long."""

_ONE, _NONE = np.uint64(1), np.int64(0)  # plain zeros would have parts compiled once more


class Scratch(NamedTuple):
    """What reading writes to."""

    opened: np.ndarray  # (whole blocks of queries,) uint64, tiles of a head
    passing: np.ndarray  # (64,) uint64, masks
    sums: np.ndarray  # as `make_sums` makes them
    limbs: np.ndarray  # of the exact predicate


@part(inline=True)
def _complete(always, count, first, left, passing, some):
    """Add the lanes that pass always, and leave out those of no point; which masks are not zero.

    Before, those are not zero that `some` has bits of, and others say nothing. `left` are the tiles
    with lanes that pass always, `first` that of bit 0.
    """
    while left:
        bit = lowest_lane(left)
        left &= left - _ONE
        if not (some >> np.uint64(bit)) & _ONE:
            passing[bit] = np.uint64(0)
        passing[bit] |= always[first + bit]
        some |= _ONE << np.uint64(bit)
    last = always.size - 1 - first
    if last < TILE and (some >> np.uint64(last)) & _ONE:
        passing[last] &= used_lanes(count, first + last)
        some &= ~(np.uint64(passing[last] == 0) << np.uint64(last))
    return some


@part(inline=True)
def _line_up(waiting, first, passing, some):
    """Have masks of one query wait, from that of tile `first` on; how many."""
    number = _NONE
    while some:
        bit = lowest_lane(some)
        some &= some - _ONE
        waiting.tiles[number], waiting.queries[number] = first + bit, 0
        waiting.lanes[number] = passing[bit]
        number += 1
    return number


@part(inline=True)
def _read_for_one(cascade, given, targets, waiting, head, every, listed, long, found, scratch):
    """Read the open tiles of a head for one query, a stretch at a time; the length of the list.

    What a stretch adds is asked for while the next is read, and may then be settled.
    """
    codes, bits, asked = cascade.leading.codes, cascade.leading.bits, listed
    first, forced, wanted = head * TILE, cascade.forced[head], scratch.opened[0]
    rows = first_rows(cascade.rows.codes, cascade.points)
    open_tiles = wanted | forced
    while open_tiles:
        last = (lowest_lane(open_tiles) // STRETCH + 1) * STRETCH
        within = used_lanes(last, 0)
        each = -(-(listed - asked) // max(1, popcount(wanted & within)))
        errand = Errand(asked, listed, each, rows.base, rows.size)
        some = sweep(
            codes,
            first,
            wanted,
            last,
            every,
            targets.leading,
            targets.bars,
            bits,
            scratch.sums,
            scratch.passing,
            waiting.slots,
            errand,
        )
        if listed > long:
            settle(cascade, given, targets, waiting, listed, found, scratch.limbs)
            listed = _NONE
        asked = listed
        some = _complete(
            cascade.always, cascade.tiles.ranks.size, first, forced & within, scratch.passing, some
        )
        number = _line_up(waiting, first, scratch.passing, some)
        listed = spread(waiting, number, targets.kinds, listed)
        wanted, forced, open_tiles = wanted & ~within, forced & ~within, open_tiles & ~within
    ask_for(rows, waiting.slots, asked, listed)
    return listed


@part
def _list(cascade, given, targets, waiting, number, listed, long, found, limbs):
    """List masks; settle the list if it is long. Its length then."""
    listed = spread(waiting, number, targets.kinds, listed)
    if listed > long:
        settle(cascade, given, targets, waiting, listed, found, limbs)
        listed = _NONE
    return listed


@part
def _read_for_many(
    cascade, given, targets, waiting, head, group, every, listed, long, found, scratch
):
    """Read the open tiles of a head for all queries, tile by tile; the length of the list."""
    codes, bits, always = cascade.leading.codes, cascade.leading.bits, cascade.always
    opened, passing, open_tiles = scratch.opened, scratch.passing, cascade.forced[head]
    rows = first_rows(cascade.rows.codes, cascade.points)
    for q in range(group):
        open_tiles |= opened[q]
    number = _NONE
    while open_tiles:
        bit = np.uint64(lowest_lane(open_tiles))
        open_tiles &= open_tiles - _ONE
        t = head * TILE + np.int64(bit)
        used = used_lanes(cascade.tiles.ranks.size, t)
        ahead = rows_ahead(t, head * TILE, open_tiles, codes.shape[1], every)
        for start in range(0, group, BLOCK):
            wanted = opened[start]
            for q in range(start + 1, start + BLOCK):
                wanted |= opened[q]
            if (wanted >> bit) & _ONE:
                survivors(
                    codes,
                    t,
                    ahead,
                    targets.leading,
                    start,
                    BLOCK,
                    targets.bars,
                    bits,
                    scratch.sums,
                    passing,
                )
                ahead = 0
            elif always[t]:
                passing[:BLOCK] = np.uint64(0)
            else:
                continue
            for q in range(start, min(start + BLOCK, group)):
                mask = (passing[q - start] | always[t]) & used
                waiting.tiles[number], waiting.queries[number] = t, q
                waiting.lanes[number] = mask
                # At once, mask by mask: memory drops what it is asked for in bursts.
                ask_for_lanes(rows, t, mask)
                number += (mask != 0) & (not found.done[q])
        if number > WAITING - GROUP:
            listed = _list(
                cascade, given, targets, waiting, number, listed, long, found, scratch.limbs
            )
            number = _NONE
    return _list(cascade, given, targets, waiting, number, listed, long, found, scratch.limbs)


@part(inline=True)
def _open_tiles(cascade, targets, head, group, found, scratch):
    """Test the heads of 64 tiles for all queries; whether every tile is to be read."""
    heads, bits, opened = cascade.heads.codes, cascade.leading.bits, scratch.opened
    block, used = 1 if group == 1 else BLOCK, used_lanes(cascade.tiles.norms.size, head)
    open_tiles = cascade.forced[head]
    for start in range(0, group, block):
        survivors(
            heads,
            head,
            AHEAD,
            targets.heads,
            start,
            block,
            targets.head_bars,
            bits,
            scratch.sums,
            scratch.passing,
        )
        for q in range(start, start + block):
            opened[q] = scratch.passing[q - start] & used
            open_tiles |= opened[q]
    for q in range(group):
        if not found.done[q]:
            found.work[q, 0] += popcount(used)
            found.work[q, 1] += TILE * popcount(opened[q])
    return open_tiles == used


@kernel
def cover_cascade(
    cascade, normals, offsets, closed, stop_at_first, indptr, parts, masks, counts, work
):
    """Cover up to 64 half-spaces; see `cover.covers` for the arguments."""
    tiles = cascade.tiles.norms.size
    if not tiles:
        return offsets.size
    group = min(GROUP, offsets.size, parts.size // tiles)
    targets = make_targets(cascade, normals, offsets, closed, group)
    given = Given(normals, offsets, prepare(normals[0], offsets[0], closed, targets.narrow[0]))
    starts, done = np.arange(group) * tiles, targets.kinds == NONE
    decided, verdicts = np.full(group, -1), np.empty(group, np.bool_)
    found = Found(
        parts, masks, starts, starts.copy(), counts, work, done, decided, verdicts, stop_at_first
    )
    scratch = Scratch(
        np.empty(targets.bars.size, np.uint64),
        np.empty(TILE, np.uint64),
        make_sums(),
        np.zeros(LIMBS, np.int64),
    )
    long = (
        _NONE
        if stop_at_first
        else LONG // max(LEAST_ROW, first_rows(cascade.rows.codes, cascade.points).size)
    )
    waiting, listed = make_waiting(STRETCH if group == 1 else WAITING, long), _NONE
    heads = cascade.heads.codes.shape[0]
    for head in range(heads):
        if done.all():
            break
        every = _open_tiles(cascade, targets, head, group, found, scratch)
        if group == 1:
            listed = _read_for_one(
                cascade, given, targets, waiting, head, every, listed, long, found, scratch
            )
        else:
            listed = _read_for_many(
                cascade, given, targets, waiting, head, group, every, listed, long, found, scratch
            )
        if stop_at_first or head == heads - 1:
            settle(cascade, given, targets, waiting, listed, found, scratch.limbs)
            listed = _NONE
    for q in range(group):
        work[q, 1] = min(work[q, 1], cascade.tiles.ranks.size)
    close_gaps(parts, masks, found.ends, tiles, indptr)
    return group
