"""Keys and values that are added to a growing `Decoder`, or forgotten."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from halfspace.inputs import as_points

from . import bounds
from .coded_head import CodedHead
from .inputs import check_count, check_values

if TYPE_CHECKING:
    from .decode import Decoder


def extend(decoder: "Decoder", key: ArrayLike, value: ArrayLike) -> None:
    """Append keys (t, head_dim) and values (t, value_dim) to a growing decoder.

    O(t head_dim) and, amortised, O(t head_dim^2) for codes.

    Raises
    ------
    TypeError, ValueError
        As when it was made; another dtype that the first keys' does not hold; not growing.

    Examples
    --------
    >>> import attention
    >>> decoder = attention.Decoder([[0.0]], [[1.0]], structure="cascade", growing=True)
    >>> decoder.extend([[1.0], [2.0]], [[3.0], [5.0]])
    >>> len(decoder)
    3
    """
    keys, values = as_points(key, "key"), as_points(value, "value")
    _check_more(decoder, keys, values)
    check_values(values)
    _growing(decoder).extend(keys, values)
    _stretch(decoder, keys, values)
    decoder._changes += 1


def crop(decoder: "Decoder", count: int) -> None:
    """Forget all but the first `count` keys, where there are more, of a growing decoder.

    Raises
    ------
    TypeError, ValueError
        Not a count; not growing.

    Examples
    --------
    >>> import attention
    >>> decoder = attention.Decoder(
    ...     [[0.0], [1.0]], [[1.0], [3.0]], structure="cascade", growing=True
    ... )
    >>> decoder.crop(1)
    >>> len(decoder)
    1
    """
    head, count = _growing(decoder), check_count(count)
    if count < len(head):
        head.crop(count)
        decoder._changes += 1
        decoder._values = bounds.value_range(np.empty((0, decoder.value_dim)))
        decoder._key_norm = 0.0
        _stretch(decoder, *head.rows())


def _growing(decoder: "Decoder") -> CodedHead:
    if not (isinstance(decoder._head, CodedHead) and decoder._head.grows):
        raise ValueError("Decoder: expected growing=True when it was made, to change its keys")
    return decoder._head


def _check_more(decoder: "Decoder", keys: np.ndarray, values: np.ndarray) -> None:
    held = zip(("key", "value"), (keys, values), _growing(decoder).rows(), strict=True)
    for name, new, old in held:
        if new.shape[1] != old.shape[1]:
            raise ValueError(f"{name}: expected {old.shape[1]} columns, got {new.shape[1]}")
        if not np.can_cast(new.dtype, old.dtype):
            raise TypeError(f"{name}: expected {old.dtype} as the first ones, got {new.dtype}")
    if len(keys) != len(values):
        raise ValueError(f"value: expected as many rows as key has, {len(keys)}, got {len(values)}")


def _stretch(decoder: "Decoder", keys: np.ndarray, values: np.ndarray) -> None:
    """Let the range of values and the largest norm of a key hold for these, too."""
    if len(keys):
        more = bounds.value_range(values)
        if len(decoder) > len(keys):
            low = np.minimum(decoder._values.low, more.low)
            more = bounds.ValueRange(low, np.maximum(decoder._values.high, more.high))
        decoder._values = more
        decoder._key_norm = max(decoder._key_norm, float(bounds.norms(keys).max()))
