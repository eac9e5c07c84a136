"""Results to tables, figures and the page, on a made-up study with the paper's seven tables."""

import io
import json
import math
import os
import random
import re
import shutil
import statistics
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import example_claims
import matplotlib.image
import matplotlib.text
import pandas as pd
import pytest
from conftest import CONFIG, LOOK, MINI
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

from mofe import files, paper, records, templates, units
from mofe.metrics import METRICS, SHARES
from mofe.records import EvalRecord, TrainRecord
from mofe.report import document, drawing, figures, frames, kinds, noise, page, tables
from mofe.report.sources import FromTrainings, Trainings
from mofe.report.views import table as table_view
from mofe.report.views import training_data
from mofe.report.views.provenance import provenance
from mofe.study import tables as study_tables
from mofe.study.load import read_study
from mofe.study.plan import Plan
from mofe.study.setting import Setting
from mofe.study.tables import Cell
from mofe.study.values import SHOWS, ConfigError

SEEDS = (0, 1, 2)
PAPERS = Setting("paper", "paper", "hours")
MINIATURE = Setting("mini", "miniature", "seconds")
FLOORS = {"mmlu": 0.262, "medmcqa": 0.281, "pubmedqa": 0.552, "finance": 0.405}
TASKS = {"MMLU": "mmlu", "MedMCQA": "medmcqa", "Medicine": "medmcqa"}
TASKS |= {"PubMedQA": "pubmedqa", "Finance": "finance"}
COLUMNS = ["Trainable Parameters", "Training Time(hr)", *TASKS]
SIZES = {"Small": 2, "Medium": 4, "Large": 8}
RECIPES = {"X": None, "Full": "full", "MoFE": "mofe", "LoRA": "lora", "QLoRA": "qlora"}
RECIPES |= {"DoRA": "dora"}
TRAINABLE = {"full": 1_861_000, "lora": 12_288, "qlora": 12_288, "dora": 14_336}
SECONDS = {"full": 24.0, "lora": 15.0, "qlora": 19.0, "dora": 18.0}
SCORES = {None: 0.27, "full": 0.61, "mofe": 0.57, "lora": 0.37, "qlora": 0.36, "dora": 0.38}
VERSIONS = {"torch": "2.15.0", "transformers": "5.23.0", "lm-eval": "0.4.13", "peft": "0.21.0"}

# The parts of each table that its published cells do not hold.
LAYOUT = {
    1: (("Model", "Fine-tuning"), (), "Parameters, time and performance by model size."),
    2: (("Model", "Fine-tuning"), (), "Parameters, time and performance by method & size."),
    3: (
        ("Medical Expert", "General"),
        (("Model", 2), ("MedMCQA", 1)),
        "The performance of MoFE models with various expert model compositions.",
    ),
    4: (
        ("Finance Expert", "Medical Expert", "General"),
        (("Model", 3), ("Task Performance", 2)),
        "The performance of MoFE models with different numbers of finance and medical experts.",
    ),
    5: (("Base Model",), (("Base Model", 1), ("Task Performance", 2)), "Different base models."),
    6: (("Expert Model", "Training Strategy"), (), "Task performance by training strategy."),
    7: (("Frozen", "Updated"), (("FFN Blocks", 2), ("MedMCQA", 1)), "Frozen FFN blocks."),
}


def train_record(**changes) -> dict:
    record = {
        "trainable_parameters": 98_304,
        "total_parameters": 1_861_000,
        "seconds": 9.0,
        "device_seconds": 9.0,
        "cpu_seconds": 17.0,
        "learning_rate": 1.5e-3,
        "flops": 2.0e12,
        "tokens": 120_000,
        "answer_tokens": 12_000,
        "steps": 40,
        "rows": 1500,
        "dropped_rows": 12,
        "processes": 1,
        "sharding": "none",
        "micro_batch": 8,
        "resumed": 0,
        "peak_memory_bytes": 1_000_000_000,
        "final_loss": 0.9,
        "seed": 0,
        "recipe": "mofe",
        "moe": "tiny_2tiny",
        "stages": "both_mofe",
        "versions": VERSIONS,
        "git_revision": "0123456789abcdef0123456789abcdef01234567",
        "hardware": {"cpu": "A processor", "cores": 2, "gpus": []},
        "config_hash": "abc",
        "frozen_sha256": {"before": "f00d", "after": "f00d"},
    }
    return record | changes


def eval_record(**changes) -> dict:
    record = {
        "task": "mmlu",
        "moe": "tiny_2tiny",
        "stages": "both_mofe",
        "seed": 0,
        "n": 2000,
        "clusters": 700,
        "headline": "acc",
        "metrics": {"acc": {"value": 0.51, "stderr": 0.011}},
        "floor": {"value": 0.262, "how": "always answering the commonest option"},
        "questions": "mmlu.questions.jsonl.gz",
        "seconds": 3.0,
        "config_hash": "abc",
        "versions": VERSIONS,
        "git_revision": "0123456789abcdef0123456789abcdef01234567",
        "hardware": {"cpu": "A processor", "cores": 2, "gpus": []},
    }
    return record | changes


def written_record(value: float, **changes) -> dict:
    """An evaluation of answers in words: F1, exact matches, and no floor."""
    metrics = {"f1": {"value": value, "stderr": 0.01}, "exact": {"value": 0.1, "stderr": 0.02}}
    record = eval_record(headline="f1", metrics=metrics, floor=None, task="finance_open")
    return record | changes


def counts_record(**changes) -> dict:
    return {
        "read": 3000,
        "incomplete": 0,
        "held_out": 300,
        "unlabelled": 4,
        "duplicate": 50,
        "also_in_test": 6,
        "usable": 2640,
        "sampled": 1500,
        "characters": 123_456,
    } | changes


def text_record() -> dict:
    counts = {"read": 70, "pieces": 200, "duplicate": 10, "usable": 190}
    return counts | {"sampled": 100, "characters": 9_000}


def put(path, record) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record), encoding="utf-8")
    return str(path)


def put_log(path, final: float, rng: random.Random, steps: int = 40) -> None:
    losses = [final + (2.2 - final) * math.exp(-step / 9) for step in range(steps)]
    lines = [
        {"step": step, "loss": loss + rng.gauss(0, 0.02), "learning_rate": 1e-3, "tokens": 3000}
        for step, loss in enumerate(losses, start=1)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line | {"seconds": 0.2}) + "\n" for line in lines))


def study(folder, seeds=SEEDS) -> list[SimpleNamespace]:
    """The seven tables of the paper over made-up results, written below ``folder``."""
    rng = random.Random(7)
    return [
        _table(number, cells, folder, seeds, rng)
        for number, cells in paper.published().groupby("table")
    ]


def _table(number, cells, folder, seeds, rng) -> SimpleNamespace:
    headings, header, caption = LAYOUT[number]
    columns = tuple(column for column in COLUMNS if column in set(cells["column"]))
    labels = [tuple(label.split(" | ")) for label in cells.groupby("row")["label"].first()]
    return SimpleNamespace(
        number=number,
        caption=caption,
        label_headings=headings,
        header=header,
        columns=columns,
        rows=tuple(_row(number, label, columns, folder, seeds, rng) for label in labels),
        beside=("Finance answers (F1)",) if number in (4, 5) else (),
    )


def _facts(number, labels) -> tuple[str, str | None, dict[str, int], int | None, float]:
    """(mixture, last recipe, experts, frozen experts, bonus on the score) of a made-up row."""
    if number <= 2:
        size, method = labels
        recipe = RECIPES[method]
        frozen = SIZES[size] if recipe == "mofe" else None
        return f"tiny_{SIZES[size]}tiny", recipe, {"tiny": SIZES[size]}, frozen, 0.0
    if number == 7:
        frozen, trained = map(int, labels)
        recipe = "mofe" if trained == 0 else f"freeze{frozen}"
        return "tiny_4tiny", recipe, {"tiny": 4}, frozen, 0.004 * trained
    if number in (3, 4):
        counts = [int(label) for label in labels]
        finance, medical, general = counts if number == 4 else (0, *counts)
        experts = {"finance": finance, "medical": medical, "general": general}
        experts = {name: count for name, count in experts.items() if count}
        name = "general_" + "-".join(f"{count}{name}" for name, count in experts.items())
        return name, "mofe", experts, 4, 0.015 * medical + 0.01 * finance
    if number == 5:
        base = labels[0].split()[0].lower()
        return f"{base}_2finance-2medical", "mofe", {"finance": 2, "medical": 2}, 4, 0.05
    expert = labels[0].split()[0].lower()
    return f"tiny_4{expert}", "mofe", {expert: 4}, 4, 0.01 * len(labels[1]) / 10


