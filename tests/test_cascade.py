"""Cascade: answers are those of a scan, whatever was fitted, and it pays."""

import pickle

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import halfspace
from halfspace import basis as bases
from halfspace import cascade, cascade_fit, cover
from halfspace.cascade_stages import make_targets
from halfspace.code_rows import BLOCK
from halfspace.inputs import as_queries
from halfspace.integer_dot import AHEAD, rows_ahead, survivors
from halfspace.jit import kernel
from halfspace.tiles import LINE, TILE, popcount, used_lanes

from .datasets import DATASETS, cloud
from .sizes import JIT, LARGE, SMALL, examples
from .strategies import DTYPES, build_anyhow, choose_always, queries, rngs

PLENTY = 20_000 if JIT else 640


def assert_as_scan(index, points, normals, offsets, k=7):
    scan = halfspace.Scan(points)
    for closed in (True, False):
        got, want = (i.report(normals, offsets, closed=closed) for i in (index, scan))
        assert got.indptr.tolist() == want.indptr.tolist()
        assert np.array_equal(got.indices, want.indices)
        for ask in ("count", "any"):
            got, want = (getattr(i, ask)(normals, offsets, closed=closed) for i in (index, scan))
            assert got.tolist() == want.tolist()
    assert_same_top(index, scan, normals, k)


def assert_same_top(index, scan, normals, k):
    got, want = index.top(normals, k), scan.top(normals, k)
    assert got.ids.tolist() == want.ids.tolist()
    assert got.scores.tolist() == want.scores.tolist()


@pytest.mark.parametrize("dataset", DATASETS)
@examples(0.06)
@given(data=st.data(), rng=rngs(), d=st.sampled_from((3, 9, 33)), dtype=st.sampled_from(DTYPES))
def test_any_fit_answers_exactly(dataset, data, rng, d, dtype):
    points = DATASETS[dataset](d, rng, dtype)
    index = build_anyhow(halfspace.inputs.as_points(points), rng)
    assert_as_scan(index, points, *data.draw(queries(points)), k=data.draw(st.integers(1, 9)))


@pytest.mark.parametrize("queries", [1, 5])
def test_a_repeated_tie_is_decided_once(queries):
    points, normals = cloud(6 * TILE, 9), np.rint(8 * cloud(queries, 9, seed=1))
    points[::5] = np.rint(8 * points[0]) / 8
    offsets = normals @ points[0].astype(np.float64)  # small multiples of 1/8: no rounding
    index = halfspace.Cascade(points)
    assert_as_scan(index, points, normals, offsets)
    assert index.work(normals, offsets).exact_tests.tolist() == [1] * queries


@examples(0.06)
@given(data=st.data(), rng=rngs(), points=st.lists(st.integers(0, 3), min_size=1, max_size=200))
def test_ties_of_few_points_are_those_of_a_scan(data, rng, points):
    few = np.rint(2 * cloud(4, 9, seed=data.draw(st.integers(0, 9))))
    index = build_anyhow(few[points], rng)
    normals, row = few[:2] + few[2:], few[data.draw(st.integers(0, 3))]
    assert_as_scan(index, few[points], normals, (normals @ row).astype(np.float64))


@examples(0.06)
@given(data=st.data(), rng=rngs(), d=st.sampled_from((3, 9, 33)), dtype=st.sampled_from(DTYPES))
def test_one_query_is_answered_as_in_a_batch(data, rng, d, dtype):
    points = DATASETS[data.draw(st.sampled_from(sorted(DATASETS)))](d, rng, dtype)
    index = build_anyhow(halfspace.inputs.as_points(points), rng)
    normals, offsets = data.draw(queries(points))
    for closed in (True, False):
        batch, work = (ask(normals, offsets, closed=closed) for ask in (index.report, index.work))
        for i, query in enumerate(zip(normals, offsets, strict=True)):
            assert index.report(*query, closed=closed).tolist() == batch[i].tolist()
            assert index.count(*query, closed=closed) == len(batch[i])
            assert index.any(*query, closed=closed) == (len(batch[i]) > 0)
            assert [int(w[0]) for w in index.work(*query, closed=closed)] == [w[i] for w in work]


