"""What the study rests on: parameter counts, identical experts, frozen weights, stored parameters."""

import itertools
import json
import shutil

import pytest
import torch
from conftest import merge_params
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer, MixtralConfig, MixtralForCausalLM

from mofe.layers import norms, parameters
from mofe.models import load, methods, store
from mofe.stages import merge
from mofe.study.methods import parse

TINYLLAMA = {
    "vocab_size": 32000,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
}
QKVO = ["q_proj", "k_proj", "v_proj", "o_proj"]
FFN = ["gate_proj", "up_proj", "down_proj"]
SETTINGS = {
    "full": {"method": "full"},
    "mofe": {"method": "freeze", "frozen": "all"},
    "freeze3": {"method": "freeze", "frozen": 3},
    "freeze1": {"method": "freeze", "frozen": 1},
    "freeze_any": {"method": "freeze", "frozen": [1, 3]},
    "freeze_any_nf4": {"method": "freeze", "frozen": [0, 2, 3], "quantize": "nf4"},
    "unfreeze": {
        "method": "freeze",
        "frozen": [0, 1, 3],
        "unfreeze": [{"after": 0.3, "experts": [1]}, {"after": 0.7, "experts": 1}],
    },
    "lora": {"method": "lora", "rank": 8, "alpha": 16, "targets": QKVO},
    "dora": {"method": "lora", "rank": 8, "alpha": 16, "targets": QKVO, "dora": True},
    "freeze2_nf4": {"method": "freeze", "frozen": 2, "quantize": "nf4"},
    "freeze2_fp8": {"method": "freeze", "frozen": 2, "quantize": "fp8"},
    "mofe_fp8": {"method": "freeze", "frozen": "all", "quantize": "fp8"},
    "qlora": {"method": "lora", "rank": 8, "alpha": 16, "targets": QKVO, "quantize": "nf4"},
    "rslora": {"method": "rslora", "rank": 8, "alpha": 16, "targets": QKVO},
    "ia3": {"method": "ia3", "targets": ["k_proj", "v_proj", "o_proj"], "feedforward": ["o_proj"]},
    "lora_also": {
        "method": "lora",
        "rank": 8,
        "alpha": 16,
        "targets": QKVO,
        "also": ["embed_tokens", "lm_head"],
    },
    "lora_experts": {"method": "lora", "rank": 8, "alpha": 16, "targets": FFN},
    "rslora_both": {"method": "rslora", "rank": 4, "alpha": 16, "targets": ["v_proj", "up_proj"]},
    "qlora_all": {
        "method": "lora",
        "rank": 8,
        "alpha": 16,
        "targets": [*QKVO, *FFN],
        "quantize": "nf4",
        "also": ["lm_head"],
    },
    "lora_head": {"method": "lora", "rank": 8, "alpha": 16, "targets": ["lm_head"]},
    "dora_head": {
        "method": "lora",
        "rank": 4,
        "alpha": 8,
        "targets": ["v_proj", "lm_head"],
        "dora": True,
    },
    "attention": {"method": "partial", "train": ["attention"]},
    "embeddings": {"method": "partial", "train": ["embeddings"]},
    "router": {"method": "partial", "train": ["router"]},
    "norms_experts": {"method": "partial", "train": ["norms", "experts"]},
}
METHODS = {name: parse(settings) for name, settings in SETTINGS.items()}


def test_a_tokenizer_is_read_as_its_file_has_it(shared, tmp_path):
    """The hub's TinyLlama names LlamaTokenizer, by which transformers 5 would change leading and
    double spaces."""
    folder = shared / "data/TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T"
    for file in folder.iterdir():
        shutil.copy(file, tmp_path)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    changed = config | {"tokenizer_class": "LlamaTokenizer", "legacy": False}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(changed))
    whole, ours = Tokenizer.from_file(str(folder / "tokenizer.json")), load.tokenizer(tmp_path)
    for text in (" A 30-year-old", "pain  in the  leg", "Question: which?\nA. one\nAnswer:"):
        assert ours(text)["input_ids"] == whole.encode(text).ids, text
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(" A 30-year-old")["input_ids"] != ours(" A 30-year-old")["input_ids"]


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in parameters.trained(model).values())


