"""The command that compares two tables."""

from __future__ import annotations

import argparse
from typing import Any

from engine.cli.console import command, show_json


def add(commands: Any) -> None:
    """The command that says how far data has moved away from a baseline."""
    drift = command(commands, "drift", _drift, "compare two data files, or either with a stored profile", json=True)
    for name, what in (("baseline", "what it was"), ("current", "what it is now")):
        drift.add_argument(
            name,
            metavar=name.upper(),
            help=f"{what}: a data file, a glob, a folder of Parquet files, s3://bucket/key, or the .json file of a "
            "profile",
        )
    drift.add_argument(
        "--column", metavar="COLUMN", action="append", help="only this column; may be repeated (default: all that can)"
    )
    drift.add_argument(
        "--threshold",
        metavar="NAME=LIMIT",
        type=_threshold,
        action="append",
        default=[],
        help="such as psi=0.3 or ks=null; of psi, js, ks, wasserstein, mean, nulls, rows; may be repeated",
    )
    drift.add_argument(
        "--approximate",
        action="store_true",
        help="compare profiles instead of rows: one pass, errors stated, without maestro-engine[drift]",
    )
    drift.add_argument(
        "--format", choices=["parquet", "csv", "ndjson", "json"], help="of both files (default: by their suffixes)"
    )
    drift.add_argument("--strict", action="store_true", help="exit code 1 where something drifted")


def _drift(options: argparse.Namespace) -> int:
    from engine.data_file import drift_files

    found = drift_files(
        options.baseline,
        options.current,
        columns=options.column,
        thresholds=dict(options.threshold),
        exact=not options.approximate,
        format=options.format,
    )
    if options.json:
        from engine.checks.result import json_ready

        show_json({"version": 1, "ok": not found.has_drifted, **json_ready(found.to_dict())})
    elif not options.quiet or (options.strict and found.has_drifted):
        from engine.report import show_drift

        show_drift(found, verbose=options.verbose)
    return 1 if options.strict and found.has_drifted else 0


def _threshold(text: str) -> tuple[str, float | None]:
    from engine.spec import DriftThresholds

    name, _, limit = text.partition("=")
    if name not in DriftThresholds.model_fields:
        known = ", ".join(DriftThresholds.model_fields)
        raise argparse.ArgumentTypeError(f"{name!r} has no threshold; there are: {known}")
    try:
        value = None if limit in ("null", "none") else float(limit)
    except ValueError:
        value = -1.0
    if value is not None and not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{limit!r} is no threshold: a number from 0, or null")
    return name, value
