"""torch's function: shapes, masks and options as it has them, against dense float64."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attention import (
    Error,
    Mass,
    Threshold,
    TopR,
    scaled_dot_product,
    scaled_dot_product_attention,
    softmax_attention,
)

from .sdpa_oracle import attention as truth
from .sizes import examples
from .strategies import rngs

TIGHT = Error(1e-9)
INF = math.inf


def arrays(*shapes, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def assert_attends(query, key, value, mask=None, *, rule=TIGHT, within=2e-9, **options):
    """As the definition has it; `group` and `causal` stand for torch's names."""
    got = scaled_dot_product_attention(
        query,
        key,
        value,
        mask,
        is_causal=options.get("causal", False),
        enable_gqa=options.get("group", False),
        scale=options.get("scale"),
        rule=rule,
    )
    want = truth(query, key, value, mask, **options)
    assert isinstance(got, np.ndarray)
    assert (got.shape, got.dtype) == (want.shape, np.asarray(query).dtype)
    assert np.abs(got.astype(np.float64) - want).max(initial=0.0) <= within
    return got


@pytest.fixture(params=[1, 8, 10**9], ids="shared from {}".format)
def shared_rows(request, monkeypatch):
    """Every way a masked row can take: by index wherever possible, as it comes, never."""
    monkeypatch.setattr(scaled_dot_product, "SHARED_ROWS", request.param)
    return request.param


@pytest.fixture
def read_in_full(monkeypatch):
    """Numbers of rows that were read in full, where 8 that share a mask are not."""
    monkeypatch.setattr(scaled_dot_product, "SHARED_ROWS", 8)
    rows = []

    def spy(query, *args, **options):
        rows.append(len(query))
        return masked_softmax(query, *args, **options)

    masked_softmax = scaled_dot_product.masked_softmax
    monkeypatch.setattr(scaled_dot_product, "masked_softmax", spy)
    return rows


# Shapes

SHAPES = [
    ((5, 4), (9, 4), (9, 3)),
    ((1, 1), (1, 1), (1, 1)),
    ((2, 5, 4), (2, 9, 4), (2, 9, 3)),
    ((2, 3, 5, 4), (2, 3, 9, 4), (2, 3, 9, 1)),
    ((2, 3, 4, 5, 4), (2, 3, 4, 9, 4), (2, 3, 4, 9, 2)),
    # Leading axes broadcast, each array's on its own.
    ((5, 4), (2, 9, 4), (2, 9, 3)),
    ((2, 5, 4), (9, 4), (9, 3)),
    ((2, 3, 5, 4), (3, 9, 4), (2, 1, 9, 3)),
    ((1, 3, 5, 4), (2, 1, 9, 4), (1, 1, 9, 3)),
    ((2, 3, 5, 4), (1, 1, 9, 4), (9, 3)),
    ((7, 1, 5, 4), (3, 9, 4), (1, 9, 3)),
]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("query", "key", "value"), SHAPES, ids=str)
def test_shapes(query, key, value, causal):
    assert_attends(*arrays(query, key, value), causal=causal)


@pytest.mark.parametrize(
    ("query", "key", "value"),
    [
        ((6, 5, 4), (2, 9, 4), (2, 9, 3)),
        ((6, 5, 4), (1, 9, 4), (3, 9, 3)),
        ((2, 6, 5, 4), (2, 3, 9, 4), (2, 3, 9, 3)),
        ((2, 6, 5, 4), (3, 9, 4), (1, 6, 9, 3)),
        ((1, 4, 5, 4), (3, 2, 9, 4), (3, 2, 9, 3)),
    ],
    ids=str,
)
def test_grouped_heads(query, key, value):
    given_arrays = arrays(query, key, value)
    assert_attends(*given_arrays, group=True)
    assert_attends(*given_arrays, group=True, causal=True)
    mask = np.random.default_rng(1).random((query[-3], 5, 9)) < 0.5
    assert_attends(*given_arrays, mask, group=True)


