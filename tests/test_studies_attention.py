"""Studies of attention against direct computation; and what they make of rows, made-up ones."""

import numpy as np
import pytest

from attention import Error, TopR, bounds, data, dense
from attention.studies import (
    dense_rivals,
    dimension,
    error_vs_r,
    generality,
    heads,
    memory,
    parts,
    runtime,
    texts,
    threshold,
)

from .study_checks import KEYS, QUERIES, SIZE, check, made_up


@pytest.fixture(autouse=True)
def small_heads(monkeypatch):
    monkeypatch.setattr(heads.data, "heads", lambda: ("sharp", "flat"))
    monkeypatch.setattr(heads.data, "load", made_up)


def softmax_of(head, count):
    """Attention over the `count` best keys of each query, and what mass they miss."""
    scores = head.scores()
    best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    kept = np.take_along_axis(weights, best, axis=1)
    output = (kept[..., None] * head.value[best]).sum(axis=1) / kept.sum(axis=1, keepdims=True)
    return output, 1.0 - kept.sum(axis=1) / weights.sum(axis=1)


# error-vs-r


def test_errors_are_those_of_the_best_keys():
    rows = error_vs_r.run(error_vs_r.Settings(queries=QUERIES, temperatures=(2.0,), models=()))
    assert len(rows) == 2 * 2 * len(error_vs_r.counts(KEYS))
    head = heads.packaged(QUERIES, ["sharp"])[0].at(2.0)
    exact, _ = dense.softmax(head.query, head.key, head.value)
    mine = [row for row in rows if (row.head, row.temperature) == ("sharp", 2.0)]
    for row in mine[::4]:
        output, missed = softmax_of(head, row.r)
        off = output - exact
        relative = np.linalg.norm(off, axis=1) / np.linalg.norm(exact, axis=1)
        assert row.missed == pytest.approx(np.median(missed), abs=1e-9)
        assert row.relative == pytest.approx(np.median(relative), abs=1e-6)
        assert row.error == pytest.approx(np.median(np.abs(off).max(axis=1)), abs=1e-6)
        assert row.error <= row.bound
    assert [row.r for row in mine if row.paper] == [TopR().count(KEYS)]
    check(error_vs_r.STUDY, rows)


def error_row(head, temperature, relative, r=100, paper=True):
    return error_vs_r.Row(
        "made", head, temperature, 1000, r, paper, relative / 2, relative, relative, relative
    )


def test_what_is_said_of_errors_follows_from_rows():
    bad = [error_row("a", 1.0, 0.5), error_row("b", 1.0, 0.2)]
    good = [error_row("a", 1.0, 1e-4), error_row("b", 1.0, 1e-5)]
    assert "none of 2 heads are within 1%" in error_vs_r.accuracy(bad)
    told = error_vs_r.accuracy(good)
    assert "all of 2 heads are within 1%" in told
    assert "one power of n serves all of them" in told
    mixed = [*good, error_row("c", 1.0, 0.5), error_row("c", 1.0, 1e-3, r=900, paper=False)]
    told = error_vs_r.accuracy(mixed)
    assert "2 of 3 heads" in told
    assert "no one power of n" in told
    warm = [error_row("a", 2.0, 0.4), error_row("b", 2.0, 0.6)]
    assert "negligible in every head at temperature 1;" not in error_vs_r.conditions([*bad, *warm])
    told = error_vs_r.conditions([*good, *warm])
    assert "negligible in every head at temperature 1." in told
    assert "25.0% at temperature 2" in told
    other = error_row("z", 1.0, 0.08)._replace(source="other")
    assert "made 0.00%, other 4.00%." in error_vs_r.conditions([*good, other])


def test_many_heads_are_told_by_medians():
    rows = [error_row(str(i), 1.0, 0.01 * i) for i in range(error_vs_r.SINGLE_HEADS + 2)]
    lines = error_vs_r.table(rows).lines
    assert [line[0] for line in lines] == [f"made, median of {len(rows)}"]
    check(error_vs_r.STUDY, rows)


# heads


