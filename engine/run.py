"""Executes a plan: land, judge, compute, publish, register; every step recorded in the ledger.

A run that ends early, however it ends, leaves what was published as it was: files get their places one rename each,
after all of them have been computed, and nothing else in the output folder is ever touched.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import LedgerError, MaestroError, SourceError, UsageError, is_interrupt, nearest
from engine.landing import Aside, InLedger, LandedTable, Replay
from engine.ledger import Ledger, Quarantined, Read, make_folder
from engine.outcome import RunReport, SourceReport, ViewReport
from engine.plan import Plan, SourcePlan, ViewPlan, compile_plan, is_current
from engine.sinks.parquet import Part, Staging
from engine.sources import Shared
from engine.spec import Pipeline, secrets_of
from engine.stages import Newness, Progress, Silent, judge, judging_order, land_source
from engine.steps import reached
from engine.types import compact, iso, parse_moment, redact
from engine.upkeep import collect

if TYPE_CHECKING:
    import polars as pl

    from engine.features.fit import Fit
    from engine.sinks.feast import FeatureRepo, OfflineView

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


@dataclass(frozen=True)
class Unfinished:
    """A run that did not come to its end, to be gone on with: it keeps its as-ofs and its created_timestamp."""

    run_id: str
    as_of: tuple[datetime, ...]
    created: datetime


def unfinished(pipeline: Pipeline) -> Unfinished | None:
    """The pipeline's last run, if it was interrupted or failed."""
    workdir, url = pipeline.resolve(pipeline.workdir), pipeline.ledger.get_secret_value() if pipeline.ledger else None
    if not Ledger.exists(workdir, url):
        return None
    with Ledger(workdir, url) as ledger:
        run = ledger.unfinished(pipeline.name)
    if run is None:
        return None
    return Unfinished(run["run_id"], tuple(map(parse_moment, run["as_of"])), parse_moment(run["created_timestamp"]))


def run_pipeline(
    pipeline: Pipeline,
    *,
    as_of: str | date | datetime | Sequence[str | date | datetime] | None = None,
    refit: bool = False,
    resume: bool = False,
    reread: Collection[str] = (),
    progress: Progress | None = None,
) -> RunReport:
    """Runs a pipeline at one or several as-ofs; None is now.

    Args:
        refit: fits missing values and normalisation anew and pins the result for later runs.
        resume: goes on with the last run, if that did not come to its end, at its as-ofs; else begins one.
        reread: sources to read from the beginning, whatever has landed of them.

    Raises:
        ConfigError, UsageError: before anything is read.
        SourceError, DataError, SinkError, LedgerError: what earlier runs published stays as it was.
    """
    if resume and as_of is not None:
        raise UsageError(
            "a resumed run has its as-of already",
            code="run.resume_as_of",
            where="as_of",
            fix="leave out as_of, or resume",
        )
    last = unfinished(pipeline) if resume else None
    plan = compile_plan(pipeline, last.as_of if last else as_of)
    return execute(plan, refit=refit, resume=last, reread=reread, progress=progress)


def execute(
    plan: Plan,
    *,
    refit: bool = False,
    resume: Unfinished | None = None,
    reread: Collection[str] = (),
    replay: Replaying | None = None,
    progress: Progress | None = None,
) -> RunReport:
    """Runs a compiled plan; see `run_pipeline`.

    Args:
        replay: reads no source, but takes rows back from quarantine; see `engine.quarantine.replay`.
    """
    _check_names(plan, reread)
    secrets = {s for source in plan.sources for s in secrets_of(source.spec)} | {plan.ledger_url or ""}
    with Ledger(plan.workdir, plan.ledger_url) as ledger, ledger.lease(plan.pipeline):
        last = ledger.unfinished(plan.pipeline) if resume else None
        if not is_current(plan) or (resume and (last is None or last["run_id"] != resume.run_id)):
            raise LedgerError(
                "another run has been at work since this one was planned",
                code="plan.outdated",
                where=str(plan.workdir),
                fix="run again",
            )
        created = resume.created if resume else datetime.now(UTC)
        run_id = resume.run_id if resume else f"{compact(created)}-{uuid.uuid4().hex[:8]}"
        log.info("run %s of %s begins", run_id, plan.pipeline, extra={"run_id": run_id, "pipeline": plan.pipeline})
        if not ledger.runs(plan.pipeline, newest=1):
            _set_aside(plan.landing)
            _set_aside(plan.quarantine)
        ledger.begin(run_id, plan.pipeline, plan.as_of, created, plan.to_dict())
        reached("run.begun")
        report = RunReport(run_id, plan.pipeline, "running", plan.as_of, created)
        run = _Run(plan, ledger, report, refit, frozenset(reread), progress or Silent(), replay)
        try:
            run.execute()
        except MaestroError as error:
            status = "partial" if run.has_achieved else "failed"
            _end(ledger, run_id, status, error.to_dict())
            log.info("run %s: %s: %s", run_id, status, error.code, extra={"run_id": run_id, "code": error.code})
            raise
        except BaseException as error:
            if is_interrupt(error):
                _end(ledger, run_id, "interrupted")
                raise KeyboardInterrupt from None
            text = redact(f"{type(error).__name__}: {error}", secrets)
            status = "partial" if run.has_achieved else "failed"
            _end(ledger, run_id, status, {"code": "internal", "message": text})
            if redact(str(error), secrets) != str(error):
                raise RuntimeError(text) from None
            raise
        ledger.finish(run_id, report.status)
        reached("run.finished")
        run.collect()
    log.info("run %s is %s", run_id, report.status, extra={"run_id": run_id, "status": report.status})
    return report


