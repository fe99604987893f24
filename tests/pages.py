"""Pages of the documentation, and their Python, made smaller where it would take long."""

import contextlib
from pathlib import Path

ROOT = Path(__file__).parents[1]

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def blocks(page):
    """Python of a page, at its own lines, so that tracebacks name them."""
    found, lines = [], page.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if line == "```python":
            end = lines.index("```", number)
            found.append("\n" * (number + 1) + "\n".join(lines[number + 1 : end]))
    return found


def run(page, directory, replaced, namespace):
    """Run a page in a directory, with some of its words replaced by others."""
    with contextlib.chdir(directory):
        for code in blocks(page):
            for word, other in replaced.items():
                code = code.replace(word, other)
            exec(compile(code, page, "exec"), namespace)
