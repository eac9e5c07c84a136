"""Decoding many prompts at once: what transformers' own generate gives each alone."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from mofe.models import decoding, finite

SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "eos_token_id": None,
    "bos_token_id": None,
}
PROMPTS = [[7, 8, 9, 10, 11, 12, 13], [5], [20, 21, 22]]
LENGTH = 9


def model(window: int | None):
    torch.manual_seed(0)
    if window is None:
        return LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
    return MistralForCausalLM(MistralConfig(**SIZES, sliding_window=window)).eval()


def greedy(model, window=None, at_once=100, is_over=lambda texts: False):
    return decoding.greedy(
        *(model.model, model.lm_head, PROMPTS, LENGTH, 0, is_over), at_once=at_once, window=window
    )


@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_texts_are_those_of_generate_for_each_prompt_alone(window, at_once):
    plain = model(window)
    for prompt, text in zip(PROMPTS, greedy(plain, window, at_once), strict=True):
        ids = torch.tensor([prompt])
        alone = plain.generate(ids, do_sample=False, max_new_tokens=LENGTH, eos_token_id=-1)
        assert text == alone[0, len(prompt) :].tolist()


def test_it_ends_when_all_texts_are_over():
    whole = greedy(model(None))
    ended = greedy(model(None), is_over=lambda texts: len(texts[0]) >= 4)
    assert ended == [text[:4] for text in whole]


def test_scores_that_are_not_finite_are_refused():
    broken = model(None)
    broken.lm_head.weight.data[3] = float("nan")
    with pytest.raises(finite.NotFinite, match="scores of the next token"):
        greedy(broken)


def test_under_autocast_texts_are_those_of_generate():
    """Keys are float32 there, because their rotation is, and values bfloat16."""
    plain = model(None)
    with torch.autocast("cpu", torch.bfloat16):
        for prompt, text in zip(PROMPTS, greedy(plain), strict=True):
            ids = torch.tensor([prompt])
            alone = plain.generate(ids, do_sample=False, max_new_tokens=LENGTH, eos_token_id=-1)
            assert text == alone[0, len(prompt) :].tolist()
