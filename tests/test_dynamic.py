"""Points that come and go: answers, instants, failures."""

import itertools
import math
import multiprocessing
import pickle
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

import halfspace
from halfspace import dynamic, levels
from halfspace.dynamic import Dynamic
from halfspace.rebuilding import GROWTH, Loose, next_merge
from halfspace.runs import merge_runs
from halfspace.tombstones import Rows

from . import oracle
from .datasets import cloud
from .dynamic_model import DynamicMachine
from .sizes import JIT, examples

NORMAL = np.array([1.0, 2.0, -1.0])


def everything(index):
    return index.report(np.zeros(index.dim), 0.0).tolist()


def grown(n=600, d=3, step=50, **options):
    """An index that points were inserted into step by step, and the points."""
    points = cloud(n, d)
    index = Dynamic(points[:0], **({"structure": "kd_tree", "buffer": 32} | options))
    for first in range(0, n, step):
        index.insert(points[first : first + step])
    return index, points


# A machine of each structure. The long form, by hand:
# python -m pytest tests/test_dynamic.py -k machine --hypothesis-profile=thorough


@pytest.mark.parametrize("background", [False, True], ids=["", "background"])
@pytest.mark.parametrize(
    "structure", ["kd_tree", "scan", "partition_tree", "cascade", "shallow_cuttings", "auto"]
)
def test_machine(structure, background, monkeypatch):
    if background and structure not in ("kd_tree", "auto"):
        pytest.skip("what is in the segments is all the same to the thread")
    if structure == "shallow_cuttings" and JIT:  # levels even for few points
        monkeypatch.setattr(levels, "COARSEST_SHARE", 4)
        monkeypatch.setattr(levels, "FINEST_DEPTH", 2)
        monkeypatch.setattr(levels, "POINTS_PER_CONE", dict.fromkeys(range(1, 7), 0.05))
    dims = (2, 3) if structure == "shallow_cuttings" else (2, 3, 8)
    kind = type(
        "Machine",
        (DynamicMachine,),
        {"structure": structure, "background": background, "dims": dims},
    )
    most = settings().max_examples
    thorough = most >= 500
    run_state_machine_as_test(
        kind,
        settings=settings(
            max_examples=most if thorough else math.ceil(0.2 * most),
            stateful_step_count=50 if thorough else 20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("sizes", [[1] * 40, [100, 1, 1, 1], [5, 4, 3, 2], [1, 2, 3, 50]])
def test_segments_fall_to_a_third(sizes):
    index = Dynamic(np.zeros((0, 2)), structure="scan", buffer=1)
    for size in sizes:
        index.insert(cloud(2 * size, 2))
        held = [len(segment) for segment in index.snapshot().segments]
        assert all(a >= GROWTH * b for a, b in itertools.pairwise(held))
    assert len(index) == 2 * sum(sizes)


def test_a_point_is_built_into_ever_larger_segments(monkeypatch):
    """O(log n) times: many small inserts build few points in all."""
    built = []

    def counted(points, *arguments, **options):
        built.append(len(points))
        return halfspace.build(points, *arguments, **options)

    monkeypatch.setattr(dynamic, "build", counted)
    n, size = 2000, 16
    grown(n, 2, 8, buffer=size, structure="scan")
    assert sum(built) <= n * 3 * math.log2(n / size)


def test_a_segment_with_many_dead_is_built_anew():
    index, points = grown()
    index.compact()
    for first in range(0, 210, 10):
        index.delete(np.arange(first, first + 10))
        (segment,) = index.snapshot().segments
        assert 3 * segment.dead <= len(points)
    assert (len(segment), segment.dead) == (390, 0)
    assert everything(index) == list(range(210, 600))


def test_nothing_is_left_of_what_died():
    index, points = grown()
    index.delete(np.arange(600))
    assert index.snapshot().segments == ()
    assert (len(index), everything(index)) == (0, [])
    assert index.top(NORMAL, 3).ids.tolist() == []
    assert index.insert(points[:2]).tolist() == [600, 601]
    index.compact()
    assert everything(index) == [600, 601]


@pytest.mark.parametrize("structure", ["scan", "kd_tree", "cascade"])
def test_the_best_may_be_taken_one_by_one(structure):
    """As from a priority queue: all that is dead lies where the best would be."""
    n = 500 if JIT else 100
    points = np.round(cloud(n, 3) * 4)
    index = Dynamic(points, structure=structure, buffer=8)
    want = oracle.top(points, NORMAL, n // 8)
    for best in want:
        assert index.top(NORMAL, 1).ids.tolist() == [best]
        assert index.any(NORMAL, float(points[best] @ NORMAL))
        index.delete([best])
        assert not index.any(NORMAL, math.nextafter(float(points[best] @ NORMAL), math.inf))
    assert index.top(NORMAL, n).ids.tolist() == oracle.top(points, NORMAL, n)[n // 8 :]


def test_dead_points_of_whole_nodes_count_for_nothing():
    n = 5000 if JIT else 400
    points, weights = cloud(n, 2), np.random.default_rng(0).integers(-9, 9, (n, 2)).astype(float)
    index = Dynamic(points, structure="kd_tree", weights=weights, buffer=8)
    left = np.ones(n, bool)
    for first in range(3):
        dead = np.arange(first, n, 11)
        index.delete(dead)
        left[dead] = False
        inside = left & (points @ np.array([1.0, 0.5]) >= -1.0)
        query = np.array([1.0, 0.5]), -1.0
        assert index.report(*query).tolist() == np.flatnonzero(inside).tolist()
        assert index.count(*query) == inside.sum()
        assert index.sum(*query).tolist() == weights[inside].sum(axis=0).tolist()
        assert index.count(np.zeros(2), 0.0) == left.sum()


def test_float64_that_float32_holds_stay_narrow_and_others_widen():
    index = Dynamic(np.ones((3, 2), np.float32), buffer=4)
    index.insert([[1.5, 2.5]])
    assert index.snapshot().buffer.dtype == np.float32
    index.insert([[0.1, 1e300]])
    assert index.report([1.0, 0.0], 0.1).tolist() == [0, 1, 2, 3, 4]
    assert index.report([1.0, 0.0], math.nextafter(0.1, 1.0)).tolist() == [0, 1, 2, 3]
    assert index.top([0.0, 1.0], 1).scores.tolist() == [1e300]
    index.compact()
    assert index.top([0.0, 1.0], 1).scores.tolist() == [1e300]


def test_an_empty_index_takes_the_floats_that_come():
    index = Dynamic(np.empty((0, 3)))
    index.insert(cloud(5, 3))
    assert index.snapshot().buffer.dtype == np.float32


def test_a_snapshot_stays_as_it_was():
    index, points = grown(300)
    then, want = index.snapshot(), points.copy()
    index.update(np.arange(0, 300, 2), -points[::2])
    index.delete(np.arange(1, 300, 2))
    index.insert(points)
    index.compact()
    assert then.report(NORMAL, 0.5).tolist() == oracle.report(want, NORMAL, 0.5)
    assert then.top(NORMAL, 9).ids.tolist() == oracle.top(want, NORMAL, 9)
    assert isinstance(then, halfspace.Index)
    assert "segment" in then.explain()


def test_iter_report_is_of_one_instant():
    index, points = grown(200)
    normals = np.tile(NORMAL, (6, 1))
    pieces = index.iter_report(normals, np.zeros(6), max_bytes=8)
    want = oracle.report(points, NORMAL, 0.0)
    assert next(pieces)[0].tolist() == want
    index.delete(want)
    assert all(piece[0].tolist() == want for piece in pieces)


def test_readers_never_see_half_a_batch():
    """Every batch moves all points to one side or to the other."""
    n = 300 if JIT else 80
    points = abs(cloud(n, 2)) + 1
    index = Dynamic(points, structure="kd_tree", buffer=16)
    stop, halves, asked = threading.Event(), [], [0]

    def read():
        while not stop.is_set():
            counts = index.count(np.array([[1.0, 0.0], [-1.0, 0.0]]), 0.0)
            ids = index.report([1.0, 0.0], 0.0)
            asked[0] += 1
            if sorted(counts.tolist()) != [0, n] or len(ids) not in (0, n):
                halves.append((counts, len(ids)))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for turn in range(40 if JIT else 12):
        index.update(np.arange(n), points * (-1) ** (turn + 1))
    stop.set()
    for reader in readers:
        reader.join()
    assert not halves
    assert asked[0] > 0


@pytest.mark.parametrize("background", [False, True])
def test_writers_take_turns(background):
    n = 20
    with Dynamic(np.empty((0, 2)), structure="scan", buffer=64, background=background) as index:
        given, threads = [], []

        def write(seed):
            for _ in range(n):
                ids = index.insert(cloud(5, 2, seed=seed))
                index.delete(ids[:2])
                given.extend(ids[2:].tolist())

        threads = [threading.Thread(target=write, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(given) == everything(index)
        assert len(set(given)) == 4 * n * 3


def test_background_builds_what_waits():
    index, points = grown(background=True)
    index._background.wait()
    segments = index.snapshot().segments
    assert not any(segment.stale for segment in segments)
    assert all(isinstance(segment.index, halfspace.KDTree) for segment in segments)
    index.compact()
    (segment,) = index.snapshot().segments
    assert len(segment) == len(points)
    index.close()
    assert index.report(NORMAL, 1.0).tolist() == oracle.report(points, NORMAL, 1.0)


def test_what_dies_while_a_segment_is_built_stays_dead(monkeypatch):
    started, go = threading.Event(), threading.Event()

    def slow(*arguments, **options):
        started.set()
        assert go.wait(60)
        return halfspace.build(*arguments, **options)

    index = Dynamic(np.empty((0, 2)), structure="kd_tree", buffer=16, background=True)
    monkeypatch.setattr(dynamic, "build", slow)
    points = cloud(90, 2)
    index.insert(points[:70])
    assert started.wait(60)
    index.delete(np.arange(0, 70, 3))
    index.update([1], [[50.0, 50.0]])
    index.insert(points[70:])
    assert index.count([1.0, 0.0], 40.0) == 1
    go.set()
    index._background.wait()
    left = [i for i in range(90) if i % 3 or i >= 70]
    assert everything(index) == left
    assert index.report([1.0, 0.0], 40.0).tolist() == [1]
    index.close()


def test_what_dies_wholly_while_it_is_built_is_gone(monkeypatch):
    started, go = threading.Event(), threading.Event()

    def slow(*arguments, **options):
        started.set()
        assert go.wait(60)
        return halfspace.build(*arguments, **options)

    index = Dynamic(np.empty((0, 2)), structure="kd_tree", buffer=16, background=True)
    monkeypatch.setattr(dynamic, "build", slow)
    index.insert(cloud(70, 2))
    assert started.wait(60)
    index.delete(np.arange(70))
    go.set()
    index.close()
    assert index.snapshot().segments == ()
    assert everything(index) == []


def failing(*arguments, **options):
    raise MemoryError("no room")


def test_failures_in_the_background_are_raised_by_the_next_change(monkeypatch):
    index = Dynamic(np.empty((0, 2)), structure="kd_tree", buffer=16, background=True)
    monkeypatch.setattr(dynamic, "build", failing)
    index.insert(cloud(40, 2))
    index._background.wait()
    with pytest.raises(RuntimeError, match="rebuild in the background failed: no room") as caught:
        index.insert(cloud(1, 2))
    assert isinstance(caught.value.__cause__, MemoryError)
    monkeypatch.undo()
    assert everything(index) == list(range(40))
    index.delete([3])
    index._background.wait()
    index.close()
    assert len(index) == 39


def test_failures_in_the_background_are_raised_by_close(monkeypatch):
    index = Dynamic(np.empty((0, 2)), structure="kd_tree", buffer=16, background=True)
    monkeypatch.setattr(dynamic, "build", failing)
    index.insert(cloud(40, 2))
    index._background.wait()
    with pytest.raises(RuntimeError, match="no room"):
        index.close()
    index.close()
    assert len(index) == 40


@pytest.mark.parametrize("failure", [MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize("change", ["insert", "delete", "update", "compact"])
def test_a_change_that_fails_changes_nothing(change, failure, monkeypatch):
    index, points = grown(200)
    index.compact()
    before = index.snapshot()

    def broken(*arguments, **options):
        raise failure

    monkeypatch.setattr(dynamic, "build", broken)
    if change == "compact":
        index.insert(points[:1])
        before = index.snapshot()
    arguments = {
        "insert": (points,),
        "delete": (np.arange(100),),
        "update": (np.arange(150), points[:150]),
        "compact": (),
    }[change]
    with pytest.raises(failure):
        getattr(index, change)(*arguments)
    assert index.snapshot() is before
    monkeypatch.undo()
    getattr(index, change)(*arguments)
    assert index.snapshot() is not before


def test_the_thread_ends_with_the_index():
    index = Dynamic(cloud(5, 2), structure="scan", buffer=2, background=True)
    index.insert(cloud(9, 2))
    index._background.wait()
    thread = index._background._thread
    assert thread.is_alive()
    del index
    thread.join(60)
    assert not thread.is_alive()


def _ask_and_change(index, answers):
    index.insert(cloud(40, 3))
    index.compact()
    answers.put(everything(index))
    index.close()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("background", [False, True])
def test_a_forked_child_goes_on_by_itself(background):
    index, _ = grown(100, background=background)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    with index._changing:  # as another thread may, when a process forks
        child = context.Process(target=_ask_and_change, args=(index, answers))
        child.start()
    assert answers.get(timeout=120) == list(range(140))
    child.join()
    assert everything(index) == list(range(100))
    index.close()


@pytest.mark.parametrize("background", [False, True])
def test_state_is_all_there_is(background):
    index, points = grown(300, queries=np.eye(3), expected_count=5, background=background)
    index.delete(np.arange(0, 300, 7))
    index.update([1, 2], points[:2] + 9)
    state = index.state()
    assert all(isinstance(segment, halfspace.Index) for segment in state.segments)
    again = Dynamic.from_state(state)
    assert everything(again) == everything(index)
    assert again.report(NORMAL, 1.0).tolist() == index.report(NORMAL, 1.0).tolist()
    assert again.top(NORMAL, 30).ids.tolist() == index.top(NORMAL, 30).ids.tolist()
    assert again.insert(points[:1]).tolist() == [300]
    index.close()
    with pytest.raises(ValueError, match="closed"):
        index.insert(points)
    assert len(again) == len(index) + 1


def test_changes_are_told_before_they_are_published():
    """Whoever keeps a log of changes can replay it."""
    index, points = grown(100)
    told, copy = [], Dynamic.from_state(index.state())

    def commit(change, publish, is_published):
        told.append(change)
        assert index.snapshot() is before
        assert not is_published()
        publish()
        assert is_published()

    index._journal = SimpleNamespace(commit=commit, checkpoint_if_due=lambda state: None)
    for change in (
        lambda: index.insert(points[:40]),
        lambda: index.insert(points[:3], ids=[1000, -5, 2000]),
        lambda: index.delete([0, 5, 1000]),
        lambda: index.update([7, 101], points[:2]),
    ):
        before = index.snapshot()
        change()
    assert len(told) == 4
    for change in told:
        copy.replay(change)
    assert everything(copy) == everything(index)
    assert copy.report(NORMAL, 0.3).tolist() == index.report(NORMAL, 0.3).tolist()

    def refuse(*_):
        raise OSError("disk full")

    index._journal, before = SimpleNamespace(commit=refuse), index.snapshot()
    with pytest.raises(OSError, match="disk full"):
        index.delete([7])
    assert index.snapshot() is before
    index._journal = None
    assert copy.insert(points[:1]).tolist() == index.insert(points[:1]).tolist() == [2001]


@pytest.mark.parametrize("background", [False, True])
def test_pickles(background):
    index, points = grown(150, background=background)
    index.delete([3, 4])
    copy = pickle.loads(pickle.dumps(index))
    assert copy.insert(points[:1]).tolist() == [150]
    assert everything(index) == [i for i in range(150) if i not in (3, 4)]
    copy.close()
    index.close()
    closed = pickle.loads(pickle.dumps(copy))
    with pytest.raises(ValueError, match="closed"):
        closed.delete([0])


@examples(1.0)
@given(data=st.data())
def test_runs_are_merged(data):
    runs = data.draw(st.integers(1, 9))
    pieces = st.lists(st.sets(st.integers(-50, 50)), min_size=runs, max_size=runs)
    groups = data.draw(st.lists(pieces))
    pieces = [sorted(piece) for group in groups for piece in group]
    ids = np.array([i for piece in pieces for i in piece], np.int64)
    ends = np.cumsum([0, *map(len, pieces)])
    merge_runs(ids, ends, runs)
    for g, group in enumerate(groups):
        got = ids[ends[g * runs] : ends[(g + 1) * runs]].tolist()
        assert got == sorted(i for piece in group for i in piece)


def loose(n):
    return Loose(Rows(np.zeros((n, 1)), np.arange(n), np.zeros((n, 0))))


def test_what_is_merged_next():
    assert next_merge([]) is None
    assert next_merge([loose(3)]) == (0, 1)
    index, _ = grown(1000, structure="scan", buffer=8)
    index.compact()
    (large,) = index.snapshot().segments
    assert next_merge([large]) is None
    assert next_merge([large, loose(333)]) == (1, 2)
    assert next_merge([large, loose(334)]) == (0, 2)
    assert next_merge([large, loose(100), loose(100)]) == (1, 3)


# What comes in wrong.

PLAIN, WEIGHTED, FLAT = "plain", "weighted", "flat"


def index_of(kind):
    points = np.arange(12.0).reshape(4, 3)
    weights = {PLAIN: None, WEIGHTED: np.ones((4, 2)), FLAT: np.ones(4)}[kind]
    index = Dynamic(points, ids=[10, 11, 12, 13], weights=weights)
    index.delete([12])
    return index


TWO = np.ones((2, 3))
BAD = [
    # kind, method, arguments, exception, message
    (PLAIN, "insert", (np.ones(3),), ValueError,
     "points: expected shape (n, d) with d >= 1, got shape (3,)"),
    (PLAIN, "insert", (np.ones((2, 4)),), ValueError,
     "points: expected shape (n, 3), got shape (2, 4)"),
    (PLAIN, "insert", (np.ones((2, 0)),), ValueError,
     "points: expected shape (n, d) with d >= 1, got shape (2, 0)"),
    (PLAIN, "insert", ([[1.0, np.nan, 0.0]],), ValueError,
     "points: expected finite numbers, got nan in row 0"),
    (PLAIN, "insert", ([[0, 0, 0], [1.0, 0.0, -np.inf]],), ValueError,
     "points: expected finite numbers, got -inf in row 1"),
    (PLAIN, "insert", ([["a", "b", "c"]],), TypeError,
     "points: expected floats or integers of at most 64 bits, got <U1"),
    (PLAIN, "insert", (np.ones((1, 3), complex),), TypeError,
     "points: expected floats or integers of at most 64 bits, got complex128"),
    (PLAIN, "insert", (np.array([[2**53 + 1, 0, 0]]),), ValueError,
     "points: expected integers that float64 holds, got 9007199254740993 at [0, 0]"),
    (PLAIN, "insert", (np.ma.masked_array(TWO),), TypeError,
     "points: expected an array without a mask, got a masked one"),
    (PLAIN, "insert", (TWO, [1]), ValueError, "ids: expected shape (2,), got shape (1,)"),
    (PLAIN, "insert", (TWO, [[1, 2]]), ValueError, "ids: expected shape (2,), got shape (1, 2)"),
    (PLAIN, "insert", (TWO, [1.0, 2.0]), TypeError, "ids: expected integers, got float64"),
    (PLAIN, "insert", (TWO, [True, False]), TypeError, "ids: expected integers, got bool"),
    (PLAIN, "insert", (TWO, [5, 5]), ValueError,
     "ids: expected distinct integers, got 5 more than once"),
    (PLAIN, "insert", (TWO, [5, 11]), ValueError,
     "ids: expected ids of no point in the index, got 11"),
    (PLAIN, "insert", (TWO, np.array([2**63, 1], np.uint64)), ValueError,
     "ids: expected 64-bit signed integers, got 9223372036854775808"),
    (PLAIN, "insert", (TWO, None, [1.0, 2.0]), ValueError,
     "weights: expected none, as the index was built without, got some"),
    (WEIGHTED, "insert", (TWO,), ValueError,
     "weights: expected shape (2, 2), as the index was built with, got none"),
    (FLAT, "insert", (TWO,), ValueError,
     "weights: expected shape (2,), as the index was built with, got none"),
    (WEIGHTED, "insert", (TWO, None, [1.0, 2.0]), ValueError,
     "weights: expected shape (2, 2), got shape (2,)"),
    (WEIGHTED, "insert", (TWO, None, np.ones((2, 3))), ValueError,
     "weights: expected shape (2, 2), got shape (2, 3)"),
    (FLAT, "insert", (TWO, None, np.ones((2, 1))), ValueError,
     "weights: expected shape (2,), got shape (2, 1)"),
    (FLAT, "insert", (TWO, None, np.ones(3)), ValueError,
     "weights: expected shape (2,) or (2, w), got shape (3,)"),
    (FLAT, "insert", (TWO, None, [1.0, np.inf]), ValueError,
     "weights: expected finite numbers, got inf in row 1"),
    (FLAT, "insert", (TWO, None, ["1", "2"]), TypeError,
     "weights: expected floats or integers of at most 64 bits, got <U1"),
    (PLAIN, "delete", ([99],), ValueError, "ids: expected ids of points in the index, got 99"),
    (PLAIN, "delete", ([10, 12],), ValueError, "ids: expected ids of points in the index, got 12"),
    (PLAIN, "delete", ([10, 10],), ValueError,
     "ids: expected distinct integers, got 10 more than once"),
    (PLAIN, "delete", (10,), ValueError, "ids: expected shape (1,), got shape ()"),
    (PLAIN, "delete", ([[10], [11]],), ValueError, "ids: expected shape (2,), got shape (2, 1)"),
    (PLAIN, "delete", ([10.0],), TypeError, "ids: expected integers, got float64"),
    (PLAIN, "delete", (["10"],), TypeError, "ids: expected integers, got <U2"),
    (PLAIN, "delete", (None,), TypeError, "ids: expected integers, got object"),
    (PLAIN, "update", ([10, 99], TWO), ValueError,
     "ids: expected ids of points in the index, got 99"),
    (PLAIN, "update", ([12, 10], TWO), ValueError,
     "ids: expected ids of points in the index, got 12"),
    (PLAIN, "update", ([10], TWO), ValueError, "ids: expected shape (2,), got shape (1,)"),
    (PLAIN, "update", ([10, 10], TWO), ValueError,
     "ids: expected distinct integers, got 10 more than once"),
    (PLAIN, "update", ([10, 11], TWO * np.nan), ValueError,
     "points: expected finite numbers, got nan in row 0"),
    (PLAIN, "update", ([10, 11], TWO, [1.0, 2.0]), ValueError,
     "weights: expected none, as the index was built without, got some"),
    (WEIGHTED, "update", ([10, 11], TWO, [1.0, 2.0]), ValueError,
     "weights: expected shape (2, 2), got shape (2,)"),
    (PLAIN, "sum", (np.ones(3), 0.0), ValueError,
     "sum: expected an index built with weights=, got one without"),
    (PLAIN, "report", (np.ones(2), 0.0), ValueError,
     "normals: expected shape (3,) or (m, 3), got shape (2,)"),
    (PLAIN, "report", (np.ones(3), np.nan), ValueError,
     "offsets: expected numbers, got nan in row 0"),
    (PLAIN, "top", (np.ones(3), -1), ValueError, "k: expected at least 0, got -1"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "method", "arguments", "error", "message"),
    BAD,
    ids=[f"{row[1]}-{i}" for i, row in enumerate(BAD)],
)
def test_bad_input_changes_nothing(kind, method, arguments, error, message):
    index = index_of(kind)
    before = index.snapshot()
    with pytest.raises(error) as caught:
        getattr(index, method)(*arguments)
    assert str(caught.value) == message
    assert index.snapshot() is before


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"structure": "nonsense"}, ValueError,
         "structure: expected one of auto, scan, kd_tree, partition_tree, shallow_cuttings, "
         "cascade, got 'nonsense'"),
        ({"structure": Dynamic}, ValueError,
         "structure: expected one of auto, scan, kd_tree, partition_tree, shallow_cuttings, "
         "cascade, got <class 'halfspace.dynamic.Dynamic'>"),
        ({"buffer": 0}, ValueError, "buffer: expected at least 1, got 0"),
        ({"buffer": 2.5}, TypeError, "buffer: expected an integer, got float"),
        ({"queries": np.ones(4)}, ValueError,
         "queries: expected shape (3,) or (m, 3), got shape (4,)"),
        ({"expected_count": -1}, ValueError, "expected_count: expected at least 0, got -1"),
        ({"expected_queries": "9"}, TypeError, "expected_queries: expected an integer, got str"),
        ({"ids": [1, 1]}, ValueError, "ids: expected distinct integers, got 1 more than once"),
        ({"weights": [1.0]}, ValueError,
         "weights: expected shape (2,) or (2, w), got shape (1,)"),
    ],
)  # fmt: skip
def test_bad_options(options, error, message):
    with pytest.raises(error) as caught:
        Dynamic(TWO, **options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index.insert(TWO),
        lambda index: index.delete([10]),
        lambda index: index.update([10, 11], TWO),
        lambda index: index.compact(),
    ],
    ids=["insert", "delete", "update", "compact"],
)
def test_a_closed_index_is_read_only(change, request):
    index = index_of(PLAIN)
    index.close()
    name = request.node.callspec.id
    with pytest.raises(ValueError, match=f"{name}: expected an open index, got a closed one"):
        change(index)
    assert everything(index) == [10, 11, 13]


def test_ids_run_out():
    index = Dynamic(np.ones((1, 1)), ids=[2**63 - 3])
    assert index.insert([[2.0]]).tolist() == [2**63 - 2]
    message = (
        "ids: expected some, as the largest there was, 9223372036854775806, leaves no room for "
        "2 more, got none"
    )
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        index.insert([[3.0], [4.0]])
    assert str(caught.value) == message
    assert index.insert([[3.0]]).tolist() == [2**63 - 1]
    assert index.insert([[4.0]], ids=[-1]).tolist() == [-1]
    assert everything(index) == [-1, 2**63 - 3, 2**63 - 2, 2**63 - 1]


def test_classes_name_structures_too():
    index = Dynamic(cloud(50, 3), structure=halfspace.KDTree, buffer=8)
    assert isinstance(index.snapshot().segments[0].index, halfspace.KDTree)
    assert "kd_tree" in index.explain()


def test_no_ids_of_another_kind_are_no_ids():
    index = Dynamic(cloud(5, 2))
    for ids in (np.zeros(0, complex), np.zeros(0, "U1"), np.zeros(0, bool)):
        with pytest.raises(TypeError, match="ids: expected integers, got"):
            index.delete(ids)
    index.delete([])
    assert len(index) == 5
