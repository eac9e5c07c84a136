"""A model's folder: which files are its weights, what belongs to its tokenizer, who may read it."""

import json
import os
import shutil
import stat
from pathlib import Path

import pytest
import torch
from conftest import CONFIG, MINI, TRAINING, merge_params
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from mofe.data import weights
from mofe.models import files, load, manifest, preflight
from mofe.stages import export, merge, train
from mofe.study.load import read_study
from mofe.study.methods import parse
from mofe.study.plan import Plan
from mofe.study.values import ConfigError

EMBEDDINGS = "model.embed_tokens.weight"


def saved_twice(folder: Path, tiny: Path, order: str) -> Path:
    """The tiny model a, saved over another one: in shards over one file, or in one over shards."""
    shutil.copytree(tiny / "a", folder)
    model = load.checkpoint(tiny / "a")
    for kind in order.split(" over ")[::-1]:
        for parameter in model.parameters():
            parameter.data += 0.01
        model.save_pretrained(folder, max_shard_size="60KB" if kind == "shards" else "5GB")
    return folder


@pytest.mark.parametrize("gates", ["hidden", "cheap_embed"])
@pytest.mark.parametrize("kept", ["index", "single"])
def test_every_reader_takes_the_weights_that_transformers_takes(tiny, tmp_path, kept, gates):
    """A folder with model.safetensors and shards of other numbers, and one that lacks a shard."""
    folder = saved_twice(tmp_path / "base", tiny, "one over shards")
    if kept == "index":  # shards of other weights, complete
        other = saved_twice(tmp_path / "other", tiny, "shards")
        for file in other.glob("model*"):
            if file.name != weights.SINGLE:
                shutil.copy(file, folder)
    else:  # an index without its shards: the folder is whole all the same
        (folder / weights.INDEX).write_text(json.dumps({"weight_map": {EMBEDDINGS: "gone.st"}}))
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    expected = plain.state_dict()[EMBEDDINGS]
    assert torch.equal(expected, load_file(folder / weights.SINGLE)[EMBEDDINGS])
    assert preflight.check([(str(folder), str(tiny / "a"))], {})
    params = merge_params(tiny, "a", "ab") | {"base": str(folder), "gate_mode": gates}
    merge.merge(params, tmp_path / "moe")
    assert torch.equal(manifest.weights(tmp_path / "moe")[EMBEDDINGS], expected)
    assert torch.equal(load.checkpoint(folder).state_dict()[EMBEDDINGS], expected)
    assert [f.name for f in manifest.files(folder)] == ["config.json", weights.SINGLE]
    alone = tmp_path / "alone"  # the same model in a folder of its own gives the same router
    plain.save_pretrained(alone)
    load.save_tokenizer(folder, alone)
    merge.merge(params | {"base": str(alone)}, tmp_path / "again")
    routers = [load_file(tmp_path / m / manifest.ROUTER) for m in ("moe", "again")]
    assert all(torch.equal(gate, routers[1][name]) for name, gate in routers[0].items())


def test_weights_are_what_an_index_lists_where_there_is_no_single_file():
    index = json.dumps({"weight_map": {"a": "two.safetensors", "b": "one.safetensors"}})
    names = [weights.INDEX, "one.safetensors", "two.safetensors", "consolidated.safetensors"]
    used = weights.of(names, lambda name: index)
    assert used == ["one.safetensors", "two.safetensors"]
    assert weights.unused(names, used) == {"consolidated.safetensors"}
    assert weights.of([*names, weights.SINGLE], lambda name: index) == [weights.SINGLE]
    assert weights.of(["consolidated.safetensors"], lambda name: index) == []
    for broken in ("[]", "{}", '{"weight_map": 3}', "no JSON"):
        with pytest.raises(ValueError, match="lists no files of weights"):
            weights.of(names, lambda name, text=broken: text)


# ------------------------------------------------------------------------------- the tokenizer

CHAT = "{% for m in messages %}[{{ m.role }}] {{ m.content }}{{ eos_token }}{% endfor %}"


