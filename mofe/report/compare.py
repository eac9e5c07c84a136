"""Two results of a study, cell by cell: how far they lie apart, and by what they differ in their
making.

A score's difference is tested as a claim's parts are (mofe/report/stats.py): questions are paired,
and those that ask for one fact are a cluster (CR1).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mofe.markdown import plain
from mofe.markdown import table as markdown_table
from mofe.paper import LABEL_SEPARATOR
from mofe.report import stats
from mofe.report.results import Answered, Made, Results
from mofe.report.stats import Answers, Contrast, Interval, Term
from mofe.study.config import WATCHING
from mofe.study.tables import Cell, Row, Table

LONGEST = 60  # characters of a key's value that are shown
DASH = "–"

LEGEND = (
    "Differences are B less A. Where both have a seed, only such seeds are compared. *Over "
    "questions* is the 95% interval of the difference of these very models on new questions of the "
    "same kind: questions are paired, and those that ask for one fact are a cluster (CR1). *With "
    "seeds* is that for new seeds too, as claims are judged. **Bold** intervals leave out zero."
)


@dataclass(frozen=True)
class Compared:
    """A cell of a table in both results, A's value first.

    difference: B's less A's; None where one of them is missing or both cannot be compared. these:
    its interval over questions, for these very models. drawn: the interval over new seeds and new
    questions, where both have several seeds. same: all answers, or values, are equal. seeds: of A
    and of B. why: why there is no difference; empty where there is one.
    """

    table: str
    row: str
    column: str
    first: float | None
    second: float | None
    seeds: tuple[int, int] = (0, 0)
    questions: int | None = None
    difference: float | None = None
    these: Interval | None = None
    drawn: Interval | None = None
    same: bool = False
    why: str = ""

    @property
    def is_score(self) -> bool:
        return self.questions is not None

    @property
    def interval(self) -> Interval | None:
        """That for new seeds and new questions, else that over questions."""
        return self.drawn or self.these

    @property
    def apart(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.interval is not None and not self.same and not _holds(self.interval, 0.0)


def _holds(interval: Interval, value: float) -> bool:
    return interval.low <= value <= interval.high


# ------------------------------------------------------------------------------------- cells


def cells(tables: Sequence[Table], root: str, a: Results, b: Results) -> list[Compared]:
    """All cells that one of the results has, table by table.

    tables: of the study, with the files of all seeds that one of them has. root: the study's
    results folder, below which these files are.
    """
    found: dict[tuple[str, str, str], Compared] = {}
    for table in tables:
        for row in table.rows:
            label = LABEL_SEPARATOR.join(row.labels)
            for cell in (*row.cells, *row.beside):
                if cell.kind == "task":
                    shown = _score(str(table.number), label, row, cell, root, a, b)
                    if shown:
                        found[shown.table, shown.row, shown.column] = shown
    for shown in _values(a, b):
        found.setdefault((shown.table, shown.row, shown.column), shown)
    order = [
        (str(table.number), LABEL_SEPARATOR.join(row.labels))
        for table in tables
        for row in table.rows
    ]
    places = {row: place for place, row in enumerate(dict.fromkeys(order))}
    last = len(places)
    return sorted(found.values(), key=lambda cell: places.get((cell.table, cell.row), last))


def _score(
    number: str, label: str, row: Row, cell: Cell, root: str, a: Results, b: Results
) -> Compared | None:
    """A cell that shows a task's score; None where neither has it."""
    addresses = [Path(file).relative_to(root).as_posix() for file in cell.files]
    of_a, of_b = ([at for at in addresses if at in side.evaluations] for side in (a, b))
    if not of_a and not of_b:
        return None
    common = [at for at in of_a if at in of_b]
    try:
        first, second = (
            [side.answered(at, cell.metric) for at in common or own]
            for side, own in ((a, of_a), (b, of_b))
        )
    except ValueError as error:
        return Compared(number, label, cell.column, None, None, why=str(error))
    shown = Compared(
        table=number,
        row=label,
        column=cell.column,
        first=_mean(first),
        second=_mean(second),
        seeds=(len(first), len(second)),
        questions=len((first or second)[0].scores),
    )
    if not first or not second:
        return _but(shown, why=f"only in {'A' if first else 'B'}")
    if not _asked_alike([*first, *second]):
        return _but(shown, why="the questions differ, so their answers cannot be compared")
    return _tested(shown, first, second, row.per_seed)


def _but(shown: Compared, **changed: Any) -> Compared:
    return Compared(**{**vars(shown), **changed})


def _mean(answered: Sequence[Answered]) -> float | None:
    return float(np.mean([one.scores.mean() for one in answered])) if answered else None


def _asked_alike(answered: Sequence[Answered]) -> bool:
    """Whether all asked the same questions in the same order. Hashes may be cut to their
    beginnings."""
    first = answered[0].asked
    return all(
        len(one.asked) == len(first)
        and all(x.startswith(y) or y.startswith(x) for x, y in zip(one.asked, first, strict=True))
        for one in answered
    )


