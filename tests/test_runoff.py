"""The run-off: who is asked, who wins, and that only time is at stake."""

import numpy as np
import pytest

import halfspace
from halfspace import planner, runoff
from halfspace.plans import Candidate, Plan
from halfspace.runoff import Pace, Probes, pays, run_off

POINTS = np.random.default_rng(0).standard_normal((600, 8)).astype(np.float32)

NORMALS = np.random.default_rng(1).standard_normal((80, 8))

MADE = {"scan": halfspace.Scan, "kd_tree": halfspace.KDTree, "cascade": halfspace.Cascade}


def planned(
    chosen="kd_tree",
    queries=1_000_000,
    builds=(1e-4, 1e-3, 1e-3),
    query=(1e-4,) * 3,
    nbytes=1e4,
    note="",
):
    lines = [
        Candidate(name, build, each, nbytes, build + queries * each, note)
        for name, build, each in zip(MADE, builds, query, strict=True)
    ]
    return Plan(chosen, "least in all", queries, tuple(lines))


def probes(count=6):
    return Probes.of(halfspace.Scan(POINTS), POINTS, NORMALS, count, 10**6)


@pytest.fixture
def clock(monkeypatch):
    """Seconds a query, alone and in a batch, by structure; and who was built."""
    paces = {"Scan": Pace(8e-5, 6e-5), "KDTree": Pace(1e-4, 1e-4), "Cascade": Pace(6e-5, 9e-5)}
    built = []

    def make(name):
        built.append(name)
        return MADE[name](POINTS)

    monkeypatch.setattr(runoff, "_pace", lambda index, *_: paces[type(index).__name__])
    return paces, built, make


def test_the_one_that_is_nowhere_far_behind_wins(clock):
    paces, built, make = clock
    index, said = run_off(halfspace.KDTree(POINTS), planned(), None, make, probes())
    assert sorted(built) == ["cascade", "scan"]
    assert isinstance(index, halfspace.Scan)  # 1.33 and 1 times the best; the cascade 1 and 1.5
    assert said.splitlines()[0] == "of those that were asked, scan won"
    assert "cascade: 0.06 ms alone, 0.09 in a batch" in said
    paces["Scan"] = Pace(1e-4, 6e-5)
    index, _ = run_off(halfspace.KDTree(POINTS), planned(), None, make, probes())
    assert isinstance(index, halfspace.Cascade)


def test_who_is_clearly_slower_in_both_ways_is_only_looked_at(clock, monkeypatch):
    paces, _, make = clock
    paces["Scan"] = Pace(2e-4, 2e-4)
    asked = []

    def pace(index, *_):
        asked.append(type(index).__name__)
        return paces[asked[-1]]

    monkeypatch.setattr(runoff, "_pace", pace)
    _, said = run_off(halfspace.KDTree(POINTS), planned(), None, make, probes())
    assert asked.count("Scan") == 1 + runoff.LOOKS  # one of them is not timed
    assert "scan: 0.2 ms" in said


def test_one_look_that_was_disturbed_does_not_rule_out_who_is_faster(clock, monkeypatch):
    paces, _, make = clock
    paces["Scan"] = Pace(5e-5, 5e-5)
    asked = []

    def pace(index, *_):
        asked.append(type(index).__name__)
        disturbed = asked.count("Scan") == 2  # the first that is timed
        return Pace(1e-3, 1e-3) if disturbed else paces[asked[-1]]

    monkeypatch.setattr(runoff, "_pace", pace)
    index, _ = run_off(halfspace.KDTree(POINTS), planned(), None, make, probes())
    assert isinstance(index, halfspace.Scan)


def test_short_asking_is_not_worth_a_run_off():
    queries, cheap = runoff.LEAST_ASKED / 1e-5, {"builds": (1e-6,) * 3, "query": (1e-5,) * 3}
    assert pays(planned(queries=round(1.1 * queries), **cheap), None, None)
    assert not pays(planned(queries=round(0.9 * queries), **cheap), None, None)


