"""plan: which structure, from the data and what will be asked of it. build: build one.

Every candidate is priced by build + expected_queries * query (`cost_model.py`), the queries asked
in batches, on one thread. Scans are priced in closed form. So is what any other costs at least, and
one that cannot win by that is dropped; the rest are built over samples of the data, small enough
that this costs little beside what the choice may save (`forecast.py`). Those known to be cheap to
try come first.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from . import forecast
from .cost_model import Load
from .forecast import Limits, Sample
from .index import Index
from .inputs import CheckedPoints, as_count, as_ids, as_normals, as_points, as_weights
from .plans import Candidate, Plan
from .runoff import PROBES, Probes, pays, run_off
from .scan import Scan
from .static_index import StaticIndex
from .structures import STRUCTURES, Structure

EXPECTED_QUERIES = 10_000
"""Queries an index is expected to answer where nobody says."""

USUAL_SHARE = 0.01
"""Share of the points a report is expected to hold where nobody says."""

TINY_NANOSECONDS = 1e7
"""Where scans take no longer in all, they are not worth a thought."""

PLANNING_SHARE = 0.14
"""Time that sampling may take, of the geometric mean of what it may save and what remains."""

PLANNING_CALL = 1e6
"""Nanoseconds that sampling takes in Python, whatever the size."""

MOST_PLANNING_NANOSECONDS, MOST_PLANNING_SHARE = 1.5e7, 0.01
"""Time that sampling for one structure may take: one of them, of the least total so far."""

UNTOLD = ", queries untold"
"""Behind the name of a structure that takes queries and is made without."""

DIRECTIONS = 24
"""Half-spaces that structures over samples are asked for."""


class Wishes(NamedTuple):
    """What the caller says of an index, or None."""

    expected_count: int | None
    expected_queries: int | None
    memory: int | None


def _checked_wishes(count: int | None, queries: int | None, memory: int | None) -> Wishes:
    return Wishes(
        None if count is None else as_count(count, "expected_count"),
        None if queries is None else as_count(queries, "expected_queries"),
        None if memory is None else as_count(memory, "memory"),
    )


def random_directions(points: np.ndarray, m: int) -> np.ndarray:
    """Random normals (m, d), along each axis in units of the points' spread."""
    with np.errstate(all="ignore"):
        spread = points.std(axis=0, dtype=np.float64)
    usable = np.isfinite(spread) & (spread > 1e-100)
    scale = np.where(usable, spread, spread[usable].mean() if usable.any() else 1.0)
    return np.random.default_rng(0).standard_normal((m, len(scale))) / (scale / scale.max())


def _most_planning(best: float) -> float:
    """Nanoseconds that sampling for one structure may take, against the least total so far."""
    return max(MOST_PLANNING_NANOSECONDS, MOST_PLANNING_SHARE * best)


def _affordable(structure: Structure, d: int, allowed: float, rows: int) -> int | None:
    """The most of `rows` that a structure can be tried on in so many nanoseconds."""
    for size in [min(rows, size) for size in forecast.SAMPLE_SIZES]:
        if size >= forecast.LEAST_SAMPLE and structure.sampling * (d + 5) * size <= allowed:
            return size
    return None