def _row(number, labels, columns, folder, seeds, rng) -> SimpleNamespace:
    mixture, recipe, experts, frozen, bonus = _facts(number, labels)
    stages = ["posttrain_mofe"] if labels[-1].startswith("Post") else []
    stages = ".".join([*stages, f"both_{recipe}"]) if recipe else "none"
    variant = f"{mixture}/{stages}"
    names = ["posttrain_mofe", stages] if "." in stages else [stages]
    trains = tuple(
        tuple(
            _train(folder / f"variants/{mixture}/{name}/s{seed}", mixture, name, recipe, seed, rng)
            for name in names
        )
        for seed in (seeds if recipe else ())
    )
    cells = []
    for column in columns:
        if column in TASKS:
            score = SCORES.get(recipe, 0.56) + bonus
            evals = folder / f"evals/{variant}"
            files = tuple(_eval(evals, variant, TASKS[column], seed, score, rng) for seed in seeds)
            cells.append(cell("task", column, files, TASKS[column]))
        else:
            cells.append(cell("time" if "Time" in column else "trainable", column, trains))
    beside = [_beside(folder / f"evals/{variant}", seeds, rng)] if number in (4, 5) else []
    return SimpleNamespace(
        labels=labels,
        cells=tuple(cells),
        beside=tuple(beside),
        mixture=mixture,
        recipe=recipe,
        experts=tuple(experts.items()),
        frozen=frozen,
        trains=trains,
    )


def cell(kind, column, files, task=None, metric=None) -> Cell:
    return Cell(column, kind, files, task, metric)


def _beside(folder, seeds, rng) -> SimpleNamespace:
    """The cell of our column, which the paper's Tables 4 and 5 do not have."""
    files_ = tuple(
        put(folder / f"s{seed}/finance_open.json", written_record(rng.uniform(0.3, 0.5), seed=seed))
        for seed in seeds
    )
    return cell("task", "Finance answers (F1)", files_, "finance_open")


def _train(folder, mixture, stages, recipe, seed, rng) -> str:
    path = folder / "train.json"
    if not path.exists():
        experts = int(re.findall(r"[0-9]+", mixture)[0])
        seconds = SECONDS.get(recipe, 10.0) * (0.7 + 0.1 * experts) + rng.gauss(0, 0.3)
        put_log(folder / "log.jsonl", 1.6 - SCORES.get(recipe, 0.56), rng)
        record = train_record(seed=seed, recipe=recipe, moe=mixture, stages=stages)
        put(
            path,
            record
            | {"device_seconds": seconds, "trainable_parameters": TRAINABLE.get(recipe, 98_304)},
        )
    return str(path)


def _eval(folder, variant, task, seed, score, rng) -> str:
    path = folder / f"s{seed}/{task}.json"
    if not path.exists():
        value = min(0.98, score + 0.7 * (FLOORS[task] - 0.27) + rng.gauss(0, 0.012))
        stderr = math.sqrt(value * (1 - value) / 2000)
        floor = {"value": FLOORS[task], "how": "always answering the commonest option"}
        moe, stages = variant.split("/")
        record = eval_record(task=task, moe=moe, stages=stages, seed=seed, floor=floor)
        put(path, record | {"metrics": {"acc": {"value": value, "stderr": stderr}}})
    return str(path)


def curves(tables) -> list[Trainings]:
    """A curve for each trained row; a row trained in two stages has one for each."""
    found = {}
    for row in (row for table in tables for row in table.rows if row.recipe):
        for stage in zip(*row.trains, strict=True):
            last = stage[0].split("/")[-3].split(".")[-1]
            data = "post-pretraining" if last == "posttrain_mofe" else "MMLU + MedMCQA"
            logs = tuple(path.replace("train.json", "log.jsonl") for path in stage)
            found[logs] = Trainings(data, row.recipe, logs)
    return list(found.values())


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The made-up study's folder and tables; tests read it and change nothing in it."""
    folder = tmp_path_factory.mktemp("results")
    return folder, study(folder)


def one_row(number, label, *cells, **more) -> SimpleNamespace:
    """A table of one row, with Table ``number``'s published values."""
    facts = {"recipe": "mofe", "experts": (), "frozen": 2, "beside": (), **more}
    row = SimpleNamespace(labels=label, cells=cells, **facts)
    return SimpleNamespace(
        number=number,
        caption="One row.",
        label_headings=tuple("AB"[: len(label)]),
        header=(),
        columns=tuple(cell.column for cell in cells),
        rows=(row,),
        beside=tuple(cell.column for cell in row.beside),
    )


def scores(folder, values, stderrs=(0.01, 0.01, 0.01), n=2000, task="mmlu") -> tuple[str, ...]:
    return tuple(
        put(
            folder / f"s{seed}/{task}.json",
            eval_record(seed=seed, n=n, metrics={"acc": {"value": value, "stderr": stderr}}),
        )
        for seed, (value, stderr) in enumerate(zip(values, stderrs, strict=False))
    )


# --- frames -----------------------------------------------------------------------------------


def test_a_score_is_the_mean_over_seeds_with_its_deviation_and_standard_error(tmp_path):
    files_ = scores(tmp_path, (0.5, 0.52, 0.57), stderrs=(0.010, 0.011, 0.012))
    table = one_row(1, ("Small", "MoFE"), cell("task", "MMLU", files_, "mmlu"))
    (line,) = frames.tidy(table, MINIATURE).to_dict("records")
    assert tuple(line) == frames.COLUMNS
    assert (line["row"], line["label"], line["column"]) == (1, "Small | MoFE", "MMLU")
    assert line["paper"] == 0.3163
    assert line["value"] == pytest.approx(0.53)
    assert line["sd"] == pytest.approx(statistics.stdev((0.5, 0.52, 0.57)))
    assert line["stderr"] == pytest.approx(math.sqrt((0.01**2 + 0.011**2 + 0.012**2) / 3))
    assert (line["n"], line["seeds"]) == (2000, 3)


def test_one_seed_has_no_deviation_and_a_new_row_no_published_value(tmp_path):
    files_ = scores(tmp_path, (0.5,))
    table = one_row(1, ("Tiny", "MoFE"), cell("task", "MMLU", files_, "mmlu"))
    (line,) = frames.tidy(table, PAPERS).to_dict("records")
    assert math.isnan(line["sd"])
    assert math.isnan(line["paper"])
    assert (line["value"], line["seeds"]) == (0.5, 1)


def trained(tmp_path, seconds=(3600.0, 7200.0), counts=(2_252_800, 2_252_800)) -> tuple:
    """Two seeds of two stages; the second stage trains ``counts`` for ``seconds``."""
    return tuple(
        (
            put(tmp_path / f"first/s{seed}/train.json", train_record(device_seconds=360.0)),
            put(
                tmp_path / f"last/s{seed}/train.json",
                train_record(device_seconds=time, trainable_parameters=count),
            ),
        )
        for seed, (time, count) in enumerate(zip(seconds, counts, strict=True))
    )


def test_the_time_of_several_gpus_is_added_up_and_said(tmp_path):
    shared = train_record(seconds=1800.0, device_seconds=3600.0, processes=2, sharding="fsdp")
    said = "Training Time(hr) is of all GPUs that computed a row together, added up (GPU-hours)"
    papers = "; the paper's hours are those of one machine with three A100s."
    for name, record in (("one", train_record()), ("two", shared)):
        runs = ((put(tmp_path / f"{name}/train.json", record),),)
        table = one_row(2, ("Small", "LoRA"), cell("time", "Training Time(hr)", runs))
        frame = frames.tidy(table, PAPERS)
        assert frame["value"].tolist() == [record["device_seconds"] / 3600]
        assert said + papers in tables.note(table, frame, PAPERS)
        miniature = tables.note(table, frame, MINIATURE)
        assert (said.replace("(hr)", "(s)") in miniature) == (name == "two")
        assert papers not in miniature


def test_gpu_hours_are_not_subtracted_from_the_papers_hours_of_a_machine(tmp_path):
    run = train_record(seconds=3600.0, device_seconds=10800.0, processes=3, sharding="ddp")
    runs = ((put(tmp_path / "train.json", run),),)
    shown = {}
    for kind in ("time", "wall_time"):
        table = one_row(2, ("Small", "LoRA"), cell(kind, "Training Time(hr)", runs))
        (column,) = table_view.view(table, PAPERS)["columns"]
        shown[kind] = (column.parts, column.rows[0][1].text)
    assert shown["time"] == (("paper", "ours"), "3.00")
    assert shown["wall_time"] == (("paper", "ours", "difference"), "1.00")


def test_training_time_adds_up_the_stages_and_parameters_are_the_last_stages(tmp_path):
    runs = trained(tmp_path)
    table = one_row(
        2,
        ("Small", "LoRA"),
        cell("trainable", "Trainable Parameters", runs),
        cell("time", "Training Time(hr)", runs),
    )
    frame = frames.tidy(table, PAPERS).set_index("column")
    assert frame.loc["Trainable Parameters", ["paper", "value", "sd"]].tolist() == [
        2.3e6,
        2_252_800,
        0,
    ]
    assert frame.loc["Training Time(hr)", "value"] == pytest.approx((1.1 + 2.1) / 2)
    assert frame.loc["Training Time(hr)", "paper"] == 13
    assert frame["n"].isna().all()


