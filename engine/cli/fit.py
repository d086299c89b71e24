"""The commands about pinned fits."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from engine.cli.console import command, count, group, load_checked, pipeline_argument, show
from engine.errors import SinkError


def add(commands: Any) -> None:
    """The commands about pinned fits."""
    actions = group(commands, "fit", "look at the pinned fits of missing values and transforms")
    export = command(actions, "export", _export, "print a view's pinned fit as JSON, for what serves a model")
    pipeline_argument(export)
    export.add_argument("--view", metavar="VIEW", required=True, help="the feature view")
    export.add_argument("--fit-version", metavar="N", type=count, help="an earlier fit (default: the newest)")
    export.add_argument("--out", metavar="FILE", type=Path, help="write it to a file instead")


def _export(options: argparse.Namespace) -> int:
    pipeline = load_checked(options)
    from engine.transforms import export

    text = json.dumps(export(pipeline, options.view, options.fit_version), indent=2, ensure_ascii=False)
    if options.out is None:
        show(text)
        return 0
    try:
        options.out.write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise SinkError(
            f"cannot write: {error.strerror}",
            code="transforms.unwritable",
            where=str(options.out),
            fix="name another file",
        ) from None
    return 0
