"""What the CUDA kernels take: python -m asv_benchmarks.gpu_resources.

Compiles every kernel for devices that need not be there, and has ptxas say how many registers, how
much shared memory and stack each takes, and whether registers spill. Needs the extra `cuda`, and
ptxas: that of the package nvidia-cuda-nvcc, or the system's.
"""

import argparse
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple
from unittest.mock import patch

from numba import types

from attention.cuda import averages, held, products, ranks
from halfspace.cuda import best, codes, nodes, scoring, words
from halfspace.cuda.target import Kernel, cuda

from .tables import show

CAPABILITIES = ((8, 0), (9, 0))

HOT = (
    *("mask_tiles", "settle", "test_nodes", "test_codes", "refine", "group_best", "sort_step"),
    *("fill_products", "mark_reaching", "score_listed", "weigh", "sum_splits"),
)
"""Kernels that read points, keys or values, or compare them; others go over sets and sums."""


class Resources(NamedTuple):
    """What a kernel takes on a device."""

    kernel: str
    floats: str
    capability: tuple[int, int]
    registers: int
    shared: int
    stack: int
    spilled: int  # bytes of stores and loads


def _of_points(floats: types.Type) -> list[tuple[Kernel, tuple]]:
    """Kernels over points, with the types of their arguments."""
    tiles, narrow, rows = floats[:, :, ::1], floats[:, ::1], types.float64[:, ::1]
    signs, counts, bits = types.int32[:, ::1], types.int64[:, ::1], types.uint32[:, ::1]
    ints, longs, doubles = types.int32[::1], types.int64[::1], types.float64[::1]
    size, flag = types.int64, types.boolean
    asked, wants = (narrow, rows, signs), (flag, ints, flag, counts)
    row_codes, weights = types.uint8[:, ::1], types.float32[:, ::1]
    scanned = tiles, doubles, size, *asked, bits, bits, *wants, bits, bits
    bounds, level = (tiles, tiles, tiles, ints), (size, size, size, types.float64)
    stages = row_codes, weights, rows, bits, flag, ints, bits, bits, bits
    return [
        *((kernel, scanned) for kernel in scoring.mask_tiles.values()),
        (scoring.settle, (tiles, rows, rows, signs, *wants, bits, bits)),
        (nodes.test_nodes, (*bounds, *asked, *level, flag, counts, bits, bits)),
        (codes.refine, (tiles, doubles, size, *asked, *stages)),
        (best.group_best, (tiles, doubles, size, narrow, rows, size, size, rows)),
        (best.score_candidates, (tiles, rows, counts, rows, rows)),
        (best.sort_step, (tiles, rows, ints, size, size, counts, rows, rows)),
        (best.take_best, (tiles, rows, ints, longs, counts, rows, rows, rows, counts)),
    ]


def _of_bits() -> list[tuple[Kernel, tuple]]:
    """All other kernels."""
    rows, cube = types.float64[:, ::1], types.float64[:, :, ::1]
    signs, counts, bits = types.int32[:, ::1], types.int64[:, ::1], types.uint32[:, ::1]
    ints, longs, size = types.int32[::1], types.int64[::1], types.int64
    coded = types.uint32[:, :, ::1], size, signs, ints, signs, bits, bits, bits
    return [
        *((kernel, coded) for kernel in codes.test_codes.values()),
        (words.clear, (types.uint32[::1],)),
        (words.mark_ranks, (bits, ints, bits)),
        (words.intersect, (bits, size, bits)),
        (words.count_chunks, (bits, signs)),
        (words.add_pieces, (signs, counts)),
        (words.add_before, (counts, longs)),
        (words.list_bits, (bits, signs, counts, longs, longs, longs)),
        (words.sum_chunks, (bits, rows, cube)),
        (words.add_sums, (cube, size, cube)),
        (best.spread_out, (longs, longs, counts)),
        (best.descend, (rows,)),
    ]


def _of_keys(floats: types.Type) -> list[tuple[Kernel, tuple]]:
    """Kernels over keys and values, with the types of their arguments."""
    heads, rows, wide = floats[:, :, ::1], types.float64[:, ::1], types.float64
    ints, longs, doubles = types.int32[::1], types.int64[::1], types.float64[::1]
    kept, size, words = types.int8[::1], types.int64, types.uint32
    sums = types.float64[:, :, ::1]
    filled = types.int32[:, ::1], longs
    asked, listed = (heads, size, size, rows, longs, wide), (longs, ints, doubles)
    return [
        (
            products.fill_uncoded,
            (words[:, :, ::1], longs, *asked[:-2], longs, rows, doubles, wide, *filled),
        ),
        (products.fill_views, (heads, size, size, rows, rows, doubles, wide, size, longs, rows)),
        (averages.score_listed, (*asked, *listed, doubles)),
        (averages.keep_inside, (*asked, *listed, doubles, doubles, kept)),
        (
            averages.sum_splits,
            (heads, size, size, longs, longs, ints, kept, doubles, doubles, sums),
        ),
        (held.place_rows, (heads, size, heads)),
    ]