def _end(ledger: Ledger, run_id: str, status: str, error: Mapping[str, Any] | None = None) -> None:
    """Records that a run did not come to its end; where even that fails, the error it failed by is what is raised."""
    try:
        ledger.finish(run_id, status, error)
    except LedgerError as lost:
        log.warning("run %s is %s, which could not be recorded: %s", run_id, status, lost.message)


def _check_names(plan: Plan, reread: Collection[str]) -> None:
    known = [source.name for source in plan.sources]
    for name in reread:
        if name not in known:
            near = nearest(name, known)
            raise UsageError(
                f"there is no source {name!r} to read anew",
                code="run.reread",
                where="reread",
                allowed=", ".join(known),
                fix=f"did you mean {near!r}?" if near else "use one of the names above",
            )


def _set_aside(landing: Path) -> None:
    """Moves away what a ledger that is gone knew: it may be all there is of rows that a source no longer has."""
    if landing.is_dir() and any(path.is_file() for path in landing.rglob("*")):
        aside = landing.with_name(f"{landing.name}.{compact(datetime.now(UTC))}")
        landing.rename(aside)
        log.warning("the ledger knows nothing of what lies in %s: it was moved to %s", landing, aside)


def _is_whole(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


class _Run:
    """One execution of a plan, from the first row read to the last value loaded."""

    def __init__(
        self,
        plan: Plan,
        ledger: Ledger,
        report: RunReport,
        refit: bool,
        reread: frozenset[str],
        progress: Progress,
        replay: Replaying | None = None,
    ) -> None:
        self.replay = replay
        self.plan, self.ledger, self.report, self.progress = plan, ledger, report, progress
        self.refit, self.reread = refit, reread
        self.landed: dict[str, LandedTable] = {}
        self.reads: dict[str, Read] = {}
        self.bases: dict[str, Read | None] = {}  # the tables that those of this run extend
        self.has_achieved = False  # whether something of this run stays, should it fail
        self.fits: dict[str, Fit] = {}
        self.key_dtypes: dict[str, str] = {}

    def execute(self) -> None:
        if repo := self._repo():
            repo.check()
        self.collect()
        for source in self.plan.sources if self.replay else ():
            self._last(source)  # before anything is taken back
        with self._timed("read"), Shared() as shared:
            for source in self.plan.sources:
                self._land(source, shared)
        with self._timed("check"):
            for source in judging_order(self.plan):
                self._judge(source)
            declared = [source.name for source in self.plan.sources]
            self.report.sources.sort(key=lambda source: declared.index(source.name))
        if any(s.state == "blocked" for s in self.report.sources):
            self.report.status = "blocked"
            return
        if self.plan.views:
            with Staging(self.plan.output, self.plan.pipeline, self.report.run_id).open() as staging:
                with self._timed("compute"):
                    parts = [part for view in self.plan.views for part in self._compute(view, staging)]
                if repo:
                    repo.check(self._offline_views())
                reached("files.staged")
                with self._timed("publish"):
                    self._publish(parts)
        if repo:
            with self._timed("feast"):
                self._feast(repo)
        self.report.status = "done"

    def collect(self) -> None:
        """Drops landed files that nothing names, such as those of a killed run or of superseded tables."""
        collect(
            self.ledger,
            self.plan.pipeline,
            self.plan.landing,
            self.plan.quarantine,
            retention=self.plan.retention,
        )

    def _about(self, subject: str, facts: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a log record: which run, which source or view, and its figures."""
        return {"run_id": self.report.run_id, "subject": subject, "facts": dict(facts)}

    def view_plan(self, name: str) -> ViewPlan:
        return next(v for v in self.plan.views if v.name == name)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.report.seconds[stage] = time.monotonic() - started

    def _land(self, source: SourcePlan, shared: Shared) -> None:
        taken = self._taken(source) if self.replay else None
        if self.replay and taken is None:
            self._keep(source)
            return
        run_id = self.report.run_id
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
        journal = InLedger(self.ledger, read_id, read.seal, pieces)
        folder, aside = self.plan.landing / source.name / read_id, self._aside(source, read_id)
        how: dict[str, Any] = {"root": self.plan.workdir, "journal": journal, "base": base, "aside": aside}
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
        self.ledger.landed(read, quarantined=landed.quarantined, replayed=left)
        self.landed[source.name], self.reads[source.name] = landed, read
        self.has_achieved = True
        reached("table.landed")

    def _taken(self, source: SourcePlan) -> Replay | None:
        """What a replay takes back of a source; None: nothing."""
        entries = self.ledger.quarantined(self.plan.pipeline)
        mine = [e for e in entries if e.source == source.name and self.replay and self.replay.takes(e)]
        if not mine or self.replay is None:
            return None
        return Replay(source.name, self.plan.workdir, mine, self.replay.mended)

    def _keep(self, source: SourcePlan) -> None:
        """Takes a source's table as it landed last."""
        read = self._last(source)
        self.reads[source.name], self.landed[source.name] = read, LandedTable.of(self.plan.workdir, read)

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
        if last.mode == "append" or (last.mode == "merge" and getattr(source.spec, "deletes", None) == "ignore"):
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
        return [file.path for file in read.files if not _is_whole(self.plan.workdir / file.path, file.bytes)]

    def _aside(self, source: SourcePlan, read_id: str) -> Aside:
        entries = self.ledger.quarantined(self.plan.pipeline)
        held = [self.plan.workdir / e.file.path for e in entries if e.source == source.name and e.state == "held"]
        return Aside(self.plan.quarantine / source.name / read_id, read_id, self.report.run_id, held)

    def _judge(self, source: SourcePlan) -> None:
        read = self.reads[source.name]
        if read.state == "accepted":  # by an earlier run: this one has not read it
            told = SourceReport(source.name, source.location, self.landed[source.name].metrics, state=read.state)
            self.report.sources.append(told)
            return
        folder = self.plan.landing / source.name / read.read_id
        aside = self._aside(source, read.read_id)
        judged = judge(self.plan, source, self.landed, folder, self.progress, self._newness(read), aside)
        told, self.landed[source.name] = judged.report, judged.table
        self.report.sources.append(told)
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
        self.ledger.judged(read, self.report.run_id, quarantined=judged.quarantined)
        self.reads[source.name] = read
        reached("table.judged")

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

    def _compute(self, view_plan: ViewPlan, staging: Staging) -> Iterator[tuple[ViewReport, datetime, Part]]:
        """Stages the files of one view, earliest as-of first: the first fit, where one is needed, is on that one."""
        from engine.features.inputs import Inputs

        view, name = view_plan.view, view_plan.name
        self.progress.step("compute", name)
        report = ViewReport(name, settings=view.settings)
        self.report.views.append(report)
        tables = {role: self.landed[source].paths for role, source in view_plan.sources.items()}
        names = {role: f"sources.{source}" for role, source in view_plan.sources.items()}
        spill = staging.folder / "spill"
        with Inputs(view, tables, names=names, memory_limit=self.plan.memory_limit, spill=spill) as inputs:
            self._describe(view_plan, inputs, report)
            for as_of in view_plan.as_of:
                part = self._compute_one(view_plan, inputs, as_of, staging, report)
                self.progress.rows(part.rows)
                report.rows.append(part.rows)
                yield report, as_of, part

    def _compute_one(
        self, view_plan: ViewPlan, inputs: Any, as_of: datetime, staging: Staging, report: ViewReport
    ) -> Part:
        import polars as pl

        from engine.features.compute import compute_to_parquet
        from engine.features.fit import apply

        view = view_plan.view
        raw = staging.folder / f"{view_plan.name}-raw.parquet"
        compute_to_parquet(inputs, view, as_of, raw)
        frame = pl.scan_parquet(raw, hive_partitioning=False, glob=False)
        self.key_dtypes[view_plan.name] = str(frame.collect_schema()[view.entity.key])
        self.fits[view_plan.name] = self._fit(view_plan, frame)
        frame, applied = apply(frame, self.fits[view_plan.name], view.feature_names)
        report.applied.append(applied)
        frame = frame.with_columns(
            pl.lit(self.report.created_timestamp).cast(pl.Datetime("us", "UTC")).alias("created_timestamp")
        )
        part = staging.write(frame, view_plan.name, as_of)
        raw.unlink()
        return part

    def _fit(self, view_plan: ViewPlan, frame: pl.LazyFrame) -> Fit:
        """The pinned fit, extended by what it does not cover yet: all of it on a first run, most often nothing."""
        from engine.features.fit import Fit, learn

        pinned = self.fits.get(view_plan.name)
        if pinned is None and not self.refit:
            known = self.ledger.fit(self.plan.pipeline, view_plan.name)
            pinned = Fit.from_dict(known[1]) if known else None
        return learn(
            frame,
            view_plan.view.feature_names,
            handle_missing=view_plan.spec.handle_missing,
            normalize=view_plan.spec.normalize,
            definitions=view_plan.definitions,
            pinned=pinned,
        )

    def _describe(self, view_plan: ViewPlan, inputs: Any, report: ViewReport) -> None:
        for role in view_plan.view.roles:
            used = {c.name for c in view_plan.view.used(role)}
            absent = [c for c in inputs.absent[role.name] if c in used]
            counts = inputs.counts[role.name]
            if absent:
                report.absent_columns[role.name] = absent
            if counts.null_keys or counts.null_timestamps:
                report.left_out[role.name] = {
                    "null_keys": counts.null_keys,
                    "null_timestamps": counts.null_timestamps,
                }
            timeless = [c for c in view_plan.view.timeless(role) if c not in absent]
            if timeless and view_plan.as_of[0] < self.report.created_timestamp:
                report.timeless[role.name] = timeless

    def _publish(self, parts: Sequence[tuple[ViewReport, datetime, Part]]) -> None:
        """Records the fits and the files to come, then gives every file its place."""
        files = [
            {
                "view": report.name,
                "as_of": as_of,
                "path": part.target.relative_to(self.plan.output).as_posix(),
                "rows": part.rows,
                "definition": self.view_plan(report.name).definition,
                "created_timestamp": self.report.created_timestamp,
                "sha256": part.sha256,
            }
            for report, as_of, part in parts
        ]
        fits = {v.name: (v.as_of[0], self.fits[v.name].to_dict()) for v in self.plan.views}
        versions = self.ledger.publishing(self.report.run_id, self.plan.pipeline, fits, files)
        for report in self.report.views:
            report.fit_version = versions[report.name]
        reached("files.recorded")
        for (report, as_of, part), file in zip(parts, files, strict=True):
            self.progress.step("publish", report.name)
            self.ledger.hold()
            part.publish()
            self.has_achieved = True
            reached("file.published")
            report.files.append(str(file["path"]))
            if as_of in self.view_plan(report.name).again:
                report.again.append(str(file["path"]))
            log.info(
                "published %s: %d rows", part.target, part.rows, extra=self._about(report.name, {"rows": part.rows})
            )
        self.ledger.published_all(self.report.run_id)
        reached("files.published")

    def _feast(self, repo: FeatureRepo) -> None:
        self.progress.step("feast", "register")
        repo.write(self._offline_views())
        repo.apply()
        self.report.feast = {"repo": str(repo.folder), "project": repo.project, "materialized": {}}
        if self.plan.feast and self.plan.feast.materialize:
            windows = {}
            for view in self.plan.views:
                # From the oldest file that no load has seen, to the newest of all: the store keeps what was written
                # last, and that must be the newest, also after a backfill of older ones.
                files = self.ledger.published(self.plan.pipeline, view.name)
                fresh = [parse_moment(f["as_of"]) for f in files if f["state"] != "loaded"]
                windows[view.name] = (min(fresh), max(parse_moment(f["as_of"]) for f in files))
            self.progress.step("feast", "materialize")
            repo.materialize(windows)
            self.ledger.hold()
            self.ledger.loaded(self.plan.pipeline, windows)
            reached("store.loaded")
            self.report.feast["materialized"] = {v: [iso(a), iso(b)] for v, (a, b) in windows.items()}

    def _repo(self) -> FeatureRepo | None:
        from engine.sinks.feast import FeatureRepo

        if self.plan.feast is None or self.plan.feast_repo is None:
            return None
        return FeatureRepo(self.plan.feast_repo, self.plan.feast.project, self.plan.feast.online_store.type)

    def _offline_views(self) -> list[OfflineView]:
        from engine.sinks.feast import OfflineView

        return [
            OfflineView(
                name=v.name,
                entity=v.view.name,
                key=v.view.entity.key,
                key_dtype=self.key_dtypes[v.name],
                features=tuple((f.name, "Float64" if v.spec.normalize else f.dtype) for f in v.view.features),
                path=self.plan.output / v.name,
                description=f"The {v.view.name} set, published by the pipeline {self.plan.pipeline}",
            )
            for v in self.plan.views
        ]
