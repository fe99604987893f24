"""Algorithm 1 of arXiv 2410.10165: few queries, many keys, only those that matter read.

A `Decoder` holds the keys and values of one head so that keys of high score are found without
reading all: by a half-space index for few dimensions (`indexed_head.py`), by certified 8-bit codes
for many (`coded_head.py`). For each query the rule chooses a cut (`cuts.py`), the keys above it are
read in float64, and what was left out is bounded (`bounds.py`).
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from halfspace.inputs import as_points
from halfspace.tiles import frozen

from . import bounds, prefill, products, sampled
from .attended import Attended, certified
from .coded_head import CodedHead
from .cuts import Measures, cut_of, relu_offsets
from .devices import to
from .growth import Growth
from .indexed_head import IndexedHead
from .inputs import (
    LARGEST_SCORE,
    check_lengths,
    check_output_dtype,
    check_relu,
    check_rule,
    check_scale,
    check_values,
    least_rounding,
    rounding_unit,
)
from .reading import Cut, Readings, make_readings
from .rules import Rule, Sampled

if TYPE_CHECKING:
    from .cuda import CudaDecoder

TREE_DIMENSIONS = 12
"""Above this a tree's bounds straddle nearly every plane on keys without structure."""

LEAST_KEYS = 2048
"""Below this a scan of all keys costs no more than looking for those that matter."""


def choose(n: int, head_dim: int) -> str:
    """Name the structure for n keys.

    Every key is read by its slot, so structures that hold copies of points are none of them.

    Examples
    --------
    >>> from attention.decode import choose
    >>> choose(1_000_000, 3), choose(1_000_000, 64), choose(100, 3)
    ('kd_tree', 'cascade', 'scan')
    """
    if n < LEAST_KEYS:
        return "scan"
    return "kd_tree" if head_dim <= TREE_DIMENSIONS else "cascade"


class Asked(NamedTuple):
    """Checked queries, and what is to be filled for them."""

    queries: np.ndarray  # (m, head_dim) float64, read-only
    norms: np.ndarray  # (m,) float64
    visible: np.ndarray  # (m,) int64, keys that each sees
    errors: np.ndarray  # (m,) float64, bounds on the rounding errors of scores
    dtype: np.dtype  # of the output
    readings: Readings


