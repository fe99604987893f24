"""Products of a query that was given up must not end up in the next one's."""

import threading

import numpy as np
import pytest

import attention
from halfspace import parallel

from .datasets import cloud


def test_a_query_that_was_interrupted_does_not_write_into_the_next(monkeypatch):
    before = parallel.get_threads()
    parallel.set_threads(2)
    try:
        # So that a single small query is handed out.
        monkeypatch.setattr(parallel, "PARALLEL_NANOSECONDS", 0)
        keys, values = cloud(4096, 16), cloud(4096, 3, seed=1)
        keys[5], values[5] = 0.0, 9.0
        keys[5, :2] = 6.0, -3.0
        decoder = attention.Decoder(keys, values, structure="cascade")
        second, first = np.zeros((2, 16))
        second[0], first[1] = 20.0, 20.0
        rule = attention.Error(1e-2)
        want = decoder.softmax(second[None], rule)
        exact, _ = attention.dense.softmax(second[None], keys, values)

        head = decoder._head
        ready = head._kernels()
        entered, go_on, written = (threading.Event() for _ in range(3))
        lent = []

        def slow(weights, q, count, a, b, filled):
            lent.append(filled)
            if len(lent) == 1:
                entered.set()
                go_on.wait(10.0)  # the system gives the processor to others
                ready.products(weights, q, count, a, b, filled)
                written.set()
                return
            ready.products(weights, q, count, a, b, filled)

        def interrupted(future):
            entered.wait(10.0)
            raise KeyboardInterrupt

        head._ready = ready._replace(products=slow)
        with monkeypatch.context() as patch:
            patch.setattr(parallel, "_awaited", interrupted)
            with pytest.raises(KeyboardInterrupt):
                decoder.softmax(first[None], rule)

        # The next query: its products are filled, then the straggler writes.
        def late(*arguments):
            go_on.set()
            written.wait(10.0)
            return ready.softmax(*arguments)

        head._ready = ready._replace(softmax=late)
        got = decoder.softmax(second[None], rule)
        error = np.abs(got.output - exact).max()
        assert error <= got.bound[0]
        assert np.array_equal(got.output, want.output)
    finally:
        go_on.set()
        parallel.set_threads(before)
