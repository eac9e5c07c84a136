"""After a failure: what no longer fits is gone, `partial` shows what there is, `status` what is left,
and the user's command is called."""

import re

import pandas as pd
import pytest

from mofe.report import partial
from mofe.study.tables import Cell, Row, Table

TRAINED = "variants/tinyllama_2tinyllama/medmcqa_lora/s0/train.json"
EVALUATED = "evals/tinyllama_2tinyllama/medmcqa_lora/s0/medmcqa.json"
FAILS = {"recipes": {"lora": {"training": {"max_length": 2}}}}
WHY = "none of the 64 rows has 2 tokens or fewer"


@pytest.fixture(scope="module")
def failed(copies):
    """A finished study whose key was changed, so that its training fails."""
    copy = copies.copy("failed")
    overlay = {**FAILS, "notify": f"echo $MOFE_OUTCOME $MOFE_MESSAGE >> {copy}.told"}
    told = copies.call(copy, "--forcerun", f"{copy}/{TRAINED}", overlay=overlay, code=1)
    assert WHY in told
    return copy


def test_the_users_command_is_told_of_the_failure(failed):
    (told,) = failed.with_name("failed.told").read_text().splitlines()
    assert re.fullmatch(r"failed own: failed, 0 of \d jobs, 1 failed, .*", told)


def test_the_page_of_a_study_says_what_failed_and_what_is_left(copies, failed):
    told = copies.call(failed, overlay=FAILS, target="status")
    page = told[told.index("status: own: ") :]
    done, running, queued, broken, waiting = (
        int(n)
        for n in re.search(
            r"own: (\d+) of \d+ jobs are done, (\d+) running, (\d+) queued, (\d+) failed, (\d+) waiting",
            page,
        ).groups()
    )
    assert (running, queued, broken) == (0, 0, 1) and done > 4 and waiting > 2
    assert "no run is at work" in page and "tables ready: none yet" in page
    assert re.search(r"jobs to go: 3 for table own$", page, re.MULTILINE)
    assert re.search(
        rf"^  train \S+, .* ago: ValueError: .*{WHY}.*\(\S+\.log\)$", page, re.MULTILINE
    )
    assert re.search(r"^hours of computing: .* spent, about .* left$", page, re.MULTILINE)
    assert re.search(r"^  train +- +- +- +1 +-$", page, re.MULTILINE)


def test_the_page_of_a_study_that_is_done_says_so(copies):
    copy = copies.copy("whole")
    page = copies.call(copy, target="status")
    assert "tables ready: own" in page and " 0 failed, " in page
    assert re.search(r"^  train +1 +- +- +- +-$", page, re.MULTILINE)


def test_a_run_that_fails_leaves_no_table_that_no_longer_fits(failed):
    assert not list(failed.glob("tableown*"))


def test_a_partial_table_has_a_dash_and_what_failed(copies, failed):
    copies.call(failed, overlay=FAILS, target="partial")
    md, tex = ((failed / f"partial/tableown.{kind}").read_text() for kind in ("md", "tex"))
    for text in (md, tex):
        assert "PARTIAL, not the finished table: 3 of its values are missing." in text
        assert WHY in text and "– " in text
    frame = pd.read_csv(failed / "partial" / "tableown.csv")
    assert frame["value"].isna().all() and len(frame) == 3
    assert all("failed: ValueError: training.max_length: " + WHY in m for m in frame["missing"])
    assert WHY in (failed / "partial" / "index.md").read_text()
    assert not list(failed.glob("tableown*"))


def test_what_is_damaged_or_not_made_yet_is_named_and_the_rest_is_shown(copies):
    copy = copies.copy("partly")
    content = (copy / EVALUATED).read_bytes()
    (copy / EVALUATED).write_bytes(content[:-9] + b"0" + content[-8:])
    copies.call(copy, target="partial")
    frame = pd.read_csv(copy / "partial" / "tableown.csv").set_index("column")
    assert "damaged: " in frame.loc["Score", "missing"] and pd.isna(frame.loc["Score", "value"])
    times = frame.loc[["GPU time(s)", "Time(s)"]]
    assert (times["value"] > 0).all() and times["missing"].isna().all()
    (copy / EVALUATED).unlink()
    (copy / "logs" / EVALUATED.replace(".json", ".log")).unlink()
    copies.call(copy, target="partial")
    assert "not made yet" in (copy / "partial" / "tableown.md").read_text()


def test_of_a_cell_with_several_files_the_first_reason_is_told():
    cells = (Cell("A", "task", ("x", "y"), "t"), Cell("B", "time", (("z",), ("y", "x"))))
    row = Row(("r",), cells, None, (), None)
    table = Table(1, "A caption.", ("R",), ("A", "B"), (("", 3),), (row,))
    told = partial.reasons(table, {"x": "gone", "y": "cut"})
    assert told == {(1, "A"): "x: gone (and 1 more files)", (1, "B"): "y: cut (and 1 more files)"}
    assert partial.reasons(table, {}) == {}
