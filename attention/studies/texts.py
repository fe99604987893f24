"""Texts of several kinds that need no network, for language models to read."""

import pydoc_data.topics
import sysconfig
from pathlib import Path

import numpy as np

MODULES = ("argparse", "ast", "datetime", "inspect", "pathlib", "statistics", "typing")
"""Modules of the standard library whose source is a text."""

NUMBERS = 40_000
"""Numbers of the text that has no language in it."""


def _topics() -> str:
    topics = pydoc_data.topics.topics
    return "\n".join(topics[name] for name in sorted(topics))


def _source() -> str:
    folder = Path(sysconfig.get_path("stdlib"))
    files = (folder / f"{name}.py" for name in MODULES)
    return "\n".join(file.read_text(encoding="utf-8") for file in files if file.exists())


def _numbers() -> str:
    values = np.random.default_rng(0).lognormal(3.0, 2.0, NUMBERS)
    return "\n".join(", ".join(f"{each:.3g}" for each in row) for row in values.reshape(-1, 10))


def _docstrings() -> str:
    public = (getattr(np, name) for name in sorted(dir(np)) if not name.startswith("_"))
    told = (each.__doc__ for each in public if callable(each))
    return "\n".join(dict.fromkeys(text for text in told if text))


KINDS = {"topics": _topics, "source": _source, "numbers": _numbers, "docstrings": _docstrings}
"""Python's help topics, source of its library, random numbers in lines, and what numpy says of its
functions; the packaged model was trained on the first two."""


def read(name: str) -> str:
    """Return one of `KINDS`, or the text of a file.

    Parameters
    ----------
    name : str
        One of `KINDS`, or the path of a file in UTF-8.

    Raises
    ------
    ValueError
        There is no such file, or it is no text.

    Examples
    --------
    >>> from attention.studies import texts
    >>> texts.read("numbers").count(",") > 10_000
    True
    """
    if name in KINDS:
        return KINDS[name]()
    try:
        return Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join(KINDS)
        raise ValueError(f"texts: expected {known} or a text file, got {name}: {error}") from error
