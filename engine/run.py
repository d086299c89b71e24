"""Executes a plan: land, judge, compute, publish, register; every step recorded in the ledger.

A run that ends early, however it ends, leaves what was published as it was: files get their places one rename each,
after all of them have been computed, and nothing else in the output folder is ever touched.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.baselines import remembered
from engine.bulletin import conclude
from engine.errors import LedgerError, MaestroError, UsageError, did_you_mean, is_interrupt
from engine.extraction import Extraction
from engine.intake import Intake, Replaying, remote_of
from engine.ledger import Ledger
from engine.objects import Objects
from engine.outcome import RunReport, ViewReport
from engine.plan import Plan, ViewPlan, compile_plan, is_current
from engine.progress import Progress, Silent
from engine.sinks.parquet import Part, Staging
from engine.spec import Pipeline, secrets_of
from engine.steps import reached
from engine.stopwatch import Stopwatch
from engine.types import compact, parse_moment, redact
from engine.upkeep import collect

if TYPE_CHECKING:
    from engine.checkpoints import Checkpoints, Ground
    from engine.sinks.feast import FeatureRepo, OfflineView
    from engine.sinks.feast.aside import Aside

_MANY_ROWS = 1_000_000  # of all sources

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Unfinished:
    """A run that did not come to its end, to be gone on with: it keeps its as-ofs and its created_timestamp.

    Attributes:
        backfill: the views of a backfill; None: it is none.
    """

    run_id: str
    as_of: tuple[datetime, ...]
    created: datetime
    backfill: tuple[str, ...] | None = None

    def plan(self, pipeline: Pipeline) -> Plan:
        """What is to be done again; of a backfill, what it has published already is left out later."""
        plan = compile_plan(pipeline, self.as_of)
        if self.backfill is None:
            return plan
        return plan.as_backfill([view.name for view in plan.views if view.name in self.backfill])


def unfinished(pipeline: Pipeline) -> Unfinished | None:
    """The pipeline's last run, if it was interrupted or failed."""
    workdir, url = pipeline.resolve(pipeline.workdir), pipeline.ledger.get_secret_value() if pipeline.ledger else None
    if not Ledger.exists(workdir, url):
        return None
    with Ledger(workdir, url) as ledger:
        run = ledger.unfinished(pipeline.name)
    if run is None:
        return None
    views = tuple(view["name"] for view in run["plan"]["views"]) if run["plan"].get("backfill") else None
    moments = tuple(map(parse_moment, run["as_of"]))
    return Unfinished(run["run_id"], moments, parse_moment(run["created_timestamp"]), views)


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
        ConfigError, UsageError: before anything is read; a feature service would be served what another fit makes.
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
    plan = last.plan(pipeline) if last else compile_plan(pipeline, as_of)
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
    watch = Stopwatch(progress or Silent())
    _check_names(plan, reread)
    secrets = {s for source in plan.sources for s in secrets_of(source.spec)} | {plan.ledger_url or ""}
    secrets |= {s for objects in (plan.output, plan.store) if isinstance(objects, Objects) for s in objects.secrets}
    # What is told of a run is told once its lease is free: whoever is told may take long to answer.
    with ExitStack() as after, Ledger(plan.workdir, plan.ledger_url) as ledger, ledger.lease(plan.pipeline):
        last = ledger.unfinished(plan.pipeline) if resume else None
        if not is_current(plan) or (resume and (last is None or last["run_id"] != resume.run_id)):
            raise LedgerError(
                "another run has been at work since this one was planned",
                code="plan.outdated",
                where=str(plan.workdir),
                fix="run again",
            )
        if plan.feast and plan.feast.services:
            from engine.served import check_served

            check_served(plan, ledger, refit=refit)
        created = resume.created if resume else datetime.now(UTC)
        run_id = resume.run_id if resume else f"{compact(created)}-{uuid.uuid4().hex[:8]}"
        log.info("run %s of %s begins", run_id, plan.pipeline, extra={"run_id": run_id, "pipeline": plan.pipeline})
        if not ledger.runs(plan.pipeline, newest=1):
            _set_aside(plan.landing)
            _set_aside(plan.quarantine)
            if remote := remote_of(plan):
                remote.claim()
        ledger.begin(run_id, plan.pipeline, plan.as_of, created, plan.to_dict())
        reached("run.begun")
        report = RunReport(run_id, plan.pipeline, "running", plan.as_of, created)
        after.enter_context(watch.running())
        after.callback(conclude, plan, report)
        after.callback(lambda: report.stages.extend(watch.laps()))
        intake = Intake(plan, ledger, run_id, watch, created, frozenset(reread), replay)
        run = _Run(plan, ledger, report, intake, refit, watch)
        try:
            run.execute()
        except MaestroError as error:
            status = run.end("partial" if run.has_achieved else "failed", error.to_dict())
            log.info("run %s: %s: %s", run_id, status, error.code, extra={"run_id": run_id, "code": error.code})
            raise
        except BaseException as error:
            if is_interrupt(error):
                run.end("interrupted")
                raise KeyboardInterrupt from None
            text = redact(f"{type(error).__name__}: {error}", secrets)
            run.end("partial" if run.has_achieved else "failed", {"code": "internal", "message": text})
            if redact(str(error), secrets) != str(error):
                raise RuntimeError(text) from None
            raise
        run.finish()
    log.info("run %s is %s", run_id, report.status, extra={"run_id": run_id, "status": report.status})
    return report


