"""Every structure on every adversarial data set: ids equal the oracle's, and the processor's."""

import itertools
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from .. import oracle
from ..datasets import DATASETS
from ..sizes import examples
from ..strategies import DTYPES, queries
from .structures import FEW, STRUCTURES

# A structure each, in turn, beside Scan; ties go to all.
TURNS = dict(zip(DATASETS, itertools.cycle([*STRUCTURES][1:]), strict=False))
CELLS = sorted(
    {(name, "Scan") for name in DATASETS}
    | set(TURNS.items())
    | set(itertools.product(("integer_grid",), STRUCTURES))
)


@cache
def index_of(dataset, name, dtype):
    d = 3 if name != "Cascade" else 8
    points = DATASETS[dataset](d, np.random.default_rng(d), dtype)[:FEW]
    weights = np.random.default_rng(0).integers(-(2**30), 2**30, (len(points), 2))
    return points, weights, STRUCTURES[name](points, weights=weights)


@pytest.mark.parametrize(("dataset", "name"), CELLS)
@examples(0.02)
@given(data=st.data(), dtype=st.sampled_from(DTYPES), closed=st.booleans())
def test_every_answer(dataset, name, data, dtype, closed):
    points, weights, host = index_of(dataset, name, dtype)
    index = host.to("cuda")
    normals, offsets = batch = data.draw(queries(points, max_m=3))
    pairs = list(zip(normals, offsets, strict=True))

    want = [oracle.report(points, w, b, closed) for w, b in pairs]
    report = index.report(*batch, closed=closed)
    assert [ids.tolist() for ids in report] == want
    assert np.array_equal(report.indices, host.report(*batch, closed=closed).indices)
    kind = data.draw(st.sampled_from(("count", "any", "sum")))
    if kind == "count":
        assert index.count(*batch, closed=closed).tolist() == [len(ids) for ids in want]
    elif kind == "any":
        assert index.any(*batch, closed=closed).tolist() == [len(ids) > 0 for ids in want]
    else:
        sums = [oracle.sums(points, weights, w, b, closed) for w, b in pairs]
        assert index.sum(*batch, closed=closed).tolist() == sums


@pytest.mark.parametrize(("dataset", "name"), [*[*TURNS.items()][::2], ("integer_grid", "Scan")])
@examples(0.02)
@given(data=st.data(), dtype=st.sampled_from(DTYPES))
def test_top(dataset, name, data, dtype):
    points, _, host = index_of(dataset, name, dtype)
    normals, _ = data.draw(queries(points, max_m=2))
    k = data.draw(st.integers(0, 6))
    scores, ids = host.to("cuda").top(normals, k)
    assert ids.shape == scores.shape == (len(normals), min(k, len(points)))
    assert ids.tolist() == [oracle.top(points, w, k) for w in normals]
    assert scores.tolist() == host.top(normals, k).scores.tolist()