def instruct(folder: Path, tiny: Path) -> Path:
    """The tiny model a with an instruct model's tokenizer: a template, and a token of its own."""
    shutil.copytree(tiny / "a", folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.chat_template = {"default": CHAT, "shout": "{{ messages[0].content | upper }}"}
    tokenizer.add_special_tokens({"additional_special_tokens": ["<turn>"]})
    for file in folder.glob("tokenizer*"):
        file.unlink()
    tokenizer.save_pretrained(folder)
    model = load.checkpoint(tiny / "a")
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    return folder


def test_a_chat_template_goes_into_merge_and_export(tiny, tmp_path):
    folder = instruct(tmp_path / "hub/org/chat", tiny)
    linked = {"hub": "org/chat", "revision": "main", "mirror": str(tmp_path / "hub")}
    files.link(linked, tmp_path / "linked")
    params = merge_params(tiny, "a", "aa") | {"base": str(tmp_path / "linked")}
    for slot in params["slots"]:
        slot["model"] = str(tmp_path / "linked")
    merge.merge(params, tmp_path / "moe")
    plan = Plan(read_study(CONFIG, MINI))
    exported = plan.params.export(plan.variants["tinyllama_2tinyllama/none"], 0)
    exported |= {"dtype": "float32", "chain": [], "evaluations": []}
    names = {"moe": "m", "stages": "none", "seed": 0}
    export.export(
        merge=str(tmp_path / "moe"), trained=[], params=exported, names=names, out=tmp_path / "out"
    )
    theirs, said = AutoTokenizer.from_pretrained(folder), [{"role": "user", "content": "hello"}]
    for made in ("linked", "moe", "out"):
        ours = AutoTokenizer.from_pretrained(tmp_path / made)
        chat = ours.apply_chat_template(said, tokenize=False)
        assert chat == theirs.apply_chat_template(said, tokenize=False) and "[user]" in chat
        shout = ours.apply_chat_template(said, tokenize=False, chat_template="shout")
        assert shout == "HELLO"
        assert ours.get_vocab() == theirs.get_vocab()
        assert ours("<turn> river")["input_ids"] == theirs("<turn> river")["input_ids"]
        assert ours.all_special_tokens == theirs.all_special_tokens


# ---------------------------------------------------------------------------------- the umask


@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_everything_that_is_written_follows_the_umask(tiny, data, tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        params = {"recipe": "expert", "method": "full", "training": TRAINING | {"epochs": 1}}
        train.train_dense(
            origin=str(tiny / "a"),
            data=[data],
            params=params,
            name="x",
            seed=0,
            out=tmp_path / "x",
            checkpoint=tmp_path / ".x",
        )
        merge.merge(merge_params(tiny, "a", "ab"), tmp_path / "moe")
        train.train_variant(
            merge=str(tmp_path / "moe"),
            data=[data],
            parents=[],
            chain=[],
            params=params | {"method": "freeze", "frozen": "all"},
            names={"moe": "m", "stages": "s"},
            seed=0,
            trained=tmp_path / "v/trained.safetensors",
            record=tmp_path / "v/train.json",
            log=tmp_path / "v/log.jsonl",
            checkpoint=tmp_path / ".v",
        )
        model = load.checkpoint(tmp_path / "moe")
        export.store.checkpoint(export.methods.merge_and_unload(model), tmp_path / "out", "200KB")
    finally:
        os.umask(before)
    written = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len([file for file in written if file.suffix == ".safetensors"]) > 4
    assert {stat.S_IMODE(file.stat().st_mode) for file in written} == {mode}


# --------------------------------------------------------------------------- refused early


def told(**changes) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        read_study(CONFIG, **changes)
    return raised.value.problems


LORA = {"method": "lora", "rank": 8, "alpha": 16}


@pytest.mark.parametrize(
    "changes, expected",
    [
        (
            {"recipes": {"expert": {**LORA, "targets": ["q_proj"], "quantize": "nf4"}}},
            "recipe 'expert' holds weights in 4 bits, and a dense expert is stored as a plain model",
        ),
        (
            {"training": {"max_length": 4096}},
            "training.max_length: 4096 is more than the 2048 positions of models.tinyllama; lower",
        ),
        (
            {"recipes": {"lora": {"training": {"max_length": 3000}}}},
            "recipes.lora.training.max_length: 3000 is more than the 2048 positions",
        ),
        (
            {"mixes": {"posttrain": {"training": {"max_length": 2049}}}},
            "mixes.posttrain.training.max_length: 2049 is more than the 2048 positions",
        ),
        (
            {"models": {"tinyllama": {"gates": {"negative": [" \t"]}}}},
            "models.tinyllama.gates.negative.0: ' \\t' is an empty prompt",
        ),
        (
            {
                "models": {"tinyllama": {"shape": {"tie_word_embeddings": True}}},
                "recipes": {"lora": {"targets": ["q_proj", "lm_head"]}},
            },
            "recipe 'lora' has the target lm_head, which mixture 'small' ties to its embeddings",
        ),
        (
            {"recipes": {"lora": {"targets": ["lm_head"], "also": ["lm_head"]}}},
            "'also' trains lm_head in full",
        ),
    ],
)
def test_what_a_job_would_refuse_is_refused_with_the_configuration(changes, expected):
    assert any(expected in problem for problem in told(**changes))


def test_a_model_that_no_table_shows_is_not_measured():
    shown = {"caption": "", "labels": ["x"], "columns": {"MMLU": "mmlu"}}
    shown["rows"] = {"a": {"model": "long", "train": {"mmlu": "full"}}}
    tables = {**dict.fromkeys((*range(1, 8), *(f"C{n}" for n in range(1, 6)))), 8: shown}
    own = {"long": {"path": "/m/long"}}
    assert read_study(CONFIG, training={"max_length": 8192}, models=own, tables=tables)


def test_a_training_refuses_rows_that_its_model_has_no_positions_for(tiny, data, tmp_path):
    method = {"recipe": "expert", **parse({"method": "full"}).settings()}
    with pytest.raises(
        ValueError, match=r"4096 is more than the 2048 positions of models\.a; lower"
    ):
        train.train_dense(
            origin=str(tiny / "a"),
            data=[data],
            params=method | {"training": TRAINING | {"max_length": 4096}},
            name="x",
            seed=0,
            out=tmp_path / "x",
            checkpoint=tmp_path / ".x",
        )
    assert not (tmp_path / "x").exists()
