"""``python -m attention study``: a command a study, whose flags are its settings.

Studies are imported when they are asked for, one by one.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

import click

from . import NAMES, load, timing

if TYPE_CHECKING:
    from .study import Study, Table

T = TypeVar("T")

FOLDER = Path("docs/studies")
"""Where results go."""

TABLE_WIDTH = 130
"""Columns a table may take where the terminal has fewer."""


class Listed(click.ParamType):
    """Values between commas."""

    def __init__(self, of: type) -> None:
        self.of = of
        self.name = "a,b,…" if of is not int else "1,2,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: Any) -> tuple[Any, ...]:
        """Return them as a tuple."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(self.of(part.strip()) for part in value.split(",") if part.strip())
        except ValueError:
            self.fail(f"expected {self.of.__name__}s between commas, got {value!r}", param, ctx)


class Studies(click.Group):
    """The studies by name, and ``all``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the commands."""
        return [*NAMES, "all"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a study and make its command."""
        if cmd_name == "all":
            return everything
        return one(load(cmd_name)) if cmd_name in NAMES else None


@click.group(cls=Studies)
def study() -> None:
    """Run the studies: error, time, memory, thresholds, dimensions, and how general it all is.

    Each writes NAME.json, NAME.png and NAME.md into a folder, and the findings of all that are
    there into README.md.
    """


_folder = click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=FOLDER,
    show_default=True,
    help="Where the results go.",
)
_quick = click.option("--quick", is_flag=True, help="Smaller: well under two minutes.")
_shared = click.option(
    "--processor-time",
    is_flag=True,
    help="Time by the processor time of this process: on one core that others use too.",
)


def one(study: "Study") -> click.Command:
    """Make the command of a study: a flag a setting."""
    options = [
        click.Option(
            [f"--{each.name.replace('_', '-')}"],
            type=_kind(study.types()[each.name]),
            default=None,
            help=f"{each.metadata['help']}  [default: {_shown(each.default)}]",
        )
        for each in fields(study.settings)
    ]

    def run(folder: Path, quick: bool, processor_time: bool, **given: Any) -> None:
        from .study import quickened

        values = asdict(quickened(study.settings) if quick else study.settings())
        values |= {name: value for name, value in given.items() if value is not None}
        missing = study.missing()
        if missing:
            raise click.ClickException(_needs(study, missing))
        _run(study, _checked(study, values), folder, processor_time)

    command = click.Command(study.name, callback=run, params=options, help=study.about)
    command.short_help = NAMES.get(study.name)
    return _shared(_quick(_folder(command)))


@click.command("all", short_help="All of them, one after the other.")
@_folder
@_quick
@_shared
def everything(folder: Path, quick: bool, processor_time: bool) -> None:
    """Run all studies, one after the other; what needs a package that is not there is left out."""
    from .study import quickened

    start = time.perf_counter()
    for name in NAMES:
        study = load(name)
        missing = study.missing()
        if missing:
            click.echo(f"left out: {_needs(study, missing)}")
            continue
        settings = quickened(study.settings) if quick else study.settings()
        _run(study, settings, folder, processor_time)
    click.echo(f"all: {time.perf_counter() - start:.0f} s")


def _needs(study: "Study", missing: list[str]) -> str:
    return f"{study.name} needs {', '.join(missing)} (the extra {study.extra})"


def _kind(hint: Any) -> Any:
    """Type of a flag for a setting of such a type."""
    if get_origin(hint) is tuple:
        return Listed(get_args(hint)[0])
    return hint


def _shown(value: Any) -> str:
    if value == ():
        return "none"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _checked(study: "Study", values: dict[str, Any]) -> Any:
    try:
        return study.settings(**values)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _run(study: "Study", settings: Any, folder: Path, processor_time: bool) -> None:
    """Run a study, print its table and findings, and write them."""
    from . import report

    if lacking := study.lacking():
        click.echo(f"{study.wanted_for} left out: {_needs(study, lacking)}")
    try:
        with timing.by_processor_time() if processor_time else nullcontext():
            rows, passed = timing.timed(lambda: study.run(settings, _bar))
            machine = report.machine()
    except ValueError as error:
        raise click.ClickException(f"{study.name}: {error}") from error
    outcome = report.Outcome(study, asdict(settings), machine, passed, rows)
    _print(study.title, study.table(rows))
    for finding, text in outcome.findings():
        click.echo(f"{finding.group} {finding.number}: {text}")
    try:
        paths = report.write(outcome, folder)
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error}: pip install '.[plot]'") from error
    readme, complaints = report.write_readme(folder)
    for complaint in complaints:
        click.echo(f"not in {readme}: {complaint}", err=True)
    click.echo(f"{study.name}: {passed:.0f} s; {', '.join(map(str, [*paths, readme]))}")


def _bar(steps: Iterable[T], title: str) -> Iterator[T]:
    """Show progress on stderr, where that is a terminal."""
    from tqdm import tqdm

    return iter(tqdm(steps, desc=title, leave=False, disable=None))


def _print(title: str, table: "Table") -> None:
    from rich.console import Console
    from rich.table import Table as RichTable

    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    shown = RichTable(title=title, show_edge=False)
    for i, name in enumerate(table.header):
        shown.add_column(name, justify="right" if i else "left")
    for line in table.lines:
        shown.add_row(*line)
    console.print(shown, markup=False)
