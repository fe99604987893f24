"""Heads of as many keys each, read by their codes in one call of a kernel."""

from typing import NamedTuple

import numpy as np

from halfspace import parallel
from halfspace.basis import Basis
from halfspace.code_rows import BLOCK
from halfspace.codes import Ladder, Leading, Steps
from halfspace.jit import kernel, part
from halfspace.tiles import TILE, frozen

from .coded_head import Fit
from .coded_keys import CodedKeys, aim_queries
from .coded_reading import coded_relu, coded_rows
from .reading import Cut, Readings
from .room import BITS, Room


class Piece(NamedTuple):
    """Heads `head` … `end` - 1 and queries `first` … `last` - 1 of each."""

    head: int
    end: int
    first: int
    last: int


class CodedHeads(NamedTuple):
    """What kernels read. All arrays are read-only and have a leading axis for the heads."""

    room: Room
    fit: Fit  # of arrays, also where that of one head has numbers


def stacked(parts: list[object]) -> object:
    """Arrays and numbers of tuples that are alike, as one such tuple of arrays."""
    if isinstance(parts[0], tuple):
        return type(parts[0])._make(stacked(each) for each in zip(*parts, strict=True))
    return frozen(np.stack(parts))


def part_of(stack: object, h: int) -> object:
    """One of the parts that were stacked."""
    if isinstance(stack, tuple):
        return type(stack)._make(part_of(each, h) for each in stack)
    row = stack[h]
    return row if row.ndim else row.item()


@part(counted=True)
def head_at(heads, h, slots):
    """One head, with so many slots."""
    room, fit = heads.room, heads.fit
    basis, steps, residual, rest = fit.basis, fit.steps, fit.residual, fit.rest
    return CodedKeys(
        room.keys[h, :slots],
        room.values[h, :slots],
        room.always[h, : slots // TILE],
        Leading(
            room.codes[h, : slots // TILE],
            Steps(steps.low[h], steps.step[h], steps.inverse[h], steps.middle[h], steps.most[h]),
            Ladder(residual.first[h], residual.step[h], residual.most[h]),
            Ladder(rest.first[h], rest.step[h], rest.most[h]),
            fit.spread[h],
            BITS,
        ),
        Basis(
            basis.centre[h],
            basis.scale[h],
            basis.forward[h],
            basis.inverse[h],
            basis.errors[h],
            basis.inverse_error[h],
            basis.reach[h],
        ),
        fit.reach[h],
    )


@part(counted=True)
def _readings_at(readings, a, b):
    """Those of rows a … b - 1."""
    return Readings(
        readings.output[a:b],
        readings.top[a:b],
        readings.mass[a:b],
        readings.missed[a:b],
        readings.drift[a:b],
        readings.reported[a:b],
        readings.looked[a:b],
        readings.peak[a:b],
    )


@part(counted=True)
def _cut_at(cut, a, b):
    """That of rows a … b - 1."""
    return Cut(
        cut.kind,
        cut.parameters[a:b],
        cut.offsets[a:b],
        cut.spread,
        cut.heads[a:b],
        cut.errors[a:b],
        cut.left[a:b],
        cut.slack[a:b],
        cut.low[a:b],
        cut.high[a:b],
        cut.width[a:b],
        cut.radius[a:b],
    )


@kernel
def softmax_of_heads(heads, piece, slots, queries, lengths, cut, scale, arena, readings):
    """Softmax attention of some of the heads.

    Parameters
    ----------
    heads : CodedHeads
    piece : Piece
    slots : int
        In whole tiles.
    queries : float64 array, shape (heads, m, head_dim)
    lengths : int64 array, shape (m,)
    cut, readings
        As for `coded_rows`, by query of all heads.
    scale : float
    arena : int64 array, shape (words,)
        As for `coded_rows`.
    """
    none = np.empty((0, 0), np.int32)
    a, b, m = piece.first, piece.last, queries.shape[1]
    for h in range(piece.head, piece.end):
        head, some = head_at(heads, h, slots), queries[h, a:b]
        mine = _cut_at(cut, h * m + a, h * m + b)
        theirs = _readings_at(readings, h * m + a, h * m + b)
        aims = aim_queries(head, some)
        coded_rows(head, aims, some, lengths[a:b], mine, scale, none, arena, theirs)


@kernel
def relu_of_heads(
    heads, piece, slots, queries, lengths, offsets, errors, scale, threshold, power, arena, readings
):
    """ReLU attention of some of the heads.

    Parameters
    ----------
    heads, piece, slots, queries, lengths, scale, arena
        As for `softmax_of_heads`.
    offsets, errors, threshold, power, readings
        As for `coded_relu`, by query of all heads.
    """
    a, b, m = piece.first, piece.last, queries.shape[1]
    for h in range(piece.head, piece.end):
        head, some, row = head_at(heads, h, slots), queries[h, a:b], h * m
        coded_relu(
            head,
            aim_queries(head, some),
            some,
            lengths[a:b],
            offsets[row + a : row + b],
            errors[row + a : row + b],
            scale,
            threshold,
            power,
            arena,
            _readings_at(readings, row + a, row + b),
        )


def pieces(heads: int, queries: int, nanoseconds: float) -> list[Piece]:
    """Pieces for threads, each query of which costs so much: heads, or blocks of queries of one."""
    if heads >= parallel.get_threads():
        whole = parallel.parts(heads, queries * nanoseconds)
        return [Piece(a, b, 0, queries) for a, b in whole]
    blocks = parallel.parts(-(-queries // BLOCK), BLOCK * heads * nanoseconds)
    return [
        Piece(h, h + 1, BLOCK * a, min(BLOCK * b, queries)) for h in range(heads) for a, b in blocks
    ]
