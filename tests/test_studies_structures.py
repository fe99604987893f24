"""Studies of structures against direct computation; and what they make of rows, made-up ones."""

import math

import numpy as np
import pytest

import halfspace
from attention import TopR
from attention.studies import clouds, dimension, heads, memory, parts

from .study_checks import KEYS, SIZE, check, made_up


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(heads.data, "heads", lambda: ("sharp", "flat"))
    monkeypatch.setattr(heads.data, "load", made_up)
    for study in (memory, parts):
        monkeypatch.setattr(study, "WARM", 1 << SIZE)


# clouds


@pytest.mark.parametrize("kind", clouds.KINDS)
def test_clouds_have_half_spaces_of_as_many_points(kind):
    cloud = clouds.make(kind, 90, 3, 5)
    assert cloud.points.shape == (90, 3)
    assert cloud.normals.shape == (5, 3)
    inside = cloud.points @ cloud.normals.T.astype(float) >= clouds.offsets(cloud, 17)
    assert inside.sum(axis=0).tolist() == [17] * 5


def test_a_head_gives_no_more_than_it_has():
    assert clouds.largest(clouds.REAL, 6, 10**6) == KEYS
    assert clouds.largest(clouds.REAL, 7, 10**6) == 0


# parts


def test_both_parts_report_as_many_points():
    settings = parts.Settings(
        dims=(2,), exponents=(SIZE,), kinds=("iid",), few=8, queries=parts.ALONE, rounds=1
    )
    rows = parts.run(settings)
    assert [(row.structure, row.k) for row in rows] == [
        (name, k) for k in (8, TopR().count(1 << SIZE)) for name in parts.PARTS
    ]
    assert all(row.reported == row.k for row in rows)
    assert all(min(row.build, row.alone, row.batch, row.nbytes) > 0 for row in rows)
    assert all(row.levels == 0 for row in rows if row.structure == "PartitionTree")
    check(parts.STUDY, rows)


def part_row(structure, build, query, levels, n=1000):
    return parts.Row("made", 3, n, 10, structure, levels, build, 1000, query, query, 10.0)


def test_the_crossover_is_where_totals_meet():
    pair = parts.Pair(part_row("PartitionTree", 1.0, 0.03, 0), part_row("x", 3.0, 0.01, 2))
    assert pair.crossover("batch") == pytest.approx(100.0)
    assert (pair.cheaper(99, "batch"), pair.cheaper(101, "batch")) == (1, 2)
    assert parts.Pair(*pair[::-1]).crossover("batch") == math.inf
    dear = parts.Pair(part_row("x", 1.0, 0.03, 0), part_row("y", 0.5, 0.01, 2))
    assert dear.crossover("alone") == 0.0


def test_what_is_said_of_parts_follows_from_rows():
    def told(query, levels):
        one, two = part_row("PartitionTree", 1.0, 0.03, 0), ("ShallowCuttings", 3.0, query, levels)
        return parts.crossover([one, part_row(*two)])

    assert "faster than Part 1 in 1 of 1 cases" in told(0.01, 2)
    assert "pays after 100 queries" in told(0.01, 2)
    assert "so it never pays" in told(0.05, 2)
    assert "is the tree under them, faster than Part 1 in 1" in told(0.01, 0)


# memory


def test_bytes_are_those_of_the_indexes():
    settings = memory.Settings(dims=(2,), exponents=(SIZE - 1,), kinds=("iid",), limit=8)
    rows = memory.run(settings)
    assert {row.structure for row in rows} == {*memory.MAKERS, memory.FREE, memory.CACHE}
    points = clouds.make("iid", 1 << SIZE - 1, 2, 1).points
    for name in ("Scan", "KDTree"):
        row = next(row for row in rows if row.structure == name)
        assert row.nbytes == getattr(halfspace, name)(points).nbytes
        assert row.factor == row.nbytes / points.nbytes
    check(memory.STUDY, rows)


def memory_row(structure, n, nbytes, build=1.0, d=4):
    return memory.Row(structure, "made", d, n, 16 * n, nbytes, build, 1, 32)


