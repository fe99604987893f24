"""Scores, weights and weighted values of listed keys: float64, in splits of a list that add up.

A list is CSR: row a's keys are from starts[a] to starts[a + 1]. The largest score of a row is known
before weights are taken, so all splits have one unit, and merging them is adding them up
(`halfspace.cuda.lists.added_up`): a merge by logarithms would round once more.

`weights` end up as those of the keys that are kept, 0 of others; `extras` as what the certificate
wants to know besides: the weights of keys that were listed and not kept, or what errors of scores
may do to the weights of ReLU.
"""

import math

import numpy as np

from halfspace.cuda.scoring import LIMBS
from halfspace.cuda.target import Kernel, cuda

from .arithmetic import dot, exp, is_inside, raised, relu_drift

SPLIT = 64
"""Keys whose values one thread adds up."""

MASS, EXTRA, COUNT = range(3)
"""Sums beside those of the values' coordinates: of weights, of extras, and of keys kept."""

SUMS = 3

MISSED, TOP = range(SUMS, SUMS + 2)
"""What answers hold behind these: mass of keys not listed, and the largest score."""


@Kernel
def reset(tops):
    """No score so far."""
    for a in range(cuda.grid(1), tops.size, cuda.gridsize(1)):
        tops[a] = -math.inf


@Kernel
def score_listed(keys, head, m, asked, chosen, scale, starts, slots, scores, tops):
    """Scores in float64, in nats, of listed keys, and the largest of each row.

    Parameters
    ----------
    keys, head, m, asked, scale, chosen
        As for kernels of products.
    starts : int64 array, shape (k + 1,)
    slots : int32 array, shape (listed,)
    scores : float64 array, shape (listed,)
        Filled.
    tops : float64 array, shape (k,)
        As `reset` leaves them; filled.
    """
    for a in range(cuda.blockIdx.y, chosen.size, cuda.gridDim.y):
        r, last = chosen[a], starts[a + 1]
        h, step = head + r // m, cuda.blockDim.x * cuda.gridDim.x
        for i in range(
            starts[a] + cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x, last, step
        ):
            score = scale * dot(asked[r], keys[h], slots[i])
            scores[i] = score
            if score > tops[a]:
                cuda.atomic.max(tops, a, score)


@Kernel
def keep_inside(keys, head, m, asked, chosen, scale, starts, slots, scores, offsets, errors, kept):
    """Keep the listed keys with <q, k> >= offset, exactly decided.

    Parameters
    ----------
    keys, head, m, asked, chosen, scale, starts, slots, scores
        As for `score_listed`.
    offsets, errors : float64 array, shape (rows,)
    kept : int8 array, shape (listed,)
        Filled.
    """
    limbs = cuda.local.array(LIMBS, np.int64)
    for k in range(LIMBS):
        limbs[k] = 0
    for a in range(cuda.blockIdx.y, chosen.size, cuda.gridDim.y):
        r, last = chosen[a], starts[a + 1]
        h, step = head + r // m, cuda.blockDim.x * cuda.gridDim.x
        for i in range(
            starts[a] + cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x, last, step
        ):
            kept[i] = is_inside(
                keys[h, slots[i]], asked[r], offsets[r], scale, scores[i], errors[r], limbs
            )


@Kernel
def weigh(starts, tops, shrink, kept, scores, weights):
    """Weights exp(score - top), and those of keys not kept in place of the scores.

    Parameters
    ----------
    starts, tops, scores
        As for `score_listed`.
    shrink : float
        A power of two that weights are multiplied by, so that sums of huge values do not overflow.
    kept : int8 array, shape (listed,) or (0,)
        Empty where all are.
    weights : float64 array, shape (listed,)
        Filled.
    """
    for a in range(cuda.blockIdx.y, tops.size, cuda.gridDim.y):
        last, step = starts[a + 1], cuda.blockDim.x * cuda.gridDim.x
        for i in range(
            starts[a] + cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x, last, step
        ):
            weight = exp(scores[i] - tops[a])
            if kept.size and not kept[i]:
                weights[i], scores[i] = 0.0, weight
            else:
                weights[i], scores[i] = shrink * weight, 0.0


@Kernel
def weigh_relu(chosen, errors, starts, tops, threshold, power, shrink, kept, scores, weights):
    """Weights max(0, score - threshold)^power in units of the largest, and what errors may do.

    Parameters
    ----------
    chosen, starts, tops, shrink, scores, weights
        As for `weigh`.
    errors : float64 array, shape (rows,)
        Of scores.
    threshold, power
    kept : int8 array, shape (listed,)
        Filled: the active keys.
    """
    for a in range(cuda.blockIdx.y, tops.size, cuda.gridDim.y):
        last, step = starts[a + 1], cuda.blockDim.x * cuda.gridDim.x
        unit = tops[a] - threshold
        for i in range(
            starts[a] + cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x, last, step
        ):
            ratio = (scores[i] - threshold) / unit
            weights[i], scores[i], kept[i] = 0.0, 0.0, 0
            if unit > 0.0:
                scores[i] = relu_drift(ratio, errors[chosen[a]] / unit, power)
                if ratio > 0.0:
                    weights[i], kept[i] = shrink * raised(ratio, power), 1


@Kernel
def sum_splits(values, head, m, chosen, starts, slots, kept, weights, extras, sums):
    """Weighted values, weights, extras and numbers of keys of each split of the lists.

    Parameters
    ----------
    values : float array, shape (heads, slots, value_dim)
    head, m, chosen, starts, slots, kept, weights
        As above.
    extras : float64 array, shape (listed,)
    sums : float64 array, shape (k, value_dim + SUMS, splits)
        Filled.
    """
    columns, splits, c = sums.shape[1], sums.shape[2], values.shape[2]
    for item in range(cuda.grid(1), sums.size, cuda.gridsize(1)):
        column, split, a = item % columns, item // columns % splits, item // columns // splits
        first = starts[a] + split * SPLIT
        last = min(first + SPLIT, starts[a + 1])
        h, total = head + chosen[a] // m, 0.0
        if column < c:
            for i in range(first, last):
                # Values of keys without weight are not read.
                if weights[i] > 0.0:
                    total += weights[i] * np.float64(values[h, slots[i], column])
        elif column == c + MASS:
            for i in range(first, last):
                total += weights[i]
        elif column == c + EXTRA:
            for i in range(first, last):
                total += extras[i]
        elif kept.size:
            for i in range(first, last):
                total += kept[i]
        else:
            total = np.float64(max(last - first, 0))
        sums[a, column, split] = total


@Kernel
def gather_answers(sums, missed, tops, answers):
    """One row of answers (k, value_dim + SUMS + 2) from what each row came to."""
    width = sums.shape[1]
    for a in range(cuda.grid(1), answers.shape[0], cuda.gridsize(1)):
        for column in range(width):
            answers[a, column] = sums[a, column, 0]
        c = width - SUMS
        answers[a, c + MISSED], answers[a, c + TOP] = missed[a, 0, 0], tops[a]
