"""Claims: the configuration's, the verdicts on the paper's numbers, and those on records."""

import csv
import io
import json
import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, snakemake
from hypothesis import given, settings
from hypothesis import strategies as st
from test_report import put, train_record

from mofe import paper, provenance, records
from mofe.files import write_atomic
from mofe.records import ChoiceAnswer, ClaimRecord, ClaimsRecord, EvalRecord, Floor, Metric
from mofe.report import claims as files
from mofe.report import correction, noise, parts, stats, verdicts
from mofe.report import printed as again
from mofe.report.judge import Conditions, judge
from mofe.report.verdicts import Findings
from mofe.study.claims import Claim, shipped
from mofe.study.load import read_study
from mofe.study.plan import Plan
from mofe.study.tables import Cell, Row, Table
from mofe.study.values import ConfigError

SHARED = Path(os.environ.get("MOFE_SHARED", Path(__file__).parents[2] / "shared"))
TEXT = SHARED / "paper" / "mofe_paper.txt"
CONFIG, MINI = ROOT / "config.yaml", ROOT / "profiles" / "mini" / "study.yaml"
CLAIMS = {name: Claim.model_validate(claim) for name, claim in shipped().items()}
IN_PAPER = {name: claim for name, claim in CLAIMS.items() if claim.in_paper}

# ------------------------------------------------------------------------------ the configuration


def test_every_cell_of_a_shipped_claim_is_in_the_shipped_study():
    plan = Plan(read_study(CONFIG))
    assert len(IN_PAPER) == 22
    assert all(tables is not None for tables in plan.claims.values())
    for name, claim in IN_PAPER.items():
        for cell in claim.cells():
            printed = paper.printed(cell.table, cell.row, cell.column)
            assert printed is not None, (name, cell)


@pytest.mark.skipif(not TEXT.exists(), reason="the paper's text is not here; set MOFE_SHARED")
def test_quotes_are_the_papers_own_words():
    text = re.sub(r"\s+", " ", TEXT.read_text(encoding="utf-8"))
    quotes = {name: claim.quote for name, claim in CLAIMS.items() if claim.in_paper}
    assert not [name for name, quote in quotes.items() if quote not in text]


def claim(**changes):
    ours = {"says": "It is so.", "place": "here", "section": "ours", "in_paper": False}
    part = {"table": 7, "kind": "all", "parts": {"MedMCQA": [["0 | 4", "4 | 0"]]}}
    return {**ours, **part, **changes}


def test_a_job_reads_a_claim_as_it_was_planned():
    plan = Plan(read_study(CONFIG))
    for name, planned in plan.study.claims.items():
        given = json.loads(json.dumps(plan.params.claim(name)))
        assert Claim.model_validate(given) == planned, name


def test_an_overlay_adds_and_drops_claims():
    study = read_study(CONFIG, claims={"mine": claim(), "C16": None})
    assert "mine" in study.claims and "C16" not in study.claims and "C17" in study.claims
    plan = Plan(study)
    assert plan.claim_input("mine") == [
        f"results/evals/tinyllama_4tinyllama/medmcqa_{recipe}/s0/medmcqa.json"
        for recipe in ("mofe", "full")
    ]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"parts": {"MedMCQA": [["0 | 4", "4 | 1"]]}},
            "claims.mine: table 7 has no row '4 | 1'; did you mean '4 | 0'?",
        ),
        (
            {"parts": {"MedMCQ": [["0 | 4", "4 | 0"]]}},
            "claims.mine: table 7 has no column 'MedMCQ'; did you mean 'MedMCQA'?",
        ),
        ({"table": "yours"}, "claims.mine: there is no table yours"),
        ({"parts": {"MedMCQA": [["0 | 4", "4 | 0", "2 | 2"]]}}, "are pairs of rows"),
        ({"kind": "best"}, "claims.mine.kind"),
        ({"ratio": 0.5}, "'ratio' goes with kind 'less' only"),
        ({"parts": {"MedMCQA": [["0 | 4", "0 | 4"]]}}, "row '0 | 4' is compared with itself"),
        (
            {"table": 5, "parts": {"Finance": [["General", {"mine": "One"}]]}},
            "column 'Finance' shows finance in one table and medmcqa in another",
        ),
        ({"says": None}, "claims.mine.says"),
        ({"kind": "rising"}, "kind 'rising' compares time, and column 'MedMCQA' shows medmcqa"),
        (
            {"runs": [["0 | 4", "3 | 2"]]},
            "'runs' has row '3 | 2', which the paper's table 7 does not print",
        ),
        (
            {"table": "C5", "kind": "less", "parts": {"Training Time(hr)": [["MoFE", "X"]]}},
            "table C5 has no row 'X'",
        ),
        (
            {"table": "C1", "parts": {"MMLU": [["TinyLlama | none", "none | constant answer"]]}},
            "row 'none | constant answer' is the constant answer",
        ),
        (
            {
                "table": 1,
                "kind": "less",
                "parts": {"Training Time(hr)": [["Small | X", "Small | Full"]]},
            },
            "row 'Small | X' is untuned, so it has no time",
        ),
        ({"constant": {"MedMCQA": [["0 | 4", "4 | 0"]]}}, "'constant' goes with kind 'count' only"),
        ({"kind": "share", "limit": 0.9}, "parts of a claim of kind 'share' are triples of rows"),
        (
            {"kind": "share", "parts": {"MedMCQA": [["0 | 4", "4 | 0", "2 | 2"]]}},
            "kind 'share' needs 'limit', the least share that is claimed; give one",
        ),
        (
            {
                "kind": "share",
                "limit": 0,
                "parts": {"MedMCQA": [["0 | 4", "4 | 0", "2 | 2"]]},
            },
            "claims.mine.limit",
        ),
        (
            {
                "kind": "share",
                "limit": 0.9,
                "in_paper": True,
                "parts": {"MedMCQA": [["0 | 4", "4 | 0", "2 | 2"]]},
            },
            "kind 'share' is none of the paper's claims; set 'in_paper: false'",
        ),
        ({"limit": 0.9}, "'limit' goes with kind 'share' only"),
        (
            {
                "kind": "share",
                "limit": 0.9,
                "table": 1,
                "parts": {"Training Time(hr)": [["Small | MoFE", "Small | Full", "Small | X"]]},
            },
            "kind 'share' compares a score, and column 'Training Time(hr)' shows time",
        ),
    ],
)
def test_a_wrong_claim_is_a_fault(change, sentence):
    one = {"caption": "c", "labels": ["Row"], "columns": {"Finance": "medmcqa"}}
    tables = {"mine": {**one, "rows": {"One": {"mixture": "small"}}}}
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        read_study(CONFIG, study="own", tables=tables, claims={"mine": claim(**change)})


