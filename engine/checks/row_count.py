"""Row count: the table is neither suspiciously small nor suspiciously large."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from engine.checks.check import Check, Found, Measures
from engine.checks.result import Result

if TYPE_CHECKING:
    from engine.checks.table import Table


@dataclass(frozen=True)
class RowCount(Check):
    """The table has at least ``min_rows`` rows, and at most ``max_rows`` where that is no None."""

    family: ClassVar[str] = "row_count"
    whole_table = True

    min_rows: int
    max_rows: int | None = None

    @property
    def description(self) -> str:
        if self.max_rows is None:
            return f"at least {self.min_rows:,} rows"
        return f"{self.min_rows:,} to {self.max_rows:,} rows"

    def measures(self, table: Table) -> Measures:  # noqa: ARG002 - every scan counts the rows
        return Measures()

    def judge(self, found: Found, table: Table) -> Result:  # noqa: ARG002
        rows, most = table.rows, self.max_rows
        details = {"rows": rows, "min_rows": self.min_rows} | ({} if most is None else {"max_rows": most})
        message = f"{rows:,} rows, {self.description.removesuffix(' rows')} expected"
        return self.result(self.min_rows <= rows and (most is None or rows <= most), message, details)
