"""Kernels one by one, where the sizes of the other tests do not reach."""

import numpy as np
import pytest

import halfspace
from halfspace import code_rows, predicate
from halfspace.cuda import codes, runtime, scoring, target, top, words
from halfspace.cuda.engine import Engine
from halfspace.cuda.finders import finder_of
from halfspace.cuda.runtime import by_tiles, get, line, put
from halfspace.cuda.scratch import Scratch

from .. import oracle


def engine_of(n, weights):
    """An engine for n points, of which nothing but their number is asked."""
    index = halfspace.Scan(np.zeros((n, 1), np.float32))
    return Engine(finder_of(index), put(index._ids), put(weights))


def test_bits_are_counted_listed_and_added_up_across_pieces():
    n = 32 * words.CHUNK * words.PIECE + 500
    rng = np.random.default_rng(0)
    engine, scratch = engine_of(n, rng.integers(0, 100, (n, 2)).astype(np.float64)), Scratch(0)
    members = [np.sort(rng.choice(n, size, replace=False)) for size in (700, 0, 3)]
    members[2][-1] = n - 1
    bits = np.zeros((3, 32 * engine.width), np.uint8)
    for row, ids in zip(bits, members, strict=True):
        row[ids] = 1
    packed = put(np.packbits(bits, axis=1, bitorder="little").view(np.uint32))
    assert engine.count(packed, scratch).tolist() == [700, 0, 3]
    listed, starts = engine.list(packed, engine.ids, np.int64, scratch)
    assert starts.tolist() == [0, 700, 700, 703]
    assert get(listed).tolist() == np.concatenate(members).tolist()
    weights = get(engine.weights)
    want = [weights[ids].sum(axis=0).tolist() for ids in members]
    assert engine.sum(packed, scratch).tolist() == want


