"""Train a small language model: ``python -m attention.data.train --text FOLDER --folder OUT``.

Needs torch and transformers (the extra ``torch``). The result is a folder for ``from_pretrained``,
as `attention.data.tiny_llama` is one: Llama's architecture, grouped key heads, rotary positions,
a byte-level BPE tokenizer trained on the same text. The seed, the text and the number of threads
determine it. Every size is a flag, so that the same script trains what a larger machine can hold.
"""

import argparse
import copy
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SUFFIXES = (".py", ".rst", ".md", ".txt")
"""Files of a folder that are read."""

SEPARATOR = "<|doc|>"
"""Token between documents."""

FLOOR = 0.03
"""Share of the learning rate that is left in the end."""


class Stage(NamedTuple):
    """Steps of training on sequences of one length."""

    context: int
    steps: int

    @classmethod
    def parse(cls, text: str) -> "Stage":
        """Read "CONTEXT:STEPS".

        Examples
        --------
        >>> from attention.data.train import Stage
        >>> Stage.parse("512:1000")
        Stage(context=512, steps=1000)
        """
        try:
            stage = cls(*map(int, text.split(":")))
        except (TypeError, ValueError):
            raise argparse.ArgumentTypeError(f"expected CONTEXT:STEPS, got {text!r}") from None
        if min(stage) < 1:
            raise argparse.ArgumentTypeError(f"expected numbers of at least 1, got {text!r}")
        return stage


STAGES = (Stage(512, 2400), Stage(1024, 1000), Stage(4096, 550))
"""Long sequences come last: the first ones teach most of what there is to learn, for less."""


def documents(paths: Iterable[Path]) -> Iterator[str]:
    """Yield the text of files, and of those in folders; what is not UTF-8 is left out.

    Raises
    ------
    FileNotFoundError
        A path that is not there.
    """
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"text: expected a file or a folder, got {path}")
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        for file in files:
            if file == path or (file.suffix in SUFFIXES and file.is_file()):
                try:
                    yield file.read_text(encoding="utf-8")
                except UnicodeDecodeError:
                    continue


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Train a byte-level BPE tokenizer with so many tokens; 0 separates documents."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[SEPARATOR],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> np.ndarray:
    """Tokens of all documents behind one another, with a separator after each; int64."""
    encoded = tokenizer.encode_batch(list(texts), add_special_tokens=False)
    separator = tokenizer.token_to_id(SEPARATOR)
    return np.concatenate([np.array([*each.ids, separator], np.int64) for each in encoded])


def batches(
    tokens: np.ndarray, stage: Stage, batch_tokens: int, rng: np.random.Generator
) -> Iterator[torch.Tensor]:
    """Yield sequences (rows, context) that begin anywhere, one batch a step.

    Raises
    ------
    ValueError
        There are not so many tokens.
    """
    if len(tokens) < stage.context:
        raise ValueError(f"text: expected at least {stage.context} tokens, got {len(tokens)}")
    rows = max(1, batch_tokens // stage.context)
    for _ in range(stage.steps):
        starts = rng.integers(0, len(tokens) - stage.context + 1, size=rows)
        yield torch.from_numpy(np.stack([tokens[i : i + stage.context] for i in starts]))


def rate(step: int, steps: int) -> float:
    """Share of the learning rate: all of it for the first half, then linearly down.

    Examples
    --------
    >>> from attention.data.train import rate
    >>> rate(0, 100), rate(50, 100), round(rate(99, 100), 2)
    (1.0, 1.0, 0.05)
    """
    return 1.0 - (1.0 - FLOOR) * max(0.0, 2.0 * step / steps - 1.0)


def make_model(options: argparse.Namespace, vocabulary: int) -> LlamaForCausalLM:
    """A model with random weights."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=options.hidden,
            intermediate_size=options.intermediate,
            num_hidden_layers=options.layers,
            num_attention_heads=options.heads,
            num_key_value_heads=options.kv_heads,
            head_dim=options.head_dim,
            max_position_embeddings=32_768,
            rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=None,
            attn_implementation="sdpa",
        )
    )


def train(
    model: LlamaForCausalLM, tokens: np.ndarray, options: argparse.Namespace
) -> Iterator[tuple[int, float]]:
    """Train, and yield the number of steps done and the loss after each."""
    steps = sum(stage.steps for stage in options.stage)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=options.rate, betas=(0.9, 0.95), weight_decay=0.05
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps))
    rng, step = np.random.default_rng(options.seed), 0
    model.train()
    for stage in options.stage:
        for ids in batches(tokens, stage, options.batch_tokens, rng):
            ids = ids.to(model.device)
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            yield step, loss.item()


def save(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Write weights, in bfloat16, and the tokenizer."""
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)


def parser() -> argparse.ArgumentParser:
    """Flags, with the sizes of the model that ships."""
    parse = argparse.ArgumentParser("python -m attention.data.train", description=__doc__)
    add = parse.add_argument
    add("--text", type=Path, nargs="+", required=True, help="files, and folders of them")
    add("--folder", type=Path, required=True, help="where the model goes")
    add("--stage", type=Stage.parse, nargs="+", default=STAGES, help="CONTEXT:STEPS, in turn")
    add("--batch-tokens", type=int, default=4096, help="tokens a step")
    add("--vocabulary", type=int, default=4096, help="tokens of the tokenizer")
    add("--layers", type=int, default=4)
    add("--hidden", type=int, default=256)
    add("--intermediate", type=int, default=704)
    add("--heads", type=int, default=4)
    add("--kv-heads", type=int, default=2)
    add("--head-dim", type=int, default=64)
    add("--rate", type=float, default=3e-3, help="largest learning rate")
    add("--seed", type=int, default=0)
    add("--device", default="cpu")
    add("--report", type=int, default=50, help="steps between lines printed")
    add("--checkpoint", type=int, default=0, help="steps between models kept; 0: only the last")
    return parse


def main(arguments: Sequence[str] | None = None) -> None:
    """Train as the flags say, and write the model."""
    options = parser().parse_args(arguments)
    torch.manual_seed(options.seed)
    texts = list(documents(options.text))
    if not texts:
        sys.exit(f"text: expected files {', '.join(SUFFIXES)} in UTF-8, got none")
    tokenizer = train_tokenizer(texts, options.vocabulary)
    tokens = encode(tokenizer, texts)
    model = make_model(options, tokenizer.get_vocab_size()).to(options.device)
    print(f"{len(texts)} documents, {len(tokens):,} tokens, {model.num_parameters():,} parameters")
    start = time.perf_counter()
    for step, loss in train(model, tokens, options):
        if step % options.report == 0:
            print(f"step {step}: loss {loss:.3f}, {time.perf_counter() - start:.0f} s", flush=True)
        if options.checkpoint and step % options.checkpoint == 0:
            save(model, tokenizer, options.folder / f"step-{step}")
    save(model, tokenizer, options.folder)
    print(f"{options.folder}: {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
