"""The benchmarks' arithmetic and their page; what they measure is measured in benchmarks/."""

import json
from dataclasses import asdict

import pytest
from conftest import ROOT

SPEEDS = {  # (system, method) -> seconds of each turn
    ("mofe", "full"): [1.5, 3.0],
    ("mofe", "mofe"): [1.0, 2.0],
    ("trainer", "full"): [6.0],
    ("trainer", "mofe"): [3.0, 5.0],
    ("trl", "mofe"): [2.0, 4.0],
    ("mofe", "freeze2"): [1.1, 2.2],
}


@pytest.fixture
def benchmarks(monkeypatch):
    """The modules of benchmarks/, which are programs and no package."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import page
    import training

    return page, training


@pytest.fixture
def measured(benchmarks) -> dict:
    _, training = benchmarks
    size = training.SIZES["rows"]
    record = {
        "shape": asdict(size.shape),
        "rows": 10,
        "mean_length": 80.0,
        "answer_share": 1 / 80,
        "training": size.training,
        "matmul_flops": 1e11,
        "trainer_rows": 4,
        "trl_best": "packed",
        "trl_settings": {"packed": 100.0},
    }
    result = {
        "losses": [7.0, 6.0],
        "peak_bytes": 1 << 30,
        "rows_at_once": 4,
        "estimated_bytes": 1e9,
    }
    runs = {
        key: [result | training.measured(size, [s / 2, s], cpu=s, tokens=800) for s in seconds]
        for key, seconds in SPEEDS.items()
    }
    runs["mofe", "lora"] = [{"failed": "out of memory"}]
    shape = size.shape.mixture(4, 2)
    return record | {"mixtures": {"medium": training.summarise(record, shape, runs)}}


def test_ratios_are_of_the_same_turn(measured):
    found = {(entry["system"], entry["method"]): entry for entry in measured["mixtures"]["medium"]}
    assert found["trainer", "mofe"]["over_ours"] == {
        "median": 2.75,
        "min": 2.5,
        "max": 3.0,
        "pairs": 2,
    }
    assert found["trainer", "full"]["over_ours"]["median"] == 4.0, "its one turn is the first"
    assert found["trainer", "full"]["over_mofe"]["median"] == 2.0
    assert "over_ours" not in found["mofe", "full"]
    assert found["mofe", "lora"] == {"system": "mofe", "method": "lora", "failed": "out of memory"}


def test_a_folded_step_costs_less(benchmarks):
    _, training = benchmarks
    shape = training.SIZES["rows"].shape.mixture(4, 2)
    folded, plain = (training.flops_per_token(shape, m, 80, 0) for m in (training.FOLDED, "mofe"))
    assert 0.5 < folded / plain < 0.75


def test_the_page_judges_what_was_measured(benchmarks, measured, tmp_path, monkeypatch):
    page, _ = benchmarks
    measured |= {
        "threads": 1,
        "hardware": {"cpu": "CPU", "cores": 2, "gpus": []},
        "git_revision": "0" * 40,
        "versions": {"trl": "1", "transformers": "2", "torch": "3"},
    }
    (tmp_path / "training-cpu.json").write_text(json.dumps({"sizes": {"rows": measured}}))
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    monkeypatch.setattr(page, "FIGURES", tmp_path)
    text = "\n".join(page.page())
    assert "| MoFE over Trainer | at least 2.5 | medium 2.75 | yes |" in text
    assert "| MoFE's step over full's | at most 0.78 | medium 0.67 | yes |" in text
    assert "| DoRA's time over MoFE's, by what FLOPs say | at most 1.15 | not measured |  |" in text
    assert "| medium, LoRA | out of memory |" in text
    assert "revision `000000000000`; trl 1, transformers 2, torch 3; not the lock's" in text
    assert "2.75 (2.50-3.00)" in text and "Nothing has been measured on a GPU" in text
    assert (tmp_path / "training-cpu.png").stat().st_size > 5000
