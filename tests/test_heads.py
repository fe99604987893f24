"""Arrays of many heads: shapes, grouping, causal masks, dtypes, and bad input refused clearly."""

import math

import numpy as np
import pytest

from attention import (
    Attended,
    Decoder,
    Error,
    Mass,
    Threshold,
    TopR,
    decode,
    dense,
    heads,
    relu_attention,
    softmax_attention,
)

from .sizes import JIT

RULES = (TopR(3), Threshold(0.2), Mass(0.7), Error(1e-2))
each_rule = pytest.mark.parametrize("rule", RULES, ids=str)
each_causal = pytest.mark.parametrize("causal", [None, "upper_left", "lower_right"])


def arrays(*shapes, dtype=np.float64):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def fields(attended):
    return (*attended, attended.lse_bound)


def same(a, b):
    """Whether two results are equal bit for bit."""
    return all(np.array_equal(x, y) for x, y in zip(fields(a), fields(b), strict=True))


def soft(rule):
    return lambda *qkv, **options: softmax_attention(*qkv, rule=rule, **options)


def relu(*qkv, **options):
    return relu_attention(*qkv, threshold=0.2, power=2, **options)


KINDS = {str(rule): soft(rule) for rule in RULES} | {"relu": relu}
each_kind = pytest.mark.parametrize("attend", KINDS.values(), ids=KINDS)


@each_kind
@each_causal
@pytest.mark.parametrize(
    ("query", "key", "value"),
    [
        ((5, 4), (9, 4), (9, 3)),
        ((2, 5, 4), (2, 9, 4), (2, 9, 3)),
        ((6, 5, 4), (2, 9, 4), (2, 9, 1)),
        ((2, 6, 5, 4), (2, 3, 9, 4), (2, 3, 9, 5)),
        ((2, 3, 4, 5, 4), (2, 3, 1, 9, 4), (2, 3, 1, 9, 2)),
        ((3, 9, 4), (1, 5, 4), (1, 5, 4)),
        ((3, 1, 1), (3, 1, 1), (3, 1, 1)),
    ],
    ids=str,
)
def test_shapes(attend, causal, query, key, value):
    got = attend(*arrays(query, key, value), causal=causal)
    assert isinstance(got, Attended)
    assert got.output.shape == (*query[:-1], value[-1])
    for field in fields(got)[1:]:
        assert field.shape == query[:-1]
    assert got.bound.dtype == got.lse.dtype == got.lse_bound.dtype == np.float64
    assert got.reported.dtype == np.int64


@each_kind
@pytest.mark.parametrize("leading", [(), (4,), (2, 4)], ids=str)
@pytest.mark.parametrize(("length", "n"), [(3, 0), (0, 4), (0, 0)])
def test_nothing_to_ask_or_to_read(attend, leading, length, n):
    query, key, value = arrays((*leading, length, 3), (*leading, n, 3), (*leading, n, 2))
    for causal in (None, "upper_left", "lower_right"):
        got = attend(query, key, value, causal=causal)
        assert got.output.tolist() == np.zeros((*leading, length, 2)).tolist()
        assert got.lse.tolist() == np.full((*leading, length), -np.inf).tolist()
        for field in (got.bound, got.reported, got.lse_bound):
            assert field.tolist() == np.zeros((*leading, length)).tolist()


@each_kind
def test_an_empty_batch(attend):
    got = attend(*arrays((0, 2, 3, 4), (0, 1, 5, 4), (0, 1, 5, 6)))
    assert got.output.shape == (0, 2, 3, 6)
    assert got.lse.shape == got.bound.shape == got.reported.shape == (0, 2, 3)


