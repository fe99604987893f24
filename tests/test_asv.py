"""Every benchmark runs once, as small as it goes, so that none rots unseen."""

import importlib
import itertools
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import halfspace
from asv_benchmarks import (
    benchmarks,
    clock,
    contestants,
    data,
    planning,
    sizes,
    startup,
    truth,
    versus,
)

from .oracle import report

ROOT = Path(__file__).parents[1]


def suites():
    """Classes of benchmarks by name."""
    names = (f"{benchmarks.__name__}.{m.name}" for m in pkgutil.iter_modules(benchmarks.__path__))
    members = itertools.chain(*(vars(importlib.import_module(name)).items() for name in names))
    return {name: value for name, value in members if hasattr(value, "params")}


def runs(suite):
    """Benchmarks of an instance."""
    prefixes = ("time_", "peakmem_", "track_")
    return [getattr(suite, name) for name in dir(suite) if name.startswith(prefixes)]


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setenv(sizes.VARIABLE, "0.001")
    before = halfspace.get_threads()
    yield
    halfspace.set_threads(before)


@pytest.mark.parametrize("suite", suites().values(), ids=suites())
def test_every_benchmark_runs(suite):
    ran = 0
    for params in itertools.product(*suite.params):
        instance = suite()
        try:
            instance.setup(*params)
        except NotImplementedError:  # how asv is told that parameters do not go together
            continue
        for run in runs(instance):
            value = run(*params)
            ran += 1
            if run.__name__.startswith("track_"):
                assert value >= 0
                assert value == run(*params)  # counters, not clocks
    assert ran


def test_asv_finds_the_suite():
    subprocess.run(
        [sys.executable, "-m", "asv", "check", "--python=same"],
        cwd=ROOT / "asv_benchmarks",
        env=os.environ | {"ASV_PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
    )


@pytest.mark.filterwarnings("ignore:builtin type:DeprecationWarning")  # faiss, where there is one
def test_versus_runs(capsys):
    versus.main(["--quick", "--no-startup"])
    out = capsys.readouterr().out
    for contestant in contestants.CONTESTANTS:
        assert contestant.name in out


def test_planning_runs(monkeypatch, capsys, tmp_path):
    sites = ((1_000, 2, "gauss"), (1_000, 8, "cube"))
    monkeypatch.setattr(planning, "FULL", planning.FULL._replace(sites=sites))
    page = tmp_path / "planner.md"
    planning.main(["--quick", "--markdown", str(page)])
    assert "within 1.25x" in capsys.readouterr().out
    assert "| gauss 130 x 2 | 10 | scan" in page.read_text(encoding="utf-8")


def test_plain_tables_where_rich_is_missing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rich", None)
    versus.show("title", ["", "number"], [["a", "1"], ["bb", "22"]])
    assert capsys.readouterr().out.splitlines()[-2:] == ["a        1", "bb      22"]


def test_missing_peers_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    able, missing = contestants.present()
    assert contestants.FaissFlat not in able
    assert "faiss is not installed" in missing[0]
    with clock.held_to(1) as unheld:
        assert "threadpoolctl is not installed" in unheld[0]


@pytest.mark.filterwarnings("ignore:builtin type:DeprecationWarning")
@pytest.mark.parametrize("d", [1, 2, 8])
def test_contestants_agree_where_nothing_is_near_the_plane(d):
    points, normals = data.gauss(500, d), data.normals(7, d)
    scores = np.sort(points.astype(float) @ normals.astype(float).T, axis=0)
    for row in (-1, -40):
        offsets = (0.5 * (scores[row - 1] + scores[row])).astype(np.float32)
        for contestant in contestants.present()[0]:
            answers = contestant(points, 1).report(normals, offsets)
            assert len(answers) == 7
            for answer, normal, offset in zip(answers, normals, offsets, strict=True):
                expected = truth.inside(points, normal, offset).tolist()
                assert sorted(np.asarray(answer, int).tolist()) == expected, contestant.name


def test_truth_is_that_of_the_oracle():
    points, normals = data.gauss(300, 3), data.normals(20, 3)
    offsets = data.offsets(points, normals, 0.1)
    for normal, offset in zip(normals, offsets, strict=True):
        assert truth.inside(points, normal, offset).tolist() == report(points, normal, offset)
    assert truth.wrong([[1, 2, 3]], [np.array([2, 3, 4, 5])]) == 3


def test_our_ids_are_never_wrong():
    plan = versus.QUICK.shrunk()._replace(exact_queries=20, reported=10)
    points, normals = data.gauss(plan.points, 3), data.normals(20, 3)
    ours = [contestants.Built(points, 1), contestants.Scanned(points, 1)]
    assert set(versus.count_wrong(ours, points, normals, plan).values()) == {0}


def test_startup_is_measured(monkeypatch):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")  # compiling takes half a minute
    measured = startup.startups(sizes.points(versus.STARTUP_POINTS))
    assert list(measured) == ["fresh cache", "warm cache"]
    assert all(min(steps) > 0 for steps in measured.values())


def test_scale_is_checked(monkeypatch):
    for text in ("much", "0", "-1", "nan"):
        monkeypatch.setenv(sizes.VARIABLE, text)
        with pytest.raises(ValueError, match=sizes.VARIABLE):
            sizes.scale()
