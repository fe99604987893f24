"""Points that come and go: answers, segments, instants, states."""

import itertools
import math
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import halfspace
from halfspace import publisher
from halfspace.dynamic import Dynamic
from halfspace.rebuilding import Loose, growth, next_merge
from halfspace.runs import merge_runs
from halfspace.tombstones import Rows

from . import oracle
from .datasets import cloud
from .dynamic_indices import NORMAL, everything, grown
from .sizes import JIT, examples


@pytest.mark.parametrize("d", [2, 9])
@pytest.mark.parametrize("sizes", [[1] * 40, [100, 1, 1, 1], [5, 4, 3, 2], [1, 2, 3, 50]])
def test_segments_fall_to_a_share(sizes, d):
    index = Dynamic(np.zeros((0, d)), structure="scan", buffer=1)
    for size in sizes:
        index.insert(cloud(2 * size, d))
        held = [len(segment) for segment in index.snapshot().segments]
        assert all(a >= growth(d) * b for a, b in itertools.pairwise(held))
    assert len(index) == 2 * sum(sizes)


def test_a_point_is_built_into_ever_larger_segments(monkeypatch):
    """O(log n) times: many small inserts build few points in all."""
    built = []

    def counted(points, *arguments, **options):
        built.append(len(points))
        return halfspace.build(points, *arguments, **options)

    monkeypatch.setattr(publisher, "build_as_planned", counted)
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
    assert next_merge([], 3) is None
    assert next_merge([loose(3)], 3) == (0, 1)
    index, _ = grown(1000, structure="scan", buffer=8)
    index.compact()
    (large,) = index.snapshot().segments
    assert next_merge([large], 3) is None
    assert next_merge([large, loose(333)], 3) == (1, 2)
    assert next_merge([large, loose(334)], 3) == (0, 2)
    assert next_merge([large, loose(334)], 2) == (1, 2)
    assert next_merge([large, loose(100), loose(100)], 3) == (1, 3)


def test_classes_name_structures_too():
    index = Dynamic(cloud(50, 3), structure=halfspace.KDTree, buffer=8)
    assert isinstance(index.snapshot().segments[0].index, halfspace.KDTree)
    assert "kd_tree" in index.explain()
