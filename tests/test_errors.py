"""Bad input is refused with one clear exception that says what was expected and what came."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import halfspace

from .sizes import SMALL
from .structures import each_structure

NOT_FINITE = st.sampled_from((np.nan, np.inf, -np.inf))
LOSSY = [
    np.array([[2**53 + 1]]),
    np.array([[2**63 - 1]]),
    np.array([[-(2**53) - 1]]),
    np.array([[2**64 - 1]], np.uint64),
]
WRONG_DTYPES = {
    "bool": np.ones((4, 3), bool),
    "complex128": np.ones((4, 3), complex),
    "object": np.ones((4, 3), object),
    "str|<U1": np.full((4, 3), "1"),
    "datetime64": np.zeros((4, 3), "datetime64[s]"),
}


def cloud(n=20, d=3):
    return np.random.default_rng(0).standard_normal((n, d))


def says(*words):
    """A pattern that finds all the words, whole and in any order."""
    return "(?is)^" + "".join(rf"(?=.*(?<!\w){re.escape(str(word))}(?!\w))" for word in words)


@each_structure
@given(data=st.data(), bad=NOT_FINITE, dtype=st.sampled_from((np.float16, np.float32, np.float64)))
def test_points_that_are_not_finite_name_their_row(structure, data, bad, dtype):
    points = cloud(data.draw(st.integers(1, SMALL))).astype(dtype)
    row, column = data.draw(st.integers(0, len(points) - 1)), data.draw(st.integers(0, 2))
    points[row, column] = bad
    with pytest.raises(ValueError, match=says("points", f"row {row}")):
        structure.build(points)


@pytest.mark.parametrize("name", ["points", "ids", "weights", "normals", "offsets"])
def test_rows_of_different_lengths_are_named(name):
    ragged, rows = [[1.0, 2.0], [3.0]], [[1.0, 2.0], [3.0, 4.0]]
    index = halfspace.Scan(rows)
    asked = {
        "points": lambda: halfspace.build(ragged),
        "ids": lambda: halfspace.build(rows, ids=ragged),
        "weights": lambda: halfspace.build(rows, weights=ragged),
        "normals": lambda: index.report(ragged, 1.0),
        "offsets": lambda: index.report(rows, ragged),
    }
    with pytest.raises(ValueError, match=says(name, "rows of one length")):
        asked[name]()


@each_structure
@given(data=st.data(), bad=NOT_FINITE)
def test_normals_that_are_not_finite_name_their_row(structure, data, bad):
    index = structure.build(cloud())
    normals = cloud(data.draw(st.integers(1, 9)))
    row, column = data.draw(st.integers(0, len(normals) - 1)), data.draw(st.integers(0, 2))
    normals[row, column] = bad
    with pytest.raises(ValueError, match=says("normals", f"row {row}")):
        index.report(normals, np.zeros(len(normals)))
    with pytest.raises(ValueError, match=says("normals", f"row {row}")):
        index.top(normals, 1)
    with pytest.raises(ValueError, match=says("normals")):
        index.count(normals[row], 0.0)


@each_structure
@pytest.mark.parametrize("ask", ["report", "count", "any", "sum", "work"])
def test_bad_queries(structure, ask):
    ask = getattr(structure.build(cloud(), weights=np.ones(20)), ask)
    one, two = np.ones(3), np.ones((2, 3))
    for normals, offsets, words in (
        (np.ones(4), 0.0, (3, 4)),
        (np.ones((2, 5)), np.zeros(2), (3, 5)),
        (np.ones((2, 3, 1)), np.zeros(2), ("shape",)),
        (np.float64(1), 0.0, ("shape",)),
        (two, np.zeros(3), (2, 3)),
        (two, np.zeros((2, 1)), ("shape",)),
        (one, np.nan, ("offsets", "nan")),
        (two, [0.0, np.nan], ("offsets", "nan")),
    ):
        with pytest.raises(ValueError, match=says(*words)):
            ask(normals, offsets)
    for normals, offsets, name in (
        (np.ones(3, complex), 0.0, "complex128"),
        (np.ones(3, bool), 0.0, "bool"),
        (one.astype(object), 0.0, "object"),
        (one, "0", "offsets"),
        (one, None, "offsets"),
        (one, 1j, "offsets"),
    ):
        with pytest.raises(TypeError, match=says(name)):
            ask(normals, offsets)


@each_structure
def test_bad_shapes_of_points(structure):
    for points in (cloud()[:, 0], cloud()[None], np.float64(1.0), np.empty(0)):
        with pytest.raises(ValueError, match=says("points", "shape", "n, d")):
            structure.build(points)


@each_structure
@pytest.mark.parametrize(("name", "points"), WRONG_DTYPES.items(), ids=WRONG_DTYPES)
def test_bad_dtypes_of_points(structure, name, points):
    with pytest.raises(TypeError, match=f"(?s)points.*({name})"):
        structure.build(points)


@each_structure
@pytest.mark.parametrize("lossy", LOSSY, ids=lambda array: str(array[0, 0]))
def test_integers_that_float64_would_round(structure, lossy):
    """Truth is arithmetic on what was given, so what cannot be represented is refused."""
    with pytest.raises(ValueError, match=says("points", lossy[0, 0])):
        structure.build(lossy)
    index = structure.build(np.ones((4, 1)))
    with pytest.raises(ValueError, match=says("normals", lossy[0, 0])):
        index.report(lossy, np.zeros(1))
    with pytest.raises(ValueError, match=says("offsets", lossy[0, 0])):
        index.report(np.ones((1, 1)), lossy[0])


@each_structure
def test_bad_k(structure):
    index = structure.build(cloud())
    for k in (-1, np.int64(-5)):
        with pytest.raises(ValueError, match=rf"\bk\b.*{k}"):
            index.top(np.ones(3), k)
    for k in (1.5, "2", None, [3], np.float64(2)):
        with pytest.raises(TypeError, match=r"\bk\b.*integer"):
            index.top(np.ones(3), k)


@each_structure
def test_bad_ids(structure):
    points = cloud()
    ids = np.arange(20)
    with pytest.raises(ValueError, match=says("ids", 20, 19)):
        structure.build(points, ids=ids[1:])
    with pytest.raises(ValueError, match=says("ids", "shape")):
        structure.build(points, ids=ids[:, None])
    ids[13] = 4
    with pytest.raises(ValueError, match=says("ids", 4)):
        structure.build(points, ids=ids)
    for wrong in (ids.astype(float), ids.astype(str), ids > 3):
        with pytest.raises(TypeError, match=says("ids")):
            structure.build(points, ids=wrong)
    with pytest.raises(ValueError, match=says("ids")):
        structure.build(points, ids=np.arange(20, dtype=np.uint64) + 2**63)


@each_structure
def test_bad_weights(structure):
    points, weights = cloud(), np.ones(20)
    for wrong in (weights[1:], np.ones((3, 20))):
        with pytest.raises(ValueError, match=says("weights", 20, len(wrong))):
            structure.build(points, weights=wrong)
    with pytest.raises(ValueError, match=says("weights", "shape")):
        structure.build(points, weights=np.ones((20, 2, 2)))
    with pytest.raises(TypeError, match=says("weights")):
        structure.build(points, weights=weights.astype(str))
    weights[7] = np.nan
    with pytest.raises(ValueError, match=says("weights", "row 7")):
        structure.build(points, weights=weights)
    with pytest.raises(ValueError, match=says("weights")):
        structure.build(points).sum(np.ones(3), 0.0)


@pytest.mark.parametrize("name", ["nonsense", "", "kd tree"])
def test_unknown_structures_are_named_beside_the_known(name):
    with pytest.raises(ValueError, match=f"(?is)(?=.*{name!r})(?=.*scan)"):
        halfspace.build(cloud(), structure=name)
    with pytest.raises((TypeError, ValueError), match="structure"):
        halfspace.build(cloud(), structure=3)


def test_bad_numbers_of_threads():
    for k in (0, -1):
        with pytest.raises(ValueError, match=f"threads.*{k}"):
            halfspace.set_threads(k)
    for k in (1.5, "2", None):
        with pytest.raises(TypeError, match=r"threads.*integer"):
            halfspace.set_threads(k)
