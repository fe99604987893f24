"""What goes wrong on a device ends in one clear exception."""

import numpy as np
import pytest

import halfspace
from halfspace import cuda as on_device
from halfspace.cuda import runtime
from halfspace.cuda.target import cuda

POINTS = np.random.default_rng(0).standard_normal((70, 3))


@pytest.fixture(scope="module")
def index():
    return halfspace.Scan(POINTS).to("cuda")


def test_no_room_on_the_device(index, monkeypatch):
    class Refused(Exception):
        code = 2

    def allocate(shape, dtype):
        raise Refused("Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY")

    monkeypatch.setattr(runtime, "_allocate", allocate)
    expected = r"cuda: expected room for \d+ bytes on the device, it has .* left"
    with pytest.raises(on_device.OutOfDeviceMemory, match=expected):
        halfspace.Scan(POINTS).to("cuda")
    with pytest.raises(MemoryError, match=expected):
        index.report(np.ones((2, 3)), [-9.0, -9.0])
    monkeypatch.undo()
    assert index.count(np.ones(3), -99.0) == len(POINTS)


def test_other_errors_are_left_as_they_are(monkeypatch):
    def allocate(shape, dtype):
        raise RuntimeError("context is destroyed")

    monkeypatch.setattr(runtime, "_allocate", allocate)
    with pytest.raises(RuntimeError, match="context is destroyed"):
        halfspace.Scan(POINTS).to("cuda")


def test_no_such_device(index):
    with pytest.raises(on_device.CudaUnavailable, match=r"expected device 99, found \d+ in all"):
        halfspace.Scan(POINTS).to("cuda:99")
    with pytest.raises(on_device.CudaUnavailable, match="expected device 99"):
        index.to("cuda:99")


def test_no_device(index, monkeypatch):
    monkeypatch.setattr(cuda, "is_available", lambda: False)
    with pytest.raises(on_device.CudaUnavailable, match="expected a CUDA device and its driver"):
        index.report(np.ones(3), 0.0)


def test_no_target(index, monkeypatch):
    monkeypatch.setattr(runtime, "cuda", None)
    with pytest.raises(on_device.CudaUnavailable, match=r"pip install .*\[cuda\]"):
        index.to("cpu").to("cuda")


@pytest.mark.parametrize("ask", ["report", "count", "any", "work"])
def test_bad_queries(index, ask):
    ask = getattr(index, ask)
    with pytest.raises(TypeError, match=r"normals: expected floats .* got complex128"):
        ask(np.ones(3, complex), 0.0)
    with pytest.raises(ValueError, match=r"normals: expected shape .* got shape \(4,\)"):
        ask(np.ones(4), 0.0)
    with pytest.raises(ValueError, match="offsets: expected numbers, got nan in row 1"):
        ask(np.ones((2, 3)), [0.0, np.nan])


def test_bad_arguments(index):
    with pytest.raises(ValueError, match="expected an index built with weights="):
        index.sum(np.ones(3), 0.0)
    with pytest.raises(ValueError, match="k: expected at least 0, got -1"):
        index.top(np.ones(3), -1)
    with pytest.raises(TypeError, match="closed: expected booleans"):
        index.report_polytope(np.ones((2, 3)), 0.0, closed=1.0)
    with pytest.raises(ValueError, match="max_results"):
        index.report(np.ones(3), 0.0, max_results=-1)