def _tested(
    shown: Compared, first: Sequence[Answered], second: Sequence[Answered], seeded: bool
) -> Compared:
    scores = [np.stack([one.scores for one in side]) for side in (second, first)]
    groups = first[0].clusters
    whole = [Answers({"": side.mean(axis=0, keepdims=True)}, seeded=False) for side in scores]
    these = stats.crossed(_contrast(whole, groups))
    drawn = None
    if seeded and min(map(len, scores)) > 1:
        drawn = stats.crossed(_contrast([Answers({"": side}) for side in scores], groups)).interval
    same = len(scores[0]) == len(scores[1]) and bool((scores[0] == scores[1]).all())
    return _but(shown, difference=these.difference, these=these.interval, drawn=drawn, same=same)


def _contrast(arms: Sequence[Answers], groups: np.ndarray) -> Contrast:
    return Contrast(arms, [Term(0, "", 1.0), Term(1, "", -1.0)], {"": groups})


def _values(a: Results, b: Results) -> Iterator[Compared]:
    """The cells of the tables' CSV files: times, counts, and scores without answers."""
    for number in dict.fromkeys((*a.tables, *b.tables)):
        lines = [_lines(side.tables.get(number)) for side in (a, b)]
        for label, column in dict.fromkeys(key for side in lines for key in side):
            first, second = (side.get((label, column), (None, 0)) for side in lines)
            values, seeds = (first[0], second[0]), (first[1], second[1])
            shown = Compared(number, label, column, *values, seeds)
            if None in values:
                yield _but(shown, why=f"only in {'B' if first[0] is None else 'A'}")
            else:
                same = values[0] == values[1]
                yield _but(shown, difference=values[1] - values[0], same=same)


def _lines(frame: pd.DataFrame | None) -> dict[tuple[str, str], tuple[float, int]]:
    if frame is None:
        return {}
    shown = frame[frame["value"].notna()]
    return {
        (line.label, line.column): (
            float(line.value),
            int(line.seeds) if pd.notna(line.seeds) else 0,
        )
        for line in shown.itertuples(index=False)
    }


# ------------------------------------------------------------------------- what made them


def only(one: Results, other: Results) -> list[str]:
    """The evaluations that only one of them has, a line per model: its tasks, and their seeds."""
    found: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for address, head in one.evaluations.items():
        if address not in other.evaluations:
            model = Path(address).parents[1].relative_to("evals").as_posix()
            found[model][head.task].append(head.seed)
    lines = []
    for model, tasks in found.items():
        by_seeds: dict[tuple[int, ...], list[str]] = defaultdict(list)
        for task, seeds in tasks.items():
            by_seeds[tuple(sorted(seeds))].append(task)
        told = [
            f"{', '.join(of)} (seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))})"
            for seeds, of in by_seeds.items()
        ]
        lines.append(f"{model}: {'; '.join(told)}")
    return lines


def settings(a: Results, b: Results) -> tuple[int, int]:
    """How many evaluations both have, and how many of them were made with the same settings, by
    their hashes."""
    both = [at for at in a.evaluations if at in b.evaluations]
    same = [at for at in both if a.evaluations[at].config_hash == b.evaluations[at].config_hash]
    return len(both), len(same)


