"""plan and build: what they take, that data and use decide, and that what was told is done."""

import numpy as np
import pytest

import halfspace
from halfspace import forecast, planner
from halfspace.planner import plan
from halfspace.structures import STRUCTURES

from .sizes import JIT

N = 100_000
"""Points there are said to be; only a sample of them is ever made."""

ROWS = 8_192 if JIT else 512

FEW, MANY = 10, 10_000_000


@pytest.fixture(autouse=True)
def small_samples(monkeypatch):
    """Interpreted kernels cannot take samples as large as compiled ones."""
    if not JIT:
        monkeypatch.setattr(forecast, "SAMPLE_SIZES", (512,))
        monkeypatch.setattr(forecast, "LEAST_SAMPLE", 128)
        monkeypatch.setattr(planner, "DIRECTIONS", 4)


def cloud(d, rows=ROWS):
    return np.random.default_rng(d).standard_normal((rows, d)).astype(np.float32)


@pytest.mark.parametrize("d", [2, 3, 8])
def test_few_queries_are_not_worth_building_for(d):
    chosen = plan(N, d, cloud(d), expected_queries=FEW)
    assert chosen.structure == "scan"
    assert plan(N, d, cloud(d), expected_queries=FEW).structure == "scan"


@pytest.mark.parametrize("d", [2, 3])
def test_more_queries_buy_more_building(d):
    counts = [1, 1_000, 10_000, 100_000, MANY]
    plans = [plan(N, d, cloud(d), None, 10, m) for m in counts]
    chosen = [each.structure for each in plans]
    assert chosen[0] == "scan"
    assert chosen[2] in ("kd_tree", "partition_tree")
    if JIT:  # so small a sample has no levels to speak of
        assert chosen[-1] == "shallow_cuttings"
    builds = [
        next(line.build for line in each.candidates if line.name == each.structure)
        for each in plans
    ]
    assert builds == sorted(builds)


def test_shallow_cuttings_are_for_few_dimensions():
    chosen = plan(N, 7, cloud(7), None, 10, MANY)
    assert chosen.structure in ("kd_tree", "partition_tree", "cascade")
    notes = {candidate.name: candidate.note for candidate in chosen.candidates}
    assert "7 > 6 dimensions" in notes["shallow_cuttings"]


def test_reports_of_nearly_everything_leave_nothing_to_skip():
    assert plan(N, 8, cloud(8), expected_count=N).structure == "scan"


def test_data_decide():
    rng = np.random.default_rng(1)
    flat = np.zeros((ROWS, 16))
    flat[:, :2] = rng.standard_normal((ROWS, 2))
    options = {"queries": rng.standard_normal((20, 16)), "expected_queries": 10_000}
    assert plan(N, 16, flat, **options).structure in ("kd_tree", "partition_tree")
    assert plan(N, 16, rng.standard_normal((ROWS, 16)), **options).structure == "cascade"
    trees = ("scan", "kd_tree", "partition_tree")
    chosen = plan(N, 16, rng.standard_normal((ROWS, 16)), **options, candidates=trees)
    assert chosen.structure == "scan"


