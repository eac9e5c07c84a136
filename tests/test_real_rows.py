"""Real rows through the whole workflow: real MedMCQA and MMLU, TinyLlama's own tokenizer."""

import json
from pathlib import Path

import pandas as pd
import pytest
from conftest import CONFIG, ROOT, save_llama, snakemake

from mofe import models

REAL = ROOT / "tests" / "studies" / "real.yaml"
TINYLLAMA = "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T"


@pytest.fixture(scope="module")
def study(shared, tmp_path_factory) -> Path:
    """Tables 1 and 7 of the real-rows study; the folder of its results."""
    root = tmp_path_factory.mktemp("real")
    tokenizer = models.tokenizer(shared / "data" / TINYLLAMA)
    save_llama(root / "base", tokenizer)
    results = root / "results"
    snakemake(
        *["--profile", "profiles/mini", "--configfile", str(CONFIG), str(REAL)],
        *["--config", f"results={results}", f"mirror={shared / 'data'}"],
        f"models={{tinyllama: {{path: {root / 'base'}}}}}",
        *["--", f"{results}/table1.tex", f"{results}/table7.tex"],
    )
    return results


def test_table_7_is_evaluated_on_lm_evals_medmcqa(study):
    frame = pd.read_csv(study / "table7.csv")
    assert frame["label"].tolist() == ["4 | 0", "3 | 1", "2 | 2", "1 | 3", "0 | 4"]
    assert (frame["n"] == 500).all() and frame["value"].between(0.15, 0.45).all()


def test_table_1_is_evaluated_on_all_of_mmlu(study):
    frame = pd.read_csv(study / "table1.csv")
    assert set(frame[frame["column"] == "MMLU"]["n"]) == {1140}
    assert set(frame[frame["column"] == "MedMCQA"]["n"]) == {500}
    assert len(frame["label"].unique()) == 9


def test_training_is_recorded(study):
    records = [json.loads(p.read_text()) for p in study.glob("variants/*/*/s0/train.json")]
    assert len(records) == 6 + 5
    for record in records:
        assert record["rows"] + record["dropped_rows"] == (96 if record["rows"] > 48 else 48)
        assert record["frozen_sha256"]["before"] == record["frozen_sha256"]["after"]
        assert record["answer_tokens"] == record["rows"], "a letter is one token"
