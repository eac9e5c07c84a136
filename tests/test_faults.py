"""A fault names the path that the user wrote, with its line, whatever the user's names are."""

from collections.abc import Mapping
from typing import Annotated, Literal

import pytest
import yaml
from conftest import CONFIG
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from mofe.study.faults import sentence
from mofe.study.load import load_study, overlay
from mofe.study.values import NAME, ConfigError, Name, Part

BASE = yaml.safe_load(CONFIG.read_text())
# what pydantic itself adds to a location
TAGS = ("int", "float", "str", "list", "constrained-int", "function-after", "lora", "freeze", "1")
names = st.sampled_from(TAGS) | st.from_regex(NAME, fullmatch=True)
ADD = object()  # an unknown key, whose name is drawn

# Where the fault is, with NAME for a name, and the value put there.
FAULTS = (
    (("recipes", NAME, "training", "learning_rate"), "3e-5"),
    (("recipes", NAME, "training", "micro_batch"), "some"),
    (("recipes", NAME, "training", ADD), 1),
    (("recipes", NAME, "rank"), 0),
    (("recipes", NAME, ADD), 1),
    (("models", NAME, "train", "mmlu"), "no-such-recipe"),
    (("models", NAME, "train", "no-such-mix"), "full"),
    (("models", NAME, "gates", "positive", 1), []),
    (("models", NAME, "gates", "negative", 0), 7),
    (("models", NAME, "gates", ADD), 7),
    (("tasks", NAME, "columns", "options"), 3),
    (("tasks", NAME, "columns", "options"), ["one"]),
    (("tasks", NAME, "columns", "options", 1), 3),
    (("tasks", NAME, "columns", ADD), 3),
    (("mixtures", NAME, "experts", NAME), "2"),
    (("tables", 1, "columns", NAME), "no-such-task"),
    (("tables", 1, "rows", "a", "train", NAME), "full"),
    (("tables", 1, "header", 0, 1), "2"),
    (("training", "epochs"), 1.5),
    (("training", ADD), 1),
    ((ADD,), {}),
)
SOUND = {
    "recipes": {"method": "lora", "rank": 1, "alpha": 1, "targets": ["q_proj"]},
    "models": {
        "from": "tinyllama",
        "train": {"mmlu": "full"},
        "gates": {"positive": [["a"], ["b"]], "negative": ["c"]},
    },
    "tasks": {
        "harness": ["mofe_mcq"],
        "source": "mmlu",
        "split": "test",
        "columns": {"question": "q", "options": ["a", "b"], "answer": "k"},
    },
    "mixtures": {"base": "tinyllama", "experts": {}},
}
TABLE = {
    "caption": "A table.",
    "labels": ["Row"],
    "header": [["", 1], ["Score", 1]],
    "columns": {"MMLU": "mmlu"},
    "rows": {"a": {"mixture": "small", "train": {}}},
}


def put(value, path: tuple, leaf):
    """`value` with `leaf` at `path`."""
    if not path:
        return leaf
    key, *rest = path
    if isinstance(value, list):
        return [put(v, rest, leaf) if index == key else v for index, v in enumerate(value)]
    return {**value, key: put(value.get(key, {}), rest, leaf)}


def line_of(text: str, path: tuple) -> int:
    """The line at which a path stands in block-style YAML, found by PyYAML's nodes."""
    node = yaml.compose(text)
    for key in path:
        if isinstance(node, yaml.SequenceNode):
            node = place = node.value[key]
        else:
            place, node = next(pair for pair in node.value if pair[0].value == str(key))
    return place.start_mark.line + 1


@settings(deadline=None, max_examples=200)
@given(fault=st.sampled_from(FAULTS), name=names, added=st.sampled_from(TAGS) | st.just("[key]"))
@example(fault=FAULTS[0], name="int", added="int")
@example(fault=FAULTS[0], name="float", added="int")
@example(fault=FAULTS[0], name="str", added="int")
def test_a_fault_names_the_path_and_line_that_the_user_wrote(fault, name, added, tmp_path_factory):
    path = tuple(name if k is NAME else added if k is ADD else k for k in fault[0])
    section = path[0]
    top = {section: {name: SOUND[section]}} if section in SOUND else {}
    top = put({**top, "tables": {1: TABLE}}, path, fault[1])
    text = yaml.safe_dump(top, default_flow_style=False)
    file = tmp_path_factory.mktemp("fault") / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load_study(overlay(BASE, yaml.safe_load(text)), [file])
    start = f"{'.'.join(map(str, path))} ({file}:{line_of(text, path)}): "
    assert any(problem.startswith(start) for problem in raised.value.problems), (
        start,
        raised.value.problems,
    )


@pytest.mark.parametrize("section", ["recipes", "models", "sources"])
@pytest.mark.parametrize("name", ["list[int]", "function-after[f(), int]", "[key]", "a b", "-int"])
def test_a_name_that_is_none_is_told_as_it_was_written(section, name):
    sound = next(iter(BASE[section].values()))
    with pytest.raises(ConfigError) as raised:
        load_study(overlay(BASE, {section: {name: sound}}))
    assert any(
        problem.startswith(f"{section}.{name}: {name!r} cannot be a name")
        for problem in raised.value.problems
    ), raised.value.problems


class Square(Part):
    shape: Literal["square"]
    side: int


class Round(Part):
    shape: Literal["round"]
    radius: float
    square: dict[str, int] = Field({}, description="Named like the other alternative.")


class Drawing(Part):
    shapes: dict[Name, Annotated[Square | Round, Field(discriminator="shape")]]


@pytest.mark.parametrize(
    "shape, told",
    [
        ({"shape": "square", "side": "2"}, "side: '2' is text, not a number; write 2 in"),
        ({"shape": "square", "sides": 2, "side": 1}, "sides: unknown key; did you mean 'side'?"),
        ({"shape": "square"}, "side: this key is missing"),
        ({"shape": "round", "radius": 1.0, "side": 2}, "side: unknown key; known are radius,"),
        ({"shape": "round", "radius": 1.0, "square": {"square": "x"}}, "square.square: 'x' is"),
        ({"shape": "round", "radius": 1.0, "round": 1}, "round: unknown key"),
        ({"shape": "sqare"}, "shape: 'sqare' is not one of the choices; did you mean 'square'?"),
        ({"side": 1}, "shape: this key is missing; add it"),
    ],
)
@pytest.mark.parametrize("name", ["square", "round", "int", "mine"])
def test_the_alternative_that_a_key_chooses_is_no_part_of_the_path(name, shape: Mapping, told):
    with pytest.raises(ValidationError) as raised:
        Drawing.model_validate({"shapes": {name: shape}})
    sentences = [sentence(error, Drawing) for error in raised.value.errors()]
    assert len(sentences) == 1
    assert sentences[0].startswith(f"shapes.{name}.{told}")
