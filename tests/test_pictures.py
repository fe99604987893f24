"""Pictures: what is drawn is what was found. The page's own code runs too."""

import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

import attention
import halfspace
from attention import plot as attention_plot
from attention.data import Head
from halfspace import plot
from halfspace.tiles import frozen

from .datasets import cloud
from .sizes import JIT

PAGE = Path(__file__).parents[1] / "docs" / "pictures.md"
N = 2000 if JIT else 200
QUERY = [1.0, 2.0], 1.5


@pytest.fixture(scope="module")
def points():
    return cloud(N, 2)


def test_reported_points_are_drawn_apart(points):
    ids = np.random.default_rng(0).permutation(N) + 5
    index = halfspace.Scan(points, ids=ids)
    axes = Figure().add_subplot()
    assert plot.report(index, *QUERY, axes=axes) is axes
    count = index.count(*QUERY)
    assert sorted(len(dots.get_offsets()) for dots in axes.collections[:2]) == sorted(
        [count, N - count]
    )
    drawn = np.asarray(axes.collections[1].get_offsets())
    want = points[points @ QUERY[0] >= QUERY[1]]
    assert np.array_equal(np.sort(drawn, axis=0), np.sort(want, axis=0))
    axes.figure.canvas.draw()


@pytest.mark.parametrize("offset", [-np.inf, np.inf, 0.0])
def test_all_none_and_no_normal(points, offset):
    index = halfspace.Scan(points)
    for normal in ([1.0, 0.0], [0.0, 0.0]):
        title = plot.report(index, normal, offset).get_title()
        assert title == f"{index.count(normal, offset)} of {N} points"


def test_no_points():
    empty = halfspace.Scan(np.empty((0, 2)))
    assert plot.report(empty, *QUERY).get_title() == "0 of 0 points"


@pytest.mark.parametrize("make", [halfspace.KDTree, halfspace.PartitionTree])
def test_cells_hold_their_points(make, points):
    """Each point is in the cell of its tile, and cells are told apart as their points are."""
    index = make(points)
    queries = plot._one(index, *QUERY)
    found = plot.tree_cells(index.structure, 0, queries)
    tiles = index.structure.tiles
    assert len(found.corners) == len(tiles.data)
    inside = points @ QUERY[0] >= QUERY[1]
    for t, corners in enumerate(found.corners):
        rows = tiles.data[t].T[: min(64, N - 64 * t)]
        edges = np.roll(corners, -1, axis=0) - corners
        steps = rows[:, None] - corners
        sides = edges[:, 0] * steps[..., 1] - edges[:, 1] * steps[..., 0]
        sides *= np.sign(sides.sum())
        slack = 1e-9 * np.abs(edges).max() ** 2 + 1e-12
        assert (sides >= -slack).all()
        taken = inside[tiles.ranks[64 * t : 64 * t + 64]]
        assert taken.all() or not found.inside[t]
        assert not taken.any() or found.inside[t] or found.crossed[t]
    axes = plot.cells(index, *QUERY)
    assert f"{len(found.corners)} cells of {make.__name__}" in axes.get_title()
    axes.figure.canvas.draw()


def test_a_conflict_list_holds_the_report():
    n = 2000 if JIT else 700
    points = cloud(n, 2)
    index = halfspace.ShallowCuttings(points)
    levels = plot.envelopes(index)
    assert len(levels) == len(index.structure.depths) > 0
    answered = 0
    for offset in (0.0, 3.5, 4.5, 6.0):
        query = plot._one(index, QUERY[0], offset)
        level, listed = plot._conflict_list(index, query)
        ids = index.report(QUERY[0], offset)
        axes = plot.cuttings(index, QUERY[0], offset)
        assert f"{len(ids)} of {n} points reported" in axes.get_title()
        if level >= 0:
            answered += 1
            assert np.isin(ids, listed).all()
            assert index.work(QUERY[0], offset).points_touched[0] >= len(listed)
        else:
            assert "by the tree" in axes.get_title()
    assert answered
    axes.figure.canvas.draw()


def test_lists_of_tiles():
    """Where memory is short, lists are numbers of tiles."""
    index = halfspace.ShallowCuttings(cloud(2000, 2), memory=50_000)
    cuttings = index.structure
    assert cuttings.copied.tolist() == [False, True]
    index.structure = cuttings._replace(worth=frozen(np.ones(2, bool)))
    found = set()
    for offset in np.linspace(2.5, 6.0, 15):
        level, listed = plot._conflict_list(index, plot._one(index, QUERY[0], offset))
        found.add(level)
        assert level < 0 or np.isin(index.report(QUERY[0], offset), listed).all()
    assert {0, 1} <= found


def test_what_cannot_be_drawn(points):
    tree = halfspace.KDTree(points)
    with pytest.raises(ValueError, match="2 dimensions, got 3"):
        plot.report(halfspace.Scan(cloud(10, 3)), [1.0, 0.0, 0.0], 0.0)
    with pytest.raises(TypeError, match=r"one structure.*Dynamic"):
        plot.report(halfspace.Dynamic(points[:10]), *QUERY)
    with pytest.raises(ValueError, match="one of shape"):
        plot.report(tree, np.eye(2), 0.0)
    with pytest.raises(TypeError, match="with a tree, got Scan"):
        plot.cells(halfspace.Scan(points), *QUERY)
    with pytest.raises(ValueError, match=r"level: expected 0 … 0, got 1"):
        plot.cells(tree, *QUERY, level=1)
    with pytest.raises(TypeError, match="ShallowCuttings, got KDTree"):
        plot.cuttings(tree, *QUERY)


def head(keys=40, queries=6):
    rng = np.random.default_rng(0)
    query, key, value = (rng.standard_normal((m, 4)) for m in (queries, keys, keys))
    return Head("made up", query, key, value)


def test_errors_and_bounds_are_drawn():
    one = head()
    axes = attention_plot.errors([(one, one.query)])
    bounds, errors, _ = (line.get_ydata() for line in axes.lines)
    assert (np.asarray(errors) <= bounds).all()
    exact, _ = attention.dense.softmax(one.query, one.key, one.value)
    got = attention.softmax_attention(one.query, one.key, one.value, rule=attention.TopR(5))
    axes = attention_plot.bound_against_error({"a": (got, exact), "b": (got, exact)})
    assert axes.get_title() == "bounds broken: 0 of 12"
    broken = got._replace(bound=np.zeros_like(got.bound))
    axes = attention_plot.bound_against_error({"a": (broken, exact)})
    assert axes.get_title() == "bounds broken: 6 of 6"
    with pytest.raises(ValueError, match=r"a: expected .*\(6, 4\), got \(6, 3\)"):
        attention_plot.bound_against_error({"a": (got, exact[:, :3])})


def test_a_heat_map_says_its_shares():
    axes = attention_plot.keys_read([[0.0, 0.031], [0.5, np.nan]], columns="ab")
    assert [text.get_text() for text in axes.texts] == ["0%", "3.1%", "50%"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b"]
    for share, options, words in (
        ([0.5], {}, "shape"),
        ([[1.5]], {}, "0 … 1"),
        ([[-0.5]], {}, "0 … 1"),
        ([[0.5]], {"rows": "ab"}, "1 labels, got 2"),
    ):
        with pytest.raises(ValueError, match=words):
            attention_plot.keys_read(share, **options)


@pytest.mark.skipif(not JIT, reason="takes long without compiled kernels")
def test_the_page_draws_its_pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S):
        exec(compile(block, PAGE.name, "exec"), names)
    for name in ("tree", "cuttings", "heads"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
        assert (PAGE.parent / "images" / f"{name}.png").exists()
