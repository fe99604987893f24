"""Keys on a Dask cluster: partial attention of the partitions, merged and certified."""

from functools import partial, reduce

import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attention import Decoder, Error, Mass, Sampled, Threshold, TopR, dense, distributed, merge
from attention.distributed import DistributedDecoder

from .clusters import cluster
from .public_names import not_shown
from .sizes import JIT, examples
from .strategies import rngs

N = 3000 if JIT else 200


@pytest.fixture(scope="module")
def client():
    with cluster(2) as client:
        yield client


def arrays(n=N, d=6, seed=0):
    rng = np.random.default_rng(seed)
    return 2.0 * rng.standard_normal((5, d)), *rng.standard_normal((2, n, d))


def decoder(client, key, value, shards=4, **options):
    size = -(-len(key) // shards)
    chunked = (da.from_array(array, chunks=(size, array.shape[1])) for array in (key, value))
    return DistributedDecoder(*chunked, client=client, **options)


def in_one(array):
    return da.from_array(array, chunks=array.shape)


def assert_certified(got, query, key, value):
    exact, lse = dense.softmax(query, key, value)
    assert (np.abs(got.output - exact).max(axis=1) <= got.bound).all()
    known = np.isfinite(got.lse_bound)
    assert (np.abs(got.lse - lse)[known] <= got.lse_bound[known]).all()


@pytest.mark.parametrize(
    "rule", [TopR(), TopR(20), Threshold(1.0), Mass(0.9)], ids=lambda rule: type(rule).__name__
)
def test_it_is_what_merge_makes_of_the_partitions(client, rule):
    query, key, value = arrays()
    got = decoder(client, key, value).softmax(query, rule)
    each = TopR(rule.count(N)) if isinstance(rule, TopR) else rule
    parts = [
        Decoder(k, v).softmax(query, each)
        for k, v in zip(np.split(key, 4), np.split(value, 4), strict=True)
    ]
    want = reduce(merge, parts)
    for field in ("output", "lse", "bound", "reported", "lse_bound"):
        assert np.array_equal(getattr(got, field), getattr(want, field))
    assert_certified(got, query, key, value)


@examples(0.3)
@given(data=st.data())
def test_errors_are_within_eps(client, data):
    rng = data.draw(rngs())
    n = data.draw(st.integers(1, 200))
    query, key, value = (rng.standard_normal((m, 4)) for m in (3, n, n))
    eps = data.draw(st.sampled_from([1.0, 1e-2, 1e-6]))
    shards = data.draw(st.integers(1, 5))
    got = decoder(client, 3.0 * key, value, shards).softmax(query, Error(eps))
    assert_certified(got, query, 3.0 * key, value)
    assert (got.bound <= eps).all()


def test_rows_that_are_not_certain_enough_are_asked_again(client, monkeypatch):
    query, key, value = arrays()
    query[0] = 0.0  # all scores are equal, and so certain that it takes all keys
    some = decoder(client, 3.0 * key, value)
    monkeypatch.setattr(distributed, "ROUNDS", (8.0,))
    assert (some.softmax(query, Error(1e-2)).bound > 1e-2).any()
    monkeypatch.setattr(distributed, "ROUNDS", (8.0, 0.25, 0.0))
    got = some.softmax(query, Error(1e-2))
    assert (got.bound <= 1e-2).all()
    assert_certified(got, query, 3.0 * key, value)


def test_sampled_rows_are_within_eps(client):
    query, key, value = arrays(4 * N)
    some = decoder(client, key, value)
    got = some.softmax(0.2 * query, Sampled(0.2, 1e-3))
    assert (got.bound <= 0.2).all()
    exact, _ = dense.softmax(0.2 * query, key, value)
    assert (np.abs(got.output - exact).max(axis=1) <= got.bound).all()
    stricter = some._stricter(Sampled(0.2, 1e-3, seed=5), 0.5)
    assert (stricter.eps, stricter.delta, stricter.seed) == (0.1, 1e-3 / 16, 5)


def test_relu_is_exact(client):
    query, key, value = arrays()
    got = decoder(client, key, value).relu(query, threshold=1.0, power=2)
    exact, _ = dense.relu(query, key, value, threshold=1.0, power=2)
    assert (np.abs(got.output - exact).max(axis=1) <= got.bound).all()
    assert got.bound.max() < 1e-9


def test_files_and_appended_keys(client, tmp_path):
    query, key, value = arrays()
    np.save(tmp_path / "key.npy", key[:100])
    np.save(tmp_path / "value.npy", value[:100])
    some = DistributedDecoder(
        [tmp_path / "key.npy"], [tmp_path / "value.npy"], scale=0.5, client=client
    )
    assert (len(some), some.dim, some.value_dim) == (100, 6, 6)
    some.append(in_one(key[100:]), in_one(value[100:]))
    got = some.softmax(query, Error(1e-3), dtype=np.float32)
    assert got.output.dtype == np.float32
    exact, _ = dense.softmax(query, key, value, scale=0.5)
    assert (np.abs(got.output - exact).max(axis=1) <= got.bound).all()


def test_what_is_wrong_is_said(client):
    query, key, value = arrays(40)
    make = partial(decoder, client)
    with pytest.raises(ValueError, match=r"partition 0: value: expected as many rows"):
        DistributedDecoder(in_one(key[:30]), in_one(value), client=client)
    some = make(key, value)
    with pytest.raises(ValueError, match="head_dim 6 as of key, got 5"):
        some.softmax(query[:, :5], Error())
    with pytest.raises(TypeError, match="rule"):
        some.softmax(query, 3)
    with pytest.raises(ValueError, match="equal head_dim, got 6, 6, 6, 6, 5"):
        some.append(in_one(key[:, :5]), in_one(value))
    with pytest.raises(ValueError, match="scale"):
        make(key, value, scale=-1.0)
    assert len(some) == 40


def test_the_example_shows_all_there_is():
    assert not_shown(DistributedDecoder) == []