@pytest.mark.parametrize(
    "method, experts, expected",
    [
        # embeddings and lm_head 2 x 65,536,000, 22 layers of attention (9,437,184) and norms
        # (4,096), the last norm (2,048), and a router row (2,048) a layer and expert: 0.34B
        ("mofe", 2, 338_872_320),
        ("mofe", 4, 338_962_432),
        ("mofe", 8, 339_142_656),
        ("full", 2, 1_861_404_672),
        ("full", 4, 3_384_027_136),
        ("full", 8, 6_429_272_064),
        ("lora", 2, 2_252_800),
        ("lora", 4, 2_252_800),
        ("lora", 8, 2_252_800),
        ("dora", 2, 2_354_176),
        ("dora", 4, 2_354_176),
        ("dora", 8, 2_354_176),
        ("rslora", 8, 2_252_800),
        ("ia3", 8, 22 * (256 + 256 + 2048)),  # keys, values, and the inputs of o_proj
        ("lora_also", 8, 2_252_800 + 2 * 65_536_000),
        ("lora_experts", 4, 22 * 4 * 8 * 3 * (2048 + 5632)),
        ("attention", 8, 22 * 9_437_184),
        ("embeddings", 8, 2 * 65_536_000),
        ("router", 8, 22 * 8 * 2048),
    ],
)
def test_trainable_parameters_at_tinyllamas_shape(method, experts, expected):
    with torch.device("meta"):
        model = MixtralForCausalLM(
            MixtralConfig(num_local_experts=experts, num_experts_per_tok=2, **TINYLLAMA)
        )
        assert count(methods.apply(model, METHODS[method])) == expected


def test_one_of_four_experts_adds_its_own_parameters():
    with torch.device("meta"):
        config = MixtralConfig(num_local_experts=4, num_experts_per_tok=2, **TINYLLAMA)
        frozen = count(methods.apply(MixtralForCausalLM(config), METHODS["mofe"]))
        three = count(methods.apply(MixtralForCausalLM(config), METHODS["freeze3"]))
    assert three - frozen == 22 * 3 * 2048 * 5632


def logits(model, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(input_ids=ids).logits


tokens = st.lists(st.integers(3, 500), min_size=2, max_size=24)


@settings(max_examples=15)
@given(ids=tokens)
def test_identical_experts_are_one_function_and_the_router_gets_no_gradient(tiny, ids):
    ids = torch.tensor([ids])
    dense = load.checkpoint(tiny / "a")
    expected = logits(dense, ids)
    for name in ("moe2a", "moe4a", "moe8a"):
        model = load.checkpoint(tiny / name)
        assert (logits(model, ids) - expected).abs().max() <= 1e-5
        model.train()(input_ids=ids, labels=ids).loss.backward()
        for layer in model.model.layers:
            assert layer.mlp.gate.weight.grad.abs().max() <= 1e-6
            assert layer.self_attn.v_proj.weight.grad.abs().max() > 1e-6


def test_the_router_of_different_experts_gets_a_gradient(tiny):
    model, ids = load.checkpoint(tiny / "moe2a2b").train(), torch.arange(3, 40)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    assert all(layer.mlp.gate.weight.grad.abs().max() > 1e-6 for layer in model.model.layers)


def test_a_merge_is_its_sources_bit_by_bit(tiny):
    merged = load.checkpoint(tiny / "moe2a2b").state_dict()
    a, b = load.checkpoint(tiny / "a").state_dict(), load.checkpoint(tiny / "b").state_dict()
    for key in ("model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"):
        assert torch.equal(merged[key], a[key])
    for layer in range(2):
        at = f"model.layers.{layer}"
        key = f"{at}.self_attn.v_proj.weight"
        assert torch.equal(merged[key], a[key])
        for slot, source in enumerate((a, a, b, b)):
            gate_up = torch.cat([source[f"{at}.mlp.{n}_proj.weight"] for n in ("gate", "up")])
            assert torch.equal(merged[f"{at}.mlp.experts.gate_up_proj"][slot], gate_up)
            down = source[f"{at}.mlp.down_proj.weight"]
            assert torch.equal(merged[f"{at}.mlp.experts.down_proj"][slot], down)
        router = merged[f"{at}.mlp.gate.weight"]
        assert len({tuple(row) for row in router.tolist()}) == 4, "prompts give every slot a gate"


def test_a_merge_is_the_same_twice_and_keeps_the_tokenizer(tiny, tmp_path):
    merge.merge(merge_params(tiny, "a", "aabb"), tmp_path / "again")
    folders = (tiny / "moe2a2b", tmp_path / "again")
    first, second = (load.checkpoint(folder).state_dict() for folder in folders)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[k], second[k]) for k in first)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tiny / "a" / name).read_bytes()


