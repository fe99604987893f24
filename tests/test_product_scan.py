"""A batch by matrix products: the same covers, answers and counters as a scan query by query."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import halfspace
from halfspace import cover, product_scan, scan
from halfspace.inputs import as_queries
from halfspace.jit import Bound
from halfspace.product_scan import GROUP, PRODUCT, cover_products, group_size, products_pay

from . import oracle
from .datasets import DATASETS
from .sizes import JIT, TILE, examples
from .strategies import DTYPES, problems, queries

N = 5 * TILE + 7 if JIT else TILE + 7
M = GROUP if JIT else 6

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)


def by_products(tiles_scan, normals, offsets, closed, stop_at_first, indptr, parts, *room):
    """A cover kernel that takes products whatever they cost."""
    tiles, d, _ = tiles_scan.tiles.data.shape
    size = group_size(len(offsets), tiles, d, len(parts))
    return cover_products(tiles_scan.tiles, normals, offsets, closed, size, indptr, parts, *room)


def covers(kernel, index, normals, offsets, closed=True):
    """Covers query by query: parts, masks, count and counters of work."""
    rows = as_queries(normals, offsets, index.dim)
    blocks = cover.covers(
        Bound(kernel, index.structure),
        rows.normals,
        rows.offsets,
        closed=closed,
        stop_at_first=False,
        nanoseconds=0.0,
        consume=cover.keep,
    )
    found = []
    for block in blocks:
        for q, (a, b) in enumerate(zip(block.indptr[:-1], block.indptr[1:], strict=True)):
            parts, masks = block.parts[a:b].tolist(), block.masks[a:b].tolist()
            found.append((parts, masks, int(block.counts[q]), block.work[q].tolist()))
    return found


def check_same(index, normals, offsets):
    for closed in (True, False):
        want = covers(scan.cover_scan, index, normals, offsets, closed)
        assert covers(by_products, index, normals, offsets, closed) == want


def cloud(n, d, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(dtype)


@pytest.fixture
def always(monkeypatch):
    """Products however small the batch, and a record of the sizes of groups."""
    sizes = []

    def spy(*arguments):
        sizes.append(arguments[4])
        return cover_products(*arguments)

    monkeypatch.setattr(scan, "products_pay", lambda group, n, d: group > 0)
    monkeypatch.setattr(scan, "cover_products", spy)
    return sizes


@each_dtype
@examples(1.5)
@given(data=st.data())
def test_hard_inputs(dtype, data):
    points, normals, offsets = data.draw(problems(dtype, (1, 2, 3, 8, 17), max_m=6))
    if len(points):
        check_same(halfspace.Scan(points), normals, offsets)


@pytest.mark.parametrize("dataset", DATASETS)
@each_dtype
@examples(0.03)
@given(data=st.data())
def test_every_data_set(dataset, dtype, data):
    """All answers through the public face, against rational arithmetic."""
    points = DATASETS[dataset](8, np.random.default_rng(8), dtype)
    normals, offsets = data.draw(queries(points, min_m=2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "products_pay", lambda group, n, d: n > 0)
        index = halfspace.Scan(points, weights=np.arange(len(points)))
        for closed in (True, False):
            pairs = zip(normals, offsets, strict=True)
            want = [oracle.report(points, w, b, closed) for w, b in pairs]
            got = index.report(normals, offsets, closed=closed)
            assert [ids.tolist() for ids in got] == want
            assert index.count(normals, offsets, closed=closed).tolist() == list(map(len, want))
            assert index.sum(normals, offsets, closed=closed).tolist() == list(map(sum, want))
            assert index.any(normals, offsets, closed=closed).tolist() == list(map(bool, want))


@each_dtype
@pytest.mark.parametrize("d", [3, 16])
def test_all_points_on_the_plane(dtype, d, always):
    """Equal points, offsets at their score and one float beside it: the margin settles nothing."""
    points = np.full((TILE + 3, d), 0.1, dtype)
    normal = np.random.default_rng(d).standard_normal(d)
    score = oracle.rounded(oracle.scores(points[:1], normal)[0])
    offsets = np.array([np.nextafter(score, -np.inf), score, np.nextafter(score, np.inf)])
    index = halfspace.Scan(points)
    for closed in (True, False):
        want = [oracle.report(points, normal, b, closed) for b in offsets]
        got = index.report(np.tile(normal, (3, 1)), offsets, closed=closed)
        assert [ids.tolist() for ids in got] == want
    assert index.work(normal, offsets).exact_tests.tolist() == [len(points)] * 3
    assert set(always) == {3}


@each_dtype
def test_ties_of_small_integers(dtype):
    rng = np.random.default_rng(0)
    points = rng.integers(-2, 3, (N, 16)).astype(dtype)
    normals, offsets = rng.integers(-2, 3, (M, 16)), rng.integers(-4, 5, M)
    index = halfspace.Scan(points)
    check_same(index, normals, offsets)
    scores = normals @ points.T.astype(int)
    closed = covers(by_products, index, normals, offsets)
    opened = covers(by_products, index, normals, offsets, closed=False)
    assert [c[2] for c in closed] == (scores >= offsets[:, None]).sum(axis=1).tolist()
    assert [c[2] for c in opened] == (scores > offsets[:, None]).sum(axis=1).tolist()


@each_dtype
def test_a_product_that_is_wrong_within_its_bound_changes_nothing(dtype, monkeypatch):
    """Scores off by all that rounding allows, either way, as some BLAS might give them."""
    d, unit = 16, np.finfo(dtype).eps / 2
    points, rng = cloud(N, d, dtype), np.random.default_rng(1)
    normals = rng.standard_normal((M, d))
    offsets = np.einsum("qj,qj->q", normals, points[rng.integers(N, size=M)])
    index = halfspace.Scan(points)
    want = covers(scan.cover_scan, index, normals, offsets)
    assert sum(counters[2] for *_, counters in want)
    exact_product = np.matmul

    def crooked(narrows, chunk, out):
        lengths = np.linalg.norm(narrows.astype(float), axis=1)[:, None]
        bound = (d + 4) * unit * lengths * np.linalg.norm(chunk.astype(float), axis=1)[:, None]
        wide = exact_product(narrows.astype(float), chunk.astype(float))
        out[:] = wide + 0.99 * rng.choice([-1.0, 1.0], wide.shape) * bound

    monkeypatch.setattr(product_scan.np, "matmul", crooked)
    assert covers(by_products, index, normals, offsets) == want


@each_dtype
def test_scores_that_overflow_beside_others(dtype):
    """Points of one tile that overflow or are NaN do not spoil the rest, nor warn."""
    points = cloud(3 * TILE, 8, dtype)
    largest = np.finfo(dtype).max
    points[TILE : TILE + 9] = np.random.default_rng(0).choice([-largest, largest], (9, 8))
    points[5] = np.finfo(dtype).smallest_subnormal
    index, normals = halfspace.Scan(points), cloud(6, 8, np.float64)
    normals[3] *= 1e300
    normals[4] *= 1e-300
    offsets = np.array([0.0, 1.0, -1.0, 1e300, 1e300, float(largest)])
    check_same(index, normals, offsets)
    pairs = zip(normals, offsets, strict=True)
    want = [oracle.count(points, w, b) for w, b in pairs]
    assert [c[2] for c in covers(by_products, index, normals, offsets)] == want


def test_planes_that_are_none_among_others():
    points = cloud(N, 8)
    normals = cloud(8, 8)
    normals[[1, 2, 5, 6]] = 0.0
    offsets = np.array([0.5, 0.0, 1.0, np.inf, -np.inf, -1.0, -np.inf, 0.25])
    index = halfspace.Scan(points)
    check_same(index, normals, offsets)
    found = covers(by_products, index, normals, offsets)
    assert [c[2] for c in found][1:7] == [N, 0, 0, N, N, N]
    assert [c[3][1] for c in found] == [N, 0, 0, 0, 0, 0, 0, N]
    assert covers(by_products, index, normals, offsets, closed=False)[1][2] == 0


@pytest.mark.parametrize("n", [1, TILE - 1, TILE, TILE + 1, 2 * TILE, N])
def test_any_number_of_points(n):
    normals = cloud(M, 9)
    check_same(halfspace.Scan(cloud(n, 9)), normals, np.linspace(-9.0, 3.0, M))


@pytest.mark.parametrize("m", [1, 2, GROUP - 1, GROUP, GROUP + 1, 2 * GROUP, 600])
def test_any_number_of_queries(m, always):
    n = TILE + 5 if JIT else 5
    points, normals, offsets = cloud(n, 8), cloud(m, 8, seed=1), np.full(m, 0.5)
    got = halfspace.Scan(points).count(normals, offsets)
    expected = (normals.astype(float) @ points.T.astype(float) >= 0.5).sum(axis=1)
    assert got.tolist() == expected.tolist()
    assert sum(always) == m
    assert max(always) == min(m, GROUP)


def test_any_size_of_chunk(monkeypatch):
    index, normals = halfspace.Scan(cloud(N, 8)), cloud(M, 8, seed=1)
    want = covers(scan.cover_scan, index, normals, np.full(M, 0.5))
    tile = M * TILE * 4
    for size in (1, tile, 2 * tile - 1, 2 * tile, 100 * tile):
        monkeypatch.setattr(product_scan, "SCORE_BYTES", size)
        assert covers(by_products, index, normals, np.full(M, 0.5)) == want


def test_room_for_few_queries(always, monkeypatch):
    points, normals, offsets = cloud(N, 8), cloud(M, 8, seed=1), np.full(M, 0.5)
    index = halfspace.Scan(points)
    tiles = len(index.structure.tiles.data)
    want = covers(scan.cover_scan, index, normals, offsets)
    monkeypatch.setattr(cover, "BLOCK_PARTS", 3 * tiles + 1)
    assert covers(by_products, index, normals, offsets) == want
    always.clear()
    index.count(normals, offsets)
    assert set(always) == {3, M % 3} - {0}


def test_groups_are_for_products_that_stay_in_their_thread():
    for d in (8, 64, 65, 100, 128, 1000, 4096):
        assert 1 <= group_size(1000, 10, d, 1 << 20) <= GROUP
        assert group_size(1000, 10, d, 1 << 20) * d * TILE <= PRODUCT
    assert group_size(1000, 10, 10_000, 1 << 20) == 0
    assert group_size(1000, 10, 8, 59) == 5
    assert group_size(3, 0, 8, 0) == 0


def test_where_products_pay(monkeypatch):
    assert products_pay(64, 10_000, 8)
    assert products_pay(2, 1_000_000, 32)
    assert not products_pay(64, 1_000_000, 4)
    assert not products_pay(1, 1_000_000, 512)
    assert not products_pay(0, 1_000_000, 10_000)
    assert not products_pay(64, 64, 16)
    taken = []
    monkeypatch.setattr(scan, "cover_products", lambda *a: taken.append(a[4]) or cover_products(*a))
    n, d = (2_100, 8) if JIT else (300, 64)
    index, normals = halfspace.Scan(cloud(n, d)), cloud(64, d)
    index.count(normals[0], 1.0)
    index.any(normals, 1.0)
    assert not taken
    assert index.count(normals, 8.0).sum() == index.report(normals, 8.0).indptr[-1]
    assert taken == [64, 64]


def test_any_stops_at_the_first_point(always):
    index, normals = halfspace.Scan(cloud(N, 8)), cloud(8, 8, seed=1)
    normals[0] = 0.0
    assert index.any(normals, 0.5).tolist() == [False] + [True] * 7
    assert not always


def test_threads_change_nothing(always, monkeypatch):
    monkeypatch.setattr("halfspace.parallel.PARALLEL_NANOSECONDS", 0)
    index, normals = halfspace.Scan(cloud(N, 8)), cloud(M, 8, seed=1)
    offsets = np.linspace(-2.0, 4.0, M)
    before, want = halfspace.get_threads(), index.report(normals, offsets)
    try:
        for threads in (1, 2, 3):
            halfspace.set_threads(threads)
            got = index.report(normals, offsets)
            assert got.indptr.tolist() == want.indptr.tolist()
            assert got.indices.tolist() == want.indices.tolist()
    finally:
        halfspace.set_threads(before)
    assert len(set(always)) > 1


def test_ids_of_the_caller(always):
    points, ids = cloud(N, 8), np.random.default_rng(0).permutation(N) * 7 - 100
    normals = cloud(M, 8, seed=1)
    got = halfspace.Scan(points, ids=ids).report(normals, 0.5)
    for found, w in zip(got, normals, strict=True):
        assert found.tolist() == oracle.report(points, w, 0.5, ids=ids)
