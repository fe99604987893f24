"""Caches with tokens in them, and how answers are compared."""

import numpy as np

from attention import KVCache

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
