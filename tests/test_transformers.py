"""attn_implementation="hsr": the same logits and tokens as by torch's attention, in every use."""

import copy
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertModel,
    DynamicCache,
    Gemma2Config,
    Gemma2ForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from attention import Error, TopR, huggingface
from attention.huggingface import HSRCache, HSRConfig, LayerRules, statistics
from attention.huggingface.masks import hsr_mask

from .language_models import (
    EXACT,
    LENGTH,
    NEW,
    SIZES,
    generated,
    logits,
    make,
    padded,
    prompt,
    register,
)
from .public_names import listed, public

PAGE = Path(__file__).parents[1] / "docs" / "transformers.md"

CLOSE = {"rtol": 1e-4, "atol": 1e-4}

pytestmark = pytest.mark.usefixtures("exact")


@pytest.fixture(autouse=True)
def exact():
    register(EXACT)


@pytest.fixture(scope="module")
def model():
    return make()


def caches(model):
    """Every way to keep tokens: ours, transformers', none."""
    return [HSRCache(model.config), DynamicCache(config=model.config), None]


def test_logits_are_those_of_dense_attention(model):
    ids = prompt(2)
    expected = logits(model, "sdpa", ids)
    for cache in caches(model):
        assert torch.allclose(logits(model, "hsr", ids, cache), expected, **CLOSE)


@pytest.mark.parametrize("kept", ["hsr", "dynamic", "none"])
def test_greedy_tokens_are_those_of_dense_attention(model, kept):
    ids = prompt()
    cache = HSRCache(model.config) if kept == "hsr" else None
    got = generated(model, "hsr", ids, cache=cache, use_cache=kept != "none")
    assert got.tolist() == generated(model, "sdpa", ids).tolist()


@pytest.mark.parametrize("kept", ["hsr", "dynamic"])
def test_rows_of_a_padded_batch_are_as_each_alone(model, kept):
    lengths = LENGTH, LENGTH // 3, 1, LENGTH // 3
    ids, mask = padded(lengths)
    cache = HSRCache(model.config) if kept == "hsr" else None
    got = generated(model, "hsr", ids, mask, cache)
    assert got.tolist() == generated(model, "sdpa", ids, mask).tolist()
    for row, length in enumerate(lengths):
        alone = generated(model, "hsr", ids[row : row + 1, -length:])
        assert got[row].tolist() == alone[0].tolist()


def test_masks_with_holes_and_padding_at_the_right(model):
    ids, mask = prompt(2), torch.ones(2, LENGTH).long()
    mask[0, 5:9] = 0
    mask[1, -4:] = 0
    seen = mask.bool()
    for cache in caches(model):
        got = logits(model, "hsr", ids, cache, attention_mask=mask)
        expected = logits(model, "sdpa", ids, attention_mask=mask)
        assert torch.allclose(got[seen], expected[seen], **CLOSE)
    got = generated(model, "hsr", ids, mask, HSRCache(model.config))
    assert got.tolist() == generated(model, "sdpa", ids, mask).tolist()


def test_masks_of_four_axes_and_sequences_in_one_row(model):
    ids = prompt(1, 20)
    bias = -torch.rand(1, 1, 20, 20).masked_fill(~torch.ones(20, 20).tril().bool(), torch.inf)
    places = torch.tensor([[*range(12), *range(8)]])
    for more in ({"attention_mask": bias}, {"position_ids": places}):
        got, expected = (logits(model, name, ids, **more) for name in ("hsr", "sdpa"))
        assert torch.allclose(got, expected, **CLOSE)


