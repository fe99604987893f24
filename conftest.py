"""What is collected: what needs Dask only where that is installed (the extra ``dask``)."""

from importlib.util import find_spec

OF_DASK = [
    "attention/distributed.py",
    "halfspace/distributed.py",
    "tests/clusters.py",
    "tests/test_distributed.py",
    "tests/test_distributed_attention.py",
]

HAS_DASK = all(map(find_spec, ("dask", "distributed")))

collect_ignore = [] if HAS_DASK else OF_DASK


def pytest_report_header() -> str | None:
    """Say in a line what is not."""
    if not HAS_DASK:
        return f"not collected without dask and distributed (extra dask): {', '.join(OF_DASK)}"
    return None
