"""Softmax and ReLU attention of one head by codes, for blocks of queries.

A block's queries share each tile of codes while it is in cache (`coded_keys.py`); then each reads
what its rule asks for (`coded_rules.py`).
"""

import math

from halfspace.code_filter import bar_of
from halfspace.code_rows import BLOCK
from halfspace.jit import kernel, part
from halfspace.tiles import TILE

from .code_bounds import LOWEST, MOST_PRODUCT, collect, fill_most
from .coded_keys import SURE, fill_tiles, list_uncoded
from .coded_rules import average, make_rows, make_scratch, read, score_chosen
from .exponential import LARGEST_EXPONENT
from .reading import average_relu


@part
def fill_block(head, aims, lengths, first, last, rows):
    """Products of queries first … last - 1 with all keys that one of them sees."""
    seen = 0
    for q in range(first, last):
        seen = max(seen, lengths[q])
    tiles, codes = (seen + TILE - 1) // TILE, head.leading.codes
    fill_tiles(codes, head.always, aims.weights, first, rows.shape[0], 0, tiles, rows)


@part
def take(got, head, q, length, scratch, readings):
    """Enter what was read for query q."""
    size, top, mass = got.size, got.top, got.mass
    readings.looked[q], readings.reported[q], readings.missed[q] = length, size, got.missed
    if size:
        if not mass > 0.0:
            top, mass = average(head.values, scratch, size, readings.output[q])
        readings.top[q], readings.mass[q] = top, mass
        # From units of exp(level) to units of exp(top).
        moved = math.exp(min(got.level - top, LARGEST_EXPONENT))
        readings.missed[q] = got.missed * moved * SURE if got.missed else 0.0
        readings.peak[q] = got.peak * moved * SURE if got.missed else 0.0


@kernel
def coded_rows(head, aims, queries, lengths, cut, scale, filled, arena, readings):
    """Softmax attention of one head, by codes, for many queries.

    Parameters
    ----------
    head : CodedKeys
    aims : Aims
        Of these queries.
    queries : float64 array, shape (m, head_dim)
    lengths : int64 array, shape (m,)
        Each query sees the first so many slots.
    cut : Cut
    scale : float
    filled : int32 array, shape (1, slots) or (0, 0)
        Products of a single query, where they are known already.
    arena : int64 array, shape (words,)
        Scratch; of `words_of` such slots, and 1 or `BLOCK` queries.
    readings : Readings
        Filled.
    """
    slots, m = head.keys.shape[0], queries.shape[0]
    block = BLOCK if m > 1 else 1
    scratch, rest = make_scratch(slots, arena)
    rows = filled if filled.size else make_rows(block, slots, rest)
    for first in range(0, m, block):
        last = min(first + block, m)
        if not filled.size:
            fill_block(head, aims, lengths, first, last, rows)
        for q in range(first, last):
            length = lengths[q]
            if not length:
                continue
            row, output = rows[q - first, : (length + TILE - 1) // TILE * TILE], readings.output[q]
            got = read(
                head, queries[q], scale, cut, q, aims.bounds[q], length, row, scratch, output
            )
            take(got, head, q, length, scratch, readings)


@kernel
def coded_relu(
    head, aims, queries, lengths, offsets, errors, scale, threshold, power, arena, readings
):
    """ReLU attention of one head, by codes, for many queries.

    Parameters
    ----------
    head, aims, queries, lengths, scale, arena, readings
        As for `coded_rows`.
    offsets : float64 array, shape (m,)
        Keys with <q, k> below have no weight.
    errors : float64 array, shape (m,)
        Bound on the rounding error of a score.
    threshold, power
        As for `relu_rows`.
    """
    slots, m = head.keys.shape[0], queries.shape[0]
    block = BLOCK if m > 1 else 1
    scratch, rest = make_scratch(slots, arena)
    chosen, scores, rows = scratch.chosen, scratch.scores, make_rows(block, slots, rest)
    for first in range(0, m, block):
        last = min(first + block, m)
        fill_block(head, aims, lengths, first, last, rows)
        for q in range(first, last):
            if not lengths[q]:
                continue
            row = rows[q - first, : (lengths[q] + TILE - 1) // TILE * TILE]
            size = list_uncoded(head.always, lengths[q], row, chosen)
            bar = bar_of(aims.bounds[q, 0], aims.bounds[q, 1], offsets[q])
            fill_most(row, scratch.most)
            size = collect(row, scratch.most, max(bar, LOWEST), MOST_PRODUCT, chosen, size)
            score_chosen(head.keys, queries[q], scale, chosen, 0, size, scores)
            average_relu(
                head.values, chosen[:size], scores[:size], threshold, power, errors[q], q, readings
            )