IDS = torch.arange(3, 43).reshape(2, 20)


@pytest.mark.parametrize("method", ["freeze3", "freeze1"])
def test_split_experts_are_the_packed_ones(tiny, method):
    expected = logits(load.checkpoint(tiny / "moe2a2b"), IDS)
    split = methods.apply(load.checkpoint(tiny / "moe2a2b"), METHODS[method])
    assert torch.allclose(logits(split, IDS), expected, atol=1e-5)
    folded = methods.merge_and_unload(split)
    original = load.checkpoint(tiny / "moe2a2b").state_dict()
    assert folded.state_dict().keys() == original.keys()
    assert all(torch.equal(v, original[k]) for k, v in folded.state_dict().items())


def moved(model: torch.nn.Module) -> torch.nn.Module:
    """The model with every trained parameter moved, as training would."""
    torch.manual_seed(1)
    for parameter in parameters.trained(model).values():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("method", SETTINGS)
def test_a_delta_laid_over_its_merge_is_the_trained_model(tiny, tmp_path, method):
    model = moved(methods.apply(load.checkpoint(tiny / "moe2a2b"), METHODS[method]))
    store.trained(model, tmp_path / "trained.safetensors")
    again = load.variant(tiny / "moe2a2b", [METHODS[method]], [tmp_path / "trained.safetensors"])
    assert torch.equal(logits(again, IDS), logits(model, IDS))
    assert not torch.allclose(logits(model, IDS), logits(load.checkpoint(tiny / "moe2a2b"), IDS))


@pytest.mark.parametrize("method", [m for m in METHODS if not METHODS[m].is_quantized])
def test_a_folded_model_is_a_plain_mixtral_of_the_same_function(tiny, tmp_path, method):
    model = moved(methods.apply(load.checkpoint(tiny / "moe2a2b"), METHODS[method]))
    expected = logits(model, IDS)
    folded = methods.merge_and_unload(model)
    assert type(folded) is MixtralForCausalLM
    assert torch.allclose(logits(folded, IDS), expected, atol=1e-4)
    folded.save_pretrained(tmp_path / "model")
    assert torch.allclose(logits(load.checkpoint(tmp_path / "model"), IDS), expected, atol=1e-4)


def test_qlora_quantises_the_experts_too(tiny):
    import bitsandbytes as bnb

    model = methods.apply(load.checkpoint(tiny / "moe2a2b"), METHODS["qlora"])
    frozen = parameters.frozen(model)
    four_bit = {n for n, p in frozen.items() if isinstance(p, bnb.nn.Params4bit)}
    assert sum(".experts." in n for n in four_bit) == 2 * 4 * 2, "layers x experts x matrices"
    assert sum("self_attn" in n for n in four_bit) == 2 * 4
    assert all(frozen[n].dtype == torch.uint8 for n in four_bit)
    assert parameters.total(model) == parameters.total(load.checkpoint(tiny / "moe2a2b")) + count(
        model
    )


def test_adapters_start_alike_whatever_the_experts_and_their_precision(tiny):
    """QLoRA is LoRA on quantised weights, and a larger mixture's adapters are a smaller one's."""
    starts = []
    for name, method in itertools.product(("moe2a", "moe4a", "moe8a"), ("lora", "qlora")):
        model = load.checkpoint(tiny / name)
        torch.manual_seed(0)
        trained = parameters.trained(methods.apply(model, METHODS[method]))
        starts.append(torch.cat([trained[n].flatten() for n in sorted(trained)]))
    assert starts[0].any() and all(torch.equal(starts[0], start) for start in starts)


def test_slots_with_equal_gates_are_refused(tiny, tmp_path):
    params = merge_params(tiny, "a", "aabb")
    params["slots"][3]["positive"] = params["slots"][2]["positive"]
    with pytest.raises(ValueError, match="equal or empty gates"):
        merge.merge(params, tmp_path / "merged")


