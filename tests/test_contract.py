"""The shape of every answer, and what an index owes its caller besides being right."""

import math
import pickle
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from numbers import Integral

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import halfspace
from halfspace import cover
from halfspace.inputs import as_queries

from . import oracle
from .sizes import LARGE, SMALL, examples
from .strategies import identifiers, problems, queries
from .structures import STRUCTURES, each_structure

QUERY = np.array([1.0, -2.0, 0.5]), 0.25
BATCH = (
    np.array([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
    np.array([0.25, 1.0, -np.inf]),
)


def cloud(n=SMALL, d=3):
    return np.random.default_rng(n).standard_normal((n, d))


def unaligned(array):
    """Equal numbers that start a byte off."""
    room = np.empty(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    room[:] = array
    return room


def lists(report):
    return [ids.tolist() for ids in report]


@each_structure
@examples(0.5)
@given(data=st.data())
def test_report_is_compressed_sparse_rows(structure, data):
    points, *batch = data.draw(problems(dims=structure.dims_to(6)))
    report = structure.build(points).report(*batch)
    m = len(batch[1])
    assert isinstance(report, halfspace.Report)
    assert report.indptr.dtype == report.indices.dtype == np.int64
    assert report.indptr.shape == (m + 1,)
    assert report.indptr[0] == 0
    assert report.indptr[-1] == len(report.indices)
    assert len(report) == m
    rows = [
        report.indices[start:stop].tolist()
        for start, stop in zip(report.indptr, report.indptr[1:], strict=False)
    ]
    assert lists(report) == lists(report[i] for i in range(m)) == rows
    assert report[-1].tolist() == rows[-1]
    with pytest.raises(IndexError):
        report[m]
    matrix = report.to_scipy()
    assert matrix.shape == (m, len(points))
    assert [sorted(matrix[[i]].nonzero()[1].tolist()) for i in range(m)] == rows


@each_structure
def test_one_query_in_one_answer_out(structure):
    index = structure.build(cloud(), weights=np.ones((SMALL, 2)))
    ids = index.report(*QUERY)
    assert isinstance(ids, np.ndarray)
    assert ids.dtype == np.int64
    assert ids.ndim == 1
    assert isinstance(index.count(*QUERY), Integral)
    assert index.count(*QUERY) == len(ids) > 0
    assert isinstance(index.any(*QUERY), bool | np.bool_)
    assert index.sum(*QUERY).tolist() == [len(ids)] * 2
    scores, best = index.top(QUERY[0], 4)
    assert scores.shape == best.shape == (4,)
    assert best.dtype == np.int64
    for shape in ([QUERY[0]], [QUERY[1]]), (QUERY[0][None], np.array([QUERY[1]])):
        assert lists(index.report(*shape)) == [ids.tolist()]


@each_structure
def test_many_queries_in_a_batch_out(structure):
    index = structure.build(cloud(), weights=np.ones((SMALL, 2)))
    assert isinstance(index.report(*BATCH), halfspace.Report)
    counts, occupied = index.count(*BATCH), index.any(*BATCH)
    assert (counts.dtype, counts.shape) == (np.int64, (3,))
    assert (occupied.dtype, occupied.shape) == (np.bool_, (3,))
    assert index.sum(*BATCH).tolist() == [[c, c] for c in counts.tolist()]
    assert index.top(BATCH[0], np.int64(4)).ids.shape == (3, 4)


@each_structure
def test_no_queries_no_answers(structure):
    index = structure.build(cloud(), weights=np.ones((SMALL, 2)))
    none = np.empty((0, 3)), np.empty(0)
    report = index.report(*none)
    assert len(report) == 0
    assert list(report) == []
    assert report.indptr.tolist() == [0]
    assert index.count(*none).shape == index.any(*none).shape == (0,)
    assert index.sum(*none).shape == (0, 2)
    assert index.top(none[0], 4).ids.shape == (0, 4)
    assert index.work(*none).points_touched.shape == (0,)
    assert lists(ids for chunk in index.iter_report(*none, max_bytes=64) for ids in chunk) == []


@each_structure
@given(data=st.data())
def test_no_points_nothing_found(structure, data):
    d = data.draw(st.sampled_from(structure.dims_to(6)))
    index = structure.build(np.empty((0, d)), weights=np.empty((0, 1)))
    normals, offsets = batch = data.draw(queries(np.empty((0, d))))
    m = len(offsets)
    assert len(index) == 0
    assert index.dim == d
    assert lists(index.report(*batch)) == [[]] * m
    assert index.count(*batch).tolist() == [0] * m
    assert index.any(*batch).tolist() == [False] * m
    assert index.sum(*batch).tolist() == [[0.0]] * m
    assert index.top(normals, 3).ids.shape == (m, 0)
    assert index.top(normals[0], 3).scores.shape == (0,)


@each_structure
@pytest.mark.parametrize("n", [LARGE - 1, LARGE + 1])
def test_a_whole_last_node_ends_with_the_points(structure, n):
    index = structure.build(cloud(n, 2))
    for offset in (-np.inf, -100.0):
        assert index.report([1.0, 0.0], offset).tolist() == list(range(n))


@each_structure
@given(data=st.data())
def test_ids_are_the_callers(structure, data):
    points, normals, offsets = data.draw(problems(dims=structure.dims_to(6)))
    ids = data.draw(identifiers(len(points)))
    index = structure.build(points, ids=ids)
    want = [oracle.report(points, w, b, ids=ids) for w, b in zip(normals, offsets, strict=True)]
    assert lists(index.report(normals, offsets)) == want
    assert index.top(normals, 5).ids.tolist() == [oracle.top(points, w, 5, ids) for w in normals]


@each_structure
@given(data=st.data())
def test_weights_of_any_width(structure, data):
    points, normals, offsets = data.draw(problems(dims=structure.dims_to(6)))
    width = data.draw(st.integers(1, 5))
    rng = np.random.default_rng(width)
    weights = rng.integers(-100, 100, (len(points), width))
    want = [oracle.sums(points, weights, *query) for query in zip(normals, offsets, strict=True)]
    for held in weights, weights.astype(np.float32), np.asfortranarray(weights.astype(float)):
        got = structure.build(points, weights=held).sum(normals, offsets)
        assert got.dtype == np.float64
        assert got.tolist() == want
    flat = structure.build(points, weights=weights[:, 0]).sum(normals, offsets)
    assert np.ravel(flat).tolist() == [row[0] for row in want]


@each_structure
@pytest.mark.parametrize("dtype", [np.float16, np.int8, np.int64])
def test_queries_are_widened_too(structure, dtype):
    index = structure.build(cloud())
    normals, offsets = np.array([[3, -1, 2], [0, 0, 1]], dtype), np.array([1, -1], dtype)
    wide = index.report(normals.astype(float), offsets.astype(float))
    assert lists(index.report(normals, offsets)) == lists(wide)
    assert lists(index.report(normals.tolist(), offsets.tolist())) == lists(wide)


def test_every_structure_says_what_it_is():
    for structure in STRUCTURES.values():
        index = structure.build(cloud())
        assert len(index) == SMALL
        assert index.dim == 3
        assert isinstance(index.nbytes, Integral)
        assert index.nbytes >= SMALL * 3 * 4
        assert type(index).__name__ in index.explain()


@pytest.mark.parametrize(
    ("name", "kind"),
    [(spelling, "Scan") for spelling in ("scan", "Scan", "SCAN")]
    + [(spelling, "KDTree") for spelling in ("kd_tree", "KD_Tree", "KDTree", "kdtree")],
)
def test_structures_by_name(name, kind):
    index = halfspace.build(cloud(), name)
    assert isinstance(index, getattr(halfspace, kind))
    assert kind in index.explain()


@given(data=st.data())
def test_build_chooses_for_itself(data):
    points, normals, offsets = data.draw(problems())
    ids, weights = data.draw(identifiers(len(points))), np.ones(len(points))
    index = halfspace.build(points, ids=ids, weights=weights, expected_count=5, memory=2**30)
    want = [oracle.report(points, w, b, ids=ids) for w, b in zip(normals, offsets, strict=True)]
    assert lists(index.report(normals, offsets)) == want
    assert np.ravel(index.sum(normals, offsets)).tolist() == [len(found) for found in want]
    assert index.explain()


@each_structure
@given(data=st.data())
def test_max_results_is_never_a_silent_cap(structure, data):
    points, *batch = data.draw(problems(dims=structure.dims_to(6)))
    index = structure.build(points)
    report = index.report(*batch)
    total = len(report.indices)
    limit = data.draw(st.integers(0, total + 2))
    if limit >= total:
        assert lists(index.report(*batch, max_results=limit)) == lists(report)
    else:
        with pytest.raises(halfspace.ResultTooLarge, match=rf"\b{limit}\b"):
            index.report(*batch, max_results=limit)
    assert issubclass(halfspace.ResultTooLarge, ValueError)


@each_structure
def test_max_results_raises_before_allocating(structure):
    index = structure.build(cloud(LARGE))
    m = 256  # of Python's memory, lists of a fixed size take up to a third of that
    batch = np.tile(QUERY[0], (m, 1)), np.full(m, -1e6)
    with pytest.raises(halfspace.ResultTooLarge):
        index.report(*batch, max_results=1)  # compiled and cached before it is measured
    tracemalloc.start()
    try:
        with pytest.raises(halfspace.ResultTooLarge):
            index.report(*batch, max_results=m * LARGE - 1)
        assert tracemalloc.get_traced_memory()[1] < m * LARGE * 8 / 2
    finally:
        tracemalloc.stop()


@each_structure
@given(data=st.data())
def test_iter_report_streams_the_same_report(structure, data):
    points, *batch = data.draw(problems(dims=structure.dims_to(6), max_m=12))
    index = structure.build(points)
    max_bytes = data.draw(st.integers(1, 8 * (len(points) + 1) * len(batch[1])))
    chunks = list(index.iter_report(*batch, max_bytes=max_bytes))
    whole = index.report(*batch)
    assert all(isinstance(chunk, halfspace.Report) for chunk in chunks)
    assert all(chunk.indices.nbytes <= max_bytes or len(chunk) == 1 for chunk in chunks)
    assert sum(len(chunk) for chunk in chunks) == len(whole)
    assert np.array_equal(np.concatenate([chunk.indices for chunk in chunks]), whole.indices)
    assert lists(ids for chunk in chunks for ids in chunk) == lists(whole)


@each_structure
@examples(0.5)
@given(data=st.data())
def test_pickling(structure, data):
    points, *batch = data.draw(problems(dims=structure.dims_to(6)))
    ids, weights = data.draw(identifiers(len(points))), np.arange(float(len(points)))
    index = structure.build(points, ids=ids, weights=weights)
    copy = pickle.loads(pickle.dumps(index))
    assert type(copy) is type(index)
    assert (len(copy), copy.dim, copy.nbytes) == (len(index), index.dim, index.nbytes)
    assert copy.explain() == index.explain()
    assert lists(copy.report(*batch)) == lists(index.report(*batch))
    assert copy.sum(*batch).tolist() == index.sum(*batch).tolist()
    assert copy.top(batch[0], 5).ids.tolist() == index.top(batch[0], 5).ids.tolist()


@each_structure
@examples(0.5)
@given(data=st.data())
def test_what_is_the_callers_and_what_is_the_indexs(structure, data):
    """Inputs are left as they were, and later changes to them or to answers do not reach in."""
    points, normals, offsets = data.draw(problems(dims=structure.dims_to(6)))
    ids, weights = data.draw(identifiers(len(points))), np.arange(float(len(points)))
    inputs = points, ids, weights, normals, offsets
    before = [array.tobytes() for array in inputs]

    def ask():
        report = index.report(normals, offsets)
        alone = [index.report(w, b) for w, b in zip(normals, offsets, strict=True)]
        return (
            report.indices,
            report.indptr,
            *alone,
            index.sum(normals, offsets),
            *index.top(normals, 9),
        )

    index = structure.build(points, ids=ids, weights=weights)
    first = ask()
    assert [array.tobytes() for array in inputs] == before
    want = [array.tolist() for array in first]
    for array in (points, ids, weights, *first):
        if array.flags.writeable:
            array[...] = 1
    assert [array.tolist() for array in ask()] == want


@each_structure
@examples(0.05)
@given(data=st.data())
def test_eight_threads_at_once(structure, data):
    points = cloud(LARGE)
    index = structure.build(points, weights=points)
    batches = [data.draw(queries(points)) for _ in range(8)]

    def ask(batch):
        report = index.report(*batch)
        best = index.top(batch[0], 20)
        return (
            lists(report),
            [index.report(w, b).tolist() for w, b in zip(*batch, strict=True)],
            index.count(*batch).tolist(),
            index.sum(*batch).tolist(),
            best.ids.tolist(),
            [counter.tolist() for counter in index.work(*batch)],
        )

    serial = [ask(batch) for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, batches * 2)) == serial * 2


@each_structure
def test_infinite_offsets_and_no_direction(structure):
    points = cloud()
    index = structure.build(points)
    everything = list(range(SMALL))
    w, zero = QUERY[0], np.zeros(3)
    for normal, offset, closed, want in (
        (w, -math.inf, False, everything),
        (w, math.inf, True, []),
        (zero, 0.0, True, everything),
        (zero, -0.0, False, []),
        (-zero, 5e-324, True, []),
        (zero, -5e-324, False, everything),
        (zero, -math.inf, True, everything),
    ):
        assert index.report(normal, offset, closed=closed).tolist() == want
        assert index.count(normal, offset, closed=closed) == len(want)
        assert index.any(normal, offset, closed=closed) == bool(want)
    assert index.top(zero, 5).ids.tolist() == [0, 1, 2, 3, 4]


@each_structure
def test_iter_report_keeps_the_queries_it_was_given(structure):
    index = structure.build(np.random.default_rng(0).standard_normal((200, 3)))
    normals, offsets = np.random.default_rng(1).standard_normal((20, 3)), np.zeros(20)
    want = index.report(normals, offsets).indices.tolist()
    pieces = index.iter_report(normals, offsets, max_bytes=1000)
    found = next(pieces).indices.tolist()
    normals[:], offsets[:] = -normals, 1.0
    assert found + [i for piece in pieces for i in piece.indices.tolist()] == want


@each_structure
def test_scores_of_top_are_right_where_terms_cancel(structure):
    big = 1.1 * 2.0**127
    points = np.array([[0.1, 0.2, 0.1], [0.1, 0.1, 0.1], [0.1, -0.1, 0.1]])
    top = structure.build(points).top([big, 1.3, -big], 3)
    assert top.ids.tolist() == [0, 1, 2]
    assert top.scores.tolist() == [0.2 * 1.3, 0.1 * 1.3, -0.1 * 1.3]


def test_covers_do_not_pile_up(monkeypatch):
    """Counting keeps a number a query, whatever its cover: all blocks share one buffer."""
    buffers = []

    def watched(*arguments, consume, **options):
        def watch(block):
            buffers.append(block.parts.base)
            return consume(block)

        return real(*arguments, consume=watch, **options)

    real = cover.covers
    monkeypatch.setattr(cover, "covers", watched)
    monkeypatch.setattr(cover, "BLOCK_PARTS", 8)
    index = halfspace.Scan(np.random.default_rng(0).standard_normal((300, 2)))
    before = halfspace.get_threads()
    halfspace.set_threads(1)
    try:
        assert index.count(np.ones((40, 2)), 0.0).shape == (40,)
    finally:
        halfspace.set_threads(before)
    assert len(buffers) > 10
    assert all(buffer is buffers[0] for buffer in buffers)


@each_structure
def test_queries_may_lie_anywhere(structure):
    """Kernels are bound to arrays of one kind, whatever comes."""
    index = structure.build(cloud())
    normals, offsets = (unaligned(array) for array in BATCH)
    assert not normals.flags.aligned
    assert all(array.flags.aligned for array in as_queries(normals, offsets, 3)[:2])
    want = lists(index.report(*BATCH))
    assert lists(index.report(normals, offsets)) == want
    assert index.report(normals[0], offsets[0]).tolist() == want[0]
