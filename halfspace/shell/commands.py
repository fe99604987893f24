"""Commands of ``python -m halfspace``: report, count, top, build, explain, bench."""

import sys
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
from rich.console import Console

from .. import planner
from ..inputs import Queries
from ..point_files import CHUNK_BYTES, PointFile, open_points
from ..storage import load
from ..structures import STRUCTURES
from . import answers, exits, queries
from .streaming import Asked, AskedFile, AskedIndex, progress

INDEX_SUFFIX = ".hsf"
"""Of files that `build` writes."""

SAMPLE = 1 << 14
"""Points that `explain` plans with."""


class Numbers(click.ParamType):
    """Numbers between commas."""

    name = "x,y,…"

    def convert(self, value: str, param: click.Parameter, ctx: click.Context) -> list[float]:
        """Return them as floats."""
        try:
            return queries.parsed_normal(value)
        except ValueError:
            self.fail(f"expected numbers between commas, got {value!r}", param, ctx)


class Names(click.ParamType):
    """Names between commas."""

    name = "a,b,…"

    def convert(self, value: str, param: click.Parameter, ctx: click.Context) -> list[str]:
        """Return them as a list."""
        return [name.strip() for name in value.split(",")]


FILE = click.Path(path_type=Path)


def _decorated(*options: Callable) -> Callable:
    """All of these options at once, in this order of the help."""

    def decorate(command: Callable) -> Callable:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_points = _decorated(
    click.argument("points", type=FILE),
    click.option("--columns", type=Names(), help="Columns of a .csv or .parquet file to take."),
    click.option("--array", help="Name of the array in an .npz file."),
)
_structure = click.option(
    "--structure",
    type=click.Choice(["auto", *STRUCTURES]),
    default="auto",
    show_default=True,
    help="Index to answer with.",
)
_asking = _decorated(
    _structure,
    click.option(
        "--chunk",
        type=click.IntRange(1),
        default=CHUNK_BYTES >> 20,
        show_default=True,
        help="Megabytes of a file of points that are held at a time.",
    ),
)
_normal = click.option("--normal", type=Numbers(), multiple=True, help="Of one query; repeatable.")
_halfspaces = _decorated(
    _normal,
    click.option("--offset", type=float, multiple=True, help="Of one query; repeatable."),
    click.option(
        "--queries",
        "query_file",
        type=FILE,
        help="File of queries: d columns of normals and one of offsets, or an .npz file with "
        "arrays `normals` and `offsets`.",
    ),
    click.option("--open", "open_", is_flag=True, help="Leave out points on the plane."),
)
_output = _decorated(
    click.option(
        "--output", type=FILE, help="File to write: .npy, .csv or .jsonl; else standard output."
    ),
    click.option(
        "--format",
        "form",
        type=click.Choice(["csv", "jsonl"]),
        default="csv",
        show_default=True,
        help="Of standard output.",
    ),
)


@click.group()
def main() -> None:
    """Exact half-space queries on points in files: which points have <normal, x> >= offset.

    POINTS is a .npy, .npz, .csv or .parquet file with one point a row, or an index that `build`
    wrote. Files are read a chunk at a time, so they may be larger than memory; ids are row numbers.
    """


@main.command()
@_points
@_halfspaces
@_asking
@click.option("--max-results", type=click.IntRange(0), help="Fail rather than report more ids.")
@_output
def report(
    points: Path, columns, array, structure, chunk, max_results, output, form, **asked
) -> None:
    """Report the ids of the points in each half-space."""
    write = _writer(output, form)
    index = _asked(points, columns, array, structure, chunk)
    half = _queries(index.dim, **asked)
    found = index.report(half, not asked["open_"], max_results)
    write(answers.report_answer(found))


@main.command()
@_points
@_halfspaces
@_asking
@_output
def count(points: Path, columns, array, structure, chunk, output, form, **asked) -> None:
    """Count the points in each half-space."""
    write = _writer(output, form)
    index = _asked(points, columns, array, structure, chunk)
    half = _queries(index.dim, **asked)
    write(answers.count_answer(index.count(half, not asked["open_"])))


@main.command()
@_points
@_normal
@click.option(
    "--queries", "query_file", type=FILE, help="File of normals: d columns, or an .npz file."
)
@click.option("-k", type=click.IntRange(0), default=10, show_default=True, help="How many.")
@_asking
@_output
def top(
    points: Path, columns, array, normal, query_file, k, structure, chunk, output, form
) -> None:
    """Find the k points furthest along each normal."""
    write = _writer(output, form)
    index = _asked(points, columns, array, structure, chunk)
    _either(normal, query_file, "--normal")
    if query_file is not None:
        normals = queries.normals_of_file(query_file, index.dim)
    else:
        normals = _usage(queries.normals_of_options, list(normal), index.dim)
    write(answers.top_answer(index.top(normals, k)))


