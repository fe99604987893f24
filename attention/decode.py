"""Algorithm 1 of arXiv 2410.10165: few queries, many keys, only those that matter read.

Keys whose score reaches a threshold are a half-space report with the query as normal. A `Decoder`
holds the half-space index of one head's keys. For each query it looks at candidates — all keys
where nothing prunes, else the report of a half-space low enough for the certificate — scores them
by the index's float filter, lets the rule choose a cut (`selection.py`), reads the chosen keys and
values in float64 (`reading.py`) and bounds what was left out (`bounds.py`).
"""

import math

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

import halfspace
from halfspace import parallel
from halfspace.inputs import as_points
from halfspace.tiles import TILE, arrays_of, frozen

from . import bounds, sampled, selection
from .attended import Attended, cast_with_bound
from .inputs import (
    LARGEST_SCORE,
    check_lengths,
    check_output_dtype,
    check_relu,
    check_rule,
    check_scale,
    check_values,
    rounding_unit,
)
from .reading import Candidates, Cut, Head, Readings, make_readings, relu_rows, softmax_rows
from .rules import Mass, Rule, Sampled, Threshold, TopR
from .sampled import ROUNDED, Estimates

KEY_NANOSECONDS = 2.0
"""Rough cost of looking at one key, to decide whether threads pay."""

UNSEEN_SHARE = 0.05
"""Part of what a rule may miss that is left to keys not even looked at."""

CERTAIN_SHARE = 1e-4
"""Mass that may go unseen where the rule names none."""

TOP_SAMPLE = 1024
"""Keys whose scores suggest where the r-th best lies."""


TREE_DIMENSIONS = 12
"""Above this a tree's bounds straddle nearly every plane on keys without structure."""

TREE_KEYS = 2048
"""Below this a scan of all keys costs no more than walking a tree."""


def choose(n: int, head_dim: int) -> str:
    """Name the structure for n keys.

    Every key is read by its slot, so structures that hold copies of points are none of them.

    Examples
    --------
    >>> from attention.decode import choose
    >>> choose(1_000_000, 3), choose(1_000_000, 64), choose(100, 3)
    ('kd_tree', 'scan', 'scan')
    """
    return "kd_tree" if n >= TREE_KEYS and head_dim <= TREE_DIMENSIONS else "scan"


