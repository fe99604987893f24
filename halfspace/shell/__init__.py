"""The command line: ``python -m halfspace``. Needs the extra ``cli``."""
