"""Text is text: what a file says is what is asked, in every format, or the file is refused."""

import gzip
import io
import json
import zipfile
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Value, load_dataset
from hypothesis import given
from hypothesis import strategies as st

from mofe import tasks
from mofe.data import readers, schema, sources
from mofe.study.load import read_study
from mofe.study.plan import Plan
from mofe.tasks import mcq

HEAD = "ask,w,x,y,right\n"


def put(folder, files: dict[str, str | bytes]):
    for name, content in files.items():
        path = folder / "lab/set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def rows(folder, split: str = "train", **source) -> Dataset:
    return sources.load({"repo": "lab/set", "revision": "main", **source}, None, split, str(folder))


def asked(folder, options=("w", "x", "y")) -> list[tuple[str, list[str], int]]:
    columns = {"question": "ask", "options": options, "answer": "right"}
    settings = {"columns": columns, "subset": None, "split": "train", "test_share": None}
    params = {"name": "set", "source": {"repo": "lab/set"}, "mcq": settings, "seed": 0}
    found = mcq.training_rows(params, rows(folder))
    return [(row["question"], row["options"], row["gold"]) for row in found]


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(st.lists(st.lists(texts, min_size=2, max_size=2), min_size=1, max_size=5))
def test_cells_of_every_format_are_the_texts_that_were_written(cells):
    """Against the writers of pandas and json, and Arrow."""
    import tempfile
    from pathlib import Path

    import pandas as pd

    table = pd.DataFrame(cells, columns=["a", "b"], dtype=str)
    with tempfile.TemporaryDirectory() as folder:
        for name, sep in (("t.csv", ","), ("t.tsv", "\t"), ("t.csv.gz", ",")):
            table.to_csv(Path(folder, name), sep=sep, index=False, quoting=1)
        table.to_json(Path(folder, "t.jsonl"), orient="records", lines=True)
        table.to_json(Path(folder, "t.json"), orient="records")
        table.to_parquet(Path(folder, "t.parquet"))
        for name in ("t.csv", "t.tsv", "t.csv.gz", "t.jsonl", "t.json", "t.parquet"):
            found = readers.read(readers.format_of(name), {name: Path(folder, name)}, {})
            assert [list(row.values()) for row in found.to_pylist()] == cells, name


@pytest.mark.parametrize(
    "name, content, options, gold",
    [
        # an index, "no answer" and options that look like numbers, dates or nothing
        ("train.csv", HEAD + "q,007,1.50,NA,2\n", ["007", "1.50", "NA"], 2),
        ("train.csv", HEAD + "q,2020-01-01,true,None,1.0\n", ["2020-01-01", "true", "None"], 1),
        ("train.csv", HEAD + "q,a,b,,-1\n", ["a", "b"], -1),
        ("train.csv", HEAD + "q,a,b,,\n", ["a", "b"], -1),
        ("train.csv", HEAD + "q,10,20,30,20\n", ["10", "20", "30"], 1),
        # marks of byte order, line ends, quoted ones, spaces in the header
        ("train.csv", "\ufeffask,w,x,y,right\r\nq,a,b,c,C\r\n", ["a", "b", "c"], 2),
        ("train.csv", 'ask, w,x ,y,right\nq,"a\nb","c ""d""",e,B\n', ["a\nb", 'c "d"', "e"], 1),
        ("train.tsv", "ask\tw\tx\ty\tright\nq\tnan\tnull\tN/A\tA\n", ["nan", "null", "N/A"], 0),
        (
            "train.csv.gz",
            gzip.compress(f"{HEAD}q,null,b,c,A\n".encode(), mtime=0),
            ["null", "b", "c"],
            0,
        ),
        # JSON: numbers keep their text, dates are texts, nothing has three spellings
        ("train.jsonl", '{"ask":"q","w":4,"x":4.0,"y":"04","right":"C"}', ["4", "4.0", "04"], 2),
        ("train.jsonl", '{"ask":"q","w":"a","x":"b","y":null,"right":1}', ["a", "b"], 1),
        ("train.jsonl", '{"ask":"q","w":"a","x":"b","y":"","right":NaN}', ["a", "b"], -1),
        ("train.json", '[{"ask":"q","w":1,"x":10,"y":100,"right":100}]', ["1", "10", "100"], 2),
        (
            "train.jsonl",
            '{"ask":"q","w":12345678901234567890,"x":"2020-01-01","y":"c","right":"b"}',
            ["12345678901234567890", "2020-01-01", "c"],
            1,
        ),
    ],
)
def test_a_rows_options_and_answer(tmp_path, name, content, options, gold):
    assert asked(put(tmp_path, {name: content})) == [("q", options, gold)]


