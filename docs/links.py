"""Check the links within built documentation, offline: ``python docs/links.py docs/_build``.

Every relative link, image, script and style has to be a file that is there, and every fragment an
id of the page it points to. Exits with 1, and the links that are broken, if one is not. Pages that
this documentation did not write are left out: those of the theme, and of asv.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

OTHERS = {"_static", "asv"}
"""Folders of pages that others wrote."""


class Page(HTMLParser):
    """Ids of a page, and where it points."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.ids: set[str] = set()
        self.targets: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note ids and targets."""
        for name, value in attrs:
            if value and name in ("id", "name"):
                self.ids.add(value)
            elif value and name in ("href", "src") and not (tag == "link" and "://" in value):
                self.targets.add(value)


def broken(folder: Path) -> list[str]:
    """Links of the pages in a folder that lead nowhere."""
    folder = folder.resolve()
    paths = [
        p for p in sorted(folder.rglob("*.html")) if not OTHERS & {*p.relative_to(folder).parts}
    ]
    pages = {path: Page(path) for path in paths}
    found = []
    for path, page in pages.items():
        for target in sorted(page.targets):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            where = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            fragment = unquote(parts.fragment)
            lost = where in pages and fragment and fragment not in pages[where].ids
            if lost or not where.exists():
                found.append(f"{path.relative_to(folder)}: {target}")
    return found


def main() -> int:
    """Check the folder that the command line names."""
    lost = broken(Path(sys.argv[1]))
    print("\n".join(lost) if lost else "no link is broken")
    return int(bool(lost))


if __name__ == "__main__":
    sys.exit(main())
