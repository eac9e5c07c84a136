"""Any data set of multiple-choice questions as a benchmark, by the names of its columns.

The task `mofe_mcq` (harness.GENERIC) asks in MMLU's form, with letters for the options. A row's
options are a list or several columns. Its answer is an index from 0, a letter, or the option's
text, however a file has them: a number in a CSV is a text there, and a class is a number with a
name.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from string import ascii_uppercase as LETTERS
from typing import Any

import numpy as np
from datasets import Dataset, Features, Sequence, Value

from mofe.data import schema, sources
from mofe.data.schema import UNLABELLED

FEATURES = Features(
    {
        "question": Value("string"),
        "options": Sequence(Value("string")),
        "letters": Sequence(Value("string")),
        "gold": Value("int64"),
    }
)


def splits(params: Mapping[str, Any], **_) -> dict[str, Dataset]:
    """The rows that are asked ("test") and, with shots, those shown as examples ("train").

    params: Plan.params.task. Raises ValueError for a row that is not a question with an answer.
    """
    mcq = params["mcq"]
    rows = sources.load(params["source"], mcq["subset"], mcq["split"], params["mirror"])
    key, where = f"tasks.{params['name']}.cluster", f"{params['source']['repo']} ({mcq['split']})"
    rows = schema.clustered(rows, params["cluster"], key, where)
    found = {"test": _convert(part(params, rows, "test"), params, mcq["split"])}
    if params["shots"]:
        split = mcq["split"] if mcq["test_share"] else mcq["examples"]
        if not mcq["test_share"]:
            rows = sources.load(params["source"], mcq["subset"], split, params["mirror"])
        shown = _convert(part(params, rows, "train"), params, split)
        found["train"] = shown.filter(lambda row: row["gold"] >= 0)
    if -1 in found["test"]["gold"]:
        raise ValueError(
            f"tasks.{params['name']}.columns.answer: row {found['test']['gold'].index(-1)} of "
            f"{params['source']['repo']} ({mcq['split']}) has no answer; ask a split that has"
        )
    return found


def training_rows(params: Mapping[str, Any], rows: Dataset) -> Dataset:
    """Rows to train on. `gold` is -1 where there is no answer."""
    return _convert(part(params, rows, "train"), params, "training split")


def part(params: Mapping[str, Any], rows: Dataset, which: str) -> Dataset:
    """The "train" or "test" part of a data set with only one split, or all rows without
    `test_share`. Rows with the same question go to the same part, whatever their options."""
    share = params["mcq"]["test_share"]
    if share is None:
        return rows
    asked = [str(q).strip() for q in _column(rows, "question", params, params["mcq"]["split"])]
    distinct = list(dict.fromkeys(asked))
    order = np.random.default_rng(params["seed"]).permutation(len(distinct))
    n_test = max(1, round(len(distinct) * share))
    test = {distinct[i] for i in order[:n_test]}
    return rows.select([i for i, q in enumerate(asked) if (q in test) == (which == "test")])


def _convert(rows: Dataset, params: Mapping[str, Any], split: str) -> Dataset:
    """The rows in the task's own schema (FEATURES)."""
    columns, where = params["mcq"]["columns"], f"{params['source']['repo']} ({split})"
    questions = _column(rows, "question", params, split)
    answers = _column(rows, "answer", params, split)
    read: dict[str, list] = {name: [] for name in FEATURES}
    for number, given in enumerate(_options(rows, params, split)):
        problem, options = None, [_text(option) for option in given]
        if not isinstance(questions[number], str) or not questions[number].strip():
            key, problem = "question", f"has no question in {columns['question']!r}"
        elif (strange := _no_text(given)) is not None:
            key, problem = "options", f"has the option {strange}"
        elif not 2 <= len(options) <= len(LETTERS) or "" in map(str.strip, options):
            key, problem = "options", f"has the options {options}: 2 to 26 are needed, none empty"
        else:
            key, gold = "answer", _gold(answers[number], given)
            if gold is None:
                problem = (
                    f"has the answer {answers[number]!r}, which is not one index from 0, one "
                    f"letter or one text of the options {options}, or could be two of them"
                )
        if problem:
            raise ValueError(
                f"tasks.{params['name']}.columns.{key}: row {number} of {where} {problem}; name "
                "another column or mend the data set"
            )
        read["question"].append(questions[number])
        read["options"].append(options)
        read["letters"].append(list(LETTERS[: len(options)]))
        read["gold"].append(gold)
    found = Dataset.from_dict(read, features=FEATURES)
    if schema.CLUSTER in rows.column_names:
        found = found.add_column(schema.CLUSTER, list(rows[schema.CLUSTER]))
    return found


def _text(option: Any) -> str:
    """An option as it is asked; empty for one that is not there."""
    return "" if schema.absent(option) else str(option)


def _no_text(options: list) -> str | None:
    """What an option is that has no text of its own, if there is one: a float (5.0, or 5?), a date,
    a list."""
    for option in options:
        if schema.absent(option) or isinstance(option, str | Decimal):
            continue
        if isinstance(option, bool) or not isinstance(option, int):
            return f"{option!r}, which is no text: store it as it should be asked"
    return None


def _gold(answer: Any, options: list) -> int | None:
    """The index of the right option; -1 for a row without an answer; None where the answer means no
    option, or could mean two.

    options: as the file has them. A number is an index, also where it is written as a text. A text
    is a letter or an option's text too, and so is a number among options that are numbers.
    """
    if schema.absent(answer):
        return UNLABELLED
    if isinstance(answer, bool | list | dict):
        return None
    number, text, readings = schema.index(answer), str(answer).strip(), set()
    if number is not None and -1 <= number < len(options):
        readings.add(number)
    for place, option in enumerate(options):
        is_text = isinstance(answer, str | Decimal) or not isinstance(option, str)
        if is_text and _text(option).strip() == text:
            readings.add(place)
    if len(text) == 1 and text.upper() in LETTERS[: len(options)]:
        readings.add(LETTERS.index(text.upper()))
    return readings.pop() if len(readings) == 1 else None


def _options(rows: Dataset, params: Mapping[str, Any], split: str) -> Iterator[list]:
    """Each row's options as the file has them, without those at the end that are not there: a
    question may have fewer than others."""
    names = params["mcq"]["columns"]["options"]
    if isinstance(names, str):
        given: Iterable[list] = map(_listed, _column(rows, "options", params, split))
    else:
        columns = [_column(rows, "options", params, split, name) for name in names]
        given = map(list, zip(*columns, strict=True))
    for options in given:
        while options and schema.absent(options[-1]):
            options.pop()
        yield options


def _listed(value: Any) -> list:
    """A row's options from one column: a list, or a list written as JSON, as a CSV has it."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return list(json.loads(value, parse_float=str, parse_int=str))
        except ValueError:
            return [value]
    return list(value) if isinstance(value, list) else [value]


def _column(
    rows: Dataset, key: str, params: Mapping[str, Any], split: str, name: str | None = None
) -> list:
    """The values of a column that `columns` names."""
    path, where = name or params["mcq"]["columns"][key], f"{params['source']['repo']} ({split})"
    return schema.column(rows, path, f"tasks.{params['name']}.columns.{key}", where)