@pytest.mark.parametrize(
    "name, content, told",
    [
        # could be two: an index and a text, a letter and a text, no answer and a text
        ("train.csv", HEAD + "q,2,1,0,2\n", "answer '2', which is not one .*, or could be two"),
        ("train.csv", HEAD + "q,B,A,c,A\n", "answer 'A'.* could be two"),
        ("train.csv", HEAD + "q,-1,0,5,-1\n", "answer '-1'.* could be two"),
        ("train.jsonl", '{"ask":"q","w":2,"x":1,"y":0,"right":2}', "answer 2, .* could be two"),
        (
            "train.csv",
            HEAD + "q,a,,c,A\n",
            r"row 0 .* has the options \['a', '', 'c'\].* none empty",
        ),
        # files that do not fit their header
        ("train.csv", HEAD + "q,a,b,c\n", r"lab/set/train.csv: line 2 has 4 cells .* has 5; mend"),
        ("train.csv", HEAD + "q,a,b,c,A,extra\n", r"train.csv: line 2 has 6 cells .* has 5"),
        ("train.csv", HEAD + '"q,a,b,c,A\n', r"train.csv: line 2 cannot be parted into cells"),
        ("train.csv", "ask,w,w,y,right\nq,a,b,c,A\n", r"header has the column 'w' twice; rename"),
        ("train.csv", "ask;w;x;y;right\nq;a;b;c;A\n", r"header is one cell.*configs: sep: ';'"),
        ("train.csv", "", r"train.csv: the file is empty"),
        ("train.csv", HEAD.encode() + b"q,\xe9,b,c,A\n", r"train.csv: byte 18 is no utf-8; save"),
        ("train.csv.gz", b"no gzip", r"train.csv.gz: it cannot be unpacked .*; get the file again"),
        ("train.jsonl", '{"ask":"q"}\n{"ask":', r"train.jsonl: line 2 is no JSON .*; mend that"),
        ("train.jsonl", '{"a":1,"a":2}', r"row that begins in line 1 has the key 'a' twice"),
        ("train.json", '["q"]', r"train.json: row 0 is 'q', not an object"),
        ("train.jsonl", '{"ask":"\\ud800"}', r"column 'ask' of row 0 has half a character"),
        ("train.parquet", b"PAR1 no PAR1", r"train.parquet: it cannot be read as parquet .*; get"),
        ("train.bin", b"x", r"lab/set: "),
    ],
)
def test_what_is_no_question_or_no_file_is_one_sentence(tmp_path, name, content, told):
    with pytest.raises((ValueError, FileNotFoundError), match=told) as raised:
        asked(put(tmp_path, {name: content}))
    assert len(str(raised.value).splitlines()) == 1


def test_columns_of_several_types_are_texts():
    found = readers._table_of("f", [{"a": 1, "b": [1]}, {"a": "x", "b": ["01"]}, {"b": {"c": 1}}])
    assert found.to_pylist() == [
        {"a": "1", "b": "[1]"},
        {"a": "x", "b": '["01"]'},
        {"a": None, "b": '{"c": 1}'},
    ]
    assert readers._table_of("f", [{"a": [1, "01", None]}]).to_pylist() == [
        {"a": ["1", "01", None]}
    ]


def parquet(**columns) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


