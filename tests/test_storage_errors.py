"""What save and load refuse: one clear exception that says what was expected and what came."""

import contextlib
import os
import pickle
import re
import resource
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

import halfspace
from halfspace import array_file, atomic_file

from .datasets import cloud
from .file_format import MAGIC, assembled, changed, take_apart

POINTS = cloud(130, 3)


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """A saved index of each kind, as bytes."""
    path = tmp_path_factory.mktemp("contents") / "index"
    found = {}
    for kind in ("Scan", "KDTree", "ShallowCuttings", "Cascade"):
        getattr(halfspace, kind)(POINTS, weights=POINTS).save(path)
        found[kind] = path.read_bytes()
    return found


def npy(path):
    np.save(path.with_suffix(".npy"), POINTS)
    return path.with_suffix(".npy").read_bytes()


def npz(path):
    np.savez(path.with_suffix(".npz"), POINTS)
    return path.with_suffix(".npz").read_bytes()


def evil(path):
    """A pickle that would make a file if it were loaded."""

    class Evil:
        def __reduce__(self):
            return Path.touch, (path.with_name("evil"),)

    return pickle.dumps(Evil())


def zipped(path):
    with zipfile.ZipFile(path.with_suffix(".zip"), "w") as file:
        file.writestr("../../outside", "outside")
    return path.with_suffix(".zip").read_bytes()


def altered(at, content):
    damaged = bytearray(content)
    damaged[at] ^= 1
    return bytes(damaged)


def entries(content, **changes):
    """Scan's file whose first array is described otherwise, under checksums that hold."""
    header, arrays = take_apart(content)
    header["arrays"][0] |= changes
    return assembled(header, arrays)


def header(**parts):
    return assembled(parts, {})


def one_level(**arrays):
    """Arrays of cuttings of one level and one cone in three dimensions."""
    floats = {"solvers": (1, 3, 3), "offsets": (1, 3), "residuals": (1,)}
    return {
        "depths": np.ones(1, "<i8"),
        "copied": np.zeros(1, bool),
        "worth": np.zeros(1, bool),
        **{name: np.zeros(shape) for name, shape in floats.items()},
        "neighbours": np.full((1, 3), -1, "<i4"),
        "finer": np.full(1, -1, "<i4"),
        "lists": np.zeros((1, 2), "<i8"),
    } | arrays


