"""The report: one self-contained HTML page that shows every table beside the paper's, and the
figures.

It needs no network: styles are inline, images are data URIs, and there is no script. It has no
date, so equal results give equal pages.
"""

from __future__ import annotations

import base64
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mofe import records
from mofe.files import write_atomic
from mofe.records import EvalRecord, Hardware, TrainRecord
from mofe.report import frames
from mofe.report.kinds import KINDS, floor
from mofe.report.tables import (
    BESIDE,
    entry,
    headings,
    in_noise,
    is_published,
    kind_by_column,
    shown_labels,
)
from mofe.study.setting import Setting
from mofe.study.tables import Cell, Table
from mofe.templates import render
from mofe.units import duration

# The counts of a training set, and their headings on the page.
_COUNTED = (
    ("read", "Rows read"),
    ("incomplete", "Incomplete"),
    ("held_out", "Held out"),
    ("unlabelled", "Unlabelled"),
    ("pieces", "Pieces"),
    ("duplicate", "Duplicate"),
    ("also_in_test", "Also in the test set"),
    ("usable", "Usable"),
    ("sampled", "Sampled"),
    ("characters", "Characters"),
)
_METRICS = {
    "acc": "accuracy (acc)",
    "exact": "the share of exact matches",
    "acc_norm": "accuracy by log-likelihood per character (acc_norm)",
}
_MINUS = "\u2212"
_TEMPLATE = Path(__file__).with_name("report.html.jinja")


