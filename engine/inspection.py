"""Looking at sources without keeping anything: can they be reached, and what do their checks say."""

from __future__ import annotations

import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import MaestroError
from engine.landing import LandedTable
from engine.ledger import make_workdir
from engine.outcome import SourceReport
from engine.plan import Plan
from engine.sources import Shared, open_source
from engine.stages import Progress, Silent, judge, judging_order, land_source

if TYPE_CHECKING:
    from engine.sources.relation import Probe


@dataclass(frozen=True)
class Probed:
    """What connecting to a source showed; ``probe`` is None for sources that are no database, or where it failed."""

    name: str
    location: str
    probe: Probe | None = None
    error: MaestroError | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "location": self.location,
            "ok": self.error is None,
            "probe": self.probe.to_dict() if self.probe else None,
            "error": self.error.to_dict() if self.error else None,
        }


def connect(plan: Plan) -> list[Probed]:
    """Connects to every database of a plan; nothing is read but what describes the tables."""
    probed = []
    for source in plan.sources:
        opened = open_source(source.name, source.spec, plan.base)
        probe = getattr(opened, "probe", None)
        try:
            probed.append(Probed(source.name, source.location, probe() if probe else None))
        except MaestroError as error:
            probed.append(Probed(source.name, source.location, error=error))
    return probed


def validate(plan: Plan, *, progress: Progress | None = None) -> list[SourceReport]:
    """Reads the sources that have checks and judges them; nothing is kept, nothing is published."""
    progress = progress or Silent()
    make_workdir(plan.workdir)
    _forget_dead(plan.workdir / "validate")
    folder = plan.workdir / "validate" / f"{os.getpid()}-{uuid.uuid4().hex}"
    needed = set(plan.suites).union(*(suite.references for suite in plan.suites.values()))
    tables: dict[str, LandedTable] = {}
    reports: dict[str, SourceReport] = {}
    try:
        for source in plan.sources:
            if source.name in needed:
                with Shared() as shared:
                    tables[source.name] = land_source(plan, source, folder / source.name, progress, shared)
        for source in judging_order(plan):
            if source.name in plan.suites:
                judged = judge(plan, source, tables, folder / source.name, progress)
                reports[source.name], tables[source.name] = judged.report, judged.table
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return [reports[source.name] for source in plan.sources if source.name in reports]


def _forget_dead(root: Path) -> None:
    """Removes what validations left behind whose process is gone."""
    for folder in root.glob("*-*"):
        try:
            os.kill(int(folder.name.partition("-")[0]), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except (PermissionError, ValueError):
            continue
