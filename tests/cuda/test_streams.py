"""What is asked on a device, and left there, keeps the order of streams."""

from types import SimpleNamespace

import numpy as np
import pytest

import halfspace
from attention import Decoder, Error, KVCache
from halfspace.cuda import streams
from halfspace.cuda.runtime import put
from halfspace.cuda.scratch import MOST_STREAMS, Scratches
from halfspace.cuda.target import SIMULATED

POINTS = np.random.default_rng(0).standard_normal((70, 3))
NORMALS, OFFSETS = np.eye(3)[:2], np.array([POINTS[:, 0].max() + 0.1, -0.5])

pytestmark = pytest.mark.skipif(not SIMULATED, reason="streams are made up")


class Stream:
    """Does what is queued when it is waited for."""

    auto_synchronize = None

    def __init__(self, handle):
        self.handle, self.queued = handle, []

    def synchronize(self):
        while self.queued:
            self.queued.pop(0)()


class Late:
    """An array on a device that holds something else until a stream has come to it."""

    def __init__(self, array, stream, told=None, version=3):
        self.rows = np.full_like(array, 3.0)
        self.__cuda_array_interface__ = {"version": version, "stream": told}
        stream.queued.append(lambda: np.copyto(self.rows, array))


class OnDevice(Late):
    """The same, of a library that speaks DLPack; where it is may be said."""

    where = 2, 0

    def __dlpack_device__(self):
        return self.where


@pytest.fixture
def device(monkeypatch):
    """Two streams, and whether all of the device was waited for."""
    mine, other = made = Stream(7), Stream(8)
    seen = SimpleNamespace(mine=mine, other=other, waits=0)

    def synchronize():
        seen.waits += 1
        for stream in made:
            stream.synchronize()

    target = SimpleNamespace(
        as_cuda_array=lambda array, sync: put(array.rows),
        external_stream=lambda handle: next(s for s in made if s.handle == handle),
    )
    monkeypatch.setattr(streams, "cuda", target)
    monkeypatch.setattr(streams, "synchronize", synchronize)
    return seen


@pytest.fixture(scope="module")
def index():
    return halfspace.Scan(POINTS, weights=np.ones(70)).to("cuda")


QUESTIONS = {
    "report": lambda i, w, b, **o: i.report(w, b, **o).indices.tolist(),
    "count": lambda i, w, b, **o: i.count(w, b, **o).tolist(),
    "any": lambda i, w, b, **o: i.any(w, b, **o).tolist(),
    "sum": lambda i, w, b, **o: i.sum(w, b, **o).tolist(),
    "top": lambda i, w, b, **o: i.top(w, 3, **o).ids.tolist(),
    "work": lambda i, w, b, **o: i.work(w, b, **o).exact_tests.tolist(),
    "polytope": lambda i, w, b, **o: i.report_polytope(w, b, **o).tolist(),
    "polytopes": lambda i, w, b, **o: i.count_polytope(w, b, **o),
}


@pytest.mark.parametrize("ask", QUESTIONS.values(), ids=QUESTIONS)
def test_queries_are_read_after_what_writes_them(index, device, ask):
    want = ask(index, NORMALS, OFFSETS)
    # By the stream that the array tells, and by the caller's.
    assert ask(index, Late(NORMALS, device.other, told=8), OFFSETS) == want
    assert ask(index, Late(NORMALS, device.mine), OFFSETS, stream=device.mine) == want
    assert device.waits == 0
    both = Late(NORMALS, device.other, told=8), Late(OFFSETS, device.mine)
    assert ask(index, *both, stream=device.mine) == want


@pytest.mark.parametrize("kind", [Late, OnDevice])
def test_arrays_that_tell_no_stream(index, device, kind):
    """Of interfaces before the third: the whole device is waited for."""
    normals = kind(NORMALS, device.other, version=2)
    assert index.count(normals, OFFSETS).tolist() == index.count(NORMALS, OFFSETS).tolist()
    assert device.waits == 1
    pieces = index.iter_report(kind(NORMALS, device.other, version=2), OFFSETS)
    assert [len(piece) for piece in pieces] == [2]


