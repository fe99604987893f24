"""Dynamic on disk: round trips, checkpoints, killed processes, one writer, failing writes."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import halfspace
from halfspace import array_file, journal, log
from halfspace.change_records import decoded, encoded
from halfspace.changes import Change
from halfspace.structures import STRUCTURES as TABLE
from halfspace.tombstones import Rows

from .journal_model import (
    CHANGES,
    answers_as,
    changed,
    content,
    copy_of,
    fill,
    make,
    model_after,
    opened,
    record_ends,
)
from .sizes import JIT, SCALE, examples
from .strategies import rngs

# round trips


@pytest.mark.parametrize("structure", [*TABLE, "auto"])
@pytest.mark.parametrize("weights", [0, 1, 2])
def test_saved_and_loaded(structure, weights, tmp_path):
    rng = np.random.default_rng(weights)
    points = rng.standard_normal((70, 3)).astype(np.float32)
    shape = (70, weights)[:weights]
    columns = rng.standard_normal(shape) if weights else None
    index = halfspace.Dynamic(points, structure=structure, weights=columns, buffer=20)
    index.delete(range(0, 70, 9))
    some = None if columns is None else columns[:5]
    index.insert(points[:5], ids=[-3, 500, 501, 502, 900], weights=some)
    index.save(tmp_path / "saved")
    for options in ({}, {"mmap": False}, {"verify": False}):
        again = halfspace.load(tmp_path / "saved", **options)
        assert type(again) is halfspace.Dynamic
        assert again.explain() == index.explain()
        normals, offsets = np.eye(3), np.array([0.0, 0.5, -0.5])
        assert again.report(normals, offsets).indices.tolist() == (
            index.report(normals, offsets).indices.tolist()
        )
        if weights:
            assert again.sum(normals, offsets).tolist() == index.sum(normals, offsets).tolist()
        assert again.insert(points[:1], weights=some if some is None else some[:1]) == 901


def test_options_are_kept(tmp_path):
    index = halfspace.Dynamic(
        np.eye(3), buffer=2, queries=np.ones((4, 3)), expected_count=3, expected_queries=5
    )
    index.save(tmp_path / "saved")
    again = halfspace.load(tmp_path / "saved").state()
    assert again.options["queries"].tolist() == np.ones((4, 3)).tolist()
    assert (again.options["expected_count"], again.options["expected_queries"]) == (3, 5)
    assert again.buffer_size == 2


@examples(0.5)
@given(rng=rngs(), floats=st.sampled_from((np.float32, np.float64)))
def test_changes_as_bytes(rng, floats):
    k, n, d, w = rng.integers(0, 5, 4)
    ids = rng.integers(-(2**63), 2**63 - 1, k + n)
    rows = Rows(rng.standard_normal((n, d)).astype(floats), ids[k:], rng.standard_normal((n, w)))
    again = decoded(memoryview(encoded(Change(ids[:k], rows, bool(k)))))
    assert again.own_ids == bool(k)
    for one, other in zip((ids[:k], *rows), (again.deleted, *again.inserted), strict=True):
        assert (one.dtype, one.shape, one.tolist()) == (other.dtype, other.shape, other.tolist())


@pytest.mark.parametrize("policy", log.POLICIES)
def test_opened_again(policy, tmp_path):
    model, path = {}, tmp_path / "index"
    for number in range(2 * CHANGES):
        with opened(path, fsync=policy, background=number % 2 == 1) as index:
            assert content(index) == model
            make(index, number, model)
            model = changed(number, model)
            if number % 3 == 0:
                index.flush()
            if number % 5 == 0:
                index.checkpoint()
                assert log.read(path / journal.CHANGES).payloads == []
    with halfspace.Dynamic.open(path) as index:
        assert content(index) == model
        assert answers_as(index, model)


def test_checkpoints_come_by_themselves(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "CHECKPOINT_BYTES", 3000)
    model = fill(tmp_path / "index", 40)
    contents = log.read(tmp_path / "index" / journal.CHANGES)
    assert 0 < contents.base < 40
    with opened(tmp_path / "index") as index:
        assert content(index) == model


def test_a_checkpoint_that_fails_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "CHECKPOINT_BYTES", 0)
    with opened(tmp_path / "index") as index:
        index.insert(np.ones((40, 2)), weights=np.ones(40))

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(array_file, "write", full)
        with pytest.warns(RuntimeWarning, match="no checkpoint, the log goes on: .*No space"):
            index.insert(np.ones((400, 2)), weights=np.ones(400))
        with pytest.raises(OSError, match="No space left"):
            index.checkpoint()
    monkeypatch.undo()
    with opened(tmp_path / "index") as index:
        assert len(index) == 440


def test_crash_between_points_and_log(filled, tmp_path):
    """A checkpoint whose log was not replaced: its changes are not made twice."""
    path = copy_of(filled, tmp_path)
    before = (path / journal.CHANGES).read_bytes()
    with opened(path) as index:
        index.checkpoint()
        model = content(index)
    (path / journal.CHANGES).write_bytes(before)
    with opened(path) as index:
        assert content(index) == model
        make(index, CHANGES, model)
        model = changed(CHANGES, model)
    (path / journal.CHANGES).write_bytes(before[: record_ends(filled)[3]])  # shorter than points
    with opened(path) as index:
        assert content(index) == model_after(CHANGES)


def test_crash_while_it_is_made(tmp_path, filled):
    path = tmp_path / "index"
    path.mkdir()
    log.start(path / journal.CHANGES, 0)
    (path / f".{journal.POINTS}.0123.tmp").write_bytes(b"half")
    with opened(path) as index:
        index.insert([[1.0, 2.0]], weights=[1.0])
    assert sorted(os.listdir(path)) == ["changes.log", "lock", "points.hsf"]


# killed processes


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_killed_at_random_instants():
    """See `crash.py`; ``python -m tests.crash 300 0`` takes minutes."""
    kills = (6 if JIT else 3) * SCALE
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash", str(kills), "0"],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{kills} kills")


# one writer


def test_one_writer(filled, tmp_path):
    path = copy_of(filled, tmp_path)
    with opened(path), pytest.raises(BlockingIOError) as refused:
        opened(path)
    says = f"expected no other writer, got one: process {os.getpid()}"
    assert (refused.value.strerror, refused.value.filename) == (says, str(path))
    opened(path).close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_reads_and_does_not_write(filled, tmp_path):
    with opened(copy_of(filled, tmp_path)) as index:
        before = content(index)
        child = os.fork()
        if not child:
            code = 1
            try:
                index.insert([[0.0, 0.0]], weights=[0.0])
            except ValueError as error:
                code = 0 if "closed or forked" in str(error) and content(index) == before else 2
            os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        index.insert([[0.0, 0.0]], ids=[7], weights=[0.0])
    with opened(tmp_path / "copy") as index:
        assert len(index) == len(before) + 1


def test_a_copy_is_in_memory_alone(filled, tmp_path):
    with opened(copy_of(filled, tmp_path)) as index:
        copy = pickle.loads(pickle.dumps(index))
        copy.insert([[0.0, 0.0]], weights=[0.0])
        assert len(copy) == len(index) + 1
    with opened(tmp_path / "copy") as index:
        assert len(index) == len(copy) - 1


# what goes wrong


class Disk:
    """Stands in for a log's file: writes so many bytes, then fails."""

    def __init__(self, file, room, error):
        self._file, self._room, self._error = file, room, error

    def __getattr__(self, name):
        return getattr(self._file, name)

    def write(self, content):
        some = min(len(content), self._room)
        self._room -= some
        if not some:
            raise self._error
        return self._file.write(content[:some])


