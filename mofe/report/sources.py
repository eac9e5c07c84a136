"""What figures are drawn from: tables, shares of gains, files of trainings, searches, or claims.

A source has a job's parameter (`spec`, without file names) and a job's inputs (`files`, in the
order of the spec), and joins the two (`filled`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from mofe import records
from mofe.paper import LABEL_SEPARATOR
from mofe.records import ClaimsRecord
from mofe.study import tables
from mofe.study.claims import SHARE, Claim
from mofe.study.tables import Row, Table

if TYPE_CHECKING:
    from mofe.study.plan import Plan
    from mofe.study.variants import Variant


@dataclass(frozen=True)
class FromTables:
    """The paper's columns of these tables, as far as the study has them."""

    numbers: tuple[int | str, ...]
    rows: Callable[[Row], bool] = lambda row: True  # those that the figure shows

    def spec(self, plan: Plan) -> list[Mapping[str, Any]]:
        return tables.bare(self._tables(plan))

    def files(self, plan: Plan) -> list[str]:
        return tables.files(self._tables(plan))

    def filled(
        self, spec: Sequence[Mapping[str, Any]], files: Sequence[str], seeds: int
    ) -> list[Table]:
        return tables.filled(spec, files, seeds)

    def _tables(self, plan: Plan) -> list[Table]:
        there = [self._drawn(plan.tables[n]) for n in self.numbers if n in plan.tables]
        return [table for table in there if table.rows]

    def _drawn(self, table: Table) -> Table:
        rows = tuple(replace(row, beside=()) for row in table.rows if self.rows(row))
        return replace(table, rows=rows, beside=())


@dataclass(frozen=True)
class Shared:
    """The shares of gains in a table.

    table: its rows that the shares are of, with the columns of scores and of what training takes.
    parts: (column, row that keeps the gain, row that has all of it, row that both start from).
    limits: the shares that are claimed.
    """

    table: Table
    parts: tuple[tuple[str, str, str, str], ...]
    limits: tuple[float, ...]


TAKES = ("trainable", "time", "memory")  # what training takes, of what a column shows (SHOWS)


@dataclass(frozen=True)
class FromShares:
    """The gains that claims of kind `share` are about in a table of theirs.

    Beside the row that a claim names, every row keeps a share of the same gain that differs from
    the row with all of it in the last label alone. Only rows that are trained do, and only of a
    table that shows something of TAKES.
    """

    number: int | str

    def spec(self, plan: Plan) -> list[dict[str, Any]]:
        parts = self._parts(plan)
        if not parts:
            return []
        limits = tuple(dict.fromkeys(claim.limit for claim in self._claims(plan)))
        (table,) = tables.bare([self._table(plan)])
        return [{"table": table, "parts": parts, "limits": limits}]

    def files(self, plan: Plan) -> list[str]:
        return tables.files([self._table(plan)]) if self._parts(plan) else []

    def filled(self, spec: Sequence[Mapping[str, Any]], files: Sequence[str], seeds: int) -> Shared:
        (given,) = spec
        (table,) = tables.filled([given["table"]], files, seeds)
        return Shared(table, tuple(map(tuple, given["parts"])), tuple(given["limits"]))

    def _claims(self, plan: Plan) -> list[Claim]:
        """Those of which the study has every cell, all in this table."""
        claims = {name: plan.study.claims[name] for name, cells in plan.claims.items() if cells}
        return [c for c in claims.values() if c.kind == SHARE and c.tables() == (self.number,)]

    def _parts(self, plan: Plan) -> list[tuple[str, str, str, str]]:
        """(column, first, whole, start) of each share; none where there is nothing to draw."""
        rows = plan.tables[self.number].rows
        if not any(cell.kind in TAKES for row in rows for cell in (*row.cells, *row.beside)):
            return []
        trained = {LABEL_SEPARATOR.join(row.labels): row.labels for row in rows if row.stages}
        gains = [
            (column, *(row.row for row in triple))
            for claim in self._claims(plan)
            for column, triples in claim.parts.items()
            for triple in triples
        ]
        found = [
            (column, row, whole, start)
            for column, first, whole, start in gains
            if whole in trained
            for row, labels in trained.items()
            if row == first or labels[:-1] == trained[whole][:-1]
            if row not in (whole, start)
        ]
        return list(dict.fromkeys(found))

    def _table(self, plan: Plan) -> Table:
        table, parts = plan.tables[self.number], self._parts(plan)
        columns = {column for column, *_ in parts}
        named = {name for _, *names in parts for name in names}
        rows = tuple(
            replace(
                row,
                cells=tuple(
                    cell
                    for cell in (*row.cells, *row.beside)
                    if cell.column in columns or cell.kind in TAKES
                ),
                beside=(),
            )
            for row in table.rows
            if LABEL_SEPARATOR.join(row.labels) in named
        )
        return replace(table, rows=rows, beside=())


