"""The views of a run: computed, filled, scaled and staged, a file for each as-of."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.features.ways import FITS, MANY
from engine.intake import Intake
from engine.ledger import Checkpoint, Ledger
from engine.outcome import RunReport, ViewReport
from engine.plan import Plan, ViewPlan
from engine.progress import Progress
from engine.sinks.parquet import Part, Staging
from engine.stopwatch import waiting
from engine.types import parse_moment, size_of

if TYPE_CHECKING:
    import polars as pl

    from engine.checkpoints import Checkpoints, Ground
    from engine.features.fit import Applying, Fit
    from engine.features.history.saved import Saved
    from engine.features.inputs import Inputs
    from engine.features.raw import Raw

_WRITERS = 2  # files of a view that are written at the same time
_NONE: Mapping[datetime, str] = {}
Parts = Generator[tuple[ViewReport, datetime, Part], None, None]


@dataclass(frozen=True)
class _Subject:
    """A view that is being computed.

    Attributes:
        saved: the state that it goes on from; None: there is none.
    """

    view: ViewPlan
    inputs: Inputs
    staging: Staging
    report: ViewReport
    saved: Saved | None


class Extraction:
    """Computes the views of a plan over the tables of an intake.

    Attributes:
        fits: by view, as far as they have been made or taken from the ledger.
        kept: by view that has been computed, what later runs go on from.
        dtypes: by view, the Polars type of each column as it is published.
    """

    def __init__(
        self, plan: Plan, ledger: Ledger, report: RunReport, intake: Intake, progress: Progress, *, refit: bool
    ) -> None:
        self._plan, self._ledger, self._report = plan, ledger, report
        self._intake, self._progress, self._refit = intake, progress, refit
        self.fits: dict[str, Fit] = {}
        self.kept: dict[str, Checkpoint] = {}
        self.dtypes: dict[str, dict[str, str]] = {}

    def done(self, view_plan: ViewPlan) -> dict[datetime, str]:
        """The as-ofs that this run has published already, before it was interrupted, and their files."""
        return {
            parse_moment(file["as_of"]): str(file["path"])
            for file in self._ledger.published(self._plan.pipeline, view_plan.name)
            if (file["run_id"], file["state"]) == (self._report.run_id, "published")
            and file["definition"] == view_plan.definition
        }

    def parts(
        self, ground: Ground, checkpoints: Checkpoints, staging: Staging, done: Mapping[datetime, str] = _NONE
    ) -> Parts:
        """Stages the files of one view, earliest as-of first: the first fit, where one is needed, is on that one.

        Args:
            done: as-ofs to leave out, and their files.
        """
        from engine.features.inputs import Inputs

        view_plan = ground.view
        view, name = view_plan.view, view_plan.name
        self._progress.step("compute", name)
        report = ViewReport(name, settings=view.settings, resumed=len(done))
        self._report.views.append(report)
        names = {role: f"sources.{source}" for role, source in view_plan.sources.items()}
        spill = staging.folder / "spill"
        as_ofs = [t for t in view_plan.as_of if t not in done]
        if not as_ofs:
            self._look_up(name, next(iter(done.values())))
            return
        with Inputs(view, ground.tables, names=names, memory_limit=self._plan.memory_limit, spill=spill) as inputs:
            self._describe(view_plan, inputs, report)
            saved = checkpoints.saved(ground, inputs)
            report.start = ground.to_dict()
            for as_of, part in self._staged(_Subject(view_plan, inputs, staging, report, saved), as_ofs):
                self._progress.rows(part.rows)
                report.rows.append(part.rows)
                yield report, as_of, part
            if kept := checkpoints.keep(ground, inputs, saved):
                self.kept[name] = kept

    def _look_up(self, view: str, file: str) -> None:
        """The types of a view that has nothing left to compute; only Feast asks for them, and not in a store."""
        if isinstance(self._plan.output, Path):
            import polars as pl

            schema = pl.read_parquet_schema(self._plan.output / file)
            self.dtypes[view] = {name: str(dtype) for name, dtype in schema.items() if name != "created_timestamp"}

    def _staged(self, subject: _Subject, as_ofs: Sequence[datetime]) -> Iterator[tuple[datetime, Part]]:
        """Writes files while the next is computed. Fits grow in the order of the as-ofs."""
        self._fit_on_range(subject, as_ofs)
        name = subject.view.name
        staged: deque[tuple[datetime, Future[tuple[Part, Applying]]]] = deque()

        def written() -> tuple[datetime, Part]:
            as_of, writing = staged.popleft()
            with waiting("writer"):
                part, work = writing.result()
            subject.report.applied.append(work.applied())
            self.dtypes[name] = {column: str(dtype) for column, dtype in work.schema.items()}
            return as_of, part

        with ThreadPoolExecutor(_WRITERS) as writers:
            for as_of, raw in self._raw(subject, as_ofs):
                fit = self.fits[name] = self._fit(subject.view, raw.scan())
                staged.append((as_of, writers.submit(self._finish, subject, raw, as_of, fit)))
                if len(staged) > _WRITERS:
                    yield written()
            while staged:
                yield written()

    def _fit_on_range(self, subject: _Subject, as_ofs: Sequence[datetime]) -> None:
        """A first fit on all as-ofs that the view declares, where this run has some of them."""
        view_plan, folder = subject.view, subject.staging.folder
        span = view_plan.spec.fit_on
        if span is None or (not self._refit and self._ledger.fit(self._plan.pipeline, view_plan.name)):
            return
        first, last = parse_moment(span.start), parse_moment(span.end)
        within = [t for t in as_ofs if first <= t <= last]
        if not within:
            return
        import polars as pl

        files = []
        for number, (_, raw) in enumerate(self._raw(subject, within)):
            files.append(folder / f"{view_plan.name}-fit-{number}.parquet")
            raw.scan().sink_parquet(files[-1])
            raw.remove()
        whole = pl.scan_parquet(files, hive_partitioning=False, glob=False)
        self.fits[view_plan.name] = self._fit(view_plan, whole)
        for file in files:
            file.unlink()

    def _raw(self, subject: _Subject, as_ofs: Sequence[datetime]) -> Iterator[tuple[datetime, Raw]]:
        """The raw features at each as-of: from one scan of the events where there are many."""
        name, inputs, saved, staged = subject.view.name, subject.inputs, subject.saved, subject.staging.folder
        if saved or len(as_ofs) >= MANY:
            from engine.features.history import History

            budget = size_of(self._plan.memory_limit) // 2
            folder = staged / f"{name}-history"
            yield from History(inputs, inputs.view, as_ofs, folder=folder, budget=budget, saved=saved).raw()
            return
        from engine.features.compute import compute_raw

        for number, as_of in enumerate(as_ofs):
            yield as_of, compute_raw(inputs, inputs.view, as_of, staged / f"{name}-raw-{number}.arrow")

    def _finish(self, subject: _Subject, raw: Raw, as_of: datetime, fit: Fit) -> tuple[Part, Applying]:
        """The rows of an as-of, filled, scaled and staged, and what did it."""
        import polars as pl

        from engine.features.fit import Applying, marks

        view_plan, names = subject.view, subject.view.view.feature_names
        work = Applying(raw.schema, fit, names, rows=raw.rows, nulls=raw.nulls)
        stamp = pl.lit(self._report.created_timestamp).cast(pl.Datetime("us", "UTC")).alias("created_timestamp")
        made = {FITS: json.dumps(marks(fit, raw.schema, names), sort_keys=True)}
        rows = (work.of(rows).with_columns(stamp) for rows in raw.slices())
        part = subject.staging.write(rows, view_plan.name, as_of, made)
        raw.remove()
        return part, work

    def _fit(self, view_plan: ViewPlan, frame: pl.LazyFrame) -> Fit:
        """The pinned fit, extended by what it does not cover yet: all of it on a first run, most often nothing."""
        from engine.features.fit import Fit, learn

        pinned = self.fits.get(view_plan.name)
        if pinned is None and not self._refit:
            known = self._ledger.fit(self._plan.pipeline, view_plan.name)
            pinned = Fit.from_dict(known[1]) if known else None
        return learn(
            frame,
            view_plan.view.feature_names,
            handle_missing=view_plan.spec.handle_missing,
            normalize=view_plan.spec.normalize,
            transforms=view_plan.spec.transforms,
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
            if timeless and view_plan.as_of[0] < self._report.created_timestamp:
                report.timeless[role.name] = timeless
