"""Exact sign of <w, p> - <w, q> - b: compensated float64 first, integers where that is not enough.

Truth is real arithmetic on the given floats. The vectorised filter of `query.py` settles all but
the points within rounding error of the plane; those come here, in two stages.

1. *Compensated sum.* Every product and partial sum is split into its float64 value and its exact
   rounding error (TwoProduct by Veltkamp's split, TwoSum by Knuth), and the errors are summed
   beside it. With u = 2^-53, k terms and A the sum of the errors' magnitudes, the result is off by
   at most gamma_k A (Ogita, Rump, Oishi 2005): a running bound, zero whenever nothing was rounded,
   so a tie between small integers is settled here. It holds while no part over- or underflows,
   which is checked.
2. *Integers.* What is still open is added up without rounding in a fixed-point accumulator that
   spans every product of two float64 (Kulisch; 140 limbs of 32 bits), so huge and subnormal values
   need no special care.
"""

import math

import numpy as np

from .jit import part

LARGE = 2.0**900
"""Products and offsets up to here cannot overflow a compensated sum of up to 2^100 terms."""

SMALL = 2.0**-900
"""Products from here on have rounding errors that are float64 themselves."""

SPLITTABLE = 2.0**990
"""Factors up to here can be split in halves without overflow."""

UNIT = 2.0**-53
"""Unit roundoff of float64."""

LIMBS = 140
"""32-bit limbs that hold any sum of products of float64: 2^-2252 … 2^2048, and carries."""

_BIAS = 71 * 32
_LIMB_MASK = (1 << 32) - 1
_HALF_BITS = 27
_HALF_MASK = (1 << _HALF_BITS) - 1
_SPLITTER = 134217729.0  # 2^27 + 1
_MANTISSA = 9007199254740992.0  # 2^53


