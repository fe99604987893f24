"""Reports and decoding on a GPU beside torch and memory's bandwidth: python -m asv_benchmarks.gpu.

First every structure's answers on the device are compared with the processor's, and every rule's
outputs with dense attention: none may be off by more than its bound. Then medians over several
rounds are taken, of whole calls with the answers left on the device, and those answers checked as
well. A wrong answer ends the run with exit code 1. What no longer fits into the time allowed is
left out, and said to be; a part that takes far longer than it should is ended, with exit code 3.
Without a device nothing is measured, and exit code 2 says so.
"""

import argparse
import datetime
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

import numpy as np

import halfspace
from halfspace.cuda import CudaIndex, CudaUnavailable
from halfspace.cuda.runtime import empty, require
from halfspace.cuda.target import SIMULATED, cuda

from . import data, gpu_decode, sizes, truth
from .gpu_timing import Clock, Target, WrongAnswer, ended_after, kernel_times, median, row
from .tables import show

DIMENSION = 64

SHARE = 1e-3
"""Share of the points that a report holds."""

QUANTILE = 3.0902
"""Of the normal distribution, for that share."""

ROUNDS = 15

MOST_SECONDS = 450.0
"""After which no further part is begun, if not told otherwise."""

PATIENCE = 25.0
"""Seconds beyond those, after which the process is ended."""

DECODE_SECONDS = 120.0
"""Time that is to be left for decoding: its keys take long to be made, coded and copied."""

CHECKED_SHARE = 0.6
"""Of that time, for the checks."""


BANDWIDTH = Target("report: bytes of points a second / those a copy moves", 0.75)
TORCH = Target("torch.nonzero(X @ w >= b) / report", 2.0)
CODES = Target("float32 report / report by codes of 8 bits or fewer", 2.5)


