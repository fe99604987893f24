"""What a KVCache refuses: one clear exception, and it is as it was before."""

import math

import numpy as np
import pytest

from attention import KVCache

from .caches import arrays, filled


def bad(array, at, what):
    array = array.copy()
    array[at] = what
    return array


KEY, VALUE = arrays((2, 3, 4), (2, 3, 4))
BAD_TOKENS = {
    "key nan": (bad(KEY, (1, 2, 3), np.nan), VALUE, ValueError, r"key: .*nan at \[1, 2, 3\]"),
    "value inf": (KEY, bad(VALUE, (0, 1, 0), np.inf), ValueError, r"value: .*inf at \[0, 1, 0\]"),
    "key axes": (KEY[0], VALUE, ValueError, r"key: expected shape \(2, t, 4\), got shape \(3, 4\)"),
    "key heads": (KEY[:1], VALUE, ValueError, r"key: expected shape \(2, t, 4\)"),
    "key dim": (KEY[..., :3], VALUE, ValueError, r"key: expected shape \(2, t, 4\)"),
    "value rows": (KEY, VALUE[:, :2], ValueError, r"value: expected shape \(2, 3, 4\)"),
    "value dim": (KEY, VALUE[..., :2], ValueError, r"value: expected shape \(2, 3, 4\)"),
    "key wide": (KEY.astype(float), VALUE, TypeError, "key: expected a dtype that .* float64"),
    "value wide": (KEY, VALUE.astype(float), TypeError, "value: expected a dtype that .* float64"),
    "complex": (KEY * 1j, VALUE, TypeError, "key: expected"),
    "text": (KEY, VALUE.astype(str), TypeError, "value: expected"),
    "mask": (np.ma.array(KEY), VALUE, TypeError, "key: expected"),
    "none": (None, VALUE, TypeError, "key: expected"),
}


@pytest.mark.parametrize(("key", "value", "error", "says"), BAD_TOKENS.values(), ids=BAD_TOKENS)
def test_bad_tokens_change_nothing(key, value, error, says):
    cache, before, _ = filled(d=4)
    with pytest.raises(error, match=says):
        cache.append(key, value)
    assert np.array_equal(cache.keys, before)


def test_values_beyond_sums():
    cache = KVCache(1, dtype=np.float64)
    with pytest.raises(ValueError, match="value: expected magnitudes"):
        cache.append([[[1.0]]], [[[1.7e308]]])
    cache.append([[[1e200]]], [[[1.0]]])
    with pytest.raises(ValueError, match="query: expected scores below"):
        cache.attend([[[1e200]]])


BAD_QUERIES = {
    "axes": (np.ones((3, 4)), ValueError, r"query: expected shape \(heads, length, 4\)"),
    "dim": (np.ones((2, 1, 3)), ValueError, "query: expected head_dim 4 as of key, got 3"),
    "heads": (np.ones((3, 1, 4)), ValueError, "query: expected a multiple.* 2 heads, got 3"),
    "length": (np.ones((2, 999, 4)), ValueError, "query: expected length at most .*got 999"),
    "nan": (np.full((2, 1, 4), np.nan), ValueError, r"query: .*nan at \[0, 0, 0\]"),
    "inf": (np.full((2, 1, 4), np.inf), ValueError, r"query: .*inf at \[0, 0, 0\]"),
    "bool": (np.ones((2, 1, 4), bool), TypeError, "query: expected"),
}


@pytest.mark.parametrize(("query", "error", "says"), BAD_QUERIES.values(), ids=BAD_QUERIES)
def test_bad_queries(query, error, says):
    cache, *_ = filled(d=4)
    with pytest.raises(error, match=says):
        cache.attend(query)
    with pytest.raises(error, match=says):
        cache.relu(query, threshold=0.0)


