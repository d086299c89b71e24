"""Foreign key: every value stands in a column of another source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from engine.checks.check import Found, RowWise, share

if TYPE_CHECKING:
    import polars as pl

    from engine.checks.table import Table


@dataclass(frozen=True)
class ForeignKey(RowWise):
    """Every non-null key stands in the columns ``to`` of ``source``; a key is null if any of its columns is."""

    family: ClassVar[str] = "foreign_key"

    key: tuple[str, ...]
    source: str
    to: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        return self.key

    @property
    def description(self) -> str:
        return f"{' + '.join(self.key)} in {self._target}"

    @property
    def _target(self) -> str:
        return f"{self.source}.{' + '.join(self.to)}"

    def violation(self, table: Table) -> pl.Expr:
        return table.absent(self.key, self.source, self.to)

    def says(self, found: Found) -> str:
        return f"{share(found.failed, found.judged)} rows refer to nothing in {self._target}"

    def details(self, found: Found, table: Table) -> dict[str, Any]:  # noqa: ARG002
        return {"source": self.source, "to": list(self.to)}
