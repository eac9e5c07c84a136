"""The report: one self-contained HTML page. Its first screen says which of the paper's claims hold;
below it are the tables beside the paper's, controls, figures, data, choices, cost and provenance.

It needs no network: styles are inline, images are data URIs, and there is no script. It has no
date, so equal results give equal pages. What each part shows is in mofe/report/views/, a module and
a template per part.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mofe import records
from mofe.files import write_atomic
from mofe.records import ClaimsRecord, EvalRecord, ReplicationsRecord, TrainRecord
from mofe.report.figures import KEPT
from mofe.report.tables import BESIDE
from mofe.report.views.beyond import asked
from mofe.report.views.claims import screen
from mofe.report.views.cost import spent
from mofe.report.views.files import Files
from mofe.report.views.prompts import cut
from mofe.report.views.provenance import provenance
from mofe.report.views.table import view
from mofe.report.views.training_data import COUNTED, cell, contamination, mixed
from mofe.study.setting import Setting
from mofe.study.tables import Table
from mofe.templates import render

_TEMPLATE = Path(__file__).with_name("report.html.jinja")


def write(
    tables: Sequence[Table],
    figures: Sequence[tuple[str | os.PathLike, str]],
    assumptions: Sequence[Mapping[str, Any]],
    data: Mapping[str, str | os.PathLike],
    mixes: Mapping[str, Mapping[str, Sequence]],
    trainings: Sequence[str | os.PathLike],
    evaluations: Sequence[str | os.PathLike],
    claims: str | os.PathLike,
    replications: str | os.PathLike | None,
    command: str,
    setting: Setting,
    device: str,
    notes: Sequence[str],
    questions: Mapping[str, Mapping[str, Any]],
    out: str | os.PathLike,
) -> None:
    """Write the report of a study to the HTML file `out`.

    tables: the plan's tables, in the order shown. figures: (PNG file, caption) of each figure.
    assumptions: the item, choice, evidence and, if there is one, the configuration's key of each
    choice where the paper is silent; a choice may be any value of a configuration. data: the counts
    JSON of every training set, by name. mixes: for every mix that fine-tuning uses, its `data`
    (names of training sets) and its `trainings` (the train.json of every run on it). trainings,
    evaluations: every train.json and every evaluation's JSON. claims: claims.json, beside whose
    folder claims/ each claim has its own file. replications: replications.json, or None.
    command: what makes a file, without the file. setting: the study's name, scale and unit of
    training time. device: `cuda` or `cpu`. notes: paragraphs on what the study can show; text is
    escaped, markupsafe.Markup is not. questions: by the key, as text, of each table that answers
    one, its `question`, its `limits`, and the GPU-`hours` of one seed at the paper's scale by kind
    of GPU, None where they are not known.

    Raises ValueError where a result is invalid; `out` is then left as it was.
    """
    judged = records.read(claims, ClaimsRecord)
    shown = {Path(path).stem: image(path, caption) for path, caption in figures}
    trained = {str(path): records.read(path, TrainRecord) for path in trainings}
    evaluated = {str(path): records.read(path, EvalRecord) for path in evaluations}
    counts = {name: records.read_counts(path) for name, path in data.items()}
    own = Path(claims).with_suffix("")
    commands = {c.claim: f"{command} {own / c.claim}.json" for c in judged.claims}
    pooled = records.read(replications, ReplicationsRecord) if replications else None
    first = screen(judged, commands, questions, pooled)
    others = [table for table in tables if str(table.number) not in questions]
    page = render(
        _TEMPLATE,
        setting=setting,
        claims_file=claims,
        screen=first,
        notes=notes,
        beside=BESIDE,
        tables=[view(table, setting) for table in others if isinstance(table.number, int)],
        controls=[view(table, setting) for table in others if not isinstance(table.number, int)],
        beyond=[
            asked(view(table, setting), questions[str(table.number)], shown, first, pooled)
            for table in tables
            if str(table.number) in questions
        ],
        figures=[
            figure for name, figure in shown.items() if name.removesuffix(KEPT) not in questions
        ],
        assumptions=[{"key": "", **a, "choice": in_words(a["choice"])} for a in assumptions],
        data=counts,
        data_files=data,
        counted=COUNTED,
        cell=cell,
        contamination=contamination(counts),
        cut=cut(evaluated.values()),
        mixes=[mixed(name, mix["data"], mix["trainings"]) for name, mix in mixes.items()],
        cost=spent(trained, evaluated, device),
        provenance=provenance(trained, evaluated),
        files=Files(),
    )
    write_atomic(out, page)


def in_words(choice: Any) -> str:
    """A value of the configuration as a person would write it. Keys that are not set are left
    out."""
    if isinstance(choice, Mapping):
        parts = [(key, in_words(value)) for key, value in choice.items() if value is not None]
        return "; ".join(f"{key}: {words}" for key, words in parts if words)
    if isinstance(choice, Sequence) and not isinstance(choice, str):
        return ", ".join(map(in_words, choice))
    if isinstance(choice, bool):
        return "yes" if choice else "no"
    if isinstance(choice, int) and choice >= 10_000:
        return f"{choice:,}"
    return "none" if choice is None else str(choice)


def image(path: str | os.PathLike, caption: str) -> dict[str, Any]:
    """A PNG file as a data URI, its caption, and its width on the page in pixels.

    All figures are drawn at the same resolution, so with one scale their letters have the same
    size.
    """
    png = Path(path).read_bytes()
    pixels = int.from_bytes(png[16:20], "big")  # where a PNG's header has the width
    source = "data:image/png;base64," + base64.b64encode(png).decode("ascii")
    return {"source": source, "caption": caption, "width": round(0.75 * pixels)}
