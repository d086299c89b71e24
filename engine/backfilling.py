"""Large backfills: many as-ofs in one run, each published as soon as it has been computed; and ways to read them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import date, datetime
from typing import TYPE_CHECKING

from engine.errors import UsageError
from engine.ledger import Ledger
from engine.objects import Objects
from engine.outcome import RunReport
from engine.plan import Plan, compile_plan
from engine.progress import Progress
from engine.run import execute, unfinished
from engine.spec import Pipeline
from engine.types import Duration, iso, parse_moment

if TYPE_CHECKING:
    import polars as pl

Moment = str | date | datetime
MOST = 100_000  # as-ofs in one backfill


def as_ofs(start: Moment, end: Moment, every: str | Duration) -> tuple[datetime, ...]:
    """The moments from ``start`` to ``end``, both included where they are hit, one ``every`` so often.

    Raises:
        UsageError: the end lies before the start, or there are more than 100,000.
    """
    first, last = parse_moment(start), parse_moment(end)
    step = (every if isinstance(every, Duration) else Duration(every)).delta
    count = (last - first) // step + 1
    if count < 1:
        raise UsageError(
            f"the end {iso(last)} lies before the start {iso(first)}",
            code="backfill.range",
            where="end",
            fix="exchange them",
        )
    if count > MOST:
        raise UsageError(
            f"{count:,} as-ofs from {iso(first)} to {iso(last)}",
            code="backfill.range",
            where="every",
            allowed=f"at most {MOST:,}",
            fix="take larger steps, or backfill a part at a time",
        )
    return tuple(first + i * step for i in range(count))


def plan_backfill(
    pipeline: Pipeline,
    *,
    start: Moment,
    end: Moment,
    every: str | Duration = "1d",
    views: Collection[str] = (),
    history: bool = True,
) -> Plan:
    """What a backfill would do; see `backfill`."""
    return compile_plan(pipeline, as_ofs(start, end, every), history=history).as_backfill(views)


def backfill(
    pipeline: Pipeline,
    *,
    start: Moment | None = None,
    end: Moment | None = None,
    every: str | Duration = "1d",
    views: Collection[str] = (),
    refit: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> RunReport:
    """Publishes features as of every moment of a range; the sources are read once, and events scanned once.

    Each as-of is published as soon as it has been computed. A backfill that was stopped or killed goes on where it
    was with ``resume``.

    Args:
        start, end: the first and the last as-of; ISO 8601 texts, dates or datetimes, UTC unless they carry a zone.
        every: the step between two as-ofs.
        views: only these; default: all.
        refit: fits missing values and normalisation anew, on the earliest as-of.
        resume: goes on with the last run, if that was a backfill that did not come to its end; without a range.

    Raises:
        ConfigError, UsageError: before anything is read.
        SourceError, DataError, SinkError, LedgerError: what was published stays.
    """
    if resume:
        if start is not None or end is not None:
            raise UsageError(
                "a resumed backfill has its range already",
                code="backfill.resume_range",
                where="resume",
                fix="leave out start and end, or resume",
            )
        last = unfinished(pipeline)
        if last is None or last.backfill is None:
            raise UsageError(
                "the last run is no backfill that did not come to its end",
                code="backfill.nothing_to_resume",
                where="resume",
                fix="give start and end to begin one",
            )
        return execute(last.plan(pipeline), refit=refit, resume=last, progress=progress)
    if start is None or end is None:
        raise UsageError(
            "a backfill needs its first and its last as-of",
            code="backfill.range",
            where="start" if start is None else "end",
            fix="give start and end, or resume",
        )
    plan = plan_backfill(pipeline, start=start, end=end, every=every, views=views)
    return execute(plan, refit=refit, progress=progress)


def published_frames(
    pipeline: Pipeline, view: str, *, start: Moment | None = None, end: Moment | None = None
) -> Iterator[tuple[datetime, pl.LazyFrame]]:
    """The published as-ofs of a view, earliest first, each with its rows as a lazy frame.

    Only whole files that the ledger knows are given; nothing is read before a frame is collected.

    Args:
        start, end: only as-ofs within, both included.

    Raises:
        UsageError: the pipeline has no such view.
    """
    import polars as pl

    plan = compile_plan(pipeline, history=False).as_backfill([view])
    options = plan.output.for_polars if isinstance(plan.output, Objects) else None
    first, last = (parse_moment(start) if start else None), (parse_moment(end) if end else None)
    if not Ledger.exists(plan.workdir, plan.ledger_url):
        return
    with Ledger(plan.workdir, plan.ledger_url) as ledger:
        files = ledger.published(plan.pipeline, view)
    for file in files:
        moment = parse_moment(file["as_of"])
        if file["state"] == "publishing" or (first and moment < first) or (last and moment > last):
            continue
        path = f"{plan.output}/{file['path']}"
        yield moment, pl.scan_parquet(path, hive_partitioning=False, glob=False, storage_options=options)


def scan_published(
    pipeline: Pipeline, view: str, *, start: Moment | None = None, end: Moment | None = None
) -> pl.LazyFrame:
    """All published rows of a view as one lazy frame, as-of by as-of; see `published_frames`.

    Raises:
        UsageError: the pipeline has no such view, or nothing of it is published within the range.
    """
    import polars as pl

    frames = [frame for _, frame in published_frames(pipeline, view, start=start, end=end)]
    if not frames:
        raise UsageError(
            f"nothing of {view!r} is published in this range",
            code="backfill.nothing_published",
            where="view",
            fix="run the pipeline, or widen the range",
        )
    return pl.concat(frames, how="diagonal_relaxed")
