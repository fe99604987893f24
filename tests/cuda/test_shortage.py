"""A device without room: the error says so wherever it strikes, and answers are right after it."""

import itertools
import re

import numpy as np
import pytest

import halfspace
from attention import Decoder, Error, KVCache, TopR
from attention.cuda import averages, lister
from attention.cuda import heads as cuda_heads
from halfspace.cuda import OutOfDeviceMemory, runtime, target, top
from halfspace.cuda import index as cuda_index
from halfspace.cuda.scratch import Scratches
from halfspace.cuda.target import Kernel, cuda

RNG = np.random.default_rng(0)
POINTS = RNG.integers(-3, 4, (70, 3)).astype(np.float32)
NORMALS, OFFSETS = np.eye(3)[:2], np.array([1.0, 0.0])
SAID = r"cuda: expected room for (\d+ bytes|kernel \w+, .* threads,|more) on the device, it has "


class Refused(Exception):
    """What a driver says."""

    def __init__(self):
        self.code = 2
        super().__init__("Call to cuXyz results in CUDA_ERROR_OUT_OF_MEMORY")


@pytest.fixture
def fail_at(monkeypatch):
    """Let the i-th request for memory or a launch from now on fail, and that alone."""
    allocate, launch, left = runtime._allocate, Kernel._launch, [np.inf]

    def spend(asked):
        left[0] -= 1
        if left[0] == -1:
            raise Refused
        return asked()

    monkeypatch.setattr(runtime, "_allocate", lambda *given: spend(lambda: allocate(*given)))
    monkeypatch.setattr(Kernel, "_launch", lambda self, *given: spend(lambda: launch(self, *given)))

    def at(i):
        left[0] = i

    return at


def strike_everywhere(fail_at, ask, check):
    """Ask with a failure at each request in turn, check after each; how many there were."""
    for i in itertools.count():
        fail_at(i)
        try:
            ask()
        except MemoryError as error:
            failed = error
        else:
            failed = None
        fail_at(np.inf)
        check()
        if failed is None:
            return i
        assert isinstance(failed, OutOfDeviceMemory)
        assert re.match(SAID, str(failed))


@pytest.mark.parametrize("ask", ["report", "top"])
def test_reports(ask, fail_at):
    build, batch = {
        "report": (halfspace.Cascade, (NORMALS[0], 1.0)),
        "top": (halfspace.Scan, (NORMALS[0], 2)),
    }[ask]
    host = build(POINTS)
    index = host.to("cuda")

    def asked():
        index._scratches = Scratches()
        getattr(index, ask)(*batch)

    assert strike_everywhere(fail_at, asked, lambda: None) > 10
    want = host.report(NORMALS, OFFSETS).indices.tolist()
    assert index.report(NORMALS, OFFSETS).indices.tolist() == want
    assert strike_everywhere(fail_at, lambda: host.to("cuda"), lambda: None) > 3


def test_decoders_that_grow(fail_at):
    """What was held before is never taken for what the host has."""
    query, key, value = RNG.standard_normal((3, 72, 3))
    query = query[:1]
    host = Decoder(key[:70], value[:70], growing=True)
    here = host.to("cuda")
    host.extend(key[70:], 100.0 + value[70:])
    want = host.softmax(query, Error(0.0)).output

    def check():
        assert here.nbytes >= 0
        assert here.softmax(query, Error(0.0)).output == pytest.approx(want, rel=1e-9)

    for i in range(4):  # by arrays that are to be held
        fail_at(i)
        with pytest.raises(OutOfDeviceMemory, match=SAID):
            here.softmax(query, Error(0.0))
    fail_at(np.inf)
    check()
    fail_at(5)
    with pytest.raises(OutOfDeviceMemory, match=SAID):
        here.softmax(query[:, ::-1], Error(0.0))
    fail_at(np.inf)
    check()


def test_caches(fail_at):
    """Tokens are there or not, crops and reorders always."""
    rows = RNG.standard_normal((2, 2, 1, 72, 3)).astype(np.float32)
    host = KVCache(3, batch_shape=(2,))
    host.append(*rows[..., :70, :])
    here, query = host.to("cuda"), RNG.standard_normal((2, 1, 1, 3))

    def check():
        got = here.attend(query, TopR(9))
        assert len(here) == len(host)
        assert got.output == pytest.approx(host.attend(query, TopR(9)).output, rel=1e-6)

    def append(t):
        def appended():
            before = len(host)
            try:
                here.append(*rows[..., 70 : 70 + t, :])
            except MemoryError:
                assert len(host) == before
                assert here.nbytes >= 0
                raise

        return appended

    strike_everywhere(fail_at, append(1), check)  # in place
    strike_everywhere(fail_at, append(1 + 64 - 5), lambda: None)  # beyond what there is room for
    check()
    fail_at(0)
    here.crop(65)
    here.reorder([1, 0])
    assert len(here) == 65
    with pytest.raises(OutOfDeviceMemory, match=SAID):
        here.attend(query)
    assert here.nbytes == 0
    fail_at(np.inf)
    check()


def test_what_is_left_may_be_unknown(monkeypatch):
    def refuse():
        raise RuntimeError("no context")

    monkeypatch.setattr(target.cuda, "current_context", refuse)
    assert "it has an unknown number of bytes left" in str(target.shortage("more"))