@pytest.mark.parametrize("bits", code_rows.GROUPS)
@pytest.mark.parametrize("shared", codes.SHARED)
def test_codes_pass_as_on_the_processor(bits, shared):
    rng = np.random.default_rng(bits)
    size, _ = code_rows.GROUPS[bits]
    tiles, m, width = 2, 3, code_rows.room_of(2 * size, bits)
    packed = rng.integers(0, 256, (tiles, 2 * size, 256)).astype(np.uint8)
    weights = rng.integers(-127, 128, (m, width)).astype(np.int8)
    products = oracle.unpacked(packed, bits) @ weights.T.astype(np.int64)
    bars = np.median(products, axis=0).astype(np.int32)
    always = np.zeros((tiles, 2), np.uint32)
    always[1, 0] = 5
    opened = np.array([[3], [1], [2]], np.uint32)
    passing = put(np.zeros((m, 2 * tiles), np.uint32))
    codes.test_codes[shared, bits](
        0,
        *by_tiles(tiles, -(-m // shared)),
        put(packed.view(np.uint32)),
        128,
        put(weights.view(np.int32)),
        put(bars),
        put(np.zeros((m, 2), np.int32)),
        put(opened),
        put(always),
        passing,
    )
    want = (products >= bars).T & np.repeat((opened >> np.arange(2)) & 1, 64, axis=1).astype(bool)
    want[:, [64, 66]] = True
    got = np.unpackbits(get(passing).view(np.uint8), axis=1, bitorder="little").astype(bool)
    assert np.array_equal(got, want)


def test_four_products_at_the_ends_of_bytes():
    codes_, weights = np.array([0, 255, 255, 7], np.uint8), np.array([-127, -127, 127, -1], np.int8)
    word, weight = codes_.view(np.uint32)[0], weights.view(np.int32)[0]
    assert target.dot4_by_bytes(word, weight, 10) == 10 - 7
    assert target.dot4_by_bytes(np.uint32(2**32 - 1), np.int32(-1), 0) == -4 * 255


@pytest.mark.parametrize("shared", scoring.SHARED)
@pytest.mark.parametrize("d", [7, 8, 17])
def test_tiles_of_any_dimension_and_batch(shared, d):
    rng = np.random.default_rng(d)
    points = rng.integers(-3, 4, (65, d)).astype(np.float32)
    normals = rng.integers(-3, 4, (shared + 1 if shared > 1 else 1, d)).astype(np.float64)
    index = halfspace.Scan(points)
    got = index.to("cuda").report(normals, 2.0)
    assert [ids.tolist() for ids in got] == [oracle.report(points, w, 2.0) for w in normals]


def test_trees_of_two_levels():
    """Whole nodes, straddling ones and those outside, on the way from the root to the tiles."""
    rng = np.random.default_rng(0)
    points = rng.standard_normal((4160, 2)).astype(np.float32)
    points[4096:] += 10.0  # a node of the upper level of their own
    host = halfspace.KDTree(points)
    normals, offsets = np.array([[1.0, 0.1], [-1.0, 0.1], [1.0, 1.0]]), np.array([2.0, 2.0, 0.5])
    index = host.to("cuda")
    got, want = index.report(normals, offsets), host.report(normals, offsets)
    assert [ids.tolist() for ids in got] == [ids.tolist() for ids in want]
    assert index.any(normals, [2.0, 99.0, 0.5]).tolist() == [True, False, True]
    for found, known in zip(index.work(normals, offsets), host.work(normals, offsets), strict=True):
        assert found.tolist() == known.tolist()


def test_heads_of_many_tiles():
    rng = np.random.default_rng(0)
    host = halfspace.Cascade(rng.standard_normal((64 * 64 + 3, 1)).astype(np.float32))
    normals, offsets = np.array([[1.0], [-1.0]]), np.array([2.5, np.inf])
    index = host.to("cuda")
    got, want = index.report(normals, offsets), host.report(normals, offsets)
    assert [ids.tolist() for ids in got] == [ids.tolist() for ids in want]
    assert len(got[0]) > 3
    assert index.work(normals, offsets).nodes_visited.tolist() == [65, 0]
    assert index.any(normals, offsets).tolist() == [True, False]


def test_best_of_a_sample(monkeypatch):
    """The bar comes from some of the points; those that are not in the sample are found too."""
    monkeypatch.setattr(top, "LEAST_SLICES", 1)
    monkeypatch.setattr(top, "SAMPLED_SHARE", 2)
    points = np.random.default_rng(0).integers(-20, 21, (300, 3)).astype(np.float32)
    index = halfspace.Scan(points).to("cuda")
    normals = np.array([[1.0, 2.0, 0.5], [0.0, 0.0, 1.0]])
    assert index.top(normals, 5).ids.tolist() == [oracle.top(points, w, 5) for w in normals]


def test_a_normal_of_many_ties_is_sorted_alone(monkeypatch):
    monkeypatch.setattr(top, "MOST_WASTE", 1)
    points = np.random.default_rng(0).standard_normal((66, 3)).astype(np.float32)
    normals = np.array([[1.0, 2.0, 0.5], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    ids = halfspace.Scan(points).to("cuda").top(normals, 2).ids
    assert ids.tolist() == [oracle.top(points, w, 2) for w in normals]


def test_scores_of_top_are_right_where_terms_cancel():
    big = 1.1 * 2.0**127
    points = np.array([[0.1, 0.2, 0.1], [0.1, 0.1, 0.1], [0.1, -0.1, 0.1]])
    best = halfspace.Scan(points).to("cuda").top([big, 1.3, -big], 3)
    assert best.ids.tolist() == [0, 1, 2]
    assert best.scores.tolist() == [0.2 * 1.3, 0.1 * 1.3, -0.1 * 1.3]


def test_parts_keep_their_source():
    twin = target.device(predicate.exact_sign)
    assert target.device(predicate.exact_sign) is twin
    limbs = np.zeros(predicate.LIMBS, np.int64)
    if target.SIMULATED:
        tiny = np.array([1e-200, 1.0])
        assert twin(tiny, tiny, tiny[:0], 1.0, limbs) == 1
        assert twin(tiny[:1], tiny[:1], tiny[:0], 0.0, limbs) == 1


def test_grids_hold_their_work():
    assert line(0)[0] == (0,)
    assert line(1)[0] == (1,)
    (blocks,), (threads,) = line(10**9)
    assert blocks * threads <= max(threads, runtime.resident_threads())
    grid, block = by_tiles(10**9, 3)
    assert block[0] == 64
    assert grid[1] <= 3