@pytest.mark.parametrize("kept", ["hsr", "dynamic"])
def test_beams(model, kept):
    ids, mask = padded((LENGTH, LENGTH // 2))
    cache = HSRCache(model.config) if kept == "hsr" else None
    got = generated(model, "hsr", ids, mask, cache, num_beams=3, num_return_sequences=2)
    expected = generated(model, "sdpa", ids, mask, num_beams=3, num_return_sequences=2)
    assert got.tolist() == expected.tolist()


@pytest.mark.parametrize("by", ["assistant", "lookup"])
def test_assisted_decoding(model, by):
    ids = prompt().repeat(1, 2)
    # An assistant whose guesses are often wrong, so that tokens are taken back.
    helper = make(seed=0)
    with torch.no_grad():
        helper.model.layers[1].mlp.down_proj.weight.mul_(0.5)
    helper.set_attn_implementation("hsr")
    more = {"assistant_model": helper} if by == "assistant" else {"prompt_lookup_num_tokens": 3}
    got = generated(model, "hsr", ids, cache=HSRCache(model.config), new=2 * NEW, **more)
    assert got.tolist() == generated(model, "sdpa", ids, new=2 * NEW).tolist()


def test_a_cache_goes_on_over_calls_and_is_copied(model):
    ids, cache = prompt(), HSRCache(model.config)
    first = logits(model, "hsr", ids[:, :-20], cache)
    logits(model, "hsr", ids[:, -20:-19], cache)
    fork = copy.deepcopy(cache)
    expected = logits(model, "sdpa", ids)
    for each in (cache, fork):
        rest = logits(model, "hsr", ids[:, -19:], each)
        assert torch.allclose(rest, expected[:, -19:], **CLOSE)
    assert torch.allclose(first, expected[:, :-20], **CLOSE)


def test_inference_mode(model):
    ids, mask = padded((20, 7))
    with torch.inference_mode():
        got = generated(model, "hsr", ids, mask, HSRCache(model.config))
        assert got.tolist() == generated(model, "sdpa", ids, mask).tolist()


def test_one_mask_for_all_rows(model):
    ids = prompt(3, 20)
    mask = torch.ones(1, 1, 20, 20).tril().bool()
    got, expected = (logits(model, name, ids, attention_mask=mask) for name in ("hsr", "sdpa"))
    assert torch.allclose(got, expected, **CLOSE)


def test_the_examples_of_the_page(capsys):
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S):
        exec(compile(block, PAGE.name, "exec"), names)
    assert names["tokens"].shape[1] == names["inputs"]["input_ids"].shape[1] + 20
    assert names["read"].share_read().shape == (4, 4)
    assert "def __init__(self" in capsys.readouterr().out


def test_a_prompt_read_in_chunks(model):
    ids, cache = prompt(2), HSRCache(model.config)
    parts = [logits(model, "hsr", part, cache) for part in ids.split(LENGTH * 3 // 4, dim=1)]
    assert torch.allclose(torch.cat(parts, dim=1), logits(model, "sdpa", ids), **CLOSE)


@pytest.mark.parametrize("window", [8, 400, 512])
def test_sliding_windows(window):
    model = make(MistralForCausalLM, MistralConfig, sliding_window=window)
    ids, mask = padded((LENGTH, LENGTH // 2))
    expected = generated(model, "sdpa", ids, mask)
    for cache in caches(model)[:2]:
        assert generated(model, "hsr", ids, mask, cache).tolist() == expected.tolist()
    indexed = "HSRLayer" in repr(HSRCache(model.config))
    assert indexed == (window >= SIZES["max_position_embeddings"])


def test_an_encoder_sees_both_ways():
    sizes = {name: SIZES[name] for name in ("vocab_size", "hidden_size", "intermediate_size")}
    torch.manual_seed(0)
    heads = {"num_hidden_layers": 1, "num_attention_heads": 2}
    encoder = BertModel(BertConfig(**sizes, **heads)).eval()
    ids, mask = padded((20, 13))
    states = {}
    for name in ("hsr", "sdpa"):
        encoder.set_attn_implementation(name)
        with torch.no_grad():
            states[name] = [
                encoder(ids, attention_mask=each).last_hidden_state for each in (None, mask)
            ]
    assert torch.allclose(states["hsr"][0], states["sdpa"][0], **CLOSE)
    assert torch.allclose(states["hsr"][1][mask > 0], states["sdpa"][1][mask > 0], **CLOSE)


def test_an_encoder_and_a_decoder():
    config = BartConfig(
        vocab_size=97,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        init_std=0.3,
        forced_eos_token_id=None,
    )
    torch.manual_seed(0)
    model = BartForConditionalGeneration(config).eval()
    ids, mask = padded((20, 13))
    got, expected = (
        generated(model, name, ids, mask, num_beams=2).tolist() for name in ("hsr", "sdpa")
    )
    assert got == expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dtypes(dtype):
    model, ids = make(dtype=dtype), prompt(1, 20)
    close = {"rtol": 0.1, "atol": 0.5} if dtype.itemsize == 2 else CLOSE
    for cache in caches(model):
        got = logits(model, "hsr", ids, cache)
        assert got.dtype is dtype
        assert torch.allclose(got, logits(model, "sdpa", ids), **close)


def test_few_keys_and_dense_layers_are_left_to_torch(model):
    ids = prompt(1, 20)
    expected = logits(model, "sdpa", ids)
    for config in (HSRConfig(dense_below=21), HSRConfig(dense_layers=[0, 1], dense_below=0)):
        register(config)
        with statistics() as read:
            cache = HSRCache(model.config)
            parts = [logits(model, "hsr", part, cache) for part in ids.split((12, 7, 1), dim=1)]
        assert torch.allclose(torch.cat(parts, dim=1), expected, **CLOSE)
        assert [(of.queries, of.dense) for of in read.layers.values()] == [(0, 20), (0, 20)]
        assert np.isnan(read.share_read()).all()


def test_layers_follow_rules_of_their_own(model):
    config = HSRConfig(
        prefill=Error(1e-4),
        decode=TopR(3),
        layers={1: LayerRules(TopR(2), TopR(5))},
        dense_below=0,
    )
    register(config)
    ids, cache = prompt(2, 70), HSRCache(model.config)
    with statistics() as both, statistics() as prefill:
        logits(model, "hsr", ids, cache)
    with statistics() as decode:
        logits(model, "hsr", ids[:, :1], cache)
    assert both.layers[0].seen.tolist() == prefill.layers[0].seen.tolist() == [2 * 35 * 71] * 4
    assert (prefill.layers[0].bound <= 1e-4).all()
    assert prefill.layers[1].read.tolist() == [2 * (2 * 70 - 1)] * 4
    assert decode.layers[0].read.tolist() == [2 * 3] * 4
    assert decode.layers[1].read.tolist() == [2 * 5] * 4
    assert decode.layers[1].seen.tolist() == [2 * 71] * 4
    assert decode.share_read()[0] == pytest.approx([3 / 71] * 4)
    lines = str(decode).splitlines()
    assert len(lines) == 1 + 8
    assert "71.0        3.0" in lines[1]


def test_padding_is_not_counted(model):
    ids, mask = padded((20, 5))
    with statistics() as read:
        logits(model, "hsr", ids, attention_mask=mask)
    assert read.layers[0].queries == 25
    assert read.layers[0].seen.tolist() == [20 * 21 // 2 + 5 * 6 // 2] * 4


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_a_static_cache_is_refused(model):
    with pytest.raises(ValueError, match=r"expected a cache that grows.*static"):
        generated(model, "hsr", prompt(1, 10), cache_implementation="static")


def test_a_softcap_is_refused():
    model = make(Gemma2ForCausalLM, Gemma2Config, head_dim=8)
    with pytest.raises(ValueError, match="softcap"):
        logits(model, "hsr", prompt(1, 10))


@pytest.mark.parametrize("name", ["s_aux", "position_bias", "output_attentions"])
def test_what_has_no_half_space_is_named(model, name):
    model.set_attn_implementation("hsr")
    attend = huggingface.registration.HSRAttention(EXACT)
    tensors = torch.zeros(3, 1, 2, 4, 8)
    with pytest.raises(ValueError, match=f"expected a layer without.*got {name}"):
        attend(model.model.layers[0].self_attn, *tensors, None, **{name: True})


def test_training_is_refused():
    model, ids = make(attention_dropout=0.1), prompt(1, 10)
    model.set_attn_implementation("hsr")
    with pytest.raises(ValueError, match=r"expected dropout 0, got 0\.1"):
        model.train()(ids)
    model = make().train()
    model.set_attn_implementation("hsr")
    with pytest.raises(ValueError, match="expected inference, got a model in training"):
        model(ids)


def test_gradients_are_refused_when_they_are_asked_for(model):
    model.set_attn_implementation("hsr")
    loss = model(prompt(1, 10)).logits.sum()
    with pytest.raises(RuntimeError, match="no backward pass"):
        loss.backward()


def test_versions_that_tell_the_places_of_tokens():
    for places in (torch.arange(5), torch.arange(3, 5), torch.arange(0)):
        count = int(places[-1]) + 1 if len(places) else 0
        assert hsr_mask(1, kv_length=count, cache_position=places) is None
    with pytest.raises(ValueError, match="9 places for 5 tokens"):
        hsr_mask(1, kv_length=9, cache_position=torch.arange(5))


def test_settings_are_checked():
    with pytest.raises(TypeError, match="expected an HSRConfig, got Error"):
        huggingface.register(Error(1e-3))
    with pytest.raises(TypeError, match="rule"):
        HSRConfig(prefill=0.1)
    with pytest.raises(ValueError, match=r"expected layers without rules, got \[1\]"):
        HSRConfig(layers={1: LayerRules(Error(), Error())}, dense_layers=[1])
    with pytest.raises(ValueError, match="dense_below"):
        HSRConfig(dense_below=-1)


def test_names_have_settings_of_their_own(model):
    register(HSRConfig(decode=TopR(2), prefill=TopR(2), dense_below=0), "hsr-2")
    ids, read = prompt(1, 10), {}
    for name in ("hsr", "hsr-2"):
        with statistics() as read[name]:
            logits(model, name, ids)
    assert read["hsr"].layers[0].read.sum() > read["hsr-2"].layers[0].read.sum() == 4 * 19


def test_public_names_have_examples_and_are_on_the_page_of_the_api():
    assert [name for name, example in public(huggingface) if not example] == []
    assert {("attention", f"huggingface.{name}") for name in huggingface.__all__} <= {*listed()}
