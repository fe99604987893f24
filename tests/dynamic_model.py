"""A dynamic index as a dict from ids to points and weights, and a machine that holds both together.

Sizes are small, so that a few dozen steps build, merge and rebuild segments.
"""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from halfspace import Dynamic, load

from . import oracle
from .strategies import DTYPES, arrays, offsets

MOST = 40  # points of a batch
BUFFER = 16


class Model:
    """The slow truth: a dict."""

    def __init__(self, d):
        self.d, self.rows = d, {}

    def put(self, ids, points, weights):
        for name, point, weight in zip(ids.tolist(), points, weights, strict=True):
            self.rows[name] = point.astype(np.float64), weight

    def copy(self):
        other = Model(self.d)
        other.rows = dict(self.rows)
        return other

    @property
    def ids(self):
        return np.array(sorted(self.rows), np.int64)

    @property
    def points(self):
        return np.array([self.rows[i][0] for i in sorted(self.rows)]).reshape(-1, self.d)

    @property
    def weights(self):
        return np.array([self.rows[i][1] for i in sorted(self.rows)]).reshape(-1, 2)

    def check(self, index, normals, levels, k, closed=True):
        """All answers of `index`, against the model's."""
        points, ids = self.points, self.ids
        want, sums = [], []
        for w, b in zip(normals, levels, strict=True):
            inside = oracle.inside(points, w, b, closed)
            want.append(ids[inside].tolist())
            sums.append(self.weights[inside].sum(axis=0).tolist())
        got = index.report(normals, levels, closed=closed)
        assert [found.tolist() for found in got] == want
        assert index.count(normals, levels, closed=closed).tolist() == list(map(len, want))
        assert index.any(normals, levels, closed=closed).tolist() == list(map(bool, want))
        assert index.sum(normals, levels, closed=closed).tolist() == sums
        assert index.top(normals, k).ids.tolist() == [
            oracle.top(points, w, k, ids) for w in normals
        ]
        if len(normals):
            w, b = normals[0], levels[0]
            assert index.report(w, b, closed=closed).tolist() == want[0]
            assert index.report_polytope([w], [b], closed=closed).tolist() == want[0]


class DynamicMachine(RuleBasedStateMachine):
    """Changes and questions in any order, of one structure."""

    structure, dims, background = "auto", (2, 3, 8), False

    @initialize(data=st.data(), own=st.booleans())
    def start(self, data, own):
        d, dtype = data.draw(st.sampled_from(self.dims)), data.draw(st.sampled_from(DTYPES))
        self.model, self.gone, self.snapshots = Model(d), [], []
        points = data.draw(arrays((data.draw(st.integers(0, MOST)), d), dtype))
        weights = self.weights_for(data, len(points))
        ids = np.arange(len(points))
        if own:
            ids = ids[::-1] * 3 - 50
        self.index = Dynamic(
            points,
            structure=self.structure,
            ids=ids if own else None,
            weights=weights,
            buffer=BUFFER,
            background=self.background,
        )
        self.model.put(ids, points, weights)
        self.next_id = max(0, *ids.tolist(), -1) + (len(points) > 0 or 0) if len(points) else 0
        self.next_id = max([0, *(ids + 1).tolist()])

    def teardown(self):
        if hasattr(self, "index"):
            self.index.close()

    def weights_for(self, data, n):
        seed = data.draw(st.integers(0, 2**32 - 1))
        return np.random.default_rng(seed).integers(-(2**30), 2**30, (n, 2)).astype(float)

    def batch(self, data, n):
        points = data.draw(arrays((n, self.model.d), data.draw(st.sampled_from(DTYPES))))
        return points, self.weights_for(data, n)

    def some(self, data, most=MOST):
        """Ids that are there, distinct and in no order."""
        ids = self.model.ids
        k = data.draw(st.integers(0, min(most, len(ids))))
        rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
        return rng.permutation(ids)[:k]

    @rule(data=st.data(), n=st.integers(0, MOST))
    def insert(self, data, n):
        points, weights = self.batch(data, n)
        ids = self.index.insert(points, weights=weights)
        assert ids.tolist() == list(range(self.next_id, self.next_id + n))
        self.next_id += n
        self.model.put(ids, points, weights)

    @rule(data=st.data(), n=st.integers(0, MOST), start=st.integers(-1000, 1000))
    def insert_as(self, data, n, start):
        ids = np.setdiff1d(start + 7 * np.arange(n), self.model.ids)[::-1]
        points, weights = self.batch(data, len(ids))
        assert self.index.insert(points, ids, weights).tolist() == ids.tolist()
        self.next_id = max([self.next_id, *(ids + 1).tolist()])
        self.model.put(ids, points, weights)

    @rule(data=st.data())
    def delete(self, data):
        ids = self.some(data)
        self.index.delete(ids)
        for name in ids.tolist():
            del self.model.rows[name]
        self.gone.extend(ids.tolist())

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def insert_again(self, data):
        ids = np.setdiff1d(self.gone[-MOST:], self.model.ids)
        points, weights = self.batch(data, len(ids))
        self.index.insert(points, ids, weights)
        self.model.put(ids, points, weights)

    @rule(data=st.data(), keep=st.booleans())
    def update(self, data, keep):
        ids = self.some(data)
        points, weights = self.batch(data, len(ids))
        if keep:
            weights = np.array([self.model.rows[i][1] for i in ids.tolist()]).reshape(-1, 2)
        self.index.update(ids, points, None if keep else weights)
        self.model.put(ids, points, weights)

    @rule()
    def compact(self):
        self.index.compact()

    @rule()
    def snapshot(self):
        self.snapshots = [*self.snapshots, (self.index.snapshot(), self.model.copy())][-3:]

    @rule(mapped=st.booleans())
    def save_and_load(self, mapped):
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "index"
            self.index.save(path)
            self.index.close()
            self.index = load(path, mmap=mapped)

    def ask(self, data, index, model):
        m = data.draw(st.integers(1, 3))
        normals = data.draw(arrays((m, model.d), np.float64))
        points = model.points
        levels = np.array([data.draw(offsets(points, w)) for w in normals])
        model.check(index, normals, levels, data.draw(st.integers(0, 9)), data.draw(st.booleans()))

    @rule(data=st.data())
    def query(self, data):
        self.ask(data, self.index, self.model)

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data())
    def query_what_was(self, data):
        self.ask(data, *data.draw(st.sampled_from(self.snapshots)))

    @invariant()
    def as_many(self):
        if hasattr(self, "index"):
            assert len(self.index) == len(self.model.rows)
            assert self.index.count(np.zeros(self.model.d), 0.0) == len(self.model.rows)