def test_seconds_and_the_papers_hours_never_share_a_line(tmp_path):
    table = one_row(2, ("Small", "LoRA"), cell("time", "Training Time(hr)", trained(tmp_path)))
    frame = frames.tidy(table, MINIATURE).set_index("column")
    assert list(frame.index) == ["Training Time(hr)", "Training Time(s)"]
    assert frame.loc["Training Time(hr)", "paper"] == 13
    assert pd.isna(frame.loc["Training Time(hr)", "value"])
    assert pd.isna(frame.loc["Training Time(hr)", "seeds"])
    assert pd.isna(frame.loc["Training Time(s)", "paper"])
    assert frame.loc["Training Time(s)", "value"] == pytest.approx(5760)


def test_seeds_that_contradict_each_other_are_refused(tmp_path):
    runs = trained(tmp_path, counts=(10, 11))
    with pytest.raises(ValueError, match="trainable_parameters differs between seeds: 10, 11"):
        kinds.measure(cell("trainable", "Trainable Parameters", runs), "hours")
    questions = (*scores(tmp_path / "a", (0.5,), n=10), *scores(tmp_path / "b", (0.5,), n=11))
    with pytest.raises(ValueError, match="n differs between seeds: 10, 11"):
        kinds.measure(cell("task", "MMLU", questions, "mmlu"), "hours")


@pytest.mark.parametrize("setting", [PAPERS, MINIATURE])
def test_every_published_cell_is_in_the_frames_once(results, setting):
    found = [
        (table.number, line.row, line.label, line.column, line.paper)
        for table in results[1]
        for line in frames.tidy(table, setting).itertuples()
        if not pd.isna(line.paper)
    ]
    cells = paper.published()[["table", "row", "label", "column", "value"]]
    # By column within a row, because the paper's order of columns is the table's affair.
    assert sorted(found) == sorted(cells.itertuples(index=False, name=None))


def test_untuned_rows_have_no_line_for_parameters_or_time(results):
    frame = frames.tidy(results[1][0], MINIATURE)
    assert set(frame[frame["label"] == "Small | X"]["column"]) == {"MMLU", "MedMCQA"}


WRONG_EVALS = [
    ({"metrics": {}}, "metrics.acc is missing"),
    ({"metrics": {"acc": 0.5}}, "metrics.acc is 0.5, not an object"),
    ({"metrics": {"acc": {"stderr": 0.1}}}, "metrics.acc.value is missing"),
    ({"metrics": {"acc": {"value": math.nan, "stderr": 0.1}}}, "metrics.acc.value is nan"),
    ({"metrics": {"acc": {"value": 51.0, "stderr": 0.1}}}, "metrics.acc.value is 51.0, outside"),
    ({"metrics": {"acc": {"value": None, "stderr": 0.1}}}, "metrics.acc.value is None"),
    ({"metrics": {"acc": {"value": True, "stderr": 0.1}}}, "metrics.acc.value is True"),
    ({"metrics": {"acc": {"value": 0.5, "stderr": -0.1}}}, "metrics.acc.stderr is -0.1, outside"),
    ({"n": 0}, "n is 0"),
    ({"n": 20.5}, "n is 20.5, not a whole number"),
    ({"floor": {"value": 1.2, "how": "x"}}, "floor.value is 1.2, outside"),
    ({"headline": "f1"}, "metrics.f1 is missing"),
    ({"headline": None}, "headline is None, not a text"),
    ({"floor": {}}, "floor.value is missing"),
    ({"task": 3}, "task is 3, not a text"),
    ({"speed": 3}, "speed is not a key of such a record"),
]


@pytest.mark.parametrize(("change", "message"), WRONG_EVALS)
def test_a_wrong_evaluation_is_refused_by_file_and_key(tmp_path, change, message):
    path = put(tmp_path / "mmlu.json", eval_record(**change))
    with pytest.raises(ValueError, match=f"^{re.escape(path)}: {re.escape(message)}"):
        records.read(path, EvalRecord)


WRONG_TRAININGS = [
    ({"seconds": math.inf}, "seconds is inf"),
    ({"seconds": -1.0}, "seconds is -1.0, outside"),
    ({"final_loss": math.nan}, "final_loss is nan"),
    ({"trainable_parameters": 1.5}, "trainable_parameters is 1.5, not a whole number"),
    ({"trainable_parameters": "1"}, "trainable_parameters is '1', not a whole number"),
    ({"versions": []}, "versions is [], not an object"),
    ({"recipe": None}, "recipe is None, not a text"),
    ({"processes": 1.5}, "processes is 1.5, not a whole number"),
    ({"sharding": 3}, "sharding is 3, not 'none', 'ddp' or 'fsdp'"),
    ({"dropped_rows": None}, "dropped_rows is None"),
]


@pytest.mark.parametrize(("change", "message"), WRONG_TRAININGS)
def test_a_wrong_training_is_refused_by_file_and_key(tmp_path, change, message):
    path = put(tmp_path / "train.json", train_record(**change))
    with pytest.raises(ValueError, match=f"^{re.escape(path)}: {re.escape(message)}"):
        records.read(path, TrainRecord)


@pytest.mark.parametrize("kind", [TrainRecord, EvalRecord])
@pytest.mark.parametrize("text", ["", '{"task": "mm', "[]", "3"])
def test_what_is_no_json_object_is_refused(tmp_path, kind, text):
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: (not a complete|holds)"):
        records.read(path, kind)


@pytest.mark.parametrize("key", sorted(train_record()))
def test_a_training_lacks_no_key(tmp_path, key):
    record = train_record()
    del record[key]
    path = put(tmp_path / "train.json", record)
    with pytest.raises(ValueError, match=f"{key} is missing"):
        records.read(path, TrainRecord)


# --- tables -----------------------------------------------------------------------------------


def render(table, setting, folder) -> tuple[str, str, str]:
    paths = [folder / f"table{table.number}.{kind}" for kind in ("tex", "md", "csv")]
    tables.write(table, setting, *paths)
    return tuple(path.read_text(encoding="utf-8") for path in paths)


def test_the_csv_is_the_tidy_frame(results, tmp_path):
    table = results[1][0]
    _, _, csv = render(table, MINIATURE, tmp_path)
    assert csv.splitlines()[0] == ",".join(frames.COLUMNS)
    assert "2,Small | Full,Training Time(hr),14,,,,,,,mini,miniature\n" in csv
    kinds_ = {"n": "Int64", "seeds": "Int64", "paper_in_noise": "boolean"}
    read = pd.read_csv(io.StringIO(csv), dtype=kinds_)
    frame = frames.tidy(table, MINIATURE)
    pd.testing.assert_frame_equal(read, frame, check_dtype=False, rtol=1e-11)


def test_markdown_shows_ours_with_deviation_and_the_papers_text(results, tmp_path):
    _, md, _ = render(results[1][3], MINIATURE, tmp_path)
    lines = [line for line in md.splitlines() if line.startswith("|")]
    assert lines[0] == (
        "| Model: Finance Expert | Model: Medical Expert | Model: General "
        "| Task Performance: Medicine | Task Performance: Finance "
        "| Not in the paper: Finance answers (F1) |"
    )
    assert len(lines) == 2 + 6
    assert re.fullmatch(
        r"\| 0 \| 4 \| 0 \| 0\.\d{4} ± 0\.\d{4} \(0\.3636†\) \| 0\.\d{4} ± 0\.\d{4} \(0\.928†\) "
        r"\| 0\.\d{4} ± 0\.\d{4} \|",
        lines[4],
    )


def test_time_in_seconds_shows_no_published_time(results, tmp_path):
    tex, md, _ = render(results[1][0], MINIATURE, tmp_path)
    assert "Training Time(s)" in md
    assert "Training Time(hr)" not in md
    assert "(14)" not in md + tex
    tex, md, _ = render(results[1][0], PAPERS, tmp_path)
    assert "Training Time(hr)" in md
    assert "(14)" in md
    assert "(14)" in tex


def test_one_seed_shows_no_deviation(tmp_path):
    table = study(tmp_path / "results", seeds=(5,))[6]
    tex, md, _ = render(table, MINIATURE, tmp_path)
    assert "±" not in md
    assert r"\pm" not in tex
    assert "One run" in md


def test_repeated_parents_are_blank_and_repeated_counts_are_not(results):
    first = [labels[0] for labels in tables.shown_labels(results[1][0])]
    assert first == ["Small", "", "", "Medium", "", "", "Large", "", ""]
    assert [labels[0] for labels in tables.shown_labels(results[1][3])] == list("000321")
    assert [labels[0] for labels in tables.shown_labels(results[1][5])] == [
        "TinyLlama",
        "",
        "Medical Expert",
    ]


def test_latex_has_the_papers_two_levels_of_headings(results, tmp_path):
    tex, _, _ = render(results[1][3], PAPERS, tmp_path)
    assert r"\multicolumn{3}{c}{Model} & \multicolumn{4}{c}{Task Performance} \\" in tex
    assert r"\cmidrule(lr){1-3}\cmidrule(lr){4-7}" in tex
    tex, _, _ = render(results[1][5], PAPERS, tmp_path)
    assert r"$\rightarrow$" in tex
    assert "cmidrule" not in tex