@pytest.mark.parametrize(
    ("queries", "singles"), [(10**3, 2), (10_500, 3), (105_000, 31), (10**7, 32)]
)
def test_a_round_takes_a_small_share_of_the_asking(queries, singles, clock):
    paces, _, _ = clock
    paces["Scan"] = Pace(4e-5, 3e-5)
    index = halfspace.Scan(POINTS)
    course = runoff._Course(index, probes(), queries, None)
    assert len(course.singles.offsets) == singles
    assert len(course.batch.offsets) == runoff.BATCH * singles
    taken = singles * 4e-5 + runoff.BATCH * singles * 3e-5
    assert taken <= max(runoff.PROBE_SHARE * queries * 3e-5, 2 * 1e-4)


def test_a_batch_is_as_large_as_those_to_come_but_for_its_time_and_its_ids(clock, monkeypatch):
    index = halfspace.Scan(POINTS)

    def size(batch, queries=10**7, count=6):
        return len(runoff._Course(index, probes(count), queries, batch).batch.offsets)

    assert [size(batch) for batch in (1, 2, 100, 300)] == [1, 2, 100, 300]
    assert size(10**6) == int(runoff.PROBE_SECONDS / 6e-5)
    assert size(10**6, queries=10**5) == round(runoff.PROBE_SHARE * 10**5)
    monkeypatch.setattr(runoff, "MOST_IDS", 600)
    assert size(300) == 101
    some = probes().repeated(200)
    assert np.array_equal(some.normals[:64], some.normals[64:128])
    assert np.array_equal(some.offsets[:64], probes().offsets)


def test_building_is_a_small_part_of_asking(clock):
    _, built, make = clock
    few = planned(queries=3_000, builds=(1e-3, 1e-3, 1.0))
    index, said = run_off(halfspace.KDTree(POINTS), few, None, make, probes())
    assert built == ["scan"]
    assert isinstance(index, halfspace.Scan)
    assert "cascade" not in said
    assert not pays(planned(queries=3_000, builds=(1.0, 1.0, 1.0)), None, None)
    assert pays(planned(), None, None)
    assert not pays(planned(queries=1_000, builds=(0.0, 0.0, 0.0)), None, None)
    # 10 s may go to builds whose price is known, not to what may cost far more than said.
    built.clear()
    run_off(halfspace.KDTree(POINTS), planned(builds=(6.0, 1e-3, 6.0)), None, make, probes())
    assert sorted(built) == ["cascade", "scan"]
    built.clear()
    unsure = planned(builds=(6.0, 1e-3, 6.0), note="ruled out: takes at least this")
    run_off(halfspace.KDTree(POINTS), unsure, None, make, probes())
    assert built == []


def test_time_that_builds_took_counts(clock, monkeypatch):
    _, built, make = clock
    passed = iter(range(0, 100, 8))
    monkeypatch.setattr(runoff.time, "perf_counter", lambda: next(passed))
    run_off(halfspace.KDTree(POINTS), planned(), None, make, probes())
    assert built == ["scan"]  # 10 s in all, and 8 are gone after each


def test_the_best_come_first_whatever_is_unknown(clock):
    _, built, make = clock
    plan = planned(query=(3e-4, 1e-4, 2e-4))
    lines = [plan.candidates[0], Candidate.unknown("oak", "unknown"), *plan.candidates[1:]]
    run_off(halfspace.KDTree(POINTS), plan._replace(candidates=tuple(lines)), None, make, probes())
    assert built == ["cascade", "scan"]


def test_a_hopeless_forecast_is_believed(clock):
    _, built, make = clock
    slow = planned(query=(1.0, 1e-4, 1.0))
    index, said = run_off(halfspace.KDTree(POINTS), slow, None, make, probes())
    assert (built, said) == ([], "")
    assert isinstance(index, halfspace.KDTree)
    unknown = Plan("kd_tree", "", 10**6, (slow.candidates[1], Candidate.unknown("scan", "")))
    assert not pays(unknown, None, None)


def test_there_must_be_room(clock):
    _, built, make = clock
    tree = halfspace.KDTree(POINTS)
    room = halfspace.Scan(POINTS).nbytes
    index, said = run_off(tree, planned(nbytes=1.0), room, make, probes())
    assert isinstance(index, halfspace.Scan)
    assert "cascade" in built
    assert "cascade" not in said
    built.clear()
    run_off(tree, planned(nbytes=room + 1.0), room, make, probes())
    assert built == []

    def make_none(name):
        raise MemoryError

    assert run_off(tree, planned(), None, make_none, probes()) == (tree, "")


