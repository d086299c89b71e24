"""Reads a pipeline file strictly, and words every mistake with its place, what is allowed and what to do.

YAML is read as data only: no anchors, no tags, ``yes``/``on``/``012``/``1:30`` are texts, a repeated key is an
error. ``${VAR}`` inside a value is replaced by the environment variable (``$${`` writes a literal ``${``); the
result is always a text and can never become YAML structure.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from engine.errors import ConfigError, Problem, dotted, nearest
from engine.spec import Pipeline, ValidationSpec, problems, validation_problems

Path_ = tuple[str | int, ...]

_MAX_BYTES = 4 * 1024 * 1024
_MAX_DEPTH = 32
_VARIABLE = re.compile(r"\$\$\{|\$\{([^}]*)\}")
_SCALARS = (
    ("tag:yaml.org,2002:null", re.compile(r"^(|~|null|Null|NULL)$")),
    ("tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$")),
    ("tag:yaml.org,2002:int", re.compile(r"^[-+]?(0|[1-9][0-9]*)$")),
    (
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?((0|[1-9][0-9]*)?\.[0-9]+|(0|[1-9][0-9]*)\.?)([eE][-+]?[0-9]+)?$"),
    ),
    ("tag:yaml.org,2002:float", re.compile(r"^([-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$")),
)


@dataclass
class Document:
    """A YAML file as plain values, with the place of every key and value."""

    file: str
    data: Any = None
    positions: dict[Path_, tuple[int, int]] = field(default_factory=dict)
    interpolated: set[Path_] = field(default_factory=set)

    def problem(self, problem: Problem) -> Problem:
        """``problem`` with file, line and column of the nearest part that was written down."""
        path = problem.path
        while path and path not in self.positions:
            path = path[:-1]
        line, column = self.positions.get(path, (1, 1))
        return replace(problem, file=self.file, line=line, column=column)

    def error(self, found: Iterable[Problem]) -> ConfigError:
        """The problems as one error, from the top of the file to its end."""
        return ConfigError(sorted(map(self.problem, found), key=lambda p: (p.line or 0, p.column or 0)))


def load_pipeline(path: str | Path) -> Pipeline:
    """The pipeline that a YAML file declares.

    Raises:
        ConfigError: with every mistake found, each with file, line and column; nothing else has been read.
    """
    document = read_document(Path(path))
    data = _mapping_of(document)
    found: list[Problem] = []
    if "version" not in data:
        found.append(
            Problem("config.missing_key", "the key 'version' is missing", fix="begin the file with version: 1")
        )
    pipeline = Pipeline.__new__(Pipeline)
    try:
        # Pipeline(...) would word pydantic's error without places.
        Pipeline.__pydantic_validator__.validate_python(data, self_instance=pipeline)
    except ValidationError as error:
        found += problems_of(error, data, interpolated=document.interpolated)
    else:
        found += problems(pipeline)
    if found:
        raise document.error(found)
    return pipeline.located(document, Path(path).resolve().parent)


def load_validation(path: str | Path) -> ValidationSpec:
    """The checks that a YAML file holds: the content of one ``validation`` entry.

    Raises:
        ConfigError: as `load_pipeline`.
    """
    document = read_document(Path(path))
    try:
        return _validation(_mapping_of(document), document.interpolated)
    except ConfigError as error:
        raise document.error(error.problems) from None


def parse_validation(config: Mapping[str, Any]) -> ValidationSpec:
    """The checks that a dict holds, as strictly as from a file."""
    return _validation(config)


def _validation(config: Mapping[str, Any], interpolated: set[Path_] | frozenset[Path_] = frozenset()) -> ValidationSpec:
    try:
        spec = ValidationSpec.model_validate(config)
    except ValidationError as error:
        found = problems_of(error, config, model=ValidationSpec, interpolated=interpolated)
        raise ConfigError(found) from None
    if found := list(validation_problems((), spec)):
        raise ConfigError(found)
    return spec


def _mapping_of(document: Document) -> dict[str, Any]:
    if isinstance(document.data, dict):
        return document.data
    message = "the file is empty" if document.data is None else f"expected keys and values, got {_kind(document.data)}"
    problem = Problem("config.not_a_mapping", message, fix="begin with the file that `maestro init` writes")
    raise document.error([problem])


# --- YAML ---------------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own protocol


for _tag, _pattern in _SCALARS:
    _Loader.add_implicit_resolver(_tag, _pattern, None)


def read_document(path: Path) -> Document:
    """A YAML file as values with places; ``${VAR}`` replaced.

    Raises:
        ConfigError: the file cannot be read, is not the YAML allowed here, or names an unset variable.
    """
    document = Document(file=_display(path))
    document.positions[()] = (1, 1)

    def stop(
        code: str, message: str, mark: Any = None, *, allowed: str | None = None, fix: str | None = None
    ) -> ConfigError:
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (None, None)
        return ConfigError([Problem(code, message, (), document.file, line, column, allowed, fix)])

    try:
        if path.stat().st_size > _MAX_BYTES:
            raise stop(
                "config.too_large",
                "the file is larger than 4 MiB",
                fix="name the pipeline file, not a data file",
            )
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise stop("config.encoding", f"the file is not UTF-8 (byte {error.start})", fix="save it as UTF-8") from None
    except OSError as error:
        raise stop(
            "config.unreadable",
            f"cannot read the file: {error.strerror}",
            fix="check the path, or begin with `maestro init`",
        ) from None
    try:
        loader = _Loader(text)
        try:
            _check_events(text, stop)
            node = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        what = error.problem or "cannot be read"
        fix = "indent with spaces, not tabs" if "\\t" in what else "quote texts that hold : # { [ * & ! or %"
        if "expected a single document" in f"{error.context}":
            what, fix = "the file holds more than one document", "keep one pipeline in a file"
        raise stop("config.yaml", f"not valid YAML: {what}", error.problem_mark, fix=fix) from None
    except yaml.YAMLError as error:
        raise stop(
            "config.yaml", f"not valid YAML: {str(error).splitlines()[0]}", fix="save it as plain text"
        ) from None
    reader = _Reader(document)
    document.data = reader.value(node, ()) if node is not None else None
    if reader.problems:
        raise ConfigError([document.problem(p) if p.line is None else p for p in reader.problems])
    return document


def _check_events(text: str, stop: Any) -> None:
    """Refuses what could execute, multiply or hide: tags, anchors, aliases, endless nesting."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        mark = event.start_mark
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _MAX_DEPTH:
            raise stop("config.nesting", f"nested more than {_MAX_DEPTH} deep", mark, fix="check the indentation")
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise stop(
                "config.anchor",
                "anchors and aliases (& and *) are not used here",
                mark,
                fix="quote a text that begins with & or *, or write the value out",
            )
        if tag := getattr(event, "tag", None):
            raise stop(
                "config.tag",
                f"the tag {tag!r} is not used here",
                mark,
                allowed="plain values",
                fix="remove the tag",
            )


