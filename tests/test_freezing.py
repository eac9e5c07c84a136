"""What is frozen, and when: experts by their slots, and experts that are updated later."""

import itertools
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import CONFIG, TRAINING
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from test_models import SETTINGS
from torch import nn

from mofe.estimate import flops
from mofe.estimate.cost import Costs
from mofe.layers import parameters
from mofe.models import load, methods
from mofe.report import kinds
from mofe.stages import train
from mofe.study.load import read_study
from mofe.study.methods import Freeze, parse
from mofe.study.plan import Plan
from mofe.study.shapes import Shape
from mofe.study.tables import Cell
from mofe.study.values import ConfigError
from mofe.training import tokens, unfreezing
from mofe.training.drift import Before

GENTLE = {**TRAINING, "learning_rate": 1e-3, "epochs": 3}  # 9 steps


def trained(tiny: Path, data: str, out: Path, settings: dict, merge="moe2a2b", **more) -> dict:
    given = {"parents": [], "chain": [], **more}
    training = {**GENTLE, **given.pop("training", {})}
    train.train_variant(
        **given,
        merge=str(tiny / merge),
        data=[data],
        params={"recipe": "it", **settings, "training": training},
        names={"moe": merge, "stages": "it"},
        seed=0,
        trained=out / "trained.safetensors",
        record=out / "train.json",
        log=out / "log.jsonl",
        checkpoint=out / "checkpoint",
    )
    return json.loads((out / "train.json").read_text())


def plain(tiny: Path, out: Path, settings: dict, merge="moe2a2b") -> dict[str, torch.Tensor]:
    """The trained model's weights by the names of the merge."""
    end = load.variant(tiny / merge, [parse(settings)], [out / "trained.safetensors"])
    return methods.merge_and_unload(end).state_dict()


# --------------------------------------------------------------------------------- frozen by slot


@pytest.mark.parametrize("slots", [[1, 3], [3], [0, 2, 3]])
def test_the_named_experts_stay_bit_for_bit_and_the_others_move(tiny, data, tmp_path, slots):
    settings = {"method": "freeze", "frozen": slots}
    record = trained(tiny, data, tmp_path, settings, training={"weight_decay": 1.0})
    assert record["frozen_sha256"]["before"] == record["frozen_sha256"]["after"] is not None
    merged = load.checkpoint(tiny / "moe2a2b").state_dict()
    end = plain(tiny, tmp_path, settings)
    for name in (name for name in merged if ".experts." in name):
        equal = [torch.equal(end[name][slot], merged[name][slot]) for slot in range(4)]
        assert equal == [slot in slots for slot in range(4)], name


def test_a_list_of_the_first_slots_is_their_number(tiny, data, tmp_path):
    listed = trained(tiny, data, tmp_path / "list", {"method": "freeze", "frozen": [0, 1]})
    counted = trained(tiny, data, tmp_path / "count", {"method": "freeze", "frozen": 2})
    one, two = ((tmp_path / n / "trained.safetensors").read_bytes() for n in ("list", "count"))
    assert one == two
    assert listed["frozen_sha256"] == counted["frozen_sha256"]
    assert listed["flops"] == counted["flops"]


def test_a_stage_starts_from_the_slots_of_the_one_before(tiny, data, tmp_path):
    """With no learning, what follows experts that were frozen by slot is the same model."""
    for name in ("freeze_any", "unfreeze"):
        settings, out = SETTINGS[name], tmp_path / name
        trained(tiny, data, out, settings)
        first = str(out / "trained.safetensors")
        still = {"learning_rate": 1e-30, "weight_decay": 0.0}
        chain = {"parents": [first], "chain": [{"recipe": "it", **settings}], "training": still}
        trained(tiny, data, out / "second", {"method": "freeze", "frozen": 1}, **chain)
        files = [first, str(out / "second/trained.safetensors")]
        methods_ = [parse(settings), Freeze(frozen=1)]
        both = methods.merge_and_unload(load.variant(tiny / "moe2a2b", methods_, files))
        expected = plain(tiny, out, settings)
        assert all(torch.equal(p, expected[n]) for n, p in both.state_dict().items())


