"""Length: texts, lists and binary values are neither too short nor too long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from engine.checks.check import Aggregate, CannotRun, Found, RowWise, share

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from engine.checks.table import Table


@dataclass(frozen=True)
class Length(RowWise):
    """``low <= length <= high`` of every non-null value: characters (code points), elements or bytes."""

    family: ClassVar[str] = "length"

    low: int | None
    high: int | None

    @property
    def description(self) -> str:
        return f"length of {self.column} in {self._interval}"

    @property
    def _interval(self) -> str:
        low, high = ("…" if bound is None else bound for bound in (self.low, self.high))
        return f"[{low}, {high}]"

    def violation(self, table: Table) -> pl.Expr:
        import polars as pl

        length = self._length(table)
        outside = pl.lit(False)
        if self.low is not None:
            outside |= length < self.low
        if self.high is not None:
            outside |= length > self.high
        return outside

    def values(self, table: Table) -> Mapping[str, Aggregate]:
        length = self._length(table)
        return {"min": Aggregate(length.min(), "min"), "max": Aggregate(length.max(), "max")}

    def says(self, found: Found) -> str:
        return f"{share(found.failed, found.judged)} values of a length outside {self._interval}"

    def details(self, found: Found, table: Table) -> dict[str, Any]:  # noqa: ARG002
        return {
            "expected_lengths": [self.low, self.high],
            "actual_lengths": [found.values["min"], found.values["max"]],
        }

    def explanation(self, details: Mapping[str, Any], table: Table) -> str:  # noqa: ARG002
        low, high = details["actual_lengths"]
        return f"; lengths run from {low} to {high}"

    def _length(self, table: Table) -> pl.Expr:
        import polars as pl

        name = self.columns[0]
        dtype = table.schema[name]
        values = table.known(name)
        if dtype == pl.Null:
            return values.cast(pl.UInt32)
        if dtype in (pl.String, pl.Categorical, pl.Enum):
            return values.cast(pl.String).str.len_chars()
        if dtype == pl.Binary:
            return values.bin.size()
        if isinstance(dtype, pl.List):
            return values.list.len()
        if isinstance(dtype, pl.Array):
            return values.arr.to_list().list.len()
        raise CannotRun(f"the column {name!r} is {dtype}, which has no length")
