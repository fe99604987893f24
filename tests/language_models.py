"""Language models with random weights, for interpreted kernels too; and how to ask them."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from attention import Error, huggingface
from attention.huggingface import HSRCache, HSRConfig
from attention.studies.language_model import cache_argument

from .sizes import JIT

LENGTH = 90 if JIT else 30
"""Tokens of a prompt: more than a tile with JIT, so that some have codes."""

NEW = 8 if JIT else 4
"""Tokens that are generated."""

EXACT = HSRConfig(prefill=Error(1e-7), decode=Error(1e-7), dense_below=0)
"""Errors far below what tells two tokens apart."""

SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}


def make(kind=LlamaForCausalLM, config=LlamaConfig, seed=0, dtype=torch.float32, **more):
    """A model with random weights, not in training."""
    torch.manual_seed(seed)
    return kind(config(**SIZES | more)).eval().to(dtype)


def prompt(rows=1, length=LENGTH, seed=1):
    """Tokens (rows, length), none of them padding."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, SIZES["vocab_size"], (rows, length), generator=generator)


def padded(lengths, seed=1):
    """Tokens with padding at the left, and the mask that says so."""
    longest = max(lengths)
    ids, mask = prompt(len(lengths), longest, seed), torch.ones(len(lengths), longest).long()
    for row, length in enumerate(lengths):
        ids[row, : longest - length] = 0
        mask[row, : longest - length] = 0
    return ids, mask


@torch.no_grad()
def logits(model, implementation, ids, cache=None, **more):
    """Logits of all tokens."""
    model.set_attn_implementation(implementation)
    kept = {} if cache is None else {cache_argument(model): cache}
    return model(input_ids=ids, use_cache=cache is not None, **kept, **more).logits


def generated(model, implementation, ids, mask=None, cache=None, new=NEW, **more):
    """Tokens that follow the prompt, greedily unless it says otherwise."""
    model.set_attn_implementation(implementation)
    kept = {} if cache is None else {cache_argument(model): cache}
    mask = torch.ones_like(ids) if mask is None else mask
    options = {"do_sample": False, "max_new_tokens": new, "min_new_tokens": new} | more
    with torch.no_grad():
        return model.generate(ids, attention_mask=mask, **kept, **options)[:, ids.shape[1] :]


def register(config=EXACT, name="hsr"):
    """Register settings, and return an empty cache for a model."""
    huggingface.register(config, name)
    return lambda model: HSRCache(model.config)