def test_what_a_study_leaves_out_is_no_fault_and_not_run():
    left_out = {3: {"rows": {"0 | 4": None}}, 4: None}
    mine = claim(table=3, parts={"MedMCQA": [["4 | 0", "0 | 4"]]})
    plan = Plan(read_study(CONFIG, tables=left_out, claims={"mine": mine}))
    absent = {name for name, tables in plan.claims.items() if tables is None}
    assert absent == {"C10", "C10e", "C11m", "C11f", "C12", "C12f", "mine"}
    setting = Conditions("x", "paper", 0.01, False, {})
    assert judge("C10", CLAIMS["C10"], None, setting).paper_scale.verdict == "not run"


def test_a_rate_a_controls_row_and_a_claim_are_added_by_overlay_alone(tmp_path):
    """Through Snakemake: what runs more is the rate's candidates, the row's model, and the claim."""
    overlay = tmp_path / "own.yaml"
    overlay.write_text(
        """
        study: own
        searches: {rate: {learning_rate: [7.5e-4, 1.5e-3, 3.0e-3, 6.0e-3, 1.2e-2, 2.4e-2]}}
        recipes: {norms: {method: partial, train: [norms]}}
        tables:
          C4: {rows: {Norms: {mixture: medium, train: {mmlu_medmcqa: norms}}}}
        claims:
          norms:
            {says: Norms alone do little., place: ours, section: ours, in_paper: false, table: C4,
             kind: equal, parts: {MMLU: [[Norms, Router]]}}
        """
    )
    here = ["-n", "--cores", "1", "--config", f"results={tmp_path}/results", "seeds=0"]
    files = ["--configfile", str(CONFIG), str(MINI)]
    before, after = (
        Counter(re.findall(r"^(?:local)?rule (\w+):", done.stdout, re.MULTILINE))
        for done in (snakemake(*here, *files), snakemake(*here, *files, str(overlay)))
    )
    assert after - before == {"train": 6, "evaluate": 12, "claim": 1}
    assert not before - after


def test_rows_of_several_tables_can_be_compared():
    mine = claim(table=6, parts={"MedMCQA": [["TinyLlama | Instruction-tuning", {7: "0 | 4"}]]})
    plan = Plan(read_study(CONFIG, claims={"mine": mine}))
    assert [table.number for table in plan.claims["mine"]] == [6, 7]
    assert len(plan.claim_input("mine")) == 2


# ----------------------------------------------------------------------------- the paper's numbers


def printed():
    return correction.of_paper(CLAIMS)


def test_the_papers_own_numbers_are_judged_from_its_tables():
    """What was computed by hand and by a prototype from the printed tables."""
    found = {name: verdict.verdict for name, (_, verdict, _) in printed().items()}
    beyond = {name for name, verdict in found.items() if verdict == "beyond its noise"}
    assert beyond == {"C2", "C3", "C4", "C5", "C8", "C9", "C14"}
    assert {name for name, verdict in found.items() if verdict == "exact"} == {"C1", "C18"}
    counts = Counter(found[name] for name in IN_PAPER)
    assert counts == {"beyond its noise": 7, "exact": 1, "inside its noise": 14}


