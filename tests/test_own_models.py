"""Your own models and data, as docs/own-models.md says: each is one entry of an overlay."""

import json
import os
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from conftest import CONFIG, ROOT, save_llama, snakemake
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from mofe.models import load
from mofe.report import figures
from mofe.study.graph import Graph
from mofe.study.load import read_study
from mofe.study.methods import parse
from mofe.study.plan import Plan
from mofe.study.values import ConfigError

GATES = ["law", "code", "tuned"]  # slots, each with words of its own


class Own:
    """A user's folder: a base and experts of their own, a data set, and an overlay that names them."""

    def __init__(self, root: Path, tokenizer):
        self.root, self.results = root, root / "results"
        words = sorted(w for w in tokenizer.get_vocab() if w.isalpha())
        for seed, name in enumerate(("ours", "hub/lab/law", "code")):
            save_llama(root / name, tokenizer, seed)
        quiz = root / "hub" / "lab" / "quiz"
        quiz.mkdir(parents=True)
        rows = [
            {"stem": f"{a} {b} {c}?", "a": a, "b": b, "c": c, "key": "ABC"[n % 3]}
            for n, (a, b, c) in enumerate(zip(words[:60], words[60:], words[120:], strict=False))
        ]
        pd.DataFrame(rows).to_csv(quiz / "train.csv", index=False)
        gates = {
            name: {"positive": [[words[200 + n]]], "negative": [words[300]]}
            for n, name in enumerate(GATES)
        }
        row = {"mixture": "mine"}
        self.overlay = {
            "study": "own",
            "device": "cpu",
            "time_unit": "seconds",
            "results": str(self.results),
            "mirror": str(root / "hub"),
            "sources": {"quiz": {"repo": "lab/quiz", "revision": "main"}},
            "data": {"quiz": {"source": "quiz", "split": "train", "task": "quiz", "rows": "full"}},
            "tasks": {
                "quiz": {
                    "harness": ["mofe_mcq"],
                    "source": "quiz",
                    "columns": {"question": "stem", "options": ["a", "b", "c"], "answer": "key"},
                    "split": "train",
                    "test_share": 0.2,
                }
            },
            "models": {
                "ours": {"path": str(root / "ours")},
                "law": {"hub": "lab/law", "revision": "main", "gates": gates["law"]},
                "code": {"path": str(root / "code"), "gates": gates["code"]},
                "tuned": {"from": "ours", "train": {"quiz": "expert"}, "gates": gates["tuned"]},
            },
            "mixtures": {"mine": {"base": "ours", "experts": dict.fromkeys(GATES, 1)}},
            "merge": {"dtype": "float32"},
            "training": {
                "learning_rate": 1.0e-3,
                "epochs": 1,
                "global_batch": 16,
                "micro_batch": 8,
                "max_length": 128,
            },
            "tables": {
                **dict.fromkeys(range(1, 8)),
                8: {
                    "caption": "Experts of our own.",
                    "labels": ["Tuning"],
                    "columns": {"Quiz": "quiz", "Trained": "trainable"},
                    "rows": {"untuned": row, "MoFE": {**row, "train": {"quiz": "mofe"}}},
                },
            },
        }

    def run(self, *targets: str, check: bool = True, **models):
        overlay = {**self.overlay, "models": {**self.overlay["models"], **models}}
        file = self.root / "own.yaml"
        file.write_text(yaml.safe_dump(overlay, sort_keys=False))
        files = ["--configfile", str(CONFIG), str(file)]
        return snakemake("--cores", "1", *files, "--", *targets, check=check)


@pytest.fixture(scope="module")
def own(tiny, tmp_path_factory) -> Own:
    made = Own(tmp_path_factory.mktemp("own"), load.tokenizer(tiny / "a"))
    made.exported = f"{made.results}/models/ours_1code-1law-1tuned/quiz_mofe/s0"
    made.run(f"{made.results}/table8.csv", made.exported)
    return made


