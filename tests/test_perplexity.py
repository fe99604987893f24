"""The study of perplexity: its numbers against plain torch, its table, picture and findings."""

import math

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from attention import Error, TopR, data
from attention.__main__ import main
from attention.huggingface import beside_dense
from attention.studies import language_model, report

from .language_models import make, prompt

CONTEXT = 24


@pytest.fixture
def reader(monkeypatch):
    monkeypatch.setattr(language_model, "CHUNK", 10)
    return language_model.Reader(make(), prompt(2, CONTEXT))


@torch.no_grad()
def test_perplexity_is_that_of_whole_windows(reader):
    losses = [
        torch.nn.functional.cross_entropy(reader.model(window[None, :-1]).logits[0], window[1:])
        for window in reader.windows
    ]
    expected = math.exp(sum(losses) / len(losses))
    assert language_model.perplexity(reader) == pytest.approx(expected, rel=1e-5)
    got = language_model.perplexity_by(reader, Error(1e-6))
    assert got.perplexity == pytest.approx(expected, rel=1e-5)
    assert got.bound <= 1e-6
    few = language_model.perplexity_by(reader, TopR(2))
    assert few.perplexity != pytest.approx(expected, rel=1e-3)
    seen = CONTEXT * (CONTEXT - 1) / 2
    assert few.read == pytest.approx(np.full((2, 4), (2 * (CONTEXT - 1) - 1) / seen))


@torch.no_grad()
def test_mass_is_that_of_the_best_keys(reader):
    ids = reader.windows[:1, :-1]
    reader = reader._replace(windows=reader.windows[:1])
    got = language_model.mass_of_best(reader, CONTEXT)
    reader.model.set_attn_implementation("eager")
    weights = reader.model(ids, output_attentions=True).attentions
    for layer, each in enumerate(weights):
        for head, rows in enumerate(each[0].double().numpy()):
            best = [np.sort(row)[::-1][: TopR().count(i + 1)] for i, row in enumerate(rows)]
            expected = np.mean([part.sum() for part in best])
            assert got[layer, head] == pytest.approx(expected, rel=1e-5)


def test_the_command_reads_the_packaged_model(tmp_path, monkeypatch):
    model = _small(tmp_path / "model")
    monkeypatch.setattr(data, "tiny_llama", lambda: model)
    text = tmp_path / "text.txt"
    text.write_text("def f(x):\n    return x + 1\n" * 9, encoding="utf-8")
    flags = f"--text {text} --r 2,8,16 --eps 0.1 --sampled 1.0 --tokens 64 --context 32".split()
    result = CliRunner().invoke(
        main, ["study", "perplexity", *flags, "--folder", str(tmp_path)], catch_exceptions=False
    )
    assert result.exit_code == 0
    assert "TopR(16)" in result.output
    assert "layer 1, head 3, Error(0.1)" in result.output
    found = report.read(tmp_path / "perplexity.json")
    assert [row.kind for row in found.rows] == [
        *["dense", "TopR", "TopR", "TopR", "Error", "Sampled"],
        *["head"] * 8,
    ]
    assert (tmp_path / "perplexity.png").stat().st_size > 1000
    assert f"--text {text}" in (tmp_path / "perplexity.md").read_text(encoding="utf-8")


def _small(folder):
    """A model with random weights that has the packaged one's tokenizer."""
    make(vocab_size=4096).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((data.tiny_llama() / name).read_bytes())
    return folder


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--model nowhere/to-be/found", "model: expected a folder or a name"),
        (
            "--text nowhere.txt",
            "texts: expected topics, source, numbers, docstrings or a text file, got nowhere.txt",
        ),
        ("--text few", "text: expected at least 16 tokens"),
        ("--context 1", "context: expected at least 2"),
        ("--r 0", "r: expected at least 1"),
        ("--eps -1", "eps: expected a number"),
        ("--r , --eps , --sampled ,", "expected a value of one of them, got none"),
    ],
)
def test_what_cannot_be_run_is_refused(flags, message, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "few").write_text("few", encoding="utf-8")
    words = ["study", "perplexity", "--quick", "--context", "16", *flags.split()]
    result = CliRunner().invoke(main, words)
    assert result.exit_code != 0
    assert message in result.output.replace("\n", " ")


def test_generation_is_set_beside_dense_attention(tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("def f(x):\n    return x + 1\n" * 9, encoding="utf-8")
    model = _small(tmp_path / "model")
    flags = f"--model {model} --text {text} --prompt 20 --new 4 --eps 1e-6".split()
    with pytest.raises(SystemExit) as stop:
        beside_dense.main(flags)
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "greedy: 4 of 4 tokens the same" in printed
    assert "padded batch: 8 of 8 tokens the same" in printed


def test_the_packaged_model_speaks():
    text = "    def __init__(self, name):\n        self.name = name\n"
    reader = language_model.read_text(
        str(data.tiny_llama()), text * 4, tokens=64, context=64, dtype="float32", device="cpu"
    )
    assert reader.model.num_parameters() == 4_000_000
    assert language_model.perplexity(reader) < 60
