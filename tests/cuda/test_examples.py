"""Examples of what runs on a device run: here they are not skipped."""

import doctest

import pytest

from attention.cuda import CudaCache, CudaDecoder
from halfspace.cuda import CudaIndex

from ..public_names import not_shown

KINDS = CudaIndex, CudaDecoder, CudaCache


@pytest.mark.parametrize("kind", KINDS)
def test_the_example_runs(kind):
    (found,) = doctest.DocTestFinder(recurse=False).find(kind)
    for example in found.examples:
        example.options.pop(doctest.SKIP, None)
    said = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    runner.run(found, out=said.append)
    assert found.examples
    assert runner.failures == 0, "".join(said)


@pytest.mark.parametrize("kind", KINDS)
def test_the_example_shows_all_there_is(kind):
    assert not_shown(kind) == []
