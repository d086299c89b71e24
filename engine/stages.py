"""The stages that a run and a mere look at the data have in common: landing a source, judging what has landed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from engine.checks.aside import Quarantine
from engine.frames import batches
from engine.landing import Aside, LandedTable, Replay, Rows, Watched, files, land, quarantine
from engine.ledger import File, make_folder
from engine.outcome import Balance, Carried, SourceReport
from engine.plan import Plan, SourcePlan
from engine.progress import Progress
from engine.sources import Shared, open_source, reading
from engine.sources.threads import give_back

if TYPE_CHECKING:
    from engine.checks import Report
    from engine.checks.anomaly import Watch
    from engine.checks.suite import Judgement
    from engine.drift import Past
    from engine.profile import Profiler


def land_source(
    plan: Plan,
    source: SourcePlan,
    folder: Path,
    progress: Progress,
    shared: Shared,
    taken: Replay | None = None,
    **how: Any,
) -> LandedTable:
    """Lands a source in ``folder``; ``how`` goes to `engine.landing.land`.

    Args:
        taken: rows of it in quarantine that land instead.

    Raises:
        SourceError: as there.
    """
    progress.step("read", source.name)
    # In quarantine, columns have their new names.
    spec = source.spec.model_copy(update={"column_mapping": {}}) if taken else source.spec
    return land(
        taken or open_source(source.name, spec, plan.base, shared),
        spec,
        folder,
        earlier=taken is not None,
        name=source.name,
        memory_limit=plan.memory_limit,
        progress=progress.rows,
        **how,
    )


def watched(plan: Plan, source: SourcePlan) -> Watched | None:
    """What makes a source's profile while it lands, where no checks scan it afterwards; None: nothing is to."""
    if not source.profile or source.name in plan.suites:
        return None

    def begin(schema: Mapping[str, pl.DataType]) -> Profiler:
        from engine.profile import Profiler  # where nothing is profiled, numpy need not load

        return Profiler(schema, source.spec.pii)

    return Watched(begin)


@dataclass(frozen=True)
class Newness:
    """Which rows of a landed table are whose, by the reads that they came in; None: all of them.

    Attributes:
        new: that no run has accepted yet; row-wise checks judge these.
        own: that this run has read itself; the other new ones are carried over from runs that were blocked.
    """

    new: frozenset[str] | None = None
    own: frozenset[str] | None = None


@dataclass(frozen=True)
class Judged:
    """What became of a landed table.

    Attributes:
        table: without the rows that checks set aside.
        quarantined: the files of those among them that are kept.
    """

    report: SourceReport
    table: LandedTable
    quarantined: tuple[File, ...] = ()


def judging_order(plan: Plan) -> list[SourcePlan]:
    """The sources, each after those that its checks look rows up in; of a circle, some come too early."""
    sources = {source.name: source for source in plan.sources}
    ordered: dict[str, SourcePlan] = {}
    seen: set[str] = set()

    def place(name: str) -> None:
        if name not in seen:
            seen.add(name)
            for other in sorted(plan.suites[name].references) if name in plan.suites else ():
                place(other)
            ordered[name] = sources[name]

    for name in sources:
        place(name)
    return list(ordered.values())


def judge(
    plan: Plan,
    source: SourcePlan,
    tables: Mapping[str, LandedTable],
    folder: Path,
    progress: Progress,
    newness: Newness | None = None,
    aside: Aside | None = None,
    *,
    profiled: bool = False,
    watch: Watch | None = None,
    past: Past | None = None,
) -> Judged:
    """The verdict on a landed table, and the table without the rows that its checks set aside.

    Rows are judged one by one first; the checks of the whole table are about what stays of it.

    Args:
        tables: of the source, and of those that its checks look rows up in.
        folder: for copies of files that lose rows.
        newness: default: all rows are new, and the run's own.
        aside: where rows in quarantine go; default: they are only counted.
        profiled: whether to make a profile of the rows that are judged one by one, if none was made as they landed.
        watch: what holds that profile against those of past runs.
        past: finds the baseline of drift; default: baselines in files only.
    """
    newness, aside, table = newness or Newness(), aside or Aside(), tables[source.name]
    suite = plan.suites.get(source.name)
    if suite is None and not profiled:
        return _judged(source, table, table, balance=_Sums(table, newness).balance())
    if suite is None and table.witness is not None and newness.new is None:
        return _judged(source, table, table, balance=_Sums(table, newness).balance(), profiler=table.witness)
    progress.step("check" if suite else "profile", source.name)
    rows = table.rows(newness.new)
    profiler = _profiler(source, rows) if profiled else None
    if suite is None:
        if profiler:
            give_back()  # what landing took
            for part in rows.parts():
                for _, batch in batches(part, profiler.columns, source.name, rows=profiler.batch_rows):
                    profiler.add(batch)
        return _judged(source, table, table, balance=_Sums(table, newness).balance(), profiler=profiler)
    path = files.new_path(make_folder(aside.folder), "checks") if aside.folder and suite.sets_aside else None
    found = suite.judge(
        rows.scan(),
        scope="all" if newness.new is None else "rows",
        origins=rows.origins(),
        references={name: tables[name].scan() for name in suite.references},
        quarantine=Quarantine(path, aside.run, aside.read) if path else None,
        witness=profiler,
        past=past,
    )
    with reading("the landed rows", source.name):
        left = rows.without(found.removed, folder)
        kept = (files.seal(path, table.root),) if path and found.quarantined else ()
    sums = _Sums(table, newness, rows, found, path)
    if newness.new is None:
        report = suite.report(found)
    else:
        report = suite.report(found, suite.judge(left.scan(), scope="table", origins=left.origins()))
    if profiler and watch:
        report = replace(report, results=(*report.results, *watch(profiler.profile().summary())))
    return _judged(source, table, left, report=report, balance=sums.balance(), quarantined=kept, profiler=profiler)


