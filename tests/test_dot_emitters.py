"""Integer products in the instructions of every kind that there is, not the best alone."""

import llvmlite.binding
import numpy as np
import pytest
from llvmlite import ir
from numba import config, njit
from numba.core import cgutils

from halfspace.code_rows import BLOCK, FINER, GROUPS, ROW
from halfspace.dot_emitters import EMITTERS, Avx2, Vnni, best_emitter
from halfspace.dot_instruction import mask_instruction, pair_instruction, product_instruction
from halfspace.jit import has_feature
from halfspace.tiles import TILE

from .oracle import unpacked

TILES = 3

ROWS = (1, 3, 4, 5, 9)
"""Groups of rows: fewer than are taken at a time, as many, and some over."""


class Spelled(Vnni):
    """`Vnni` on any processor: its instruction in plain arithmetic."""

    def function(self, name, result, *kinds):
        if "vpdpbusd" not in name:
            return super().function(name, result, *kinds)
        dot = cgutils.get_or_insert_function(
            self.builder.module, ir.FunctionType(result, kinds), "spelled_dot"
        )
        if dot.is_declaration:
            dot.linkage = "internal"
            builder = ir.IRBuilder(dot.append_basic_block())
            total, codes, query = dot.args
            each, wide = (ir.VectorType(ir.IntType(bits), 4 * self.lanes) for bits in (8, 32))
            products = builder.mul(
                builder.zext(builder.bitcast(codes, each), wide),
                builder.sext(builder.bitcast(query, each), wide),
            )
            for j in range(4):
                places = ir.Constant(self.vector, [4 * lane + j for lane in range(self.lanes)])
                total = builder.add(total, builder.shuffle_vector(products, products, places))
            builder.ret(total)
        return dot


KINDS = *EMITTERS, Spelled


def _here(kind):
    if config.DISABLE_JIT:
        pytest.skip("kernels are interpreted")
    if kind is not Spelled and not has_feature(kind.feature):
        pytest.skip(f"kernels are compiled for a processor without {kind.feature}")


def _draws(rng, bits, groups, queries):
    """Codes and queries: any, and the largest of all, whose products add up the furthest."""
    size, held = GROUPS[bits]
    shape = TILES, groups * size, ROW
    codes = rng.integers(0, 256, shape, dtype=np.uint8)
    normals = rng.integers(-127, 128, (queries, groups * held)).astype(np.int8)
    yield codes, normals
    for sign in (-1, 1):
        yield np.full_like(codes, 255), np.full_like(normals, 127 * sign)
    # Each other product is lost where pairs of products saturate.
    signs = np.where(np.arange(groups * held) % 4 < 2, 127, -127).astype(np.int8)
    yield np.full_like(codes, 255), np.broadcast_to(signs, normals.shape).copy()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", sorted(GROUPS))
@pytest.mark.parametrize("count", [1, BLOCK])
def test_masks(kind, bits, count):
    _here(kind)
    instruction = mask_instruction(kind, count, bits)

    @njit
    def masks(codes, normals, bars):
        out = np.zeros((codes.shape[0], count), np.uint64)
        for t in range(codes.shape[0]):
            instruction(codes, t, 2, normals, 1, bars, out[t])
        return out

    rng = np.random.default_rng(bits)
    for groups in ROWS:
        for codes, normals in _draws(rng, bits, groups, count + 2):
            products = unpacked(codes, bits) @ normals.astype(np.int64).T
            bars = np.array([rng.choice(column) for column in products.T], np.int32)
            bars += rng.integers(0, 2, len(bars), dtype=np.int32)
            reached = (products >= bars)[:, 1 : 1 + count].reshape(TILES, TILE, count)
            want = (reached.astype(object) << np.arange(TILE).astype(object)[:, None]).sum(axis=1)
            assert masks(codes, normals, bars).tolist() == want.tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", sorted(GROUPS))
def test_products(kind, bits):
    _here(kind)
    instruction = product_instruction(kind, bits)

    @njit
    def products(codes, normals):
        out = np.empty(codes.shape[0] * TILE, np.int32)
        for t in range(codes.shape[0]):
            instruction(codes, t, 2, normals, 1, out)
        return out

    for groups in ROWS:
        for codes, normals in _draws(np.random.default_rng(bits), bits, groups, 2):
            want = unpacked(codes, bits) @ normals[1].astype(np.int64)
            assert products(codes, normals).tolist() == want.tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2])
def test_products_with_queries_of_two_digits(kind, count):
    _here(kind)
    instruction = pair_instruction(kind, count)

    @njit
    def products(codes, normals):
        out = np.empty((count, codes.shape[0] * TILE), np.int32)
        for t in range(codes.shape[0]):
            instruction(codes, t, 2, normals, 1, out)
        return out

    for groups in ROWS:
        for codes, normals in _draws(np.random.default_rng(count), 8, groups, 2 * count + 2):
            digits = normals.astype(np.int64)[2 : 2 + 2 * count].reshape(count, 2, -1)
            queries = FINER * digits[:, 0] + digits[:, 1]
            want = queries @ unpacked(codes, 8).T
            assert products(codes, normals).tolist() == want.tolist()


def test_the_best_is_what_kernels_are_compiled_for(monkeypatch):
    monkeypatch.setattr(config, "DISABLE_JIT", 0)
    for features, want in (
        ("+sse2,+avx2,+avx512vnni", Vnni),
        ("+avx2,-avx512vnni", Avx2),
        ("+avx", None),
        ("", None),
    ):
        monkeypatch.setattr(config, "CPU_FEATURES", features)
        assert best_emitter() is want
    monkeypatch.setattr(config, "CPU_FEATURES", "+avx2")
    monkeypatch.setattr(config, "DISABLE_JIT", 1)
    assert best_emitter() is None


@pytest.mark.parametrize("has", [{"avx2": True}, {"avx2": True, "avx512vnni": True}])
def test_settings_of_numba_that_change_features_change_the_best(monkeypatch, has):
    monkeypatch.setattr(config, "DISABLE_JIT", 0)
    monkeypatch.setattr(config, "CPU_FEATURES", None)
    host = llvmlite.binding.FeatureMap
    monkeypatch.setattr(llvmlite.binding, "get_host_cpu_features", lambda: host(has))
    want = Vnni if "avx512vnni" in has else Avx2
    # The name alone leaves the features as they are, and kernels in the cache are found by both.
    for name in (None, "some"):
        monkeypatch.setattr(config, "CPU_NAME", name)
        monkeypatch.setattr(config, "ENABLE_AVX", 1, raising=False)
        assert best_emitter() is want
        # LLVM ends the process where it is told of instructions that it may not use.
        monkeypatch.setattr(config, "ENABLE_AVX", 0, raising=False)
        assert best_emitter() is None
