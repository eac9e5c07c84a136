"""The paper's tables as the report draws them: rows, cells, and the files that each cell is read from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from mofe.study.config import TableSpec
from mofe.study.variants import Variant

if TYPE_CHECKING:
    from mofe.study.plan import Plan

# The report's figures, and the tables they are drawn from.
FIGURES = {"time_accuracy": (1, 2), "medical_experts": (3, 4), "frozen_experts": (7,)}


@dataclass(frozen=True)
class Cell:
    """What a table shows in one row and column, and the files it is read from.

    files: for a task one eval JSON a seed; for `trainable` and `time` per seed the train.json of
    every stage; none for an untuned row's `trainable` and `time`.
    """

    column: str
    kind: str  # "trainable", "time" or "task"
    files: tuple = ()
    task: str | None = None


@dataclass(frozen=True)
class Row:
    """A table's row: its labels as the paper prints them, its cells, and what it varies.

    beside: the cells of the columns that the paper's table lacks.
    """

    labels: tuple[str, ...]
    cells: tuple[Cell, ...]
    mixture: str
    recipe: str | None
    experts: tuple[tuple[str, int], ...]
    frozen: int | None
    data: str | None = None
    beside: tuple[Cell, ...] = ()


class Curve(NamedTuple):
    """A trained variant's loss: its training data, its recipe, and its log.jsonl for each seed."""

    data: str
    recipe: str
    logs: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table of the paper, as the report draws it; `beside` heads columns that the paper lacks."""

    number: int
    caption: str
    label_headings: tuple[str, ...]
    columns: tuple[str, ...]
    header: tuple[tuple[str, int], ...]
    rows: tuple[Row, ...]
    beside: tuple[str, ...] = ()


def table(plan: Plan, number: int, spec: TableSpec) -> Table:
    rows, beside = [], spec.beside or {}
    for row in spec.rows:
        variant = plan.variant(row)
        last = variant.stages[-1] if variant.stages else None
        rows.append(
            Row(
                labels=tuple(row.labels),
                cells=tuple(_cell(plan, h, shown, variant) for h, shown in spec.columns.items()),
                mixture=row.mixture,
                recipe=last.recipe if last else None,
                experts=tuple(plan.study.mixtures[row.mixture].experts.items()),
                frozen=plan.method(variant).frozen_experts(len(variant.moe.experts))
                if last
                else None,
                data=last.mix if last else None,
                beside=tuple(_cell(plan, h, task, variant) for h, task in beside.items()),
            )
        )
    width = len(spec.labels) + len(spec.columns)
    return Table(
        number=number,
        caption=spec.caption,
        label_headings=tuple(spec.labels),
        columns=tuple(spec.columns),
        header=tuple(spec.header or [("", width)]),
        rows=tuple(rows),
        beside=tuple(beside),
    )


def _cell(plan: Plan, heading: str, shown: str, variant: Variant) -> Cell:
    if shown in plan.study.tasks:
        files = tuple(plan.paths.eval_json(variant, s, shown) for s in plan.seeds(variant))
        return Cell(heading, "task", files, shown)
    if not variant.stages:
        return Cell(heading, shown)
    stages = (*variant.parents, variant)
    return Cell(
        heading,
        shown,
        tuple(tuple(plan.paths.train_json(v, s) for v in stages) for s in plan.seeds(variant)),
    )