def _check_names(plan: Plan, reread: Collection[str]) -> None:
    known = [source.name for source in plan.sources]
    for name in reread:
        if name not in known:
            raise UsageError(
                f"there is no source {name!r} to read anew",
                code="run.reread",
                where="reread",
                allowed=", ".join(known),
                fix=did_you_mean(name, known, "use one of the names above"),
            )


def _set_aside(landing: Path) -> None:
    """Moves away what a ledger that is gone knew: it may be all there is of rows that a source no longer has."""
    if landing.is_dir() and any(path.is_file() for path in landing.rglob("*")):
        aside = landing.with_name(f"{landing.name}.{compact(datetime.now(UTC))}")
        landing.rename(aside)
        log.warning("the ledger knows nothing of what lies in %s: it was moved to %s", landing, aside)


class _Run:
    """One execution of a plan, from the first row read to the last value loaded."""

    def __init__(
        self, plan: Plan, ledger: Ledger, report: RunReport, intake: Intake, refit: bool, watch: Stopwatch
    ) -> None:
        self.plan, self.ledger, self.report, self.watch = plan, ledger, report, watch
        self.intake = intake
        self.refit = refit
        self.has_published = False
        self.checkpoints: Checkpoints
        self.grounds: list[Ground] = []
        self.extraction = Extraction(plan, ledger, report, intake, watch, refit=refit)

    def execute(self) -> None:
        with ExitStack() as open_until_the_end:
            repo, aside = self._repo(), None
            if repo:
                aside = open_until_the_end.enter_context(self._aside(repo))
            self._execute(repo, aside)

    def _aside(self, repo: FeatureRepo) -> Aside:
        from engine.sinks.feast.aside import Aside

        repo.check()
        return Aside(repo)

    def _import_feast(self, repo: FeatureRepo, aside: Aside) -> None:
        """Where it will be asked for something, Feast is imported while views are computed. Of many rows that takes
        most of the memory, and so does loading them: Feast is imported after it then, which takes a second."""
        will_be_asked = (self.plan.feast and self.plan.feast.materialize) or not repo.was_applied
        if will_be_asked and sum(source.metrics.rows for source in self.report.sources) < _MANY_ROWS:
            aside.begin()

    def _execute(self, repo: FeatureRepo | None, aside: Aside | None) -> None:
        self.collect()
        self.intake.land()
        self.report.sources = self.intake.judge()
        if any(s.state == "blocked" for s in self.report.sources):
            self.report.status = "blocked"
            return
        if repo and aside:
            self._import_feast(repo, aside)
        if self.plan.views:
            with Staging(self.plan.output, self.plan.pipeline, self.report.run_id, self.plan.workdir).open() as staging:
                self._stand(staging)
                if self.plan.backfill:
                    self._publish_each(staging, repo)
                else:
                    self._publish_together(staging, repo)
        if repo and aside:
            self._feast(repo, aside)
        self.report.status = "done"

    def finish(self) -> None:
        """Records that the run came to its end; what fails now is told in its report, too."""
        self.watch.enter("finish")
        try:
            self.ledger.finish(self.report.run_id, self.report.status)
            reached("run.finished")
            self.collect()
        except MaestroError as error:
            self.report.error = error.to_dict()
            raise

    def end(self, status: str, error: Mapping[str, Any] | None = None) -> str:
        """Records that the run did not come to its end, in the ledger and in its report, and gives its status; where
        the former fails, the error it failed by is what is raised."""
        self.report.status, self.report.error = status, dict(error) if error else None
        self.report.sources = self.intake.told()
        try:
            self.ledger.finish(self.report.run_id, status, error)
        except LedgerError as lost:
            log.warning("run %s is %s, which could not be recorded: %s", self.report.run_id, status, lost.message)
        return status

    @property
    def has_achieved(self) -> bool:
        """Whether something of this run stays, should it fail."""
        return self.has_published or bool(self.intake.bases.keys() & self.intake.reads.keys())

    def collect(self) -> None:
        """Drops landed files that nothing names, such as those of a killed run or of superseded tables."""
        collect(
            self.ledger,
            self.plan.pipeline,
            self.plan.landing,
            self.plan.quarantine,
            self.plan.checkpoints,
            retention=self.plan.retention,
            remote=self.intake.remote,
            remember=remembered(self.plan),
        )

    def _about(self, subject: str, facts: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a log record: which run, which source or view, and its figures."""
        return {"run_id": self.report.run_id, "subject": subject, "facts": dict(facts)}

    def view_plan(self, name: str) -> ViewPlan:
        return next(v for v in self.plan.views if v.name == name)

    def _stand(self, staging: Staging) -> None:
        """Finds out what came since the last run: which as-ofs it moves, and what views are computed from."""
        from engine.checkpoints import Checkpoints

        self.watch.enter("compute")
        self.checkpoints = Checkpoints(self.plan, self.ledger, self.intake, staging.folder / "checkpoints")
        self.grounds = [self.checkpoints.ground(view) for view in self.plan.views]
        self.plan = replace(self.plan, views=tuple(ground.view for ground in self.grounds))

    def _publish_together(self, staging: Staging, repo: FeatureRepo | None) -> None:
        """Nothing is published before all has been computed."""
        parts = [part for g in self.grounds for part in self.extraction.parts(g, self.checkpoints, staging)]
        if repo:
            repo.check(self._offline_views(self.plan.views))
        reached("files.staged")
        self._publish(parts)
        self.ledger.keep_checkpoints(self.report.run_id, self.plan.pipeline, self.extraction.kept)

    def _publish_each(self, staging: Staging, repo: FeatureRepo | None) -> None:
        """Each as-of is published as soon as it has been computed; a run that goes on leaves out those that were."""
        for ground in self.grounds:
            view = ground.view
            done = {t: file for t, file in self.extraction.done(view).items() if t not in ground.touched}
            with closing(self.extraction.parts(ground, self.checkpoints, staging, done)) as parts:
                for number, part in enumerate(parts):
                    if repo and not number:
                        repo.check(self._offline_views([view]))
                    reached("files.staged")
                    with self.watch.within("publish", view.name):
                        self._publish([part])
            self.ledger.keep_checkpoints(self.report.run_id, self.plan.pipeline, self.extraction.kept)

    def _publish(self, parts: Sequence[tuple[ViewReport, datetime, Part]]) -> None:
        """Records the fits and the files to come, then gives every file its place."""
        files = [
            {
                "view": report.name,
                "as_of": as_of,
                "path": part.path,
                "rows": part.rows,
                "definition": self.view_plan(report.name).definition,
                "created_timestamp": self.report.created_timestamp,
                "sha256": part.sha256,
            }
            for report, as_of, part in parts
        ]
        computed = [v for v in self.plan.views if any(report.name == v.name for report, *_ in parts)]
        fits = {v.name: (v.as_of[0], self.extraction.fits[v.name].to_dict()) for v in computed}
        tables = {v.name: made for v in computed if (made := self.checkpoints.tables(v)).tables}
        versions = self.ledger.publishing(self.report.run_id, self.plan.pipeline, fits, files, tables)
        for report, *_ in parts:
            report.fit_version = versions[report.name]
        reached("files.recorded")
        for (report, as_of, part), file in zip(parts, files, strict=True):
            if not self.plan.backfill:
                self.watch.step("publish", report.name)
            self.ledger.hold()
            part.publish()
            self.has_published = True
            reached("file.published")
            report.files.append(str(file["path"]))
            if as_of in self.view_plan(report.name).again:
                report.again.append(str(file["path"]))
            if as_of in self.view_plan(report.name).redone:
                report.redone.append(str(file["path"]))
            log.info(
                "published %s: %d rows", part.target, part.rows, extra=self._about(report.name, {"rows": part.rows})
            )
        self.ledger.published_all(self.report.run_id)
        reached("files.published")

    def _feast(self, repo: FeatureRepo, aside: Aside) -> None:
        from engine.registration import check_published, definitions_of

        found = definitions_of(self.plan, self.ledger, self.extraction.dtypes)

        def register() -> None:
            self.watch.step("feast", "register")
            if not repo.is_applied(found.views, found.services):
                for view in found.views:
                    check_published(self.plan, self.ledger, view)
                aside.apply(found.views, found.services, found.pending)

        self.report.feast = {"repo": str(repo.folder), "project": repo.project, "materialized": []}
        if not (self.plan.feast and self.plan.feast.materialize):
            register()
            return
        from engine.loading import load_views

        # Where nothing is registered, loading need not wait for Feast to be imported: nobody is served from what no
        # registry names, and nothing in one can be in its way. If registering fails then, the next run registers.
        loads_first = repo.is_new
        if loads_first:
            repo.write(found.views, found.services)
        else:
            register()
        then = register if loads_first else None
        loaded = load_views(self.plan, self.ledger, repo, self.plan.views, aside=aside, progress=self.watch, then=then)
        reached("store.loaded")
        self.report.feast["materialized"] = [view.to_dict() for view in loaded]
        self.report.warnings += [f"{view.view}: {view.warning}" for view in loaded if view.warning]

    def _repo(self) -> FeatureRepo | None:
        if self.plan.feast is None or self.plan.feast_repo is None:
            return None
        from engine.sinks.feast import FeatureRepo

        return FeatureRepo(self.plan.feast_repo, self.plan.feast.project, self.plan.pipeline)

    def _offline_views(self, views: Sequence[ViewPlan]) -> list[OfflineView]:
        from engine.registration import offline_view

        return [offline_view(self.plan, v, self.extraction.dtypes[v.name]) for v in views]