@pytest.mark.parametrize("room", [0, 10, 60])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_is_not_logged_is_not_made(filled, tmp_path, room, error):
    path = copy_of(filled, tmp_path)
    with opened(path) as index:
        before, writer = content(index), index._journal._log
        writer._file, real = Disk(writer._file, room, error), writer._file
        with pytest.raises(type(error)) as failed:
            index.insert(np.ones((3, 2)), weights=np.ones(3))
        if isinstance(error, OSError):
            assert str(failed.value) == (
                f"[Errno 28] could not write: No space left on device: '{path / journal.CHANGES}'"
            )
        assert content(index) == before
        writer._file = real
        index.insert(np.ones((1, 2)), ids=[77], weights=[1.0])
    with opened(path) as index:
        assert content(index) == before | {77: (1.0, 1.0, 1.0)}


def test_interrupted_before_it_is_seen(filled, tmp_path):
    """What nobody saw is taken off the log, or a number given twice would be there twice."""
    path = copy_of(filled, tmp_path)
    with opened(path) as index:
        kept, before = index._journal, content(index)

        def interrupt():
            raise KeyboardInterrupt

        rows = Rows(np.ones((1, 2)), np.array([5]), np.ones((1, 1)))
        with pytest.raises(KeyboardInterrupt):
            kept.commit(Change(np.empty(0, np.int64), rows, True), interrupt, lambda: False)
        index.insert(np.ones((1, 2)), ids=[5], weights=[2.0])
    with opened(path) as index:
        assert content(index) == before | {5: (1.0, 1.0, 2.0)}


@pytest.mark.parametrize("replaced", [False, True])
def test_a_checkpoint_that_is_interrupted(filled, tmp_path, monkeypatch, replaced):
    """What was appended to a log that another took the place of would be lost."""
    path, real = copy_of(filled, tmp_path), log.start

    def interrupted(*arguments):
        if replaced:
            real(*arguments)
        raise KeyboardInterrupt

    with opened(path) as index:
        before = content(index)
        monkeypatch.setattr(log, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            index.checkpoint()
        if replaced:
            with pytest.raises(ValueError, match="expected a log without doubt: open it again"):
                index.insert(np.ones((1, 2)), ids=[5], weights=[2.0])
        else:
            index.insert(np.ones((1, 2)), ids=[5], weights=[2.0])
            before |= {5: (1.0, 1.0, 2.0)}
    monkeypatch.undo()
    with opened(path) as index:
        assert content(index) == before


def test_a_log_in_doubt_is_not_written(filled, tmp_path):
    with opened(copy_of(filled, tmp_path)) as index:
        index._journal._in_doubt = True
        for change_ in (lambda: index.insert(np.ones((1, 2)), weights=[1.0]), index.checkpoint):
            with pytest.raises(ValueError, match="expected a log without doubt: open it again"):
                change_()


def test_closed(filled, tmp_path):
    index = opened(copy_of(filled, tmp_path))
    index.close()
    index.close()
    for name, ask in (
        ("insert", lambda: index.insert([[0.0, 0.0]], weights=[0.0])),
        ("delete", lambda: index.delete([])),
        ("flush", index.flush),
        ("checkpoint", index.checkpoint),
    ):
        with pytest.raises(ValueError, match=f"{name}: expected an open index, got a closed one"):
            ask()
    assert len(index) == len(model_after(CHANGES))


@pytest.mark.parametrize("name", ["checkpoint", "flush"])
def test_in_memory_there_is_nothing_to_flush(name):
    index = halfspace.Dynamic([[0.0]])
    says = f"^{name}: expected an index that Dynamic.open opened, got one in memory$"
    with pytest.raises(ValueError, match=says):
        getattr(index, name)()
