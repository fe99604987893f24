"""KeyboardInterrupt ends builds and queries at once, and leaves what there is as it was."""

import _thread
import threading

import numpy as np
import pytest

import halfspace
from halfspace import parallel

from .datasets import cloud


@pytest.fixture
def all_is_long(monkeypatch):
    """As if every piece of work took long."""
    monkeypatch.setattr(parallel, "LONG_NANOSECONDS", 0.001)


@pytest.fixture(autouse=True)
def _nobody_works_on():
    """What nobody waits for ends once it is let go: it would take time and memory ever after."""
    yield
    for thread in threading.enumerate():
        if thread.name == parallel.NAME:
            thread.join(60)
            assert not thread.is_alive()


class Endless:
    """Work that goes on until it is let go, and says when it has begun."""

    def __init__(self):
        self.begun, self.go, self.calls = threading.Event(), threading.Event(), 0

    def __call__(self, *arguments):
        self.calls += 1
        self.begun.set()
        assert self.go.wait(60)
        return 0

    def interrupt(self):
        """Press Ctrl-C once the work has begun."""

        def press():
            self.begun.wait(60)
            _thread.interrupt_main()

        threading.Thread(target=press).start()


@pytest.mark.usefixtures("all_is_long")
@pytest.mark.parametrize("threads", [1, 2])
def test_work_that_is_interrupted_goes_no_further(threads):
    work, before = Endless(), halfspace.get_threads()
    halfspace.set_threads(threads)
    try:
        work.interrupt()
        with pytest.raises(KeyboardInterrupt):
            parallel.interruptible(lambda: parallel.run([work] * 40), 1.0)
        work.go.set()
        parallel.run([lambda: None] * 4)  # whoever is still at it comes after this in the pool
    finally:
        halfspace.set_threads(before)
    assert work.calls <= threads + 1


@pytest.mark.usefixtures("all_is_long")
def test_work_is_interrupted_before_its_thread_is_known_to_run(monkeypatch):
    work = Endless()

    class Interrupted(threading.Thread):
        def start(self):
            super().start()
            assert work.begun.wait(60)
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading, "Thread", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            parallel.interruptible(lambda: [parallel.run([work]) for _ in range(40)], 1.0)
    work.go.set()
    for thread in threading.enumerate():
        if thread.name == parallel.NAME:
            thread.join(60)
    assert work.calls == 1


@pytest.mark.usefixtures("all_is_long")
@pytest.mark.parametrize("ask", ["report", "count", "top"])
def test_queries_are_interrupted(ask, monkeypatch):
    index, work = halfspace.Scan(cloud(100, 3)), Endless()
    arguments = (np.ones((5, 3)), 2 if ask == "top" else 0.0)
    want = getattr(index, ask)(*arguments)
    work.first = index.structure
    with monkeypatch.context() as patch:
        patch.setitem(vars(index), "_top" if ask == "top" else "_cover", work)
        work.interrupt()
        with pytest.raises(KeyboardInterrupt):
            getattr(index, ask)(*arguments)
    work.go.set()
    again = getattr(index, ask)(*arguments)
    same = again.ids if ask == "top" else again
    assert np.array_equal(list(same), list(want.ids if ask == "top" else want))


@pytest.mark.usefixtures("all_is_long")
def test_builds_are_interrupted(monkeypatch):
    work = Endless()
    monkeypatch.setattr(halfspace.Scan, "_build", work)
    work.interrupt()
    with pytest.raises(KeyboardInterrupt):
        halfspace.Scan(cloud(10, 2))
    work.go.set()


@pytest.mark.usefixtures("all_is_long")
def test_an_insert_that_is_interrupted_inserts_nothing(monkeypatch):
    index, work = halfspace.Dynamic(cloud(10, 2), structure="scan", buffer=4), Endless()
    before = index.snapshot()
    with monkeypatch.context() as patch:
        patch.setattr(halfspace.Scan, "_build", work)
        work.interrupt()
        with pytest.raises(KeyboardInterrupt):
            index.insert(cloud(9, 2))
    work.go.set()
    assert index.snapshot() is before
    assert index.insert(cloud(9, 2)).tolist() == list(range(10, 19))


@pytest.mark.usefixtures("all_is_long")
def test_what_takes_long_answers_the_same(monkeypatch):
    points, normals = cloud(500, 3), np.random.default_rng(0).standard_normal((20, 3))
    index = halfspace.KDTree(points)
    long = index.report(normals, 0.5), index.top(normals, 3), index.count(normals, 0.5)
    with pytest.raises(ValueError, match="at most 6 dimensions"):
        halfspace.ShallowCuttings(cloud(5, 7))
    monkeypatch.undo()
    index = halfspace.KDTree(points)
    assert np.array_equal(long[0].indices, index.report(normals, 0.5).indices)
    assert np.array_equal(long[1].ids, index.top(normals, 3).ids)
    assert np.array_equal(long[2], index.count(normals, 0.5))


def timing_out():
    raise TimeoutError("of its own")


@pytest.mark.usefixtures("all_is_long")
def test_a_time_out_of_the_work_is_its_own():
    with pytest.raises(TimeoutError, match="of its own"):
        parallel.interruptible(timing_out, 1.0)