ROWS = {
    "none": {"mixture": "medical_2_general_2", "train": {"medmcqa": "full"}},
    "medical": {"mixture": "medical_2_general_2", "train": {"medmcqa": "named"}},
    "later": {"mixture": "medical_2_general_2", "train": {"medmcqa": "later"}},
}
RECIPES = {
    "named": {"method": "freeze", "frozen": ["medical"]},
    "later": {
        "method": "freeze",
        "frozen": "all",
        "unfreeze": [{"after": 0.5, "experts": ["general"]}],
    },
}


def study(recipes=RECIPES, rows=ROWS, **more):
    columns = {"MedMCQA": "medmcqa", "T": "trainable"}
    table = {"caption": "", "labels": ["Frozen"], "columns": columns, "rows": rows}
    return read_study(CONFIG, recipes=recipes, tables={"own": table}, **more)


def test_names_of_models_are_slots_in_a_jobs_parameters():
    plan = Plan(study())
    name = "general_2general-2medical/medmcqa"
    named, later = plan.variants[f"{name}_named"], plan.variants[f"{name}_later"]
    assert named.origin.experts == ("general", "general", "medical", "medical")
    experts = named.origin.experts
    assert plan.params.stage(named.stages[0], experts)["frozen"] == [2, 3]
    (chain,) = plan.params.chain(later)
    assert chain["unfreeze"] == [{"after": 0.5, "experts": [0, 1]}]
    frozen = {row.labels: row.frozen for row in plan.tables["own"].rows}
    assert frozen == {("none",): 0, ("medical",): 2, ("later",): 2}
    costs = Costs(plan)
    full, half, last = (
        costs.train(plan.variants[f"{name}_{r}"]) for r in ("full", "named", "later")
    )
    assert full.trainable > half.trainable == last.trainable, "in the end"
    assert full.flops > half.flops > last.flops
    assert full.memory["weights"] > half.memory["weights"] == last.memory["weights"]


@pytest.mark.parametrize(
    "settings, slots",
    [
        ({"frozen": 3, "unfreeze": [{"after": 0.5, "experts": ["medical"]}]}, [[2]]),
        (
            {
                "frozen": "all",
                "unfreeze": [{"after": 0.2, "experts": 1}, {"after": 0.5, "experts": ["medical"]}],
            },
            [1, [2]],
        ),
        ({"frozen": [1, 3], "unfreeze": [{"after": 0.5, "experts": ["general"]}]}, [[1]]),
    ],
)
def test_a_model_that_is_unfrozen_stands_for_its_slots_that_are_frozen(settings, slots):
    rows = {"it": {"mixture": "medical_2_general_2", "train": {"medmcqa": "x"}}}
    plan = Plan(study({"x": {"method": "freeze", **settings}}, rows))
    (chain,) = plan.params.chain(plan.variants["general_2general-2medical/medmcqa_x"])
    assert [step["experts"] for step in chain["unfreeze"]] == slots


@pytest.mark.parametrize(
    "settings, told",
    [
        (
            {"frozen": ["medicl"]},
            "recipes.x.frozen: 'medicl' is not declared under models; did you",
        ),
        ({"frozen": ["finance"]}, "recipe 'x' freezes 'finance', which mixture"),
        ({"frozen": [4]}, "freezes slot 4, which mixture"),
        ({"frozen": []}, "'all' or a list of models is needed"),
        ({"frozen": [1, 1]}, "1 stands there twice"),
        ({"frozen": [True]}, "names no experts"),
        ({"frozen": 0}, "'all' or a list of models is needed"),
        (
            {"unfreeze": [{"after": 0.5, "experts": 5}]},
            "unfreezes 5 experts after 0.5 of its steps",
        ),
        ({"unfreeze": [{"after": 0.5, "experts": ["finance"]}]}, "has no such frozen expert then"),
        (
            {"frozen": ["medical"], "unfreeze": [{"after": 0.5, "experts": ["general"]}]},
            "unfreezes slot 0, slot 1 after 0.5",
        ),
        ({"unfreeze": [{"after": 1.0, "experts": 1}]}, "recipes.x.unfreeze.0.after: 1.0 is too"),
        ({"unfreeze": []}, "recipes.x.unfreeze: has 0 of at least 1"),
        (
            {"unfreeze": [{"after": 0.5, "experts": 1}, {"after": 0.5, "experts": 1}]},
            "'unfreeze' has 'after' 0.5, 0.5; give each step a larger share",
        ),
        (
            {"quantize": "nf4", "unfreeze": [{"after": 0.5, "experts": 1}]},
            "'unfreeze' updates experts that 'quantize' holds in fewer bits",
        ),
    ],
)
def test_what_cannot_be_frozen_is_refused(settings, told):
    recipes = {"x": {"method": "freeze", "frozen": "all", **settings}}
    rows = {"it": {"mixture": "medical_2_general_2", "train": {"medmcqa": "x"}}}
    with pytest.raises(ConfigError) as refused:
        study(recipes, rows)
    assert len(refused.value.problems) == 1 and told in refused.value.problems[0]


