"""memory: bytes and build time of every structure, against n and d."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

import halfspace
from halfspace.shallow_cuttings import MOST_DIMENSIONS

from ..cache import KVCache
from . import clouds, figures, timing
from .exponents import fitted
from .study import CHECK, Finding, Study, Table, Track, check_least, grouped, setting, silent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PART_2 = "ShallowCuttings"

FREE = "ShallowCuttings, more levels"
"""Part 2 with as much memory as its levels take, within `Settings.limit`."""

WARM = 1 << 12
"""Points of indexes that are built first, so that nothing is compiled while it is timed."""

CACHE = "KVCache"
"""Keys and values of a head; its bytes are compared with those of both."""


MAKERS: dict[str, Callable[[np.ndarray], halfspace.Index]] = {
    "Scan": halfspace.Scan,
    "KDTree": halfspace.KDTree,
    "PartitionTree": halfspace.PartitionTree,
    "Cascade": halfspace.Cascade,
    "Dynamic": halfspace.Dynamic,
    PART_2: halfspace.ShallowCuttings,
}


@dataclass(frozen=True)
class Settings:
    """What is run."""

    dims: tuple[int, ...] = setting(
        (2, 3, 4, 6, 16, 64, 128), "Dimensions.", quick=(2, 3, 4, 16, 64)
    )
    exponents: tuple[int, ...] = setting(
        (12, 14, 16, 18), "Numbers of points, as powers of 2.", quick=(10, 12, 14)
    )
    kinds: tuple[str, ...] = setting(("iid", "sphere"), "Kinds of points.")
    tree_dims: int = setting(64, "Partition trees only up to so many dimensions.", quick=16)
    limit: int = setting(512, "Megabytes that Part 2 may take.", quick=64)

    def __post_init__(self) -> None:
        clouds.check(self.kinds, self.dims, self.exponents)
        check_least("limit", (self.limit,), 1)


class Row(NamedTuple):
    """A structure over a cloud."""

    structure: str
    kind: str
    d: int
    n: int
    points_nbytes: int  # of float32 points, and of values too where it holds them
    nbytes: int
    build: float  # seconds
    levels: int  # of Part 2
    least_depth: int  # points above the planes of its finest level; 0 without levels

    @property
    def factor(self) -> float:
        """Bytes for each byte of what it holds."""
        return self.nbytes / self.points_nbytes


def able(name: str, d: int, settings: Settings) -> bool:
    """Whether a structure takes so many dimensions."""
    if name in (PART_2, FREE):
        return d <= MOST_DIMENSIONS
    return name != "PartitionTree" or d <= settings.tree_dims


def run(settings: Settings, track: Track = silent) -> list[Row]:
    """Build everything over every cloud."""
    for d, (name, make) in product((3, 16), (MAKERS | {CACHE: _cache}).items()):
        if able(name, d, settings):
            make(clouds.make("iid", WARM, d, 1).points)
    rows: list[Row] = []
    for kind, d in track([*product(settings.kinds, settings.dims)], "clouds"):
        for n in clouds.sizes(kind, d, settings.exponents):
            rows += measure(kind, clouds.make(kind, n, d, 1).points, settings)
    return rows


def measure(kind: str, points: np.ndarray, settings: Settings) -> Iterator[Row]:
    """Rows of one cloud."""
    n, d = points.shape
    makers = MAKERS | {FREE: lambda rows: _unbounded(rows, settings.limit << 20)}
    for name, make in makers.items():
        if not able(name, d, settings):
            continue
        index, seconds = timing.timed(lambda make=make: make(points))
        depths = index.structure.depths if name in (PART_2, FREE) else []
        finest = int(min(depths, default=0))
        yield Row(name, kind, d, n, points.nbytes, index.nbytes, seconds, len(depths), finest)
    cache, seconds = timing.timed(lambda: _cache(points))
    yield Row(CACHE, kind, d, n, 2 * points.nbytes, cache.nbytes, seconds, 0, 0)


def _unbounded(points: np.ndarray, memory: int) -> halfspace.Index:
    return halfspace.ShallowCuttings(points, memory=memory)


def _cache(points: np.ndarray) -> KVCache:
    """A cache of one head that holds the points as keys and as values."""
    cache = KVCache(points.shape[1], window=0)
    cache.append(points[None], points[None])
    return cache


class Growth(NamedTuple):
    """How a structure grows with n in d dimensions."""

    structure: str
    kind: str
    d: int
    largest: Row
    levels: bool  # whether it has levels at every n
    space: float | None  # exponent of n in bytes
    time: float | None  # and in build time


def growths(rows: Sequence[Row]) -> list[Growth]:
    """Exponents of every structure, kind and dimension."""
    found = []
    for key, line in grouped(rows, "structure", "kind", "d").items():
        line.sort(key=lambda row: row.n)
        n = [row.n for row in line]
        fits = [fitted(n, [getattr(row, name) for row in line]) for name in ("nbytes", "build")]
        powers = (None if fit is None else fit[0] for fit in fits)
        found.append(Growth(*key, line[-1], all(row.levels for row in line), *powers))
    return found


def table(rows: Sequence[Row]) -> Table:
    """A line for each structure, kind and dimension, at the most points."""
    header = (
        "structure",
        "points",
        "d",
        "n",
        "memory",
        "of what it holds",
        "a point",
        "power of n",
        "build",
        "power of n",
        "levels to depth",
    )
    lines = []
    for structure, kind, d, row, _, space, time in growths(rows):
        lines.append(
            (
                structure,
                kind,
                str(d),
                f"{row.n:,}",
                f"{row.nbytes / 1e6:.1f} MB",
                f"{row.factor:.2f}×",
                f"{row.nbytes / row.n:.0f} B",
                _power(space),
                timing.duration(row.build),
                _power(time),
                f"{row.levels} to {row.least_depth}" if row.levels else "–",
            )
        )
    return Table(header, lines)


def _power(exponent: float | None) -> str:
    return "–" if exponent is None else f"{exponent:.2f}"


def constants(rows: Sequence[Row]) -> str:
    """Check 2: what space and builds cost, and whether Part 2 grows as n^floor(d/2)."""
    grown = growths(rows)
    plain = [each for each in grown if each.structure not in (PART_2, FREE)]
    most = max(plain, key=lambda each: each.largest.factor)
    factors = sorted(each.largest.factor for each in plain)
    return (
        f"Every structure but Part 2 takes {factors[0]:.2f} to {factors[-1]:.2f} bytes for each"
        f" byte of what it holds ({most.structure}, d = {most.d}, has the most). {_part_2(rows)}"
    )


def _part_2(rows: Sequence[Row]) -> str:
    """How Part 2 grows where it has levels at every n, and where it has none."""
    grown = [each for each in growths(rows) if each.structure == FREE]
    free = [each for each in grown if each.levels and each.space is not None]
    bare = sorted({each.d for each in grown if not each.largest.levels})
    told = f" At d = {', '.join(map(str, bare))} no level is made: it is a tree." if bare else ""
    if not free:
        return f"Part 2 was not built at enough sizes to tell its growth.{told}"
    worst = max(free, key=lambda each: each.space)
    deep = max(free, key=lambda each: (each.d, each.space))
    heaviest = max(free, key=lambda each: each.largest.factor)
    slower = deep.largest.build / _tree_build(rows, deep.largest)
    return (
        f"Part 2 with as many levels as fit takes up to {heaviest.largest.factor:.0f}"
        f" ({heaviest.kind}, d = {heaviest.d}) and grows as n^{worst.space:.2f} at most (d ="
        f" {worst.d}, {worst.kind}), at d = {deep.d} as n^{deep.space:.2f} where the bound is"
        f" n^{deep.d // 2}; its build takes {slower:.0f} times that of a k-d tree at d = {deep.d}."
        f"{told}"
    )


def _tree_build(rows: Sequence[Row], like: Row) -> float:
    return next(
        row.build
        for row in rows
        if row.structure == "KDTree" and (row.kind, row.d, row.n) == (like.kind, like.d, like.n)
    )


def plot(rows: Sequence[Row], figure: "Figure") -> None:
    """Bytes a byte of points by dimension on the left, Part 2 against n on the right."""
    left, right = figure.subplots(1, 2)
    kind = rows[0].kind
    grown = [each for each in growths(rows) if each.kind == kind]
    for i, name in enumerate(dict.fromkeys(each.structure for each in grown)):
        mine = sorted((e for e in grown if e.structure == name), key=lambda each: each.d)
        left.loglog(
            [each.d for each in mine],
            [each.largest.factor for each in mine],
            "o-",
            color=f"C{i}",
            markersize=4,
            label=name,
        )
    shown = sorted({each.d for each in grown})
    left.set_xticks(shown, [str(d) for d in shown])
    left.minorticks_off()
    left.set(xlabel="dimensions", ylabel="bytes for each byte of what it holds")
    dims = sorted({each.d for each in grown if each.structure == FREE})
    for i, d in enumerate(dims):
        for name, style in ((FREE, "-"), ("KDTree", "--")):
            line = sorted(
                (row for row in rows if (row.structure, row.kind, row.d) == (name, kind, d)),
                key=lambda row: row.n,
            )
            sizes = [row.n for row in line]
            right.loglog(sizes, [row.nbytes / 1e6 for row in line], style, color=f"C{i}")
        figures.entry(right, f"d = {d}", color=f"C{i}")
    figures.entry(right, "Part 2, more levels", "-", color="0.3")
    figures.entry(right, "k-d tree", "--", color="0.3")
    right.set(xlabel="points", ylabel="megabytes", title=f"{kind} points")
    figures.plain(left, right)
    figures.legend(left, right)


STUDY = Study(
    name="memory",
    title="Memory and builds",
    about=(
        "Bytes and build time of every structure over float32 points, and of a `KVCache` that holds"
        " them as keys and values, against n and d; Part 2 both as it comes, within 32 bytes a byte"
        " of points, and with as many levels as fit into a limit. Builds are timed once."
    ),
    settings=Settings,
    row=Row,
    run=run,
    table=table,
    plot=plot,
    findings=(
        Finding(
            CHECK,
            2,
            "Memory and the constants of the structures",
            "Part 1 takes O(n log n) to build and Part 2 O(n^⌊d/2⌋); constants, and the memory of"
            " either, are not given.",
            constants,
        ),
    ),
)
