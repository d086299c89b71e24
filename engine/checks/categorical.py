"""Categorical: every value is one of a set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar

from engine.checks.check import Found, Measures, RowWise, share
from engine.checks.numbers import exact, limits, nearest_float
from engine.checks.result import json_ready

if TYPE_CHECKING:
    import polars as pl

    from engine.checks.table import Table

Category = str | bool | int | float
_SHOWN = 20


@dataclass(frozen=True)
class Categorical(RowWise):
    """Every non-null value is one of ``allowed``, compared exactly.

    1 and 1.0 are the same number; the text ``"1"``, the number 1 and ``true`` are three different values, so a
    column of a type that no allowed value has fails in every non-null row.
    """

    family: ClassVar[str] = "categorical"

    allowed: tuple[Category, ...]

    @property
    def description(self) -> str:
        shown = ", ".join(str(json_ready(value)) for value in self.allowed[:_SHOWN])
        return f"{self.column} one of {shown}{', …' if len(self.allowed) > _SHOWN else ''}"

    def measures(self, table: Table) -> Measures:
        return replace(super().measures(table), frequent=self.columns[0])

    def says(self, found: Found) -> str:
        return f"{share(found.failed, found.judged)} values outside the allowed {len(self.allowed)}"

    def details(self, found: Found, table: Table) -> dict[str, Any]:  # noqa: ARG002
        return {
            "allowed_values": list(self.allowed),
            "invalid_values": [{"value": value, "count": count} for value, count in found.frequent[:_SHOWN]],
        }

    def explanation(self, details: Mapping[str, Any], table: Table) -> str:
        frequent = [(json_ready(invalid["value"]), invalid["count"]) for invalid in details["invalid_values"][:3]]
        said = "; most frequent: " + ", ".join(f"{value!r} ({count:,})" for value, count in frequent)
        dtype = table.schema[self.columns[0]]
        if not _like(self.allowed, dtype):
            said += f"; the column is {dtype}, which none of the allowed values is"
        return said

    def violation(self, table: Table) -> pl.Expr:
        import polars as pl

        name = self.columns[0]
        dtype = table.schema[name]
        values, alike = table.known(name), _like(self.allowed, dtype)
        if not alike:
            return values.is_not_null()
        if dtype in (pl.Categorical, pl.Enum):
            values, dtype = values.cast(pl.String), pl.String()
        elif isinstance(dtype, pl.Decimal):
            values, dtype = values.to_physical(), pl.Int128()
        elif dtype.is_float():
            values, dtype = values.cast(pl.Float64), pl.Float64()
        return ~values.is_in(pl.lit(pl.Series(alike, dtype=dtype).implode()))


def _like(allowed: Sequence[Category], dtype: pl.DataType) -> list[Any]:
    """The allowed values that a column of ``dtype`` can hold, as it holds them (decimals as whole numbers)."""
    import polars as pl

    if dtype in (pl.String, pl.Categorical, pl.Enum):
        return [value for value in allowed if isinstance(value, str)]
    if dtype == pl.Boolean:
        return [value for value in allowed if isinstance(value, bool)]
    numbers = [value for value in allowed if isinstance(value, int | float) and not isinstance(value, bool)]
    if dtype.is_float():
        return [nearest_float(number) for number in numbers if nearest_float(number) == number]
    if isinstance(dtype, pl.Decimal):
        least, most, scale = -(10**dtype.precision) + 1, 10**dtype.precision - 1, dtype.scale
    elif dtype.is_integer():
        least, most, scale = *limits(dtype), 0
    else:
        return []
    scaled = [Fraction(exact(number)) * 10**scale for number in numbers]
    return [int(number) for number in scaled if number.denominator == 1 and least <= number <= most]