def describe() -> dict[str, str]:
    """The device and what drives it, for the head of a table."""
    card = cuda.current_context().device
    name = getattr(card, "name", "simulator")
    found = {
        "device": name.decode() if isinstance(name, bytes) else str(name),
        "capability": ".".join(map(str, card.compute_capability)),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    driver = getattr(cuda, "cudadrv", None)
    if driver and not SIMULATED:
        major, minor = driver.driver.driver.get_version()
        found["driver's CUDA"] = f"{major}.{minor}"
    for package in ("numba-cuda", "numba", "torch"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


# Whether answers are right.


def problems(n: int) -> Iterator[tuple[str, halfspace.Index, np.ndarray, np.ndarray]]:
    """Indexes, and half-spaces through some of their points."""
    rng = np.random.default_rng(1)
    sites = {
        "gauss": lambda d, kind: data.gauss(n, d, kind),
        "integers": lambda d, kind: rng.integers(-3, 4, (n, d)).astype(kind),
        "huge": lambda d, kind: (data.gauss(n, d, "float64") * 1e37).astype(kind),
    }
    builds = (
        (halfspace.Scan, 64),
        (halfspace.KDTree, 3),
        (halfspace.KDTree, 16),
        (halfspace.PartitionTree, 3),
        (halfspace.ShallowCuttings, 2),
        (halfspace.Cascade, 64),
    )
    for name, points_of in sites.items():
        for build, d in builds:
            for kind in ("float32", "float64"):
                points = points_of(d, kind)
                weights = rng.integers(-100, 100, (n, 2))
                normals = rng.integers(-3, 4, (8, d)).astype(np.float64)
                offsets = np.sort(points[:: max(1, n // 8)][:8].astype(np.float64) @ normals.T)
                made = build(points, ids=rng.permutation(n), weights=weights)
                yield f"{name}, {build.__name__}, d = {d}, {kind}", made, normals, offsets[:, -1]


def differences(host: halfspace.Index, normals: np.ndarray, offsets: np.ndarray) -> list[str]:
    """Questions that a device and the processor answer differently."""
    index, batch = host.to("cuda"), (normals, offsets)
    faces = np.stack([normals, -normals[::-1]], axis=1)
    asked = {
        "report": lambda i: i.report(*batch).indices,
        "open": lambda i: i.report(*batch, closed=False).indices,
        "one": lambda i: i.report(normals[0], offsets[0]),
        "count": lambda i: i.count(*batch),
        "any": lambda i: i.any(*batch),
        "sum": lambda i: i.sum(*batch),
        "top": lambda i: i.top(normals, 10).ids,
        "scores": lambda i: i.top(normals, 10).scores,
        "polytope": lambda i: i.report_polytope(faces, -1.0).indices,
    }
    return [name for name, ask in asked.items() if not np.array_equal(ask(host), ask(index))]


def check(n: int, clock: Clock) -> int:
    """Compare all answers; how many differ."""
    wrong, compared = 0, 0
    for name, host, normals, offsets in problems(n):
        if clock.left() < 0.0:
            print("  the rest is left out: no time")
            break
        found = differences(host, normals, offsets)
        compared += 1
        wrong += len(found)
        if found:
            print(f"  WRONG  {name}: {', '.join(found)}")
    print(
        f"answers that differ from the processor's: {wrong}, over {compared} indexes of {n} points"
    )
    return wrong


# How fast they are.


def copy_rate(nbytes: int, rounds: int) -> float:
    """Bytes a second that a copy on the device moves: read and written."""
    source, target = (empty((nbytes,), np.uint8) for _ in range(2))
    return 2 * nbytes / median(lambda: target.copy_to_device(source), rounds)


class Asked(NamedTuple):
    """A normal and an offset, for points from a normal distribution."""

    normal: np.ndarray
    offset: float


def query(d: int) -> Asked:
    """A half-space that holds about `SHARE` of Gaussian points."""
    normal = data.gauss(1, d, seed=7)[0]
    return Asked(normal, float(np.float32(QUANTILE * np.linalg.norm(normal))))


def torch_seconds(points: np.ndarray, asked: Asked, rounds: int) -> tuple[float, np.ndarray] | str:
    """How long torch takes, and its ids; or why it does not."""
    try:
        import torch
    except ImportError:
        return "torch is not installed"
    if not torch.cuda.is_available():
        return "this torch has no CUDA"
    rows, normal = (torch.from_numpy(array).cuda() for array in (points, asked.normal))
    taken = median(lambda: torch.nonzero(rows @ normal >= asked.offset), rounds)
    return taken, torch.nonzero(rows @ normal >= asked.offset).cpu().numpy().ravel()


def reported(index: CudaIndex, asked: Asked, rounds: int) -> tuple[float, np.ndarray]:
    """How long a report takes, and its ids."""
    taken = median(lambda: index.report(*asked, on_device=True), rounds)
    return taken, index.report(*asked)


def verify(points: np.ndarray, asked: Asked, ids: np.ndarray) -> None:
    """Raise if ids are not what rational arithmetic says."""
    right = truth.insides(points, asked.normal[None], np.array([asked.offset]))
    wrong = truth.wrong([ids], right)
    if wrong:
        raise WrongAnswer(f"{wrong} ids of {len(ids)} are wrong")


def scan_figures(n: int, rounds: int) -> list[list[str]]:
    """Report of a scan beside a copy and torch."""
    points, asked = data.gauss(n, DIMENSION), query(DIMENSION)
    index = halfspace.Scan(points).to("cuda")
    taken, ids = reported(index, asked, rounds)
    kernels: dict[str, float] = defaultdict(float)
    with kernel_times(kernels):
        index.report(*asked, on_device=True)
    rate = copy_rate(max(1, points.nbytes // 2), rounds)
    verify(points, asked, ids)
    print(f"\nn = {n}, d = {DIMENSION}, float32, {len(ids)} ids, all of them right")
    print(f"  report {1e3 * taken:.3f} ms, copy {rate / 1e9:.0f} GB/s")
    for name, spent in sorted(kernels.items(), key=lambda item: -item[1]):
        print(f"  {name:<16} {1e3 * spent:.3f} ms")
    rows = [row(BANDWIDTH, points.nbytes / taken / rate)]
    found = torch_seconds(points, asked, rounds)
    if isinstance(found, str):
        return [*rows, [TORCH.name, found, f"{TORCH.least:.2f}", ""]]
    print(f"  torch  {1e3 * found[0]:.3f} ms, {len(np.setxor1d(found[1], ids))} ids differ")
    return [*rows, row(TORCH, found[0] / taken)]


def cascade_figures(n: int, rounds: int) -> list[list[str]]:
    """Report by codes beside that of a scan of the same points."""
    points, asked = data.gauss(n, DIMENSION), query(DIMENSION)
    taken, _ = reported(halfspace.Scan(points).to("cuda"), asked, rounds)
    index = halfspace.Cascade(points, expected_count=max(1, int(SHARE * n))).to("cuda")
    by_codes, found = reported(index, asked, rounds)
    verify(points, asked, found)
    print(f"\nn = {n}: scan {1e3 * taken:.3f} ms, cascade {1e3 * by_codes:.3f} ms; the same ids")
    return [row(CODES, taken / by_codes)]


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m asv_benchmarks.gpu", description=__doc__)
    parser.add_argument("--points", type=int, default=sizes.points(1 << 24), help="of the scan")
    parser.add_argument("--coded", type=int, default=sizes.points(1 << 22), help="of the cascade")
    parser.add_argument("--checked", type=int, default=sizes.points(20_000), help="of each check")
    parser.add_argument("--keys", type=int, default=sizes.points(4000), help="of checks of heads")
    parser.add_argument("--tokens", type=int, default=sizes.points(1 << 20), help="of the decode")
    parser.add_argument("--seconds", type=float, default=MOST_SECONDS, help="time allowed")
    return parser.parse_args(argv)


def measure(given: argparse.Namespace, clock: Clock, rows: list[list[str]]) -> int:
    """Check and measure on the current device, adding lines of the table; the exit code."""
    show("Device", ["", "found"], [list(item) for item in describe().items()])
    checks = clock._replace(most=CHECKED_SHARE * clock.most)
    if check(given.checked, checks) + gpu_decode.check(given.keys, checks):
        return 1
    rounds = sizes.rounds(ROUNDS)
    parts = (
        (scan_figures, given.points, 0.0),
        (cascade_figures, given.coded, 0.0),
        (gpu_decode.decode_figures, given.tokens, DECODE_SECONDS),
    )
    for part, n, needed in parts:
        if clock.left() < needed:
            print(f"{part.__name__} is left out: no time")
            continue
        try:
            rows += part(n, rounds)
        except WrongAnswer as error:
            print(f"{part.__name__}: {error}")
            return 1
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Check and measure; the exit code."""
    given, rows = arguments(argv), []
    clock = Clock(time.perf_counter(), given.seconds)
    try:
        device = require()
    except CudaUnavailable as error:
        print(f"nothing is measured: {error}")
        return 2

    def ratios() -> None:
        show("Ratios", ["", "found", "least", ""], rows)
        print(f"{time.perf_counter() - clock.start:.0f} s in all")

    with ended_after(given.seconds + PATIENCE, ratios), device:
        code = measure(given, clock, rows)
    if not code:
        ratios()
    return code


if __name__ == "__main__":
    sys.exit(main())
