"""Heads of transformers models, and a small model trained here: what they hand over is theirs."""

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel

from attention.studies import capture, generality, heads, training

SIZES = training.Sizes(layers=2, heads=2, head_dim=4, context=24)

TEXT = "the cat sat on the mat. " * 20


class Bytes:
    """A tokenizer of bytes."""

    def __call__(self, text, **options):
        return {"input_ids": [*text.encode()]}


@pytest.fixture
def model_of(monkeypatch):
    """Put a small model with random weights in place of what a name stands for."""

    def put(model):
        monkeypatch.setattr(capture.AutoTokenizer, "from_pretrained", lambda name: Bytes())
        monkeypatch.setattr(
            capture.AutoModel, "from_pretrained", lambda name, **options: model.eval()
        )

    torch.manual_seed(0)
    return put


def llama():
    shape = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    sizes = {"vocab_size": 256, "hidden_size": 16, "intermediate_size": 8, "head_dim": 8}
    return LlamaModel(LlamaConfig(**shape, **sizes, max_position_embeddings=64))


def bert():
    shape = {"num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 20}
    return BertModel(BertConfig(vocab_size=256, hidden_size=16, intermediate_size=8, **shape))


@pytest.mark.parametrize(("make", "causal", "n"), [(llama, True, 40), (bert, False, 20)])
def test_captured_heads_are_the_models(make, causal, n, model_of):
    model = make()
    model_of(model)
    found = capture.of_model("folder/some", TEXT, "kind.txt", tokens=40, queries=4)
    layers, count = model.config.num_hidden_layers, model.config.num_attention_heads
    assert [head.name for head in found] == [
        f"{i}.{h}" for i in range(layers) for h in range(count)
    ]
    assert {head.source for head in found} == {"some kind"}
    assert all(head.key.shape[0] == n for head in found)
    wanted = [n // 2 + i for i in (3, 8, 13, 18)] if causal else [n] * 4
    assert found[0].lengths.tolist() == wanted
    # The last layer's attention, from its heads, is what the model itself gets.
    outputs = {}

    def keep(module, arguments):
        outputs["mixed"] = arguments[0][0]

    last = [each for name, each in model.named_modules() if name.endswith(LAST[make])][-1]
    handle = last.register_forward_pre_hook(keep)
    with torch.no_grad():
        model(input_ids=torch.tensor([[*TEXT.encode()][:n]]))
    handle.remove()
    positions = found[0].lengths - 1 if causal else heads.spread(n, 4)
    mine = np.concatenate([head.exact() for head in found[-count:]], axis=1)
    assert np.allclose(outputs["mixed"][positions].numpy(), mine, atol=1e-5)


LAST = {llama: "o_proj", bert: "attention.output.dense"}
"""What takes the heads' outputs."""


def test_models_and_texts_that_do_not_do(model_of, tmp_path):
    with pytest.raises(ValueError, match="models: expected a folder or a name, got"):
        capture.of_model(str(tmp_path / "none"), TEXT, "topics", tokens=10, queries=2)
    model_of(llama())
    with pytest.raises(ValueError, match="texts: expected at least 64 tokens in short, got 5"):
        capture.of_model("some", "short", "short", tokens=100, queries=2)


def test_models_are_heads_of_the_study(model_of):
    model_of(llama())
    found = heads.of_models(["a", "b"], ["topics", "numbers"], 32, 2)
    assert len(found) == 2 * 2 * 8
    assert [found[i].source for i in (0, 8, 16, 24)] == [
        "a topics",
        "a numbers",
        "b topics",
        "b numbers",
    ]


@pytest.mark.parametrize("kind", [training.SOFTMAX, training.RELU])
def test_training_learns_and_hands_over_its_heads(kind):
    points = list(training.train(TEXT, SIZES, kind, [0, 30], queries=3))
    assert [point.step for point in points] == [0, 30]
    assert points[0].loss == pytest.approx(np.log(training.BYTES), abs=0.2)
    assert points[1].loss < 0.8 * points[0].loss
    for point in points:
        assert [head.name for head in point.heads] == ["0.0", "0.1", "1.0", "1.1"]
        assert all(head.source == kind for head in point.heads)
        assert point.heads[0].lengths.tolist() == [15, 19, 23]
    again = list(training.train(TEXT, SIZES, kind, [0, 30], queries=3))
    assert again[1].loss == points[1].loss


@pytest.mark.parametrize("kind", [training.SOFTMAX, training.RELU])
def test_heads_give_the_blocks_attention(kind):
    torch.manual_seed(0)
    model = training.Model(SIZES, kind)
    ids = torch.arange(SIZES.context + 1)
    found = training.heads_of(model, ids, queries=3)[:2]
    taken = {}
    handle = model.blocks[0].out.register_forward_pre_hook(
        lambda module, arguments: taken.update(mixed=arguments[0][0])
    )
    with torch.no_grad():
        model(ids[None, :-1])
    handle.remove()
    weights = [generality.weights_of(head, kind == training.RELU) for head in found]
    mine = np.concatenate([w @ head.value for w, head in zip(weights, found, strict=True)], axis=1)
    positions = found[0].lengths - 1
    assert np.allclose(taken["mixed"][positions].numpy(), mine, atol=1e-3)


def test_a_text_too_short_to_train_on():
    with pytest.raises(ValueError, match="texts: expected 72 bytes to train, got 3"):
        next(training.train("abc", SIZES, training.SOFTMAX, [0], queries=1))


def test_the_study_trains_both():
    settings = generality.Settings(
        queries=2, keys=64, steps=4, layers=1, heads=2, head_dim=4, context=24
    )
    rows = [row for kind in generality.TRAINED for row in generality._trained(kind, settings)]
    assert {(row.source, row.step) for row in rows} == {
        (kind, step) for kind in generality.TRAINED for step in (0, 1, 4)
    }
    assert "Trained with relu attention for 4 steps" in generality.training(
        [*rows, generality.row_of(heads.gaussian(64, 4, 1.0, 2))]
    )
