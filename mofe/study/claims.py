"""Claims: what the paper says, as comparisons of rows, and how each is judged.

mofe/claims.yaml has the paper's claims and some of ours; a study's `claims:` overlays it. A claim
names its cells by table, row and column, so it stays the same whatever a study trains. `faults`
checks claims like the configuration, and `claimed` finds what one is read from. Imports neither
torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import yaml
from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from mofe import paper
from mofe.metrics import METRICS
from mofe.records import Scale
from mofe.study.values import SHOWS, Part, TableKey, task_metric
from mofe.study.words import suggest

if TYPE_CHECKING:
    from mofe.study.config import Study
    from mofe.study.tables import Table

FILE = Path(__file__).parents[1] / "claims.yaml"

ON_SCORES = ("all", "mean", "some", "equal")  # kinds that compare scores
PAIRED = (*ON_SCORES, "less")  # kinds whose parts are pairs of rows
SHARE = "share"  # the kind whose parts are triples of rows
TIMED = ("flat", "rising", "less")  # kinds that compare training times

Kind = Literal["all", "mean", "some", "equal", "share", "flat", "rising", "less", "count"]


class RowOf(Part):
    """A row that a claim names. table: None for the claim's own table."""

    row: str = Field(description="The row's labels.")
    table: TableKey | None = Field(None, description="Its table, if it is another.")


def _row_of(value: Any) -> Any:
    """A row's labels, or {table: labels} for a row of another table."""
    if isinstance(value, Mapping) and len(value) == 1:
        ((table, row),) = value.items()
        return {"table": table, "row": row}
    return {"row": str(value)} if isinstance(value, str | int) else value


Row = Annotated[RowOf, BeforeValidator(_row_of, json_schema_input_type=str | dict[TableKey, str])]
Rows = Annotated[list[Row], Field(min_length=2)]
ByColumn = dict[str, Annotated[list[Rows], Field(min_length=1)]]


@dataclass(frozen=True)
class CellOf:
    """A cell that a claim names."""

    table: int | str
    row: str
    column: str


class Unasked(NamedTuple):
    """The verdict of a study that is not asked, and why."""

    verdict: Literal["cannot be asked here", "not run"]
    why: str


SHARED = Unasked(
    "not run",
    "Trainings may share a machine; set hardware.exclusive where each has one to itself.",
)


