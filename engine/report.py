"""What people see: plans, reports and progress on a terminal. The figures are those of the JSON forms."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from engine.checks.listing import MOST, Line, lines, more, sums
from engine.features.ways import MANY, ways
from engine.page.published import came
from engine.types import iso

if TYPE_CHECKING:
    from rich.status import Status

    from engine.checks import Report
    from engine.drift import TableDrift
    from engine.features.leakage import Leakage
    from engine.history import PastRun
    from engine.inspection import Probed
    from engine.outcome import RunReport, SourceReport
    from engine.plan import Plan, SourcePlan
    from engine.plugin.kinds import Kind
    from engine.profile import Profile
    from engine.progress import Progress
    from engine.quarantine import Holding
    from engine.spec import ViewSpec
    from engine.start import Start
    from engine.upkeep import Verified

_STATUS = {"done": "green", "running": "bold", "blocked": "yellow", "interrupted": "yellow"}
_EFFECTS = ("psi", "js", "ks", "wasserstein", "nulls")
_FILES_SHOWN = 12  # of a view
_WAYS = {
    "running": "one scan with running state",
    "by entity": "one scan, for a part of the entities at a time",
    "per as-of": "a query for each as-of",
}
_STYLES = {"error": "bold red", "warning": "yellow", "info": "green"}


def _scaled(spec: ViewSpec) -> str:
    """What becomes of a view's numbers."""
    scaled = ("min-max" if spec.normalize else "no") if isinstance(spec.normalize, bool) else str(spec.normalize)
    return f"{scaled}, {len(spec.transforms)} otherwise" if spec.transforms else scaled


def show_plan(plan: Plan) -> None:
    """Prints what a run would read, check, compute and write."""
    console = _console()
    as_of = ", ".join(iso(t) for t in plan.as_of)
    if len(plan.as_of) > _FILES_SHOWN:
        as_of = f"{len(plan.as_of):,} moments from {iso(plan.as_of[0])} to {iso(plan.as_of[-1])}"
    console.print(Text.assemble((plan.pipeline, "bold"), f"  as of {as_of}"))
    sources = _table("Read", "source", "type", "from", "then")
    for source in plan.sources:
        sources.add_row(source.name, source.spec.type, Text(source.location, overflow="fold"), _steps(source))
    checks = _table("Check", "source", "check", "column", "must hold", "if not")
    for name, suite in plan.suites.items():
        for check in suite.listed:
            checks.add_row(
                name,
                check.check_name.removesuffix("_validation"),
                Text(check.column or ""),
                Text(check.description, overflow="fold"),
                _severity(str(check.severity)),
            )
    views = _table("Compute", "view", "from", "features", "missing", "scaled")
    for view in plan.views:
        features = f"{len(view.view.features)} " + (f"of the {view.set} set" if view.set else "declared")
        views.add_row(
            view.name, ", ".join(view.sources.values()), features, view.spec.handle_missing, _scaled(view.spec)
        )
    for table in (sources, checks, views):
        if table.row_count:
            console.print(table)
    if plan.views:
        console.print(Text("Write", style="bold"), highlight=False)
        for line in _files(plan):
            console.print(Text(f"  {line}"), soft_wrap=True)
    for name, alert in plan.alerts.items():
        console.print(Text(f"Tell {name} of {', '.join(alert.on)}"), soft_wrap=True)
    if plan.feast:
        then = ", then loaded into its online store" if plan.feast.materialize else ""
        console.print(Text(f"Register with Feast in {plan.feast_repo}{then}"), soft_wrap=True)


def _files(plan: Plan) -> Iterator[str]:
    """What will be published, and how what is published of many as-ofs is computed."""
    for view in plan.views:
        if view.start:
            yield from (f"{view.name}: {line}" for line in _start(view.start))
        if len(view.as_of) >= MANY:
            yield from (
                f"{view.name}, {_WAYS[way]}: {', '.join(names)}" for way, names in ways(view.view, view.as_of).items()
            )
        if view.spilled:
            rows = ", ".join(f"{count:,} of {role}" for role, count in view.landed.items())
            size = f"{view.spilled / 2**20:,.0f} MiB of events on disk meanwhile"
            yield f"{view.name}, one scan of each table, as they landed last ({rows}): about {size}"
        if len(view.files) > _FILES_SHOWN:
            again = f"; {len(view.again):,} of them again, for another definition" if view.again else ""
            yield f"{len(view.files):,} files, from {plan.output}/{view.files[0]} to {view.files[-1]}{again}"
            continue
        for moment, file in zip(view.as_of, view.files, strict=True):
            why = "  (again: published under another definition)" if moment in view.again else ""
            yield f"{plan.output}/{file}{why}"


