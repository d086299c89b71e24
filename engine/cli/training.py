"""The command that makes training sets."""

from __future__ import annotations

import argparse
from typing import Any

from engine.cli.console import command, count, load_checked, pipeline_argument, show, show_json


def add(commands: Any) -> None:
    """The command that makes training sets."""
    make = command(
        commands,
        "training-set",
        _training_set,
        "join published features to rows of keys and moments, as of these moments",
        json=True,
    )
    pipeline_argument(make)
    make.add_argument(
        "--entities",
        metavar="FILE",
        required=True,
        help="Parquet: a file, a glob or a folder with the views' key columns and a moment per row; all of it is kept",
    )
    make.add_argument(
        "--features",
        metavar="VIEW:FEATURE,…",
        action="append",
        required=True,
        help="which features, VIEW:* for all of a view; may be repeated",
    )
    make.add_argument(
        "--timestamp", metavar="COLUMN", default="event_timestamp", help="of the moments (default: event_timestamp)"
    )
    make.add_argument(
        "--full-names",
        action="store_true",
        help="name all features VIEW__FEATURE (default: those whose name is there twice)",
    )
    make.add_argument(
        "--mixed-fits", action="store_true", help="take features that were made with several fits (default: an error)"
    )
    make.add_argument("--out", metavar="FILE", help="write the rows to a .parquet file (default: show the first)")
    make.add_argument(
        "--limit", metavar="N", type=count, default=20, help="without --out, show at most N rows (default: 20)"
    )


def _training_set(options: argparse.Namespace) -> int:
    pipeline = load_checked(options)
    from engine import training

    how = {
        "features": options.features,
        "timestamp": options.timestamp,
        "full_names": options.full_names,
        "mixed_fits": options.mixed_fits,
    }
    if options.out:
        written = training.write_training_set(pipeline, options.entities, options.out, **how)
        if options.json:
            show_json(written.to_dict())
        elif not options.quiet:
            show(f"wrote {written.rows:,} rows to {written.path}")
            for view, rows in written.matched.items():
                show(f"{view}: something held for {rows:,} rows")
        return 0
    found = training.first_rows(pipeline, options.entities, options.limit, **how)
    if options.json:
        show_json(found)
    elif not options.quiet:
        from engine.report import show_table

        show_table(found)
    return 0
