"""Sparse attention in models of transformers: ``attn_implementation="hsr"``.

Needs torch and transformers (the extra ``torch``)::

    import attention.huggingface
    from attention.huggingface import HSRCache

    attention.huggingface.register()
    model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="hsr")
    model.generate(**inputs, past_key_values=HSRCache(model.config))
"""

from .cache import HSRCache
from .registration import register
from .settings import HSRConfig, LayerRules
from .statistics import LayerStatistics, Statistics, statistics

__all__ = [
    "HSRCache",
    "HSRConfig",
    "LayerRules",
    "LayerStatistics",
    "Statistics",
    "register",
    "statistics",
]
