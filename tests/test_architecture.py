"""The table of layers in docs/architecture.md has every file, and imports only point down it."""

import ast
import re

import pytest

from .pages import ROOT

PAGE = ROOT / "docs" / "architecture.md"

FILES = [
    path.relative_to(ROOT).as_posix()
    for package in ("halfspace", "attention")
    for path in sorted((ROOT / package).rglob("*.py"))
    if path.parent.name != package or path.name != "__init__.py"
]

KNOWN = {*FILES}


def layers():
    """Number of the row by file, and by folder with a slash behind; the first row is the top."""
    found = {}
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:2] == "| "]
    for number, line in enumerate(lines):
        folder = ""
        for name in re.findall(r"`([\w/]+(?:\.py|/))`", line):
            folder = name[: name.rindex("/") + 1] if "/" in name else folder
            found[name if "/" in name else folder + name] = number
    return found


def layer(file, known):
    return known.get(file, known.get(file[: file.rindex("/") + 1]))


def imported(file):
    """Files of ours that a file imports when it is imported."""
    package = file.split("/")[:-1]
    for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            module = "/".join([*above, *(node.module or "").split(".")]).rstrip("/")
            for name in [f"{module}/{alias.name}.py" for alias in node.names]:
                yield from {name, f"{module}.py"} & KNOWN


def test_every_name_in_the_table_is_a_file():
    assert [name for name in layers() if not (ROOT / name).exists()] == []


def test_every_file_is_in_the_table():
    known = layers()
    assert [file for file in FILES if layer(file, known) is None] == []


@pytest.mark.parametrize("package", ["halfspace", "attention"])
def test_imports_point_down(package):
    known = layers()
    ours = [file for file in FILES if file.startswith(package)]
    pairs = [(file, other) for file in ours for other in imported(file)]
    assert len(pairs) > 100
    assert [pair for pair in pairs if layer(pair[0], known) > layer(pair[1], known)] == []
