"""Data files of all formats, made from known questions and then damaged or written otherwise.

    PYTHONPATH=. python tests/fuzz_data.py [FILES] [FIRST SEED]

`make fuzz` runs 2,000 of them, and tests/test_fuzz_data.py a few.

Each file is read as a task reads it. The generator knows what it wrote: so the questions that are read
must be the very ones, or the file is refused in one sentence that names it and says what to do.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import random
import re
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from mofe.data import sources
from mofe.tasks import mcq

COLUMNS = ("ask", "w", "x", "y", "z", "right")
OPTIONS = COLUMNS[1:-1]
# Texts that a reader which guesses types would change.
TEXTS = (
    *("0049", "1.50", "7", "-3", "1e5", "0x1F", "12345678901234567890", "1,000", "3.0", "007"),
    *("NA", "N/A", "None", "null", "nan", "NaN", "inf", "-inf", "<NA>", "#N/A", "true", "False"),
    *("2020-01-01", "2020-01-01T10:00:00", "10:30", "01/02/2003", "P1D", "{}", "[1]", '{"a": 1}'),
    *("A", "b", "yes", "lead", " cork ", "brick, red", 'a "quoted" word', "two\nlines", "a\ttab"),
    *(
        "semi;colon",
        "it's",
        "\\n",
        "ünïcödé",
        "日本語",
        "😀",
        "#comment",
        "=1+1",
        "a\r\nb",
        "'",
        "\\",
    ),
)
MOST = 26


@dataclass
class Question:
    ask: str
    options: list[str]
    gold: int  # -1: none


@dataclass
class Case:
    """A folder's files, and the questions that they have; None where they must be refused, and "either"
    where a refusal is right too."""

    seed: int
    kind: str
    files: dict[str, bytes]
    questions: list[Question] | None
    may_refuse: bool = False
    columns: dict[str, Any] = field(
        default_factory=lambda: {"question": "ask", "options": list(OPTIONS), "answer": "right"}
    )
    notes: list[str] = field(default_factory=list)


# ------------------------------------------------------------------------------ what is written


def questions(rng: random.Random) -> list[Question]:
    found = []
    for number in range(rng.randint(1, 6)):
        options = rng.sample(TEXTS, rng.randint(2, len(OPTIONS)))
        gold = rng.choice([-1, *range(len(options))])
        found.append(Question(f"Q{number}: {rng.choice(TEXTS)}?", options, gold))
    return found


def answer(rng: random.Random, question: Question, how: str) -> str:
    """A question's answer as a text: its letter, its index, or its option."""
    if question.gold < 0:
        return rng.choice(["", "-1"]) if how == "index" else ""
    if how == "letter":
        letter = "ABCDEFGHIJ"[question.gold]
        return rng.choice([letter, letter.lower(), f" {letter} "])
    return str(question.gold) if how == "index" else question.options[question.gold]


def ambiguous(question: Question, text: str) -> bool:
    """Whether an answer has another reading than the one that is meant, by the documented rule."""
    text, options = text.strip(), [option.strip() for option in question.options]
    readings = {n for n, option in enumerate(options) if option == text}
    if re.fullmatch(r"-?(0|[1-9]\d*)(\.0+)?", text) and -1 <= float(text) < len(options):
        readings.add(int(float(text)))
    if len(text) == 1 and text.upper() in "ABCDEFGHIJ"[: len(options)]:
        readings.add("ABCDEFGHIJ".index(text.upper()))
    return readings != ({question.gold} if text else set())


def rows(rng: random.Random, asked: list[Question], case: Case) -> list[dict[str, str | None]]:
    """One row a question; at the end a missing option is null."""
    how = rng.choice(["letter", "index", "text"])
    case.notes.append(how)
    found = []
    for question in asked:
        padded = question.options + [None] * (len(OPTIONS) - len(question.options))
        told = answer(rng, question, how)
        case.may_refuse |= bool(told) and ambiguous(question, told)
        row = dict(zip(OPTIONS, padded, strict=True))
        found.append({"ask": question.ask, **row, "right": told})
    return found


# --------------------------------------------------------------------------------- as files


def delimited(rng: random.Random, table: list[dict], case: Case) -> None:
    """CSV and TSV, with any quoting, line ends, order of columns, mark of byte order, compression."""
    tabs, ending = rng.random() < 0.4, rng.choice(["\n", "\r\n"])
    quoting = rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
    columns = rng.sample(COLUMNS, len(COLUMNS)) if rng.random() < 0.3 else list(COLUMNS)
    sep = "\t" if tabs else ","
    if not tabs and rng.random() < 0.15:
        sep = rng.choice(";|\t")
        case.files["README.md"] = (
            f"---\nconfigs:\n- config_name: default\n  data_files: train*\n  sep: {json.dumps(sep)}\n---\n".encode()
        )
        case.notes.append(f"sep {sep!r}")
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=sep, lineterminator=ending, quoting=quoting)
    head = [f" {c} " if rng.random() < 0.1 else c for c in columns]
    extra = rng.random() < 0.2
    writer.writerow(head + ["", "note"] * extra)
    for row in table:
        writer.writerow([row[c] or "" for c in columns] + [7, "01"] * extra)
    content = text.getvalue().encode()
    content = b"\xef\xbb\xbf" + content if rng.random() < 0.2 else content
    name = f"train.{'tsv' if tabs else 'csv'}"
    pack(rng, case, name, content)