def test_captured_heads_are_read(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {f"{part}_3_1": rng.standard_normal((9, 4)) for part in "qkv"}
    arrays |= {f"own_{part}": rng.standard_normal((5, 2)) for part in heads.PARTS}
    np.savez(tmp_path / "some.npz", **arrays)
    own, third = heads.captured(tmp_path / "some.npz", 3)
    assert (own.source, own.name, third.name) == ("some", "own", "3_1")
    assert np.array_equal(third.key, arrays["k_3_1"].astype(np.float32))
    assert np.array_equal(third.query, arrays["q_3_1"].astype(np.float32)[[1, 4, 7]])
    assert third.lengths.tolist() == [9, 9, 9]


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"x": np.ones(3)}, r"expected arrays NAME_query.*got \['x'\]"),
        ({"q_1": np.ones((2, 3)), "k_1": np.ones((2, 3))}, "expected query .* of 1 in"),
        ({f"{p}_1": np.ones((2, 3 + (p == "k"))) for p in "qkv"}, "expected query .* of 1 in"),
    ],
)
def test_captures_of_another_shape_are_refused(arrays, told, tmp_path):
    np.savez(tmp_path / "some.npz", **arrays)
    with pytest.raises(ValueError, match=told):
        heads.captured(tmp_path / "some.npz", 3)


def test_what_is_not_there_is_named(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"captures: expected an \.npz file at .*none\.npz"):
        heads.captured(tmp_path / "none.npz", 3)
    with pytest.raises(ValueError, match=r"texts: expected topics, .*, docstrings or a text file"):
        texts.read(str(tmp_path / "none.txt"))
    monkeypatch.setattr(heads, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="models: expected torch, transformers to be installed"):
        heads.of_models(["some"], ["topics"], 100, 3)
    assert heads.of_models([], ["topics"], 100, 3) == []
    assert heads.of_models([heads.MODEL], ["topics"], 100, 3) == []


def test_the_packaged_model_is_read_unless_others_are_named(monkeypatch):
    asked = []
    monkeypatch.setattr(heads, "of_models", lambda *arguments: asked.append(arguments) or [])
    found = [heads.Sources(queries=2).gather(), heads.Sources(queries=2, models=("a",)).gather()]
    assert {head.source for head in found[0] + found[1]} == {heads.PACKAGED}
    assert [(models, tokens, queries) for models, _, tokens, queries in asked] == [
        ((heads.MODEL,), 4096, 2),
        (("a",), 4096, 2),
    ]
    assert heads.located(heads.MODEL) == str(data.tiny_llama())
    assert heads.located("a") == "a"


def test_texts_are_texts(tmp_path):
    path = tmp_path / "own.txt"
    path.write_text("mine", encoding="utf-8")
    assert texts.read(str(path)) == "mine"
    assert all(len(texts.read(name)) > 100_000 for name in texts.KINDS)


def test_exact_attention_is_the_same_in_blocks(monkeypatch):
    head = heads.packaged(2, ["sharp"])[0]
    whole = head.exact()
    monkeypatch.setattr(heads, "BLOCK", 33)
    assert np.allclose(head.exact(), whole, rtol=1e-13)
    assert np.allclose(whole, dense.softmax(head.query, head.key, head.value)[0], rtol=1e-9)


def test_queries_that_see_first_keys_only():
    head = heads.packaged(2, ["sharp"])[0]._replace(lengths=np.array([40, KEYS]))
    exact = head.exact()
    part, _ = dense.softmax(head.query[:1], head.key[:40], head.value[:40])
    assert np.allclose(exact[:1], part, atol=1e-12)
    got = head.decoder().softmax(head.query, Error(1e-3), lengths=head.lengths)
    assert (np.abs(got.output - exact).max(axis=1) <= got.bound).all()


# threshold


def test_thresholds_read_what_reaches_them():
    rows = threshold.run(threshold.Settings(queries=QUERIES, keys=1 << SIZE))
    head = heads.packaged(QUERIES, ["sharp"])[0]
    scores = head.scores()
    mine = [row for row in rows if row.head == "sharp"]
    for row in [row for row in mine if row.b is not None][::6]:
        share = (scores >= row.b).mean(axis=1)
        assert row.active == pytest.approx(share.mean(), abs=2 / KEYS)
    papers = threshold.papers(mine, threshold.SOFTMAX)
    stds = (float(np.sqrt(np.mean(each.astype(float) ** 2))) for each in (head.query, head.key))
    query_std, key_std = stds
    wanted = bounds.paper_threshold(KEYS, QUERIES, 6, query_std=query_std, key_std=key_std)
    assert papers.b == pytest.approx(wanted)
    relu = [row for row in mine if row.way == threshold.RELU]
    assert all(row.relative <= 1e-6 for row in relu)
    check(threshold.STUDY, rows)


def test_the_best_keys_needed_are_enough_and_no_fewer():
    head = heads.packaged(QUERIES, ["sharp"])[0]
    exact = head.exact()
    needed = threshold.needed(head.scores(), head.value, exact)
    for t, target in enumerate(threshold.TARGETS):
        for q in range(QUERIES):
            one = head._replace(query=head.query[q : q + 1], lengths=head.lengths[q : q + 1])
            for r, within in ((needed[t, q], True), (needed[t, q] - 1, False)):
                if r >= 1:
                    off = softmax_of(one, r)[0] - exact[q]
                    assert (np.linalg.norm(off) <= target * np.linalg.norm(exact[q])) == within


