"""Two results compared, and the committed results of the miniature."""

import gzip
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import CONFIG, MINI, ROOT, snakemake
from hypothesis import given
from hypothesis import strategies as st

from mofe.jobs import compared
from mofe.report import compare, figures, places, reference, results, stats
from mofe.report.results import Answered, Head, Made, Results
from mofe.report.stats import Answers, Contrast, Term
from mofe.study.given import Given
from mofe.study.graph import Graph
from mofe.study.identity import Identities
from mofe.study.load import load_study, read_study
from mofe.study.plan import Plan
from mofe.study.tables import Cell, Row, Table

MADE = Made(("c0ffee",), {"torch": ("2.15.0",)}, ("A processor, 2 cores",))
ASKED = tuple(f"{number:064x}" for number in range(40))
GROUPS = np.arange(40) // 2
EVALUATED = "evals/tinyllama_2tinyllama/medmcqa_lora/s0/medmcqa.json"


# ------------------------------------------------------------------------------------- the command


def test_the_arguments_are_no_targets(tmp_path):
    assert compared.split(["all", "x"]) == (["all", "x"], [])
    assert compared.split(["all", "compare", "a", "b"]) == (["all", "compare"], ["a", "b"])
    assert compared.refused(["all"], []) == []
    assert compared.refused(["compare"], [str(tmp_path), str(tmp_path)]) == []
    for arguments in ([], ["a"], ["a", "b", "c"]):
        (told,) = compared.refused(["compare"], arguments)
        assert "two results are compared" in told and "compare docs/reference results/mini" in told


@pytest.fixture(scope="module")
def two(copies):
    """Copies of a finished study; in the second, some answers, a setting and a revision differ."""
    first = copies.copy("first")
    other = copies.copy("other")
    file = other / EVALUATED.replace(".json", ".questions.jsonl.gz")
    lines = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    for line in lines[:9]:
        line["correct"] = 1 - line["correct"]
    file.write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    record = json.loads((other / EVALUATED).read_text())
    record |= {"git_revision": "another", "config_hash": "another"}
    (other / EVALUATED).write_text(json.dumps(record))
    config = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(config.replace("shots: 0", "shots: 3"))
    return first, other


def told(copies, a: Path, b: Path, code: int = 0) -> str:
    """What `snakemake ... compare A B` prints."""
    study = ["--configfile", *map(str, copies.files), "--config", f"results={copies.folder}/here"]
    (copies.folder / "overlay.yaml").write_text("{}")
    done = snakemake(
        "--cores", "1", "--quiet", "rules", *study, "--", "compare", str(a), str(b), check=False
    )
    assert done.returncode == code, done.stderr[-3000:]
    return done.stderr


def test_two_folders_are_compared_as_the_command_is_written(copies, two):
    first, second = two
    text = told(copies, first, second)
    assert "1 scores are in both: 0 with the same answers to all questions" in text
    assert "1 evaluations are in both; 0 have equal hashes of all their settings" in text
    assert "shots: 0 -> 3" in text
    page = (copies.folder / "here/compare.md").read_text()
    frame = pd.read_csv(copies.folder / "here/compare.csv").set_index("column")
    score = frame.loc["Score"]
    scores = [results.of_folder(place, "").answered(EVALUATED, None).scores for place in two]
    assert score["difference"] == pytest.approx(scores[1].mean() - scores[0].mean())
    assert score["low"] < score["difference"] < score["high"] and np.isnan(score["seeds_low"])
    assert "Table own" in page and re.search(r"\| code +\| .*, another|another, ", page)
    assert frame.loc["Time(s)", "same"] and frame.loc["Time(s)", "difference"] == 0
    assert first.is_dir() and second.is_dir(), "they are no targets that a job could remove"


def test_an_archive_is_compared_with_its_folder(copies, two):
    copies.call(two[0], "--touch", target="{results}/tableown.csv")
    copies.call(two[0], target="{results}/archive.zip")
    text = told(copies, two[0] / "archive.zip", two[0])
    assert "1 scores are in both: 1 with the same answers" in text
    assert "1 have equal hashes of all their settings" in text and " -> " not in text
    page = (copies.folder / "here/compare.md").read_text()
    assert "Code, machine, versions and configuration are the same." in page


