"""Checks of scaled_dot_product_attention's arguments: one clear exception, before any work."""

import math
from typing import NamedTuple

import numpy as np

from halfspace.inputs import as_real, check_finite

from . import interop
from .inputs import check_real, check_scale
from .masks import unrepeated


class Inputs(NamedTuple):
    """Checked arrays on the host, and which heads meet. Heads are counted over all leading axes."""

    query: np.ndarray  # (queries, length, head_dim) float32 or float64
    key: np.ndarray  # (keys, n, head_dim)
    value: np.ndarray  # (values, n, value_dim)
    mask: np.ndarray | None  # broadcasts to (*batch, length, n); bool or float
    batch: tuple[int, ...]
    reads: np.ndarray  # (prod(batch), 3) int64: query, key and value head of each output


def check_options(dropout_p: object, is_causal: object, enable_gqa: object, mask: object) -> None:
    """Check what is neither an array nor a scale."""
    if not np.isscalar(dropout_p) or dropout_p != 0.0:
        raise ValueError(f"dropout_p: expected 0, as there is no dropout, got {dropout_p!r}")
    for value, name in ((is_causal, "is_causal"), (enable_gqa, "enable_gqa")):
        if not isinstance(value, bool | np.bool_):
            raise TypeError(f"{name}: expected True or False, got {value!r}")
    if is_causal and mask is not None:
        raise ValueError("attn_mask: expected None with is_causal=True, got both")


def check_any_scale(scale: float | None, head_dim: int) -> float:
    """Return the scale: finite, of any sign, 1 / sqrt(head_dim) for None."""
    value = check_scale(None, head_dim) if scale is None else check_real(scale, "scale")
    if not math.isfinite(value):
        raise ValueError(f"scale: expected a finite number, got {scale}")
    return value


def check_inputs(query: object, key: object, value: object, mask: object, group: bool) -> Inputs:
    """Check arrays (..., length, dim) of any library against one another.

    Raises
    ------
    TypeError
        Libraries or dtypes that differ; not floats; a mask of neither booleans nor floats.
    ValueError
        Shapes that do not fit; NaN or infinities, which only a mask may hold (``-inf``).
    """
    given = {"query": query, "key": key, "value": value}
    _check_libraries(given if mask is None else given | {"attn_mask": mask})
    arrays = {name: interop.to_numpy(array, name) for name, array in given.items()}
    _check_dtypes(given, arrays)
    _check_shapes(**arrays)
    q, k, v = arrays.values()
    if group:
        _check_groups(q, k, v)
    shapes = [q.shape[:-2], *(_repeated(x.shape[:-2], q.shape, group) for x in (k, v))]
    batch = _broadcast(shapes, q, k, v)
    if mask is not None:
        mask = _as_mask(interop.to_numpy(mask, "attn_mask"), (*batch, q.shape[-2], k.shape[-2]))
    heads = [_as_finite(array, name) for name, array in arrays.items()]
    reads = [_heads_read(x.shape[:-2], s, batch) for x, s in zip((q, k, v), shapes, strict=True)]
    return Inputs(*heads, mask, batch, np.stack(reads, axis=-1))


def _check_libraries(given: dict[str, object]) -> None:
    first = interop.library(given["query"])
    for name, array in given.items():
        if interop.library(array) != first:
            raise TypeError(
                f"{name}: expected an array of {first} as of query, "
                f"got one of {interop.library(array)}"
            )


def _check_dtypes(given: dict[str, object], arrays: dict[str, np.ndarray]) -> None:
    dtypes = {}
    for name, array in arrays.items():
        if array.dtype.kind != "f" and array.dtype.name != "bfloat16":
            raise TypeError(f"{name}: expected floats, got {array.dtype}")
        # bfloat16 of torch came as float32; what came for it says which.
        native = array.dtype.newbyteorder("=")
        dtypes[name] = getattr(given[name], "dtype", native) if array is not given[name] else native
    for name, dtype in dtypes.items():
        if dtype != dtypes["query"]:
            raise TypeError(f"{name}: expected dtype {dtypes['query']} as of query, got {dtype}")


def _check_shapes(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> None:
    for array, name in ((query, "query"), (key, "key"), (value, "value")):
        if array.ndim < 2:
            raise ValueError(f"{name}: expected shape (..., length, dim), got shape {array.shape}")
    if key.shape[-1] == 0:
        raise ValueError(f"key: expected shape (..., d) with d >= 1, got {key.shape}")
    if query.shape[-1] != key.shape[-1]:
        raise ValueError(
            f"query: expected head_dim {key.shape[-1]} as of key, got {query.shape[-1]}"
        )
    if value.shape[-2] != key.shape[-2]:
        raise ValueError(
            f"value: expected {key.shape[-2]} rows a head as of key, got {value.shape[-2]}"
        )


def _check_groups(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> None:
    for array, name in ((query, "query"), (key, "key"), (value, "value")):
        if array.ndim < 3:
            raise ValueError(
                f"{name}: expected shape (..., heads, length, dim) with enable_gqa=True, "
                f"got shape {array.shape}"
            )
    heads = query.shape[-3]
    for array, name in ((key, "key"), (value, "value")):
        if heads % array.shape[-3] if array.shape[-3] else heads:
            raise ValueError(
                f"query: expected a multiple of {name}'s {array.shape[-3]} heads, got {heads}"
            )


def _repeated(heads: tuple[int, ...], query: tuple[int, ...], group: bool) -> tuple[int, ...]:
    """Leading shape of keys or values once heads are repeated to be as many as queries have."""
    return (*heads[:-1], query[-3]) if group else heads


def _broadcast(shapes: list[tuple[int, ...]], *arrays: np.ndarray) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        given = ", ".join(str(array.shape) for array in arrays)
        raise ValueError(
            "query, key, value: expected leading axes that broadcast (different numbers of heads "
            f"need enable_gqa=True), got shapes {given}"
        ) from None


def _heads_read(
    heads: tuple[int, ...], repeated: tuple[int, ...], batch: tuple[int, ...]
) -> np.ndarray:
    """Which head each of the batch reads, (prod(batch),)."""
    places = np.arange(math.prod(heads)).reshape(heads)
    if repeated != heads:
        places = np.repeat(places, repeated[-1] // heads[-1] if heads[-1] else 0, axis=-1)
    return np.broadcast_to(places, batch).ravel()


def _as_mask(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if mask.dtype != np.bool_ and mask.dtype.kind != "f" and mask.dtype.name != "bfloat16":
        raise TypeError(f"attn_mask: expected booleans or floats, got {mask.dtype}")
    try:
        fits = mask.ndim >= 2 and np.broadcast_shapes(mask.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"attn_mask: expected at least two axes that broadcast to {shape}, "
            f"got shape {mask.shape}"
        )
    mask = unrepeated(mask)
    if mask.dtype == np.bool_:
        return mask
    mask = as_real(mask, "attn_mask")
    # NaN, too, is not below infinity, and the largest is NaN where there is one.
    if mask.size and not mask.max() < math.inf:
        at = tuple(np.argwhere(~(mask < math.inf))[0].tolist())
        raise ValueError(f"attn_mask: expected finite numbers or -inf, got {mask[at]} at {at}")
    return mask


def _as_finite(array: np.ndarray, name: str) -> np.ndarray:
    """`array` (..., length, dim) as float32 or float64 (heads, length, dim), finite."""
    wide = as_real(array, name)
    heads = wide.reshape(math.prod(wide.shape[:-2]), *wide.shape[-2:])
    # One head after another: the row that is named counts within its own.
    for head in heads:
        check_finite(head, name)
    return heads
