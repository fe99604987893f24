"""Decoding: one head of a trained transformer by rule, and a cache that tokens are appended to."""

import attention
from attention.data import load

from .. import data, sizes
from .suite import Suite

QUERIES = 16

TOKENS = 20_000

KV_HEADS = 8

HEAD_DIM = 64

APPENDED = 1_000
"""Tokens that come one by one."""

SHARPNESS = (1.0, 8.0)
"""Lengths of queries: scores of keys from nearly alike to far apart."""

RULES = {
    "TopR": attention.TopR(),
    "Error": attention.Error(1e-2),
    "Sampled": attention.Sampled(0.1, 1e-2),
}


class Head(Suite):
    """A head's queries by head and rule."""

    params = (("sharp", "flat"), tuple(RULES))
    param_names = ("head", "rule")

    def prepare(self, head: str, rule: str) -> None:
        loaded = load(head)
        n = sizes.points(len(loaded.key))
        self.query = loaded.query[: sizes.queries(QUERIES)]
        self.decoder = attention.Decoder(loaded.key[:n], loaded.value[:n])
        self.time_softmax(head, rule)

    def time_softmax(self, head: str, rule: str) -> None:
        self.decoder.softmax(self.query, RULES[rule])


class Relu(Suite):
    """Exact ReLU attention by the number of its dimensions."""

    params = ((3, HEAD_DIM),)
    param_names = ("head_dim",)

    def prepare(self, head_dim: int) -> None:
        key, value = data.gauss(2 * sizes.points(TOKENS), head_dim).reshape(2, -1, head_dim)
        self.query = data.gauss(sizes.queries(QUERIES), head_dim, seed=1)
        self.decoder = attention.Decoder(key, value)
        self.time_relu(head_dim)

    def time_relu(self, head_dim: int) -> None:
        self.decoder.relu(self.query, threshold=2.5)


class Cache(Suite):
    """Appending to and asking a cache, by the length of queries."""

    params = (SHARPNESS,)
    param_names = ("sharpness",)

    def prepare(self, sharpness: float) -> None:
        tokens = sizes.points(TOKENS)
        rows = data.gauss(3 * KV_HEADS * tokens, HEAD_DIM)
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
