"""Arrays of other libraries: in through DLPack, and the answer out in the kind that came.

No library is imported here. A tensor of torch is one only if its owner has loaded torch.
"""

import sys
from contextlib import nullcontext
from types import ModuleType
from typing import Any

import numpy as np

from halfspace.inputs import as_array

CPU = 1
"""DLPack's kDLCPU."""


def _torch_of(array: object) -> ModuleType | None:
    """Return torch, if `array` is one of its tensors."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and isinstance(array, torch.Tensor) else None


def _is_foreign(array: object) -> bool:
    return hasattr(array, "__dlpack__") and not isinstance(array, np.ndarray | np.generic)


def library(array: object) -> str:
    """Name of the library that an array belongs to; "numpy" for whatever numpy is to convert.

    Examples
    --------
    >>> from attention.interop import library
    >>> library([[1.0]])
    'numpy'
    """
    if _torch_of(array) is not None:
        return "torch"
    return type(array).__module__.partition(".")[0] if _is_foreign(array) else "numpy"


def _from_torch(torch: ModuleType, tensor: Any, name: str) -> np.ndarray:
    if tensor.layout is not torch.strided:
        raise TypeError(f"{name}: expected a dense tensor, got one of layout {tensor.layout}")
    if tensor.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            f"{name}: expected a tensor without gradient, as there is no backward pass, "
            "got requires_grad=True; use torch.no_grad() or detach()"
        )
    tensor = tensor.detach()
    # numpy has no bfloat16, and float32 holds every one.
    tensor = tensor.float() if tensor.dtype is torch.bfloat16 else tensor
    return np.from_dlpack(tensor.cpu().resolve_neg().resolve_conj())


def to_numpy(array: object, name: str) -> np.ndarray:
    """`array` on the host, without a copy where it is there already.

    Parameters
    ----------
    array : array_like
        Of numpy, or of any library that speaks DLPack; on any device. bfloat16 of torch becomes
        float32, that of others stays what they make of it.
    name : str
        For errors.

    Raises
    ------
    TypeError
        A tensor that is not dense.
    ValueError
        A tensor of torch that asks for its gradient.

    Examples
    --------
    >>> from attention.interop import to_numpy
    >>> to_numpy([[1.0, 2.0]], "query").shape
    (1, 2)
    """
    torch = _torch_of(array)
    if torch is not None:
        return _from_torch(torch, array, name)
    if not _is_foreign(array):
        return as_array(array, name)
    if str(array.dtype).endswith("bfloat16"):
        return np.asarray(array)
    if array.__dlpack_device__()[0] == CPU:
        return np.from_dlpack(array)
    # cupy's way first, for numpy knows how to ask for a copy to the host only since 2.1.
    return array.get() if hasattr(array, "get") else np.from_dlpack(array, device="cpu")


def to_kind_of(array: Any, result: np.ndarray) -> Any:
    """`result` as an array of the library, dtype and device of `array`.

    Parameters
    ----------
    array : array_like
        What came in.
    result : ndarray
        Float, on the host, and nobody else's.

    Examples
    --------
    >>> import numpy as np
    >>> from attention.interop import to_kind_of
    >>> to_kind_of(np.ones(2, np.float16), np.array([0.1])).dtype
    dtype('float16')
    """
    torch = _torch_of(array)
    if torch is not None:
        return torch.from_dlpack(result).to(dtype=array.dtype, device=array.device)
    if not _is_foreign(array):
        return result.astype(np.asarray(array).dtype.newbyteorder("="), copy=False)
    if hasattr(array, "__array_namespace__"):
        namespace = array.__array_namespace__()
        return namespace.asarray(result, dtype=array.dtype, device=array.device)
    namespace = sys.modules[library(array)]
    with array.device if hasattr(array.device, "__enter__") else nullcontext():
        return namespace.asarray(result, dtype=array.dtype)