WHOLE = {"kind": "scan", "metadata": {}, "arrays": []}
FILES = {
    # what is no such file
    "empty": (lambda c, p: b"", "expected a saved index, got an empty file"),
    "text": (lambda c, p: b"hello, world", "expected a saved index, got bytes b'hello, w'"),
    "JSON": (lambda c, p: b'{"kind": 1}', "expected a saved index, got JSON"),
    "pickle": (lambda c, p: evil(p), "expected a saved index, got a pickle"),
    "npy": (lambda c, p: npy(p), "expected a saved index, got a .npy file"),
    "npz": (lambda c, p: npz(p), "expected a saved index, got a zip archive (.npz or .zip)"),
    "zip": (lambda c, p: zipped(p), "expected a saved index, got a zip archive (.npz or .zip)"),
    "gzip": (lambda c, p: b"\x1f\x8b\x08", "expected a saved index, got a gzip archive"),
    "as text": (
        lambda c, p: c["Scan"].replace(b"\r\n", b"\n"),
        "expected a saved index, got a file that was altered as if it were text",
    ),
    # what was cut, changed or is of another time
    "magic alone": (
        lambda c, p: MAGIC,
        "expected at least 64 bytes, got 8: the file is truncated",
    ),
    "truncated": (
        lambda c, p: c["Scan"][:-1],
        "expected {size} bytes, got {less}: the file is truncated",
    ),
    "longer": (
        lambda c, p: c["Scan"] + b"x",
        "expected {size} bytes, got {more}: the file is longer than what was written",
    ),
    "version 0": (
        lambda c, p: assembled(WHOLE, {}, version=0),
        "expected format version 1, got 0",
    ),
    "version 2": (
        lambda c, p: assembled(WHOLE, {}, version=2),
        "expected format version 1, got 2",
    ),
    "preamble": (
        lambda c, p: altered(40, c["Scan"]),
        "preamble: expected its checksum to hold: the file was altered",
    ),
    "header": (
        lambda c, p: altered(70, c["Scan"]),
        "header: expected its checksum to hold: the file was altered",
    ),
    "array": (
        lambda c, p: altered(len(c["Scan"]) - 1, c["Scan"]),
        "tiles.ranks: expected its checksum to hold: the file was altered",
    ),
    # headers under checksums that hold
    "no JSON": (
        lambda c, p: assembled({}, {}, text=b"]"),
        "header: expected JSON, got what is none (Expecting value: line 1 column 1 (char 0))",
    ),
    "a list": (
        lambda c, p: assembled({}, {}, text=b"[]"),
        "header: expected an object of kind, metadata, arrays, got another",
    ),
    "no kind": (
        lambda c, p: header(metadata={}),
        "header: expected an object of kind, metadata, arrays, got another",
    ),
    "kind 3": (
        lambda c, p: header(kind=3, metadata={}),
        "header: expected kind to be a str, got a int",
    ),
    "long header": (
        lambda c, p: header(kind="x" * (1 << 20), metadata={}),
        "header: expected at most 1048576 bytes in lines, got 1048640",
    ),
    "other kind": (
        lambda c, p: changed(c["Scan"], kind="os.system"),
        "kind: expected one of scan, kd_tree, partition_tree, shallow_cuttings, cascade, dynamic, "
        "got 'os.system'",
    ),
    # tables of arrays
    "no entry": (
        lambda c, p: assembled(WHOLE | {"arrays": [[]]}, {}),
        "header: expected array 0 to have crc32, dtype, name, offset, shape",
    ),
    "name 1": (
        lambda c, p: entries(c["Scan"], name=1),
        "header: expected names, each once, got 1 for array 0",
    ),
    "name twice": (
        lambda c, p: entries(c["Scan"], name="weights"),
        "header: expected names, each once, got 'weights' for array 1",
    ),
    "objects": (
        lambda c, p: entries(c["Scan"], dtype="|O"),
        "ids: expected one of <f4, <f8, <i4, <i8, <u8, |u1, |b1, got '|O'",
    ),
    "shape": (
        lambda c, p: entries(c["Scan"], shape=[-1]),
        "ids: expected a shape of sizes, got [-1]",
    ),
    "axes": (
        lambda c, p: entries(c["Scan"], shape=[0] * 5),
        "ids: expected a shape of sizes, got [0, 0, 0, 0, 0]",
    ),
    "elsewhere": (
        lambda c, p: entries(c["Scan"], offset=64),
        "ids: expected it at 0, got 64",
    ),
    "another file": (
        lambda c, p: entries(c["Scan"], offset="../../etc/passwd"),
        "ids: expected it at 0, got '../../etc/passwd'",
    ),
    "beyond": (
        lambda c, p: entries(c["Scan"], shape=[1 << 40]),
        "ids: expected it to end by {room}, got 8796093022208: beyond the file",
    ),
    "gap": (
        lambda c, p: assembled(WHOLE, {"x": np.zeros(1)}),
        "expected arrays to fill 64 bytes, got 0",
    ),
    # what arrays are
    "dtype": (
        lambda c, p: changed(c["Scan"], arrays={"tiles.data": np.zeros((3, 3, 64), "<i4")}),
        "tiles.data: expected float32 or float64, got int32",
    ),
    "shape of data": (
        lambda c, p: changed(c["Scan"], arrays={"tiles.data": np.zeros((3, 3, 63))}),
        "tiles.data: expected shape (tiles = 3, d = 3, 64), got shape (3, 3, 63)",
    ),
    "missing": (
        lambda c, p: changed(c["Scan"], arrays={"tiles.norms": None}),
        "tiles.norms: expected an array, got none",
    ),
    "too many": (
        lambda c, p: changed(c["Scan"], arrays={"code": np.zeros(1)}),
        "code: expected no such array of scan, got one",
    ),
    "ranks": (
        lambda c, p: changed(c["Scan"], arrays={"tiles.ranks": np.arange(1, 131, dtype="<i4")}),
        "tiles.ranks: expected 0 … 129, got 1 … 130",
    ),
    "count": (
        lambda c, p: changed(c["Scan"], points=131),
        "weights: expected shape (n = 131, w), got shape (130, 3)",
    ),
    "too many points": (
        lambda c, p: changed(c["Scan"], points=2**31),
        "points: expected 0 … 2147483584, got 2147483648",
    ),
    "no dimension": (
        lambda c, p: changed(c["Scan"], dim=0),
        "dim: expected at least 1, got 0",
    ),
    "own ids": (
        lambda c, p: changed(c["Scan"], own_ids=True),
        "ids: expected shape (ids = 130), got shape (0,)",
    ),
    "reason": (
        lambda c, p: changed(c["Scan"], reason=...),
        "reason: expected str, got None",
    ),
    "axes of weights": (
        lambda c, p: changed(c["Scan"], weights_ndim=3),
        "weights_ndim: expected 0, 1 or 2, got 3",
    ),
    "nodes": (
        lambda c, p: changed(c["KDTree"], arrays={"nodes.last": np.full(64, 3, "<i4")}),
        "nodes.last: expected those of 3 tiles, got others",
    ),
    "levels": (
        lambda c, p: changed(c["KDTree"], arrays={"levels": np.array([0, 2])}),
        "levels: expected those of 3 tiles, got others",
    ),
    "frames": (
        lambda c, p: changed(c["KDTree"], arrays={"frames": np.zeros((1, 3, 64), "<f4")}),
        "frames: expected 3 a block, got 1",
    ),
    "neighbours": (
        lambda c, p: changed(
            c["ShallowCuttings"],
            arrays={"levels": np.array([0, 1])} | one_level(neighbours=np.full((1, 3), 1, "<i4")),
        ),
        "neighbours: expected -1, or cones of the same level, got others",
    ),
    "lists": (
        lambda c, p: changed(
            c["ShallowCuttings"],
            arrays={"levels": np.array([0, 1])} | one_level(lists=np.array([[0, 1]])),
        ),
        "lists: expected parts of 0 entries or 3 tiles, got others",
    ),
    "floats": (
        lambda c, p: changed(c["KDTree"], arrays={"centres": np.zeros((1, 3, 64))}),
        "centres: expected float32, as the points, got float64",
    ),
    "booleans": (
        lambda c, p: changed(
            c["ShallowCuttings"],
            arrays={
                "levels": np.zeros(2, "<i8"),
                "depths": np.zeros(1, "<i8"),
                "copied": np.array([2], np.uint8).view(bool),
            },
        ),
        "copied: expected booleans, got byte 2",
    ),
    "bits": (
        lambda c, p: changed(c["Cascade"], arrays={"leading.bits": np.array(5)}),
        "leading.bits: expected one of 4, 6, 8, got 5",
    ),
    "expected": (
        lambda c, p: changed(c["Cascade"], expected=[1.0, "2", 3.0, 4.0]),
        "expected: expected four finite numbers, got [1.0, '2', 3.0, 4.0]",
    ),
}