def test_a_table_of_ones_own(own):
    frame = pd.read_csv(own.results / "table8.csv")
    scores = frame[frame["column"] == "Quiz"]
    assert scores["label"].tolist() == ["untuned", "MoFE"] and (scores["n"] == 12).all()
    assert scores["value"].between(0, 1).all() and scores["paper"].isna().all()
    counts = json.loads((own.results / "data/quiz.json").read_text())
    assert (counts["sampled"], counts["also_in_test"]) == (48, 0)


def test_the_merge_is_of_ones_own_models(own):
    merged = load.checkpoint(own.results / "moe/ours_1code-1law-1tuned/s0").state_dict()
    key = "model.layers.1.mlp.{}down_proj{}"
    for slot, folder in enumerate((own.root / "code", own.root / "hub/lab/law")):
        source = load.checkpoint(folder).state_dict()[key.format("", ".weight")]
        assert torch.equal(merged[key.format("experts.", "")][slot], source)
    embeddings = load.checkpoint(own.root / "ours").state_dict()["model.embed_tokens.weight"]
    assert torch.equal(merged["model.embed_tokens.weight"], embeddings)


def test_the_exported_model_is_the_trained_one(own):
    plan = Plan(read_study(CONFIG, own.root / "own.yaml"))
    variant = plan.variants["ours_1code-1law-1tuned/quiz_mofe"]
    chain = [parse(stage) for stage in plan.params.chain(variant)]
    files = plan.trained_files(variant, 0)
    trained = load.variant(plan.paths.origin_dir(variant, 0), chain, files)
    exported = AutoModelForCausalLM.from_pretrained(own.exported)
    ids = torch.arange(3, 43)[None]
    with torch.inference_mode():
        assert torch.equal(exported.eval()(ids).logits, trained.eval()(ids).logits)
    card = Path(own.exported, "README.md").read_text()
    score = json.loads(Path(plan.paths.eval_json(variant, 0, "quiz")).read_text())
    value = score["metrics"]["acc"]["value"]
    # the card shows the scores that exist when it is written
    assert f"| quiz | acc | {value:.4f} |" in card or "Not evaluated when" in card
    assert "lab/law at main" in card and "ours, fine-tuned on quiz by expert with seed 0" in card


def test_nothing_is_exported_or_pushed_by_all(own):
    done = snakemake("-n", "--configfile", str(CONFIG), str(own.root / "own.yaml"), "--", "all")
    assert "rule export" not in done.stdout and "rule push" not in done.stdout
    target = own.exported.replace("/models/", "/pushed/") + ".json"
    refused = own.run(target, check=False)
    assert refused.returncode != 0 and "export.push is null" in refused.stderr
    assert not os.path.exists(target)


def test_other_weights_in_place_rerun_what_is_made_from_them(own):
    """Of a folder and of a mirror, also where the file's time is older."""
    target, files = f"{own.results}/table8.csv", ["--configfile", str(CONFIG)]
    files.append(str(own.root / "own.yaml"))
    assert "Nothing to be done" in snakemake("-n", *files, "--", target).stdout
    for folder, rule in (("code", "merge_per_seed"), ("hub/lab/law", "fetch_model")):
        file = own.root / folder / "model.safetensors"
        before, times = file.read_bytes(), file.stat()
        with open(file, "r+b") as weights:
            weights.write(before[:-4] + bytes(4))
        os.utime(file, (1, 1))
        planned = snakemake("-n", *files, "--", target).stdout
        with open(file, "r+b") as weights:
            weights.write(before)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        for due in (rule, "merge_per_seed", "train", "evaluate", "table"):
            assert f"rule {due}:" in planned, (folder, due)
    assert "Nothing to be done" in snakemake("-n", *files, "--", target).stdout


