"""Causal prefill beside torch: ``python -m asv_benchmarks.prefill``.

Sharp heads with and without local structure, and a flat one, float32, head_dim 64, `Error(1e-2)`.
Building is part of the time, as it is of every call. Errors are measured on some rows, against
float64. Prints the way each head took: few keys by codes, or all of them by matrix products.
"""

import argparse
from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple

import numpy as np

import attention

from . import sizes
from .clock import held_to, medians
from .tables import show

LENGTHS = (16_384, 32_768)

HEAD_DIM = 64

MEMORY = 64
"""Keys over which those of a local head stay alike."""

EPS = 1e-2

ROUNDS = 5

CHECKED = 64
"""Rows whose errors are measured."""


class Qkv(NamedTuple):
    """Queries, keys and values of a head, each (1, n, 64) float32."""

    query: np.ndarray
    key: np.ndarray
    value: np.ndarray


class Case(NamedTuple):
    """A kind of head, and how many times as long torch is to take at least."""

    name: str
    make: Callable[[int, np.random.Generator], Qkv]
    wanted: float | None


class Outcome(NamedTuple):
    """How a case ended."""

    times: dict[str, float]
    read: float  # share of the visible keys
    bound: float  # largest
    error: float  # largest of the rows that were checked


def _single(*arrays: np.ndarray) -> Qkv:
    return Qkv(*(np.ascontiguousarray(array[None], np.float32) for array in arrays))


def _independent(std: float) -> Callable[[int, np.random.Generator], Qkv]:
    def make(n: int, rng: np.random.Generator) -> Qkv:
        query, key, value = rng.standard_normal((3, n, HEAD_DIM))
        return _single(std * query, key, value)

    return make


def _local(std: float) -> Callable[[int, np.random.Generator], Qkv]:
    """Keys change slowly, and queries are like the keys beside them."""

    def make(n: int, rng: np.random.Generator) -> Qkv:
        noise, value, blur = rng.standard_normal((3, n, HEAD_DIM))
        kept, key = np.exp(-1.0 / MEMORY), noise.copy()
        for i in range(1, n):
            key[i] = kept * key[i - 1] + np.sqrt(1.0 - kept * kept) * noise[i]
        query = key + 0.7 * blur
        return _single(std * query / np.sqrt(np.mean(query**2)), key, value)

    return make


CASES = (
    Case("sharp, local (std 6)", _local(6.0), 1.5),
    Case("sharp, independent (std 6)", _independent(6.0), None),
    Case("flat (std 1)", _independent(1.0), 1.0 / 1.3),
)


def ours(head: Qkv) -> attention.Attended:
    """Certified causal attention."""
    return attention.softmax_attention(*head, rule=attention.Error(EPS), causal="upper_left")


def _rivals(head: Qkv, threads: int) -> dict[str, Callable[[], object]]:
    """Torch's, in both of its dtypes, where it is installed."""
    try:
        torch = import_module("torch")
    except ImportError:
        return {}
    torch.set_num_threads(threads)
    dense = torch.nn.functional.scaled_dot_product_attention

    def rival(dtype: object) -> Callable[[], object]:
        tensors = [torch.from_numpy(array)[None].to(dtype) for array in head]
        return lambda: dense(*tensors, is_causal=True)

    return {f"torch {name}": rival(getattr(torch, name)) for name in ("float32", "bfloat16")}


def _largest_error(head: Qkv, got: attention.Attended, rows: np.ndarray) -> float:
    """Of some rows, against float64; every one has to be within its bound."""
    query, key, value = (array[0].astype(np.float64) for array in head)
    worst = 0.0
    for i in rows:
        scores = key[: i + 1] @ query[i] / np.sqrt(HEAD_DIM)
        weights = np.exp(scores - scores.max())
        exact = weights @ value[: i + 1] / weights.sum()
        error = float(np.abs(got.output[0, i] - exact).max())
        if error > got.bound[0, i] + 1e-12:
            raise AssertionError(f"row {i}: error {error} beyond its bound {got.bound[0, i]}")
        worst = max(worst, error)
    return worst


def play(case: Case, n: int, threads: int) -> Outcome:
    """Time everybody on one head, in turns."""
    rng = np.random.default_rng(n)
    head = case.make(n, rng)
    tasks = {"attention": lambda: ours(head), **_rivals(head, threads)}
    got = ours(head)
    for task in tasks.values():
        task()
    read = got.reported.sum() / (n * (n + 1) / 2)
    error = _largest_error(head, got, rng.integers(0, n, min(CHECKED, n)))
    return Outcome(medians(tasks, sizes.rounds(ROUNDS)), read, float(got.bound.max()), error)


def show_prefill(threads: int, lengths: tuple[int, ...] = LENGTHS) -> None:
    """Play all cases, and print times, ratios, what was read, and whether it is as wanted."""
    rows = []
    with held_to(threads) as complaints:
        for complaint in complaints:
            print(complaint)
        for n in map(sizes.points, lengths):
            rows.extend(
                [f"{case.name}, n = {n:,}", *_cells(case, play(case, n, threads))] for case in CASES
            )
    header = ["", "s", "torch, best", "ratio", "wanted", "way", "read", "bound", "error"]
    show(f"Causal prefill, head_dim {HEAD_DIM}, Error({EPS:g})", header, rows)


def _cells(case: Case, outcome: Outcome) -> list[str]:
    own = outcome.times["attention"]
    best = min((t for name, t in outcome.times.items() if name != "attention"), default=np.nan)
    wanted = "" if case.wanted is None else f"{case.wanted:.2f}x"
    way = "whole" if outcome.read == 1.0 else "codes"
    return [
        *(f"{own:.3f}", f"{best:.3f}", f"{best / own:.2f}x", wanted, way),
        *(f"{outcome.read:.2%}", f"{outcome.bound:.1e}", f"{outcome.error:.1e}"),
    ]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS))
    options = parser.parse_args()
    show_prefill(options.threads, tuple(options.lengths))


if __name__ == "__main__":
    main()