def differing_keys(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The keys of two configurations that differ, with A's value and B's. How a run is watched is
    none of them: no result depends on it, and archives do not have it."""
    first, second = (
        dict(_flat({key: value for key, value in side.items() if key not in WATCHING}))
        for side in (a, b)
    )
    missing = object()
    return [
        (key, *(_shown(side.get(key, missing), missing) for side in (first, second)))
        for key in dict.fromkeys((*first, *second))
        if first.get(key, missing) != second.get(key, missing)
    ]


def _flat(config: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _shown(value: Any, missing: object) -> str:
    if value is missing:
        return "not there"
    text = "null" if value is None else str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def makings(a: Made, b: Made) -> list[tuple[str, str, str]]:
    """Revision, machine and versions that differ, with A's and B's."""
    facts = [("code", a.revisions, b.revisions), ("machine", a.machines, b.machines)]
    facts += [
        (package, a.versions.get(package, ()), b.versions.get(package, ()))
        for package in dict.fromkeys((*a.versions, *b.versions))
    ]
    return [
        (what, ", ".join(first) or DASH, ", ".join(second) or DASH)
        for what, first, second in facts
        if first != second
    ]


# ------------------------------------------------------------------------------------- shown


def summary(shown: Sequence[Compared], a: Results, b: Results) -> list[str]:
    """Sentences on all cells together, and on the settings."""
    scores = [cell for cell in shown if cell.is_score and cell.difference is not None]
    others = [cell for cell in shown if not cell.is_score and cell.difference is not None]
    left = [cell for cell in shown if cell.difference is None]
    same, apart = sum(c.same for c in scores), sum(c.apart for c in scores)
    counted = (
        f"{len(scores)} scores are in both: {same} with the same answers to all questions, "
        f"{len(scores) - same - apart} whose difference has an interval that holds zero, and "
        f"{apart} that lie apart."
    )
    told = [counted]
    if len(scores) > same:
        told.append(
            "Intervals are for new seeds and new questions, and only for new questions where one "
            f"of them has one seed; of equally good models {stats.LEVEL:.0%} lie apart by chance."
        )
    if others:
        equal = sum(c.same for c in others)
        told.append(f"{len(others)} other values are in both, {equal} of them equal.")
    for why in dict.fromkeys(cell.why for cell in left):
        told.append(f"{sum(cell.why == why for cell in left)} cells: {why}.")
    both, equal = settings(a, b)
    told.append(f"{both} evaluations are in both; {equal} have equal hashes of all their settings.")
    return told


def page(shown: Sequence[Compared], a: Results, b: Results) -> str:
    """All of it as Markdown."""
    text = [
        "# Two results compared\n",
        f"- A: `{a.name}`\n- B: `{b.name}`\n",
        *(f"- {plain(sentence)}" for sentence in summary(shown, a, b)),
        "\n## What made them\n",
        *_made(a, b),
    ]
    for one, other, which in ((a, b, "A"), (b, a, "B")):
        if lines := only(one, other):
            text += [f"\n## Only in {which}\n", *(f"- {plain(line)}" for line in lines)]
    text += [
        "\n## Cell by cell\n",
        LEGEND,
    ]
    for number in dict.fromkeys(cell.table for cell in shown):
        rows = [_line(cell) for cell in shown if cell.table == number]
        heads = ("Row", "Column", "A", "B", "Difference", "Over questions", "With seeds", "Seeds")
        text += [f"\n### Table {number}\n", markdown_table(heads, rows, "llrrrrrr")]
    return "\n".join(text) + "\n"


def _made(a: Results, b: Results) -> list[str]:
    rows = [(plain(w), plain(x), plain(y)) for w, x, y in makings(a.made, b.made)]
    text = []
    if a.config is None or b.config is None:
        names = " and ".join(f"`{side.name}`" for side in (a, b) if side.config is None)
        text.append(
            f"{names} has no config.yaml, which says what made it, so keys are not compared.\n"
        )
    else:
        rows += [
            (f"`{key}`", plain(x), plain(y)) for key, x, y in differing_keys(a.config, b.config)
        ]
    if rows:
        text.append(markdown_table(("Differs", "A", "B"), rows, padded=False))
    else:
        text.append("Code, machine, versions and configuration are the same.")
    return text


def _line(cell: Compared) -> tuple[str, ...]:
    if cell.difference is None:
        outcome = (DASH, plain(cell.why), "")
    elif cell.same:
        outcome = ("0", "same answers" if cell.is_score else "", "")
    elif cell.is_score:
        outcome = (
            f"{cell.difference:+.4f}",
            _interval(cell.these),
            _interval(cell.drawn) if cell.drawn else "",
        )
    else:
        outcome = (_ratio(cell), "", "")
    seeds = str(cell.seeds[0]) if cell.seeds[0] == cell.seeds[1] else "{}, {}".format(*cell.seeds)
    values = (_value(value, cell.is_score) for value in (cell.first, cell.second))
    return (plain(cell.row), plain(cell.column), *values, *outcome, seeds)


def _ratio(cell: Compared) -> str:
    if cell.first:
        return f"{cell.difference / cell.first:+.1%}"
    return f"{cell.difference:+.4g}"


def _interval(interval: Interval) -> str:
    text = f"{interval.low:+.4f} to {interval.high:+.4f}"
    return text if _holds(interval, 0.0) else f"**{text}**"


def _value(value: float | None, is_score: bool) -> str:
    if value is None or math.isnan(value):
        return DASH
    return (
        f"{value:.4f}" if is_score else f"{value:.12g}" if value == int(value) else f"{value:.4g}"
    )


def frame(shown: Iterable[Compared]) -> pd.DataFrame:
    """All cells, tidy: a line per cell. Differences and intervals are B less A, as shares of 1 for
    scores."""
    return pd.DataFrame(
        [
            {
                "table": cell.table,
                "row": cell.row,
                "column": cell.column,
                "a": cell.first,
                "b": cell.second,
                "difference": cell.difference,
                "low": cell.these.low if cell.these else None,
                "high": cell.these.high if cell.these else None,
                "seeds_low": cell.drawn.low if cell.drawn else None,
                "seeds_high": cell.drawn.high if cell.drawn else None,
                "same": cell.same,
                "questions": cell.questions,
                "seeds_a": cell.seeds[0],
                "seeds_b": cell.seeds[1],
                "why_not": cell.why,
            }
            for cell in shown
        ]
    )
