"""What every command shares: its arguments, its pipeline, what it prints."""

from __future__ import annotations

import argparse
import json as _json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import MaestroError

if TYPE_CHECKING:
    from engine.checks import Report
    from engine.plan import Plan
    from engine.spec import Pipeline

Handler = Callable[[argparse.Namespace], int]


def command(commands: Any, name: str, handler: Handler, summary: str, *, json: bool = False) -> Any:
    """A command with the options that all have; ``handler`` runs it and gives the exit code."""
    description = f"{summary[0].upper()}{summary[1:]}."
    command = commands.add_parser(name, help=summary, description=description, allow_abbrev=False)
    command.set_defaults(handler=handler, json=False)
    if json:
        command.add_argument("--json", action="store_true", help="print the result as JSON")
    loudness = command.add_mutually_exclusive_group()
    loudness.add_argument("-v", "--verbose", action="store_true", help="log every step")
    loudness.add_argument("-q", "--quiet", action="store_true", help="print errors only")
    return command


def group(commands: Any, name: str, summary: str) -> Any:
    """A command that has commands of its own; gives the place to add them to."""
    parser = commands.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", allow_abbrev=False
    )
    return parser.add_subparsers(title="commands", metavar="COMMAND", required=True)


def pipeline_argument(command: argparse.ArgumentParser) -> None:
    command.add_argument("pipeline", metavar="PIPELINE", help="the pipeline file")


def junit_argument(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--junit", metavar="FILE", type=Path, help="also write the checks as JUnit XML, for CI systems"
    )


def as_of_argument(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--as-of",
        metavar="T",
        action="append",
        help="the moment that features describe: an ISO 8601 date or timestamp, UTC unless it carries an offset; "
        "may be repeated (default: now)",
    )


def range_arguments(command: argparse.ArgumentParser) -> None:
    """Of a range of as-ofs."""
    command.add_argument("--start", metavar="T", help="the first as-of: an ISO 8601 date or timestamp")
    command.add_argument("--end", metavar="T", help="the last as-of, included where it is hit")
    command.add_argument("--every", metavar="DURATION", default="1d", help="the step, such as 6h or 1w (default: 1d)")


def count(text: str) -> int:
    if text.isdecimal() and 0 < int(text) <= 1_000_000:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 1000000")


def compile_file(path: str, as_of: Sequence[str] | str | None, *, history: bool = True) -> Plan:
    from engine.config import load_pipeline
    from engine.plan import compile_plan

    return compile_plan(load_pipeline(path), as_of, history=history)


def load_checked(options: argparse.Namespace) -> Pipeline:
    """The pipeline, once it is known to have no mistakes: they are answered before anything heavy loads."""
    from engine.config import load_pipeline
    from engine.plan import compile_plan

    pipeline = load_pipeline(options.pipeline)
    compile_plan(pipeline, getattr(options, "as_of", None), history=False)
    return pipeline


@contextmanager
def error_in_junit(options: argparse.Namespace) -> Iterator[None]:
    """Writes an error to the JUnit file too: what lies there from before would be taken for this result."""
    if options.junit is None:
        yield
        return
    from engine import junit

    junit.check_target(options.junit)
    try:
        yield
    except MaestroError as error:
        if error.code != "junit.unwritable":
            junit.write_error(options.junit, error, name=Path(getattr(options, "pipeline", "") or options.target).name)
        raise


def write_junit(options: argparse.Namespace, reports: dict[str, Report], name: str, **properties: str) -> None:
    if options.junit is not None:
        from engine import junit

        strict = getattr(options, "strict", False)
        junit.write(options.junit, reports, name=name, properties=properties, strict=strict)


def showing_progress(options: argparse.Namespace) -> Any:
    if options.quiet or options.json:
        return nullcontext()  # without what draws on terminals
    from engine.report import live_progress

    return live_progress(verbose=options.verbose)


def set_up_logging(options: argparse.Namespace) -> None:
    level = logging.DEBUG if options.verbose else logging.ERROR if options.quiet else logging.WARNING
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("engine")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False


def show_error(error: MaestroError, options: argparse.Namespace) -> None:
    if options.json:
        show_json({"error": error.to_dict()})
    else:
        sys.stderr.write(f"{error}\n")


def show(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def show_json(value: Any) -> None:
    show(_json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
