"""One file, many readers: processes that fork or are spawned, and numba's threading layers."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import halfspace

from .datasets import cloud
from .sizes import JIT

POINTS = cloud(3000 if JIT else 200, 3)

READER = """
import multiprocessing, os, sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import halfspace

NORMALS, OFFSETS = np.eye(3).repeat(20, axis=0), np.linspace(-1.0, 2.0, 60)


def ask(index):
    report = index.report(NORMALS, OFFSETS)
    best = index.top(NORMALS[::20], 3)
    return report.indptr.tolist(), report.indices.tolist(), best.ids.tolist()


def load_and_ask(path):
    return ask(halfspace.load(path))


def forked(index):
    # What a fork of this process, which has read from threads, answers from the same pages.
    here, there = os.pipe()
    child = os.fork()
    if not child:
        with os.fdopen(there, "w") as file:
            file.write(repr(ask(index)))
        os._exit(0)
    os.close(there)
    with os.fdopen(here) as file:
        text = file.read()
    return os.waitpid(child, 0)[1] == 0 and eval(text)


def main(path, what):
    halfspace.set_threads(2)
    index = halfspace.load(path)
    want = ask(index)
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(ask, index) for _ in range(8)]
        if what not in ("fork", "spawn"):
            import layers

            print(layers.run(index, what))
        assert all(future.result() == want for future in futures)
    if what == "spawn":
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            assert pool.map(load_and_ask, [path] * 4) == [want] * 4
    elif hasattr(os, "fork"):
        assert forked(index) == want
    print("as asked")


if __name__ == "__main__":
    main(*sys.argv[1:])
"""

LAYERS = """
import numba
import numpy as np


@numba.njit(parallel=True)
def inside(structure, normal, offset):
    # Somebody's own parallel code over the mapped arrays.
    data, count = structure.tiles.data, structure.tiles.ranks.size
    total = 0
    for slot in numba.prange(count):
        score = 0.0
        for j in range(normal.size):
            score += normal[j] * data[slot // 64, j, slot % 64]
        total += score >= offset
    return total


def run(index, layer):
    found = inside(index.structure, np.array([1.0, 0.0, 0.0]), 0.0)
    assert found == index.count([1.0, 0.0, 0.0], 0.0)
    return numba.threading_layer()
"""


def run_reader(directory, what, **environment):
    (directory / "reader.py").write_text(READER)
    (directory / "layers.py").write_text(LAYERS)
    halfspace.KDTree(POINTS).save(directory / "index")
    source = str(Path(halfspace.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-W", "error", "reader.py", "index", what],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": source} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    *layer, last = done.stdout.split("\n")[:-1]
    assert last == "as asked"
    return layer


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes(method, tmp_path):
    if method == "fork" and not hasattr(os, "fork"):
        pytest.skip("no fork on this system")
    run_reader(tmp_path, method)


@pytest.mark.skipif(not JIT, reason="there is nothing to run in parallel")
@pytest.mark.parametrize("layer", ["tbb", "omp", "workqueue"])
def test_threading_layers(layer, tmp_path):
    """Each of numba's threading layers, in a process whose other threads read, which then forks.

    The kernels here use none of them, and neither do they mind.
    """
    pool = {"omp": "omppool", "tbb": "tbbpool", "workqueue": "workqueue"}[layer]
    try:
        __import__(f"numba.np.ufunc.{pool}")
    except ImportError as missing:
        pytest.skip(f"numba's threading layer {layer} is not installed: {missing}")
    assert run_reader(tmp_path, layer, NUMBA_THREADING_LAYER=layer) == [layer]


def test_pages_are_shared(tmp_path):
    """What is mapped is the file, not a copy of it."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("no list of mappings on this system")
    index = halfspace.Scan(np.zeros((1000, 3)))
    path = tmp_path / "a mapped index"
    index.save(path)
    halfspace.load(path)
    index = halfspace.load(path)
    mapped = [line for line in maps.read_text().splitlines() if line.endswith("a mapped index")]
    assert len(mapped) == 1
    assert mapped[0].split()[1].startswith("r--s"), "read-only and shared"
    del index
    assert "a mapped index" not in maps.read_text()