def pack(rng: random.Random, case: Case, name: str, content: bytes) -> None:
    ending, packer = rng.choice(
        [("", bytes)] * 4 + [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)]
    )
    case.files[name + ending] = packer(content)


def loose(rng: random.Random, text: str | None) -> Any:
    """A text as JSON may have it: a number, if the number has the same text."""
    if text is not None and rng.random() < 0.5 and re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?", text):
        return Literal(text)
    return text


class Literal(float):
    """A number with its text."""

    def __new__(cls, text: str):
        made = super().__new__(cls, float(text))
        made.text = text
        return made

    def __repr__(self) -> str:
        return self.text


def written(value: Any) -> str:
    if isinstance(value, Literal):
        return value.text
    if isinstance(value, list):
        return f"[{', '.join(map(written, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)}: {written(v)}" for k, v in value.items()) + "}"
    return json.dumps(value)


def jsons(rng: random.Random, table: list[dict], case: Case) -> None:
    """JSON lines, a list, objects over several lines; nothing as null, as an empty text, or left out."""
    listed = rng.random() < 0.3
    if listed:
        case.columns["options"] = "options"
    made = []
    for row, question in zip(table, case.questions, strict=True):
        given = [loose(rng, row[name]) for name in OPTIONS]
        absent = rng.choice([None, "", "left out"])
        right = row["right"]
        texts = all(isinstance(g, str) or g is None for g in given)
        if texts and right == str(question.gold) and rng.random() < 0.5:
            right = Literal(right)  # a number: an index and nothing else
        out = {"ask": row["ask"]}
        if listed:
            kept = [g for g in given if g is not None]
            out["options"] = kept + [None if absent is None else ""] * (absent != "left out")
        for name, value in zip(OPTIONS, given, strict=True) if not listed else ():
            if value is not None or absent != "left out":
                out[name] = "" if value is None and absent == "" else value
        if right != "" or absent != "left out":
            out["right"] = right if right != "" else absent
        if rng.random() < 0.3:
            out["extra"] = rng.choice([1, "1", None, 2.5, True, [1, "a"], {"k": 1}])
        made.append(out)
    named = {"options"} if listed else set(OPTIONS)
    case.may_refuse |= not named | {"right"} <= {key for out in made for key in out}
    shape = rng.choice(["lines", "lines", "list", "spread"])
    if shape == "list":
        name, text = "train.json", written(made)
    elif shape == "spread":
        name, text = (
            "train.json",
            "\n\n".join(written(row).replace('", "', '",\n"') for row in made),
        )
    else:
        name, text = (
            rng.choice(["train.jsonl", "train.ndjson", "train.json"]),
            "\n".join(map(written, made)),
        )
        text += "\n" * rng.randint(0, 2)
    content = text.encode()
    case.notes.append(shape)
    pack(rng, case, name, b"\xef\xbb\xbf" + content if rng.random() < 0.1 else content)


def parquet(rng: random.Random, table: list[dict], case: Case) -> None:
    """Texts of every Arrow type; answers as texts, integers, floats with gaps, classes; lists."""
    kind = rng.choice(["string", "large", "dictionary", "view", "classes", "list", "float", "int"])
    case.notes.append(kind)
    names = dict.fromkeys(name for row in table for name in row)
    arrays = {n: pa.array([row[n] for row in table], pa.string()) for n in names}
    if kind == "large":
        arrays = {n: a.cast(pa.large_string()) for n, a in arrays.items()}
    elif kind == "view":
        arrays = {n: a.cast(pa.string_view()) for n, a in arrays.items()}
    elif kind == "dictionary":
        arrays = {n: a.dictionary_encode() for n, a in arrays.items()}
    elif kind == "list":
        case.columns["options"] = "options"
        lists = [[row[n] for n in OPTIONS] for row in table]
        arrays = {"ask": arrays["ask"], "options": pa.array(lists), "right": arrays["right"]}
    elif kind in ("float", "int"):
        case.may_refuse = False  # a number among texts is an index
        golds = [None if q.gold < 0 and rng.random() < 0.5 else q.gold for q in case.questions]
        arrays["right"] = pa.array(golds, pa.float64() if kind == "float" else pa.int32())
        if kind == "float" and rng.random() < 0.5:
            nans = [float("nan") if gold is None else float(gold) for gold in golds]
            arrays["right"] = pa.array(nans, from_pandas=False)
    elif kind == "classes":
        told = sorted(
            {row["right"].strip() for row in table if row["right"].strip() not in ("", "-1")}
        )
        classes = ClassLabel(names=rng.sample(told, len(told)) or ["A"])
        features = Features(
            {**{n: Value("string") for n in names if n != "right"}, "right": classes}
        )
        held = {n: [row[n] for row in table] for n in names if n != "right"}
        right = [row["right"].strip() for row in table]
        held["right"] = [None if r in ("", "-1") else classes.str2int(r) for r in right]
        sink = io.BytesIO()
        Dataset.from_dict(held, features=features).to_parquet(sink)
        case.files["train.parquet"] = sink.getvalue()
        return
    sink = io.BytesIO()
    pq.write_table(pa.table(arrays), sink, row_group_size=2)
    case.files["train.parquet"] = sink.getvalue()


