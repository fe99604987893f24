"""Command line of halfspace: ``python -m halfspace``; see docs/shell.md."""

import sys

from .shell.commands import main
from .shell.exits import run

if __name__ == "__main__":
    sys.exit(run(main))
