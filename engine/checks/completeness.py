"""Completeness: not too many nulls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from engine.checks.check import Check, Found, Measures, share
from engine.checks.result import Result

if TYPE_CHECKING:
    from engine.checks.table import Table


@dataclass(frozen=True)
class Completeness(Check):
    """At most ``threshold`` (a fraction of all rows) of a column is null or NaN."""

    family: ClassVar[str] = "completeness"

    threshold: float

    @property
    def description(self) -> str:
        return f"at most {100 * self.threshold:g} % of {self.column} null"

    def measures(self, table: Table) -> Measures:
        return Measures(violation=table.known(self.columns[0]).is_null())

    def judge(self, found: Found, table: Table) -> Result:
        nulls = found.failed
        fraction = nulls / table.rows if table.rows else 0.0
        details = {"nulls": nulls, "null_fraction": fraction, "threshold": self.threshold}
        message = f"{self.column}: {share(nulls, table.rows)} null, allowed {100 * self.threshold:g} %"
        if fraction <= self.threshold:
            return self.result(True, message, details)
        return self.result(False, message, details, failed_records=nulls, sample=found.sample)