def test_errors_of_rows_that_are_zero():
    zero, one = np.zeros((1, 2)), np.ones((1, 2))
    assert threshold.relative_errors(zero, zero) == [0.0]
    assert threshold.relative_errors(one, zero) == [np.inf]
    assert threshold.relative_errors(zero, one) == [1.0]


def threshold_rows(active, paper_active, oracle):
    kind = ("made", "head", 1000)
    rows = [
        threshold.Row(*kind, way, b, b == 9.0, None, share, share, float(share == 0), off, off, off)
        for way in (threshold.SOFTMAX, threshold.RELU)
        for b, share, off in ((-5.0, 1.0, 0.0), (1.0, active, 0.005), (9.0, paper_active, 0.7))
    ]
    targets = threshold.TARGETS
    way = threshold.ORACLE
    return rows + [
        threshold.Row(*kind, way, None, False, t, oracle, oracle, 0.0, None, None, None)
        for t in targets
    ]


def test_what_is_said_of_thresholds_follows_from_rows():
    told = threshold.choice(threshold_rows(0.5, 0.0, 0.1))
    assert "no key at all in 1 of 1 heads" in told
    assert "not one key of any head is active" in told
    assert "5.0 to 5.0 times as many keys" in told
    assert "b belongs to the query" in told
    told = threshold.choice(threshold_rows(0.5, 0.6, 0.5))
    assert "no key at all in 0 of 1 heads" in told
    assert "and 1 have a query with more than 2 n^(4/5)" in told
    assert "one b for a head does about as well" in told


# runtime


@pytest.mark.parametrize("torch", [False, True])
def test_times_are_of_answers_within_their_bounds(torch, monkeypatch):
    if torch:
        pytest.importorskip("torch")
    else:
        monkeypatch.setattr(dense_rivals, "find_spec", lambda name: None)
    monkeypatch.setattr(runtime, "CHUNK_QUERIES", 2)
    monkeypatch.setattr(runtime, "FRESH", 4)
    settings = runtime.Settings(
        dims=(6,),
        stds=(3.0,),
        exponents=(4, SIZE - 1),
        chunk_exponents=(4,),
        prefill_exponents=(5,),
        rounds=1,
    )
    rows = runtime.run(settings)
    sizes = {
        way: {row.n for row in rows if (row.way, row.head) == (way, "std 3")}
        for way in runtime.TITLES
    }
    assert sizes == {
        runtime.DECODE: {16, 1 << SIZE - 1},
        runtime.CHUNK: {16},
        runtime.PREFILL: {32},
    }
    assert all(row.error <= row.bound and not row.broken for row in rows)
    assert all(row.bound <= 5.0 * settings.eps for row in rows)
    assert {row.rival for row in rows} <= ({"numpy", "torch"} if torch else {"numpy"})
    assert all(0.0 < row.read <= 1.0 and row.seconds > 0.0 for row in rows)
    check(runtime.STUDY, rows)


def test_dense_rivals_are_right():
    head = heads.gaussian(40, 5, 2.0, 40)
    exact, _ = dense.softmax(head.query, head.key, head.value)
    assert np.allclose(dense_rivals.dense_numpy(head, head.query), exact, atol=1e-5)
    causal, _ = dense.softmax(head.query, head.key, head.value, causal="upper_left")
    assert np.allclose(dense_rivals.causal_numpy(head), causal, atol=1e-5)


def runtime_row(n, gain, way=runtime.DECODE, broken=0):
    return runtime.Row(way, "made", 8, n, "Error", 1.0, gain, "numpy", 10.0, 0.1, 0.0, 0.1, broken)


def test_what_is_said_of_times_follows_from_rows():
    rows = [runtime_row(n, gain) for n, gain in ((10, 2.0), (20, 0.5), (40, 1.5), (80, 3.0))]
    assert runtime.crossover(rows) == 40
    assert runtime.crossover([runtime_row(10, 2.0), runtime_row(20, 0.9)]) is None
    told = runtime.speed(rows)
    assert "faster than dense in 1 of 1 cases, from n = 40" in told
    assert "at most 3.0 times" in told
    assert "every checked bound holds" in told
    slow = [runtime_row(10, 0.5, runtime.PREFILL, broken=2)]
    told = runtime.speed(slow)
    assert "Prefilling from scratch it is faster than dense in none of 1 cases" in told
    assert "2 checked bounds are broken" in told
    assert runtime.table(rows).lines[0][-2:] == ("5", "40")


