"""Decoder and Attended as objects: pickled, unpacked, replaced; answers stay what they were."""

import pickle

import numba
import numpy as np
import pytest

import halfspace
from attention import Attended, Decoder, Error, TopR, dense, merge
from attention.coded_reading import coded_rows
from attention.cuts import Measures, cut_of
from attention.reading import softmax_rows
from attention.spread import unknown_spread

from .sizes import JIT


@pytest.fixture(params=["scan", "kd_tree", "cascade"])
def decoder(request):
    key, value = np.random.default_rng(0).standard_normal((2, 300, 3), dtype=np.float32)
    return Decoder(key, value, structure=request.param)


QUERIES = 3.0 * np.random.default_rng(1).standard_normal((4, 3))


def _compiled():
    """Versions of the kernels."""
    return sum(len(each.signatures) for each in (softmax_rows, coded_rows)) if JIT else 0


def test_a_pickled_decoder_answers_alike_and_compiles_nothing(decoder):
    want = decoder.softmax(QUERIES, Error(1e-2))
    compiled = _compiled()
    again = pickle.loads(pickle.dumps(decoder))
    got = again.softmax(QUERIES, Error(1e-2))
    assert np.array_equal(got.output, want.output)
    assert np.array_equal(got.bound, want.bound)
    if JIT:
        assert _compiled() == compiled


def test_attended_unpacks_to_four_and_keeps_its_lse_bound(decoder):
    got = decoder.softmax(QUERIES, Error(1e-2))
    output, lse, bound, reported = got
    assert output.shape == (4, 3)
    assert lse.shape == bound.shape == reported.shape == (4,)
    for copy in (got._replace(output=2.0 * output), pickle.loads(pickle.dumps(got))):
        assert np.array_equal(copy.lse_bound, got.lse_bound)
    assert np.isinf(Attended._make(got).lse_bound).all(), "four fields say nothing of the fifth"
    assert merge(got, got._replace(lse=lse)).output.shape == (4, 3)


def test_no_queries(decoder):
    got = decoder.softmax(np.empty((0, 3)), Error(1e-2))
    assert got.output.shape == (0, 3)
    assert got.bound.shape == (0,)


def test_one_query_and_many_take_the_same_kernels():
    measures = Measures(np.ones(1), np.zeros((1, 2)), np.ones((1, 2)), unknown_spread(2))
    for rule in (TopR(1), Error(0.1)):
        queries = (np.ones((1, m, 3)) for m in (1, 2))
        cuts = [
            cut_of(rule, some, np.full(len(some[0]), 9), measures, 1.0, 0.0)[0] for some in queries
        ]
        assert numba.typeof(cuts[0]) == numba.typeof(cuts[1])


@pytest.mark.parametrize("structure", ["scan", "kd_tree", "cascade"])
@pytest.mark.parametrize("narrow", ["key", "value"])
def test_keys_and_values_are_held_in_the_wider_of_their_floats(structure, narrow):
    wide = dict(zip(("key", "value"), np.random.default_rng(0).random((2, 90, 3)), strict=True))
    mixed = wide | {narrow: wide[narrow].astype(np.float32)}
    got = Decoder(**mixed, structure=structure).softmax(QUERIES, Error(1e-2))
    same = {name: array.astype(np.float64) for name, array in mixed.items()}
    want = Decoder(**same, structure=structure).softmax(QUERIES, Error(1e-2))
    assert all(np.array_equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize(
    ("lengths", "match"),
    [
        ([1, 2], r"lengths: expected integers of shape \(4,\)"),
        ([1.0, 2.0, 3.0, 4.0], "lengths: expected integers"),
        ([1, 2, 3, 301], "lengths: expected 0 … 300, got 301 in row 3"),
        ([-1, 2, 3, 4], "lengths: expected 0 … 300, got -1 in row 0"),
    ],
)
def test_lengths_are_checked(lengths, match):
    key, value = np.random.default_rng(0).standard_normal((2, 300, 3))
    with pytest.raises(ValueError, match=match):
        Decoder(key, value, structure="scan").softmax(QUERIES, Error(1e-2), lengths=lengths)


@pytest.mark.skipif(not JIT, reason="building levels takes interpreted kernels too long")
def test_structures_that_copy_keys_are_refused():
    keys = np.random.default_rng(0).standard_normal((4_000, 2))
    with pytest.raises(ValueError, match="structure: expected one without copies of points"):
        Decoder(keys, keys, structure="shallow_cuttings")
    assert type(Decoder(keys, keys)._head.index) is halfspace.KDTree


@pytest.mark.parametrize(("seed", "scale"), [(87, 1e5), (87, 1e7), (93, 1e7)])
def test_equal_keys_that_are_dropped_are_missed_however_large_scores_are(seed, scale):
    # The key whose code promises most scores far below the best one, which others equal.
    rng = np.random.default_rng(seed)
    key = np.repeat(rng.standard_normal((40, 4)), 8, axis=0)
    value, query = rng.standard_normal((320, 2)), rng.standard_normal((2, 4))
    got = Decoder(key, value, scale=scale, structure="cascade").softmax(query, TopR(1))
    output, lse = dense.softmax(query, key, value, scale=scale)
    assert (np.abs(got.lse - lse) <= got.lse_bound).all()
    assert (np.abs(got.output - output) <= got.bound[:, None]).all()


@pytest.mark.parametrize(
    ("count", "error"), [(-1, ValueError), (True, ValueError), (1.0, TypeError)]
)
def test_crop_wants_a_count(count, error):
    decoder = Decoder(np.ones((9, 3)), np.ones((9, 2)), growing=True)
    with pytest.raises(error, match="count: expected an integer"):
        decoder.crop(count)
    assert len(decoder) == 9
