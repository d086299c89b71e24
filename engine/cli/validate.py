"""The command that checks data without a run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.cli.console import (
    command,
    compile_file,
    error_in_junit,
    junit_argument,
    show_json,
    showing_progress,
    write_junit,
)
from engine.errors import UsageError

if TYPE_CHECKING:
    from engine.checks import Report


def add(commands: Any) -> None:
    """The command that checks data, and publishes nothing."""
    validate = command(
        commands, "validate", _validate, "check the data of a pipeline's sources, or of one file", json=True
    )
    validate.add_argument(
        "target",
        metavar="PIPELINE_OR_DATA",
        help="a pipeline file; with --checks, a data file, a glob or a folder of Parquet files, also s3://bucket/key",
    )
    validate.add_argument(
        "--checks", metavar="FILE", help="YAML file with the checks: the content of one validation entry"
    )
    validate.add_argument(
        "--format",
        choices=["parquet", "csv", "ndjson", "json"],
        help="of the data file with --checks (default: by its suffix)",
    )
    validate.add_argument("--as-of", metavar="T", help="the moment that freshness is judged at (default: now)")
    validate.add_argument(
        "--quarantine",
        metavar="FILE",
        help="with --checks: the Parquet file for rows that checks quarantine; replaced, or gone if there are none",
    )
    junit_argument(validate)
    validate.add_argument(
        "--strict", action="store_true", help="failed WARNINGs count like ERRORs: exit code 1, failures in JUnit XML"
    )


def _validate(options: argparse.Namespace) -> int:
    with error_in_junit(options):
        name, reports = _validate_file(options) if options.checks else _validate_pipeline(options)
        write_junit(options, reports, name)
    ok = all(report.ok and not (options.strict and report.warnings) for report in reports.values())
    if options.json:
        sources = {name: report.to_dict() for name, report in reports.items()}
        show_json({"version": 1, "ok": ok, "sources": sources})
    elif not options.quiet or not ok:
        from engine.report import show_validation

        show_validation(reports, errors_only=options.quiet and not options.strict, verbose=options.verbose)
    return 0 if ok else 1


def _validate_file(options: argparse.Namespace) -> tuple[str, dict[str, Report]]:
    from engine.config import load_validation

    load_validation(options.checks)  # a mistake answers before anything heavy loads
    from engine.data_file import validate_file

    name = options.target if any(mark in options.target for mark in "*?[") else Path(options.target).name
    report = validate_file(
        options.target, options.checks, format=options.format, as_of=options.as_of, quarantine=options.quarantine
    )
    return name, {name: report}


def _validate_pipeline(options: argparse.Namespace) -> tuple[str, dict[str, Report]]:
    if options.quarantine:
        raise UsageError(
            "a pipeline's rows are quarantined by its runs",
            code="validate.quarantine",
            where="--quarantine",
            fix="leave it out, or name a data file and --checks",
        )
    plan = compile_file(options.target, options.as_of)
    from engine.inspection import validate

    with showing_progress(options) as progress:
        return plan.pipeline, {s.name: s.report for s in validate(plan, progress=progress) if s.report}