def test_sizes_are_read_as_runs_and_part_by_part():
    _, as_runs, by_part = printed()["C8"]
    assert (len(as_runs.parts), len(by_part.parts)) == (6, 18)
    assert as_runs.p == pytest.approx(0.026, abs=0.002)
    assert sum(part.p >= stats.LEVEL for part in by_part.parts) == 6
    assert by_part.verdict == "inside its noise"
    weakest = as_runs.summary
    assert (weakest.difference, weakest.low, weakest.high) == pytest.approx(
        (0.042, 0.006, 0.078), abs=6e-4
    )


@pytest.mark.parametrize(
    ("name", "difference", "low", "high"),
    [
        ("C5", 0.064, 0.021, 0.106),
        ("C6", 0.011, -0.006, 0.029),
        ("C7a", 0.002, -0.019, 0.024),
        ("C7b", 0.006, -0.052, 0.063),
        ("C10", 0.005, -0.053, 0.063),
        ("C10e", 0.015, -0.043, 0.072),
        ("C14", 0.094, 0.036, 0.152),
        ("C16", 0.016, -0.041, 0.074),
    ],
)
def test_the_weakest_part_has_the_interval_of_the_study_behind(name, difference, low, high):
    """../shared/evidence.md's table, computed by other code from the same tables."""
    _, verdict, _ = printed()[name]
    found = verdict.summary
    assert (found.difference, found.low, found.high) == pytest.approx(
        (difference, low, high), abs=3e-3
    )


def test_printed_hours_are_intervals_of_rounding():
    found = printed()
    less, rising = found["C4"][1].summary, found["C3"][1]
    assert (less.low, less.high) == pytest.approx((5.5 / 14.5, 6.5 / 13.5))
    assert all(part.low > 1 and part.test == "rounding" for part in rising.parts)


def test_borrowed_noise_decides_nothing_alone():
    _, finance, _ = printed()["C11f"]
    assert finance.verdict == "inside its noise" and "borrowed" in finance.reason


def test_p_is_corrected_within_a_section():
    found = printed()
    family = [found[name][1] for name in ("C5", "C6", "C7a", "C7b")]
    assert [v.p_holm for v in family] == pytest.approx(stats.holm([v.p for v in family]))
    assert found["C5"][1].p_holm == pytest.approx(4 * found["C5"][1].p)


def test_what_a_study_of_the_papers_size_can_find():
    """The figures of the study behind: power of 80%, on new questions, with the paper's noise. For three
    seeds it took the expected degrees of freedom, which promises a little more."""
    found = {(e.task, e.seeds): e for e in noise.least_effects()}
    expected = {
        ("MMLU", 3): 0.020,
        ("MMLU", 10): 0.012,
        ("MedMCQA", 3): 0.053,
        ("MedMCQA", 10): 0.029,
        ("MedMCQA", None): 0.017,
        ("PubMedQA", 3): 0.072,
        ("PubMedQA", 10): 0.056,
        ("PubMedQA", None): 0.050,
    }
    for key, effect in expected.items():
        assert found[key].new == pytest.approx(effect, rel=0.08), key
    assert all(found["MedMCQA", n].new > found["MedMCQA", n].these for n in (5, 10, 20, 100))


def test_borrowed_noise_decides_no_claim_that_some_part_is_so():
    """The part that is found has borrowed noise; another, which is not, has its own."""
    pairs = {
        "MedMCQA": [["TinyLlama | Instruction-tuning", "Medical Expert | Instruction-tuning"]],
        "PubMedQA": [
            [
                "Medical Expert | Instruction-tuning",
                "TinyLlama | Post-pretraining → Instruction-tuning",
            ]
        ],
    }
    mine = Claim.model_validate(claim(table=6, in_paper=True, kind="some", parts=pairs))
    found, _ = again.of_paper(mine)
    assert found.p < 0.05 and found.verdict == "inside its noise" and "borrowed" in found.reason


# --------------------------------------------------------------------------------- on records

TASK = "quiz"


