"""Routers over training: what is recorded, against plain transformers; and that recording changes nothing."""

import json
import math
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import CONFIG, LOOK, MINI, REDUCED, TRAINING
from hypothesis import given
from hypothesis import strategies as st
from test_models import METHODS, SETTINGS
from test_train import interrupted, run

from mofe.layers import routers
from mofe.models import load, methods
from mofe.records import TrainRecord, read
from mofe.report import figures, kinds
from mofe.report.sources import RECORDS
from mofe.stages import train
from mofe.study.given import Given
from mofe.study.graph import Graph
from mofe.study.load import read_study
from mofe.study.plan import Plan
from mofe.study.shapes import Shape
from mofe.study.values import ConfigError
from mofe.training import tokens


@pytest.fixture(scope="module")
def two_sets(tiny, data, tmp_path_factory) -> list[str]:
    """Two training sets of rows that differ in length and words."""
    rows = pq.read_table(data).to_pylist()
    folder = tmp_path_factory.mktemp("sets")
    files = []
    for name, part in (("long", rows[:12]), ("short", rows[12:])):
        short = name == "short"
        prompts = [
            row["prompt"].split()[0] + "\nAnswer:" if short else row["prompt"] for row in part
        ]
        table = pa.table({"prompt": prompts, "answer": [row["answer"] for row in part]})
        pq.write_table(table, folder / f"{name}.parquet")
        files.append(str(folder / f"{name}.parquet"))
    return files


def train_on(tiny, files: list[str], out: Path, method="mofe", merge="moe2a2b", **training) -> dict:
    train.train_variant(
        merge=str(tiny / merge),
        data=files,
        parents=[],
        chain=[],
        params={"recipe": method, **SETTINGS[method], "training": {**TRAINING, **training}},
        names={"moe": merge, "stages": method},
        seed=0,
        trained=out / "trained.safetensors",
        record=out / "train.json",
        log=out / "log.jsonl",
        checkpoint=out / "checkpoint",
    )
    return json.loads((out / "train.json").read_text())


