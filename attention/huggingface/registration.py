"""register(): make ``attn_implementation="hsr"`` known to transformers."""

from transformers import AttentionInterface, AttentionMaskInterface

from .forward import HSRAttention
from .masks import hsr_mask
from .settings import HSRConfig


def register(config: HSRConfig | None = None, name: str = "hsr") -> None:
    """Make ``attn_implementation=name`` work in transformers, with these settings.

    Parameters
    ----------
    config : HSRConfig, optional
        ``HSRConfig()`` if not given: ``Error(1e-3)`` in all layers.
    name : str, optional
        Several names may have settings of their own. Registered again, a name has the new ones,
        also in models that were loaded before.

    Raises
    ------
    TypeError
        Not an `HSRConfig`.

    Examples
    --------
    >>> import attention.huggingface
    >>> from attention import TopR
    >>> from attention.huggingface import HSRConfig
    >>> attention.huggingface.register()
    >>> attention.huggingface.register(HSRConfig(decode=TopR(64)), "hsr-64")
    """
    config = HSRConfig() if config is None else config
    if not isinstance(config, HSRConfig):
        raise TypeError(f"config: expected an HSRConfig, got {type(config).__name__}")
    AttentionInterface.register(name, HSRAttention(config))
    AttentionMaskInterface.register(name, hsr_mask)