def evaluation(folder: Path, name: str, seed: int, right: np.ndarray, clusters=None, asked="q"):
    """An evaluation's two files, as the study writes them. right: 0 or 1 per question."""
    path = folder / name / f"s{seed}" / f"{TASK}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    answers = [
        ChoiceAnswer(
            task=TASK,
            question=number,
            prompt_sha256=f"{asked}{number}",
            cluster=None if clusters is None else str(clusters[number]),
            prompt_cut=0,
            options=("a", "b", "c", "d"),
            target=0,
            choice=int(1 - correct),
            loglikelihoods=(-1.0, -2.0, -3.0, -4.0) if correct else (-2.0, -1.0, -3.0, -4.0),
            correct=int(correct),
        )
        for number, correct in enumerate(right)
    ]
    import gzip

    lines = "".join(map(records.line, answers))
    write_atomic(path.with_suffix(".questions.jsonl.gz"), gzip.compress(lines.encode(), mtime=0))
    mean = float(right.mean())
    record = EvalRecord(
        task=TASK,
        moe=name,
        stages="x",
        seed=seed,
        n=len(right),
        clusters=len(right),
        headline="acc",
        metrics={
            "acc": Metric(value=mean, stderr=max(1e-9, (mean * (1 - mean) / len(right)) ** 0.5))
        },
        floor=Floor(value=0.25, how="always the same position"),
        questions=f"{TASK}.questions.jsonl.gz",
        seconds=1.0,
        config_hash="0",
        **provenance.stamp(),
    )
    records.write(path, record)
    return str(path)


def drawn(rng, accuracy, seeds=3, questions=600, sd=0.004):
    """Seeds of a model that answer each question right by a chance of their own."""
    at = np.clip(accuracy + rng.normal(0, sd, seeds), 0, 1)
    chance = np.clip(at[:, None] + rng.normal(0, 0.02, questions), 0, 1)
    return (rng.random((seeds, questions)) < chance).astype(int)


def table(folder: Path, rows: dict[str, np.ndarray], untuned=(), **more) -> Table:
    """A table of one column, with a file per seed."""
    built = []
    for name, right in rows.items():
        paths = tuple(
            evaluation(folder, name, seed, answers, **more) for seed, answers in enumerate(right)
        )
        cell = Cell("Quiz", "task", paths, TASK)
        per_seed = name not in untuned
        built.append(Row((name,), (cell,), "x", (), None, stages=int(per_seed), per_seed=per_seed))
    return Table(9, "A quiz.", ("Model",), ("Quiz",), (("", 2),), tuple(built))


def judged(folder, rows, parts, kind="all", scale="paper", untuned=(), ceilings=None, **more):
    asked = {"says": "s", "place": "p", "section": "4", "table": 9, "kind": kind}
    claimed = Claim.model_validate({**asked, "parts": {"Quiz": parts}, **more})
    setting = Conditions("a study", scale, 0.05, False, ceilings or {})
    return judge("X", claimed, [table(folder, rows, untuned)], setting)


def test_a_clear_difference_holds_and_the_other_way_contradicts(tmp_path):
    rng = np.random.default_rng(0)
    rows = {"good": drawn(rng, 0.8), "bad": drawn(rng, 0.5)}
    found = judged(tmp_path, rows, [["good", "bad"]])
    assert found.paper_scale.verdict == "holds" and found.here is None
    part = found.paper_scale.summary
    assert part.test == "crossed" and part.seeds == 3
    assert part.difference == pytest.approx(rows["good"].mean() - rows["bad"].mean())
    assert part.low > 0.2 and part.these_low > part.low and part.least > 0.02
    assert len(found.files) == 6
    other = judged(tmp_path, rows, [["bad", "good"]])
    assert other.paper_scale.verdict == "contradicted"
    assert "p 0.001" in files.markdown(correction.correct([other], seeds=3)).splitlines()[-1]


def keeps(folder, accuracies, seeds=3, **more):
    """The verdict that a row keeps nine tenths of a gain. accuracies: of it, of the row that has
    all of the gain, and of the untuned model."""
    rng = np.random.default_rng(20)
    names = ("kept", "whole", "start")
    rows = {
        name: drawn(rng, accuracy, 1 if name == "start" else seeds, questions=2000)
        for name, accuracy in zip(names, accuracies, strict=True)
    }
    asked = {"kind": "share", "limit": 0.9, "in_paper": False, "untuned": ("start",)}
    return rows, judged(folder, rows, [list(names)], **asked, **more)


def test_a_share_of_a_gain_is_kept_or_not(tmp_path):
    rows, found = keeps(tmp_path / "all", (0.7, 0.7, 0.4))
    part, means = found.paper_scale.summary, [right.mean() for right in rows.values()]
    assert found.paper_scale.verdict == "holds" and found.paper_scale.reason is None
    assert found.paper_scale.equal is None and part.p == found.paper_scale.p < 0.05
    gained, whole = means[0] - means[2], means[1] - means[2]
    assert part.difference == pytest.approx(gained - 0.9 * whole)
    assert part.kept.value == pytest.approx(gained / whole)
    assert 0.9 < part.kept.low < part.kept.value < part.kept.high < 1.15
    assert (part.kept.start, part.kept.limit, part.kept.gain) == ("start", 0.9, whole)
    assert part.kept.gain_low > 0 and (part.test, part.seeds) == ("crossed", 3)
    _, found = keeps(tmp_path / "half", (0.55, 0.7, 0.4))
    assert found.paper_scale.verdict == "contradicted" and found.paper_scale.summary.kept.high < 0.9
    _, found = keeps(tmp_path / "near", (0.672, 0.7, 0.4))
    kept = found.paper_scale.summary.kept
    assert found.paper_scale.verdict == "direction only" and kept.low < 0.9 < kept.high
    assert found.paper_scale.equal is None


