"""Exponentials that compilers can spread over vector lanes: of many scores, branch-free.

exp(x) = 2^k exp(r) with k = round(x / ln 2) and |r| <= ln(2) / 2, where a polynomial is as exact as
floats are; 2^k is put together from its bits. Platform libraries do the same, one number a call.
"""

import math

import numpy as np

from halfspace.jit import MARGIN_COVERED, part

LARGEST_EXPONENT = 650.0
"""What is above it, `exponentials` take for it: so many of them have a sum still."""

LOG2_E = math.log2(math.e)
_LN2_HIGH = float.fromhex("0x1.62e42feep-1")  # 32 bits: its products with k are exact
_LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")

LEAST_POWER = -1021.0
"""Exponents of two below are raised to it; against a mass of 1 that is nothing."""

LEAST_POWER_SINGLE = np.float32(-125.0)

SINGLE_ERROR = 1e-5
"""Relative error of `power_of_two` for exponents down to `LEAST_POWER_SINGLE`."""

_C = tuple(1.0 / math.factorial(i) for i in range(14))
# Minimax of 2^f for f in [0, 1), to 1e-7.
_S = tuple(
    np.float32(c)
    for c in (9.9999994e-1, 6.9315308e-1, 2.4015361e-1, 5.5826318e-2, 8.9893397e-3, 1.8775767e-3)
)


# On a device, where kernels know none of these, its own functions take their places.


@part(inline=True)
def nearest(x):
    """Round to an integer."""
    return np.rint(x)


@part(inline=True)
def double_of(bits):
    """The float64 of such bits, int64."""
    return np.int64(bits).view(np.float64)


@part(inline=True)
def single_of(bits):
    """The float32 of such bits, int32."""
    return np.int32(bits).view(np.float32)


@part(flags=MARGIN_COVERED, inline=True)
def exponential(x):
    """exp(x) to 4 units of rounding; of what is below 2^-1021, anything from 0 to twice that."""
    x = min(x, LARGEST_EXPONENT)
    k = nearest(max(x * LOG2_E, LEAST_POWER))
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    r = max(r, -1.0)  # where x was beyond
    total = _C[13]
    total = total * r + _C[12]
    total = total * r + _C[11]
    total = total * r + _C[10]
    total = total * r + _C[9]
    total = total * r + _C[8]
    total = total * r + _C[7]
    total = total * r + _C[6]
    total = total * r + _C[5]
    total = total * r + _C[4]
    total = total * r + _C[3]
    total = total * r + _C[2]
    total = total * r + _C[1]
    total = total * r + _C[0]
    return total * double_of((np.int64(k) + 1023) << 52)


@part(flags=MARGIN_COVERED)
def exponentials(scores, shift, out):
    """Fill `out` with exp(score - shift), each as `exponential` has it."""
    for i in range(scores.size):
        out[i] = exponential(scores[i] - shift)


@part(flags=MARGIN_COVERED, inline=True)
def power_of_two(y):
    """2^y in float32 for -125 <= y <= 0, to `SINGLE_ERROR`."""
    whole = np.floor(y)
    f = y - whole
    total = _S[5]
    total = total * f + _S[4]
    total = total * f + _S[3]
    total = total * f + _S[2]
    total = total * f + _S[1]
    total = total * f + _S[0]
    return total * single_of((np.int32(whole) + np.int32(127)) << np.int32(23))


@part(flags=MARGIN_COVERED, inline=True)
def power_above(y):
    """At least 2^y (1 - `SINGLE_ERROR`) in float32 for -125 <= y <= 0, and at most 1.07 times.

    (1 + f) 2^k for y = k + f, the bits of which are those of (y + 127) 2^23 (Schraudolph 1999).
    """
    return single_of((y + np.float32(127.0)) * np.float32(2.0**23))
