"""The command ``maestro``: each command is a thin shell over one library call."""

from __future__ import annotations

import argparse
import atexit
import ctypes
import gc
import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from engine.cli import (
    backfill,
    drift,
    feast,
    fit,
    online,
    pipeline,
    profile,
    quarantine,
    report,
    training,
    upkeep,
    validate,
)
from engine.cli.console import set_up_logging, show_error
from engine.errors import MaestroError, is_interrupt
from engine.stopwatch import process_is_a_run

# Of glibc's mallopt: for how many threads it keeps freed memory, how much of that, and from which size on a piece goes
# back to the system at once.
_MALLOPT = {-8: 2, -1: 2**22, -3: 2**22}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; gives the exit code: 0 done, 1 an ERROR check failed, 2 usage or configuration, 3 a source
    or sink failed, 130 interrupted, 141 nobody reads the output any more (as after ``| head``)."""
    options = parser().parse_args(arguments)
    set_up_logging(options)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal without → is no reason to fail
    try:
        code = _outcome(options)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        code = 141
    return code


def entry() -> NoReturn:
    """The command itself: runs one and ends the process with its exit code."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # Arrow imports numpy, which starts threads; nothing needs them
    gc.set_threshold(50_000)  # imports make objects that stay; Python would look through them for cycles every 700
    process_is_a_run()
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # Arrow's own keep what was freed
    _keep_little()
    code = main()
    sys.stderr.flush()
    atexit._run_exitfuncs()
    # Python does not take itself down, which takes longer than a small run. And a read may have been left behind that
    # waits for a dead connection: should it wake meanwhile, native code would abort the process.
    os._exit(code)


def _keep_little() -> None:
    """Has glibc give freed memory back: stages of a run use much of it one after the other, in different libraries."""
    limit = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if limit is not None:
        for parameter, value in _MALLOPT.items():
            limit(parameter, value)


def _outcome(options: argparse.Namespace) -> int:
    try:
        code: int = options.handler(options)
    except MaestroError as error:
        show_error(error, options)
        code = error.exit_code
    except BrokenPipeError:
        raise
    except BaseException as error:
        if is_interrupt(error):
            sys.stderr.write("maestro: interrupted; what was published before stays as it was\n")
            return 130
        if not isinstance(error, Exception):
            raise
        # Nobody's mistake but ours; the exit code 1 would mean that a check failed.
        traceback.print_exc()
        sys.stderr.write("maestro: this is a bug in maestro; please report it with the lines above\n")
        code = 70
    return code


def parser() -> argparse.ArgumentParser:
    """The command tree."""
    root = argparse.ArgumentParser(
        prog="maestro",
        description="One declared pipeline: ingest, validate, compute leak-free features, publish them to Feast.",
        epilog="exit codes: 0 done (warnings allowed), 1 an ERROR check failed, 2 usage or configuration, "
        "3 a source or sink failed, 70 a bug",
        allow_abbrev=False,
    )
    root.add_argument("--version", action="version", version=_version())
    commands = root.add_subparsers(title="commands", metavar="COMMAND", required=True)

    for part in (
        pipeline,
        backfill,
        upkeep,
        report,
        online,
        feast,
        training,
        fit,
        quarantine,
        validate,
        profile,
        drift,
    ):
        part.add(commands)
    return root


def _version() -> str:
    from engine import __version__

    return f"maestro {__version__}"
