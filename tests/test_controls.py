"""What the controls need: parts trained alone, adapters on experts and beside embeddings, dense models
with frozen FFNs, and mixtures of one expert."""

import json
from pathlib import Path

import pytest
import torch
from conftest import CONFIG, LOOK, TRAINING, merge_params
from safetensors.torch import load_file
from test_experts import FFN as WIDTH
from test_experts import HIDDEN, close, gradients, kept, layer, routed
from test_fp8 import unrounded
from test_models import FFN, IDS, METHODS, QKVO, SETTINGS, logits, moved
from test_train import run
from torch.nn.utils import parametrize
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from mofe.estimate import flops
from mofe.estimate.cost import Costs
from mofe.layers import experts, parameters
from mofe.models import load, manifest, methods, store
from mofe.stages import evaluate, export, merge, train
from mofe.stages.plan import check_counts
from mofe.study.load import read_study
from mofe.study.methods import Lora, Partial, parse
from mofe.study.plan import Plan
from mofe.study.shapes import Shape
from mofe.study.values import ConfigError
from mofe.training import loop, tokens

CONTROLS = ["lora_also", "lora_experts", "rslora_both", "attention", "embeddings", "router"]
CONTROLS += ["norms_experts"]


@pytest.fixture(scope="module")
def batch(tiny, data):
    tokenizer = load.tokenizer(tiny / "a")
    rows = tokens.tokenize(tokens.read([data]), tokenizer, 64)
    return tokens.collate(rows, range(12), tokenizer.pad_token_id)


@pytest.fixture(scope="module")
def one(tiny) -> Path:
    """A mixture of one expert on its own base."""
    params = merge_params(tiny, "a", "a") | {"gate_mode": "none", "experts_per_token": 1}
    params["slots"] = [{**params["slots"][0], "positive": [], "negative": []}]
    merge.merge(params, tiny / "moe1a")
    return tiny / "moe1a"


def steps(model, batch) -> list[float]:
    """The losses of six steps of AdamW."""
    answers = (batch["labels"] != tokens.IGNORED).sum()
    optimizer = torch.optim.AdamW(parameters.trained(model).values(), lr=1e-2)
    losses = []
    for _ in range(6):
        loss = loop.AnswerLoss(model)(**batch) / answers
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    return losses


# --------------------------------------------------------------------------- adapters of experts


def adapted(kinds: list[int], sizes=("gate_proj", "up_proj", "down_proj"), **lora):
    """A layer's experts with adapters that are not zero."""
    of = {"gate_proj": (HIDDEN, WIDTH), "up_proj": (HIDDEN, WIDTH), "down_proj": (WIDTH, HIDDEN)}
    made = experts.SplitExperts.adapted(
        layer(kinds), {name: of[name] for name in sizes}, **{"rank": 3, "scaling": 2.0, **lora}
    )
    torch.manual_seed(0)
    for matrix in made.stacks[0].adapters.parameters():
        matrix.data += 0.1 * torch.randn_like(matrix)
    return made


@pytest.mark.parametrize("sizes", [FFN, ["gate_proj"], ["up_proj", "down_proj"]], ids=str)
def test_adapted_experts_are_the_experts_with_the_adapters_merged(sizes):
    kinds = [0, 0, 1, 2]
    ours, inputs = adapted(kinds, sizes), routed(40, 4, seed=3)
    plain = ours.packed(like=layer(kinds))
    assert not torch.equal(plain.gate_up_proj[0], plain.gate_up_proj[1]) or sizes == ["down_proj"]
    close(gradients(ours, *inputs), gradients(plain, *inputs))
    merged = {n: p.grad for n, p in plain.named_parameters()}
    gate, up = merged["gate_up_proj"].chunk(2, dim=1)
    whole = {"gate_proj": gate, "up_proj": up, "down_proj": merged["down_proj"]}
    for name, product in ours.stacks[0].adapters.items():
        close(
            [product.a.grad, product.b.grad],
            [2.0 * product.b.mT @ whole[name], 2.0 * whole[name] @ product.a.mT],
        )
    assert all(p.grad is None for p in ours.stacks[0].stack.parameters())


