"""The stages that a run and a mere look at the data have in common: landing a source, judging what has landed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from engine.landing import LandedTable, land
from engine.outcome import SourceReport
from engine.plan import Plan, SourcePlan
from engine.sources import Shared, open_source

if TYPE_CHECKING:
    import polars as pl


class Progress(Protocol):
    """Hears of a run as it goes on."""

    def step(self, stage: str, name: str) -> None:
        """Stage ``read``, ``check``, ``compute``, ``publish`` or ``feast`` begins on ``name``."""

    def rows(self, count: int) -> None:
        """So many rows of the current step are done."""


class Silent:
    """Progress that nobody watches."""

    def step(self, stage: str, name: str) -> None:
        pass

    def rows(self, count: int) -> None:
        pass


def land_source(
    plan: Plan, source: SourcePlan, folder: Path, progress: Progress, shared: Shared, **how: Any
) -> LandedTable:
    """Lands a source in ``folder``; ``how`` goes to `engine.landing.land`.

    Raises:
        SourceError: as there.
    """
    progress.step("read", source.name)
    return land(
        open_source(source.name, source.spec, plan.base, shared),
        source.spec,
        folder,
        name=source.name,
        memory_limit=plan.memory_limit,
        progress=progress.rows,
        **how,
    )


def judge(
    plan: Plan, source: SourcePlan, landed: LandedTable, progress: Progress, new: pl.LazyFrame | None = None
) -> SourceReport:
    """The verdict on a landed table; of which ``new`` are the rows that no run has accepted yet (None: all)."""
    report = None
    if suite := plan.suites.get(source.name):
        progress.step("check", source.name)
        if new is None:
            report = suite.validate(landed.scan())
        else:
            report = suite.report(suite.judge(new, scope="rows"), suite.judge(landed.scan(), scope="table"))
    state = "accepted" if report is None or report.ok else "blocked"
    return SourceReport(source.name, source.location, landed.metrics, report, state, source.mode, landed.promise)
