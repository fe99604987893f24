"""Processes that change a logged index, killed at random instants.

    python -m tests.crash KILLS SEED

A child opens the directory and makes changes, each of which it acknowledges by a line in a pipe;
SIGKILL ends it, wherever it is. What is opened after that holds the acknowledged changes, and at
most the next. Children are forks, so that they start at once.
"""

import os
import select
import shutil
import signal
import sys
import tempfile
import time

import numpy as np

import halfspace
from halfspace import journal

from .journal_model import answers_as, changed, content, initial, make

MOST_SECONDS = 0.2
"""A child lives no longer, once it is open."""

WHILE_OPENING = 0.25
"""Share of kills whose time counts from the start: many come before the directory is open."""

FRESH = 0.04
"""Share of kills after which a new directory is begun."""

LOG_BYTES = 4000
"""Log from which on a checkpoint is made: many are, in so short a life."""


OPEN, DONE = b"o", b"."
"""What a child says."""


def open_index(path, policy):
    points, _ = initial()
    return halfspace.Dynamic.open(
        path, points, weights=np.empty(0), structure="kd_tree", buffer=16, fsync=policy
    )


def child(path, policy, start, model, pipe):
    """Make changes from number `start` on, for ever."""
    index = open_index(path, policy)
    os.write(pipe, OPEN)
    while True:
        make(index, start, model)
        os.write(pipe, DONE)
        model = changed(start, model)
        start += 1


def killed_child(path, policy, start, model, seconds, wait):
    """How many changes a child acknowledged before it was killed; `wait` until it is open."""
    here, there = os.pipe()
    process = os.fork()
    if not process:
        try:
            child(path, policy, start, model, there)
        except BaseException as error:
            print(f"child: {error!r}", file=sys.stderr, flush=True)
        os._exit(1)
    os.close(there)
    if wait:
        select.select([here], [], [])
    time.sleep(seconds)
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    assert os.WIFSIGNALED(status), "the child ended by itself"
    with os.fdopen(here, "rb") as file:
        return file.read().count(DONE)


def main(kills, seed):
    rng, directory = np.random.default_rng(seed), tempfile.mkdtemp()
    halfspace.set_threads(1)
    journal.CHECKPOINT_BYTES = LOG_BYTES
    done, unacknowledged, number, model, path = 0, 0, 0, {}, f"{directory}/0"
    try:
        for kill in range(kills):
            if rng.random() < FRESH:
                number, model, path = 0, {}, f"{directory}/{kill}"
            policy = str(rng.choice(["always", "batch", "never"]))
            when = MOST_SECONDS * rng.random() ** 2, bool(rng.random() > WHILE_OPENING)
            for _ in range(killed_child(path, policy, number, model, *when)):
                model = changed(number, model)
                number += 1
                done += 1
            with open_index(path, policy) as index:
                found, then = content(index), changed(number, model)
                # A change may be one of nothing; then it is there and not there.
                assert found in (model, then), f"kill {kill}: {number} changes were acknowledged"
                if found != model:
                    number, model = number + 1, then
                    unacknowledged += 1
                assert answers_as(index, model), f"kill {kill}"
                assert not [name for name in os.listdir(path) if name.endswith(".tmp")]
    finally:
        shutil.rmtree(directory)
    print(f"{kills} kills, {done} acknowledged changes, {unacknowledged} that were not but whole")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