def _start(start: Start) -> Iterator[str]:
    """What a view's computing reads of events, as they landed last, and how that changes what is published."""
    events = f"{start.rows_read:,} rows of events in {start.files_read:,} files"
    if start.because is None:
        yield f"goes on from saved state: {events}, from {start.since} on, and what is new"
    elif start.files_read:
        yield f"reads whole tables, {events}: {start.because}"
    rows = "" if start.rows_written is None else f"about {start.rows_written:,} rows in "
    files = start.new + start.again + start.replaced
    counts = {"new": start.new, "again, for another definition": start.again, "published already": start.replaced}
    parts = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    yield f"writes {rows}{files:,} files over {start.days:,} days ({parts}); {start.unchanged:,} published ones stay"


def _steps(source: SourcePlan) -> str:
    spec, steps = source.spec, []
    if source.mode != "full":
        steps.append(f"{source.mode} by {getattr(spec, 'cursor', None) or 'key'}")
    if spec.column_mapping:
        steps.append(f"rename {len(spec.column_mapping)}")
    if spec.critical_columns:
        steps.append(f"leave out null {', '.join(spec.critical_columns)}")
    if spec.deduplicate:
        steps.append(f"last row per {', '.join(spec.deduplicate.keys)}")
    return "; ".join(steps)


def show_run(report: RunReport, plan: Plan, *, verbose: bool = False) -> None:
    """Prints what a run read, found and published."""
    console = _console()
    sources = _table("Read", "source", "read", "= written", "+ failed", "+ duplicates", "seconds", numbers=5)
    for source in report.sources:
        m = source.metrics
        counts = (m.records_read, m.records_written, m.records_failed, m.duplicates_removed)
        sources.add_row(source.name, *(f"{n:,}" for n in counts), f"{m.duration_seconds:.2f}")
    console.print(sources)
    for source in report.sources:
        for line in _read_notes(source):
            console.print(Text(f"  {line}", style="dim"), soft_wrap=True)
    if reports := {s.name: s.report for s in report.sources if s.report}:
        console.print(Text("Checked", style="bold"))
        show_validation(reports, verbose=verbose)
    if report.views:
        views = _table("Published", "view", "rows", "file", numbers=1)
        for view in report.views:
            if len(view.files) > _FILES_SHOWN:
                files = f"{len(view.files):,} files, from {view.files[0]} to {view.files[-1]}"
                views.add_row(view.name, f"{sum(view.rows):,}", Text(files, overflow="fold"))
                continue
            for file, rows in zip(view.files, view.rows, strict=True):
                again = "  (again: its definition changed)" if file in view.again else ""
                again = "  (again: late or changed rows)" if file in view.redone else again
                views.add_row(view.name, f"{rows:,}", Text(f"{file}{again}", overflow="fold"))
        console.print(views)
        for line, times in Counter(_notes(report)).items():
            often = f" (at {times:,} as-ofs)" if times > 1 else ""
            console.print(Text(f"  {line}{often}", style="dim"), soft_wrap=True)
    if report.feast:
        loaded = " and loaded into its online store" if report.feast["materialized"] else ""
        console.print(Text(f"Registered with Feast in {report.feast['repo']}{loaded}"), soft_wrap=True)
    _show_stages(console, report, verbose=verbose)
    _show_page(console, report, plan)
    seconds = sum(report.seconds.values())
    if report.status == "blocked":
        _show_blocked(report)
    else:
        console.print(Text(f"done in {seconds:.1f} s, in {plan.output}", style="bold green"), soft_wrap=True)


