"""Certified decoding on a GPU: whether bounds hold, and how fast it is beside torch's attention."""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from attention import Attended, Decoder, Error, KVCache, Mass, Threshold, TopR, dense
from attention.cuda import CudaCache

from .gpu_timing import Clock, Target, WrongAnswer, kernel_times, median, row

HEADS, GROUP, HEAD_DIM = 8, 4, 128
"""Heads of keys, queries of each, and dimensions."""

SHARPNESS = 2.0
"""Queries are a key times that: a few keys hold nearly all of the mass."""

RULE = Error(1e-2)

TORCH = Target("torch's attention in bfloat16 / certified decode, Error(1e-2)", 2.0)

RULES = TopR(), TopR(50), Threshold(2.0), Mass(0.9), Error(1e-2), Error(1e-4), Error(0.0)

POWERS = 1, 2, 3


def heads(n: int) -> Iterator[tuple[str, Decoder, np.ndarray]]:
    """Decoders, and queries of them."""
    rng = np.random.default_rng(3)
    for d, sharpness in ((4, 4.0), (64, 0.5), (128, 2.0), (128, 1e6)):
        for floats in (np.float32, np.float64):
            keys, values = (rng.standard_normal((n, c)).astype(floats) for c in (d, 33))
            queries = sharpness * keys[rng.integers(n, size=5)].astype(np.float64)
            name = f"d = {d}, {np.dtype(floats)}, sharpness {sharpness:g}"
            yield name, Decoder(keys, values, structure="cascade"), queries


def violations(decoder: Decoder, queries: np.ndarray) -> list[str]:
    """What is off by more than its bound, against dense attention in extended precision."""
    moved, (keys, values) = decoder.to("cuda"), decoder._head.rows()
    wide = {"scale": decoder.scale, "dtype": np.longdouble}
    exact, _ = dense.softmax(queries, keys, values, **wide)
    wrong = [str(rule) for rule in RULES if _is_off(moved.softmax(queries, rule), exact)]
    for power in POWERS:
        exact, _ = dense.relu(queries, keys, values, threshold=1.0, power=power, **wide)
        if _is_off(moved.relu(queries, threshold=1.0, power=power), exact):
            wrong.append(f"relu, power {power}")
    return wrong


def _is_off(got: Attended, exact: np.ndarray) -> bool:
    return not bool((np.abs(got.output - exact).max(axis=-1) <= got.bound).all())


def check(n: int, clock: Clock) -> int:
    """Compare all rules with dense attention; how many bounds do not hold."""
    wrong, compared = 0, 0
    for name, decoder, queries in heads(n):
        if clock.left() < 0.0:
            print("  the rest is left out: no time")
            break
        found = violations(decoder, queries)
        compared += 1
        wrong += len(found)
        if found:
            print(f"  WRONG  {name}: {', '.join(found)}")
    print(f"bounds that do not hold: {wrong}, over {compared} heads of {n} keys")
    return wrong


def in_bfloat16(rows: np.ndarray) -> np.ndarray:
    """Float32 rows cut to what bfloat16 holds, so that all contestants have the same keys."""
    return (rows.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def problem(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keys and values (heads, n, d), and queries (heads * group, 1, d) that are sharp."""
    rng = np.random.default_rng(5)
    key, value = (
        in_bfloat16(rng.standard_normal((HEADS, n, HEAD_DIM), dtype=np.float32)) for _ in range(2)
    )
    picked = rng.integers(n, size=(HEADS, GROUP))
    query = SHARPNESS * np.take_along_axis(key, picked[..., None], axis=1)
    return key, value, query.reshape(HEADS * GROUP, 1, HEAD_DIM)


def torch_seconds(
    query: np.ndarray, key: np.ndarray, value: np.ndarray, rounds: int
) -> float | str:
    """How long torch takes in bfloat16, the faster of two ways; or why it does not."""
    try:
        import torch
    except ImportError:
        return "torch is not installed"
    if not torch.cuda.is_available():
        return "this torch has no CUDA"
    attend = torch.nn.functional.scaled_dot_product_attention
    q, k, v = (torch.from_numpy(array).cuda().bfloat16() for array in (query, key, value))
    grouped = q.reshape(1, HEADS, GROUP, HEAD_DIM)
    ways = (
        lambda: attend(grouped, k[None], v[None]),
        lambda: attend(q[None], k[None], v[None], enable_gqa=True),
    )
    return min(median(way, rounds) for way in ways)


def verify(cache: CudaCache, query: np.ndarray, key: np.ndarray, value: np.ndarray) -> Attended:
    """Answer of the first head, checked against dense attention in float64."""
    got = cache.attend(query, RULE)
    exact, _ = dense.softmax(query[:GROUP], key[:1], value[:1], scale=cache.scale)
    if not (np.abs(got.output[:GROUP] - exact).max(axis=-1) <= got.bound[:GROUP] + 1e-9).all():
        raise WrongAnswer("a bound does not hold")
    if not (got.bound <= RULE.eps + 1e-9).all():
        raise WrongAnswer(f"a bound is {got.bound.max()}")
    return got


def decode_figures(n: int, rounds: int) -> list[list[str]]:
    """One step of certified decoding beside torch's dense attention."""
    key, value, query = problem(n)
    host = KVCache(HEAD_DIM, num_kv_heads=HEADS)
    host.append(key, value)
    cache = host.to("cuda")
    got = verify(cache, query, key, value)
    taken = median(lambda: cache.attend(query, RULE, on_device=True), rounds)
    kernels: dict[str, float] = defaultdict(float)
    with kernel_times(kernels):
        cache.attend(query, RULE, on_device=True)
    print(
        f"\ndecode, n = {n}, {HEADS} heads of {HEAD_DIM} dimensions, {GROUP} queries each: "
        f"{1e3 * taken:.3f} ms, bounds up to {got.bound.max():.2g}, "
        f"{got.reported.mean():.0f} keys read a query"
    )
    for name, spent in sorted(kernels.items(), key=lambda item: -item[1]):
        print(f"  {name:<16} {1e3 * spent:.3f} ms")
    found = torch_seconds(query, key, value, rounds)
    if isinstance(found, str):
        return [[TORCH.name, found, f"{TORCH.least:.2f}", ""]]
    print(f"  torch  {1e3 * found:.3f} ms")
    return [row(TORCH, found / taken)]
