"""Executes a plan: land, judge, compute, publish, register; every step recorded in the ledger.

A run that ends early, however it ends, leaves what was published as it was: files get their places one rename each,
after all of them have been computed, and nothing else in the output folder is ever touched.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from engine.checks import Report
from engine.errors import LedgerError, MaestroError, UsageError, is_interrupt
from engine.landing import Landed, land
from engine.ledger import Ledger, make_workdir
from engine.outcome import RunReport, SourceReport, ViewReport
from engine.plan import Plan, SourcePlan, ViewPlan, compile_plan, is_current
from engine.sinks.parquet import Part, Staging
from engine.sources import open_source
from engine.spec import FORMATS, Pipeline, file_format, secrets_of
from engine.types import compact, iso, parse_moment, redact

if TYPE_CHECKING:
    import polars as pl

    from engine.features.fit import Fit
    from engine.sinks.feast import FeatureRepo, OfflineView

log = logging.getLogger(__name__)


class Progress(Protocol):
    """Hears of a run as it goes on."""

    def step(self, stage: str, name: str) -> None:
        """Stage ``read``, ``check``, ``compute``, ``publish`` or ``feast`` begins on ``name``."""

    def rows(self, count: int) -> None:
        """So many rows of the current step are done."""


class _Silent:
    """Progress that nobody watches."""

    def step(self, stage: str, name: str) -> None:
        pass

    def rows(self, count: int) -> None:
        pass


def run_pipeline(
    pipeline: Pipeline,
    *,
    as_of: str | date | datetime | Sequence[str | date | datetime] | None = None,
    refit: bool = False,
    progress: Progress | None = None,
) -> RunReport:
    """Runs a pipeline at one or several as-ofs; None is now.

    Args:
        refit: fits missing values and normalisation anew and pins the result for later runs.

    Raises:
        ConfigError, UsageError: before anything is read.
        SourceError, DataError, SinkError, LedgerError: what earlier runs published stays as it was.
    """
    return execute(compile_plan(pipeline, as_of), refit=refit, progress=progress)


def execute(plan: Plan, *, refit: bool = False, progress: Progress | None = None) -> RunReport:
    """Runs a compiled plan; see `run_pipeline`."""
    secrets = {s for source in plan.sources for s in secrets_of(source.spec)}
    with Ledger(plan.workdir) as ledger, ledger.lock():
        if not is_current(plan):
            raise LedgerError(
                "another run has published since this one was planned",
                code="plan.outdated",
                where=str(plan.workdir),
                fix="run again",
            )
        created = datetime.now(UTC)
        run_id = f"{compact(created)}-{uuid.uuid4().hex[:8]}"
        log.info("run %s of %s begins", run_id, plan.pipeline, extra={"run_id": run_id, "pipeline": plan.pipeline})
        ledger.begin(run_id, plan.pipeline, plan.as_of, created, plan.to_dict())
        report = RunReport(run_id, plan.pipeline, "running", plan.as_of, created)
        try:
            _Run(plan, ledger, report, refit, progress or _Silent()).execute()
        except MaestroError as error:
            ledger.finish(run_id, "failed", error.to_dict())
            log.info("run %s failed: %s", run_id, error.code, extra={"run_id": run_id, "code": error.code})
            raise
        except BaseException as error:
            if is_interrupt(error):
                ledger.finish(run_id, "interrupted")
                raise KeyboardInterrupt from None
            text = redact(f"{type(error).__name__}: {error}", secrets)
            ledger.finish(run_id, "failed", {"code": "internal", "message": text})
            if redact(str(error), secrets) != str(error):
                raise RuntimeError(text) from None
            raise
        ledger.finish(run_id, report.status)
    log.info("run %s is %s", run_id, report.status, extra={"run_id": run_id, "status": report.status})
    return report


def validate(plan: Plan, *, progress: Progress | None = None) -> list[SourceReport]:
    """Reads the sources that have checks and judges them; nothing is kept, nothing is published."""
    progress = progress or _Silent()
    make_workdir(plan.workdir)
    _forget_dead(plan.workdir / "validate")
    folder = plan.workdir / "validate" / f"{os.getpid()}-{uuid.uuid4().hex}"
    reports = []
    try:
        for source in plan.sources:
            if source.name in plan.suites:
                landed = _land(plan, source, folder / source.name, progress)
                reports.append(_judge(plan, source, landed, progress))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return reports


def _forget_dead(root: Path) -> None:
    """Removes what validations left behind whose process is gone."""
    for folder in root.glob("*-*"):
        try:
            os.kill(int(folder.name.partition("-")[0]), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except (PermissionError, ValueError):
            continue


def validate_file(
    path: str | Path,
    checks: str | Path,
    *,
    format: str | None = None,  # noqa: A002 - the key's name
    as_of: str | date | datetime | None = None,
) -> Report:
    """Judges one data file (or glob) by the checks of a YAML file: the content of one ``validation`` entry.

    Args:
        format: parquet, csv, ndjson or json; None is by suffix.

    Raises:
        ConfigError: the checks are not written as they must be.
        UsageError: the format cannot be told.
        SourceError: the data cannot be read.
    """
    from engine.config import load_validation

    spec = load_validation(checks)
    if format is None and file_format(str(path)) is None:
        raise UsageError(
            f"the format of {path} cannot be told from its suffix",
            code="validate.format",
            allowed=", ".join(FORMATS),
            fix="name it with --format, or format= in Python",
        )
    with tempfile.TemporaryDirectory(prefix="maestro-") as workdir:
        source = {"type": "file", "path": str(path), "format": format}
        pipeline = Pipeline(name="file", workdir=workdir, sources={"data": source}, validation={"data": spec})
        [judged] = validate(compile_plan(pipeline, as_of))
    assert judged.report is not None  # noqa: S101 - the source has checks
    return judged.report


def _land(plan: Plan, source: SourcePlan, folder: Path, progress: Progress) -> Landed:
    progress.step("read", source.name)
    return land(
        open_source(source.name, source.spec, plan.base),
        source.spec,
        folder,
        name=source.name,
        memory_limit=plan.memory_limit,
        progress=progress.rows,
    )


def _judge(plan: Plan, source: SourcePlan, landed: Landed, progress: Progress) -> SourceReport:
    report = None
    if suite := plan.suites.get(source.name):
        progress.step("check", source.name)
        report = suite.validate(landed.scan())
    state = "accepted" if report is None or report.ok else "blocked"
    return SourceReport(source.name, source.location, landed.metrics, report, state)


class _Run:
    """One execution of a plan, from the first row read to the last value loaded."""

    def __init__(self, plan: Plan, ledger: Ledger, report: RunReport, refit: bool, progress: Progress) -> None:
        self.plan, self.ledger, self.report, self.refit, self.progress = plan, ledger, report, refit, progress
        self.landed: dict[str, Landed] = {}
        self.fits: dict[str, Fit] = {}
        self.key_dtypes: dict[str, str] = {}

    def execute(self) -> None:
        landing = self.plan.workdir / "landing" / self.plan.pipeline
        if repo := self._repo():
            repo.check()
        folders = [landing / source.name / self.report.run_id for source in self.plan.sources]
        try:
            with self._timed("read"):
                for source, folder in zip(self.plan.sources, folders, strict=True):
                    self._land(source, folder)
            with self._timed("check"):
                for source in self.plan.sources:
                    self._judge(source)
        except BaseException:
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        self._forget_superseded(landing)
        if any(s.state == "blocked" for s in self.report.sources):
            self.report.status = "blocked"
            return
        if self.plan.views:
            with Staging(self.plan.output, self.plan.pipeline, self.report.run_id).open() as staging:
                with self._timed("compute"):
                    parts = [part for view in self.plan.views for part in self._compute(view, staging)]
                if repo:
                    repo.check(self._offline_views())
                with self._timed("publish"):
                    self._publish(parts)
        if repo:
            with self._timed("feast"):
                self._feast(repo)
        self.report.status = "done"

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

    def _land(self, source: SourcePlan, folder: Path) -> None:
        landed = _land(self.plan, source, folder, self.progress)
        self.landed[source.name] = landed
        metrics = landed.metrics
        log.info(
            "read %s: %d rows", source.name, metrics.records_read, extra=self._about(source.name, metrics.to_dict())
        )
        gone = metrics.records_failed + metrics.duplicates_removed
        if metrics.records_read != metrics.records_written + gone:
            raise AssertionError(f"{source.name}: {metrics} does not add up")
        self.ledger.landed(self.report.run_id, source.name, source.location, metrics.to_dict(), landed.files)

    def _judge(self, source: SourcePlan) -> None:
        judged = _judge(self.plan, source, self.landed[source.name], self.progress)
        self.report.sources.append(judged)
        found = judged.report.to_dict() if judged.report else None
        if judged.report:
            counts = {"errors": judged.report.errors, "warnings": judged.report.warnings}
            log.info("checked %s: %s", source.name, judged.state, extra=self._about(source.name, counts))
        self.ledger.judged(self.report.run_id, source.name, accepted=judged.state == "accepted", report=found)

    def _compute(self, view_plan: ViewPlan, staging: Staging) -> Iterator[tuple[ViewReport, datetime, Part]]:
        """Stages the files of one view, earliest as-of first: the first fit, where one is needed, is on that one."""
        from engine.features.inputs import Inputs

        view, name = view_plan.view, view_plan.name
        self.progress.step("compute", name)
        report = ViewReport(name, settings=view.settings)
        self.report.views.append(report)
        tables = {role: self.landed[source].files for role, source in view_plan.sources.items()}
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
            }
            for report, as_of, part in parts
        ]
        fits = {v.name: (v.as_of[0], self.fits[v.name].to_dict()) for v in self.plan.views}
        versions = self.ledger.publishing(self.report.run_id, self.plan.pipeline, fits, files)
        for report in self.report.views:
            report.fit_version = versions[report.name]
        for (report, as_of, part), file in zip(parts, files, strict=True):
            self.progress.step("publish", report.name)
            part.publish()
            report.files.append(str(file["path"]))
            if as_of in self.view_plan(report.name).again:
                report.again.append(str(file["path"]))
            log.info(
                "published %s: %d rows", part.target, part.rows, extra=self._about(report.name, {"rows": part.rows})
            )
        self.ledger.published_all(self.report.run_id)

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
            self.ledger.loaded(self.plan.pipeline, windows)
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

    def _forget_superseded(self, landing: Path) -> None:
        """Removes what earlier runs landed: this run has read every source anew, and nothing refers to theirs."""
        self.ledger.forget_chunks(self.plan.pipeline, keep=self.report.run_id)
        for source in self.plan.sources:
            for folder in (landing / source.name).iterdir():
                if folder.name != self.report.run_id:
                    shutil.rmtree(folder, ignore_errors=True)
