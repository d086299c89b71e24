"""The commands about earlier runs and what they left."""

from __future__ import annotations

import argparse
from typing import Any

from engine.cli.console import command, compile_file, count, pipeline_argument, show, show_json
from engine.types import Duration


def add(commands: Any) -> None:
    """The commands about what lies there from earlier runs."""
    runs = command(commands, "runs", _runs, "list the runs of a pipeline, and what each read and promised", json=True)
    pipeline_argument(runs)
    runs.add_argument("--last", metavar="N", type=count, default=20, help="the newest N runs (default: 20)")

    verify = command(commands, "verify", _verify, "compare all landed and published files with the ledger", json=True)
    pipeline_argument(verify)

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
    from engine.history import verify_files

    found = verify_files(plan)
    if options.json:
        show_json(found.to_dict())
    elif not options.quiet or not found.ok:
        from engine.report import show_verified

        show_verified(found)
    return 0 if found.ok else 1


def _gc(options: argparse.Namespace) -> int:
    plan = compile_file(options.pipeline, None, history=False)
    keep = Duration(options.keep) if options.keep else plan.retention
    from engine.history import collect_files

    found = collect_files(plan, keep)
    if options.json:
        show_json(found.to_dict())
    elif not options.quiet:
        show(
            f"dropped {found.tables:,} superseded tables; {found.files:,} files, {found.bytes / 2**20:,.1f} MiB in all"
        )
    return 0
