"""Shares of a gain: from which tables their figure is drawn, what it shows, and their words."""

import numpy as np
import pytest
from conftest import CONFIG, ROOT
from test_claims import drawn, evaluation
from test_report import PAPERS, put, train_record

from mofe.records import Comparison, KeptShare
from mofe.report import claims, drawing, figures, share_drawing
from mofe.report.sources import FromShares, Shared
from mofe.study.load import read_study
from mofe.study.plan import Plan
from mofe.study.tables import Cell, Row, Table

QUESTIONS = ROOT / "profiles" / "questions.yaml"


def kept(**changes) -> KeptShare:
    """A record of a share of nine tenths."""
    gain = {"gain": 0.2, "gain_low": 0.18, "gain_high": 0.22}
    return KeptShare(
        **{
            "start": "X",
            "limit": 0.9,
            "value": 0.941,
            "low": 0.88,
            "high": 1.012,
            **gain,
            **changes,
        }
    )


def part(share: KeptShare) -> Comparison:
    return Comparison(
        column="MMLU",
        first="MoFE",
        second="Full",
        test="crossed",
        difference=0.01,
        low=-0.01,
        high=0.03,
        stderr=0.01,
        df=20.0,
        p=0.3,
        seeds=3,
        identical=False,
        kept=share,
    )


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "94% [88%, 101%] of the gain"),
        (
            {"low": None, "high": None, "gain": 0.01, "gain_low": -0.01, "gain_high": 0.03},
            "94% of +1.0 [\N{MINUS SIGN}1.0, +3.0], without an interval",
        ),
        (
            {"value": None, "low": None, "high": None, "gain": -0.05, "gain_low": -0.07}
            | {"gain_high": -0.03},
            "no share: the whole gain is \N{MINUS SIGN}5.0 [\N{MINUS SIGN}7.0, \N{MINUS SIGN}3.0]",
        ),
    ],
)
def test_a_share_is_shown_as_what_is_known_of_it(changes, text):
    assert claims.shown(part(kept(**changes))) == text
    assert claims.against(part(kept())) == "Full, gains over X"
    assert not claims.in_points(part(kept()))


# ----------------------------------------------------------------------------------- the figure


def plan(**changes) -> Plan:
    return Plan(read_study(CONFIG, QUESTIONS, beyond=True, **changes))


def test_the_figure_is_of_every_table_that_a_claim_of_shares_is_about():
    found = figures.of(plan())
    assert [name for name in found if name.endswith(figures.KEPT)] == ["E1_kept"]
    assert not any(name.endswith(figures.KEPT) for name in figures.of(plan(claims={"E1d": None})))
    costs = dict.fromkeys(("Trainable Parameters", "Training Time(hr)", "Peak Memory"))
    assert "E1_kept" not in figures.of(plan(tables={"E1": {"columns": costs}}))


def test_every_row_of_a_block_keeps_a_share_of_its_gain():
    of = plan()
    (spec,) = FromShares("E1").spec(of)
    smaller = [tuple(p) for p in spec["parts"] if p[0] == "MMLU" and p[1].startswith("Smaller")]
    assert smaller == [
        ("MMLU", f"Smaller | {row}", "Smaller | Full", "Smaller | X") for row in ("MoFE", "LoRA")
    ]
    assert len(spec["parts"]) == 12 and spec["limits"] == (0.9,)
    files = FromShares("E1").files(of)
    filled = FromShares("E1").filled([spec], files, len(of.study.seeds))
    assert filled.table == FromShares("E1")._table(of)
    columns = {cell.column for row in filled.table.rows for cell in row.cells}
    assert "Learning Rate" not in columns and {"MMLU", "MedMCQA", "Peak Memory"} <= columns


