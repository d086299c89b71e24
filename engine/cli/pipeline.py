"""The commands of a pipeline file: begin one, check it, plan it, run it."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.cli.console import (
    as_of_argument,
    command,
    compile_file,
    error_in_junit,
    junit_argument,
    load_checked,
    pipeline_argument,
    range_arguments,
    show,
    show_json,
    showing_progress,
    write_junit,
)
from engine.errors import UsageError

if TYPE_CHECKING:
    from engine.plan import Plan


def add(commands: Any) -> None:
    """The commands of a pipeline file, from the first to the daily run."""
    demo = command(commands, "demo", _demo, "build a small world, run a pipeline over it, look a feature up")
    demo.add_argument("folder", nargs="?", default="demo-out", help="where to build it (default: demo-out)")
    demo.add_argument("--serve", action="store_true", help="only serve the demo's tasks over HTTP again")

    init = command(commands, "init", _init, "write a commented starter pipeline")
    init.add_argument("path", nargs="?", default="pipeline.yaml", help="default: pipeline.yaml")

    check = command(commands, "check", _check, "check a pipeline file; nothing is read", json=True)
    pipeline_argument(check)
    check.add_argument(
        "--connect", action="store_true", help="also connect to its databases and say what is there, and what is amiss"
    )

    plan = command(commands, "plan", _plan, "show what a run would read, check, compute and write", json=True)
    pipeline_argument(plan)
    as_of_argument(plan)
    range_arguments(plan)

    run = command(commands, "run", _run, "run a pipeline", json=True)
    pipeline_argument(run)
    as_of_argument(run)
    run.add_argument("--refit", action="store_true", help="fit imputation and scaling anew, and pin the result")
    run.add_argument(
        "--resume",
        action="store_true",
        help="go on with the last run, if it did not come to its end, at its as-of; else begin one",
    )
    run.add_argument(
        "--reread",
        metavar="SOURCE",
        action="append",
        default=[],
        help="read this source from the beginning, whatever has landed of it; may be repeated",
    )
    junit_argument(run)

    command(
        commands, "sources", _sources, "list the kinds of source there are, with those of installed plug-ins", json=True
    )

    schema = command(commands, "schema", _schema, "print the JSON Schema of the pipeline file, for editors")
    schema.add_argument("--report", action="store_true", help="that of what validate --json prints instead")


def _demo(options: argparse.Namespace) -> int:
    from engine.demo import run_demo, serve_demo

    if options.serve:
        return serve_demo(Path(options.folder))
    with showing_progress(options) as progress:
        return run_demo(Path(options.folder), progress=progress, quiet=options.quiet)


def _init(options: argparse.Namespace) -> int:
    from engine.starter import write_starter

    path = write_starter(Path(options.path))
    if not options.quiet:
        show(f"wrote {path}; next: maestro check {shlex.quote(str(path))}")
    return 0


def _check(options: argparse.Namespace) -> int:
    from engine.config import load_pipeline
    from engine.plan import check_rules, compile_plan

    pipeline = load_pipeline(options.pipeline)
    plan = compile_plan(pipeline, history=False)
    check_rules(pipeline, plan)
    checks = sum(len(suite.listed) for suite in plan.suites.values())
    features = sum(len(view.view.features) for view in plan.views)
    found = {"sources": len(plan.sources), "checks": checks, "views": len(plan.views), "features": features}
    if options.connect:
        return _connect(plan, options)
    if options.json:
        show_json({"pipeline": plan.pipeline, "ok": True, **found})
    elif not options.quiet:
        counts = ", ".join(f"{n} {name}" for name, n in found.items())
        show(f"{options.pipeline}: no mistakes found ({counts}); nothing was read")
    return 0


def _connect(plan: Plan, options: argparse.Namespace) -> int:
    from engine.inspection import connect

    probed = connect(plan)
    failed = [p for p in probed if p.error]
    if options.json:
        show_json({"pipeline": plan.pipeline, "ok": not failed, "sources": [p.to_dict() for p in probed]})
    elif not options.quiet or failed:
        from engine.report import show_probes

        show_probes(probed, quiet=options.quiet)
    return failed[0].error.exit_code if failed and failed[0].error else 0


def _plan(options: argparse.Namespace) -> int:
    plan = _range(options) if options.start or options.end else compile_file(options.pipeline, options.as_of)
    if options.json:
        show_json(plan.to_dict())
    elif not options.quiet:
        from engine.report import show_plan

        show_plan(plan)
    return 0


def _range(options: argparse.Namespace) -> Plan:
    """The plan of a backfill."""
    if options.as_of or not (options.start and options.end):
        raise UsageError(
            "a range of as-ofs has a start and an end, and there are no others",
            code="plan.range",
            where="--as-of" if options.as_of else "--end" if options.start else "--start",
            fix="give --start and --end, or --as-of",
        )
    pipeline = load_checked(options)
    from engine.backfilling import plan_backfill

    return plan_backfill(pipeline, start=options.start, end=options.end, every=options.every)


def _run(options: argparse.Namespace) -> int:
    with error_in_junit(options):
        return _run_pipeline(options)


def _run_pipeline(options: argparse.Namespace) -> int:
    from engine.config import load_pipeline
    from engine.plan import compile_plan

    if options.resume and options.as_of:
        raise UsageError(
            "a resumed run has its as-of already", code="run.resume_as_of", where="--as-of", fix="leave out one of them"
        )
    pipeline = load_pipeline(options.pipeline)
    compile_plan(pipeline, options.as_of, history=False)  # a mistake answers before anything heavy loads
    from engine.run import execute, unfinished

    last = unfinished(pipeline) if options.resume else None
    plan = last.plan(pipeline) if last else compile_plan(pipeline, options.as_of)
    with showing_progress(options) as progress:
        report = execute(plan, refit=options.refit, resume=last, reread=options.reread, progress=progress)
    write_junit(options, {s.name: s.report for s in report.sources if s.report}, plan.pipeline, run_id=report.run_id)
    if options.json:
        show_json(report.to_dict())
    elif not options.quiet:
        from engine.report import show_run

        show_run(report, plan, verbose=options.verbose)
    elif report.exit_code:
        from engine.report import show_errors

        show_errors(report)
    return report.exit_code


def _sources(options: argparse.Namespace) -> int:
    from engine.plugin.kinds import kinds

    found = kinds()
    if options.json:
        show_json([kind.to_dict() for kind in found])
    elif not options.quiet:
        from engine.report import show_kinds

        show_kinds(found)
    return 0


def _schema(options: argparse.Namespace) -> int:
    if options.report:
        from engine.checks.shape import SCHEMA

        show_json(SCHEMA)
    else:
        from engine.config import json_schema

        show_json(json_schema())
    return 0
