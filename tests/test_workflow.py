"""The workflow as its users run it: dry runs, the whole reduced study, and what reruns when."""

import gzip
import json
import re
import shutil
from collections import Counter
from contextlib import suppress
from html import unescape
from pathlib import Path

import jsonschema
import pandas as pd
import pytest
import torch
import yaml
from conftest import CONFIG, MINI, REDUCED, ROOT, copy_code, snakemake
from PIL import Image
from test_given import identities
from transformers import AutoModelForCausalLM

from mofe import provenance, records
from mofe.report import figures, frames, tables
from mofe.stages import train
from mofe.study import claims, reruns
from mofe.study.load import read_study
from mofe.study.plan import Plan


def jobs(output: str) -> Counter:
    """The job table that Snakemake prints, by rule."""
    last = output[output.rindex("Job stats:") :]
    rows = re.findall(r"^(\w+) +(\d+)$", last, re.MULTILINE)
    return Counter({rule: int(n) for rule, n in rows if rule != "total"})


PAPER_SCALE = {
    1: {
        "fetch_repository": 3,
        "fetch_model": 1,
        "prepare_data": 2,
        "merge": 3,
        "train": 6,
        "questions": 2,
        "evaluate": 18,
    },
    2: {
        "fetch_repository": 3,
        "fetch_model": 1,
        "prepare_data": 2,
        "merge": 3,
        "train": 12,
        "questions": 2,
        "evaluate": 30,
    },
    3: {
        "fetch_repository": 4,
        "fetch_model": 1,
        "prepare_data": 3,
        "preflight": 2,
        "train_expert": 2,
        "merge_per_seed": 3,
        "train": 3,
        "questions": 1,
        "evaluate": 3,
    },
    4: {
        "fetch_repository": 4,
        "fetch_model": 1,
        "prepare_data": 3,
        "preflight": 3,
        "train_expert": 3,
        "merge_per_seed": 6,
        "train": 6,
        "questions": 3,
        "evaluate": 12 + 6,  # our column beside the paper's two
    },
    5: {
        "fetch_repository": 4,
        "fetch_model": 1,
        "prepare_data": 3,
        "preflight": 3,
        "train_expert": 3,
        "merge_per_seed": 3,
        "train": 3,
        "questions": 3,
        "evaluate": 6 + 3,
    },
    6: {
        "fetch_repository": 5,
        "fetch_model": 1,
        "prepare_data": 3,
        "preflight": 1,
        "train_expert": 1,
        "merge": 1,
        "merge_per_seed": 1,
        "train": 4,
        "questions": 2,
        "evaluate": 6,
    },
    7: {
        "fetch_repository": 2,
        "fetch_model": 1,
        "prepare_data": 1,
        "merge": 1,
        "train": 5,
        "questions": 1,
        "evaluate": 5,
    },
}


@pytest.mark.parametrize("number", PAPER_SCALE)
def test_a_tables_jobs_at_paper_scale(number, tmp_path):
    here = ["--config", f"results={tmp_path}", f"hub={tmp_path}/hub"]
    done = snakemake(
        "-n", "--profile", "profiles/slurm", *here, "--", f"{tmp_path}/table{number}.tex"
    )
    assert jobs(done.stdout) == {**PAPER_SCALE[number], "table": 1}


def test_graphs(tmp_path):
    here = ["--config", f"results={tmp_path}", "--", f"{tmp_path}/table1.tex"]
    for kind in ("--dag", "--rulegraph"):
        graph = snakemake(kind, *here).stdout
        assert graph.startswith("digraph snakemake_dag")
        assert "merge" in graph and "train" in graph


@pytest.mark.parametrize(
    "target",
    ["table8.tex", "variants/tinyllama_2tinyllama/mmlu_medmcqa_moffe/s0/train.json", "moe/x"],
)
def test_a_misspelt_target_is_no_job(target, tmp_path):
    done = snakemake(
        "-n", "--config", f"results={tmp_path}", "--", f"{tmp_path}/{target}", check=False
    )
    assert done.returncode != 0
    assert "MissingRuleException" in done.stderr + done.stdout


