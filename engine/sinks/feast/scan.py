"""What the hand-written files of a feature repo define, as far as their text shows: they are not run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

_KINDS = {
    "Entity": "entity",
    "FeatureService": "service",
    **dict.fromkeys(("FileSource", "PushSource", "RequestSource"), "source"),
    **dict.fromkeys(("FeatureView", "BatchFeatureView", "StreamFeatureView", "OnDemandFeatureView"), "view"),
}


def defined(folder: Path, mark: str) -> Iterator[tuple[Path, str, str]]:
    """(file, kind, name) of the objects that are made by name in the files of a repo.

    Args:
        mark: how files begin that are not looked at: the engine's own.
    """
    environments = {path.parent for path in folder.glob("*/pyvenv.cfg")}
    for path in sorted(folder.glob("**/*.py")):
        inside = path.relative_to(folder).parts
        if any(part.startswith(".") or part == "__pycache__" for part in inside) or folder / inside[0] in environments:
            continue
        try:
            text = path.read_text(encoding="utf-8")
            tree = ast.parse(text)
        except (OSError, UnicodeDecodeError, SyntaxError, ValueError):
            continue  # Feast will say so
        if not text.startswith(mark):
            yield from ((path, kind, name) for kind, name in _made(tree))


def _made(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        for keyword in node.keywords:
            if keyword.arg == "name" and isinstance(keyword.value, ast.Constant) and called in _KINDS:
                yield _KINDS[called], str(keyword.value.value)
