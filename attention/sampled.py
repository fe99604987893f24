"""Softmax attention by sampling where that reads less: heavy keys exactly, the tail as estimated.

For every query a scan gives filter scores and their histogram. It says how many keys dropping would
read, and how many, roughly, reading a few and sampling the rest (`sampling.py`). What takes less
time is done; if sampling does not get there, dropping is. Keys in the last bin, below exp(-44) of
the best, are never drawn: they are missed, as with any other rule.
"""

import math
from typing import NamedTuple

import numpy as np

from halfspace.jit import kernel, part, shared
from halfspace.query import prepare
from halfspace.tiles import TILE, used_lanes

from . import bounds
from .draws import seeds
from .reading import (
    LARGEST_EXPONENT,
    average_softmax,
    largest,
    score_lanes,
)
from .rules import Sampled
from .sampling import (
    HALF_BIN,
    MIDDLES,
    Prior,
    Tail,
    choose_heavy,
    estimate,
    make_sampling,
)
from .selection import (
    BINS,
    SHARE,
    add_to_histogram,
    fill_bins,
    fill_masses,
    find_cut,
    keys_before,
    select_keys,
)

WIDEST_RATIO = 0.75
"""Proposals that may be further off than this, in nats, are not worth a draw."""

PRICE = 2.0
"""Keys that are read in order while one is drawn.

Measured: 2.4 of 128 dimensions, 9 of 32. Times are much the same for any price from 1 to 6, and the
least of these reads the fewest keys.
"""

SQUARED = 1e120
"""Widths of values from 1 / this to this can be squared, and so can what matters beside them."""

SAMPLE = 4096
"""Values that suggest where their mean is, and how they vary."""

ROUNDED = 32
"""Roundings in putting the heavy mean and the estimate together, as terms of a sum."""


class Estimates(NamedTuple):
    """What sampling adds to `Readings`; zero for the rows that were not sampled."""

    bound: np.ndarray  # (m,) on the distance from the mean over all keys but those missed
    mass_error: np.ndarray  # (m,) bound on the error of the mass
    sampled: np.ndarray  # (m,) bool


def make_estimates(m: int) -> Estimates:
    """Return estimates to be filled."""
    return Estimates(np.zeros(m), np.zeros(m), np.zeros(m, np.bool_))


class Aim(NamedTuple):
    """What a batch of queries of one head samples with."""

    prior: Prior
    states: np.ndarray  # (m,) uint64, of `draws.seeds`
    targets: np.ndarray  # (m,) bounds to be reached by sampling; not positive: not to be tried


class Moments(NamedTuple):
    """Where the mean of some values is and how they vary, by a sample; nothing rests on it."""

    centre: np.ndarray  # (value_dim,) float64
    spread: np.ndarray  # (value_dim,) float64


@np.errstate(over="ignore", invalid="ignore")
def moments_of(values: np.ndarray) -> Moments:
    """Moments of values (n, value_dim); zero for none."""
    if not len(values):
        return Moments(np.zeros(values.shape[1]), np.zeros(values.shape[1]))
    places = np.linspace(0, len(values) - 1, min(len(values), SAMPLE)).astype(np.int64)
    some = values[places].astype(np.float64)
    return Moments(some.mean(axis=0), some.std(axis=0))


def aim(
    rule: Sampled,
    queries: np.ndarray,
    moments: Moments,
    span: bounds.ValueRange,
    visible: np.ndarray,
    errors: np.ndarray,
    unit: float,
) -> Aim:
    """Share eps out between sampling and rounding.

    Parameters
    ----------
    rule : Sampled
    queries : float64 array, shape (m, head_dim)
    moments : Moments
    span : ValueRange
        Of the values.
    visible : int64 array, shape (m,)
        Keys each query sees.
    errors : float64 array, shape (m,)
        Bound on the rounding error of a float64 score.
    unit : float
        Relative rounding error of the output's dtype.
    """
    terms = visible + ROUNDED
    drift = bounds.weight_drift(np.ones(len(visible)), errors, terms)
    # The mass may be overestimated by sampling; no further than by this factor.
    size, width = span.size, span.width
    rounding = 4.0 * bounds.mean_rounding(drift, terms, size, width)
    targets = rule.eps * (1.0 - 1e-9) - rounding - unit * size
    # Of no values at all, the width is zero.
    if not 1.0 / SQUARED <= width <= 2.0 * size <= SQUARED:
        targets = np.full(len(visible), -1.0)
    prior = Prior(*span, *moments, width, float(rule.delta), PRICE)
    return Aim(prior, seeds(int(rule.seed), queries), targets)


@shared
def heavier_drift(mass: np.ndarray) -> np.ndarray:
    """What the drift of a mass has more where heavy keys were weighed in another unit."""
    return 16.0 * bounds.UNIT * mass