GAINS = {
    "Small": (0.4, 0.68, 0.7, 0.55),
    "Large": (0.4, 0.42, 0.425, 0.41),
    "Lost": (0.5, 0.5, 0.3, 0.5),
}
COST = {"X": None, "MoFE": (0.2, 6.0, 6e8), "Full": (1.0, 10.0, 1e9), "LoRA": (0.01, 7.0, 7e8)}


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Shared:
    """Three sizes of a made-up study: a gain, one inside its noise, and a loss."""
    folder, rng = tmp_path_factory.mktemp("shares"), np.random.default_rng(30)
    rows = [
        row(folder / size / method, size, method, accuracy, rng)
        for size, accuracies in GAINS.items()
        for method, accuracy in zip(("X", "MoFE", "Full", "LoRA"), accuracies, strict=True)
    ]
    columns = ("Parameters", "Time", "Memory", "Quiz")
    table = Table(9, "A quiz.", ("Size", "Method"), columns, (("", 6),), tuple(rows))
    parts = [
        ("Quiz", *(f"{size} | {method}" for method in (first, "Full", "X")))
        for size in GAINS
        for first in ("MoFE", "LoRA")
    ]
    return Shared(table, tuple(parts), (0.9,))


def row(folder, size, method, accuracy, rng) -> Row:
    seeds = 1 if method == "X" else 3
    right = drawn(rng, accuracy, seeds, questions=1500)
    scored = tuple(evaluation(folder, method, seed, right[seed]) for seed in range(seeds))
    runs = ()
    if cost := COST[method]:
        share, seconds, memory = cost
        record = train_record(
            trainable_parameters=int(share * 1_000_000),
            total_parameters=1_000_000,
            device_seconds=seconds,
            peak_memory_bytes=int(memory),
        )
        runs = tuple((put(folder / f"s{seed}" / "train.json", record),) for seed in range(seeds))
    cells = (
        Cell("Parameters", "trainable", runs),
        Cell("Time", "time", runs),
        Cell("Memory", "memory", runs),
        Cell("Quiz", "task", scored, "quiz"),
    )
    recipe = {"X": None}.get(method, method.lower())
    return Row((size, method), cells, recipe, (), None, int(method != "X"), method != "X")


def test_shares_are_those_of_the_rows_and_their_costs_those_of_their_trainings(shared):
    found = {(p.block, p.row.labels[-1]): p for p in share_drawing.points(shared)}
    small = found["Small", "MoFE"].kept
    assert small.bounds.low < small.value < small.bounds.high and 0.8 < small.value < 1.05
    assert found["Small", "LoRA"].kept.bounds.high < 0.8
    assert found["Large", "MoFE"].kept.bounds is None
    assert found["Lost", "MoFE"].kept.value is None
    at = {
        kind: number(found["Small", "MoFE"], cell)
        for kind, (_, number) in share_drawing.COSTS.items()
        for cell in found["Small", "MoFE"].row.cells
        if cell.kind == kind
    }
    assert at == pytest.approx({"trainable": 0.2, "time": 0.6, "memory": 0.6})


def test_the_figure_has_a_panel_per_cost_and_no_mark_without_a_gain(shared):
    with drawing.style():
        drawn_ = figures.kept(shared, PAPERS)
    assert [axis.get_xlabel() for axis in drawn_.axes] == [
        "trained share of the parameters",
        "training time, Full's = 1",
        "peak memory, Full's = 1",
    ]
    for axis in drawn_.axes:
        marks = [line for line in axis.lines if line.get_marker() not in ("None", None, "")]
        hollow = [line for line in marks if line.get_markerfacecolor() == "white"]
        assert "no gain: Lost" in [text.get_text() for text in axis.texts]
        assert len(marks) - len(hollow) >= 2 and len(marks) <= 4
        assert len(hollow) == len([line for line in axis.lines if line.get_ls() == ":"])


def test_the_figure_is_drawn_as_a_job_draws_it(shared, tmp_path):
    from mofe.study import tables

    (bare,) = tables.bare([shared.table])
    spec = [{"table": bare, "parts": shared.parts, "limits": shared.limits}]
    out = [[tmp_path / f"{name}.{kind}" for kind in ("pdf", "png")] for name in "ab"]
    for files in out:
        figures.draw("9_kept", spec, tables.files([shared.table]), 3, PAPERS, files)
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(*out, strict=True))
