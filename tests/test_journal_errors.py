"""What Dynamic.open and load refuse of a `Dynamic`: one clear exception for each."""

import re

import numpy as np
import pytest

import halfspace
from halfspace import journal, log
from halfspace.change_records import encoded
from halfspace.changes import Change
from halfspace.tombstones import Rows

from .file_format import changed, take_apart
from .journal_model import fill, initial, opened
from .sizes import SCALE

BAD_DIRECTORIES = {
    "no points": (lambda p: None, {"points": None}, "points: expected some, if of shape (0, d), "),
    "policy": (lambda p: None, {"fsync": "maybe"}, "fsync: expected one of 'always', 'batch', "),
    "option": (lambda p: None, {"buffer": 0}, "buffer: expected at least 1, got 0"),
    "strangers": (
        lambda p: (p / "thesis.tex").write_bytes(b""),
        {},
        "{path}: expected a directory of an index, or an empty one, got one with 'thesis.tex'",
    ),
    "dimension": (fill, {"points": np.empty((0, 5))}, "points: expected shape (n, 2), got shape "),
    "no log": (
        lambda p: fill(p) and (p / journal.CHANGES).unlink(),
        {},
        "{path}/changes.log: expected a file, got none beside points.hsf",
    ),
    "no file of points": (
        lambda p: fill(p) and (p / journal.POINTS).unlink(),
        {},
        "{path}/points.hsf: expected a file, got none beside changes.log",
    ),
    "later log": (
        lambda p: fill(p) and log.start(p / journal.CHANGES, 3),
        {},
        "{path}/changes.log: expected changes from 1 on, got them from 4 on",
    ),
    "log that is none": (
        lambda p: fill(p) and (p / journal.CHANGES).write_bytes(b"hello"),
        {},
        "{path}/changes.log: expected a log, got 5 bytes b'hello'",
    ),
    "log of another version": (
        lambda p: fill(p) and patched(p / journal.CHANGES, 8, b"\x02"),
        {},
        "{path}/changes.log: expected log version 1, got 2",
    ),
    "points of another version": (
        lambda p: fill(p) and patched(p / journal.POINTS, 8, b"\x02"),
        {},
        "{path}/points.hsf: expected format version 1, got 2",
    ),
    "static points": (
        lambda p: fill(p) and halfspace.Scan(np.eye(2)).save(p / journal.POINTS),
        {},
        "{path}/points.hsf: expected points with a number of changes, got others",
    ),
    "saved points": (
        lambda p: fill(p) and halfspace.Dynamic(np.eye(2)).save(p / journal.POINTS),
        {},
        "{path}/points.hsf: expected points with a number of changes, got others",
    ),
    "other points": (
        lambda p: fill(p) and remade(p / journal.POINTS, buffer_size=0),
        {},
        "{path}/points.hsf: buffer_size: expected at least 1, got 0",
    ),
    "a change of none": (
        lambda p: relogged(p, b"no change"),
        {},
        "{path}/changes.log: change: expected at least 32 bytes, got 9",
    ),
    "a change of another kind": (
        lambda p: relogged(p, b"\x07" * 32),
        {},
        "{path}/changes.log: change: expected one of float32 or float64, got another",
    ),
    "a change too short": (
        lambda p: relogged(p, encoded(some_change(2, [9]))[:-1]),
        {},
        "{path}/changes.log: change: expected 64 bytes, got 63",
    ),
    "a change of another dimension": (
        lambda p: relogged(p, encoded(some_change(3, [9]))),
        {},
        "{path}/changes.log: change 1: expected dimension and columns (2, 1), got (3, 1)",
    ),
    "a change of what is not there": (
        lambda p: relogged(p, encoded(some_change(2, [9])._replace(deleted=np.array([4])))),
        {},
        "{path}/changes.log: change 1: ids: expected ids of points in the index, got 4",
    ),
}


def some_change(d, ids):
    rows = Rows(np.ones((len(ids), d)), np.array(ids), np.ones((len(ids), 1)))
    return Change(np.empty(0, np.int64), rows, True)


def patched(path, at, some):
    whole = bytearray(path.read_bytes())
    whole[at : at + len(some)] = some
    path.write_bytes(whole)


def remade(path, **words):
    path.write_bytes(changed(path.read_bytes(), **words))


def relogged(path, payload):
    fill(path, 0)
    writer = log.Log(path / journal.CHANGES, log.EMPTY, 0, "never")
    writer.append(payload)
    writer.close()


@pytest.mark.parametrize(
    ("prepare", "options", "says"), BAD_DIRECTORIES.values(), ids=BAD_DIRECTORIES
)
def test_bad_directories(prepare, options, says, tmp_path):
    path = tmp_path / "index"
    path.mkdir()
    prepare(path)
    options = {"points": initial()[0], "weights": np.empty(0)} | options
    says = "^" + re.escape(says.format(path=path))
    for _ in range(2):  # it is not left locked
        with pytest.raises(ValueError, match=says):
            halfspace.Dynamic.open(path, **options)


