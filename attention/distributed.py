"""Attention over keys on many machines: one decoder a partition, kept on a Dask worker.

Every partition attends on its own, and partial outputs are merged (`attended.merge`): what is
returned is certified as if all keys were in one place. A partition of a worker that is lost is
built anew from its source; see `halfspace.distributed`.

Needs dask and distributed (the extra ``dask``).
"""

from dataclasses import replace
from functools import partial, reduce

import numpy as np
from distributed import Client
from numpy.typing import ArrayLike, DTypeLike

from halfspace.distributed import Shards, Source
from halfspace.inputs import as_points

from .attended import Attended, merge
from .decode import Decoder
from .inputs import check_output_dtype, check_relu, check_rule
from .rules import Error, Rule, Sampled, TopR

ROUNDS = 0.5, 0.125, 0.03125, 0.0
"""Of its eps, what partitions are asked for: shares of partitions are uncertain too, so that the
merged bound may exceed theirs, and rows where it does are asked again."""


def _make_decoder(
    scale: float | None, structure: str, key: np.ndarray, value: np.ndarray
) -> Decoder:
    return Decoder(key, value, scale=scale, structure=structure)


def _facts(decoder: Decoder) -> tuple[int, int, int]:
    return len(decoder), decoder.dim, decoder.value_dim


def _softmax(decoder: Decoder, query: np.ndarray, rule: Rule, dtype: np.dtype) -> Attended:
    return decoder.softmax(query, rule, dtype=dtype)


def _relu(
    decoder: Decoder, query: np.ndarray, threshold: float, power: int, dtype: np.dtype
) -> Attended:
    return decoder.relu(query, threshold=threshold, power=power, dtype=dtype)


def _rows(got: Attended, rows: np.ndarray) -> Attended:
    fields = (field[rows] for field in (*got, got.lse_bound, got.sampled))
    return Attended(*fields)


def _put(whole: Attended, rows: np.ndarray, part: Attended) -> None:
    """Write some rows of a result."""
    new = (*part, part.lse_bound, part.sampled)
    for field, values in zip((*whole, whole.lse_bound, whole.sampled), new, strict=True):
        field[rows] = values


