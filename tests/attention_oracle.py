"""The slow truth of attention: rational arithmetic on the given floats.

ReLU rows are rational, so nothing is rounded. Softmax rows need exp, taken in long double of exact
score differences; all around it stays rational, and `Row.doubt` covers exp's rounding.
"""

from fractions import Fraction
from typing import NamedTuple

import numpy as np

from . import oracle

EXTENDED = np.longdouble
EPS = float(np.finfo(EXTENDED).eps)
WEIGHT_BITS = 128  # softmax weights are integers in units of 2**-128


class Row(NamedTuple):
    """Exact attention of one query; its lse is `base + log`, None where no key has weight."""

    output: list[Fraction]
    base: Fraction
    log: np.longdouble | None
    doubt: Fraction


def extended(x):
    """A fraction as a long double, to its last place or so."""
    high = float(x)
    return EXTENDED(high) + EXTENDED(float(x - Fraction(high)))


def logarithm(x):
    """Natural logarithm of a positive fraction, however large or small, in long double."""
    power = x.numerator.bit_length() - x.denominator.bit_length()
    return np.log(extended(x / Fraction(2) ** power)) + power * np.log(EXTENDED(2))


def scores(query, keys, scale):
    """scale * <query, k> of every key, as fractions."""
    return [Fraction(scale) * score for score in oracle.scores(keys, query)]


def means(weights, values):
    """Weighted means of the columns of `values`, exactly; zero where there is no weight."""
    total = sum(weights)
    if not total:
        return [Fraction(0)] * values.shape[1]
    return [s / total for s in oracle.scores(values.T, weights)]


def means_of_part_and_whole(weights, values, read):
    """Means of the columns of values, which floats weigh: over the first `read` rows, and all."""
    exact = [Fraction(float(weight)) for weight in weights]
    return means(exact[:read], values[:read]), means(exact, values)


def softmax(query, keys, values, scale):
    """Softmax attention of one query over all of `keys`."""
    if not len(keys):
        return Row(means([], values), Fraction(0), None, Fraction(0))
    exact = scores(query, keys, scale)
    top = max(exact)
    weights = np.exp(-np.array([extended(top - score) for score in exact]))
    units = [int(np.ldexp(weight, WEIGHT_BITS)) for weight in weights]
    # exp and its argument are off by an EPS or two; the argument is at most log n on average.
    width = (values.max(axis=0).astype(EXTENDED) - values.min(axis=0)).max()
    doubt = Fraction(16 * EPS) * Fraction(*width.as_integer_ratio())
    return Row(means(units, values), top, logarithm(Fraction(sum(units), 2**WEIGHT_BITS)), doubt)


def relu(query, keys, values, scale, threshold, power):
    """ReLU attention of one query over all of `keys`."""
    excess = [score - Fraction(threshold) for score in scores(query, keys, scale)]
    weights = [max(Fraction(0), x) ** power for x in excess]
    total = sum(weights)
    return Row(
        means(weights, values), Fraction(0), logarithm(total) if total else None, Fraction(0)
    )


def error(output, row):
    """Largest distance of a coordinate of `output` from the exact row."""
    return max(
        abs(Fraction(*got.as_integer_ratio()) - want)
        for got, want in zip(output, row.output, strict=True)
    )


def lse_excess(lse, row):
    """How far a finite `lse` is above that of a row that is not empty, in long double."""
    return extended(Fraction(float(lse)) - row.base) - row.log


def lse_doubt(row):
    """What rounding may have moved `lse_excess` by."""
    return 16 * EPS * (1 + abs(row.log))


def assert_certified(got, rows):
    """Outputs are within `bound` of the exact rows and lse within `lse_bound`, for every query."""
    outputs = got.output.reshape(len(rows), -1)
    columns = (outputs, got.lse.ravel(), got.bound.ravel(), got.lse_bound.ravel(), rows)
    for output, lse, bound, lse_bound, row in zip(*columns, strict=True):
        assert 0.0 <= bound < np.inf
        assert error(output, row) <= Fraction(bound) + row.doubt
        assert lse_bound >= 0.0
        if lse_bound == np.inf:
            continue
        if row.log is None:
            assert lse == -np.inf
        else:
            assert abs(lse_excess(lse, row)) <= lse_bound + lse_doubt(row)
