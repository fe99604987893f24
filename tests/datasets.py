"""Named data sets, each the bane of some shortcut: a function of (d, rng, dtype), often of n too.

Sets whose point is a particular dtype ignore the one asked for.
"""

from functools import partial

import numpy as np

from .sizes import SMALL, TILE


def gauss(d, rng, dtype, n=SMALL):
    return rng.standard_normal((n, d)).astype(dtype)


def cloud(n, d, dtype=np.float32, seed=0):
    """The same points at every call."""
    return gauss(d, np.random.default_rng(seed), dtype, n)


def duplicates(d, rng, dtype, n=SMALL):
    return rng.permutation(np.resize(gauss(d, rng, dtype, max(1, n // 10)), (n, d)))


def all_equal(d, rng, dtype, n=SMALL):
    return np.full((n, d), 0.1, dtype)


def integer_grid(d, rng, dtype, n=SMALL):
    return rng.integers(-3, 4, (n, d)).astype(dtype)


def line(d, rng, dtype, n=SMALL):
    """Collinear, and so far from the origin that the differences are near rounding."""
    return (np.outer(rng.standard_normal(n), np.ones(d)) + 1e8).astype(dtype)


def sphere(d, rng, dtype, n=SMALL):
    x = rng.standard_normal((n, d))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(dtype)


def flat(d, rng, dtype, n=SMALL):
    """Exactly in a hyperplane that is no coordinate plane: the last is the sum of the others."""
    x = rng.integers(-50, 51, (n, d))
    x[:, -1] = x[:, :-1].sum(axis=1)
    return x.astype(dtype)


def far(d, rng, dtype):
    return (1e8 + 1e-8 * gauss(d, rng, np.float64)).astype(dtype)


def subnormal(d, rng, dtype):
    return rng.integers(-1000, 1001, (SMALL, d)).astype(dtype) * np.finfo(dtype).smallest_subnormal


def huge(d, rng, dtype):
    """Squares overflow, and so do sums of a few products."""
    x = np.clip(gauss(d, rng, np.float64), -3, 3)
    return (x * (1e38 if dtype == np.float32 else 1e300)).astype(dtype)


def largest(d, rng, dtype):
    return rng.choice(np.array([-1, 0, 1], dtype), (SMALL, d)) * np.finfo(dtype).max


def outlier(d, rng, dtype):
    x = gauss(d, rng, dtype)
    x[len(x) // 2] = 1e30
    return x


def mixed_scales(d, rng, dtype, n=SMALL):
    return (rng.standard_normal((n, d)) * np.logspace(-6, 6, d)).astype(dtype)


def negative_zeros(d, rng, dtype):
    return rng.choice(np.array([-1.0, -0.0, 0.0, 1.0], dtype), (SMALL, d))


def moment_curve(d, rng, dtype):
    t = rng.uniform(-2, 2, (SMALL, 1))
    return (t ** np.arange(1, d + 1)).astype(dtype)


def simplex(d, rng, dtype):
    return gauss(d, rng, dtype, d + 1)


def fortran_order(d, rng, dtype):
    return np.asfortranarray(gauss(d, rng, dtype))


def strided(d, rng, dtype):
    return gauss(2 * d, rng, dtype, 2 * SMALL)[::-2, ::2]


def read_only(d, rng, dtype):
    x = gauss(d, rng, dtype)
    x.flags.writeable = False
    return x


def big_endian(d, rng, dtype):
    return gauss(d, rng, dtype).astype(np.dtype(dtype).newbyteorder(">"))


def float16(d, rng, dtype):
    return gauss(d, rng, np.float16)


def integers(d, rng, dtype, kind):
    """The whole range of a small integer type; of int64 what float64 holds exactly."""
    info = np.iinfo(kind)
    low, high = max(info.min, -(2**53)), min(info.max, 2**53)
    return rng.integers(low, high, (SMALL, d), endpoint=True).astype(kind)


def big_integers(d, rng, dtype):
    """Around 2**53, where float64 begins to skip integers: only those it does not skip."""
    x = rng.integers(-8, 9, (SMALL, d))
    return 2**53 + np.where(x > 0, 2 * x, x)


DATASETS = {
    function.__name__: function
    for function in (
        gauss,
        duplicates,
        all_equal,
        integer_grid,
        line,
        sphere,
        flat,
        far,
        subnormal,
        huge,
        largest,
        outlier,
        mixed_scales,
        negative_zeros,
        moment_curve,
        simplex,
        fortran_order,
        strided,
        read_only,
        big_endian,
        float16,
        big_integers,
    )
}
DATASETS |= {f"n={n}": partial(gauss, n=n) for n in (0, 1, TILE - 1, TILE, TILE + 1)}
DATASETS |= {k: partial(integers, kind=k) for k in ("int8", "uint8", "int32", "int64")}
