"""What is collected: what needs Dask or torch only where that is installed (the extras)."""

from importlib.util import find_spec

OF_DASK = [
    "attention/distributed.py",
    "halfspace/distributed.py",
    "tests/clusters.py",
    "tests/test_distributed.py",
    "tests/test_distributed_attention.py",
]

OF_TORCH = [
    "attention/studies/capture.py",
    "attention/studies/training.py",
    "tests/test_studies_torch.py",
]

HAS_DASK = all(map(find_spec, ("dask", "distributed")))

HAS_TORCH = all(map(find_spec, ("torch", "transformers")))

collect_ignore = [*([] if HAS_DASK else OF_DASK), *([] if HAS_TORCH else OF_TORCH)]


def pytest_report_header() -> list[str]:
    """Say in a line each what is not."""
    left_out = {
        "dask, distributed (extra dask)": [] if HAS_DASK else OF_DASK,
        "torch, transformers (extra torch)": [] if HAS_TORCH else OF_TORCH,
    }
    return [
        f"not collected without {needed}: {', '.join(files)}"
        for needed, files in left_out.items()
        if files
    ]