def write(
    tables: Sequence[Table],
    figures: Sequence[tuple[str | os.PathLike, str]],
    assumptions: Sequence[Mapping[str, Any]],
    data: Mapping[str, str | os.PathLike],
    mixes: Mapping[str, Mapping[str, Sequence]],
    trainings: Sequence[str | os.PathLike],
    evaluations: Sequence[str | os.PathLike],
    setting: Setting,
    notes: Sequence[str],
    out: str | os.PathLike,
) -> None:
    """Write the report of a study to the HTML file `out`.

    tables: the plan's tables, in the order shown. figures: (PNG file, caption) of each figure.
    assumptions: the item, choice, evidence and, if there is one, the configuration's key of each
    choice where the paper is silent; a choice may be any value of a configuration. data: the counts
    JSON of every training set, by name. mixes: for every mix that fine-tuning uses, its `data`
    (names of training sets) and its `trainings` (the train.json of every run on it). trainings,
    evaluations: every train.json and every evaluation's JSON. setting: the study's name, scale and
    unit of training time. notes: paragraphs on what the study can show; text is escaped,
    markupsafe.Markup is not.

    Raises ValueError where a result is invalid; `out` is then left as it was.
    """
    trained = [records.read(path, TrainRecord) for path in trainings]
    evaluated = [records.read(path, EvalRecord) for path in evaluations]
    page = render(
        _TEMPLATE,
        setting=setting,
        notes=notes,
        beside=BESIDE,
        tables=[view(table, setting) for table in tables],
        figures=[image(path, caption) for path, caption in figures],
        assumptions=[{"key": "", **a, "choice": in_words(a["choice"])} for a in assumptions],
        data={name: records.read_counts(path) for name, path in data.items()},
        counted=_COUNTED,
        mixes=[mixed(name, mix["data"], mix["trainings"]) for name, mix in mixes.items()],
        provenance=provenance(trained, evaluated),
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


# --- a table ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Field:
    """A cell of the page's table.

    part: paper, ours or difference. sd, unit: of our value. mark: the mark of a value of the paper
    that is inside its own noise of the best. best: whether it is the best score of its column, and
    no other is within its noise. first: whether it is the first part of its column. apart: whether
    the paper's table lacks this column.
    """

    part: str
    text: str
    sd: str = ""
    unit: str = ""
    mark: str = ""
    best: bool = False
    first: bool = False
    apart: bool = False


@dataclass(frozen=True)
class Column:
    """A column of the page's table: its parts, its fields row by row, and its footer (floor,
    stderr, n)."""

    group: str
    heading: str
    parts: tuple[str, ...]
    rows: list[tuple[Field, ...]]
    floor: str = ""
    stderr: str = ""
    n: str = ""
    apart: bool = False


def view(table: Table, setting: Setting) -> dict[str, Any]:
    """What the template shows of a table: headings, rows, footer, and sentences on what its numbers
    are of."""
    frame = frames.tidy(table, setting)
    labels = len(table.label_headings)
    heads = headings(table, setting)
    columns = [
        column
        for (group, shown), heading in zip(heads[labels:], table.columns, strict=True)
        for column in _columns(table, frame, setting, group, heading, shown)
    ]
    columns += [_column_beside(table, frame, heading) for heading in table.beside]
    groups = [group for group, _ in heads[:labels]]
    groups += [column.group for column in columns for _ in column.parts]
    return {
        "number": table.number,
        "caption": table.caption,
        "ours": setting.ours,
        "in_noise": in_noise(frame),
        "groups": [
            (text, len(list(run))) for text, run in itertools.groupby(groups) if any(groups)
        ],
        "label_headings": table.label_headings,
        "columns": columns,
        "blocks": any(not shown[0] for shown in shown_labels(table)),
        "rows": [
            (shown, [field for column in columns for field in column.rows[at]])
            for at, shown in enumerate(shown_labels(table))
        ],
        "floors": floors(table),
        "others": others(table),
    }


def _columns(
    table: Table, frame: pd.DataFrame, setting: Setting, group: str, heading: str, shown: str
) -> list[Column]:
    """The page's columns for a column of the table: two if its time is not in the paper's unit. A
    difference from the paper's value is shown in the paper's own setting only."""
    kind = kind_by_column(table)[heading]
    if heading != shown:
        ours = Column(group, shown, ("ours",), _rows(table, frame, shown, kind, ("ours",)))
        if not is_published(frame, heading):
            return [ours]
        theirs = _rows(table, frame, heading, kind, ("paper",))
        return [Column(group, heading, ("paper",), theirs), ours]
    parts: tuple[str, ...] = ("ours",)
    if is_published(frame, heading):
        parts = ("paper", "ours")
        if setting.is_papers and KINDS[kind].difference is not None:
            parts += ("difference",)
    rows = _rows(table, frame, heading, kind, parts)
    footer = _footer(table, frame, heading) if kind == "task" else {}
    return [Column(group, heading, parts, rows, **footer)]


def _column_beside(table: Table, frame: pd.DataFrame, heading: str) -> Column:
    """The page's column for a column that the paper's table lacks."""
    rows = _rows(table, frame, heading, "task", ("ours",), apart=True)
    footer = _footer(table, frame, heading)
    return Column(BESIDE, heading, ("ours",), rows, **footer, apart=True)


def _rows(
    table: Table,
    frame: pd.DataFrame,
    heading: str,
    kind: str,
    parts: tuple[str, ...],
    apart: bool = False,
) -> list[tuple[Field, ...]]:
    """The fields of a column, row by row."""
    of_column = frame[frame["column"] == heading]
    lines = {line.row: line for line in of_column.itertuples()}
    best = {"paper": _best_of_paper(of_column), "ours": _best_of_ours(of_column)}
    if kind != "task":
        best = {}  # time and size have none
    rows = []
    for number, row in enumerate(table.rows, start=1):
        line = lines.get(number)
        texts = entry(line, kind, table.number, frames.label(row))
        fields = {
            "paper": {"text": texts.paper, "mark": texts.mark},
            "ours": {"text": texts.ours, "sd": texts.sd, "unit": texts.unit},
            "difference": {"text": _difference(line, kind)},
        }
        rows.append(
            tuple(
                Field(
                    part,
                    **fields[part],
                    best=best.get(part) == number,
                    first=part == parts[0],
                    apart=apart,
                )
                for part in parts
            )
        )
    return rows


def _best_of_paper(lines: pd.DataFrame) -> int | None:
    """The row of a column's best published score; None where another is inside its noise, or where
    nothing is known of the noise."""
    lines = lines[lines["paper"].notna()]
    if lines.empty or lines["paper_in_noise"].fillna(True).any():
        return None
    return int(lines.loc[lines["paper"].idxmax(), "row"])


def _best_of_ours(lines: pd.DataFrame) -> int | None:
    """The row of a column's best measured score; None where another is within one standard error of
    it."""
    lines = lines[lines["value"].notna()].sort_values("value", ascending=False)
    if lines.empty or pd.isna(lines["stderr"].iloc[0]):
        return None
    near = lines["value"] >= lines["value"].iloc[0] - lines["stderr"].iloc[0]
    return int(lines["row"].iloc[0]) if near.sum() == 1 else None


def _difference(line, kind: str) -> str:
    """Our value minus the paper's, with a sign; empty if either is missing, or if the kind has no
    difference."""
    decimals = KINDS[kind].difference
    if line is None or decimals is None or pd.isna(line.value) or pd.isna(line.paper):
        return ""
    return f"{line.value - line.paper:+.{decimals}f}".replace("-", _MINUS)


def _footer(table: Table, frame: pd.DataFrame, heading: str) -> dict[str, str]:
    """A task's floor, the standard error of its evaluation and its number of questions."""
    lines = frame[(frame["column"] == heading) & frame["stderr"].notna()]
    if lines.empty:
        return {}
    least_score = floor(next(cell for cell in _scored(table) if cell.column == heading))
    least, most = lines["stderr"].min(), lines["stderr"].max()
    return {
        "floor": f"{least_score.value:.4f}" if least_score else "none",
        "stderr": span((least, most), ".4f"),
        "n": " or ".join(f"{n:,}" for n in sorted(set(lines["n"]))),
    }


def _scored(table: Table) -> list[Cell]:
    """The table's cells that show a task's score."""
    cells = [cell for row in table.rows for cell in (*row.cells, *row.beside)]
    return [cell for cell in cells if cell.kind == "task" and cell.files]


def floors(table: Table) -> list[str]:
    """How each floor of a table is reached, in words, each once."""
    found = (floor(cell) for cell in _scored(table))
    return list(dict.fromkeys(one.how for one in found if one))


def others(table: Table) -> list[str]:
    """Sentences on the other metrics of the evaluations whose score a column shows."""
    found: dict[tuple[str, str], list[float]] = {}
    for cell in _scored(table):
        for record in (records.read(file, EvalRecord) for file in cell.files):
            for metric in sorted(record.metrics.keys() - {cell.metric or record.headline}):
                value = record.metrics[metric].value
                found.setdefault((cell.column, metric), []).append(value)
    return [
        f"{column}: {_METRICS.get(metric, metric)} is {span(values, '.4f')}."
        for (column, metric), values in found.items()
    ]


def span(values: Iterable[float], form: str) -> str:
    """The least and the greatest value, "3 to 5", or only one if they print the same."""
    shown = dict.fromkeys(f"{value:{form}}" for value in (min(values), max(values)))
    return " to ".join(shown)


# --- training data ----------------------------------------------------------------------------


def mixed(name: str, data: Sequence[str], trainings: Sequence[str | os.PathLike]) -> dict[str, Any]:
    """A mix of training sets, with the rows per epoch of its runs and the over-long rows that they
    left out. These differ between runs only if a recipe has a max_length of its own."""
    runs = [records.read(path, TrainRecord) for path in trainings]
    return {
        "name": name,
        "data": data,
        "trainings": len(runs),
        "rows": span([run.rows for run in runs], ","),
        "dropped": span([run.dropped_rows for run in runs], ","),
    }


# --- provenance -------------------------------------------------------------------------------


def provenance(trained: Sequence[TrainRecord], evaluated: Sequence[EvalRecord]) -> dict[str, Any]:
    """Where the numbers come from: seeds, code, versions, hardware, and what was trained."""
    everything = [*trained, *evaluated]
    frozen = [record.frozen_sha256 for record in trained if record.frozen_sha256.any]
    packages = sorted({name for record in everything for name in record.versions})
    return {
        "seeds": _distinct(str(seed) for seed in sorted({r.seed for r in trained})),
        "trainings": len(trained),
        "evaluations": len(evaluated),
        "seconds": duration(sum(record.device_seconds for record in trained)),
        "tokens": sum(record.tokens for record in trained),
        "revisions": _distinct(record.git_revision for record in everything),
        "hardware": _distinct(_hardware(record.hardware) for record in trained),
        "versions": {
            name: ", ".join(_distinct(r.versions.get(name, "none") for r in everything))
            for name in packages
        },
        "processes": _processes(trained),
        "resumed": _resumed(trained),
        "memory": max((record.peak_memory_bytes for record in trained), default=0),
        "frozen": len(frozen),
        "unchanged": sum(hashes.unchanged for hashes in frozen),
        "recipes": _by_recipe(trained),
        "runs": [{"record": record, "experts": _experts(record)} for record in trained],
    }


def _experts(record: TrainRecord) -> str:
    """In words: whether the frozen parameters were changed."""
    if not record.frozen_sha256.any:
        return "none frozen"
    return "unchanged" if record.frozen_sha256.unchanged else "changed"


def _processes(trained: Sequence[TrainRecord]) -> list[str]:
    """In words: how many trainings ran on how many processes."""
    kinds = Counter((record.processes, record.sharding) for record in trained)
    return [
        f"{count} training{'s' * (count != 1)} on {processes} process{'es' * (processes != 1)}"
        + (f" ({sharding})" if sharding != "none" else "")
        for (processes, sharding), count in sorted(kinds.items())
    ]


def _resumed(trained: Sequence[TrainRecord]) -> str:
    """In words: how many trainings went on from a checkpoint."""
    times = [record.resumed for record in trained]
    resumed = sum(count > 0 for count in times)
    return f"{resumed} of {len(times)} trainings, {sum(times)} times in all"


def _hardware(hardware: Hardware) -> str:
    return f"{hardware.cpu}, {hardware.cores} cores, {', '.join(hardware.gpus) or 'no GPU'}"


def _by_recipe(trained: Sequence[TrainRecord]) -> list[dict[str, Any]]:
    recipes: dict[str, list[TrainRecord]] = {}
    for record in trained:
        recipes.setdefault(record.recipe, []).append(record)
    return [
        {
            "recipe": recipe,
            "trainings": len(runs),
            "steps": sum(run.steps for run in runs),
            "tokens": sum(run.tokens for run in runs),
            "seconds": duration(seconds := sum(run.device_seconds for run in runs)),
            "speed": sum(run.tokens for run in runs) / seconds if seconds else None,
        }
        for recipe, runs in recipes.items()
    ]


def _distinct(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))
