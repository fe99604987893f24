"""A KV cache in decoding: a token of all heads appended, a query of each head answered."""

import attention

from .. import data, sizes
from .common import Suite

TOKENS = 20_000

KV_HEADS = 8

HEAD_DIM = 64

APPENDED = 1_000
"""Tokens that come one by one."""

SHARPNESS = (1.0, 8.0)
"""Lengths of queries: scores of keys from nearly alike to far apart."""


class Cache(Suite):
    """Appending to and asking a cache, by the length of queries."""

    params = (SHARPNESS,)
    param_names = ("sharpness",)

    def prepare(self, sharpness: float) -> None:
        tokens = sizes.points(TOKENS)
        rows = data.gauss(3 * KV_HEADS * tokens, HEAD_DIM, "float32")
        self.query, self.key, self.value = rows.reshape(3, KV_HEADS, tokens, HEAD_DIM)
        self.query = sharpness * self.query[:, -1:]
        self.cache = attention.KVCache(HEAD_DIM, num_kv_heads=KV_HEADS)
        self.cache.append(self.key, self.value)
        self.cache.attend(self.query)

    def time_append(self, sharpness: float) -> None:
        cache = attention.KVCache(HEAD_DIM, num_kv_heads=KV_HEADS)
        for i in range(sizes.points(APPENDED)):
            cache.append(self.key[:, i : i + 1], self.value[:, i : i + 1])

    def time_attend(self, sharpness: float) -> None:
        self.cache.attend(self.query)

    def track_read(self, sharpness: float) -> float:
        """Share of the keys that are read."""
        got = self.cache.attend(self.query)
        return float(got.reported.mean() / len(self.cache))
