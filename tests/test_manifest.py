"""Merges as they are stored: manifest and router stand for the checkpoint that mergekit writes."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from conftest import CONFIG, MINI, TRAINING, merge_params
from mergekit.options import MergeOptions
from mergekit.scripts.moe import build
from safetensors.torch import load_file, save_file
from test_export import NAMES
from test_preflight import SIZES as preflight_sizes
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig

from mofe import checksums
from mofe.models import load, manifest
from mofe.stages import export, merge, train
from mofe.study.load import read_study
from mofe.study.plan import Plan

SIZES = {**preflight_sizes, "pad_token_id": None}
KINDS = {
    "llama": LlamaConfig(**SIZES),
    "tied": LlamaConfig(**SIZES, tie_word_embeddings=True),
    "mistral": MistralConfig(**SIZES, head_dim=32, sliding_window=None),
}


def dense(folder: Path, tokenizer, config, seed: int, dtype=torch.float32) -> None:
    """A model with random weights in a few files, and its tokenizer."""
    torch.manual_seed(seed)
    config.vocab_size = len(tokenizer)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.save_pretrained(folder, max_shard_size="200KB")
    tokenizer.save_pretrained(folder)


def checkpoint(params: dict, out: Path) -> None:
    """mergekit's own, all weights in it."""
    config = merge.mergekit_config(params, architecture="mixtral")
    options = MergeOptions(copy_tokenizer=False)
    build(config, str(out), options, device="cpu", allow_all_same=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("slots", ["aaaa", "bbab", "bb"])
@pytest.mark.parametrize("stored, merged", [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_a_merge_is_mergekits_checkpoint_bit_by_bit(tiny, tmp_path, kind, slots, stored, merged):
    tokenizer = load.tokenizer(tiny / "a")
    for seed, name in enumerate("ab"):
        dense(tmp_path / name, tokenizer, KINDS[kind], seed, getattr(torch, stored))
    params = merge_params(tmp_path, "a", slots) | {"dtype": merged}
    checkpoint(params, tmp_path / "theirs")
    merge.merge(params, tmp_path / "ours")
    whole = {
        n: t for f in (tmp_path / "theirs").glob("*.safetensors") for n, t in load_file(f).items()
    }
    assert {t.dtype for t in whole.values()} == {getattr(torch, merged)}
    ours, theirs = (load.checkpoint(tmp_path / name) for name in ("ours", "theirs"))
    assert whole.keys() == ours.state_dict().keys() - (
        {"lm_head.weight"} if kind == "tied" else set()
    )
    assert all(torch.equal(ours.state_dict()[n], t.float()) for n, t in whole.items())
    assert all(torch.equal(ours.state_dict()[n], t) for n, t in theirs.state_dict().items())
    assert {n: b.tolist() for n, b in ours.named_buffers()} == {
        n: b.tolist() for n, b in theirs.named_buffers()
    }
    assert ours.config.to_diff_dict() == theirs.config.to_diff_dict()
    assert ours.training is theirs.training is False
    configs = [(tmp_path / name / "config.json").read_bytes() for name in ("ours", "theirs")]
    assert configs[0] == configs[1]


def test_a_merge_stores_no_experts_weight(tiny):
    (router,) = (tiny / "moe2a2b").glob("*.safetensors")
    assert set(load_file(router)) == {f"model.layers.{n}.mlp.gate.weight" for n in range(2)}
    assert {f.name for f in (tiny / "moe2a2b").iterdir()} == {
        "merge.json",
        "router.safetensors",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    kept = json.loads((tiny / "moe2a2b" / "merge.json").read_text())
    assert [Path(slot).name for slot in kept["slots"]] == list("aabb")
    assert kept["sources"].keys() == {kept["base"], *kept["slots"]}


def test_a_loaded_merge_is_no_view_of_its_sources(tiny):
    before = (tiny / "a" / "model.safetensors").read_bytes()
    model = load.checkpoint(tiny / "moe2a")
    for parameter in model.parameters():
        parameter.data.add_(1)
    assert (tiny / "a" / "model.safetensors").read_bytes() == before
    assert not torch.equal(model.lm_head.weight, load.checkpoint(tiny / "moe2a").lm_head.weight)


def test_an_export_of_a_merge_is_that_of_mergekits_checkpoint(tiny, tmp_path):
    plan = Plan(read_study(CONFIG, MINI))
    params = plan.params.export(plan.variants["tinyllama_2tinyllama/none"], 0)
    params |= {"dtype": "bfloat16", "chain": [], "evaluations": []}
    merged = merge_params(tiny, "a", "aabb")
    checkpoint(merged, tmp_path / "checkpoint")
    for file in (tiny / "a").glob("tokenizer*"):
        shutil.copy(file, tmp_path / "checkpoint")
    for source in (tiny / "moe2a2b", tmp_path / "checkpoint"):
        out = tmp_path / "exported" / source.name
        export.export(merge=str(source), trained=[], params=params, names=NAMES, out=out)
    ours, theirs = (tmp_path / "exported" / name for name in ("moe2a2b", "checkpoint"))
    assert {f.name for f in ours.iterdir()} == {f.name for f in theirs.iterdir()}
    for file in ours.iterdir():
        if file.name == "generation_config.json":  # ours spells out two defaults
            spelt, short = (json.loads((f / file.name).read_text()) for f in (ours, theirs))
            assert {k: v for k, v in spelt.items() if v} == {k: v for k, v in short.items() if v}
        elif file.name == "README.md":  # the card reads the merge's manifest, which only ours has
            assert "2 x tinyllama. Router: hidden gates" in file.read_text()
        else:
            assert file.read_bytes() == (theirs / file.name).read_bytes(), file.name


@pytest.fixture
def moved(tiny, tmp_path, monkeypatch) -> Path:
    """A results folder with two dense models and their merge, named as a study names them: from
    where the workflow is called."""
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        shutil.copytree(tiny / name, f"results/experts/{name}")
        os.utime(f"results/experts/{name}/model.safetensors", (1, 1))  # what is made anew is newer
    params = merge_params(Path("results/experts"), "a", "ab")
    merge.merge(params, Path("results/moe/ab"))
    return tmp_path


def test_a_moved_results_folder_is_whole(moved, monkeypatch):
    expected = load.checkpoint("results/moe/ab").state_dict()
    (moved / "disk").mkdir()
    shutil.move("results", "disk/results")
    os.symlink("disk/results", "results")
    places = [
        (moved, "results/moe/ab"),
        (moved, "disk/results/moe/ab"),
        (moved / "disk", "results/moe/ab"),
    ]
    for here, folder in places:
        monkeypatch.chdir(here)
        found = load.checkpoint(folder).state_dict()
        assert all(torch.equal(found[n], t) for n, t in expected.items())


def test_a_source_outside_of_a_linked_results_folder_is_found(moved):
    (moved / "disk" / "far").mkdir(parents=True)
    os.symlink("disk/far", "linked")
    shutil.move("results/experts", "mine")
    merge.merge(merge_params(Path("mine"), "a", "ab"), Path("linked/moe/ab"))
    assert load.checkpoint("linked/moe/ab")


def test_a_copied_source_is_the_one_that_was_merged(moved):
    file = Path("results/experts/b/model.safetensors")
    os.utime(file, (2, 2))
    assert load.checkpoint("results/moe/ab")


def test_a_source_that_was_made_anew_is_refused(moved):
    file = Path("results/experts/b/model.safetensors")
    weights = load_file(file)
    weights["lm_head.weight"] += 1  # which the merge does not even take from b
    save_file(weights, file, {"format": "pt"})
    remedy = "put it back as it was .* --forcerun results/moe/ab -- results/moe/ab"
    with pytest.raises(
        ValueError, match=f"^{file} is not the file that was merged into results/moe/ab; {remedy}"
    ):
        load.checkpoint("results/moe/ab")
    shutil.rmtree("results/experts/b")
    with pytest.raises(ValueError, match=f"^{file} is missing.*; {remedy}"):
        load.checkpoint("results/moe/ab")


def test_a_source_with_another_content_is_refused_whatever_its_times(moved):
    file = Path("results/experts/b/model.safetensors")
    before, content = file.stat(), bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ValueError, match=f"^{file} is not the file that was merged"):
        load.checkpoint("results/moe/ab")


def test_a_manifest_of_another_version_is_refused(moved):
    file = Path("results/moe/ab/merge.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 1}))
    with pytest.raises(ValueError, match="results/moe/ab: its manifest has format 1, this version"):
        load.checkpoint("results/moe/ab")


def test_a_merge_of_other_experts_has_another_checksum(moved):
    """By which a checkpoint of a training is told from one of another merge; times do not count."""
    folder = Path("results/moe/ab")
    before = checksums.together(manifest.files(folder))
    os.utime(folder / "merge.json", (1, 1))
    assert before == checksums.together(manifest.files(folder))
    kept = (folder / "merge.json").read_text()
    (folder / "merge.json").write_text(kept.replace("experts/b", "experts/a"))
    os.utime(folder / "merge.json", (1, 1))
    assert checksums.together(manifest.files(folder)) != before


def test_an_expert_stored_in_the_merges_dtype_gives_the_same_merge(tiny, data, tmp_path):
    """As those trained on a GPU are, at half the size."""
    shutil.copytree(tiny / "a", tmp_path / "a")
    for name, dtype in (("f", "float32"), ("b", "bfloat16")):
        train.train_dense(
            origin=str(tiny / "a"),
            data=[data],
            params={"recipe": "expert", "method": "full", "training": TRAINING, "dtype": dtype},
            name=name,
            seed=0,
            out=tmp_path / name,
            checkpoint=tmp_path / f".{name}.checkpoint",
        )
        assert {
            str(t.dtype) for t in load_file(tmp_path / name / "model.safetensors").values()
        } == {f"torch.{dtype}"}
        params = merge_params(tmp_path, "a", f"a{name}") | {"dtype": "bfloat16"}
        merge.merge(params, tmp_path / f"moe_{name}")
    one, two = (load.checkpoint(tmp_path / f"moe_{name}").state_dict() for name in "fb")
    assert all(torch.equal(two[n], t) for n, t in one.items())
