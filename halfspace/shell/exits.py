"""Exit codes of the command line, and the errors they stand for."""

import os
import sys
from collections.abc import Callable, Sequence

import click

from ..array_file import InvalidFile
from ..point_files import UnreadablePoints
from ..report import ResultTooLarge

DONE = 0
DISAGREED = 1
"""`bench`: structures gave different ids."""
USAGE = 2
"""An option or an argument that is wrong."""
BAD_FILE = 3
"""A file that is missing, cannot be read or written, or does not hold what was expected."""
TOO_LARGE = 4
"""The answer has more ids than `--max-results`, or does not fit into memory."""
INTERRUPTED = 130
"""Ctrl-C; no file was changed."""
CLOSED = 141
"""Whoever read the output stopped reading."""


def _said(message: object, code: int) -> int:
    click.echo(f"error: {message}", err=True)
    return code


def run(command: Callable[..., object], arguments: Sequence[str] | None = None) -> int:
    """Run a click command; the exit code."""
    try:
        # The code of a command that leaves by one, else None.
        return command(arguments, prog_name="python -m halfspace", standalone_mode=False) or DONE
    except click.ClickException as wrong:
        wrong.show()
        return USAGE
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except (ResultTooLarge, MemoryError) as wrong:
        return _said(wrong, TOO_LARGE)
    except BrokenPipeError:
        # The interpreter flushes once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED
    except OSError as wrong:
        where = "" if wrong.filename is None else f"{wrong.filename}: "
        return _said(f"{where}{wrong.strerror or wrong}", BAD_FILE)
    except (UnreadablePoints, InvalidFile) as wrong:
        return _said(wrong, BAD_FILE)
