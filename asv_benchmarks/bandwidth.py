"""The floor under any scan: how fast this machine reads memory."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from .clock import medians

ROUNDS = 5


def read_rates(nbytes: int, threads: int) -> dict[str, float]:
    """Bytes a second that simple numpy loops move over arrays of `nbytes`; the best is the floor."""
    source = np.ones(max(threads, nbytes // 4), np.float32)
    target = np.zeros_like(source)
    edges = np.linspace(0, len(source), threads + 1).astype(int)
    slices = [slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    with ThreadPoolExecutor(threads) as pool:
        loops = {
            "sum": lambda part: source[part].sum(),
            "max": lambda part: source[part].max(),
            "copy": lambda part: np.copyto(target[part], source[part]),
        }
        taken = medians(
            {name: lambda loop=loop: list(pool.map(loop, slices)) for name, loop in loops.items()},
            ROUNDS,
        )
    moved = {"sum": source.nbytes, "max": source.nbytes, "copy": 2 * source.nbytes}
    return {name: moved[name] / taken[name] for name in taken}
