"""Exported models: standard Mixtral checkpoints of the trained function, with an honest card."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from conftest import CONFIG, MINI
from hypothesis import given
from hypothesis import strategies as st
from test_fp8 import unrounded
from test_models import IDS, METHODS, SETTINGS, logits, moved
from test_report import eval_record
from test_train import run as train_run
from transformers import AutoModelForCausalLM, AutoTokenizer, MixtralForCausalLM

from mofe.models import load, methods, store
from mofe.records import MergeManifest
from mofe.stages import export
from mofe.stages.card import card as write_card
from mofe.study.load import read_study
from mofe.study.plan import Plan
from mofe.study.values import ConfigError

NAMES = {"moe": "tinyllama_2tinyllama", "stages": "none", "seed": 0}
MERGE = MergeManifest(
    format=1,
    dtype="float32",
    gate_mode="hidden",
    experts_per_token=2,
    base="../../experts/a",
    slots=["../../experts/a"] * 2,
    sources={},
)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return Plan(read_study(CONFIG, MINI))


def params(plan: Plan, chain: list[dict], **changes) -> dict:
    untuned = plan.params.export(plan.variants["tinyllama_2tinyllama/none"], 0)
    return {**untuned, "dtype": "float32", "chain": chain, "evaluations": [], **changes}


def written(tiny: Path, plan: Plan, out: Path, chain: list[dict], trained: list, **changes):
    export.export(
        merge=str(tiny / "moe2a2b"),
        trained=trained,
        params=params(plan, chain, **changes),
        names=NAMES,
        out=out,
    )
    return AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)


@pytest.mark.parametrize("method", SETTINGS)
def test_an_export_computes_what_was_trained(tiny, plan, tmp_path, monkeypatch, method):
    monkeypatch.setattr(export, "SHARD_SIZE", "300KB")
    model = moved(methods.apply(load.checkpoint(tiny / "moe2a2b"), METHODS[method]))
    store.trained(model, tmp_path / "trained.safetensors")
    expected = logits(unrounded(model), IDS)
    trained = [tmp_path / "trained.safetensors"]
    again = written(tiny, plan, tmp_path / "out", [SETTINGS[method]], trained)
    assert type(again) is MixtralForCausalLM
    assert torch.allclose(logits(again, IDS), expected, atol=1e-4)
    assert not torch.allclose(logits(load.checkpoint(tiny / "moe2a2b"), IDS), expected, atol=1e-2)
    if method in ("full", "mofe", "freeze3", "freeze1"):
        assert torch.equal(logits(again, IDS), logits(methods.merge_and_unload(model), IDS))
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 1
    assert not list((tmp_path / "out").glob("*.bin"))


def test_stages_are_laid_one_over_the_other_before_a_quantised_last(tiny, plan, tmp_path):
    chain = [SETTINGS["freeze3"], SETTINGS["qlora"]]
    model, trained = load.checkpoint(tiny / "moe2a2b"), []
    for number, name in enumerate(("freeze3", "qlora")):
        plain = methods.merge_and_unload(model) if number else model
        model = moved(methods.apply(plain, METHODS[name]))
        trained.append(tmp_path / f"{number}.safetensors")
        store.trained(model, trained[-1])
    again = written(tiny, plan, tmp_path / "out", chain, trained)
    assert torch.allclose(logits(again, IDS), logits(model, IDS), atol=1e-4)


def test_an_export_has_the_merges_tokenizer_and_dtype(tiny, plan, tmp_path):
    written(tiny, plan, tmp_path / "out", [], [], dtype="bfloat16")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == torch.bfloat16
    ours, theirs = (AutoTokenizer.from_pretrained(f) for f in (tmp_path / "out", tiny / "a"))
    assert ours.get_vocab() == theirs.get_vocab()


def front(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def test_the_card_is_filled_from_the_records(tiny, plan, tmp_path, data):
    record = train_run(tiny, data, tmp_path, "mofe")
    metrics = {"acc": {"value": 0.25, "stderr": 0.0128}}
    score = eval_record(task="mmlu", n=1140, metrics=metrics)
    (tmp_path / "mmlu.json").write_text(json.dumps(score))
    held = eval_record(task="mmlu_held", held_out="mmlu", n=500, metrics=metrics)
    (tmp_path / "held.json").write_text(json.dumps(held))
    paper = Plan(read_study(CONFIG))
    variant = paper.variants["tinyllama_2tinyllama/mmlu_medmcqa_mofe"]
    params = paper.params.export(variant, 0) | {
        "trainings": [str(tmp_path / "train.json")],
        "evaluations": [str(tmp_path / f"{name}.json") for name in ("mmlu", "held", "absent")],
    }
    card = write_card(params, NAMES, 123456, MERGE)
    assert front(card)["base_model"] == ["TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T"]
    assert front(card)["datasets"] == ["cais/mmlu", "openlifescienceai/medmcqa"]
    assert front(card)["license"] == "unknown" and "has not checked them" in card
    for text in (
        "123,456 parameters",
        "59f6f375b26bde864a6ca194a9a3044570490064",
        "c30699e8356da336a370243923dbaf21066bb9fe",
        f"{record['trainable_parameters']:,}",
        f"{record['final_loss']:.4f}",
        record["git_revision"],
        record["config_hash"][:16],
        "| mmlu | acc | 0.2500 | 0.0128 | 1,140 |",
        r"| mmlu\_held (rows of the training set mmlu) | acc | 0.2500 | 0.0128 | 500 |",
        f"learning_rate {record['learning_rate']}",
        "arXiv:2503.06491",
    ):
        assert text in card, text
    assert "absent" not in card


def test_generated_rows_are_not_called_the_real_data_sets(plan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where this study has no results
    variant = plan.variants["tinyllama_2tinyllama/none"]
    card = write_card(plan.params.export(variant, 0), NAMES, 1, MERGE)
    assert "datasets" not in front(card) and "Not evaluated" in card
    assert "None: this is the merge as it is." in card


def test_a_stated_licence_is_the_exporters(plan):
    stated = read_study(CONFIG, export={"license": "apache-2.0"})
    variant = plan.variants["tinyllama_2tinyllama/none"]
    card = write_card(Plan(stated).params.export(variant, 0), NAMES, 1, MERGE)
    assert front(card)["license"] == "apache-2.0" and "who exported it: apache-2.0" in card


@given(licence=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_licence_leaves_the_front_matter_right(plan, licence):
    params = plan.params.export(plan.variants["tinyllama_2tinyllama/none"], 0)
    card = write_card(params | {"license": licence}, NAMES, 1, MERGE)
    assert front(card)["license"] == licence


def test_nothing_is_pushed_without_a_token(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(PermissionError, match="no token to push me/mofe-x with; log in"):
        export.push(model=str(tmp_path), repo="me/mofe-x", out=tmp_path / "x.json")
    assert not list(tmp_path.iterdir())


def test_a_repository_has_a_name_for_every_variant(plan):
    pushed = Plan(read_study(CONFIG, export={"push": "me/mofe"}))
    repos = [pushed.params.push_repo(v, 0) for v in pushed.variants.values()]
    assert "me/mofe-tinyllama_2tinyllama-mmlu_medmcqa_mofe-s0" in repos
    assert len(set(repos)) == len(repos)
    with pytest.raises(ConfigError, match=r"export.push is null"):
        plan.params.push_repo(plan.variants["tinyllama_2tinyllama/none"], 0)
    with pytest.raises(ConfigError, match=r"export.push"):
        read_study(CONFIG, export={"push": "mofe"})
