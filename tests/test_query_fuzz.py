"""Anything at all for an argument of a question: an answer, or TypeError or ValueError.

``HALFSPACE_TEST_SCALE=100 pytest --hypothesis-profile=thorough`` runs it for long.
"""

import functools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

import halfspace

from .datasets import cloud
from .sizes import SCALE, SMALL, examples
from .test_storage_corruption import dynamic

DTYPES = (
    *("f2", "f4", "f8", ">f8", "i1", "i8", "u8", "b1", "c16", "O", "U3", "S2", "M8[s]", "m8[D]"),
)
SHAPES = st.sampled_from([(), (0,), (1,), (3,), (4,), (0, 3), (1, 3), (2, 3), (3, 1), (2, 2, 3)])

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | st.text(max_size=3)
    | st.sampled_from([2**53, 2**63, -(2**63), 2**70, 10**400, math.inf, -math.inf, math.nan, b"x"])
    | st.builds(object)
)
arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: (
        st.builds(lambda shape: np.full(shape, None, object), SHAPES)
        if dtype == "O"
        else st_numpy.arrays(np.dtype(dtype), SHAPES, fill=st.nothing())
    )
)
sensible = st.sampled_from([np.ones(3), np.eye(3), [1, 2, 3], [[1.0, 0.0, 0.0]], (0.0, -1.0, 0.5)])
anything = (
    sensible
    | scalars
    | arrays
    | st.recursive(scalars, lambda some: st.lists(some, max_size=4), max_leaves=8)
    | st.dictionaries(st.text(max_size=2), scalars, max_size=2)
    | st.builds(np.ma.array, arrays)
)

ASK = {
    "report": ("normals", "offsets"),
    "count": ("normals", "offsets"),
    "any": ("normals", "offsets"),
    "sum": ("normals", "offsets"),
    "work": ("normals", "offsets"),
    "iter_report": ("normals", "offsets"),
    "report_polytope": ("normals", "offsets"),
    "count_polytope": ("normals", "offsets"),
    "top": ("normals", "k"),
}
CHANGE = {"insert": ("points", "ids", "weights"), "delete": ("ids",), "update": ("ids", "points")}


@functools.cache
def indices(directory):
    """Some in memory, some from a file."""
    points, weights = cloud(SMALL, 3), np.ones(SMALL)
    made = [halfspace.Scan(points, weights=weights), halfspace.KDTree(points)]
    made.append(dynamic(cloud(130, 3), np.arange(130), np.ones(130)))
    for i, index in enumerate(made[:]):
        index.save(directory / f"fuzzed {i}")
        made.append(halfspace.load(directory / f"fuzzed {i}"))
    return made


def refused(call):
    """Whether a call was refused, in the way it should be."""
    try:
        found = call()
        if hasattr(found, "__next__"):
            list(found)
    except (TypeError, ValueError):
        return True
    return False


@examples(2 * SCALE)
@given(data=st.data(), name=st.sampled_from(sorted(ASK)), which=st.integers(0, 5))
def test_questions(tmp_path_factory, data, name, which):
    index = indices(tmp_path_factory.getbasetemp())[which]
    arguments = [data.draw(anything, label=label) for label in ASK[name]]
    options = {}
    if name == "iter_report":
        options["max_bytes"] = data.draw(anything)
    elif name == "report":
        options["max_results"] = data.draw(anything)
    refused(lambda: getattr(index, name)(*arguments, **options))
    assert index.count([1.0, 0.0, 0.0], -math.inf) == len(index)


@examples(SCALE)
@given(data=st.data(), name=st.sampled_from(sorted(CHANGE)))
def test_changes(data, name):
    """A change that is refused changes nothing."""
    index = dynamic(cloud(130, 3), np.arange(130), np.ones(130))
    before = index.snapshot()
    arguments = [data.draw(anything, label=label) for label in CHANGE[name]]
    if refused(lambda: getattr(index, name)(*arguments)):
        assert index.snapshot() is before


@examples(SCALE)
@given(path=anything, options=st.dictionaries(st.sampled_from(["mmap", "verify"]), scalars))
def test_paths(tmp_path_factory, path, options):
    """No path of junk is loaded; what is no path is no file either."""
    with pytest.raises((TypeError, ValueError, OSError)):
        halfspace.load(path, **options)
