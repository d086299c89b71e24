"""The command about the pages of past runs."""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.cli.console import command, compile_file, pipeline_argument, show, show_json
from engine.errors import UsageError


def add(commands: Any) -> None:
    """The command that finds, publishes or serves the pages."""
    report = command(commands, "report", _report, "make the page of a run, and the index of all runs", json=True)
    pipeline_argument(report)
    report.add_argument("--run", metavar="RUN", help="the run (default: the newest)")
    report.add_argument(
        "--out", metavar="FOLDER", type=Path, help="write the pages of all runs there, or of --run only"
    )
    report.add_argument("--serve", action="store_true", help="serve all pages on 127.0.0.1 until Ctrl-C")
    report.add_argument("--port", metavar="N", type=_port, help="with --serve: the port (default: any that is free)")


def _port(text: str) -> int:
    if text.isdecimal() and int(text) <= 65_535:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to 65535")


def _report(options: argparse.Namespace) -> int:
    if options.serve and (options.out or options.run):
        other = "--out" if options.out else "--run"
        message, fix = f"--serve serves all pages from where they are kept, not {other}", f"leave out {other}"
        raise UsageError(message, code="report.options", where="--serve", fix=fix)
    if options.port is not None and not options.serve:
        raise UsageError("--port is for --serve", code="report.options", where="--port", fix="add --serve")
    plan = compile_file(options.pipeline, None, history=False)
    from engine.page.archive import Archive

    archive = Archive(plan.reports, plan.pipeline)
    if options.serve:
        return _serve(archive, options)
    out, run = options.out, options.run
    pages = archive.publish(out, run) if out else [archive.page(run), archive.index()]
    if options.json:
        show_json({"pipeline": plan.pipeline, "pages": [str(page) for page in pages]})
    elif not options.quiet:
        for page in pages[:2]:
            show(str(page))
        if len(pages) > 2:
            show(f"and {len(pages) - 2:,} more pages in {pages[0].parent}")
    return 0


def _serve(archive: Any, options: argparse.Namespace) -> int:
    from engine.page.server import PageServer

    with PageServer(archive, options.port or 0) as server:
        if options.json:
            show_json({"url": server.url})
        else:
            show(f"{server.url} (for this machine only; Ctrl-C ends it)")
        sys.stdout.flush()
        with suppress(KeyboardInterrupt):
            server.serve_forever()
    return 0
