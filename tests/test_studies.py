"""Studies as such: settings, the command line, what is written, and what is read back."""

import json
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import NamedTuple

import pytest
from click.testing import CliRunner

from attention import studies
from attention.__main__ import main
from attention.studies import command, report
from attention.studies.study import (
    CHECK,
    QUESTION,
    Finding,
    Study,
    Table,
    check_least,
    quickened,
    setting,
    silent,
)

REAL = dict(studies.NAMES)
"""Before a test puts others in their place."""


@dataclass(frozen=True)
class Settings:
    """Of the study below."""

    sizes: tuple[int, ...] = setting((3, 4), "Sizes.", quick=(2,))
    factor: float = setting(2.0, "Factor.")
    name: str = setting("", "A name.")

    def __post_init__(self):
        check_least("sizes", self.sizes, 1)


class Row(NamedTuple):
    size: int
    area: float


def run(settings, track=silent):
    if settings.factor == 13.0:
        raise ValueError("factor: expected anything else, got 13.0")
    return [Row(size, settings.factor * size**2) for size in track(settings.sizes, "sizes")]


def larger(rows):
    return f"The largest is {max(row.area for row in rows):g}. It is no larger."


def plot(rows, figure):
    figure.add_subplot().plot([row.size for row in rows], [row.area for row in rows])


SQUARES = Study(
    name="squares",
    title="Squares",
    about="Areas of squares.",
    settings=Settings,
    row=Row,
    run=run,
    table=lambda rows: Table(("size", "area"), [(str(r.size), f"{r.area:g}") for r in rows]),
    plot=plot,
    findings=(
        Finding(CHECK, 2, "Areas", "they grow.", larger),
        Finding(QUESTION, 1, "Number", "unknown.", lambda rows: f"There are {len(rows)}."),
    ),
)

NEEDY = replace(SQUARES, name="needy", requires=("no_such_module",), extra="moon")


@pytest.fixture
def some(monkeypatch):
    """Two studies in place of the real ones, one of which cannot run."""
    found = {"squares": SQUARES, "needy": NEEDY}
    monkeypatch.setattr(command, "NAMES", {"squares": "Squares.", "needy": "Needs a module."})
    monkeypatch.setattr(report, "NAMES", ["squares", "needy"])
    for module in (command, report):
        monkeypatch.setattr(module, "load", found.__getitem__)


def invoke(*arguments):
    return CliRunner().invoke(main, ["study", *map(str, arguments)], catch_exceptions=False)


@pytest.mark.usefixtures("some")
def test_a_study_writes_rows_picture_page_and_findings(tmp_path):
    result = invoke("squares", "--sizes", "2,5", "--folder", tmp_path / "new")
    assert result.exit_code == 0
    assert "Further check 2: The largest is 50. It is no larger." in result.output
    folder = tmp_path / "new"
    written = json.loads((folder / "squares.json").read_text())
    assert written["rows"] == [{"size": 2, "area": 8.0}, {"size": 5, "area": 50.0}]
    assert written["settings"] == {"sizes": [2, 5], "factor": 2.0, "name": ""}
    assert written["machine"]["cores"] >= 1
    assert (folder / "squares.png").read_bytes().startswith(b"\x89PNG")
    page = (folder / "squares.md").read_text()
    assert "| 5 | 50 |" in page
    assert "`python -m attention study squares --sizes 2,5`" in page
    readme = (folder / "README.md").read_text()
    assert readme.index("Open questions") < readme.index("### 1. Number")
    assert readme.index("There are 2.") < readme.index("Further checks")
    assert "*The paper:* they grow." in readme
    assert "[squares](squares.md)): The largest is 50." in readme
    assert f"times are of {written['machine']['cores']} core" in readme


@pytest.mark.usefixtures("some")
def test_rows_read_back_give_the_same_page(tmp_path):
    invoke("squares", "--folder", tmp_path, "--quick")
    again = report.read(tmp_path / "squares.json")
    assert again.rows == [Row(2, 8.0)]
    assert report.page(again) == (tmp_path / "squares.md").read_text()
    assert report.command(again) == "python -m attention study squares --sizes 2"
    none = again._replace(settings={"sizes": []})
    assert report.command(none) == "python -m attention study squares --sizes ,"


