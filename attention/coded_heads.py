"""Heads of as many keys each, read by their codes in one call of a kernel."""

from typing import NamedTuple

import numpy as np

from halfspace import parallel
from halfspace.basis import Basis
from halfspace.code_rows import BLOCK
from halfspace.codes import Ladder, Leading, Steps
from halfspace.jit import kernel, part
from halfspace.tiles import TILE, frozen

from .certificates import certify_rows
from .coded_head import Fit
from .coded_keys import CodedKeys, aim_queries
from .coded_reading import coded_relu, coded_rows
from .cuts import fill_cut
from .reading import Cut, Readings
from .room import BITS, Room
from .spread import Spread


class Piece(NamedTuple):
    """Heads `head` … `end` - 1 and queries `first` … `last` - 1 of each."""

    head: int
    end: int
    first: int
    last: int


class Answers(NamedTuple):
    """Of queries of all heads, to be filled; as of `Attended`."""

    output: np.ndarray  # (heads m, value_dim) float64, what its dtype can hold
    lse: np.ndarray  # (heads m,) float64
    bound: np.ndarray  # alike
    lse_bound: np.ndarray  # alike
    reported: np.ndarray  # (heads m,) int64


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
def _spread_at(spread, h):
    """That of one head, as of one."""
    return Spread(
        spread.count[h : h + 1],
        spread.centre[h : h + 1],
        spread.sums[h : h + 1],
        spread.squares[h : h + 1],
        spread.counts[h : h + 1],
        spread.first[h : h + 1],
        spread.step[h : h + 1],
        spread.furthest[h : h + 1],
    )


@part(counted=True)
def _make_readings(m, value_dim):
    """`make_readings`, in kernels."""
    return Readings(
        np.zeros((m, value_dim)),
        np.full(m, -np.inf),
        np.zeros(m),
        np.zeros(m),
        np.zeros(m),
        np.zeros(m, np.int64),
        np.zeros(m, np.int64),
        np.full(m, np.inf),
    )


@part
def _cast(output, single, rounded):
    """Fill the output as it is in its dtype."""
    for q in range(output.shape[0]):
        for c in range(output.shape[1]):
            rounded[q, c] = np.float64(np.float32(output[q, c])) if single else output[q, c]


@kernel
def attend_heads(
    heads, measures, piece, slots, queries, lengths, wish, scale, unit, least, sure, arena, answers
):
    """Certified softmax attention of some of the heads: one call from queries to answers.

    Each array that a kernel is handed costs a call some hundred nanoseconds, and several times as
    many where other work has taken the caches: so what only the next step needs stays in here.

    Parameters
    ----------
    heads : CodedHeads
    measures : Measures
        Of the heads.
    piece : Piece
    slots : int
        In whole tiles.
    queries : float64 array, shape (heads, m, head_dim)
    lengths : int64 array, shape (m,)
    wish, scale, unit, least
        As for `fill_cut`.
    sure : bool
        Scores are known to stay in range.
    arena : int64 array, shape (words,)
        As for `coded_rows`.
    answers : Answers
        Filled, but for what is returned.

    Returns
    -------
    bool
        False, and nothing is filled, where queries are not finite or scores may be out of range.
    """
    none = np.empty((0, 0), np.int32)
    a, b, m, d = piece.first, piece.last, queries.shape[1], queries.shape[2]
    count, value_dim = b - a, measures.low.shape[1]
    numbers, spans = np.empty((8, count)), np.empty((2, count, value_dim))
    owners, seen = np.empty(count, np.int64), lengths[a:b]
    for h in range(piece.head, piece.end):
        head, some, spread = (
            head_at(heads, h, slots),
            queries[h, a:b],
            _spread_at(measures.spread, h),
        )
        sound = fill_cut(
            some.reshape(1, count, d),
            seen,
            measures.norms[h : h + 1],
            measures.low[h : h + 1],
            measures.high[h : h + 1],
            spread,
            wish.parameters[a:b],
            wish.offset,
            wish.eps,
            scale,
            unit,
            least,
            numbers,
            spans,
            owners,
        )
        if not (sound or sure):
            return False
        cut = Cut(
            wish.kind,
            numbers[1],
            numbers[2],
            spread,
            owners,
            numbers[3],
            numbers[4],
            numbers[5],
            spans[0],
            spans[1],
            numbers[6],
            numbers[7],
        )
        readings = _make_readings(count, value_dim)
        coded_rows(head, aim_queries(head, some), some, seen, cut, scale, none, arena, readings)
        first, last = h * m + a, h * m + b
        _cast(readings.output, unit > 2.0**-30, answers.output[first:last])
        answers.reported[first:last] = readings.reported
        certify_rows(
            readings.output,
            readings.top,
            readings.mass,
            readings.missed,
            readings.drift,
            readings.reported,
            readings.looked,
            readings.peak,
            answers.output[first:last],
            np.zeros(count),
            np.zeros(count),
            np.zeros(count, np.bool_),
            cut.errors,
            cut.low,
            cut.high,
            spread,
            answers.lse[first:last],
            answers.bound[first:last],
            answers.lse_bound[first:last],
        )
    return True


@kernel
def relu_of_heads(
    heads, piece, slots, queries, lengths, offsets, errors, scale, threshold, power, arena, readings
):
    """ReLU attention of some of the heads.

    Parameters
    ----------
    heads, piece, slots, queries, lengths, scale, arena
        As for `attend_heads`.
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
