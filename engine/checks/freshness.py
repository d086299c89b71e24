"""Freshness: the newest row is not too old."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from engine.checks.check import Aggregate, CannotRun, Check, Found, Measures
from engine.checks.result import Result
from engine.types import iso

if TYPE_CHECKING:
    from engine.checks.table import Table

_TOLERATED = timedelta(minutes=5)


@dataclass(frozen=True)
class Freshness(Check):
    """as-of − newest timestamp <= ``max_age_hours``. Text is read as ISO 8601; texts that are not are left out."""

    family: ClassVar[str] = "freshness"
    whole_table = True

    max_age_hours: float

    @property
    def description(self) -> str:
        return f"newest {self.column} at most {self.max_age_hours:g} h old"

    def measures(self, table: Table) -> Measures:
        import polars as pl

        moment = table.moment(self.columns[0])
        future = moment > pl.lit(table.as_of + _TOLERATED)
        unreadable = table.unreadable(self.columns[0])
        return Measures(
            {
                "latest": Aggregate(moment.max(), "max"),
                "future": Aggregate(future.sum(), "sum"),
                "unreadable": Aggregate(unreadable.sum(), "sum"),
            }
        )

    def judge(self, found: Found, table: Table) -> Result:
        latest, future, unreadable = (found.values[name] for name in ("latest", "future", "unreadable"))
        if latest is None and unreadable:
            raise CannotRun(f"no text in the column {self.column!r} is an ISO 8601 date or timestamp")
        age = None if latest is None else table.as_of - latest
        hours = None if age is None else age / timedelta(hours=1)
        details: dict[str, Any] = {
            "age_hours": hours,
            "latest": latest,
            "max_age_hours": self.max_age_hours,
            "as_of": table.as_of,
            "future_timestamps": future,
        }
        if unreadable:
            details["unreadable"] = unreadable
        if hours is None:
            return self.result(False, f"{self.column}: there is no timestamp", details)
        message = f"{self.column}: the newest is {iso(latest)}, {hours:.3g} h old, allowed {self.max_age_hours:g} h"
        if future:
            message += f"; {future:,} are more than 5 minutes in the future"
        return self.result(hours <= self.max_age_hours, message, details)