def test_latex_is_a_float_with_caption_and_label_that_needs_booktabs_only(results, tmp_path):
    tex, _, _ = render(results[1][0], PAPERS, tmp_path)
    assert tex.startswith("\\begin{table}[htbp]\n\\centering\n\\caption[Parameters, time and ")
    assert "\\label{tab:mofe-1}" in tex
    assert "Mean $\\pm$ standard deviation over 3 seeds" in tex
    assert [tex.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
    assert tex.count(r"\addlinespace") == 2
    assert not re.search(r"multirow|\\cline|\\hline|\\rowcolor", tex)


def test_a_header_that_does_not_span_the_columns_is_refused(results):
    table = SimpleNamespace(**vars(results[1][3]) | {"header": (("Model", 2),)})
    with pytest.raises(ValueError, match="table 4: the header spans 2 columns of 5"):
        tables.headings(table, PAPERS)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (1_861_144_576, "1.86B"),
        (339_000_000, "0.34B"),
        (2_252_800, "2.3M"),
        (12_288, "12.3K"),
        (640, "640"),
    ],
)
def test_parameters_are_printed_as_the_paper_prints_them(count, text):
    assert units.parameters(count) == text


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (7200.4, "7200"),
        (123.4, "123"),
        (12.34, "12.3"),
        (6.04, "6.04"),
        (0.0061, "0.006"),
        (0, "0"),
    ],
)
def test_times_are_printed_with_three_digits(time, text):
    assert kinds.KINDS["time"].print(time, math.nan) == kinds.Printed(text)


@given(st.text(alphabet="\\{}$&#%_~^<>|ab ", max_size=30))
def test_escaped_text_leaves_latex_nothing_to_act_on(text):
    """Without the replacements themselves, no character with a meaning is left unescaped."""
    known = [r"\textbackslash{}", r"\textasciitilde{}", r"\textasciicircum{}", "$<$", "$>$", "$|$"]
    known += [r"\{", r"\}", r"\$", r"\&", r"\#", r"\%", r"\_"]
    rest = re.sub("|".join(map(re.escape, known)), "", tables.escape(text))
    assert set(rest) <= set("ab ")


def hostile(table) -> SimpleNamespace:
    """The table with characters that LaTeX, markdown and HTML would each act on."""
    nasty = r"<b>50% & $x_1^2$ #{~}\ | → ± `é`</b>"
    labels = (nasty, *table.rows[0].labels[1:])
    row = SimpleNamespace(**vars(table.rows[0]) | {"labels": labels})
    headings = (nasty, *table.label_headings[1:])
    changes = {"caption": nasty, "label_headings": headings, "rows": (row, *table.rows[1:])}
    return SimpleNamespace(**vars(table) | changes)


def test_hostile_labels_stay_text_in_markdown(results, tmp_path):
    _, md, _ = render(hostile(results[1][6]), PAPERS, tmp_path)
    rows = [line for line in md.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in rows}) == 1
    assert not re.search(r"(?<!\\)<", md)


needs_latex = pytest.mark.skipif(
    shutil.which("pdflatex") is None and os.environ.get("MOFE_REQUIRE_LATEX") != "1",
    reason="pdflatex is not installed (MOFE_REQUIRE_LATEX=1 makes this a failure)",
)