def test_equal_experts_with_adapters_are_not_folded():
    ours, inputs = adapted([0, 0, 0, 0]), routed(40, 4, seed=3)
    expected = gradients(ours, *inputs)
    ours.fold_duplicates()
    assert len(ours.stacks[0]) == 4 and ours.expert_map == [0, 1, 2, 3]
    close(gradients(ours, *inputs), expected)


def test_adapters_of_experts_are_multiplied_in_the_precision_of_autocast():
    ours, inputs = adapted([0, 1, 2, 3], rank=4), routed(40, 4, seed=3)
    exact = gradients(ours, *inputs)
    ours.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(ours, *inputs)
    for low, full in zip(found, exact, strict=True):
        assert low.dtype == full.dtype == torch.float32
        assert 0 < (low - full).norm() < 0.02 * full.norm()
    for parameter in ours.stacks[0].adapters.parameters():
        assert parameter.grad.dtype == torch.float32 and parameter.grad.any()


@pytest.mark.parametrize("sizes", [FFN, ["gate_proj", "up_proj"], ["down_proj"]], ids=str)
def test_adapters_of_experts_keep_what_is_estimated(sizes):
    rows, k, rank = 400, 2, 4
    ours, inputs = adapted([0, 1, 2, 3], sizes, rank=rank), routed(rows, 4, seed=1)
    shape = Shape(HIDDEN, WIDTH, 1, 1, 1, 10).mixture(4, k)
    method = Lora(rank=rank, alpha=6, targets=sizes)
    estimated = rows * k * (4 * 2 * WIDTH + method.kept_in_experts(shape, 4))
    small = 24_000  # indices, the router's weights, and the matrices of adapters
    assert estimated <= kept(ours, *inputs) <= estimated + small


def test_adapters_of_one_expert_are_plain_pefts_of_the_dense_model(tiny, one, batch):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config = LoraConfig(r=8, lora_alpha=16, target_modules=["v_proj", *FFN])
    dense = get_peft_model(load.checkpoint(tiny / "a"), config)
    method = Lora(rank=8, alpha=16, targets=["v_proj", *FFN])
    ours = methods.apply(load.checkpoint(one), method)
    theirs = parameters.trained(dense)
    assert sum(p.numel() for p in theirs.values()) == sum(
        p.numel() for p in parameters.trained(ours).values()
    )
    for name, parameter in parameters.trained(ours).items():
        if ".adapters." in name:  # ...layers.0.mlp.experts.stacks.0.adapters.up_proj.a
            name = name.replace(".experts.stacks.0.adapters.", ".")
            name = name.removesuffix(".a").removesuffix(".b") + (
                ".lora_A.default.weight" if name.endswith(".a") else ".lora_B.default.weight"
            )
            name = name if name.startswith("base_model.") else f"base_model.model.{name}"
            parameter.data.copy_(theirs[name][None])
        else:
            parameter.data.copy_(theirs[name])
    answers = (batch["labels"] != tokens.IGNORED).sum()
    optimizer = torch.optim.AdamW(theirs.values(), lr=1e-2)
    expected = []
    for _ in range(6):
        loss = dense(**batch).loss
        loss.backward()
        expected.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    assert answers > 0 and steps(ours, batch) == pytest.approx(expected, rel=1e-4)
    assert expected[-1] < expected[0]


class Sum(torch.nn.Module):
    """A packed weight with LoRA's products added, one adapter per expert, by torch's own means."""

    def __init__(self, pairs, scaling: float):
        super().__init__()
        self.a = torch.nn.ParameterList(torch.nn.Parameter(a.detach().clone()) for a, _ in pairs)
        self.b = torch.nn.ParameterList(torch.nn.Parameter(b.detach().clone()) for _, b in pairs)
        self.scaling = scaling

    def forward(self, weight):
        products = [b @ a for a, b in zip(self.a, self.b, strict=True)]
        return weight + self.scaling * torch.cat(products, dim=1)


