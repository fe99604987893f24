"""Decoding beside torch and numpy: ``python -m asv_benchmarks.decode``.

One new query a call, fresh each time, of one head or of all heads of a cache. Building is not part
of the time; beside it stands after how many calls it has paid for itself. Errors of some calls are
measured against float64: one beyond its bound ends the program.
"""

import argparse
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import cycle
from typing import NamedTuple

import numpy as np

import attention
from attention.rules import Rule

from . import sizes
from .clock import held_to, medians, seconds
from .tables import show

ROUNDS = 15

CHECKED = 4
"""Calls whose errors are measured."""

FRESH = 64
"""Queries that take turns."""

SHARP, FLAT = 5.0, 1.0
"""Standard deviations of scores."""

EPS = 1e-2

SAMPLED = attention.Sampled(0.05, 1e-3, seed=0)


class Heads(NamedTuple):
    """Keys and values of some heads, and queries to come."""

    key: np.ndarray  # (kv_heads, n, d) float32
    value: np.ndarray  # (kv_heads, n, d) float32
    queries: np.ndarray  # (FRESH, heads, d) float32


class Case(NamedTuple):
    """Some heads, a rule, and how many times as long the best rival is to take at least."""

    name: str
    make: Callable[[np.random.Generator], Heads]
    rule: Rule
    wanted: float
    rivals: tuple[str, ...] = ("numpy", "torch float32", "torch bfloat16")


class Outcome(NamedTuple):
    """How a case ended."""

    times: dict[str, float]
    build: float  # seconds
    read: float  # share of the keys
    bound: float  # largest of the calls that were checked
    error: float


def synthetic(kv_heads: int, group: int, n: int, d: int, std: float) -> Callable:
    """Gaussian heads whose scores have such a standard deviation."""

    def make(rng: np.random.Generator) -> Heads:
        key, value = (rng.standard_normal((kv_heads, n, d), dtype=np.float32) for _ in range(2))
        queries = std * rng.standard_normal((FRESH, kv_heads * group, d), dtype=np.float32)
        return Heads(key, value, queries)

    return make


def captured(path: str, head: str) -> Callable:
    """A head of a trained encoder, of a file with arrays q_L_H, k_L_H, v_L_H."""

    def make(rng: np.random.Generator) -> Heads:
        with np.load(path) as file:
            query, key, value = (file[f"{letter}_{head}"].astype(np.float32) for letter in "qkv")
        some = rng.choice(len(query), FRESH, replace=False)
        return Heads(key[None], value[None], query[some][:, None])

    return make


def cases(capture: str | None) -> Iterator[Case]:
    """All that is played."""
    error, many, few = attention.Error(EPS), sizes.points(1_048_576), sizes.points(131_072)
    yield Case("sharp (std 5), 1 head", synthetic(1, 1, many, 128, SHARP), error, 6.0)
    yield Case("flat (std 1), 1 head", synthetic(1, 1, many, 128, FLAT), SAMPLED, 4.0)
    float32 = "numpy", "torch float32"
    yield Case("sharp, 8 heads", synthetic(8, 1, few, 128, SHARP), error, 8.5, float32)
    yield Case("sharp, 8 heads of 4 queries", synthetic(8, 4, few, 128, SHARP), error, 4.0)
    if capture:
        for head in ("1_8", "2_8"):
            yield Case(f"trained head {head}", captured(capture, head), error, 3.0)


def _dense(heads: Heads, query: np.ndarray, dtype: type) -> np.ndarray:
    """Exact attention of one query a head, (heads, d)."""
    group = len(query) // len(heads.key)
    rows = []
    for h, (key, value) in enumerate(zip(heads.key, heads.value, strict=True)):
        for asked in query[h * group : (h + 1) * group].astype(dtype):
            scores = key @ asked / dtype(np.sqrt(query.shape[1]))
            weights = np.exp(scores - scores.max())
            rows.append(weights @ value / weights.sum())
    return np.array(rows)


