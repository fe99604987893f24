"""The packaged heads: what they are, and that nothing is unpickled to load them."""

import io
import zipfile
from importlib.resources import files

import numpy as np
import pytest

from attention import data

each_head = pytest.mark.parametrize("name", data.heads())


def archive():
    return files(data).joinpath("minilm_heads.npz").read_bytes()


def test_names():
    assert data.heads() == ("sharp", "between", "flat")


@each_head
def test_load(name):
    head = data.load(name)
    assert isinstance(head, data.Head)
    assert head.name == name
    assert (head.query.shape, head.key.shape, head.value.shape) == ((256, 32), *[(7168, 32)] * 2)
    for array in head[1:]:
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        assert np.isfinite(array).all()
        assert len(np.unique(array, axis=0)) > 1
    with np.load(io.BytesIO(archive())) as stored:
        for part in ("query", "key", "value"):
            assert np.array_equal(getattr(head, part), stored[f"{name}_{part}"])


@each_head
def test_every_load_is_the_callers_own(name):
    first = data.load(name)
    want = first.key.copy()
    first.key[:] = 0.0
    assert np.array_equal(data.load(name).key, want)


def test_the_names_say_how_sharp_the_heads_are():
    """Mass of the best 1 % of the keys, a median over queries."""
    shares = []
    for name in data.heads():
        _, query, key, _ = data.load(name)
        scores = query[::16] @ key.T / np.sqrt(key.shape[1])
        mass = np.sort(np.exp(scores - scores.max(axis=1, keepdims=True)), axis=1)
        shares.append(np.median(mass[:, -len(key) // 100 :].sum(axis=1) / mass.sum(axis=1)))
    assert shares[0] > 0.8 > shares[1] > shares[2]


@pytest.mark.parametrize("name", ["blunt", "", "Sharp", None, 0])
def test_unknown_heads_are_named_beside_the_known(name):
    with pytest.raises(ValueError, match=f"{name!r}.*'sharp', 'between', 'flat'"):
        data.load(name)


def test_nothing_is_pickled(monkeypatch):
    """No array in the file is of objects, and loading would not unpickle one if it were."""
    with zipfile.ZipFile(io.BytesIO(archive())) as members:
        for member in members.namelist():
            with members.open(member) as stream:
                version = np.lib.format.read_magic(stream)
                assert version == (1, 0)
                _, _, dtype = np.lib.format.read_array_header_1_0(stream)
                assert dtype.kind in "fi"
    asked = []
    load = np.load

    def spy(*args, **options):
        asked.append(options.get("allow_pickle", False))
        return load(*args, **options)

    monkeypatch.setattr(np, "load", spy)
    data.load("sharp")
    assert asked == [False]