def pdflatex(folder, tables_, setting) -> str:
    """Compile the tables, a page each, in an article with booktabs and nothing else; the log."""
    for at, table in enumerate(tables_):
        text = tables.latex(table, frames.tidy(table, setting), setting)
        (folder / f"{at}.tex").write_text(text, encoding="utf-8")
    inputs = "".join(rf"\input{{{at}}}\clearpage" for at in range(len(tables_)))
    document = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{inputs}"
    (folder / "all.tex").write_text(document + r"\end{document}", encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    run = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    log = run.stdout.decode("utf-8", errors="replace")
    assert run.returncode == 0, log[-2000:]
    assert f"({len(tables_)} pages" in log.replace("\n", "")
    return log


@needs_latex
@pytest.mark.parametrize("setting", [PAPERS, MINIATURE])
def test_all_tables_compile_in_an_article_and_fit_its_width(results, tmp_path, setting):
    assert "Overfull" not in pdflatex(tmp_path, results[1], setting)


@needs_latex
def test_hostile_labels_compile(results, tmp_path):
    pdflatex(tmp_path, [hostile(table) for table in results[1]], PAPERS)


@needs_latex
@pytest.mark.parametrize("label", ["[2pt]", "*", "]"])
def test_a_label_is_no_argument_of_the_line_before(results, tmp_path, label):
    table = results[1][0]
    rows = [SimpleNamespace(**vars(r) | {"labels": (label, r.labels[1])}) for r in table.rows[:3]]
    rows.append(table.rows[3])
    changes = {"caption": label, "label_headings": (label, label), "rows": tuple(rows[::-1])}
    pdflatex(tmp_path, [SimpleNamespace(**vars(table) | changes), table], PAPERS)


def test_a_result_that_cannot_be_read_leaves_the_tables_in_place(tmp_path):
    table = study(tmp_path / "results", seeds=(0, 1))[6]
    before = render(table, PAPERS, tmp_path)
    broken = table.rows[4].cells[0].files[1]
    put(tmp_path / "broken.json", {})
    shutil.copy(tmp_path / "broken.json", broken)
    with pytest.raises(ValueError, match=f"{re.escape(broken)}: task is missing"):
        render(table, PAPERS, tmp_path)
    kinds = ("tex", "md", "csv")
    assert before == tuple((tmp_path / f"table7.{kind}").read_text("utf-8") for kind in kinds)


@needs_latex
def test_the_document_has_every_table_and_figure_and_is_the_same_twice(results, tmp_path):
    """With a table and a figure whose names and texts LaTeX would act on."""
    nasty = tmp_path / "50%_&"
    nasty.mkdir()
    numbers = [*range(1, 8), "C_1"]
    made = []
    for number, table in zip(numbers, [*results[1], hostile(results[1][6])], strict=True):
        tex = tables.latex(table, frames.tidy(table, MINIATURE), MINIATURE)
        (nasty / f"table{number}.tex").write_text(tex, encoding="utf-8")
        made.append((nasty / f"table{number}.tex", number))
    drawn = draw(results[1], MINIATURE, nasty)
    shown = [(pdf, f"{name}: 50% & more.") for name, (pdf, _) in drawn.items()]
    for out in ("one.pdf", "two.pdf"):
        document.write(made, shown, MINIATURE, tmp_path / out)
    one = (tmp_path / "one.pdf").read_bytes()
    assert one == (tmp_path / "two.pdf").read_bytes() and one.startswith(b"%PDF")
    (nasty / "table1.tex").write_text("\\undefinedcommand")
    with pytest.raises(RuntimeError, match="pdflatex fails: ! Undefined control sequence"):
        document.write(made, shown, MINIATURE, tmp_path / "one.pdf")
    assert (tmp_path / "one.pdf").read_bytes() == one


# --- what ours is, and the paper's noise -----------------------------------------------------


def test_every_output_of_a_miniature_says_so(results, html, tmp_path):
    """Its name and that it is no evidence, in whatever may be taken out of its folder."""
    said = MINIATURE.ours
    for table in results[1]:
        tex, md, csv = render(table, MINIATURE, tmp_path)
        assert said in md and tables.escape(said) in tex
        head, *lines = csv.splitlines()
        assert head.endswith(",study,scale")
        assert lines and all(line.endswith(",mini,miniature") for line in lines)
        section = html.split(f'id="table{table.number}"')[1].split("</section>")[0]
        assert said in section
    for name, (pdf, png) in draw(results[1], MINIATURE, tmp_path).items():
        assert said in Image.open(png).info["Description"]
        assert b"/Subject" in pdf.read_bytes()
        assert figures.caption(name, MINIATURE) in unescape(html)


@pytest.mark.parametrize("width", [3, 5, 9])
def test_a_picture_alone_says_what_ours_is(width):
    with drawing.style():
        drawn, _ = drawing.panels(1, width=width, height=3)
        drawn.suptitle("Accuracy")
        drawing.name_study(drawn, MINIATURE)
        drawn.draw_without_rendering()
        (said,) = (text for text in drawn.texts if text.get_text().startswith("Ours"))
        (axis,) = drawn.axes
        place, below = said.get_window_extent(), axis.get_tightbbox()
    assert said.get_text().replace("\n", " ") == MINIATURE.ours
    assert place.x0 >= 0 and place.x1 <= drawn.bbox.width and place.y0 >= below.y1


def test_a_study_is_compared_with_the_paper_in_the_papers_setting_only():
    for setting in (MINIATURE, Setting("pilot", "other", "hours")):
        assert not setting.is_papers and setting.study in setting.ours
    mini, paper_ = read_study(CONFIG, MINI), read_study(CONFIG)
    assert (mini.setting, paper_.setting) == (MINIATURE, PAPERS)
    assert read_study(CONFIG, study="own").setting == Setting("own", "other", "hours")
    with pytest.raises(ConfigError, match=r"study: the name 'paper' is kept .* another name"):
        read_study(CONFIG, MINI, study="paper")


@pytest.mark.parametrize(
    ("task", "sd", "low", "high"),
    [("MMLU", 0.0059, 0.0040, 0.0113), ("MedMCQA", 0.0171, 0.0115, 0.0327)],
)
def test_the_papers_noise_is_that_of_its_equal_functions(task, sd, low, high):
    """Against values by hand: four methods with three sizes each have 8 degrees of freedom."""
    found = noise.measured(task)
    assert found.df == 8 and math.sqrt(found.variance) == pytest.approx(sd, abs=5e-5)
    interval = [math.sqrt(8 * found.variance / stats.chi2(8).ppf(p)) for p in (0.975, 0.025)]
    assert interval == pytest.approx([low, high], abs=5e-5)


def test_a_threshold_is_satterthwaites():
    """Two trained runs, against scipy's Welch test where each score is a sample's mean: with no
    binomial error the degrees of freedom are the yardstick's, with no runs they are infinite."""
    limit = noise.threshold("MedMCQA", 0.3297, 0.2661, (True, False))
    assert limit == pytest.approx((0.106 - 0.021) / 2, abs=0.0005)
    binomial = math.sqrt(2 * 0.25 * 0.75 / 14042)
    untuned = noise.threshold("MMLU", 0.25, 0.25, (False, False))
    assert untuned == pytest.approx(stats.norm.ppf(0.975) * binomial)
    runs = math.sqrt(2 * noise.measured("MMLU").variance)
    tuned = noise.threshold("MMLU", 0.3, 0.3, (True, True))
    assert (
        stats.norm.ppf(0.975) * runs
        < tuned
        < stats.t(8).ppf(0.975) * math.hypot(runs, binomial) * 1.1
    )


def test_a_borrowed_noise_is_in_proportion_to_p_times_1_minus_p():
    sds = [noise.yardstick("Finance", score).sd for score in (0.5, 0.9)]
    assert sds[0] / sds[1] == pytest.approx(0.25 / 0.09)
    borrowed = [noise.is_borrowed(heading) for heading in ("PubMedQA", "Finance", "Medicine")]
    assert borrowed == [True, True, False]


def test_every_task_of_the_papers_tables_has_its_number_of_questions(paper_plan):
    """The same as the paper's setting asks, where the configuration says it."""
    shown = paper.published()
    scored = set(shown.loc[shown["value"] < 1, "column"])
    assert scored == set(paper.BENCHMARKS)
    for benchmark in paper.BENCHMARKS.values():
        assert paper_plan.study.tasks[benchmark.name.lower()].questions == benchmark.questions


def test_a_difference_inside_the_papers_noise_is_marked_in_every_format(results, tmp_path):
    table = results[1][5]
    tex, md, _ = render(table, PAPERS, tmp_path)
    assert "(0.3529†)" in md and "(0.2589)" in md and "(0.188)" in md and "(0.3655)" in md
    assert r"(0.3529$^\dagger$)" in tex and "(0.584†)" in md and "(0.6)" in md
    limit = noise.threshold("MedMCQA", 0.3655, 0.3655, (True, True))
    said = f"by up to {limit:.3f} on MedMCQA and 0.084 on PubMedQA, by MedMCQA's noise"
    assert said in md and said in tex
    frame = frames.tidy(table, PAPERS)
    marked = frame[frame["paper_in_noise"]]
    assert list(zip(marked["row"], marked["column"], strict=True)) == [
        (1, "MedMCQA"),
        (3, "PubMedQA"),
    ]
    shown = page.view(table, PAPERS)
    fields = [field for _, row in shown["rows"] for field in row if field.part == "paper"]
    assert [field.text for field in fields if field.mark] == ["0.3529", "0.584"]
    assert not any(field.best for field in fields), "another is inside the best's noise"
    assert shown["in_noise"] in md


def test_an_untuned_score_has_no_run_to_run_noise():
    printed = {1: 0.30, 2: 0.26}
    assert noise.inside("MedMCQA", printed, {1: True, 2: True}) == {2}
    assert noise.inside("MedMCQA", printed, {1: False, 2: False}) == set()


def test_the_best_is_bold_where_no_other_is_near(tmp_path):
    for gap, bold in ((0.009, []), (0.011, ["0.5000"])):
        cells = [
            cell("task", "MMLU", scores(tmp_path / f"{gap}{at}", (value,)), "mmlu")
            for at, value in enumerate((0.5, 0.5 - gap))
        ]
        table = one_row("own", ("a",), cells[0])
        two = SimpleNamespace(**vars(table.rows[0]) | {"labels": ("b",), "cells": (cells[1],)})
        table = SimpleNamespace(**vars(table) | {"rows": (table.rows[0], two)})
        rows = page.view(table, PAPERS)["rows"]
        assert [field.text for _, row in rows for field in row if field.best] == bold


# --- what columns and rows can show -----------------------------------------------------------


def test_every_kind_of_the_configuration_is_measured_and_printed():
    assert set(kinds.KINDS) == {
        *(SHOWS.keys() | METRICS.keys() - {*SHARES}),
        "task",
        "floor",
    }


def test_costs_are_summed_over_stages_and_printed_with_their_unit(tmp_path):
    stages = [
        {"cpu_seconds": 20.0, "flops": 2e12, "tokens": 6000, "device_seconds": 10.0},
        {"cpu_seconds": 30.0, "flops": 1e12, "tokens": 3000, "device_seconds": 8.0},
    ]
    last = {"peak_memory_bytes": 1_500_000_000, "learning_rate": 3e-5}
    changes = [stages[0] | {"learning_rate": 1e-3}, stages[1] | last]
    runs = (tuple(put(tmp_path / f"{at}.json", train_record(**c)) for at, c in enumerate(changes)),)
    shown = {"cpu_seconds": "50.0 s", "tokens_per_second": "500 /s", "memory": "1.50 GB"}
    shown |= {"flops": "3.00 TFLOP", "rate": "3e-5"}
    cells = [cell(kind, kind, runs) for kind in shown]
    table = one_row("C5", ("a",), *cells)
    frame = frames.tidy(table, MINIATURE)
    assert frame["value"].tolist() == [50.0, 500.0, 1.5e9, 3e12, 3e-5]
    (row,) = tables.entries(table, frame, MINIATURE)
    assert [f"{e.ours} {e.unit}".strip() for e in row] == list(shown.values())
    tex, md, _ = render(table, MINIATURE, tmp_path)
    assert "| a | 50.0 s | 500 /s | 1.50 GB | 3.00 TFLOP | 3e-5 |" in md
    assert r"1.50\,GB" in tex
    ((_, fields),) = page.view(table, MINIATURE)["rows"]
    assert [f"{f.text} {f.unit}".strip() for f in fields] == list(shown.values())


def test_a_cost_has_its_deviation_in_its_own_unit(tmp_path):
    runs = tuple(
        (put(tmp_path / f"{at}.json", train_record(peak_memory_bytes=b)),)
        for at, b in enumerate((2_000_000_000, 3_000_000_000))
    )
    (value,) = frames.tidy(one_row("C5", ("a",), cell("memory", "M", runs)), PAPERS)["value"]
    shown = kinds.KINDS["memory"].print(value, 707_106_781.0)
    assert shown == kinds.Printed("2.50", "0.71", "GB")


def test_a_table_of_our_own_has_no_column_for_the_papers_values(tmp_path):
    table = one_row("C1", ("a",), cell("task", "MMLU", scores(tmp_path, (0.5,)), "mmlu"))
    (column,) = page.view(table, PAPERS)["columns"]
    assert column.parts == ("ours",)
    tex, _, _ = render(table, PAPERS, tmp_path)
    assert r"\begin{tabular}{@{}lc@{}}" in tex and "a & 0.5000 \\\\" in tex


CONSTANT = {
    "caption": "Floors.",
    "labels": ["Model"],
    "columns": {"Trained": "trainable", "MMLU": "mmlu", "Answers (F1)": "finance_open"},
    "rows": {
        "Constant": {"constant": True},
        "Small": {"mixture": "small", "train": {"mmlu": "mofe"}},
    },
}


def test_a_constant_row_shows_the_floors_of_the_other_rows_evaluations(tmp_path):
    study_ = read_study(CONFIG, LOOK, seeds=[0, 1], tables={"C1": CONSTANT}, results=str(tmp_path))
    plan = Plan(study_)
    full = plan.tables["C1"]
    for file in plan.table_input("C1"):
        if file.endswith("train.json"):
            put(Path(file), train_record())
        elif file.endswith("finance_open.json"):
            put(Path(file), written_record(0.4))
        else:
            put(Path(file), eval_record())
    (table,) = study_tables.filled(study_tables.bare([full]), plan.table_input("C1"), 2)
    assert table == full, "through the two parts that a job gets it in"
    frame = frames.tidy(table, PAPERS)
    constant = frame[frame["row"] == 1]
    assert constant[["column", "value"]].values.tolist() == [["MMLU", 0.262]]
    assert constant[["sd", "stderr", "seeds"]].isna().all(axis=None)
    tex, md, _ = render(table, PAPERS, tmp_path)
    assert "| Constant |  | 0.2620 |  |" in md
    assert r"Constant &  & 0.2620 &  \\" in tex
    shown = page.view(table, PAPERS)
    assert [field.text for field in shown["rows"][0][1]] == ["", "0.2620", ""]
    assert {v.name for v in plan.variants.values()} >= {"mmlu_mofe"}
    assert set(study_tables.evaluations([full])) < set(plan.table_input("C1"))


def test_a_constant_row_is_no_model_and_needs_another_row():
    rows = CONSTANT["rows"]
    with pytest.raises(ConfigError, match=r"tables\.C1\.rows: all rows are constant.*add a row"):
        read_study(CONFIG, LOOK, tables={"C1": CONSTANT | {"rows": {"Constant": rows["Constant"]}}})
    wrong = {"constant": True, "train": {"mmlu": "mofe"}}
    with pytest.raises(ConfigError, match="'constant' is no model; leave 'train' out"):
        read_study(CONFIG, LOOK, tables={"C1": CONSTANT | {"rows": rows | {"Constant": wrong}}})
    with pytest.raises(ConfigError, match="exactly one of mixture, model, constant, has none"):
        read_study(CONFIG, LOOK, tables={"C1": CONSTANT | {"rows": rows | {"Constant": {}}}})


# --- files ------------------------------------------------------------------------------------


def test_write_atomic_replaces_a_file_and_makes_its_folder(tmp_path):
    path = tmp_path / "new" / "file.txt"
    files.write_atomic(path, "é\n")
    files.write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["file.txt"]
    plain = tmp_path / "plain"
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    files.write_atomic(path, "old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_atomic(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


# --- figures ----------------------------------------------------------------------------------


def save(figure, drawn_from, setting, outputs) -> None:
    with drawing.style():
        drawn = figure(drawn_from, setting)
        drawing.name_study(drawn, setting)
        drawing.save(drawn, outputs, about=figures.caption(figure.__name__, setting))


def draw(tables_, setting, folder) -> dict[str, list]:
    """Every figure, by name, as [PDF, PNG]."""
    paths = {
        name: [folder / f"{name}.{kind}" for kind in ("pdf", "png")]
        for name in ("time_accuracy", "medical_experts", "frozen_experts", "loss_curves")
    }
    save(figures.time_accuracy, tables_[:2], setting, paths["time_accuracy"])
    save(figures.medical_experts, tables_[2:4], setting, paths["medical_experts"])
    save(figures.frozen_experts, tables_[6:], setting, paths["frozen_experts"])
    save(figures.loss_curves, curves(tables_), setting, paths["loss_curves"])
    return paths


def test_figures_are_pictures_and_the_same_twice(results, tmp_path):
    once = draw(results[1], PAPERS, tmp_path / "once")
    twice = draw(results[1], PAPERS, tmp_path / "twice")
    for name, (pdf, png) in once.items():
        assert pdf.read_bytes().startswith(b"%PDF")
        height, width, _ = matplotlib.image.imread(png).shape
        assert min(height, width) > 400
        assert [path.read_bytes() for path in twice[name]] == [pdf.read_bytes(), png.read_bytes()]


@pytest.mark.parametrize("text", ["US$5 to $6", "Ba$$in", "x$^$", r"$\foo$"])
def test_dollar_signs_are_dollar_signs(results, tmp_path, text):
    table = results[1][0]
    rows = [SimpleNamespace(**vars(r) | {"labels": (text, *r.labels[1:])}) for r in table.rows]
    named = SimpleNamespace(**vars(table) | {"rows": rows})
    with drawing.style():
        drawn = figures.time_accuracy([named], PAPERS)
        shown = [t for t in drawn.findobj(matplotlib.text.Text) if t.get_text() == text]
        assert shown and not any(t.get_parse_math() for t in shown)
        drawing.save(drawn, [tmp_path / "figure.png"], about="")


def test_a_model_shown_by_two_tables_is_one_point(results):
    """Nine rows of Table 1 and fifteen of Table 2 are eighteen models; Table 3 is in Table 4."""
    points = drawing.by_task(results[1][:2], PAPERS)
    assert {task: len(found) for task, found in points.items()} == {"mmlu": 18, "medmcqa": 18}
    points = drawing.by_task(results[1][2:4], PAPERS)
    assert {task: len(found) for task, found in points.items()} == {"medmcqa": 6, "finance": 6}


def test_the_paper_is_drawn_at_its_own_scale_only(results):
    hours = drawing.by_task(results[1][:1], PAPERS)["mmlu"][1]
    assert (hours.paper, hours.hours) == (0.3331, 14)
    seconds = drawing.by_task(results[1][:1], MINIATURE)["mmlu"][1]
    assert (seconds.paper, seconds.hours) == (None, None)


STEP = {"step": 1, "loss": 2.0, "learning_rate": 1e-3, "tokens": 3000, "seconds": 0.2}


def log(path, losses) -> str:
    path.write_text(
        "".join(json.dumps(STEP | {"step": i, "loss": x}) + "\n" for i, x in enumerate(losses, 1))
    )
    return str(path)


def test_a_loss_curve_is_the_mean_over_runs_with_their_deviation(tmp_path):
    logs = [log(tmp_path / "a.jsonl", (2.0, 1.0)), log(tmp_path / "b.jsonl", (2.0, 2.0))]
    assert drawing.mean_losses(logs) == [((1, 2), [2.0, 1.5], [0.0, pytest.approx(math.sqrt(0.5))])]
    assert drawing.mean_losses(logs[:1]) == [((1, 2), [2.0, 1.0], [0.0, 0.0])]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps(STEP) + '\n{"step": 2, "lo', "line 2: not a complete JSON file"),
        ('{"step": 1}\n', "line 1: loss is missing"),
        (json.dumps(STEP | {"loss": math.nan}) + "\n", "line 1: loss is nan"),
        ("", "holds no step"),
    ],
)
def test_a_broken_log_is_refused(tmp_path, text, message):
    path = tmp_path / "log.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}: {message}"):
        figures.loss_curves([Trainings("MMLU", "mofe", (str(path),))], PAPERS)


