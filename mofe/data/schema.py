"""What the columns of a benchmark's rows must hold, whatever repository they come from, and columns
that the configuration names.

A benchmark has the name that lm-eval's task files give its data set (`dataset_path`): another data
set that the same task reads has the same columns. Faults are found before prompts are made; an
error names the repository, the column and the row.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

from datasets import ClassLabel, Dataset, List, Value

Check = Callable[[Any], str | None]  # what is wrong with a value, or None

UNLABELLED = -1
CLUSTER = "mofe_cluster"  # the column of `clustered`
# Columns of text without which a row is no question. Such rows are left out and are no fault: large
# data sets have some.
NEEDED = {
    "cais/mmlu": ("question",),
    "openlifescienceai/medmcqa": ("question",),
    "sujet-ai/Sujet-Finance-Instruct-177k": ("inputs", "answer"),
}


def _text(value: Any) -> str | None:
    if not isinstance(value, str):
        return f"is {value!r}, not text"
    return None if value.strip() else "is empty"


def _string(value: Any) -> str | None:
    return None if isinstance(value, str) else f"is {value!r}, not text"


def _options(number: int) -> Check:
    def check(value: Any) -> str | None:
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            return f"is {value!r}, not a list of texts"
        return None if len(value) == number else f"has {len(value)} choices, not {number}"

    return check


def _label(number: int) -> Check:
    def check(value: Any) -> str | None:
        ok = type(value) is int and (0 <= value < number or value == UNLABELLED)
        return None if ok else f"is {value!r}, not a label from 0 to {number - 1}"

    return check


def _one_of(*words: str) -> Check:
    def check(value: Any) -> str | None:
        return None if value in words else f"is {value!r}, not one of {', '.join(words)}"

    return check


def _contexts(value: Any) -> str | None:
    texts = value.get("contexts") if isinstance(value, Mapping) else None
    if not texts or not all(isinstance(text, str) for text in texts):
        return "has no list of texts 'contexts'"
    return None


SCHEMAS: dict[str, dict[str, Check]] = {
    "cais/mmlu": {"question": _string, "choices": _options(4), "answer": _label(4)},
    "openlifescienceai/medmcqa": {
        **dict.fromkeys(("question", "opa", "opb", "opc", "opd"), _string),
        "cop": _label(4),
    },
    "qiaojin/PubMedQA": {
        "question": _text,
        "context": _contexts,
        "final_decision": _one_of("yes", "no", "maybe"),
    },
    "sujet-ai/Sujet-Finance-Instruct-177k": {
        "inputs": _text,
        "answer": _text,
        "dataset": _text,
        "task_type": _text,
    },
}
# The column whose value says which option is right, where it can be UNLABELLED.
LABELS = {"cais/mmlu": "answer", "openlifescienceai/medmcqa": "cop"}
LETTERS = "ABCD"  # of the options that labels count


WHOLE = re.compile(r"-?[1-9][0-9]{0,17}|0")
INDEX = re.compile(r"(-?(?:0|[1-9][0-9]*))(?:\.0+)?")


def index(value: Any) -> int | None:
    """The whole number that a value stands for, also where it is written as a text (`2`, `2.0`) or
    a float, as pandas writes a column with gaps; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    found = INDEX.fullmatch(str(value).strip()) if isinstance(value, str | Decimal) else None
    return int(found[1]) if found else None