def _torch(heads: Heads, turns: Iterator[np.ndarray], threads: int) -> dict[str, Callable]:
    """Torch's, in both of its dtypes, where it is installed."""
    try:
        torch = import_module("torch")
    except ImportError:
        return {}
    torch.set_num_threads(threads)
    dense = torch.nn.functional.scaled_dot_product_attention
    grouped = heads.queries.shape[1] > len(heads.key)

    def rival(dtype: object) -> Callable[[], object]:
        key, value = (torch.from_numpy(array)[None].to(dtype) for array in heads[:2])
        return lambda: dense(
            torch.from_numpy(next(turns))[None, :, None].to(dtype), key, value, enable_gqa=grouped
        )

    return {f"torch {name}": rival(getattr(torch, name)) for name in ("float32", "bfloat16")}


def _cache_of(heads: Heads) -> attention.KVCache:
    kv_heads, _, d = heads.key.shape
    cache = attention.KVCache(d, num_kv_heads=kv_heads, window=0)
    cache.append(heads.key, heads.value)
    cache.attend(heads.queries[0][:, None], attention.Error(1.0))
    return cache


def play(case: Case, threads: int) -> Outcome:
    """Time everybody on the same heads, in turns."""
    heads = case.make(np.random.default_rng(0))
    made = []
    build = seconds(lambda: made.append(_cache_of(heads)))
    (cache,), turns = made, cycle(heads.queries)
    tasks = {
        "attention": lambda: cache.attend(next(turns)[:, None], case.rule),
        "numpy": lambda: _dense(heads, next(turns), np.float32),
        **_torch(heads, turns, threads),
    }
    tasks = {name: task for name, task in tasks.items() if name in ("attention", *case.rivals)}
    for task in tasks.values():
        task()
    read, bound, error = [], 0.0, 0.0
    for query in heads.queries[:CHECKED]:
        got = cache.attend(query[:, None], case.rule)
        away = np.abs(got.output[:, 0] - _dense(heads, query, np.float64)).max(axis=1)
        if not isinstance(case.rule, attention.Sampled) and (away > got.bound[:, 0] + 1e-6).any():
            raise AssertionError(f"{case.name}: error {away} beyond its bound {got.bound[:, 0]}")
        read.append(got.reported.mean() / heads.key.shape[1])
        bound, error = max(bound, float(got.bound.max())), max(error, float(away.max()))
    times = medians(tasks, sizes.rounds(ROUNDS))
    return Outcome(times, build, float(np.mean(read)), bound, error)


def _cells(case: Case, outcome: Outcome) -> list[str]:
    own = outcome.times["attention"]
    rivals = {name: time for name, time in outcome.times.items() if name != "attention"}
    best = min(rivals, key=rivals.get)
    ratio, saved = rivals[best] / own, rivals[best] - own
    return [
        *(f"{1e3 * own:.2f}", f"{1e3 * rivals[best]:.2f}", best, f"{ratio:.2f}x"),
        f"{case.wanted:.1f}x",
        *(f"{outcome.read:.2%}", f"{outcome.bound:.1e}", f"{outcome.error:.1e}"),
        f"{outcome.build:.2f}",
        f"{outcome.build / saved:,.0f}" if saved > 0 else "never",
    ]


def show_decode(threads: int, capture: str | None = None) -> None:
    """Play all cases, and print times, ratios, what was read, and whether it is as wanted."""
    with held_to(threads) as complaints:
        for complaint in complaints:
            print(complaint)
        rows = []
        for case in cases(capture):
            rows.append([case.name, *_cells(case, play(case, threads))])
            print(" ".join(rows[-1]), flush=True)
    header = [
        *("", "ms", "best rival", "which", "ratio", "wanted", "read", "bound", "error"),
        *("build s", "pays after"),
    ]
    show(f"Decoding, Error({EPS:g}) where sharp, {SAMPLED} where flat", header, rows)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--capture", metavar="FILE.npz", help="keys k_L_H, queries q_L_H, values")
    options = parser.parse_args()
    show_decode(options.threads, options.capture)


if __name__ == "__main__":
    main()
