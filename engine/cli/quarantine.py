"""The commands about rows that were set aside."""

from __future__ import annotations

import argparse
from typing import Any

from engine.cli.console import (
    as_of_argument,
    command,
    compile_file,
    count,
    group,
    load_checked,
    pipeline_argument,
    show,
    show_json,
    showing_progress,
)


def add(commands: Any) -> None:
    """The commands about rows that were set aside."""
    actions = group(commands, "quarantine", "list, show, replay or drop the rows that were set aside")

    pipeline_argument(
        command(actions, "list", _quarantine_list, "count the rows in quarantine, by source and run", json=True)
    )

    show = command(actions, "show", _quarantine_show, "show the rows of a source, and why they are there", json=True)
    pipeline_argument(show)
    _whose(show, required=True)
    show.add_argument("--check", metavar="CHECK", help="only rows that broke it, such as range.score, or range")
    show.add_argument("--limit", metavar="N", type=count, default=20, help="at most N rows (default: 20)")
    show.add_argument(
        "--out", metavar="FILE", help="write all of them to a .parquet, .csv or .ndjson file, to be mended"
    )

    replay = command(
        actions, "replay", _quarantine_replay, "run the pipeline over rows in quarantine; no source is read", json=True
    )
    pipeline_argument(replay)
    _whose(replay, required=False)
    replay.add_argument(
        "--rows", metavar="FILE", help="take these rows instead: a file made by show --out, with mended values"
    )
    as_of_argument(replay)

    drop = command(actions, "drop", _quarantine_drop, "give up the rows of a source, for good", json=True)
    pipeline_argument(drop)
    _whose(drop, required=True)


def _whose(command: argparse.ArgumentParser, *, required: bool) -> None:
    command.add_argument(
        "--source", metavar="SOURCE", required=required, help="rows of this source" + ("" if required else " only")
    )
    command.add_argument("--run", metavar="RUN", help="only rows that this run set aside")


def _quarantine_list(options: argparse.Namespace) -> int:
    pipeline = load_checked(options)
    from engine.quarantine import held

    found = held(pipeline)
    if options.json:
        show_json([holding.to_dict() for holding in found])
    elif not options.quiet:
        from engine.report import show_holdings

        show_holdings(found)
    return 0


def _quarantine_show(options: argparse.Namespace) -> int:
    pipeline = load_checked(options)
    from engine import quarantine

    which = {"source": options.source, "run": options.run, "check": options.check}
    if options.out:
        count = quarantine.export(pipeline, options.out, **which)
        if options.json:
            show_json({"rows": count, "file": options.out})
        elif not options.quiet:
            show(f"wrote {count:,} rows to {options.out}")
        return 0
    found = quarantine.records(quarantine.rows(pipeline, **which).head(options.limit))
    if options.json:
        show_json(found)
    elif not options.quiet:
        from engine.report import show_rows

        show_rows(found)
    return 0


def _quarantine_replay(options: argparse.Namespace) -> int:
    pipeline = load_checked(options)
    from engine.quarantine import replay

    which = {"source": options.source, "run": options.run, "mended": options.rows}
    with showing_progress(options) as progress:
        report = replay(pipeline, **which, as_of=options.as_of, progress=progress)
    if options.json:
        show_json(report.to_dict())
    elif not options.quiet or report.exit_code:
        from engine.report import show_errors, show_replay

        if options.quiet:
            show_errors(report)
        else:
            show_replay(report, compile_file(options.pipeline, options.as_of, history=False))
    return report.exit_code


def _quarantine_drop(options: argparse.Namespace) -> int:
    pipeline = load_checked(options)
    from engine.quarantine import drop

    count = drop(pipeline, source=options.source, run=options.run)
    if options.json:
        show_json({"source": options.source, "rows": count})
    elif not options.quiet:
        show(f"gave up {count:,} rows of {options.source}")
    return 0