def test_queries_decide():
    """Across a long axis planes leave most boxes alone; across a short one they cut them all."""
    points = cloud(24) * np.array([1000.0] + [1.0] * 23, np.float32)
    along, across = np.eye(24)[:1], np.eye(24)[1:]
    chosen = {
        name: plan(N, 24, points, normals, N // 5, 100_000)
        for name, normals in (("along", along), ("across", across))
    }
    queries = {name: chosen[name].candidates[1].query for name in chosen}
    assert 2.0 * queries["along"] < queries["across"]


@pytest.mark.parametrize("rows", [0, 1, 100, 1_000])
def test_any_sample_will_do(rows):
    for points in (cloud(3, rows), np.ones((rows, 3)), 1e300 * cloud(3, rows).astype(float)):
        chosen = plan(N, 3, points, None, 10, 100_000)
        assert chosen.structure in STRUCTURES
        assert all("nan" not in " ".join(line.cells()) for line in chosen.candidates)


def test_the_same_plan_every_time():
    first, second = (plan(N, 2, cloud(2), None, 10, MANY) for _ in range(2))
    assert first.table() == second.table()


def test_memory_is_kept_to():
    points = cloud(2)
    told = {"expected_count": 10, "expected_queries": MANY}
    free = plan(N, 2, points, **told)
    for memory in (1_300_000, 5_000_000):
        held = plan(N, 2, points, memory=memory, **told)
        line = next(line for line in held.candidates if line.name == held.structure)
        assert line.nbytes <= memory
        assert len(held.candidates) == len(free.candidates)
    scan = next(line for line in free.candidates if line.name == "scan")
    held = plan(N, 2, points, memory=int(scan.nbytes), **told)
    assert held.structure == "scan"
    assert all("more memory" in line.note for line in held.candidates[1:])


def test_build_keeps_to_memory():
    points = cloud(2)
    scan, tree = halfspace.Scan(points), halfspace.KDTree(points)
    options = {"expected_count": 10, "expected_queries": MANY}
    assert isinstance(halfspace.build(points, memory=tree.nbytes - 1, **options), halfspace.Scan)
    built = halfspace.build(points, memory=tree.nbytes, **options)
    assert built.nbytes <= tree.nbytes
    with pytest.raises(ValueError, match=f"memory: expected at least {scan.nbytes}"):
        halfspace.build(points, memory=scan.nbytes - 1, **options)


def test_a_structure_larger_than_foretold_gives_way_to_a_scan(monkeypatch):
    points, weights = cloud(2), np.ones((ROWS, 40))
    allowed = halfspace.KDTree(points).nbytes + weights.nbytes
    monkeypatch.setattr(planner, "_choose", lambda *_: planner.Plan("kd_tree", "said so", 1, ()))
    index = halfspace.build(points, weights=weights, memory=allowed)
    assert isinstance(index, halfspace.Scan)
    assert "KDTree" in index.explain()


def test_explain_shows_every_candidate():
    index = halfspace.build(cloud(3), expected_count=5, expected_queries=MANY)
    text = index.explain()
    for name in STRUCTURES:
        assert name in text
    lines = text[text.index("structure  ") :].splitlines()
    column = lines[0].index("memory") + len("memory")
    assert all(line.strip()[:0] == "" and len(line) >= column for line in lines[:5])
    for name in STRUCTURES:
        assert "chosen by hand" in halfspace.build(cloud(3, 80), name).explain()


def test_candidates_are_those_asked_for():
    chosen = plan(N, 2, cloud(2), None, 10, MANY, candidates=("kd_tree",))
    assert [line.name for line in chosen.candidates] == ["scan", "kd_tree"]
    assert chosen.structure == "kd_tree"


def test_every_structure_by_any_of_its_names():
    points = cloud(2, 80)
    for alias, kind in {
        "Scan": halfspace.Scan,
        "KDTree": halfspace.KDTree,
        "kd_tree": halfspace.KDTree,
        "PartitionTree": halfspace.PartitionTree,
        "PARTITION_TREE": halfspace.PartitionTree,
        "ShallowCuttings": halfspace.ShallowCuttings,
        "shallow_cuttings": halfspace.ShallowCuttings,
    }.items():
        assert type(halfspace.build(points, alias)) is kind


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"structure": "s_c_a_n"}, ValueError, "structure: expected one of auto, scan, kd_tree"),
        ({"expected_count": -1}, ValueError, "expected_count: expected at least 0, got -1"),
        ({"expected_count": "3"}, TypeError, "expected_count: expected an integer, got str"),
        ({"expected_queries": -1}, ValueError, "expected_queries: expected at least 0, got -1"),
        ({"expected_queries": 1.5}, TypeError, "expected_queries: expected an integer, got float"),
        ({"memory": 1.5}, TypeError, "memory: expected an integer, got float"),
        ({"expected_batch": 0}, ValueError, "expected_batch: expected at least 1, got 0"),
        ({"expected_batch": "1"}, TypeError, "expected_batch: expected an integer, got str"),
        ({"queries": np.ones((2, 5))}, ValueError, "queries: expected shape"),
        ({"structure": "scan", "queries": "x"}, TypeError, "queries: expected floats"),
        ({"structure": "shallow_cuttings", "memory": 9}, ValueError, "memory: expected at least"),
        ({"structure": "kd_tree", "memory": 9}, ValueError, "memory: expected at least"),
    ],
)
def test_bad_options(options, error, match):
    with pytest.raises(error, match=match):
        halfspace.build(cloud(2), **options)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "match"),
    [
        ((-1, 2, np.ones((3, 2))), {}, ValueError, "n: expected at least 0, got -1"),
        ((5, 0, np.ones((3, 2))), {}, ValueError, "d: expected at least 1, got 0"),
        ((5, 3, np.ones((3, 2))), {}, ValueError, r"sample: expected shape \(s, 3\), got"),
        ((5, 2, np.full((3, 2), np.nan)), {}, ValueError, "sample: expected finite numbers"),
        ((5, 2, np.ones((3, 2))), {"queries": [1.0]}, ValueError, "queries: expected shape"),
        ((5, 2, np.ones((3, 2))), {"memory": "much"}, TypeError, "memory: expected an integer"),
        ((5, 2, np.ones((3, 2))), {"candidates": ["oak"]}, ValueError, "candidates: .*'oak'"),
    ],
)
def test_bad_arguments_of_plan(arguments, options, error, match):
    with pytest.raises(error, match=match):
        plan(*arguments, **options)


def test_masked_arrays_are_refused():
    masked = np.ma.masked_array(np.ones((2, 2)), mask=[[0, 1], [0, 0]])
    with pytest.raises(TypeError, match="points: expected an array without a mask"):
        halfspace.build(masked)
    with pytest.raises(TypeError, match="ids: expected an array without a mask"):
        halfspace.build(np.ones((2, 2)), ids=np.ma.masked_array([1, 2], mask=[0, 1]))


def test_warmup_compiles_for_what_it_is_told():
    halfspace.warmup((np.float32,))
