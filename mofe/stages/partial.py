"""The tables of what there is (rule `partial`), while jobs run, or after some have failed."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mofe import sums
from mofe.files import write_atomic
from mofe.jobs import ending, made
from mofe.markdown import plain, row
from mofe.report import figures, partial
from mofe.study.given import Given
from mofe.study.graph import Graph, Node
from mofe.study.identity import Identities
from mofe.study.load import load_study
from mofe.study.plan import Plan


def write(*, config: Mapping[str, Any]) -> str:
    """Write every table of a study from the records that are there, below {results}/partial, with a
    page that lists them. config: the study's merged configuration. Returns a line for the user."""
    plan = Plan(load_study(config))
    graph = Graph(plan, figures.inputs(plan))
    identities = Identities(graph, Given(plan, figures.given(plan)))
    lines, lacking = [], 0
    for number, table in plan.tables.items():
        why = partial.reasons(table, _unusable(identities, str(number)))
        files = {kind: plan.paths.partial(f"table{number}.{kind}") for kind in ("tex", "md", "csv")}
        partial.write(table, plan.study.setting, why, **files)
        lines.append((number, len(why), dict.fromkeys(why.values())))
        lacking += len(why)
    page = plan.paths.partial("index.md")
    write_atomic(page, _page(lines))
    return f"{lacking} values are missing in {len(lines)} tables; {page} lists them"


def _page(lines: list[tuple[int | str, int, dict[str, None]]]) -> str:
    """A list of all tables and of what they lack."""
    text = ["# Partial tables: what there is\n", row(("Table", "Missing values")), "|---|--:|"]
    text += [row((f"[{plain(n)}](table{n}.md)", count)) for n, count, _ in lines]
    told = dict.fromkeys(reason for *_, why in lines for reason in why)
    return "\n".join([*text, "", *(f"- {plain(reason)}" for reason in told), ""]).rstrip() + "\n"


def _unusable(identities: Identities, number: str) -> dict[str, str]:
    """By file, why a table cannot be made of it."""
    read = (made.Input(**one) for one in made.inputs(identities, "table", {"number": number}))
    return {one.file: why for one in read if (why := _why(identities, one))}


def _why(identities: Identities, read: made.Input) -> str | None:
    if not os.path.exists(read.file):
        return _ended(identities.graph, read.file) or "not made yet"
    try:
        if faults := read.faults():
            return "damaged: " + "; ".join(map(str, faults))
    except FileNotFoundError:
        return f"there are no checksums of it ({read.sums})"
    except sums.Damaged as error:
        return str(error)
    if not read.is_stale:
        return None
    stale = "made with other settings than the configuration has now"
    return _ended(identities.graph, read.file) or stale


def _ended(graph: Graph, file: str) -> str | None:
    """How the first job on the way to a file ended whose output is not there, if one has run."""
    for job in graph.needed(file):
        log = graph.plan.paths.log(job.outputs[0])
        if not os.path.exists(job.outputs[0]) and Path(log).is_file():
            return _told(job, log)
    return None


def _told(job: Node, log: str) -> str:
    named = f"{job.rule} {job.label}".strip()
    if why := ending.failure(log):
        return f"{named} failed: {why}"
    return f"not made yet: {named} runs, or was killed ({log})"