@main.command()
@_points
@click.argument("index", type=FILE)
@_structure
@click.option("--expected-queries", type=click.IntRange(0), help="Queries it is to answer.")
def build(points: Path, columns, array, index: Path, structure, expected_queries) -> None:
    """Build an INDEX (.hsf) of all points, in memory, for commands that take one."""
    if index.suffix != INDEX_SUFFIX:
        raise click.UsageError(f"INDEX: expected a name that ends in {INDEX_SUFFIX}, got {index}")
    rows = open_points(points, columns=columns, array=array).points()
    with Console(stderr=True).status("building"):
        built = planner.build(rows, structure, expected_queries=expected_queries)
        built.save(index)
    click.echo(built.explain())


@main.command()
@_points
@click.option("--expected-queries", type=click.IntRange(0), help="Queries it is to answer.")
def explain(points: Path, columns, array, expected_queries) -> None:
    """Say what an index is; of a file, what each structure would cost for its points."""
    if points.suffix == INDEX_SUFFIX:
        click.echo(load(points).explain())
        return
    file = open_points(points, columns=columns, array=array)
    rows, n = _sample(file)
    plan = planner.plan(n, file.dim, rows, expected_queries=expected_queries)
    click.echo(f"{n} points x {file.dim}, {rows.dtype}")
    click.echo(f"{plan.structure}: {plan.reason}")
    click.echo(plan.table())


@main.command()
@_points
@_halfspaces
@click.option(
    "--count", "m", type=click.IntRange(1), default=100, show_default=True, help="Random queries."
)
@click.option(
    "--share",
    type=click.FloatRange(0, 1),
    default=0.01,
    show_default=True,
    help="Of the points, in a random query.",
)
def bench(points: Path, columns, array, m, share, open_, **asked) -> None:
    """Time every structure on these points, in memory, beside numpy; check that ids agree."""
    from . import bench as benchmark

    file = open_points(points, columns=columns, array=array)
    rows = file.points()
    if not len(rows):
        raise click.UsageError(f"bench: expected points, got none in {points}")
    if asked["normal"] or asked["offset"] or asked["query_file"]:
        half = _queries(file.dim, **asked)
    else:
        half = benchmark.random_queries(rows, m, share)
    if not benchmark.run_bench(rows, half):
        raise click.exceptions.Exit(exits.DISAGREED)


def _asked(points: Path, columns, array, structure: str, chunk: int) -> Asked:
    if points.suffix == INDEX_SUFFIX:
        return AskedIndex(load(points), points.name)
    return AskedFile(open_points(points, columns=columns, array=array), chunk << 20, structure)


def _either(options: tuple, query_file: Path | None, names: str) -> None:
    if bool(options) == (query_file is not None):
        raise click.UsageError(f"expected either {names} or --queries")


def _queries(dim: int, normal, offset, query_file, open_=False) -> Queries:
    _either(normal or offset, query_file, "--normal and --offset")
    if query_file is not None:
        return queries.queries_of_file(query_file, dim)
    return _usage(queries.queries_of_options, list(normal), list(offset), dim)


def _usage(make: Callable, *arguments: object):
    """What `make` makes of options; what it does not take is a wrong option."""
    try:
        return make(*arguments)
    except ValueError as wrong:
        raise click.UsageError(str(wrong)) from wrong


def _writer(output: Path | None, form: str) -> Callable[[answers.Answer], None]:
    """How an answer is written; a wrong name is found out before any work."""
    if output is None:
        return lambda answer: answers.write_text(answer, form, sys.stdout.write)
    suffix = answers.SUFFIXES.get(output.suffix.lower())
    if suffix is None:
        known = ", ".join(answers.SUFFIXES)
        raise click.UsageError(f"--output: expected a name that ends in {known}, got {output}")
    return lambda answer: answers.write_file(answer, output, suffix)


def _sample(file: PointFile) -> tuple[np.ndarray, int]:
    """Points drawn evenly from a file, and how many it has."""
    rng, rows, keys, n = np.random.default_rng(0), [], [], 0
    with progress(file.path.name) as bar:
        for chunk in file.chunks():
            rows.append(chunk.rows)
            keys.append(rng.random(len(chunk.rows)))
            n += len(chunk.rows)
            # Those of least keys are a sample without replacement.
            least = np.argsort(np.concatenate(keys))[:SAMPLE]
            rows, keys = [np.concatenate(rows)[least]], [np.concatenate(keys)[least]]
            bar.update(chunk.share - bar.n)
    return np.concatenate([np.empty((0, file.dim), np.float32), *rows]), n
