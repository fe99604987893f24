"""Points on a Dask cluster: the answers of one index, whatever the partitions, whoever dies."""

import os
import threading
import time
from functools import partial

import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import halfspace
from halfspace import distributed
from halfspace.distributed import DistributedIndex

from .clusters import cluster, kill, until
from .datasets import cloud
from .pages import ROOT, run
from .public_names import not_shown
from .sizes import JIT, examples
from .strategies import rngs

N, M = (8000, 100) if JIT else (160, 4)


@pytest.fixture(scope="module")
def client():
    with cluster(4) as client:
        yield client


@pytest.fixture(scope="module")
def points():
    return cloud(N, 3).astype(np.float32)


@pytest.fixture(scope="module")
def halves():
    rng = np.random.default_rng(1)
    return rng.standard_normal((M, 3)), rng.normal(1.0, 1.0, M)


def in_shards(array, shards):
    return da.from_array(array, chunks=(-(-len(array) // shards), *array.shape[1:]))


def assert_same(index, whole, normals, offsets, k=7):
    """Whether every answer is that of one machine."""
    for closed in (True, False):
        want = whole.report(normals, offsets, closed=closed)
        found = index.report(normals, offsets, closed=closed)
        assert np.array_equal(found.indptr, want.indptr)
        assert np.array_equal(found.indices, want.indices)
        ask = normals, offsets
        assert np.array_equal(index.count(*ask, closed=closed), whole.count(*ask, closed=closed))
        assert np.array_equal(index.any(*ask, closed=closed), whole.any(*ask, closed=closed))
    for got, best in zip(index.top(normals, k), whole.top(normals, k), strict=True):
        assert np.array_equal(got, best)


def test_four_workers_and_eight_shards_are_one_index(client, points, halves):
    index = DistributedIndex(in_shards(points, 8), client=client)
    assert (len(index), index.dim, len(index._shards)) == (N, 3, 8)
    assert len(client.scheduler_info(n_workers=-1)["workers"]) == 4
    whole = halfspace.Scan(points)
    assert_same(index, whole, *halves)
    normal, offset = halves[0][0], halves[1][0]
    assert np.array_equal(index.report(normal, offset), whole.report(normal, offset))
    assert index.count(normal, offset) == whole.count(normal, offset)
    assert index.any(normal, offset) is whole.any(normal, offset)
    assert np.array_equal(index.top(normal, 3).ids, whole.top(normal, 3).ids)
    assert index.report(*halves).to_scipy().shape == (M, N)
    assert "8 shards" in index.explain()
    assert index.nbytes >= points.nbytes


@examples(0.5)
@given(data=st.data())
def test_ties_and_any_partitions(client, data):
    """Small integers make ties; partitions may be empty, of any size and structure."""
    rng = data.draw(rngs())
    points = rng.integers(-2, 3, (data.draw(st.integers(1, 150)), 2)).astype(float)
    cuts = np.sort(rng.integers(0, len(points) + 1, data.draw(st.integers(0, 3))))
    sizes = tuple(np.diff([0, *cuts, len(points)]).tolist())
    structure = data.draw(st.sampled_from(["auto", "scan", "kd_tree"]))
    index = DistributedIndex(da.from_array(points, (sizes, 2)), structure, client=client)
    m = data.draw(st.integers(0, 4))
    ask = rng.integers(-2, 3, (m, 2)).astype(float), rng.integers(-3, 4, m).astype(float)
    assert_same(index, halfspace.Scan(points), *ask, k=data.draw(st.integers(0, 200)))


def test_files_and_appended_partitions(client, points, halves, tmp_path):
    paths, parts = [], np.array_split(points, 3)
    for number, part in enumerate(parts[:2]):
        paths.append(tmp_path / f"{number}.npy")
        np.save(paths[-1], part)
    index = DistributedIndex(paths, "kd_tree", client=client)
    assert_same(index, halfspace.Scan(np.concatenate(parts[:2])), *halves)
    index.append(in_shards(parts[2], 2))
    assert len(index._shards) == 4
    assert_same(index, halfspace.Scan(points), *halves)


@pytest.mark.parametrize("axes", [1, 2])
def test_weights(client, points, halves, axes):
    weights = np.arange(N * axes, dtype=float).reshape((N, 2) if axes == 2 else N)
    shards = in_shards(points, 3), in_shards(weights, 3)
    index = DistributedIndex(shards[0], weights=shards[1], client=client)
    whole = halfspace.Scan(points, weights=weights)
    # Sums of integers, so that their order does not matter.
    assert np.array_equal(index.sum(*halves), whole.sum(*halves))
    one = halves[0][0], halves[1][0]
    assert np.array_equal(index.sum(*one), whole.sum(*one))
    assert isinstance(index.sum(*one), float) is (axes == 1)
    none = np.empty((0, 3)), np.empty(0)
    assert index.sum(*none).shape == whole.sum(*none).shape
    with pytest.raises(ValueError, match="expected weights, as at the start"):
        index.append(shards[0])


def test_queries_that_fill_several_messages(client, points, halves, monkeypatch):
    monkeypatch.setattr(distributed, "MESSAGE_BYTES", 100)
    index = DistributedIndex(in_shards(points, 2), client=client)
    few = halves[0][:6], halves[1][:6]
    assert_same(index, halfspace.Scan(points), *few)


def test_what_is_wrong_is_said(client, points, monkeypatch):
    shards = in_shards(points, 2)
    make = partial(DistributedIndex, client=client)
    with pytest.raises(TypeError, match=r"points: expected a dask.array or a list.*ndarray"):
        make(points)
    with pytest.raises(ValueError, match="at least one partition"):
        make([])
    with pytest.raises(ValueError, match="structure: expected one of"):
        make(shards, "nonsense")
    with pytest.raises(ValueError, match=r"weights: expected as many partitions.* 2, got 3"):
        make(shards, weights=in_shards(points[:, 0], 3))
    broken = points.copy()
    broken[-1, 1] = np.nan
    with pytest.raises(ValueError, match=r"partition 1: points: expected finite numbers, got nan"):
        make(in_shards(broken, 2))
    with pytest.raises(OSError, match="nowhere"):
        make(["nowhere.npy"])
    index = make(shards)
    with pytest.raises(ValueError, match="equal dimensions, got 3, 3, 2"):
        index.append(in_shards(points[:, :2], 1))
    assert len(index) == N
    with pytest.raises(ValueError, match="no weights"):
        index.append(shards, weights=shards)
    with pytest.raises(ValueError, match="without"):
        index.sum([1.0, 0.0, 0.0], 0.0)
    with pytest.raises(halfspace.ResultTooLarge, match=f"at most 1 results, got {N}"):
        index.report([0.0, 0.0, 0.0], 0.0, max_results=1)
    with pytest.raises(ValueError, match="shape"):
        index.count([1.0, 0.0], 0.0)


def test_the_current_client_is_taken(client, points):
    assert len(DistributedIndex(in_shards(points, 2))) == N


# Workers that die


def _slow_down():
    """Have a worker that is told so begin each count, and not end it."""
    count = distributed._count

    def slow(index, queries, closed):
        time.sleep(600)
        return count(index, queries, closed)

    distributed._count = slow


def test_a_worker_that_is_killed_mid_query(points, halves):
    """Its partitions are built anew from their source, and the answer is right."""
    whole = halfspace.Scan(points)
    with cluster(2, processes=True) as client:
        index = DistributedIndex(in_shards(points, 4), "scan", client=client)
        holders = {
            worker for places in client.who_has(index._shards.futures).values() for worker in places
        }
        assert len(holders) == 2
        pids = client.run(os.getpid)
        victim = sorted(holders)[0]
        client.run(_slow_down, workers=[victim])
        answers = []
        asking = threading.Thread(target=lambda: answers.append(index.count(*halves)))
        asking.start()
        until(lambda: any("_count" in str(key) for key in client.processing()[victim]))
        assert not answers
        kill(pids[victim])
        asking.join(60)
        assert np.array_equal(answers[0], whole.count(*halves))
        assert pids[victim] not in client.run(os.getpid).values()
        found = index.report(*halves)
        assert np.array_equal(found.indices, whole.report(*halves).indices)


@pytest.mark.skipif(not JIT, reason="interpreted, so much takes too long")
def test_the_code_of_the_page_runs(client, tmp_path):
    days = [str(tmp_path / f"{day}.npy") for day in ("monday", "tuesday")]
    for day in days:
        np.save(day, cloud(100, 3))
    smaller = {"000_000": "000", "400_000": "4_000", "100_000": "1_000"}
    files = {"monday.npy": days[0], "tuesday.parquet": days[1]}
    names = {"here": client}
    page = ROOT / "docs" / "distributed.md"
    run(page, tmp_path, smaller | files | {"= Client()": "= here"}, names)
    assert len(names["index"]) == 8_200
    assert (names["got"].bound <= 1e-2).all()


def test_the_example_shows_all_there_is():
    assert not_shown(DistributedIndex) == []