def test_parquets_other_ways_to_store_texts_and_indices(tmp_path):
    def options(of):
        return {name: of(pa.array([value] * 2)) for name, value in zip("wxy", "abc", strict=True)}

    kinds = {
        "dictionary": lambda a: a.dictionary_encode(),
        "large": lambda a: a.cast(pa.large_string()),
        "view": lambda a: a.cast(pa.string_view()),
    }
    for number, (name, kind) in enumerate(kinds.items()):
        right = pa.array([1.0, float("nan")]) if name == "large" else pa.array([1, None])
        content = parquet(ask=kind(pa.array(["q", "r"])), right=right, **options(kind))
        found = asked(put(tmp_path / str(number), {"train.parquet": content}))
        assert found == [("q", ["a", "b", "c"], 1), ("r", ["a", "b", "c"], -1)], name
    money = pa.array([Decimal("1.50"), Decimal("2.00")])
    content = parquet(ask=["q"], right=["B"], w=money[:1], x=money[1:], y=pa.array([7]))
    assert asked(put(tmp_path / "d", {"train.parquet": content})) == [
        ("q", ["1.50", "2.00", "7"], 1)
    ]
    content = parquet(ask=["q"], right=["B"], w=[1.5], x=[2.0], y=[7.0])
    with pytest.raises(
        ValueError, match=r"columns.options: row 0 .* has the option 1.5, which is no"
    ):
        asked(put(tmp_path / "f", {"train.parquet": content}))


def test_a_class_is_its_name_also_where_only_the_card_names_it(tmp_path):
    text = Value("string")
    classes = ClassLabel(names=["wood", "iron"])
    features = Features({"ask": text, "w": text, "x": text, "right": classes})
    held = {"ask": ["q", "r"], "w": ["iron"] * 2, "x": ["wood"] * 2, "right": [0, None]}
    (tmp_path / "a/lab/set").mkdir(parents=True)
    Dataset.from_dict(held, features=features).to_parquet(tmp_path / "a/lab/set/train.parquet")
    expected = [("q", ["iron", "wood"], 1), ("r", ["iron", "wood"], -1)]
    assert asked(tmp_path / "a", ["w", "x"]) == expected
    names = "{class_label: {names: {'0': wood, '1': iron}}}"
    card = f"---\ndataset_info:\n  features:\n  - name: right\n    dtype: {names}\n---\n"
    files = {"README.md": card, "train.csv": "ask,w,x,right\nq,iron,wood,0\nr,iron,wood,\n"}
    assert asked(put(tmp_path / "b", files), ["w", "x"]) == expected
    files["train.csv"] += "s,iron,wood,2\n"
    with pytest.raises(ValueError, match=r"row 2 has in 'right' '2', which is none of the classes"):
        asked(put(tmp_path / "b", files), ["w", "x"])


def test_a_class_inside_other_values_is_its_name(tmp_path):
    """As numbers and as texts, in a mapping and in a list."""
    names = "{class_label: {names: {'0': wood, '1': iron}}}"
    inner = f"  - name: it\n    struct:\n    - name: right\n      dtype: {names}\n"
    options = f"  - name: w\n    list: {names}\n"
    card = f"---\ndataset_info:\n  features:\n{inner}{options}---\n"
    columns = {"question": "ask", "options": "w", "answer": "it.right"}
    settings = {"columns": columns, "subset": None, "split": "train", "test_share": None}
    params = {"name": "set", "source": {"repo": "lab/set"}, "mcq": settings, "seed": 0}
    for number, (right, listed) in enumerate((('"wood"', '["iron", "wood"]'), ("0", "[1, 0]"))):
        lines = f'{{"ask": "q", "w": {listed}, "it": {{"right": {right}}}}}\n'
        there = put(tmp_path / str(number), {"README.md": card, "train.jsonl": lines})
        (found,) = mcq.training_rows(params, rows(there))
        assert (found["options"], found["gold"]) == (["iron", "wood"], 1)
    wrong = put(tmp_path, {"README.md": card, "train.jsonl": lines.replace("[1, 0]", '["tin"]')})
    with pytest.raises(ValueError, match=r"lab/set: row 0 has in 'w' 'tin', which is none of the"):
        rows(wrong)


