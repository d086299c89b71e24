"""A run's intake: from sources, or from quarantine, to tables that are landed and judged."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from engine.baselines import past_of
from engine.checks import Result
from engine.checks.anomaly import LOOK_BACK, Past, Watch
from engine.errors import SourceError
from engine.landing import Aside, InLedger, LandedTable, Remote, Replay
from engine.ledger import File, Ledger, Quarantined, Read, make_folder
from engine.outcome import SourceReport
from engine.plan import Plan, SourcePlan
from engine.progress import Progress
from engine.sources import Shared
from engine.stages import Newness, judge, judging_order, land_source, landed_report, watched
from engine.steps import reached
from engine.types import compact, iso, parse_moment

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Replaying:
    """Which rows a run takes back from quarantine.

    Attributes:
        sources: theirs; None: all that have any.
        run: the one that set them aside; None: any.
        mended: rows to take in their place; see `engine.landing.Replay`.
    """

    sources: frozenset[str] | None = None
    run: str | None = None
    mended: Path | None = None

    def takes(self, entry: Quarantined) -> bool:
        """Whether rows of a file may be taken."""
        ours = self.sources is None or entry.source in self.sources
        return entry.state == "held" and ours and self.run in (None, entry.run_id)


@dataclass
class Intake:
    """The tables of a run.

    Attributes:
        created: when the run began.
        reread: sources that are read from the beginning.
        replay: what is taken back from quarantine, instead of reading any source.
        tables: as they landed; once they are judged, without the rows set aside.
        reads: what the ledger has of them.
        bases: of the sources that this run has read: the tables that those extend.
        reports: of the tables that are judged.
    """

    plan: Plan
    ledger: Ledger
    run_id: str
    progress: Progress
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    reread: frozenset[str] = frozenset()
    replay: Replaying | None = None
    tables: dict[str, LandedTable] = field(default_factory=dict)
    reads: dict[str, Read] = field(default_factory=dict)
    bases: dict[str, Read | None] = field(default_factory=dict)
    reports: list[SourceReport] = field(default_factory=list)

    def land(self) -> None:
        """Lands every source.

        Raises:
            SourceError: one cannot be read, or not be added to what landed before.
        """
        for source in self.plan.sources if self.replay else ():
            self._last(source)  # before anything is taken back
        with Shared() as shared:
            for source in self.plan.sources:
                self._land(source, shared)

    def judge(self) -> list[SourceReport]:
        """The verdict on every table, in the order of the sources."""
        for source in judging_order(self.plan):
            self._judge(source)
        return self.told()

    def told(self) -> list[SourceReport]:
        """What there is to tell of each source so far, in their order."""
        found = {report.name: report for report in self.reports}
        for source in self.plan.sources:
            if source.name in self.bases and source.name in self.tables and source.name not in found:
                found[source.name] = landed_report(source, self.tables[source.name])
        return [found[source.name] for source in self.plan.sources if source.name in found]

    @cached_property
    def remote(self) -> Remote | None:
        """The store that landed files are kept in, if they are in one."""
        return remote_of(self.plan)

    def _fetch(self, files: Iterable[File]) -> None:
        if self.remote:
            self.remote.fetch(files)

    def _keep_files(self, files: Iterable[File]) -> None:
        if self.remote:
            self.remote.keep(files)

    def _about(self, subject: str, facts: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a log record: which run, which source, and its figures."""
        return {"run_id": self.run_id, "subject": subject, "facts": dict(facts)}

    def _land(self, source: SourcePlan, shared: Shared) -> None:
        taken = self._taken(source) if self.replay else None
        if self.replay and taken is None:
            self._keep(source)
            return
        run_id = self.run_id
        base = self._last(source) if taken else self._base(source)
        self.bases[source.name] = base
        started = datetime.now(UTC)
        read_id = f"{compact(started)}-{uuid.uuid4().hex[:8]}"
        read, pieces = self.ledger.begin_read(
            Read(
                read_id=read_id,
                pipeline=self.plan.pipeline,
                source=source.name,
                run_id=run_id,
                location=taken.location if taken else source.location,
                mode=source.mode,
                state="reading",
                fingerprint=source.fingerprint,
                started_at=iso(started),
                base=base.read_id if base else None,
            )
        )
        self._fetch(file for piece in pieces for file in (*piece.files, *piece.quarantined))
        journal = InLedger(self.ledger, read_id, read.seal, pieces, self.remote)
        folder, aside = self.plan.landing / source.name / read_id, self._aside(source, read_id)
        how: dict[str, Any] = {"root": self.plan.workdir, "journal": journal, "base": base, "aside": aside}
        how["watched"] = watched(self.plan, source) if base is None and not taken else None
        how["last"] = last = self.ledger.table(self.plan.pipeline, source.name)
        self._fetch(last.files[:1] if last else ())  # to compare the columns with
        landed = land_source(self.plan, source, folder, self.progress, shared, taken, **how)
        left = taken.left(make_folder(aside.folder)) if taken and aside.folder else {}
        metrics = landed.metrics
        log.info(
            "read %s: %d rows", source.name, metrics.records_read, extra=self._about(source.name, metrics.to_dict())
        )
        read = replace(
            read,
            state="landed",
            seal=journal.seal,
            position=landed.position,
            trace=landed.trace,
            promise=landed.promise.to_dict(),
            schema=landed.schema,
            metrics=metrics.to_dict(),
            files=landed.files,
        )
        self._keep_files((*landed.files, *landed.quarantined, *(file for file in left.values() if file)))
        self.ledger.landed(read, quarantined=landed.quarantined, replayed=left, mended=_is_mended(taken))
        self.tables[source.name], self.reads[source.name] = landed, read
        reached("table.landed")

    def _taken(self, source: SourcePlan) -> Replay | None:
        """What a replay takes back of a source; None: nothing."""
        entries = self.ledger.quarantined(self.plan.pipeline)
        mine = [e for e in entries if e.source == source.name and self.replay and self.replay.takes(e)]
        if not mine or self.replay is None:
            return None
        self._fetch(entry.file for entry in mine)
        return Replay(source.name, self.plan.workdir, mine, self.replay.mended)

    def _keep(self, source: SourcePlan) -> None:
        """Takes a source's table as it landed last."""
        read = self._last(source)
        self.reads[source.name], self.tables[source.name] = read, LandedTable.of(self.plan.workdir, read)

    def _last(self, source: SourcePlan) -> Read:
        """The table of a source that landed last, for a run that does not read it.

        Raises:
            SourceError: there is none, or none that is as it is declared now.
        """
        last = self.ledger.table(self.plan.pipeline, source.name)
        harmed = self._harmed(last) if last else []
        if last and last.files and last.fingerprint == source.fingerprint and not harmed:
            return last
        why = f"{harmed[0]} is gone or damaged" if harmed else "its declaration has changed"
        raise SourceError(
            f"its landed table cannot be used: {why if last else 'nothing has landed yet'}",
            code="source.not_landed",
            where=f"sources.{source.name}",
            fix="run the pipeline first: maestro run",
        )

    def _base(self, source: SourcePlan) -> Read | None:
        """The table that a read adds to; None where all is read: in mode full, at first, where it was asked for, and
        once its declaration has changed or a file of the table is gone.

        Raises:
            SourceError: all would have to be read, which might not bring back what the table holds.
        """
        last = self.ledger.table(self.plan.pipeline, source.name) if source.mode != "full" else None
        if last is None or source.name in self.reread:
            return None
        harmed = self._harmed(last)
        if last.fingerprint == source.fingerprint and last.files and not harmed:
            return last
        why = f"{harmed[0]} is gone or damaged" if harmed else "its declaration has changed"
        if last.mode == "append" or (last.mode == "merge" and getattr(source.spec, "deletes", "ignore") == "ignore"):
            raise SourceError(
                f"the landed table cannot be added to: {why}; it may hold rows that the source no longer has",
                code="source.table_changed",
                where=f"sources.{source.name}",
                fix=f"undo that, or read everything anew: maestro run … --reread {source.name} (reread= in Python)",
            )
        log.warning("sources.%s: everything is read anew: %s", source.name, why)
        return None

    def _harmed(self, read: Read) -> list[str]:
        """The files of a landed table that are gone, or of another size."""
        self._fetch(read.files)
        return [file.path for file in read.files if not _is_whole(self.plan.workdir / file.path, file.bytes)]

    def _aside(self, source: SourcePlan, read_id: str) -> Aside:
        entries = self.ledger.quarantined(self.plan.pipeline)
        self._fetch(e.file for e in entries if e.source == source.name and e.state != "superseded")
        mine = [(e.state, self.plan.workdir / e.file.path) for e in entries if e.source == source.name]
        held = [path for state, path in mine if state == "held"]
        ended = [path for state, path in mine if state in ("mended", "dropped") and path.is_file()]
        return Aside(self.plan.quarantine / source.name / read_id, read_id, self.run_id, held, ended)

    def _judge(self, source: SourcePlan) -> None:
        read = self.reads[source.name]
        if read.state == "accepted":  # by an earlier run: this one has not read it
            told = SourceReport(source.name, source.location, self.tables[source.name].metrics, state=read.state)
            self.reports.append(told)
            return
        folder = self.plan.landing / source.name / read.read_id
        aside = self._aside(source, read.read_id)
        newness = self._newness(read)
        past = past_of(self.ledger, self.plan, source.name, self.created, self.run_id)
        # The few rows that a replay takes back are not what the table looks like.
        profiled, watch = source.profile and not self.replay, self._watch(source)
        how: dict[str, Any] = {"profiled": profiled, "watch": watch, "past": past}
        judged = judge(self.plan, source, self.tables, folder, self.progress, newness, aside, **how)
        told, self.tables[source.name] = judged.report, judged.table
        self.reports.append(told)
        if told.report:
            counts = {"errors": told.report.errors, "warnings": told.report.warnings}
            log.info("checked %s: %s", source.name, told.state, extra=self._about(source.name, counts))
        if judged.quarantined:
            reached("rows.quarantined")
        read = replace(
            read,
            state=told.state,
            report=told.report.to_dict() if told.report else None,
            metrics=told.metrics.to_dict() if source.name in self.bases else read.metrics,
            files=judged.table.files,
        )
        self._keep_files((*judged.table.files, *judged.quarantined))
        profile = told.profile.to_dict() if told.profile else None
        self.ledger.judged(read, self.run_id, quarantined=judged.quarantined, profile=profile)
        self.reads[source.name] = read
        reached("table.judged")

    def _watch(self, source: SourcePlan) -> Watch | None:
        """What holds a profile against those that past runs accepted; None where nothing asks for it."""
        suite = self.plan.suites.get(source.name)
        if suite is None or not suite.anomalies:
            return None
        newest = max(LOOK_BACK, *(anomaly.runs for anomaly in suite.anomalies))
        runs = {
            r["run_id"]: parse_moment(r["created_timestamp"]) for r in self.ledger.runs(self.plan.pipeline, newest + 1)
        }
        mine = runs.pop(self.run_id)
        # One at a time: a profile of a wide table is large, what is asked of it is not.
        history = [
            Past.of(when, kept.profile)
            for run, when in runs.items()
            for kept in self.ledger.profiles(self.plan.pipeline, source.name, run_id=run, accepted=True)
        ]

        def watch(profile: Mapping[str, Any]) -> list[Result]:
            now = Past.of(mine, profile)
            return [anomaly.judge(now, history) for anomaly in suite.anomalies]

        return watch

    def _newness(self, read: Read) -> Newness:
        """Of the rows of a landed table, which no run has accepted yet, and which this one has read."""
        own: frozenset[str] = frozenset()
        if read.source in self.bases:
            base = self.bases[read.source]
            if base is None:
                return Newness()
            # A read may hold pieces of others that began after its base, and never landed.
            own = frozenset(later.read_id for later in self.ledger.later(base))
        accepted = self.ledger.table(read.pipeline, read.source, accepted=True)
        since = self.ledger.later(accepted) if accepted else []
        if accepted is None or any(later.base is None and later.landed_at for later in since):
            return Newness(None, own)
        return Newness(frozenset(later.read_id for later in since), own)


def _is_mended(taken: Replay | None) -> bool:
    return taken is not None and taken.mended is not None


def remote_of(plan: Plan) -> Remote | None:
    """The store that a plan's landed files are kept in, if they are in one."""
    folders = (folder.relative_to(plan.workdir).as_posix() for folder in (plan.landing, plan.quarantine))
    return Remote(plan.store, plan.workdir, folders) if plan.store else None


def _is_whole(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size