def _show_stages(console: Console, report: RunReport, *, verbose: bool) -> None:
    """Where the time went: the stages, one after another."""
    if not verbose:
        return
    heads = ("on, one after another", "seconds", "CPU seconds", "processors busy", "of it waiting for")
    stages = _table("Spent", *heads, numbers=3)
    for lap in report.stages:
        busy = f"{lap.cpu_seconds / lap.seconds:.1f}" if lap.seconds else ""
        longest = sorted(lap.waited.items(), key=lambda item: -item[1])
        waited = ", ".join(f"{what} {took:.2f}" for what, took in longest if took >= 0.005)
        stages.add_row(f"{lap.stage} {lap.name}", f"{lap.seconds:.2f}", f"{lap.cpu_seconds:.2f}", busy, waited)
    console.print(stages)


def _show_page(console: Console, report: RunReport, plan: Plan) -> None:
    page = plan.reports / f"{report.run_id}.html"
    if page.exists():
        console.print(Text(f"Report: {page}"), soft_wrap=True)


def _read_notes(source: SourceReport) -> Iterator[str]:
    """What a reading was beyond its counts: resumed, incremental, and how much it vouches for."""
    m, promise = source.metrics, source.promise
    yield f"{source.name}: rows: {source.balance}"
    parts = []
    if source.mode != "full":
        counts = f"{m.rows_replaced:,} replaced, {m.rows_deleted:,} deleted"
        parts.append(f"{source.mode}: the table has {m.rows:,} rows now ({counts})")
    if m.chunks_skipped:
        parts.append(f"{_count(m.chunks_skipped, 'chunk')} had landed already")
    if m.retries:
        parts.append(f"{m.retries} retries")
    if promise.snapshot == "per_chunk":
        parts.append("not one snapshot")
    if promise.late_commits == "within_lateness":
        parts.append("late commits are found within lateness only")
    if promise.note:
        parts.append(promise.note)
    if parts:
        yield f"{source.name}: {'; '.join(parts)}"
    for change in m.schema_changes:
        types = " → ".join(str(change[when]) for when in ("before", "after") if change[when] is not None)
        yield f"{source.name}: column {change['column']} was {change['change']} ({types}): {change['action']}"
    for column, count in m.values_discarded.items():
        yield f"{source.name}: {_count(count, 'value')} of {column} left out, which do not fit the contract"


def show_leakage(found: Sequence[Leakage]) -> None:
    """Prints what moved when all that is later than a moment was changed."""
    console = _console()
    table = _table("Leakage", "view", "as of", "rows", "changed after it", "moved")
    for one in found:
        changed = ", ".join(f"{count:,} of {role}" for role, count in one.changed.items()) or "nothing is later"
        moved = ", ".join(f"{name} in {count:,} rows" for name, count in one.moved.items())
        style = "bold red" if moved else "green"
        table.add_row(one.view, iso(one.as_of), f"{one.rows:,}", changed, Text(moved or "nothing", style=style))
    console.print(table)


def show_history(pipeline: str, runs: Sequence[PastRun]) -> None:
    """Prints past runs, newest last."""
    console = _console()
    table = _table(f"Runs of {pipeline}", "run", "status", "as of", "read", "published", "why")
    for run in runs:
        read = ", ".join(f"{r.source} {r.metrics.get('records_read', 0):,} {r.state}" for r in run.reads)
        as_of = ", ".join(run.as_of[:3]) + (f" and {len(run.as_of) - 3} more" if len(run.as_of) > 3 else "")
        why = run.error.get("message", "") if run.error else ""
        status = Text(run.status.upper(), style=_STATUS.get(run.status, "bold red"))
        table.add_row(run.run_id, status, as_of, Text(read, overflow="fold"), str(run.published), Text(why))
    console.print(table)


def show_verified(found: Verified) -> None:
    """Prints what a verification looked at and found."""
    console = _console()
    for damage in found.damage:
        text = Text.assemble(("DAMAGED ", "bold red"), f"{damage.path} ({damage.belongs_to}): {damage.what}")
        console.print(text, soft_wrap=True)
    kinds = f"{found.landed:,} landed, {found.quarantined:,} quarantined and {found.published:,} published files"
    counts = f"{kinds}, {found.bytes / 2**20:,.1f} MiB"
    verdict = "all as recorded" if found.ok else f"{len(found.damage):,} damaged"
    console.print(Text(f"{counts}: {verdict}", style="bold green" if found.ok else "bold red"), soft_wrap=True)


