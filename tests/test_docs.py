"""The documentation says what the code does: generated parts are up to date, and messages are quoted in
their own words."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import CONFIG, ROOT

from mofe.estimate.cost import Costs
from mofe.estimate.forecast import forecast
from mofe.report import figures
from mofe.study.load import read_study
from mofe.study.plan import Plan

PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md"))]
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)")


def test_generated_parts_are_up_to_date():
    done = subprocess.run(
        [sys.executable, "docs/generate", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_what_is_there(page):
    for target, section in LINK.findall(page.read_text()):
        if target.startswith(("http:", "https:", "mailto:")):
            continue
        there = page.parent / target if target else page
        assert there.exists(), target
        if section and there.suffix == ".md":
            assert section in _anchors(there), f"{target}#{section}"


def _anchors(page: Path) -> set[str]:
    """The names that a page's headings have on GitHub."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


# what gives Snakemake the cores, or needs none
CORES = re.compile(r" --(profile|cores|dag|rulegraph|lint|directory|snakefile)\b| -(n|s) | \.\.\.")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_have_the_cores_that_snakemake_wants(page):
    text = page.read_text().replace("\\\n", " ")
    commands = re.findall(r"^    (snakemake .*)$|`(snakemake [^`]*)`", text, flags=re.MULTILINE)
    lacking = [one or other for one, other in commands if not CORES.search(f"{one or other} ")]
    assert not lacking


def test_the_index_names_every_page():
    linked = {target for target, _ in LINK.findall((ROOT / "docs/README.md").read_text())}
    pages = {page.name for page in ROOT.glob("docs/*.md")} - {"README.md"}
    assert pages <= linked


def _sentences() -> list[str]:
    """Every text in the package, with … in place of what is put into it."""
    found = []
    for file in (ROOT / "mofe").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else "…" for v in node.values]
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return [re.sub("…+", "…", text) for text in found]


def test_numbers_of_the_plan_are_the_plans():
    """Those that sentences have; tables are generated."""

    def planned(**changes):
        plan = Plan(read_study(CONFIG, results="results/none", **changes))
        return forecast(Costs(plan), figures.inputs(plan))

    alone = planned(tables=dict.fromkeys(("C1", "C2", "C3", "C4", "C5")))
    whole = planned()
    disk = f"{alone.totals.disk / 1e9:.0f} GB ({whole.totals.disk / 1e9:.0f} with the controls)"
    for page in ("README.md", "docs/slurm.md"):
        assert disk in (ROOT / page).read_text(), disk
    jobs = f"{whole.totals.jobs} for the paper's study with its controls"
    assert jobs in (ROOT / "docs/plan.md").read_text(), jobs
    with_more_gpus = [job for job in whole.jobs if job.rule == "train" and job.needs.gpus > 1]
    assert [job.needs.gpus for job in with_more_gpus] == [2]
    assert "All trainings but one fit one A100-80GB" in (ROOT / "README.md").read_text()


def test_messages_are_quoted_as_the_program_says_them():
    page = (ROOT / "docs/troubleshooting.md").read_text()
    quoted = re.findall(r"^    (.+)$", page, flags=re.MULTILINE)
    said = _sentences()
    assert len(quoted) > 20
    assert not [message for message in quoted if not any(message in text for text in said)]


def test_the_citation_is_of_the_newest_version():
    number, day = re.findall(
        r"^## ([\d.]+) \(([\d-]+)\)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )[0]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (cited["version"], str(cited["date-released"])) == (number, day)


@pytest.mark.parametrize(
    "form", sorted(ROOT.glob(".github/ISSUE_TEMPLATE/*.yml")), ids=lambda f: f.stem
)
def test_issue_forms_have_what_github_wants(form):
    read = yaml.safe_load(form.read_text())
    if form.stem == "config":
        assert read == {"blank_issues_enabled": True}
        return
    assert {"name", "description", "body"} <= set(read)
    asked = [part for part in read["body"] if part["type"] != "markdown"]
    assert len({part["id"] for part in asked}) == len(asked) > 0
    assert all(part["attributes"]["label"] for part in asked)