@pytest.mark.parametrize("name", ["moe4a", "moe2a2b"])
def test_a_training_of_adapted_experts_is_that_of_adapted_weights(tiny, batch, name):
    """On transformers' own experts and with torch's parametrisation of their packed weights."""
    torch.manual_seed(0)
    ours = methods.apply(load.checkpoint(tiny / name), METHODS["lora_experts"])
    theirs = load.checkpoint(tiny / name).requires_grad_(False)
    theirs.set_experts_implementation("eager")
    for mine, its in zip(ours.model.layers, theirs.model.layers, strict=True):
        low = mine.mlp.experts.stacks[0].adapters
        pairs = {part: (low[part].a, low[part].b) for part in FFN}
        for weight, parts in (("gate_up_proj", FFN[:2]), ("down_proj", FFN[2:])):
            added = Sum([pairs[part] for part in parts], scaling=2.0)
            parametrize.register_parametrization(its.mlp.experts, weight, added)
    losses = steps(ours, batch)
    assert losses == pytest.approx(steps(theirs, batch), rel=1e-4)
    assert losses[-1] < losses[0]
    experts.fold_duplicates(ours)
    assert all(len(layer.mlp.experts.stacks[0]) == 4 for layer in ours.model.layers)


# --------------------------------------------------------------------- modules beside the adapters


@pytest.mark.parametrize("also", [["embed_tokens", "lm_head"], ["lm_head"]], ids=str)
def test_modules_beside_the_adapters_are_pefts_modules_to_save(tiny, batch, also):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=8, lora_alpha=16, target_modules=QKVO, modules_to_save=also)
    theirs = load.checkpoint(tiny / "moe2a2b")
    theirs.set_experts_implementation("eager")
    torch.manual_seed(0)
    theirs = get_peft_model(theirs, config)
    torch.manual_seed(0)
    method = Lora(rank=8, alpha=16, targets=QKVO, also=also)
    ours = methods.apply(load.checkpoint(tiny / "moe2a2b"), method)
    sizes = [sum(p.numel() for p in parameters.trained(m).values()) for m in (ours, theirs)]
    assert sizes[0] == sizes[1]
    assert parameters.total(ours) < parameters.total(theirs), "which keeps a second copy"
    losses = steps(ours, batch)
    assert losses == pytest.approx(steps(theirs, batch), rel=1e-4)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("also", ["embed_tokens", "lm_head"])
def test_either_name_trains_the_one_matrix_of_tied_embeddings(tiny, batch, tmp_path, also):
    config = load.checkpoint(tiny / "a").config
    config.tie_word_embeddings = True
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "tied")
    method = Lora(rank=8, alpha=16, targets=QKVO, also=[also])
    model = methods.apply(load.checkpoint(tmp_path / "tied"), method)
    table = model.get_input_embeddings().weight
    losses = steps(model, batch)
    assert losses[-1] < losses[0]
    assert model.get_output_embeddings().weight is table
    store.trained(model, tmp_path / "trained.safetensors")
    again = load.variant(tmp_path / "tied", [method], [tmp_path / "trained.safetensors"])
    assert torch.equal(logits(again, IDS), logits(model, IDS))
    plain = methods.merge_and_unload(again)
    assert torch.allclose(logits(plain, IDS), logits(model, IDS), atol=1e-4)
    assert torch.equal(plain.lm_head.weight, plain.model.embed_tokens.weight)


# ------------------------------------------------------------------------------ parts, alone