def test_a_share_without_a_gain_is_told_in_words(tmp_path):
    _, found = keeps(tmp_path / "none", (0.41, 0.405, 0.4), scale="miniature")
    part = found.here.summary
    assert part.kept.low is None and part.kept.high is None
    assert "In 1 of 1 parts the whole gain is inside its noise" in found.here.reason
    assert files.shown(part).endswith("without an interval") or "no share" in files.shown(part)
    _, found = keeps(tmp_path / "loss", (0.5, 0.3, 0.4))
    part = found.paper_scale.summary
    assert part.difference > 0 and part.p < 0.05  # and yet nothing is kept
    assert found.paper_scale.verdict == "direction only"
    assert part.kept.value is None and "the whole gain is a loss" in found.paper_scale.reason
    assert files.shown(part).startswith("no share: the whole gain is \N{MINUS SIGN}")


def test_a_share_of_one_seed_is_of_these_models(tmp_path):
    _, found = keeps(tmp_path, (0.7, 0.7, 0.4), seeds=1)
    part = found.paper_scale.summary
    assert found.paper_scale.verdict == "direction only" and part.test == "questions"
    assert "these very models" in found.paper_scale.reason and part.kept.low < 1 < part.kept.high


def test_a_row_that_is_one_function_with_the_whole_keeps_it_all(tmp_path):
    rng = np.random.default_rng(21)
    one, start = drawn(rng, 0.7), drawn(rng, 0.4, seeds=1)
    rows = {"kept": one, "whole": one, "start": start}
    asked = {"kind": "share", "limit": 0.9, "in_paper": False, "untuned": ("start",)}
    part = judged(tmp_path, rows, [list(rows)], **asked).paper_scale.summary
    kept = part.kept
    assert part.identical and (kept.value, kept.low, kept.high) == pytest.approx((1, 1, 1))


def test_a_study_of_another_scale_has_words_of_its_own(tmp_path):
    rng = np.random.default_rng(1)
    rows = {"good": drawn(rng, 0.8), "bad": drawn(rng, 0.5)}
    found = judged(tmp_path, rows, [["good", "bad"]], scale="miniature")
    assert (found.paper_scale.verdict, found.here.verdict) == ("not run", "same here")
    found = judged(tmp_path, rows, [["bad", "good"]], scale="other")
    assert (found.paper_scale.verdict, found.here.verdict) == ("not run", "other way here")


def test_all_needs_every_part_and_mean_only_their_mean(tmp_path):
    rng = np.random.default_rng(2)
    rows = {"a": drawn(rng, 0.7), "b": drawn(rng, 0.5), "c": drawn(rng, 0.7)}
    parts = [["a", "b"], ["c", "a"]]
    every = judged(tmp_path, rows, parts).paper_scale
    assert every.verdict in ("direction only", "undecided")
    assert every.p == max(part.p if part.difference > 0 else 1 for part in every.parts)
    mean = judged(tmp_path, rows, parts, kind="mean").paper_scale
    assert mean.verdict == "holds"
    assert mean.summary.difference == pytest.approx(
        np.mean([part.difference for part in mean.parts])
    )
    some = judged(tmp_path, rows, parts, kind="some").paper_scale
    assert some.verdict == "holds" and some.summary.first == "a"


def test_equal_records_are_one_function_and_count_once(tmp_path):
    rng = np.random.default_rng(3)
    one, other = drawn(rng, 0.8), drawn(rng, 0.5)
    rows = {"small": one, "large": one, "small lora": other, "large lora": other}
    parts = [["small", "small lora"], ["large", "large lora"]]
    found = judged(tmp_path, rows, parts).paper_scale
    assert len(found.parts) == 1 and "1 of 2 parts" in found.reason
    alone = judged(tmp_path, rows, parts[:1]).paper_scale
    assert (found.p, found.summary.low) == (alone.p, alone.summary.low)
    sizes = judged(tmp_path, rows, [["small", "large"]], kind="equal").paper_scale
    assert sizes.verdict == "exact" and sizes.parts[0].identical


