"""Reading the floats of the few keys that matter: a bar is lowered until a rule has enough.

Keys whose bound (`coded_keys.py`) reaches the bar are read in float64. A histogram of a few tiles
tells where the bar may be; what a rule needs is checked against what was read, and the bar is
lowered until it holds. So codes and samples decide the speed and the tightness of the bound, never
whether it holds. For a query, O(d) for each key above the bar.
"""

import math
from typing import NamedTuple

import numpy as np

from halfspace.jit import part
from halfspace.predicate import LIMBS, exact_sign
from halfspace.prefetch import prefetch_row, rows_ahead
from halfspace.quickselect import select
from halfspace.tiles import LINE, TILE

from .code_bounds import (
    BINS_PER_NAT,
    GUESS_BINS,
    LOWEST,
    MOST_PRODUCT,
    RUNGS,
    collect,
    masses_below,
    sample_histogram,
)
from .coded_keys import (
    SURE,
    View,
    bar_below,
    bar_of_offset,
    bins_a_product,
    list_uncoded,
    look,
    missed_below,
    peak_below,
)
from .enough import (
    AIMED,
    FAR,
    MANY,
    climb,
    excess,
    expected_spans,
    guess_place,
    heavy_place,
    rung_place,
    share_sought,
    spans_of,
    step_down,
)
from .exponential import LARGEST_EXPONENT, exponentials
from .reading import ADDED_AT_ONCE, add_values, dot, largest
from .selection import SHARE, TOP_R, keys_before

COARSER, LEAST_BINS = 8.0, 1e-7
"""How much wider bins get where scores reach beyond them, and bins a product at least."""


class Scratch(NamedTuple):
    """For one query after another."""

    chosen: np.ndarray  # (slots + 1,) int64
    scores: np.ndarray  # (slots,) float64, of the chosen
    weights: np.ndarray  # (slots,) float64
    places: np.ndarray  # (slots,) int64
    most: np.ndarray  # (tiles,) int32, largest product of each
    counts: np.ndarray  # (GUESS_BINS + 1,) int64
    bins: np.ndarray  # (64,) int32
    limbs: np.ndarray  # (LIMBS,) int64, zeros
    bars: np.ndarray  # (RUNGS,) int32
    masses: np.ndarray  # (RUNGS,) float64


class Read(NamedTuple):
    """What was read for one query, and what was not."""

    size: int  # keys read
    missed: float  # upper bound on the mass of others, in units of exp(level)
    peak: float  # upper bound on the weight of each of those
    level: float
    top: float  # the largest score
    mass: float  # of what was read, in units of exp(top); 0 where no average was taken yet


def words_of(slots: int, queries: int) -> int:
    """Words of an arena that has room for so many slots, and products of so many queries."""
    return 4 * (slots + LINE) + slots // TILE + LINE + slots // 2 * queries


@part(counted=True)
def make_scratch(slots, arena):
    """Room for one query after another over so many slots, and what is left of the arena."""
    each, tiles = slots + LINE, slots // TILE
    first, second, third, fourth = each, 2 * each, 3 * each, 4 * each
    rest = fourth + tiles // LINE * LINE + LINE
    scratch = Scratch(
        arena[: slots + 1],
        arena[first : first + slots].view(np.float64),
        arena[second : second + slots].view(np.float64),
        arena[third : third + slots],
        arena[fourth:rest].view(np.int32)[:tiles],
        np.empty(GUESS_BINS + 1, np.int64),
        np.empty(TILE, np.int32),
        np.zeros(LIMBS, np.int64),
        np.empty(RUNGS, np.int32),
        np.empty(RUNGS),
    )
    return scratch, arena[rest:].view(np.int32)


@part(counted=True)
def make_rows(queries, slots, rest):
    """Room for the products of so many queries with all slots."""
    return rest[: queries * slots].reshape(queries, slots)


