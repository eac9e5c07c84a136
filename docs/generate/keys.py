"""The tables of docs/configuration.md and the editors' schema, from the models of
mofe/study/config.py."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from mofe.markdown import table
from mofe.study.config import Study

PAGE = "docs/configuration.md"
HEADINGS = ("Key", "Value", "Default", "Meaning")
OVERRIDES = "training"  # the section whose keys other sections may override
Node = dict[str, Any]  # a node of a JSON schema


class _Untitled(GenerateJsonSchema):
    """pydantic's JSON schema without titles that repeat the keys."""

    def field_title_should_be_set(self, schema) -> bool:
        return False


SCHEMA: Node = Study.model_json_schema(schema_generator=_Untitled)


def _resolved(node: Node) -> Node:
    """A node with what it refers to. Keys beside the reference override those of its target."""
    if "$ref" not in node:
        return node
    return {**SCHEMA["$defs"][node["$ref"].rpartition("/")[2]], **node}


def _alternatives(node: Node) -> list[Node]:
    """What a value may be. Null is left out if it is the default."""
    node = _resolved(node)
    found = [_resolved(n) for n in node.get("anyOf", node.get("oneOf", [node]))]
    optional = "default" in node and node["default"] is None
    return [n for n in found if not (optional and n.get("type") == "null")]


def _parts(node: Node) -> list[Node]:
    """The mappings with keys of their own that a section, its entries or its items may be."""
    found = []
    for alternative in _alternatives(node):
        if "properties" in alternative:
            found.append(alternative)
        for inner in (alternative.get("additionalProperties"), alternative.get("items")):
            found += _parts(inner) if inner else []
    return found


SECTIONS = {name: parts for name, node in SCHEMA["properties"].items() if (parts := _parts(node))}


def _is_override(node: Node) -> bool:
    own = SECTIONS[OVERRIDES][0]["properties"].keys()
    return node.get("properties", {}).keys() == own


def _code(value: Any) -> str:
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    return f"`{text}`"


def _or(words: list[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def _range(node: Node) -> str:
    bounds = [
        f"{word} {node[key]:.12g}"
        for key, word in (
            ("minimum", "from"),
            ("exclusiveMinimum", "above"),
            ("maximum", "to"),
            ("exclusiveMaximum", "to below"),
        )
        if key in node
    ]
    return "".join(f" {bound}" for bound in bounds)


def _value(node: Node) -> str:
    """What a key's value may be, in words."""
    return _or([_one_value(n) for n in _alternatives(node)])


def _one_value(node: Node) -> str:
    if _is_override(node):
        return f"[keys of `{OVERRIDES}`](#{OVERRIDES})"
    if "properties" in node:
        return "keys"
    if "const" in node or "enum" in node:
        return _or([_code(word) for word in node.get("enum", [node.get("const")])])
    match node.get("type"):
        case "array" if "prefixItems" in node:
            return f"[{', '.join(_value(n) for n in node['prefixItems'])}]"
        case "array":
            return f"[{_value(node['items'])}, ...]"
        case "object":
            name = node.get("propertyNames", {}).get("format", "text")
            return f"{{{name}: {_value(node['additionalProperties'])}}}"
        case "boolean":
            return "`true` or `false`"
        case "integer":
            return f"whole number{_range(node)}"
        case "number":
            return f"number{_range(node)}"
        case "null":
            return "`null`"
        case _:
            return node.get("format", "text")


def _row(part: Node, key: str, above: str = "") -> list[str]:
    """The row of one of a part's keys; `above` is the path to the part."""
    node = part["properties"][key]
    default = None if _parts(node) else node.get("default")
    shown = "none" if default in (None, [], {}) else _code(default)
    return [
        f"`{above}{key}`",
        _value(node),
        "" if key in part.get("required", ()) else shown,
        node.get("description") or _resolved(node)["description"],
    ]


def _rows(part: Node, keys: list[str], above: str = "") -> Iterator[list[str]]:
    """The rows of these keys of a part, each followed by the keys of the parts that it holds."""
    for key in keys:
        yield _row(part, key, above)
        for inner in _parts(part["properties"][key]):
            if not _is_override(inner):
                yield from _rows(inner, list(inner["properties"]), f"{above}{key}.")


def _top() -> str:
    """The table of the keys at the top level. Keys that hold keys have a section of their own."""
    rows = []
    for key, node in SCHEMA["properties"].items():
        row = _row(SCHEMA, key)
        if key in SECTIONS:
            null = any(n.get("type") == "null" for n in _alternatives(node))
            row[1] = f"[keys](#{key})" + (" or `null`" if null else "")
        rows.append(row)
    return table(HEADINGS, rows)


def _section(name: str) -> str:
    """The table of a section's keys. A section with alternatives has a table for each of them, and
    one for the keys that they share."""
    parts = SECTIONS[name]
    first, *others = [part["properties"] for part in parts]
    shared = [key for key in first if all(first[key] == other.get(key) for other in others)]
    if not others:
        return table(HEADINGS, list(_rows(parts[0], shared)))
    texts = []
    for part in parts:
        words = {key: n["const"] for key, n in part["properties"].items() if "const" in n}
        choice = ", ".join(f"`{key}: {word}`" for key, word in words.items())
        summary = " ".join(part["description"].partition("\n\n")[0].split())
        texts.append(f"{choice}: {summary}" if choice else summary)
        if own := [key for key in part["properties"] if key not in {*shared, *words}]:
            texts.append(table(HEADINGS, list(_rows(part, own))))
    if shared:
        texts += ["All of them:", table(HEADINGS, list(_rows(parts[0], shared)))]
    return "\n\n".join(texts)


def _loosened(node: Any) -> Any:
    """A schema for overlays: no key is required, so a part may match several alternatives, and null
    takes an entry out of a mapping of names."""
    if isinstance(node, list):
        return [_loosened(n) for n in node]
    if not isinstance(node, dict):
        return node
    found = {}
    for key, value in node.items():
        if key in ("properties", "$defs"):
            found[key] = {name: _loosened(n) for name, n in value.items()}
        elif key == "default":
            found[key] = value
        elif key == "additionalProperties" and isinstance(value, dict):
            found[key] = {"anyOf": [_loosened(value), {"type": "null"}]}
        elif key not in ("required", "title", "discriminator"):
            found["anyOf" if key == "oneOf" else key] = _loosened(value)
    return found


def editor_schema() -> str:
    """The JSON schema with which editors check and complete config.yaml and its overlays."""
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "config.yaml, or an overlay of it",
    }
    return json.dumps({**head, **_loosened(SCHEMA)}, indent=2, ensure_ascii=False) + "\n"


PARTS: dict[tuple[str, str], Callable[[], str]] = {
    (PAGE, "keys"): _top,
    **{(PAGE, f"keys of {name}"): partial(_section, name) for name in SECTIONS},
}
FILES: dict[str, Callable[[], str]] = {"docs/schemas/config.schema.json": editor_schema}