def test_likeness_within_the_margin_is_no_difference(tmp_path):
    rng = np.random.default_rng(4)
    base = drawn(rng, 0.7, questions=1500, sd=0.0)
    alike = base.copy()
    alike[:, :4] = 1 - alike[:, :4]  # a few answers differ
    found = judged(tmp_path, {"a": base, "b": alike}, [["a", "b"]], kind="equal").paper_scale
    assert found.equal is not None, found
    assert found.verdict == "no difference above δ" and found.equal < 0.05
    found = judged(tmp_path, {"a": base, "b": alike}, [["a", "b"]]).paper_scale
    assert found.verdict == "no difference above δ"
    far = drawn(rng, 0.4, questions=1500)
    found = judged(tmp_path, {"a": base, "b": far}, [["a", "b"]], kind="equal").paper_scale
    assert found.verdict == "contradicted"


def timed(folder, rows, parts, kind, **more):
    """The verdict on training times. rows: seconds per seed."""
    built = []
    for name, seconds in rows.items():
        runs = [
            (put(folder / name / f"s{seed}" / "train.json", train_record(device_seconds=took)),)
            for seed, took in enumerate(seconds)
        ]
        cell = Cell("Time", "time", tuple(runs))
        built.append(Row((name,), (cell,), "x", (), None, stages=1, per_seed=True))
    asked = {"says": "s", "place": "p", "section": "4", "table": 9, "kind": kind}
    claimed = Claim.model_validate({**asked, "parts": {"Time": parts}, **more})
    of = Table(9, "", ("Model",), ("Time",), (), tuple(built))
    return judge("X", claimed, [of], Conditions("x", "paper", 0.01, True, {})).paper_scale


def test_times_that_differ_are_not_flat(tmp_path):
    rows = {"a": [10.0, 10.1, 9.9], "b": [10.0, 10.2, 9.9], "c": [30.0, 30.3, 29.8]}
    assert timed(tmp_path, rows, [["a", "b"]], "flat").verdict == "holds"
    found = timed(tmp_path, rows, [["a", "b", "c"]], "flat")
    assert found.verdict == "contradicted" and found.equal is None


def test_the_weakest_time_is_found_by_its_logarithm(tmp_path):
    rows = {"a": [10.0, 10.1, 9.9], "b": [9.0, 9.01, 8.99], "c": [20.0, 24.0, 17.0]}
    found = timed(tmp_path, rows, [["a", "b", "c"]], "rising")
    assert (found.verdict, found.summary.first) == ("contradicted", "b")
    assert found.summary.least is None  # it would be a logarithm, and no points of accuracy
    rows = {"x": [4.0, 4.01, 3.99], "y": [4.9, 5.2, 4.5], "full": [10.0, 10.1, 9.9]}
    pairs = [["x", "full"], ["y", "full"]]
    found = timed(tmp_path, rows, pairs, "less", ratio=0.5)
    assert found.summary.first == "y"
    # by what decides, whether it is below the ratio, and not whether it is 1
    for x, y in (([4.85, 4.9, 4.95], [2.0, 2.4, 1.7]), ([5.5, 5.51, 5.49], [4.0, 5.8, 2.9])):
        rows = {"x": x, "y": y, "full": [10.0, 10.1, 9.9]}
        both = timed(tmp_path, rows, pairs, "less", ratio=0.5)
        of_x, of_y = (timed(tmp_path, rows, [pair], "less", ratio=0.5) for pair in pairs)
        assert both.p == max(of_x.p, of_y.p) == of_x.p
        assert both.summary.first == "x"


def speaking(
    kind: str, differences: list[list[float]], margin: float = 0.0
) -> tuple[float, records.Comparison]:
    """The p of a claim, and its part that decides. The parts have as many observations as there
    are numbers, so their degrees of freedom differ."""
    rows = [[f"a{n}", f"b{n}"] for n in range(len(differences))]
    asked = {"says": "s", "place": "p", "section": "4", "table": 9, "kind": kind}
    claim = Claim.model_validate({**asked, "parts": {"Quiz": rows}})
    tests = [stats.replicated(found) for found in differences]
    shown = [
        parts.comparison(compared, test, "replications", same=False)
        for compared, test in zip(parts.compared(claim), tests, strict=True)
    ]
    return parts.findings(claim, tests, margin).p, parts.weakest(claim, shown, tests, margin)


OF_SEEDS = st.lists(st.floats(0.01, 0.2), min_size=2, max_size=6, unique=True)


@settings(deadline=None)
@given(st.lists(OF_SEEDS, min_size=1, max_size=5))
def test_the_part_that_is_shown_is_the_one_that_decides(differences):
    p, shown = speaking("all", differences)
    assert shown.p == p
    p, shown = speaking("some", differences)
    assert p == min(1.0, len(differences) * shown.p)
    margin = 0.1
    p, shown = speaking("equal", differences, margin)
    alone = [speaking("equal", [found], margin) for found in differences]
    assert (p, shown.difference) in [(one, part.difference) for one, part in alone]
    assert p == max(one for one, _ in alone)


