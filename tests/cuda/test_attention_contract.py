"""What attention on a device owes its caller: where answers are, and clear errors."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from attention import Attended, Decoder, Error, KVCache, Sampled, TopR
from attention.cuda import CudaCache, CudaDecoder
from halfspace import cuda as on_device
from halfspace.cuda import runtime
from halfspace.cuda.scratch import Scratches
from halfspace.cuda.target import SIMULATED, cuda

from .structures import FEW

RNG = np.random.default_rng(0)
KEY, VALUE = RNG.standard_normal((2, FEW, 4)).astype(np.float32)
QUERY = RNG.standard_normal((2, 4))
FIELDS = ("output", "lse", "bound", "reported", "lse_bound", "sampled")


@pytest.fixture(scope="module")
def pair():
    host = Decoder(KEY, VALUE, structure="cascade")
    return host, host.to("cuda")


@pytest.fixture(scope="module")
def caches():
    cache = KVCache(4, num_kv_heads=2)
    cache.append(np.stack([KEY, KEY]), np.stack([VALUE, VALUE]))
    return cache, cache.to("cuda")


def test_there_and_back(pair, caches):
    for (host, moved), kind in ((pair, CudaDecoder), (caches, CudaCache)):
        assert type(moved) is kind
        assert host.to("cpu") is host
        assert moved.to("cpu") is host
        assert moved.to("cuda") is moved
        assert (len(moved), moved.device, moved.scale) == (FEW, "cuda:0", host.scale)
        assert moved.nbytes > FEW * 4 * 8
        assert "cuda:0" in repr(moved)
    assert (pair[1].dim, pair[1].value_dim) == (4, 4)
    assert caches[1].batch_shape == ()


def test_pickling(pair, caches):
    for moved in (pair[1], caches[1]):
        copy = pickle.loads(pickle.dumps(moved))
        assert type(copy) is type(moved)
        assert len(copy) == FEW


def same(got, want):
    for name in FIELDS:
        mine, other = getattr(got, name), getattr(want, name)
        assert not isinstance(mine, np.ndarray)
        assert SIMULATED or hasattr(mine, "__cuda_array_interface__")
        host = mine.copy_to_host()
        assert (host.dtype, host.tolist()) == (other.dtype, other.tolist())


def test_answers_on_the_device(pair, caches):
    decoder, cache = pair[1], caches[1]
    got = decoder.softmax(QUERY, Error(0.1), dtype=np.float32, on_device=True)
    assert isinstance(got, Attended)
    same(got, decoder.softmax(QUERY, Error(0.1), dtype=np.float32))
    same(decoder.relu(QUERY, threshold=0.0, on_device=True), decoder.relu(QUERY, threshold=0.0))
    asked = QUERY[:, None]
    same(cache.attend(asked, TopR(3), on_device=True), cache.attend(asked, TopR(3)))
    same(
        cache.relu(asked, threshold=0.0, power=2, on_device=True),
        cache.relu(asked, threshold=0.0, power=2),
    )


def test_streams(pair):
    _, decoder = pair
    want = decoder.softmax(QUERY, TopR(3)).output.tolist()
    assert decoder.softmax(QUERY, TopR(3), stream=cuda.stream()).output.tolist() == want
    assert decoder.softmax(QUERY, TopR(3), stream=0).output.tolist() == want
    with pytest.raises(TypeError, match=r"stream: expected .*, got str"):
        decoder.softmax(QUERY, TopR(3), stream="default")


def test_threads_at_once(pair):
    host, decoder = pair
    want = [host.softmax(query[None], TopR(5)).output.tolist() for query in QUERY]
    with ThreadPoolExecutor(2) as pool:
        asked = pool.map(lambda query: decoder.softmax(query[None], TopR(5)).output, QUERY)
    assert np.allclose(list(asked), want, atol=1e-12)


def test_no_queries_no_answers(pair):
    _, decoder = pair
    got = decoder.softmax(np.empty((0, 4)), Error(0.1))
    assert (got.output.shape, got.bound.shape) == ((0, 4), (0,))
    assert decoder.relu(np.empty((0, 4)), threshold=0.0).output.shape == (0, 4)


def test_no_keys_no_weight():
    decoder = Decoder(np.empty((0, 4)), np.empty((0, 2))).to("cuda")
    got = decoder.softmax(QUERY, TopR(3))
    assert got.output.tolist() == np.zeros((2, 2)).tolist()
    assert got.bound.tolist() == [0.0, 0.0]
    assert np.isneginf(got.lse).all()
    assert decoder.relu(QUERY, threshold=0.0).reported.tolist() == [0, 0]


def test_sampling_is_the_processors(pair, caches):
    for ask in (pair[1].softmax, caches[1].attend):
        with pytest.raises(TypeError, match=r"rule: expected .* on a device, got Sampled"):
            ask(QUERY[:, None], Sampled())
        with pytest.raises(TypeError, match=r"rule: expected TopR, .*, got 3"):
            ask(QUERY[:, None], 3)


def test_bad_queries(pair, caches):
    decoder, cache = pair[1], caches[1]
    for ask in (lambda q: decoder.softmax(q, TopR(3)), lambda q: decoder.relu(q, threshold=0.0)):
        with pytest.raises(TypeError, match=r"query: expected floats .* got complex128"):
            ask(QUERY.astype(complex))
        with pytest.raises(ValueError, match=r"query: expected head_dim 4 as of key, got 3"):
            ask(QUERY[:, :3])
    with pytest.raises(ValueError, match=r"query: expected a multiple of the cache's 2 heads"):
        cache.attend(np.zeros((3, 1, 4)))
    with pytest.raises(ValueError, match="threshold: expected a finite number"):
        cache.relu(np.zeros((2, 1, 4)), threshold=np.inf)
    with pytest.raises(TypeError, match="power: expected an integer, got float"):
        decoder.relu(QUERY, threshold=0.0, power=1.5)
    with pytest.raises(TypeError, match="dtype: expected a float of at most 64 bits, got int64"):
        decoder.softmax(QUERY, TopR(3), dtype=np.int64)


def test_dtypes_that_devices_have_none_of(pair):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    got = pair[1].softmax(QUERY, TopR(3), dtype=ml_dtypes.bfloat16)
    assert got.output.dtype == ml_dtypes.bfloat16
    with pytest.raises(TypeError, match=r"dtype: expected one of float16, .* got bfloat16"):
        pair[1].softmax(QUERY, TopR(3), dtype=ml_dtypes.bfloat16, on_device=True)


def test_arrays_of_torch():
    torch = pytest.importorskip("torch")
    rows = torch.ones((2, 1, 4), dtype=torch.bfloat16)
    cache = KVCache(4, num_kv_heads=2).to("cuda")
    cache.append(rows, rows)
    assert cache.attend(rows, TopR(1)).output.tolist() == np.ones((2, 1, 4)).tolist()


def test_no_room_on_the_device(pair, monkeypatch):
    class Refused(Exception):
        code = 2

    def allocate(shape, dtype):
        raise Refused("Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY")

    host, decoder = pair
    cache = KVCache(4)
    cache.append(KEY[None, :1], VALUE[None, :1])
    moved = cache.to("cuda")
    monkeypatch.setattr(runtime, "_allocate", allocate)
    expected = r"cuda: expected room for \d+ bytes on the device, it has .* left"
    with pytest.raises(on_device.OutOfDeviceMemory, match=expected):
        host.to("cuda")
    with pytest.raises(MemoryError, match=expected):
        decoder.softmax(RNG.standard_normal((99, 4)), TopR(3))
    for _ in range(2):
        with pytest.raises(MemoryError, match=expected):
            moved.append(*np.ones((2, 1, 600, 4), np.float32))
    monkeypatch.undo()
    assert decoder.softmax(QUERY, TopR(3)).reported.tolist() == [3, 3]
    assert moved.attend(np.ones((1, 1, 4)), TopR(3)).reported.tolist() == [[1]]


def test_no_such_device(pair, caches):
    for host in (pair[0], caches[0]):
        with pytest.raises(on_device.CudaUnavailable, match="expected device 99, found"):
            host.to("cuda:99")
        with pytest.raises(on_device.CudaUnavailable, match="expected device 99, found"):
            host.to("cuda").to("cuda:99")
        with pytest.raises(ValueError, match=r"device: expected .*, got 'gpu'"):
            host.to("gpu")


def test_no_device(pair, monkeypatch):
    monkeypatch.setattr(cuda, "is_available", lambda: False)
    with pytest.raises(on_device.CudaUnavailable, match="expected a CUDA device and its driver"):
        pair[1].softmax(QUERY, TopR(3))


def test_no_target(pair, monkeypatch):
    monkeypatch.setattr(runtime, "cuda", None)
    with pytest.raises(on_device.CudaUnavailable, match=r"pip install .*\[cuda\]"):
        pair[0].to("cuda")


def test_tokens_that_find_no_room_are_not_appended(monkeypatch):
    class NoRoom(Exception):
        code = 2

    def refuse(*_):
        raise NoRoom("OUT_OF_MEMORY")

    here, tokens = KVCache(4).to("cuda"), np.ones((2, 1, 3, 4), np.float32)
    with monkeypatch.context() as patch:
        patch.setattr(runtime, "_allocate", refuse)
        with pytest.raises(on_device.OutOfDeviceMemory):
            here.append(*tokens)
    assert len(here) == 0
    here.append(*tokens)
    assert here.attend(tokens[0], Error(1e-3)).reported.tolist() == [[1, 2, 3]]


def test_scratch_is_by_handles_not_by_objects():
    class Handle:
        def __int__(self):
            return 7

    class Stream:
        handle = Handle()

    scratches = Scratches()
    assert scratches.of(Stream()) is scratches.of(Stream())
