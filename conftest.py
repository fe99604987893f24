"""What tests are collected: those that need an extra only where its packages are installed."""

import gc
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent

OF_DASK = [
    "attention/distributed.py",
    "halfspace/distributed.py",
    "tests/clusters.py",
    "tests/test_distributed.py",
    "tests/test_distributed_attention.py",
]

OF_TORCH = [
    "attention/data/train.py",
    *sorted(str(path.relative_to(HERE)) for path in HERE.glob("attention/huggingface/*.py")),
    "attention/studies/capture.py",
    "attention/studies/language_model.py",
    "attention/studies/probes.py",
    "attention/studies/training.py",
    "tests/language_models.py",
    "tests/test_perplexity.py",
    "tests/test_studies_torch.py",
    "tests/test_token_index.py",
    "tests/test_training.py",
    "tests/test_transformers.py",
]

MORE_WITH_TORCH = ["tests/test_array_libraries.py"]
"""Collected always; with torch there are more tests in them."""

EXTRAS = {
    "dask": (("dask", "distributed"), OF_DASK),
    "torch": (("torch", "transformers"), OF_TORCH),
}
"""Of each extra, the packages that it has to bring, and what needs them."""

MISSING = {
    extra: needing
    for extra, (packages, needing) in EXTRAS.items()
    if not all(map(find_spec, packages))
}

collect_ignore = [path for needing in MISSING.values() for path in needing]


def pytest_report_header() -> list[str]:
    """Say in a line for each extra what is not."""
    return [
        f"not collected without {' and '.join(EXTRAS[extra][0])} (extra {extra}):"
        f" {', '.join(needing)}"
        for extra, needing in MISSING.items()
    ]


@pytest.fixture(scope="module", autouse=True)
def _little_to_collect() -> None:
    """Set apart what stays, as tests do and compilers: what times anything collects garbage first.

    Else every timing of a benchmark would walk through all of it.
    """
    gc.collect()
    gc.freeze()
