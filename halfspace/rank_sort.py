"""Ranks in ascending order: radix sort, least significant digit first, digits counted on the way.

Digit 0 is counted while the ranks are written, and each pass counts the next digit while it
distributes by its own, so that ranks are read once a pass. O(size + 2^RADIX_BITS) a pass.

Source: Knuth, TAOCP 3, 5.2.5.
"""

from typing import NamedTuple

import numpy as np

from .jit import part

RADIX_BITS = 11
INSERTION_SORT_LENGTH = 48

PLACES = (2, 1 << RADIX_BITS)
"""Shape of the int32 scratch array of a sort."""

DIGIT_COST = 0.35
"""What a digit costs in each pass, where a rank costs one."""


class Radix(NamedTuple):
    """Digits to sort by; no passes where insertion is as fast."""

    passes: int
    width: int  # bits of a digit


@part
def start_sort(size, limit, places):
    """Choose the digits for so many ranks below `limit`, and make `places` ready for counting."""
    best, best_width = 0, 0
    if size > INSERTION_SORT_LENGTH:
        bits, least = 1, np.inf
        while (limit - 1) >> bits:
            bits += 1
        for passes in range(1, bits + 1):
            width = -(-bits // passes)
            cost = passes * (size + DIGIT_COST * (1 << width))
            if width <= RADIX_BITS and cost < least:
                best, best_width, least = passes, width, cost
    places[0, : 1 << best_width] = 0
    return Radix(best, best_width)


@part(inline=True)
def count_rank(places, radix, rank):
    """Count a rank that was written."""
    places[0, rank & ((1 << radix.width) - 1)] += 1


@part
def _insertion_sort(values):
    for i in range(1, values.size):
        value = values[i]
        j = i - 1
        while j >= 0 and values[j] > value:
            values[j + 1] = values[j]
            j -= 1
        values[j + 1] = value


@part
def _distribute(source, target, shift, width, here, beyond):
    """Order by the digit at `shift`, counted `here`; count the one above it `beyond`."""
    mask, place = (1 << width) - 1, 0
    for digit in range(mask + 1):
        size = here[digit]
        here[digit], beyond[digit] = place, 0
        place += size
    for i in range(source.size):
        value = source[i]
        digit = (value >> shift) & mask
        beyond[(value >> (shift + width)) & mask] += 1
        place = here[digit]
        target[np.uint64(place)] = value
        here[digit] = place + 1


@part
def sort_ranks(values, spare, radix, places):
    """Sort ranks that were all counted; whether the result is in `spare`."""
    if not radix.passes:
        _insertion_sort(values)
        return False
    for i in range(radix.passes):
        here, beyond = places[i % 2], places[1 - i % 2]
        if i % 2:
            _distribute(spare, values, i * radix.width, radix.width, here, beyond)
        else:
            _distribute(values, spare, i * radix.width, radix.width, here, beyond)
    return radix.passes % 2 == 1
