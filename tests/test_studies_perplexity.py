"""What the study of perplexity says of its rows; without torch."""

import pytest

from attention.studies.perplexity import STUDY, Row, Settings, knee


def rule(kind, value, perplexity, read=0.5):
    return Row(kind, value, None, None, perplexity, read, None, 1e-3, 100)


def head(number, mass):
    return Row("head", 1e-3, 0, number, None, 0.2, mass, None, 100)


ROWS = [
    rule("dense", 100, 50.0, 1.0),
    rule("TopR", 4, 75.0),
    rule("TopR", 8, 49.9),
    rule("TopR", 16, 51.0),
    rule("TopR", 32, 50.4),
    rule("TopR", 64, 50.0),
    rule("Error", 1e-3, 50.0),
    rule("Sampled", 0.5, 50.5),
    head(0, 0.995),
    head(1, 0.6),
]


def said(rows):
    return [finding.state(rows) for finding in STUDY.findings]


def test_the_knee_is_where_all_larger_r_are_close():
    assert knee(ROWS).value == 32
    by_number, by_error, by_mass = said(ROWS)
    assert "knee is at r = 32" in by_number
    assert "r = 4 of 100 keys it is +50.0%" in by_number
    assert "Error(0.001) changes it by +0.000%, reading 50% of the keys" in by_error
    assert "79.8% in the mean of 2 heads, from 60.0% (layer 0, head 1)" in by_mass
    assert "holds to 1 % in 1 of them" in by_mass


def test_no_knee_and_nothing_asked():
    bad = [ROWS[0], rule("TopR", 4, 75.0), *ROWS[-2:]]
    assert knee(bad) is None
    by_number, by_error, _ = said(bad)
    assert by_number.startswith("No r asked for is within 1% of dense attention")
    assert by_error == "Neither eps nor samples were asked for."
    assert said([ROWS[0], *ROWS[-2:]])[0] == "No r was asked for."


@pytest.mark.parametrize("rows", [ROWS, [ROWS[0], rule("TopR", 4, 75.0), *ROWS[-2:]]])
def test_tables_and_pictures(rows):
    figures = pytest.importorskip("matplotlib.figure")
    table = STUDY.table(rows)
    assert len(table.lines) == len(rows)
    assert all(len(line) == len(table.header) for line in table.lines)
    assert table.lines[-1][0] == "layer 0, head 1, Error(0.001)"
    figure = figures.Figure()
    STUDY.plot(rows, figure)
    figure.canvas.draw()


def test_rules():
    names = [type(each).__name__ for each in Settings().rules()]
    assert [names.count(name) for name in ("TopR", "Error", "Sampled")] == [10, 4, 2]
