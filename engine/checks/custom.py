"""Custom: a rule that the user writes, in SQL or as a Polars expression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from engine.checks.check import Found, RowWise, share

if TYPE_CHECKING:
    import polars as pl

    from engine.checks.table import Table


@dataclass(frozen=True)
class Custom(RowWise):
    """A boolean expression holds in every row: false breaks it, null does not.

    ``sql`` is DuckDB's, over the columns of one row; ``function`` (``module:name``) is called without arguments and
    gives a Polars expression that treats rows one by one.
    """

    family: ClassVar[str] = "custom"

    sql: str | None
    function: str | None

    @property
    def columns(self) -> tuple[str, ...]:
        return ()  # `Table` finds out what the expression names

    @property
    def description(self) -> str:
        return f"{self.column}: {self.expression}"

    @property
    def expression(self) -> str:
        return self.sql if self.sql is not None else f"{self.function}()"

    def violation(self, table: Table) -> pl.Expr:
        return ~(table.calculated(self.function) if self.function else table.truth(self.expression))

    def says(self, found: Found) -> str:
        return f"{share(found.failed, found.judged)} rows break the rule"

    def details(self, found: Found, table: Table) -> dict[str, Any]:  # noqa: ARG002
        return {"expression": self.expression}