def test_what_holds_no_results_is_one_sentence(copies, two, tmp_path):
    text = told(copies, two[0], tmp_path, code=1)
    assert f"compare: {tmp_path} holds no results; name a study's results folder" in text
    text = told(copies, two[0], tmp_path / "none", code=1)
    assert f"compare: {tmp_path}/none is not there; name two results folders" in text
    assert "rule compare" not in text, "it is told before a job starts"


# ------------------------------------------------------------------------------------- cells


def table(seeds: int) -> list[Table]:
    files = tuple(f"r/evals/m/x/s{seed}/t.json" for seed in range(seeds))
    row = Row(("R",), (Cell("T", "task", files, "t"),), "x", (), None, 1, per_seed=True)
    return [Table(1, "A caption.", ("R",), ("T",), (("", 2),), (row,))]


def made_up(scores: list[np.ndarray | None], **changes) -> Results:
    """Results with one evaluation per seed; None where a seed has none."""
    heads = {
        f"evals/m/x/s{seed}/t.json": Head("t", seed, "acc", "hash")
        for seed, of_seed in enumerate(scores)
        if of_seed is not None
    }
    by_address = dict(zip(heads, [one for one in scores if one is not None], strict=True))
    asked = changes.pop("asked", ASKED)
    return Results(
        name=changes.pop("name", "x"),
        evaluations=heads,
        answered=lambda address, metric: Answered(by_address[address], asked, GROUPS),
        tables=changes.pop("tables", {}),
        made=MADE,
        config=changes.pop("config", None),
    )


SCORES = st.lists(st.integers(0, 1), min_size=40, max_size=40).map(np.array).map(np.float64)


@given(st.lists(SCORES, min_size=1, max_size=3), st.lists(SCORES, min_size=1, max_size=3))
def test_intervals_are_those_of_the_claims_tests(first, second):
    (cell,) = compare.cells(table(3), "r", made_up(first), made_up(second))
    seeds = min(len(first), len(second))  # those that both have
    arms = [np.stack(side[:seeds]) for side in (second, first)]
    assert cell.difference == pytest.approx(arms[0].mean() - arms[1].mean())
    assert cell.seeds == (seeds, seeds)

    def contrast(scores, **more) -> Contrast:
        terms = [Term(0, "t", 1.0), Term(1, "t", -1.0)]
        return Contrast([Answers({"t": one}, **more) for one in scores], terms, {"t": GROUPS})

    means = [side.mean(axis=0, keepdims=True) for side in arms]
    assert cell.these == pytest.approx(stats.of_these_models(contrast(means)).interval)
    if seeds > 1:
        assert cell.drawn == pytest.approx(stats.crossed(contrast(arms)).interval)
    else:
        assert cell.drawn is None
    assert cell.same == (arms[0] == arms[1]).all()
    low, high = cell.drawn or cell.these
    assert cell.apart == (not cell.same and not low <= 0 <= high)


def test_what_is_in_one_of_them_is_listed_and_not_compared():
    scores = np.arange(40) % 2.0
    a, b = made_up([scores, scores]), made_up([None, None, scores], name="b")
    (cell,) = compare.cells(table(3), "r", a, replace(b, evaluations={}))
    assert cell.why == "only in A" and cell.difference is None and cell.first == 0.5
    assert compare.only(a, b) == ["m/x: t (seeds 0, 1)"]
    assert compare.only(b, a) == ["m/x: t (seed 2)"]
    (cell,) = compare.cells(table(3), "r", a, b)
    assert cell.seeds == (2, 1) and cell.difference == 0, "without a common seed all are compared"
    assert compare.cells(table(3), "r", made_up([]), made_up([])) == []
    page = compare.page([cell], a, b)
    assert "## Only in A\n\n- m/x: t (seeds 0, 1)" in page


def test_other_questions_are_refused_for_their_cell():
    scores = np.arange(40) % 2.0
    a, b = made_up([scores]), made_up([scores], asked=(*ASKED[1:], ASKED[0]))
    (cell,) = compare.cells(table(1), "r", a, b)
    assert cell.why == "the questions differ, so their answers cannot be compared"
    assert cell.difference is None and "1 cells: the questions differ" in " ".join(
        compare.summary([cell], a, b)
    )


