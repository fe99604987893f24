"""The command that is to be run on a device: its checks find what is wrong."""

import os
import threading

import numpy as np
import pytest

import halfspace
from asv_benchmarks import gpu, gpu_decode, gpu_timing, sizes
from attention import Decoder, Error
from attention.cuda import CudaDecoder
from halfspace.cuda import CudaIndex


def some_heads(n):
    rng = np.random.default_rng(0)
    keys, values = rng.standard_normal((2, 70, 3))
    yield "few", Decoder(keys, values, structure="cascade"), 3.0 * keys[:2]


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setenv(sizes.VARIABLE, "0.0001")
    monkeypatch.setattr(gpu, "DIMENSION", 2)
    monkeypatch.setattr(gpu_decode, "HEAD_DIM", 4)
    monkeypatch.setattr(gpu_decode, "HEADS", 1)
    monkeypatch.setattr(gpu_decode, "RULES", (Error(1e-2),))
    monkeypatch.setattr(gpu_decode, "POWERS", (2,))
    monkeypatch.setattr(gpu_decode, "heads", some_heads)


def some_problems(n):
    points = np.random.default_rng(0).integers(-2, 3, (n, 3)).astype(np.float32)
    weights = np.ones((n, 2))
    yield "few", halfspace.Scan(points, weights=weights), np.eye(3)[:2], np.array([1.0, 2.0])


def test_it_runs_and_answers_are_right(monkeypatch, capsys):
    monkeypatch.setattr(gpu, "problems", some_problems)
    few = ["--points", "64", "--coded", "64", "--tokens", "70"]
    assert gpu.main([*few, "--checked", "70", "--keys", "70"]) == 0
    out = capsys.readouterr().out
    assert "answers that differ from the processor's: 0, over 1 indexes of 70 points" in out
    assert "bounds that do not hold: 0, over 1 heads of 70 keys" in out
    for target in (gpu.BANDWIDTH, gpu.TORCH, gpu.CODES, gpu_decode.TORCH):
        assert target.name in out


def test_wrong_answers_are_found(monkeypatch, capsys):
    monkeypatch.setattr(gpu, "problems", some_problems)
    monkeypatch.setattr(CudaIndex, "count", lambda self, normals, offsets: np.zeros(2, int))
    assert gpu.main(["--checked", "70"]) == 1
    assert "WRONG  few: count" in capsys.readouterr().out
    with pytest.raises(gpu_timing.WrongAnswer, match="1 ids of 1 are wrong"):
        gpu.verify(np.zeros((3, 2), np.float32), gpu.Asked(np.ones(2), 1.0), np.array([1]))


def test_bounds_that_do_not_hold_are_found(monkeypatch, capsys):
    attend = CudaDecoder.softmax

    def off(self, *asked, **options):
        got = attend(self, *asked, **options)
        return got._replace(output=got.output + 2.0 * got.bound[:, None])

    monkeypatch.setattr(CudaDecoder, "softmax", off)
    assert gpu_decode.check(70, gpu.Clock(0.0, 1e9)) == 1
    assert "WRONG  few: Error(eps=0.01)" in capsys.readouterr().out


def test_what_no_longer_fits_is_left_out(capsys):
    assert gpu.main(["--seconds", "-1", "--checked", "70"]) == 0
    out = capsys.readouterr().out
    assert "the rest is left out" in out
    assert "scan_figures is left out" in out


def test_it_ends_whatever_hangs(monkeypatch, capsys):
    ended = threading.Event()
    codes = []
    monkeypatch.setattr(os, "_exit", lambda code: (codes.append(code), ended.set()))
    monkeypatch.setattr(gpu, "PATIENCE", 0.1)
    monkeypatch.setattr(gpu, "measure", lambda given, clock, rows: 5 * ended.wait(60))
    assert gpu.main(["--seconds", "0"]) == 5
    assert codes == [3]
    out = capsys.readouterr().out
    assert "it is ended: more than 0 s" in out
    assert "Ratios" in out
