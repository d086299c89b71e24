"""Not null: a column has a value in every row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from engine.checks.check import Found, RowWise, share

if TYPE_CHECKING:
    import polars as pl

    from engine.checks.table import Table


@dataclass(frozen=True)
class NotNull(RowWise):
    """No row has null or NaN in the column."""

    family: ClassVar[str] = "not_null"

    @property
    def description(self) -> str:
        return f"{self.column} never null"

    def violation(self, table: Table) -> pl.Expr:
        return table.known(self.columns[0]).is_null()

    def says(self, found: Found) -> str:
        return f"{share(found.failed, found.judged)} null"
