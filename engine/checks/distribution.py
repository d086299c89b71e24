"""Distribution: the mean of a column is about what it should be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from engine.checks.check import Aggregate, CannotRun, Check, Found, Measures
from engine.checks.result import Result

if TYPE_CHECKING:
    from engine.checks.table import Table


@dataclass(frozen=True)
class Distribution(Check):
    """|mean − expected| / |expected| <= tolerance; for an expected mean of 0, |mean| <= tolerance.

    The mean is over non-null values, in 64-bit floats; false and true count as 0 and 1. No value at all fails.
    """

    family: ClassVar[str] = "distribution"
    whole_table = True

    expected_mean: float
    tolerance: float

    @property
    def description(self) -> str:
        if self.expected_mean == 0:
            return f"mean of {self.column} within {self.tolerance:g} of 0"
        return f"mean of {self.column} within {100 * self.tolerance:g} % of {self.expected_mean:g}"

    def measures(self, table: Table) -> Measures:
        import polars as pl

        name = self.columns[0]
        dtype = table.schema[name]
        if not (dtype.is_numeric() or dtype in (pl.Boolean, pl.Null)):
            raise CannotRun(f"the column {name!r} is {dtype}, which has no mean")
        values = table.known(name).cast(pl.Float64)
        return Measures({"sum": Aggregate(values.sum(), "sum"), "count": Aggregate(values.count(), "sum")})

    def judge(self, found: Found, table: Table) -> Result:  # noqa: ARG002
        count = found.values["count"]
        mean = found.values["sum"] / count if count else None
        deviation = None if mean is None else abs(mean - self.expected_mean) / (abs(self.expected_mean) or 1.0)
        details: dict[str, Any] = {
            "expected_mean": self.expected_mean,
            "actual_mean": mean,
            "deviation": deviation,
            "tolerance": self.tolerance,
        }
        if deviation is None:
            return self.result(False, f"{self.column}: there is no value to take the mean of", details)
        message = (
            f"{self.column}: the mean is {mean:.6g}, expected {self.expected_mean:g}; "
            f"deviation {deviation:.3g}, allowed {self.tolerance:g}"
        )
        return self.result(deviation <= self.tolerance, message, details)
