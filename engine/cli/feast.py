"""The commands about Feast's registry."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from engine.cli.console import command, group, load_checked, pipeline_argument, show, show_json

if TYPE_CHECKING:
    from engine.registration import Registry
    from engine.sinks.feast import Difference

_SIGNS = {"added": "+", "changed": "~", "removed": "-", "clash": "!", "used": "!", "foreign": " "}


def add(commands: Any) -> None:
    """The commands about what Feast knows of a pipeline."""
    actions = group(commands, "feast", "compare and register Feast's definitions")
    diff = command(
        actions,
        "diff",
        _diff,
        "show in what Feast's registry differs from what is declared and published; exit code 1 where it does",
        json=True,
    )
    apply = command(
        actions,
        "apply",
        _apply,
        "write the definitions and register them; remove those of maestro's that are no longer declared",
        json=True,
    )
    for it in (diff, apply):
        pipeline_argument(it)


def _diff(options: argparse.Namespace) -> int:
    pipeline = load_checked(options)
    from engine.registration import diff

    found = diff(pipeline)
    _show(found, options, "the registry is as declared")
    return 0 if found.is_current else 1


def _apply(options: argparse.Namespace) -> int:
    pipeline = load_checked(options)
    from engine.registration import apply

    _show(apply(pipeline), options, "nothing to change")
    return 0


def _show(found: Registry, options: argparse.Namespace, nothing: str) -> None:
    if options.json:
        show_json(found.to_dict())
    elif not options.quiet:
        for difference in found.differences:
            show("\n".join(_lines(difference)))
        for name in found.pending:
            show(f"  {name}: not published yet")
        if found.is_current:
            show(nothing)


def _lines(found: Difference) -> list[str]:
    why = _why(found)
    head = f"{_SIGNS[found.what]} {found.kind} {found.name}{f' ({why})' if why else ''}"
    if found.what not in ("changed", "clash"):
        return [head]
    return [head, *(f"    {c.field}: {_value(c.old)} → {_value(c.new)}" for c in found.changes)]


def _why(found: Difference) -> str:
    whose = f"the pipeline {found.owner}'s" if found.owner else "somebody else's"
    if found.what == "foreign":
        return f"{whose}: stays"
    if found.what == "used":
        return f"the {found.by} of someone else's needs it: apply will refuse"
    if found.what == "clash":
        return f"{f'the {found.by} has it otherwise' if found.by else whose}: apply will refuse"
    return ""


def _value(value: object) -> str:
    return "–" if value is None or value == "" else str(value)
