"""Range: every value lies between a minimum and a maximum, both allowed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date, datetime
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar

from engine.checks.check import Aggregate, CannotRun, Found, RowWise, share
from engine.checks.numbers import exact, limits, nearest_float
from engine.checks.result import json_ready
from engine.types import epoch_microseconds, parse_moment

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from engine.checks.table import Table

Bound = int | float | str | date | datetime | None
_PER_MICROSECOND = {"ms": Fraction(1, 1_000), "us": Fraction(1), "ns": Fraction(1_000)}
_MICROSECONDS_A_DAY = 86_400_000_000


@dataclass(frozen=True)
class Range(RowWise):
    """``low <= value <= high`` for every non-null value; a bound of None is an open end.

    Compared exactly, without a detour over floats: a bound of 0.5 on whole numbers, whole numbers beyond 2^53 and
    decimals all mean what they say (a bound written ``0.1`` is one tenth to a decimal column). A date as a bound is
    its midnight UTC. A text column takes moments as bounds and is read as ISO 8601; a text that cannot be read
    breaks the check.
    """

    family: ClassVar[str] = "range"

    low: Bound
    high: Bound

    @property
    def description(self) -> str:
        return f"{self.column} in {self._interval}"

    def violation(self, table: Table) -> pl.Expr:
        name = self.columns[0]
        if self._of_moments:
            _, violation, unreadable = self._moments(table, name)
            return violation | unreadable
        return self._numbers(table.known(name), table.schema[name])

    def values(self, table: Table) -> Mapping[str, Aggregate]:
        name = self.columns[0]
        if not self._of_moments:
            values = table.known(name)
            return {"min": Aggregate(values.min(), "min"), "max": Aggregate(values.max(), "max")}
        values, _, unreadable = self._moments(table, name)
        return {
            "min": Aggregate(values.min(), "min"),
            "max": Aggregate(values.max(), "max"),
            "unreadable": Aggregate(unreadable.sum(), "sum"),
            "known": Aggregate(values.count(), "sum"),
        }

    def says(self, found: Found) -> str:
        said = f"{share(found.failed, found.judged)} values outside {self._interval}"
        unreadable = found.values.get("unreadable")
        return f"{said}, {unreadable:,} of them no date or timestamp" if unreadable else said

    def details(self, found: Found, table: Table) -> dict[str, Any]:  # noqa: ARG002
        unreadable = found.values.get("unreadable")
        if unreadable and not found.values["known"]:
            raise CannotRun(f"no text in the column {self.column!r} is an ISO 8601 date or timestamp")
        details: dict[str, Any] = {
            "expected_range": [self.low, self.high],
            "actual_range": [found.values["min"], found.values["max"]],
        }
        return details | {"unreadable": unreadable} if unreadable else details

    def explanation(self, details: Mapping[str, Any], table: Table) -> str:  # noqa: ARG002
        low, high = (json_ready(value) for value in details["actual_range"])
        return f"; values run from {low} to {high}"

    @property
    def _of_moments(self) -> bool:
        moments = any(isinstance(b, str | date) for b in (self.low, self.high))
        if moments and any(isinstance(b, int | float) for b in (self.low, self.high)):
            raise CannotRun(f"the range {self._interval} mixes a number and a moment")
        return moments

    @property
    def _interval(self) -> str:
        low, high = ("…" if bound is None else json_ready(bound) for bound in (self.low, self.high))
        return f"[{low}, {high}]"

    def _numbers(self, values: pl.Expr, dtype: pl.DataType) -> pl.Expr:
        import polars as pl

        low, high = self.low, self.high
        assert not isinstance(low, str | date)  # noqa: S101 - `_of_moments` has seen to it
        assert not isinstance(high, str | date)  # noqa: S101
        if dtype == pl.Null:
            return pl.lit(False)
        if dtype.is_float():
            return _outside_floats(values.cast(pl.Float64), low, high)
        if isinstance(dtype, pl.Decimal):
            scaled = [None if b is None else exact(b) * 10**dtype.scale for b in (low, high)]
            return _outside_integers(values.to_physical(), pl.Int128(), *scaled)
        if dtype.is_integer():
            return _outside_integers(values, dtype, *(None if b is None else exact(b) for b in (low, high)))
        raise CannotRun(f"the column {self.column!r} is {dtype}, the bounds {self._interval} are numbers")

    def _moments(self, table: Table, name: str) -> tuple[pl.Expr, pl.Expr, pl.Expr]:
        """The values to show, whether they lie outside, and whether they cannot be read."""
        import polars as pl

        from engine.frames import column

        dtype = table.schema[name]
        bounds = [None if b is None else Fraction(epoch_microseconds(_moment(b))) for b in (self.low, self.high)]
        values, unreadable = column(name), pl.lit(False)
        if dtype == pl.Date:
            bounds = [None if b is None else b / _MICROSECONDS_A_DAY for b in bounds]
        elif isinstance(dtype, pl.Datetime):
            bounds = [None if b is None else b * _PER_MICROSECOND[dtype.time_unit] for b in bounds]
        elif dtype in (pl.String, pl.Categorical, pl.Enum):
            values, unreadable = table.moment(name), table.unreadable(name)
        elif dtype == pl.Null:
            values = values.cast(pl.Date)
        else:
            raise CannotRun(f"the column {self.column!r} is {dtype}, the bounds {self._interval} are moments")
        physical = values.to_physical()
        wide = pl.Int32() if dtype in (pl.Date, pl.Null) else pl.Int64()
        return values, _outside_integers(physical, wide, *bounds), unreadable


def _moment(bound: Bound) -> datetime:
    assert isinstance(bound, str | date)  # noqa: S101 - `_of_moments` has seen to it
    return parse_moment(bound)


def _outside_integers(
    values: pl.Expr, dtype: pl.DataType, low: Fraction | float | None, high: Fraction | float | None
) -> pl.Expr:
    """Whether whole numbers of ``dtype`` lie below ``low`` or above ``high``."""
    import polars as pl

    least, most = limits(dtype)
    outside = pl.lit(False)
    if low is not None and low > least:
        outside |= values < pl.lit(math.ceil(low), dtype=dtype) if low <= most else values.is_not_null()
    if high is not None and high < most:
        outside |= values > pl.lit(math.floor(high), dtype=dtype) if high >= least else values.is_not_null()
    return outside


def _outside_floats(values: pl.Expr, low: float | None, high: float | None) -> pl.Expr:
    """Whether 64-bit floats lie below ``low`` or above ``high``, of which either may be a whole number of any size."""
    import polars as pl

    outside = pl.lit(False)
    if low is not None:
        least = nearest_float(low)
        outside |= values < (least if least >= low else math.nextafter(least, math.inf))
    if high is not None:
        most = nearest_float(high)
        outside |= values > (most if most <= high else math.nextafter(most, -math.inf))
    return outside
