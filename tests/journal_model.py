"""Changes to a `Dynamic` that follow from a number, and the dict they should leave; directories."""

import shutil
from pathlib import Path

import numpy as np

import halfspace
from halfspace import journal, log

DIM = 2


def initial():
    """Points before any change, none, and the model of them: id -> (x, y, weight)."""
    return np.empty((0, DIM)), {}


def change(number, model):
    """Change `number`, as (name, arguments), of what the model holds; it is the same every time."""
    rng = np.random.default_rng(number)
    there = np.array(sorted(model), np.int64)
    kind = rng.choice(["insert", "insert", "delete", "update", "move"])
    count = int(rng.choice([0, 1, 1, 3, 40]))
    points, weights = rng.standard_normal((count, DIM)), rng.standard_normal(count)
    if kind == "delete" and len(there):
        return "delete", (rng.choice(there, min(count, len(there)), replace=False),)
    if kind == "update" and len(there):
        ids = rng.choice(there, min(count, len(there)), replace=False)
        return "update", (ids, points[: len(ids)], weights[: len(ids)])
    if kind == "move" and len(there):
        ids = rng.choice(there, min(count, len(there)), replace=False)
        return "update", (ids, points[: len(ids)], None)
    ids = 1000 * number + rng.permutation(count)
    return "insert", (points, ids, weights)


def changed(number, model):
    """The model after change `number`."""
    name, arguments = change(number, model)
    model = dict(model)
    if name == "delete":
        for i in arguments[0].tolist():
            del model[i]
        return model
    if name == "update":
        ids, points, weights = arguments
    else:
        points, ids, weights = arguments
    for row, i in enumerate(ids.tolist()):
        weight = model[i][DIM] if weights is None else weights[row]
        model[i] = (*points[row].tolist(), float(weight))
    return model


def model_after(count):
    """The model after so many changes."""
    _, model = initial()
    for number in range(count):
        model = changed(number, model)
    return model


def make(index, number, model):
    """Make change `number` of what the model holds."""
    name, arguments = change(number, model)
    getattr(index, name)(*arguments)


def content(index):
    """What an index holds, as a model."""
    points, ids, weights = index.snapshot().rows()
    rows = np.hstack([points, weights]).tolist()
    return {i: tuple(row) for i, row in zip(ids.tolist(), rows, strict=True)}


def answers_as(index, model):
    """Whether some queries are answered as the model says."""
    rng = np.random.default_rng(len(model))
    ids = np.array(sorted(model), np.int64)
    points = np.array([model[i][:DIM] for i in ids.tolist()]).reshape(-1, DIM)
    for normal in np.vstack([np.eye(DIM), rng.standard_normal((2, DIM))]):
        scores = points @ normal
        offset = float(np.median(scores)) + 1e-9 if len(scores) else 0.0
        if index.report(normal, offset).tolist() != ids[scores >= offset].tolist():
            return False
    return True


CHANGES = 9


def opened(path, **options):
    points, _ = initial()
    given_ = {"weights": np.empty(0), "structure": "scan", "buffer": 16} | options
    return halfspace.Dynamic.open(path, points, **given_)


def fill(path, count=CHANGES, **options):
    """A directory with so many changes in its log."""
    model = {}
    with opened(path, **options) as index:
        for number in range(count):
            make(index, number, model)
            model = changed(number, model)
        assert content(index) == model
    return model


def copy_of(directory, tmp_path, name="copy"):
    shutil.rmtree(tmp_path / name, ignore_errors=True)
    return Path(shutil.copytree(directory, tmp_path / name))


def record_ends(path):
    """Where the log is empty, and where each of its records ends."""
    contents, ends = log.read(path / journal.CHANGES), [log.EMPTY]
    for payload in contents.payloads:
        ends.append(ends[-1] + 32 + len(payload))
    assert ends[-1] == contents.end
    return ends
