"""Shows over a pipeline's own data that no published number depends on what came later."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from engine.access import opened
from engine.errors import UsageError
from engine.intake import remote_of
from engine.plan import Plan, ViewPlan
from engine.types import parse_moment

if TYPE_CHECKING:
    from engine.features.leakage import Leakage


def verify_leakage(plan: Plan, as_of: str | date | datetime | None = None) -> list[Leakage]:
    """Changes all that is later than a moment in the accepted tables, and compares each view before and after.

    Nothing is read from the sources, and nothing is published.

    Args:
        as_of: the moment; None: three of them, evenly over the time that a view's tables tell of.

    Raises:
        UsageError: the pipeline has not run, or a source of a view has no accepted table.
    """
    from engine.features.inputs import Inputs
    from engine.features.leakage import find_leakage, moments_within

    found: list[Leakage] = []
    plan.workdir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="leakage-", dir=plan.workdir) as folder:
        for view in plan.views:
            tables = dict(_tables(plan, view))
            names = {role: f"sources.{source}" for role, source in view.sources.items()}
            spill = Path(folder) / "spill"
            with Inputs(view.view, tables, names=names, memory_limit=plan.memory_limit, spill=spill) as inputs:
                moments = moments_within(inputs.view, inputs) if as_of is None else [parse_moment(as_of)]
                history = Path(folder) / "history"
                found += [find_leakage(inputs.view, view.name, inputs, moment, history) for moment in moments]
    return found


def _tables(plan: Plan, view: ViewPlan) -> Iterator[tuple[str, list[Path]]]:
    """Role: the files of its source's newest accepted table."""
    remote = remote_of(plan)
    with opened(plan) as ledger:
        for role, source in view.sources.items():
            read = ledger.table(plan.pipeline, source, accepted=True)
            if read is None:
                raise UsageError(
                    f"no table of {source!r} has been accepted",
                    code="leakage.no_table",
                    where=f"sources.{source}",
                    fix="run the pipeline first; maestro runs tells what was blocked",
                )
            if remote:
                remote.fetch(read.files)
            yield role, [plan.workdir / file.path for file in read.files]