def test_a_dense_model_has_one_ffn_to_freeze_and_unfreeze():
    rows = {"it": {"model": "medical", "train": {"medmcqa": "x"}}}
    for experts, told in (("all", None), (1, "write 'experts: all' once")):
        unfreeze = [{"after": 0.5, "experts": experts}]
        recipes = {"x": {"method": "freeze", "frozen": "all", "unfreeze": unfreeze}}
        if told is None:
            study(recipes, rows)
            continue
        with pytest.raises(ConfigError, match=told):
            study(recipes, rows)
    with pytest.raises(ConfigError, match="freezes 'medical', but model 'medical' is dense"):
        study({"x": {"method": "freeze", "frozen": ["medical"]}}, rows)


def test_one_step_leaves_nothing_to_unfreeze():
    rows = {"it": {"mixture": "medical_2_general_2", "train": {"medmcqa": "later"}}}
    one = {"later": {**RECIPES["later"], "training": {"epochs": 1, "global_batch": 20_000}}}
    with pytest.raises(ConfigError) as refused:
        study(one, rows)
    (told,) = refused.value.problems
    assert told.startswith("recipes.later.unfreeze: needs 2 optimiser steps")
    assert told.endswith("lower recipes.later.training.global_batch, or leave it out")


def test_equal_experts_that_a_list_freezes_are_folded_and_no_others():
    """A table that shows time refuses a mixture that is computed as a smaller one."""
    columns = {"Time": "time"}
    for mixture, frozen, refused in (
        ("medical_2_general_2", ["medical"], True),
        ("medical_2_general_2", [1, 2], False),  # a general and a medical one
    ):
        rows = {"it": {"mixture": mixture, "train": {"medmcqa": "x"}}}
        table = {"caption": "", "labels": ["It"], "columns": columns, "rows": rows}
        recipes = {"x": {"method": "freeze", "frozen": frozen}}
        if refused:
            with pytest.raises(ConfigError, match="would be of a smaller mixture"):
                read_study(CONFIG, recipes=recipes, tables={"own": table})
        else:
            read_study(CONFIG, recipes=recipes, tables={"own": table})


# ------------------------------------------------------------------------------------ unfreezing

chosen = st.one_of(
    st.just("all"), st.integers(1, 4), st.sets(st.integers(0, 3), min_size=1).map(sorted)
)


@given(chosen, st.lists(chosen, max_size=3))
def test_phases_freeze_less_and_less_and_end_with_what_is_never_updated(frozen, later):
    steps = [{"after": (n + 1) / 5, "experts": e} for n, e in enumerate(later)]
    method = Freeze(frozen=frozen, unfreeze=steps or None)
    if method.misfit(4, "it"):
        return
    phases = method.phases(4)
    assert sum(share for share, _ in phases) == pytest.approx(1)
    sets = [set(phase.frozen_slots(4)) for _, phase in phases]
    assert sets[-1] == set(method.frozen_slots(4))
    assert all(later < sooner for sooner, later in itertools.pairwise(sets))
    shape = Shape(64, 128, 2, 4, 2, 300).mixture(4, 2)
    costs = [flops.step(shape, phase, 20, 0.1) for _, phase in phases]
    assert costs == sorted(costs)
    expected = sum(share * cost for (share, _), cost in zip(phases, costs, strict=True))
    assert flops.step(shape, method, 20, 0.1) == pytest.approx(expected)


@given(st.floats(0.001, 0.999), st.integers(2, 2000))
def test_a_part_is_frozen_for_some_steps_and_trained_for_some(after, steps):
    start = unfreezing.Unfrozen(after, (0,), ()).start(steps)
    assert 1 <= start < steps
    assert start == 1 or start == pytest.approx(after * steps, abs=1)