@part
def score_chosen(keys, query, scale, chosen, first, last, scores):
    """Scores in float64, in nats, of chosen keys first … last - 1."""
    ahead = rows_ahead(keys)
    for i in range(first, min(first + ahead, last)):
        prefetch_row(keys, chosen[i])
    for i in range(first, last):
        if i + ahead < last:
            prefetch_row(keys, chosen[i + ahead])
        scores[i] = scale * dot(query, keys, chosen[i])


@part
def _sum_weights(scratch, first, last, level):
    """Mass of chosen keys first … last - 1, in units of exp(level)."""
    exponentials(scratch.scores[first:last], level, scratch.weights[first:last])
    total = 0.0
    for i in range(first, last):
        total += scratch.weights[i]
    return total


@part
def _lower(head, query, scale, row, new, bar, size, scratch):
    """Read what reaches the new bar and not the present one; the bar then, and keys read."""
    new = min(new, bar)
    more = collect(row, scratch.most, new, bar, scratch.chosen, size)
    score_chosen(head.keys, query, scale, scratch.chosen, size, more, scratch.scores)
    return new, more


@part
def _widen_average(values, scratch, first, last, top, mass, output):
    """Take chosen keys first … last - 1 into a softmax-weighted mean of mass `mass`; its mass then.

    Masses are in units of exp(top).
    """
    weights, total = scratch.weights[first:last], mass
    exponentials(scratch.scores[first:last], top, weights)
    for i in range(weights.size):
        total += weights[i]
    # Normalised first, so that no sum exceeds the largest value.
    for i in range(weights.size):
        weights[i] /= total
    kept = mass / total
    for c in range(output.size):
        output[c] *= kept
    add_values(output, weights, values, scratch.chosen[first:last])
    return total


@part
def average(values, scratch, size, output):
    """Fill the softmax-weighted mean of the chosen values; the top score and the mass."""
    top = largest(scratch.scores[:size])
    output[:] = 0.0
    return top, _widen_average(values, scratch, 0, size, top, 0.0, output)


@part
def _average_more(values, scratch, averaged, size, top, mass, output):
    """`average` of the chosen, where that of the first `averaged` is known and above all others."""
    more = size - averaged
    if averaged and not more:
        return top, mass
    # To scale the mean takes two roundings, which adding so many values one by one takes, too.
    if not averaged or more < ADDED_AT_ONCE:
        return average(values, scratch, size, output)
    return top, _widen_average(values, scratch, averaged, size, top, mass, output)


@part
def bar_at(view, place):
    """Bar of such a bin of the histogram; beyond the last, that of all keys."""
    return LOWEST if place >= GUESS_BINS else bar_below(view, place / BINS_PER_NAT)


@part
def _weigh(row, view, heavy, guess, scratch):
    """Fill the masses of the bins from each rung of a ladder on."""
    for j in range(RUNGS):
        scratch.bars[j] = bar_at(view, rung_place(heavy, guess, j))
    masses_below(row, scratch.bars, view.at, view.step, scratch.masses)


