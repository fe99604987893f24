"""What users read: every public name has an example that runs, and so has every page."""

import ast
import importlib
import json
import re
import runpy

import numpy as np
import pytest

import attention
import halfspace
from asv_benchmarks import comparison, comparison_page

from .pages import PAGES, ROOT, blocks, name_of, run
from .public_names import has_example, listed, public
from .sizes import JIT

ELSEWHERE = {
    "docs/pictures.md": "run by test_pictures.py",
    "docs/distributed.md": "needs Dask, run by test_distributed.py",
    "docs/gpu.md": "needs a device",
    "docs/transformers.md": "needs torch and transformers",
}

CHECKED_WHERE_THEY_RUN = {
    "cuda": "tests/cuda/test_examples.py",
    "distributed": "tests/test_distributed.py, test_distributed_attention.py",
    "huggingface": "tests/test_transformers.py",
}
"""Modules that need a device, Dask or torch, and what checks their examples."""

SMALLER = {"1_000_000": "50_000", "100_000": "20_000"}
"""Sizes of pages, and what is enough to run their code."""

TOKENS = 100


def test_every_public_name_has_an_example():
    names = [*public(halfspace), *public(attention)]
    assert len(names) > 100
    assert [name for name, example in names if not example] == []


def test_everything_the_api_pages_list_has_an_example():
    names = list(listed())
    without = []
    for page, name in names:
        *path, last = name.split(".")
        if path and path[-1] in CHECKED_WHERE_THEY_RUN:
            continue
        module = importlib.import_module(".".join([page, *path]))
        if not has_example(getattr(module, last)):
            without.append(f"{page}.{name}")
    assert len(names) > 40
    assert without == []


def test_everything_public_is_on_the_api_pages():
    names = {f"{page}.{name}" for page, name in listed()}
    wanted = {f"halfspace.{name}" for name in halfspace.__all__}
    wanted |= {f"attention.{name}" for name in attention.__all__} - {
        "attention.bounds",  # modules, whose members are listed
        "attention.dense",
    }
    assert wanted - names == set()


def tokens():
    """Keys, values and queries of tokens as they come."""
    rng = np.random.default_rng(0)
    key, value = rng.standard_normal((2, TOKENS, 8, 1, 64), dtype=np.float32)
    query = 4.0 * rng.standard_normal((TOKENS, 32, 1, 64), dtype=np.float32)
    return zip(key, value, query, strict=True)


@pytest.mark.skipif(not JIT, reason="interpreted, so much takes too long")
@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page) and name_of(page) not in ELSEWHERE], ids=name_of
)
def test_the_code_of_a_page_runs(page, tmp_path, capsys):
    run(page, tmp_path, SMALLER, {"tokens": tokens()})


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=name_of)
def test_the_code_of_a_page_is_python(page):
    for code in blocks(page):
        assert ast.parse(code).body


def test_tables_of_the_comparison_are_those_that_were_measured():
    results = comparison_page.Results.of_dict(json.loads(comparison.KEPT.read_text("utf-8")))
    page = comparison.PAGE.read_text(encoding="utf-8")
    assert comparison_page.written(page, results) == page
    shown = {row.peer for row in results.rows}
    assert all(f"`{peer}`" in page for peer in shown)
    assert shown == set(comparison_page.COMMANDS)


def test_tables_are_made_anew(tmp_path):
    rows = [
        comparison_page.Row("Reports", "gauss", "numpy", "X @ w", 2e-3, 5e-2, 0),
        comparison_page.Row("Reports", "few", "numpy", "X @ w", 1e-4, 5e-5, 3),
    ]
    made = comparison_page.Results("2026-11-30", "a machine", 0.5, "", {"numpy": "2"}, rows)
    kept, page = tmp_path / "kept.json", tmp_path / "page.md"
    kept.write_text(json.dumps(made.as_dict()), encoding="utf-8")
    shape = "".join(
        f"<!-- table: {name} -->\nold\n<!-- end -->\n" for name in comparison_page.TABLES
    )
    page.write_text(f"Prose.\n{shape}", encoding="utf-8")
    comparison.main(["--from-file", "--json", str(kept), "--page", str(page)])
    text = page.read_text(encoding="utf-8")
    assert text.startswith("Prose.\n")
    assert "old" not in text
    assert "| gauss | `X @ w` | 2.00 | 50.0 | 25.0× | 0 |" in text
    assert text.count("**0.50×**") == 1  # where a peer wins
    assert "| `X @ w` | numpy 2 | `X @ w` | 2 | 12.8× | 0.50× | 25.0× | 1 |" in text
    with pytest.raises(ValueError, match="expected one block"):
        comparison_page.written("no table", made)


def test_what_the_guarantees_name_is_there():
    page = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:tests/|attention/|halfspace/)[\w/]+\.py)`", page))
    assert len(named) > 10
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_broken_links_are_found(tmp_path):
    page = '<p id="a">{}</p><a href="https://example.org/none">elsewhere</a>'
    (tmp_path / "good.html").write_text(page.format('<a href="b.html#a">b</a><a href="#a">a</a>'))
    (tmp_path / "b.html").write_text(page.format('<img src="good.html">'))
    broken = runpy.run_path(str(ROOT / "docs" / "links.py"))["broken"]
    assert broken(tmp_path) == []
    (tmp_path / "b.html").write_text(page.format('<a href="good.html#z"></a><img src="no.png">'))
    assert broken(tmp_path) == ["b.html: good.html#z", "b.html: no.png"]
