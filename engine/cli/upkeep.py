"""The commands about earlier runs and what they left."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from engine.cli.console import command, compile_file, count, pipeline_argument, show, show_json
from engine.errors import UsageError
from engine.types import Duration

if TYPE_CHECKING:
    from engine.plan import Plan


def add(commands: Any) -> None:
    """The commands about what lies there from earlier runs."""
    runs = command(commands, "runs", _runs, "list the runs of a pipeline, and what each read and promised", json=True)
    pipeline_argument(runs)
    runs.add_argument("--last", metavar="N", type=count, default=20, help="the newest N runs (default: 20)")

    verify = command(commands, "verify", _verify, "compare all landed and published files with the ledger", json=True)
    pipeline_argument(verify)
    verify.add_argument(
        "--leakage",
        action="store_true",
        help="instead, change all that is later than a moment, and show that no feature as of it moves",
    )
    verify.add_argument("--as-of", metavar="T", help="with --leakage: the moment (default: three of the data's)")

    gc = command(commands, "gc", _gc, "drop landed files that nothing needs any more", json=True)
    pipeline_argument(gc)
    gc.add_argument(
        "--keep",
        metavar="DURATION",
        help="keep superseded tables that landed within it, such as 7d (default: retention in the pipeline file)",
    )


def _runs(options: argparse.Namespace) -> int:
    plan = compile_file(options.pipeline, None, history=False)
    from engine.history import history

    found = history(plan, options.last)
    if options.json:
        show_json([run.to_dict() for run in found])
    elif not options.quiet:
        from engine.report import show_history

        show_history(plan.pipeline, found)
    return 0


def _verify(options: argparse.Namespace) -> int:
    plan = compile_file(options.pipeline, None, history=False)
    if options.leakage:
        return _leakage(plan, options)
    if options.as_of:
        raise UsageError("files have no as-of", code="verify.as_of", where="--as-of", fix="add --leakage, or remove it")
    from engine.history import verify_files

    found = verify_files(plan)
    if options.json:
        show_json(found.to_dict())
    elif not options.quiet or not found.ok:
        from engine.report import show_verified

        show_verified(found)
    return 0 if found.ok else 1


def _leakage(plan: Plan, options: argparse.Namespace) -> int:
    from engine.proof import verify_leakage

    found = verify_leakage(plan, options.as_of)
    ok = all(one.ok for one in found)
    if options.json:
        show_json({"ok": ok, "views": [one.to_dict() for one in found]})
    elif not options.quiet or not ok:
        from engine.report import show_leakage

        show_leakage(found)
    return 0 if ok else 1


def _gc(options: argparse.Namespace) -> int:
    plan = compile_file(options.pipeline, None, history=False)
    keep = Duration(options.keep) if options.keep else plan.retention
    from engine.history import collect_files

    found = collect_files(plan, keep)
    if options.json:
        show_json(found.to_dict())
    elif not options.quiet:
        show(
            f"dropped {found.tables:,} superseded tables; {found.files:,} files, {found.bytes / 2**20:,.1f} MiB in all;"
            f" {found.profiles:,} old profiles"
        )
    return 0
