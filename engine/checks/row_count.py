"""Row count: the table is not suspiciously small."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from engine.checks.check import Check, Found, Measures
from engine.checks.result import Result

if TYPE_CHECKING:
    from engine.checks.table import Table


@dataclass(frozen=True)
class RowCount(Check):
    """The table has at least ``min_rows`` rows."""

    family: ClassVar[str] = "row_count"
    whole_table = True

    min_rows: int

    @property
    def description(self) -> str:
        return f"at least {self.min_rows:,} rows"

    def measures(self, table: Table) -> Measures:  # noqa: ARG002 - every scan counts the rows
        return Measures()

    def judge(self, found: Found, table: Table) -> Result:  # noqa: ARG002
        details = {"rows": table.rows, "min_rows": self.min_rows}
        message = f"{table.rows:,} rows, at least {self.min_rows:,} expected"
        return self.result(table.rows >= self.min_rows, message, details)