@part
def two_sum(a, b):
    """Sum of a and b, and its exact rounding error."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


@part
def two_product(a, b):
    """Product of a and b, and its exact rounding error, for factors below `SPLITTABLE`."""
    product = a * b
    scaled = _SPLITTER * a
    a_high = scaled - (scaled - a)
    a_low = a - a_high
    scaled = _SPLITTER * b
    b_high = scaled - (scaled - b)
    b_low = b - b_high
    error = a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low)
    return product, error


@part
def compensated(normal, plus, minus, offset):
    """<normal, plus> - <normal, minus> - offset in compensated float64, and a bound on its error.

    An empty `minus` stands for zero. The bound is infinite where float64 could over- or underflow.
    """
    d = normal.size
    if abs(offset) > LARGE:
        return 0.0, np.inf
    total, correction, magnitude = -offset, 0.0, 0.0
    for j in range(d + minus.size):
        a = np.float64(normal[j] if j < d else -normal[j - d])
        b = np.float64(plus[j] if j < d else minus[j - d])
        if a == 0.0 or b == 0.0:
            continue
        if not (SMALL <= abs(a * b) <= LARGE and abs(a) <= SPLITTABLE and abs(b) <= SPLITTABLE):
            return 0.0, np.inf
        product, product_error = two_product(a, b)
        total, sum_error = two_sum(total, product)
        correction += product_error + sum_error
        magnitude += abs(product_error) + abs(sum_error)
    value = total + correction
    if magnitude == 0.0:
        return value, 0.0
    # Twice gamma for all that was summed, and the last addition.
    return value, 4.0 * (d + minus.size + 4) * UNIT * magnitude + UNIT * abs(value)


@part
def _add_product(limbs, a, b):
    """Add a * b to the fixed-point accumulator, exactly."""
    if a == 0.0 or b == 0.0:
        return
    a_mantissa, a_exponent = math.frexp(a)
    b_mantissa, b_exponent = math.frexp(b)
    sign = 1 if (a > 0.0) == (b > 0.0) else -1
    a_bits = np.int64(abs(a_mantissa) * _MANTISSA)
    b_bits = np.int64(abs(b_mantissa) * _MANTISSA)
    a_high, a_low = a_bits >> _HALF_BITS, a_bits & _HALF_MASK
    b_high, b_low = b_bits >> _HALF_BITS, b_bits & _HALF_MASK
    position = np.int64(a_exponent) + np.int64(b_exponent) - 106 + _BIAS
    partials = (a_low * b_low, a_high * b_low + a_low * b_high, a_high * b_high)
    for k in range(6):
        # Each partial product in two halves of at most 27 bits: shifted, they fit 64 bits.
        half = (partials[k // 2] >> (k % 2 * _HALF_BITS)) & _HALF_MASK
        at = position + (k // 2 + k % 2) * _HALF_BITS
        shifted = half << (at & 31)
        limbs[at >> 5] += sign * (shifted & _LIMB_MASK)
        limbs[(at >> 5) + 1] += sign * (shifted >> 32)


@part
def _settle_carries(limbs):
    """Bring all limbs but the carry out of the top, which is returned, into 0 … 2^32 - 1."""
    carry = np.int64(0)
    for i in range(limbs.size):
        value = limbs[i] + carry
        carry = value >> 32
        limbs[i] = value & _LIMB_MASK
    return carry


@part
def _clear_sign(limbs):
    """Sign of the accumulator, which is left at zero."""
    carry = _settle_carries(limbs)
    positive = False
    for i in range(limbs.size):
        positive = positive or limbs[i] != 0
        limbs[i] = 0
    return -1 if carry < 0 else int(positive)


@part
def _clear_value(limbs):
    """Value of the accumulator in float64, to about one unit in the last place; left at zero."""
    negative = _settle_carries(limbs) < 0
    if negative:
        for i in range(limbs.size):
            limbs[i] = -limbs[i]
        # Its two's complement is the magnitude; the carry out of the top is the sign that went.
        _settle_carries(limbs)
    value, terms = 0.0, 0
    for i in range(limbs.size - 1, -1, -1):
        if terms < 3 and (terms or limbs[i]):
            # In four steps: 2^position alone may be beyond float64.
            position = 32 * i - _BIAS
            step = math.ldexp(1.0, position // 4)
            rest = math.ldexp(1.0, position - position // 4 * 3)
            value += float(limbs[i]) * step * step * step * rest
            terms += 1
        limbs[i] = 0
    return -value if negative else value


@part
def _add_products(normal, plus, minus, offset, limbs):
    """Fill the accumulator with <normal, plus> - <normal, minus> - offset, exactly."""
    for j in range(plus.size):
        _add_product(limbs, np.float64(normal[j]), np.float64(plus[j]))
    for j in range(minus.size):
        _add_product(limbs, -np.float64(normal[j]), np.float64(minus[j]))
    _add_product(limbs, -1.0, offset)


@part
def exact_sign(normal, plus, minus, offset, limbs):
    """Sign of <normal, plus> - <normal, minus> - offset over the reals.

    Parameters
    ----------
    normal, plus : float array, shape (d,)
        Finite floats of either width.
    minus : float array, shape (d,) or (0,)
        Empty for zero: ``plus[:0]``, so that both have one type.
    offset : float
        Finite.
    limbs : int64 array, shape (LIMBS,)
        Scratch, all zero; left all zero.

    Returns
    -------
    int
        -1, 0 or 1. O(d), always right.
    """
    same = minus.size > 0
    for j in range(minus.size):
        same = same and plus[j] == minus[j]
    if same:
        return 1 if offset < 0.0 else (-1 if offset > 0.0 else 0)
    value, bound = compensated(normal, plus, minus, offset)
    if abs(value) > bound:
        return 1 if value > 0.0 else -1
    if bound == 0.0:
        return 0
    _add_products(normal, plus, minus, offset, limbs)
    return _clear_sign(limbs)


@part
def exact_score(normal, point, limbs):
    """<normal, point> in float64, to about one unit in the last place, infinite beyond float64."""
    _add_products(normal, point, point[:0], 0.0, limbs)
    return _clear_value(limbs)
