"""Compare: two columns of a row stand in an order to each other."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from engine.checks.check import CannotRun, Found, RowWise, share

if TYPE_CHECKING:
    import polars as pl

    from engine.checks.table import Table

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    ">": operator.gt,
}


@dataclass(frozen=True)
class Compare(RowWise):
    """``left operator right`` in every row in which both have a value.

    Numbers are compared exactly, whatever their types; dates, timestamps and ISO 8601 texts as moments in UTC (two
    texts as texts).
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
        compare = _OPERATORS[self.operator]
        if len(left) == 1:
            holds: pl.Expr = compare(left[0], right[0])
            return ~holds
        equal = (left[0] == right[0]) & (left[1] == right[1])
        if self.operator in ("==", "!="):
            return equal if self.operator == "!=" else ~equal
        beyond: pl.Expr = _OPERATORS[self.operator[0]](left[0], right[0])
        tied: pl.Expr = compare(left[1], right[1])
        return ~(beyond | ((left[0] == right[0]) & tied))

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
    text = (pl.String, pl.Categorical, pl.Enum)
    if pl.Null in types:
        return (pl.lit(None, pl.Int64),), (pl.lit(None, pl.Int64),)
    if all(dtype in text for dtype in types):
        return (values[0].cast(pl.String),), (values[1].cast(pl.String),)
    if any(dtype in (pl.Date, pl.Datetime) for dtype in types):
        return (table.moment(left),), (table.moment(right),)
    if all(dtype.is_float() for dtype in types):
        return (values[0].cast(pl.Float64),), (values[1].cast(pl.Float64),)
    if all(dtype.is_integer() for dtype in types):
        return (values[0].cast(pl.Int128),), (values[1].cast(pl.Int128),)
    if all(dtype.is_integer() or dtype.is_float() for dtype in types):
        (a, b), (c, d) = (_parts(v, t) for v, t in zip(values, types, strict=True))
        return (a, b), (c, d)
    if all(dtype.is_integer() or dtype.is_decimal() for dtype in types):
        scale = max(getattr(dtype, "scale", 0) for dtype in types)
        if any(_digits(dtype) + scale - getattr(dtype, "scale", 0) > 38 for dtype in types):
            raise CannotRun(f"{left!r} is {types[0]} and {right!r} is {types[1]}, which together exceed 38 digits")
        scaled = [_scaled(v, t, scale) for v, t in zip(values, types, strict=True)]
        return (scaled[0],), (scaled[1],)
    if types[0] == types[1] and not (types[0].is_nested() or types[0].is_object()):
        return (values[0],), (values[1],)
    raise CannotRun(f"{left!r} is {types[0]} and {right!r} is {types[1]}, which cannot be compared")


def _parts(values: pl.Expr, dtype: pl.DataType) -> tuple[pl.Expr, pl.Expr]:
    """A number as a whole one and a fraction in [0, 1); beyond 2^126, where all floats are whole, as its bounds."""
    import polars as pl

    if dtype.is_integer():
        return values.cast(pl.Int128), pl.when(values.is_not_null()).then(pl.lit(0.0))
    values = values.cast(pl.Float64)
    whole = values.floor().clip(-(2.0**126), 2.0**126)
    fraction = pl.when(values.is_infinite()).then(pl.lit(0.0)).otherwise(values - values.floor())
    return whole.cast(pl.Int128), fraction


def _digits(dtype: pl.DataType) -> int:
    return int(dtype.precision) if dtype.is_decimal() else 20  # type: ignore[attr-defined]


def _scaled(values: pl.Expr, dtype: pl.DataType, scale: int) -> pl.Expr:
    """A decimal or whole number times 10^scale, as a whole number."""
    import polars as pl

    whole = values.to_physical() if dtype.is_decimal() else values
    factor = 10 ** (scale - int(getattr(dtype, "scale", 0)))
    return whole.cast(pl.Int128) * pl.lit(factor, dtype=pl.Int128)