def test_a_device_that_cannot_be_entered(monkeypatch):
    """Its context takes memory too."""

    class Full:
        def __len__(self):
            return 1

        def __getitem__(self, number):
            raise Refused

    monkeypatch.setattr(cuda, "gpus", Full())
    with pytest.raises(OutOfDeviceMemory, match=r"cuda: expected room for more on the device"):
        halfspace.Scan(POINTS).to("cuda")


def test_other_errors_of_launches_are_left_as_they_are(monkeypatch):
    def launch(*_):
        raise RuntimeError("unspecified launch failure")

    index = halfspace.Scan(POINTS).to("cuda")
    monkeypatch.setattr(Kernel, "_launch", launch)
    with pytest.raises(RuntimeError, match="unspecified launch failure"):
        index.count(NORMALS, OFFSETS)


# Scratch is what the limit allows.


def taken(scratches):
    """Bytes of scratch that are held."""
    return sum(room.size for room in scratches.of(0)._rooms.values())


@pytest.mark.parametrize(("n", "d"), [(3, 40), (200, 1)])
def test_scratch_of_queries_is_limited(n, d, monkeypatch):
    index = halfspace.Scan(RNG.standard_normal((n, d)), weights=np.ones((n, 3))).to("cuda")
    limit = 3 * index._engine.query_bytes
    monkeypatch.setattr(cuda_index, "SCRATCH_BYTES", limit)
    normals = RNG.standard_normal((5, d))
    for ask in (
        lambda: index.report(normals, 0.5),
        lambda: index.sum(normals, 0.5),
        lambda: index.count_polytope(normals[:2, None], np.full((2, 1), 0.5)),
    ):
        index._scratches = Scratches()
        ask()
        assert limit / 10 < taken(index._scratches) <= limit


def test_scratch_of_the_best_is_limited(monkeypatch):
    """That of the sample as well, and that of ties, which all are candidates."""
    index = halfspace.Scan(RNG.standard_normal((130, 3))).to("cuda")
    limit = 3 * (index._engine.query_bytes + 130 * top.CANDIDATE_BYTES)
    monkeypatch.setattr(cuda_index, "SCRATCH_BYTES", limit)
    normals = RNG.standard_normal((6, 3))
    normals[::3] = 0.0
    assert index.top(normals, 2).ids[::3].tolist() == [[0, 1]] * 2
    # Queries and their samples; candidates.
    assert taken(index._scratches) <= 2 * limit
    limit = index._engine.query_bytes + top.sample_bytes(index._engine, 2)
    monkeypatch.setattr(cuda_index, "SCRATCH_BYTES", limit)
    index._scratches = Scratches()
    index.top(normals[1:3], 2)
    assert index._scratches.of(0)._rooms["maxima"].size < limit


@pytest.mark.parametrize(("n", "m"), [(3, 20), (400, 8)])
def test_scratch_of_attention_is_limited(n, m, monkeypatch):
    """That of sums too, of which all rows have as many as that with the longest list."""
    key, value = RNG.standard_normal((2, n, 30))
    query = 30.0 * RNG.standard_normal((m, 30))
    query[0] = 0.0  # reads all
    decoder = Decoder(key, value, structure="cascade").to("cuda")
    want = decoder.softmax(query, Error(0.01)).output.tolist()
    heads = decoder._heads
    limit = 3 * max(
        lister.row_bytes(-(-n // 64), heads._held), lister.list_bytes(n, 1, n, 30 + averages.SUMS)
    )
    monkeypatch.setattr(cuda_heads, "SCRATCH_BYTES", limit)
    heads._scratches = Scratches()
    assert decoder.softmax(query, Error(0.01)).output.tolist() == want
    # Products; lists with their sums.
    assert limit / 10 < taken(heads._scratches) <= 2 * limit


def test_lists_in_pieces_have_room():
    """However uneven they are, lists and sums of a piece fit, or it is one row."""
    totals = np.array([10_000, 3, 3, 3, 0, 0, 9000, 9000, 5, 5, 5, 5])
    columns, room = 131, 1_000_000
    pieces = list(lister._pieces(totals, columns, room))
    assert [a for a, _ in pieces[1:]] == [b for _, b in pieces[:-1]]
    assert (pieces[0][0], pieces[-1][1]) == (0, len(totals))
    assert 2 < len(pieces) < len(totals)
    for a, b in pieces:
        some = totals[a:b]
        sums = 8 * columns * len(some) * -(-some.max() // averages.SPLIT)
        assert b == a + 1 or lister.LIST_BYTES * some.sum() + sums <= room


def test_tokens_are_copied_by_pieces(monkeypatch):
    monkeypatch.setattr(cuda_heads, "SCRATCH_BYTES", 1000)
    rows = RNG.standard_normal((2, 2, 1, 190, 3)).astype(np.float32)
    host = KVCache(3, batch_shape=(2,))
    host.append(*rows[..., :129, :])
    here, query = host.to("cuda"), RNG.standard_normal((2, 1, 1, 3))
    held = here._heads._held
    here.append(*rows[..., 129:, :])
    assert here._heads._held is held
    assert taken(here._heads._scratches) <= 2000
    want = host.attend(query, Error(0.0)).output
    assert here.attend(query, Error(0.0)).output == pytest.approx(want, rel=1e-6)
