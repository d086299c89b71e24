"""Increasing: values do not fall from row to row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from engine.checks.check import CannotRun, Found, RowWise, share

if TYPE_CHECKING:
    import polars as pl

    from engine.checks.table import Table


@dataclass(frozen=True)
class Increasing(RowWise):
    """No non-null value is below (``strict``: or equal to) the last non-null one before it, in the order read.

    With ``where``, only rows that it is true of are compared, with each other.
    """

    family: ClassVar[str] = "increasing"

    strict: bool

    @property
    def description(self) -> str:
        return f"{self.column} {'always rises' if self.strict else 'never falls'}"

    def violation(self, table: Table) -> pl.Expr:
        import polars as pl

        name = self.columns[0]
        dtype = table.schema[name]
        if dtype.is_nested() or dtype.is_object():
            raise CannotRun(f"the column {name!r} is {dtype}, whose values have no order")
        if dtype == pl.Null:
            return pl.lit(False)
        before, values = table.previous(name, self.where), table.orderable(name)
        return values <= before if self.strict else values < before

    def says(self, found: Found) -> str:
        what = "do not rise above" if self.strict else "fall below"
        return f"{share(found.failed, found.judged)} values {what} the one before"

    def details(self, found: Found, table: Table) -> dict[str, Any]:  # noqa: ARG002
        return {"strict": self.strict}
