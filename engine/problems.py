"""pydantic's errors in the engine's words: what is wrong, where, what is allowed, what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError

from engine.errors import Problem, dotted, nearest

Place = tuple[str | int, ...]


def problems_of(
    error: ValidationError,
    data: Any,
    model: type[BaseModel],
    *,
    interpolated: set[Place] | frozenset[Place] = frozenset(),
) -> list[Problem]:
    """pydantic's errors in the engine's words, one per place; values that may be secret are never shown."""
    schema = _schema_of(model)
    found: dict[Place, Problem] = {}
    for item in error.errors(include_url=False):
        path = _real_path(item["loc"], data, item["type"] == "missing")
        node = _schema_at(schema, path[:-1] if item["type"] in ("missing", "extra_forbidden") else path, data)
        shown = "" if path in interpolated or _secret(node) else f", got {kind_of(item['input'])}"
        found.setdefault(path, _problem(item, path, node, shown))
    misspelt = {(p.path[:-1], p.fix) for p in found.values() if p.code == "config.unknown_key"}
    return [p for p in found.values() if not p.path or (p.path[:-1], f"did you mean {p.path[-1]!r}?") not in misspelt]


def _problem(item: Any, path: Place, node: dict[str, Any], shown: str) -> Problem:
    kind, context = item["type"], item.get("ctx", {})
    name, label = str(path[-1]) if path else "", _label(path)
    if kind == "extra_forbidden":
        properties = list(node.get("properties", {}))
        near = nearest(name, properties)
        fix = f"did you mean {near!r}?" if near else "remove it"
        return Problem("config.unknown_key", f"unknown key {name!r}", path, allowed=", ".join(properties), fix=fix)
    if kind == "missing" and not isinstance(path[-1], int):
        return Problem("config.missing_key", f"the key {name!r} is missing", path, fix=f"add {name}: …")
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _wrong_tag(path, context)
    if kind == "plug_in":
        fix = f"mend or remove {context['package']}; maestro sources lists what is installed"
        return Problem("config.plug_in", context["text"], (*path, "type"), fix=fix)
    if kind == "literal_error":
        allowed = context["expected"].replace("'", "")
        near = nearest(str(item["input"]), re.split(r", | or ", allowed)) if shown else None
        if near == str(item["input"]):
            return Problem(
                "config.type", f"{label}: it is quoted{shown}", path, allowed=allowed, fix=f"write {name}: {near}"
            )
        fix = f"did you mean {near!r}?" if near else "use one of the values above"
        return Problem("config.value", f"{label}: not an allowed value{shown}", path, allowed=allowed, fix=fix)
    code = "config.type" if kind.endswith("_type") else "config.value"
    allowed = context.get("allowed") or _allowed(node)
    near = context.get("nearest")
    fix = f"did you mean {near!r}?" if near else _fix(item, label, hidden=not shown)
    return Problem(code, f"{label}: {_message(kind, item['msg'])}{shown}", path, allowed=allowed, fix=fix)


def _wrong_tag(path: Place, context: Mapping[str, Any]) -> Problem:
    allowed = context.get("expected_tags", "'database', 'file', 'api', 's3'").replace("'", "")
    tag = context.get("tag")
    if tag is None:
        return Problem("config.missing_key", "the key 'type' is missing", path, allowed=allowed, fix="add type: …")
    near = nearest(str(tag), allowed.split(", "))
    fix = f"did you mean {near!r}?" if near else "use one of the types above"
    return Problem("config.unknown_name", f"unknown type {tag!r}", (*path, "type"), allowed=allowed, fix=fix)


def _label(path: Place) -> str:
    """The last key of a path, with the position in its list: ``unique_columns[0]``."""
    first = next((i for i in range(len(path) - 1, -1, -1) if isinstance(path[i], str)), 0)
    return dotted(path[first:])


_MESSAGES = {
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "string_type": "expected a text",
    "bool_type": "expected true or false",
    "tuple_type": "expected a list",
    "dict_type": "expected keys and values",
    "model_type": "expected keys and values",
    "model_attributes_type": "expected keys and values",
    "string_pattern_mismatch": "not written as it must be",
    "finite_number": "expected a finite number",
    "missing": "expected two values",
    "too_short": "expected at least one",
    "too_long": "expected two values",
}


def _message(kind: str, message: str) -> str:
    return _MESSAGES.get(kind, message.removeprefix("Input ").removeprefix("should be ").removeprefix("Value error, "))


def _allowed(node: dict[str, Any]) -> str | None:
    options = node.get("anyOf") or [node]
    description = node.get("description")
    parts = [p for option in options if (p := _allowed_one(option, description is not None))]
    text = " or ".join(dict.fromkeys(parts)) or None
    return f"{text}: {description}" if text and description else text or description


def _allowed_one(node: dict[str, Any], described: bool) -> str | None:
    if "enum" in node:
        return ", ".join(str(v) for v in node["enum"])
    if "pattern" in node and not described:
        return f"a text like {node['pattern']}"
    limits = [("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="), ("exclusiveMaximum", "<")]
    bounds = " and ".join(f"{sign} {node[key]}" for key, sign in limits if key in node)
    names = {
        "integer": "a whole number",
        "number": "a number",
        "string": "a text",
        "boolean": "true or false",
        "array": "a list",
        "object": "keys and values",
        "null": "null",
    }
    kind = node.get("type")
    label = names.get(kind) if isinstance(kind, str) else None
    return f"{label} {bounds}".strip() if label else None


def _fix(item: Any, name: str, *, hidden: bool) -> str:
    value = item["input"]
    if isinstance(value, str) and not hidden:
        if item["type"] in ("int_type", "float_type") and re.fullmatch(r"[-+]?[0-9.]+", value):
            return f"write {name}: {value} without quotes (a ${{VAR}} is always a text)"
        if item["type"] == "bool_type" and value.lower() in ("yes", "no", "on", "off", "y", "n"):
            return f"write {name}: {'true' if value.lower() in ('yes', 'on', 'y') else 'false'}"
        if item["type"] == "tuple_type":
            return f"write {name}: [{value}]"
    if item["type"] == "string_type" and isinstance(value, int | float) and not hidden:
        return f"put quotes around it: {json.dumps(str(value))}"
    return f"change {name} to what is allowed"


def kind_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "keys and values"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, str):
        return f"the text {value[:60]!r}"
    return f"{value!r}"[:60]


def _secret(node: dict[str, Any]) -> bool:
    return '"writeOnly": true' in json.dumps(node)


def _real_path(loc: tuple[str | int, ...], data: Any, missing: bool) -> Place:
    """``loc`` without the names of union branches and tags that pydantic inserts."""
    path: list[str | int] = []
    for i, part in enumerate(loc):
        last = i == len(loc) - 1
        if isinstance(data, Mapping) and (part in data or (last and missing)):
            path.append(part)
            data = data.get(part)
        elif isinstance(data, list | tuple) and isinstance(part, int) and (part < len(data) or missing):
            path.append(part)
            data = data[part] if part < len(data) else None
    return tuple(path)


def _schema_at(schema: dict[str, Any], path: Place, data: Any) -> dict[str, Any]:
    node: dict[str, Any] = _resolve(schema, schema, data)
    for part in path:
        data = data[part] if isinstance(data, Mapping | list | tuple) else None  # type: ignore[index]
        if isinstance(part, int):
            prefix = node.get("prefixItems", [])
            child = prefix[part] if part < len(prefix) else node.get("items", {})
        else:
            others = next(iter(node.get("patternProperties", {}).values()), node.get("additionalProperties", {}))
            child = node.get("properties", {}).get(part, others)
        node = _resolve(schema, child if isinstance(child, dict) else {}, data)
    return node


def _resolve(schema: dict[str, Any], node: dict[str, Any], data: Any) -> dict[str, Any]:
    """The schema node that applies to ``data``: references followed, the branch of its type taken."""
    extra = {k: v for k, v in node.items() if k in ("description",)}
    while True:
        if "$ref" in node:
            node = {**schema["$defs"][node["$ref"].rsplit("/", 1)[-1]], **extra}
        elif "discriminator" in node:
            tag = data.get("type") if isinstance(data, Mapping) else None
            reference = node["discriminator"]["mapping"].get(tag)
            if reference is None:
                return node
            node = {"$ref": reference}
        elif "anyOf" in node and any("$ref" in option for option in node["anyOf"]):
            node = next(option for option in node["anyOf"] if "$ref" in option)
        else:
            return node


@cache
def _schema_of(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()
