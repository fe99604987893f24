"""Layouts: named tuples of arrays as arrays by name, and back, held against what they declare.

A structure's named tuples declare the dtypes and the shape of each array beside its name:

    norms: Annotated[np.ndarray, Stored("f8", "tiles")]

Words in a shape stand for sizes that have to agree within one named tuple; d and w (dimensions and
columns of weights) agree everywhere. ``tiles+1`` is one more, ``2|4`` either of them. That is all a
reader of a file goes by: no class, function or dtype is looked up by a name that came from a file.
"""

from collections.abc import Collection, Iterator
from typing import Annotated, get_args, get_origin, get_type_hints

import numpy as np

SCALARS = {float: "f8", int: "i8"}
"""Dtypes of numbers that stand alone: they are arrays of no axis."""


class Stored:
    """What an array in a named tuple is: dtypes it may have, and its shape, in words."""

    def __init__(self, dtypes: str, shape: str = "") -> None:
        self.dtypes = tuple(map(np.dtype, dtypes.split()))
        self.shape = tuple(shape.split())

    def check(self, name: str, array: np.ndarray, sizes: dict[str, int]) -> None:
        """Raise ValueError unless the array is like that; learn sizes that were not known."""
        if array.dtype not in self.dtypes:
            known = " or ".join(map(str, self.dtypes))
            raise ValueError(f"{name}: expected {known}, got {array.dtype}")
        places = zip(self.shape, array.shape, strict=False)
        if array.ndim != len(self.shape) or not all(_fits(*place, sizes) for place in places):
            known = (f"{word} = {sizes[word]}" if word in sizes else word for word in self.shape)
            raise ValueError(
                f"{name}: expected shape ({', '.join(known)}), got shape {array.shape}"
            )
        # Compiled and interpreted code read other bytes differently.
        if array.dtype == bool and array.size and array.view(np.uint8).max() > 1:
            raise ValueError(f"{name}: expected booleans, got byte {array.view(np.uint8).max()}")


def _fits(word: str, size: int, sizes: dict[str, int]) -> bool:
    """Whether a size is what a word of a shape says; learn what it stands for."""
    if word[0].isdigit():
        return str(size) in word.split("|")
    word, plus, more = word.partition("+")
    rest = size - int(more) if plus else size
    return rest >= 0 and sizes.setdefault(word, rest) == rest


def _fields(kind: type, prefix: str) -> Iterator[tuple[str, str, object]]:
    """Field, full name and what is declared of it, of a named tuple."""
    hints = get_type_hints(kind, include_extras=True)
    for field in kind._fields:
        yield field, f"{prefix}{field}", hints[field]


def flatten(value: tuple, views: Collection[str] = (), prefix: str = "") -> dict[str, np.ndarray]:
    """Arrays of nested named tuples, by the names of fields joined with dots.

    Parameters
    ----------
    value : named tuple
    views : collection of str, optional
        Names of what is left out, as it can be made of the rest.
    prefix : str, optional
        Put before every name.
    """
    found = {}
    for field, name, declared in _fields(type(value), prefix):
        part = getattr(value, field)
        if name in views:
            continue
        if isinstance(part, tuple):
            found |= flatten(part, views, f"{name}.")
        elif declared in SCALARS:
            found[name] = np.array(part, SCALARS[declared])
        else:
            found[name] = part
    return found


def build(
    kind: type,
    arrays: dict[str, np.ndarray],
    known: dict[str, int],
    views: Collection[str] = (),
    prefix: str = "",
) -> tuple:
    """Named tuples of such a kind from arrays by name, which are taken out of `arrays`.

    Parameters
    ----------
    kind : type
        Named tuple whose fields are declared as the module says, or are named tuples or numbers.
    arrays : dict of ndarray
    known : dict of int
        Sizes that agree everywhere.
    views, prefix
        As for `flatten`; views are None.

    Raises
    ------
    ValueError
        An array is missing, or is not as declared.
    """
    sizes, parts = dict(known), {}
    for field, name, declared in _fields(kind, prefix):
        if name in views:
            parts[field] = None
        elif hasattr(declared, "_fields"):
            parts[field] = build(declared, arrays, known, views, f"{name}.")
        elif name not in arrays:
            raise ValueError(f"{name}: expected an array, got none")
        elif declared in SCALARS:
            array = arrays.pop(name)
            Stored(SCALARS[declared]).check(name, array, sizes)
            parts[field] = array.item()
        else:
            parts[field] = arrays.pop(name)
            _stored(declared).check(name, parts[field], sizes)
    return kind(**parts)


def _stored(declared: object) -> Stored:
    if get_origin(declared) is Annotated:
        for each in get_args(declared)[1:]:
            if isinstance(each, Stored):
                return each
    raise TypeError(f"expected an array declared as Stored, got {declared}")


def without(value: tuple, views: Collection[str], prefix: str = "") -> tuple:
    """Copy of named tuples with None for what is a view of the rest."""
    parts = {}
    for field, name, _ in _fields(type(value), prefix):
        part = getattr(value, field)
        if name in views:
            part = None
        elif isinstance(part, tuple):
            part = without(part, views, f"{name}.")
        parts[field] = part
    return value._replace(**parts)


def expect(holds: bool, name: str, wanted: str, got: object = "others") -> None:
    """Raise ValueError unless that holds of what is stored."""
    if not holds:
        raise ValueError(f"{name}: expected {wanted}, got {got}")
