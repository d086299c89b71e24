"""Rows that were set aside: what is held, taking it back once it is mended, giving it up."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl

from engine.access import opened
from engine.checks.aside import struct_name
from engine.checks.result import json_ready
from engine.errors import LedgerError, UsageError, nearest
from engine.frames import to_rows
from engine.intake import Replaying, remote_of
from engine.landing import files, mending, quarantine
from engine.ledger import Ledger, Quarantined
from engine.outcome import RunReport
from engine.plan import Plan, compile_plan
from engine.progress import Progress
from engine.run import execute
from engine.spec import Pipeline

__all__ = ["Holding", "drop", "export", "held", "records", "replay", "rows"]


@dataclass(frozen=True)
class Holding:
    """What one run set aside of one source.

    Attributes:
        checks: what the rows broke: how many did; one row may count in several.
        since: when.
    """

    source: str
    run_id: str
    rows: int
    checks: Mapping[str, int]
    since: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, in a stable order."""
        facts = {"source": self.source, "run_id": self.run_id, "rows": self.rows}
        return {**facts, "checks": dict(self.checks), "since": self.since}


def held(pipeline: Pipeline) -> list[Holding]:
    """What is in quarantine, oldest first."""
    plan = compile_plan(pipeline, history=False)
    found: dict[tuple[str, str], list[Quarantined]] = {}
    with opened(plan) as ledger:
        for entry in _there(plan, _entries(ledger, plan, Replaying())):
            found.setdefault((entry.source, entry.run_id), []).append(entry)
        return [
            Holding(source, run, sum(e.file.rows for e in entries), _checks(plan, entries), entries[0].created_at)
            for (source, run), entries in found.items()
        ]


