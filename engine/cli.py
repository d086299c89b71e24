"""The command ``maestro``: each command is a thin shell over one library call."""

from __future__ import annotations

import argparse
import atexit
import gc
import io
import json
import logging
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from engine.errors import MaestroError, UsageError, is_interrupt
from engine.types import Duration

if TYPE_CHECKING:
    from engine.checks import Report
    from engine.plan import Plan
    from engine.spec import Pipeline

Handler = Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; gives the exit code: 0 done, 1 an ERROR check failed, 2 usage or configuration, 3 a source
    or sink failed, 130 interrupted, 141 nobody reads the output any more (as after ``| head``)."""
    options = parser().parse_args(arguments)
    _logging(options)
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
    code = main()
    sys.stderr.flush()
    atexit._run_exitfuncs()
    # Python does not take itself down, which takes longer than a small run. And a read may have been left behind that
    # waits for a dead connection: should it wake meanwhile, native code would abort the process.
    os._exit(code)


def _outcome(options: argparse.Namespace) -> int:
    try:
        code: int = options.handler(options)
    except MaestroError as error:
        _show_error(error, options)
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

    demo = _command(commands, "demo", _demo, "build a small world, run a pipeline over it, look a feature up")
    demo.add_argument("folder", nargs="?", default="demo-out", help="where to build it (default: demo-out)")
    demo.add_argument("--serve", action="store_true", help="only serve the demo's tasks over HTTP again")

    init = _command(commands, "init", _init, "write a commented starter pipeline")
    init.add_argument("path", nargs="?", default="pipeline.yaml", help="default: pipeline.yaml")

    check = _command(commands, "check", _check, "check a pipeline file; nothing is read", json=True)
    _pipeline(check)
    check.add_argument(
        "--connect", action="store_true", help="also connect to its databases and say what is there, and what is amiss"
    )

    plan = _command(commands, "plan", _plan, "show what a run would read, check, compute and write", json=True)
    _pipeline(plan)
    _as_of(plan)

    run = _command(commands, "run", _run, "run a pipeline", json=True)
    _pipeline(run)
    _as_of(run)
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
    _junit(run)

    runs = _command(commands, "runs", _runs, "list the runs of a pipeline, and what each read and promised", json=True)
    _pipeline(runs)
    runs.add_argument("--last", metavar="N", type=_count, default=20, help="the newest N runs (default: 20)")

    verify = _command(commands, "verify", _verify, "compare all landed and published files with the ledger", json=True)
    _pipeline(verify)

    gc = _command(commands, "gc", _gc, "drop landed files that nothing needs any more", json=True)
    _pipeline(gc)
    gc.add_argument(
        "--keep",
        metavar="DURATION",
        help="keep superseded tables that landed within it, such as 7d (default: retention in the pipeline file)",
    )

    _online(commands)
    _quarantine(commands)

    validate = _command(
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
    _junit(validate)
    validate.add_argument(
        "--strict", action="store_true", help="failed WARNINGs count like ERRORs: exit code 1, failures in JUnit XML"
    )

    _command(
        commands, "sources", _sources, "list the kinds of source there are, with those of installed plug-ins", json=True
    )

    schema = _command(commands, "schema", _schema, "print the JSON Schema of the pipeline file, for editors")
    schema.add_argument("--report", action="store_true", help="that of what validate --json prints instead")
    return root


def _command(commands: Any, name: str, handler: Handler, summary: str, *, json: bool = False) -> Any:
    description = f"{summary[0].upper()}{summary[1:]}."
    command = commands.add_parser(name, help=summary, description=description, allow_abbrev=False)
    command.set_defaults(handler=handler, json=False)
    if json:
        command.add_argument("--json", action="store_true", help="print the result as JSON")
    loudness = command.add_mutually_exclusive_group()
    loudness.add_argument("-v", "--verbose", action="store_true", help="log every step")
    loudness.add_argument("-q", "--quiet", action="store_true", help="print errors only")
    return command


def _online(commands: Any) -> None:
    """The commands about the online store."""
    load = _command(
        commands,
        "materialize",
        _materialize,
        "load what is published into the online store, where it does not hold it yet",
        json=True,
    )
    _pipeline(load)
    load.add_argument(
        "--view", metavar="VIEW", action="append", default=[], help="only this view; may be repeated (default: all)"
    )
    load.add_argument("--full", action="store_true", help="load everything, whatever has been loaded before")
    load.add_argument(
        "--proof",
        metavar="N",
        type=_proof,
        default=100,
        help="read N entities of each view, or all, back through Feast, and compare (default: 100; 0: none)",
    )
    summary = "look into the online store"
    group = commands.add_parser(
        "online", help=summary, description=f"{summary[0].upper()}{summary[1:]}.", allow_abbrev=False
    )
    actions = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    get = _command(actions, "get", _online_get, "show an entity's features as Feast serves them", json=True)
    _pipeline(get)
    get.add_argument("--view", metavar="VIEW", required=True, help="the feature view")
    get.add_argument("--key", metavar="KEY", action="append", required=True, help="the entity's key; may be repeated")


def _quarantine(commands: Any) -> None:
    """The commands about rows that were set aside."""
    summary = "list, show, replay or drop the rows that were set aside"
    group = commands.add_parser(
        "quarantine", help=summary, description=f"{summary[0].upper()}{summary[1:]}.", allow_abbrev=False
    )
    actions = group.add_subparsers(title="commands", metavar="COMMAND", required=True)

    _pipeline(_command(actions, "list", _quarantine_list, "count the rows in quarantine, by source and run", json=True))

    show = _command(actions, "show", _quarantine_show, "show the rows of a source, and why they are there", json=True)
    _pipeline(show)
    _whose(show, required=True)
    show.add_argument("--check", metavar="CHECK", help="only rows that broke it, such as range.score, or range")
    show.add_argument("--limit", metavar="N", type=_count, default=20, help="at most N rows (default: 20)")
    show.add_argument(
        "--out", metavar="FILE", help="write all of them to a .parquet, .csv or .ndjson file, to be mended"
    )

    replay = _command(
        actions, "replay", _quarantine_replay, "run the pipeline over rows in quarantine; no source is read", json=True
    )
    _pipeline(replay)
    _whose(replay, required=False)
    replay.add_argument(
        "--rows", metavar="FILE", help="take these rows instead: a file made by show --out, with mended values"
    )
    _as_of(replay)

    drop = _command(actions, "drop", _quarantine_drop, "give up the rows of a source, for good", json=True)
    _pipeline(drop)
    _whose(drop, required=True)


def _whose(command: argparse.ArgumentParser, *, required: bool) -> None:
    command.add_argument(
        "--source", metavar="SOURCE", required=required, help="rows of this source" + ("" if required else " only")
    )
    command.add_argument("--run", metavar="RUN", help="only rows that this run set aside")


def _pipeline(command: argparse.ArgumentParser) -> None:
    command.add_argument("pipeline", metavar="PIPELINE", help="the pipeline file")


def _junit(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--junit", metavar="FILE", type=Path, help="also write the checks as JUnit XML, for CI systems"
    )


def _as_of(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--as-of",
        metavar="T",
        action="append",
        help="the moment that features describe: an ISO 8601 date or timestamp, UTC unless it carries an offset; "
        "may be repeated (default: now)",
    )


# --- commands -----------------------------------------------------------------------------------------------------


def _check(options: argparse.Namespace) -> int:
    from engine.config import load_pipeline
    from engine.plan import check_rules, compile_plan

    pipeline = load_pipeline(options.pipeline)
    plan = compile_plan(pipeline, history=False)
    check_rules(pipeline, plan)
    checks = sum(len(suite.checks) for suite in plan.suites.values())
    features = sum(len(view.view.features) for view in plan.views)
    found = {"sources": len(plan.sources), "checks": checks, "views": len(plan.views), "features": features}
    if options.connect:
        return _connect(plan, options)
    if options.json:
        _print_json({"pipeline": plan.pipeline, "ok": True, **found})
    elif not options.quiet:
        counts = ", ".join(f"{n} {name}" for name, n in found.items())
        _print(f"{options.pipeline}: no mistakes found ({counts}); nothing was read")
    return 0


def _connect(plan: Plan, options: argparse.Namespace) -> int:
    from engine.inspection import connect

    probed = connect(plan)
    failed = [p for p in probed if p.error]
    if options.json:
        _print_json({"pipeline": plan.pipeline, "ok": not failed, "sources": [p.to_dict() for p in probed]})
    elif not options.quiet or failed:
        from engine.report import show_probes

        show_probes(probed, quiet=options.quiet)
    return failed[0].error.exit_code if failed and failed[0].error else 0


def _plan(options: argparse.Namespace) -> int:
    plan = _compile(options.pipeline, options.as_of)
    if options.json:
        _print_json(plan.to_dict())
    elif not options.quiet:
        from engine.report import show_plan

        show_plan(plan)
    return 0


def _run(options: argparse.Namespace) -> int:
    with _error_in_junit(options):
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
    plan = compile_plan(pipeline, last.as_of if last else options.as_of)
    with _progress(options) as progress:
        report = execute(plan, refit=options.refit, resume=last, reread=options.reread, progress=progress)
    _write_junit(options, {s.name: s.report for s in report.sources if s.report}, plan.pipeline, run_id=report.run_id)
    if options.json:
        _print_json(report.to_dict())
    elif not options.quiet:
        from engine.report import show_run

        show_run(report, plan, verbose=options.verbose)
    elif report.exit_code:
        from engine.report import show_errors

        show_errors(report)
    return report.exit_code


def _validate(options: argparse.Namespace) -> int:
    with _error_in_junit(options):
        name, reports = _validate_file(options) if options.checks else _validate_pipeline(options)
        _write_junit(options, reports, name)
    ok = all(report.ok and not (options.strict and report.warnings) for report in reports.values())
    if options.json:
        sources = {name: report.to_dict() for name, report in reports.items()}
        _print_json({"version": 1, "ok": ok, "sources": sources})
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
    plan = _compile(options.target, options.as_of)
    from engine.inspection import validate

    with _progress(options) as progress:
        return plan.pipeline, {s.name: s.report for s in validate(plan, progress=progress) if s.report}


def _runs(options: argparse.Namespace) -> int:
    plan = _compile(options.pipeline, None, history=False)
    from engine.history import history

    found = history(plan, options.last)
    if options.json:
        _print_json([run.to_dict() for run in found])
    elif not options.quiet:
        from engine.report import show_history

        show_history(plan.pipeline, found)
    return 0


def _verify(options: argparse.Namespace) -> int:
    plan = _compile(options.pipeline, None, history=False)
    from engine.history import verify_files

    found = verify_files(plan)
    if options.json:
        _print_json(found.to_dict())
    elif not options.quiet or not found.ok:
        from engine.report import show_verified

        show_verified(found)
    return 0 if found.ok else 1


def _gc(options: argparse.Namespace) -> int:
    plan = _compile(options.pipeline, None, history=False)
    keep = Duration(options.keep) if options.keep else plan.retention
    from engine.history import collect_files

    found = collect_files(plan, keep)
    if options.json:
        _print_json(found.to_dict())
    elif not options.quiet:
        _print(
            f"dropped {found.tables:,} superseded tables; {found.files:,} files, {found.bytes / 2**20:,.1f} MiB in all"
        )
    return 0


def _materialize(options: argparse.Namespace) -> int:
    pipeline = _mistakes(options)
    from engine.online import materialize

    with _progress(options) as progress:
        found = materialize(pipeline, views=options.view, full=options.full, proof=options.proof, progress=progress)
    if options.json:
        _print_json([view.to_dict() for view in found])
    elif not options.quiet:
        for view in found:
            what = f"loaded {view.rows:,} entities" if view.as_of else "nothing new"
            _print(f"{view.view}: {what}; {view.proven:,} read back and found equal")
    return 0


def _online_get(options: argparse.Namespace) -> int:
    pipeline = _mistakes(options)
    from engine.online import get

    found = get(pipeline, options.view, options.key)
    if options.json:
        _print(json.dumps(found, indent=2, ensure_ascii=False, default=_plain))
    else:
        for row in found:
            width = max(map(len, row))
            _print("\n".join(f"{name:<{width}}  {value}" for name, value in row.items()))
    return 0


def _quarantine_list(options: argparse.Namespace) -> int:
    pipeline = _mistakes(options)
    from engine.quarantine import held

    found = held(pipeline)
    if options.json:
        _print_json([holding.to_dict() for holding in found])
    elif not options.quiet:
        from engine.report import show_holdings

        show_holdings(found)
    return 0


def _quarantine_show(options: argparse.Namespace) -> int:
    pipeline = _mistakes(options)
    from engine import quarantine

    which = {"source": options.source, "run": options.run, "check": options.check}
    if options.out:
        count = quarantine.export(pipeline, options.out, **which)
        if options.json:
            _print_json({"rows": count, "file": options.out})
        elif not options.quiet:
            _print(f"wrote {count:,} rows to {options.out}")
        return 0
    found = quarantine.records(quarantine.rows(pipeline, **which).head(options.limit))
    if options.json:
        _print_json(found)
    elif not options.quiet:
        from engine.report import show_rows

        show_rows(found)
    return 0


def _quarantine_replay(options: argparse.Namespace) -> int:
    pipeline = _mistakes(options)
    from engine.quarantine import replay

    which = {"source": options.source, "run": options.run, "mended": options.rows}
    with _progress(options) as progress:
        report = replay(pipeline, **which, as_of=options.as_of, progress=progress)
    if options.json:
        _print_json(report.to_dict())
    elif not options.quiet or report.exit_code:
        from engine.report import show_errors, show_replay

        if options.quiet:
            show_errors(report)
        else:
            show_replay(report, _compile(options.pipeline, options.as_of, history=False))
    return report.exit_code


def _quarantine_drop(options: argparse.Namespace) -> int:
    pipeline = _mistakes(options)
    from engine.quarantine import drop

    count = drop(pipeline, source=options.source, run=options.run)
    if options.json:
        _print_json({"source": options.source, "rows": count})
    elif not options.quiet:
        _print(f"gave up {count:,} rows of {options.source}")
    return 0


def _sources(options: argparse.Namespace) -> int:
    from engine.plugin.kinds import kinds

    found = kinds()
    if options.json:
        _print_json([kind.to_dict() for kind in found])
    elif not options.quiet:
        from engine.report import show_kinds

        show_kinds(found)
    return 0


def _schema(options: argparse.Namespace) -> int:
    if options.report:
        from engine.checks.shape import SCHEMA

        _print_json(SCHEMA)
    else:
        from engine.config import json_schema

        _print_json(json_schema())
    return 0


def _init(options: argparse.Namespace) -> int:
    from engine.starter import write_starter

    path = write_starter(Path(options.path))
    if not options.quiet:
        _print(f"wrote {path}; next: maestro check {shlex.quote(str(path))}")
    return 0


def _demo(options: argparse.Namespace) -> int:
    from engine.demo import run_demo, serve_demo

    if options.serve:
        return serve_demo(Path(options.folder))
    with _progress(options) as progress:
        return run_demo(Path(options.folder), progress=progress, quiet=options.quiet)


def _count(text: str) -> int:
    if text.isdecimal() and 0 < int(text) <= 1_000_000:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 1000000")


def _proof(text: str) -> int | None:
    """Of --proof: a number, 0 included, or None for all."""
    return None if text == "all" else 0 if text == "0" else _count(text)


# --- input and output ---------------------------------------------------------------------------------------------


def _compile(path: str, as_of: Sequence[str] | str | None, *, history: bool = True) -> Plan:
    from engine.config import load_pipeline
    from engine.plan import compile_plan

    return compile_plan(load_pipeline(path), as_of, history=history)


@contextmanager
def _error_in_junit(options: argparse.Namespace) -> Iterator[None]:
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


def _write_junit(options: argparse.Namespace, reports: dict[str, Report], name: str, **properties: str) -> None:
    if options.junit is not None:
        from engine import junit

        strict = getattr(options, "strict", False)
        junit.write(options.junit, reports, name=name, properties=properties, strict=strict)


def _mistakes(options: argparse.Namespace) -> Pipeline:
    """The pipeline, once it is known to have no mistakes: they are answered before anything heavy loads."""
    from engine.config import load_pipeline
    from engine.plan import compile_plan

    pipeline = load_pipeline(options.pipeline)
    compile_plan(pipeline, getattr(options, "as_of", None), history=False)
    return pipeline


def _progress(options: argparse.Namespace) -> Any:
    if options.quiet or options.json:
        return nullcontext()  # without what draws on terminals
    from engine.report import live_progress

    return live_progress(verbose=options.verbose)


def _logging(options: argparse.Namespace) -> None:
    level = logging.DEBUG if options.verbose else logging.ERROR if options.quiet else logging.WARNING
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("engine")
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False


def _show_error(error: MaestroError, options: argparse.Namespace) -> None:
    if options.json:
        _print_json({"error": error.to_dict()})
    else:
        sys.stderr.write(f"{error}\n")


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _plain(value: Any) -> str:
    """A moment or bytes as JSON has them."""
    return value.hex() if isinstance(value, bytes) else str(value)


def _print_json(value: Any) -> None:
    _print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def _version() -> str:
    from engine import __version__

    return f"maestro {__version__}"
