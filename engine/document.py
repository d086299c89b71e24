"""Reads YAML strictly, as data only, and remembers where everything was written.

No anchors, no tags; ``yes``/``on``/``012``/``1:30`` are texts; a repeated key is an error. ``${VAR}`` inside a value is
replaced by the environment variable (``$${`` writes a literal ``${``); the result is always a text and can never become
YAML structure.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from engine.errors import ConfigError, Problem, nearest
from engine.problems import Place

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
    positions: dict[Place, tuple[int, int]] = field(default_factory=dict)
    interpolated: set[Place] = field(default_factory=set)

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
        position = getattr(error, "position", 0)
        mark = yaml.Mark("", position, text.count("\n", 0, position), 0, None, 0)
        raise stop(
            "config.yaml", f"not valid YAML: {str(error).splitlines()[0]}", mark, fix="remove that character"
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

    def value(self, node: yaml.Node, path: Place) -> Any:
        self.document.positions.setdefault(path, (node.start_mark.line + 1, node.start_mark.column + 1))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, i)) for i, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Place) -> dict[str, Any]:
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

    def _scalar(self, node: yaml.Node, path: Place) -> Any:
        text, tag = str(node.value), node.tag.rsplit(":", 1)[-1]
        if tag == "null":
            return None
        if tag == "bool":
            return text.lower() == "true"
        if tag == "int" and len(text) < 400:  # longer ones are no numbers anybody means
            return int(text)
        if tag == "float":
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        return self._interpolate(text, path)

    def _interpolate(self, text: str, path: Place) -> str:
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


def read_foreign(text: str, file: str) -> Any:
    """The YAML of another program, by the rules of YAML 1.1 that such programs read it by; data only.

    Raises:
        ConfigError: it is not YAML.
    """
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (None, None)
        what = getattr(error, "problem", None) or "cannot be read"
        problem = Problem("config.yaml", f"not valid YAML: {what}", (), file, line, column, None, "correct the file")
        raise ConfigError([problem]) from None


def _display(path: Path) -> str:
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
