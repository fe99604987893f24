"""Sampling by codes: proposals are the bounds on weights that codes give.

As `sampled.py`, with what codes say in place of filter scores. A key's weight lies between its
proposal times exp(-gap) and its proposal, where the gap is what rounding to codes may cost; so the
certificate of `sampling.py` holds with an interval that wide, and the variance that is measured
makes up for it. Keys below 2^-60 of the best are never drawn: they are missed.
"""

import math

import numpy as np

from halfspace.code_rows import BLOCK
from halfspace.jit import kernel, part
from halfspace.tiles import TILE

from .code_bounds import (
    LEAST_DRAWN,
    MOST_PRODUCT,
    collect,
    fill_weights,
    sample_histogram,
)
from .coded_keys import SURE, bar_below, list_uncoded, look
from .coded_reading import fill_block, take
from .coded_rules import (
    Read,
    average,
    make_rows,
    make_scratch,
    read_share,
    score_chosen,
)
from .enough import expected_spans, guess_place
from .reading import largest
from .sampling import Tail, choose_heavy, estimate, make_sampling
from .selection import BINS, BINS_PER_NAT, keys_before

WIDEST_GAP = 8.0
"""Proposals that may be further off than this, in nats, are not worth a draw."""

CAREFUL = 0.75
"""Part of what dropping may miss that is counted on: reading more than was thought costs more than
draws that could have been spared."""

NEVER_DRAWN = 2.0 ** float(LEAST_DRAWN)


@part
def _drops(cut, q, view, counts):
    """About how many keys dropping would read."""
    place = guess_place(cut, q, expected_spans(cut, q), view, counts, 0, 1.0, CAREFUL)
    return keys_before(counts, place) * view.stride


@part
def _heavy_bin(view, row, scratch, prior, target, drops, fine):
    """First bin, of `selection`, of the tail; 0 where dropping reads less."""
    per_bin = np.float32(min(view.unit * BINS_PER_NAT, 1e30))
    sample_histogram(row, view.at, per_bin, view.stride, scratch.bins, fine[:BINS])
    for i in range(BINS):
        fine[i] *= view.stride
    fine[BINS] = 0
    return choose_heavy(fine, prior, target, drops)


@part
def _ratios(view, gap):
    """Least and largest that a weight can be of its proposal."""
    return math.exp(-(gap + view.short)) / (view.widen * (1.0 + 1e-3)), view.widen


@kernel
def coded_sampled_rows(
    head,
    aims,
    prior,
    queries,
    states,
    lengths,
    cut,
    targets,
    scale,
    filled,
    arena,
    readings,
    estimates,
):
    """Softmax attention of one head, by codes, by the cheaper of sampling and dropping.

    Parameters
    ----------
    head, aims, queries, lengths, cut, scale, filled, arena, readings
        As for `coded_rows`; `cut` holds what dropping may miss.
    prior, states, targets, estimates
        As for `sampled.sampled_rows`.
    """
    slots, m = head.keys.shape[0], queries.shape[0]
    block, fine = BLOCK if m > 1 else 1, np.empty(BINS + 1, np.int64)
    scratch, rest = make_scratch(slots, arena)
    rows = filled if filled.size else make_rows(block, slots, rest)
    spare = make_sampling(slots, head.values.shape[1])
    # Of float32, a slot each, and of no use to sampling otherwise.
    weights = scratch.places[: slots // 2].view(np.float32)
    output = np.empty(head.values.shape[1])
    for first in range(0, m, block):
        last = min(first + block, m)
        if not filled.size:
            fill_block(head, aims, lengths, first, last, rows)
        for q in range(first, last):
            length = lengths[q]
            if not length:
                continue
            row, query = rows[q - first, : (length + TILE - 1) // TILE * TILE], queries[q]
            uncoded = list_uncoded(head.always, length, row, scratch.chosen)
            score_chosen(head.keys, query, scale, scratch.chosen, 0, uncoded, scratch.scores)
            level = largest(scratch.scores[:uncoded])
            if uncoded == length:
                got = Read(uncoded, 0.0, 0.0, level, -np.inf, 0.0)
                take(got, head, q, length, scratch, readings)
                continue
            bounds = aims.bounds[q]
            view = look(head, query, scale, bounds, cut.errors[q], row, level, scratch)
            gap, place, draws = scale * bounds[2], 0, 0
            if targets[q] > 0.0 and gap + view.short < WIDEST_GAP:
                drops = _drops(cut, q, view, scratch.counts)
                place = _heavy_bin(view, row, scratch, prior, targets[q], drops, fine)
            if place:
                bar = bar_below(view, place / BINS_PER_NAT)
                size = collect(row, scratch.most, bar, MOST_PRODUCT, scratch.chosen, uncoded)
                score_chosen(head.keys, query, scale, scratch.chosen, uncoded, size, scratch.scores)
                top, mass = average(head.values, scratch, size, readings.output[q])
                mass *= math.exp(top - view.level)
                fill_weights(row, bar, view.at, view.step, weights)
                missed = row.size * NEVER_DRAWN * view.widen * SURE
                low, high = _ratios(view, gap)
                left = missed / (0.9 * mass) * 3.0 * prior.width
                drawn = estimate(
                    Tail(weights[: row.size], low, high, view.level, mass, readings.output[q]),
                    prior,
                    targets[q] - left,
                    np.int64((drops - size) / prior.price),
                    states[q],
                    query,
                    head.keys,
                    head.values,
                    scale,
                    spare,
                    output,
                )
                draws = drawn.draws
                if drawn.enough:
                    readings.looked[q], readings.reported[q] = length, size + draws
                    readings.output[q, :] = output
                    readings.top[q], readings.mass[q] = view.level, mass + drawn.mass
                    readings.missed[q] = missed
                    estimates.bound[q], estimates.mass_error[q] = drawn.bound, drawn.mass_error
                    estimates.sampled[q] = True
                    continue
            got = read_share(
                head, query, scale, cut, q, row, uncoded, view, scratch, readings.output[q]
            )
            take(got, head, q, length, scratch, readings)
            # Draws in vain were reads, but of no more keys than there are.
            readings.reported[q] = min(length, got.size + draws)
