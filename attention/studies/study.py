"""What a study is: a function of its settings that returns rows, and what is made of those rows.

Everything that is written, the table, the picture and the findings, is computed from the rows
alone, so that rows read back from a file give it again.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, get_type_hints

if TYPE_CHECKING:
    from matplotlib.figure import Figure

T = TypeVar("T")

Track = Callable[[Iterable[T], str], Iterator[T]]
"""Iterates over steps, saying what they are: a progress bar, or nothing."""

QUESTION, EXPERIMENT, CHECK = "Open question", "First experiment", "Further check"
"""What the paper leaves open, asks to be measured first, and asks to be checked."""

GROUPS = (QUESTION, EXPERIMENT, CHECK)


def silent(steps: Iterable[T], title: str) -> Iterator[T]:
    """Iterate over steps without a word.

    Examples
    --------
    >>> from attention.studies.study import silent
    >>> list(silent([1, 2], "steps"))
    [1, 2]
    """
    return iter(steps)


def setting(default: Any, text: str, *, quick: Any = None) -> Any:
    """Declare a setting, a field of a frozen dataclass: its default, that of --quick, its help.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> from attention.studies.study import quickened, setting
    >>> @dataclass(frozen=True)
    ... class Settings:
    ...     queries: int = setting(64, "Queries a head.", quick=8)
    >>> Settings(), quickened(Settings)
    (Settings(queries=64), Settings(queries=8))
    """
    quick = default if quick is None else quick
    return field(default=default, metadata={"help": text, "quick": quick})


def quickened(settings: type[T]) -> T:
    """Make the settings of --quick."""
    return settings(**{each.name: each.metadata["quick"] for each in fields(settings)})


class Table(NamedTuple):
    """A table of text; the first column is left aligned."""

    header: tuple[str, ...]
    lines: list[tuple[str, ...]]


@dataclass(frozen=True)
class Finding:
    """An answer, beside what the paper says.

    Attributes
    ----------
    group : str
        One of `GROUPS`.
    number : int
        Of the question in its group.
    title : str
    paper : str
        What arXiv 2410.10165 says of it.
    state : callable
        Rows to two sentences, whichever way the rows have it.
    """

    group: str
    number: int
    title: str
    paper: str
    state: Callable[[Sequence[Any]], str]


@dataclass(frozen=True)
class Study:
    """A study.

    Attributes
    ----------
    name : str
        On the command line, and of its files.
    title : str
        Heading of its page.
    about : str
        What is measured and how, a paragraph.
    settings : type
        Frozen dataclass whose fields are made by `setting`; it raises ValueError for what cannot
        be run.
    row : type
        Named tuple of numbers, strings, booleans and None.
    run : callable
        (settings, track) to rows.
    table : callable
        Rows to `Table`.
    plot : callable
        Draws rows into an empty matplotlib figure.
    findings : tuple of Finding
    requires : tuple of str
        Modules without which it cannot run.
    wants : tuple of str
        Modules without which it runs and leaves something out.
    wanted_for : str
        What that is.
    extra : str
        The extra that has those.
    """

    name: str
    title: str
    about: str
    settings: type
    row: type
    run: Callable[[Any, Track], list[Any]]
    table: Callable[[Sequence[Any]], Table]
    plot: Callable[[Sequence[Any], "Figure"], None]
    findings: tuple[Finding, ...]
    requires: tuple[str, ...] = ()
    wants: tuple[str, ...] = ()
    wanted_for: str = ""
    extra: str = ""

    def missing(self) -> list[str]:
        """Modules that it requires and that are not installed."""
        return [module for module in self.requires if find_spec(module) is None]

    def lacking(self) -> list[str]:
        """Modules that it could do more with and that are not installed."""
        return [module for module in self.wants if find_spec(module) is None]

    def types(self) -> dict[str, Any]:
        """Type of every setting by its name."""
        hints = get_type_hints(self.settings)
        return {each.name: hints[each.name] for each in fields(self.settings)}


def grouped(rows: Iterable[T], *names: str) -> dict[tuple[Any, ...], list[T]]:
    """Rows by the values of some of their fields, in the order in which these come first.

    Examples
    --------
    >>> from fractions import Fraction
    >>> from attention.studies.study import grouped
    >>> grouped([Fraction(1, 2), Fraction(1, 3), Fraction(3, 2)], "denominator")
    {(2,): [Fraction(1, 2), Fraction(3, 2)], (3,): [Fraction(1, 3)]}
    """
    found: dict[tuple[Any, ...], list[T]] = {}
    for row in rows:
        found.setdefault(tuple(getattr(row, name) for name in names), []).append(row)
    return found


def check_least(name: str, values: Sequence[float], least: float, *, most: float = inf) -> None:
    """Check that a setting has values, all from `least` to `most`.

    Examples
    --------
    >>> from attention.studies.study import check_least
    >>> check_least("dims", (2, 1), 2)
    Traceback (most recent call last):
    ValueError: dims: expected values from 2 on, got (2, 1)
    """
    if not values or not all(least <= value <= most for value in values):
        wanted = f"from {least} on" if most == inf else f"from {least} to {most}"
        raise ValueError(f"{name}: expected values {wanted}, got {tuple(values)}")


def check_known(name: str, values: Sequence[str], known: Sequence[str]) -> None:
    """Check that a setting has values, all of them known.

    Examples
    --------
    >>> from attention.studies.study import check_known
    >>> check_known("kinds", ("a", "c"), ("a", "b"))
    Traceback (most recent call last):
    ValueError: kinds: expected some of a, b, got c
    """
    strange = [value for value in values if value not in known]
    if strange or not values:
        raise ValueError(f"{name}: expected some of {', '.join(known)}, got {', '.join(strange)}")
