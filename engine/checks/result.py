"""What the checks found: one `Result` per check, one `Report` per table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from html import escape
from typing import Any

from engine.types import Severity, iso

VERSION = 1  # of the JSON form; `engine.checks.shape` describes it


@dataclass(frozen=True)
class Result:
    """What one check found.

    Attributes:
        check_name: the family's name, such as ``range_validation``.
        passed: whether the table fulfils the check.
        severity: of a failed check; ``info`` for one that passed.
        message: one line for people.
        failed_records: rows that break the check; 0 for checks that judge the table as a whole.
        details: what was measured, by name, as Python values.
        column: the column, or the columns of a compound key joined by commas; None for checks of the whole table.
        sample: the first few failing rows, each with its position (``row``, from 0), the key columns and the
            checked columns.
    """

    check_name: str
    passed: bool
    severity: Severity
    message: str
    failed_records: int = 0
    details: Mapping[str, Any] = field(default_factory=dict)
    column: str | None = None
    sample: tuple[Mapping[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """What the declaration calls the check: ``range.score``, or ``schema`` for one of the whole table."""
        family = self.check_name.removesuffix("_validation")
        return family if self.column is None else f"{family}.{self.column}"

    @property
    def cannot_run(self) -> bool:
        """Whether the check says nothing about the data: it failed because it could not be made."""
        return bool(self.details.get("cannot_run"))

    @property
    def failed_fraction(self) -> float | None:
        """The share of the rows judged that break the check; None for checks that do not count rows."""
        known = (self.details.get(name) for name in ("failed_fraction", "null_fraction", "duplicate_fraction"))
        return next((fraction for fraction in known if isinstance(fraction, float)), None)

    def __str__(self) -> str:
        mark = "passed" if self.passed else str(self.severity).upper()
        return f"{mark} {self.name}: {self.message.removeprefix(f'{self.column}: ')}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values in the order of the attributes."""
        return {
            "check_name": self.check_name,
            "passed": self.passed,
            "severity": str(self.severity),
            "message": self.message,
            "failed_records": self.failed_records,
            "details": json_ready(self.details),
            "column": self.column,
            "sample": json_ready(self.sample),
        }


@dataclass(frozen=True, repr=False)
class Report:
    """All results for one table. ``print(report)`` shows what failed, with examples.

    Attributes:
        timestamp: when the checks had been made.
        results: in the order of the declaration.
        rows: how many the row-wise checks judged; None where results of several calls were put together.
        quarantined, dropped: those among them that ``on_violation`` takes out.
        seconds: what judging took.
    """

    timestamp: datetime
    results: tuple[Result, ...]
    rows: int | None = None
    quarantined: int = 0
    dropped: int = 0
    seconds: float = 0.0

    @property
    def total_checks(self) -> int:
        return len(self.results)

    @property
    def passed(self) -> int:
        """How many checks passed; for the verdict see `ok`."""
        return sum(r.passed for r in self.results)

    @property
    def failed(self) -> int:
        return self.total_checks - self.passed

    @property
    def errors(self) -> int:
        """How many checks failed as errors."""
        return self._failed_as(Severity.ERROR)

    @property
    def warnings(self) -> int:
        """How many checks failed as warnings."""
        return self._failed_as(Severity.WARNING)

    @property
    def ok(self) -> bool:
        """Whether no check failed as an error."""
        return self.errors == 0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values in a stable order; their JSON Schema is `engine.checks.shape.SCHEMA`."""
        return {
            "version": VERSION,
            "timestamp": iso(self.timestamp),
            "rows": self.rows,
            "quarantined": self.quarantined,
            "dropped": self.dropped,
            "seconds": round(self.seconds, 3),
            "total_checks": self.total_checks,
            "passed": self.passed,
            "failed": self.failed,
            "errors": self.errors,
            "warnings": self.warnings,
            "results": [r.to_dict() for r in self.results],
        }

    def __repr__(self) -> str:
        from engine.checks.listing import sums

        return f"<Report: {sums(self)}>"

    def __str__(self) -> str:
        from engine.checks.listing import text

        return text(self)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"

    def _failed_as(self, severity: Severity) -> int:
        return sum(not r.passed and r.severity == severity for r in self.results)


def json_ready(value: Any) -> Any:
    """``value`` as strict JSON can hold it.

    NaN is null, as everywhere; infinities are the texts ``inf`` and ``-inf``; decimals keep their digits as text;
    moments are ISO 8601, those with a zone in UTC; spans of time are seconds; bytes are hexadecimal.
    """
    if isinstance(value, bool | str | int) or value is None:
        return value
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(k): json_ready(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(v) for v in value]
    if isinstance(value, datetime):
        return iso(value) if value.tzinfo else value.isoformat()
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Decimal):
        return str(value)
    return json_ready(value.to_list()) if hasattr(value, "to_list") else str(value)