class _Reader:
    """Turns YAML nodes into values, noting places and mistakes on the way."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[Problem] = []

    def value(self, node: yaml.Node, path: Path_) -> Any:
        self.document.positions.setdefault(path, (node.start_mark.line + 1, node.start_mark.column + 1))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, i)) for i, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path_) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            mark = key_node.start_mark
            place = {"file": self.document.file, "line": mark.line + 1, "column": mark.column + 1}
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(Problem("config.key", "a key must be a text", path, **place, fix="quote it"))
                continue
            key = str(key_node.value)
            if key == "<<":
                self.problems.append(
                    Problem(
                        "config.anchor",
                        "merge keys (<<) are not used here",
                        path,
                        **place,
                        fix="write the keys out",
                    )
                )
            elif key in result:
                first = self.document.positions[(*path, key)][0]
                self.problems.append(
                    Problem(
                        "config.repeated_key",
                        f"the key {key!r} stands twice; the first is on line {first}",
                        (*path, key),
                        **place,
                        fix="remove one of the two",
                    )
                )
            else:
                self.document.positions[(*path, key)] = (mark.line + 1, mark.column + 1)
                result[key] = self.value(value_node, (*path, key))
        return result

    def _scalar(self, node: yaml.Node, path: Path_) -> Any:
        text, tag = str(node.value), node.tag.rsplit(":", 1)[-1]
        if tag == "null":
            return None
        if tag == "bool":
            return text.lower() == "true"
        if tag == "int":
            return int(text)
        if tag == "float":
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        return self._interpolate(text, path)

    def _interpolate(self, text: str, path: Path_) -> str:
        def substitute(match: re.Match[str]) -> str:
            name = match.group(1)
            if name is None:
                return "${"
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                self.problems.append(
                    Problem(
                        "config.variable",
                        f"${{{name}}} is not the name of an environment variable",
                        path,
                        allowed="${NAME} of letters, digits and underscores",
                        fix="write $${ for a literal ${",
                    )
                )
                return ""
            if name not in os.environ:
                near = nearest(name, os.environ)
                self.problems.append(
                    Problem(
                        "config.unset_variable",
                        f"the environment variable {name} is not set",
                        path,
                        fix=f"export {name}=… before the run" + (f", or did you mean {near}?" if near else ""),
                    )
                )
                return ""
            self.document.interpolated.add(path)
            return os.environ[name]

        return _VARIABLE.sub(substitute, text)


def _display(path: Path) -> str:
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


# --- JSON Schema and error texts ----------------------------------------------------------------------------------


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the pipeline file, made from the same classes that the loader enforces."""
    schema = Pipeline.model_json_schema()
    schema["required"] = ["version", *schema["required"]]
    _close(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "maestro pipeline"}