class DistributedDecoder:
    """Keys and values of one head in partitions on the workers of a Dask cluster.

    Parameters
    ----------
    key : dask.array.Array, shape (n, head_dim), or list of path
        Chunks of rows, or .npy, .npz, .csv and .parquet files that all workers can read.
    value : dask.array.Array, shape (n, value_dim), or list of path
        In as many partitions, with as many rows each.
    scale, structure
        As for `Decoder`.
    client : distributed.Client, optional
        The current one if not given.

    Raises
    ------
    TypeError, ValueError
        As for `Decoder`, with the number of the partition; partitions of different dimensions; no
        client.

    Examples
    --------
    >>> import dask.array as da, numpy as np
    >>> from distributed import Client
    >>> from attention import Error, dense
    >>> from attention.distributed import DistributedDecoder
    >>> rng = np.random.default_rng(0)
    >>> query, key, value = (rng.standard_normal((n, 8)) for n in (3, 2000, 2000))
    >>> first = [da.from_array(array[:1500], chunks=(500, 8)) for array in (key, value)]
    >>> more = [da.from_array(array[1500:], chunks=(500, 8)) for array in (key, value)]
    >>> with Client(processes=False, n_workers=2, dashboard_address=":0") as client:
    ...     decoder = DistributedDecoder(*first, client=client)
    ...     decoder.append(*more)
    ...     got = decoder.softmax(query, Error(1e-3))
    ...     active = decoder.relu(query, threshold=2.0).reported
    >>> len(decoder), decoder.dim, decoder.value_dim
    (2000, 8, 8)
    >>> exact, _ = dense.softmax(query, key, value)
    >>> bool((np.abs(got.output - exact).max(axis=1) <= got.bound).all())
    True
    >>> bool((got.bound <= 1e-3).all())
    True
    >>> active.tolist() == (query @ key.T / np.sqrt(8) > 2.0).sum(axis=1).tolist()
    True
    """

    def __init__(
        self,
        key: Source,
        value: Source,
        *,
        scale: float | None = None,
        structure: str = "auto",
        client: Client | None = None,
    ) -> None:
        self._make = partial(_make_decoder, scale, structure)
        self._shards, self._facts = Shards(client), []
        self.append(key, value)

    def append(self, key: Source, value: Source) -> None:
        """Add partitions of keys and values. Parameters and errors as at the start."""
        more = Shards(self._shards.client)
        more.add(self._make, {"key": key, "value": value})
        facts = [*self._facts, *more.ask(_facts)]
        for name, place in (("head_dim", 1), ("value_dim", 2)):
            if len({fact[place] for fact in facts}) > 1:
                known = ", ".join(str(fact[place]) for fact in facts)
                raise ValueError(f"key, value: expected partitions of equal {name}, got {known}")
        self._shards.futures += more.futures
        self._facts = facts

    def __len__(self) -> int:
        return sum(fact[0] for fact in self._facts)

    @property
    def dim(self) -> int:
        """head_dim."""
        return self._facts[0][1]

    @property
    def value_dim(self) -> int:
        """Of values."""
        return self._facts[0][2]

    def softmax(self, query: ArrayLike, rule: Rule, *, dtype: DTypeLike = np.float64) -> Attended:
        """Softmax attention of each query over all keys, certified.

        Parameters
        ----------
        query : array_like, shape (m, head_dim)
            Finite.
        rule : TopR, Threshold, Mass, Error or Sampled
            `Threshold` reads the keys it reads on one machine. `TopR(r)` reads the r best of each
            partition, so those of all and more; `Mass(p)` the share p of each. `Error(eps)` and
            `Sampled(eps, delta)` have their bound within eps on the merged output; delta is
            divided among partitions and rounds.
        dtype : dtype, optional
            Of the output.

        Returns
        -------
        Attended
            `output` (m, value_dim), the rest (m,): what `merge` makes of the partitions in order.

        Raises
        ------
        TypeError, ValueError
            As for `Decoder.softmax`.
        """
        check_rule(rule)
        dtype, queries = check_output_dtype(dtype), self._queries(query)
        if not isinstance(rule, Error | Sampled):
            r = TopR(rule.count(len(self)) or 1) if isinstance(rule, TopR) else rule
            return self._merged(_softmax, queries, r, dtype)
        got, rows = None, np.arange(len(queries))
        for share in ROUNDS:
            found = self._merged(_softmax, queries[rows], self._stricter(rule, share), dtype)
            if got is None:
                got = _rows(found, rows)
            else:
                _put(got, rows, found)
            rows = np.flatnonzero(got.bound > rule.eps)
            if not len(rows):
                break
        return got

    def _stricter(self, rule: Error | Sampled, share: float) -> Error | Sampled:
        """The rule of a partition for a share of eps."""
        if isinstance(rule, Error):
            return Error(rule.eps * share)
        delta = rule.delta / (len(self._shards) * len(ROUNDS))
        return replace(rule, eps=rule.eps * share, delta=delta)

    def relu(
        self,
        query: ArrayLike,
        *,
        threshold: float,
        power: int = 1,
        dtype: DTypeLike = np.float64,
    ) -> Attended:
        """ReLU attention over all keys, exact up to rounding; as `Decoder.relu`."""
        threshold, power = check_relu(threshold, power)
        dtype = check_output_dtype(dtype)
        return self._merged(_relu, self._queries(query), threshold, power, dtype)

    def _queries(self, query: ArrayLike) -> np.ndarray:
        queries = as_points(query, "query")
        if queries.shape[1] != self.dim:
            raise ValueError(
                f"query: expected head_dim {self.dim} as of key, got {queries.shape[1]}"
            )
        return queries

    def _merged(self, function, *arguments: object) -> Attended:
        return reduce(merge, self._shards.ask(function, *arguments))
