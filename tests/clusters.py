"""Dask clusters for tests: workers in this process, or processes that can be killed."""

import contextlib
import os
import signal
import time

import dask
from distributed import Client, LocalCluster

SECONDS = 60
"""Nothing of a test takes longer."""


@contextlib.contextmanager
def cluster(workers, processes=False):
    """A client of so many workers, one thread each."""
    options = {"processes": processes, "threads_per_worker": 1, "dashboard_address": ":0"}
    quiet = {"logging": {"distributed": "critical"}, "distributed.comm.timeouts.connect": "10s"}
    with (
        dask.config.set(quiet),
        LocalCluster(n_workers=workers, silence_logs=50, **options) as local,
        Client(local, timeout=SECONDS) as client,
    ):
        yield client


def kill(pid):
    """End a worker as a machine does that loses its power."""
    os.kill(pid, signal.SIGKILL)


def until(holds):
    """Wait for something to hold."""
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)