def test_arrays_on_other_devices(index, device, monkeypatch):
    monkeypatch.setattr(OnDevice, "where", (2, 5))
    with pytest.raises(halfspace.cuda.CudaUnavailable, match="expected device 5"):
        index.count(OnDevice(NORMALS, device.mine), OFFSETS)
    monkeypatch.setattr(OnDevice, "where", (1, 0))  # the processor
    with pytest.raises(TypeError, match="normals: expected"):
        index.count(OnDevice(NORMALS, device.mine), OFFSETS)


def test_arrays_that_cannot_be_read(index, device, monkeypatch):
    def refuse(array, sync):
        raise NotImplementedError("Masked arrays are not supported")

    monkeypatch.setattr(streams.cuda, "as_cuda_array", refuse)
    with pytest.raises(TypeError, match=r"expected an array .* without a mask.*Masked"):
        index.count(Late(NORMALS, device.mine), OFFSETS)


def test_attention_reads_after_what_writes(device):
    rng = np.random.default_rng(0)
    key, value, query = rng.standard_normal((3, 70, 4))
    query = query[:2]
    decoder = Decoder(key, value, structure="cascade").to("cuda")
    cache = KVCache(4, dtype=np.float64).to("cuda")
    cache.append(
        Late(key[None], device.mine), Late(value[None], device.other, 8), stream=device.mine
    )
    assert np.array_equal(cache.to("cpu").keys[0], key)
    assert np.array_equal(cache.to("cpu").values[0], value)
    asks = (
        (lambda q, **o: decoder.softmax(q, Error(0.01), **o), query),
        (lambda q, **o: decoder.relu(q, threshold=0.0, **o), query),
        (lambda q, **o: cache.attend(q, Error(0.01), **o), query[None]),
        (lambda q, **o: cache.relu(q, threshold=0.0, **o), query[None]),
    )
    for ask, rows in asks:
        want = ask(rows).output.tolist()
        assert ask(Late(rows, device.other, told=8)).output.tolist() == want
        late = Late(rows, device.mine)
        assert ask(late, stream=device.mine).output.tolist() == want


def test_answers_tell_their_stream(index, device):
    decoder = Decoder(POINTS, POINTS).to("cuda")
    cache = KVCache(3, dtype=np.float64).to("cuda")
    cache.append(POINTS[None], POINTS[None])
    asks = (
        lambda **o: (index.report(NORMALS[0], 0.5, **o),),
        lambda **o: (lambda r: (r.indptr, r.indices))(index.report(NORMALS, OFFSETS, **o)),
        lambda **o: index.top(NORMALS, 3, **o),
        lambda **o: index.top(NORMALS, 0, **o),
        lambda **o: (index.report_polytope(NORMALS, OFFSETS, **o),),
        lambda **o: decoder.softmax(NORMALS, Error(0.1), **o),
        lambda **o: cache.relu(NORMALS[None], threshold=0.0, **o),
    )
    for ask in asks:
        before = device.waits
        assert all(array.stream is device.mine for array in ask(on_device=True, stream=device.mine))
        assert device.waits == before
        # Nobody need wait for what is complete.
        assert all(array.stream == 0 for array in ask(on_device=True))
        assert device.waits == before + 1


def test_streams_of_other_libraries(device):
    torch_like, cupy_like = SimpleNamespace(cuda_stream=7), SimpleNamespace(ptr=8)
    for stream, made in ((torch_like, device.mine), (cupy_like, device.other)):
        assert streams.as_stream(stream) is made
        assert made.owner is stream
    assert streams.as_stream(7) is device.mine
    for default in (
        None,
        0,
        SimpleNamespace(ptr=0),
        Stream(0),
        Stream(SimpleNamespace(value=None)),
    ):
        assert streams.as_stream(default) == 0
    for wrong in ("default", 1.5, True):
        with pytest.raises(TypeError, match="stream: expected None, a stream"):
            streams.as_stream(wrong)


def test_scratch_of_streams_that_are_gone_is_freed():
    scratches, made = Scratches(), [Stream(1 + i) for i in range(MOST_STREAMS + 1)]
    first = scratches.of(made[0])
    for stream in made[:-1]:
        assert scratches.of(stream) is scratches.of(stream)
    assert scratches.of(made[0]) is first
    scratches.of(made[-1])  # the one used longest ago was made[1]'s
    assert scratches.of(made[0]) is first
    assert len(scratches._by_stream) == MOST_STREAMS
    assert 2 not in scratches._by_stream