def absent(value: Any) -> bool:
    """Whether a value is one of the spellings of nothing: null, NaN, or a text without
    characters."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and not value.strip())


def check(benchmark: str, rows: Dataset, repo: str, *, labelled: bool) -> Dataset:
    """The rows, if they fit the benchmark's schema; labels that are written as texts or floats
    become integers. A benchmark without a schema accepts all rows; its code expects numbers where a
    delimited file has them, so columns of whole numbers become integers, which changes no text.

    repo: for the message. labelled: rows without a label are faults too, as in a test set. Raises
    ValueError naming the first fault's column and row (from 0).
    """
    columns, label = SCHEMAS.get(benchmark), LABELS.get(benchmark)
    if columns is None:
        return _whole_numbers(rows)
    if label:
        _require(columns, rows, repo)
        rows = _numbered(rows, label, repo)
    _check(columns, rows, repo)
    if labelled and label and UNLABELLED in (values := rows.select_columns(label)[:][label]):
        raise ValueError(
            f"{repo}: row {values.index(UNLABELLED)} has no label (column {label!r} is "
            f"{UNLABELLED}), so it cannot be asked as a test question; choose a labelled split"
        )
    return rows


def _whole_numbers(rows: Dataset) -> Dataset:
    """The rows of a delimited file, with integers in the columns whose every cell is the text of
    one."""
    if rows.info.builder_name != "csv" or not len(rows):
        return rows
    for column, kind in rows.features.items():
        whole = kind == Value("string") and all(map(WHOLE.fullmatch, rows[column]))
        if whole:
            rows = rows.cast_column(column, Value("int64"))
    return rows


def _numbered(rows: Dataset, column: str, repo: str) -> Dataset:
    """The rows with a column of labels as integers, also where it has them as texts, as floats, or
    as the options' letters. Raises ValueError where a label is none of these, and for classes that
    are named otherwise."""
    kind = rows.features[column]
    if isinstance(kind, ClassLabel):
        indices = [str(number) for number in range(kind.num_classes)]
        if [name.upper() for name in kind.names] not in (
            list(LETTERS[: kind.num_classes]),
            indices,
        ):
            raise ValueError(
                f"{repo}: the classes of column {column!r} are {', '.join(kind.names)}, not "
                f"{', '.join(LETTERS)} in their order; give the options' indices, from 0"
            )
        return rows
    if isinstance(kind, Value) and kind.dtype.startswith(("int", "uint")):
        return rows
    numbers = []
    for row, value in enumerate(rows[column]):
        letter = value.strip() if isinstance(value, str) else ""
        numbers.append(
            UNLABELLED
            if absent(value)
            else LETTERS.index(letter)
            if len(letter) == 1 and letter in LETTERS
            else index(value)
        )
        if numbers[-1] is None:
            raise ValueError(f"{repo}: column {column!r} of row {row} is {value!r}, not a label")
    return rows.remove_columns(column).add_column(column, numbers)


def complete(benchmark: str, rows: Dataset, repo: str) -> Dataset:
    """The rows that have text in every column that they need (NEEDED). Raises ValueError where
    there is no such column."""
    needed = NEEDED.get(benchmark, ())
    _require(needed, rows, repo)
    held = rows.select_columns(list(needed))[:] if needed else {}
    empty = {i for column in held.values() for i, value in enumerate(column) if absent(value)}
    return rows.select([i for i in range(len(rows)) if i not in empty]) if empty else rows


def column(rows: Dataset, path: str, key: str, where: str) -> list:
    """A column's values. A dot leads into a column of mappings, as in `choices.text`.

    key: the configuration's key that names it; where: the repository. Raises ValueError where there
    is no such column.
    """
    first, *inner = [path] if path in rows.column_names else path.split(".")
    fields: Any = rows.features.get(first)
    for field in inner:
        fields = fields.get(field) if isinstance(fields, dict) else None
    if fields is None:
        there = ", ".join(rows.column_names)
        raise ValueError(f"{key}: {where} has no column {path!r}; it has {there}")
    values = list(rows[first])
    for field in inner:
        values = [None if value is None else value[field] for value in values]
    return [_named(fields, value) for value in values]


def _named(feature: Any, value: Any) -> Any:
    """A value with the names of classes instead of their numbers, which mean nothing to a task."""
    if isinstance(feature, List) and isinstance(value, list):
        return [_named(feature.feature, item) for item in value]
    if not isinstance(feature, ClassLabel) or value is None or value == UNLABELLED:
        return None if isinstance(feature, ClassLabel) else value
    return feature.names[value] if 0 <= value < feature.num_classes else f"class {value}"


def clustered(rows: Dataset, path: str | None, key: str, where: str) -> Dataset:
    """The rows with a column CLUSTER: the text of what each asks for, from the column `path`, or
    None where that is empty. Without a path the rows are as they were.

    key, where: as in `column`. Raises ValueError where there is no such column, or where a row has
    there neither a text nor a number.
    """
    if path is None:
        return rows
    values = column(rows, path, key, where)
    named = [value is None or isinstance(value, str | int | float) for value in values]
    if not all(named):
        number = named.index(False)
        raise ValueError(
            f"{key}: row {number} of {where} has in {path!r} neither a text nor a number but "
            f"{values[number]!r}; name another column"
        )
    return rows.add_column(CLUSTER, [None if absent(v) else str(v) for v in values])


def check_text(column: str, rows: Dataset, repo: str) -> Dataset:
    """The rows as they are, if `column` has text in each of them, which may be empty. Raises
    ValueError naming the first fault's row (from 0)."""
    _check({column: _string}, rows, repo)
    return rows


def _check(columns: Mapping[str, Check], rows: Dataset, repo: str) -> None:
    _require(columns, rows, repo)
    held = rows.select_columns(list(columns))[:] if columns else {}
    for column, fault in columns.items():
        for number, value in enumerate(held[column]):
            if wrong := fault(value):
                raise ValueError(f"{repo}: column {column!r} of row {number} {wrong}")


def _require(columns: Iterable[str], rows: Dataset, repo: str) -> None:
    for column in columns:
        if column not in rows.column_names:
            there = ", ".join(rows.column_names)
            raise ValueError(f"{repo}: there is no column {column!r}; there are {there}")
