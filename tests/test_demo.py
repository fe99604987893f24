"""The command line: the demo runs, says what it found, and fails where a bound is broken."""

import numpy as np
import pytest
from click.testing import CliRunner

from attention import demo
from attention.__main__ import main
from attention.data import Head

from .sizes import JIT

KEYS, QUERIES = (1500, 12) if JIT else (130, 2)


@pytest.fixture
def small_heads(monkeypatch):
    """Two small made-up heads in place of the packaged ones, one sharp and one flat."""
    rng = np.random.default_rng(0)

    def load(name):
        scale = 3.0 if name == "sharp" else 0.1
        query, key, value = (
            rng.standard_normal((rows, 4), dtype=np.float32) for rows in (QUERIES, KEYS, KEYS)
        )
        return Head(name, np.float32(scale) * query, key, value)

    monkeypatch.setattr(demo.data, "heads", lambda: ("sharp", "flat"))
    monkeypatch.setattr(demo.data, "load", load)
    monkeypatch.setattr(demo, "ROUNDS", 1)


@pytest.mark.usefixtures("small_heads")
def test_demo_prints_its_tables_and_draws(tmp_path):
    figure = tmp_path / "errors.png"
    arguments = ["demo", "--queries", str(QUERIES), "--plot", str(figure)]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "bounds broken: 0; wrong ids: 0" in result.output
    assert figure.stat().st_size > 1000


@pytest.mark.usefixtures("small_heads")
def test_demo_fails_where_a_bound_is_broken(monkeypatch):
    monkeypatch.setattr(demo, "_errors", lambda got, exact: got.bound * 2.0 + 1.0)
    result = CliRunner().invoke(main, ["demo", "--queries", str(QUERIES)], catch_exceptions=False)
    assert result.exit_code == 1


@pytest.mark.usefixtures("small_heads")
def test_demo_fails_where_a_bound_is_not_a_number(monkeypatch):
    monkeypatch.setattr(demo, "_errors", lambda got, exact: np.full_like(got.bound, np.nan))
    result = CliRunner().invoke(main, ["demo", "--queries", str(QUERIES)], catch_exceptions=False)
    assert result.exit_code == 1


@pytest.mark.parametrize("queries", ["0", "257", "many"])
def test_queries_are_checked(queries):
    result = CliRunner().invoke(main, ["demo", "--queries", queries])
    assert result.exit_code == 2
    assert "--queries" in result.output
