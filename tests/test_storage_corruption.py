"""Damaged files are refused, with the name of what is wrong; without checks, none crashes.

`HALFSPACE_TEST_SCALE` makes the runs longer: 5 damages 5,000 places in files of every kind.
"""

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import halfspace
from halfspace.structures import STRUCTURES

from .datasets import cloud
from .file_format import assembled, changed, take_apart
from .sizes import JIT, SCALE, examples
from .strategies import rngs
from .structures import fine_cuttings
from .test_storage import answers

POINTS = 130  # three tiles, the last not full


def dynamic(points, ids, weights):
    """Two segments, dead points in one of them, and a buffer."""
    index = halfspace.Dynamic(
        points[:90], ids=ids[:90], weights=weights[:90], structure="kd_tree", buffer=30
    )
    for rows in (slice(90, 122), slice(122, None)):
        index.insert(points[rows], ids=ids[rows], weights=weights[rows])
    index.delete(ids[::7])
    return index


BUILDS = {
    "Scan": halfspace.Scan,
    "KDTree": halfspace.KDTree,
    "PartitionTree": halfspace.PartitionTree,
    "ShallowCuttings": fine_cuttings if JIT else halfspace.ShallowCuttings,
    "Cascade": halfspace.Cascade,
    "Dynamic": dynamic,
}
each_build = pytest.mark.parametrize("name", BUILDS)
BATCH = np.random.default_rng(1).standard_normal((6, 3)), np.linspace(-1.0, 2.0, 6)


@functools.cache
def content_of(name, directory):
    points = cloud(POINTS, 3)
    index = BUILDS[name](points, ids=np.arange(POINTS) * 3 - 7, weights=points)
    path = directory / f"{name} to damage"
    index.save(path)
    return path.read_bytes(), answers(index, *BATCH)


@pytest.fixture
def content(name, tmp_path_factory):
    return content_of(name, tmp_path_factory.getbasetemp())


def damages(content, count, rng):
    """The content with one byte changed, at places spread over all of it, or a stretch."""
    places = np.unique(np.linspace(0, len(content) - 1, count).astype(int))
    for i, at in enumerate(places):
        damaged = bytearray(content)
        if i % 8 == 7:  # a page or so that was not written
            end = min(len(content), at + int(rng.integers(1, 5000)))
            damaged[at:end] = bytes(end - at)
        else:
            damaged[at] ^= 1 << int(rng.integers(8)) if i % 2 else int(rng.integers(1, 256))
        if damaged != content:
            yield bytes(damaged)


@each_build
@pytest.mark.parametrize("mmap", [True, False], ids=["mapped", "read"])
def test_every_region_is_under_a_checksum(content, tmp_path, mmap):
    content, _ = content
    path = tmp_path / "damaged"
    for damaged in damages(content, 100 * SCALE, np.random.default_rng(mmap)):
        path.write_bytes(damaged)
        with pytest.raises(halfspace.InvalidFile, match=r"damaged: .*expected .*"):
            halfspace.load(path, mmap=mmap)


@each_build
def test_truncated_or_longer(content, tmp_path):
    content, _ = content
    path = tmp_path / "cut"
    for size in np.unique(np.linspace(0, len(content) - 1, 30 * SCALE).astype(int)):
        path.write_bytes(content[:size])
        with pytest.raises(halfspace.InvalidFile, match=r"cut: .*(truncated|an empty file|bytes)"):
            halfspace.load(path, verify=False)
    path.write_bytes(content + b"\0")
    with pytest.raises(halfspace.InvalidFile, match="longer than what was written"):
        halfspace.load(path, verify=False)


@pytest.mark.skipif(not JIT, reason="what compiled code would do")
@each_build
def test_unverified_damage_never_crashes(content, tmp_path):
    """No access leaves an array, whatever is in it: answers may be wrong, or it is refused."""
    content, _ = content
    path = tmp_path / "damaged"
    for damaged in damages(content, 100 * SCALE, np.random.default_rng(2)):
        path.write_bytes(damaged)
        try:
            index = halfspace.load(path, verify=False)
        except halfspace.InvalidFile:
            continue
        ask_all(index)


