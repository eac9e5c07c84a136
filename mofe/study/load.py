"""YAML to a `Study`.

`load_study` turns the merged configuration into a frozen `Study` or raises one `ConfigError` that
lists every fault with its key path, its place, the offending value and what to write instead.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mofe.study import checks, claims, listed, written
from mofe.study.config import Study
from mofe.study.faults import path_of, sentence
from mofe.study.kinds import entries, without_nulls
from mofe.study.papers import changed
from mofe.study.values import ConfigError
from mofe.study.words import dotted, shown, suggest
from mofe.study.written import Layer, Written

# the sections whose names other keys may name
SECTIONS = ("models", "sources", "data", "mixes", "tasks", "recipes", "mixtures", "searches")


def load_study(
    config: Mapping[str, Any],
    files: Iterable[str | Path] = (),
    settings: Mapping[str, Any] | None = None,
    where: str = written.COMMAND_LINE,
) -> Study:
    """Check a merged configuration and return it as a `Study`.

    config: plain data, as Snakemake merges it from its config files and --config.
    files: the YAML files it came from, the first one first, for the places of faults, keys written
    twice, and what the first one has. settings: what overrides them, and where that stands: of the
    command line's --config, if nothing else is said.
    Raises ConfigError with every fault at once.
    """
    layers = [written.file(Path(file)) for file in files]
    if settings:
        layers.append(written.given(settings, where))
    return checked(config, layers, config)


def read_study(*files: str | Path, **overrides: Any) -> Study:
    """The study of YAML files, for programs. Later files override earlier ones, and a program's
    `overrides` all of them; a program may change the paper's setting under its name."""
    layers = [written.file(Path(file)) for file in files]
    config: dict[str, Any] = {}
    for layer in layers:
        config = overlay(config, layer.content)
    layers.append(written.given(overrides, ""))
    return checked(overlay(config, overrides), layers, config)


def dumped(config: Mapping[str, Any]) -> str:
    """A merged configuration as YAML, as results keep it."""
    return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)


def overlay(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """`base` overridden by `top`, mapping by mapping, as Snakemake merges its config files."""
    merged = dict(base)
    for key, value in top.items():
        are_mappings = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = overlay(merged[key], value) if are_mappings else value
    return merged


def checked(config: Mapping[str, Any], layers: Sequence[Layer], users: Mapping[str, Any]) -> Study:
    """A configuration that was merged from layers, as a `Study`. Raises as `load_study`.

    users: what of it is the user's, who may not change the paper's setting under its name.
    """
    layers = [listed.layer_by_name(layer) for layer in layers]
    config, users = listed.by_name(config), listed.by_name(users)
    places = written.all_of(layers)
    content, amiss = written.sound(config, places)
    for layer in layers:
        amiss |= {path: told for path, told in layer.faults.items() if path not in amiss}
    problems = [told for layer in layers for told in layer.twice]
    problems += [f"{dotted(path)}{places.where(path)}: {told}" for path, told in amiss.items()]
    problems += [places.located(told) for told in (*_in_vain(layers, places), *_alike(content))]

    own = content.get("claims")
    if isinstance(own, Mapping) or own is None:
        content["claims"] = overlay(claims.shipped(), own or {})
    given = content.get("tables")
    removed = {path for path, value in entries(Study, content) if value is None}
    content = _without_removed(without_nulls(Study, content), removed)
    study = None
    try:
        study = Study.model_validate(content, context=_names(content, removed))
    except ValidationError as error:
        for e in error.errors():
            path = tuple(map(str, path_of(e, Study)))
            if not any(path[: len(p)] == tuple(map(str, p)) for p in amiss):  # told already
                problems.append(sentence(e, Study, places))
    if study:
        found = [*checks.faults(study), *claims.faults(study, given, own or ())]
        problems += [places.located(told) for told in (*found, *_changed(study, users, layers))]
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return study


def _names(content: Mapping[str, Any], removed: Iterable[tuple]) -> dict[str, Any]:
    """The names that each section declares, if it is a mapping, and under "removed" the paths that
    null takes out."""
    sections = {s: content[s] for s in SECTIONS if isinstance(content.get(s), Mapping)}
    return {**{name: list(part) for name, part in sections.items()}, "removed": set(removed)}


def _without_removed(content: dict[str, Any], removed: Iterable[tuple]) -> dict[str, Any]:
    """Without the assumptions about what null takes out."""
    gone = [dotted(path) for path in removed]

    def stays(assumption: Any) -> bool:
        key = assumption.get("key") if isinstance(assumption, Mapping) else None
        return not any(key == path or str(key).startswith(f"{path}.") for path in gone)

    listed = content.get("assumptions")
    return content | ({"assumptions": [*filter(stays, listed)]} if isinstance(listed, list) else {})


def _in_vain(layers: Sequence[Layer], places: Written) -> Iterator[str]:
    """A sentence for every entry that is set to null although no file has it: a misspelt name would
    leave nothing out."""
    there: dict[tuple[str, ...], dict[str, bool]] = {}
    for content in ({"claims": claims.shipped()}, *(layer.content for layer in layers)):
        for path, value in entries(Study, content):
            *where, name = map(str, path)
            known = there.setdefault(tuple(where), {})
            known[name] = known.get(name, False) or value is not None
    for where, known in there.items():
        names = [name for name, given in known.items() if given]
        for name in known.keys() - set(names):
            hint = suggest(name, names) or "; remove this line"
            yield f"{dotted((*where, name))}: is not there, so null takes nothing out{hint}"


def _alike(config: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for every table, and every row of a table, that two keys name: a number and the
    same number in quotes. Merging files takes them for two."""
    tables = config.get("tables")
    parts = {"tables": tables} if isinstance(tables, Mapping) else {}
    for key, table in parts.get("tables", {}).items():
        if isinstance(table, Mapping) and isinstance(table.get("rows"), Mapping):
            parts[f"tables.{key}.rows"] = table["rows"]
    for where, part in parts.items():
        seen: dict[str, Any] = {}
        for key in part:
            text = str(key).lstrip("0") if str(key).isdecimal() else str(key)
            if text in seen:
                first, second = shown(seen[text]), shown(key)
                yield f"{where}: {first} and {second} name the same; write the key in one way"
            seen[text] = key


def _changed(study: Study, users: Mapping[str, Any], layers: Sequence[Layer]) -> Iterator[str]:
    """What a study with the paper's name changes of its first file."""
    first, last = (
        without_nulls(Study, part) for part in (layers[0].content if layers else {}, users)
    )
    return changed(study.study, first, last)