def test_paper_scale_without_a_gpu_stops_before_it_starts(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU: nothing to refuse")
    done = snakemake(
        "--cores",
        "1",
        "--config",
        f"results={tmp_path}",
        f"hub={tmp_path}/hub",
        "--",
        f"{tmp_path}/table7.tex",
        check=False,
    )
    assert done.returncode != 0
    assert "need a GPU, and this machine has none that torch can use" in done.stderr
    assert not list(tmp_path.iterdir())


class Reduced:
    """The reduced mini study in a folder of its own."""

    def __init__(self, results: Path, overlays: Path):
        self.results, self.overlays = results, overlays

    def run(self, *targets: str, overlay: dict | None = None, check: bool = True):
        return snakemake("--profile", "profiles/mini", *self._study(overlay, targets), check=check)

    def dry(self, overlay: dict | None, *targets: str, folder: Path = ROOT) -> str:
        study = self._study(overlay, targets, folder)
        return snakemake("-n", "--cores", "2", *study, folder=folder).stdout

    def _study(
        self, overlay: dict | None, targets: tuple[str, ...], folder: Path = ROOT
    ) -> list[str]:
        files = [str(folder / file.relative_to(ROOT)) for file in (CONFIG, MINI, REDUCED)]
        if overlay is not None:
            file = self.overlays / "overlay.yaml"
            file.write_text(yaml.safe_dump(overlay, sort_keys=False))
            files.append(str(file))
        return ["--configfile", *files, "--config", f"results={self.results}", "--", *targets]

    def records(self, pattern: str) -> list[dict]:
        return [json.loads(p.read_text()) for p in sorted(self.results.glob(pattern))]


@pytest.fixture(scope="module")
def reduced(tmp_path_factory) -> Reduced:
    study = Reduced(
        tmp_path_factory.mktemp("study") / "results", tmp_path_factory.mktemp("overlays")
    )
    study.run("all")
    return study


def test_one_command_makes_every_table_figure_and_the_report(reduced):
    for number in (*range(1, 8), "C3", "C5"):
        for kind in ("tex", "md", "csv"):
            assert (reduced.results / f"table{number}.{kind}").stat().st_size > 100
    every = ("time_accuracy", "medical_experts", "frozen_experts", "loss_curves", "learning_rates")
    for figure in every:
        for kind in ("pdf", "png"):
            assert (reduced.results / "figures" / f"{figure}.{kind}").stat().st_size > 1000
    page = (reduced.results / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert all(f"Table {number}" in page for number in range(1, 8))


def test_every_table_and_figure_of_the_miniature_says_so(reduced):
    study = read_study(CONFIG, MINI, REDUCED)
    said = study.setting.ours
    for number in range(1, 8):
        tex, md, csv = (
            (reduced.results / f"table{number}.{kind}").read_text() for kind in ("tex", "md", "csv")
        )
        assert said in md and tables.escape(said) in tex
        assert all(line.endswith(",reduced,miniature") for line in csv.splitlines()[1:])
    pictures = list((reduced.results / "figures").glob("*.png"))
    assert {file.stem for file in pictures} == set(figures.of(Plan(study)))
    assert all(Image.open(png).info["Description"].endswith(said) for png in pictures)
    page = unescape((reduced.results / "report.html").read_text())
    assert page.count(said) >= 7 + len(pictures) and 'class="difference' not in page


RECORDS = {
    "variants/*/*/s0/train.json": "train",
    "variants/*/*/s0/log.jsonl": "log",
    "variants/*/*/search.json": "search",
    "experts/*/s0/train.json": "train-dense",
    "experts/*/s0/log.jsonl": "log",
    "experts/tinyllama/train.json": "train-dense",
    "experts/tinyllama/log.jsonl": "log",
    "evals/*/*/s0/*.json": "eval",
    "evals/*/*/s0/*.jsonl.gz": "answer-choice",
    "moe/*/merge.json": "merge",
    "moe/*/s0/merge.json": "merge",
    "data/mmlu.json": "counts-task",
    "data/medmcqa.json": "counts-task",
    "data/sujet.json": "counts-task",
    "data/*_*.json": "counts-text",
}


@pytest.mark.parametrize("pattern", RECORDS)
def test_every_record_is_read_as_it_was_written_and_is_of_its_schema(reduced, pattern):
    name = RECORDS[pattern]
    kind, schema = records.KINDS[name], ROOT / "docs" / "schemas" / f"{name}.json"
    validator = jsonschema.Draft202012Validator(json.loads(schema.read_text()))
    files = sorted(reduced.results.glob(pattern))
    assert files
    for file in files:
        if ".jsonl" in file.name:
            content = file.read_bytes()
            content = gzip.decompress(content) if file.suffix == ".gz" else content
            found = records.read_lines(file, kind)
            assert "".join(map(records.line, found)).encode() == content
            written = [json.loads(line) for line in content.splitlines()]
        else:
            written = [json.loads(file.read_text())]
            assert json.loads(records.line(records.read(file, kind))) == written[0]
        for record in written:
            validator.validate(record)


def test_records_and_the_page_name_the_configurations_files_by_hash(reduced):
    record, *_ = reduced.records("evals/tinyllama_2tinyllama/none/s0/medmcqa.json")
    files = {str(f.relative_to(ROOT)): provenance.hash_file(f) for f in (CONFIG, MINI, REDUCED)}
    assert record["config_files"] == files, "where results lie is no part of a study"
    assert list(record["config_files"]) == [*files], "in the order of their merging"
    page = (reduced.results / "report.html").read_text()
    assert all(file in page and digest[:12] in page for file, digest in files.items())


def test_the_tidy_tables_hold_the_papers_values_beside_ours(reduced):
    for number in range(1, 8):
        frame = pd.read_csv(reduced.results / f"table{number}.csv")
        assert tuple(frame.columns) == frames.COLUMNS
        accuracies = frame[~frame["column"].str.startswith("Train")]
        assert accuracies[["paper", "value", "stderr", "n"]].notna().all(axis=None)
        assert accuracies["value"].between(0, 1).all()
        assert (frame["seeds"].dropna() == 1).all()
    table = pd.read_csv(reduced.results / "table1.csv")
    assert table["label"].drop_duplicates().tolist()[:3] == [
        "Small | X",
        "Small | Full",
        "Small | MoFE",
    ]
    hours = table[table["column"] == "Training Time(hr)"]
    assert hours["value"].isna().all() and hours["paper"].tolist() == [14, 6, 19, 6, 26, 6]
    assert table[table["column"] == "Training Time(s)"]["paper"].isna().all()


def test_the_best_learning_rate_is_that_of_the_training_and_of_the_table(reduced):
    (found,) = reduced.records("variants/*/*/search.json")
    tuned = f"{found['moe']}/{found['stages']}"
    (run,) = reduced.records(f"variants/{tuned}/s0/train.json")
    scores = [[s["value"] for s in tried["scores"].values()] for tried in found["tried"]]
    best = max(zip(scores, found["tried"], strict=True), key=lambda pair: sum(pair[0]))[1]
    assert found["best"] == best["learning_rate"] == run["learning_rate"]
    for tried in found["tried"]:
        candidate = f"{tuned}-{tried['learning_rate']:g}"
        (own,) = reduced.records(f"variants/{candidate}/s0/train.json")
        assert own["learning_rate"] == tried["learning_rate"]
        asked = reduced.records(f"evals/{candidate}/s0/*.json")
        assert {record["task"] for record in asked} == {"mmlu_held", "medmcqa_held"}
    table = pd.read_csv(reduced.results / "tableC3.csv")
    shown = table[table["column"] == "Learning Rate"].set_index("label")["value"]
    assert shown.to_dict() == {"MoFE | shared": 1.5e-3, "MoFE | own": found["best"]}


def test_frozen_parameters_are_bit_identical_in_every_run(reduced):
    records = reduced.records("variants/*/*/s0/train.json")
    assert len(records) == 31 + 3, "the paper's, two candidates of a search, and the best"
    for record in records:
        hashes = record["frozen_sha256"]
        assert hashes["before"] == hashes["after"]
        assert (hashes["before"] is None) == (record["recipe"] == "full")


@pytest.mark.parametrize("recipe", ["mofe", "lora", "dora", "qlora"])
def test_small_medium_and_large_are_one_function(reduced, recipe):
    """Identical frozen experts: the three sizes differ by rounding only."""
    small, medium, large = (
        reduced.records(f"evals/tinyllama_{n}tinyllama/mmlu_medmcqa_{recipe}/s0/*.json")
        for n in (2, 4, 8)
    )
    for a, b, c in zip(small, medium, large, strict=True):
        assert (
            max(r["metrics"]["acc"]["value"] for r in (a, b, c))
            - min(r["metrics"]["acc"]["value"] for r in (a, b, c))
            <= 2 / a["n"]
        )


def test_a_second_run_does_nothing(reduced):
    assert "Nothing to be done" in (done := reduced.run("all")).stdout + done.stderr


def test_changing_loras_rank_reruns_loras_variants_and_what_shows_them(reduced):
    output = reduced.dry({"recipes": {"lora": {"rank": 4}}}, "all")
    assert jobs(output) == {
        "train": 3,
        "evaluate": 6,
        "table": 2,
        "claim": 2,  # C8 and C18; the claim on times is not asked of a miniature
        "claims": 1,
        "figure": 5,
        "report": 1,
        "all": 1,
    }
    trained = re.findall(r"wildcards: variant=(\S+),", output)
    assert {name.rsplit("_", 1)[-1] for name in trained} == {"lora"}
    assert {"table2.tex"} == set(re.findall(r"output: \S+/(table\d\.tex)", output))


EDITS = {
    "a table's caption": {"tables": {7: {"caption": "Another."}}},
    "the order of rows": {"mixes": {"medmcqa_sujet": {"data": ["sujet", "medmcqa"]}}},
    "a task": {"tasks": {"pubmedqa": {"cluster": "context"}}},
    "notes": {"notes": ["Another."]},
    "only an estimate": {"hardware": {"utilisation": 0.5}},
}


@pytest.mark.parametrize("edit", EDITS)
def test_snakemake_makes_again_first_what_the_table_of_edits_says(reduced, edit):
    """docs/workflow.md's table is made by the same function (docs/generate/reruns.py)."""
    told = reduced.dry(EDITS[edit], "all")
    blocks = re.findall(r"^(?:local)?rule (\w+):\n((?: {4}.*\n)*)", told, re.MULTILINE)
    due, follows = (
        {rule for rule, block in blocks if re.search(reason, block)}
        for reason in ("Params have changed|Set of input files", "updated by another job")
    )
    where = {"results": str(reduced.results)}
    files = [CONFIG, MINI, REDUCED]
    plain, edited = (identities(*files, **where, **more) for more in ({}, EDITS[edit]))
    first = reruns.first(plain, edited)
    assert due <= first | {"report"}, "which prints the command, and that names the overlay"
    assert first <= due | follows, "of a job with two reasons Snakemake tells one"


def test_a_dense_model_that_is_gone_is_made_again_for_what_loads_its_merges(reduced, tmp_path):
    """A merge holds no weights of its experts. What is done needs them no more."""
    expert = reduced.results / "experts" / "medical"
    expert.rename(tmp_path / "medical")
    evaluation = f"{reduced.results}/evals/tinyllama_4medical/medmcqa_mofe/s0/medmcqa.json"
    try:
        assert "Nothing to be done" in reduced.dry(None, evaluation)
        again = jobs(reduced.dry({"shots": 1}, evaluation))
    finally:
        (tmp_path / "medical").rename(expert)
    wanted = ("train_expert", "merge_per_seed", "train", "questions", "evaluate")
    assert again == dict.fromkeys(wanted, 1)


def test_adding_a_row_trains_only_what_is_new(reduced):
    new = {"2 | 0": {"mixture": "small", "train": {"medmcqa": "mofe"}}}
    output = reduced.dry({"tables": {7: {"rows": new}}}, f"{reduced.results}/table7.tex")
    assert jobs(output) == {"train": 1, "evaluate": 1, "table": 1}


DRAWN = {
    "seeds": [0, 1],
    "tables": {
        "drawn": {
            "caption": "What a seed draws.",
            "labels": ["Model"],
            "columns": {"MedMCQA": "medmcqa"},
            "rows": {
                "Base": {"model": "tinyllama"},
                "Expert": {"model": "medical"},
                "Experts": {"mixture": "medical_experts"},
            },
        }
    },
}


def test_a_further_seed_makes_other_experts_and_merges_of_the_same_base(reduced):
    root, table = reduced.results, f"{reduced.results}/tabledrawn.csv"
    reduced.run(table, overlay={**DRAWN, "seeds": [0]})
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file()}
    output = reduced.dry(DRAWN, table)
    added = {"train_expert": 1, "merge_per_seed": 1, "evaluate": 2, "table": 1}
    assert jobs(output) == added and "s0" not in "".join(re.findall(r"output: .*", output))
    reduced.run(table, overlay=DRAWN)
    files = (f"{root}/tabledrawn.", f"{root}/logs/", f"{root}/report", f"{root}/config.yaml")
    kept = {p: t for p, t in before.items() if not str(p).startswith(files)}
    assert {p: p.stat().st_mtime_ns for p in kept} == kept, "all of seed 0, the base and the data"

    def differ(pattern: str) -> bool:
        one, other = (root / pattern.format(seed=seed) for seed in (0, 1))
        return one.read_bytes() != other.read_bytes()

    moe = "tinyllama_4medical"
    assert differ("experts/medical/s{seed}/model.safetensors")
    assert differ(f"moe/{moe}/s{{seed}}/merge.json")
    assert differ("evals/medical/none/s{seed}/medmcqa.questions.jsonl.gz")
    assert differ(f"evals/{moe}/none/s{{seed}}/medmcqa.questions.jsonl.gz")
    for seed in (0, 1):
        trained = json.loads((root / f"experts/medical/s{seed}/train.json").read_text())
        merged = json.loads((root / f"moe/{moe}/s{seed}/merge.json").read_text())
        assert trained["seed"] == seed
        dense = f"{root}/experts/medical/s{seed}"
        assert (merged["base"], merged["slots"]) == (f"{root}/experts/tinyllama", [dense] * 4)
    frame = pd.read_csv(table).set_index("label")
    assert frame["seeds"].to_dict() == {"Base": 1, "Expert": 2, "Experts": 2}


def test_more_seeds_change_no_long_parameter(reduced):
    """What a dry run prints of parameters that changed holds no file name, but two hashes."""
    output = reduced.dry({"seeds": [0, 1, 2]}, "all")
    assert [jobs(output)[rule] for rule in ("table", "figure", "report")] == [9, 8, 1]
    told = re.findall(r"Params have changed[^;\n]*", output)
    assert told and all(len(text) < 400 and "/" not in text for text in told), max(told, key=len)


OWN = {
    "mixes": {"unfolded": {"data": ["medmcqa"], "training": {"fold_duplicates": False}}},
    "mixtures": {
        "routed": {
            "base": "tinyllama",
            "experts": {"tinyllama": 2},
            "merge": {"gate_mode": "random", "experts_per_token": 1},
        }
    },
    "tables": {
        7: {"rows": {"2 | 0": {"mixture": "small", "train": {"medmcqa": "mofe"}}, "0 | 4": None}},
        "routing": {
            "caption": "A dense model and a random router.",
            "labels": ["Model"],
            "columns": {
                "MedMCQA": "medmcqa",
                "Normed": "medmcqa.acc_norm",
                "Trained": "trainable",
                "Time": "time",
                "CPU": "cpu_seconds",
                "Speed": "tokens_per_second",
                "FLOPs": "flops",
                "Memory": "memory",
                "Rate": "rate",
            },
            "rows": {
                "Constant": {"constant": True},
                "Dense": {"model": "tinyllama"},
                "Dense, tuned": {"model": "medical", "train": {"medmcqa": "lora"}},
                "Random": {"mixture": "routed"},
                "Random, tuned": {"mixture": "routed", "train": {"unfolded": "mofe"}},
            },
        },
    },
}


def test_a_table_of_our_own_with_dense_rows_and_a_random_router(reduced):
    root = reduced.results
    random, dense = "tinyllama_2tinyllama_random_top1", "medical/medmcqa_lora"
    exported = [f"{root}/models/{name}/s0" for name in (f"{random}/none", dense)]
    targets = [f"{root}/tablerouting.csv", f"{root}/table7.csv", f"{root}/tablerouting.tex"]
    reduced.run(*targets, *exported, overlay=OWN)
    frame = pd.read_csv(root / "tablerouting.csv")
    assert frame["label"].drop_duplicates().tolist() == list(OWN["tables"]["routing"]["rows"])
    assert frame["paper"].isna().all()
    cells = frame.set_index(["label", "column"])["value"]
    assert ("Dense", "Trained") not in cells and cells["Dense, tuned", "Time(s)"] > 0
    assert cells["Dense, tuned", "Trained"] < cells["Random, tuned", "Trained"]
    costs = ("CPU", "Speed", "FLOPs", "Memory", "Rate")
    assert all(cells["Dense, tuned", cost] > 0 for cost in costs)
    shown = set(frame.loc[frame["label"] == "Constant", "column"])
    assert shown == {"MedMCQA", "Normed"}, "a constant answer is trained for nothing"
    (record,) = reduced.records("evals/tinyllama/none/s0/medmcqa.json")
    assert (record["moe"], record["stages"]) == ("tinyllama", "none")
    assert record["metrics"]["acc"]["value"] == cells["Dense", "MedMCQA"]
    assert record["floor"]["value"] == cells["Constant", "MedMCQA"]
    assert record["metrics"]["acc_norm"]["value"] == cells["Dense", "Normed"]
    # a dense model and the merge of its copies are one function, whatever the router
    assert cells["Random", "MedMCQA"] == pytest.approx(cells["Dense", "MedMCQA"], abs=0.03)
    (merge,) = reduced.records(f"moe/{random}/merge.json")
    assert (merge["gate_mode"], merge["experts_per_token"]) == ("random", 1)
    cards = [Path(folder, "README.md").read_text() for folder in exported]
    assert "Router: random gates, 1 experts per token." in cards[0]
    assert "A dense model of the study" in cards[1] and "Dense model: medical." in cards[1]
    assert AutoModelForCausalLM.from_pretrained(exported[1]).config.model_type == "llama"
    assert r"\label{tab:mofe-routing}" in (root / "tablerouting.tex").read_text()
    labels = pd.read_csv(root / "table7.csv")["label"].tolist()
    assert labels == ["4 | 0", "3 | 1", "2 | 2", "1 | 3", "2 | 0"]
    reduced.run(f"{root}/table7.csv")  # as it was, for the other tests


def test_a_new_method_of_a_known_kind_is_one_line(reduced):
    new = {"r | 2": {"mixture": "medium", "train": {"medmcqa": "lora2"}}}
    overlay = {
        "recipes": {"lora2": {"method": "lora", "rank": 2, "alpha": 4, "targets": ["q_proj"]}},
        "tables": {7: {"rows": new}},
    }
    before = (reduced.results / "table1.csv").read_bytes()
    reduced.run(f"{reduced.results}/table7.csv", overlay=overlay)
    frame = pd.read_csv(reduced.results / "table7.csv")
    assert frame["label"].tolist()[-1] == "r | 2" and pd.isna(frame["paper"].iloc[-1])
    assert (reduced.results / "table1.csv").read_bytes() == before
    reduced.run(f"{reduced.results}/table7.csv")  # as it was, for the other tests


def test_bad_input_is_told_at_once_and_leaves_everything_in_place(reduced):
    before = sorted(p for p in reduced.results.rglob("*") if p.is_file())
    overlay = {"training": {"learning_rate": "3e-5", "epoch": 2}}
    done = reduced.run("all", overlay=overlay, check=False)
    assert done.returncode != 0
    told = done.stderr + done.stdout
    assert "2 fault(s) in the configuration" in told
    assert re.search(
        r"training.learning_rate \(.*overlay.yaml:\d+\): '3e-5' is text, not a number", told
    )
    assert "training.epoch" in told and "did you mean 'epochs'?" in told
    assert sorted(p for p in reduced.results.rglob("*") if p.is_file()) == before


def test_a_failing_job_says_why_and_leaves_the_rest_in_place(reduced):
    kept = [p for p in reduced.results.rglob("*.json") if "_dora" not in str(p)]
    overlay = {"recipes": {"dora": {"training": {"max_length": 2}}}}
    done = reduced.run(f"{reduced.results}/table2.tex", overlay=overlay, check=False)
    assert done.returncode != 0
    assert "none of the 128 rows has 2 tokens or fewer; raise max_length" in done.stderr
    assert all(p.exists() for p in kept)
    reduced.run(f"{reduced.results}/table2.tex")


def test_a_job_of_the_warm_parent_is_the_job_done_here(reduced, tmp_path):
    """The same seed gives the same bits in another process, warm parent or not."""
    plan = Plan(read_study(CONFIG, MINI, REDUCED, results=str(reduced.results)))
    variant = plan.variants["general_2finance-2medical/medmcqa_sujet_mofe"]
    train.train_variant(
        merge=plan.paths.origin_dir(variant, 0),
        data=plan.stage_data(variant.stages[-1].mix),
        parents=[],
        chain=[],
        params=plan.params.stage(variant.stages[-1]),
        names={"moe": variant.origin.name, "stages": variant.name},
        seed=0,
        trained=tmp_path / "trained.safetensors",
        record=tmp_path / "train.json",
        log=tmp_path / "log.jsonl",
        checkpoint=tmp_path / "checkpoint",
    )
    assert (tmp_path / "trained.safetensors").read_bytes() == Path(
        plan.paths.trained(variant, 0)
    ).read_bytes()


def test_snakemakes_own_report(reduced, tmp_path):
    report = tmp_path / "report.html"
    snakemake(
        *["--profile", "profiles/mini", "--configfile", str(CONFIG), str(MINI), str(REDUCED)],
        *["--config", f"results={reduced.results}", "--report", str(report), "--", "all"],
    )
    text = report.read_text()
    assert "Tables" in text and "Figures" in text and "loss_curves" in text
    about, described = (
        json.JSONDecoder().raw_decode(text.split(f'<script id="{name}">')[1].split(" = ", 1)[1])[0]
        for name in ("workflow-desc", "results")
    )
    assert "dense experts are\nfine-tuned from a base model" in about and "reduced" in about
    captions = {Path(file).name: entry["caption"] for file, entry in described.items()}
    assert "Accuracy against the number of frozen experts" in captions["frozen_experts.png"]
    assert "Accuracy against the number of medical experts" in captions["medical_experts.png"]
    assert "Training time against accuracy" in captions["time_accuracy.png"]
    assert "Training loss over optimiser steps" in captions["loss_curves.png"]
    assert "A table of the paper with our values" in captions["table1.csv"]


@pytest.fixture
def clone(reduced, tmp_path) -> Path:
    """Another checkout, with what Snakemake knows of the reduced study's files."""
    reduced.run("all")  # tests before this one remade parts of it
    kept = ("Snakefile", "config.yaml", "docs", "envs", "mofe", "profiles", "rules", "scripts")
    kept += ("requirements.lock",)
    kept += ("tests/studies",)
    copy_code(kept, tmp_path)
    known = Path(".snakemake", "metadata")
    shutil.copytree(ROOT / known, tmp_path / known, copy_function=copy_if_there)
    return tmp_path


def copy_if_there(source: str, copy: str) -> None:
    """Runs of tests beside this one remove what Snakemake knows of their own files."""
    with suppress(FileNotFoundError):
        shutil.copy2(source, copy)


def test_finished_results_are_due_in_no_other_clone(reduced, clone):
    def dry() -> str:
        return reduced.dry(None, "all", folder=clone)

    assert "Nothing to be done" in dry()
    values = clone / "mofe" / "paper.csv"
    values.write_text(values.read_text().replace("0.3331", "0.3332"))
    judged = {"claim": len(claims.shipped()), "claims": 1}
    again = {"table": 9, "figure": 8, **judged, "report": 1, "all": 1}
    assert jobs(dry()) == again
