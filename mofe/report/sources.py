"""What figures are drawn from: the paper's tables, files of trainings, or the claims.

A source has a job's parameter (`spec`, without file names) and a job's inputs (`files`, in the
order of the spec), and joins the two (`filled`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from mofe import records
from mofe.records import ClaimsRecord
from mofe.study import tables
from mofe.study.tables import Row, Table

if TYPE_CHECKING:
    from mofe.study.plan import Plan


@dataclass(frozen=True)
class FromTables:
    """The paper's columns of these tables, as far as the study has them."""

    numbers: tuple[int | str, ...]
    rows: Callable[[Row], bool] = lambda row: True  # those that the figure shows

    def spec(self, plan: Plan) -> list[Table]:
        return tables.bare(self._tables(plan))

    def files(self, plan: Plan) -> list[str]:
        return tables.files(self._tables(plan))

    def filled(self, spec: Sequence[Table], files: Sequence[str], seeds: int) -> list[Table]:
        return tables.filled(spec, files, seeds)

    def _tables(self, plan: Plan) -> list[Table]:
        there = [self._drawn(plan.tables[n]) for n in self.numbers if n in plan.tables]
        return [table for table in there if table.rows]

    def _drawn(self, table: Table) -> Table:
        rows = tuple(replace(row, beside=()) for row in table.rows if self.rows(row))
        return replace(table, rows=rows, beside=())


@dataclass(frozen=True)
class Trainings:
    """The trainings of one variant: its mix, its recipe, and one file per seed."""

    mix: str
    recipe: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class FromTrainings:
    """One file per training: its loss log or its record."""

    file: Literal["loss_log", "train_json"]  # as mofe.study.addresses.Addresses calls them

    def spec(self, plan: Plan) -> list[tuple[str, str]]:
        return [(v.stages[-1].mix, v.stages[-1].recipe) for v in plan.trained.values()]

    def files(self, plan: Plan) -> list[str]:
        address = getattr(plan.paths, self.file)
        return [address(v, seed) for v in plan.trained.values() for seed in plan.seeds(v)]

    def filled(
        self, spec: Sequence[tuple[str, str]], files: Sequence[str], seeds: int
    ) -> list[Trainings]:
        runs = (tuple(files[at : at + seeds]) for at in range(0, len(files), seeds))
        return [Trainings(*names, files) for names, files in zip(spec, runs, strict=True)]


RECORDS = FromTrainings("train_json")


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
