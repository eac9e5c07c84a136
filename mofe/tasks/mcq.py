"""Any data set of multiple-choice questions as a benchmark, by the names of its columns.

The task `mofe_mcq` asks in MMLU's form, with letters for the options. A row's options are a list or
several columns. Its answer is an index from 0, a letter, or the option's text.
"""

from collections.abc import Iterator, Mapping
from string import ascii_uppercase as LETTERS
from typing import Any

import numpy as np
from datasets import Dataset, Features, Sequence, Value

from mofe.data import schema, sources

NAME = "mofe_mcq"
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
    for number, options in enumerate(_options(rows, params, split)):
        problem = None
        if not isinstance(questions[number], str) or not questions[number].strip():
            key, problem = "question", f"has no question in {columns['question']!r}"
        elif not 2 <= len(options) <= len(LETTERS) or None in options:
            key, problem = "options", f"has the options {options}: 2 to 26 are needed, none empty"
        else:
            options = [str(option) for option in options]
            key, gold = "answer", _gold(answers[number], options)
            if gold is None:
                problem = (
                    f"has the answer {answers[number]!r}, which is not one index from 0, one "
                    f"letter or one text of the options {options}"
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


def _gold(answer: Any, options: list[str]) -> int | None:
    """The index of the right option; -1 for a row without an answer; None where the answer means no
    option, or could mean two."""
    if answer is None or answer == -1:
        return -1
    if isinstance(answer, bool):
        return None
    if isinstance(answer, int):
        return answer if 0 <= answer < len(options) else None
    text = str(answer).strip()
    readings = {i for i, option in enumerate(options) if option.strip() == text}
    if len(text) == 1 and text.upper() in LETTERS[: len(options)]:
        readings.add(LETTERS.index(text.upper()))
    return readings.pop() if len(readings) == 1 else None


def _options(rows: Dataset, params: Mapping[str, Any], split: str) -> Iterator[list]:
    names = params["mcq"]["columns"]["options"]
    if isinstance(names, str):
        for options in _column(rows, "options", params, split):
            yield list(options) if isinstance(options, list) else [options]
        return
    columns = [_column(rows, "options", params, split, name) for name in names]
    for options in zip(*columns, strict=True):
        options = list(options)
        while options and options[-1] is None:  # a question with fewer options than others
            options.pop()
        yield options


def _column(
    rows: Dataset, key: str, params: Mapping[str, Any], split: str, name: str | None = None
) -> list:
    """The values of a column that `columns` names."""
    path, where = name or params["mcq"]["columns"][key], f"{params['source']['repo']} ({split})"
    return schema.column(rows, path, f"tasks.{params['name']}.columns.{key}", where)
