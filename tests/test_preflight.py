"""Models that mergekit would merge into nonsense are refused, with the difference named."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import merge_params, save_llama
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, MistralConfig, MixtralConfig

from mofe.models import load, preflight
from mofe.models.files import IncompatibleModels
from mofe.stages import merge

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}


@pytest.fixture
def base(tiny) -> Path:
    return tiny / "a"


def other(folder: Path, base: Path, dtype=torch.float32, kind=LlamaConfig, **changes) -> Path:
    """A model like the base but for `changes`, with the base's tokenizer."""
    tokenizer = load.tokenizer(base)
    config = kind(**{"vocab_size": len(tokenizer), "pad_token_id": None, **SIZES, **changes})
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(config, dtype=dtype).save_pretrained(folder)
    for file in base.glob("tokenizer*"):
        shutil.copy(file, folder)
    return folder


def refused(base: Path, expert: Path, **options) -> str:
    names = {str(base): "ours", str(expert): "theirs"}
    with pytest.raises(IncompatibleModels) as raised:
        preflight.check([(str(base), str(expert))], names, **options)
    assert len(raised.value.problems) == 1, raised.value.problems
    return raised.value.problems[0]


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"hidden_size": 32}, "hidden_size is 32, the base models.ours has 64"),
        ({"intermediate_size": 96}, "intermediate_size is 96"),
        ({"num_hidden_layers": 3}, "num_hidden_layers is 3"),
        ({"num_attention_heads": 2}, "num_attention_heads is 2"),
        ({"num_key_value_heads": 4}, "num_key_value_heads is 4"),
        ({"head_dim": 32}, "head_dim is 32, the base models.ours has 16"),
        ({"rms_norm_eps": 1e-3}, "rms_norm_eps is 0.001"),
        ({"hidden_act": "gelu"}, "hidden_act is gelu"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings is True"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, "'rope_theta': 500000"),
        (
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
            "rope_parameters is {'factor': 2.0",
        ),
        ({"vocab_size": 2000}, "vocab_size is 2000"),
        ({"kind": MistralConfig}, "model_type is mistral, the base models.ours has llama"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_expert_unlike_its_base(tmp_path, base, changes, told):
    sentence = refused(base, other(tmp_path / "expert", base, **changes))
    assert sentence.startswith("models.theirs: ") and told in sentence
    assert sentence.endswith("the base that they were fine-tuned from")


def test_all_differences_are_told_at_once(tmp_path, base):
    expert = other(tmp_path / "expert", base, num_hidden_layers=1, num_key_value_heads=1)
    sentence = refused(base, expert)
    assert "num_hidden_layers is 1" in sentence and "num_key_value_heads is 1" in sentence


def test_the_first_token_with_another_id_is_named(tmp_path, base):
    expert = other(tmp_path / "expert", base)
    tokenizer = json.loads((expert / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    (one, i), (two, j) = sorted(vocabulary.items(), key=lambda item: item[1])[100:102]
    vocabulary[one], vocabulary[two] = j, i
    (expert / "tokenizer.json").write_text(json.dumps(tokenizer))
    told = f"the tokenizer has the id {j} for {one!r}, the base models.ours the id {i}"
    assert told in refused(base, expert)


def test_what_may_differ_passes(tmp_path, base):
    """Another dtype, another longest sequence, generation settings, and a padding token added."""
    tokenizer = load.tokenizer(base)
    expert = other(
        tmp_path / "expert",
        base,
        torch.bfloat16,
        max_position_embeddings=4096,
        vocab_size=len(tokenizer) + 1,
        pad_token_id=len(tokenizer),
    )
    tokenizer.add_special_tokens({"pad_token": "<padding>"})
    tokenizer.save_pretrained(expert)
    (expert / "generation_config.json").write_text('{"do_sample": true, "temperature": 0.6}')
    pairs = [(str(base), str(expert)), (str(base), str(base))]
    assert preflight.check(pairs, {}) == "2 models fit together"


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_numbers_that_are_none_are_found_and_their_tensor_named(tmp_path, base, value):
    expert = other(tmp_path / "expert", base)
    weights = load_file(expert / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"][3, 5] = value
    save_file(weights, expert / "model.safetensors", {"format": "pt"})
    sentence = refused(base, expert)
    named = f"{expert}/model.safetensors: 1 of the 8192 numbers in model.layers.1.mlp.down_proj"
    assert named in sentence


def test_only_safetensors_are_read(tmp_path, base):
    expert = other(tmp_path / "expert", base)
    torch.save(load_file(expert / "model.safetensors"), expert / "pytorch_model.bin")
    assert preflight.check([(str(base), str(expert))], {})
    (expert / "model.safetensors").unlink()
    assert "pytorch_model.bin, and a pickled file can run code" in refused(base, expert)


def test_a_family_that_mergekit_cannot_take_and_its_code_are_never_loaded(tmp_path, base):
    expert = other(tmp_path / "expert", base)
    config = json.loads((expert / "config.json").read_text())
    config |= {"model_type": "gemmoe", "auto_map": {"AutoConfig": "evil.Config"}}
    (expert / "config.json").write_text(json.dumps(config))
    (expert / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert "model_type is 'gemmoe'" in refused(base, expert)
    assert not (tmp_path / "ran").exists()
    mixture = other(tmp_path / "moe", base, kind=MixtralConfig, num_local_experts=2)
    assert "model_type is 'mixtral'" in refused(base, mixture)


@pytest.mark.parametrize(
    "damage, told",
    [
        (lambda f: (f / "model.safetensors").write_bytes(b"x" * 100), "cannot be read"),
        (lambda f: (f / "config.json").unlink(), "no config.json"),
        (lambda f: [t.unlink() for t in f.glob("tokenizer*")], "has no tokenizer"),
        (lambda f: _without(f, "model.norm.weight"), "lacks model.norm.weight"),
        (lambda f: _reshaped(f), r"is [128, 32] in its weights, [128, 64] by its config.json"),
    ],
    ids=["damaged", "no configuration", "no tokenizer", "a tensor missing", "another shape"],
)
def test_a_damaged_checkpoint_is_told(tmp_path, base, damage, told):
    expert = other(tmp_path / "expert", base)
    damage(expert)
    assert told in refused(base, expert)


def _without(folder: Path, key: str) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights[key]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def _reshaped(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    key = "model.layers.0.mlp.up_proj.weight"
    weights[key] = weights[key][:, :32].contiguous()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def test_biases_that_the_merge_would_drop(tmp_path, base):
    expert = other(tmp_path / "expert", base, attention_bias=True)
    assert "attention_bias is true" in refused(base, expert)


def test_a_merge_refuses_before_it_writes(tmp_path, tiny):
    expert = other(tmp_path / "expert", tiny / "a", num_hidden_layers=3)
    params = merge_params(tiny, "a", "aa")
    params["slots"][1]["model"] = str(expert)
    params["names"] = {str(expert): "mine", str(tiny / "a"): "base"}
    with pytest.raises(IncompatibleModels, match=r"models.mine: num_hidden_layers is 3, the base"):
        merge.merge(params, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_mistral_with_rope_and_eps_of_its_own_keeps_them(tmp_path, tiny):
    """What the preflight compares is what the merge carries over."""
    rope = {"rope_type": "default", "rope_theta": 123456.0}
    options = {"kind": MistralConfig, "rms_norm_eps": 1e-3, "rope_parameters": rope}
    one = other(tmp_path / "one", tiny / "a", **options)
    params = merge_params(tiny, "a", "aa")
    params |= {"base": str(one)}
    for slot in params["slots"]:
        slot["model"] = str(one)
    merge.merge(params, tmp_path / "merged")
    config = AutoConfig.from_pretrained(tmp_path / "merged")
    assert config.rms_norm_eps == 1e-3 and config.rope_parameters["rope_theta"] == 123456.0
    ids = torch.arange(3, 40)[None]
    with torch.inference_mode():
        dense, mixture = (
            load.checkpoint(f)(input_ids=ids).logits for f in (one, tmp_path / "merged")
        )
    assert torch.allclose(dense, mixture, atol=1e-5)


def test_two_random_bases_are_tokens_apart(tmp_path, tiny, shared):
    tokenizer = load.tokenizer(shared / "data/TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T")
    save_llama(tmp_path / "llama", tokenizer)
    sentence = refused(tiny / "a", tmp_path / "llama")
    assert "vocab_size is 32000" in sentence and "the tokenizer has" in sentence