def _checks(plan: Plan, entries: Sequence[Quarantined]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for entry in entries:
        path = plan.workdir / entry.file.path
        checks = files.scan(path).select(pl.col(quarantine.reasons_of(path)).struct["checks"].explode())
        counts.update(dict(checks.collect().to_series().value_counts().iter_rows()))
    return dict(sorted(counts.items()))


def rows(pipeline: Pipeline, *, source: str, run: str | None = None, check: str | None = None) -> pl.LazyFrame:
    """The rows held of a source, as they are, with a last column that says why: ``quarantine``.

    Args:
        run: only those that this run set aside.
        check: only those that broke this one, such as ``range.score``, or ``range``.

    Raises:
        UsageError: nothing of it is held.
    """
    plan = compile_plan(pipeline, history=False)
    with opened(plan) as ledger:
        entries = _some(ledger, plan, Replaying(frozenset({source}), run))
    found = _together([plan.workdir / entry.file.path for entry in entries])
    if check is None:
        return found
    broken = pl.element()
    is_it = (broken == check) | broken.str.starts_with(f"{check}.")
    return found.filter(pl.col(found.collect_schema().names()[-1]).struct["checks"].list.eval(is_it).list.any())


def _together(paths: Sequence[Path]) -> pl.LazyFrame:
    own = [name for path in paths for name in [*files.schema(path)][:-1]]
    reasons = struct_name(own)
    frames = [files.scan(path).rename({quarantine.reasons_of(path): reasons}) for path in paths]
    return pl.concat(frames, how="diagonal_relaxed").select(pl.exclude(reasons), pl.col(reasons))


def records(found: pl.LazyFrame) -> list[dict[str, Any]]:
    """Rows as JSON-ready values."""
    return [json_ready(row) for row in to_rows(found.collect(engine="streaming"))]


def export(
    pipeline: Pipeline, path: str | Path, *, source: str, run: str | None = None, check: str | None = None
) -> int:
    """Writes `rows` to a .parquet, .csv or .ndjson file, to be mended; gives their number.

    Raises:
        UsageError: nothing is held, or the format does not hold the values exactly.
    """
    return mending.export(rows(pipeline, source=source, run=run, check=check), Path(path))


def drop(pipeline: Pipeline, *, source: str, run: str | None = None) -> int:
    """Gives up the rows held of a source, for good; gives their number.

    Raises:
        UsageError: nothing of it is held.
        LedgerError: a run is at work.
    """
    plan = compile_plan(pipeline, history=False)
    with opened(plan) as ledger, ledger.lease(plan.pipeline):
        entries = _entries(ledger, plan, Replaying(frozenset({source}), run))
        entries = entries or _some(ledger, plan, Replaying(frozenset({source}), run))
        ledger.drop_quarantined(entry.file.path for entry in entries)
    return sum(entry.file.rows for entry in entries)


def replay(
    pipeline: Pipeline,
    *,
    source: str | None = None,
    run: str | None = None,
    mended: str | Path | None = None,
    as_of: str | date | datetime | Sequence[str | date | datetime] | None = None,
    progress: Progress | None = None,
) -> RunReport:
    """Takes rows back from quarantine: a run over them and the tables that landed last; no source is read.

    The rows land as rows that are earlier than what the table holds, are checked, and those that fail go back into
    quarantine. Of a source in mode full, the next ordinary run reads everything anew, and what is done here is undone.

    Args:
        source: only rows of this one.
        run: only rows that this run set aside.
        mended: a file made by `export`, with the rows as they should be; those it lacks stay in quarantine.
        as_of: as for `engine.run_pipeline`.

    Raises:
        UsageError: nothing is held, or the mended rows do not fit.
        SourceError: a source has not landed yet as it is declared.
    """
    plan = compile_plan(pipeline, as_of)
    wanted = Replaying(frozenset({source}) if source else None, run)
    with opened(plan) as ledger:
        if mended is not None or ledger.unfinished(plan.pipeline) is None:
            _some(ledger, plan, wanted, replaying=True)  # else, a replay that was killed may have taken them already
    with tempfile.TemporaryDirectory(prefix="replay-", dir=plan.workdir) as folder:
        if mended is not None:
            wanted = _with_mended(plan, wanted, Path(mended), Path(folder))
        return execute(plan, replay=wanted, progress=progress)


def _with_mended(plan: Plan, wanted: Replaying, path: Path, folder: Path) -> Replaying:
    with opened(plan) as ledger:
        entries = _some(ledger, plan, wanted)
        sources = {entry.source for entry in entries}
        if len(sources) > 1:
            raise UsageError(
                "rows of several sources are in quarantine",
                code="quarantine.source",
                allowed=", ".join(sorted(sources)),
                fix="say whose the mended rows are: --source, or source= in Python",
            )
        [source] = sources
        table = ledger.table(plan.pipeline, source)
        if table and (remote := remote_of(plan)):
            remote.fetch(table.files[:1])
    held_rows = _together([plan.workdir / entry.file.path for entry in entries])
    *columns, reasons = held_rows.collect_schema().items()
    landed = files.schema(plan.workdir / table.files[0].path) if table and table.files else {}
    made = mending.mended(path, {name: landed.get(name, dtype) for name, dtype in columns}, folder)
    known = held_rows.select(pl.col(reasons[0]).struct["id"]).collect().to_series()
    mending.check_ids(files.scan(made).collect().to_series(-1), known, path)
    return Replaying(frozenset(sources), wanted.run, made)


def _entries(ledger: Ledger, plan: Plan, wanted: Replaying) -> list[Quarantined]:
    return [entry for entry in ledger.quarantined(plan.pipeline) if wanted.takes(entry)]


def _there(plan: Plan, entries: list[Quarantined]) -> list[Quarantined]:
    """The same files.

    Raises:
        LedgerError: one is missing.
    """
    if remote := remote_of(plan):
        remote.fetch(entry.file for entry in entries)
    for entry in entries:
        if not (plan.workdir / entry.file.path).is_file():
            raise LedgerError(
                f"{entry.file.rows:,} rows in quarantine are gone: {entry.file.path} is missing",
                code="quarantine.missing",
                where=f"sources.{entry.source}",
                fix=f"restore the file, or give these rows up: maestro quarantine drop … --source {entry.source} "
                f"--run {entry.run_id}",
            )
    return entries


def _some(ledger: Ledger, plan: Plan, wanted: Replaying, *, replaying: bool = False) -> list[Quarantined]:
    """The files that are meant, at least one.

    Raises:
        UsageError: there is none; for a replay: the pipeline has no such source.
        LedgerError: one is missing.
    """
    if found := _entries(ledger, plan, wanted):
        declared = {source.name for source in plan.sources}
        if replaying and (strange := sorted({entry.source for entry in found} - declared)):
            raise UsageError(
                f"the pipeline has no source {strange[0]!r} any more, of which rows are in quarantine",
                code="quarantine.source",
                allowed=", ".join(sorted(declared)),
                fix=f"declare it again, name another with --source, or give its rows up: "
                f"maestro quarantine drop … --source {strange[0]}",
            )
        return _there(plan, found)
    every = _entries(ledger, plan, Replaying())
    sources = sorted({entry.source for entry in every})
    runs = sorted({entry.run_id for entry in every})
    of = f" of {', '.join(sorted(wanted.sources))}" if wanted.sources else ""
    by = f" by the run {wanted.run}" if wanted.run else ""
    near = nearest(next(iter(wanted.sources)), sources) if wanted.sources and not wanted.run else None
    raise UsageError(
        f"no row{of} is in quarantine{', set aside' + by if by else ''}",
        code="quarantine.empty",
        where=plan.pipeline,
        allowed=(f"sources: {', '.join(sources)}; runs: {', '.join(runs)}" if every else None),
        fix=f"did you mean {near!r}?" if near else "see maestro quarantine list",
    )