def test_a_log_that_lost_steps_is_refused(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(STEP | {"step": 1}) + "\n")
    put(tmp_path / "train.json", train_record(steps=2))
    with pytest.raises(ValueError, match=r"has 1 steps, not the 2 of its train\.json"):
        figures.loss_curves([Trainings("MMLU", "mofe", (str(path),))], PAPERS)


def test_a_table_says_which_times_are_of_interrupted_trainings(tmp_path):
    for resumed in (0, 1):
        runs = ((put(tmp_path / f"{resumed}/train.json", train_record(resumed=resumed)),),)
        table = one_row(2, ("Small", "LoRA"), cell("time", "Training Time(hr)", runs))
        note = tables.note(table, frames.tidy(table, PAPERS), PAPERS)
        told = "Times of Small, LoRA are sums over the parts of trainings that were interrupted."
        assert (told in note) == bool(resumed)


def test_runs_of_other_lengths_are_lines_of_their_own(tmp_path):
    losses = {"a": (2.0, 1.0), "b": (3.0,), "c": (4.0, 3.0)}
    logs = tuple(log(tmp_path / f"{name}.jsonl", its) for name, its in losses.items())
    drawn = figures.loss_curves([Trainings("MMLU", "mofe", logs)], PAPERS)
    lines = {tuple(line.get_xdata()): list(line.get_ydata()) for line in drawn.axes[0].lines}
    assert lines == {(1, 2): [3.0, 2.0], (1,): [3.0]}


def test_nothing_to_draw_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="nothing to draw"):
        figures.draw("frozen_experts", [], [], 1, PAPERS, [tmp_path / "x.png"])


def test_a_dense_model_is_no_mixture_of_no_experts(results):
    """Beside mixtures in Table 3 it is no point at zero medical experts, and alone no figure."""
    dense, tables = {"model": "medical"}, {4: None}
    beside = Plan(read_study(CONFIG, tables=tables | {3: {"rows": {"0 | 0": dense}}}))
    (table,) = figures.of(beside)["medical_experts"].source.spec(beside)
    assert [row["labels"] for row in table["rows"]] == [["0", "4"], ["2", "2"], ["4", "0"]]
    untuned = {"rows": dict.fromkeys(beside.study.tables[7].rows) | {"4 | 4": dense}}
    assert "frozen_experts" not in figures.of(Plan(read_study(CONFIG, tables={7: untuned})))


