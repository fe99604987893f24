"""Generation beside dense attention: `python -m attention.huggingface.beside_dense --text FILE`.

A model of transformers goes on with a text: the same tokens or not, what each layer and head read,
and processor time. Beams, assisted decoding and a padded batch are set beside dense attention too.
Exits with 1 where any of them has other tokens.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from ..data import tiny_llama
from ..rules import Error
from ..studies import texts
from ..studies.language_model import cache_argument
from . import HSRCache, HSRConfig, register, statistics

BEAMS = 3

GUESSED = 5
"""Tokens that prompt lookup guesses at once."""


@torch.no_grad()
def generated(
    model: PreTrainedModel, name: str, ids: torch.Tensor, new: int, **options: Any
) -> tuple[list[list[int]], float]:
    """Tokens that follow, and the processor time that took."""
    model.set_attn_implementation(name)
    if name == "hsr":
        options[cache_argument(model)] = HSRCache(model.config)
    options = {"attention_mask": torch.ones_like(ids), "do_sample": False} | options
    start = time.process_time()
    out = model.generate(ids, max_new_tokens=new, min_new_tokens=new, pad_token_id=0, **options)
    return out[:, ids.shape[1] :].tolist(), time.process_time() - start


def padded_pair(ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """The prompt, and below it the second half of it behind padding."""
    half = ids.shape[1] // 2
    pair, mask = ids.repeat(2, 1), torch.ones(2, ids.shape[1], dtype=torch.long)
    pair[1, :half], mask[1, :half] = 0, 0
    return {"ids": pair, "attention_mask": mask}


def parser() -> argparse.ArgumentParser:
    """Flags."""
    parse = argparse.ArgumentParser("python -m attention.huggingface.beside_dense")
    parse.add_argument("--model", default=str(tiny_llama()), help="folder or name on the hub")
    parse.add_argument("--text", default="topics", help="topics, source, numbers, or a file")
    parse.add_argument("--prompt", type=int, default=4000, help="tokens")
    parse.add_argument("--new", type=int, default=200, help="tokens")
    parse.add_argument("--eps", type=float, default=1e-4)
    parse.add_argument("--dtype", default="float32")
    return parse


def main(arguments: Sequence[str] | None = None) -> None:
    """Generate in every way, and print what came."""
    options = parser().parse_args(arguments)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    ids = tokenizer(texts.read(options.text), return_tensors="pt", verbose=False)["input_ids"]
    ids = ids[:, : options.prompt]
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=options.dtype).eval()
    rule = Error(options.eps)
    register(HSRConfig(prefill=rule, decode=rule))
    generated(model, "hsr", ids, 2)  # compiles
    ways = {
        "greedy": {"ids": ids},
        f"{BEAMS} beams": {"ids": ids, "num_beams": BEAMS},
        "prompt lookup": {"ids": ids, "prompt_lookup_num_tokens": GUESSED},
        "padded batch": padded_pair(ids),
    }
    alike = True
    for way, more in ways.items():
        with statistics() as read:
            got, sparse = generated(model, "hsr", new=options.new, **more)
        expected, dense = generated(model, "sdpa", new=options.new, **more)
        same = int((torch.tensor(got) == torch.tensor(expected)).sum())
        alike &= got == expected
        print(
            f"{way}: {same} of {sum(map(len, got))} tokens the same; {sparse:.1f} s of processor"
            f" time, dense {dense:.1f} s",
            flush=True,
        )
        if way == "greedy":
            print(read)
    sys.exit(0 if alike else 1)


if __name__ == "__main__":
    main()