def test_shares_that_are_whole_steps_are_those():
    parts = [unfreezing.Unfrozen(share, (0,), ()) for share in (0.3, 0.7, 0.1)]
    assert [part.start(10) for part in parts] == [3, 7, 1]
    with pytest.raises(ValueError, match="needs 2 steps"):
        parts[0].start(1)


class ByHand:
    """A mixture whose experts are leaves of their own, one per slot and layer, in plain torch."""

    def __init__(self, folder: Path):
        self.model = load.checkpoint(folder)
        self.model.set_experts_implementation("eager")
        named = dict(self.model.named_parameters())
        self.experts = {
            name: [nn.Parameter(w.detach().clone()) for w in named[name]]
            for name in named
            if ".experts." in name
        }
        self.rest = {name: p for name, p in named.items() if name not in self.experts}

    def loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Summed over the answers' tokens."""
        packed = {name: torch.stack(leaves) for name, leaves in self.experts.items()}
        inputs = {k: batch[k] for k in ("input_ids", "attention_mask")}
        logits = torch.func.functional_call(self.model, packed, kwargs=inputs).logits
        labels = batch["labels"][:, 1:].flatten()
        return F.cross_entropy(
            logits[:, :-1].flatten(0, 1), labels, ignore_index=-100, reduction="sum"
        )

    def train(self, rows: tokens.Rows, training: dict, first_steps: dict[int, int | None]) -> list:
        """Train; slot s from step first_steps[s] on, from 1, or never. Returns each step's loss."""
        step_of = list(
            tokens.schedule(rows.lengths, 0, training["epochs"], training["global_batch"], 10**6)
        )
        leaves = [p for group in self.experts.values() for p in group]
        everything = [*self.rest.values(), *leaves]
        decayed = [p for p in everything if p.ndim > 1]
        plain = [p for p in everything if p.ndim <= 1]
        optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": training["weight_decay"]},
             {"params": plain, "weight_decay": 0.0}]
        )  # fmt: skip
        losses = []
        for number, step in enumerate(step_of, 1):
            for group in self.experts.values():
                for slot, leaf in enumerate(group):
                    first = first_steps[slot]
                    leaf.requires_grad_(first is not None and number >= first)
            answers = sum(rows.answers[i] for batch in step for i in batch)
            optimizer.zero_grad(set_to_none=True)
            indices = [i for batch in step for i in batch]
            loss = self.loss(tokens.collate(rows, indices, 0)) / answers
            loss.backward()
            nn.utils.clip_grad_norm_(everything, training["max_grad_norm"])
            for group in optimizer.param_groups:
                group["lr"] = training["learning_rate"] * (1 - (number - 1) / len(step_of))
            optimizer.step()
            losses.append(loss.item())
        return losses


def test_unfreezing_is_what_a_loop_by_hand_does(tiny, data, tmp_path):
    """Slot 2 is trained from the first of nine steps on, slot 1 from the third, slot 3 from the
    seventh, slot 0 never."""
    record = trained(tiny, data, tmp_path, SETTINGS["unfreeze"])
    assert [part["first_step"] for part in record["unfrozen"]] == [3, 7]
    assert [part["slots"] for part in record["unfrozen"]] == [[1], [3]]
    hand = ByHand(tiny / "moe2a2b")
    before = {name: [p.detach().clone() for p in group] for name, group in hand.experts.items()}
    rows = tokens.tokenize(tokens.read([data]), load.tokenizer(tiny / "a"), 64)
    losses = hand.train(rows, GENTLE, {0: None, 1: 3, 2: 1, 3: 7})
    lines = [json.loads(x) for x in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines] == pytest.approx(losses, rel=1e-4)
    end = plain(tiny, tmp_path, SETTINGS["unfreeze"])
    for name, group in hand.experts.items():
        assert torch.equal(end[name][0], before[name][0])
        for slot in (1, 2, 3):
            moved = (group[slot] - before[name][slot]).abs().sum().item()
            apart = (end[name][slot] - group[slot]).abs().sum().item()
            assert moved > 0 and apart < 0.02 * moved, (name, slot)
    for name, parameter in hand.rest.items():
        assert (end[name] - parameter).abs().mean() < 1e-4, name
    sizes = [part["parameters"] for part in record["unfrozen"]]
    assert sizes == [2 * 3 * 64 * 128] * 2
    drift = record["drift"]
    assert drift["experts_frozen"] == 0.0 < drift["experts_updated"]