def test_other_values_and_tables_that_the_study_lacks_are_compared_by_their_files():
    def frame(value: float) -> pd.DataFrame:
        line = {"label": "R", "column": "Time(s)", "value": value, "seeds": 1}
        return pd.DataFrame([line, line | {"column": "Gone", "value": np.nan}])

    a, b = (made_up([], tables={"9": frame(value)}) for value in (2.0, 3.0))
    (cell,) = compare.cells(table(1), "r", a, b)
    assert (cell.table, cell.difference, cell.these) == ("9", 1.0, None)
    assert "| R   | Time(s) |   2 |   3 |     +50.0% |" in compare.page([cell], a, b)
    assert "1 other values are in both, 0 of them equal." in compare.summary([cell], a, b)


def test_keys_that_differ_are_named_by_their_paths():
    a = {"seeds": [0], "training": {"epochs": 2, "rate": 0.1}, "mirror": None}
    b = {"seeds": [0, 1], "training": {"epochs": 2, "rate": 0.2, "new": "x" * 99}, "mirror": None}
    keys = compare.differing_keys(a, b)
    assert [key for key, *_ in keys] == ["seeds", "training.rate", "training.new"]
    assert keys[0][1:] == ("[0]", "[0, 1]")
    assert compare.differing_keys(a, a | {"notify": "true", "track": None}) == []
    assert keys[2][1] == "not there" and len(keys[2][2]) == compare.LONGEST
    other = replace(MADE, revisions=("a", "b"), versions={"torch": ("2.10.0",)})
    assert compare.makings(MADE, MADE) == []
    assert compare.makings(MADE, other) == [
        ("code", "c0ffee", "a, b"),
        ("torch", "2.15.0", "2.10.0"),
    ]


# ------------------------------------------------------------------------------- the reference


def test_a_reference_answers_as_the_results_that_it_is_from(copies, two, tmp_path):
    of = results.of_folder(two[0], "results")
    shutil.copy(two[0] / "tableown.csv", two[0] / "claims.csv")
    out = tmp_path / "reference"
    reference.write(of, two[0], {"study": "own", "seeds": [0]}, out)
    with places.opened(str(out)) as kept:
        assert kept.evaluations == of.evaluations and kept.made == of.made
        assert kept.config == {"study": "own", "seeds": [0]} and kept.seeds == {0}
        for address in of.evaluations:
            whole, part = of.answered(address, None), kept.answered(address, None)
            assert (whole.scores == part.scores).all() and (whole.clusters == part.clusters).all()
            assert [a[: reference.ID] for a in whole.asked] == [*part.asked]
            with pytest.raises(ValueError, match=r"has acc of .*medmcqa.json, and not acc_norm"):
                kept.answered(address, "acc_norm")
        pd.testing.assert_frame_equal(kept.tables["own"], of.tables["own"])
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    reference.write(of, two[0], {"study": "own", "seeds": [0]}, out)
    assert before == {file.name: file.read_bytes() for file in out.iterdir()}
    assert "1 with the same answers" in told(copies, out, two[0])
    (out / reference.ANSWERS).write_bytes(before[reference.ANSWERS][:-20])
    with pytest.raises(ValueError, match=r"answers.csv.gz: cannot be read .* restore the file"):
        reference.read(out, "x")


REFERENCE = ROOT / "docs" / "reference"
GONE = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03" + 99 * b"\xff"  # no deflated data follow


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (reference.ANSWERS, b""),
        (reference.ANSWERS, GONE),
        (reference.ANSWERS, None),
        (reference.QUESTIONS, gzip.compress(b"task,question,prompt_sha256,cluster\n", mtime=0)),
        (reference.QUESTIONS, GONE),
        (reference.MADE, None),
        (reference.MADE, b"{"),
        (reference.MADE, b"[]"),
        ("config.yaml", b""),
        ("config.yaml", b"a: [1"),
        ("table1.csv", b""),
        ("table1.csv", b"label,column\n"),
        ("table1.csv", b"label,column,value,seeds\nA,B,x,1\n"),
    ],
)
def test_a_reference_that_is_not_whole_is_one_sentence(name, content, tmp_path):
    kept = shutil.copytree(REFERENCE, tmp_path / "kept")
    if content is None:
        (kept / name).unlink()
    else:
        (kept / name).write_bytes(content)
    with (
        pytest.raises(
            ValueError, match=rf"^{kept}/{name}: cannot be read \(.*\); restore the file$"
        ),
        places.opened(str(kept)),
    ):
        pass


