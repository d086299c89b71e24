"""The command that publishes features as of many moments."""

from __future__ import annotations

import argparse
from typing import Any

from engine.cli.console import command, load_checked, pipeline_argument, range_arguments, show_json, showing_progress


def add(commands: Any) -> None:
    backfill = command(
        commands,
        "backfill",
        _backfill,
        "publish features as of every moment of a range, from one scan of the events",
        json=True,
    )
    pipeline_argument(backfill)
    range_arguments(backfill)
    backfill.add_argument(
        "--view", metavar="VIEW", action="append", default=[], help="only this view; may be repeated (default: all)"
    )
    backfill.add_argument(
        "--refit",
        action="store_true",
        help="fit imputation and scaling anew on the earliest as-of, and pin the result",
    )
    backfill.add_argument(
        "--resume", action="store_true", help="go on with the last backfill, if it did not come to its end"
    )


def _backfill(options: argparse.Namespace) -> int:
    pipeline = load_checked(options)
    from engine.backfilling import backfill

    with showing_progress(options) as progress:
        report = backfill(
            pipeline,
            start=options.start,
            end=options.end,
            every=options.every,
            views=options.view,
            refit=options.refit,
            resume=options.resume,
            progress=progress,
        )
    if options.json:
        show_json(report.to_dict())
    elif not options.quiet:
        from engine.plan import compile_plan
        from engine.report import show_run

        show_run(report, compile_plan(pipeline, history=False), verbose=options.verbose)
    elif report.exit_code:
        from engine.report import show_errors

        show_errors(report)
    return report.exit_code