@pytest.mark.parametrize(("make", "says"), FILES.values(), ids=FILES)
def test_bad_files(make, says, contents, tmp_path):
    path, whole = tmp_path / "bad", contents["Scan"]
    path.write_bytes(make(contents, path))
    sizes = {"size": len(whole), "less": len(whole) - 1, "more": len(whole) + 1}
    room = sum(len(array.tobytes()) + -array.nbytes % 64 for array in take_apart(whole)[1].values())
    for name, value in (sizes | {"room": room}).items():
        says = says.replace(f"{{{name}}}", str(value))
    with pytest.raises(halfspace.InvalidFile) as refused:
        halfspace.load(path)
    assert str(refused.value) == f"{path}: {says}"
    assert not (tmp_path / "evil").exists()


def test_bad_paths_to_load(tmp_path):
    with pytest.raises(FileNotFoundError):
        halfspace.load(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        halfspace.load(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(halfspace.InvalidFile, match="expected a regular file, got something"):
            halfspace.load(path)
    for path in (None, 3.5, object()):
        with pytest.raises(TypeError):
            halfspace.load(path)


def test_bad_paths_to_save(tmp_path):
    index, file = halfspace.Scan(POINTS), tmp_path / "file"
    file.write_bytes(b"")
    for path, error, says in (
        (tmp_path, IsADirectoryError, "expected a file to write, got a directory"),
        (tmp_path / "none" / "x", FileNotFoundError, "could not write: No such file or directory"),
        (file / "x", NotADirectoryError, "could not write: Not a directory"),
        (tmp_path / ("x" * 300), OSError, "File name too long"),
    ):
        with pytest.raises(error, match=re.escape(says)):
            index.save(path)
    with pytest.raises(TypeError):
        index.save(None)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_bad_things_to_write(tmp_path):
    path = tmp_path / "x"
    with pytest.raises(TypeError, match=r"a: expected one of <f4, .*, got object"):
        array_file.write(path, "x", {}, {"a": np.array([object()])})
    with pytest.raises(ValueError, match="metadata: expected a header of at most 1048576 bytes"):
        array_file.write(path, "x", {"a": "a" * 2**20}, {})
    with pytest.raises(ValueError, match="JSON"):
        array_file.write(path, "x", {"a": np.nan}, {})
    assert not list(tmp_path.iterdir())


def save_fails(index, path, says):
    """Saving fails and says so, and what was there is as before, alone."""
    before = path.read_bytes()
    with pytest.raises(OSError, match=re.escape(says)) as failed:
        index.save(path)
    assert failed.value.filename == str(path)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == before
    return failed.value


def test_a_read_only_directory(tmp_path, monkeypatch):
    path = tmp_path / "index"
    index = halfspace.Scan(POINTS)
    index.save(path)
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):  # whoever may do anything is refused by nobody
        real = open

        def refuse(file, mode="r", **options):
            if "x" in mode:
                raise PermissionError(13, "Permission denied", str(file))
            return real(file, mode, **options)

        monkeypatch.setattr(atomic_file, "open", refuse, raising=False)
    try:
        save_fails(index, path, "[Errno 13] could not write: Permission denied")
    finally:
        tmp_path.chmod(0o700)


@contextlib.contextmanager
def small_disk(path):
    """A file system of 256 kB at `path`, or else a limit to the size of files."""
    mounted = shutil.which("mount") and os.geteuid() == 0
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(path)]
    if mounted and subprocess.run(command, capture_output=True).returncode == 0:
        try:
            yield "No space left on device"
        finally:
            subprocess.run(["umount", str(path)], check=True)
        return
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, before[1]))
    try:
        yield "File too large"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    with small_disk(disk) as reason:
        path = disk / "index"
        halfspace.KDTree(POINTS).save(path)
        save_fails(halfspace.Scan(cloud(30_000, 3)), path, f"could not write: {reason}")
        assert halfspace.load(path, mmap=False).count([1.0, 0.0, 0.0], 0.0) > 0


def test_an_interrupt_leaves_nothing(tmp_path):
    path = tmp_path / "index"
    path.write_bytes(b"old")

    def interrupted():
        with atomic_file.replacing(path) as file:
            file.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [p.name for p in tmp_path.iterdir()] == ["index"]
    assert path.read_bytes() == b"old"