def ask_all(index):
    """Ask everything of an index whose floats may be anything."""
    try:
        answers(index, *BATCH)
    except IndexError:  # of numpy, which looked
        return


HARD = (0, 1, 2, -1, 63, 64, 255, 2**31 - 1, -(2**31), 2**62, 2**63 - 1, -(2**63))
WORDS = (0, 1, -1, 2**70, "", None, [], True, 0.5, {})


def another(array, rng):
    """An array like that, but for some entries, its length, its shape or its dtype."""
    kind = rng.choice(["entry", "entry", "entry", "shorter", "longer", "shape", "dtype"])
    if kind == "entry" and array.size:
        flat = array.reshape(-1).copy()
        at = rng.integers(0, flat.size, int(rng.integers(1, 4)))
        if array.dtype.kind == "f":
            flat[at] = rng.choice([0.0, -1.0, 1e-30, 1e30, np.nan, np.inf, -np.inf])
        else:
            value = HARD[rng.integers(len(HARD))] & (256**array.itemsize - 1)
            flat.view(f"<u{array.itemsize}")[at] = value
        return flat.reshape(array.shape)
    if kind == "shorter" and array.ndim:
        return array[: rng.integers(0, max(1, len(array)))]
    if kind == "longer" and array.ndim:
        return np.concatenate([array, array])
    if kind == "shape":
        return array.reshape(-1, *array.shape[2:])
    with np.errstate(all="ignore"):
        return array.astype(rng.choice(["<f4", "<f8", "<i4", "<i8", "<u8", "|u1"]))


@pytest.mark.skipif(not JIT, reason="what compiled code would do")
@each_build
@examples(2 * SCALE)
@given(rng=rngs(), verify=st.booleans())
def test_files_made_to_deceive_never_crash(name, tmp_path_factory, rng, verify):
    """Checksums hold, and any array, size or word may be another."""
    directory = tmp_path_factory.getbasetemp()
    header, arrays = take_apart(content_of(name, directory)[0])
    for key in rng.choice(sorted(arrays), int(rng.integers(1, 3))):
        arrays[key] = another(arrays[key], rng)
    words = header["metadata"]
    if rng.integers(4) == 0:
        words[rng.choice(sorted(words))] = WORDS[rng.integers(len(WORDS))]
    path = directory / "deceives"
    path.write_bytes(assembled({"kind": header["kind"], "metadata": words}, arrays))
    try:
        index = halfspace.load(path, verify=verify)
    except halfspace.InvalidFile:
        return
    if index.dim == 3:
        ask_all(index)


@examples(SCALE)
@given(junk=st.binary(max_size=400), whole=st.booleans())
def test_junk(tmp_path_factory, junk, whole):
    """Anything for a file, and anything for a header under checksums that hold."""
    path = tmp_path_factory.getbasetemp() / "junk"
    path.write_bytes(junk if whole else assembled({}, {}, text=junk))
    with pytest.raises(halfspace.InvalidFile, match="junk: "):
        halfspace.load(path)


@pytest.mark.parametrize("kind", STRUCTURES)
def test_every_array_is_needed_and_no_other(kind, tmp_path_factory):
    name = STRUCTURES[kind].make.__name__
    content, _ = content_of(name, tmp_path_factory.getbasetemp())
    path = tmp_path_factory.getbasetemp() / "changed"
    for array in take_apart(content).arrays:
        path.write_bytes(changed(content, arrays={array: None}))
        with pytest.raises(halfspace.InvalidFile, match=f"changed: {array}: expected an array"):
            halfspace.load(path)
    path.write_bytes(changed(content, arrays={"more": np.zeros(1)}))
    with pytest.raises(halfspace.InvalidFile, match=f"more: expected no such array of {kind}"):
        halfspace.load(path)