@pytest.mark.parametrize("name", ["moe2a2b", "a"])
def test_mofe_is_attention_embeddings_router_and_norms(tiny, name):
    groups = ["attention", "embeddings", "norms"] + (["router"] if name != "a" else [])
    parts, mofe = (
        parameters.trained(methods.apply(load.checkpoint(tiny / name), method))
        for method in (Partial(train=groups), METHODS["mofe"])
    )
    assert parts.keys() == mofe.keys()


def test_every_parameter_is_in_one_part(tiny):
    for name in ("moe2a2b", "a"):
        seen: list[str] = []
        for group in ("attention", "embeddings", "norms", "experts", "router"):
            if Partial(train=[group]).misfit(0 if name == "a" else 4, "it") is None:
                model = methods.apply(load.checkpoint(tiny / name), Partial(train=[group]))
                seen += parameters.trained(model)
        assert sorted(seen) == sorted(n for n, _ in load.checkpoint(tiny / name).named_parameters())


@pytest.mark.parametrize("fold", [False, True])
def test_a_router_of_identical_experts_learns_nothing(tiny, data, tmp_path, fold):
    settings = {"merge": "moe4a", "fold_duplicates": fold, "global_batch": 20, "epochs": 4}
    record = run(tiny, data, tmp_path, "router", **settings)
    losses = [json.loads(x)["loss"] for x in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len(losses) == record["steps"] == 4
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-5)
    assert record["frozen_sha256"]["before"] == record["frozen_sha256"]["after"]


# ------------------------------------------------------------- dense models with frozen FFNs


def trained_on(tiny, data, out, name) -> tuple[list[float], dict[str, torch.Tensor]]:
    run(tiny, data, out / name, "mofe", merge=name, fold_duplicates=True, learning_rate=1e-3)
    lines = (out / name / "log.jsonl").read_text().splitlines()
    tensors = load_file(out / name / "trained.safetensors")
    return [json.loads(x)["loss"] for x in lines], {
        n: t for n, t in tensors.items() if ".gate." not in n
    }


def test_sizes_of_identical_frozen_experts_are_one_function_and_so_is_the_dense_model(
    tiny, one, data, tmp_path
):
    """In every step's loss, in what is trained and in every answer, up to rounding: a router's weights
    add up to 1, or to the number beside it. Measured here: losses are the same bits for 2, 4 and 8
    experts, and apart by 1e-7 of their size for one expert and for the dense model."""
    names = ("moe1a", "moe2a", "moe4a", "moe8a", "a")
    found = {name: trained_on(tiny, data, tmp_path, name) for name in names}
    losses, tensors = found["moe2a"]
    for name in names:
        assert found[name][0] == pytest.approx(losses, rel=1e-6), name
        assert found[name][1].keys() == tensors.keys()
        assert all(torch.allclose(found[name][1][n], tensors[n], atol=1e-5) for n in tensors), name
    trained = {
        name: load.variant(
            tiny / name, [METHODS["mofe"]], [tmp_path / name / "trained.safetensors"]
        )
        for name in names
    }
    answers = {name: logits(model, IDS).argmax(-1) for name, model in trained.items()}
    assert all(torch.equal(answers[name], answers["moe2a"]) for name in names)
    ffns = [n for n, _ in trained["a"].named_parameters() if ".mlp." in n]
    merged = dict(load.checkpoint(tiny / "a").named_parameters())
    assert all(torch.equal(dict(trained["a"].named_parameters())[n], merged[n]) for n in ffns)


DENSE = {
    **{name: SETTINGS[name] for name in ("mofe", "lora_also", "lora_experts", "attention")},
    **{name: SETTINGS[name] for name in ("embeddings", "norms_experts", "qlora_all")},
    "mofe_fp8": SETTINGS["mofe_fp8"],
    "mofe_nf4": {"method": "freeze", "frozen": "all", "quantize": "nf4"},
}


