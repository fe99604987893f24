"""Caches with tokens in them, and how answers are compared."""

import numpy as np

from attention import KVCache, TopR

from .sizes import JIT


def arrays(*shapes, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def fields(attended):
    return (*attended, attended.lse_bound)


def same(a, b):
    """Whether two results are equal bit for bit."""
    return all(np.array_equal(x, y) for x, y in zip(fields(a), fields(b), strict=True))


def filled(t=300 if JIT else 100, *, dtype=np.float32, batch=(), kv_heads=2, d=6, **options):
    """A cache with codes, and what is in it."""
    key, value = arrays(*[(*batch, kv_heads, t, d)] * 2, dtype=dtype)
    cache = KVCache(d, num_kv_heads=kv_heads, batch_shape=batch, dtype=dtype, **options)
    cache.append(key, value)
    return cache, key, value


def changed(dtype):
    """A cache of two heads, after every change that measures of its values have to follow."""
    cache = KVCache(4, batch_shape=2, num_kv_heads=1, window=0, dtype=dtype)
    rng, query = np.random.default_rng(0), np.ones((2, 1, 1, 4), dtype)

    def more(n, size):
        cache.append(*(size * rng.standard_normal((2, 2, 1, n, 4))).astype(dtype))

    def recropped(count, n):
        cache.crop(count)
        more(n, 1.0)

    changes = [lambda: more(30, 1.0), lambda: more(3, 100.0), lambda: recropped(20, 1)]
    changes += [lambda: cache.reorder([1, 0]), lambda: cache.reorder([0, 0])]
    for change in changes + [lambda: recropped(10, 9)] * 8:
        change()
        cache.attend(query, TopR(1))
        yield cache