def test_a_question_without_scores_has_no_figure_and_the_constant_answer_no_row_in_one():
    rows = {"a": {"mixture": "medium"}, "best guess": {"constant": True}}
    asked = {"caption": "Ours.", "labels": ["Model"], "question": "Why?", "rows": rows}
    plan = Plan(
        read_study(
            CONFIG,
            tables={
                "scores": {**asked, "columns": {"MedMCQA": "medmcqa", "Size": "trainable"}},
                "words": {**asked, "columns": {"Words": "medmcqa.perplexity", "Size": "trainable"}},
            },
        )
    )
    assert [[row.is_constant for row in plan.tables[n].rows] for n in ("scores", "words")] == [
        [False, True],
        [False, True],
    ]
    assert "words" not in figures.of(plan)
    (table,) = figures.of(plan)["scores"].source.spec(plan)
    assert [row["labels"] for row in table["rows"]] == [["a"]]


def test_a_figure_of_our_own_is_one_function(results, tmp_path):
    """Declared, drawn from what it names, and the report's like the others."""
    name, found = "a_figure_of_our_own", []

    @figures.figure(FromTrainings("train_json"), "Final losses.")
    def a_figure_of_our_own(trainings, setting):
        found.extend(trainings)
        drawn, _ = drawing.panels(1, width=3, height=3)
        return drawn

    try:
        plan = Plan(read_study(CONFIG, MINI))
        figure = figures.of(plan)[name]
        spec, files_ = figure.source.spec(plan), figure.source.files(plan)
        figures.draw(name, spec, files_, 3, PAPERS, [tmp_path / "x.png"])
    finally:
        del figures.FIGURES[name]
    assert (tmp_path / "x.png").stat().st_size > 1000 and figure.caption == "Final losses."
    assert [file for run in found for file in run.files] == plan.train_jsons
    assert all(len(run.files) == 3 for run in found)
    assert "/" not in str(spec)


@pytest.mark.parametrize("entries", [3, 6, 7, 13])
def test_a_legend_of_many_entries_stays_inside_the_figure(entries):
    drawn, _ = drawing.panels(2, width=3.7, height=2.9)
    drawing.legend(drawn, [drawing.key("a recipe", marker="o") for _ in range(entries)])
    drawn.draw_without_rendering()
    (legend,) = drawn.legends
    shown = legend.get_window_extent()
    assert shown.x0 >= 0 and shown.x1 <= drawn.bbox.width and shown.y0 >= 0
    assert len([text for text in legend.get_texts() if text.get_text().strip()]) == entries


def test_a_table_that_the_paper_lacks_says_nothing_of_the_papers_values(tmp_path):
    runs = ((put(tmp_path / "train.json", train_record()),),)
    for number in (2, "routing"):
        table = one_row(number, ("Small", "LoRA"), cell("time", "Training Time(hr)", runs))
        note = tables.note(table, frames.tidy(table, MINIATURE), MINIATURE)
        assert "One run" in note and "Training time is in seconds" in note
        assert ("the paper's" in note) == (number == 2)


def test_a_column_shows_the_metric_that_it_names(tmp_path):
    metrics = {"acc": {"value": 0.4, "stderr": 0.01}, "acc_norm": {"value": 0.6, "stderr": 0.02}}
    file = put(tmp_path / "arc.json", eval_record(task="arc", metrics=metrics))
    shown = cell("task", "ARC", (file,), "arc"), cell("task", "Norm", (file,), "arc", "acc_norm")
    table = one_row("C1", ("Small", "MoFE"), *shown)
    frame = frames.tidy(table, PAPERS).set_index("column")
    assert frame["value"].to_dict() == {"ARC": 0.4, "Norm": 0.6}
    assert frame["stderr"].to_dict() == {"ARC": 0.01, "Norm": 0.02}
    assert table_view.others(table) == [
        "ARC: accuracy by log-likelihood per character (acc_norm) is 0.6000.",
        "Norm: accuracy (acc) is 0.4000.",
    ]
    absent = cell("task", "F1", (file,), "arc", "f1")
    with pytest.raises(ValueError, match=r"arc.json: has no f1, only acc, acc_norm"):
        kinds.measure(absent, "hours")
    assert set(drawing.by_task([table], PAPERS)) == {"arc", "arc.acc_norm"}


def test_perplexity_and_entropy_are_shown_as_what_they_are(tmp_path):
    """No score: the least perplexity is the best, no entropy is, and no figure, floor or note of a
    score shows either."""
    rows = []
    for name, perplexity, entropy in (("A", 3.25, 0.5), ("B", 2.0, 0.25), ("C", 12345.6, 1.1)):
        metrics = {
            "acc": {"value": 0.4, "stderr": 0.01},
            "entropy": {"value": entropy, "stderr": 0.01},
            "perplexity": {"value": perplexity, "stderr": 0.5},
        }
        file = put(tmp_path / f"{name}.json", eval_record(task="arc", metrics=metrics))
        shown = [
            cell("task", "ARC", (file,), "arc"),
            cell("perplexity", "Perplexity", (file,), "arc", "perplexity"),
            cell("entropy", "Entropy", (file,), "arc", "entropy"),
        ]
        rows.append(one_row("P", (name,), *shown).rows[0])
    table = one_row("P", ("A",), *shown)
    table.rows = tuple(rows)
    view = table_view.view(table, PAPERS)
    texts = [[field.text for field in fields] for _, fields in view["rows"]]
    assert texts == [
        ["0.4000", "3.250", "0.5000"],
        ["0.4000", "2.000", "0.2500"],
        ["0.4000", "12346", "1.1000"],
    ]
    best = [[field.best for field in fields] for _, fields in view["rows"]]
    assert best == [[False, False, False], [False, True, False], [False, False, False]]
    footers = {
        column.heading: (column.floor, column.stderr, column.n) for column in view["columns"]
    }
    assert footers["ARC"] == ("0.2620", "0.0100", "2,000")
    assert footers["Perplexity"] == ("none", "0.5", "2,000")
    assert footers["Entropy"] == ("none", "0.0100", "2,000")
    assert view["others"] == []
    assert set(drawing.by_task([table], PAPERS)) == {"arc"}
    assert "| 12346 " in tables.markdown(table, frames.tidy(table, PAPERS), PAPERS)
    old = put(tmp_path / "old.json", eval_record(task="arc"))
    told = rf"{old}: has no perplexity, because an earlier version .* --forcerun {old} -- {old}"
    with pytest.raises(ValueError, match=told):
        kinds.measure(cell("perplexity", "P", (old,), "arc", "perplexity"), "hours")


def test_a_score_above_1_is_no_record_and_a_perplexity_is(tmp_path):
    metrics = {"acc": {"value": 1.5, "stderr": 0.01}, "perplexity": {"value": 9.0, "stderr": 2.0}}
    file = put(tmp_path / "record.json", eval_record(metrics=metrics))
    with pytest.raises(ValueError, match=r"metrics.acc.value is 1.5, outside its range: at most 1"):
        records.read(file, EvalRecord)
    metrics["acc"]["value"] = 0.5
    assert records.read(
        put(tmp_path / "record.json", eval_record(metrics=metrics)), EvalRecord
    ).metrics["perplexity"]


def test_a_table_may_have_a_word_for_its_number(tmp_path):
    files_ = scores(tmp_path, (0.5,))
    table = one_row("routing", ("Small", "MoFE"), cell("task", "MMLU", files_, "mmlu"))
    tex, md, csv = render(table, PAPERS, tmp_path)
    assert r"\label{tab:mofe-routing}" in tex and "**Table routing.**" in md
    assert csv.splitlines()[1].startswith("1,Small | MoFE,MMLU,,0.5,"), "not the paper's table"


# --- the page ---------------------------------------------------------------------------------

LEDGER = [{"item": "Epochs <b>", "choice": "3", "evidence": "unstated & so on"}]