def _profiler(source: SourcePlan, rows: Rows) -> Profiler:
    from engine.profile import Profiler  # where nothing is profiled, numpy need not load

    with reading("the landed rows", source.name):
        return Profiler(rows.scan().collect_schema(), source.spec.pii)


def landed_report(source: SourcePlan, table: LandedTable) -> SourceReport:
    """What there is to tell of a table that was not judged."""
    told = SourceReport(source.name, source.location, table.metrics, mode=source.mode, promise=table.promise)
    return replace(told, balance=_Sums(table, Newness()).balance(), pii=source.spec.pii)


def _judged(
    source: SourcePlan,
    landed: LandedTable,
    left: LandedTable,
    *,
    balance: Balance,
    report: Report | None = None,
    quarantined: tuple[File, ...] = (),
    profiler: Profiler | None = None,
) -> Judged:
    metrics = replace(
        landed.metrics,
        records_written=balance.passed,
        records_failed=balance.quarantined + balance.dropped,
        rows=sum(file.rows for file in left.files),
    )
    state = "accepted" if report is None or report.ok else "blocked"
    profile = profiler.profile() if profiler else None
    told = SourceReport(
        source.name, source.location, metrics, report, state, source.mode, landed.promise, balance, profile
    )
    told.pii = source.spec.pii
    return Judged(told, replace(left, metrics=metrics), quarantined)


@dataclass(frozen=True)
class _Sums:
    """What became of the rows that were read, and of those that were carried over."""

    table: LandedTable
    newness: Newness
    rows: Rows | None = None
    found: Judgement | None = None
    path: Path | None = None

    def balance(self) -> Balance:
        metrics, found = self.table.metrics, self.found
        quarantined, dropped = (found.quarantined, found.dropped) if found else (0, 0)
        removed = found.removed if found and found.removed is not None else None
        if quarantined + dropped != (0 if removed is None else removed.sum()):
            raise AssertionError(f"{quarantined} and {dropped} rows were set aside, but not as many removed")
        carried = Carried(self._carried())
        if carried.judged and self.rows and removed is not None:
            own = self.newness.own or frozenset()
            removed_own, quarantined_own = self.rows.came_in(own, removed), self._quarantined(own)
            carried = Carried(
                carried.judged,
                quarantined - quarantined_own,
                dropped - (removed_own - quarantined_own),
            )
        quarantined += metrics.records_failed - carried.quarantined
        dropped -= carried.dropped
        passed = metrics.records_written - (quarantined - metrics.records_failed) - dropped
        return Balance(metrics.records_read, passed, quarantined, dropped, metrics.duplicates_removed, carried)

    def _carried(self) -> int:
        """How many of the rows that were judged are not the run's own."""
        if self.found is None or self.newness.own is None:
            return 0
        new = self.newness.new
        every = self.rows.count if self.rows else 0
        own = self.table.rows(self.newness.own if new is None else self.newness.own & new).count
        return every - own

    def _quarantined(self, own: frozenset[str]) -> int:
        """How many of the run's own rows are in the quarantine file."""
        if self.path is None or not self.path.exists():
            return 0
        reasons = pl.col(quarantine.reasons_of(self.path)).struct["read"]
        return int(files.scan(self.path).select(reasons.is_in(sorted(own)).sum()).collect().item())
