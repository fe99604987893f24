"""Arrays of other libraries: the result is of the kind that came. None of them is required."""

import sys

import numpy as np
import pytest

from attention import Error, interop, scaled_dot_product_attention

from .sdpa_oracle import attention as truth

TIGHT = Error(1e-9)


def arrays(dtype=np.float64):
    rng = np.random.default_rng(0)
    shapes = (2, 9, 4), (2, 20, 4), (2, 20, 5)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def every_mask():
    rng = np.random.default_rng(1)
    mask = rng.random((9, 20)) < 0.5
    mask[2] = False
    return [None, mask, mask[:1], np.where(mask, rng.standard_normal((9, 20)), -np.inf)]


def test_what_belongs_to_no_library_is_numpys():
    assert interop.library(object()) == "numpy"
    assert interop.library(np.ones(1)) == "numpy"
    assert interop.library(np.float64(1)) == "numpy"


# torch


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


UNITS = {"float64": 1e-9, "float32": 3e-7, "float16": 2e-3, "bfloat16": 2e-2}


@pytest.mark.parametrize("dtype", UNITS)
def test_tensors(torch, dtype):
    qkv = [torch.from_numpy(x).to(getattr(torch, dtype)) for x in arrays()]
    for mask in every_mask():
        mask = None if mask is None else torch.from_numpy(mask)
        if mask is not None and mask.dtype != torch.bool:
            mask = mask.to(qkv[0].dtype)
        got = scaled_dot_product_attention(*qkv, mask, rule=TIGHT)
        assert isinstance(got, torch.Tensor)
        assert (got.dtype, got.device) == (qkv[0].dtype, qkv[0].device)
        wide = [x.double().numpy() for x in qkv]
        wide_mask = None
        if mask is not None:
            wide_mask = mask.numpy() if mask.dtype == torch.bool else mask.double().numpy()
        want = truth(*wide, wide_mask)
        assert np.abs(got.double().numpy() - want).max() <= 1e-9 + UNITS[dtype]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_causal": True},
        {"scale": 0.3},
        {"scale": -0.3},
        {"is_causal": True, "scale": 2.0},
    ],
    ids=str,
)
def test_it_agrees_with_torch(torch, options):
    theirs = torch.nn.functional.scaled_dot_product_attention
    for shapes in (
        ((2, 3, 5, 4), (2, 3, 9, 4), (2, 3, 9, 6)),
        ((2, 3, 5, 4), (2, 1, 9, 4), (1, 1, 9, 6)),
        ((3, 9, 4), (3, 5, 4), (3, 5, 4)),
    ):
        rng = np.random.default_rng(0)
        qkv = [torch.from_numpy(rng.standard_normal(shape)) for shape in shapes]
        ours = scaled_dot_product_attention(*qkv, rule=TIGHT, **options)
        want = theirs(*qkv, **options)
        assert ours.shape == want.shape
        assert torch.allclose(ours, want, rtol=0.0, atol=1e-8)


def test_masks_and_groups_agree_with_torch(torch):
    theirs = torch.nn.functional.scaled_dot_product_attention
    rng = np.random.default_rng(0)
    qkv = [
        torch.from_numpy(rng.standard_normal(shape))
        for shape in ((2, 6, 5, 4), (2, 3, 9, 4), (2, 3, 9, 6))
    ]
    some = rng.random((2, 1, 5, 9)) < 0.6
    some[..., 0] = True
    for mask in (None, some, some[:, :, :1], np.where(some, 0.3, -np.inf), some[:1] * 2.5):
        mask = None if mask is None else torch.from_numpy(np.ascontiguousarray(mask))
        for causal in (False, True) if mask is None else (False,):
            options = {"attn_mask": mask, "is_causal": causal, "enable_gqa": True}
            ours = scaled_dot_product_attention(*qkv, rule=TIGHT, **options)
            assert torch.allclose(ours, theirs(*qkv, **options), rtol=0.0, atol=1e-8)


def test_tensors_of_any_layout_stay_as_they_are(torch):
    qkv = [torch.from_numpy(x) for x in arrays()]
    want = scaled_dot_product_attention(*qkv)
    before = [x.clone() for x in qkv]
    for same in (
        [x.repeat_interleave(2, dim=1)[:, ::2] for x in qkv],
        [x.mT.contiguous().mT for x in qkv],
        [(-x)._neg_view() for x in qkv],
        [x.clone().requires_grad_() for x in qkv],
    ):
        with torch.no_grad():
            got = scaled_dot_product_attention(*same)
        assert torch.equal(got, want)
        assert not got.requires_grad
    expanded = qkv[0][:1].expand(2, 9, 4)
    again = scaled_dot_product_attention(expanded.contiguous(), *qkv[1:])
    assert torch.equal(scaled_dot_product_attention(expanded, *qkv[1:]), again)
    assert all(torch.equal(x, y) for x, y in zip(qkv, before, strict=True))
    want += 1.0  # it is the caller's


