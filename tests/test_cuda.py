"""CUDA where there is no device: the simulator in a process of its own, and what is said."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import halfspace
from asv_benchmarks import gpu
from attention import Decoder, KVCache
from halfspace.cuda import CudaUnavailable
from halfspace.cuda.target import SIMULATED, cuda

ROOT = Path(__file__).parents[1]
AVAILABLE = cuda is not None and cuda.is_available()


@pytest.mark.skipif(AVAILABLE, reason="tests/cuda runs in this very process")
def test_kernels_in_the_simulator():
    """All of tests/cuda; numba takes the simulator or not when it is imported."""
    choices = {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"}
    probe = "from halfspace.cuda.target import SIMULATED; raise SystemExit(not SIMULATED)"
    able = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, env=os.environ | choices)
    if able.returncode:
        pytest.skip("this numba has no CUDA simulator")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/cuda"]
    run = subprocess.run(
        command, cwd=ROOT, env=os.environ | choices, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout


@pytest.mark.skipif(AVAILABLE, reason="there is a device")
def test_no_device_is_said():
    rows = np.ones((3, 2))
    for held in (halfspace.Scan(rows), Decoder(rows, rows), KVCache(2)):
        with pytest.raises(CudaUnavailable, match=r"cuda: expected .*pip install .*\[cuda\]"):
            held.to("cuda")


@pytest.mark.skipif(AVAILABLE, reason="there is a device")
def test_the_benchmark_says_that_there_is_no_device(capsys):
    assert gpu.main([]) == 2
    assert re.fullmatch(r"nothing is measured: cuda: expected .*\n", capsys.readouterr().out)


def test_devices_by_name():
    index = halfspace.Scan(np.ones((3, 2)))
    assert index.to("cpu") is index
    for name in ("gpu", "cuda:", "cuda:-1", "CUDA"):
        with pytest.raises(ValueError, match=f"device: expected .*, got '{name}'"):
            index.to(name)
    with pytest.raises(TypeError, match="device: expected a string, got int"):
        index.to(0)


def test_importing_the_packages_imports_no_cuda():
    code = "import sys, attention, halfspace; raise SystemExit('numba.cuda' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_simulator_is_told_from_a_device():
    assert bool(int(os.environ.get("NUMBA_ENABLE_CUDASIM", "0"))) == SIMULATED
