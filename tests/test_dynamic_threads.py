"""Points that come and go beside other threads and processes, and built in the background."""

import multiprocessing
import pickle
import threading

import numpy as np
import pytest

import halfspace
from halfspace import publisher
from halfspace.dynamic import Dynamic

from . import oracle
from .datasets import cloud
from .dynamic_indices import NORMAL, everything, grown
from .sizes import JIT


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


def held_up(monkeypatch):
    """Have builds of segments say that they start, and wait to be told to go on."""
    started, go = threading.Event(), threading.Event()

    def slow(*arguments, **options):
        started.set()
        assert go.wait(60)
        return halfspace.build(*arguments, **options)

    monkeypatch.setattr(publisher, "build_as_planned", slow)
    return started, go


def test_what_dies_while_a_segment_is_built_stays_dead(monkeypatch):
    started, go = held_up(monkeypatch)
    index = Dynamic(np.empty((0, 2)), structure="kd_tree", buffer=16, background=True)
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
    started, go = held_up(monkeypatch)
    index = Dynamic(np.empty((0, 2)), structure="kd_tree", buffer=16, background=True)
    index.insert(cloud(70, 2))
    assert started.wait(60)
    index.delete(np.arange(70))
    go.set()
    index.close()
    assert index.snapshot().segments == ()
    assert everything(index) == []


def kinds(index):
    return [(type(s.index).__name__, s.stale) for s in index.snapshot().segments]


def test_what_waits_to_be_built_still_does_after_it_was_kept(monkeypatch, tmp_path):
    """In a file, in a pickle and in a state; a change, `compact` or a thread then builds it."""
    _, go = held_up(monkeypatch)
    index = Dynamic(np.empty((0, 2)), structure="kd_tree", buffer=16, background=True)
    index.insert(cloud(60, 2))
    assert kinds(index) == [("Scan", True)]
    index.save(tmp_path / "saved")
    kept = [
        halfspace.load(tmp_path / "saved"),
        Dynamic.from_state(index.state()),
        Dynamic.from_state(index.state(), background=True),
        pickle.loads(pickle.dumps(index)),
    ]
    go.set()
    assert kinds(kept[0]) == kinds(kept[1]) == [("Scan", True)]
    kept[0].compact()
    kept[1].insert(cloud(1, 2))
    for again in kept[2:]:
        again._background.wait()
    assert all(kinds(again) == [("KDTree", False)] for again in kept)
    assert [len(again) for again in kept] == [60, 61, 60, 60]
    for each in (index, *kept):
        each.close()


def failing(*arguments, **options):
    raise MemoryError("no room")


def test_failures_in_the_background_are_raised_by_the_next_change(monkeypatch):
    index = Dynamic(np.empty((0, 2)), structure="kd_tree", buffer=16, background=True)
    monkeypatch.setattr(publisher, "build_as_planned", failing)
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
    monkeypatch.setattr(publisher, "build_as_planned", failing)
    index.insert(cloud(40, 2))
    index._background.wait()
    with pytest.raises(RuntimeError, match="no room"):
        index.close()
    index.close()
    assert len(index) == 40


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