# generality


def test_shares_of_keys_are_those_of_sorted_weights():
    head = heads.packaged(QUERIES, ["sharp"])[0]
    row = generality.row_of(head)
    scores = head.scores()
    weights = np.exp(scores)
    weights /= weights.sum(axis=1, keepdims=True)
    needed = []
    for line in weights:
        mass = np.cumsum(np.sort(line)[::-1])
        needed.append(np.flatnonzero(mass >= 0.9)[0] + 1)
    assert row.most == pytest.approx(np.median(needed) / KEYS)
    assert row.missed == pytest.approx(np.median(softmax_of(head, TopR().count(KEYS))[1]), abs=1e-9)
    assert (row.active, row.trained) == (1.0, False)
    assert row.std == pytest.approx(np.median(scores.std(axis=1)))


def test_relu_weights_are_those_of_relu_attention():
    head = heads.packaged(QUERIES, ["flat"])[0]._replace(source="relu")
    exact, _ = dense.relu(head.query, head.key, head.value, threshold=0.0)
    assert np.allclose(generality.weights_of(head, relu=True) @ head.value, exact, atol=1e-10)
    row = generality.row_of(head, step=3, loss=1.0)
    assert row.active == pytest.approx(np.median((head.scores() > 0.0).mean(axis=1)))
    assert (row.trained, row.step) == (True, 3)


def test_rows_without_an_active_key_need_none():
    head = heads.packaged(QUERIES, ["flat"])[0]
    away = -np.abs(head.query)
    dead = generality.row_of(head._replace(source="relu", query=away, key=np.abs(head.key)))
    assert (dead.most, dead.nearly, dead.active, dead.missed) == (0.0, 0.0, 0.0, 0.0)


def test_sources_without_torch(monkeypatch, tmp_path):
    for module in (generality, heads):
        monkeypatch.setattr(module, "find_spec", lambda name: None)
    path = tmp_path / "own.npz"
    np.savez(path, **{f"{part}_0": np.eye(5) for part in "qkv"})
    rows = generality.run(generality.Settings(queries=2, keys=64, captures=(path,)))
    assert [group.label for group in generality.groups(rows)] == ["encoder", "own", "gaussian"]
    assert "training is open" in generality.training(rows) or "nothing is said" in (
        generality.training(rows)
    )
    check(generality.STUDY, rows)


def general_row(source, head, nearly, missed, step=None):
    return generality.Row(
        source, head, step is not None, step, 2.0, 100, nearly / 2, nearly, 0.5, missed, 1.0
    )


def test_what_is_said_of_sparsity_follows_from_rows():
    mixed = [general_row("a", "1", 0.01, 0.0), general_row("a", "2", 0.9, 0.5)]
    told = generality.patterns(mixed)
    assert "In 1 of 2 heads" in told
    assert "a property of single heads" in told
    assert "the same in all" in generality.patterns(mixed[:1])

    def trained(before, after):
        rows = [general_row("softmax", "1", before, 0.1, step=0)]
        return generality.training([*mixed, *rows, general_row("softmax", "1", after, 0.1, step=9)])

    assert "they are sparser, 80% to 20%" in trained(0.8, 0.2)
    assert "they are denser, 20% to 80%" in trained(0.2, 0.8)
    assert "they are little changed" in trained(0.8, 0.81)
    check(generality.STUDY, [*mixed, general_row("relu", "1", 0.5, 0.1, step=0)])


# all of them


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (lambda: error_vs_r.Settings(temperatures=(0.0,)), "temperatures: expected numbers above"),
        (lambda: parts.Settings(dims=(7,)), "dims: expected values from 2 to 6"),
        (lambda: parts.Settings(kinds=("cube",)), "kinds: expected some of iid, .*, got cube"),
        (lambda: memory.Settings(limit=0), "limit: expected values from 1 on"),
        (lambda: dimension.Settings(exponents=()), r"exponents: expected values .*, got \(\)"),
        (lambda: threshold.Settings(queries=1), "queries: expected values from 2 on"),
        (lambda: runtime.Settings(eps=0.0), "eps: expected values from 1e-12"),
        (lambda: runtime.Settings(chunk_exponents=(3,)), "chunk-exponents: expected values from 4"),
        (lambda: error_vs_r.Settings(queries=0), "queries: expected values from 1 on"),
        (lambda: generality.Settings(steps=-1), "steps: expected values from 0 on"),
    ],
)
def test_settings_that_cannot_be_run(settings, told):
    with pytest.raises(ValueError, match=told):
        settings()
