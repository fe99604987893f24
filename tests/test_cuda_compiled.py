"""CUDA kernels compiled for devices that need not be there: what they take, and no fused sums."""

import importlib.util
import re

import pytest
from numba import types

from asv_benchmarks import gpu_resources
from halfspace import predicate
from halfspace.cuda import target
from halfspace.cuda.target import Kernel

from .sizes import JIT

LIMB_BYTES = 8 * predicate.LIMBS
EXACT = ("settle", "sort_step", "take_best", "keep_inside")
"""Kernels with limbs of the exact predicate, which are in local memory, and meant to be."""

COMPENSATED = ("settle", "sort_step", "score_candidates", "keep_inside")
"""Kernels with compensated sums."""

FILTER_FUSED = {"keep_inside": 1}
"""Fused instructions of a kernel that are no part of such sums, but of a filter with a margin."""

UNIT_ROUNDOFF = "0d3CA0000000000000"
"""2^-53, as PTX writes it."""

needs_compiler = pytest.mark.skipif(
    not JIT or target.SIMULATED or importlib.util.find_spec("numba_cuda") is None,
    reason="compiles by numba-cuda: pip install 'halfspace-reporting[cuda]'",
)


def named(entry):
    kernel, floats, _ = entry
    return f"{kernel.__name__}-{floats}".rstrip("-")


def test_every_kernel_is_compiled_here():
    assert {entry[0] for entry in gpu_resources.signatures()} == set(Kernel.made)
    names = {kernel.__name__ for kernel in Kernel.made}
    assert all(any(name.startswith(hot) for name in names) for hot in gpu_resources.HOT)


def test_table_of_the_docs():
    found = [
        gpu_resources.Resources("settle", "float32", capability, 50 + capability[0], 0, stack, 0)
        for capability, stack in (((8, 0), 1120), ((9, 0), 1000))
    ]
    table = gpu_resources.markdown(found).splitlines()
    assert table[2:] == ["| `settle` | float32 | 58 / 59 | 0 | 1120 | 0 |"]


@needs_compiler
@pytest.mark.parametrize("entry", gpu_resources.signatures(), ids=named)
@pytest.mark.parametrize("capability", gpu_resources.CAPABILITIES, ids="sm_{0[0]}{0[1]}".format)
def test_kernels_compile_and_nothing_spills(entry, capability, record_property):
    kernel, _, signature = entry
    ptx = gpu_resources.ptx_of(kernel.function, signature, capability)
    assert ".target sm_{}{}".format(*capability) in ptx
    ptxas = gpu_resources.find_ptxas()
    if ptxas is None:
        pytest.skip("compiled to PTX; ptxas is not installed")
    taken = gpu_resources.assemble(ptxas, ptx, capability)
    for name, value in taken.items():
        record_property(name, value)
    assert taken["spilled"] == 0
    assert taken["registers"] > 0
    assert taken["stack"] == (LIMB_BYTES if kernel.__name__ in EXACT else 0)


def instructions(ptx, name):
    """Operands of every instruction of that name."""
    return [re.split(r",\s*", operands) for operands in re.findall(rf"\b{name}\s+(%[^;]+);", ptx)]


def compiled(function):
    rows = types.float64[::1]
    return gpu_resources.ptx_of(function, (rows, rows, rows), (9, 0))


@needs_compiler
def test_sums_have_no_products_to_fuse():
    two_sum = target.device(predicate.two_sum)

    def kernel(a, b, out):
        out[0], out[1] = two_sum(a[0], b[0])

    ptx = compiled(kernel)
    assert not instructions(ptx, "fma.rn.f64")
    assert len(instructions(ptx, "add.f64") + instructions(ptx, "sub.f64")) >= 6


@needs_compiler
def test_products_are_rounded_where_their_errors_are_taken():
    two_product = target.device(predicate.two_product)
    two_sum = target.device(predicate.two_sum)

    def kernel(a, b, out):
        product, out[0] = two_product(a[0], b[0])
        out[1], out[2] = two_sum(out[3], product)

    ptx = compiled(kernel)
    (product, *factors), *others = instructions(ptx, "mul.rn.f64")
    assert not others
    ((_, a, b, c),) = instructions(ptx, "fma.rn.f64")
    assert [a, b] == factors
    assert [c, product] in instructions(ptx, "neg.f64")
    assert not instructions(ptx, "mul.f64")


@needs_compiler
@pytest.mark.parametrize(
    "entry",
    [e for e in gpu_resources.signatures() if e[0].__name__ in COMPENSATED],
    ids=named,
)
def test_expansions_are_not_contracted(entry):
    """In compensated sums as they are compiled, all else that is fused are their error bounds."""
    kernel, _, signature = entry
    ptx = gpu_resources.ptx_of(kernel.function, signature, (9, 0))
    rounded = {tuple(ab): product for product, *ab in instructions(ptx, "mul.rn.f64")}
    negated = instructions(ptx, "neg.f64")
    bounds = [out for out, _, by in instructions(ptx, "mul.f64") if by == UNIT_ROUNDOFF]
    fused = instructions(ptx, "fma.rn.f64")
    assert rounded
    assert fused
    others = [
        c for _, a, b, c in fused if [c, rounded.get((a, b))] not in negated and c not in bounds
    ]
    assert len(others) == FILTER_FUSED.get(kernel.__name__, 0)
