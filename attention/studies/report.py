"""What a study leaves behind: its rows as JSON, a picture, a page with its table, and the findings.

The page of all findings, README.md, is made anew from every study's JSON that is in the folder.
"""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import halfspace

from . import NAMES, load, timing
from .study import GROUPS, Finding, Study, Table

PACKAGES = ("numpy", "numba", "scipy", "torch", "transformers")
"""Packages whose versions stand beside what was measured."""

DPI = 110


class Outcome(NamedTuple):
    """A study that was run."""

    study: Study
    settings: dict[str, Any]
    machine: dict[str, Any]
    seconds: float
    rows: list[Any]

    def findings(self) -> list[tuple[Finding, str]]:
        """Every finding, and what it comes to."""
        return [(finding, finding.state(self.rows)) for finding in self.study.findings]


def machine() -> dict[str, Any]:
    """Describe where a study runs: processor, cores, threads, versions.

    Examples
    --------
    >>> from attention.studies.report import machine
    >>> machine()["cores"] >= 1
    True
    """
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        "threads": halfspace.get_threads(),
        "clock": timing.clock(),
        "python": platform.python_version(),
        **{name: found for name in PACKAGES if (found := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """Name of the processor; of its kind where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def write(outcome: Outcome, folder: Path) -> list[Path]:
    """Write a study's JSON, PNG and Markdown into a folder, which is made where it is not there.

    Parameters
    ----------
    outcome : Outcome
    folder : Path

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    ModuleNotFoundError
        matplotlib is not installed (the extra ``plot``).
    """
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    study = outcome.study
    paths = [folder / f"{study.name}.{suffix}" for suffix in ("json", "png", "md")]
    to_json, to_png, to_md = paths
    to_json.write_text(as_json(outcome), encoding="utf-8")
    figure = Figure(figsize=(10.0, 4.6), layout="constrained")
    study.plot(outcome.rows, figure)
    figure.savefig(to_png, dpi=DPI)
    to_md.write_text(page(outcome), encoding="utf-8")
    return paths


def as_json(outcome: Outcome) -> str:
    """All that was measured, a row a line, and what was found."""
    head = {
        "study": outcome.study.name,
        "settings": outcome.settings,
        "machine": outcome.machine,
        "seconds": round(outcome.seconds, 1),
        "findings": [text for _, text in outcome.findings()],
    }
    lines = [json.dumps(row._asdict(), default=str) for row in outcome.rows]
    body = json.dumps(head, indent=1, default=str, ensure_ascii=False)
    return body[:-2] + ',\n "rows": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n"


def read(path: Path) -> Outcome:
    """Read a study's JSON back.

    Raises
    ------
    ValueError
        The file is not of a study, or of other rows than the study's are now.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        study = load(found["study"])
        rows = [study.row(**row) for row in found["rows"]]
        parts = (found[name] for name in ("settings", "machine", "seconds"))
        return Outcome(study, *parts, rows)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected the JSON of a study, got {error}") from error


def markdown(table: Table) -> str:
    """A table in Markdown; all columns but the first are aligned to the right.

    Examples
    --------
    >>> from attention.studies.report import markdown
    >>> from attention.studies.study import Table
    >>> print(markdown(Table(("head", "error"), [("sharp", "0.1")])))
    | head | error |
    |:---|---:|
    | sharp | 0.1 |
    """
    rule = "|:---|" + "---:|" * (len(table.header) - 1)
    rows = (f"| {' | '.join(line)} |" for line in (table.header, *table.lines))
    first, *others = rows
    return "\n".join([first, rule, *others])


def command(outcome: Outcome) -> str:
    """The command that runs it again."""
    defaults = asdict(outcome.study.settings())
    flags = ["--processor-time"] if _shared(outcome.machine) else []
    for name, value in outcome.settings.items():
        if _plain(value) != _plain(defaults[name]):
            flags.append(f"--{name.replace('_', '-')} {_plain(value)}")
    return " ".join(["python -m attention study", outcome.study.name, *flags])


def _plain(value: Any) -> str:
    """A value as a flag; no values are a comma alone."""
    if not isinstance(value, tuple | list):
        return str(value)
    return ",".join(map(str, value)) or ","


def page(outcome: Outcome) -> str:
    """A study's page: what it is, what was found, its picture, its table."""
    study, where = outcome.study, outcome.machine
    findings = "\n\n".join(
        f"**{finding.group} {finding.number}.** {text}" for finding, text in outcome.findings()
    )
    return f"""# {study.title}

{study.about}

{findings}

![{study.title}]({study.name}.png)

{markdown(study.table(outcome.rows))}

`{command(outcome)}` took {_taken(outcome)} on {_place(where)}.
All rows: [{study.name}.json]({study.name}.json).
"""


def _taken(outcome: Outcome) -> str:
    """How long it took, and by which clock it and all in it was timed."""
    by = " of processor time, the clock of all times here," if _shared(outcome.machine) else ""
    return f"{outcome.seconds:.0f} s{by}"


def _shared(where: dict[str, Any]) -> bool:
    return where.get("clock") == timing.PROCESSOR


def _cores(*counts: int) -> str:
    """So many cores; of several runs, any of these numbers."""
    several = sorted(set(counts))
    return f"{' or '.join(map(str, several))} core{'s' * (several != [1])}"


def _place(where: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {where[name]}" for name in PACKAGES if name in where)
    return f"{_cores(where['cores'])} of {where['processor']} ({versions})"


class Shelf(NamedTuple):
    """What is in a folder."""

    outcomes: list[Outcome]
    complaints: list[str]  # of files that are not of this version


def shelf(folder: Path) -> Shelf:
    """Read every study whose JSON is in a folder."""
    found = Shelf([], [])
    for path in (folder / f"{name}.json" for name in NAMES):
        if path.exists():
            try:
                found.outcomes.append(read(path))
            except ValueError as error:
                found.complaints.append(str(error))
    return found


def readme(found: Sequence[Outcome]) -> str:
    """The page of all findings, each beside what the paper says.

    Parameters
    ----------
    found : sequence of Outcome

    Returns
    -------
    str
        Markdown.
    """
    parts = [
        "# Studies",
        "What [HSR-Enhanced Sparse Attention](https://arxiv.org/abs/2410.10165) leaves open, asks"
        " to be measured and asks to be checked, answered by runs that anyone can repeat:"
        " `python -m attention study all` makes this page and all behind it"
        " (needs the extras `cli` and `plot`, and `torch` for models; each ends in minutes,"
        " `--quick` is for smaller ones, `--processor-time` for a core that others use too). Every"
        " sentence under *Found* is computed from the rows of its run, good or bad, and times are"
        f" of {_cores(*(one.machine['cores'] for one in found))}.",
    ]
    stated = [(finding, one.study.name, text) for one in found for finding, text in one.findings()]
    for group in GROUPS:
        mine = [each for each in stated if each[0].group == group]
        if mine:
            parts.append(f"## {group}s")
        for finding, name, text in sorted(mine, key=lambda each: each[0].number):
            parts += [
                f"### {finding.number}. {finding.title}",
                f"*The paper:* {finding.paper}",
                f"*Found* ([{name}]({name}.md)): {text}",
            ]
    parts.append("## Pictures")
    parts += [
        f"### {one.study.title}\n\n![{one.study.title}]({one.study.name}.png)\n\n"
        f"[Table and command]({one.study.name}.md)"
        for one in found
    ]
    return "\n\n".join(parts) + "\n"


def write_readme(folder: Path) -> tuple[Path, list[str]]:
    """Make README.md anew from what is in a folder; files that cannot be read are told of."""
    path, found = folder / "README.md", shelf(folder)
    path.write_text(readme(found.outcomes), encoding="utf-8")
    return path, found.complaints
