"""Keys and values that are added to a growing `Decoder`, or forgotten."""

import numpy as np
from numpy.typing import ArrayLike

from halfspace.inputs import as_points

from . import bounds
from .coded_head import CodedHead
from .indexed_head import IndexedHead
from .inputs import check_count, check_values
from .spread import Spread, spread_of, with_more


class Growth:
    """What a `Decoder` is that keys are added to."""

    _head: CodedHead | IndexedHead
    _values: bounds.ValueRange
    _spread: Spread
    _key_norm: float
    _changes: int

    def extend(self, key: ArrayLike, value: ArrayLike) -> None:
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
        self._check_more(keys, values)
        check_values(values)
        # In this order, so that measures hold if this is interrupted.
        self._stretch(keys, values)
        self._growing().extend(keys, values)
        self._changes += 1

    def crop(self, count: int) -> None:
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
        head, count = self._growing(), check_count(count)
        if count < len(head):
            head.crop(count)
            self._changes += 1
            self._measure(*head.rows())

    def _growing(self) -> CodedHead:
        if not (isinstance(self._head, CodedHead) and self._head.grows):
            raise ValueError("Decoder: expected growing=True when it was made, to change its keys")
        return self._head

    def _check_more(self, keys: np.ndarray, values: np.ndarray) -> None:
        held = zip(("key", "value"), (keys, values), self._growing().rows(), strict=True)
        for name, new, old in held:
            if new.shape[1] != old.shape[1]:
                raise ValueError(f"{name}: expected {old.shape[1]} columns, got {new.shape[1]}")
            if not np.can_cast(new.dtype, old.dtype):
                raise TypeError(f"{name}: expected {old.dtype} as the first ones, got {new.dtype}")
        if len(keys) != len(values):
            raise ValueError(
                f"value: expected as many rows as key has, {len(keys)}, got {len(values)}"
            )

    def _stretch(self, keys: np.ndarray, values: np.ndarray) -> None:
        """Let what is known of keys and values hold for these, too."""
        if not len(self):
            self._measure(keys, values)
        elif len(keys):
            more = bounds.value_range(values)
            low = np.minimum(self._values.low, more.low)
            high = np.maximum(self._values.high, more.high)
            key_norm = max(self._key_norm, float(bounds.norms(keys).max()))
            self._spread = with_more(self._spread, values[None])
            self._values, self._key_norm = bounds.ValueRange(low, high), key_norm

    def _measure(self, keys: np.ndarray, values: np.ndarray) -> None:
        """Know of these keys and values what certificates rest on."""
        measured = bounds.value_range(values), spread_of(values[None])
        self._key_norm = float(bounds.norms(keys).max(initial=0.0))
        self._values, self._spread = measured
