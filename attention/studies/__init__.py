"""Studies: the questions that arXiv 2410.10165 leaves open, its experiments and its checks, run.

``python -m attention study NAME`` runs one, ``python -m attention study all --quick`` all of them.
One study is one file. Importing this package imports none of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .study import Study

__all__ = ["NAMES", "load"]

NAMES = {
    "error-vs-r": "Error of softmax attention against the number of keys read.",
    "perplexity": "Perplexity of a language model against the number of keys read.",
    "runtime": "Time against dense attention over context lengths, decode and prefill.",
    "parts": "Part 1 against Part 2: build, query, and when which pays.",
    "threshold": "Sparsity and error over the threshold b, softmax and ReLU.",
    "dimension": "Half-space reports for d = 2 … 512, against the theory.",
    "generality": "Sparsity of heads over architectures and training.",
    "memory": "Bytes and build times of every structure against n and d.",
}
"""Name of each study, in the order in which `all` runs them, and what it measures."""


def load(name: str) -> "Study":
    """Import a study.

    Parameters
    ----------
    name : str
        One of `NAMES`.

    Returns
    -------
    Study

    Raises
    ------
    ValueError
        There is no study of that name.

    Examples
    --------
    >>> from attention import studies
    >>> studies.load("error-vs-r").name
    'error-vs-r'
    """
    if name not in NAMES:
        raise ValueError(f"study: expected one of {', '.join(NAMES)}, got {name!r}")
    return import_module(f".{name.replace('-', '_')}", __name__).STUDY