class Reader(HTMLParser):
    """What a browser would load, and the table cells' texts by their class."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.cells, self.tags, self._open = [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.loads += [v for k, v in attrs.items() if k in ("src", "href", "srcset", "action")]
        if tag == "td":
            self._open = [attrs.get("class", ""), ""]
            self.cells.append(self._open)

    def handle_endtag(self, tag):
        if tag == "td":
            self._open = None

    def handle_data(self, data):
        if self._open is not None:
            self._open[1] += data

    def texts(self, part) -> list[str]:
        return [text for style, text in self.cells if part in style.split() and text]


def put_claims(path) -> Path:
    records.write(path, example_claims.example("miniature", str(path.parent)))
    return path


def report(folder, tables_, setting, out) -> str:
    drawn = draw(tables_, setting, folder / "figures")
    trainings = sorted(folder.glob("variants/**/train.json"))
    page.write(
        tables_,
        [
            (png, f"Figure <{name}>. {figures.caption(name, setting)}")
            for name, (_, png) in drawn.items()
        ],
        LEDGER,
        data={
            "medmcqa": put(folder / "data/medmcqa.json", counts_record()),
            "news": put(folder / "data/news.json", text_record()),
        },
        mixes={"both": {"data": ["medmcqa", "news"], "trainings": trainings}},
        trainings=trainings,
        evaluations=sorted(folder.glob("evals/**/*.json")),
        claims=put_claims(folder / "claims.json"),
        replications=None,
        command="snakemake --cores all --",
        setting=setting,
        device="cpu",
        notes=["What this <study> can show."],
        questions={},
        out=out,
    )
    return out.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def html(results, tmp_path_factory):
    return report(*results, MINIATURE, tmp_path_factory.mktemp("page") / "report.html")


def test_the_page_asks_nothing_of_the_network(html):
    reader = Reader(html)
    assert all(target.startswith(("data:image/png;base64,", "#")) for target in reader.loads)
    assert sum(target.startswith("data:") for target in reader.loads) == 4
    assert not {"script", "link", "iframe", "object"} & set(reader.tags)
    assert "url(" not in html
    assert "@import" not in html


def test_the_page_shows_every_published_value_as_printed(html):
    shown = [text.removesuffix(tables.IN_NOISE) for text in Reader(html).texts("paper")]
    assert sorted(shown) == sorted(paper.published()["printed"])


def test_the_page_shows_ours_and_at_the_papers_scale_the_difference(results, html):
    scored = sum(cell.kind == "task" for t in results[1] for r in t.rows for cell in r.cells)
    reader = Reader(html)
    assert not reader.texts("difference") and "difference" not in html.split("<style>")[0]
    for setting, shown in ((PAPERS, True), (Setting("pilot", "other", "hours"), False)):
        parts = [c.parts for t in results[1] for c in page.view(t, setting)["columns"]]
        assert any("difference" in names for names in parts) == shown
    ours, beside = reader.texts("ours"), 6 + 3
    assert len(ours) == 116 + beside
    assert sum("±" in text for text in ours) == scored + 18 + beside


def test_columns_beside_the_papers_are_set_apart(results, html, tmp_path):
    table = results[1][3]
    tex, md, csv = render(table, PAPERS, tmp_path)
    assert "Finance answers" not in tex
    assert "| Not in the paper: Finance answers (F1) |" in md
    own = [line.split(",") for line in csv.splitlines() if "Finance answers (F1)" in line]
    assert len(own) == 6 and all(line[3] == "" and float(line[4]) > 0 for line in own)
    shown = table_view.view(table, PAPERS)
    column = shown["columns"][-1]
    assert (column.group, column.heading, column.parts) == (
        "Not in the paper",
        "Finance answers (F1)",
        ("ours",),
    )
    assert column.apart and not any(other.apart for other in shown["columns"][:-1])
    assert shown["groups"] == [("Model", 3), ("Task Performance", 6), ("Not in the paper", 1)]
    assert (column.floor, column.n) == ("none", "2,000"), "no floor is not a floor of zero"
    assert shown["floors"] == ["always answering the commonest option"]
    assert shown["others"] == ["Finance answers (F1): the share of exact matches is 0.1000."]
    assert Reader(html).texts("apart"), "by its style too"


def test_a_score_that_seeds_call_by_two_names_is_refused(tmp_path):
    one = put(tmp_path / "s0.json", written_record(0.4))
    other = put(tmp_path / "s1.json", eval_record())
    with pytest.raises(ValueError, match="headline differs between seeds: acc, f1"):
        kinds.measure(cell("task", "F1", (one, other), "finance_open"), "hours")


def rows_below(html: str, heading: str) -> list[list[str]]:
    """The cells' texts of the first table below a heading, row by row."""
    table = re.search(r"<table.*?</table>", html.split(heading, 1)[1], re.DOTALL)[0]
    rows = re.findall(r"<tr.*?</tr>", table, re.DOTALL)
    cells = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
    return [[re.sub("<.*?>", "", text) for text in row] for row in cells]


def test_the_page_counts_the_training_data(html):
    heads, task, text = rows_below(html, "<h2>Training data</h2>")
    told = dict(zip(heads, task, strict=True))
    assert told["Training set"] == "medmcqa" and told["Unlabelled"] == "4"
    assert (told["Rows read"], told["Usable"], told["Sampled"]) == ("3,000", "2,640", "1,500")
    assert (told["Pieces"], told["Characters"]) == ("", "123,456")
    told = dict(zip(heads, text, strict=True))
    assert (told["Pieces"], told["Held out"], told["Unlabelled"]) == ("200", "", "")
    _, mix = rows_below(html, "<h3>As fine-tuning takes them</h3>")
    assert mix[0] == "both" and mix[1].split(", ") == ["medmcqa", "news"]
    assert mix[3:] == ["1,500", "12"]


def test_runs_that_drop_other_rows_are_told_apart(tmp_path):
    runs = [
        put(tmp_path / f"{dropped}.json", train_record(rows=100 - dropped, dropped_rows=dropped))
        for dropped in (3, 9)
    ]
    told = training_data.mixed("medmcqa", ["medmcqa"], runs)
    assert (told["rows"], told["dropped"], told["trainings"]) == ("91 to 97", "3 to 9", 2)


@pytest.mark.parametrize("record", [counts_record(), text_record()])
def test_counts_lack_no_key_and_add_up(tmp_path, record):
    path = put(tmp_path / "counts.json", record)
    assert records.read_counts(path).model_dump(exclude_unset=True) == record
    for key in record.keys() - {"pieces", "config_hash"}:
        put(tmp_path / "counts.json", {k: v for k, v in record.items() if k != key})
        with pytest.raises(ValueError, match=f"{key} is missing"):
            records.read_counts(path)
    put(tmp_path / "counts.json", {**record, "duplicate": record["duplicate"] + 1})
    with pytest.raises(ValueError, match=f"usable is {record['usable']}, but .* less what was"):
        records.read_counts(path)


def test_the_page_escapes_what_users_write(html):
    assert "Epochs &lt;b&gt;" in html
    assert "What this &lt;study&gt; can show." in html
    assert 'alt="Figure &lt;loss_curves&gt;.' in html


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (18_000, "18,000"),
        (3e-5, "3e-05"),
        (None, "none"),
        ("letter", "letter"),
        (["q", "v"], "q, v"),
        ({"hub": "a/b", "training": {}, "path": None}, "hub: a/b"),
        ({"train": {"mmlu": True}}, "train: mmlu: yes"),
    ],
)
def test_a_choice_in_words(choice, words):
    assert page.in_words(choice) == words


def test_hostile_labels_stay_text_on_the_page(results):
    shown = (
        templates.environment(Path(), "html")
        .from_string("{{ it.rows[0][0][0] }}")
        .render(it=table_view.view(hostile(results[1][6]), PAPERS))
    )
    assert shown.startswith("&lt;b&gt;50% &amp;")


def test_the_page_is_the_same_twice(results, html, tmp_path):
    assert report(*results, MINIATURE, tmp_path / "again.html") == html


def test_a_difference_has_its_sign(tmp_path):
    files_ = scores(tmp_path, (0.3, 0.3, 0.3))
    table = one_row(1, ("Small", "MoFE"), cell("task", "MMLU", files_, "mmlu"))
    ((_, fields),) = table_view.view(table, PAPERS)["rows"]
    assert [field.text for field in fields] == ["0.3163", "0.3000", "\u22120.0163"]


def test_provenance_counts_trainings_and_frozen_experts():
    runs = [
        TrainRecord(**train_record(**changes))
        for changes in (
            {},
            {"seed": 1, "frozen_sha256": {"before": "f00d", "after": "bad"}},
            {"recipe": "full", "frozen_sha256": {"before": None, "after": None}},
        )
    ]
    scored = EvalRecord(**eval_record(versions=VERSIONS | {"torch": "2.14.0"}))
    told = provenance({str(at): run for at, run in enumerate(runs)}, {"e": scored})
    assert (told["trainings"], told["evaluations"], told["seeds"]) == (3, 1, ["0", "1"])
    assert (told["frozen"], told["unchanged"]) == (2, 1)
    assert [run["experts"] for run in told["runs"]] == ["unchanged", "changed", "none frozen"]
    assert told["versions"]["torch"] == "2.15.0, 2.14.0"
    assert told["hardware"] == ["A processor, 2 cores, no GPU"]


def test_provenance_tells_how_trainings_ran():
    alone = {"processes": 1, "sharding": "none", "resumed": 0, "peak_memory_bytes": 5}
    shared = {"processes": 3, "sharding": "fsdp", "resumed": 2, "peak_memory_bytes": 7}
    runs = [TrainRecord(**train_record(**run)) for run in (alone, shared, shared)]
    told = provenance({str(at): run for at, run in enumerate(runs)}, {})
    assert told["processes"] == ["1 training on 1 process", "2 trainings on 3 processes (fsdp)"]
    assert told["resumed"] == "2 of 3 trainings, 4 times in all"
    assert told["memory"] == 7


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.25, "4.2 s"), (59.99, "1 min 0 s"), (723, "12 min 3 s"), (12_000, "3 h 20 min")],
)
def test_duration(seconds, text):
    assert units.duration(seconds) == text
