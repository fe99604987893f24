"""KVCache: the keys and values of many heads while tokens come one by one.

All heads have as many tokens, and their rows lie in one array each of keys, values and codes: a
token is written to all heads at once, and one kernel answers for as many heads as a thread takes.
What is done to a head's codes is in `coded_head.py`.

Structures that are built once become ones to append to by the logarithmic method: parts of sizes
2^i that are merged, so that each point moves O(log n) times and each query asks O(log n) parts.
Codes need none of it: a key's code depends on the key and the fit alone, so it is written in place.
The fit is made anew each time keys have quadrupled, which moves a key less than twice on average:
O(d^2) a token, amortised.
"""

import copy
import math
import os
import zipfile
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from halfspace import parallel
from halfspace.inputs import as_count
from halfspace.jit import Bound
from halfspace.tiles import TILE, frozen

from . import bounds
from .attended import Attended, certified
from .cache_file import arrays_by_name, as_stored, from_arrays, read_arrays, write_arrays
from .cache_inputs import (
    Asked,
    as_ancestors,
    as_asked,
    as_shape,
    as_tokens,
    check_dtype,
    check_scores,
)
from .coded_head import CHUNK, KEY_NANOSECONDS, PRODUCT_NANOSECONDS, CodedHead
from .coded_heads import CodedHeads, part_of, pieces, relu_of_heads, softmax_of_heads, stacked
from .cuts import cut_of, relu_offsets
from .inputs import check_relu, check_rule, check_scale, rounding_unit
from .reading import Cut, Readings, make_readings
from .room import Room, make_room, tiles_for, widened
from .rules import Error, Rule

DEFAULT_RULE = Error(1e-3)


