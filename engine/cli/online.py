"""The commands about the online store."""

from __future__ import annotations

import argparse
import json
from typing import Any

from engine.cli.console import command, count, group, load_checked, pipeline_argument, show, show_json, showing_progress


def add(commands: Any) -> None:
    """The commands about the online store."""
    load = command(
        commands,
        "materialize",
        _materialize,
        "load what is published into the online store, where it does not hold it yet",
        json=True,
    )
    pipeline_argument(load)
    load.add_argument(
        "--view", metavar="VIEW", action="append", default=[], help="only this view; may be repeated (default: all)"
    )
    load.add_argument("--full", action="store_true", help="load everything, whatever has been loaded before")
    load.add_argument(
        "--proof",
        metavar="N",
        type=_proof,
        default=100,
        help="read N entities of each view, or all, back through Feast, and compare (default: 100; 0: none)",
    )
    actions = group(commands, "online", "look into the online store")
    get = command(actions, "get", _online_get, "show an entity's features as Feast serves them", json=True)
    pipeline_argument(get)
    get.add_argument("--view", metavar="VIEW", required=True, help="the feature view")
    get.add_argument(
        "--key",
        metavar="KEY",
        action="append",
        required=True,
        help="the entity's key (a compound one as JSON); may be repeated",
    )

    check = command(
        actions,
        "check",
        _online_check,
        "compare the fits that a training set and the online store were made with; exit code 1 where they differ",
        json=True,
    )
    pipeline_argument(check)
    check.add_argument(
        "--trained", metavar="FILE", required=True, help="the training set: a file of maestro training-set"
    )


def _materialize(options: argparse.Namespace) -> int:
    pipeline = load_checked(options)
    from engine.online import materialize

    with showing_progress(options) as progress:
        found = materialize(pipeline, views=options.view, full=options.full, proof=options.proof, progress=progress)
    if options.json:
        show_json([view.to_dict() for view in found])
    elif not options.quiet:
        for view in found:
            what = f"loaded {view.rows:,} entities" if view.as_of else "nothing new"
            what += f", removed {view.removed:,}" if view.removed else ""
            show(f"{view.view}: {what}; {view.proven:,} read back and found equal")
            if view.warning:
                show(f"  warning: {view.warning}")
    return 0


def _online_get(options: argparse.Namespace) -> int:
    pipeline = load_checked(options)
    from engine.online import get

    found = get(pipeline, options.view, options.key)
    if options.json:
        show(json.dumps(found, indent=2, ensure_ascii=False, default=_plain))
    else:
        for row in found:
            width = max(map(len, row))
            show("\n".join(f"{name:<{width}}  {value}" for name, value in row.items()))
    return 0


def _online_check(options: argparse.Namespace) -> int:
    pipeline = load_checked(options)
    from engine.serving import check

    found = check(pipeline, options.trained)
    if options.json:
        show_json(found)
    elif not options.quiet:
        for row in found:
            trained, now = row["trained"] or "–", row["online"] or "–"
            show(f"{row['view']}:{row['feature']} was trained with fit {trained}, online it is {now}")
        if not found:
            show("the online store was made with the fits of the training set")
    return 1 if found else 0


def _proof(text: str) -> int | None:
    """Of --proof: a number, 0 included, or None for all."""
    return None if text == "all" else 0 if text == "0" else count(text)


def _plain(value: Any) -> str:
    """A moment or bytes as JSON has them."""
    return value.hex() if isinstance(value, bytes) else str(value)
