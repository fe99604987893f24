"""A KVCache, and a growing Decoder, that were interrupted while they changed."""

import sys
from collections.abc import Callable

import numpy as np
import pytest

from attention import Decoder, KVCache, Mass, dense
from halfspace import parallel

from .sizes import JIT

STEP = 1 if JIT else 13
"""Lines from one interrupt to the next."""

NAMES = "growing_heads.py", "coded_head.py", "growth.py"


def interrupted(change: Callable[[], None], at: int) -> bool:
    """Whether a change came to its end that is interrupted after so many lines of our files."""
    lines = 0

    def trace(frame, event, argument):
        nonlocal lines
        if not frame.f_code.co_filename.endswith(NAMES):
            return None
        if event == "line":
            lines += 1
            if lines > at:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        change()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.parametrize("change", ["append", "crop", "reorder"])
def test_an_interrupt_at_any_line_leaves_what_answers_are_certified_for(change, monkeypatch):
    """Codes and what they mean are written in place, and kernels see rooms that were widened."""
    monkeypatch.setattr(parallel, "_threads", 1)  # in this thread, so that it is traced
    rng = np.random.default_rng(0)
    key, value = rng.standard_normal((2, 2, 1, 2900, 4), dtype=np.float32)
    query, at = key[:, :, :1] * 3.0, 0
    first = 700 if change == "append" else 2900
    while True:
        cache = KVCache(4, batch_shape=2, window=64)
        cache.append(key[:, :, :first], value[:, :, :first])
        cache.attend(query)
        changes = {
            "append": lambda cache=cache: cache.append(key[:, :, 700:], value[:, :, 700:]),
            "crop": lambda cache=cache: cache.crop(100),
            "reorder": lambda cache=cache: cache.reorder([1, 0]),
        }
        cut_short = interrupted(changes[change], at)
        got = cache.attend(query, Mass(0.9))
        for b in range(2):
            want, _ = dense.softmax(query[b, 0], cache.keys[b, 0], cache.values[b, 0], scale=0.5)
            assert (abs(got.output[b, 0] - want).max(axis=1) <= got.bound[b, 0] + 1e-12).all()
        if not cut_short:
            return
        at += STEP


@pytest.mark.parametrize("change", ["extend", "refit", "crop"])
def test_a_decoder_that_was_interrupted_is_certified_for_the_keys_it_has(change, monkeypatch):
    """Keys that come are of another size, so that codes as of before would mislead."""
    monkeypatch.setattr(parallel, "_threads", 1)
    rng, at = np.random.default_rng(0), 0
    key, value = rng.standard_normal((2, 6000, 8), dtype=np.float32)
    key[2500:] *= 3.0
    query, first = key[:3] * 2.0, {"extend": 2500, "refit": 2100, "crop": 6000}[change]
    end = {"extend": 2900, "refit": 6000, "crop": 100}[change]
    while True:
        decoder = Decoder(key[:first], value[:first], structure="cascade", growing=True)
        decoder.softmax(query, Mass(0.9))

        def alter(decoder=decoder):
            if change == "crop":
                decoder.crop(end)
            else:
                decoder.extend(key[first:end], value[first:end])

        cut_short = interrupted(alter, at)
        got = decoder.softmax(query, Mass(0.9))
        want, _ = dense.softmax(query, key[: len(decoder)], value[: len(decoder)], scale=8**-0.5)
        assert (abs(got.output - want).max(axis=1) <= got.bound + 1e-12).all()
        if not cut_short:
            return
        at += STEP
