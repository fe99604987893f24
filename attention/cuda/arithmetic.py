"""Parts of the processor's kernels, made functions of the device from their very source.

What is certified rests on the arithmetic of those parts, and all of it is allowed for here:

* float64 products, sums and quotients are rounded as IEEE 754 has it, subnormals kept; libNVVM may
  fuse a product and a sum, which rounds once less. Sums are bounded for any order, fused or not
  (`bounds.gamma`), and a score is a sum of that kind (`bounds.score_error`).
* exp is not the device's: `exponential` is the processor's polynomial, which may be fused there
  too, to 4 units of rounding. Neither ex2.approx nor expf is used.
* Weights below a bar are bounds made of the bits of a float32 (`code_bounds.missed_weight`); their
  exponent, at most 125 in magnitude, is off by some 2^-16 through the rounding of its product and
  sum, fused or not. `SUM_ERROR` covers it four times over. They are added up in float64.
* What would not be kept by fusing, the compensated sums of the exact predicate, is compiled from
  explicit instructions (`halfspace.cuda.target`).

Products of codes are integers, and so are counts. All floats are added up in an order that depends
on nothing but sizes, so answers are the same at every call.
"""

import numpy as np

from halfspace.cuda import target
from halfspace.cuda.target import device

from .. import code_bounds, coded_keys, coded_rules, exponential, reading


def _nearest(x):  # pragma: no cover (compiled code only)
    return target.libdevice.rint(x)


def _double_of(bits):  # pragma: no cover (compiled code only)
    return target.libdevice.longlong_as_double(bits)


def _single_of(bits):  # pragma: no cover (compiled code only)
    return target.libdevice.int_as_float(np.int32(bits))


def bits_of_single(x):
    """The bits of a float32, int32."""
    return np.float32(x).view(np.int32)


def _bits_of(x):  # pragma: no cover (compiled code only)
    return target.libdevice.float_as_int(np.float32(x))


target.substitute(exponential.nearest, _nearest)
target.substitute(exponential.double_of, _double_of)
target.substitute(exponential.single_of, _single_of)
target.substitute(bits_of_single, _bits_of)

bin_of = device(code_bounds.bin_of)
bits_of = device(bits_of_single)
bins_a_product = device(coded_keys.bins_a_product)
dot = device(reading.dot)
exp = device(exponential.exponential)
is_inside = device(coded_rules.is_inside)
missed_weight = device(code_bounds.missed_weight)
raised = device(reading.raised)
relu_drift = device(reading.relu_drift)
view_fields = device(coded_keys.view_fields)