def test_a_file_whose_packing_only_datasets_reads_is_refused_if_its_types_are_guessed(tmp_path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("train.csv", HEAD + "q,007,NA,None,NA\n")
    for name in ("train.zip", "train.csv.zip"):
        with pytest.raises(ValueError, match=f"{name} is packed in a way in which .*; unpack it"):
            rows(put(tmp_path / name, {name: packed.getvalue()}))


def test_a_subset_that_is_not_there_is_refused_as_datasets_refuses_it(tmp_path):
    files = {"one/train.csv": "a\n1\n", "two/train.csv": "a\n2\n"}
    configs = "".join(f"- config_name: {n}\n  data_files: {n}/*.csv\n" for n in ("one", "two"))
    described = files | {"README.md": f"---\nconfigs:\n{configs}---\n"}
    for name, content, known in (("bare", files, "none"), ("card", described, "one, two")):
        folder = put(tmp_path / name, content)
        source = {"repo": "lab/set", "revision": "main"}
        assert sources.load(source, "two", "train", str(folder))["a"][:] == ["2"]
        with pytest.raises(ValueError, match=f"no subset 'tow', .*; there are {known}"):
            sources.load(source, "tow", "train", str(folder))
        with pytest.raises(ValueError, match="BuilderConfig 'tow' not found"):
            load_dataset(str(folder / "lab/set"), "tow", cache_dir=str(tmp_path / "cache"))


def test_a_list_in_a_cell_is_a_list(tmp_path):
    cell = json.dumps(["a", "1", ""]).replace('"', '""')
    files = {"train.csv": f'ask,options,right\nq,"{cell}",B\nr,"[""a"", ""b""]",\n'}
    assert asked(put(tmp_path, files), "options") == [("q", ["a", "1"], 1), ("r", ["a", "b"], -1)]


def test_files_of_a_split(tmp_path):
    card = "---\nconfigs:\n- config_name: default\n  sep: ';'\n  data_files:\n  - split: mine\n    path: [b.csv, '[a].csv']\n---\n"
    files = {
        "README.md": card,
        "b.csv": "t;u\n1;x\n",
        "[a].csv": "u;t\ny;2\n",
        "c.csv": "t;u\n3;z\n",
    }
    assert rows(put(tmp_path / "card", files), "mine")["t"][:] == ["1", "2"]
    with pytest.raises(ValueError, match="there is no split 'train'; there are mine"):
        rows(tmp_path / "card")
    two = {"train-1.csv": "t\na\n", "train-2.csv": "T\nb\n"}
    with pytest.raises(ValueError, match=r"train-2.csv: its columns are not those of .*'T', 't'"):
        rows(put(tmp_path / "two", two))
    with pytest.raises(
        ValueError, match=r"several formats, train.csv and train.jsonl; name its files"
    ):
        rows(put(tmp_path / "mixed", {"train.csv": "t\na\n", "train.jsonl": '{"t": "a"}'}))
    assert rows(put(tmp_path / "lines", {"train.txt": "a\nb\n"}))["text"][:] == ["a", "b"]
    asks = "---\nconfigs:\n- config_name: default\n  data_files: t.csv\n  thousands: ','\n---\n"
    with pytest.raises(ValueError, match=r"README.md asks for thousands when t.csv is read, which"):
        rows(put(tmp_path / "asks", {"README.md": asks, "t.csv": "t\na\n"}))


@pytest.mark.parametrize("named", ["gone-*.csv", "../set2/t.csv", ".hidden/t.csv"])
def test_a_card_that_names_files_that_are_not_there(tmp_path, named):
    card = f"---\nconfigs:\n- config_name: default\n  data_files: {named}\n---\n"
    files = {
        "README.md": card,
        "t.csv": "t\na\n",
        ".hidden/t.csv": "t\na\n",
        "../set2/t.csv": "t\na\n",
    }
    with pytest.raises(FileNotFoundError, match=r"lab/set: of the split 'train' no file is there"):
        rows(put(tmp_path, files))


def test_brackets_and_links_in_paths(tmp_path):
    real = put(tmp_path / "[real] {x}", {"data [1]/train.csv": "t\na\n"}) / "lab/set"
    assert rows(tmp_path / "[real] {x}")["t"][:] == ["a"]
    (tmp_path / "m/lab/set").mkdir(parents=True)
    (tmp_path / "m/lab/set/data").symlink_to(real)
    assert rows(tmp_path / "m")["t"][:] == ["a"]
    (tmp_path / "n/lab").mkdir(parents=True)
    (tmp_path / "n/lab/set").symlink_to(real)
    assert rows(tmp_path / "n")["t"][:] == ["a"]


@pytest.mark.parametrize(
    "right, label",
    [("2", 2), ("2.0", 2), ("C", 2), ("", -1), ("-1", -1), (2, 2), (2.0, 2)],
)
def test_a_benchmarks_labels_are_read_in_every_format(right, label):
    row = {"question": "q", "choices": list("abcd"), "answer": right}
    found = schema.check("cais/mmlu", Dataset.from_list([row]), "my/set", labelled=False)
    assert found["answer"][:] == [label]


def test_a_benchmarks_labels_that_mean_something_else_are_refused():
    row = {"question": "q", "choices": list("abcd"), "answer": "4"}
    with pytest.raises(ValueError, match="'answer' of row 0 is 4, not a label from 0 to 3"):
        schema.check("cais/mmlu", Dataset.from_list([row]), "my/set", labelled=False)
    with pytest.raises(ValueError, match="'answer' of row 0 is 'right', not a label"):
        rows_ = Dataset.from_list([{**row, "answer": "right"}])
        schema.check("cais/mmlu", rows_, "my/set", labelled=False)
    classes = ClassLabel(names=["D", "C", "B", "A"])
    reversed_ = Dataset.from_list([{**row, "answer": 0}]).cast_column("answer", classes)
    with pytest.raises(ValueError, match="the classes of column 'answer' are D, C, B, A, not A, B"):
        schema.check("cais/mmlu", reversed_, "my/set", labelled=False)


def test_a_task_of_lm_eval_gets_the_whole_numbers_of_a_csv(tmp_path):
    """As its code has them from `datasets`; a column with any other text stays as it is."""
    found = rows(put(tmp_path, {"train.csv": "label,code,note\n2,007,1\n-1,12,1.50\n"}))
    told = schema.check("some/benchmark", found, "lab/set", labelled=False)
    assert told[:] == {"label": [2, -1], "code": ["007", "12"], "note": ["1", "1.50"]}


def test_medmcqa_as_a_csv_is_asked_as_its_parquet_is(tmp_path):
    from conftest import CONFIG

    made = [
        {"question": f"q{n}", "opa": "1.0", "opb": "NA", "opc": "03", "opd": "d", "cop": n % 4}
        for n in range(6)
    ]
    found = {}
    for kind in ("parquet", "csv", "json"):
        folder = tmp_path / kind / "openlifescienceai/medmcqa"
        folder.mkdir(parents=True)
        for split in ("train", "validation"):
            write = getattr(
                Dataset.from_list(made[:4] if split == "train" else made[4:]), f"to_{kind}"
            )
            write(folder / f"{split}.{kind}")
        plan = Plan(read_study(CONFIG, mirror=str(tmp_path / kind)))
        params = plan.params.data("medmcqa")
        train = rows_of(params)
        (task,) = tasks.build(params["task"]).values()
        found[kind] = (
            list(tasks.training_rows(params["task"], train)),
            [(task.doc_to_text(d), task.doc_to_target(d)) for d in task.eval_docs],
        )
    assert found["csv"] == found["parquet"] == found["json"]


def rows_of(params) -> Dataset:
    data = params["data"]
    return sources.load(params["source"], data["subset"], data["split"], params["mirror"])