def test_an_expert_that_does_not_fit_is_refused_before_any_training(own, tmp_path):
    wrong = load.checkpoint(own.root / "code").config
    wrong.num_hidden_layers = 3
    LlamaForCausalLM(wrong).save_pretrained(tmp_path / "wrong")
    load.tokenizer(own.root / "code").save_pretrained(tmp_path / "wrong")
    results = tmp_path / "results"
    own.overlay["results"] = str(results)
    code = {**own.overlay["models"]["code"], "path": str(tmp_path / "wrong")}
    done = own.run(f"{results}/table8.csv", check=False, code=code)
    own.overlay["results"] = str(own.results)
    assert done.returncode != 0
    told = "models.code: num_hidden_layers is 3, the base models.ours has 2; experts of one mixture"
    assert told in done.stderr
    assert not (results / "moe").exists() and not (results / "experts/tuned").exists()


def test_a_study_of_untuned_rows_has_a_table_and_a_report(own, tmp_path):
    """Dense models and a mixture as they come: no loss, no time, nothing trained."""
    shipped = read_study(CONFIG).tables
    table = {**own.overlay["tables"][8], "columns": {"Quiz": "quiz"}}
    table["rows"] = {"base": {"model": "ours"}, "mixture": {"mixture": "pair"}}
    mixtures = {"pair": {"base": "ours", "experts": {"law": 1, "code": 1}}}
    overlay = own.overlay | {"results": str(tmp_path / "results"), "mixtures": mixtures}
    overlay["tables"] = {**dict.fromkeys(shipped), "U": table}
    file = tmp_path / "untuned.yaml"
    file.write_text(yaml.safe_dump(overlay, sort_keys=False))
    snakemake("--cores", "1", "--configfile", str(CONFIG), str(file), "--", "all")
    frame = pd.read_csv(tmp_path / "results" / "tableU.csv")
    assert frame["label"].tolist() == ["base", "mixture"] and frame["value"].between(0, 1).all()
    assert "base" in (tmp_path / "results" / "report.html").read_text()
    assert not (tmp_path / "results" / "variants").exists()


def test_a_folder_that_is_not_there_is_told_before_anything_runs(own):
    code = {**own.overlay["models"]["code"], "path": str(own.root / "cod")}
    done = own.run(f"{own.results}/table8.csv", check=False, code=code)
    assert done.returncode != 0
    assert f"models.code.path: there is no folder {str(own.root / 'cod')!r}" in done.stderr


def test_the_example_of_the_docs_is_a_study(tmp_path):
    text = (ROOT / "docs" / "own-models.md").read_text()
    (tmp_path / "mine.yaml").write_text(text.split("```yaml\n")[1].split("```")[0])
    plan = Plan(read_study(CONFIG, tmp_path / "mine.yaml"))
    variants = {f"{plan.paths.export_dir(v, 0)}" for v in plan.variants.values()}
    assert text.rsplit(" -- ", 1)[1].strip() in variants
    assert plan.params.preflight("tuned")["pairs"][0][0] == "/models/ours"
    experts = {"law": 3, "code": 1}
    told = text.split("in one mixture:\n\n    ")[1].splitlines()[0]
    with pytest.raises(ConfigError) as raised:
        read_study(CONFIG, tmp_path / "mine.yaml", mixtures={"mine": {"experts": experts}})
    assert raised.value.problems == [told]


def test_the_tables_on_another_base_are_a_study_without_tinyllama(tmp_path):
    text = (ROOT / "docs" / "other-base.md").read_text()
    (tmp_path / "smollm.yaml").write_text(text.split("```yaml\n")[1].split("```")[0])
    plan = Plan(read_study(CONFIG, tmp_path / "smollm.yaml"))
    assert list(plan.tables) == list(Plan(read_study(CONFIG)).tables)
    assert set(plan.models) == {"smollm", "general", "medical", "finance"}
    assert plan.study.scale == "other"
    files = [path for job in Graph(plan, figures.inputs(plan)).jobs for path in job.outputs]
    assert files and not [path for path in files if "tinyllama" in path.lower()]
    made = plan.params.assumptions()
    (table6,) = (a for a in made if a["key"] == "mixtures.medical_experts")
    assert table6["choice"]["base"] == "smollm" and "stays smollm" in table6["evidence"]
    assert not [a for a in made if "tinyllama" in json.dumps([a["key"], a["choice"]]).lower()]
