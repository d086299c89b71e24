"""Completeness: not too many nulls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from engine.checks.check import Found, RowWise, share

if TYPE_CHECKING:
    import polars as pl

    from engine.checks.table import Table


@dataclass(frozen=True)
class Completeness(RowWise):
    """At most ``threshold`` (a fraction of all rows) of a column is null or NaN; ``max_failed`` stands in its place."""

    family: ClassVar[str] = "completeness"

    threshold: float

    @property
    def description(self) -> str:
        return f"at most {self.max_failed or f'{100 * self.threshold:g} %'} of {self.column} null"

    def violation(self, table: Table) -> pl.Expr:
        return table.known(self.columns[0]).is_null()

    def says(self, found: Found) -> str:
        said = f"{share(found.failed, found.judged)} null"
        return said if self.max_failed else f"{said}, allowed {100 * self.threshold:g} %"

    def details(self, found: Found, table: Table) -> dict[str, Any]:  # noqa: ARG002
        fraction = found.failed / found.judged if found.judged else 0.0
        return {"nulls": found.failed, "null_fraction": fraction, "threshold": self.threshold}

    def allows(self, failed: int, judged: int) -> bool:
        if self.max_failed is not None:
            return self.max_failed.allows(failed, judged)
        return not judged or failed / judged <= self.threshold

    def failed_records(self, found: Found, passed: bool) -> int:
        """None while there are few enough nulls, unless ``max_failed`` says how many are."""
        return found.failed if self.max_failed or not passed else 0

    def counted(self, failed: int, judged: int) -> dict[str, Any]:
        details = super().counted(failed, judged)
        del details["failed_fraction"]  # it is the null_fraction
        return details