def test_a_group_needs_to_be_asked_for():
    query, key, value = arrays((6, 5, 4), (2, 9, 4), (2, 9, 3))
    with pytest.raises(ValueError, match=r"broadcast.*enable_gqa.*\(6, 5, 4\).*\(2, 9, 4\)"):
        scaled_dot_product_attention(query, key, value)
    # Grouping is not broadcasting: without it one head serves all, with it too.
    one = key[:1], value[:1]
    a, b = (scaled_dot_product_attention(query, *one, enable_gqa=on) for on in (False, True))
    assert np.array_equal(a, b)


@pytest.mark.parametrize("leading", [(), (3,), (2, 3)], ids=str)
@pytest.mark.parametrize(("length", "n"), [(3, 0), (0, 4), (0, 0)])
def test_nothing_to_ask_or_to_read(leading, length, n):
    qkv = arrays((*leading, length, 3), (*leading, n, 3), (*leading, n, 2))
    for mask in (None, np.ones((length, n), bool), np.zeros((1, n))):
        got = assert_attends(*qkv, mask)
        assert got.tolist() == np.zeros((*leading, length, 2)).tolist()
    assert_attends(*qkv, causal=True)


def test_an_empty_batch_and_no_coordinates():
    assert_attends(*arrays((0, 2, 3, 4), (0, 2, 5, 4), (0, 2, 5, 6)))
    assert_attends(*arrays((2, 3, 4), (2, 5, 4), (2, 5, 0)))


@st.composite
def broadcast(draw, shape):
    """A shape that broadcasts to `shape`."""
    shape = [draw(st.sampled_from((1, size))) for size in shape]
    return tuple(shape[draw(st.integers(0, len(shape))) :])


@st.composite
def problems(draw):
    """Queries, keys, values of shapes that broadcast, and a mask or none."""
    batch = draw(st.lists(st.integers(1, 3), max_size=3))
    length, n = draw(st.integers(1, 12)), draw(st.integers(1, 20) | st.sampled_from((64, 70)))
    d, c = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    rng = draw(rngs())
    query, key, value = (
        rng.standard_normal((*draw(broadcast(batch)), *shape))
        for shape in ((length, d), (n, d), (n, c))
    )
    query *= draw(st.sampled_from((0.0, 1.0, 30.0)))
    full = np.broadcast_shapes(*(x.shape[:-2] for x in (query, key, value)))
    kind = draw(st.sampled_from(("none", "bool", "runs", "bias", "shared", "stand-ins")))
    if kind == "none":
        return query, key, value, None
    shape = (*draw(broadcast(full)), draw(st.sampled_from((1, length))), n)
    mask = rng.random(shape) < draw(st.sampled_from((0.0, 0.1, 0.5, 0.9, 1.0)))
    if kind == "runs":
        first, last = np.sort(rng.integers(0, n + 1, (2, *shape[:-1], 1)), axis=0)
        mask = (np.arange(n) >= first * draw(st.integers(0, 1))) & (np.arange(n) < last)
    elif kind == "bias":
        mask = np.where(mask, rng.standard_normal(shape), -INF)
    elif kind == "shared":
        mask = np.where(mask, rng.standard_normal(n), -INF)
    elif kind == "stand-ins":
        mask = np.where(mask, 0.0, draw(st.sampled_from((-1e4, -1e9, np.finfo(np.float64).min))))
    return query, key, value, mask


