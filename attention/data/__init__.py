"""Heads of a trained transformer, and a small language model, as data for examples and tests.

The heads come from a sentence encoder (all-MiniLM-L6-v2) reading the help topics that ship with
Python. They stand for the three cases that sparse attention meets: ``sharp`` (few keys carry almost
all of the softmax mass), ``between``, and ``flat`` (most keys are needed). ``README.md`` in this
folder says how they were captured and what was measured on them.
"""

from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np

__all__ = ["Head", "heads", "load", "tiny_llama"]

_FILE = "minilm_heads.npz"
_HEADS = ("sharp", "between", "flat")


class Head(NamedTuple):
    """What one attention head reads.

    The scale of a score is ``1 / sqrt(head_dim)``, as usual; it is not part of the arrays.

    Attributes
    ----------
    name : str
        Name of the head, one of `heads`.
    query : ndarray of float32, shape (m, head_dim)
        Rows that ask, taken evenly from all positions of the text.
    key : ndarray of float32, shape (n, head_dim)
        Rows that are asked, in the order of the text.
    value : ndarray of float32, shape (n, head_dim)
        What each key carries.

    Examples
    --------
    >>> from attention import data
    >>> head = data.load("sharp")
    >>> head.name, head.query.shape, head.key.shape
    ('sharp', (256, 32), (7168, 32))
    """

    name: str
    query: np.ndarray
    key: np.ndarray
    value: np.ndarray


def heads() -> tuple[str, ...]:
    """Names of the heads that `load` knows, from sharp to flat.

    Returns
    -------
    tuple of str
        The names.

    Examples
    --------
    >>> from attention import data
    >>> data.heads()
    ('sharp', 'between', 'flat')
    """
    return _HEADS


def load(head: str) -> Head:
    """Load queries, keys and values of one head.

    The arrays are stored as float16 and widened to float32, which loses nothing. Every call reads
    the file anew, so the arrays are the caller's to change.

    Parameters
    ----------
    head : str
        One of the names that `heads` returns.

    Returns
    -------
    Head
        ``(name, query, key, value)`` with `query` of shape (256, 32), `key` and `value` of shape
        (7168, 32); all of them C-contiguous float32 and finite.

    Raises
    ------
    ValueError
        If there is no head of that name.

    Examples
    --------
    >>> import numpy as np
    >>> from attention import data
    >>> name, query, key, value = data.load("sharp")
    >>> query.shape, key.shape, value.shape, key.dtype
    ((256, 32), (7168, 32), (7168, 32), dtype('float32'))

    How many keys carry 90 % of the softmax mass of a typical query?

    >>> def needed(head):
    ...     scores = head.query @ head.key.T / np.sqrt(head.key.shape[1])
    ...     mass = np.sort(np.exp(scores - scores.max(axis=1, keepdims=True)), axis=1)[:, ::-1]
    ...     share = mass.cumsum(axis=1) / mass.sum(axis=1, keepdims=True)
    ...     return int(np.median((share < 0.9).sum(axis=1)))
    >>> needed(data.load("sharp")) < 100 < 5000 < needed(data.load("flat"))
    True

    >>> data.load("blunt")
    Traceback (most recent call last):
        ...
    ValueError: unknown head 'blunt'; known heads: 'sharp', 'between', 'flat'
    """
    if head not in _HEADS:
        raise ValueError(f"unknown head {head!r}; known heads: {', '.join(map(repr, _HEADS))}")
    with (
        files(__name__).joinpath(_FILE).open("rb") as stream,
        np.load(stream, allow_pickle=False) as arrays,
    ):
        query, key, value = (
            arrays[f"{head}_{part}"].astype(np.float32) for part in ("query", "key", "value")
        )
    return Head(head, query, key, value)


def tiny_llama() -> Path:
    """Folder of a small causal language model that ships with the package.

    4.0 million parameters in bfloat16, with head_dim 64, two query heads a key head, and rotary
    positions. ``README.md`` in the folder says what it was trained on; `attention.data.train`
    trains such models.

    Returns
    -------
    Path
        For ``from_pretrained`` of transformers.

    Examples
    --------
    >>> from attention import data
    >>> sorted(path.name for path in data.tiny_llama().glob("*.safetensors"))
    ['model.safetensors']
    """
    return Path(str(files(__name__).joinpath("tiny_llama")))
