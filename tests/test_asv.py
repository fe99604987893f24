"""Every benchmark runs once, as small as it goes, so that none rots unseen."""

import importlib
import itertools
import json
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import attention
import halfspace
from asv_benchmarks import (
    benchmarks,
    certificates,
    clock,
    comparison,
    comparison_page,
    contestants,
    counters,
    data,
    decode,
    dynamic,
    growth,
    high,
    high_contestants,
    high_play,
    high_sites,
    planning,
    prefill,
    sizes,
    startup,
    storage,
    truth,
    versus,
)

from .oracle import report
from .sizes import JIT

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
    monkeypatch.setenv(sizes.VARIABLE, "0.001" if JIT else "0.0001")
    before = halfspace.get_threads()
    yield
    halfspace.set_threads(before)


@pytest.mark.parametrize("suite", suites().values(), ids=suites())
def test_every_benchmark_runs(suite):
    made = (suite().setup_cache(),) if hasattr(suite, "setup_cache") else ()
    ran = 0
    for params in itertools.product(*suite.params):
        instance = suite()
        if hasattr(instance, "setup"):
            instance.setup(*made, *params)
        for run in runs(instance):
            value = run(*made, *params)
            ran += 1
            assert value is None or value >= 0
        if hasattr(instance, "teardown"):
            instance.teardown(*made, *params)
    assert ran


def test_suites_have_topics():
    topics = {name.rpartition(".")[2] for name in vars(benchmarks) if not name.startswith("_")}
    wanted = {"build", "report", "count", "top", "dynamic", "decode", "prefill", "memory"}
    assert wanted | {"counters"} <= topics


def test_counters_repeat_and_are_those_that_were_agreed_to(tmp_path, capsys):
    kept = tmp_path / "counters.json"
    assert counters.main(["--update", "--baseline", str(kept)]) == 0
    found = counters.read(kept)
    assert list(found) == counters.names()
    assert min(found.values()) >= 0.0
    assert sum(value > 0.0 for value in found.values()) > 0.8 * len(found)
    assert counters.main(["--check", "--baseline", str(kept)]) == 0
    assert f"{len(found)} counters: 0 grown" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"expected counters at .*=0\.\d+, got those at 1"):
        counters.read(counters.BASELINE)


def test_touched_work_that_grows_is_caught(capsys):
    """As if what is there had touched less before: by 4 %, by 6 %, not at all, or more."""
    found = dict.fromkeys(counters.names(), 100.0)
    points, nodes, keys, *_ = found
    assert counters.check(found | {points: 100.0 / 1.04}, found) == 0
    assert counters.check(found | {points: 100.0 / 1.06}, found) == 1
    assert f"{points}  " in capsys.readouterr().out
    assert counters.check({name: 100.0 for name in found if name != nodes}, found) == 1
    assert counters.check(found, {name: 100.0 for name in found if name != nodes}) == 1
    assert counters.check(found | {keys: 106.0}, found) == 0
    assert "0 grown by more than 5%, 1 fallen as much" in capsys.readouterr().out