# ------------------------------------------------------------------------------------- damage


def cut(rng: random.Random, content: bytes) -> bytes:
    return content[: rng.randrange(len(content))]


def flipped(rng: random.Random, content: bytes) -> bytes:
    place = rng.randrange(len(content))
    return (
        content[:place] + bytes([content[place] ^ (1 << rng.randrange(8))]) + content[place + 1 :]
    )


def inserted(rng: random.Random, content: bytes) -> bytes:
    place = rng.randrange(len(content) + 1)
    strange = [
        b"\0",
        b"\xff",
        b'"',
        b",",
        b"\n",
        b"\t",
        b"{",
        b"]",
        b"\\",
        b"\xe2\x80",
        b"NaN",
        b"1e999",
    ]
    return content[:place] + rng.choice(strange) + content[place:]


def removed(rng: random.Random, content: bytes) -> bytes:
    place = rng.randrange(len(content))
    return content[:place] + content[place + rng.randint(1, 8) :]


DAMAGES: list[Callable[[random.Random, bytes], bytes]] = [cut, flipped, inserted, removed]


def case(seed: int) -> Case:
    """The case of a seed: a file in some format, in half of the cases damaged."""
    rng = random.Random(seed)
    made = Case(seed, "", {}, questions(rng))
    table = rows(rng, made.questions, made)
    write = rng.choice([delimited, jsons, parquet])
    made.kind = write.__name__
    write(rng, table, made)
    if rng.random() < 0.5:
        (name,) = [name for name in made.files if name != "README.md"]
        damage = rng.choice(DAMAGES)
        made.files[name] = damage(rng, made.files[name])
        made.notes.append(damage.__name__)
        made.questions = None  # whatever it says now
    return made


# ---------------------------------------------------------------------------------------- reading


def read(made: Case, mirror: Path) -> list[Question]:
    folder = mirror / "lab" / f"set{made.seed}"
    folder.mkdir(parents=True)
    for name, content in made.files.items():
        (folder / name).write_bytes(content)
    source = {"repo": f"lab/set{made.seed}", "revision": "main"}
    settings = {"columns": made.columns, "subset": None, "split": "train", "test_share": None}
    params = {"name": "set", "source": source, "mcq": settings, "seed": 0}
    found = mcq.training_rows(params, sources.load(source, None, "train", str(mirror)))
    return [Question(row["question"], row["options"], row["gold"]) for row in found]


CLASSES = re.compile(r"\b(?!README)[A-Z][a-z]+[A-Z]\w*|Traceback|<class|pyarrow\.|object at 0x")


def fault(made: Case, mirror: Path) -> str | None:
    """What is wrong with how a case is read, or None."""
    try:
        found = read(made, mirror)
    except (ValueError, FileNotFoundError) as error:
        told = str(error)
        if type(error) not in (ValueError, FileNotFoundError):
            return f"{type(error).__name__}: {told}"
        if made.questions is not None and not made.may_refuse:
            return f"refused: {told}"
        if f"lab/set{made.seed}" not in told or ";" not in told:
            return f"neither file nor remedy: {told}"
        outside = re.sub(r"'[^']*'|\"[^\"]*\"|\[.*\]|; it has .*", "", told)
        return f"no plain sentence: {told}" if CLASSES.search(outside) else None
    except Exception as error:  # noqa: BLE001, what this looks for
        return f"{type(error).__name__}: {error}"
    if made.questions is not None and found != made.questions:
        return f"read {found}, written {made.questions}"
    return None


def main(count: int, first: int) -> int:
    outcome, faults = Counter(), 0
    for seed in range(first, first + count):
        made = case(seed)
        with TemporaryDirectory() as mirror:
            told = fault(made, Path(mirror))
        outcome[f"{made.kind}, {'damaged' if made.questions is None else 'whole'}"] += 1
        if told:
            faults += 1
            print(f"seed {seed} ({made.kind}, {', '.join(made.notes)}): {told}", flush=True)
    print(f"{count} files, {faults} faults: {dict(sorted(outcome.items()))}")
    return faults


BLOCK = 250


@pytest.mark.parametrize("first", range(0, 2000, BLOCK))
def test_files_are_read_as_they_are_written_or_refused(first, capsys):
    assert main(BLOCK, first) == 0, capsys.readouterr().out


if __name__ == "__main__":
    given = list(map(int, sys.argv[1:]))
    count, first = given + [2000, 0][len(given) :]
    sys.exit(main(count, first) > 0)