def test_a_part_of_few_seeds_may_have_the_greater_t_and_the_greater_p():
    few, many = [0.10, 0.115], [0.10, 0.14, 0.13, 0.09, 0.16, 0.15]
    (_, one), (_, other) = speaking("all", [few]), speaking("all", [many])
    assert one.difference / one.stderr > other.difference / other.stderr and one.p > other.p
    assert speaking("all", [few, many])[1].first == "a0"
    assert speaking("all", [many, few])[1].first == "a1"
    assert speaking("all", [many, [-0.01, 0.02], few])[1].first == "a1"


def test_one_seed_compares_two_models_and_decides_nothing(tmp_path):
    rng = np.random.default_rng(5)
    rows = {"good": drawn(rng, 0.9, seeds=1), "bad": drawn(rng, 0.3, seeds=1)}
    found = judged(tmp_path, rows, [["good", "bad"]]).paper_scale
    assert found.verdict == "direction only" and "these two models differ" in found.reason
    part = found.summary
    assert part.test == "McNemar" and part.these_low is None
    assert part.p == stats.mcnemar(rows["good"][0], rows["bad"][0]).p < 1e-6
    found = judged(tmp_path, rows, [["good", "bad"]], scale="miniature")
    assert found.here.verdict == "undecided here"


def test_untuned_models_have_no_seed_and_are_judged_on_questions(tmp_path):
    rng = np.random.default_rng(6)
    rows = {"good": drawn(rng, 0.9, seeds=1), "bad": drawn(rng, 0.3, seeds=1)}
    found = judged(tmp_path, rows, [["good", "bad"]], untuned=("good", "bad")).paper_scale
    assert found.verdict == "holds" and found.summary.test == "questions"
    rows["tuned"] = drawn(rng, 0.95)
    found = judged(tmp_path, rows, [["tuned", "bad"]], untuned=("good", "bad")).paper_scale
    assert found.verdict == "holds" and found.summary.test == "crossed"


def test_questions_about_one_fact_widen_the_interval(tmp_path):
    rng = np.random.default_rng(7)
    facts = np.repeat(np.arange(100), 6)
    rows = {"a": drawn(rng, 0.7, questions=100), "b": drawn(rng, 0.6, questions=100)}
    alike = {name: np.repeat(right, 6, axis=1) for name, right in rows.items()}
    asked = {"says": "s", "place": "p", "section": "4", "table": 9, "kind": "all"}
    claimed = Claim.model_validate({**asked, "parts": {"Quiz": [["a", "b"]]}})
    setting = Conditions("a study", "paper", 0.05, False, {})
    widths = {}
    for clusters in (None, facts):
        shown = table(tmp_path / str(clusters is None), alike, clusters=clusters)
        part = judge("X", claimed, [shown], setting).paper_scale.summary
        widths[clusters is None] = part.high - part.low
    plain = judge("X", claimed, [table(tmp_path / "plain", rows)], setting).paper_scale.summary
    assert widths[False] > 1.5 * widths[True]
    assert widths[False] == pytest.approx(plain.high - plain.low, rel=0.05)


@pytest.mark.parametrize(
    ("accuracy", "kind"), [(0.25, "floor"), (1.0, "ceiling"), (0.8, "ceiling")]
)
def test_at_a_common_floor_or_ceiling_a_miniature_cannot_be_asked(tmp_path, accuracy, kind):
    right = np.zeros((3, 400), dtype=int)
    right[:, : int(400 * accuracy)] = 1
    other = right.copy()
    other[:, [0, -1]] = other[:, [-1, 0]]
    rows, ceilings = {"a": right, "b": other}, {TASK: 0.8} if accuracy == 0.8 else {}
    found = judged(tmp_path, rows, [["a", "b"]], scale="miniature", ceilings=ceilings)
    assert found.here.verdict == "cannot be asked here" and kind in found.here.reason
    assert judged(tmp_path, rows, [["a", "b"]], ceilings=ceilings).paper_scale.verdict != "not run"


def test_what_cannot_be_asked_trains_nothing():
    """The miniature's claim on times has its verdict at once, and so has any where trainings share
    machines."""
    alone = Plan(read_study(CONFIG, hardware={"exclusive": True}))
    assert len(alone.claim_input("C2")) == 3
    for plan in (Plan(read_study(CONFIG, MINI)), Plan(read_study(CONFIG))):
        seeds = len(plan.study.seeds)
        assert plan.claim_input("C2") == [] and len(plan.claim_input("C1")) == 6 * seeds
    found = judge("C2", CLAIMS["C2"], [], Conditions("x", "paper", 0.02, False, {})).paper_scale
    assert found.verdict == "not run" and "hardware.exclusive" in found.reason
    found = judge("C2", CLAIMS["C2"], [], Conditions("x", "miniature", 0.02, False, {}))
    assert found.here.verdict == "cannot be asked here" and found.here.reason == CLAIMS["C2"].cannot


