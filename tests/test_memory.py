"""What cannot be held is refused before it is allocated."""

import numpy as np
import pytest

import halfspace
from halfspace import memory

from .datasets import cloud
from .structures import each_structure


@each_structure
def test_answers_that_cannot_be_held(structure, monkeypatch):
    index = structure.build(cloud(100, 3))
    normals = np.zeros((7, 3))
    want = index.report(normals, 0.0).indices.tolist()
    monkeypatch.setattr(memory, "WORTH_A_LOOK", 0)
    monkeypatch.setattr(memory, "free_bytes", lambda: 5599)
    message = r"report: expected 5600 bytes of memory to be free, got 5599"
    with pytest.raises(MemoryError, match=message):
        index.report(normals, 0.0)
    with pytest.raises(MemoryError, match=r"top: expected [0-9]+ bytes"):
        index.top(np.ones((7, 3)), 100)
    pieces = index.iter_report(normals, 0.0, max_bytes=800)
    assert [i for piece in pieces for i in piece.indices.tolist()] == want
    monkeypatch.setattr(memory, "free_bytes", lambda: None)
    assert index.report(normals, 0.0).indices.tolist() == want


@each_structure
def test_points_that_cannot_be_held(structure, monkeypatch):
    points = cloud(100, 3)
    monkeypatch.setattr(memory, "WORTH_A_LOOK", 0)
    monkeypatch.setattr(memory, "free_bytes", lambda: 1199)
    with pytest.raises(MemoryError, match=r"build: expected 1200 bytes of memory to be free"):
        structure.build(points)


def test_free_memory_is_what_the_system_and_the_group_leave(monkeypatch, tmp_path):
    files = {name: tmp_path / name for name in ("_MEMINFO", "_GROUP_MOST", "_GROUP_NOW")}
    for name, file in files.items():
        monkeypatch.setattr(memory, name, file)
    assert memory.free_bytes() is None
    files["_MEMINFO"].write_text("MemTotal: 10 kB\nMemAvailable:       4 kB\n")
    assert memory.free_bytes() == 4096
    files["_GROUP_MOST"].write_text("max\n")
    assert memory.free_bytes() == 4096
    files["_GROUP_MOST"].write_text("3000\n")
    files["_GROUP_NOW"].write_text("1000\n")
    assert memory.free_bytes() == 2000
    files["_GROUP_NOW"].write_text("5000\n")
    assert memory.free_bytes() == 0


def test_small_answers_are_not_worth_a_look(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 0)
    assert halfspace.Scan(cloud(100, 3)).count(np.zeros(3), 0.0) == 100
