"""Plan: what was predicted of each structure, and which was chosen. `planner.py` makes it."""

from typing import NamedTuple, Self

from .cost_model import Load
from .forecast import Forecast


class Candidate(NamedTuple):
    """A line of a plan. What is not known is NaN.

    Attributes
    ----------
    name : str
        Of the structure.
    build, query : float
        Seconds to build it, and to ask it once.
    nbytes : float
        Bytes it takes.
    total : float
        Seconds: build + expected_queries · query.
    note : str
        Why it was ruled out, or how it was priced.

    Examples
    --------
    >>> import numpy as np
    >>> from halfspace.planner import plan
    >>> points = np.random.default_rng(0).standard_normal((2_000, 3))
    >>> scan = plan(1_000_000, 3, points, expected_queries=1).candidates[0]
    >>> scan.name, scan.build < scan.total < 1.0
    ('scan', True)
    """

    name: str
    build: float
    query: float
    nbytes: float
    total: float
    note: str

    @classmethod
    def unknown(cls, name: str, note: str) -> Self:
        """One that nothing is predicted of.

        Parameters
        ----------
        name, note : str
            As the fields.

        Examples
        --------
        >>> from halfspace.plans import Candidate
        >>> Candidate.unknown("kd_tree", "ruled out").cells()
        ('kd_tree', '-', '-', '-', '-', 'ruled out')
        """
        return cls(name, *[float("nan")] * 4, note)

    @classmethod
    def priced(cls, name: str, load: Load, price: Forecast, note: str) -> Self:
        """One of a forecast, whose times are nanoseconds.

        Parameters
        ----------
        name, note : str
            As the fields.
        load : cost_model.Load
            What the index is wanted for.
        price : forecast.Forecast

        Examples
        --------
        >>> from halfspace.cost_model import Load
        >>> from halfspace.forecast import Forecast
        >>> from halfspace.plans import Candidate
        >>> load = Load(1_000, 3, 4, 10, 1_000)
        >>> Candidate.priced("scan", load, Forecast(2e6, 1e3, 5e4), "tried").cells()
        ('scan', '0.0020 s', '1.00 µs', '0.0030 s', '0.05 MB', 'tried')
        """
        seconds = 1e-9 * price.build, 1e-9 * price.query
        return cls(name, *seconds, price.nbytes, 1e-9 * price.total(load), note)

    def cells(self) -> tuple[str, ...]:
        """The line as text.

        Examples
        --------
        >>> from halfspace.plans import Candidate
        >>> Candidate("scan", 0.25, 1e-5, 3e6, 0.26, "").cells()
        ('scan', '0.2500 s', '10.00 µs', '0.2600 s', '3.00 MB', '')
        """
        known = self.build == self.build
        numbers = (
            f"{self.build:.4f} s",
            f"{1e6 * self.query:.2f} µs",
            f"{self.total:.4f} s",
            f"{self.nbytes / 1e6:.2f} MB",
        )
        return self.name, *(numbers if known else ("-",) * len(numbers)), self.note


class Plan(NamedTuple):
    """What was chosen, and from what.

    Attributes
    ----------
    structure : str
        The name of the structure that was chosen.
    reason : str
        Why.
    expected_queries : int
        How many queries it is to pay for.
    candidates : tuple of Candidate
        What was predicted of each structure.

    Examples
    --------
    >>> import numpy as np
    >>> from halfspace.planner import plan
    >>> points = np.random.default_rng(0).standard_normal((2_000, 3))
    >>> chosen = plan(1_000_000, 3, points, expected_queries=1)
    >>> chosen.structure, [candidate.name for candidate in chosen.candidates]
    ('scan', ['scan', 'kd_tree', 'partition_tree', 'shallow_cuttings', 'cascade'])
    """

    structure: str
    reason: str
    expected_queries: int
    candidates: tuple[Candidate, ...]

    def table(self) -> str:
        """The candidates, in aligned columns.

        Examples
        --------
        >>> from halfspace.plans import Candidate, Plan
        >>> one = Candidate("scan", 0.25, 1e-5, 3e6, 0.26, "tried")
        >>> print(Plan("scan", "least in all", 1000, (one,)).table())
        structure     build   a query    in all   memory  note
        scan       0.2500 s  10.00 µs  0.2600 s  3.00 MB  tried
        """
        header = "structure", "build", "a query", "in all", "memory", "note"
        rows = [header, *(candidate.cells() for candidate in self.candidates)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = []
        for first, *numbers, note in rows:
            cells = [first.ljust(widths[0])]
            cells += [cell.rjust(w) for cell, w in zip(numbers, widths[1:-1], strict=True)]
            lines.append("  ".join([*cells, note]).rstrip())
        return "\n".join(lines)