def test_tensors_that_cannot_be_answered(torch):
    q, k, v = (torch.from_numpy(x) for x in arrays())
    with pytest.raises(ValueError, match=r"key.*requires_grad.*no_grad"):
        scaled_dot_product_attention(q, k.clone().requires_grad_(), v)
    with pytest.raises(TypeError, match=r"query.*dense.*sparse"):
        scaled_dot_product_attention(q.to_sparse(), k, v)
    with pytest.raises(TypeError, match=r"key.*array of torch.*numpy"):
        scaled_dot_product_attention(q, k.numpy(), v)
    with pytest.raises(TypeError, match=r"query|key.*array of numpy.*torch"):
        scaled_dot_product_attention(q.numpy(), k, v.numpy())
    with pytest.raises(TypeError, match=r"attn_mask.*torch.*numpy"):
        scaled_dot_product_attention(q, k, v, np.ones((9, 20), bool))
    with pytest.raises(TypeError, match=r"value.*torch\.float64.*torch\.bfloat16"):
        scaled_dot_product_attention(q, k, v.bfloat16())
    with pytest.raises(TypeError, match=r"key.*torch\.bfloat16.*torch\.float32"):
        scaled_dot_product_attention(q.bfloat16(), k.float(), v.float())
    with pytest.raises(TypeError, match=r"query.*floats.*int64"):
        scaled_dot_product_attention(q.long(), k, v)
    with pytest.raises(ValueError, match=r"value.*finite.*nan"):
        scaled_dot_product_attention(q, k, v * torch.nan)


# Others


def test_bfloat16_of_numpy():
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    qkv = [x.astype(bfloat16) for x in arrays()]
    for mask in every_mask():
        got = scaled_dot_product_attention(*qkv, mask, rule=TIGHT)
        assert got.dtype == bfloat16
        assert np.abs(got.astype(float) - truth(*qkv, mask)).max() <= UNITS["bfloat16"]


def test_an_array_api_library():
    xp = pytest.importorskip("array_api_strict")
    qkv = arrays()
    for mask in every_mask():
        theirs = None if mask is None else xp.asarray(mask)
        got = scaled_dot_product_attention(*(xp.asarray(x) for x in qkv), theirs)
        assert type(got) is type(xp.asarray(qkv[0]))
        assert got.dtype == xp.float64
        want = scaled_dot_product_attention(*qkv, mask)
        assert np.array_equal(np.from_dlpack(got), want)


class OnDevice:
    """An array that speaks DLPack, of a device that numpy cannot read, as a GPU library has it."""

    def __init__(self, array):
        self.array = np.asarray(array)
        self.dtype, self.device = self.array.dtype, "device 3"

    def __dlpack__(self, **options):
        raise BufferError("a device")

    def __dlpack_device__(self):
        return (2, 3)

    def get(self):
        return self.array.copy()

    def __array_namespace__(self):
        return Library


class Library:
    @staticmethod
    def asarray(array, *, dtype, device):
        assert device == "device 3"
        return OnDevice(np.asarray(array, dtype))


class OlderArray(OnDevice):
    """As above, from before the array API; new arrays go to the current device."""

    current = None
    __array_namespace__ = property()

    class Device:
        def __enter__(self):
            OlderArray.current = self

        def __exit__(self, *reason):
            OlderArray.current = None

    def __init__(self, array):
        super().__init__(array)
        self.device = OlderArray.current or OlderArray.Device()


def asarray(array, dtype):
    assert OlderArray.current is not None
    return OlderArray(np.asarray(array, dtype))


@pytest.mark.parametrize("kind", [OnDevice, OlderArray])
def test_arrays_on_a_device_come_to_the_host_and_go_back(kind, monkeypatch):
    monkeypatch.setitem(sys.modules, "tests", sys.modules[__name__])
    qkv = arrays(np.float32)
    given = [kind(x) for x in qkv]
    got = scaled_dot_product_attention(*given)
    assert type(got) is kind
    if kind is OlderArray:
        assert got.device is not OlderArray.current
    assert got.dtype == np.float32
    assert np.array_equal(got.get(), scaled_dot_product_attention(*qkv))
