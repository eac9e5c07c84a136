"""docs/findings.md: what the miniature answers to the paper's open questions.

    python docs/generate/findings.py RESULTS

RESULTS is a results folder of `make mini-extended`; its claims and tables on the open questions,
and what other worlds say, are copied to docs/findings. The page is made from those files alone: its
template (findings.md.jinja) refers to every number, and each paragraph names the outcomes that it
rests on, so that a page whose words no longer fit its numbers is not made.
"""

import csv
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from mofe import markdown, records
from mofe.records import ClaimRecord, ClaimsRecord, Comparison, ReplicationsRecord
from mofe.report import correction, figures
from mofe.report.claims import numbers, shown, study_verdict
from mofe.report.outcomes import outcome
from mofe.study.config import Study
from mofe.study.load import read_study
from mofe.templates import render

KEPT = ROOT / "docs" / "findings"
ROUTERS = ("router_entropy",)  # of the figures of E5
TEMPLATE = Path(__file__).with_name("findings.md.jinja")
PROFILES = ROOT / "profiles"
STUDY = (
    ROOT / "config.yaml",
    PROFILES / "questions.yaml",
    PROFILES / "mini" / "study.yaml",
    PROFILES / "mini" / "questions.yaml",
)


@cache
def miniature() -> Study:
    """The study that is asked, in its own world."""
    return read_study(*STUDY)


@cache
def questions() -> dict[str, str]:
    """By table, the question that it answers."""
    tables = miniature().tables
    return {str(key): spec.question for key, spec in tables.items() if spec.question}


def hidden(table: str, row: str) -> int:
    """The width of the hidden states of a row's mixture."""
    mixture = miniature().mixtures[miniature().tables[table].rows[row].mixture]
    return miniature().models[mixture.base].scratch.shape.hidden_size


@cache
def own() -> dict[str, ClaimRecord]:
    """What the miniature's own world says of each statement."""
    return {c.claim: c for c in records.read(KEPT / "claims.json", ClaimsRecord).claims}


@cache
def others() -> ReplicationsRecord:
    """What several worlds say of some."""
    return records.read(KEPT / "replications.json", ReplicationsRecord)


@cache
def pooled() -> dict[str, ClaimRecord]:
    """The same, by statement."""
    return {c.pooled.claim: c.pooled for c in others().claims}


def known(name: str) -> ClaimRecord:
    """What is known of a statement: in all worlds that were asked, or in the miniature's own."""
    return pooled().get(name) or own()[name]


def size(name: str) -> str:
    """The part that decides, with the 95% interval, in points of accuracy."""
    return numbers(study_verdict(known(name)))[0]


def own_size(name: str) -> str:
    """The same, in the miniature's own world alone."""
    return numbers(study_verdict(own()[name]))[0]


def least(name: str) -> str:
    """The least difference among its parts, with its 95% interval, in points of accuracy."""
    return shown(min(study_verdict(known(name)).parts, key=lambda part: part.difference))


def part(name: str, row: str, column: str) -> str:
    """A part of a statement, by a row that no other part has, with its 95% interval; in the
    miniature's own world."""
    return shown(_part(own()[name], row, column))


def part_in_worlds(name: str, row: str, column: str) -> str:
    """The same over all worlds."""
    return shown(_part(pooled()[name], row, column))


def low(name: str, row: str, column: str) -> float:
    """The lower end of such a part's interval in the miniature's own world, as a share."""
    return _part(own()[name], row, column).low


def _part(claim: ClaimRecord, row: str, column: str) -> Comparison:
    (found,) = (
        part
        for part in study_verdict(claim).parts
        if row in (part.first, part.second) and part.column == column
    )
    return found


def of_worlds(name: str) -> list[tuple[float, ...]]:
    """The differences of a statement's parts, world by world, as shares of answers."""
    (found,) = (c for c in others().claims if c.pooled.claim == name)
    return list(found.differences.values())


def least_in_worlds(name: str) -> float:
    """The least difference of a statement in any part and world, as a share of answers."""
    return min(map(min, of_worlds(name)))


def least_kept(name: str) -> float:
    """The least share of a gain that a part of a statement keeps, in the miniature's own world."""
    return min(found.kept.value for found in study_verdict(own()[name]).parts)


def outcomes_of(names: Sequence[str]) -> dict[str, str]:
    """Shown, excluded or open, by statement."""
    return {name: outcome_of(name) for name in names}


def outcome_of(name: str) -> str:
    """Shown, excluded or open."""
    return outcome(known(name))


def in_own(name: str) -> str:
    """The same, in the miniature's own world alone."""
    return outcome(own()[name])


