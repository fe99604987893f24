"""Half-space queries on a GPU, with the answers of the processor: `index.to("cuda")`.

The layers, from below: `target.py` imports numba's CUDA target, `runtime.py` asks it for memory and
launches, `streams.py` keeps what comes in and goes out in order, `scratch.py` keeps arrays for the
next call, `errors.py` has what may go wrong; `words.py` has sets of points as bits, and
what is counted, listed and added up from them; `queries.py` makes half-spaces ready; `scoring.py`
scores tiles and settles exactly what is left open, `nodes.py` tests nodes of trees, `codes.py` has
the integer filter of cascades, `best.py` compares the k best; `finders.py` says which of these a
structure goes through, `engine.py` and `top.py` what is done for a group of queries, and `index.py`
has the checks and the shapes of answers.

Importing this needs no device; a CUDA target is looked for here, and nowhere else in `halfspace`.
"""

from .errors import CudaUnavailable, OutOfDeviceMemory
from .index import CudaIndex

__all__ = ["CudaIndex", "CudaUnavailable", "OutOfDeviceMemory"]
