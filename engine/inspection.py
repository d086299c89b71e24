"""Looking at sources without keeping anything: can they be reached, and what do their checks say."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.baselines import past_of
from engine.errors import MaestroError
from engine.landing import LandedTable
from engine.ledger import Ledger, make_workdir
from engine.outcome import SourceReport
from engine.plan import Plan
from engine.progress import Progress, Silent
from engine.sources import Shared, open_source
from engine.stages import judge, judging_order, land_source

if TYPE_CHECKING:
    from engine.profile import Profile
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
    needed = set(plan.suites).union(*(suite.references for suite in plan.suites.values()))
    tables: dict[str, LandedTable] = {}
    reports: dict[str, SourceReport] = {}
    with _folder(plan) as folder, ExitStack() as stack:
        known = Ledger.exists(plan.workdir, plan.ledger_url)
        ledger = stack.enter_context(Ledger(plan.workdir, plan.ledger_url)) if known else None
        for source in plan.sources:
            if source.name in needed:
                with Shared() as shared:
                    tables[source.name] = land_source(plan, source, folder / source.name, progress, shared)
        for source in judging_order(plan):
            if source.name in plan.suites:
                past = past_of(ledger, plan, source.name, datetime.now(UTC))
                judged = judge(plan, source, tables, folder / source.name, progress, past=past)
                reports[source.name], tables[source.name] = judged.report, judged.table
    return [reports[source.name] for source in plan.sources if source.name in reports]


def profile(
    plan: Plan, *, exact: bool = False, unique: bool = False, progress: Progress | None = None
) -> dict[str, Profile]:
    """Reads the sources and makes a profile of each; nothing is kept.

    Args:
        exact: whether distinct values are counted one by one where there are many.
        unique: whether they are for columns that may name a row.
    """
    from engine.profile import profile_of
    from engine.profile.exact import counted
    from engine.suggestion import candidates

    progress = progress or Silent()
    found: dict[str, Profile] = {}
    with _folder(plan) as folder:
        for source in plan.sources:
            with Shared() as shared:
                table = land_source(plan, source, folder / source.name, progress, shared)
            progress.step("profile", source.name)
            made = profile_of(table.scan(), source.spec.pii)
            names = None if exact else candidates(made) if unique else []
            limits: dict[str, Any] = {"memory_limit": plan.memory_limit, "spill": folder / "spill"}
            found[source.name] = counted(table.scan(), made, names, **limits)
            shutil.rmtree(folder / source.name)
    return found


@contextmanager
def _folder(plan: Plan) -> Iterator[Path]:
    """A folder for what is read, until it has been looked at."""
    make_workdir(plan.workdir)
    _forget_dead(plan.workdir / "validate")
    folder = plan.workdir / "validate" / f"{os.getpid()}-{uuid.uuid4().hex}"
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _forget_dead(root: Path) -> None:
    """Removes what validations left behind whose process is gone."""
    for folder in root.glob("*-*"):
        try:
            os.kill(int(folder.name.partition("-")[0]), 0)
        except ProcessLookupError:
            shutil.rmtree(folder, ignore_errors=True)
        except (PermissionError, ValueError):
            continue