@part
def read_share(head, query, scale, cut, q, row, size, view, scratch, output):
    """Read until no more is missed than the rule allows.

    With `cut.left` it is an error that is allowed, which rests on where the output is.
    """
    spans, level, counts = expected_spans(cut, q), view.level, scratch.counts
    mass, masses, n = _sum_weights(scratch, 0, size, level), scratch.masses, row.size
    # The heaviest keys often are neighbours, of whose mass a sample of tiles tells little.
    first, bar, before = heavy_place(cut, q, spans, view, counts, n), MOST_PRODUCT, size
    if first:
        bar, size = _lower(head, query, scale, row, bar_at(view, first), bar, size, scratch)
        mass += _sum_weights(scratch, before, size, level)
    sampled = guess_place(cut, q, spans, view, counts, first, max(mass, 1.0), AIMED)
    heavy, guess = np.float64(first), np.float64(sampled)
    weighed = first > 0 and keys_before(counts, sampled) * view.stride > MANY * n
    place, averaged, top, total = heavy if weighed else guess, 0, -np.inf, 0.0
    ceiling = MOST_PRODUCT
    if weighed:
        _weigh(row, view, heavy, guess, scratch)
    while True:
        before, new = size, min(bar_at(view, place), ceiling)
        bar, size = _lower(head, query, scale, row, new, bar, size, scratch)
        if cut.left[q] > 0.0:
            top, total = _average_more(head.values, scratch, averaged, size, top, total, output)
            averaged, mass = size, total * math.exp(min(top - level, LARGEST_EXPONENT))
            spans = spans_of(cut, q, output)
        else:
            mass += _sum_weights(scratch, before, size, level)
        if weighed and place == heavy:
            # Known already; more than is missed, if the bar is lower than that of the rung.
            missed = masses[0] * view.widen
        else:
            missed = missed_below(view, row, scratch.most, bar, share_sought(cut, q, spans))
        peak = peak_below(view, bar)
        found = excess(cut, q, output, missed, mass, peak)
        if found <= 1.0:
            return Read(size, missed, peak, level, top, total)
        # A product may be worth more than a bin.
        ceiling = max(bar - np.int32(1), LOWEST)
        if not weighed and found > FAR:
            heavy, guess, weighed = place, step_down(place, found), True
            _weigh(row, view, heavy, guess, scratch)
        if weighed:
            place = climb(
                cut, q, spans, view, masses, heavy, guess, place, mass, missed, peak, found
            )
        else:
            place = step_down(place, found)


@part
def place_of_rank(counts, wanted):
    """First bin before which there are so many; GUESS_BINS where only the open one may do."""
    place, seen = 0, 0
    while place < GUESS_BINS and seen < wanted:
        seen += counts[place]
        place += 1
    return place


@part
def sampled_rank(rank, stride):
    """How many of a sample, one of `stride`, make sure enough that there are `rank` in all."""
    expected = rank / np.float64(stride)
    return expected + 3.0 * math.sqrt(expected) + 3.0 if stride > 1 else expected


@part
def _nats_of(view, row, wanted, scratch):
    """How far below L so many keys of the histogram's are, about, and how finely that is known."""
    per_nat, place = np.float64(BINS_PER_NAT), place_of_rank(scratch.counts, wanted)
    # Scores of any size, so wider bins until the open one is not needed.
    while place >= GUESS_BINS and per_nat * view.unit > LEAST_BINS:
        per_nat /= COARSER
        per_bin = bins_a_product(view.unit, per_nat)
        sample_histogram(row, view.at, per_bin, view.stride, scratch.bins, scratch.counts)
        place = place_of_rank(scratch.counts, wanted)
    return place / per_nat, 1.0 / per_nat


@part
def _read_top(head, query, scale, rank, error, row, size, view, scratch):
    """Read until the `rank` keys of largest score are among those read: how many, and the bar."""
    uncoded, wanted = size, sampled_rank(rank, view.stride)
    bar, (nats, step) = MOST_PRODUCT, _nats_of(view, row, wanted, scratch)
    while True:
        bar, size = _lower(head, query, scale, row, bar_below(view, nats), bar, size, scratch)
        # Those without a code are as good as any, so not as good as these.
        if size - uncoded >= rank or bar <= LOWEST:
            break
        nats, step = nats + step, 2.0 * step
    if not 0 < rank <= size:
        return size, bar
    nats = view.level - _ranked(rank, size, scratch) + error
    bar, size = _lower(head, query, scale, row, bar_below(view, nats), bar, size, scratch)
    return size, bar


@part
def _ranked(rank, size, scratch):
    """The score of such rank, from the best down, of `size` chosen."""
    for i in range(size):
        scratch.weights[i] = scratch.scores[i]
    select(scratch.weights[:size], scratch.places, size - rank)
    return scratch.weights[size - rank]


@part
def _drop(scratch, i, level, left, most):
    """Sum and largest of the weights of keys that are not read after all, with chosen key i."""
    weight = math.exp(min(scratch.scores[i] - level, LARGEST_EXPONENT))
    return left + weight, max(most, weight)


