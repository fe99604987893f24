"""Hypothesis profiles; choose another with `pytest --hypothesis-profile=thorough`."""

from hypothesis import settings

from .sizes import JIT

settings.register_profile("default", deadline=None, derandomize=False, max_examples=80)
settings.register_profile("nojit", settings.get_profile("default"), max_examples=10)
settings.register_profile("thorough", settings.get_profile("default"), max_examples=1000)
settings.load_profile("default" if JIT else "nojit")