@dataclass(frozen=True)
class Trainings:
    """The trainings of one variant: its mix, its recipe, and one file per seed."""

    mix: str
    recipe: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class FromTrainings:
    """One file per training: its loss log or its record.

    numbered: only trainings of tables whose key is a number, as the paper's, if there are any: with
    those of the controls, a panel of loss curves would have too many lines.
    """

    file: Literal["loss_log", "train_json"]  # as mofe.study.addresses.Addresses calls them
    numbered: bool = False

    def spec(self, plan: Plan) -> list[tuple[str, str]]:
        return [(v.stages[-1].mix, v.stages[-1].recipe) for v in self._variants(plan)]

    def files(self, plan: Plan) -> list[str]:
        address = getattr(plan.paths, self.file)
        return [address(v, seed) for v in self._variants(plan) for seed in plan.seeds(v)]

    def _variants(self, plan: Plan) -> list[Variant]:
        trained = list(plan.trained.values())
        numbers = [key for key in plan.tables if isinstance(key, int)] if self.numbered else []
        shown = {v for last in plan.shown_in(*numbers) for v in (*last.parents, last)}
        return [variant for variant in trained if variant in shown] or trained

    def filled(
        self, spec: Sequence[tuple[str, str]], files: Sequence[str], seeds: int
    ) -> list[Trainings]:
        runs = (tuple(files[at : at + seeds]) for at in range(0, len(files), seeds))
        return [Trainings(*names, files) for names, files in zip(spec, runs, strict=True)]


@dataclass(frozen=True)
class Routed:
    """The trainings of one mixture that record its routers.

    mixture: its name. stages: what it is trained on, and how. slots: the expert of each slot.
    files: the loss log of each seed.
    """

    mixture: str
    stages: str
    slots: tuple[str, ...]
    files: tuple[str, ...]


@dataclass(frozen=True)
class FromRouters:
    """The logs of all trainings that record the routers of a mixture."""

    def spec(self, plan: Plan) -> list[tuple[str, str, tuple[str, ...]]]:
        """(mixture, stages, slots) of each."""
        return [(v.origin.name, v.name, v.origin.experts) for v in self._variants(plan)]

    def files(self, plan: Plan) -> list[str]:
        variants = self._variants(plan)
        return [plan.paths.loss_log(v, seed) for v in variants for seed in plan.seeds(v)]

    def _variants(self, plan: Plan) -> list[Variant]:
        return [v for v in plan.trained.values() if plan.params.record_router(v)]

    def filled(
        self, spec: Sequence[tuple[str, str, tuple[str, ...]]], files: Sequence[str], seeds: int
    ) -> list[Routed]:
        runs = (tuple(files[at : at + seeds]) for at in range(0, len(files), seeds))
        return [
            Routed(mixture, stages, tuple(slots), logs)
            for (mixture, stages, slots), logs in zip(spec, runs, strict=True)
        ]


RECORDS = FromTrainings("train_json")


@dataclass(frozen=True)
class Searched:
    """The search for the learning rate of one variant, and what the best rate then scored.

    model: the mixture or dense model. mix, recipe: of the last stage. search: its search.json.
    scores: by task that tables show, one evaluation per seed.
    """

    model: str
    mix: str
    recipe: str
    search: str
    scores: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class FromSearches:
    """Every search for a learning rate, with the evaluations of the variant that it is for."""

    def spec(self, plan: Plan) -> list[tuple[str, str, str, tuple[str, ...]]]:
        """(model, mix, recipe, tasks) of each search."""
        variants = [plan.variants[key] for key in plan.searches]
        return [
            (v.origin.name, v.stages[-1].mix, v.stages[-1].recipe, self._tasks(plan, v))
            for v in variants
        ]

    def _tasks(self, plan: Plan, variant: Variant) -> tuple[str, ...]:
        """The tasks on which the variant has a score."""
        tasks = plan.tasks.get(variant.key, ())
        return tuple(task for task in tasks if not plan.study.asks_text(task))

    def files(self, plan: Plan) -> list[str]:
        found = []
        for variant in (plan.variants[key] for key in plan.searches):
            found.append(plan.paths.search_json(variant))
            for task in self._tasks(plan, variant):
                found += [plan.paths.eval_json(variant, s, task) for s in plan.seeds(variant)]
        return found

    def filled(
        self,
        spec: Sequence[tuple[str, str, str, tuple[str, ...]]],
        files: Sequence[str],
        seeds: int,
    ) -> list[Searched]:
        left, found = iter(files), []
        for *names, tasks in spec:
            search = next(left)
            scores = {task: tuple(itertools.islice(left, seeds)) for task in tasks}
            found.append(Searched(*names, search, scores))
        return found


@dataclass(frozen=True)
class FromClaims:
    """The verdicts on all claims (claims.json), which every study has."""

    def spec(self, plan: Plan) -> list[str]:
        return ["claims"]

    def files(self, plan: Plan) -> list[str]:
        return [plan.paths.claims("json")]

    def filled(self, spec: Sequence[str], files: Sequence[str], seeds: int) -> ClaimsRecord:
        (file,) = files
        return records.read(file, ClaimsRecord)


def by_mix(
    mixes: Mapping[str, Sequence[str]], trainings: Sequence[Trainings]
) -> dict[str, dict[str, Sequence[str]]]:
    """The `data` sets of every mix (Plan.mixes), and the files of its `trainings`."""
    files: dict[str, list[str]] = {mix: [] for mix in mixes}
    for runs in trainings:
        files[runs.mix].extend(runs.files)
    return {mix: {"data": data, "trainings": files[mix]} for mix, data in mixes.items()}