@pytest.mark.parametrize("shared_from", [1, 8, 10**9])
@examples(2)
@given(problem=problems(), data=st.data())
def test_any_shape_and_any_mask(shared_from, problem, data):
    scale = data.draw(st.sampled_from((None, 0.3, 2.0, -0.5, 0.0)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scaled_dot_product, "SHARED_ROWS", shared_from)
        assert_attends(*problem, scale=scale)


# Masks


def masks(batch, heads, length, n):
    """By name: every kind of mask there is in practice, for (batch, heads, length, n)."""
    rng = np.random.default_rng(3)
    padding = np.arange(n) < rng.integers(1, n + 1, (batch, 1, 1, 1))
    left = np.arange(n) >= rng.integers(0, n, (batch, 1, 1, 1))
    causal = np.tri(length, n, n - length, dtype=bool)
    window = causal & ~np.tri(length, n, n - length - 5, dtype=bool)
    far = np.abs(np.arange(length)[:, None] - np.arange(n))
    slopes = 2.0 ** -np.arange(1.0, heads + 1)[:, None, None]
    return {
        "padding": padding,
        "left padding": left,
        "causal": causal,
        "causal and padding": causal & padding,
        "causal and left padding": causal & left,
        "window": window,
        "random": rng.random((length, n)) < 0.3,
        "random of each": rng.random((batch, heads, length, n)) < 0.3,
        "one set a batch": rng.random((batch, 1, 1, n)) < 0.5,
        "one set": rng.random((1, n)) < 0.5,
        "all or none": rng.random((length, 1)) < 0.5,
        "none": np.zeros((1, 1), bool),
        "bias of keys": rng.standard_normal((heads, 1, n)),
        "bias of keys, float32": rng.standard_normal((heads, 1, n)).astype(np.float32),
        "bias of keys, some -inf": np.where(left, rng.standard_normal((heads, 1, n)), -INF),
        "bias far below": rng.standard_normal((1, n)) - 1e6,
        "relative positions": -slopes * far,
        "relative positions, causal": np.where(causal, -slopes * far, -INF),
        "-inf": np.where(padding, 0.0, -INF),
        "-inf, causal": np.where(causal, 0.0, -INF),
        "stand-ins": np.where(padding & causal, 0.0, -1e9),
        "stand-ins, all": np.full((1, n), np.finfo(np.float64).min),
        "one number": np.full((1, 1), 2.5),
        "all -inf": np.full((length, 1), -INF),
    }


@pytest.mark.parametrize("kind", masks(1, 1, 2, 3))
def test_masks(kind, shared_rows):
    qkv = arrays((2, 3, 12, 4), (2, 3, 20, 4), (2, 3, 20, 5))
    mask = masks(2, 3, 12, 20)[kind]
    assert_attends(*qkv, mask)
    assert_attends(*qkv, mask, rule=Error(1e-2), within=1e-2)
    assert_attends(qkv[0], qkv[1][:, :1], qkv[2][:, :1], mask, group=True)


@pytest.mark.parametrize(
    ("kind", "in_full"),
    {
        "padding": 0,
        "left padding": 0,
        "causal": 0,
        "causal and padding": 0,
        "one set": 0,
        "bias of keys": 0,
        "bias of keys, some -inf": 0,
        "bias far below": 0,
        "-inf, causal": 0,
        "stand-ins": 0,
        "none": 0,
        "random": 12,
        "relative positions": 12,
    }.items(),
)
def test_masks_that_rows_share_are_read_by_index(kind, in_full, read_in_full):
    qkv = arrays((2, 3, 12, 4), (2, 3, 20, 4), (2, 3, 20, 5))
    scaled_dot_product_attention(*qkv, masks(2, 3, 12, 20)[kind])
    assert read_in_full == ([in_full] * 6 if in_full else [])


def test_rows_that_share_no_mask_are_read_in_full(read_in_full):
    query, key, value = arrays((7, 4), (20, 4), (20, 5))
    scaled_dot_product_attention(query, key, value, np.ones((1, 20), bool))
    assert read_in_full == [7]


def test_a_row_that_sees_nothing_is_zero(shared_rows):
    qkv = arrays((2, 9, 4), (2, 20, 4), (2, 20, 5))
    mask = np.random.default_rng(0).random((9, 20)) < 0.5
    mask[::2] = False
    for blind in (mask, np.where(mask, 0.0, -INF), np.where(mask, 0.7, -INF)):
        got = assert_attends(*qkv, blind)
        assert (got[:, ::2] == 0.0).all()
        assert (got[:, 1::2] != 0.0).all()


def test_a_mask_of_finite_numbers_hides_nothing():
    """Where all keys have the same stand-in for -inf, real arithmetic sees all of them."""
    query, key, value = arrays((9, 4), (20, 4), (20, 5))
    got = scaled_dot_product_attention(query, key, value, np.full((9, 20), -1e30), rule=TIGHT)
    assert np.abs(got - truth(query, key, value)).max() <= 2e-9


def test_true_means_take_part():
    value = np.array([[3.0], [5.0]])
    got = scaled_dot_product_attention(
        np.zeros((2, 1)), np.zeros((2, 1)), value, np.eye(2, dtype=bool)
    )
    assert got.tolist() == value.tolist()


def test_causal_is_upper_left(shared_rows):
    for length, n in ((12, 20), (20, 12), (12, 12)):
        qkv = arrays((length, 4), (n, 4), (n, 5))
        got = assert_attends(*qkv, causal=True)
        by_mask = assert_attends(*qkv, np.tri(length, n, dtype=bool))
        assert np.abs(got - by_mask).max() <= 2e-9


def test_no_mask_is_softmax_attention():
    query, key, value = arrays((2, 3, 9, 4), (2, 3, 20, 4), (2, 3, 20, 5))
    for rule in (TopR(3), Threshold(0.1), Mass(0.7), Error(1e-2)):
        for causal in (False, True):
            got = scaled_dot_product_attention(query, key, value, is_causal=causal, rule=rule)
            want = softmax_attention(
                query, key, value, rule=rule, causal="upper_left" if causal else None
            )
            assert np.array_equal(got, want.output)
    default = softmax_attention(query, key, value, rule=Error(1e-3)).output
    assert np.array_equal(scaled_dot_product_attention(query, key, value), default)


def test_a_rule_applies_to_what_a_mask_leaves():
    key, value = np.arange(20.0)[:, None], np.arange(20.0)[:, None]
    mask = np.arange(20) % 3 == 0
    for left in (mask[None], np.where(mask, 0.0, -INF)[None]):
        got = scaled_dot_product_attention(np.ones((9, 1)), key, value, left, rule=TopR(1))
        assert got.tolist() == [[18.0]] * 9
    bias = np.where(np.arange(20) == 4, 100.0, np.arange(20.0))[None]
    got = scaled_dot_product_attention(np.ones((9, 1)), key, value, bias, rule=TopR(1))
    assert got.tolist() == [[4.0]] * 9


def test_a_rule_applies_to_every_row(read_in_full):
    """Also to rows whose mask nobody shares; only within an error any way will do."""
    mask = np.random.default_rng(0).random((9, 20)) < 0.5
    query, value = np.ones((9, 1)), np.arange(20.0)[:, None]
    for bias in (mask, np.where(mask, value.ravel()[::-1] * 3.0, -INF)):
        scores = value.ravel() + (np.where(mask, 0.0, -INF) if bias is mask else bias)
        got = scaled_dot_product_attention(query, value, value, bias, scale=1.0, rule=TopR(1))
        assert got.ravel().tolist() == scores.argmax(axis=1).tolist()
        got = scaled_dot_product_attention(
            query, value, value, bias, scale=1.0, rule=Threshold(1e3)
        )
        assert not got.any()
    assert read_in_full == []
    scaled_dot_product_attention(query, value, value, mask, rule=Error(1.0))
    assert read_in_full == [9]


def test_many_keys_of_few_dimensions(shared_rows):
    """A tree is under the index then."""
    query, key, value = arrays((70, 3), (3000, 3), (3000, 2))
    mask = np.random.default_rng(0).random((1, 3000)) < 0.9
    bias = np.where(mask, np.random.default_rng(1).standard_normal(3000), -INF)
    for some in (mask, bias):
        assert_attends(4.0 * query, key, value, some, rule=Error(1e-4), within=1e-4)


# Numbers


@pytest.mark.parametrize(("dtype", "unit"), [(np.float16, 2e-3), (np.float32, 2e-7)])
def test_narrow_floats(dtype, unit, shared_rows):
    qkv = arrays((2, 9, 4), (2, 20, 4), (2, 20, 5), dtype=dtype)
    rng = np.random.default_rng(0)
    bias = np.where(rng.random((2, 1, 20)) < 0.8, rng.standard_normal((2, 1, 20)), -INF)
    for mask in (None, rng.random((1, 20)) < 0.5, bias, bias.astype(dtype)):
        got = assert_attends(*qkv, mask, within=1e-9 + unit)
        assert got.dtype == dtype


@pytest.mark.parametrize("size", [1e3, 1e8, 1e30, 1e100])
def test_huge_logits(size, shared_rows):
    """Products of small integers and a power of two: scores are exact in float64, too."""
    rng = np.random.default_rng(0)
    size = 2.0 ** round(math.log2(size))
    query, key = (rng.integers(-3, 4, (n, 4)).astype(float) for n in (9, 30))
    value = rng.standard_normal((30, 3))
    bias = rng.integers(-3, 4, 30) * size
    every = rng.integers(-3, 4, (9, 30)) * size
    for mask in (None, rng.random((1, 30)) < 0.5, rng.random((9, 30)) < 0.5, bias[None], every):
        assert_attends(query * size, key, value, mask, scale=1.0)
    # float64 cannot hold these scores beside one another; real arithmetic can.
    assert_attends(query, key, value, every, scale=1.0)


@pytest.mark.parametrize("size", [1e-300, 1e300])
def test_values_at_both_ends(size, shared_rows):
    query, key, value = arrays((9, 4), (20, 4), (20, 5))
    value = value * size
    for mask in (None, np.arange(20)[None] % 3 > 0, np.random.default_rng(0).random((9, 20)) < 0.5):
        got = scaled_dot_product_attention(query, key, value, mask, rule=Error(0.0))
        assert np.allclose(got / size, truth(query, key, value / size, mask), atol=1e-9)


@pytest.mark.parametrize("scale", [1.0, 0.3, 1e-3, -1.0, -0.3, 0.0, 0, 2, 1e-30, 1e5])
def test_scale(scale, shared_rows):
    query, key, value = arrays((9, 4), (20, 4), (20, 5))
    if abs(scale) > 1e3:
        query = query / abs(scale)
    bias = np.random.default_rng(0).standard_normal((1, 20))
    for mask in (None, bias > 0.0, bias):
        assert_attends(query, key, value, mask, scale=scale)


def test_layouts_and_inputs_left_alone():
    given_arrays = arrays((2, 9, 4), (2, 20, 4), (2, 20, 5))
    rng = np.random.default_rng(0)
    for mask in (rng.random((9, 20)) < 0.5, rng.random((2, 1, 20)) < 0.5, rng.random((9, 20))):
        everything = [*given_arrays, mask]
        before = [x.copy() for x in everything]
        want = scaled_dot_product_attention(*everything)
        for x in everything:
            x.flags.writeable = False
        for same in (
            everything,
            [np.asfortranarray(x) for x in everything],
            [np.repeat(x, 2, axis=-2)[..., ::2, :] for x in everything],
            [np.repeat(x, 2, axis=-1)[..., ::2] for x in everything],
            [x[..., ::-1, :].copy()[..., ::-1, :] for x in everything],
            [np.swapaxes(np.swapaxes(x, -1, -2).copy(), -1, -2) for x in everything],
            [*given_arrays, np.broadcast_to(mask, (2, 9, 20))],
        ):
            assert np.array_equal(scaled_dot_product_attention(*same), want)
        assert all(np.array_equal(x, y) for x, y in zip(everything, before, strict=True))


def test_other_byte_orders_and_lists():
    query, key, value = arrays((9, 4), (20, 4), (20, 5))
    want = scaled_dot_product_attention(query, key, value)
    got = scaled_dot_product_attention(*(x.astype(">f8") for x in (query, key, value)))
    assert np.array_equal(got, want)
    assert got.dtype.isnative
    lists = (x.tolist() for x in (query, key, value))
    assert np.array_equal(scaled_dot_product_attention(*lists), want)
    mask = np.ones((9, 20), bool)
    a, b = (scaled_dot_product_attention(query, key, value, m) for m in (mask, mask.tolist()))
    assert np.array_equal(a, b)


def test_the_result_is_writable():
    assert scaled_dot_product_attention(*arrays((9, 4), (20, 4), (20, 5))).flags.writeable


# Errors

QUERY, KEY, VALUE = arrays((2, 5, 4), (2, 9, 4), (2, 9, 3))
MASK = np.ones((5, 9), bool)


def broken(array, bad):
    array = array.copy()
    array[1, 3, 1] = bad
    return array


BAD_VALUES = {
    "query nan": ((broken(QUERY, np.nan), KEY, VALUE), {}, "query.*finite.*nan.*row 3"),
    "key inf": ((QUERY, broken(KEY, INF), VALUE), {}, "key.*finite.*inf.*row 3"),
    "value -inf": ((QUERY, KEY, broken(VALUE, -INF)), {}, "value.*finite.*-inf.*row 3"),
    "query 1-d": ((QUERY[0, 0], KEY, VALUE), {}, r"query.*length, dim.*\(4,\)"),
    "key 1-d": ((QUERY, KEY[0, 0], VALUE), {}, r"key.*length, dim.*\(4,\)"),
    "value 0-d": ((QUERY, KEY, np.float64(1)), {}, r"value.*length, dim.*\(\)"),
    "head_dim": ((QUERY[..., :3], KEY, VALUE), {}, "query.*head_dim 4 .*key.*3"),
    "no dimension": ((QUERY[..., :0], KEY[..., :0], VALUE), {}, "key.*d >= 1"),
    "fewer values": ((QUERY, KEY, VALUE[:, 1:]), {}, "value.*9 rows.*key.*8"),
    "batch": ((QUERY, np.ones((3, 9, 4)), VALUE), {}, r"broadcast.*\(2, 5, 4\), \(3, 9, 4\)"),
    "dropout": ((QUERY, KEY, VALUE), {"dropout_p": 0.1}, "dropout_p.*expected 0.*0.1"),
    "dropout none": ((QUERY, KEY, VALUE), {"dropout_p": None}, "dropout_p.*expected 0.*None"),
    "dropout array": ((QUERY, KEY, VALUE), {"dropout_p": np.zeros(2)}, "dropout_p.*expected 0"),
    "both": ((QUERY, KEY, VALUE, MASK), {"is_causal": True}, "attn_mask.*None.*is_causal.*both"),
    "scale nan": ((QUERY, KEY, VALUE), {"scale": np.nan}, "scale.*finite.*nan"),
    "scale inf": ((QUERY, KEY, VALUE), {"scale": -INF}, "scale.*finite.*-inf"),
    "mask 1-d": ((QUERY, KEY, VALUE, MASK[0]), {}, r"attn_mask.*two axes.*\(2, 5, 9\).*\(9,\)"),
    "mask shape": ((QUERY, KEY, VALUE, MASK[:4]), {}, r"attn_mask.*\(2, 5, 9\).*\(4, 9\)"),
    "mask batch": (
        (QUERY, KEY, VALUE, np.ones((3, 5, 9))),
        {},
        r"attn_mask.*\(2, 5, 9\).*\(3, 5, 9\)",
    ),
    "mask too long": (
        (QUERY[0], KEY[0], VALUE[0], np.ones((2, 5, 9))),
        {},
        r"attn_mask.*\(5, 9\).*\(2, 5, 9\)",
    ),
    "mask nan": ((QUERY, KEY, VALUE, MASK * np.nan), {}, r"attn_mask.*-inf.*nan at \(0, 0\)"),
    "mask inf": ((QUERY, KEY, VALUE, MASK * INF), {}, r"attn_mask.*-inf.*inf at \(0, 0\)"),
    "group": (
        (np.ones((3, 5, 4)), KEY, VALUE),
        {"enable_gqa": True},
        "query.*multiple of key's 2.*3",
    ),
    "group of values": (
        (QUERY, KEY, np.ones((3, 9, 3))),
        {"enable_gqa": True},
        "query.*multiple of value's 3.*2",
    ),
    "no heads": ((QUERY, KEY[:0], VALUE[:0]), {"enable_gqa": True}, "query.*multiple.*0.*2"),
    "group 2-d": ((QUERY[0], KEY, VALUE), {"enable_gqa": True}, r"query.*heads.*gqa.*\(5, 4\)"),
    "scores": ((1e200 * QUERY, 1e200 * KEY, VALUE), {}, "query.*scores below"),
    "scores, set": ((1e200 * QUERY, 1e200 * KEY, VALUE, MASK[:1]), {}, "query.*scores below"),
    "scores, full": ((1e200 * QUERY, 1e200 * KEY, VALUE, MASK * 1.5), {}, "query.*scores below"),
    "values": ((QUERY, KEY, np.full_like(VALUE, 1e308)), {}, "value.*magnitudes"),
    "values, full": (
        (QUERY, KEY, np.full_like(VALUE, 1e308), np.eye(5, 9, dtype=bool)),
        {},
        "value.*magnitudes",
    ),
}

BAD_TYPES = {
    "integers": ((KEY.astype(int), KEY, VALUE), {}, "query.*floats.*int64"),
    "booleans": ((QUERY, KEY > 0, VALUE), {}, "key.*floats.*bool"),
    "complex": ((QUERY, KEY, VALUE * 1j), {}, "value.*floats.*complex"),
    "long double": (
        (QUERY, KEY, VALUE.astype(np.longdouble)),
        {},
        "value.*128|longdouble",
    ),
    "strings": ((QUERY, KEY, VALUE.astype(str)), {}, "value.*floats.*<U"),
    "none": ((None, KEY, VALUE), {}, "query.*floats.*object"),
    "dtypes": ((QUERY, KEY.astype(np.float32), VALUE), {}, "key.*float64 as of query.*float32"),
    "masked": ((QUERY, np.ma.masked_array(KEY), VALUE), {}, "key.*without a mask"),
    "mask of integers": ((QUERY, KEY, VALUE, MASK * 1), {}, "attn_mask.*booleans or floats.*int"),
    "mask of objects": ((QUERY, KEY, VALUE, "mask"), {}, "attn_mask.*booleans or floats.*<U"),
    "causal": ((QUERY, KEY, VALUE), {"is_causal": "upper_left"}, "is_causal.*True or False.*upper"),
    "gqa": ((QUERY, KEY, VALUE), {"enable_gqa": 1}, "enable_gqa.*True or False.*1"),
    "scale": ((QUERY, KEY, VALUE), {"scale": "1"}, "scale.*number.*'1'"),
    "scale array": ((QUERY, KEY, VALUE), {"scale": np.ones(2)}, "scale.*number.*array"),
    "scale bool": ((QUERY, KEY, VALUE), {"scale": True}, "scale.*number.*True"),
    "rule": ((QUERY, KEY, VALUE), {"rule": 1e-3}, "rule.*TopR.*0.001"),
    "no rule": ((QUERY, KEY, VALUE), {"rule": None}, "rule.*TopR.*None"),
}


@pytest.mark.parametrize(("args", "options", "says"), BAD_VALUES.values(), ids=BAD_VALUES)
def test_bad_values(args, options, says):
    with pytest.raises(ValueError, match=says):
        scaled_dot_product_attention(*args, **options)


@pytest.mark.parametrize(("args", "options", "says"), BAD_TYPES.values(), ids=BAD_TYPES)
def test_bad_types(args, options, says):
    with pytest.raises(TypeError, match=says):
        scaled_dot_product_attention(*args, **options)


def test_names_and_order_are_those_of_torch():
    by_name = scaled_dot_product_attention(
        query=QUERY,
        key=KEY,
        value=VALUE,
        attn_mask=None,
        dropout_p=0.0,
        is_causal=True,
        scale=0.7,
        enable_gqa=False,
    )
    in_order = scaled_dot_product_attention(QUERY, KEY, VALUE, None, 0.0, True, 0.7, False)
    assert np.array_equal(by_name, in_order)
    with pytest.raises(TypeError, match="positional"):
        scaled_dot_product_attention(QUERY, KEY, VALUE, None, 0.0, True, 0.7, False, TopR(1))
