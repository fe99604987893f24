"""Tests of what runs on a CUDA device: on one where there is one, else in numba's simulator.

The simulator is chosen before numba is imported, so `tests/test_cuda.py` runs these tests in a
process of their own; where ``NUMBA_ENABLE_CUDASIM=1`` is set anyway, they run in this one.
"""

from halfspace.cuda.target import cuda

if cuda is None or not cuda.is_available():
    collect_ignore_glob = ["test_*.py"]
