"""Every structure on every adversarial data set: ids equal the oracle's, and the processor's."""

import itertools
import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from .. import oracle
from ..datasets import DATASETS
from ..sizes import examples
from ..strategies import DTYPES, build_anyhow, problems, rngs
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
    d = {"Cascade": 8, "PartitionTree": 9}.get(name, 3)
    points = DATASETS[dataset](d, np.random.default_rng(d), dtype)[:FEW]
    weights = np.random.default_rng(0).integers(-(2**30), 2**30, (len(points), 2))
    return points, weights, STRUCTURES[name](points, weights=weights)


def cutting(points, rng, m=3):
    """Half-spaces (m, d) with a point on the plane, or one step beside it.

    All is drawn from `rng`: the first example of hypothesis is as good as any other.
    """
    d = points.shape[1]
    kinds = (
        lambda: rng.standard_normal(d).astype(np.float32),
        lambda: rng.integers(-3, 4, d).astype(np.float64),
        lambda: rng.standard_normal() * (np.arange(d) == rng.integers(d)),
    )
    normals = np.array([kinds[i % 3]() for i in rng.permutation(m)])
    offsets = []
    for normal in normals:
        if not len(points):
            offsets.append(0.0)
            continue
        row = rng.integers(len(points))
        score = oracle.rounded(oracle.scores(points[row : row + 1], normal)[0])
        beside = math.nextafter(score, -math.inf), score, math.nextafter(score, math.inf)
        offsets.append(beside[rng.integers(3)])
    return normals, np.array(offsets)


@pytest.mark.parametrize(("dataset", "name"), CELLS)
@examples(0.02)
@given(rng=rngs())
def test_every_answer(dataset, name, rng):
    dtype, closed = DTYPES[rng.integers(2)], bool(rng.integers(2))
    points, weights, host = index_of(dataset, name, dtype)
    index = host.to("cuda")
    normals, offsets = batch = cutting(points, rng)
    pairs = list(zip(normals, offsets, strict=True))

    want = [oracle.report(points, w, b, closed) for w, b in pairs]
    report = index.report(*batch, closed=closed)
    assert [ids.tolist() for ids in report] == want
    assert np.array_equal(report.indices, host.report(*batch, closed=closed).indices)
    kind = rng.integers(3)
    if kind == 0:
        assert index.count(*batch, closed=closed).tolist() == [len(ids) for ids in want]
    elif kind == 1:
        assert index.any(*batch, closed=closed).tolist() == [len(ids) > 0 for ids in want]
    else:
        sums = [oracle.sums(points, weights, w, b, closed) for w, b in pairs]
        assert index.sum(*batch, closed=closed).tolist() == sums


@pytest.mark.parametrize(("dataset", "name"), [*[*TURNS.items()][::3], ("integer_grid", "Scan")])
@examples(0.02)
@given(rng=rngs())
def test_top(dataset, name, rng):
    points, _, host = index_of(dataset, name, DTYPES[rng.integers(2)])
    normals, _ = cutting(points, rng, 2)
    k = int(rng.integers(7))
    scores, ids = host.to("cuda").top(normals, k)
    assert ids.shape == scores.shape == (len(normals), min(k, len(points)))
    assert ids.tolist() == [oracle.top(points, w, k) for w in normals]
    assert scores.tolist() == host.top(normals, k).scores.tolist()


@pytest.mark.parametrize("seed", range(6))
def test_cascades_however_they_are_fitted(seed):
    """Any basis, any steps, codes of any bits, with row codes and without."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(-4, 5, (FEW, 5)), rng.standard_normal((FEW, 5))
    points = kinds[seed % 2].astype(DTYPES[seed // 2 % 2])
    index = build_anyhow(points, rng).to("cuda")
    normals, offsets = cutting(points, rng)
    want = [oracle.report(points, w, b) for w, b in zip(normals, offsets, strict=True)]
    assert [ids.tolist() for ids in index.report(normals, offsets)] == want
    assert index.top(normals[0], 3).ids.tolist() == oracle.top(points, normals[0], 3)


@examples(0.1)
@given(data=st.data(), dtype=st.sampled_from(DTYPES), name=st.sampled_from(sorted(STRUCTURES)))
def test_points_and_queries_of_any_kind(data, dtype, name):
    points, normals, offsets = data.draw(problems(dtype, max_n=FEW, max_m=2))
    index = STRUCTURES[name](points).to("cuda")
    want = [oracle.report(points, w, b) for w, b in zip(normals, offsets, strict=True)]
    assert [ids.tolist() for ids in index.report(normals, offsets)] == want
