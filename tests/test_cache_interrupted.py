"""A KVCache that was interrupted while it changed."""

import sys

import numpy as np
import pytest

from attention import KVCache, Mass, dense
from halfspace import parallel


@pytest.mark.parametrize("change", ["append", "crop", "reorder"])
def test_an_interrupt_at_any_line_leaves_what_answers_are_certified_for(change, monkeypatch):
    """Codes and what they mean are written in place, and kernels see rooms that were widened."""
    monkeypatch.setattr(parallel, "_threads", 1)  # in this thread, so that it is traced
    rng = np.random.default_rng(0)
    key, value = rng.standard_normal((2, 2, 1, 2900, 4), dtype=np.float32)
    query, names, at = key[:, :, :1] * 3.0, ("growing_heads.py", "coded_head.py"), 0
    first = 700 if change == "append" else 2900
    while True:
        cache, lines = KVCache(4, batch_shape=2, window=64), 0
        cache.append(key[:, :, :first], value[:, :, :first])
        cache.attend(query)

        def trace(frame, event, argument, at=at):
            nonlocal lines
            if not frame.f_code.co_filename.endswith(names):
                return None
            if event == "line":
                lines += 1
                if lines > at:
                    raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            if change == "append":
                cache.append(key[:, :, 700:], value[:, :, 700:])
            elif change == "crop":
                cache.crop(100)
            else:
                cache.reorder([1, 0])
            ended = True
        except KeyboardInterrupt:
            ended = False
        finally:
            sys.settrace(before)
        got = cache.attend(query, Mass(0.9))
        for b in range(2):
            want, _ = dense.softmax(query[b, 0], cache.keys[b, 0], cache.values[b, 0], scale=0.5)
            assert (abs(got.output[b, 0] - want).max(axis=1) <= got.bound[b, 0] + 1e-12).all()
        if ended:
            return
        at += 1