def test_asv_finds_the_suite():
    subprocess.run(
        [sys.executable, "-m", "asv", "check", "--python=same"],
        cwd=ROOT / "asv_benchmarks",
        env=os.environ | {"ASV_PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
    )


@pytest.mark.filterwarnings("ignore:builtin type:DeprecationWarning")  # faiss, where there is one
def test_versus_runs(monkeypatch, capsys):
    choice = high_sites.Choice(kinds=("decaying",), dims=(16,))
    monkeypatch.setattr(high, "REDUCED", high.REDUCED._replace(choice=choice))
    versus.main(["--quick", "--no-startup"])
    out = capsys.readouterr().out
    for contestant in contestants.CONTESTANTS:
        assert contestant.name in out


@pytest.mark.filterwarnings("ignore:builtin type:DeprecationWarning")
def test_high_runs(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv(sizes.VARIABLE, "0.0001")
    rng = np.random.default_rng(0)
    capture, embeddings = tmp_path / "capture.npz", tmp_path / "embeddings.npy"
    rows = rng.standard_normal((700, 32)).astype(np.float16)
    np.savez(capture, k_1_8=rows, q_1_8=rows[::-1], v_1_8=rows)
    np.save(embeddings, rng.standard_normal((700, 24), dtype=np.float32))
    files = ["--capture", str(capture), "--embeddings", str(embeddings)]
    high.main(["--dims", "16", "--counts", "10", "1 %", *files])
    out = capsys.readouterr().out
    for word in (*data.HIGH_GENERATORS, "keys 1_8", "embeddings", *high_contestants.OURS):
        assert word in out
    for peer in contestants.present(high_contestants.SINGLE + high_contestants.BATCHED)[0]:
        assert peer.name in out
    assert re.search(r"wrong ids of ours +0 +0 +met", out)


@pytest.mark.skipif(not JIT, reason="interpreted, so much takes too long")
@pytest.mark.filterwarnings("ignore:builtin type:DeprecationWarning")
def test_the_comparison_runs(monkeypatch, tmp_path):
    few = [site for site in comparison.SITES if site.d in (3, 64) and site.kind == "gauss"]
    monkeypatch.setattr(comparison, "SITES", few)
    kept, page = tmp_path / "kept.json", tmp_path / "page.md"
    page.write_text(comparison.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    comparison.main(["--json", str(kept), "--page", str(page), "--note", "A note."])
    results = comparison_page.Results.of_dict(json.loads(kept.read_text(encoding="utf-8")))
    assert {row.group for row in results.rows} >= {site.group for site in few} | {"Decoding"}
    assert all(row.ratio > 0.0 and row.package in results.versions for row in results.rows)
    assert "A note." in page.read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore:builtin type:DeprecationWarning")
def test_contestants_are_skipped(monkeypatch, capsys):
    monkeypatch.setenv(sizes.VARIABLE, "0.0001")
    high.main(["--dims", "16", "--kinds", "gauss", "--only", "top", "--skip", "told", "faiss"])
    out = capsys.readouterr().out
    played = "\n".join(line for line in out.splitlines() if "left out" not in line)
    assert high_contestants.TOLD not in played
    assert high_contestants.FaissScaled.name not in played
    assert high_contestants.REFERENCE in out
    alone = [name for name in high_contestants.STRUCTURES if name != high_contestants.REFERENCE]
    high.main(["--dims", "16", "--kinds", "gauss", "--only", "top", "--skip", *alone, "faiss"])
    assert "build / best structure" not in capsys.readouterr().out


def test_sites_that_have_no_file_are_named():
    found, complaints = high_sites.sites(high_sites.Choice(dims=(16, 64)))
    assert len(found) == 2 * len(data.HIGH_GENERATORS) + 3
    assert "embeddings: left out" in complaints[0]


@pytest.mark.parametrize("kind", data.HIGH_GENERATORS)
def test_normals_are_held_back(kind):
    alike = high_sites.drawn(kind, 16, 600, any_normals=False)
    assert (alike.points.shape, alike.normals.shape) == ((600, 16), (high_sites.NORMALS, 16))
    assert alike.points.dtype == alike.normals.dtype == np.float32
    everything = np.concatenate(alike)
    assert len(np.unique(everything, axis=0)) == len(everything)
    anyhow = high_sites.drawn(kind, 16, 600, any_normals=True)
    assert np.linalg.norm(anyhow.normals, axis=1) == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize(("kind", "power"), [("decaying", 1.0), ("slow", 0.5)])
def test_singular_values_decay(kind, power):
    points = data.HIGH_GENERATORS[kind](20_000, 16, "float64")
    found = np.linalg.svd(points, compute_uv=False) / np.sqrt(len(points))
    assert found == pytest.approx(np.arange(1.0, 17.0) ** -power, rel=0.03)
    assert points.std(axis=0).max() < 0.9  # turned away from the axes


def test_best_of_ties():
    points = np.array([[3.0], [1.0], [2.0], [1.0], [0.0], [1.0]], np.float32)
    truths = truth.tops(points, np.array([[1.0], [-1.0]], np.float32), 3)
    assert [sorted(ids.tolist()) for ids in truths] == [[0, 1, 2, 3, 5], [1, 3, 4, 5]]
    assert truth.wrong_best([[0, 2, 5], [4, 2, 0]], truths) == 2


def test_bytes_read_are_asked_for():
    class Telling:
        def bytes_read(self, normal, offset):
            return {"codes": int(offset), "rows": 5}

    asked = high_play.Asked(np.zeros((2, 3)), np.array([1.0, 3.0]))
    assert high_play.bytes_read(Telling(), asked) == 7.0
    assert high_play.bytes_read(object(), asked) is None


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
    everybody = contestants.CONTESTANTS + high_contestants.SINGLE + high_contestants.BATCHED
    scores = np.sort(points.astype(float) @ normals.astype(float).T, axis=0)
    for row in (-1, -40):
        offsets = (0.5 * (scores[row - 1] + scores[row])).astype(np.float32)
        truths = [ids.tolist() for ids in truth.insides(points, normals, offsets)]
        for contestant in contestants.present(everybody)[0]:
            ready = contestant(points, 1)
            answers = ready.report(normals, offsets)
            assert [sorted(np.asarray(ids, int).tolist()) for ids in answers] == truths, ready.name
            one = ready.report_one(normals[0], offsets[0])
            assert sorted(np.asarray(one, int).tolist()) == truths[0], ready.name


@pytest.mark.filterwarnings("ignore:builtin type:DeprecationWarning")
def test_contestants_agree_on_the_best():
    points, normals = data.gauss(500, 8), data.normals(3, 8)
    able, _ = contestants.present((contestants.Built, *high_contestants.TOP))
    for contestant in able:
        ready = contestant(points, 1)
        answers = [ready.top(normal, 40) for normal in normals]
        assert {len(ids) for ids in answers} == {40}
        assert truth.wrong_best(answers, truth.tops(points, normals, 40)) == 0, ready.name


def test_truth_is_that_of_the_oracle():
    points, normals = data.gauss(300, 3), data.normals(20, 3)
    offsets = data.offsets(points, normals, 0.1)
    for normal, offset in zip(normals, offsets, strict=True):
        assert truth.inside(points, normal, offset).tolist() == report(points, normal, offset)
    together = [ids.tolist() for ids in truth.insides(points, normals, offsets)]
    assert together == [report(points, w, b) for w, b in zip(normals, offsets, strict=True)]
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


def test_storage_is_measured(tmp_path, capsys):
    storage.show_storage(tmp_path)
    printed = capsys.readouterr().out
    assert all(case.structure.__name__ in printed for case in storage.CASES)
    assert all(policy in printed for policy in ("always", "batch", "never"))


def test_scale_is_checked(monkeypatch):
    for text in ("much", "0", "-1", "nan"):
        monkeypatch.setenv(sizes.VARIABLE, text)
        with pytest.raises(ValueError, match=sizes.VARIABLE):
            sizes.scale()


@pytest.mark.parametrize("d", [4, 32])
def test_growth_is_counted(capsys, d):
    growth.main(["--dims", str(d), "--least", "8", "--most", "12", "--queries", "4"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    (row,) = [row for row in rows if row[:2] == [str(d), "KDTree" if d == 4 else "Cascade"]]
    powers = [float(word) for word in row if re.fullmatch(r"\d\.\d{3}", word)]
    assert len(powers) == 5
    assert all(0.5 < power < 2.1 for power in powers)


def test_prefill_is_measured(capsys):
    prefill.show_prefill(1, (16_384,))
    printed = capsys.readouterr().out
    assert all(case.name in printed for case in prefill.CASES)


@pytest.mark.skipif(not JIT, reason="interpreted, so much takes too long")
def test_decode_is_measured(capsys, tmp_path):
    rng = np.random.default_rng(0)
    names = [f"{letter}_{head}" for letter in "qkv" for head in ("1_8", "2_8")]
    arrays = {name: rng.standard_normal((300, 8)).astype(np.float16) for name in names}
    np.savez(tmp_path / "heads.npz", **arrays)
    decode.show_decode(1, tmp_path / "heads.npz")
    printed = capsys.readouterr().out
    assert all(case.name in printed for case in decode.cases(tmp_path / "heads.npz"))


@pytest.mark.skipif(not JIT, reason="interpreted, so much takes too long")
def test_points_that_change_are_measured(capsys):
    assert dynamic.main(["--points", "600", "--batch", "100", "--rounds", "1"]) == 0
    assert dynamic.main(["load", "--points", "1000", "--seconds", "0.3", "--readers", "2"]) == 0
    printed = capsys.readouterr().out
    assert "cascade d=16" in printed
    assert "answers wrong" in printed


@pytest.mark.skipif(not JIT, reason="interpreted, so much takes too long")
def test_certificates_are_held_against_errors(capsys, tmp_path):
    rng = np.random.default_rng(0)
    arrays = {f"{c}_0_1": rng.standard_normal((300, 8)).astype(np.float16) for c in "qkv"}
    np.savez(tmp_path / "heads.npz", **arrays)
    assert certificates.show_certificates(tmp_path / "heads.npz", 3)
    assert "0_1, TopR" in capsys.readouterr().out


def test_a_broken_bound_is_noticed():
    broken = np.full(1000, 1.0)
    tally = certificates.Tally(broken, 0.5 * broken, broken, broken, np.zeros(1000, bool))
    certain, drawn = attention.Error(1e-2), attention.Sampled(0.05, 1e-2)
    assert not certificates.verdict(certain, tally)
    assert certificates.verdict(certain, tally._replace(bound=broken))
    drawn_tally = tally._replace(sampled=np.ones(1000, bool))
    assert not certificates.verdict(drawn, drawn_tally)
    few = np.where(np.arange(1000) < 9, 0.5, 2.0)
    assert certificates.verdict(drawn, drawn_tally._replace(bound=few))