def test_one_query_stops_at_the_first_point():
    """All is inside, and nothing beyond the first head is looked at."""
    index = halfspace.Cascade(cloud(3 * TILE * TILE if JIT else SMALL, 8) + 100.0)
    found = index._covers(as_queries(np.ones(8), 0.0, 8), True, cover.keep, stop_at_first=True)
    assert found[0].counts.tolist() == [1]
    assert found[0].work[0, 0] <= TILE


def test_top_where_float32_scores_overflow():
    """The first point's score is 2e38, but summed in order it overflows on the way."""
    points = np.array([[2e38, 2e38, -2e38], [3e38, 0, 0]], np.float32)
    for index in (halfspace.Cascade(points), halfspace.Scan(points)):
        assert index.top(np.ones(3), 1).ids.tolist() == [1]


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5, 63, 64, 65, 300 if JIT else 130])
def test_batches_of_all_kinds_of_queries(m):
    rng = np.random.default_rng(m)
    points = cloud(10 * SMALL if JIT else SMALL, 8)
    normals = rng.standard_normal((m, 8))
    normals[rng.random(m) < 0.2] = 0.0
    offsets = rng.choice([-np.inf, np.inf, 0.0, 1.0, 2.0, 6.0], m)
    assert_as_scan(halfspace.Cascade(points), points, normals, offsets)