class Claim(Part):
    """A claim: what it says, its parts, and the kind of its test."""

    says: str = Field(description="The claim, in one sentence.")
    quote: str | None = Field(None, description="The paper's own words.")
    place: str = Field(description="Where the paper says so.")
    section: str = Field(
        description="The family of claims over which p is corrected (Holm): the paper's section."
    )
    in_paper: bool = Field(
        True, description="Whether the paper claims it. Others are shown, and not counted."
    )
    table: TableKey = Field(description="The table that has the rows.")
    kind: Kind = Field(
        description="`all`: every part points the claimed way. `mean`: the mean of the parts does. "
        "`some`: at least one part does. `equal`: no part differs by more than `evidence.margin`. "
        "`share`: of what the second row gains over the third, the first row gains at least the "
        "share `limit`, in every part. "
        "Of training times: `flat`, equal within rounding; `rising`, each row takes longer than "
        "the one before; `less`, the first row takes less than `ratio` times the second. `count`: "
        "numbers of parameters that grow, and those of `constant` that do not."
    )
    parts: Annotated[ByColumn, Field(min_length=1)] = Field(
        description="By column, the comparisons. Each is a pair of rows, the one that is claimed "
        "to be greater (of times: smaller) first; of `share` three rows, the one that keeps the "
        "gain, the one that has all of it, and the one that both start from; of `flat`, `rising` "
        "and `count` two or more rows in order. `{table: row}` is a row of another table."
    )
    constant: ByColumn = Field(
        {}, description="With `count`: by column, rows whose numbers are equal to two digits."
    )
    ratio: Annotated[float, Field(gt=0)] | None = Field(
        None, description="With `less`: the greatest ratio that is claimed, 1 if it is left out."
    )
    limit: Annotated[float, Field(gt=0)] | None = Field(
        None, description="With `share`: the least share that is claimed, such as 0.9."
    )
    runs: list[Rows] = Field(
        [],
        description="Rows that are one function. The paper's numbers are then tested in a second "
        "reading too, with these rows as runs of it.",
    )
    cannot: str | None = Field(
        None, description="Why a miniature cannot be asked, where that is known beforehand."
    )
    exact: str | None = Field(
        None, description="Why the claim follows from the definition, where it does."
    )

    @property
    def greatest_ratio(self) -> float:
        """The ratio of times that a claim of smaller ones stays below."""
        return 1.0 if self.ratio is None else self.ratio

    @model_validator(mode="after")
    def _share(self):
        if self.kind != SHARE:
            if self.limit is not None:
                raise PydanticCustomError(
                    "limit", "'limit' goes with kind 'share' only; leave it out"
                )
            return self
        if {len(rows) for lists in self.parts.values() for rows in lists} != {3}:
            raise PydanticCustomError(
                "triples",
                "parts of a claim of kind 'share' are triples of rows; give in each the row that "
                "keeps the gain, the row that has all of it, and the row that both start from",
            )
        if self.limit is None:
            raise PydanticCustomError(
                "no_limit",
                "kind 'share' needs 'limit', the least share that is claimed; give one, such as "
                "'limit: 0.9'",
            )
        if self.in_paper:
            raise PydanticCustomError(
                "papers_share",
                "kind 'share' is none of the paper's claims; set 'in_paper: false'",
            )
        return self

    @model_validator(mode="after")
    def _pairs(self):
        lengths = {len(rows) for lists in self.parts.values() for rows in lists}
        if self.kind in PAIRED and lengths != {2}:
            raise PydanticCustomError(
                "pairs",
                "parts of a claim of kind '{kind}' are pairs of rows; give two rows in each",
                {"kind": self.kind},
            )
        if self.constant and self.kind != "count":
            raise PydanticCustomError(
                "constant", "'constant' goes with kind 'count' only; leave it out"
            )
        if self.ratio is not None and self.kind != "less":
            raise PydanticCustomError("ratio", "'ratio' goes with kind 'less' only; leave it out")
        for rows in (rows for lists in self.parts.values() for rows in lists):
            if twin := next((row for row in rows if rows.count(row) > 1), None):
                raise PydanticCustomError(
                    "twin",
                    "row {row} is compared with itself; name another",
                    {"row": repr(twin.row)},
                )
        return self

    def cells(self) -> list[CellOf]:
        """Every cell that the claim is read from, each once."""
        found = [
            CellOf(row.table or self.table, row.row, column)
            for lists in (self.parts, self.constant)
            for column, comparisons in lists.items()
            for rows in comparisons
            for row in rows
        ]
        return list(dict.fromkeys(found))

    def unasked(self, scale: Scale, exclusive: bool) -> Unasked | None:
        """Why a study has no answer whatever it measures; None where it has to be run. Numbers of
        parameters are exact in each. exclusive: whether every training has its machine to
        itself."""
        if self.kind == "count":
            return None
        if self.cannot and scale == "miniature":
            return Unasked("cannot be asked here", self.cannot)
        return SHARED if self.kind in TIMED and not exclusive else None

    def tables(self) -> tuple[int | str, ...]:
        """The tables that it is about, its own first."""
        return tuple(dict.fromkeys((self.table, *(cell.table for cell in self.cells()))))


@cache
def shipped() -> Mapping[str, Any]:
    """The claims of mofe/claims.yaml, as plain data."""
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def claimed(tables: Mapping[int | str, Table], claim: Claim) -> list[Table] | None:
    """The study's tables with only the rows and columns that the claim compares; None where a cell
    is not there, so that the claim is not run."""
    wanted: dict[int | str, list[CellOf]] = {}
    for cell in claim.cells():
        wanted.setdefault(cell.table, []).append(cell)
    if any(_lacking(tables, cell) for cell in claim.cells()):
        return None
    return [_restricted(tables[key], cells) for key, cells in wanted.items()]


def _restricted(table: Table, cells: Sequence[CellOf]) -> Table:
    named, columns = {c.row for c in cells}, {c.column for c in cells}
    rows = [
        replace(
            row,
            cells=tuple(c for c in (*row.cells, *row.beside) if c.column in columns),
            beside=(),
        )
        for row in table.rows
        if paper.LABEL_SEPARATOR.join(row.labels) in named
    ]
    return replace(table, rows=tuple(rows), beside=())


