"""The script that trains small language models."""

import numpy as np
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from attention.data import train

SMALL = (
    "--vocabulary 300 --layers 1 --hidden 16 --intermediate 16 --heads 2 --kv-heads 1 --head-dim 8"
    " --batch-tokens 64 --report 4 --checkpoint 12 --rate 0.01 --stage 16:12 32:4"
)


@pytest.fixture
def texts(tmp_path):
    folder = tmp_path / "texts"
    (folder / "deep").mkdir(parents=True)
    for i in range(4):
        (folder / "deep" / f"{i}.py").write_text("def f(x):\n    return x\n" * 20, encoding="utf-8")
    (folder / "image.png").write_bytes(b"\x89PNG")
    (folder / "latin.txt").write_bytes(b"caf\xe9")
    return folder


def run(texts, folder, capsys):
    train.main(["--text", str(texts), "--folder", str(folder), *SMALL.split()])
    return [
        float(line.split("loss ")[1].split(",")[0])
        for line in capsys.readouterr().out.splitlines()
        if "loss" in line
    ]


def test_a_model_is_trained_again_alike(texts, tmp_path, capsys):
    losses = run(texts, tmp_path / "one", capsys)
    assert len(losses) == 4
    assert losses[-1] < losses[0]
    assert run(texts, tmp_path / "two", capsys) == losses
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two
    for folder in (tmp_path / "one", tmp_path / "one" / "step-12"):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        ids = tokenizer("def f(x):", return_tensors="pt")["input_ids"]
        assert tokenizer.decode(ids[0]) == "def f(x):"
        model = AutoModelForCausalLM.from_pretrained(folder)
        assert model(ids).logits.shape == (1, ids.shape[1], tokenizer.vocab_size)
        assert str(model.dtype) == "torch.bfloat16"


def test_what_cannot_be_trained_on_is_refused(tmp_path, capsys):
    with pytest.raises(FileNotFoundError, match="text: expected a file or a folder"):
        list(train.documents([tmp_path / "nothing"]))
    with pytest.raises(SystemExit, match="got none"):
        train.main(["--text", str(tmp_path), "--folder", str(tmp_path)])
    for stage in ("16", "16:0", "a:b"):
        with pytest.raises(SystemExit):
            train.parser().parse_args(["--text", "a", "--folder", "b", "--stage", stage])
    assert "expected CONTEXT:STEPS" in capsys.readouterr().err
    short = train.batches(np.arange(3), train.Stage(4, 1), 8, np.random.default_rng(0))
    with pytest.raises(ValueError, match="expected at least 4 tokens, got 3"):
        next(short)