def test_until_then_no_bit_moves_and_nothing_is_remembered(tiny, data, tmp_path, monkeypatch):
    """Parameters, moments and gradients, at every step, with weight decay."""
    seen = []
    step = torch.optim.AdamW.step

    def watched(self, *args, **kwargs):
        held = [p for p in self.param_groups[0]["params"] if not p.requires_grad]
        assert all(p.grad is None for p in held)
        result = step(self, *args, **kwargs)
        for p in held:
            state = self.state[p]
            assert not (state["step"].any() or state["exp_avg"].any() or state["exp_avg_sq"].any())
        seen.append(len(held))
        return result

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    trained(tiny, data, tmp_path, SETTINGS["unfreeze"], training={"weight_decay": 1.0})
    assert seen == [8] * 2 + [4] * 4 + [0] * 3, "two matrices per stack and layer"


def test_a_held_parameter_that_changed_fails_the_training(tiny, data, tmp_path, monkeypatch):
    step = torch.optim.AdamW.step

    def meddling(self, *args, **kwargs):
        held = [p for p in self.param_groups[0]["params"] if not p.requires_grad]
        for p in held[:1]:
            p.data.view(-1)[0] += 1
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", meddling)
    with pytest.raises(RuntimeError, match="a parameter changed before step 3"):
        trained(tiny, data, tmp_path, SETTINGS["unfreeze"])
    assert not (tmp_path / "train.json").exists()


def test_a_dense_models_ffns_are_unfrozen_together(tiny, data, tmp_path):
    settings = {
        "method": "freeze",
        "frozen": "all",
        "unfreeze": [{"after": 0.5, "experts": "all"}],
    }
    record = trained(tiny, data, tmp_path, settings, merge="a")
    (part,) = record["unfrozen"]
    assert (part["first_step"], part["slots"]) == (5, [0])
    assert record["frozen_sha256"] == {"before": None, "after": None}
    assert record["trainable_parameters"] == record["total_parameters"]
    start = load.checkpoint(tiny / "a").state_dict()
    end = load_file(tmp_path / "trained.safetensors")
    assert not any(torch.equal(end[name], start[name]) for name in end)


def test_experts_that_will_differ_are_not_folded(tiny, data, tmp_path):
    """Of four equal experts two are updated later: folding changes no loss."""
    settings = {"method": "freeze", "frozen": "all", "unfreeze": [{"after": 0.4, "experts": 2}]}
    found = []
    for fold in (False, True):
        out = tmp_path / str(fold)
        trained(tiny, data, out, settings, merge="moe4a", training={"fold_duplicates": fold})
        lines = (out / "log.jsonl").read_text().splitlines()
        found.append([json.loads(line)["loss"] for line in lines])
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    model = load.variant(tiny / "moe4a", [parse(settings)], [tmp_path / "True/trained.safetensors"])
    assert {p.requires_grad for p in parameters.trained(model).values()} == {True}


# ----------------------------------------------------------------------------------------- drift


def drift_by_hand(before: dict, after: dict, names) -> float:
    moved = sum((after[n].double() - before[n].double()).square().sum() for n in names)
    return (moved / sum(before[n].double().square().sum() for n in names)).sqrt().item()


@pytest.mark.parametrize("method", ["full", "mofe", "freeze_any", "attention", "router"])
def test_drift_is_the_relative_change_of_each_group(tiny, data, tmp_path, method):
    record = trained(tiny, data, tmp_path, SETTINGS[method])
    before = load.checkpoint(tiny / "moe2a2b").state_dict()
    after = plain(tiny, tmp_path, SETTINGS[method])
    drift = record["drift"]
    groups = {
        "embeddings": [n for n in before if "embed_tokens" in n or "lm_head" in n],
        "attention": [n for n in before if "self_attn" in n],
        "router": [n for n in before if "mlp.gate." in n],
        "norms": [n for n in before if "norm" in n],
    }
    for group, names in groups.items():
        assert drift[group] == pytest.approx(drift_by_hand(before, after, names), rel=1e-6), group
    frozen = parse(SETTINGS[method]).frozen_slots(4)
    experts = [n for n in before if ".experts." in n]
    for key, slots in (("frozen", frozen), ("updated", {0, 1, 2, 3} - {*frozen})):
        if not slots:
            assert f"experts_{key}" not in drift
            continue
        index = sorted(slots)
        parts = [{n: w[n][index] for n in experts} for w in (before, after)]
        assert drift[f"experts_{key}"] == pytest.approx(drift_by_hand(*parts, experts), rel=1e-6)
    assert (drift.get("experts_frozen", 0.0), drift["attention"] > 0) == (0.0, method != "router")