@pytest.mark.usefixtures("some")
def test_a_shared_machine_is_timed_by_processor_time(tmp_path):
    def pages(*flags):
        invoke("squares", "--folder", tmp_path, *flags)
        found = report.read(tmp_path / "squares.json")
        return found.machine["clock"], report.command(found), report.page(found)

    clock, command_, page = pages("--processor-time")
    assert clock == "processor"
    assert command_ == "python -m attention study squares --processor-time"
    assert "s of processor time, the clock of all times here, on" in page
    clock, command_, page = pages()
    assert (clock, command_) == ("wall", "python -m attention study squares")
    assert "processor time" not in page


@pytest.mark.usefixtures("some")
def test_what_is_left_out_without_a_module_is_told_in_a_line(tmp_path, monkeypatch):
    partial = replace(SQUARES, wants=("no_such_module",), wanted_for="circles", extra="moon")
    monkeypatch.setattr(command, "load", lambda name: partial)
    result = invoke("squares", "--folder", tmp_path)
    assert result.exit_code == 0
    assert result.output.startswith(
        "circles left out: squares needs no_such_module (the extra moon)\n"
    )
    assert (tmp_path / "squares.json").exists()


@pytest.mark.usefixtures("some")
def test_results_of_another_version_are_told_of(tmp_path):
    invoke("squares", "--folder", tmp_path)
    path = tmp_path / "needy.json"
    path.write_text('{"study": "needy", "rows": [{"size": 1}]}')
    result = invoke("squares", "--folder", tmp_path)
    assert result.exit_code == 0
    assert "needy.json: expected the JSON of a study" in result.stderr
    assert "needy" not in (tmp_path / "README.md").read_text()
    path.write_text("{")
    with pytest.raises(ValueError, match=r"needy\.json: expected the JSON of a study"):
        report.read(path)


@pytest.mark.usefixtures("some")
def test_all_leaves_out_what_cannot_run(tmp_path):
    result = invoke("all", "--quick", "--folder", tmp_path)
    assert result.exit_code == 0
    assert "left out: needy needs no_such_module (the extra moon)" in result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "README.md",
        "squares.json",
        "squares.md",
        "squares.png",
    ]


@pytest.mark.usefixtures("some")
@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["needy"], 1, "needy needs no_such_module (the extra moon)"),
        (["circles"], 2, "No such command 'circles'"),
        (["squares", "--sizes", "1,x"], 2, "expected ints between commas, got '1,x'"),
        (["squares", "--sizes", "0"], 2, "sizes: expected values from 1 on, got (0,)"),
        (["squares", "--sizes", ","], 2, "sizes: expected values from 1 on, got ()"),
        (["squares", "--factor", "13"], 1, "squares: factor: expected anything else, got 13.0"),
    ],
)
def test_what_cannot_be_run_is_told(arguments, code, told, tmp_path):
    result = invoke(*arguments, "--folder", tmp_path / "none")
    assert result.exit_code == code
    assert told in result.output + result.stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.usefixtures("some")
def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    def missing(outcome, folder):
        raise ModuleNotFoundError("No module named 'matplotlib'")

    monkeypatch.setattr(report, "write", missing)
    result = invoke("squares", "--folder", tmp_path)
    assert result.exit_code == 1
    assert "pip install '.[plot]'" in result.stderr


@pytest.mark.parametrize("name", REAL)
def test_every_study_can_be_asked_for(name):
    study = studies.load(name)
    assert study.name == name
    assert set(study.missing()) == {each for each in study.requires if find_spec(each) is None}
    if not study.missing():
        result = invoke(name, "--help")
        assert result.exit_code == 0
        for setting_ in study.types():
            assert f"--{setting_.replace('_', '-')}" in result.output
        assert quickened(study.settings)


def test_the_group_lists_the_studies():
    result = invoke("--help")
    for name in (*REAL, "all"):
        assert f"  {name} " in result.output


def test_an_unknown_study_is_an_error():
    with pytest.raises(ValueError, match=r"study: expected one of error-vs-r, .*, got 'nothing'"):
        studies.load("nothing")


def test_nothing_is_answered_twice_and_nothing_is_left_out():
    findings = [finding for name in REAL for finding in studies.load(name).findings]
    found = {(finding.group, finding.number) for finding in findings}
    assert {(finding.group, number) for finding in findings for number in (1, 2, 3)} == found
    assert len(found) == 9