@pytest.mark.parametrize("method", DENSE)
def test_dense_models_are_trained_stored_loaded_evaluated_and_exported(
    tiny, data, tmp_path, method
):
    arguments = {
        "merge": str(tiny / "a"),
        "data": [data],
        "parents": [],
        "chain": [],
        "params": {"recipe": method, **DENSE[method], "training": TRAINING},
        "names": {"moe": "a", "stages": method},
        "seed": 0,
        "trained": tmp_path / "trained.safetensors",
        "record": tmp_path / "train.json",
        "log": tmp_path / "log.jsonl",
        "checkpoint": tmp_path / "checkpoint",
    }
    train.train_variant(**arguments)
    record, chosen = json.loads((tmp_path / "train.json").read_text()), parse(DENSE[method])
    shape = Shape.of(load.checkpoint(tiny / "a").config.to_dict())
    counted = record["total_parameters"], record["trainable_parameters"]
    assert counted == (chosen.total(shape), chosen.trainable(shape))
    trained = [tmp_path / "trained.safetensors"]
    model = load.variant(tiny / "a", [chosen], trained)
    assert torch.equal(
        logits(evaluate.ready(tiny / "a", [chosen], trained), IDS), logits(model, IDS)
    )
    plain = export.plain(str(tiny / "a"), [chosen], [str(f) for f in trained])
    assert type(plain) is LlamaForCausalLM
    expected = logits(unrounded(model), IDS)
    assert torch.allclose(logits(plain, IDS), expected, atol=1e-4)
    assert not torch.allclose(logits(load.checkpoint(tiny / "a"), IDS), expected)


# ----------------------------------------------------------------------------------- stages


@pytest.mark.parametrize("method", CONTROLS)
def test_a_stage_after_it_begins_where_it_ended(tiny, tmp_path, method):
    """Also with the form that the next method gives to the model."""
    first = moved(methods.apply(load.checkpoint(tiny / "moe2a2b"), METHODS[method]))
    store.trained(first, tmp_path / "1.safetensors")
    for following in ("mofe", method):
        plain = methods.merge_and_unload(
            load.variant(tiny / "moe2a2b", [METHODS[method]], [tmp_path / "1.safetensors"])
        )
        second = moved(methods.apply(plain, METHODS[following]))
        store.trained(second, tmp_path / "2.safetensors")
        again = load.variant(
            tiny / "moe2a2b",
            [METHODS[method], METHODS[following]],
            [tmp_path / "1.safetensors", tmp_path / "2.safetensors"],
        )
        assert torch.allclose(logits(again, IDS), logits(second, IDS), atol=1e-4)
        assert not torch.allclose(logits(again, IDS), logits(first, IDS), atol=1e-2)


# ------------------------------------------------------------------------ mixtures of one expert


def control(**changes):
    """config.yaml with a table of what the controls compare."""
    rows = {
        "Dense": {"model": "tinyllama", "train": {"mmlu_medmcqa": "mofe"}},
        "One": {"mixture": "one", "train": {"mmlu_medmcqa": "mofe"}},
        **{
            name: {"mixture": "medium", "train": {"mmlu_medmcqa": name}}
            for name in ("mofe", "lora", "lora_also", "lora_experts", "attention", "embeddings")
        },
        "router": {"mixture": "medium", "train": {"mmlu_medmcqa": "router"}},
        "Dense LoRA": {"model": "tinyllama", "train": {"mmlu_medmcqa": "lora_experts"}},
    }
    table = {"caption": "", "labels": ["Model"], "columns": {"MMLU": "mmlu"}, "rows": rows}
    alone = {"base": "tinyllama", "experts": {"tinyllama": 1}, "merge": {"experts_per_token": 1}}
    return read_study(CONFIG, LOOK, tables={"C2": table}, mixtures={"one": alone}, **changes)