def test_what_is_said_of_memory_follows_from_rows():
    sizes = (100, 200, 400)
    plain = [memory_row("KDTree", n, 20 * n) for n in sizes]
    square = [memory_row(memory.FREE, n, n**2, build=9.0) for n in sizes]
    told = memory.constants([*plain, *square])
    assert "takes 1.25 to 1.25 bytes" in told
    assert "grows as n^2.00 at most" in told
    assert "9 times that of a k-d tree" in told
    told = memory.constants([*plain, *(memory_row(memory.FREE, n, 50 * n) for n in sizes)])
    assert "grows as n^1.00 at most" in told
    assert "not built at enough sizes" in memory.constants(plain)
    bare = [memory_row(memory.FREE, n, 50 * n, d=6)._replace(levels=0) for n in sizes]
    told = memory.constants([*plain, *square, *bare])
    assert "at d = 4 as n^2.00" in told
    assert "At d = 6 no level is made: it is a tree." in told
    assert not memory.able("PartitionTree", 99, memory.Settings())


# dimension


def test_work_and_survivors_are_counted():
    settings = dimension.Settings(
        dims=(2, 9), exponents=(SIZE,), kinds=("iid",), count=8, queries=2, rounds=1, tree_dims=4
    )
    rows = dimension.run(settings)
    assert all(row.touched == 1 << SIZE for row in rows if row.structure == "Scan")
    assert {row.d for row in rows if row.structure == "PartitionTree"} == {2}
    # Two coordinates are all there is: the filter leaves what is reported.
    left = {row.d: row.touched for row in rows if row.structure == dimension.FILTER}
    assert left[2] == 8
    assert 8 <= left[9] <= 1 << SIZE
    check(dimension.STUDY, rows)


def test_the_filter_leaves_every_point_of_the_half_space():
    cloud = clouds.make("iid", 300, 5, 4)
    b = clouds.offsets(cloud, 11)
    left = [dimension.survivors(cloud, b, leading) for leading in range(1, 6)]
    assert (np.diff(left, axis=0) <= 0).all()
    assert left[-1].tolist() == [11] * 4
    # One coordinate and the norms of the rest, by brute force.
    points, normals = (rows.astype(float) for rows in cloud)
    axis = np.linalg.eigh(np.cov(points.T))[1][:, -1]
    along, w = points @ axis, normals @ axis
    rest = np.linalg.norm(points - np.outer(along, axis), axis=1)
    w_rest = np.linalg.norm(normals - np.outer(w, axis), axis=1)
    wanted = (np.outer(w, along) + np.outer(w_rest, rest) >= b[:, None]).sum(axis=1)
    assert left[0].tolist() == wanted.tolist()


def dimension_row(structure, n, touched, query=None, d=16):
    return dimension.Row("made", d, n, structure, 8, touched, 0.0, query)


def test_what_is_said_of_dimensions_follows_from_rows():
    def told(power, share, codes):
        trees = [dimension_row("PartitionTree", n, share * n**power) for n in (100, 200, 400)]
        others = [
            dimension_row("Scan", 400, 400, 1.0),
            dimension_row("Cascade", 400, 400, codes),
            dimension_row(dimension.FILTER, 400, 40),
        ]
        return dimension.reach([*trees, *others])

    assert "up to d = no d on made points" in told(1.0, 1.0, 0.5)
    assert "in 0 of 1 cases" in told(1.2, 0.1, 0.5)
    good = told(0.5, 1.0, 0.25)
    assert "up to d = 16 on made points" in good
    assert "in 1 of 1 cases" in good
    assert "take 0.25 to 0.25 times a scan's time" in good
    assert "leave 10.0% to 10% of the points." in good
    apart = dimension_row(dimension.FILTER, 400, 4)._replace(kind="other")
    rows = [dimension_row("PartitionTree", n, n) for n in (100, 200, 400)]
    rows += [dimension_row("Scan", 400, 400, 1.0), dimension_row("Cascade", 400, 400, 1.0)]
    told_apart = dimension.reach([*rows, dimension_row(dimension.FILTER, 400, 40), apart])
    assert "10 times apart at the same d = 16: the spectrum decides" in told_apart
    assert "nothing is said of more" in dimension.reach(
        [dimension_row("PartitionTree", n, 5, d=4) for n in (100, 200, 400)]
    )
