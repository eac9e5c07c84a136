"""YAML to a `Study`.

`load_study` turns the merged configuration into a frozen `Study` or raises one `ConfigError` that
lists every fault with its key path, the offending value and what to write instead.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mofe.study import claims
from mofe.study.config import Study
from mofe.study.faults import sentence
from mofe.study.values import ConfigError, suggest

# the sections whose names other keys may name
SECTIONS = ("models", "sources", "data", "mixes", "tasks", "recipes", "mixtures", "searches")


def _scan(files: Iterable[Path]) -> tuple[dict[tuple, str], list[str]]:
    """The position of each key path, as ' (file:line)', and a sentence for every key that is
    written twice in one mapping."""
    lines: dict[tuple, str] = {}
    twice: list[str] = []

    def walk(node, path: tuple, file: Path):
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                here = (*path, str(key.value))
                position = f" ({file}:{key.start_mark.line + 1})"
                if key.value in seen:
                    twice.append(f"{'.'.join(here)}{position}: this key stands twice; remove one")
                seen.add(key.value)
                lines[here] = position
                walk(value, here, file)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                here = (*path, str(index))
                lines[here] = f" ({file}:{value.start_mark.line + 1})"
                walk(value, here, file)

    for file in files:
        walk(yaml.compose(Path(file).read_text()), (), Path(file))
    return lines, twice


def _dropped_in_vain(files: Iterable[Path], lines: Mapping[tuple, str]) -> Iterator[str]:
    """A sentence for every mixture, every table, and every row of a table, that is set to null
    although no file has it: a misspelt name would leave nothing out."""
    there: dict[tuple[str, ...], dict[str, bool]] = {}
    for file in files:
        content = yaml.safe_load(file.read_text()) or {}
        tables = content.get("tables")
        named: list[tuple[tuple[str, ...], Any]] = [(("mixtures",), content.get("mixtures"))]
        for key, table in tables.items() if isinstance(tables, Mapping) else ():
            rows = table.get("rows") if isinstance(table, Mapping) else None
            named += [(("tables",), {key: table}), (("tables", str(key), "rows"), rows)]
        for where, part in named:
            for name, value in part.items() if isinstance(part, Mapping) else ():
                known = there.setdefault(where, {})
                known[str(name)] = known.get(str(name), False) or value is not None
    for where, known in there.items():
        names = [name for name, given in known.items() if given]
        for name in known.keys() - set(names):
            path = (*where, name)
            yield f"{'.'.join(path)}{lines.get(path, '')}: is not there{suggest(name, names)}"


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
            text = str(int(key)) if str(key).isdecimal() else str(key)
            if text in seen:
                yield f"{where}: {seen[text]!r} and {key!r} name the same; write the key in one way"
            seen[text] = key


def load_study(config: Mapping[str, Any], files: Iterable[str | Path] = ()) -> Study:
    """Check a merged configuration and return it as a `Study`.

    config: plain data, as Snakemake merges it from its config files and --config.
    files: the YAML files it came from, for line numbers and keys written twice.
    Raises ConfigError with every fault at once.
    """
    files = [Path(f) for f in files]
    lines, problems = _scan(files)
    problems += [*_dropped_in_vain(files, lines), *_alike(config)]
    declared = {
        section: [name for name, part in config[section].items() if part is not None]
        for section in SECTIONS
        if isinstance(config.get(section), Mapping)
    }
    own = config.get("claims")
    if isinstance(own, Mapping) or own is None:
        config = {**config, "claims": overlay(claims.shipped(), own or {})}
    study = None
    try:
        study = Study.model_validate(dict(config), context=declared)
    except ValidationError as error:
        for e in error.errors():
            problems += e["ctx"]["list"] if e["type"] == "study" else [sentence(e, Study, lines)]
    if study:
        problems += claims.faults(study, config["tables"], own or ())
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return study


def read_study(*files: str | Path, **overrides: Any) -> Study:
    """The study of YAML files. Later files override earlier ones, and `overrides` all of them."""
    config: dict[str, Any] = {}
    for file in files:
        config = overlay(config, yaml.safe_load(Path(file).read_text()))
    return load_study(overlay(config, overrides), files)


def overlay(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """`base` overridden by `top`, mapping by mapping, as Snakemake merges its config files."""
    merged = dict(base)
    for key, value in top.items():
        are_mappings = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = overlay(merged[key], value) if are_mappings else value
    return merged
