"""docs/findings.md: words that no longer fit their numbers are refused, and no number is typed."""

import importlib.util
import re
import shutil

import pytest
from conftest import ROOT

from mofe import records
from mofe.records import ClaimRecord, ClaimsRecord
from mofe.report import outcomes

GENERATE = ROOT / "docs" / "generate"


@pytest.fixture
def generator(tmp_path):
    """The page's generator, with a copy of its files."""
    spec = importlib.util.spec_from_file_location("findings", GENERATE / "findings.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shutil.copytree(module.KEPT, tmp_path / "findings")
    module.KEPT = tmp_path / "findings"
    return module


def test_the_page_is_made_from_its_files_alone(generator):
    assert generator.page() == (ROOT / "docs" / "findings.md").read_text()


def test_a_paragraph_whose_statement_has_another_outcome_is_refused(generator):
    file = generator.KEPT / "claims.json"
    found = records.read(file, ClaimsRecord)
    changed = [
        c.model_copy(update={"here": c.here.model_copy(update={"verdict": "other way here"})})
        if c.claim == "E6a"
        else c
        for c in found.claims
    ]
    records.write(file, found.model_copy(update={"claims": tuple(changed)}))
    with pytest.raises(ValueError, match="rests on E6a being shown, and it is excluded"):
        generator.page()


def test_what_the_text_says_of_a_table_is_checked(generator):
    assert generator.check(True, "that") == ""
    with pytest.raises(ValueError, match="that is not so any more"):
        generator.check(False, "that")


def test_no_number_is_typed():
    text = (GENERATE / "findings.md.jinja").read_text()
    typed = re.sub(r"\{\{.*?\}\}|\{%.*?%\}", "", text, flags=re.DOTALL)
    assert not re.findall(r"\d+[.,]\d|\d{2,}(?!%)", typed.replace("95%", ""))


def record(verdict: str, kind: str) -> ClaimRecord:
    file = ROOT / "docs" / "findings" / "claims.json"
    one = records.read(file, ClaimsRecord).claims[0]
    here = one.here.model_copy(update={"verdict": verdict})
    return one.model_copy(update={"kind": kind, "here": here})


@pytest.mark.parametrize(
    ("verdict", "kind", "outcome"),
    [
        ("same here", "all", "Shown"),
        ("exact", "equal", "Shown"),
        ("other way here", "all", "Excluded"),
        ("no difference here", "all", "Excluded"),
        ("no difference here", "equal", "Shown"),
        ("other way here", "equal", "Excluded"),
        ("undecided here", "all", "Open"),
        ("cannot be asked here", "all", "Not asked"),
        ("not run", "some", "Not asked"),
    ],
)
def test_outcomes_follow_from_verdicts(verdict, kind, outcome):
    assert outcomes.outcome(record(verdict, kind)) == outcome