def _of_products() -> list[tuple[Kernel, tuple]]:
    """All other kernels of attention."""
    found, counts = types.int32[:, ::1], types.int32[:, ::1]
    rows, cube, wide = types.float64[:, ::1], types.float64[:, :, ::1], types.float64
    ints, longs, doubles = types.int32[::1], types.int64[::1], types.float64[::1]
    kept, size, bits = types.int8[::1], types.int64, types.uint32[:, ::1]
    of_lists = longs, doubles, wide
    coded = types.uint32[:, :, :, ::1], types.uint32[:, :, ::1], size, size, longs
    return [
        *(
            (kernel, (*coded, types.int32[:, :, ::1], found, longs))
            for kernel in products.fill_products.values()
        ),
        (products.count_bins, (found, rows, wide, size, counts)),
        (products.mark_reaching, (found, rows, longs, ints, bits, cube)),
        (products.mark_visible, (longs, longs, bits)),
        (averages.reset, (doubles,)),
        (averages.weigh, (*of_lists, kept, doubles, doubles)),
        (
            averages.weigh_relu,
            (longs, doubles, longs, doubles, wide, size, wide, kept, doubles, doubles),
        ),
        (averages.gather_answers, (cube, cube, doubles, rows)),
        (ranks.order_keys, (longs, doubles, ints, doubles, longs)),
        (ranks.count_digits, (longs, longs, size, longs, counts)),
        (ranks.choose_digits, (size, longs, longs, counts)),
        (ranks.keep_ranked, (longs, longs, longs, doubles, kept, doubles)),
    ]


def signatures() -> list[tuple[Kernel, str, tuple]]:
    """Every kernel, the floats of points that it is for, and the types of its arguments."""
    found = [
        (kernel, str(floats), signature)
        for floats in (types.float32, types.float64)
        for kernel, signature in (*_of_points(floats), *_of_keys(floats))
    ]
    rest = *_of_bits(), *_of_products()
    return found + [(kernel, "", signature) for kernel, signature in rest]


def ptx_of(function: Callable, signature: tuple, capability: tuple[int, int]) -> str:
    """PTX of a kernel for a device that need not be there."""
    from numba.cuda import dispatcher

    # Device functions are compiled for the current device, whose number is all that is asked for.
    card = SimpleNamespace(compute_capability=capability)
    with patch.object(dispatcher, "get_current_device", lambda: card):
        return cuda.compile_ptx(function, signature, cc=capability, device=False)[0]


def find_ptxas() -> str | None:
    """Path of ptxas: that of the package beside numba-cuda, or the system's."""
    try:
        for file in files("nvidia-cuda-nvcc") or ():
            if file.name == "ptxas":
                return str(file.locate())
    except PackageNotFoundError:
        pass
    return shutil.which("ptxas")


def assemble(ptxas: str, ptx: str, capability: tuple[int, int]) -> dict[str, int]:
    """What ptxas says of a kernel: registers, shared, stack, spilled.

    Raises
    ------
    subprocess.CalledProcessError
        It does not take the PTX; its words are in `stderr`.
    """
    name = "sm_{}{}".format(*capability)
    with tempfile.TemporaryDirectory() as place:
        source = Path(place, "kernel.ptx")
        source.write_text(ptx, encoding="utf-8")
        command = [ptxas, "-v", f"-arch={name}", str(source), "-o", str(Path(place, "kernel"))]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stderr

    def total(pattern: str) -> int:
        return sum(map(int, re.findall(pattern, said)))

    return {
        "registers": total(r"Used (\d+) registers"),
        "shared": total(r"(\d+) bytes smem"),
        "stack": total(r"(\d+) bytes stack frame"),
        "spilled": total(r"(\d+) bytes spill"),
    }


def measured(ptxas: str) -> list[Resources]:
    """What every kernel takes, for every capability."""
    return [
        Resources(
            kernel.__name__,
            floats,
            capability,
            **assemble(ptxas, ptx_of(kernel.function, signature, capability), capability),
        )
        for kernel, floats, signature in signatures()
        for capability in CAPABILITIES
    ]


def markdown(found: Sequence[Resources]) -> str:
    """The table of the docs: a line for each kernel, registers by capability."""
    by_kernel: dict[tuple[str, str], list[Resources]] = {}
    for each in found:
        by_kernel.setdefault((each.kernel, each.floats), []).append(each)
    lines = [
        "| kernel | points | registers, sm_80 / sm_90 | shared | stack | spilled |",
        "|---|---|---|---|---|---|",
    ]
    for (kernel, floats), each in by_kernel.items():
        most = [str(max(column)) for column in zip(*(r[4:] for r in each), strict=True)]
        registers = " / ".join(str(r.registers) for r in each)
        lines.append(f"| `{kernel}` | {floats} | {registers} | {' | '.join(most)} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m asv_benchmarks.gpu_resources", description=__doc__
    )
    parser.add_argument("--markdown", action="store_true", help="as the docs have it")
    given = parser.parse_args(argv)
    ptxas = find_ptxas()
    if ptxas is None:
        raise SystemExit("ptxas is not installed: pip install nvidia-cuda-nvcc")
    found = measured(ptxas)
    if given.markdown:
        print(markdown(found))
        return
    header = ["kernel", "points", "device", "registers", "shared", "stack", "spilled"]
    rows = [[r.kernel, r.floats, "sm_{}{}".format(*r.capability), *map(str, r[3:])] for r in found]
    show("What kernels take; bytes a block, a thread, a thread", header, rows)


if __name__ == "__main__":
    main()
