"""What a pipeline's ledger tells and keeps: its runs, and the files that it vouches for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.access import opened
from engine.errors import UsageError
from engine.ledger import Read
from engine.plan import Plan
from engine.types import Duration
from engine.upkeep import Collected, Verified, collect, verify

if TYPE_CHECKING:
    from engine.profile import Profile


@dataclass(frozen=True)
class PastRun:
    """A run as the ledger has it.

    Attributes:
        status: running, done, blocked, partial, failed or interrupted.
        reads: what it read of each source, how much of that it promised, and what became of it.
        published: files that it published and that no later run has replaced.
    """

    run_id: str
    status: str
    as_of: Sequence[str]
    created_timestamp: str
    finished_at: str | None
    error: dict[str, Any] | None
    reads: Sequence[Read]
    published: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, in a stable order."""
        return {
            "run_id": self.run_id,
            "status": self.status,
            "as_of": list(self.as_of),
            "created_timestamp": self.created_timestamp,
            "finished_at": self.finished_at,
            "error": self.error,
            "sources": [
                {
                    "name": read.source,
                    "state": read.state,
                    "mode": read.mode,
                    "location": read.location,
                    "promise": read.promise,
                    "position": read.position,
                    "metrics": {k: v for k, v in read.metrics.items() if k != "per_chunk"},
                }
                for read in self.reads
            ],
            "published": self.published,
        }


def history(plan: Plan, newest: int) -> list[PastRun]:
    """The ``newest`` runs of a pipeline, oldest first."""
    with opened(plan) as ledger:
        files = ledger.published(plan.pipeline)
        return [
            PastRun(
                run["run_id"],
                run["status"],
                run["as_of"],
                run["created_timestamp"],
                run["finished_at"],
                run["error"],
                ledger.reads(run["run_id"]),
                sum(file["run_id"] == run["run_id"] for file in files),
            )
            for run in ledger.runs(plan.pipeline, newest)
        ]


def profiles_of(plan: Plan, run_id: str | None = None) -> dict[str, Profile]:
    """The profiles that a run kept, by source; None: of each source the newest that any run kept.

    Raises:
        UsageError: there is no such run, or none kept a profile.
    """
    from engine.profile import Profile

    with opened(plan) as ledger:
        kept = ledger.profiles(plan.pipeline, run_id=run_id)
    if not kept:
        raise UsageError(
            f"the run {run_id!r} has kept no profile" if run_id else "no run has kept a profile",
            code="profile.none",
            where=plan.pipeline,
            fix="maestro runs lists the runs; with profile: false they keep none",
        )
    newest = {one.source: one.profile for one in kept}
    declared = [source.name for source in plan.sources]
    return {name: Profile.from_dict(newest[name]) for name in [*declared, *newest] if name in newest}


def verify_files(plan: Plan) -> Verified:
    """Compares every landed and every published file with the ledger: rows, checksum, schema.

    Raises:
        LedgerError: a run is at work, so that files come and go.
    """
    with opened(plan) as ledger, ledger.lease(plan.pipeline):
        return verify(ledger, plan.pipeline, plan.output, plan.store)


def collect_files(plan: Plan, retention: Duration | None) -> Collected:
    """Drops landed files that nothing needs; see `engine.upkeep.collect`.

    Raises:
        LedgerError: a run is at work.
    """
    from engine.baselines import remembered
    from engine.intake import remote_of

    sources = {source.name for source in plan.sources}
    with opened(plan) as ledger, ledger.lease(plan.pipeline):
        return collect(
            ledger,
            plan.pipeline,
            plan.landing,
            plan.quarantine,
            plan.checkpoints,
            sources=sources,
            views={view.name for view in plan.views},
            retention=retention,
            remote=remote_of(plan),
            remember=remembered(plan),
        )