@pytest.mark.parametrize("count", [1, 6, 60, 600])
def test_probes_hold_about_what_is_expected(count, monkeypatch):
    monkeypatch.setattr(runoff, "RELIABLE", 5.0)
    index = halfspace.Scan(POINTS)
    found = Probes.of(index, POINTS, NORMALS, count, 10**6)
    assert len(found.offsets) == runoff.PROBES
    assert len(Probes.of(index, POINTS, NORMALS, count, 5_000).offsets) == 10
    counts = index.count(found.normals, found.offsets)
    assert counts.min() >= count - 1  # scores are rounded
    assert counts.max() <= count + 1


def test_probes_of_odd_data(monkeypatch):
    one = np.ones((40, 2))
    zeros = np.zeros((3, 2))
    assert len(Probes.of(halfspace.Scan(one), one, zeros, 5, 10**6).offsets) == 0
    monkeypatch.setattr(runoff, "MOST_IDS", 100)
    assert len(Probes.of(halfspace.Scan(one), one, NORMALS[:, :2], 40, 10**6).offsets) == 3
    huge = 1e308 * np.random.default_rng(0).standard_normal((40, 8)).clip(-1, 1)
    found = Probes.of(halfspace.Scan(huge), huge, NORMALS, 5, 10**6)
    assert np.isfinite(found.offsets).all()


def test_build_lets_them_run_and_answers_stay_the_same(monkeypatch):
    monkeypatch.setattr(planner, "TINY_NANOSECONDS", 1.0)
    options = {"queries": NORMALS, "expected_count": 6}
    index = halfspace.build(POINTS, expected_queries=10**9, **options)
    text = index.explain()
    assert "of those that were asked" in text
    truth = halfspace.Scan(POINTS)
    for normal, offset in zip(*probes(), strict=True):
        assert np.array_equal(index.report(normal, offset), truth.report(normal, offset))
    assert "of those that were asked" not in halfspace.build(POINTS, **options).explain()


def test_what_is_made_for_queries_runs_made_without_them_too(monkeypatch):
    monkeypatch.setattr(planner, "TINY_NANOSECONDS", 1.0)
    made = []

    def pace(index, *_):
        if isinstance(index, halfspace.Cascade):
            made.append(index.structure.basis.forward)
        return Pace(5e-5, 5e-5)

    monkeypatch.setattr(runoff, "_pace", pace)
    options = {"queries": NORMALS, "expected_count": 6}
    text = halfspace.build(POINTS, expected_queries=10**9, **options).explain()
    assert "cascade, queries untold: " in text
    for told in (NORMALS, None):
        wanted = halfspace.Cascade(POINTS, queries=told, expected_count=6).structure.basis.forward
        assert any(np.array_equal(forward, wanted) for forward in made)
    names = [each.name for each in planner._with_untold(planned()).candidates]
    assert names == ["scan", "kd_tree", "cascade", "cascade, queries untold"]


def test_build_of_points_that_tell_nothing(monkeypatch):
    monkeypatch.setattr(planner, "TINY_NANOSECONDS", 1.0)
    for points in (np.ones((500, 3)), np.zeros((500, 3)), 1e308 * np.ones((500, 3))):
        for queries in (None, np.zeros((4, 3))):
            index = halfspace.build(points, queries=queries, expected_queries=10**9)
            assert index.count([0.0, 0.0, 0.0], 0.0) == 500


@pytest.mark.parametrize(("batch", "kind"), [(1, "Cascade"), (64, "Scan"), (None, "Scan")])
def test_the_fastest_in_the_way_that_is_told_wins(clock, batch, kind):
    _, _, make = clock
    index, _ = run_off(halfspace.KDTree(POINTS), planned(), None, make, probes(), batch)
    assert type(index).__name__ == kind


def test_parts_are_built_as_planned(monkeypatch):
    monkeypatch.setattr(planner, "run_off", lambda *_: pytest.fail("a run-off"))
    monkeypatch.setattr(planner, "TINY_NANOSECONDS", 1.0)
    options = {"expected_queries": 10**9, "expected_count": 6}
    assert len(planner.build_as_planned(POINTS, **options)) == len(POINTS)
    index = halfspace.Dynamic(POINTS, structure="auto", **options)
    index.insert(POINTS)
    assert len(index) == 2 * len(POINTS)