@part
def _fill_proposals(bins, cut, weights):
    """Proposals of the keys in bins from `cut` on."""
    for i in range(bins.size):
        weights[i] = MIDDLES[bins[i]] if bins[i] >= cut else np.float32(0.0)


@kernel
def sampled_rows(head, prior, queries, states, lengths, cut, targets, scale, readings, estimates):
    """Softmax attention of one head for many queries, by the cheaper of sampling and dropping.

    Parameters
    ----------
    head : Head
    prior : Prior
    queries : float64 array, shape (m, head_dim)
    states : uint64 array, shape (m,)
        Of `draws.seeds`.
    lengths : int64 array, shape (m,)
        Visible keys: the first so many slots.
    cut : Cut
        The share that dropping may miss.
    targets : float64 array, shape (m,)
        Bound that sampling has to reach; where it is not positive, it is not tried.
    scale : float
    readings : Readings
        Filled.
    estimates : Estimates
        Filled.
    """
    data, norms, _ = head.tiles
    keys, values = head.keys, head.values
    outputs, tops, masses, missing, _, reported, looked, _ = readings
    room, value_dim = data.shape[0], values.shape[1]
    narrow, lane_scores = np.empty(data.shape[1], data.dtype), np.empty(TILE, data.dtype)
    tiles, lanes = np.arange(room), np.empty(room, np.uint64)
    scores, bins = np.empty(room * TILE), np.empty(room * TILE, np.int32)
    chosen, places = np.empty(room * TILE + 1, np.int64), np.empty(room * TILE, np.int64)
    spare, counts = np.empty(room * TILE), np.empty(BINS + 1, np.int64)
    kept, missed = np.empty(BINS + 1), np.empty(BINS + 1)
    weights, output, widest = np.empty(room * TILE, np.float32), np.empty(value_dim), 0.0
    sampling = make_sampling(room * TILE, value_dim)
    for t in range(room):
        widest = max(widest, norms[t])
    for q in range(queries.shape[0]):
        used = (lengths[q] + TILE - 1) // TILE
        if not used:
            continue
        for t in range(used):
            lanes[t] = used_lanes(lengths[q], t)
        looked[q] = lengths[q]
        query = prepare(queries[q], 0.0, True, narrow)
        found, listed, mine = scores[: used * TILE], lanes[:used], tiles[:used]
        error = score_lanes(
            data,
            keys,
            mine,
            listed,
            queries[q],
            query,
            narrow,
            widest,
            scale,
            cut.errors[q],
            lane_scores,
            found,
        )
        best, binned = largest(found), bins[: used * TILE]
        fill_bins(found, best, binned)
        counts[:] = 0
        add_to_histogram(binned, 1, counts)
        error += 1e-12 * (1.0 + abs(best))
        fill_masses(counts, math.exp(min(LARGEST_EXPONENT, error)), 0.0, kept, missed)
        end, _ = find_cut(SHARE, cut.parameters[q], counts, kept, missed)
        drops, draws, first = keys_before(counts, end), 0, 0
        ratio = error + cut.errors[q] + HALF_BIN
        if targets[q] > 0.0 and ratio < WIDEST_RATIO:
            first = choose_heavy(counts, prior, targets[q], drops)
        if first:
            size = select_keys(found, binned, mine, first, 0, spare, places, chosen)
            top, mass = average_softmax(
                keys, values, chosen[:size], queries[q], scale, spare[:size], outputs[q]
            )
            mass *= math.exp(top - best)
            _fill_proposals(binned, first, weights[: used * TILE])
            # What is never drawn weighs next to nothing.
            left = missed[BINS - 1] / (0.9 * mass) * 3.0 * prior.width
            got = estimate(
                Tail(
                    weights[: used * TILE],
                    math.exp(-ratio),
                    math.exp(ratio),
                    best,
                    mass,
                    outputs[q],
                ),
                prior,
                targets[q] - left,
                np.int64((drops - size) / prior.price),
                states[q],
                queries[q],
                keys,
                values,
                scale,
                sampling,
                output,
            )
            draws = got.draws
            if got.enough:
                outputs[q, :] = output
                tops[q], masses[q], missing[q] = best, mass + got.mass, missed[BINS - 1]
                estimates.bound[q], estimates.mass_error[q] = got.bound, got.mass_error
                estimates.sampled[q], reported[q] = True, size + draws
                continue
            outputs[q, :] = 0.0
        size = select_keys(found, binned, mine, end, 0, spare, places, chosen)
        # Draws in vain were reads, but of no more keys than there are.
        reported[q] = min(lengths[q], size + draws)
        tops[q], masses[q] = average_softmax(
            keys, values, chosen[:size], queries[q], scale, spare[:size], outputs[q]
        )
        missing[q] = missed[end] * math.exp(min(LARGEST_EXPONENT, best - tops[q])) * (1.0 + 1e-9)