BAD_OPTIONS = {
    "head_dim zero": ({"head_dim": 0}, ValueError, "head_dim: expected at least 1, got 0"),
    "head_dim float": ({"head_dim": 4.0}, TypeError, "head_dim: expected an integer"),
    "value_dim": ({"value_dim": -1}, ValueError, "value_dim: expected at least 1"),
    "heads": ({"num_kv_heads": 0}, ValueError, "num_kv_heads: expected at least 1"),
    "batch": ({"batch_shape": (2, 0)}, ValueError, "batch_shape: expected at least 1"),
    "batch text": ({"batch_shape": "22"}, TypeError, "batch_shape: expected integers"),
    "batch float": ({"batch_shape": 2.0}, TypeError, "batch_shape: expected an integer"),
    "float16": ({"dtype": np.float16}, TypeError, "dtype: expected float32 or float64"),
    "no dtype": ({"dtype": None}, TypeError, "dtype: expected float32 or float64, got None"),
    "nonsense": ({"dtype": "floot"}, TypeError, "dtype: expected float32 or float64, got 'floot'"),
    "scale": ({"scale": 0.0}, ValueError, "scale: expected a positive"),
    "window": ({"window": -1}, ValueError, "window: expected at least 0"),
}


@pytest.mark.parametrize(("options", "error", "says"), BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_bad_options(options, error, says):
    with pytest.raises(error, match=says):
        KVCache(**({"head_dim": 4} | options))


def test_bad_calls():
    cache, *_ = filled(30)
    with pytest.raises(TypeError, match=r"rule: expected TopR.*got 0\.1"):
        cache.attend(np.ones((2, 1, 6)), 0.1)
    with pytest.raises(ValueError, match="threshold: expected a finite"):
        cache.relu(np.ones((2, 1, 6)), threshold=math.nan)
    for count, error in ((31, ValueError), (-1, ValueError), (1.5, TypeError)):
        with pytest.raises(error, match="count: expected"):
            cache.crop(count)
    with pytest.raises(ValueError, match="batch_shape: expected an axis"):
        cache.reorder([0])


@pytest.mark.parametrize(
    ("idx", "error", "says"),
    [
        ([0, 2], ValueError, "idx: expected 0 … 1, got 2 at 1"),
        ([-1], ValueError, "idx: expected 0 … 1, got -1 at 0"),
        ([], ValueError, "idx: expected shape"),
        ([[0]], ValueError, "idx: expected shape"),
        ([0.5], TypeError, "idx: expected integers"),
        ([True, False], TypeError, "idx: expected integers"),
    ],
    ids=str,
)
def test_bad_ancestors(idx, error, says):
    cache, key, _ = filled(30, batch=(2,))
    with pytest.raises(error, match=says):
        cache.reorder(idx)
    assert np.array_equal(cache.keys, key)


def test_files_that_are_none(tmp_path):
    for name, content in (("text", b"hello"), ("empty", b""), ("zip", b"PK\x03\x04junk")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(
            ValueError, match="path: expected a file that KVCache.save wrote.*" + name
        ):
            KVCache.load(tmp_path / name)
    cache, *_ = filled()
    state = cache.__getstate__()
    for name, array in (
        ("codes", state["codes"][:, 1:]),
        ("progress", np.array((1, 1))),
        ("fit.basis.inverse", state["fit.basis.inverse"][0]),
        ("values", state["values"][:, 1:]),
        ("format", np.array(0)),
        ("shape", np.array([3])),
        ("keys", state["keys"].astype(object)),
    ):
        np.savez(tmp_path / "changed.npz", **({"format": np.array(1)} | state | {name: array}))
        with pytest.raises(ValueError, match=r"path: expected a file that KVCache\.save wrote"):
            KVCache.load(tmp_path / "changed.npz")
    with pytest.raises(FileNotFoundError):
        KVCache.load(tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "number"),
    [("keys", math.nan), ("keys", math.inf), ("values", math.nan), ("values", -1e308)],
)
def test_files_of_numbers_that_no_cache_takes(tmp_path, name, number):
    """Kernels count on finite ones."""
    state = filled(dtype=np.float64)[0].__getstate__()
    state[name] = state[name].copy()
    state[name][0, 1] = number
    np.savez(tmp_path / "changed.npz", format=np.array(1), **state)
    with pytest.raises(ValueError, match=r"path: expected a file that KVCache\.save wrote"):
        KVCache.load(tmp_path / "changed.npz")
