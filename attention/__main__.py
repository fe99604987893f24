"""Command line of attention: ``python -m attention demo``, ``python -m attention study``."""

import sys
from pathlib import Path

import click

from .studies.command import study


@click.group()
def main() -> None:
    """Attention that reads only the keys that matter, with a bound on its error."""


@main.command()
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also draw error and bound against the number of keys read into FILE.",
)
@click.option(
    "--queries",
    type=click.IntRange(1, 256),
    default=256,
    show_default=True,
    help="Queries per head.",
)
def demo(plot: Path | None, queries: int) -> None:
    """Decode real heads of a trained transformer, and check every bound against exact attention.

    Exits with 1 if any certified bound is exceeded or any reported id is wrong.
    """
    from .demo import run_demo

    sys.exit(0 if run_demo(queries, plot) else 1)


main.add_command(study)

if __name__ == "__main__":
    main(prog_name="python -m attention")
