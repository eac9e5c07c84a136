"""Tables as the report draws them: rows, cells, and the files that each cell is read from.

A job gets its tables in two parts. A `bare` table is a parameter: it is plain data, which Snakemake
compares, and has no file names, so it stays the same when seeds are added or dropped. The files are
the job's inputs, in the order of `files`. `filled` joins the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from mofe.metrics import METRICS
from mofe.paper import LABEL_SEPARATOR
from mofe.study.config import TableSpec
from mofe.study.values import TOKENS_UPDATED, task_metric
from mofe.study.variants import Variant

if TYPE_CHECKING:
    from mofe.study.plan import Plan


@dataclass(frozen=True)
class Cell:
    """What a table shows in one row and column, and the files it is read from.

    kind: "task", a score on a task; its metric's name where that is no share (mofe/metrics.py);
    "floor", what the best constant answer scores on it; or one of SHOWS. files: for a task, one
    eval JSON per seed; for a floor, one; for what SHOWS of trainings, the train.json of every stage
    per seed, and none for an untuned row. task: None for what SHOWS, and where a row has no value.
    metric: the metric of the task that is shown; None means its headline. known: the value, where
    it follows from the configuration. read: a number that replaces the files in a bare table; cells
    that are read from the same files have the same number.
    """

    column: str
    kind: str
    files: tuple = ()
    task: str | None = None
    metric: str | None = None
    known: float | None = None
    read: int | None = None


@dataclass(frozen=True)
class Row:
    """A table's row: its labels as the paper prints them, its cells, and what varies between rows.

    experts: (name, number of slots) of each; none for a dense model. stages: the number of its
    trainings; a row of the constant answer has neither. per_seed: whether each of the study's seeds
    gives another model; else there is one file per task. beside: the cells of columns that the
    paper's table lacks. is_constant: whether it is the row of the constant answer.
    """

    labels: tuple[str, ...]
    cells: tuple[Cell, ...]
    recipe: str | None
    experts: tuple[tuple[str, int], ...]
    frozen: int | None
    stages: int = 0
    per_seed: bool = False
    beside: tuple[Cell, ...] = ()
    is_constant: bool = False


@dataclass(frozen=True)
class Table:
    """A table of the paper or of the user.

    number: its key in the configuration, a number or a word. beside: the headings of columns that
    the paper's table lacks.
    """

    number: int | str
    caption: str
    label_headings: tuple[str, ...]
    columns: tuple[str, ...]
    header: tuple[tuple[str, int], ...]
    rows: tuple[Row, ...]
    beside: tuple[str, ...] = ()


_PLAIN = TypeAdapter(list[Table])


def table(plan: Plan, number: int | str, spec: TableSpec) -> Table:
    """A table with all its files."""
    of_models = {name: _row(plan, spec, name) for name in spec.model_rows}
    first = next(iter(of_models.values()))
    width = len(spec.labels) + len(spec.columns)
    return Table(
        number=number,
        caption=spec.caption + _samples(plan, spec) + _fixed_routers(plan, spec),
        label_headings=tuple(spec.labels),
        columns=tuple(spec.columns),
        header=tuple(spec.header or [("", width)]),
        rows=tuple(of_models.get(name) or _constant(name, first) for name in spec.rows),
        beside=tuple(spec.beside or ()),
    )


def _samples(plan: Plan, spec: TableSpec) -> str:
    """What a caption adds where a column's task asks only a sample of its questions, so that nobody
    takes the number for that of all."""
    tasks, told = plan.study.tasks, []
    for heading, shown in (spec.columns | (spec.beside or {})).items():
        name, _ = task_metric(shown, tasks)
        if name in tasks and (drawn := tasks[name].sample):
            told.append(f"{heading}: a sample of {drawn:,} questions.")
    return "".join(f" {sentence}" for sentence in told)


def _fixed_routers(plan: Plan, spec: TableSpec) -> str:
    """What a caption adds where rows are trained whose tokens have one of several experts, so that
    nobody takes them for rows whose router learns."""
    variants = {name: plan.variant(row) for name, row in spec.model_rows.items()}
    rows = [
        name
        for name, variant in variants.items()
        if variant.stages and not plan.router_learns(variant)
    ]
    if not rows:
        return ""
    named = "; ".join(name.replace(LABEL_SEPARATOR, ", ") for name in rows)
    return (
        f" With one expert per token ({named}), its weight is always 1: the router gets no "
        "gradient, and chooses as it did before training."
    )


def _row(plan: Plan, spec: TableSpec, name: str) -> Row:
    row, beside = spec.rows[name], spec.beside or {}
    variant = plan.variant(row)
    experts = plan.study.mixtures[row.mixture].experts if row.mixture else {}
    return Row(
        labels=tuple(name.split(LABEL_SEPARATOR)),
        cells=tuple(_cell(plan, h, shown, variant) for h, shown in spec.columns.items()),
        recipe=variant.stages[-1].recipe if variant.stages else None,
        experts=tuple(experts.items()),
        frozen=_frozen(plan, variant),
        stages=len(variant.stages),
        per_seed=plan.is_per_seed(variant),
        beside=tuple(_cell(plan, h, shown, variant) for h, shown in beside.items()),
    )


def _constant(name: str, like: Row) -> Row:
    """The row of the constant answer, whose floors are read from the evaluations of another row."""

    def floor(cell: Cell) -> Cell:
        if cell.kind != "task":
            return replace(cell, files=(), task=None)
        return replace(cell, kind="floor", files=cell.files[:1])

    return Row(
        labels=tuple(name.split(LABEL_SEPARATOR)),
        cells=tuple(map(floor, like.cells)),
        recipe=None,
        experts=(),
        frozen=None,
        beside=tuple(map(floor, like.beside)),
        is_constant=True,
    )


def files(tables: Iterable[Table]) -> list[str]:
    """The files of all cells, cell by cell. Files that several cells are read from are listed
    once."""
    distinct = dict.fromkeys(cell.files for _, cell in _cells(tables))
    runs = [run for files in distinct for run in files]
    return [file for run in runs for file in ([run] if isinstance(run, str) else run)]


def evaluations(tables: Iterable[Table]) -> list[str]:
    """The JSON files of all evaluations that the tables show, each once."""
    scored = (cell.files for _, cell in _cells(tables) if cell.task and cell.kind != "floor")
    return list(dict.fromkeys(file for files in scored for file in files))


def bare(tables: Iterable[Table]) -> list[dict[str, Any]]:
    """The tables without their files, as plain data. `Cell.read` is equal for cells that are read
    from the same files."""
    numbers: dict[tuple, int] = {}

    def number(row: Row, cell: Cell) -> Cell:
        return replace(cell, files=(), read=numbers.setdefault(cell.files, len(numbers)))

    return _PLAIN.dump_python([_with_cells(table, number) for table in tables], mode="json")


def filled(bare: Iterable[Mapping[str, Any]], given: Iterable[str], seeds: int) -> list[Table]:
    """Bare tables with their files. given: as `files` lists them; seeds: the number of seeds.

    Raises ValueError where there are more or fewer files than the cells need.
    """
    left, read = iter(given), {}

    def fill(row: Row, cell: Cell) -> Cell:
        if cell.read not in read:
            read[cell.read] = _files_of(row, cell, left, seeds)
        return replace(cell, files=read[cell.read], read=None)

    complete = [_with_cells(table, fill) for table in _PLAIN.validate_python(list(bare))]
    if more := list(left):
        raise ValueError(f"tables: {more[0]} belongs to no cell")
    return complete


def _files_of(row: Row, cell: Cell, left: Iterator[str], seeds: int) -> tuple:
    if cell.task:
        return tuple(_take(left, seeds if row.per_seed else 1))
    runs = seeds if row.stages else 0
    return tuple(tuple(_take(left, row.stages)) for _ in range(runs))


def _take(left: Iterator[str], count: int) -> Iterator[str]:
    for _ in range(count):
        if (file := next(left, None)) is None:
            raise ValueError("tables: a cell lacks its file")
        yield file


def _cells(tables: Iterable[Table]) -> Iterator[tuple[Row, Cell]]:
    for table in tables:
        for row in table.rows:
            yield from ((row, cell) for cell in (*row.cells, *row.beside))


def _with_cells(table: Table, change: Callable[[Row, Cell], Cell]) -> Table:
    def changed(row: Row, cells: tuple[Cell, ...]) -> tuple[Cell, ...]:
        return tuple(change(row, cell) for cell in cells)

    rows = (
        replace(row, cells=changed(row, row.cells), beside=changed(row, row.beside))
        for row in table.rows
    )
    return replace(table, rows=tuple(rows))


def _cell(plan: Plan, heading: str, shown: str, variant: Variant) -> Cell:
    task, metric = task_metric(shown, plan.study.tasks)
    if task in plan.study.tasks:
        evaluations = tuple(plan.paths.eval_json(variant, s, task) for s in plan.seeds(variant))
        measured = metric or ("perplexity" if plan.study.asks_text(task) else None)
        kind = "task" if measured is None or METRICS[measured].is_share else measured
        return Cell(heading, kind, evaluations, task, metric)
    if not variant.stages:
        return Cell(heading, shown)
    stages = (*variant.parents, variant)
    return Cell(
        heading,
        shown,
        tuple(tuple(plan.paths.train_json(v, s) for v in stages) for s in plan.seeds(variant)),
        known=plan.share_to_updated(variant) if shown == TOKENS_UPDATED else None,
    )


def _frozen(plan: Plan, variant: Variant) -> int | None:
    """How many experts the last stage freezes to its end; None for an untuned or a dense model."""
    if not variant.stages or not variant.origin.experts:
        return None
    return len(plan.method(variant).frozen_slots(len(variant.origin.experts)))
