"""Records: what cannot be written, what is read back, and what the schemas say of real files."""

import json
import types
from pathlib import Path
from typing import Annotated, Literal, Union, get_args, get_origin

import jsonschema
import pytest
from annotated_types import Ge, Le
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from mofe import records
from mofe.records import Record

KINDS = {**records.KINDS, "asked": records.AskedQuestion}


def values(annotation, limits=()) -> st.SearchStrategy:
    """What a field of this type may hold."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        told = [
            limit
            for more in arguments[1:]
            for limit in (more.metadata if isinstance(more, FieldInfo) else [more])
        ]
        return values(arguments[0], (*limits, *told))
    if origin in (Union, types.UnionType):
        return st.one_of(*(values(argument, limits) for argument in arguments))
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is dict:
        return st.dictionaries(values(arguments[0]), values(arguments[1]), max_size=3)
    if origin in (tuple, list):
        return st.lists(values(arguments[0]), max_size=3).map(origin)
    if isinstance(annotation, type) and issubclass(annotation, Record):
        return drawn(annotation)
    low = next((limit.ge for limit in limits if isinstance(limit, Ge)), None)
    high = next((limit.le for limit in limits if isinstance(limit, Le)), None)
    return {
        int: st.integers(low, high),
        float: st.floats(low, high, allow_nan=False, allow_infinity=False),
        str: st.text(st.characters(codec="utf-8")),
        bool: st.booleans(),
        types.NoneType: st.none(),
    }[annotation]


def drawn(kind: type[Record]) -> st.SearchStrategy[Record]:
    """Any record of a kind."""
    fields = {
        name: values(field.annotation, field.metadata) for name, field in kind.model_fields.items()
    }
    return st.fixed_dictionaries(fields).map(lambda found: kind(**agreed(kind, found)))


def agreed(kind: type[Record], found: dict) -> dict:
    """The fields with what a kind asks of them together."""
    if issubclass(kind, records.Scores):
        metric = records.Metric(value=0.5, stderr=0.1)
        found["metrics"] = {**found["metrics"], found["headline"]: metric}
    if kind is records.TaskCounts:
        parts = ("incomplete", "held_out", "left_by_task", "unlabelled", "duplicate")
        total = sum(found[part] for part in (*parts, "also_in_test", "usable"))
        found["made_by_task"] = min(found["made_by_task"], total)
        found["read"] = total - found["made_by_task"]
    if kind is records.TextCounts:
        found["pieces"] = found["duplicate"] + found["usable"]
    if kind is records.AskedQuestion:
        choice, words = ("options", "target"), ("reference", "row", "stops", "most")
        given, none = (choice, words) if found["options"] is not None else (words, choice)
        found |= dict.fromkeys(none)
        example = {"options": ("a",), "target": 0, "reference": "", "row": "{}"}
        example |= {"stops": (), "most": 1}
        found |= {name: example[name] for name in given if found[name] is None}
    return found


@pytest.mark.parametrize("name", KINDS)
def test_what_is_written_is_what_is_read(name, tmp_path_factory):
    kind, folder = KINDS[name], tmp_path_factory.mktemp(name)

    @given(drawn(kind))
    def holds(record):
        records.write(folder / "record.json", record)
        (folder / "lines.jsonl").write_text(2 * records.line(record))
        if kind in (records.TaskCounts, records.TextCounts):
            assert records.read_counts(folder / "record.json") == record
        assert records.read(folder / "record.json", kind) == record
        assert records.read_lines(folder / "lines.jsonl", kind) == [record, record]

    holds()


@pytest.mark.parametrize("name", KINDS)
def test_a_record_lacks_no_key_and_has_no_other(name):
    kind = KINDS[name]

    @given(drawn(kind), st.data())
    def holds(record, data):
        fields = dict(record)
        with pytest.raises(ValidationError, match="unheard_of"):
            kind(**fields, unheard_of=1)
        required = [key for key, field in kind.model_fields.items() if field.is_required()]
        gone = data.draw(st.sampled_from(required))
        del fields[gone]
        with pytest.raises(ValidationError, match=gone):
            kind(**fields)
        with pytest.raises(ValidationError, match=gone):
            kind(**fields, **{gone: object()})

    holds()


@pytest.mark.parametrize("name", records.KINDS)
def test_every_record_is_of_its_schema(name):
    kind = records.KINDS[name]
    schema = json.loads((ROOT / "docs" / "schemas" / f"{name}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)

    @given(drawn(kind))
    def holds(record):
        written = json.loads(records.line(record))
        validator.validate(written)
        assert list(written) == [name for name in kind.model_fields if name in written]
        with pytest.raises(jsonschema.ValidationError):
            validator.validate({**written, "unheard_of": 1})

    holds()


def test_every_key_is_described():
    for kind in KINDS.values():
        for name, field in kind.model_fields.items():
            assert field.description, f"{kind.__name__}.{name}"
            assert field.description.endswith("."), f"{kind.__name__}.{name}"


def test_a_log_that_is_cut_off_is_refused_by_line(tmp_path: Path):
    step = records.LossStep(step=1, loss=2.0, learning_rate=0.1, tokens=10, seconds=0.5)
    log = tmp_path / "log.jsonl"
    log.write_text(records.line(step) + records.line(step)[:-9])
    with pytest.raises(ValueError, match=r"log\.jsonl: line 2: not a complete JSON file"):
        records.read_lines(log, records.LossStep)


def test_numbers_that_are_none_cannot_be_written():
    step = {"step": 1, "learning_rate": 0.1, "tokens": 10, "seconds": 0.5}
    for loss in (float("nan"), float("inf"), None, "2", True):
        with pytest.raises(ValidationError, match="loss"):
            records.LossStep(**step, loss=loss)


def test_a_question_is_multiple_choice_or_free_text():
    named = {"task": "x", "question": 0, "prompt_sha256": "x", "ids": [[1]], "starts": [1]}
    assert not records.AskedQuestion(**named, options=["a", "b"], target=1).in_words
    words = {"reference": "a", "row": "{}", "stops": [], "most": 3}
    assert records.AskedQuestion(**named, **words).in_words
    for mixed in ({"options": ["a"]}, {"options": ["a"], "target": 0, "most": 3}, {"target": 0}):
        with pytest.raises(ValidationError, match="has options and target, or"):
            records.AskedQuestion(**named, **mixed)
