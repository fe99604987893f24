"""The complexity study runs, and its fits recover exponents that are known."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import halfspace
from asv_benchmarks import complexity, data, sizes

TINY = ["--least", "14", "--most", "17", "--queries", "2"]


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setenv(sizes.VARIABLE, "0.01")


@given(exponent=st.floats(-1.0, 2.0), factor=st.floats(1e-3, 1e6))
def test_exponents_of_powers_are_recovered(exponent, factor):
    n = 2 ** np.arange(12, 21)
    slope, error = complexity.fitted(n, factor * n.astype(float) ** exponent)
    assert math.isclose(slope, exponent, abs_tol=1e-9)
    assert error < 1e-6


def test_noise_shows_in_the_error():
    n = 2 ** np.arange(12, 21)
    noise = np.exp(np.random.default_rng(0).normal(0.0, 0.2, len(n)))
    slope, error = complexity.fitted(n, 5.0 * np.sqrt(n) * noise)
    assert abs(slope - 0.5) < 4.0 * error < 0.5


def test_too_few_sizes_have_no_exponent():
    assert complexity.fitted([1, 2, 4], [0.0, 1.0, 2.0]) is None
    assert complexity.fitted([1, 2, 4, 8], [0.0, 3.0, 6.0, 12.0])[0] == pytest.approx(1.0)


def test_bounds():
    bound = complexity.theory
    assert bound("Scan", "deep", 3) == bound("Scan", "shallow", 3) == 1.0
    assert [bound("PartitionTree", "shallow", d) for d in (2, 3, 4, 8)] == [0.0, 0.0, 0.5, 0.75]
    assert bound("PartitionTree", "deep", 4) == bound("KDTree", "deep", 4) == 0.75
    assert bound("ShallowCuttings", "shallow", 6) == 0.0


@pytest.mark.parametrize("kind", data.GENERATORS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_points_are_seeded(kind, dtype):
    make = data.GENERATORS[kind]
    points = make(500, 3, dtype)
    assert (points.shape, points.dtype) == ((500, 3), np.dtype(dtype))
    assert np.array_equal(points, make(500, 3, dtype))
    assert not np.array_equal(points, make(500, 3, dtype, seed=1))


def test_a_ball_is_filled_evenly():
    norms = np.linalg.norm(data.ball(20_000, 3, "float64"), axis=1)
    assert norms.max() <= 1.0
    assert np.mean(norms < 0.5) == pytest.approx(0.5**3, abs=0.01)


def test_the_study_runs(capsys, tmp_path):
    to_json, to_plot = tmp_path / "study.json", tmp_path / "study.png"
    kinds = ["gauss", "moment_curve"]
    chosen = ["--dims", "2", "3", "--kinds", *kinds, "--structures", "KDTree", "Scan"]
    complexity.main([*TINY, *chosen, "--json", str(to_json), "--plot", str(to_plot)])
    out = capsys.readouterr().out
    for word in (*kinds, "KDTree", "Scan", "d = 3", "noisy"):
        assert word in out
    written = json.loads(to_json.read_text())
    assert len(written["builds"]) == 2 * 2 * 2 * 4
    assert len(written["work"]) == 2 * len(written["builds"])
    for fit in written["fits"]:
        if fit["structure"] == "Scan" and fit["depth"] != "build":
            assert fit["exponent"] == pytest.approx(1.0) == fit["theory"]
    for row in written["work"]:
        wanted = complexity.DEPTHS[row["depth"]](row["n"])
        assert row["reported"] == pytest.approx(wanted, abs=3)
    assert to_plot.read_bytes().startswith(b"\x89PNG")


def test_structures_are_found_by_name(monkeypatch, capsys):
    monkeypatch.delattr(halfspace, "PartitionTree", raising=False)
    assert complexity.able(complexity.STRUCTURES, 6) == ["KDTree", "ShallowCuttings", "Scan"]
    assert complexity.able(complexity.STRUCTURES, 7) == ["KDTree", "Scan"]
    wanted = ["--structures", "PartitionTree", "ShallowCuttings", "--dims", "6", "7"]
    complexity.main([*TINY, *wanted, "--kinds", "ball"])
    out = capsys.readouterr().out
    assert "not in this version: PartitionTree" in out
    assert "ShallowCuttings, points" in out
    assert "–" in out  # no seven dimensions


def test_long_builds_end_a_line(capsys):
    complexity.main([*TINY, "--dims", "2", "--kinds", "gauss", "--patience", "0"])
    assert "so no more" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong",
    [["--dims", "1"], ["--least", "5", "--most", "4"], ["--kinds", "none"], ["--queries", "0"]],
)
def test_bad_options(wrong, capsys):
    with pytest.raises(SystemExit):
        complexity.main(wrong)
    assert wrong[0] in capsys.readouterr().err
