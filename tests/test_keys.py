"""The configuration's keys are described once: the models, the editors' schema and the page agree."""

import json
import re

import jsonschema
import pytest
import yaml
from conftest import CONFIG, LOOK, ROOT
from test_config import FAULTS, put

from mofe.study.config import Study, Training, TrainingOverride
from mofe.study.load import overlay
from mofe.study.values import Part

SCHEMA = ROOT / "docs/schemas/config.schema.json"
STUDIES = [
    CONFIG,
    *sorted(ROOT.glob("profiles/*/study.yaml")),
    LOOK,
    *sorted(ROOT.glob("tests/studies/*.yaml")),
]


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    content = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(content)
    return jsonschema.Draft202012Validator(content)


def as_json(config: dict) -> dict:
    """A configuration as an editor sees it: every key is text."""
    return json.loads(json.dumps(config))


def parts(kind: type[Part] = Part) -> set[type[Part]]:
    """Every part of the configuration."""
    found = {p for p in kind.__subclasses__() if p.__module__.startswith("mofe.")}
    return found.union(*(parts(p) for p in found)) if found else found


def test_every_key_is_described_in_a_sentence():
    assert {Study, Training, TrainingOverride} <= parts()
    for part in parts():
        for key, field in part.model_fields.items():
            text = field.description or ""
            assert re.fullmatch(r"\S+( \S+)+\.", text), f"{part.__name__}.{key}: {text!r}"


def test_what_overrides_the_training_has_its_keys_and_descriptions():
    described = {key: field.description for key, field in Training.model_fields.items()}
    assert described == {key: f.description for key, f in TrainingOverride.model_fields.items()}


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_shipped_study_names_the_schema_and_fits_it(schema, study):
    mark, _, address = study.read_text().splitlines()[0].partition("$schema=")
    assert mark == "# yaml-language-server: "
    assert (study.parent / address).resolve() == SCHEMA
    given = yaml.safe_load(study.read_text())
    schema.validate(as_json(given))
    schema.validate(as_json(overlay(yaml.safe_load(CONFIG.read_text()), given)))


@pytest.mark.parametrize(
    "fault",
    [name for name in FAULTS if name.startswith(("unknown key", "wrong", "text", "a word"))],
)
def test_the_schema_refuses_misspelt_keys_and_wrong_kinds(schema, fault):
    path, value = FAULTS[fault][:2]
    config = yaml.safe_load(CONFIG.read_text())
    put(config, path, value)
    assert not schema.is_valid(as_json(config))


@pytest.mark.parametrize(
    "given, fits",
    [
        ({"recipes": {"mine": {"training": {"epochs": 1}}}}, True),
        ({"recipes": {"mine": {"training": {"epoch": 1}}}}, False),
        ({"tables": {"2": None}}, True),
        ({"models": {"tinyllama": {"hub": None, "revision": None}}}, True),
        ({"models": {"tinyllama": {"hbu": None}}}, False),
        ({"merge": {"dtype": "float16"}}, False),
        ({"training": {"epochs": None}}, False),
        ({"training": {"learning_rate": "3e-5"}}, False),
        ({"training": {"fold_duplicates": "yes"}}, False),
        ({"seeds": [0, 1]}, True),
        ({"seeds": [-1]}, False),
    ],
    ids=str,
)
def test_an_overlay_holds_only_what_differs(schema, given, fits):
    assert schema.is_valid(given) is fits