def _make_sample(points: np.ndarray, normals: np.ndarray | None, best: float) -> Sample:
    rng, (rows, d) = np.random.default_rng(0), points.shape
    sizes = [_affordable(each, d, _most_planning(best), rows) for each in STRUCTURES.values()]
    size = max(size or min(rows, forecast.SAMPLE_SIZES[-1]) for size in sizes)
    rows = points[rng.choice(len(points), size, replace=False)]
    if normals is None or not len(normals):
        return Sample(rows, random_directions(rows, DIRECTIONS), None)
    # What a partition is made for is not what it is measured with.
    some = normals[rng.permutation(len(normals))[: 8 * DIRECTIONS]]
    measured = some[: max(1, min(DIRECTIONS, len(some) // 2))]
    return Sample(rows, measured, some[len(measured) :] if len(some) > 1 else some)


def _consider(name: str, load: Load, sample: Sample, best: float, limits: Limits) -> Candidate:
    """Price a structure, against the least total so far."""
    structure = STRUCTURES[name]
    if structure.most_dimensions is not None and load.d > structure.most_dimensions:
        return Candidate.unknown(
            name, f"ruled out: {load.d} > {structure.most_dimensions} dimensions"
        )
    least = structure.least(load)
    if limits.memory is not None and least.nbytes > limits.memory:
        return Candidate.priced(name, load, least, "ruled out: takes more memory")
    if structure.sampled is None:
        return Candidate.priced(name, load, least, "")
    saving = best - structure.margin * least.total(load)
    if saving <= 0.0:
        return Candidate.priced(name, load, least, "ruled out: takes at least this")
    stake = math.sqrt(saving * least.total(load))
    allowed = min(PLANNING_SHARE * stake - PLANNING_CALL, _most_planning(best))
    size = _affordable(structure, load.d, allowed, len(sample.points))
    if size is None and structure.unsampled is not None:
        return Candidate.priced(name, load, structure.unsampled(load), "by theory")
    if size is None:
        return Candidate.unknown(name, "ruled out: trying it costs more than it may save")
    found = structure.sampled(load, sample, size, limits)
    if found is None:
        return Candidate.unknown(name, f"ruled out: no level pays over a sample of {size} points")
    return Candidate.priced(name, load, found, f"tried on {size} points")


def plan(
    n: int,
    d: int,
    sample: ArrayLike,
    queries: ArrayLike | None = None,
    expected_count: int | None = None,
    expected_queries: int | None = None,
    memory: int | None = None,
    candidates: Sequence[str] = tuple(STRUCTURES),
) -> Plan:
    """Choose the structure that takes least time to build and to ask, all in all.

    Parameters
    ----------
    n : int
        Number of points to index.
    d : int
        Their dimension.
    sample : array_like, shape (s, d)
        Points drawn from them, or all; some 16,000 are enough.
    queries : array_like, shape (m, d), optional
        Normals like those to come; random directions if not given.
    expected_count : int, optional
        Points a report is expected to hold; 1 % of them if not given.
    expected_queries : int, optional
        Queries the index is expected to answer in its life; 10,000 if not given.
    memory : int, optional
        Bytes the index may take.
    candidates : sequence of str, optional
        Names to choose among, of "scan", "kd_tree", "partition_tree", "shallow_cuttings",
        "cascade". A scan is always one of them.

    Returns
    -------
    Plan
        `structure`, `reason`, and `candidates` with what was predicted of each.

    Raises
    ------
    TypeError
        Not real numbers, or not integers.
    ValueError
        A sample or queries of the wrong shape or not finite; a negative number; an unknown
        candidate.

    Examples
    --------
    >>> import numpy as np
    >>> from halfspace.planner import plan
    >>> points = np.random.default_rng(0).standard_normal((2_000, 3))
    >>> plan(1_000_000, 3, points, expected_queries=1).structure
    'scan'
    >>> plan(1_000_000, 3, points, expected_queries=10_000).structure
    'kd_tree'
    """
    n, d = as_count(n, "n"), as_count(d, "d", least=1)
    points = as_points(sample, "sample")
    if points.shape[1] != d:
        raise ValueError(f"sample: expected shape (s, {d}), got shape {points.shape}")
    if not STRUCTURES.keys() >= set(candidates):
        unknown = next(name for name in candidates if name not in STRUCTURES)
        known = ", ".join(STRUCTURES)
        raise ValueError(f"candidates: expected some of {known}, got {unknown!r}")
    normals = None if queries is None else as_normals(queries, d, "queries")[0]
    wishes = _checked_wishes(expected_count, expected_queries, memory)
    return _choose(n, points, normals, wishes, candidates)


def _choose(
    n: int,
    points: np.ndarray,
    normals: np.ndarray | None,
    wishes: Wishes,
    names: Sequence[str],
) -> Plan:
    """`plan`, its arguments checked."""
    count, asked = wishes.expected_count, wishes.expected_queries
    load = Load(
        n,
        points.shape[1],
        points.itemsize,
        USUAL_SHARE * n if count is None else min(count, n),
        EXPECTED_QUERIES if asked is None else asked,
    )
    price = forecast.scan(load)
    scan, best = Candidate.priced("scan", load, price, ""), price.total(load)
    if best <= TINY_NANOSECONDS or not len(points):
        reason = f"scans take {scan.total:.2g} s in all: nothing else was looked at"
        return Plan("scan", reason, load.queries, (scan,))
    limits, chosen, lines, sample = Limits(wishes.memory, count), scan, [scan], None
    for name in STRUCTURES:
        if name == "scan" or name not in names:
            continue
        sample = _make_sample(points, normals, best) if sample is None else sample
        line = _consider(name, load, sample, best, limits)
        lines.append(line)
        least = 1e9 * STRUCTURES[name].margin * line.total
        fits = limits.memory is None or line.nbytes <= limits.memory
        if least < best and fits and not line.note.startswith("ruled out"):
            chosen, best = line, least
    reason = f"least time for {load.queries} queries of {load.count:.0f} points"
    return Plan(chosen.name, reason, load.queries, tuple(lines))


def _aliases(name: str) -> tuple[str, str]:
    return name, name.replace("_", "")


def structure_name(structure: str | type[StaticIndex]) -> str:
    """Name in `STRUCTURES`, or "auto", of a structure by name, as for `build`, or by class."""
    if structure == "auto":
        return "auto"
    names = {"auto": "auto", **{alias: name for name in STRUCTURES for alias in _aliases(name)}}
    classes = {each.make: name for name, each in STRUCTURES.items()}
    found = classes.get(structure) or names.get(str(structure).lower())
    if found is None:
        known = ", ".join(["auto", *STRUCTURES])
        raise ValueError(f"structure: expected one of {known}, got {structure!r}")
    return found


def build(
    points: ArrayLike,
    structure: str = "auto",
    *,
    ids: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    queries: ArrayLike | None = None,
    expected_count: int | None = None,
    expected_queries: int | None = None,
    expected_batch: int | None = None,
    memory: int | None = None,
) -> Index:
    """Build an index over `points` for half-space queries.

    Parameters
    ----------
    points : array_like, shape (n, d)
        Finite; float32 or float64, narrower floats and integers are widened without loss.
    structure : str, optional
        "auto", "scan", "kd_tree", "partition_tree", "shallow_cuttings" or "cascade", in upper or
        lower case, with or without underscores. "auto" takes what `planner.plan` chooses from the
        points and what follows.
    ids : array_like of int, shape (n,), optional
        Distinct 64-bit ids; 0 … n-1 if not given.
    weights : array_like, shape (n,) or (n, w), optional
        Finite weights for `Index.sum`.
    queries : array_like, shape (m, d), optional
        Normals like those to come: structures are tried on them, and a partition tree or a cascade
        is made for them.
    expected_count : int, optional
        Points a report is expected to hold; 1 % of them if not given.
    expected_queries : int, optional
        Queries the index is expected to answer in its life; 10,000 if not given. A scan is best for
        few, and the more there are, the more building may cost. Where they are many, what else may
        win is built as well, and the clock decides (`runoff.py`); some may be held at once.
    expected_batch : int, optional
        Queries that come in a call, 1 where each comes by itself: where the clock decides, it does
        so for such calls. If not given, for both ways.
    memory : int, optional
        Bytes the index may take.

    Returns
    -------
    Index
        `explain()` says what was built and why.

    Raises
    ------
    TypeError
        Not real numbers.
    ValueError
        An unknown structure; points, ids, weights or queries as for `Index`; a negative
        `expected_count` or `expected_queries`, no `expected_batch`; an index larger than `memory`.

    Examples
    --------
    >>> import halfspace
    >>> index = halfspace.build([[0.0, 0.0], [3.0, 4.0]], ids=[70, 50])
    >>> index.report([1.0, 1.0], 7.0)
    array([50])
    """
    wishes = _checked_wishes(expected_count, expected_queries, memory)
    batch = None if expected_batch is None else as_count(expected_batch, "expected_batch", least=1)
    return _build(points, structure, ids, weights, queries, wishes, batch, runs=True)


def build_as_planned(
    points: ArrayLike,
    structure: str = "auto",
    *,
    ids: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    queries: ArrayLike | None = None,
    expected_count: int | None = None,
    expected_queries: int | None = None,
    memory: int | None = None,
) -> Index:
    """`build` without a run-off: for parts of the points, of which there are many to build."""
    wishes = _checked_wishes(expected_count, expected_queries, memory)
    return _build(points, structure, ids, weights, queries, wishes, None, runs=False)


def _build(
    points: ArrayLike,
    structure: str,
    ids: ArrayLike | None,
    weights: ArrayLike | None,
    queries: ArrayLike | None,
    wishes: Wishes,
    batch: int | None,
    runs: bool,
) -> Index:
    """`build`, its numbers checked; with a run-off only where it `runs`."""
    wanted, memory = structure_name(structure), wishes.memory
    rows = as_points(points)
    ids = None if ids is None else as_ids(ids, len(rows))
    weights = None if weights is None else as_weights(weights, len(rows))
    normals = None if queries is None else as_normals(queries, rows.shape[1], "queries")[0]
    options = {**wishes._asdict(), "queries": normals}
    if wanted != "auto":
        return _checked(_make(wanted, rows, ids, weights, options), memory, "chosen by hand")
    # What every structure takes for ids and weights is not the planner's to give away.
    taken = sum(a.nbytes for a in (ids, weights) if a is not None)
    left = None if memory is None else max(0, memory - taken)
    chosen = _choose(len(rows), rows, normals, wishes._replace(memory=left), tuple(STRUCTURES))
    if len(chosen.candidates) == 1:
        return _checked(_make("scan", rows, ids, weights, options), memory, chosen.reason)
    reason = "\n  ".join([chosen.reason, *chosen.table().splitlines()])
    index = _make(chosen.structure, rows, ids, weights, options)
    if memory is not None and index.nbytes > memory:
        index, reason = (
            Scan(rows, ids=ids, weights=weights),
            f"{index!r} takes {index.nbytes} bytes",
        )
    elif runs and wishes.expected_queries is not None and pays(chosen, batch, left):
        index, said = run_off(
            index,
            chosen if normals is None else _with_untold(chosen),
            memory,
            lambda name: _make(name, rows, ids, weights, options),
            _probes(index, rows, normals, wishes),
            batch,
        )
        reason = "\n  ".join([reason, *said.splitlines()])
    return _checked(index, memory, reason)


def _with_untold(chosen: Plan) -> Plan:
    """A plan with what is made for queries as candidates made without them too.

    Those may be faster: a sample of points shows what lies close together better than how close.
    """
    told = [each for each in chosen.candidates if "queries" in STRUCTURES[each.name].options]
    untold = [each._replace(name=each.name + UNTOLD) for each in told]
    return chosen._replace(candidates=(*chosen.candidates, *untold))


def _probes(index: Index, points: np.ndarray, normals: np.ndarray | None, wishes: Wishes) -> Probes:
    """Half-spaces like those to come."""
    if normals is None or not normals.any():
        normals = random_directions(points, PROBES)
    count = wishes.expected_count
    count = round(USUAL_SHARE * len(points)) if count is None else min(count, len(points))
    return Probes.of(index, points, normals, count, wishes.expected_queries)


def _make(
    name: str,
    rows: np.ndarray,
    ids: ArrayLike | None,
    weights: ArrayLike | None,
    options: dict,
) -> Index:
    structure = STRUCTURES[name.removesuffix(UNTOLD)]
    if name.endswith(UNTOLD):
        options = options | {"queries": None}
    taken = {option: options[option] for option in structure.options}
    return structure.make(CheckedPoints(rows), ids=ids, weights=weights, **taken)


def _checked(index: Index, memory: int | None, reason: str) -> Index:
    if memory is not None and index.nbytes > memory:
        raise ValueError(f"memory: expected at least {index.nbytes} bytes, got {memory}")
    index._reason = reason
    return index