def show_probes(probed: Sequence[Probed], *, quiet: bool = False) -> None:
    """Prints what connecting to each database showed."""
    console = _console()
    for source in probed:
        if source.error:
            console.print(Text(f"{source.name}: {source.error}", style="bold red"), soft_wrap=True)
        elif source.probe is None:
            if not quiet:
                console.print(Text(f"{source.name}: no database; not connected to", style="dim"), soft_wrap=True)
        elif not quiet:
            probe = source.probe
            rows = f", about {probe.rows_estimate:,} rows" if probe.rows_estimate is not None else ""
            console.print(Text(f"{source.name}: {source.location}: {probe.server}{rows}", style="bold"), soft_wrap=True)
            table = _table("", "column", "type there", "arrives as")
            for column in probe.columns:
                table.add_row(*map(Text, column))
            console.print(table)
            for warning in probe.warnings:
                console.print(Text.assemble(("WARNING ", "yellow"), warning), soft_wrap=True)


def show_kinds(kinds: Sequence[Kind]) -> None:
    """Prints the kinds of source there are."""
    console = _console()
    width = min(console.width, 100)  # of a pipe too: these are lines for people
    for kind in kinds:
        reads = Text(kind.description) if kind.problem is None else Text(f"cannot be used: {kind.problem}", "bold red")
        body = Table.grid(padding=(0, 2, 0, 0))
        body.add_row(Text("keys", style="dim"), Text(", ".join(kind.keys), overflow="fold"))
        body.add_row(Text("from", style="dim"), Text(f"{kind.package}, {kind.target}", overflow="fold"))
        console.print(Text.assemble((kind.type, "bold"), "  ", reads), width=width)
        console.print(Padding(body, (0, 0, 1, 2)), width=width)


def show_errors(report: RunReport) -> None:
    """Prints what blocked a run, and nothing else."""
    show_validation({s.name: s.report for s in report.sources if s.report}, errors_only=True)
    _show_blocked(report)


def show_replay(report: RunReport, plan: Plan) -> None:
    """Prints what a replay took back, found and published."""
    show_run(report, plan)
    again = [s.name for s in report.sources if s.mode == "full" and s.metrics.records_read]
    for name in again:
        text = f"  {name} is in mode full: the next run reads everything anew, so mend these rows in the source too"
        _console().print(Text(text, style="yellow"), soft_wrap=True)


def show_holdings(found: Sequence[Holding]) -> None:
    """Prints how many rows are in quarantine."""
    console = _console()
    table = _table("In quarantine", "source", "rows", "run", "since", "broke", numbers=1)
    for holding in found:
        checks = ", ".join(f"{check} ({count:,})" for check, count in holding.checks.items())
        table.add_row(holding.source, f"{holding.rows:,}", holding.run_id, holding.since, Text(checks, overflow="fold"))
    console.print(table if found else "no row is in quarantine")


def show_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints rows in quarantine, with why they are there."""
    if not rows:
        _console().print("no row is in quarantine for that")
        return
    *columns, reasons = rows[0]
    table = _table("In quarantine", "broke", "origin", "row", *columns)
    for row in rows:
        why = row[reasons]
        place = [", ".join(why["checks"]), why["origin"] or "", "" if why["row"] is None else str(why["row"])]
        table.add_row(*(Text(text, overflow="fold") for text in place), *(Text(_shown(row[c])) for c in columns))
    _console().print(table)


def show_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints rows."""
    table = _table("", *(rows[0] if rows else ["no rows"]))
    for row in rows:
        table.add_row(*(Text(_shown(value)) for value in row.values()))
    _console().print(table)


