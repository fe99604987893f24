"""How far means of independent, bounded terms may be off: by finite-sample bounds, at any time.

Let X be such a term, in an interval of width R, mu its mean, g a number in the interval and
0 < l < 1. As (ln(1 + z) - z) / z^2 increases in z, and with psi(l) = -ln(1 - l) - l, every x >= -1
has exp(l x - psi(l) x^2) <= 1 + l x (Fan, Grama and Liu 2015). With x = (X - g) / R the mean of the
right side is at most exp(l (mu - g) / R), so

    exp(l (X - mu) / R - psi(l) (X - g)^2 / R^2)                                    (1)

has a mean of 1 at most, and the products over the first N draws are a supermartingale. By Ville's
inequality the chance that one of them, for any N, ever reaches 1 / p is at most p: where none does,
the mean of N terms is below

    mu + R (ln(1/p) + psi(l) sum (X - g)^2 / R^2) / (l N)                           (2)

for all N at once, and -X has the other side. Hoeffding's lemma (1963) puts l^2 / 8 in place of
psi(l) (X - g)^2 / R^2 in (1), which suits terms at the ends of their interval. This is the
empirical Bernstein bound of Howard et al. (2021, https://arxiv.org/abs/1810.08240) and Waudby-Smith
and Ramdas (2024, https://arxiv.org/abs/2010.09686) for an l that does not change. Its terms are
those of Maurer and Pontil (2009, https://arxiv.org/abs/0907.3740), sqrt(2 V ln(1/p) / N) and
R ln(1/p) / N, the latter with 2/3 in place of 7/3; and it may be looked at after any draw.

g, l and which of the two to take have to be fixed before the draws they are used with. With p the
share of delta that a mean's side has, delta / (2 means), all hold at once and after every draw with
probability 1 - delta, so they hold wherever it is that sampling stops. No distribution is assumed,
nor that N is large.
"""

import math
from typing import NamedTuple

import numpy as np

from halfspace.jit import part

STEEPEST = 0.9
"""Largest l that is used with squares."""


class Means(NamedTuple):
    """Of some kinds of terms, float64 each."""

    sums: np.ndarray  # of X - g
    squares: np.ndarray  # of their squares
    guesses: np.ndarray  # g
    widths: np.ndarray  # R
    slopes: np.ndarray  # l; negative where Hoeffding's bound is taken


@part
def confidence(delta, means):
    """ln(1 / p)."""
    return math.log(2.0 * means / delta)


@part
def psi(slope):
    """-ln(1 - l) - l."""
    return -math.log1p(-slope) - slope


@part
def draws_needed(spread, width, goal, log):
    """Draws, about, after which a mean of terms of such a spread is off by `goal` at most."""
    a, b = spread * math.sqrt(2.0 * log), 2.0 * width * log / 3.0
    root = (a + math.sqrt(a * a + 4.0 * b * goal)) / (2.0 * goal)
    return min(root * root, width * width * log / (2.0 * goal * goal))


@part
def deviation(means, c, draws, log):
    """(2): how far mean c of so many draws may be off."""
    width, slope = means.widths[c], means.slopes[c]
    if not width > 0.0:
        return 0.0
    if slope < 0.0:
        penalty = draws * slope * slope / 8.0
    else:
        # Sums of squares are rounded.
        squares = means.squares[c] * (1.0 + 2.0**-49 * (draws + 8))
        penalty = psi(slope) * squares / width / width
    return width * (log + penalty) / (abs(slope) * draws) * (1.0 + 1e-9)


@part
def choose_slopes(means, goal, log, fewest):
    """Choose l and the bound of every mean, by the variances in the squares.

    Returns the number of draws after which all of them are expected to be off by `goal` at most.
    """
    last, needed = means.widths.size - 1, np.float64(fewest)
    for c in range(last):
        if means.widths[c] > 0.0:
            spread = math.sqrt(means.squares[c])
            needed = max(needed, draws_needed(spread, means.widths[c], goal, log))
    for c in range(last + 1):
        if not means.widths[c] > 0.0:
            continue
        variance = means.squares[c] / means.widths[c] / means.widths[c]
        steep = math.sqrt(2.0 * log / needed / max(variance, 1e-12))
        steep = min(STEEPEST, steep / (1.0 + 2.0 * steep / 3.0))
        flat = math.sqrt(8.0 * log / needed)
        bernstein = (log / needed + variance * psi(steep)) / steep
        means.slopes[c] = steep if bernstein < flat / 4.0 else -flat
    return needed


@part
def clear(means):
    """Forget all terms."""
    means.sums[:], means.squares[:] = 0.0, 0.0
