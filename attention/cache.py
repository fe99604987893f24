"""KVCache: keys and values of many heads, shaped as torch has them, that grow by tokens."""

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from halfspace.inputs import as_count
from halfspace.tiles import frozen

from . import bounds
from .attended import Attended, certified
from .cache_answers import certified_relu, explain, shaped, statistics
from .cache_file import load_cache, restore, save_cache, state_of
from .cache_inputs import (
    Asked,
    as_ancestors,
    as_asked,
    as_shape,
    as_tokens,
    check_dtype,
    check_scores,
)
from .cuts import Measures, cut_of, relu_offsets
from .devices import to
from .growing_heads import GrowingHeads
from .inputs import check_relu, check_rule, check_scale, least_rounding, rounding_unit
from .reading import Cut, Readings, make_readings
from .rules import Error, Rule, Sampled

if TYPE_CHECKING:
    from .cuda import CudaCache

DEFAULT_RULE = Error(1e-3)


class KVCache:
    """Keys and values of many heads, to which tokens are appended and which answer attention.

    Parameters
    ----------
    head_dim : int
        Of keys and queries.
    value_dim : int, optional
        Of values; `head_dim` if not given.
    num_kv_heads : int, optional
        Heads of keys and values.
    batch_shape : int or tuple of int, optional
        Axes before that of the heads.
    dtype : {float32, float64}, optional
        That keys and values are kept in. It has to hold theirs: float16 and bfloat16 are widened.
    scale : float, optional
        Of scores; 1 / sqrt(head_dim) if not given. Positive.
    window : int, optional
        So many of the last tokens, at most, wait for their codes, and every query reads them; then
        they all get theirs. Fewer cost more at `append`, more at `attend`; 512 if not given.

    Raises
    ------
    TypeError, ValueError
        An argument that is none of these.

    Notes
    -----
    The first tokens, which many heads attend to whatever they are asked, need no treatment of their
    own: their codes tell that they matter.

    Appending needs no logarithmic method, as structures that are built once do: codes are written
    in place, and what they mean is fitted anew each time tokens have quadrupled. Amortised, a token
    costs O(head_dim^2) a head.

    Examples
    --------
    >>> import numpy as np
    >>> from attention import Error, KVCache
    >>> rng = np.random.default_rng(0)
    >>> cache = KVCache(16, num_kv_heads=2)
    >>> for _ in range(3):
    ...     cache.append(*rng.standard_normal((2, 2, 100, 16), dtype=np.float32))
    >>> len(cache)
    300
    >>> got = cache.attend(rng.standard_normal((8, 1, 16), dtype=np.float32), Error(1e-2))
    >>> got.output.shape, bool((got.bound <= 1e-2).all())
    ((8, 1, 16), True)
    """

    def __init__(
        self,
        head_dim: int,
        value_dim: int | None = None,
        num_kv_heads: int = 1,
        batch_shape: int | tuple[int, ...] = (),
        *,
        dtype: DTypeLike = np.float32,
        scale: float | None = None,
        window: int | None = None,
    ) -> None:
        self._head_dim = as_count(head_dim, "head_dim", least=1)
        self._value_dim = (
            self._head_dim if value_dim is None else as_count(value_dim, "value_dim", least=1)
        )
        kv_heads = as_count(num_kv_heads, "num_kv_heads", least=1)
        self._shape = (*as_shape(batch_shape, "batch_shape"), kv_heads)
        self._dtype = check_dtype(dtype)
        self._scale = check_scale(scale, self._head_dim)
        self._window = None if window is None else as_count(window, "window")
        self._heads = self._make_heads()

    def __len__(self) -> int:
        return len(self._heads)

    def __repr__(self) -> str:
        return (
            f"KVCache({len(self)} tokens, head_dim={self._head_dim}, "
            f"value_dim={self._value_dim}, num_kv_heads={self._shape[-1]}, "
            f"batch_shape={self._shape[:-1]}, dtype={self._dtype})"
        )

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Axes before that of the heads.

        Examples
        --------
        >>> import attention
        >>> attention.KVCache(64, batch_shape=(4,)).batch_shape
        (4,)
        """
        return self._shape[:-1]

    @property
    def scale(self) -> float:
        """Of scores.

        Examples
        --------
        >>> import attention
        >>> attention.KVCache(64).scale
        0.125
        """
        return self._scale

    @property
    def keys(self) -> np.ndarray:
        """Keys (..., kv_heads, tokens, head_dim); a read-only view, until the cache changes.

        Examples
        --------
        >>> import attention
        >>> cache = attention.KVCache(1, num_kv_heads=2, dtype=float, scale=1.0)
        >>> cache.append([[[0.0], [1.0]]] * 2, [[[5.0], [7.0]]] * 2)
        >>> cache.keys.shape
        (2, 2, 1)
        """
        return self._rows(self._heads.keys)

    @property
    def values(self) -> np.ndarray:
        """Values (..., kv_heads, tokens, value_dim); a read-only view, as `keys`.

        Examples
        --------
        >>> import attention
        >>> cache = attention.KVCache(1, num_kv_heads=2, dtype=float, scale=1.0)
        >>> cache.append([[[0.0], [1.0]]] * 2, [[[5.0], [7.0]]] * 2)
        >>> cache.values[1]
        array([[5.],
               [7.]])
        """
        return self._rows(self._heads.values)

    @property
    def nbytes(self) -> int:
        """Bytes of keys, values and codes, with what is kept free for more.

        Examples
        --------
        >>> import attention
        >>> cache = attention.KVCache(1, num_kv_heads=2, dtype=float, scale=1.0)
        >>> cache.append([[[0.0], [1.0]]] * 2, [[[5.0], [7.0]]] * 2)
        >>> cache.nbytes >= cache.keys.nbytes + cache.values.nbytes
        True
        """
        return self._heads.nbytes

    def append(self, key: ArrayLike, value: ArrayLike) -> None:
        """Append tokens to all heads. If anything is wrong, nothing is appended.

        Parameters
        ----------
        key : array_like, shape (..., kv_heads, t, head_dim)
        value : array_like, shape (..., kv_heads, t, value_dim)
            Finite; of a dtype that the cache's holds.

        Raises
        ------
        TypeError, ValueError
            Of another shape or dtype, NaN or infinities, more tokens than can be counted.

        Examples
        --------
        >>> import attention
        >>> cache = attention.KVCache(1, num_kv_heads=2, dtype=float, scale=1.0)
        >>> cache.append([[[0.0], [1.0]]] * 2, [[[5.0], [7.0]]] * 2)
        >>> cache.append([[[2.0]]] * 2, [[[9.0]]] * 2)
        >>> len(cache)
        3
        """
        before, shape = len(self), (*self._shape, None, self._head_dim)
        keys = as_tokens(key, "key", shape, self._dtype, before)
        shape = (*self._shape, keys.shape[-2], self._value_dim)
        values = as_tokens(value, "value", shape, self._dtype, before)
        flat = (self._heads.heads, keys.shape[-2])
        self._heads.extend(
            keys.reshape(*flat, self._head_dim), values.reshape(*flat, self._value_dim)
        )

    def crop(self, count: int) -> None:
        """Keep the first `count` tokens.

        Raises
        ------
        TypeError, ValueError
            Not an integer; more than there are.

        Examples
        --------
        >>> import attention
        >>> cache = attention.KVCache(1, num_kv_heads=2, dtype=float, scale=1.0)
        >>> cache.append([[[0.0], [1.0]]] * 2, [[[5.0], [7.0]]] * 2)
        >>> cache.crop(1)
        >>> cache.keys[0]
        array([[0.]])
        """
        count = as_count(count, "count")
        if count > len(self):
            raise ValueError(f"count: expected 0 … {len(self)}, got {count}")
        self._heads.crop(count)

    def reorder(self, idx: ArrayLike) -> None:
        """Let row b of the first axis of the batch be what row ``idx[b]`` was: beam search.

        Rows are copied, so those that were one go on apart.

        Parameters
        ----------
        idx : array_like of int, shape (rows,)
            At least one; some may be repeated or left out, and the batch have more or fewer rows.

        Raises
        ------
        TypeError, ValueError
            Not integers, or of no row; a cache without batch.

        Examples
        --------
        >>> import attention
        >>> cache = attention.KVCache(1, batch_shape=2, dtype=float)
        >>> cache.append([[[[1.0]]], [[[2.0]]]], [[[[5.0]]], [[[6.0]]]])
        >>> cache.reorder([1, 1])
        >>> cache.values.ravel()
        array([6., 6.])
        """
        rows = as_ancestors(idx, self._shape)
        each = math.prod(self._shape[1:])
        self._heads.take((rows[:, None] * each + np.arange(each)).ravel())
        self._shape = (len(rows), *self._shape[1:])

    def attend(self, query: ArrayLike, rule: Rule = DEFAULT_RULE) -> Attended:
        """Softmax attention of the last tokens' queries over the tokens each sees.

        Parameters
        ----------
        query : array_like, shape (..., heads, length, head_dim)
            Finite; `heads` a multiple of kv_heads: query head h reads kv head
            h // (heads / kv_heads). Query i sees the first ``len(cache) - length + i + 1`` tokens.
        rule : TopR, Threshold, Mass, Error or Sampled, optional
            When a query has read enough.

        Returns
        -------
        Attended
            output (..., heads, length, value_dim) in the promoted dtype of query and cache; the
            rest (..., heads, length). Zero, with ``lse = -inf``, where there is no token.

        Raises
        ------
        TypeError, ValueError
            Not a rule; queries of another shape, more than tokens, or not finite; scores beyond
            float64.

        Examples
        --------
        >>> import attention
        >>> cache = attention.KVCache(1, num_kv_heads=2, dtype=float, scale=1.0)
        >>> cache.append([[[0.0], [1.0]]] * 2, [[[5.0], [7.0]]] * 2)
        >>> got = cache.attend([[[50.0]]] * 4, attention.Error(1e-3))  # two query heads a kv head
        >>> got.output.shape, got.output.ravel().round(3)
        ((4, 1, 1), array([7., 7., 7., 7.]))
        """
        check_rule(rule)
        if isinstance(rule, Sampled):
            return self._sampled(query, rule)
        asked = as_asked(query, self._shape, self._head_dim, len(self), self._dtype)
        mine = rule, frozen(asked.queries), asked.lengths, self._scale, asked.dtype
        got = self._heads.attend(*mine, sure=False)
        if got is None:
            self._norms(asked, self._heads.measures())
            got = self._heads.attend(*mine, sure=True)
        return shaped(got, asked)

    def _sampled(self, query: ArrayLike, rule: Sampled) -> Attended:
        asked, values, cut, readings = self._ask_softmax(query, rule)
        unit = rounding_unit(asked.dtype)
        estimates = self._heads.sampled(
            rule, asked.queries, asked.lengths, cut, self._scale, unit, readings
        )
        got = certified(readings, values, asked.dtype, estimates, cut.errors, cut.spread)
        return shaped(got, asked)

    def _ask_softmax(
        self, query: ArrayLike, rule: Rule
    ) -> tuple[Asked, bounds.ValueRange, Cut, Readings]:
        """Checked queries, the range of values of each, what it reads, and what is to be filled."""
        asked = as_asked(query, self._shape, self._head_dim, len(self), self._dtype)
        measures = self._heads.measures()
        cast = rounding_unit(asked.dtype), least_rounding(asked.dtype)
        cut, _, sound = cut_of(rule, asked.queries, asked.lengths, measures, self._scale, *cast)
        if not sound:
            self._norms(asked, measures)
        frozen(asked.queries)
        readings = make_readings(len(cut.errors), self._value_dim)
        return asked, bounds.ValueRange(cut.low, cut.high), cut, readings

    def relu(self, query: ArrayLike, *, threshold: float, power: int = 1) -> Attended:
        """ReLU attention, exact up to rounding: weights max(0, scale <q, k> - threshold)^power.

        Parameters
        ----------
        query
            As for `attend`.
        threshold : float
            Of scaled scores; at most 1e300 in size.
        power : int, optional
            At least 1.

        Returns
        -------
        Attended
            As for `attend`; zero, with ``lse = -inf``, also where no token is active. `reported`
            counts active tokens.

        Raises
        ------
        TypeError, ValueError
            As for `attend`; a threshold that is not finite, a power below 1.

        Examples
        --------
        >>> import attention
        >>> cache = attention.KVCache(1, num_kv_heads=2, dtype=float, scale=1.0)
        >>> cache.append([[[0.0], [1.0]]] * 2, [[[5.0], [7.0]]] * 2)
        >>> got = cache.relu([[[1.0]]] * 2, threshold=0.5)
        >>> got.output.ravel(), got.reported.ravel()
        (array([7., 7.]), array([1, 1]))
        """
        threshold, power = check_relu(threshold, power)
        asked, values, offsets, errors, readings = self._ask_relu(query, threshold)
        of_scores = offsets, errors, self._scale, threshold, power
        self._heads.relu(asked.queries, asked.lengths, *of_scores, readings)
        return certified_relu(asked, values, readings)

    def _ask_relu(
        self, query: ArrayLike, threshold: float
    ) -> tuple[Asked, bounds.ValueRange, np.ndarray, np.ndarray, Readings]:
        """Checked queries, ranges of values, offsets, errors, and what is to be filled."""
        asked = as_asked(query, self._shape, self._head_dim, len(self), self._dtype)
        measures, m = self._heads.measures(), len(asked.lengths)
        of_norms = *self._norms(asked, measures), self._scale, self._head_dim
        offsets, errors = relu_offsets(threshold, *of_norms)
        frozen(asked.queries)
        values = bounds.ValueRange(*(np.repeat(end, m, axis=0) for end in measures.values))
        return asked, values, offsets, errors, make_readings(len(errors), self._value_dim)

    to = to
    save = save_cache
    load = classmethod(load_cache)
    statistics = statistics
    explain = explain
    __getstate__ = state_of
    __setstate__ = restore

    def _on_cuda(self, number: int) -> "CudaCache":
        from .cuda import CudaCache

        return CudaCache(self, number)

    def _make_heads(self) -> GrowingHeads:
        heads = math.prod(self._shape)
        return GrowingHeads(heads, self._head_dim, self._value_dim, self._dtype, self._window)

    def _rows(self, array: np.ndarray) -> np.ndarray:
        return frozen(array.reshape(*self._shape, *array.shape[1:]))

    def _norms(self, asked: Asked, measures: Measures) -> tuple[np.ndarray, np.ndarray]:
        """Norms of queries, which are checked, and largest norms of the keys of each."""
        norms = bounds.norms(asked.queries.reshape(-1, self._head_dim))
        key_norms = np.repeat(measures.norms, len(asked.lengths))
        check_scores(asked, norms, key_norms, self._scale)
        return norms, key_norms