def so(**outcomes: str) -> str:
    """Nothing. Raises ValueError where a statement's outcome is another than the text says."""
    for name, said in outcomes.items():
        if (found := outcome_of(name)) != said:
            raise ValueError(
                f"{TEMPLATE.name}: rests on {name} being {said.lower()}, and it is "
                f"{found.lower()} ({size(name)}); write its paragraph anew"
            )
    return ""


def check(holds: bool, said: str) -> str:
    """Nothing. Raises ValueError where what the text says of a table does not hold."""
    if not holds:
        raise ValueError(f"{TEMPLATE.name}: {said} is not so any more; write its paragraph anew")
    return ""


@cache
def _cells(table: str) -> dict[tuple[str, str], dict[str, str]]:
    with (KEPT / f"{table}.csv").open(encoding="utf-8", newline="") as file:
        return {(line["label"], line["column"]): line for line in csv.DictReader(file)}


def score(table: str, row: str, column: str) -> str:
    """A score in percent, as the mean over seeds."""
    return f"{100 * float(_cells(table)[row, column]['value']):.1f}"


def value(table: str, row: str, column: str) -> float:
    """Any number of a table, to be compared or written with `format`."""
    return float(_cells(table)[row, column]["value"])


def statements(table: str) -> str:
    """The table's statements with their outcomes, in the own world and in several."""
    rows = [
        (
            name,
            markdown.plain(claim.says),
            _told(claim),
            _told(pooled()[name]) if name in pooled() else "",
        )
        for name, claim in own().items()
        if claim.section == table
    ]
    heads = ("", "Statement", "In one world", f"In {len(others().studies)} worlds")
    return markdown.table(heads, rows, "llll", padded=False)


def _told(claim: ClaimRecord) -> str:
    found = numbers(study_verdict(claim))[0]
    return f"**{outcome(claim)}**" + (f" {found}" if found else "")


def figure(name: str, of: str) -> str:
    """A figure with its caption. of: what it shows, for those who do not see it."""
    said = figures.caption(name, miniature().setting)
    return f"![{markdown.plain(of)}](findings/{name}.png)\n\n*{markdown.plain(said)}*"


def limits(table: str) -> str:
    """What the table cannot say."""
    return miniature().tables[table].limits


def page() -> str:
    """docs/findings.md."""
    return render(
        TEMPLATE,
        questions=questions(),
        hidden=hidden,
        figure=figure,
        size=size,
        least=least,
        part=part,
        part_in_worlds=part_in_worlds,
        low=low,
        of_worlds=of_worlds,
        in_own=in_own,
        own_size=own_size,
        least_in_worlds=least_in_worlds,
        least_kept=least_kept,
        outcomes_of=outcomes_of,
        margin=f"{100 * miniature().evidence.margin:g}",
        so=so,
        outcome_of=outcome_of,
        check=check,
        score=score,
        value=value,
        statements=statements,
        limits=limits,
        worlds=len(others().studies),
        seeds=records.read(KEPT / "claims.json", ClaimsRecord).seeds,
    )


def take(root: Path) -> None:
    """Copy what the page is made from out of a results folder. p is corrected over the statements
    of a question, as claims.json has it."""
    study = miniature()
    tables = {table: root / f"{table}.csv" for table in questions()}
    names = [name for name, claim in study.claims.items() if claim.section in tables]
    files = {name: root / "claims" / f"{name}.json" for name in names}
    both = root / "replications.json"
    if missing := [f for f in (*tables.values(), *files.values(), both) if not f.is_file()]:
        sys.exit(f"{missing[0]} is not there; run make mini-extended first")
    found = [records.read(file, ClaimRecord) for file in files.values()]
    bare = [claim.model_copy(update={"files": ()}) for claim in found]
    KEPT.mkdir(parents=True, exist_ok=True)
    records.write(KEPT / "claims.json", correction.correct(bare, len(study.seeds)))
    several = records.read(both, ReplicationsRecord)
    claims = [
        c.model_copy(update={"pooled": c.pooled.model_copy(update={"files": ()})})
        for c in several.claims
    ]
    records.write(KEPT / "replications.json", several.model_copy(update={"claims": tuple(claims)}))
    for table, file in tables.items():
        shutil.copyfile(file, KEPT / f"{table}.csv")
    for drawn in (root / "figures").glob("*.png"):
        if drawn.stem.removesuffix(figures.KEPT) in tables or drawn.stem in ROUTERS:
            shutil.copyfile(drawn, KEPT / drawn.name)


FILES: dict[str, Callable[[], str]] = {"docs/findings.md": page}

if __name__ == "__main__":
    take(Path(sys.argv[1]))