def _lacking(tables: Mapping[int | str, Table], cell: CellOf) -> bool:
    table = tables.get(cell.table)
    if table is None or cell.column not in (*table.columns, *table.beside):
        return True
    return cell.row not in [paper.LABEL_SEPARATOR.join(row.labels) for row in table.rows]


# ---------------------------------------------------------------------------------- its faults


def faults(study: Study, tables: Mapping[Any, Any], own: Collection[str]) -> Iterator[str]:
    """A sentence for every claim of the study's own with a cell that no table has.

    tables: the configuration's `tables` as merged, with what an overlay sets to null. own: the
    names of the claims that the configuration writes. A cell that the paper prints, or that the
    study leaves out by null, is no fault: its claim is not run. The claims of mofe/claims.yaml are
    those of config.yaml's tables, which a study may replace.
    """
    if not study.claims:
        yield "claims: all are null; leave one of mofe/claims.yaml, or write one"
    given = {_key(key): value for key, value in tables.items()}
    for name, claim in study.claims.items():
        if name not in own:
            continue
        found = [_fault(study, given, cell) or _unfit(study, claim, cell) for cell in claim.cells()]
        if fault := next(filter(None, (*found, _mixed(study, claim), _stray(claim))), None):
            yield f"claims.{name}: {fault}; correct it, or set claims.{name} to null"


def _fault(study: Study, given: Mapping, cell: CellOf) -> str | None:
    """What is wrong with a cell; None where it is there, or the study leaves it out."""
    if paper.printed(cell.table, cell.row, cell.column) is not None:
        return None
    table = study.tables.get(cell.table)
    if table is None:
        if given.get(cell.table, ...) is None:
            return None
        return f"there is no table {cell.table}{suggest(cell.table, study.tables)}"
    columns = (*table.columns, *(table.beside or {}))
    raw = given.get(cell.table) or {}
    if cell.column not in columns and raw.get("beside", ...) is not None:
        return f"table {cell.table} has no column {cell.column!r}{suggest(cell.column, columns)}"
    left_out = {str(row) for row, value in (raw.get("rows") or {}).items() if value is None}
    if cell.row not in table.rows and cell.row not in left_out:
        return f"table {cell.table} has no row {cell.row!r}{suggest(cell.row, table.rows)}"
    return None


def _unfit(study: Study, claim: Claim, cell: CellOf) -> str | None:
    """Why a cell cannot be compared by the claim's kind; None where it can, or is not there."""
    table = study.tables.get(cell.table)
    columns = {**table.columns, **(table.beside or {})} if table else {}
    if cell.column not in columns:
        return None
    shown = columns[cell.column]
    wanted = "time" if claim.kind in TIMED else "trainable" if claim.kind == "count" else "a score"
    if wanted in SHOWS:
        fits = shown == wanted
    else:
        task, metric = task_metric(shown, study.tasks)
        fits = task in study.tasks and (
            METRICS[metric].is_share if metric else not study.asks_text(task)
        )
    if not fits:
        return f"kind '{claim.kind}' compares {wanted}, and column {cell.column!r} shows {shown}"
    row = table.rows.get(cell.row)
    if row and row.constant:
        return f"row {cell.row!r} is the constant answer, which no seed and no model moves"
    if row and wanted in SHOWS and not row.train:
        return f"row {cell.row!r} is untuned, so it has no {wanted}"
    return None


def _mixed(study: Study, claim: Claim) -> str | None:
    """Which column of the claim shows different things in its tables; None if there is none."""
    shown: dict[str, str] = {}
    for cell in claim.cells():
        if table := study.tables.get(cell.table):
            here = {**table.columns, **(table.beside or {})}.get(cell.column)
            if here and shown.setdefault(cell.column, here) != here:
                return (
                    f"column {cell.column!r} shows {shown[cell.column]} in one table and {here} in "
                    "another"
                )
    return None


def _stray(claim: Claim) -> str | None:
    """Which row of `runs` the paper does not print in a column of the claim; None if there is
    none."""
    for row in (row for rows in claim.runs for row in rows):
        table = row.table or claim.table
        for column in claim.parts:
            if paper.printed(table, row.row, column) is None:
                return f"'runs' has row {row.row!r}, which the paper's table {table} does not print"
    return None


def _key(key: Any) -> int | str:
    return int(key) if str(key).isdecimal() else str(key)