def test_equality_that_rests_on_p_is_corrected_too():
    assert verdicts.corrected("no difference here", 0.03, 0.06, 0.03) == "undecided here"
    assert verdicts.corrected("no difference here", 0.4, 0.9, 0.03) == "no difference here"


def test_constant_counts_may_lie_on_both_sides_of_where_they_are_rounded():
    assert parts._alike_to_two_digits([144_900, 145_728, 146_496])
    assert not parts._alike_to_two_digits([0.34e9, 0.35e9])


def test_a_study_without_claims_is_told():
    with pytest.raises(ConfigError, match="claims: all are null"):
        read_study(CONFIG, claims=dict.fromkeys(CLAIMS))


def test_what_a_miniature_cannot_show_is_declared(tmp_path):
    rng = np.random.default_rng(8)
    rows = {"good": drawn(rng, 0.8), "bad": drawn(rng, 0.5)}
    found = judged(tmp_path, rows, [["good", "bad"]], scale="miniature", cannot="It is made so.")
    assert found.here.verdict == "cannot be asked here" and found.here.reason == "It is made so."
    found = judged(tmp_path, rows, [["good", "bad"]], cannot="It is made so.")
    assert found.paper_scale.verdict == "holds"


def test_other_questions_are_refused(tmp_path):
    rng = np.random.default_rng(9)
    one = table(tmp_path / "one", {"a": drawn(rng, 0.8)})
    other = table(tmp_path / "other", {"b": drawn(rng, 0.5)}, asked="other")
    asked = {"says": "s", "place": "p", "section": "4", "table": 9, "kind": "all"}
    claimed = Claim.model_validate({**asked, "parts": {"Quiz": [["a", "b"]]}})
    both = Table(9, "", ("Model",), ("Quiz",), (), (*one.rows, *other.rows))
    with pytest.raises(ValueError, match="the questions differ"):
        judge("X", claimed, [both], Conditions("x", "paper", 0.05, False, {}))


# ----------------------------------------------------------------------------- the words, the files


@given(
    p=st.none() | st.floats(0, 1),
    opposed=st.none() | st.floats(0, 1),
    equal=st.none() | st.floats(0, 1),
    points=st.booleans(),
    decides=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_words_follow_from_the_evidence(p, opposed, equal, points, decides):
    evidence = Findings(p, opposed, equal, points, False, decides)
    verdict = verdicts.of_study(evidence)
    assert (verdict == "holds") == (decides and p is not None and p < 0.05)
    if not decides:
        assert verdict in ("direction only", "undecided")
    assert verdicts.HERE[verdict] not in ("holds", "contradicted", "direction only", "undecided")
    for word in (verdict, verdicts.HERE[verdict], verdicts.printed(evidence)):
        assert verdicts.corrected(word, 0.01, 0.01, equal) == word
        after = verdicts.corrected(word, 0.01, 0.9, equal)
        assert after not in ("holds", "same here", "beyond its noise")
        assert verdicts.corrected(word, 0.9, 0.9, equal) == word


def all_claims(scale="miniature"):
    setting = Conditions("toy", scale, 0.02, False, {})
    judged = [judge(name, claim, None, setting) for name, claim in CLAIMS.items()]
    return correction.correct(judged, seeds=3)


def test_counts_are_of_the_papers_numbers_and_scale_alone():
    found = all_claims()
    assert found.paper_scale_counts == {"not run": 22}
    assert sum(found.printed_counts.values()) == 22
    headline = files.sentence(found)
    assert "8 of 22" in headline and "14 inside" in headline and "not run yet (0 of 22)" in headline
    assert not re.search(r"\bhere\b|miniature", headline)


def test_every_file_names_the_studys_scale(tmp_path):
    rng = np.random.default_rng(10)
    rows = {"good": drawn(rng, 0.8), "bad": drawn(rng, 0.5)}
    one = judged(tmp_path, rows, [["good", "bad"]], scale="miniature")
    path = tmp_path / "X.json"
    records.write(path, one)
    outputs = {kind: tmp_path / f"claims.{kind}" for kind in ("json", "csv", "md", "tex")}
    files.write_all([path], 3, **outputs)
    assert records.read(outputs["json"], ClaimsRecord).claims[0].here.verdict == "same here"
    lines = list(csv.DictReader(io.StringIO(outputs["csv"].read_text())))
    (shown,) = [line for line in lines if line["verdict"] == "same here"]
    assert (shown["study"], shown["scale"]) == ("a study", "miniature")
    for kind in ("md", "tex"):
        text = outputs[kind].read_text()
        assert "same here" in text and "no evidence about TinyLlama" in text and "a study" in text
    again = {kind: tmp_path / f"again.{kind}" for kind in outputs}
    files.write_all([path], 3, **again)
    assert all(again[kind].read_bytes() == outputs[kind].read_bytes() for kind in outputs)
    json.loads(outputs["json"].read_text())
    assert records.read(path, ClaimRecord) == one
