"""Hypothesis profiles (choose by `pytest --hypothesis-profile=thorough`), and shared fixtures."""

import pytest
from hypothesis import settings

import halfspace
from attention import coded_head, scaled_dot_product
from halfspace import parallel

from . import journal_model
from .sizes import JIT

settings.register_profile("default", deadline=None, derandomize=False, max_examples=40)
settings.register_profile("nojit", settings.get_profile("default"), max_examples=6)
settings.register_profile("thorough", settings.get_profile("default"), max_examples=1000)
settings.load_profile("default" if JIT else "nojit")


@pytest.fixture(params=[1, 8, 10**9], ids="shared from {}".format)
def shared_rows(request, monkeypatch):
    """Every way a masked row can take: by index wherever possible, as it comes, never."""
    monkeypatch.setattr(scaled_dot_product, "SHARED_ROWS", request.param)
    return request.param


@pytest.fixture
def threads(monkeypatch):
    """A setter of the number of threads, which are used however little there is to do."""
    monkeypatch.setattr(parallel, "PARALLEL_NANOSECONDS", 0)
    before = halfspace.get_threads()
    yield halfspace.set_threads
    halfspace.set_threads(before)


@pytest.fixture(scope="session", autouse=True)
def _codes_for_few_keys():
    """Let heads that are small enough for an oracle have codes, and codes of the first in use."""
    before = coded_head.LEAST_CODED, coded_head.UNCODED
    coded_head.LEAST_CODED, coded_head.UNCODED = 1, 64
    yield
    coded_head.LEAST_CODED, coded_head.UNCODED = before


@pytest.fixture(scope="session")
def filled(tmp_path_factory):
    """A directory with changes in its log, to copy."""
    path = tmp_path_factory.mktemp("journal") / "filled"
    journal_model.fill(path)
    return path
