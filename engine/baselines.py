"""The baselines that runs of a pipeline have kept, and how long they keep them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial

from engine.checks.anomaly import LOOK_BACK
from engine.checks.drift import Drift
from engine.drift import Baseline, Nothing, Past, from_files
from engine.ledger import KeptProfile, Ledger
from engine.plan import Plan
from engine.profile import Profile, together
from engine.spec import DriftBaseline
from engine.types import parse_moment
from engine.upkeep import Remembered


def remembered(plan: Plan) -> Remembered:
    """What is kept of profiles whatever their age."""
    suites = plan.suites.values()
    anomalies = [anomaly.runs for suite in suites for anomaly in suite.anomalies]
    baselines = [check.spec.baseline for suite in suites for check in suite.checks if isinstance(check, Drift)]
    weeks = max((declared.weekday or 0 for declared in baselines), default=0)
    newest = max([LOOK_BACK, *anomalies, *(declared.last or 0 for declared in baselines), 7 * weeks])
    # One more than is looked back on: the run that asks has kept its own by then.
    runs = frozenset(declared.run for declared in baselines if declared.run)
    return Remembered(newest + 1, 7 * (weeks + 1) if weeks else 0, runs)


def past_of(ledger: Ledger | None, plan: Plan, source: str, moment: datetime, run_id: str | None = None) -> Past:
    """Finds the baselines of a source; ``run_id`` is the run that asks, which began at ``moment``."""
    return partial(_found, ledger, plan, source, moment, run_id)


def _found(
    ledger: Ledger | None, plan: Plan, source: str, moment: datetime, run_id: str | None, declared: DriftBaseline
) -> Baseline | Nothing:
    if declared.path is not None or declared.profile is not None:
        return from_files(declared, plan.base, source)
    if declared.run is not None:
        named = ledger.profiles(plan.pipeline, source, run_id=declared.run) if ledger else []
        return _together(named) if named else Nothing(f"the run {declared.run} has kept no profile of {source}")
    kept = ledger.profiles(plan.pipeline, source, accepted=True) if ledger else []
    kept = [one for one in kept if one.run_id != run_id and one.rows]
    if declared.weekday is not None:
        kept = [one for one in kept if parse_moment(one.created_at).weekday() == moment.weekday()]
    wanted = declared.weekday or declared.last or 1
    if not kept:
        day = f" on a {moment:%A}" if declared.weekday else ""
        return Nothing(f"no earlier accepted run{day} has kept a profile of {source}")
    return _together(kept[-wanted:])


def _together(kept: Sequence[KeptProfile]) -> Baseline:
    name = f"run {kept[0].run_id}" if len(kept) == 1 else f"{len(kept)} runs, {kept[0].run_id} to {kept[-1].run_id}"
    return Baseline(name, profile=together(Profile.from_dict(one.profile) for one in kept))
