"""Models that leave the paper's path: a merge of two identical experts is its base, or is refused.

Each configuration is a key of a Llama's or a Mistral's config.json, with a value that changes what
the model computes. The base, by plain transformers, is compared with the merge as it is trained, as
it is evaluated, and as plain transformers loads its export.
"""

import json
import random
from pathlib import Path

import pytest
import torch
from conftest import TRAINING, merge_params
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from test_models import moved
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig

from mofe.layers import experts
from mofe.models import load, methods, store
from mofe.models.files import IncompatibleModels
from mofe.stages import export, merge, train
from mofe.stages.evaluate import AnswerScorer
from mofe.study.methods import parse
from mofe.training import tokens

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": None,
    "initializer_range": 0.2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


# torch's grouped products, which transformers uses by default, refuse odd sizes
EAGER = {"dtype": torch.float32, "experts_implementation": "eager"}


ACTIVATIONS = (
    *("relu", "gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu2", "mish"),
    *("swish", "tanh", "leaky_relu", "linear", "hardswish", "gelu_10", "sigmoid"),
)


def rope(kind: str, **more) -> dict:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 1e4, **more}}


HONOURED = {
    **{act: {"hidden_act": act} for act in ACTIVATIONS},
    "tied": {"tie_word_embeddings": True},
    "tied, another activation": {"tie_word_embeddings": True, "hidden_act": "gelu"},
    "wide heads": {"head_dim": 16},
    "narrow heads": {"head_dim": 4},
    "one key head": {"num_key_value_heads": 1},
    "as many key heads": {"num_key_value_heads": 4},
    "eps": {"rms_norm_eps": 1e-2},
    "theta": rope("default") | {"rope_parameters": {"rope_type": "default", "rope_theta": 37.0}},
    "linear RoPE": rope("linear", factor=4.0),
    "dynamic RoPE": rope("dynamic", factor=2.0),
    "yarn": rope("yarn", factor=4.0, original_max_position_embeddings=32),
    "yarn with its own scale": rope(
        "yarn",
        factor=4.0,
        original_max_position_embeddings=32,
        attention_factor=1.7,
        beta_fast=16.0,
        beta_slow=2.0,
    ),
    "llama3 RoPE": {"rope_parameters": LLAMA3},
    "odd sizes": {"hidden_size": 36, "intermediate_size": 37, "num_attention_heads": 6},
    "very odd sizes": {
        "hidden_size": 30,
        "intermediate_size": 7,
        "num_attention_heads": 5,
        "num_key_value_heads": 1,
    },
    "one layer": {"num_hidden_layers": 1},
    "dropout": {"attention_dropout": 0.5},
    "pretraining_tp": {"pretraining_tp": 2},
    "several ends": {"eos_token_id": [2, 5]},
    "padding": {"pad_token_id": 0},
    "no ends": {"bos_token_id": None, "eos_token_id": None},
    "no cache": {"use_cache": False},
    "bfloat16": {"dtype": "bfloat16"},
    "float16": {"dtype": "float16"},
    "Mistral": {"kind": MistralConfig},
    "Mistral without a window": {"kind": MistralConfig, "sliding_window": None},
    "Mistral's window": {"kind": MistralConfig, "sliding_window": 8},
    "Mistral's window and heads": {"kind": MistralConfig, "sliding_window": 5, "head_dim": 16},
    "Mistral with relu, tied": {
        "kind": MistralConfig,
        "hidden_act": "relu",
        "tie_word_embeddings": True,
    },
    "a router's key": {"router_jitter_noise": 0.3, "num_local_experts": 5},
    "outputs": {"output_hidden_states": True},
}
REFUSED = {
    "attention_bias": {"attention_bias": True},
    "mlp_bias": {"mlp_bias": True},
    "prelu": {"hidden_act": "prelu"},
    "longrope": rope(
        "longrope",
        factor=4.0,
        short_factor=[1.0] * 4,
        long_factor=[3.0] * 4,
        original_max_position_embeddings=32,
    ),
    "tuples": {"return_dict": False},
    "partial RoPE": rope("default", partial_rotary_factor=0.5),
    "partial linear RoPE": rope("linear", factor=2.0, partial_rotary_factor=0.5),
    "heads that do not share keys evenly": {"num_attention_heads": 4, "num_key_value_heads": 3},
    "layers of two kinds": {
        "kind": MistralConfig,
        "layer_types": ["sliding_attention", "full_attention"],
    },
}