@pytest.mark.parametrize("rows", [False, True])
def test_top_raises_its_bar_and_makes_room(rows, monkeypatch):
    """Points in ascending order are all the best so far; equal ones cannot be told apart."""
    choose_always(monkeypatch, 8, 4 if rows else 8, rows)
    n, k = (6000, 40) if JIT else (1300, 3)
    rising = cloud(n, 8)
    rising = rising[np.argsort(rising[:, 0])]
    equal = np.repeat(cloud(2, 8), n // 2, axis=0)
    for points in (rising, equal):
        normals = np.eye(8)[:2]
        assert_same_top(halfspace.Cascade(points), halfspace.Scan(points), normals, k)


def test_top_reads_points_without_codes_wherever_they_are(monkeypatch):
    """More tiles than come first, and a few points in each that the codes say nothing of."""
    rng, n, d = np.random.default_rng(0), 24 * TILE, 4
    points = rng.standard_normal((n, d)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    points[n // 2 :] *= np.float32(0.3)
    far = np.arange(n // 2 + 5, n, TILE)
    inner, fit = np.delete(points, far, axis=0), cascade_fit.fit_cascade
    points[far] *= 8
    monkeypatch.setattr(
        cascade, "fit_cascade", lambda *_: fit(inner, None, None)._replace(opened=1.0)
    )
    index, scan = halfspace.Cascade(points), halfspace.Scan(points)
    assert np.count_nonzero(index.structure.always) == len(far)
    for w in rng.standard_normal((6, d)):
        assert index.top(w, 3).ids.tolist() == scan.top(w, 3).ids.tolist()


def test_tiles_that_only_points_without_codes_open_are_read_for_them_alone():
    points = cloud(PLENTY, 16)
    points[::130] *= np.float32(1e6)
    index, normal = halfspace.Cascade(points), np.ones(16)
    assert index.bytes_read(normal, 1e12) == index.structure.heads.codes.nbytes
    for offset in (1e12, 1e5, 8.0):
        want = halfspace.Scan(points).report(normal, offset)
        assert index.report(normal, offset).tolist() == want.tolist()


def test_points_out_of_reach_are_left_to_the_exact_stage(monkeypatch):
    monkeypatch.setattr(cascade_fit, "REACH", 0.7)
    points = cloud(2 * SMALL, 8)
    index = halfspace.Cascade(points)
    marked = sum(int(lanes).bit_count() for lanes in index.structure.always)
    assert 10 < marked < len(points)
    normals = np.random.default_rng(1).standard_normal((9, 8))
    assert_as_scan(index, points, normals, np.linspace(-5, 5, 9))


@pytest.mark.parametrize("distance", [1e2, 1e6, 1e30])
def test_points_far_out_do_not_blunt_the_filters(distance):
    points = cloud(PLENTY, 64)
    points[5::320] *= np.float32(distance)
    index = halfspace.Cascade(points)
    normals = cloud(4, 64, np.float64, seed=1)
    assert passing(index, normals, share=0.01) < 0.3
    assert_as_scan(index, points, normals, np.full(4, 20.0))


def test_a_basis_that_overflows_settles_nothing(monkeypatch):
    def broken(sample, normals, reach):
        d = sample.shape[1]
        forward = np.eye(d, dtype=np.float32)
        inverse = np.where(np.add.outer(np.arange(d), np.arange(d)) % 2, 1.7e308, -1.7e308)
        with np.errstate(all="ignore"):
            return bases._with_errors(np.zeros(d), np.ones(d), forward, inverse, 100.0)

    monkeypatch.setattr(cascade_fit, "fit_basis", broken)
    points = cloud(SMALL, 8)
    assert_as_scan(halfspace.Cascade(points), points, np.ones((2, 8)), np.array([1.0, 3.0]))


def test_queries_that_lie_cost_only_speed():
    rng = np.random.default_rng(2)
    points, frame = cloud(LARGE // 2, 16), np.linalg.qr(rng.standard_normal((16, 16)))[0]
    told, asked = (rng.standard_normal((50, 8)) @ half for half in np.split(frame, 2))
    index = halfspace.Cascade(points, queries=told)
    assert_as_scan(index, points, asked, np.full(50, 8.0))


@pytest.mark.parametrize(
    "told", [np.zeros((3, 8)), np.ones(8), np.full((2, 8), 1e308), np.full((2, 8), 5e-324), []]
)
def test_queries_of_little_use(told):
    points = cloud(SMALL, 8)
    told = np.reshape(told, (-1, 8)) if np.size(told) == 0 else told
    for expected_count in (None, 0, 10**12, 10**400):
        index = halfspace.Cascade(points, queries=told, expected_count=expected_count)
        assert_as_scan(index, points, np.eye(8), np.linspace(-2, 2, 8))


@pytest.mark.parametrize("dtype", DTYPES)
def test_kernels_are_compiled_once_whatever_the_number_of_tiles(dtype):
    shapes = [(0, 3), (5, 3), (TILE + 1, 3), (TILE + 1, 1)]
    kinds = {numba.typeof(halfspace.Cascade(cloud(*shape, dtype)).structure) for shape in shapes}
    assert len(kinds) == 1


def test_a_pickle_holds_points_once():
    index = halfspace.Cascade(cloud(SMALL, 40))
    copy = pickle.loads(pickle.dumps(index))
    assert copy.nbytes == index.nbytes
    assert copy.structure.leading.codes.ctypes.data % LINE == 0
    assert np.shares_memory(copy.structure.tiles.data, copy.structure.points)
    assert_as_scan(copy, cloud(SMALL, 40), np.eye(40)[:5], np.full(5, 1.0))


# What it is good for.


@kernel
def _passing(index, normals, offsets):
    m, count, total = offsets.size, index.tiles.ranks.size, 0
    targets = make_targets(index, normals, offsets, True, m)
    sums, out = np.empty(TILE, np.int32), np.empty(BLOCK, np.uint64)
    for t in range(index.tiles.norms.size):
        for q in range(m):
            survivors(
                index.leading.codes, t, 0, targets.leading, q, 1, targets.bars,
                index.leading.bits, sums, out,
            )  # fmt: skip
            total += popcount((out[0] | index.always[t]) & used_lanes(count, t))
    return total / (m * count)


def passing(index, normals, share=0.001):
    """Share of the points that leading codes let pass for half-spaces of a share of the points."""
    points = index.structure.points[: len(index)]
    return _passing(index.structure, normals, np.quantile(points @ normals.T, 1 - share, axis=0))


def test_few_points_pass_the_leading_codes():
    index = halfspace.Cascade(cloud(PLENTY, 64))
    assert 0.0009 < passing(index, np.random.default_rng(1).standard_normal((8, 64))) < 0.1


def test_a_basis_for_the_queries_lets_fewer_points_pass(monkeypatch):
    choose_always(monkeypatch, 14, 8, True)
    rng = np.random.default_rng(3)
    frame = np.linalg.qr(rng.standard_normal((32, 32)))[0]
    normals = (rng.standard_normal((300, 32)) * np.exp(-np.arange(32) / 4)) @ frame
    points = cloud(PLENTY, 32)
    aware, blind = (halfspace.Cascade(points, queries=told) for told in (normals[:200], None))
    assert passing(aware, normals[200:216]) < 0.2 * passing(blind, normals[200:216])


@pytest.mark.skipif(not JIT, reason="interpreted, so many points take too long")
@pytest.mark.parametrize("d", [16, 32, 64, 128])
def test_memory_is_at_most_one_and_a_half_times_that_of_the_points(d):
    assert halfspace.Cascade(cloud(PLENTY, d)).nbytes <= 1.5 * PLENTY * d * 4


def test_explain_shows_the_stages(monkeypatch):
    choose_always(monkeypatch, 6, 4, True)
    index = halfspace.Cascade(cloud(SMALL, 8))
    text = index.explain()
    assert "leading  6 of 8 coordinates, 4 bits: 4 bytes a point, 2.000% pass" in text
    assert "rows     8 bytes a point that passed, 0.100% stay open" in text
    assert "ms a query" in text


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"queries": np.ones((3, 7))}, ValueError, "expected shape"),
        ({"queries": [[np.nan] * 8]}, ValueError, "finite"),
        ({"queries": [["a"] * 8]}, TypeError, "expected floats"),
        ({"expected_count": 1.5}, TypeError, "expected_count"),
        ({"expected_count": -1}, ValueError, "expected_count"),
    ],
)
def test_options_are_checked(options, error, message):
    with pytest.raises(error, match=message):
        halfspace.Cascade(cloud(SMALL, 8), **options)


def test_bytes_read_are_those_of_open_tiles():
    index = halfspace.Cascade(cloud(SMALL, 8))
    codes, heads = index.structure.leading.codes, index.structure.heads.codes
    assert index.bytes_read(np.ones(8), -1e9) <= codes.nbytes + heads.nbytes
    assert index.bytes_read(np.ones(8), 1e9) == heads.nbytes
    assert index.bytes_read(np.ones((3, 8)), 0.0).shape == (3,)


def test_few_queries_are_not_taken_for_all_there_will_be():
    """A basis that holds nothing but them would let most points pass for others."""
    points, rng = cloud(PLENTY, 64), np.random.default_rng(1)
    told = halfspace.Cascade(points, queries=rng.standard_normal((50, 64)))
    fresh = rng.standard_normal((8, 64))
    assert passing(told, fresh) < 1.5 * passing(halfspace.Cascade(points), fresh)


@pytest.mark.skipif(not JIT, reason="interpreted, so many points take too long")
def test_normals_like_the_points_are_expected_where_nobody_says():
    """Along a decaying spectrum they let most tiles be skipped."""
    rng, d = np.random.default_rng(1), 32
    points, normals = (
        rng.standard_normal((rows, d)) / np.arange(1, d + 1) for rows in (PLENTY, 108)
    )
    untold, told = (halfspace.Cascade(points, queries=q) for q in (None, normals[8:]))
    offsets = np.quantile(points @ normals[:8].T, 0.999, axis=0)
    read = [index.work(normals[:8], offsets).points_touched.mean() for index in (untold, told)]
    assert read[0] <= 1.5 * read[1] < 0.3 * PLENTY


# What is asked for from memory.


@kernel
def _ahead(t, first, left, rows, every):
    return rows_ahead(t, first, left, rows, every)


@given(rng=rngs(), rows=st.integers(1, 40), at=st.integers(0, TILE - 1), few=st.booleans())
def test_memory_is_asked_for_what_is_read_next(rng, rows, at, few):
    word = int(rng.integers(0, 2**64, dtype=np.uint64))
    if few:
        word &= int(rng.integers(0, 2**64, dtype=np.uint64)) & 0xFFF00000000000FF
    left = [lane for lane in range(at + 1, TILE) if word >> lane & 1]
    mask, steps = np.uint64(sum(1 << lane for lane in left)), max(1, AHEAD // rows)
    want = (left[steps - 1] - at) * rows if len(left) >= steps else 0
    assert _ahead(640 + at, 640, mask, rows, False) == want
    assert _ahead(640 + at, 640, mask, rows, True) == AHEAD
