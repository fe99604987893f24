"""What an attention mask means: the causal one behind left padding, or anything else.

Padding at the left of a row takes its first keys away from all its queries; the rest is causal. So
such a row is a shorter sequence, and needs no mask.
"""

import torch

_KNOWN = "_hsr_starts"
"""Attribute of a mask that keeps its version and what was found: all layers get the same mask."""


def left_padding(mask: torch.Tensor) -> list[int] | None:
    """First key of each row of the batch, where a mask is causal but for left padding.

    Parameters
    ----------
    mask : torch.Tensor, shape (batch, 1, length, n)
        Booleans: true for keys that take part. The last query is at the last key.

    Returns
    -------
    list of int or None
        None where the mask is of any other kind.

    Notes
    -----
    O(batch length n), once a mask as long as that stays as it is.

    Examples
    --------
    >>> import torch
    >>> from attention.huggingface.patterns import left_padding
    >>> causal = torch.ones(2, 1, 3, 3, dtype=torch.bool).tril()
    >>> causal[1, ..., 0] = False
    >>> left_padding(causal), left_padding(~causal)
    ([0, 1], None)
    """
    # Tensors made in torch.inference_mode do not tell whether they were changed.
    version = None if mask.is_inference() else mask._version
    known = getattr(mask, _KNOWN, None)
    if known is None or version is None or known[0] != version:
        known = version, _find_starts(mask)
        setattr(mask, _KNOWN, known)
    return known[1]


def _find_starts(mask: torch.Tensor) -> list[int] | None:
    _, heads, length, n = mask.shape
    if mask.dtype is not torch.bool or heads != 1 or not 0 < length <= n:
        return None
    starts = mask[:, 0, -1].to(torch.uint8).argmax(-1)
    expected = causal(length, n, mask.device) & padded(starts, n)
    return starts.tolist() if torch.equal(mask[:, 0], expected) else None


def causal(length: int, n: int, device: torch.device) -> torch.Tensor:
    """Mask (length, n) of the last `length` of n tokens, each of which sees those up to itself."""
    return torch.ones(length, n, dtype=torch.bool, device=device).tril(n - length)


def padded(starts: torch.Tensor, n: int) -> torch.Tensor:
    """Mask (batch, 1, n) of keys from `starts` (batch,) on."""
    return torch.arange(n, device=starts.device) >= starts[:, None, None]