def base(folder: Path, tiny: Path, kind=LlamaConfig, dtype="float32", **changes) -> Path:
    """A model of this configuration with random weights, and the tiny models' tokenizer."""
    tokenizer = load.tokenizer(tiny / "a")
    torch.manual_seed(0)
    config = kind(**SIZES | {"vocab_size": len(tokenizer)} | changes)
    model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    for name, parameter in model.named_parameters():
        if "norm" in name:  # ones would hide a norm that is left out
            parameter.data.uniform_(0.5, 1.5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def merged(folder: Path, root: Path, tiny: Path, **changes) -> dict:
    params = merge_params(tiny, "a", "aa") | {"base": str(folder)} | changes
    for slot in params["slots"]:
        slot["model"] = str(folder)
    merge.merge(params, root)
    return params


def logits(model, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(input_ids=ids, return_dict=True).logits


def questions(vocabulary: int, seed: int = 3) -> list[tuple[list[int], int]]:
    """Tokens and where the continuation starts: some share their context."""
    draw = random.Random(seed)
    found = []
    for length in (4, 9, 20, 31):
        context = [draw.randrange(3, vocabulary) for _ in range(length)]
        for more in (1, 2, 5):
            found.append((context + [draw.randrange(3, vocabulary) for _ in range(more)], length))
    return found


def loglikelihoods(model, asked) -> list[float]:
    """By plain transformers, one continuation at a time."""
    scores = []
    for ids, start in asked:
        log_probs = logits(model, torch.tensor([ids]))[0].float().log_softmax(-1)
        scores.append(sum(log_probs[at - 1, ids[at]].item() for at in range(start, len(ids))))
    return scores


@pytest.mark.parametrize("named", HONOURED)
def test_a_merge_of_one_model_is_that_model(tiny, tmp_path, named):
    folder = base(tmp_path / "base", tiny, **HONOURED[named])
    merged(folder, tmp_path / "moe", tiny)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    draw = random.Random(1)
    ids = torch.tensor([[draw.randrange(3, plain.config.vocab_size) for _ in range(40)]] * 2)
    expected = logits(plain, ids)
    within = 2e-4 * expected.abs().max().item()
    ours = load.checkpoint(tmp_path / "moe")
    assert (logits(ours, ids) - expected).abs().max() <= within
    asked = questions(plain.config.vocab_size)
    scores = loglikelihoods(plain, asked)
    for model in (ours, experts.fold_duplicates(load.variant(tmp_path / "moe", [], []))):
        found = AnswerScorer(model).loglikelihoods(asked)
        assert found == pytest.approx(scores, abs=2e-3)
    export.store.checkpoint(export.plain(tmp_path / "moe", [], []), tmp_path / "out")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out", **EAGER)
    assert (logits(again, ids) - expected).abs().max() <= within
    dense = AnswerScorer(load.checkpoint(folder)).loglikelihoods(asked)
    assert dense == pytest.approx(scores, abs=2e-3)


@pytest.mark.parametrize("named", REFUSED)
def test_what_a_mixture_cannot_compute_is_refused(tiny, tmp_path, named):
    folder = base(tmp_path / "base", tiny, **REFUSED[named])
    with pytest.raises(IncompatibleModels) as raised:
        merged(folder, tmp_path / "moe", tiny)
    (sentence,) = raised.value.problems
    assert sentence.startswith("models.base: ") and "; " in sentence
    assert not (tmp_path / "moe").exists()


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"head_dim": 5}, "RoPE requires an even rotary dimension"),
        ({"num_attention_heads": 3}, "hidden size"),
        ({"hidden_act": "sine"}, "transformers knows no hidden_act 'sine'"),
        ({"rope_parameters": {"rope_type": "spiral", "rope_theta": 1e4}}, "spiral"),
        ({"vocab_size": "many"}, "vocab_size"),
        ({"transformers_weights": "other.safetensors"}, "transformers_weights names other"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_configuration_that_nobody_can_compute_is_one_sentence(tiny, tmp_path, changes, told):
    folder = base(tmp_path / "base", tiny)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(IncompatibleModels) as raised:
        merged(folder, tmp_path / "moe", tiny)
    (sentence,) = raised.value.problems
    assert sentence.startswith("models.base: ") and told in sentence and "\n" not in sentence
    assert "Error" not in sentence


def test_a_tied_base_that_stores_its_head_apart(tiny, tmp_path):
    """transformers decides which of the two counts; the merge does the same."""
    folder = base(tmp_path / "base", tiny, tie_word_embeddings=True)
    stored = load_file(folder / "model.safetensors")
    stored["lm_head.weight"] = torch.randn_like(stored["model.embed_tokens.weight"])
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    merged(folder, tmp_path / "moe", tiny)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.arange(3, 40)[None]
    export.store.checkpoint(export.plain(tmp_path / "moe", [], []), tmp_path / "out")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out", **EAGER)
    expected = logits(plain, ids)
    for model in (load.checkpoint(tmp_path / "moe"), again):
        assert torch.allclose(logits(model, ids), expected, atol=1e-3)
    asked = questions(plain.config.vocab_size)
    found = AnswerScorer(load.checkpoint(tmp_path / "moe")).loglikelihoods(asked)
    assert found == pytest.approx(loglikelihoods(plain, asked), abs=2e-3)


def test_a_merge_ends_its_texts_as_its_base_does(tiny, tmp_path):
    """generation_config.json: instruct models end a turn by a token that is not the tokenizer's."""
    folder = base(tmp_path / "base", tiny, eos_token_id=[2, 9])
    prompt = list(range(20, 29))
    free = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.tensor([prompt])
    plain = free.generate(ids, do_sample=False, max_new_tokens=12, eos_token_id=-1, pad_token_id=0)
    ending = plain[0, len(prompt) + 3].item()  # the fourth token of its greedy answer ends it
    settings = {"eos_token_id": [2, ending], "temperature": 0.6, "top_p": 0.9}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    merged(folder, tmp_path / "moe", tiny)
    export.store.checkpoint(export.plain(tmp_path / "moe", [], []), tmp_path / "out")
    load.save_tokenizer(tmp_path / "moe", tmp_path / "out")
    tokenizer = load.tokenizer(folder)
    cut = plain[0, len(prompt) :].tolist()
    cut = cut[: cut.index(ending) + 1]  # a word here, special tokens are left out
    expected = tokenizer.decode(cut, skip_special_tokens=True)
    assert expected
    for model in (folder, tmp_path / "moe", tmp_path / "out"):
        (text,) = AnswerScorer(load.checkpoint(model), tokenizer).generate([prompt], ["\n\n"], 12)
        assert text == expected, model


@pytest.mark.parametrize("targets", [["lm_head"], ["q_proj", "lm_head"]])
def test_answers_of_an_adapter_on_the_head_are_pefts(tiny, tmp_path, targets):
    """By our evaluation, by peft on the plain merge, and by the export."""
    method = parse({"method": "lora", "rank": 4, "alpha": 8, "targets": targets})
    model = moved(methods.apply(load.checkpoint(tiny / "moe2a2b"), method))
    store.trained(model, tmp_path / "trained.safetensors")
    chain, files = [method], [tmp_path / "trained.safetensors"]
    plain = methods.merge_and_unload(load.checkpoint(tiny / "moe2a2b"))
    config = LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM")
    theirs = get_peft_model(plain, config)
    missing, unknown = theirs.load_state_dict(load_file(files[0]), strict=False)
    assert not unknown and not any("lora" in name for name in missing)
    asked = questions(plain.config.vocab_size)
    expected = loglikelihoods(theirs, asked)
    untuned = AnswerScorer(load.checkpoint(tiny / "moe2a2b")).loglikelihoods(asked)
    assert expected != pytest.approx(untuned, abs=0.1), "the adapter counts"
    ours = load.variant(tiny / "moe2a2b", chain, files)
    exported = export.plain(tiny / "moe2a2b", chain, files)
    for found in (ours, exported):
        assert AnswerScorer(found).loglikelihoods(asked) == pytest.approx(expected, abs=1e-3)
    assert loglikelihoods(exported, asked) == pytest.approx(expected, abs=1e-3)


def test_a_tied_head_gets_no_adapter(tiny, tmp_path):
    folder = base(tmp_path / "base", tiny, tie_word_embeddings=True)
    method = parse({"method": "lora", "rank": 4, "alpha": 8, "targets": ["lm_head"]})
    told = "has the target lm_head, which the model ties to its embeddings, so the adapter would"
    with pytest.raises(ValueError, match=told):
        methods.apply(load.checkpoint(folder), method)


@pytest.mark.parametrize("named", ["gelu", "tied", "wide heads", "llama3 RoPE", "Mistral's window"])
@pytest.mark.parametrize(
    "method", [{"method": "full"}, {"method": "freeze", "frozen": 1}], ids=["full", "freeze"]
)
def test_a_training_loses_what_a_plain_loop_does(tiny, tmp_path, data, named, method):
    """transformers' Mixtral and AdamW, row by row, on a model that leaves the paper's path."""
    folder = base(tmp_path / "base", tiny, **HONOURED[named])
    merged(folder, tmp_path / "moe", tiny)
    pairs, tokenizer = tokens.read([data]), load.tokenizer(folder)
    rows = tokens.tokenize(pairs, tokenizer, TRAINING["max_length"])
    plain = methods.merge_and_unload(load.checkpoint(tmp_path / "moe"))
    plain.set_experts_implementation("eager")
    expected = _plain_losses(plain.train(), rows, method)
    settings = {"recipe": "x", **method, "training": TRAINING | {"fold_duplicates": True}}
    train.train_variant(
        merge=str(tmp_path / "moe"),
        data=[data],
        parents=[],
        chain=[],
        params=settings,
        names={"moe": "m", "stages": "s"},
        seed=0,
        trained=tmp_path / "trained.safetensors",
        record=tmp_path / "train.json",
        log=tmp_path / "log.jsonl",
        checkpoint=tmp_path / ".checkpoint",
    )
    found = [json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert found == pytest.approx(expected, abs=2e-3) and len(found) > 3


def _plain_losses(model, rows: tokens.Rows, method: dict) -> list[float]:
    """The loss of every step, in the order of rows that our schedule has. Of frozen experts the
    gradient is left out by hand."""
    frozen = method.get("frozen", 0)
    trained = list(model.named_parameters())
    groups = [
        {"params": [p for _, p in trained if p.ndim > 1 and (not frozen or p.ndim != 3)]},
        {"params": [p for _, p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    packed = [p for _, p in trained if p.ndim == 3] if frozen else []
    moved = [p[frozen:].detach().clone().requires_grad_() for p in packed]
    if moved:
        groups.append({"params": moved})
    optimizer = torch.optim.AdamW(groups, lr=0.0, weight_decay=TRAINING["weight_decay"])
    epochs, batch = TRAINING["epochs"], TRAINING["global_batch"]
    steps = tokens.count_steps(len(rows), epochs, batch)
    schedule = tokens.schedule(rows.lengths, 0, epochs, batch, most_tokens=64)
    losses = []
    for number, step in enumerate(schedule):
        indices = [index for part in step for index in part]
        count, total = sum(rows.answers[i] for i in indices), 0.0
        for index in indices:
            ids, start = torch.tensor([rows.ids[index]]), rows.prompt[index]
            log_probs = model(input_ids=ids).logits[0].log_softmax(-1)
            loss = -log_probs[torch.arange(start - 1, ids.shape[1] - 1), ids[0, start:]].sum()
            (loss / count).backward()
            total += loss.item()
        for whole, part in zip(packed, moved, strict=True):
            part.grad, whole.grad = whole.grad[frozen:].clone(), None
        own = [p for group in groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(own, TRAINING["max_grad_norm"])
        for group in optimizer.param_groups:
            group["lr"] = TRAINING["learning_rate"] * (steps - number) / steps
        optimizer.step()
        for whole, part in zip(packed, moved, strict=True):
            whole.data[frozen:] = part.data
        model.zero_grad(set_to_none=True)
        optimizer.zero_grad(set_to_none=True)
        losses.append(total / count)
    return losses