def _close(node: Any) -> None:
    """Names that fit no pattern are mistakes, which pydantic leaves open; a ``${VAR}`` fits every text."""
    if isinstance(node, dict):
        if "patternProperties" in node:
            node["additionalProperties"] = False
        if isinstance(node.get("pattern"), str):
            node["pattern"] += r"|\$\{"
        for child in node.values():
            _close(child)
    elif isinstance(node, list):
        for child in node:
            _close(child)


def problems_of(
    error: ValidationError,
    data: Any,
    *,
    model: type[Any] = Pipeline,
    interpolated: set[Path_] | frozenset[Path_] = frozenset(),
) -> list[Problem]:
    """pydantic's errors in the engine's words, one per place; values that may be secret are never shown."""
    schema = model.model_json_schema()
    found: dict[Path_, Problem] = {}
    for item in error.errors(include_url=False):
        path = _real_path(item["loc"], data, item["type"] == "missing")
        node = _schema_at(schema, path[:-1] if item["type"] in ("missing", "extra_forbidden") else path, data)
        shown = "" if path in interpolated or _secret(node) else f", got {_kind(item['input'])}"
        found.setdefault(path, _problem(item, path, node, shown))
    misspelt = {(p.path[:-1], p.fix) for p in found.values() if p.code == "config.unknown_key"}
    return [p for p in found.values() if not p.path or (p.path[:-1], f"did you mean {p.path[-1]!r}?") not in misspelt]


def _problem(item: Any, path: Path_, node: dict[str, Any], shown: str) -> Problem:
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
    fix = f"did you mean {near!r}?" if near else _fix(item, label, node)
    return Problem(code, f"{label}: {_message(kind, item['msg'])}{shown}", path, allowed=allowed, fix=fix)


def _wrong_tag(path: Path_, context: Mapping[str, Any]) -> Problem:
    allowed = context.get("expected_tags", "'database', 'file', 'api', 's3'").replace("'", "")
    tag = context.get("tag")
    if tag is None:
        return Problem("config.missing_key", "the key 'type' is missing", path, allowed=allowed, fix="add type: …")
    near = nearest(str(tag), allowed.split(", "))
    fix = f"did you mean {near!r}?" if near else "use one of the types above"
    return Problem("config.unknown_name", f"unknown type {tag!r}", (*path, "type"), allowed=allowed, fix=fix)


def _label(path: Path_) -> str:
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


def _fix(item: Any, name: str, node: dict[str, Any]) -> str:
    value = item["input"]
    if isinstance(value, str) and not _secret(node):
        if item["type"] in ("int_type", "float_type") and re.fullmatch(r"[-+]?[0-9.]+", value):
            return f"write {name}: {value} without quotes (a ${{VAR}} is always a text)"
        if item["type"] == "bool_type" and value.lower() in ("yes", "no", "on", "off", "y", "n"):
            return f"write {name}: {'true' if value.lower() in ('yes', 'on', 'y') else 'false'}"
        if item["type"] == "tuple_type":
            return f"write {name}: [{value}]"
    if item["type"] == "string_type" and isinstance(value, int | float):
        return f"put quotes around it: {json.dumps(str(value))}"
    return f"change {name} to what is allowed"


def _kind(value: Any) -> str:
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
    return '"format": "password"' in json.dumps(node)


def _real_path(loc: tuple[str | int, ...], data: Any, missing: bool) -> Path_:
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


def _schema_at(schema: dict[str, Any], path: Path_, data: Any) -> dict[str, Any]:
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
