"""The commands that show what data looks like, and draft checks of it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.cli.console import command, compile_file, show, show_json, showing_progress
from engine.errors import UsageError

if TYPE_CHECKING:
    from engine.profile import Profile


def add(commands: Any) -> None:
    """The commands that profile a pipeline's sources, or a file."""
    profile = command(
        commands, "profile", _profile, "show what the data of a pipeline's sources, or of a file, looks like", json=True
    )
    _target(profile)
    profile.add_argument(
        "--exact", action="store_true", help="count distinct values one by one where they would be estimated"
    )
    profile.add_argument(
        "--run", metavar="RUN", help="show what a run of the pipeline kept, or last for the newest; nothing is read"
    )
    suggest = command(commands, "suggest", _suggest, "draft the checks of a pipeline's sources, or of a file, to edit")
    _target(suggest)


def _target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target",
        metavar="PIPELINE_OR_DATA",
        help="a pipeline file (.yaml, .yml), or a data file, a glob or a folder of Parquet files, also s3://bucket/key",
    )
    parser.add_argument(
        "--format", choices=["parquet", "csv", "ndjson", "json"], help="of a data file (default: by its suffix)"
    )


def _profile(options: argparse.Namespace) -> int:
    found = _kept(options) if options.run else _made(options, exact=options.exact)
    if options.json:
        show_json({"version": 1, "profiles": {name: profile.to_dict() for name, profile in found.items()}})
    elif not options.quiet:
        from engine.report import show_profile

        for name, profile in found.items():
            show_profile(name, profile)
    return 0


def _suggest(options: argparse.Namespace) -> int:
    found = _made(options, unique=True)
    from engine.suggestion import suggest

    if not is_pipeline(options.target):
        show("".join(map(suggest, found.values())).rstrip())
        return 0
    lines = ["validation:"]
    for name, profile in found.items():
        lines += [f"  {name}:", *(f"    {line}" for line in suggest(profile).splitlines())]
    show("\n".join(lines))
    return 0


def is_pipeline(target: str) -> bool:
    """Whether a target is a pipeline file; all else is data."""
    return Path(target).suffix in (".yaml", ".yml")


def _made(options: argparse.Namespace, **how: bool) -> dict[str, Profile]:
    if not is_pipeline(options.target):
        from engine.data_file import profile_file

        return {Path(options.target).name: profile_file(options.target, format=options.format, **how)}
    plan = compile_file(options.target, None, history=False)
    from engine.inspection import profile

    with showing_progress(options) as progress:
        return profile(plan, progress=progress, **how)


def _kept(options: argparse.Namespace) -> dict[str, Profile]:
    if not is_pipeline(options.target):
        raise UsageError(
            "only runs of a pipeline keep profiles", code="profile.run", where="--run", fix="name a pipeline file"
        )
    plan = compile_file(options.target, None, history=False)
    from engine.history import profiles_of

    return profiles_of(plan, None if options.run == "last" else options.run)
