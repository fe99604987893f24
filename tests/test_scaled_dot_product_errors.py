"""Errors of torch's function: what was expected and what came, before any work."""

import math

import numpy as np
import pytest

from attention import TopR, scaled_dot_product_attention

from .sdpa_oracle import arrays

INF = math.inf

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
