"""The way to what the ledger has of a pipeline, beside its runs."""

from __future__ import annotations

from engine.errors import UsageError
from engine.ledger import Ledger
from engine.plan import Plan


def opened(plan: Plan) -> Ledger:
    """The ledger of a pipeline that has run.

    Raises:
        UsageError: it has not.
    """
    if not Ledger.exists(plan.workdir, plan.ledger_url):
        raise UsageError(
            f"{plan.pipeline} has not run yet: there is no ledger",
            code="ledger.missing",
            where=str(plan.workdir),
            fix="run the pipeline first, or correct workdir",
        )
    return Ledger(plan.workdir, plan.ledger_url)
