"""What a fresh process waits for: imports, and the first answer with and without cached kernels."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import halfspace

FIRST_ANSWER = """
import json, sys, time
start = time.perf_counter()
import numpy, numba
others = time.perf_counter()
import halfspace, attention
imported = time.perf_counter()
points = numpy.random.default_rng(0).random((int(sys.argv[1]), 3), dtype=numpy.float32)
index = halfspace.KDTree(points)
built = time.perf_counter()
index.report([1.0, 2.0, 2.0], 4.5)
done = time.perf_counter()
print(json.dumps([others - start, imported - others, built - imported, done - built]))
"""


class Startup(NamedTuple):
    """Seconds a fresh process takes for each step."""

    import_others: float  # numpy and numba
    import_ours: float  # then halfspace and attention
    build: float
    first_report: float
    process: float  # from start to exit


def _fresh_process(cache: str, points: int) -> Startup:
    source = str(Path(halfspace.__file__).parents[1])
    environment = os.environ | {"NUMBA_CACHE_DIR": cache, "PYTHONPATH": source}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", FIRST_ANSWER, str(points)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    passed = time.perf_counter() - start
    return Startup(*json.loads(done.stdout), process=passed)


def startups(points: int) -> dict[str, Startup]:
    """First answers with a fresh cache of kernels, then with the one that run left."""
    with tempfile.TemporaryDirectory() as cache:
        return {name: _fresh_process(cache, points) for name in ("fresh cache", "warm cache")}
