"""build: what it takes, and that it does what it was told."""

import numpy as np
import pytest

import halfspace
from halfspace.planner import SAMPLE_POINTS, TREE_POINTS

from .sizes import JIT

N = 4 * TREE_POINTS if JIT else TREE_POINTS


@pytest.fixture(scope="module")
def cloud():
    return np.random.default_rng(0).standard_normal((N, 2)).astype(np.float32)


def test_few_points_are_scanned(cloud):
    assert isinstance(halfspace.build(cloud[:100]), halfspace.Scan)


def test_many_points_in_few_dimensions_get_a_tree(cloud):
    assert isinstance(halfspace.build(cloud), halfspace.KDTree)


def test_large_reports_are_scanned(cloud):
    index = halfspace.build(cloud, expected_count=N)
    assert isinstance(index, halfspace.Scan)
    assert "100%" in index.explain()


def test_queries_decide_by_what_a_tree_would_touch():
    rng = np.random.default_rng(1)
    flat = np.zeros((N, 16))
    flat[:, :2] = rng.standard_normal((N, 2))
    normals = rng.standard_normal((3, 16))
    told = halfspace.build(flat, queries=normals)
    assert isinstance(told, halfspace.KDTree), "points in a plane prune in any dimension"
    assert f"{min(N, SAMPLE_POINTS)} points" in told.explain()
    noise = rng.standard_normal((N, 16))
    assert isinstance(halfspace.build(noise, queries=normals), halfspace.Scan)


def test_memory_is_kept(cloud):
    scan, tree = halfspace.Scan(cloud), halfspace.KDTree(cloud)
    assert scan.nbytes < tree.nbytes
    assert isinstance(halfspace.build(cloud, memory=tree.nbytes), halfspace.KDTree)
    assert isinstance(halfspace.build(cloud, memory=tree.nbytes - 1), halfspace.Scan)
    with pytest.raises(ValueError, match=f"memory: expected at least {scan.nbytes}"):
        halfspace.build(cloud, memory=scan.nbytes - 1)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"structure": "s_c_a_n"}, ValueError, "structure: expected one of auto, scan, kd_tree"),
        ({"expected_count": -1}, ValueError, "expected_count: expected at least 0, got -1"),
        ({"expected_count": "3"}, TypeError, "expected_count: expected an integer, got str"),
        ({"memory": 1.5}, TypeError, "memory: expected an integer, got float"),
        ({"queries": np.ones((2, 5))}, ValueError, "normals: expected shape"),
        ({"structure": "scan", "queries": "x"}, TypeError, "normals: expected floats"),
    ],
)
def test_bad_options(cloud, options, error, match):
    with pytest.raises(error, match=match):
        halfspace.build(cloud, **options)


def test_masked_arrays_are_refused():
    masked = np.ma.masked_array(np.ones((2, 2)), mask=[[0, 1], [0, 0]])
    with pytest.raises(TypeError, match="points: expected an array without a mask"):
        halfspace.build(masked)
    with pytest.raises(TypeError, match="ids: expected an array without a mask"):
        halfspace.build(np.ones((2, 2)), ids=np.ma.masked_array([1, 2], mask=[0, 1]))


def test_warmup_compiles_for_what_it_is_told():
    halfspace.warmup((np.float32,))