@pytest.mark.parametrize("gates", ["hidden", "cheap_embed", "random"])
def test_one_expert_needs_no_gates(tiny, tmp_path, gates):
    study = control(merge={"gate_mode": gates}, models={"tinyllama": {"gates": {"negative": []}}})
    params = Plan(study).params.merge("tinyllama_1tinyllama_top1")
    assert params["gate_mode"] == "none" and params["slots"][0]["positive"] == []
    own = {"base": str(tiny / "a"), "names": {}, "dtype": "float32"}
    params = params | own | {"slots": [{**params["slots"][0], "model": str(tiny / "a")}]}
    merge.merge(params, tmp_path / "one")
    assert manifest.read(tmp_path / "one").gate_mode == "none"
    assert not any(t.any() for t in load_file(tmp_path / "one" / manifest.ROUTER).values())
    merged, dense = load.checkpoint(tmp_path / "one"), load.checkpoint(tiny / "a")
    assert torch.allclose(logits(merged, IDS), logits(dense, IDS), atol=1e-5)
    merged.train()(input_ids=IDS, labels=IDS).loss.backward()
    assert not any(layer.mlp.gate.weight.grad.any() for layer in merged.model.layers)
    methods.apply(merged, METHODS["full"]).save_pretrained(tmp_path / "out")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert torch.allclose(logits(again, IDS), logits(dense, IDS), atol=1e-5)


def test_the_controls_are_planned_and_count_as_their_modules():
    costs = Costs(Plan(control()))
    assert check_counts(costs) > 19
    of = {v.key.replace("/mmlu_medmcqa_", " "): v for v in costs.plan.trained.values()}
    cost = {key: costs.train(v) for key, v in of.items()}
    medium = "tinyllama_4tinyllama"
    dense, one = cost["tinyllama mofe"], cost["tinyllama_1tinyllama_top1 mofe"]
    assert one.trainable - dense.trainable == 22 * 2048, "the router's rows"
    assert cost[f"{medium} embeddings"].trainable == 2 * 32000 * 2048
    order = ["router", "embeddings", "attention", "mofe"]
    found = [cost[f"{medium} {name}"].flops for name in order]
    assert found[0] < min(found[1:3]) and max(found[1:3]) < found[3]
    peaks = [sum(cost[f"{medium} {name}"].memory.values()) for name in order]
    assert peaks[0] < min(peaks[1:3]) and max(peaks[1:3]) < peaks[3]
    lora, adapters = (
        flops.step(costs.variant_shape(of[f"{medium} lora"]), method, 64, 1.0)
        for method in (METHODS["lora"], METHODS["lora_experts"])
    )
    active, rest = 2 * 8 * 3 * (2048 + 5632), 8 * (2 * 4096 + 2 * (2048 + 256))
    assert adapters - lora == pytest.approx(6 * 22 * (active - rest)), "two of four experts a token"
    assert all(estimate.fits for estimate in cost.values())


# ------------------------------------------------------------------ mixtures that no table shows


def test_what_no_table_shows_is_not_checked_and_can_be_left_out(tmp_path):
    tables = "study: own\ntables: {1: null, 2: null}\n"
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(tables + "merge: {experts_per_token: 4}\n")
    assert read_study(CONFIG, LOOK, overlay).merged_by("medium").experts_per_token == 4
    overlay.write_text("merge: {experts_per_token: 4}\n")
    with pytest.raises(
        ConfigError, match=r"mixtures\.small\.experts \(.*: 2 expert\(s\), but merge"
    ):
        read_study(CONFIG, LOOK, overlay)
    overlay.write_text(tables + "mixtures: {small: null}\n")
    assert "small" not in read_study(CONFIG, LOOK, overlay).mixtures
    overlay.write_text("mixtures: {small: null}\n")
    with pytest.raises(
        ConfigError, match=r"Small \| X\.mixture.*'small' is taken out of mixtures by null"
    ):
        read_study(CONFIG, LOOK, overlay)
    overlay.write_text("mixtures: {smal: null}\n")
    with pytest.raises(
        ConfigError, match=r"mixtures\.smal .*: is not there, so .*; did you mean 'small'"
    ):
        read_study(CONFIG, LOOK, overlay)