def test_groups_with_adapters_have_no_drift(tiny, data, tmp_path):
    found = {
        name: trained(tiny, data, tmp_path / name, SETTINGS[name])["drift"]
        for name in ("lora", "qlora_all", "lora_also", "lora_experts", "ia3", "dora_head")
    }
    still = {"embeddings": 0.0, "experts_frozen": 0.0, "norms": 0.0, "router": 0.0}
    assert found["lora"] == found["ia3"] == still
    assert set(found["qlora_all"]) == {"embeddings", "norms", "router"}
    assert found["qlora_all"]["embeddings"] > 0 == found["qlora_all"]["norms"]
    assert found["lora_also"]["embeddings"] > 0
    assert set(found["lora_experts"]) == {"attention", "embeddings", "norms", "router"}
    assert set(found["dora_head"]) == {"experts_frozen", "norms", "router"}


def test_weights_that_were_all_zero_have_no_drift_when_they_move(tmp_path):
    model = nn.ModuleDict({"mlp": nn.ModuleDict({"gate": nn.Linear(3, 2)})})
    nn.init.zeros_(model["mlp"]["gate"].weight)
    nn.init.zeros_(model["mlp"]["gate"].bias)
    still, moves = (Before(model, tmp_path, sharded=False) for _ in range(2))
    assert still.drift().model_dump(exclude_none=True) == {"router": 0.0}
    nn.init.ones_(model["mlp"]["gate"].weight)
    assert not moves.drift().model_dump(exclude_none=True)


def test_a_column_shows_drift(tiny, data, tmp_path):
    trained(tiny, data, tmp_path / "0", SETTINGS["freeze_any"])
    trained(tiny, data, tmp_path / "1", SETTINGS["mofe"])
    trained(tiny, data, tmp_path / "2", SETTINGS["lora"])
    drift = json.loads((tmp_path / "0/train.json").read_text())["drift"]

    def shown(kind: str, *runs: str):
        files = tuple((str(tmp_path / run / "train.json"),) for run in runs)
        return kinds.measure(Cell("Drift", kind, files), "seconds")

    assert shown("drift_experts", "0").value == drift["experts_updated"]
    assert shown("drift_experts", "1").value == 0.0, "all are frozen"
    assert shown("drift_router", "0", "0").value == drift["router"]
    assert shown("drift_attention", "2") is None, "it has adapters"
    text = kinds.KINDS["drift_experts"].print(0.01234, float("nan"))
    assert text.value == "0.0123"


def test_the_initial_values_are_gone_after_the_training(tiny, data, tmp_path):
    trained(tiny, data, tmp_path, SETTINGS["mofe"])
    left = [file.name for file in (tmp_path / "checkpoint").iterdir() if file.is_file()]
    assert set(left) <= {"log.jsonl", "lock.released"}


# -------------------------------------------------------------------------------------- a router


def test_mofe_with_a_frozen_router_is_a_partial_training(tiny):
    """Method `partial` says it, so that it needs no key of its own."""
    model = {}
    for name, settings in {
        "mofe": SETTINGS["mofe"],
        "frozen": {"method": "partial", "train": ["attention", "embeddings", "norms"]},
    }.items():
        made = methods.apply(load.checkpoint(tiny / "moe2a2b"), parse(settings))
        model[name] = set(parameters.trained(made))
    routers = {name for name in model["mofe"] if ".mlp.gate." in name}
    assert len(routers) == 2 and model["frozen"] == model["mofe"] - routers


def test_the_loop_refuses_a_single_step(tiny, data, tmp_path):
    with pytest.raises(ValueError, match="needs 2 steps"):
        trained(
            tiny, data, tmp_path, SETTINGS["unfreeze"], training={"epochs": 1, "global_batch": 99}
        )
