"""What is left and told of a run once it is over: its report, its page, its alerts."""

from __future__ import annotations

import logging
from pathlib import Path

from engine.alerts import send
from engine.outcome import RunReport
from engine.page.archive import Archive
from engine.plan import Plan

log = logging.getLogger(__name__)


def conclude(plan: Plan, report: RunReport) -> None:
    """Keeps a run's report with its page, and sends the alerts that it calls for.

    What goes wrong here is a warning of the report: the run is what it was.
    """
    page = _keep(plan, report)
    if undelivered := send(plan.alerts, report.to_dict(), base=plan.base, page=page):
        report.warnings += undelivered
        _keep(plan, report)


def _keep(plan: Plan, report: RunReport) -> Path | None:
    try:
        return Archive(plan.reports, plan.pipeline).keep(report.to_dict())
    except Exception as error:  # noqa: BLE001 - whatever it is, the run has been made
        why = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        warning = f"the report of run {report.run_id} could not be kept in {plan.reports}: {why}"
        if warning not in report.warnings:
            report.warnings.append(warning)
            log.warning("%s", warning)
        return None
