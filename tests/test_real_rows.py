"""Real rows through the whole workflow: the paper's data sets from a mirror, for all seven tables,
with TinyLlama's own tokenizer. Fewer questions and four of MMLU's subjects keep it to minutes."""

import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import CONFIG, ROOT, save_llama, snakemake

from mofe.models import load

REAL = ROOT / "tests" / "studies" / "real.yaml"
TINYLLAMA = "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T"
MEDMCQA_VALIDATION = "openlifescienceai/medmcqa/data/validation-00000-of-00001.parquet"
QUESTIONS = {"medmcqa": 100, "mmlu": 4 * 20, "pubmedqa": 500}


@pytest.fixture(scope="module")
def mirror(shared, tmp_path_factory) -> Path:
    """Links to the real samples, a shorter test set of MedMCQA, and Multi-News as the
    hub's conversion to parquet lays it out, with abstracts for its articles."""
    root = tmp_path_factory.mktemp("mirror")
    for file in (shared / "data").rglob("*"):
        name = file.relative_to(shared / "data")
        if not file.is_file() or len(name.parts) < 3:
            continue
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if str(name) == MEDMCQA_VALIDATION:
            pq.write_table(pq.read_table(file).slice(0, QUESTIONS["medmcqa"]), root / name)
        else:
            (root / name).symlink_to(file)
    corpus = shared / "data/HiTZ/Multilingual-Medical-Corpus/data"
    texts = pq.read_table(next(corpus.glob("en-*.parquet")))["text"].to_pylist()
    documents = [" ||||| ".join(texts[i : i + 3]) for i in range(0, 90, 3)]
    news = root / "alexfabbri/multi_news/default/train/0000.parquet"
    news.parent.mkdir(parents=True)
    pq.write_table(pa.table({"document": documents, "summary": documents}), news)
    return root


@pytest.fixture(scope="module")
def study(shared, mirror, tmp_path_factory) -> Path:
    """The real-rows study; the folder of its results."""
    root = tmp_path_factory.mktemp("real")
    save_llama(root / "base", load.tokenizer(shared / "data" / TINYLLAMA))
    results = root / "results"
    snakemake(
        *["--profile", "profiles/mini", "--configfile", str(CONFIG), str(REAL)],
        *["--config", f"results={results}", f"mirror={mirror}"],
        f"models={{tinyllama: {{path: {root / 'base'}}}}}",
        *["--", *(f"{results}/table{number}.tex" for number in range(1, 8))],
    )
    return results


def test_every_table_is_made_of_real_questions(study):
    asked = {"MMLU": "mmlu", "MedMCQA": "medmcqa", "Medicine": "medmcqa", "PubMedQA": "pubmedqa"}
    for number in range(1, 8):
        frame = pd.read_csv(study / f"table{number}.csv")
        for column, task in asked.items():
            rows = frame[frame["column"] == column]
            assert (rows["n"] == QUESTIONS[task]).all(), (number, column)
        scores = frame[frame["column"].isin([*asked, "Finance"])]["value"]
        assert len(scores) and scores.between(0, 1).all()


def test_table_7_is_evaluated_on_lm_evals_medmcqa(study):
    frame = pd.read_csv(study / "table7.csv")
    assert frame["label"].tolist() == ["4 | 0", "3 | 1", "2 | 2", "1 | 3", "0 | 4"]
    assert frame["value"].between(0.1, 0.5).all()


def test_finance_is_the_closed_rows_of_sujets_tenth(study):
    rows = pd.read_csv(study / "table4.csv").query("column == 'Finance'")
    (asked,) = set(rows["n"])
    counts = json.loads((study / "data/sujet.json").read_text())
    assert 0 < asked <= round(counts["read"] / 10)


def test_finance_answers_in_words_are_the_open_rows_of_the_same_tenth(shared, study):
    table5 = pd.read_csv(study / "table5.csv")
    rows = table5[table5["column"] == "Finance answers (F1)"]
    assert len(rows) == 3 and rows["value"].between(0, 1).all() and rows["paper"].isna().all()
    closed = set(table5[table5["column"] == "Finance"]["n"])
    (opened,) = set(rows["n"])
    (file,) = (shared / "data/sujet-ai").rglob("*.csv")
    assert opened > 50 and sum(closed) + opened == round(pd.read_csv(file)["inputs"].nunique() / 10)


def test_training_is_recorded(study):
    records = [json.loads(p.read_text()) for p in study.glob("variants/*/*/s0/train.json")]
    assert len(records) == 31
    for record in records:
        rows = record["rows"] + record["dropped_rows"]
        if record["stages"] == "posttrain_mofe":
            assert rows >= 96, "a text that is too long is cut into pieces"
        else:
            assert rows == (96 if record["stages"].split(".")[-1].count("_") == 2 else 48)
        assert record["frozen_sha256"]["before"] == record["frozen_sha256"]["after"]
    letters = [r for r in records if not {"sujet", "posttrain"} & set(r["stages"].split("_"))]
    assert len(letters) >= 18
    for record in letters:
        assert record["answer_tokens"] == record["rows"], "a letter is one token"


def test_every_row_that_was_read_is_accounted_for(study):
    counts = {p.stem: json.loads(p.read_text()) for p in study.glob("data/*.json")}
    assert set(counts) == {"mmlu", "medmcqa", "sujet", "medical_corpus", "multi_news"}
    for count in counts.values():
        left = count["usable"] + count["duplicate"]
        if "pieces" in count:
            assert count["pieces"] == left
        else:
            out = count["also_in_test"] + count["held_out"] + count["unlabelled"]
            assert count["read"] == left + out
        assert count["sampled"] == 48 <= count["usable"] and count["characters"] > 48
    assert counts["medical_corpus"]["read"] == 60, "the sample"
    assert counts["multi_news"]["read"] == 30 and counts["multi_news"]["pieces"] >= 90
    assert 0 < counts["sujet"]["held_out"] < counts["sujet"]["read"] / 2