def logged(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def without(lines: list[dict], *keys: str) -> list[dict]:
    return [{key: value for key, value in line.items() if key not in keys} for line in lines]


# ----------------------------------------------------------------------------- what is recorded


def plain(tiny, merge: str, rows: tokens.Rows, everywhere: bool) -> list[dict]:
    """What the untrained routers do with all rows, row by row without padding, counted in plain Python
    from transformers' own router logits."""
    model = load.checkpoint(tiny / merge).eval()
    k = model.config.num_experts_per_tok
    found = []
    for layer in range(model.config.num_hidden_layers):
        chosen, weight, joint = Counter(), Counter(), Counter()
        entropies, probabilities = [], []
        for ids, start, of_set in zip(rows.ids, rows.prompt, rows.sets, strict=True):
            with torch.no_grad():
                out = model(torch.tensor([ids]), output_router_logits=True)
            logits = out.router_logits[layer]
            if layer == model.config.num_hidden_layers - 1 and not everywhere:
                logits = logits[start - 1 : len(ids) - 1]  # where the answer's tokens are predicted
            for token in logits.double().softmax(-1).tolist():
                entropies.append(-sum(p * math.log(p) for p in token))
                probabilities.append(token)
                best = sorted(range(len(token)), key=lambda e: -token[e])[:k]
                for expert in best:
                    chosen[expert] += 1
                    weight[expert] += token[expert] / sum(token[e] for e in best)
                    joint[of_set, expert] += 1
        slots, total = range(model.config.num_local_experts), sum(chosen.values())
        sets = Counter()
        for (of_set, _), count in joint.items():
            sets[of_set] += count
        mean = [sum(column) / len(probabilities) for column in zip(*probabilities, strict=True)]
        information = sum(
            count / total * math.log(count * total / (sets[s] * chosen[e]))
            for (s, e), count in joint.items()
        )
        found.append(
            {
                "tokens": len(probabilities),
                "chosen": [chosen[e] / total for e in slots],
                "weight": [weight[e] / sum(weight.values()) for e in slots],
                "entropy": sum(entropies) / len(entropies),
                "entropy_of_mean": -sum(p * math.log(p) for p in mean),
                "mutual_information": information,
            }
        )
    return found


def assert_equal(ours: list[dict], theirs: list[dict]) -> None:
    for one, two in zip(ours, theirs, strict=True):
        assert one.keys() == two.keys() and one["tokens"] == two["tokens"]
        for key in one:
            assert one[key] == pytest.approx(two[key], abs=2e-5), key


@pytest.mark.parametrize(
    "merge, method, fold, auxiliary",
    [
        ("moe2a2b", "mofe", False, 0.0),
        ("moe2a2b", "mofe", True, 0.01),
        ("moe4a", "mofe", True, 0.0),
        ("moe2a2b", "freeze3", False, 0.0),
        ("moe2a2b", "lora", True, 0.0),
        ("moe2a2b", "lora_experts", False, 0.0),
        ("moe2a2b", "full", False, 0.01),
    ],
)
def test_a_step_is_what_plain_transformers_says(
    tiny, two_sets, tmp_path, merge, method, fold, auxiliary
):
    """In every way that experts are computed, for all slots, without padding, and of the last layer
    only where the loss reads."""
    settings = {"global_batch": 20, "epochs": 1, "fold_duplicates": fold}
    settings |= {"router_aux_loss": auxiliary, "record_router": 1}
    train_on(tiny, two_sets, tmp_path, method, merge, **settings)
    (line,) = logged(tmp_path)
    tokenizer = load.tokenizer(tiny / merge)
    rows = tokens.tokenize(tokens.read(two_sets), tokenizer, 64, sets=tokens.sets(two_sets))
    theirs = plain(tiny, merge, rows, everywhere=auxiliary > 0)
    assert_equal(line["router"], theirs)
    assert theirs[0]["mutual_information"] > 0.001, "else this test shows nothing of it"
    assert theirs[0]["tokens"] == sum(rows.lengths)


def test_the_recorded_steps_are_every_nth_the_first_and_the_last(tiny, data, tmp_path):
    run(tiny, data, tmp_path, "mofe", global_batch=4, epochs=2, record_router=4)
    lines = logged(tmp_path)
    assert [line["step"] for line in lines if "router" in line] == [1, 4, 8, 10]


def test_one_training_set_tells_nothing_of_sets(tiny, data, tmp_path):
    run(tiny, data, tmp_path, "mofe", record_router=1)
    assert {
        layer["mutual_information"] for line in logged(tmp_path) for layer in line["router"]
    } == {0}


# ------------------------------------------------------------------------------ nothing changes


@pytest.mark.parametrize("method", ["mofe", "freeze3", "lora", "full"])
def test_recording_changes_no_bit_of_the_training(tiny, two_sets, tmp_path, method):
    found = []
    for name, every in (("with", {"record_router": 1}), ("without", {})):
        out = tmp_path / name
        record = train_on(tiny, two_sets, out, method, router_aux_loss=0.01, **every)
        assert ("token_share" in record) == (name == "with")
        lines = without(logged(out), "router", "seconds")
        found.append((lines, (out / "trained.safetensors").read_bytes()))
    assert found[0] == found[1]


def test_an_interrupted_recording_is_the_uninterrupted_one(tiny, two_sets, tmp_path, monkeypatch):
    settings = {"record_router": 2, "micro_batch": 3}
    interrupted(tiny, two_sets, tmp_path / "cut", monkeypatch, 4, **settings)
    cut = train_on(tiny, two_sets, tmp_path / "cut", **settings)
    whole = train_on(tiny, two_sets, tmp_path / "whole", **settings)
    assert cut["resumed"] == 1
    lines = [without(logged(tmp_path / name), "seconds") for name in ("cut", "whole")]
    assert lines[0] == lines[1] and any("router" in line for line in lines[0])
    assert cut["token_share"] == whole["token_share"]
    stored = [(tmp_path / n / "trained.safetensors").read_bytes() for n in ("cut", "whole")]
    assert stored[0] == stored[1]


def test_micro_batches_record_the_same(tiny, two_sets, tmp_path):
    found = []
    for rows in (1, 20):
        out = tmp_path / str(rows)
        train_on(tiny, two_sets, out, record_router=1, micro_batch=rows, global_batch=20, epochs=1)
        found.append(logged(out)[0]["router"])
    assert_equal(*found)


# ---------------------------------------------------------------------------------- token share


def test_the_token_share_is_that_of_the_recorded_tokens(tiny, data, tmp_path):
    run(tiny, data, tmp_path, "freeze3", record_router=1)
    record = read(tmp_path / "train.json", TrainRecord)
    lines = logged(tmp_path)
    for number, shares in enumerate(record.token_share.slots):
        layers = [line["router"][number] for line in lines]
        total = sum(layer["tokens"] for layer in layers)
        for slot, share in enumerate(shares):
            expected = sum(layer["tokens"] * layer["chosen"][slot] for layer in layers) / total
            assert share == pytest.approx(expected, abs=1e-6)
    last = [shares[3] for shares in record.token_share.slots]  # the one slot that is updated
    assert record.token_share.updated == pytest.approx(sum(last) / len(last), abs=1e-6)


@pytest.mark.parametrize("method", SETTINGS)
def test_updated_experts_are_those_whose_weights_or_adapters_are_trained(tiny, method):
    """By the modules: a slot is updated where its expert's parameters require a gradient."""
    model = methods.apply(load.checkpoint(tiny / "moe2a2b"), METHODS[method])
    shape = Shape.of(model.config.to_dict())
    blocks = (m for m in model.modules() if hasattr(m, "gate") and hasattr(m, "experts"))
    experts = next(blocks).experts
    stacks = getattr(experts, "stacks", [experts])
    updated, first = [], 0
    for stack in stacks:
        size = 4 if stack is experts else len(stack)
        if any(parameter.requires_grad for parameter in stack.parameters()):
            updated += range(first, first + size)
        first += size
    at = getattr(experts, "expert_map", range(4))
    slots = [slot for slot in range(4) if at[slot] in updated]
    assert list(METHODS[method].updated_experts(shape)) == slots


# -------------------------------------------------------------------------------- the configuration

RECORDED = {"training": {"record_router": 5}}
ROUTERS = ["router_load", "router_entropy", "router_information"]


def given_to(rule: str, *files, **changes) -> dict[tuple, dict]:
    plan = Plan(read_study(*files, **changes))
    told = Given(plan, figures.given(plan), trainings=RECORDS.spec(plan))
    jobs = Graph(plan, figures.inputs(plan)).jobs
    return {tuple(j.wildcards.values()): told.of(rule, j.wildcards) for j in jobs if j.rule == rule}


def test_only_trainings_of_mixtures_are_told_and_no_candidate():
    """And nothing else of what a job is given changes, so nothing else is made again."""
    files = [CONFIG, MINI, REDUCED]
    before, after = given_to("train", *files), given_to("train", *files, **RECORDED)
    assert before.keys() == after.keys()
    told = set()
    for key, values in after.items():
        training = values["stage"]["training"]
        if training.pop("record_router", None) == 5:
            told.add(key[0])
        assert values == before[key]
    plan = Plan(read_study(*files))
    mixtures = {k for k, v in plan.variants.items() if v.origin.experts and not v.is_candidate}
    assert told == mixtures & set(plan.trained) and len(told) < len({k for k, _ in before})
    for rule in ("train_expert", "pretrain", "evaluate", "merge"):
        assert given_to(rule, *files) == given_to(rule, *files, **RECORDED), rule


def test_a_recipe_decides_for_itself_and_then_its_mix():
    changes = {
        "recipes": {"mofe": {"training": {"record_router": 2}}},
        "mixes": {"mmlu_medmcqa": {"training": {"record_router": 3}}},
    }
    told = given_to("train", CONFIG, LOOK, **changes)
    steps = {key: values["stage"]["training"].get("record_router") for key, values in told.items()}
    assert {steps[key] for key in steps if key[0].endswith("_mofe")} == {2}
    assert {steps[key] for key in steps if key[0].endswith("mmlu_medmcqa_lora")} == {3}
    assert {steps[key] for key in steps if key[0].endswith("/medmcqa_lora")} <= {None}


def test_figures_of_routers_are_of_studies_that_record_them():
    """The paper's study may: it changes no number."""
    plain, recording = (Plan(read_study(CONFIG, LOOK, **more)) for more in ({}, RECORDED))
    assert not set(ROUTERS) & set(figures.of(plain))
    assert [name for name in figures.of(recording) if name in ROUTERS] == ROUTERS
    source = figures.of(recording)["router_load"].source
    read = source.filled(
        source.spec(recording), source.files(recording), len(recording.study.seeds)
    )
    assert {len(training.files) for training in read} == {len(recording.study.seeds)}
    assert all(training.mixture in training.files[0] for training in read)


TOKENS = {
    "caption": "Ours.",
    "labels": ["Model"],
    "columns": {"MMLU": "mmlu", "Updated": "tokens_updated"},
    "rows": {
        "Untuned": {"mixture": "small"},
        "Dense": {"model": "general", "train": {"mmlu": "full"}},
        "None": {"mixture": "small", "train": {"mmlu": "mofe"}},
        "One": {"mixture": "small", "train": {"mmlu": "one"}},
        "All": {"mixture": "small", "train": {"mmlu": "full"}},
        "Later all": {"mixture": "small", "train": {"mmlu": "later"}},
        "Adapters": {"mixture": "small", "train": {"mmlu": "adapted"}},
        "Adapters elsewhere": {"mixture": "small", "train": {"mmlu": "lora"}},
    },
}
RECIPES = {
    "one": {"method": "freeze", "frozen": 1},
    "later": {
        "method": "freeze",
        "frozen": "all",
        "unfreeze": [{"after": 0.5, "experts": 1}, {"after": 0.7, "experts": "all"}],
    },
    "adapted": {"method": "lora", "rank": 4, "alpha": 8, "targets": ["q_proj", "down_proj"]},
}


def test_a_token_share_that_nothing_records_is_refused():
    with pytest.raises(ConfigError) as told:
        read_study(CONFIG, MINI, tables={"ours": TOKENS}, recipes=RECIPES)
    (problem,) = told.value.problems
    assert problem.startswith("tables.ours.rows.One: column 'Updated' shows 'tokens_updated'")
    assert problem.endswith(
        "set training.record_router to a number of steps, or leave the column out"
    )
    read_study(CONFIG, MINI, tables={"ours": TOKENS}, recipes=RECIPES, **RECORDED)


def test_a_token_share_that_routers_do_not_decide_is_known_unrecorded():
    """None of the files is there."""
    read = {"One", "Dense"}
    table = {**TOKENS, "rows": {k: v for k, v in TOKENS["rows"].items() if k not in read}}
    plan = Plan(read_study(CONFIG, MINI, tables={"ours": table}, recipes=RECIPES))
    shown = {
        row.labels[0]: kinds.measure(row.cells[1], "hours") for row in plan.tables["ours"].rows
    }
    seeds = len(plan.study.seeds)
    assert shown.pop("Untuned") is None
    assert {row: (found.value, found.seeds) for row, found in shown.items() if found} == {
        "None": (0.0, seeds),
        "All": (1.0, seeds),
        "Later all": (1.0, seeds),
        "Adapters": (1.0, seeds),
        "Adapters elsewhere": (0.0, seeds),
    }


def test_a_dense_model_records_no_router():
    scratch = {"scratch": {"training": {"record_router": 1}}}
    with pytest.raises(ConfigError) as told:
        read_study(CONFIG, MINI, models={"tinyllama": scratch})
    (problem,) = told.value.problems
    assert problem.startswith("models.tinyllama.scratch.training.record_router: a dense model has")


# ------------------------------------------------------------------------------- sums, by numbers


@given(
    st.integers(1, 40),
    st.integers(1, 6),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 2**31),
)
def test_sums_of_parts_are_the_sum_and_keep_their_limits(count, slots, k, sets, seed):
    """Entropies lie between 0 and ln(slots), and mean entropy is no more than that of the mean."""
    torch.manual_seed(seed)
    k = min(k, slots)
    logits = 3 * torch.randn(count, slots)
    weights, index = logits.softmax(-1).topk(k)
    weights = weights / weights.sum(-1, keepdim=True)
    of_set = torch.randint(-1, sets, (count,))
    of_set[0] = 0
    whole, parts = (routers.Sums(1, slots, sets, torch.device("cpu")) for _ in range(2))
    whole.add(0, logits, weights, index, of_set)
    cut = int(torch.randint(0, count + 1, ()))
    for part in (slice(0, cut), slice(cut, count)):
        parts.add(0, logits[part], weights[part], index[part], of_set[part])
    (one,), (two,) = whole.described(whole.values), parts.described(parts.values)
    assert_equal([one.model_dump()], [two.model_dump()])
    assert one.tokens == int((of_set >= 0).sum())
    assert sum(one.chosen) == pytest.approx(1, abs=1e-5) and len(one.chosen) == slots
    assert sum(one.weight) == pytest.approx(1, abs=1e-5)
    assert 0 <= one.entropy <= one.entropy_of_mean + 2e-6 <= math.log(slots) + 4e-6
    assert one.mutual_information <= min(math.log(sets), math.log(slots)) + 2e-6
