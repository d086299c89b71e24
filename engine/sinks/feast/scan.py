"""What the Python files of a feature repo define, as far as their text shows: they are not run."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engine.sinks.feast.definitions import author

_KINDS = {
    "Entity": "entity",
    "FeatureService": "service",
    **dict.fromkeys(("FileSource", "PushSource", "RequestSource"), "source"),
    **dict.fromkeys(("FeatureView", "BatchFeatureView", "StreamFeatureView", "OnDemandFeatureView"), "view"),
}


@dataclass(frozen=True)
class Defined:
    """An object that is made by name in a file.

    Attributes:
        pipeline: that the file was generated for, "" where it does not say; None: it is hand-written.
        facts: of an entity, its ``join_key`` and ``value_type``, as far as the text shows them.
        tags: as far as the text shows them.
    """

    path: Path
    kind: str
    name: str
    pipeline: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


def defined(folder: Path) -> Iterator[Defined]:
    """The objects that are made by name in the files of a repo."""
    environments = {path.parent for path in folder.glob("*/pyvenv.cfg")}
    for path in sorted(folder.glob("**/*.py")):
        inside = path.relative_to(folder).parts
        if any(part.startswith(".") or part == "__pycache__" for part in inside) or folder / inside[0] in environments:
            continue
        yield from defined_in(path)


def defined_in(path: Path) -> Iterator[Defined]:
    """Those of one file; none of one that is not there, or is no Python: Feast will say so."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, SyntaxError, ValueError):
        return
    whose = author(path)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        arguments = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
        name = arguments.get("name")
        if called in _KINDS and isinstance(name, ast.Constant):
            facts = _entity(str(name.value), arguments) if called == "Entity" else {}
            yield Defined(path, _KINDS[called], str(name.value), whose, facts, _tags(arguments.get("tags")))


def _entity(name: str, arguments: Mapping[str, ast.expr]) -> dict[str, str]:
    facts = {}
    keys, kind = arguments.get("join_keys"), arguments.get("value_type")
    if keys is None:
        facts["join_key"] = name
    elif isinstance(keys, ast.List) and len(keys.elts) == 1 and isinstance(keys.elts[0], ast.Constant):
        facts["join_key"] = str(keys.elts[0].value)
    if isinstance(kind, ast.Attribute):
        facts["value_type"] = kind.attr
    return facts


def _tags(node: ast.expr | None) -> dict[str, str]:
    """Of a dict, or of one that others are added to."""
    while isinstance(node, ast.BinOp):
        node = node.left
    try:
        found = ast.literal_eval(node) if isinstance(node, ast.Dict) else {}
    except ValueError:
        return {}
    return {str(name): str(value) for name, value in found.items()}