class CacheStatistics(NamedTuple):
    """What a cache holds and has read, by head: arrays (*batch, kv_heads)."""

    tokens: np.ndarray  # int64
    coded: np.ndarray  # int64, those with codes; all others are read by every query
    share: np.ndarray  # float64, of the keys that queries saw, those read; NaN before any query
    nbytes: np.ndarray  # int64


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
        heads = math.prod(self._shape)
        none = [np.empty((0, d), self._dtype) for d in (self._head_dim, self._value_dim)]
        first = CodedHead(*none, uncoded=self._window)
        self._heads = [copy.copy(first) for _ in range(heads)]
        self._count, self._measured = 0, 0
        self._low, self._high = np.zeros((2, heads, self._value_dim))
        self._key_norms = np.zeros(heads)
        self._seen, self._read = np.zeros((2, heads), np.int64)
        self._live_in(self._make_room(heads, 0))

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return (
            f"KVCache({self._count} tokens, head_dim={self._head_dim}, "
            f"value_dim={self._value_dim}, num_kv_heads={self._shape[-1]}, "
            f"batch_shape={self._shape[:-1]}, dtype={self._dtype})"
        )

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Axes before that of the heads."""
        return self._shape[:-1]

    @property
    def keys(self) -> np.ndarray:
        """Keys (*batch, kv_heads, tokens, head_dim); a read-only view, until the cache changes."""
        return self._rows(self._room.keys)

    @property
    def values(self) -> np.ndarray:
        """Values (*batch, kv_heads, tokens, value_dim); a read-only view, as `keys`."""
        return self._rows(self._room.values)

    @property
    def nbytes(self) -> int:
        """Bytes of keys, values and codes, with what is kept free for more."""
        return self._room.nbytes

    def append(self, key: ArrayLike, value: ArrayLike) -> None:
        """Append tokens to all heads. If anything is wrong, nothing is appended.

        Parameters
        ----------
        key : array_like, shape (*batch, kv_heads, t, head_dim)
        value : array_like, shape (*batch, kv_heads, t, value_dim)
            Finite; of a dtype that the cache's holds.

        Raises
        ------
        TypeError, ValueError
            Of another shape or dtype, NaN or infinities, more tokens than can be counted.
        """
        before, shape = self._count, (*self._shape, None, self._head_dim)
        keys = as_tokens(key, "key", shape, self._dtype, before)
        shape = (*self._shape, keys.shape[-2], self._value_dim)
        values = as_tokens(value, "value", shape, self._dtype, before)
        end = before + keys.shape[-2]
        tiles = tiles_for(end, self._room.tiles)
        if tiles > self._room.tiles:
            self._live_in(widened(self._room, tiles))
        heads = len(self._heads)
        self._room.keys[:, before:end] = keys.reshape(heads, end - before, self._head_dim)
        self._room.values[:, before:end] = values.reshape(heads, end - before, self._value_dim)
        self._count = end
        if self._heads[0].due(end):
            parallel.run([lambda head=head: head.advance(end) for head in self._heads])
            self._bind()
        else:
            for head in self._heads:
                head.advance(end)

    def crop(self, count: int) -> None:
        """Keep the first `count` tokens.

        Raises
        ------
        TypeError, ValueError
            Not an integer; more than there are.
        """
        count = as_count(count, "count")
        if count > self._count:
            raise ValueError(f"count: expected 0 … {self._count}, got {count}")
        for head in self._heads:
            head.crop(count)
        if count < self._measured and self._reaches_out(count, self._measured):
            self._measured = 0
        self._count, self._measured = count, min(self._measured, count)

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
        """
        rows = as_ancestors(idx, self._shape)
        each = math.prod(self._shape[1:])
        old = (rows[:, None] * each + np.arange(each)).ravel()
        self._heads = [copy.copy(self._heads[h]) for h in old]
        self._shape = (len(rows), *self._shape[1:])
        self._low, self._high, self._key_norms = (
            array[old] for array in (self._low, self._high, self._key_norms)
        )
        self._seen, self._read = self._seen[old], self._read[old]
        room = self._make_room(len(old), self._room.tiles)
        for mine, new in zip(self._room, room, strict=True):
            np.take(mine, old, axis=0, out=new, mode="clip")
        self._live_in(room)

    def attend(self, query: ArrayLike, rule: Rule = DEFAULT_RULE) -> Attended:
        """Softmax attention of the last tokens' queries over the tokens each sees.

        Parameters
        ----------
        query : array_like, shape (*batch, heads, length, head_dim)
            Finite; `heads` a multiple of kv_heads: query head h reads kv head
            h // (heads / kv_heads). Query i sees the first ``len(cache) - length + i + 1`` tokens.
        rule : TopR, Threshold, Mass or Error, optional
            When a query has read enough.

        Returns
        -------
        Attended
            output (*batch, heads, length, value_dim) in the promoted dtype of query and cache; the
            rest (*batch, heads, length). Zero, with ``lse = -inf``, where there is no token.

        Raises
        ------
        TypeError, ValueError
            Not a rule; queries of another shape, more than tokens, or not finite; scores beyond
            float64.
        """
        check_rule(rule)
        asked, key_norms, values = self._asked(query)
        scale, lengths = self._scale, np.tile(asked.lengths, len(self._heads))
        errors = bounds.score_error(asked.norms, key_norms, scale, self._head_dim)
        cut = cut_of(rule, lengths, errors, rounding_unit(asked.dtype), values, scale)
        readings = make_readings(len(lengths), self._value_dim)
        self._run(
            self._softmax, asked, (Cut(cut.kind, *map(asked.by_head, cut[1:])), scale), readings
        )
        drift = bounds.weight_drift(readings.mass, errors, readings.reported)
        return _shaped(certified(readings._replace(drift=drift), values, asked.dtype), asked)

    def relu(self, query: ArrayLike, *, threshold: float, power: int = 1) -> Attended:
        """ReLU attention, exact up to rounding: weights max(0, scale <q, k> - threshold)^power.

        Parameters
        ----------
        query
            As for `attend`.
        threshold : float
            Of scaled scores; finite.
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
        """
        threshold, power = check_relu(threshold, power)
        asked, key_norms, values = self._asked(query)
        offsets, errors = relu_offsets(
            threshold, asked.norms, key_norms, self._scale, self._head_dim
        )
        readings = make_readings(len(errors), self._value_dim)
        mine = asked.by_head(offsets), asked.by_head(errors), self._scale, threshold, power
        self._run(self._relu, asked, mine, readings)
        drift = readings.drift + bounds.gamma(readings.reported + 4) * readings.mass
        return _shaped(certified(readings._replace(drift=drift), values, asked.dtype), asked)

    def save(self, path: str | os.PathLike) -> None:
        """Write everything to one .npz file, codes included: they take longer to make than to read.

        Parameters
        ----------
        path : str or path-like
            Of the file, as it is to be called. Nothing in it is pickled.
        """
        write_arrays(path, self.__getstate__())

    @classmethod
    def load(cls, path: str | os.PathLike) -> "KVCache":
        """Read what `save` wrote. The cache answers as the one that was saved.

        Raises
        ------
        OSError
            No such file.
        ValueError
            Not a file that `save` wrote.
        """
        cache = cls.__new__(cls)
        try:
            cache.__setstate__(read_arrays(path))
        except (KeyError, TypeError, ValueError, zipfile.BadZipFile, EOFError) as wrong:
            raise ValueError(
                f"path: expected a file that KVCache.save wrote, got {os.fspath(path)!r}"
            ) from wrong
        return cache

    def statistics(self) -> CacheStatistics:
        """Tokens, those with codes, the mean share read so far, and bytes, by head."""
        heads = len(self._heads)
        seen = np.where(self._seen, self._seen, 1)
        share = np.where(self._seen, self._read / seen, np.nan)
        columns = (
            np.full(heads, self._count),
            np.array([head.coded for head in self._heads]),
            share,
            np.full(heads, self.nbytes // heads),
        )
        return CacheStatistics(*(column.reshape(self._shape) for column in columns))

    def explain(self) -> str:
        """What is held and how it is read, in a few lines."""
        heads, coded = len(self._heads), self._heads[0].coded
        tokens, seen = self._count, int(self._seen.sum())
        read = f"{int(self._read.sum()) / seen:.1%} of the keys seen" if seen else "nothing yet"
        return (
            f"{tokens} tokens in {heads} heads of dimension {self._head_dim}, {self._dtype}, "
            f"{self.nbytes / 1e6:.1f} MB\n"
            f"{coded} of them with 8-bit codes, from which a query chooses those it reads\n"
            f"{tokens - coded} without, which every query reads\n"
            f"queries have read {read}"
        )

    def __getstate__(self) -> dict[str, np.ndarray]:
        """Arrays by name, without what is free."""
        coded, fitted = self._heads[0].coded, self._heads[0].fitted
        tiles = coded // TILE
        settings = (self._head_dim, self._value_dim, -1 if self._window is None else self._window)
        return {
            "shape": np.array(self._shape),
            "settings": np.array(settings),
            "scale": np.array(self._scale),
            "progress": np.array((coded, fitted)),
            "keys": self._room.keys[:, : self._count],
            "values": self._room.values[:, : self._count],
            "always": self._room.always[:, :tiles],
            "codes": self._room.codes[:, :tiles],
            "counts": np.array((self._seen, self._read)),
            **arrays_by_name(self._softmax.first.fit, "fit"),
        }

    def __setstate__(self, state: dict[str, np.ndarray]) -> None:
        *batch, kv_heads = state["shape"].tolist()
        head_dim, value_dim, window = state["settings"].tolist()
        self.__init__(
            head_dim,
            value_dim,
            kv_heads,
            tuple(batch),
            dtype=state["keys"].dtype,
            scale=float(state["scale"]),
            window=None if window < 0 else window,
        )
        tokens, (coded, fitted) = state["keys"].shape[1], state["progress"].tolist()
        if coded % TILE or not 0 <= coded <= tokens:
            raise ValueError(f"progress: expected whole tiles of {tokens} tokens, got {coded}")
        room = self._make_room(len(self._heads), tiles_for(tokens, 0))
        rows = tokens, tokens, coded // TILE, coded // TILE
        for name, array, count in zip(Room._fields, room, rows, strict=True):
            part = array[:, :count]
            part[:] = as_stored(state[name], part.shape, part.dtype, name)
        fits = from_arrays(self._softmax.first.fit, "fit", state)
        for h, head in enumerate(self._heads):
            head.take_over(_of_head(room, h), tokens, coded, fitted, part_of(fits, h))
        self._count = tokens
        self._seen, self._read = as_stored(
            state["counts"], (2, len(self._heads)), np.dtype(np.int64), "counts"
        )
        self._live_in(room)

    def _make_room(self, heads: int, tiles: int) -> Room:
        return make_room(
            (heads,), tiles, self._head_dim, self._value_dim, (self._dtype, self._dtype)
        )

    def _live_in(self, room: Room) -> None:
        """Keep rows, from now on, in room that holds those there are."""
        self._room = room
        for h, head in enumerate(self._heads):
            head.live_in(_of_head(room, h))
        self._bind()

    def _bind(self) -> None:
        """Let kernels see the room and the fits there are."""
        views = Room(*(frozen(array.view()) for array in self._room))
        heads = CodedHeads(views, stacked([head.fit for head in self._heads]))
        self._softmax, self._relu = Bound(softmax_of_heads, heads), Bound(relu_of_heads, heads)

    def _rows(self, array: np.ndarray) -> np.ndarray:
        return frozen(array[:, : self._count].reshape(*self._shape, self._count, array.shape[-1]))

    def _asked(self, query: ArrayLike) -> tuple[Asked, np.ndarray, bounds.ValueRange]:
        """Checked queries; the largest norms of keys and the ranges of values of each."""
        asked = as_asked(query, self._shape, self._head_dim, self._count, self._dtype)
        self._measure()
        m = len(asked.lengths)
        key_norms = np.repeat(self._key_norms, m)
        check_scores(asked.norms, key_norms, self._scale)
        low, high = (np.repeat(array, m, axis=0) for array in (self._low, self._high))
        return asked, key_norms, bounds.ValueRange(low, high)

    def _run(self, kernel: Bound, asked: Asked, arguments: tuple, readings: Readings) -> None:
        """Fill the readings, by threads where that pays."""
        slots = -(-self._count // TILE) * TILE
        each = slots * (KEY_NANOSECONDS + PRODUCT_NANOSECONDS * self._head_dim)
        mine = Readings(*map(asked.by_head, readings))
        some = slots, asked.queries, asked.lengths, *arguments, mine
        of_threads = pieces(*asked.queries.shape[:2], each)
        parallel.run([lambda piece=piece: kernel(piece, *some) for piece in of_threads])
        self._seen += mine.looked.sum(axis=1)
        self._read += mine.reported.sum(axis=1)

    def _measure(self) -> None:
        """Let the ranges of values and the largest norms of keys hold for all tokens."""
        for norms, low, high in self._measures(self._measured, self._count):
            if self._measured:
                norms = np.maximum(norms, self._key_norms)
                low, high = np.minimum(low, self._low), np.maximum(high, self._high)
            self._key_norms, self._low, self._high = norms, low, high
            self._measured = self._count

    def _measures(
        self, first: int, last: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Largest norms, and ranges of values, of some tokens after others, by head."""
        heads, d = len(self._heads), self._head_dim
        step = max(1, CHUNK // (heads * d))
        for start in range(first, last, step):
            rows = slice(start, min(start + step, last))
            norms = bounds.norms(self._room.keys[:, rows].reshape(-1, d))
            values = self._room.values[:, rows]
            yield (
                norms.reshape(heads, -1).max(axis=1),
                values.min(axis=1).astype(np.float64),
                values.max(axis=1).astype(np.float64),
            )

    def _reaches_out(self, first: int, last: int) -> bool:
        """Whether any of these tokens is as far out as any is, so that measures rest on it."""
        return any(
            (norms >= self._key_norms).any()
            or (low <= self._low).any()
            or (high >= self._high).any()
            for norms, low, high in self._measures(first, last)
        )


def _of_head(room: Room, h: int) -> Room:
    return Room(*(array[h] for array in room))


def _shaped(got: Attended, asked: Asked) -> Attended:
    """Rows in the shape of the queries."""
    rows = (field.reshape(asked.shape) for field in (*got[1:], got.lse_bound))
    return Attended(got.output.reshape(*asked.shape, got.output.shape[-1]), *rows)
