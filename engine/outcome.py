"""What a run did: per source, per view, and as a whole; the figures that the report shows and JSON carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from engine.checks import Report
from engine.landing import Metrics
from engine.sources import Promise
from engine.stopwatch import Lap
from engine.types import iso

if TYPE_CHECKING:
    from engine.features.fit import Applied
    from engine.profile import Profile


@dataclass(frozen=True)
class Carried:
    """Rows of earlier reads that no run had accepted, judged again with those that were read now."""

    judged: int = 0
    quarantined: int = 0
    dropped: int = 0


@dataclass(frozen=True)
class Balance:
    """What became of every row that was read.

    ``read = passed + quarantined + dropped + duplicates_removed``, always.
    """

    read: int = 0
    passed: int = 0
    quarantined: int = 0
    dropped: int = 0
    duplicates_removed: int = 0
    carried_over: Carried = Carried()

    def __post_init__(self) -> None:
        if self.read != self.passed + self.quarantined + self.dropped + self.duplicates_removed or self.passed < 0:
            raise AssertionError(f"the rows do not add up: {self}")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, in a stable order."""
        return asdict(self)

    def __str__(self) -> str:
        parts = f"{self.passed:,} passed + {self.quarantined:,} quarantined + {self.dropped:,} dropped"
        return f"{self.read:,} read = {parts} + {self.duplicates_removed:,} duplicates"


@dataclass
class SourceReport:
    """What was read of a source, and what its checks found (None: it has none).

    Attributes:
        promise: what the reading vouches for.
        balance: what became of the rows.
        profile: of the rows that were judged, those that the checks set aside among them; None where none was made.
        pii: columns whose values are not shown.
    """

    name: str
    location: str
    metrics: Metrics
    report: Report | None = None
    state: str = "landed"
    mode: str = "full"
    promise: Promise = field(default_factory=Promise)
    balance: Balance = Balance()
    profile: Profile | None = None
    pii: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "location": self.location,
            "state": self.state,
            "mode": self.mode,
            "promise": self.promise.to_dict(),
            "metrics": self.metrics.to_dict(),
            "balance": self.balance.to_dict(),
            "validation": self.report.to_dict() if self.report else None,
            "profile": self.profile.summary() if self.profile else None,
            "pii": list(self.pii),
        }


@dataclass
class ViewReport:
    """What was published of a view.

    Attributes:
        files: paths below the output folder, by as-of.
        again: those among them that had been published under another definition.
        rows: published rows by as-of.
        settings: the constants applied.
        timeless: role: attributes that carry no time, taken as they stood at ingestion, after the as-of.
        absent_columns: role: columns its source lacks, read as null.
        left_out: role: rows that took part in nothing, for a null key or a null timestamp.
        applied: per as-of, what the pinned fit did.
        resumed: as-ofs that this run had published before it was interrupted.
        redone: those among the files that had been published, and that late, changed or deleted rows have moved.
        start: where its computing began: ``saved state``, or ``tables``, then ``because``; how many rows of events were
            read, and by source how many were ``new``, of these ``late`` (too late to move what was published), and
            ``changed``.
    """

    name: str
    files: list[str] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    settings: Mapping[str, Any] = field(default_factory=dict)
    timeless: dict[str, list[str]] = field(default_factory=dict)
    absent_columns: dict[str, list[str]] = field(default_factory=dict)
    left_out: dict[str, dict[str, int]] = field(default_factory=dict)
    again: list[str] = field(default_factory=list)
    fit_version: int = 0
    applied: list[Applied] = field(default_factory=list)
    resumed: int = 0
    redone: list[str] = field(default_factory=list)
    start: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "files": self.files,
            "rows": self.rows,
            "again": self.again,
            "redone": self.redone,
            "start": self.start,
            "resumed": self.resumed,
            "settings": dict(self.settings),
            "timeless_attributes": self.timeless,
            "absent_columns": self.absent_columns,
            "left_out": self.left_out,
            "fit_version": self.fit_version,
            "dropped": [a.dropped for a in self.applied],
            "filled": [dict(a.filled) for a in self.applied],
            "clipped": [dict(a.clipped) for a in self.applied],
            "unknown": [dict(a.unknown) for a in self.applied],
            "all_null": [list(a.all_null) for a in self.applied],
        }


@dataclass
class RunReport:
    """What a run did.

    Attributes:
        status: ``done``, or ``blocked`` when an ERROR check failed and nothing was published. In the report that is
            kept of a run that raised: ``failed``, ``partial`` or ``interrupted``.
        stages: where its time went, in order; complete once the run is over.
        error: what it raised.
        warnings: what went wrong beside the run, such as an alert that could not be delivered.
    """

    run_id: str
    pipeline: str
    status: str
    as_of: tuple[datetime, ...]
    created_timestamp: datetime
    sources: list[SourceReport] = field(default_factory=list)
    views: list[ViewReport] = field(default_factory=list)
    feast: dict[str, Any] | None = None
    stages: list[Lap] = field(default_factory=list)
    error: dict[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> dict[str, float]:
        """How long each kind of stage took."""
        sums: dict[str, float] = {}
        for lap in self.stages:
            sums[lap.stage] = sums.get(lap.stage, 0.0) + lap.seconds
        return sums

    @property
    def exit_code(self) -> int:
        return 0 if self.status == "done" else 1

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, in a stable order."""
        return {
            "version": 1,
            "run_id": self.run_id,
            "pipeline": self.pipeline,
            "status": self.status,
            "as_of": [iso(t) for t in self.as_of],
            "created_timestamp": iso(self.created_timestamp),
            "sources": [s.to_dict() for s in self.sources],
            "views": [v.to_dict() for v in self.views],
            "feast": self.feast,
            "seconds": {stage: round(s, 3) for stage, s in self.seconds.items()},
            "stages": [lap.to_dict() for lap in self.stages],
            "error": self.error,
            "warnings": list(self.warnings),
        }
