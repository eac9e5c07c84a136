"""The numbers of docs/artifact.md, from the committed results of the miniature (docs/reference)."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import miniature
import pandas as pd

from mofe import markdown, units
from mofe.report import figures, reference
from mofe.report.places import opened
from mofe.report.results import Results
from mofe.study.given import Given
from mofe.study.graph import Graph
from mofe.study.identity import Identities
from mofe.study.load import read_study
from mofe.study.plan import Plan

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
PAGE = "docs/artifact.md"


@cache
def kept() -> Results:
    """The committed results."""
    with opened(str(REFERENCE)) as found:
        return found


@cache
def planned() -> Plan:
    """The miniature of the committed configuration, with the seeds of the committed results."""
    files = (ROOT / "config.yaml", ROOT / "profiles" / "mini" / "study.yaml")
    return Plan(read_study(*files, seeds=kept().config["seeds"]))


@cache
def graph() -> Graph:
    return Graph(planned(), figures.inputs(planned()))


def state() -> str:
    """Whether the committed results belong to the committed configuration."""
    identities = Identities(graph(), Given(planned(), figures.given(planned())))
    gone, count = reference.stale(kept(), identities), len(kept().evaluations)
    if not gone:
        return (
            f"The {count} evaluations in docs/reference were made with the settings of this "
            "version's `config.yaml` and `profiles/mini/study.yaml`: all hashes of their settings "
            "(`config_hash`) are equal."
        )
    return (
        f"**Stale:** {len(gone)} of the {count} evaluations in docs/reference were made with other "
        f"settings than this version has, such as {gone[0]}. Compare with them only at the "
        "revision below, or make them again: `make mini reference`."
    )


def made() -> str:
    """What the committed results were made by."""
    found, made_by = kept(), kept().made
    size = sum(file.stat().st_size for file in REFERENCE.iterdir())
    trained = pd.read_csv(REFERENCE / reference.TRAININGS)
    rows = [
        ("code", ", ".join(f"`{revision}`" for revision in made_by.revisions)),
        ("machine", "; ".join(made_by.machines)),
        ("packages", ", ".join(f"{n} {' or '.join(v)}" for n, v in made_by.versions.items())),
        ("seeds", ", ".join(map(str, found.config["seeds"]))),
        ("trainings", f"{len(trained)}, {trained['cpu_seconds'].sum():,.0f} CPU seconds"),
        ("evaluations", f"{len(found.evaluations)}"),
        ("size", units.size(size)),
    ]
    return markdown.table(("Committed results", ""), rows, padded=False)


def times() -> str:
    """How long the miniature took where it was measured, and what the committed trainings took."""
    measured = miniature.taken()
    seconds = pd.read_csv(REFERENCE / reference.TRAININGS)["cpu_seconds"]
    return (
        f"{measured}\n\nThe committed results have {len(seconds)} trainings, which took "
        f"{seconds.sum():,.0f} CPU seconds in all."
    )


def again() -> str:
    """How far another run of the same study lay from the committed one."""
    file = REFERENCE / "again.json"
    if not file.is_file():
        return "No second run has been compared with the committed one yet."
    found = json.loads(file.read_text())
    same_machine = tuple(found["machines"]) == kept().made.machines
    where = "on the same machine" if same_machine else f"on {'; '.join(found['machines'])}"
    revisions = ", ".join(f"`{revision[:7]}{revision[40:]}`" for revision in found["revisions"])
    return (
        f"A second run {where}, at {revisions}, has {found['scores']} scores in common with the "
        f"committed one: {found['same']} have the same answer to every question, and "
        f"{found['apart']} have an interval that leaves out zero."
    )


def again_by() -> str:
    """The command that makes the committed results."""
    seeds = kept().config["seeds"]
    whole = read_study(ROOT / "config.yaml", ROOT / "profiles" / "mini" / "study.yaml").seeds
    given = "" if seeds == [*whole] else f" SEEDS={','.join(map(str, seeds))}"
    return f"```sh\nmake mini{given} reference\n```"


def claims() -> str:
    """Every claim: what it says, the command that makes it, what its trainings take, and what the
    committed results say of it."""
    verdicts = pd.read_csv(REFERENCE / "claims.csv", keep_default_na=False)
    verdicts = verdicts[verdicts["study"] == kept().config["study"]].set_index("claim")
    seconds = pd.read_csv(REFERENCE / reference.TRAININGS).set_index("training")["cpu_seconds"]
    root, rows = planned().root, []
    for name, claim in planned().study.claims.items():
        file = planned().paths.claim(name)
        made = [output for job in graph().needed(file) for output in job.outputs]
        trained = [f"{output.removeprefix(f'{root}/')}" for output in made]
        dense = [f"{output}/train.json" for output in trained]
        needed = [at for at in (*trained, *dense) if at in seconds.index]
        line = verdicts.loc[name]
        rows.append(
            (
                name,
                markdown.plain(claim.says),
                f"`{file}`",
                f"{seconds[needed].sum():,.0f}",
                line["verdict"],
                _tolerance(line),
            )
        )
    heads = ("Claim", "It says", "Make it", "CPU seconds", "Committed verdict", "Interval")
    return markdown.table(heads, rows, "lllrll", padded=False)


def _tolerance(line: pd.Series) -> str:
    """The difference on which a verdict rests, and its interval."""
    if not line["low"] or line["low"] == line["high"]:
        return ""
    difference, low, high = (float(line[key]) for key in ("difference", "low", "high"))
    return f"{difference:+.3f} ({low:+.3f} to {high:+.3f})"


PARTS: dict[tuple[str, str], Callable[[], str]] = {
    (PAGE, "times"): times,
    (PAGE, "state"): state,
    (PAGE, "made"): made,
    (PAGE, "again"): again,
    (PAGE, "claims"): claims,
    (PAGE, "again-by"): again_by,
}