def _shown(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else repr(value)


def _show_blocked(report: RunReport) -> None:
    blocked = ", ".join(s.name for s in report.sources if s.state == "blocked")
    seconds = sum(report.seconds.values())
    text = f"blocked by an ERROR check on {blocked}: nothing was published ({seconds:.1f} s)"
    _console().print(Text(text, style="bold red"))


def _notes(report: RunReport) -> Iterator[str]:
    """What a reader of the features should know: constants, left-out rows, what a fit did."""
    for view in report.views:
        if view.settings:
            yield f"{view.name}: " + ", ".join(f"{k} = {v}" for k, v in view.settings.items())
        yield from (f"{view.name}: {line}" for line in came(view.start))
        for role, columns in view.timeless.items():
            yield f"{view.name}: taken as they stood when read, whatever the as-of: {role} {', '.join(columns)}"
        for role, columns in view.absent_columns.items():
            yield f"{view.name}: {role} has no {', '.join(columns)}: read as null"
        for role, counts in view.left_out.items():
            parts = [f"{n:,} rows with a {k.removesuffix('s').replace('_', ' ')}" for k, n in counts.items() if n]
            yield f"{view.name}: {role}: left out {' and '.join(parts)}"
        for done in view.applied:
            if done.dropped:
                yield f"{view.name}: {done.dropped:,} of {done.rows:,} rows dropped for a null feature"
            if done.unknown:
                yield f"{view.name}: of no category that is pinned: " + ", ".join(
                    f"{k} ({n:,})" for k, n in done.unknown.items()
                )
            if done.clipped:
                yield f"{view.name}: beyond the pinned range, clipped: " + ", ".join(
                    f"{k} ({n:,})" for k, n in done.clipped.items()
                )
            if done.all_null:
                yield f"{view.name}: all null, nothing to impute from: {', '.join(done.all_null)}"


def show_profile(name: str, profile: Profile) -> None:
    """Prints a line for each column of a table."""
    console = _console()
    table = _table(
        f"{name}: {_count(profile.rows, 'row')}",
        *("column", "nulls", "distinct", "type", "min", "median", "max", "mean", "std", "most frequent"),
        numbers=2,
    )
    for c in profile.columns.values():
        told = c.summary()
        nulls = f"{100 * told['null_fraction']:.3g} %" if told["nulls"] else "0"
        about = "" if told["distinct_error"] == 0 else "at least " if told["distinct_error"] is None else "~"
        distinct = "" if told["distinct"] is None else f"{about}{told['distinct']:,}"
        median = next((x for share, x in told.get("quantiles", ()) if share == 0.5), None)
        figures = (told.get("min"), median, told.get("max"), told.get("mean"), told.get("std"))
        top = ", ".join(f"{_figure(t['value'])} ({t['count']:,})" for t in told.get("top", ())[:3])
        texts = [c.dtype, *map(_figure, figures), "(pii)" if c.pii else top]
        table.add_row(Text(c.name), nulls, distinct, *(Text(text, overflow="fold") for text in texts))
    console.print(table)


def _figure(value: Any) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def show_drift(found: TableDrift, *, verbose: bool = False) -> None:
    """Prints a line for each column that was compared, those that drifted first."""
    console = _console()
    change = "" if found.row_change is None else f" ({100 * found.row_change:+.3g} %)"
    drifted = found.drifted
    sums = f"{len(drifted)} of {len(found.columns)} columns drifted"
    rows = f"{found.baseline_rows:,} rows, now {found.current_rows:,}{change}"
    console.print(Text(f"{rows}; {sums}", style="bold yellow" if found.has_drifted else "bold"))
    for what, names in (("new", found.added), ("gone", found.removed)):
        if names:
            console.print(Text(f"  columns {what}: {', '.join(names)}"), soft_wrap=True)
    table = _table("Drift", "column", "PSI", "JS", "D", "W/σ", "nulls", "", "what", numbers=5)
    ordered = sorted(found.columns, key=lambda name: name not in drifted)
    for name in ordered:
        column = found.columns[name]
        effects = {k: "" if v is None else f"{v:.3g}" for k, v in column.effects.items()}
        cells = [Text(effects[k], style="bold" if k in drifted.get(name, ()) else "") for k in _EFFECTS]
        mark = Text("drifted", style="yellow") if name in drifted else Text("")
        new = [f"{c} new ({n:,})" for c, n in column.new[:3]] + [f"{c} gone ({n:,})" for c, n in column.vanished[:3]]
        what = "; ".join([*new, *([column.note] if column.note and verbose else [])])
        table.add_row(Text(name), *cells, mark, Text(what, overflow="fold"))
    console.print(table)


def show_validation(reports: Mapping[str, Report], *, errors_only: bool = False, verbose: bool = False) -> None:
    """Prints the sums of each table and its failed checks, errors first, each with some of the rows that break it.

    Args:
        errors_only: leave out what is no error.
        verbose: show all failed checks, and the passed ones too.
    """
    console = _console()
    if not reports:
        console.print("no checks are declared")
    chosen = {
        name: [r for r in report.results if (verbose or not r.passed) and (r.severity == "error" or not errors_only)]
        for name, report in reports.items()
    }
    most = None if verbose else MOST
    every = [result for found in chosen.values() for result in found]
    among = {id(result) for result in sorted(every, key=lambda r: list(_STYLES).index(r.severity))[:most]}
    for name, report in reports.items():
        if errors_only and report.ok:
            continue
        console.print(Text(f"{name}: {sums(report)}", style="bold" if report.ok else "bold red"))
        shown = [result for result in chosen[name] if id(result) in among]
        _show_lines(console, lines(shown))
        if hidden := len(chosen[name]) - len(shown):
            console.print(Text(f"  {more(hidden)}; all are in --json, --junit and --verbose"), soft_wrap=True)


def _show_lines(console: Console, found: Sequence[Line]) -> None:
    """A line per check under one another, and below each the rows of its sample."""
    name, failed, share = (
        max((len(cell) for cell in cells), default=0)
        for cells in ([f.check for f in found], [f.failed for f in found], [f.share for f in found])
    )
    name = min(name, console.width // 3)
    narrow = console.width - name - failed - share < 45
    for line in found:
        if narrow:
            parts = [part for part in (line.check, line.failed, line.share, line.message) if part]
            console.print(Text.assemble(_mark(line), " ", "  ".join(parts)))
        else:
            row = Table.grid(padding=(0, 2, 0, 0))
            row.add_column(width=9)
            row.add_column(width=name, overflow="fold")
            row.add_column(width=failed, justify="right")
            row.add_column(width=share, justify="right")
            row.add_column(overflow="fold")
            row.add_row(_mark(line), Text(line.check), line.failed, line.share, Text(line.message))
            console.print(row)
        for example in line.examples:
            console.print(Padding(Text(example, style="dim", overflow="fold"), (0, 0, 0, 6), expand=False))


def _mark(line: Line) -> Text:
    return Text(f"  {line.mark}", style=_STYLES.get(line.mark.lower(), "green"))


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _severity(severity: str) -> Text:
    return Text(severity.upper(), style=_STYLES[severity])


def _table(title: str, *columns: str, numbers: int = 0) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if 0 < i <= numbers else "left", header_style="dim")
    return table


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # rich would end the process with the code of a failed check


def _console() -> Console:
    # A file or a pipe has no width: as wide as it takes, so that nothing is cut. What a user named is never markup.
    width = None if sys.stdout.isatty() else 100_000
    return _Console(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False)


class _Live:
    """A spinner with the current step, for terminals."""

    def __init__(self, status: Status) -> None:
        self.status, self.text = status, ""

    def step(self, stage: str, name: str) -> None:
        self.text = f"{stage} {name}"
        self.status.update(self.text)

    def rows(self, count: int) -> None:
        self.status.update(f"{self.text}: {count:,} rows")


class _Lines:
    """A line per step, for logs."""

    def step(self, stage: str, name: str) -> None:
        sys.stderr.write(f"{time.strftime('%H:%M:%S')} {stage} {name}\n")
        sys.stderr.flush()

    def rows(self, count: int) -> None:
        """Counts are in the report."""


@contextmanager
def live_progress(*, verbose: bool = False) -> Iterator[Progress]:
    """Progress on standard error: live on a terminal, plain lines otherwise or when ``verbose``."""
    if sys.stderr.isatty() and not verbose:
        with Console(file=sys.stderr).status("") as status:
            yield _Live(status)
    else:
        yield _Lines()
