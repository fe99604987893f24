"""What is saved comes back: every structure, answer for answer, and the file is as documented."""

import pickle
import stat
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import halfspace
from halfspace import layout, storage
from halfspace.structures import STRUCTURES as TABLE
from halfspace.tiles import LINE, arrays_of

from .datasets import DATASETS, cloud
from .file_format import take_apart
from .sizes import JIT, SMALL, examples
from .strategies import DTYPES, identifiers, problems, queries, rngs
from .structures import each_static, each_structure, each_structure_and_dim


def answers(index, normals, offsets, k=5):
    """All there is to ask, as lists."""
    report, best = index.report(normals, offsets), index.top(normals, k)
    found = [report.indptr, report.indices, index.count(normals, offsets, closed=False)]
    found += [index.any(normals, offsets), *best]
    if not isinstance(index, halfspace.Dynamic):  # one forgets the dead points of its buffer
        found += index.work(normals, offsets)
    found.append(index.count_polytope(normals[:, None], offsets[:, None]))
    if index._weights_ndim:
        found.append(index.sum(normals, offsets))
    return [array.tolist() for array in found]


def saved(index, path):
    index.save(path)
    return path


each_way = pytest.mark.parametrize("mmap", [True, False], ids=["mapped", "read"])


@pytest.mark.parametrize("dataset", DATASETS)
@each_structure_and_dim(3)
@examples(0.02)
@given(data=st.data(), dtype=st.sampled_from(DTYPES), mmap=st.booleans(), verify=st.booleans())
def test_round_trip(tmp_path_factory, structure, d, dataset, data, dtype, mmap, verify):
    points = DATASETS[dataset](d, np.random.default_rng(d), dtype)
    weights = data.draw(st.sampled_from([None, np.arange(float(len(points))), points]))
    ids = data.draw(st.none() | identifiers(len(points)))
    index = structure.build(points, ids=ids, weights=weights)
    path = saved(index, tmp_path_factory.getbasetemp() / "round trip")
    again = halfspace.load(path, mmap=mmap, verify=verify)
    assert type(again) is type(index)
    assert (len(again), again.dim, repr(again)) == (len(index), d, repr(index))
    # Of no points, arrays are one object that are two in a file.
    if len(points) and type(index) is not halfspace.Dynamic:
        assert again.explain() == index.explain()
    batch = data.draw(queries(points))
    assert answers(again, *batch) == answers(index, *batch)


@each_structure
@examples(0.2)
@given(data=st.data())
def test_any_points(tmp_path_factory, structure, data):
    points, *batch = data.draw(problems(dims=structure.dims_to(6)))
    index = structure.build(points)
    again = halfspace.load(saved(index, tmp_path_factory.getbasetemp() / "any points"))
    assert answers(again, *batch) == answers(index, *batch)


@each_way
@each_static
def test_kernels_are_not_compiled_again(structure, mmap, tmp_path):
    index = structure.build(cloud(SMALL, 3), weights=np.ones(SMALL))
    again = halfspace.load(saved(index, tmp_path / "index"), mmap=mmap)
    assert numba.typeof(again.structure) == numba.typeof(index.structure)
    for array in arrays_of((again.structure, again._ids, again._weights)):
        assert not array.flags.writeable
        assert array.flags.aligned


def test_codes_start_where_lines_do(tmp_path):
    index = halfspace.Cascade(cloud(SMALL, 12))
    again = halfspace.load(saved(index, tmp_path / "index")).structure
    for array in (again.points, again.leading.codes, again.rows.codes):
        assert not array.size or array.ctypes.data % LINE == 0
    assert np.shares_memory(again.points, again.tiles.data)


@each_static
def test_the_file_is_as_documented(structure, tmp_path):
    index = structure.build(cloud(SMALL, 3), ids=np.arange(SMALL)[::-1], weights=np.ones(SMALL))
    header, arrays = take_apart(saved(index, tmp_path / "index").read_bytes())
    assert storage.KINDS[header["kind"]] is type(index)
    assert header["metadata"]["points"] == SMALL
    assert arrays["ids"].tolist() == list(range(SMALL))
    stored = sum(array.nbytes for array in arrays.values())
    assert stored <= index.nbytes + 8 * len(arrays), "something is there twice"


def test_every_structure_can_be_stored():
    known = {name: entry.make for name, entry in TABLE.items()}
    assert known | {"dynamic": halfspace.Dynamic} == storage.KINDS
    for kind in known.values():
        known = {name for _, name, _ in layout._fields(kind._arrays, "")}
        assert {view.split(".")[0] for view in kind._views} <= known


def test_declarations_that_are_none():
    with pytest.raises(TypeError, match="expected an array declared as Stored"):
        layout._stored(np.ndarray)


@each_static
def test_saved_again_and_pickled(structure, tmp_path):
    index = structure.build(cloud(SMALL, 3), weights=np.ones(SMALL))
    once = saved(index, tmp_path / "once")
    again = halfspace.load(once)
    assert saved(again, tmp_path / "twice").read_bytes() == once.read_bytes()
    copy = pickle.loads(pickle.dumps(again))
    batch = np.eye(3), np.zeros(3)
    assert answers(copy, *batch) == answers(index, *batch)


def test_a_file_in_use_may_be_replaced(tmp_path):
    path = tmp_path / "index"
    old = halfspace.load(saved(halfspace.Scan(cloud(SMALL, 2)), path))
    before = old.report([1.0, 0.0], 0.0).tolist()
    halfspace.load(path).save(path)  # onto itself
    halfspace.Scan(np.zeros((1, 1))).save(path)
    assert old.report([1.0, 0.0], 0.0).tolist() == before
    assert len(halfspace.load(path)) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["index"]


def test_what_was_read_needs_no_file(tmp_path):
    index = halfspace.Scan(cloud(SMALL, 2))
    again = halfspace.load(saved(index, tmp_path / "index"), mmap=False)
    (tmp_path / "index").write_bytes(b"")
    assert again.count([1.0, 0.0], 0.0) == index.count([1.0, 0.0], 0.0)


def test_links_and_permissions(tmp_path):
    index, there = halfspace.Scan(cloud(SMALL, 2)), tmp_path / "there"
    there.mkdir()
    link = tmp_path / "link"
    link.symlink_to(there / "index")
    index.save(link)
    assert link.is_symlink()
    assert len(halfspace.load(there / "index")) == SMALL
    (tmp_path / "usual").write_bytes(b"")
    usual = stat.S_IMODE((tmp_path / "usual").stat().st_mode)
    assert stat.S_IMODE((there / "index").stat().st_mode) == usual


@each_structure
@examples(0.1)
@given(rng=rngs())
def test_eight_threads_read_one_file(tmp_path_factory, structure, rng):
    index = structure.build(cloud(SMALL, 3), weights=np.ones(SMALL))
    path = saved(index, tmp_path_factory.getbasetemp() / "threads")
    normals, offsets = rng.standard_normal((8, 3)), rng.standard_normal(8)
    want = answers(index, normals, offsets)
    shared = halfspace.load(path)

    def ask(i):
        return answers(shared if i % 2 else halfspace.load(path), normals, offsets)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == [want] * 8


@pytest.mark.skipif(not JIT, reason="a large index takes long to build interpreted")
def test_larger_than_a_piece(tmp_path, monkeypatch):
    monkeypatch.setattr("halfspace.array_file.PIECE", 1000)
    index = halfspace.KDTree(cloud(20_000, 3))
    again = halfspace.load(saved(index, tmp_path / "index"))
    assert answers(again, np.eye(3), np.ones(3)) == answers(index, np.eye(3), np.ones(3))
