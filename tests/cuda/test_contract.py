"""What an index on a device owes its caller: the shapes of answers, and where they are."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from numbers import Integral

import numpy as np
import pytest

import halfspace
from halfspace.cuda import index as cuda_index
from halfspace.cuda.target import SIMULATED, cuda

from .. import oracle
from .structures import FEW, each_structure

QUERY = np.array([1.0, -2.0, 0.5]), 0.25
BATCH = (
    np.array([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
    np.array([0.25, 1.0, -np.inf]),
)


def cloud(n=FEW, d=3):
    return np.random.default_rng(n).standard_normal((n, d))


def lists(report):
    return [ids.tolist() for ids in report]


@pytest.fixture(scope="module")
def pair():
    """The same points on the processor and on the device."""
    host = halfspace.KDTree(cloud(), weights=cloud(FEW, 2))
    return host, host.to("cuda")


def test_there_and_back(pair):
    host, index = pair
    assert index.to("cpu") is host
    assert index.to("cuda") is index
    assert host.to("cpu") is host
    assert (len(index), index.dim, index.device) == (FEW, 3, "cuda:0")
    assert isinstance(index.nbytes, Integral)
    assert index.nbytes > FEW * 3 * 8
    assert "KDTree" in repr(index)
    assert "cuda:0" in index.explain()


def test_one_query_in_one_answer_out(pair):
    host, index = pair
    ids = index.report(*QUERY)
    assert isinstance(ids, np.ndarray)
    assert (ids.dtype, ids.tolist()) == (np.int64, host.report(*QUERY).tolist())
    assert isinstance(index.count(*QUERY), Integral)
    assert index.count(*QUERY) == len(ids) > 0
    assert index.any(*QUERY) is True
    assert index.any(QUERY[0], np.inf) is False
    assert index.sum(*QUERY) == pytest.approx(host.sum(*QUERY), rel=1e-12)
    scores, best = index.top(QUERY[0], 4)
    assert scores.shape == best.shape == (4,)
    assert best.tolist() == host.top(QUERY[0], 4).ids.tolist()


def test_many_queries_in_a_batch_out(pair):
    host, index = pair
    report = index.report(*BATCH)
    assert isinstance(report, halfspace.Report)
    assert report.indptr.dtype == report.indices.dtype == np.int64
    assert lists(report) == lists(host.report(*BATCH))
    assert report.to_scipy().shape == (3, FEW)
    counts, occupied = index.count(*BATCH), index.any(*BATCH)
    assert (counts.dtype, counts.tolist()) == (np.int64, host.count(*BATCH).tolist())
    assert (occupied.dtype, occupied.tolist()) == (np.bool_, host.any(*BATCH).tolist())
    assert index.top(BATCH[0], 2).ids.tolist() == host.top(BATCH[0], 2).ids.tolist()
    assert index.work(*BATCH).points_touched.dtype == np.int64


def test_points_on_the_plane_are_tested_exactly():
    host = halfspace.Scan(np.arange(90.0).reshape(-1, 1) / 3.0)
    work = host.to("cuda").work([[3.0], [0.0]], [40.0, 0.0])
    assert work.exact_tests.tolist() == host.work([[3.0], [0.0]], [40.0, 0.0]).exact_tests.tolist()
    assert work.exact_tests.tolist() == [1, 0]
    assert work.points_touched.tolist() == [90, 0]


def test_no_queries_no_answers(pair):
    _, index = pair
    none = np.empty((0, 3)), np.empty(0)
    report = index.report(*none)
    assert (len(report), report.indptr.tolist()) == (0, [0])
    assert index.count(*none).shape == index.any(*none).shape == (0,)
    assert index.sum(*none).shape == (0, 2)
    assert index.top(none[0], 4).ids.shape == (0, 4)
    assert index.top(BATCH[0], 0).scores.shape == (3, 0)
    assert index.work(*none).points_touched.shape == (0,)


@each_structure
def test_no_points_nothing_found(build):
    index = build(np.empty((0, 3)), weights=np.empty(0)).to("cuda")
    assert lists(index.report(*BATCH)) == [[]] * 3
    assert index.count(*BATCH).tolist() == [0] * 3
    assert index.any(*BATCH).tolist() == [False] * 3
    assert index.sum(*BATCH).tolist() == [0.0] * 3
    assert index.top(BATCH[0], 3).ids.shape == (3, 0)


@each_structure
def test_ids_are_the_callers(build):
    rng = np.random.default_rng(0)
    ids = rng.permutation(FEW) * 2**40 - 2**45
    points, normals = cloud().round(1), rng.integers(-2, 3, (2, 3))
    host = build(points, ids=ids)
    index = host.to("cuda")
    got = index.report(normals, 1.0)
    assert lists(got) == [oracle.report(points, w, 1.0, ids=ids) for w in normals]
    assert index.top(normals[:1], 2).ids.tolist() == host.top(normals[:1], 2).ids.tolist()
    with pytest.raises(ValueError, match="to_scipy"):
        got.to_scipy()


def test_weights_of_one_column_give_floats():
    index = halfspace.Scan(cloud(), weights=np.ones(FEW)).to("cuda")
    assert index.sum(*QUERY) == index.count(*QUERY)
    assert isinstance(index.sum(*QUERY), float)
    assert index.sum(*BATCH).tolist() == index.count(*BATCH).tolist()


def test_polytopes(pair):
    host, index = pair
    faces = np.stack([BATCH[0], -BATCH[0], np.eye(3)])
    offsets = np.array([[-1.0, -np.inf, -2.0], [-1.0, 0.0, -2.0], [0.0, 0.0, 0.0]])
    closed = np.array([True, False, True])
    got = index.report_polytope(faces, offsets, closed=closed)
    assert lists(got) == lists(host.report_polytope(faces, offsets, closed=closed))
    counts = host.count_polytope(faces, offsets, closed=closed).tolist()
    assert index.count_polytope(faces, offsets, closed=closed).tolist() == counts
    assert index.report_polytope(np.empty((0, 3)), np.empty(0)).tolist() == list(range(FEW))
    assert index.count_polytope(np.eye(3), 0.0) == host.count_polytope(np.eye(3), 0.0)


def test_answers_on_the_device(pair):
    host, index = pair
    ids = index.report(*QUERY, on_device=True)
    assert not isinstance(ids, np.ndarray)
    assert SIMULATED or hasattr(ids, "__cuda_array_interface__")
    assert ids.copy_to_host().tolist() == host.report(*QUERY).tolist()
    report, want = index.report(*BATCH, on_device=True), host.report(*BATCH)
    assert report.indptr.copy_to_host().tolist() == want.indptr.tolist()
    assert report.indices.copy_to_host().tolist() == want.indices.tolist()
    top, best = index.top(BATCH[0], 2, on_device=True), host.top(BATCH[0], 2)
    assert top.ids.copy_to_host().tolist() == best.ids.tolist()
    assert top.scores.copy_to_host().tolist() == best.scores.tolist()
    assert index.top(BATCH[0], 0, on_device=True).ids.shape == (3, 0)


def test_queries_in_groups(pair, monkeypatch):
    """However little scratch there is, all queries are answered, in order."""
    host, index = pair
    monkeypatch.setattr(cuda_index, "SCRATCH_BYTES", 2 * index._engine.query_bytes)
    want = host.report(*BATCH)
    assert lists(index.report(*BATCH)) == lists(want)
    assert index.report(*BATCH, on_device=True).indices.copy_to_host().tolist() == (
        want.indices.tolist()
    )
    assert index.any(*BATCH).tolist() == [True, False, True]
    assert index.top(BATCH[0], 2).ids.tolist() == host.top(BATCH[0], 2).ids.tolist()


def test_max_results_is_never_a_silent_cap(pair):
    _, index = pair
    total = int(index.count(*BATCH).sum())
    assert len(index.report(*BATCH, max_results=total).indices) == total
    with pytest.raises(halfspace.ResultTooLarge, match=rf"\b{total - 1}\b"):
        index.report(*BATCH, max_results=total - 1)


def test_iter_report_streams_the_same_report(pair):
    host, index = pair
    pieces = list(index.iter_report(*BATCH, max_bytes=8))
    assert [len(piece) for piece in pieces] == [1, 1, 1]
    assert [ids for piece in pieces for ids in lists(piece)] == lists(host.report(*BATCH))


def test_streams(pair):
    host, index = pair
    stream, want = cuda.stream(), host.report(*QUERY).tolist()
    assert index.report(*QUERY, stream=stream).tolist() == want
    assert index.count(*QUERY, stream=stream) == len(want)
    assert index.report(*QUERY, stream=0).tolist() == want
    with pytest.raises(TypeError, match=r"stream: expected .*, got str"):
        index.report(*QUERY, stream="default")


def test_pickling(pair):
    host, index = pair
    copy = pickle.loads(pickle.dumps(index))
    assert type(copy) is type(index)
    assert copy.report(*QUERY).tolist() == host.report(*QUERY).tolist()


def test_threads_at_once(pair):
    host, index = pair
    normals = np.random.default_rng(0).standard_normal((4, 3))
    want = [host.report(normal, 0.5).tolist() for normal in normals]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda normal: index.report(normal, 0.5).tolist(), normals))
    assert found == want


def test_scratch_is_used_again(pair):
    _, index = pair
    scratch = index._scratches.of(0)
    index.report(*QUERY)
    room = scratch._rooms["inside"]
    index.report(*QUERY)
    assert scratch is index._scratches.of(0)
    assert scratch._rooms["inside"] is room
    index.report(np.ones((99, 3)), np.inf)
    assert scratch._rooms["inside"].size > room.size
