"""Points that come and go: what comes in wrong, or fails, changes nothing."""

import numpy as np
import pytest

from halfspace import publisher
from halfspace.dynamic import Dynamic

from .datasets import cloud
from .dynamic_indices import everything, grown

PLAIN, WEIGHTED, FLAT = "plain", "weighted", "flat"


def index_of(kind):
    points = np.arange(12.0).reshape(4, 3)
    weights = {PLAIN: None, WEIGHTED: np.ones((4, 2)), FLAT: np.ones(4)}[kind]
    index = Dynamic(points, ids=[10, 11, 12, 13], weights=weights)
    index.delete([12])
    return index


TWO = np.ones((2, 3))
BAD = [
    # kind, method, arguments, exception, message
    (PLAIN, "insert", (np.ones(3),), ValueError,
     "points: expected shape (n, d) with d >= 1, got shape (3,)"),
    (PLAIN, "insert", (np.ones((2, 4)),), ValueError,
     "points: expected shape (n, 3), got shape (2, 4)"),
    (PLAIN, "insert", (np.ones((2, 0)),), ValueError,
     "points: expected shape (n, d) with d >= 1, got shape (2, 0)"),
    (PLAIN, "insert", ([[1.0, np.nan, 0.0]],), ValueError,
     "points: expected finite numbers, got nan in row 0"),
    (PLAIN, "insert", ([[0, 0, 0], [1.0, 0.0, -np.inf]],), ValueError,
     "points: expected finite numbers, got -inf in row 1"),
    (PLAIN, "insert", ([["a", "b", "c"]],), TypeError,
     "points: expected floats or integers of at most 64 bits, got <U1"),
    (PLAIN, "insert", (np.ones((1, 3), complex),), TypeError,
     "points: expected floats or integers of at most 64 bits, got complex128"),
    (PLAIN, "insert", (np.array([[2**53 + 1, 0, 0]]),), ValueError,
     "points: expected integers that float64 holds, got 9007199254740993 at [0, 0]"),
    (PLAIN, "insert", (np.ma.masked_array(TWO),), TypeError,
     "points: expected an array without a mask, got a masked one"),
    (PLAIN, "insert", (TWO, [1]), ValueError, "ids: expected shape (2,), got shape (1,)"),
    (PLAIN, "insert", (TWO, [[1, 2]]), ValueError, "ids: expected shape (2,), got shape (1, 2)"),
    (PLAIN, "insert", (TWO, [1.0, 2.0]), TypeError, "ids: expected integers, got float64"),
    (PLAIN, "insert", (TWO, [True, False]), TypeError, "ids: expected integers, got bool"),
    (PLAIN, "insert", (TWO, [5, 5]), ValueError,
     "ids: expected distinct integers, got 5 more than once"),
    (PLAIN, "insert", (TWO, [5, 11]), ValueError,
     "ids: expected ids of no point in the index, got 11"),
    (PLAIN, "insert", (TWO, np.array([2**63, 1], np.uint64)), ValueError,
     "ids: expected 64-bit signed integers, got 9223372036854775808"),
    (PLAIN, "insert", (TWO, None, [1.0, 2.0]), ValueError,
     "weights: expected none, as the index was built without, got some"),
    (WEIGHTED, "insert", (TWO,), ValueError,
     "weights: expected shape (2, 2), as the index was built with, got none"),
    (FLAT, "insert", (TWO,), ValueError,
     "weights: expected shape (2,), as the index was built with, got none"),
    (WEIGHTED, "insert", (TWO, None, [1.0, 2.0]), ValueError,
     "weights: expected shape (2, 2), got shape (2,)"),
    (WEIGHTED, "insert", (TWO, None, np.ones((2, 3))), ValueError,
     "weights: expected shape (2, 2), got shape (2, 3)"),
    (FLAT, "insert", (TWO, None, np.ones((2, 1))), ValueError,
     "weights: expected shape (2,), got shape (2, 1)"),
    (FLAT, "insert", (TWO, None, np.ones(3)), ValueError,
     "weights: expected shape (2,) or (2, w), got shape (3,)"),
    (FLAT, "insert", (TWO, None, [1.0, np.inf]), ValueError,
     "weights: expected finite numbers, got inf in row 1"),
    (FLAT, "insert", (TWO, None, ["1", "2"]), TypeError,
     "weights: expected floats or integers of at most 64 bits, got <U1"),
    (PLAIN, "delete", ([99],), ValueError, "ids: expected ids of points in the index, got 99"),
    (PLAIN, "delete", ([10, 12],), ValueError, "ids: expected ids of points in the index, got 12"),
    (PLAIN, "delete", ([10, 10],), ValueError,
     "ids: expected distinct integers, got 10 more than once"),
    (PLAIN, "delete", (10,), ValueError, "ids: expected shape (1,), got shape ()"),
    (PLAIN, "delete", ([[10], [11]],), ValueError, "ids: expected shape (2,), got shape (2, 1)"),
    (PLAIN, "delete", ([10.0],), TypeError, "ids: expected integers, got float64"),
    (PLAIN, "delete", (["10"],), TypeError, "ids: expected integers, got <U2"),
    (PLAIN, "delete", (None,), TypeError, "ids: expected integers, got object"),
    (PLAIN, "update", ([10, 99], TWO), ValueError,
     "ids: expected ids of points in the index, got 99"),
    (PLAIN, "update", ([12, 10], TWO), ValueError,
     "ids: expected ids of points in the index, got 12"),
    (PLAIN, "update", ([10], TWO), ValueError, "ids: expected shape (2,), got shape (1,)"),
    (PLAIN, "update", ([10, 10], TWO), ValueError,
     "ids: expected distinct integers, got 10 more than once"),
    (PLAIN, "update", ([10, 11], TWO * np.nan), ValueError,
     "points: expected finite numbers, got nan in row 0"),
    (PLAIN, "update", ([10, 11], TWO, [1.0, 2.0]), ValueError,
     "weights: expected none, as the index was built without, got some"),
    (WEIGHTED, "update", ([10, 11], TWO, [1.0, 2.0]), ValueError,
     "weights: expected shape (2, 2), got shape (2,)"),
    (PLAIN, "sum", (np.ones(3), 0.0), ValueError,
     "sum: expected an index built with weights=, got one without"),
    (PLAIN, "report", (np.ones(2), 0.0), ValueError,
     "normals: expected shape (3,) or (m, 3), got shape (2,)"),
    (PLAIN, "report", (np.ones(3), np.nan), ValueError,
     "offsets: expected numbers, got nan in row 0"),
    (PLAIN, "top", (np.ones(3), -1), ValueError, "k: expected at least 0, got -1"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "method", "arguments", "error", "message"),
    BAD,
    ids=[f"{row[1]}-{i}" for i, row in enumerate(BAD)],
)
def test_bad_input_changes_nothing(kind, method, arguments, error, message):
    index = index_of(kind)
    before = index.snapshot()
    with pytest.raises(error) as caught:
        getattr(index, method)(*arguments)
    assert str(caught.value) == message
    assert index.snapshot() is before


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"structure": "nonsense"}, ValueError,
         "structure: expected one of auto, scan, kd_tree, partition_tree, shallow_cuttings, "
         "cascade, got 'nonsense'"),
        ({"structure": Dynamic}, ValueError,
         "structure: expected one of auto, scan, kd_tree, partition_tree, shallow_cuttings, "
         "cascade, got <class 'halfspace.dynamic.Dynamic'>"),
        ({"buffer": 0}, ValueError, "buffer: expected at least 1, got 0"),
        ({"buffer": 2.5}, TypeError, "buffer: expected an integer, got float"),
        ({"queries": np.ones(4)}, ValueError,
         "queries: expected shape (3,) or (m, 3), got shape (4,)"),
        ({"expected_count": -1}, ValueError, "expected_count: expected at least 0, got -1"),
        ({"expected_queries": "9"}, TypeError, "expected_queries: expected an integer, got str"),
        ({"ids": [1, 1]}, ValueError, "ids: expected distinct integers, got 1 more than once"),
        ({"weights": [1.0]}, ValueError,
         "weights: expected shape (2,) or (2, w), got shape (1,)"),
    ],
)  # fmt: skip
def test_bad_options(options, error, message):
    with pytest.raises(error) as caught:
        Dynamic(TWO, **options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index.insert(TWO),
        lambda index: index.delete([10]),
        lambda index: index.update([10, 11], TWO),
        lambda index: index.compact(),
    ],
    ids=["insert", "delete", "update", "compact"],
)
def test_a_closed_index_is_read_only(change, request):
    index = index_of(PLAIN)
    index.close()
    name = request.node.callspec.id
    with pytest.raises(ValueError, match=f"{name}: expected an open index, got a closed one"):
        change(index)
    assert everything(index) == [10, 11, 13]


