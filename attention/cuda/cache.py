"""CudaCache: keys and values of many heads on a device, to which tokens are appended."""

from numpy.typing import ArrayLike

from ..attended import Attended
from ..cache import DEFAULT_RULE, KVCache
from ..cache_answers import CacheStatistics, certified_relu, certified_softmax
from ..inputs import check_relu
from ..rules import Rule
from .answers import check_rule_here
from .heads import CudaHeads
from .on_device import OnDevice


class CudaCache(OnDevice):
    """A `KVCache` on a CUDA device: batch, heads and grouped queries in one launch.

    Made by ``cache.to("cuda")``. The cache it was made of is kept on the host, with its codes, and
    all that changes it here changes it there; what changes there is followed before the next
    append or answer, by copying new tokens or, after a crop or a reorder, all. Answers, shapes and
    errors are those of `KVCache`; see `CudaDecoder` for what they may differ in.

    Changes must not run beside other calls; answers are safe from many threads.

    Parameters
    ----------
    cache : KVCache
    number : int
        Of the device.

    Raises
    ------
    CudaUnavailable
        There is no such device, or nothing to run it with.
    OutOfDeviceMemory
        Keys, values and codes, or later scratch, do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from attention import Error, KVCache
    >>> host = KVCache(1, batch_shape=2)
    >>> cache = host.to("cuda")  # doctest: +SKIP
    >>> key = np.float32([[[[1], [2]]], [[[3], [4]]]])  # (batch, kv_heads, tokens, head_dim)
    >>> cache.append(key, key)  # doctest: +SKIP
    >>> query = np.full((2, 1, 1, 1), 90.0)
    >>> cache.attend(query, Error(1e-3)).output.ravel()  # doctest: +SKIP
    array([2., 4.])
    >>> cache.relu(query, threshold=100.0).reported.ravel()  # doctest: +SKIP
    array([1, 2])
    >>> cache.reorder([1, 1])  # doctest: +SKIP
    >>> cache.crop(1)  # doctest: +SKIP
    >>> cache.attend(query, Error(1e-3)).output.ravel()  # doctest: +SKIP
    array([3., 3.])
    >>> cache.batch_shape, cache.scale, cache.statistics().tokens.ravel()  # doctest: +SKIP
    ((2,), 1.0, array([1, 1]))
    >>> cache.device, cache.nbytes > 0, cache.to("cpu") is host  # doctest: +SKIP
    ('cuda:0', True, True)
    """

    def __init__(self, cache: KVCache, number: int = 0) -> None:
        super().__init__(cache, number)
        self._heads = CudaHeads.of(cache._heads, number)

    def __repr__(self) -> str:
        return f"CudaCache({self._host!r}, {self.device})"

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Axes before that of the heads."""
        return self._host.batch_shape

    def append(self, key: ArrayLike, value: ArrayLike, *, stream: object = None) -> None:
        """Append tokens to all heads, as `KVCache.append`.

        Arrays may lie on the device: they are read after what is queued in `stream`, and in the
        streams that they tell. Where there is no room, nothing is appended.
        """
        before = len(self._host)
        rows = (self._arrived(a, name, stream) for a, name in ((key, "key"), (value, "value")))
        self._host.append(*rows)
        try:
            self._heads.follow(self._host._heads)
        except BaseException:
            self._host.crop(before)
            raise

    def crop(self, count: int) -> None:
        """Keep the first `count` tokens, as `KVCache.crop`."""
        self._host.crop(count)

    def reorder(self, idx: ArrayLike) -> None:
        """Let row b of the batch be what row ``idx[b]`` was, as `KVCache.reorder`."""
        self._host.reorder(idx)

    def statistics(self) -> CacheStatistics:
        """Tokens, those with codes, the mean share read so far, and bytes, by head."""
        return self._host.statistics()

    def attend(
        self,
        query: ArrayLike,
        rule: Rule = DEFAULT_RULE,
        *,
        on_device: bool = False,
        stream: object = None,
    ) -> Attended:
        """Softmax attention of the last tokens' queries, as `KVCache.attend`.

        Every rule but `Sampled` can be asked; `on_device` and `stream` are as for
        `CudaDecoder.softmax`.

        Raises
        ------
        OutOfDeviceMemory
            There is no room for scratch; besides the errors of `KVCache.attend`.
        """
        check_rule_here(rule)
        host = self._host
        query = self._arrived(query, "query", stream)
        asked, values, cut, readings = host._ask_softmax(query, rule)
        self._heads.follow(host._heads)
        self._heads.softmax(
            asked.queries,
            asked.lengths,
            cut,
            host.scale,
            float(values.size.max(initial=0.0)),
            readings,
            stream,
        )
        host._heads.count_reads(*self._by_head(readings.looked, readings.reported))
        return self._deliver(certified_softmax(asked, values, cut, readings), on_device, stream)

    def relu(
        self,
        query: ArrayLike,
        *,
        threshold: float,
        power: int = 1,
        on_device: bool = False,
        stream: object = None,
    ) -> Attended:
        """ReLU attention, as `KVCache.relu`; all else as for `attend`."""
        threshold, power = check_relu(threshold, power)
        host = self._host
        query = self._arrived(query, "query", stream)
        asked, values, offsets, errors, readings = host._ask_relu(query, threshold)
        self._heads.follow(host._heads)
        self._heads.relu(
            asked.queries,
            asked.lengths,
            offsets,
            errors,
            host.scale,
            float(values.size.max(initial=0.0)),
            threshold,
            power,
            readings,
            stream,
        )
        host._heads.count_reads(*self._by_head(readings.looked, readings.reported))
        return self._deliver(certified_relu(asked, values, readings), on_device, stream)

    def _by_head(self, *columns: object) -> tuple:
        return tuple(column.reshape(self._host._heads.heads, -1) for column in columns)
