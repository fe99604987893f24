"""Which products to read: bars for each query, first and lower ones, on the host.

The device counts, scores and adds up; what a rule makes of that is a few hundred operations a
query, done here by the parts that the processor reads by (`coded_rules.py`). As there, nothing
certified rests on a bar: a rule is content only with what was read and what may have been missed.
"""

import math

import numpy as np

from halfspace.code_filter import bar_of
from halfspace.jit import kernel

from ..code_bounds import BINS_PER_NAT, GUESS_BINS, LOWEST
from ..coded_keys import SURE, View, bar_below, bar_of_offset, peak_below, stride_of
from ..coded_rules import COARSER, LEAST_BINS, bar_at, place_of_rank, sampled_rank
from ..enough import AIMED, bins_down, excess, expected_spans, guess_place, spans_of
from ..exponential import LARGEST_EXPONENT
from .products import AT, CONSTANT, HIGHEST, LEVEL, RATIO, SHORT, STEP, STRIDE, UNIT, WIDEN


@kernel
def sampling(tiles):
    """A histogram of so many tiles is made of one in how many."""
    return stride_of(tiles)


@kernel
def _view_at(views, q):
    return View(
        views[q, LEVEL],
        np.int32(views[q, AT]),
        views[q, CONSTANT],
        views[q, UNIT],
        np.float32(views[q, STEP]),
        views[q, SHORT],
        views[q, WIDEN],
        np.int64(views[q, STRIDE]),
        views[q, RATIO],
    )


@kernel
def share_bars(cut, views, counts, places, bars):
    """First bars of queries that may miss some of the mass, from histograms (rows, bins)."""
    for q in range(bars.size):
        view, spans = _view_at(views, q), expected_spans(cut, q)
        places[q] = guess_place(cut, q, spans, view, counts[q], 0, 1.0, AIMED)
        bars[q] = bar_at(view, places[q])


@kernel
def fill_peaks(views, bars, chosen, readings):
    """Bound the weight of each key below the bars of the chosen queries, in units of exp(top)."""
    for a in range(chosen.size):
        q, view = chosen[a], _view_at(views, chosen[a])
        moved = math.exp(min(view.level - readings.top[q], LARGEST_EXPONENT))
        readings.peak[q] = peak_below(view, bars[q]) * moved * SURE


@kernel
def lower_shares(cut, views, counts, readings, chosen, places, bars, again):
    """Lower the bars of the chosen queries that have missed too much; mark them in `again`."""
    for a in range(chosen.size):
        q = chosen[a]
        mass, output = readings.mass[q], readings.output[q]
        times = excess(cut, q, output, readings.missed[q], mass, readings.peak[q])
        again[a] = times > 1.0
        if not again[a]:
            continue
        view = _view_at(views, q)
        place = min(places[q] + bins_down(times), GUESS_BINS)
        # From units of exp(top) to units of exp(level).
        read = mass * math.exp(min(readings.top[q] - view.level, LARGEST_EXPONENT))
        spans = spans_of(cut, q, output)
        places[q] = guess_place(cut, q, spans, view, counts[q], place, max(read, 1.0), AIMED)
        bars[q] = min(bars[q], bar_at(view, places[q]))


@kernel
def rank_distances(cut, views, counts, per_nat, nats, steps, found):
    """How far below L the wanted number of keys are, about, where a histogram reaches so far."""
    for q in range(nats.size):
        if found[q]:
            continue
        wanted = sampled_rank(np.int64(cut.parameters[q]), np.int64(views[q, STRIDE]))
        place = place_of_rank(counts[q], wanted)
        nats[q], steps[q] = place / per_nat, 1.0 / per_nat
        finest = per_nat / COARSER * views[q, UNIT] <= LEAST_BINS
        found[q] = place < GUESS_BINS or finest


@kernel
def bars_below(views, nats, bars):
    """Lower each bar to that of keys whose bound is so many nats below L, where it is higher."""
    for q in range(bars.size):
        bars[q] = min(bars[q], bar_below(_view_at(views, q), nats[q]))


@kernel
def threshold_bars(cut, bounds, views, bars):
    """Bars of half-spaces <q, k> >= offset."""
    for q in range(bars.size):
        bars[q] = bar_of_offset(bounds[q], cut.offsets[q], np.int32(views[q, AT]))


@kernel
def relu_bars(bounds, offsets, bars):
    """Bars below which no key is active."""
    for q in range(bars.size):
        bars[q] = min(max(bar_of(bounds[q, 0], bounds[q, 1], offsets[q]), LOWEST), HIGHEST)


FINEST = float(BINS_PER_NAT)
"""Bins a nat of the first histogram."""