class Decoder:
    """Keys and values of one head, indexed for attention.

    Parameters
    ----------
    key : array_like, shape (n, head_dim)
        Finite; float16, bfloat16, float32 or float64.
    value : array_like, shape (n, value_dim)
        Finite.
    scale : float, optional
        Of scores; 1 / sqrt(head_dim) if not given. Positive.
    structure : str, optional
        Of the index, as for `halfspace.build`, but none that holds copies of points; "auto" takes a
        kd-tree for many keys of few dimensions, else a scan.

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
    ) -> None:
        keys, values = as_points(key, "key"), as_points(value, "value")
        if len(keys) != len(values):
            raise ValueError(
                f"value: expected as many rows as key has, {len(keys)}, got {len(values)}"
            )
        self.scale = check_scale(scale, keys.shape[1])
        check_values(values)
        if str(structure).lower() == "auto":
            structure = choose(*keys.shape)
        self.index = halfspace.build(keys, structure)
        if len(self.index.structure.tiles.data) * TILE >= len(keys) + TILE:
            raise ValueError(f"structure: expected one without copies of points, got {structure!r}")
        tiles, nodes = self.index.structure.tiles, self.index.nodes
        order = tiles.ranks
        self._head = Head(
            tiles, nodes.first, nodes.last, frozen(keys[order]), frozen(values[order])
        )
        self._values = bounds.value_range(values)
        self._key_norm = float(bounds.norms(keys).max(initial=0.0))

    def __len__(self) -> int:
        return len(self.index)

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        # A pickle forgets that arrays were read-only, and kernels are compiled for that.
        for array in arrays_of(self._head):
            frozen(array)

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
            Each query sees only so many first keys; needs an index that keeps their order ("scan").
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
        """
        check_rule(rule)
        dtype = check_output_dtype(dtype)
        queries, norms = self._queries(query)
        m = len(queries)
        visible = self._visible(m, lengths)
        errors = bounds.score_error(norms, self._key_norm, self.scale, self.index.dim)
        cut = self._cut(rule, visible, errors, rounding_unit(dtype))
        readings = make_readings(m, self._head.values.shape[1])
        if isinstance(rule, Sampled):
            estimates = sampled.read(
                self._head,
                rule,
                queries,
                visible,
                cut,
                self.scale,
                self._values,
                rounding_unit(dtype),
                readings,
                self._parts(m),
            )
            drift = sampled.drift(readings, estimates, errors)
            return self._attended(readings._replace(drift=drift), dtype, estimates)
        self._read(self._pieces(queries, cut), queries, visible, cut, readings)
        if len(self.index.nodes.first):
            self._read_short(queries, visible, cut, readings)
        drift = bounds.weight_drift(readings.mass, errors, readings.reported)
        return self._attended(readings._replace(drift=drift), dtype)

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
            Finite.
        power : int, optional
            At least 1.
        lengths, dtype
            As for `softmax`.

        Returns
        -------
        Attended
            `output` (m, value_dim); zero, with ``lse = -inf``, where no key is active. `reported`
            counts active keys up to the rounding of scores; the bound covers those in doubt.
        """
        threshold, power = check_relu(threshold, power)
        dtype = check_output_dtype(dtype)
        queries, norms = self._queries(query)
        visible = self._visible(len(queries), lengths)
        errors = bounds.score_error(norms, self._key_norm, self.scale, self.index.dim)
        errors += bounds.UNIT * 4.0 * (abs(threshold) + norms * self._key_norm * self.scale)
        with np.errstate(over="ignore"):
            offsets = _nudged((threshold - errors) / self.scale, -4.0)
        readings = make_readings(len(queries), self._head.values.shape[1])
        parallel.run(
            [
                lambda a=a, b=b, c=c: relu_rows(
                    self._head,
                    c,
                    queries[a:b],
                    visible[a:b],
                    self.scale,
                    threshold,
                    power,
                    errors[a:b],
                    Readings(*(field[a:b] for field in readings)),
                )
                for a, b, c in self._covered(queries, offsets)
            ]
        )
        summed = bounds.gamma(readings.reported + 4) * readings.mass
        return self._attended(readings._replace(drift=readings.drift + summed), dtype)

    def _queries(self, query: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Checked queries in float64, and their norms."""
        queries = as_points(query, "query")
        if queries.shape[1] != self.index.dim:
            raise ValueError(
                f"query: expected head_dim {self.index.dim} as of key, got {queries.shape[1]}"
            )
        queries = frozen(queries.astype(np.float64))
        norms = bounds.norms(queries)
        with np.errstate(over="ignore"):
            largest = norms.max(initial=0.0) * self._key_norm * max(self.scale, 1.0)
        if not largest < LARGEST_SCORE:
            raise ValueError(f"query: expected scores below {LARGEST_SCORE}, got up to {largest}")
        return queries, norms

    def _visible(self, m: int, lengths: ArrayLike | None) -> np.ndarray:
        """Keys each query sees: the first so many slots."""
        if lengths is None:
            return np.full(m, len(self))
        if len(self.index.nodes.first):
            raise ValueError('lengths: expected an index of structure "scan", got a tree')
        return check_lengths(lengths, m, len(self))

    def _cut(self, rule: Rule, visible: np.ndarray, errors: np.ndarray, unit: float) -> Cut:
        m = len(visible)
        offsets = np.zeros(m)
        if isinstance(rule, TopR):
            kind = selection.TOP_R
            parameters = np.array([rule.count(int(n)) for n in visible], np.float64)
        elif isinstance(rule, Threshold):
            offset = rule.b / self.scale
            kind, parameters = selection.THRESHOLD, np.zeros(m)
            if math.isfinite(offset):
                offsets = np.full(m, offset)
            else:
                kind = selection.TOP_R
                parameters = visible.astype(np.float64) if offset < 0.0 else np.zeros(m)
        elif isinstance(rule, Mass):
            kind, parameters = selection.SHARE, np.full(m, 1.0 - rule.p)
        else:
            kind = selection.SHARE
            parameters = self._allowed_shares(rule.eps, visible, errors, unit)
        return Cut(kind, parameters, offsets, errors)

    def _allowed_shares(
        self, eps: float, visible: np.ndarray, errors: np.ndarray, unit: float
    ) -> np.ndarray:
        """Shares of the mass that may be missed for the certificate to stay within eps."""
        drift_share = bounds.weight_drift(np.ones(len(visible)), errors, visible)
        rounding = bounds.rounding_bound(drift_share, visible, self._values)
        left = eps * (1.0 - 1e-9) - rounding - unit * self._values.size
        width = self._values.width + rounding
        with np.errstate(over="ignore"):
            share = np.divide(left, width, out=np.ones_like(left), where=width > 0.0)
        return np.clip(share, 0.0, 1.0)

    def _read(
        self,
        pieces: list[tuple[int, int, Candidates]],
        queries: np.ndarray,
        visible: np.ndarray,
        cut: Cut,
        readings: Readings,
    ) -> None:
        """Read for ranges of queries, side by side."""
        parallel.run(
            [
                lambda a=a, b=b, c=c: softmax_rows(
                    self._head,
                    c,
                    queries[a:b],
                    visible[a:b],
                    Cut(cut.kind, *(field[a:b] for field in cut[1:])),
                    self.scale,
                    Readings(*(field[a:b] for field in readings)),
                )
                for a, b, c in pieces
            ]
        )

    def _read_short(
        self, queries: np.ndarray, visible: np.ndarray, cut: Cut, readings: Readings
    ) -> None:
        """Read again, from all keys, where the candidates of a tree were too few for the share."""
        if cut.kind != selection.SHARE:
            return
        total = readings.mass + readings.missed
        rows = np.flatnonzero(~(readings.missed <= cut.parameters * total * (1.0 + 1e-9)))
        if rows.size:
            again = make_readings(len(rows), readings.output.shape[1])
            some = Cut(cut.kind, *(field[rows] for field in cut[1:]))
            every = [(0, len(rows), _every_key())]
            self._read(every, frozen(queries[rows]), visible[rows], some, again)
            for field, new in zip(readings, again, strict=True):
                field[rows] = new

    def _pieces(self, queries: np.ndarray, cut: Cut) -> list[tuple[int, int, Candidates]]:
        """Ranges of queries with their candidates, for softmax."""
        if not len(self.index.nodes.first):
            return [(a, b, _every_key()) for a, b in self._parts(len(queries))]
        return self._covered(queries, self._least_offsets(queries, cut)) if len(queries) else []

    def _parts(self, m: int) -> list[tuple[int, int]]:
        """Ranges of m queries that look at every key."""
        return parallel.parts(m, KEY_NANOSECONDS * len(self))

    def _covered(
        self, queries: np.ndarray, offsets: np.ndarray
    ) -> list[tuple[int, int, Candidates]]:
        """Ranges of queries, with the keys of <q, k> >= offset as candidates."""
        # Scores of all other keys, rounded up.
        floors = _nudged(offsets * self.scale, 4.0)
        pieces, first = [], 0
        for block in self.index.cover(queries, offsets):
            last = first + len(block)
            found = Candidates(block.indptr, block.parts, block.masks, floors[first:last])
            pieces.append((first, last, found))
            first = last
        return pieces

    def _least_offsets(self, queries: np.ndarray, cut: Cut) -> np.ndarray:
        """Offsets below which a query need not look for its cut and its certificate."""
        best = self.index.top(queries, 1).scores[:, 0] * self.scale
        best -= cut.errors + 16.0 * bounds.UNIT * np.abs(best)
        n = len(self)
        if cut.kind == selection.TOP_R:
            floors = np.minimum(self._rank_floors(queries, cut.parameters), best - 1.0)
            return floors / self.scale
        share = np.full(len(queries), CERTAIN_SHARE)
        if cut.kind == selection.SHARE:
            share = UNSEEN_SHARE * cut.parameters
        with np.errstate(divide="ignore"):
            offsets = (best - np.maximum(np.log(n / share), 1.0)) / self.scale
        return np.minimum(offsets, cut.offsets) if cut.kind == selection.THRESHOLD else offsets

    def _rank_floors(self, queries: np.ndarray, ranks: np.ndarray) -> np.ndarray:
        """Scores that at least `ranks` keys reach: guessed from a sample, then counted."""
        n = len(self)
        sample = self._head.keys[np.linspace(0, n - 1, min(n, TOP_SAMPLE)).astype(np.int64)]
        scores = -np.sort(-(queries @ sample.T.astype(np.float64)), axis=1) * self.scale
        expected = ranks / n * len(sample)
        places = np.ceil(1.25 * expected + 3.0 * np.sqrt(expected) + 2.0)
        floors = np.full(len(queries), -np.inf)
        open_rows = np.arange(len(queries))
        while open_rows.size:
            open_rows = open_rows[places[open_rows] < len(sample)]
            at = places[open_rows].astype(np.int64)
            guesses = scores[open_rows, at]
            enough = self.index.count(queries[open_rows], guesses / self.scale) >= ranks[open_rows]
            floors[open_rows[enough]] = guesses[enough]
            open_rows = open_rows[~enough]
            places[open_rows] *= 2.0
        return floors

    def _attended(
        self, readings: Readings, dtype: np.dtype, estimates: Estimates | None = None
    ) -> Attended:
        """Certify what was read."""
        mass, drift, read = readings.mass, readings.drift, readings.reported
        estimates = sampled.make_estimates(len(mass)) if estimates is None else estimates
        drift_share = _share(drift, mass)
        moved = drift + estimates.mass_error
        share = bounds.missed_share(mass, readings.missed, moved)
        bound = bounds.output_bound(
            readings.output,
            share,
            drift_share,
            read + np.where(estimates.sampled, ROUNDED, 0),
            self._values,
            estimates.bound,
        )
        lse_bound = bounds.lse_bound(readings.top, mass, share, _share(moved, mass))
        # Nothing was read: zero is exact only if there was nothing that may have weight.
        nothing = read == 0
        bound[nothing] = np.where(readings.looked > 0, self._values.size, 0.0)[nothing]
        lse_bound[nothing] = np.where(readings.looked > 0, np.inf, 0.0)[nothing]
        output, rounding = cast_with_bound(readings.output, dtype)
        with np.errstate(divide="ignore"):
            lse = readings.top + np.log(mass)
        return Attended(output, lse, bound + rounding, read, lse_bound, estimates.sampled)


def _share(drift: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """Of the mass, 1 where that is not certain."""
    return np.divide(drift, mass, out=np.ones_like(mass), where=mass > drift)


def _nudged(values: np.ndarray, units: float) -> np.ndarray:
    """Move `values` by so many units of rounding; infinite ones stay."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(values), values, values + units * bounds.UNIT * np.abs(values))


def _every_key() -> Candidates:
    return Candidates(
        np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.uint64), np.empty(0)
    )
