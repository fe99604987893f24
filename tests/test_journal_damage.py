"""Logs that are torn, as a crash leaves them, and logs that were altered."""

import numpy as np
import pytest

import halfspace
from halfspace import journal, log

from .journal_model import CHANGES, content, copy_of, model_after, opened, record_ends
from .sizes import SCALE


def test_torn_tails(filled, tmp_path):
    """Wherever the log is cut, what is whole is there."""
    path = copy_of(filled, tmp_path)
    whole, ends = (path / journal.CHANGES).read_bytes(), record_ends(path)
    models = [model_after(count) for count in range(CHANGES + 1)]
    places = {*ends, *np.linspace(log.EMPTY, len(whole), 160 * SCALE).astype(int).tolist()}
    for cut in sorted(places):
        (path / journal.CHANGES).write_bytes(whole[:cut])
        with opened(path) as index:
            assert content(index) == models[np.searchsorted(ends, cut, "right") - 1]
    assert (path / journal.CHANGES).read_bytes() == whole


def test_altered_logs(filled, tmp_path):
    """A byte that is another is found; what is before it can be had."""
    path, rng = copy_of(filled, tmp_path), np.random.default_rng(0)
    whole, ends = (path / journal.CHANGES).read_bytes(), record_ends(path)
    models = [model_after(count) for count in range(CHANGES + 1)]
    for i, at in enumerate(np.linspace(0, len(whole) - 1, 160 * SCALE).astype(int).tolist()):
        altered = bytearray(whole)
        altered[at] ^= 1 << int(rng.integers(8)) if i % 2 else int(rng.integers(1, 256))
        cut = int(rng.integers(max(ends[1], at + 1), len(whole) + 1)) if i % 4 == 3 else len(whole)
        (path / journal.CHANGES).write_bytes(altered[:cut])
        kept = max(0, int(np.searchsorted(ends, at, "right")) - 1)
        says = "checksum|expected a log|version" if at < log.EMPTY else f"record {kept + 1} at byte"
        if at >= log.EMPTY and cut < ends[kept + 1] and cut >= ends[kept]:
            says = None  # torn, altered or not: it was not acknowledged
        if says:
            with pytest.raises(halfspace.InvalidFile, match=says):
                opened(path)
        if at < log.EMPTY:
            continue
        try:
            index = opened(path, recover=True)
        except halfspace.InvalidFile:
            pytest.fail("what is before the damage can be had")
        with index:
            assert content(index) == models[kept]


def test_damage_is_described_and_kept(filled, tmp_path):
    path, ends = copy_of(filled, tmp_path), record_ends(filled)
    altered = bytearray((path / journal.CHANGES).read_bytes())
    altered[ends[4] + 40] ^= 1
    (path / journal.CHANGES).write_bytes(altered)
    with pytest.raises(halfspace.InvalidFile) as refused:
        opened(path)
    assert str(refused.value) == (
        f"{path / journal.CHANGES}: expected record 5 at byte {ends[4]}, got other bytes, and "
        f"{CHANGES - 5} whole ones after them; recover=True keeps the 4 changes before it"
    )
    with opened(path, recover=True) as index:
        assert content(index) == model_after(4)
    assert (path / ".changes.log.damaged").read_bytes() == altered
    with opened(path) as index:
        assert content(index) == model_after(4)


def test_a_record_twice_is_no_record(filled, tmp_path):
    path, ends = copy_of(filled, tmp_path), record_ends(filled)
    whole = (path / journal.CHANGES).read_bytes()
    (path / journal.CHANGES).write_bytes(whole + whole[ends[-2] :])
    with pytest.raises(halfspace.InvalidFile, match=f"expected record {CHANGES + 1} at byte"):
        opened(path)