@part
def _keep_best(rank, level, size, scratch):
    """Keep the `rank` chosen of largest score, ties to the earlier; see `_drop` for the others."""
    if size <= rank:
        return size, 0.0, 0.0
    scores, chosen = scratch.scores, scratch.chosen
    least, ties = np.inf, 0
    if rank:
        least, ties = _ranked(rank, size, scratch), rank
        for i in range(size):
            ties -= scores[i] > least
    kept, left, most = 0, 0.0, 0.0
    for i in range(size):
        if scores[i] > least or (scores[i] == least and ties > 0):
            ties -= scores[i] == least
            scores[kept], chosen[kept] = scores[i], chosen[i]
            kept += 1
        else:
            left, most = _drop(scratch, i, level, left, most)
    return kept, left, most


@part
def is_inside(key, normal, offset, scale, score, error, limbs):
    """Whether <q, k> >= offset, exactly decided, of a key whose score is known to `error`."""
    b = scale * offset
    away, around = score - b, error + 4e-16 * abs(b)
    if abs(away) <= around:
        return exact_sign(normal, key, key[:0], offset, limbs) >= 0
    return away > around


@part
def _keep_inside(keys, normal, offset, scale, error, level, size, scratch):
    """Keep the chosen with <q, k> >= offset, exactly decided; see `_drop` for the others."""
    scores, chosen = scratch.scores, scratch.chosen
    kept, left, most = 0, 0.0, 0.0
    for i in range(size):
        key = keys[chosen[i]]
        if is_inside(key, normal, offset, scale, scores[i], error, scratch.limbs):
            scores[kept], chosen[kept] = scores[i], chosen[i]
            kept += 1
        else:
            left, most = _drop(scratch, i, level, left, most)
    return kept, left, most


@part
def read(head, query, scale, cut, q, bounds, length, row, scratch, output):
    """Read for one query what its cut asks for."""
    error, kind = cut.errors[q], cut.kind
    size = list_uncoded(head.always, length, row, scratch.chosen)
    score_chosen(head.keys, query, scale, scratch.chosen, 0, size, scratch.scores)
    level, missed, left, coded = largest(scratch.scores[:size]), 0.0, 0.0, size < length
    view = View(level, np.int32(0), 0.0, 1.0, np.float32(1.0), 0.0, 1.0, 1, 1.0)
    if coded:
        view = look(head, query, scale, bounds, error, row, level, scratch)
        level = view.level
    if kind == SHARE:
        if coded:
            return read_share(head, query, scale, cut, q, row, size, view, scratch, output)
        return Read(size, 0.0, 0.0, level, -np.inf, 0.0)
    bar, peak = LOWEST, 0.0
    if kind == TOP_R:
        rank = np.int64(cut.parameters[q])
        if coded:
            size, bar = _read_top(head, query, scale, rank, error, row, size, view, scratch)
        level = largest(scratch.scores[:size])
        size, left, most = _keep_best(rank, level, size, scratch)
    else:
        if coded:
            bar = bar_of_offset(bounds, cut.offsets[q], view.at)
            before, size = size, collect(row, scratch.most, bar, MOST_PRODUCT, scratch.chosen, size)
            score_chosen(head.keys, query, scale, scratch.chosen, before, size, scratch.scores)
        level = largest(scratch.scores[:size])
        size, left, most = _keep_inside(
            head.keys, query, cut.offsets[q], scale, error, level, size, scratch
        )
    if coded:
        moved = math.exp(min(view.level - level, LARGEST_EXPONENT))
        missed = moved * missed_below(view, row, scratch.most, bar, 0.0)
        peak = moved * peak_below(view, bar)
    widen = math.exp(min(error, LARGEST_EXPONENT)) * SURE
    missed, peak = missed * SURE + left * widen, max(peak * SURE, most * widen)
    return Read(size, missed, peak, level, -np.inf, 0.0)
