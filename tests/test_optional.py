"""What is optional is not imported by those who do not ask for it."""

import subprocess
import sys

OPTIONAL = (
    "click",
    "dask",
    "distributed",
    "matplotlib",
    "pyarrow",
    "rich",
    "torch",
    "tqdm",
    "transformers",
)


def test_the_packages_import_nothing_optional():
    code = "import sys, halfspace, attention; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(OPTIONAL) & set(done.stdout.split())
