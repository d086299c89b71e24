"""Compare: two columns of a row stand in an order to each other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from engine.checks.check import CannotRun, Found, RowWise, share

if TYPE_CHECKING:
    import polars as pl

    from engine.checks.table import Table


@dataclass(frozen=True)
class Compare(RowWise):
    """``left operator right`` in every row in which both have a value.

    Whole numbers, floats and decimals are compared exactly with their like and with whole numbers (a float with a
    decimal is not: a custom rule says how); dates, timestamps of any unit and ISO 8601 texts as moments in UTC, two
    texts as texts. A text that is no moment breaks the check.
    """

    family: ClassVar[str] = "compare"

    left: str
    operator: str
    right: str

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.left, self.right)

    @property
    def description(self) -> str:
        return f"{self.left} {self.operator} {self.right}"

    def violation(self, table: Table) -> pl.Expr:
        left, right = _pair(table, self.left, self.right)
        equal, below, above = left[0] == right[0], left[0] < right[0], left[0] > right[0]
        if len(left) > 1:
            below, above = below | (equal & (left[1] < right[1])), above | (equal & (left[1] > right[1]))
            equal &= left[1] == right[1]
        broken = {
            "<": above | equal, "<=": above, "==": below | above, "!=": equal, ">=": below, ">": below | equal,
        }[self.operator]  # fmt: skip
        unreadable = _unreadable(table, self.left, self.right)
        return broken if unreadable is None else broken.fill_null(value=False) | unreadable

    def says(self, found: Found) -> str:
        return f"{share(found.failed, found.judged)} rows break it"

    def details(self, found: Found, table: Table) -> dict[str, Any]:  # noqa: ARG002
        return {"left": self.left, "operator": self.operator, "right": self.right}


def _pair(table: Table, left: str, right: str) -> tuple[tuple[pl.Expr, ...], tuple[pl.Expr, ...]]:
    """Both columns in forms that compare exactly: one expression each, or whole numbers and what is beyond them.

    Raises:
        CannotRun: values of their types have no order to each other.
    """
    import polars as pl

    types = [table.schema[left], table.schema[right]]
    values = [table.known(left), table.known(right)]
    numbers = all(dtype.is_numeric() for dtype in types)
    if pl.Null in types:
        return (pl.lit(None, pl.Int64),), (pl.lit(None, pl.Int64),)
    if all(dtype in (pl.String, pl.Categorical, pl.Enum) for dtype in types):
        return (values[0].cast(pl.String),), (values[1].cast(pl.String),)
    if any(dtype in (pl.Date, pl.Datetime) for dtype in types):
        return (_nanoseconds(table, left),), (_nanoseconds(table, right),)
    if all(dtype == pl.Duration for dtype in types):
        spans = [
            value.to_physical().cast(pl.Int128) * _PER_UNIT[_unit(t)] for value, t in zip(values, types, strict=True)
        ]
        return (spans[0],), (spans[1],)
    if types[0] == types[1] and not (types[0].is_nested() or types[0].is_object()):
        return (values[0],), (values[1],)
    if numbers and all(dtype.is_float() for dtype in types):
        return (values[0].cast(pl.Float64),), (values[1].cast(pl.Float64),)
    mixed = any(dtype.is_float() for dtype in types) and any(dtype.is_decimal() for dtype in types)
    if not numbers or mixed or pl.UInt128 in types:
        raise CannotRun(f"{left!r} is {types[0]} and {right!r} is {types[1]}, which cannot be compared")
    scale = max(getattr(dtype, "scale", 0) for dtype in types)
    one, other = (_parts(value, dtype, scale) for value, dtype in zip(values, types, strict=True))
    return one, other


def _unreadable(table: Table, left: str, right: str) -> pl.Expr | None:
    """Rows in which one side is a text that is no moment and the other has a value; None: there can be none."""
    import polars as pl

    text = [table.schema[name] in (pl.String, pl.Categorical, pl.Enum) for name in (left, right)]
    if sum(text) != 1 or pl.Null in (table.schema[left], table.schema[right]):
        return None
    one, other = (left, right) if text[0] else (right, left)
    return table.unreadable(one) & table.known(other).is_not_null()


def _parts(values: pl.Expr, dtype: pl.DataType, scale: int) -> tuple[pl.Expr, pl.Expr]:
    """A number as the whole number below it and what is beyond that, which is a float or a count of 10^-scale."""
    import polars as pl

    if dtype.is_integer():
        return values.cast(pl.Int128), pl.when(values.is_not_null()).then(pl.lit(0))
    if dtype.is_decimal():
        own = int(getattr(dtype, "scale", 0))
        physical, unit = values.to_physical(), pl.lit(10**own, dtype=pl.Int128)
        whole = physical // unit
        return whole, (physical - whole * unit) * pl.lit(10 ** (scale - own), dtype=pl.Int128)
    values = values.cast(pl.Float64)
    whole, end = values.floor(), 2.0**127  # whole numbers end there, on both sides; floats go on
    held = whole.clip(-end, math.nextafter(end, 0)).cast(pl.Int128)
    held = pl.when(whole >= end).then(pl.lit(2**127 - 1, dtype=pl.Int128)).otherwise(held)
    beyond = pl.when(whole >= end).then(1.0).when(whole < -end).then(-1.0).otherwise(values - whole)
    return held, beyond


def _nanoseconds(table: Table, name: str) -> pl.Expr:
    """A column of moments as exact nanoseconds since 1970.

    Raises:
        CannotRun: its type holds no points in time.
    """
    import polars as pl

    dtype = table.schema[name]
    if isinstance(dtype, pl.Datetime):
        return table.known(name).to_physical().cast(pl.Int128) * _PER_UNIT[_unit(dtype)]
    if dtype == pl.Date:
        return table.known(name).to_physical().cast(pl.Int128) * _PER_DAY
    return table.moment(name).to_physical().cast(pl.Int128) * _PER_UNIT["us"]


def _unit(dtype: pl.DataType) -> str:
    return str(dtype.time_unit)  # type: ignore[attr-defined]


_PER_UNIT = {"ms": 1_000_000, "us": 1_000, "ns": 1}
_PER_DAY = 86_400_000_000_000