def test_bad_paths(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        opened(tmp_path / "file")
    with pytest.raises(FileNotFoundError):
        opened(tmp_path / "none" / "index")
    with pytest.raises(TypeError):
        opened(None)
    with pytest.raises(IsADirectoryError):
        halfspace.load(tmp_path)


def test_points_of_a_directory_are_not_loaded_alone(filled):
    with pytest.raises(halfspace.InvalidFile, match=r"part of a directory for Dynamic\.open"):
        halfspace.load(filled / journal.POINTS)


BAD_WORDS = {
    "segments": ({"segments": 3}, "segments: expected list, got 3"),
    "segment": ({"segments": [3]}, "segments.0: expected kind and metadata, got 3"),
    "segment kind": (
        {"segments": [{"kind": "os", "metadata": {}}]},
        "segments.0: expected one of scan, kd_tree, partition_tree, shallow_cuttings, cascade, "
        "got 'os'",
    ),
    "segment words": (
        {"segments": [{"kind": "scan", "metadata": {}}]},
        "segments.0.points: expected int, got None",
    ),
    "structure": ({"structure": "os"}, "structure: expected one that is known, got 'os'"),
    "buffer": ({"buffer_size": 0}, "buffer_size: expected at least 1, got 0"),
    "next id": ({"next_id": 2**64}, "next_id: expected 64 bits, got 18446744073709551616"),
    "next id text": ({"next_id": "1"}, "next_id: expected int, got '1'"),
    "weights": ({"weights_ndim": 0}, "weights_ndim: expected that of 1 columns, got 0"),
    "options": (
        {"options": {"x": 1}},
        "options: expected counts of expected_count, expected_queries, got {'x': 1}",
    ),
    "count": (
        {"options": {"expected_count": -1}},
        "options: expected counts of expected_count, expected_queries, got {'expected_count': -1}",
    ),
}
BAD_ARRAYS = {
    "buffer": ({"buffer.points": None}, "buffer.points: expected an array, got none"),
    "ids": ({"buffer.ids": np.arange(9)}, "buffer.ids: expected shape (n = 4), got shape (9,)"),
    "dead": ({"dead.0": np.array([12345])}, "dead.0: expected ids of its points, got others"),
    "more": ({"more": np.zeros(1)}, "more: expected no such array of dynamic, got one"),
    "in a segment": (
        {"segments.0.tiles.ranks": np.full(20, 99, "<i4")},
        "segments.0.tiles.ranks: expected 0 … 19, got 99 … 99",
    ),
    "other columns": (
        {"buffer.weights": np.zeros((4, 2))},
        "weights_ndim: expected that of 2 columns, got 1",
    ),
    "other dimension": (
        {"buffer.points": np.zeros((4, 3))},
        "segments.0: expected dimensions and columns (3, 1), got (2, 1)",
    ),
}


@pytest.mark.parametrize("waiting", [None, True, 3])
def test_what_files_say_of_waiting_segments(waiting, tmp_path):
    """Files of before say nothing; anything but a bool is refused."""
    path = tmp_path / "index"
    halfspace.Dynamic(np.zeros((20, 2)), structure="scan", buffer=10).save(path)
    (segment,) = take_apart(path.read_bytes()).header["metadata"]["segments"]
    assert segment.pop("waiting") is False
    said = segment if waiting is None else segment | {"waiting": waiting}
    path.write_bytes(changed(path.read_bytes(), segments=[said]))
    if waiting == 3:
        with pytest.raises(halfspace.InvalidFile, match=r"segments\.0\.waiting: expected bool"):
            halfspace.load(path)
    else:
        (segment,) = halfspace.load(path).snapshot().segments
        assert segment.stale == bool(waiting)


@pytest.mark.parametrize(
    ("words", "arrays", "says"),
    [
        *((words, {}, says) for words, says in BAD_WORDS.values()),
        *(({}, arrays, says) for arrays, says in BAD_ARRAYS.values()),
    ],
    ids=[*BAD_WORDS, *(f"array {name}" for name in BAD_ARRAYS)],
)
def test_bad_files(words, arrays, says, tmp_path):
    points = np.random.default_rng(0).standard_normal((20, 2))
    index = halfspace.Dynamic(points, structure="scan", buffer=10, weights=np.ones(20))
    index.delete([3, 4])
    index.insert(points[:4], weights=np.ones(4))
    path = tmp_path / "bad"
    index.save(path)
    path.write_bytes(changed(path.read_bytes(), arrays=arrays, **words))
    with pytest.raises(halfspace.InvalidFile) as refused:
        halfspace.load(path)
    assert str(refused.value) == f"{path}: {says}"


def test_damage_to_a_saved_dynamic(tmp_path):
    index = halfspace.Dynamic(np.random.default_rng(0).standard_normal((40, 2)), buffer=10)
    index.delete([3, 4])
    path, rng = tmp_path / "damaged", np.random.default_rng(1)
    index.save(path)
    whole = path.read_bytes()
    for at in np.linspace(0, len(whole) - 1, 100 * SCALE).astype(int):
        damaged = bytearray(whole)
        damaged[at] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        with pytest.raises(halfspace.InvalidFile, match="damaged: "):
            halfspace.load(path)
