"""The command line: every example of its page, and what the page does not show."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import halfspace
from halfspace import point_files
from halfspace.shell import bench, exits, streaming
from halfspace.shell.commands import main
from halfspace.shell.exits import run

from . import transcript
from .datasets import cloud
from .sizes import JIT

pytest.importorskip("pyarrow")

PAGE = Path(__file__).parents[1] / "docs" / "shell.md"
EXAMPLES = transcript.examples(PAGE)
N = 3000 if JIT else 200


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    return transcript.play(PAGE, tmp_path_factory.mktemp("shell"))


@pytest.mark.parametrize("number", range(len(EXAMPLES)), ids=lambda n: f"line {EXAMPLES[n].line}")
def test_examples_of_the_page(played, number):
    assert played[number] == EXAMPLES[number].expected, EXAMPLES[number].command


def test_there_are_examples():
    assert sum(e.command.startswith(transcript.PROGRAM) for e in EXAMPLES) >= 12


@pytest.fixture
def ask(capsys):
    """Run a command; the exit code and what it printed."""

    def call(*arguments):
        code = run(main, [str(argument) for argument in arguments])
        return code, capsys.readouterr()

    return call


@pytest.fixture
def points():
    return cloud(N, 3).astype(np.float32)


def write(kind, directory, points):
    """The points in a file of some kind, and the options to read it with."""
    path = directory / f"points.{kind}"
    if kind == "npy":
        np.save(path, points)
    elif kind == "npz":
        np.savez_compressed(path, points=points, others=points[:2])
        return path, "--array", "points"
    elif kind == "csv":
        names = "name,z,x,y"
        rows = np.column_stack([np.zeros(len(points)), points[:, 2], points[:, 0], points[:, 1]])
        np.savetxt(path, rows, delimiter=",", header=names, comments="", fmt="%.17g")
        return path, "--columns", "x,y,z"
    else:
        import pyarrow as pa
        from pyarrow import parquet

        table = pa.table({name: points[:, i] for i, name in enumerate("xyz")})
        parquet.write_table(table, path, row_group_size=len(points) // 3 + 1)
    return (path,)


@pytest.fixture
def small_chunks(monkeypatch):
    """Files come in several chunks, parsed a few lines at a time, and the k best are joined."""
    monkeypatch.setattr(point_files, "LINES", 7)
    monkeypatch.setattr(streaming, "PENDING", 2)
    monkeypatch.setattr(streaming, "QUERIES", 3)
    chunks = point_files.PointFile.chunks
    monkeypatch.setattr(point_files.PointFile, "chunks", lambda self, *_: chunks(self, N * 5))


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("kind", ["npy", "npz", "csv", "parquet", "hsf"])
def test_any_file_answers_as_its_points(kind, ask, tmp_path, points):
    rng = np.random.default_rng(1)
    normals, offsets = rng.standard_normal((5, 3)), np.array([0.0, 1.0, -np.inf, np.inf, 2.0])
    queries = tmp_path / "queries.npz"
    np.savez(queries, normals=normals, offsets=offsets)
    index = halfspace.Scan(points)
    if kind == "hsf":
        index.save(tmp_path / "points.hsf")
        source = (tmp_path / "points.hsf",)
    else:
        source = write(kind, tmp_path, points)
    want, out = index.report(normals, offsets), tmp_path / "out.npy"
    code, _ = ask("report", *source, "--queries", queries, "--output", out)
    assert code == 0
    found = np.load(out)
    assert found["id"].tolist() == want.indices.tolist()
    assert np.bincount(found["query"], minlength=5).tolist() == np.diff(want.indptr).tolist()
    _, said = ask("count", *source, "--queries", queries, "--format", "jsonl")
    counts = [json.loads(line)["count"] for line in said.out.splitlines()]
    assert counts == index.count(normals, offsets).tolist()
    top = index.top(normals, 7)
    _, said = ask("top", *source, "--queries", queries, "-k", 7, "--format", "jsonl")
    records = [json.loads(line) for line in said.out.splitlines()]
    assert [record["ids"] for record in records] == top.ids.tolist()
    assert [record["scores"] for record in records] == top.scores.tolist()


@pytest.mark.usefixtures("small_chunks")
def test_ties_across_chunks_go_to_the_smaller_id(ask, tmp_path):
    path = tmp_path / "ties.npy"
    np.save(path, np.tile(np.eye(2), (N, 1)))
    _, said = ask("top", path, "--normal", "1,1", "-k", 5, "--format", "jsonl")
    assert json.loads(said.out)["ids"] == [0, 1, 2, 3, 4]


def test_outputs_agree(ask, tmp_path, points):
    np.save(tmp_path / "points.npy", points)
    query = tmp_path / "points.npy", "--normal", "1,0,0", "--offset", 1
    _, printed = ask("report", *query)
    tables = {}
    for kind in ("npy", "csv", "jsonl"):
        assert ask("report", *query, "--output", tmp_path / f"out.{kind}")[0] == 0
        tables[kind] = tmp_path / f"out.{kind}"
    assert tables["csv"].read_text() == printed.out
    ids = np.load(tables["npy"])["id"].tolist()
    assert ids == np.flatnonzero(points[:, 0] >= 1).tolist()
    assert json.loads(tables["jsonl"].read_text()) == {"query": 0, "ids": ids}
    assert [int(line.split(",")[1]) for line in printed.out.split()[1:]] == ids


@pytest.mark.parametrize("kind", ["npy", "csv"])
def test_no_queries_and_no_points(kind, ask, tmp_path):
    points, none = tmp_path / f"none.{kind}", tmp_path / "no-queries.npz"
    if kind == "csv":
        points.write_text("x,y\n")
    else:
        np.save(points, np.empty((0, 2)))
    np.savez(none, normals=np.empty((0, 2)), offsets=np.empty(0))
    halfspace.Scan(np.empty((0, 2))).save(tmp_path / "none.hsf")
    for source in points, tmp_path / "none.hsf":
        assert ask("top", source, "--normal", "1,1")[1].out == "query,rank,id,score\n"
        assert ask("report", source, "--normal", "1,1", "--offset", 0)[1].out == "query,id\n"
        assert ask("report", source, "--queries", none)[1].out == "query,id\n"
        assert ask("count", source, "--queries", none)[1].out == "query,count\n"
        assert ask("top", source, "--queries", none)[1].out == "query,rank,id,score\n"


def test_explain_and_bench(ask, tmp_path, points):
    np.save(tmp_path / "points.npy", points)
    code, said = ask("explain", tmp_path / "points.npy")
    assert code == 0
    assert f"{N} points x 3, float32" in said.out
    assert "scan" in said.out
    halfspace.Scan(points).save(tmp_path / "points.hsf")
    assert "Scan" in ask("explain", tmp_path / "points.hsf")[1].out
    code, said = ask("bench", tmp_path / "points.npy", "--count", 3)
    assert code == 0
    assert all(name in said.out for name in ("scan", "kd_tree", "cascade", "numpy"))
    query = "--normal", "1,1,1", "--offset", 0
    assert ask("bench", tmp_path / "points.npy", *query)[0] == 0


def test_bench_fails_where_structures_disagree(ask, tmp_path, points, monkeypatch):
    np.save(tmp_path / "points.npy", points[:300])
    monkeypatch.setattr(bench.STRUCTURES["kd_tree"].make, "report", lambda *_: [np.array([-1])] * 3)
    assert ask("bench", tmp_path / "points.npy", "--count", 3)[0] == exits.DISAGREED


def test_what_is_wrong_with_options(ask, tmp_path, points):
    path = tmp_path / "points.npy"
    np.save(path, points)
    one = "--normal", "1,0,0"
    for arguments, words in (
        (["report", path, *one], "shape"),
        (["report", path], "either"),
        (["report", path, "--normal", "1,2", "--offset", 0], "expected 3 numbers, got 2"),
        (["report", path, "--normal", "1,a,2", "--offset", 0], "'1,a,2'"),
        (["report", path, *one, "--offset", 0, "--output", "x.txt"], r".jsonl"),
        (["report", path, *one, "--offset", "nan"], "nan"),
        (["top", path], "either"),
        (["top", path, *one, "--queries", path], "either"),
        (["build", path, tmp_path / "x.npy"], ".hsf"),
        (["explain"], "POINTS"),
    ):
        code, said = ask(*arguments)
        assert code == exits.USAGE, arguments
        assert words in said.err
    assert ask("--help")[0] == 0


def test_what_is_wrong_with_files(ask, tmp_path):
    rows = np.eye(3)
    cube = np.zeros((2, 2, 2))
    np.save(tmp_path / "cube.npy", cube)
    np.savez(tmp_path / "cube.npz", cube=cube)
    np.savez(tmp_path / "two.npz", a=rows, b=rows)
    np.savez(tmp_path / "words.npz", words=np.array([["a", "b", "c"]]))
    np.savez(tmp_path / "objects.npz", objects=np.array([[None] * 3]))
    np.savez(tmp_path / "normals.npz", normals=rows)
    np.savez(tmp_path / "flat.npz", normals=rows[:, :2], offsets=rows[0])
    np.savez(tmp_path / "few.npz", normals=rows, offsets=rows[0, :2])
    np.save(tmp_path / "rows.npy", rows)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "rows.npy").read_bytes()[:-8])
    (tmp_path / "not.npz").write_bytes(b"no archive")
    (tmp_path / "not.parquet").write_bytes(b"no such file")
    (tmp_path / "not.hsf").write_bytes(b"no such file")
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "ragged.csv").write_text("1,2,3\n1,2\n")
    (tmp_path / "words.csv").write_text("1,2,3\n1,2,x\n")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe1,2\n")
    (tmp_path / "points.txt").write_text("1,2\n")
    (tmp_path / "directory.npy").mkdir()
    query = "--normal", "1,0,0", "--offset", 0
    for name, options, words in (
        ("cube.npy", query, "shape"),
        ("cube.npz", query, "shape"),
        ("two.npz", query, "one of a, b by name"),
        ("two.npz", ("--array", "c", *query), "'c'"),
        ("words.npz", query, "<U1"),
        ("objects.npz", query, "object"),
        ("cut.npy", query, "cut.npy"),
        ("not.npz", query, "not.npz"),
        ("not.parquet", query, "not.parquet"),
        ("not.hsf", query, "not.hsf"),
        ("empty.csv", query, "empty file"),
        ("ragged.csv", query, "number of columns"),
        ("words.csv", query, "'x'"),
        ("bytes.csv", query, "decode"),
        ("points.txt", query, ".parquet"),
        ("directory.npy", query, "directory"),
        ("rows.npy", ("--columns", "x", *query), "no columns"),
        ("rows.npy", ("--queries", tmp_path / "rows.npy"), "expected 4 columns"),
        ("rows.npy", ("--queries", tmp_path / "normals.npz"), "offsets"),
        ("rows.npy", ("--queries", tmp_path / "flat.npz"), "3 columns, got 2"),
        ("rows.npy", ("--queries", tmp_path / "few.npz"), "offsets"),
        ("rows.npy", ("--output", tmp_path / "no" / "such.csv", *query), "such.csv"),
    ):
        code, said = ask("report", tmp_path / name, *options)
        assert code == exits.BAD_FILE, name
        assert words in said.err, said.err


def test_a_row_of_a_later_chunk_is_named(ask, tmp_path, monkeypatch):
    rows = np.zeros((10, 2))
    rows[7, 1] = np.nan
    np.save(tmp_path / "rows.npy", rows)
    file = point_files.open_points(tmp_path / "rows.npy")
    with pytest.raises(point_files.UnreadablePoints, match=r"row 1 \(counted from row 6\)"):
        list(file.chunks(48))


def test_archives_in_column_order_and_cut_short(tmp_path):
    rows = np.asfortranarray(np.arange(12.0).reshape(4, 3))
    np.savez(tmp_path / "rows.npz", rows=rows)
    file = point_files.open_points(tmp_path / "rows.npz")
    assert np.array_equal(file.points(), rows)
    import zipfile

    with zipfile.ZipFile(tmp_path / "cut.npz", "w") as archive:
        np.save(tmp_path / "rows.npy", rows)
        archive.writestr("rows.npy", (tmp_path / "rows.npy").read_bytes()[:-1])
        archive.writestr("later.npy", b"\x93NUMPY\x03\x00rest")
    with pytest.raises(point_files.UnreadablePoints, match="ends before"):
        point_files.open_points(tmp_path / "cut.npz", array="rows").points()
    with pytest.raises(point_files.UnreadablePoints, match="version"):
        point_files.open_points(tmp_path / "cut.npz", array="later")


def test_large_integers_of_parquet_are_not_rounded(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table({"large": [2**53 + 1], "small": [0.5]})
    parquet.write_table(table, tmp_path / "points.parquet")
    with pytest.raises(point_files.UnreadablePoints, match="9007199254740993"):
        point_files.open_points(tmp_path / "points.parquet").points()


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    (tmp_path / "points.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(point_files.UnreadablePoints, match="extra `parquet`"):
        point_files.open_points(tmp_path / "points.parquet")


def test_a_csv_is_read_again(tmp_path):
    (tmp_path / "points.csv").write_text("1,2\n\n3,4\n")
    file = point_files.open_points(tmp_path / "points.csv")
    assert np.array_equal(file.points(), [[1, 2], [3, 4]])
    assert np.array_equal(file.points(), [[1, 2], [3, 4]])


def test_the_process_hears_the_system(tmp_path):
    """Ctrl-C, and a reader who goes away, end the process itself with their codes."""
    os.mkfifo(tmp_path / "pipe.csv")
    command = [sys.executable, "-m", "halfspace", "report", "pipe.csv", "--normal", "1,1"]
    process = subprocess.Popen(
        [*command, "--offset", "0"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    transcript.feed(tmp_path / "pipe.csv", lambda: process.send_signal(signal.SIGINT))
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (exits.INTERRUPTED, b"\ninterrupted\n")


def test_a_reader_who_goes_away(monkeypatch):
    def gone(*_, **__):
        raise BrokenPipeError

    moved = []
    monkeypatch.setattr(os, "dup2", lambda *to: moved.append(to))
    assert run(gone) == exits.CLOSED
    assert moved
    assert run(lambda *_, **__: (_ for _ in ()).throw(MemoryError("much"))) == exits.TOO_LARGE