def test_ids_run_out():
    index = Dynamic(np.ones((1, 1)), ids=[2**63 - 3])
    assert index.insert([[2.0]]).tolist() == [2**63 - 2]
    message = (
        "ids: expected some, as the largest there was, 9223372036854775806, leaves no room for "
        "2 more, got none"
    )
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        index.insert([[3.0], [4.0]])
    assert str(caught.value) == message
    assert index.insert([[3.0]]).tolist() == [2**63 - 1]
    assert index.insert([[4.0]], ids=[-1]).tolist() == [-1]
    assert everything(index) == [-1, 2**63 - 3, 2**63 - 2, 2**63 - 1]


def test_no_ids_of_another_kind_are_no_ids():
    index = Dynamic(cloud(5, 2))
    for ids in (np.zeros(0, complex), np.zeros(0, "U1"), np.zeros(0, bool)):
        with pytest.raises(TypeError, match="ids: expected integers, got"):
            index.delete(ids)
    index.delete([])
    assert len(index) == 5


@pytest.mark.parametrize("failure", [MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize("change", ["insert", "delete", "update", "compact"])
def test_a_change_that_fails_changes_nothing(change, failure, monkeypatch):
    index, points = grown(200)
    index.compact()
    before = index.snapshot()

    def broken(*arguments, **options):
        raise failure

    monkeypatch.setattr(publisher, "build_as_planned", broken)
    if change == "compact":
        index.insert(points[:1])
        before = index.snapshot()
    arguments = {
        "insert": (points,),
        "delete": (np.arange(100),),
        "update": (np.arange(150), points[:150]),
        "compact": (),
    }[change]
    with pytest.raises(failure):
        getattr(index, change)(*arguments)
    assert index.snapshot() is before
    monkeypatch.undo()
    getattr(index, change)(*arguments)
    assert index.snapshot() is not before