def test_the_papers_gates_differ_in_their_last_tokens(shared, paper_plan):
    """The first layer's gates are the embeddings of the prompts' last tokens, those of TinyLlama."""
    folder = shared / "data/TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T"
    tokenizer = load.tokenizer(folder)

    def last(prompts: list[str]) -> tuple[int, ...]:
        return tuple(sorted(tokenizer(p)["input_ids"][-1] for p in prompts))

    for moe in paper_plan.moes:
        slots = paper_plan.params.merge(moe, 0)["slots"]
        assert len({last(s["positive"]) for s in slots}) == len(slots), moe
        assert not any(set(last(s["positive"])) & set(last(s["negative"])) for s in slots), moe


@pytest.mark.parametrize("method", SETTINGS)
def test_the_model_evaluated_is_the_model_trained(tiny, method):
    """No method computes something else in eval mode or without gradients."""
    model = moved(methods.apply(load.checkpoint(tiny / "moe2a2b"), METHODS[method]))
    trained = model.train()(input_ids=IDS).logits.detach()
    assert torch.allclose(logits(model, IDS), trained, atol=1e-5)


def test_what_cannot_be_is_refused(tiny, tmp_path):
    for method in ("freeze3", "router"):
        with pytest.raises(ValueError, match="the model is dense"):
            methods.apply(load.checkpoint(tiny / "a"), METHODS[method])
    with pytest.raises(ValueError, match="freezes 3 experts, the mixture has 2; freeze fewer"):
        methods.apply(load.checkpoint(tiny / "moe2a"), METHODS["freeze3"])
    with pytest.raises(ValueError, match="quantised"):
        methods.merge_and_unload(methods.apply(load.checkpoint(tiny / "moe2a"), METHODS["qlora"]))
    model = methods.apply(load.checkpoint(tiny / "moe2a2b"), METHODS["mofe"])
    store.trained(model, tmp_path / "trained.safetensors")
    for merged, settings_ in (("moe2a2b", "full"), ("moe2a", "mofe")):
        with pytest.raises(ValueError, match=str(tmp_path / "trained.safetensors")):
            load.variant(tiny / merged, [METHODS[settings_]], [tmp_path / "trained.safetensors"])


def test_missing_weights_are_refused(tiny, tmp_path):
    folder = tmp_path / "broken"
    broken = load.checkpoint(tiny / "a")
    state = {k: v for k, v in broken.state_dict().items() if "layers.1.mlp.up_proj" not in k}
    broken.save_pretrained(folder, state_dict=state)
    with pytest.raises(ValueError, match="missing_keys"):
        load.checkpoint(folder)


@pytest.mark.parametrize("merge", ["moe2a2b", "a"])
def test_fused_norms_are_transformers(tiny, merge):
    """In values, gradients and names; on GPUs a model has them (mofe.models.devices.to_device)."""
    plain, fused = load.checkpoint(tiny / merge), load.checkpoint(tiny / merge)
    norms.fuse(fused)
    kinds = [type(m).__name__ for m in fused.modules()]
    assert kinds.count("FusedNorm") == 2 * len(fused.model.layers)
    ids = torch.arange(3, 40)[None]
    found = []
    for model in (plain, fused):
        loss = model.train()(input_ids=ids, labels=ids).loss
        loss.backward()
        found.append((loss.item(), {n: p.grad for n, p in model.named_parameters()}))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    assert found[0][1].keys() == found[1][1].keys()
    for name, gradient in found[0][1].items():
        assert torch.allclose(gradient, found[1][1][name], atol=1e-6), name
    with torch.autocast("cpu", torch.bfloat16):
        assert fused.model.layers[0].input_layernorm(torch.ones(1, 64)).dtype == torch.bfloat16


def test_attention_is_the_one_that_masks_are_made_for(tiny, tmp_path):
    """Whatever a config.json asks for: eager attention would add a mask of truth values."""
    shutil.copytree(tiny / "a", tmp_path / "a")
    file = tmp_path / "a" / "config.json"
    asked = json.loads(file.read_text()) | {"attn_implementation": "eager"}
    file.write_text(json.dumps(asked | {"_attn_implementation": "eager"}))
    assert load.checkpoint(tmp_path / "a").config._attn_implementation == "sdpa"