@each_kind
@each_causal
def test_a_group_reads_one_key_head(attend, causal):
    """As torch has it: query head h reads key head h // 3, as if that were repeated."""
    query, key, value = arrays((2, 6, 5, 4), (2, 2, 9, 4), (2, 2, 9, 3))
    got = attend(query, key, value, causal=causal)
    repeated = (np.repeat(x, 3, axis=1) for x in (key, value))
    assert same(got, attend(query, *repeated, causal=causal))
    for b in range(2):
        for h in range(6):
            one = attend(query[b, h], key[b, h // 3], value[b, h // 3], causal=causal)
            assert same(Attended(*(x[b, h] for x in got), got.lse_bound[b, h]), one)


@each_kind
@pytest.mark.parametrize(("length", "n"), [(5, 9), (9, 5), (5, 5), (1, 7)])
def test_causal_rows_see_a_prefix(attend, length, n):
    query, key, value = arrays((2, length, 4), (2, n, 4), (2, n, 3))
    for causal, first in (("upper_left", 1), ("lower_right", n - length + 1)):
        got = attend(query, key, value, causal=causal)
        for i in range(length):
            seen = min(max(first + i, 0), n)
            row = attend(query[:, i : i + 1], key[:, :seen], value[:, :seen])
            # Only the certificate may differ: it takes the range of all values.
            assert got.reported[:, i].tolist() == row.reported[:, 0].tolist()
            both = got.bound[:, i] + row.bound[:, 0]
            assert (np.abs(got.output[:, i] - row.output[:, 0]).max(axis=1) <= both).all()
            if not seen:
                assert (got.output[:, i] == 0.0).all()
                assert (got.bound[:, i] == 0.0).all()
                assert np.isneginf(got.lse[:, i]).all()


@each_kind
def test_dtypes(attend):
    shapes = (2, 5, 4), (2, 9, 4), (2, 9, 3)
    for dtype in (np.float16, np.float32, np.float64):
        assert attend(*arrays(*shapes, dtype=dtype)).output.dtype == dtype
    query, key, value = arrays(*shapes, dtype=np.float16)
    assert attend(query, key.astype(np.float32), value).output.dtype == np.float32
    assert attend(query, key, value.astype(np.float64)).output.dtype == np.float64
    whole = [(4 * x).astype(np.int8) for x in (query, key, value)]
    want = attend(*(x.astype(np.float64) for x in whole))
    assert same(want, attend(*(x.tolist() for x in whole)))
    got = attend(*whole)
    assert got.output.dtype == np.float64
    assert np.array_equal(got.reported, want.reported)
    assert (np.abs(got.output - want.output).max(axis=-1) <= got.bound + want.bound).all()


@each_kind
def test_layouts_and_inputs_left_alone(attend):
    given = arrays((3, 5, 4), (3, 9, 4), (3, 9, 2))
    before = [x.copy() for x in given]
    want = attend(*given)
    for x in given:
        x.flags.writeable = False
    assert same(want, attend(*given))
    assert same(want, attend(*map(np.asfortranarray, given)))
    assert same(want, attend(*(np.repeat(x, 2, axis=1)[:, ::2] for x in given)))
    swapped = (x.astype(x.dtype.newbyteorder(">")) for x in given)
    assert np.array_equal(want.output, attend(*swapped).output)
    assert all(np.array_equal(x, y) for x, y in zip(given, before, strict=True))


@each_kind
def test_scale(attend):
    query, key, value = arrays((2, 5, 4), (2, 9, 4), (2, 9, 3))
    assert same(attend(query, key, value), attend(query, key, value, scale=0.5))
    doubled = attend(2.0 * query, key, value, scale=0.25)
    assert np.array_equal(attend(query, key, value, scale=0.5).output, doubled.output)


def test_the_default_rule_is_an_error_of_a_thousandth():
    qkv = arrays((2, 5, 4), (2, 9, 4), (2, 9, 3))
    assert same(softmax_attention(*qkv), softmax_attention(*qkv, rule=Error(1e-3)))


@each_kind
@each_causal
def test_threads_do_not_matter(attend, causal, threads):
    length, n = (30, 100) if JIT else (6, 70)
    given = arrays((2, 2, length, 3), (2, 1, n, 3), (2, 1, n, 2))
    results = []
    for count in (1, 2, 5):
        threads(count)
        results.append(attend(*given, causal=causal))
    assert same(results[0], results[1])
    assert same(results[0], results[2])


@pytest.mark.parametrize("structure", ["scan", "kd_tree", "cascade"])
def test_batches_do_not_matter(structure, threads):
    """Nor does who else asks; only how tight the certificate is may depend on it."""
    query, key, value = arrays((13, 3), (150, 3), (150, 2))
    decoder = Decoder(key, value, structure=structure)
    threads(3)
    for rule in RULES:
        whole = decoder.softmax(query, rule)
        for i, q in enumerate(query):
            alone = decoder.softmax(q[None], rule)
            assert np.array_equal(alone.output[0], whole.output[i])
            assert alone.lse[0] == whole.lse[i]
            assert alone.reported[0] == whole.reported[i]


@each_kind
def test_many_queries_build_an_index(attend, monkeypatch):
    built = []

    class Spy(Decoder):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            built.append(options["structure"])

    monkeypatch.setattr(heads, "Decoder", Spy)
    monkeypatch.setattr(heads, "INDEX_QUERIES", 8)
    monkeypatch.setattr(decode, "LEAST_KEYS", 100)
    query, key, value = arrays((2, 8, 3), (2, 150, 3), (2, 150, 2))
    few, many = attend(query[:, :7], key, value), attend(query, key, value)
    assert built == ["scan"] * 2 + ["kd_tree"] * 2
    apart = np.abs(many.output[:, :7] - few.output).max(axis=-1)
    assert (apart <= many.bound[:, :7] + few.bound).all()
    attend(query, key, value, causal="upper_left")
    assert built[4:] == ["cascade"] * 2


def test_decoder():
    key, value = arrays((9, 4), (9, 3), dtype=np.float32)
    decoder = Decoder(key, value)
    assert len(decoder) == 9
    assert decoder.scale == 0.5
    assert Decoder(key, value, scale=2).scale == 2.0
    key[:], value[:] = 0.0, 0.0
    assert (decoder.softmax(np.ones((1, 4)), Error()).output != 0.0).all()


QUERY, KEY, VALUE = arrays((2, 5, 4), (2, 9, 4), (2, 9, 3))


def broken(array, bad, row=3):
    array = array[0].copy()
    array[row, 1] = bad
    return array


BAD_ARRAYS = {
    "query nan": ((broken(QUERY, np.nan), KEY[0], VALUE[0]), "query.*nan.*row 3"),
    "query inf": ((broken(QUERY, np.inf), KEY[0], VALUE[0]), "query.*inf.*row 3"),
    "key nan": ((QUERY[0], broken(KEY, np.nan), VALUE[0]), "key.*nan.*row 3"),
    "key inf": ((QUERY[0], broken(KEY, -np.inf), VALUE[0]), "key.*-inf.*row 3"),
    "value nan": ((QUERY[0], KEY[0], broken(VALUE, np.nan)), "value.*nan.*row 3"),
    "value inf": ((QUERY[0], KEY[0], broken(VALUE, np.inf)), "value.*inf.*row 3"),
    "query 1-d": ((QUERY[0, 0], KEY, VALUE), r"query.*shape.*\(4,\)"),
    "key 1-d": ((QUERY, KEY[0, 0], VALUE), r"key.*shape.*\(4,\)"),
    "value scalar": ((QUERY, KEY, 1.0), r"value.*shape.*\(\)"),
    "axes": ((QUERY, KEY[0], VALUE[0]), r"axes.*\(2, 5, 4\).*\(9, 4\)"),
    "fewer values": ((QUERY, KEY, VALUE[:, 1:]), r"value.*9.*key.*\(2, 8, 3\)"),
    "value heads": ((QUERY, KEY, VALUE[:1]), r"value.*\(2, 9\).*\(1, 9, 3\)"),
    "head_dim": ((QUERY[..., :3], KEY, VALUE), "query.*head_dim 4.*3"),
    "no dimension": ((QUERY[..., :0], KEY[..., :0], VALUE), "key.*d >= 1"),
    "no value": ((QUERY, KEY, VALUE[..., :0]), "value.*d >= 1"),
    "heads": ((np.ones((3, 5, 4)), KEY, VALUE), "query.*multiple.*2.*3"),
    "no key heads": ((QUERY, KEY[:0], VALUE[:0]), "query.*multiple.*0.*2"),
    "batch": ((np.ones((3, 2, 5, 4)), KEY[None], VALUE[None]), r"batch.*\(1,\).*\(3,\)"),
    "scores": ((1e200 * QUERY, 1e200 * KEY, VALUE), "query.*scores below"),
    "norms": ((QUERY, np.full_like(KEY, 1.7e308), VALUE), "scores|key"),
}
BAD_DTYPES = {
    "complex": QUERY * 1j,
    "bool": QUERY > 0,
    "str": QUERY.astype(str),
    "object": QUERY.astype(object),
}


@each_kind
@pytest.mark.parametrize(("qkv", "says"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_bad_arrays(attend, qkv, says):
    with pytest.raises(ValueError, match=says):
        attend(*qkv)


@each_kind
@pytest.mark.parametrize("query", BAD_DTYPES.values(), ids=BAD_DTYPES)
def test_bad_dtypes(attend, query):
    with pytest.raises(TypeError, match=r"query.*expected"):
        attend(query, KEY, VALUE)
    with pytest.raises(TypeError, match=r"key.*expected"):
        attend(QUERY, query, VALUE[:, :5])


@each_kind
def test_bad_options(attend):
    for scale in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"scale.*positive.*{scale}"):
            attend(QUERY, KEY, VALUE, scale=scale)
    with pytest.raises(TypeError, match=r"scale.*number"):
        attend(QUERY, KEY, VALUE, scale=[1.0])
    for causal in ("lower", True, ""):
        with pytest.raises(ValueError, match=r"causal.*upper_left.*lower_right"):
            attend(QUERY, KEY, VALUE, causal=causal)


@pytest.mark.parametrize("rule", [0.1, "TopR", Error, object()], ids=repr)
def test_rules_that_are_none(rule):
    with pytest.raises(TypeError, match=r"rule.*TopR.*Error"):
        softmax_attention(QUERY, KEY, VALUE, rule=rule)
    with pytest.raises(TypeError, match=r"rule.*TopR.*Error"):
        Decoder(KEY[0], VALUE[0]).softmax(QUERY[0], rule)


def test_bad_relu():
    for threshold in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match=f"threshold.*finite.*{threshold}"):
            relu_attention(QUERY, KEY, VALUE, threshold=threshold)
    with pytest.raises(TypeError, match=r"threshold.*number"):
        relu_attention(QUERY, KEY, VALUE, threshold=None)
    for power in (0, -1, 10**6):
        with pytest.raises(ValueError, match=f"power.* 1 .*{power}"):
            relu_attention(QUERY, KEY, VALUE, threshold=0.0, power=power)
    for power in (1.5, "2", None):
        with pytest.raises(TypeError, match=r"power.*integer"):
            relu_attention(QUERY, KEY, VALUE, threshold=0.0, power=power)


def test_bad_decoders():
    with pytest.raises(ValueError, match=r"value.*9.*8"):
        Decoder(KEY[0], VALUE[0, :8])
    with pytest.raises(ValueError, match=r"key.*shape"):
        Decoder(KEY, VALUE)
    with pytest.raises(ValueError, match=r"structure.*octree"):
        Decoder(KEY[0], VALUE[0], structure="octree")
    decoder = Decoder(KEY[0], VALUE[0])
    for query in (QUERY[0, 0], QUERY, QUERY[0, :, :3]):
        with pytest.raises(ValueError, match="query"):
            decoder.softmax(query, Error())
        with pytest.raises(ValueError, match="query"):
            decoder.relu(query, threshold=0.0)


def test_lengths_need_keys_in_order():
    tree = Decoder(np.ones((99, 2)), np.ones((99, 1)), structure="kd_tree")
    for ask in (
        lambda q, n: tree.softmax(q, Error(), lengths=n),
        lambda q, n: tree.relu(q, threshold=0.0, lengths=n),
    ):
        with pytest.raises(ValueError, match=r"lengths.*scan.*tree"):
            ask(np.ones((1, 2)), np.array([5]))


@pytest.mark.parametrize("lengths", [[10], [-1], [3, 3], [[3]]], ids=str)
def test_bad_lengths(lengths):
    """A length beyond the keys would read memory that is not theirs."""
    decoder = Decoder(KEY[0], VALUE[0])
    with pytest.raises(ValueError, match="lengths"):
        decoder.softmax(QUERY[0, :1], Error(), lengths=np.array(lengths))
    with pytest.raises(ValueError, match="lengths"):
        decoder.relu(QUERY[0, :1], threshold=0.0, lengths=np.array(lengths))


@each_causal
def test_outputs_are_those_of_dense_attention(causal):
    query, key, value = arrays((2, 6, 5, 4), (2, 3, 9, 4), (2, 3, 9, 5))
    got = softmax_attention(query, key, value, rule=Error(1e-9), causal=causal)
    output, lse = dense.softmax(query, key, value, causal=causal)
    assert (np.abs(got.output - output).max(axis=-1) <= got.bound + 1e-14).all()
    assert (np.abs(got.lse - lse) <= got.lse_bound + 1e-14).all()
    assert (got.bound <= 1e-9).all()