def test_answers_that_do_not_fit_to_the_questions_are_refused(tmp_path):
    kept = shutil.copytree(REFERENCE, tmp_path / "kept")
    lines = gzip.decompress((kept / reference.QUESTIONS).read_bytes()).splitlines(keepends=True)
    (kept / reference.QUESTIONS).write_bytes(gzip.compress(b"".join(lines[:-1])))
    with (
        pytest.raises(ValueError, match=r"answers.csv.gz: .* does not fit to questions.csv.gz"),
        places.opened(str(kept)),
    ):
        pass


def test_a_packed_reference_is_read_and_a_damaged_archive_refused(tmp_path):
    packed = shutil.make_archive(str(tmp_path / "kept"), "zip", REFERENCE)
    with places.opened(packed) as found, places.opened(str(REFERENCE)) as kept:
        assert found.evaluations == kept.evaluations and found.config == kept.config
    content = bytearray(Path(packed).read_bytes())
    at = len(content) // 2
    content[at : at + 3000] = bytes(3000)
    Path(packed).write_bytes(content)
    with (
        pytest.raises(ValueError, match=r"compare: .*kept.zip is damaged \(.*\); restore it"),
        places.opened(packed),
    ):
        pass


def test_answers_that_are_damaged_or_gone_leave_out_their_cell(two, tmp_path):
    folder = shutil.copytree(two[0], tmp_path / "results")
    answers = folder / EVALUATED.replace(".json", ".questions.jsonl.gz")
    found = results.of_folder(folder, "")
    for damaged in (answers.read_bytes()[:-30], b"", GONE):
        answers.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"^{answers}: is damaged|: has 0 answers"):
            found.answered(EVALUATED, None)
    answers.unlink()
    with pytest.raises(ValueError, match=rf"^{answers} is not there"):
        found.answered(EVALUATED, None)


def test_rows_have_the_names_that_they_are_given(tmp_path):
    names = ["2", "None", "NA", "1e3"]
    frame = pd.DataFrame({"label": names, "column": names, "value": 0.5, "seeds": 1})
    frame.to_csv(tmp_path / "table9.csv", index=False)
    found = results.tables_in(tmp_path)["9"]
    assert [*found["label"]] == [*found["column"]] == names


def identities(**changes) -> Identities:
    plan = Plan(read_study(CONFIG, MINI, seeds=[0], **changes))
    return Identities(Graph(plan, figures.inputs(plan)), Given(plan, figures.given(plan)))


def test_results_of_other_settings_are_stale():
    study = identities()
    plan = study.graph.plan
    heads = {}
    for task in ("mmlu", "medmcqa"):
        variant = next(v for v in plan.variants.values() if task in plan.tasks[v.key] and v.stages)
        file = plan.paths.eval_json(variant, 0, task)
        job = study.makers[file]
        address = Path(file).relative_to(plan.root).as_posix()
        heads[address] = Head(task, 0, "acc", study.of(job.rule, job.wildcards))
    found = replace(made_up([]), evaluations=heads)
    assert reference.stale(found, study) == []
    assert reference.stale(found, identities(training={"epochs": 5})) == list(heads)
    gone = replace(found, evaluations={"evals/none/x/s0/mmlu.json": heads[address]})
    assert reference.stale(gone, study) == ["evals/none/x/s0/mmlu.json"]


def test_the_committed_tables_are_those_of_the_committed_answers():
    with places.opened(str(ROOT / "docs" / "reference")) as kept:
        plan = Plan(load_study(kept.config))
        checked = 0
        for number, table in plan.tables.items():
            shown = kept.tables[str(number)].set_index(["label", "column"])["value"]
            for row in table.rows:
                for cell in (cell for cell in row.cells if cell.kind == "task"):
                    at = [Path(file).relative_to(plan.root).as_posix() for file in cell.files]
                    scores = [kept.answered(address, cell.metric).scores.mean() for address in at]
                    value = shown[" | ".join(row.labels), cell.column]
                    assert value == pytest.approx(np.mean(scores), abs=1e-9)
                    checked += 1
        assert checked > 50
        assert not any("+changes" in revision for revision in kept.made.revisions)