class Decoder(Growth):
    """Keys and values of one head, indexed for attention.

    Parameters
    ----------
    key : array_like, shape (n, head_dim)
        Finite; float16, bfloat16, float32 or float64.
    value : array_like, shape (n, value_dim)
        Finite. Keys and values are both held in the wider of their floats.
    scale : float, optional
        Of scores; 1 / sqrt(head_dim) if not given. Positive.
    structure : str, optional
        "cascade" for certified codes, to which keys can be added; else of the index, as for
        `halfspace.build`, but none that holds copies of points. "auto" takes a kd-tree for many
        keys of few dimensions, codes for many keys of more, else a scan.
    growing : bool, optional
        Keys may follow, by `extend`.

    Raises
    ------
    TypeError, ValueError
        Not numbers, wrong shapes, a NaN or an infinity (the row is named), a scale that is not
        positive.

    Examples
    --------
    >>> import numpy as np
    >>> from attention import Decoder, Error
    >>> rng = np.random.default_rng(0)
    >>> decoder = Decoder(rng.standard_normal((1000, 4)), rng.standard_normal((1000, 2)))
    >>> got = decoder.softmax(8.0 * rng.standard_normal((3, 4)), Error(1e-3))
    >>> got.output.shape, bool((got.bound <= 1e-3).all()), bool((got.reported < 1000).all())
    ((3, 2), True, True)
    """

    def __init__(
        self,
        key: ArrayLike,
        value: ArrayLike,
        *,
        scale: float | None = None,
        structure: str = "auto",
        growing: bool = False,
    ) -> None:
        keys, values = as_points(key, "key"), as_points(value, "value")
        if len(keys) != len(values):
            raise ValueError(
                f"value: expected as many rows as key has, {len(keys)}, got {len(values)}"
            )
        self.scale = check_scale(scale, keys.shape[1])
        check_values(values)
        # Kernels are compiled for one dtype of both.
        floats = np.result_type(keys, values)
        keys, values = keys.astype(floats, copy=False), values.astype(floats, copy=False)
        if str(structure).lower() == "auto":
            structure = "cascade" if growing else choose(*keys.shape)
        if str(structure).lower() == "cascade":
            self._head = CodedHead(keys, values, whole=not growing)
        elif growing:
            raise ValueError(f'structure: expected "cascade" for keys to come, got {structure!r}')
        else:
            self._head = IndexedHead(keys, values, structure)
        self._measure(keys, values)
        self._changes = 0

    def __len__(self) -> int:
        return len(self._head)

    @property
    def dim(self) -> int:
        """head_dim.

        Examples
        --------
        >>> import attention
        >>> decoder = attention.Decoder([[0.0], [1.0], [2.0]], [[0.0], [10.0], [20.0]], scale=1.0)
        >>> decoder.dim
        1
        """
        return self._head.dim

    @property
    def value_dim(self) -> int:
        """Of values.

        Examples
        --------
        >>> import attention
        >>> decoder = attention.Decoder([[0.0], [1.0], [2.0]], [[0.0], [10.0], [20.0]], scale=1.0)
        >>> decoder.value_dim
        1
        """
        return self._values.low.size

    to = to

    def softmax(
        self,
        query: ArrayLike,
        rule: Rule,
        *,
        lengths: ArrayLike | None = None,
        dtype: DTypeLike = np.float64,
    ) -> Attended:
        """Softmax attention of each query over the keys that `rule` has it read.

        Parameters
        ----------
        query : array_like, shape (m, head_dim)
            Finite.
        rule : TopR, Threshold, Mass, Error or Sampled
        lengths : ndarray of int64, shape (m,), optional
            Each query sees only so many first keys; needs their order ("scan" or "cascade").
        dtype : dtype, optional
            Of the output.

        Returns
        -------
        Attended
            `output` (m, value_dim), the rest (m,).

        Raises
        ------
        TypeError, ValueError
            Not a rule; queries of the wrong shape or not finite; scores beyond float64.

        Examples
        --------
        >>> import attention
        >>> decoder = attention.Decoder([[0.0], [1.0], [2.0]], [[0.0], [10.0], [20.0]], scale=1.0)
        >>> got = decoder.softmax([[30.0], [0.0]], attention.Error(1e-3))
        >>> got.output.round(3), got.reported
        (array([[20.],
               [10.]]), array([1, 3]))
        """
        check_rule(rule)
        asked, cut = self._ask_softmax(query, rule, lengths, dtype)
        queries, norms, visible, errors, _, readings = asked
        if isinstance(rule, Sampled):
            moments, unit = self._head.moments, rounding_unit(asked.dtype)
            goal = sampled.aim(rule, queries, moments, self._values, visible, errors, unit)
            estimates = self._head.sampled(goal, queries, visible, cut, self.scale, readings)
            return certified(readings, self._values, asked.dtype, estimates, errors, self._spread)
        if (whole := self._whole(rule, cut, queries, norms, visible, readings)) is not None:
            return certified(readings, self._values, asked.dtype, whole)
        self._head.softmax(queries, visible, cut, self.scale, readings)
        return self._certified_softmax(asked)

    def _ask_softmax(
        self, query: ArrayLike, rule: Rule, lengths: ArrayLike | None, dtype: DTypeLike
    ) -> tuple[Asked, Cut]:
        """Check what `softmax` is asked; the queries, and what the rule has them read."""
        dtype = check_output_dtype(dtype)
        queries = self._queries(query)
        visible = self._visible(len(queries), lengths)
        low, high = self._values
        measures = Measures(np.array([self._key_norm]), low[None], high[None], self._spread)
        cast = rounding_unit(dtype), least_rounding(dtype)
        cut, norms, sound = cut_of(rule, queries[None], visible, measures, self.scale, *cast)
        if not sound:
            self._norms(queries)
        readings = make_readings(len(queries), self.value_dim)
        return Asked(frozen(queries), norms, visible, cut.errors, dtype, readings), cut

    def _certified_softmax(self, asked: Asked) -> Attended:
        """Certify what was read for softmax attention."""
        errors, spread = asked.errors, self._spread
        return certified(asked.readings, self._values, asked.dtype, errors=errors, spread=spread)

    def _whole(
        self,
        rule: Rule,
        cut: Cut,
        queries: np.ndarray,
        norms: np.ndarray,
        visible: np.ndarray,
        readings: Readings,
    ) -> sampled.Estimates | None:
        """Read all there is, where that is faster for many queries; what it rounds, or None."""
        if len(queries) < prefill.MANY:
            return None
        scale, values = self.scale, self._values
        rounding = prefill.whole_rounding(rule, cut, norms, self._key_norm, scale, self.dim, values)
        if rounding is None:
            return None
        keys, rows = self._head.rows()
        if not prefill.reads_most(queries, keys, visible, cut, scale, self.value_dim):
            return None
        return products.read_all(queries, keys, rows, visible, values, rounding, scale, readings)

    def relu(
        self,
        query: ArrayLike,
        *,
        threshold: float,
        power: int = 1,
        lengths: ArrayLike | None = None,
        dtype: DTypeLike = np.float64,
    ) -> Attended:
        """ReLU attention: weights max(0, scale <q, k> - threshold)^power, exact up to rounding.

        Parameters
        ----------
        query : array_like, shape (m, head_dim)
            Finite.
        threshold : float
            At most 1e300 in size.
        power : int, optional
            At least 1.
        lengths, dtype
            As for `softmax`.

        Returns
        -------
        Attended
            `output` (m, value_dim); zero, with ``lse = -inf``, where no key is active. `reported`
            counts active keys up to the rounding of scores; the bound covers those in doubt.

        Examples
        --------
        >>> import attention
        >>> decoder = attention.Decoder([[0.0], [1.0], [2.0]], [[0.0], [10.0], [20.0]], scale=1.0)
        >>> got = decoder.relu([[1.0]], threshold=0.5)  # weights 0, 0.5, 1.5
        >>> got.output, got.reported
        (array([[17.5]]), array([2]))
        """
        threshold, power = check_relu(threshold, power)
        asked, offsets = self._ask_relu(query, threshold, lengths, dtype)
        queries, _, visible, errors, _, readings = asked
        self._head.relu(queries, visible, offsets, errors, self.scale, threshold, power, readings)
        return self._certified_relu(asked)

    def _ask_relu(
        self, query: ArrayLike, threshold: float, lengths: ArrayLike | None, dtype: DTypeLike
    ) -> tuple[Asked, np.ndarray]:
        """Check what `relu` is asked; the queries, and offsets below which no key is active."""
        dtype = check_output_dtype(dtype)
        queries = frozen(self._queries(query))
        norms, visible = self._norms(queries), self._visible(len(queries), lengths)
        offsets, errors = relu_offsets(threshold, norms, self._key_norm, self.scale, self.dim)
        readings = make_readings(len(queries), self.value_dim)
        return Asked(queries, norms, visible, errors, dtype, readings), offsets

    def _certified_relu(self, asked: Asked) -> Attended:
        """Certify what was read for ReLU attention."""
        readings = asked.readings
        drift = readings.drift + bounds.gamma(readings.reported + 4) * readings.mass
        return certified(readings._replace(drift=drift), self._values, asked.dtype)

    def _on_cuda(self, number: int) -> "CudaDecoder":
        from .cuda import CudaDecoder

        return CudaDecoder(self, number)

    def _queries(self, query: ArrayLike) -> np.ndarray:
        """Queries in float64, finite."""
        queries = as_points(query, "query")
        if queries.shape[1] != self.dim:
            raise ValueError(
                f"query: expected head_dim {self.dim} as of key, got {queries.shape[1]}"
            )
        return queries.astype(np.float64)

    def _norms(self, queries: np.ndarray) -> np.ndarray:
        """Norms of queries, whose scores are checked to stay within float64."""
        norms = bounds.norms(queries)
        with np.errstate(over="ignore"):
            largest = norms.max(initial=0.0) * self._key_norm * max(self.scale, 1.0)
        if not largest < LARGEST_SCORE:
            raise ValueError(f"query: expected scores below {LARGEST_SCORE}, got up to {largest}")
        return norms

    def _visible(self, m: int, lengths: ArrayLike | None) -> np.ndarray:
        """Keys each query sees: the first so many slots."""
        if lengths is None:
            return np.full(m, len(self))
        if not self._head.keeps_order:
            raise ValueError('lengths: expected structure "scan" or "cascade", got a tree')
        return check_lengths(lengths, m, len(self))
