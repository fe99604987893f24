"""Certified decoding on a GPU: `Decoder.to("cuda")` and `KVCache.to("cuda")`.

The layers, from below: `arithmetic.py` makes functions of the device from the processor's parts,
and says what is allowed for rounding; `products.py` multiplies all codes with queries and marks
what reaches a bar, `averages.py` scores and averages what is listed, `ranks.py` selects the best
of it; `held.py` has what lies on the device, `lister.py` the launches for a group of queries,
`bars.py` which products to read, `reader.py` what rules make of it; `heads.py` cuts queries into
groups, and `decoder.py` and `cache.py`, on `on_device.py`, have the checks and the shapes of
answers.

Importing this needs no device.
"""

from .cache import CudaCache
from .decoder import CudaDecoder
from .on_device import OnDevice

__all__ = ["CudaCache", "CudaDecoder", "OnDevice"]
