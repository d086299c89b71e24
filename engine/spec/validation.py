"""The checks of a table as they are declared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from engine.errors import Problem
from engine.spec.rules import Place, unknown
from engine.spec.scalars import (
    BOUND_TEXT,
    Bound,
    Category,
    Column,
    Columns,
    Finite,
    Key,
    Spec,
    Text,
    TypeName,
    unique,
)
from engine.types import parse_moment

FAMILIES = (
    "schema",
    "completeness",
    "uniqueness",
    "range",
    "categorical",
    "freshness",
    "distribution",
    "row_count",
)


class Freshness(Spec):
    """How old the newest row may be."""

    timestamp_column: Column
    max_age_hours: Annotated[Finite, Field(gt=0)] = 24.0


class Expected(Spec):
    """The mean a column should have."""

    expected_mean: Finite
    tolerance: Annotated[Finite, Field(ge=0, description="allowed |mean − expected| / |expected|")] = 0.2


def _expected(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"expected_mean": float(value)}
    return value


class ValidationSpec(Spec):
    """The checks of one table. Null never violates range, categorical or uniqueness: completeness is about nulls."""

    schema_: Annotated[
        dict[Column, TypeName],
        Field(
            alias="schema",
            description="column: int, float, string, bool, datetime, date, decimal, list, or an exact type",
        ),
    ] = {}
    required_columns: Annotated[Columns, Field(description="completeness: columns that must hold values")] = ()
    max_null_percentage: Annotated[
        Finite, Field(ge=0, le=1, description="a fraction: 0.05 allows 5 % of nulls in required_columns")
    ] = 0.05
    unique_columns: Annotated[
        tuple[Key, ...],
        Field(strict=False, description="each entry one check; a nested list is one compound key"),
        AfterValidator(unique),
    ] = ()
    range_constraints: Annotated[
        dict[Column, Annotated[tuple[Bound, Bound], Field(strict=False)]],
        Field(description="column: [min, max], both included; null is an open end"),
    ] = {}
    categorical_constraints: Annotated[
        dict[Column, Annotated[tuple[Category, ...], Field(strict=False, min_length=1)]],
        Field(description="column: allowed values, compared exactly"),
    ] = {}
    freshness: Freshness | None = None
    distribution: Annotated[
        dict[Column, Annotated[Expected, BeforeValidator(_expected, json_schema_input_type=float | Expected)]],
        Field(description="column: expected mean, or {expected_mean, tolerance}"),
    ] = {}
    min_rows: Annotated[int, Field(ge=0, description="fewest rows the whole table may have")] = 1
    severity: Annotated[
        dict[Text, Literal["error", "warning", "info"]],
        Field(description="family or family.column: severity of a failed check"),
    ] = {}

    def columns(self, family: str) -> tuple[str, ...]:
        """The columns (or comma-joined compound keys) that a family's checks are named after."""
        table: dict[str, tuple[str, ...]] = {
            "schema": tuple(self.schema_),
            "completeness": self.required_columns,
            "uniqueness": tuple(k if isinstance(k, str) else ",".join(k) for k in self.unique_columns),
            "range": tuple(self.range_constraints),
            "categorical": tuple(self.categorical_constraints),
            "freshness": (self.freshness.timestamp_column,) if self.freshness else (),
            "distribution": tuple(self.distribution),
            "row_count": (),
        }
        return table[family]

    def named_columns(self) -> list[tuple[Place, str]]:
        """Every column that is named, with its place."""
        found: list[tuple[Place, str]] = [(("schema", c), c) for c in self.schema_]
        found += [(("required_columns", i), c) for i, c in enumerate(self.required_columns)]
        for i, key in enumerate(self.unique_columns):
            parts = [((), key)] if isinstance(key, str) else [((j,), c) for j, c in enumerate(key)]
            found += [(("unique_columns", i, *inner), c) for inner, c in parts]
        found += [(("range_constraints", c), c) for c in self.range_constraints]
        found += [(("categorical_constraints", c), c) for c in self.categorical_constraints]
        found += [(("distribution", c), c) for c in self.distribution]
        if self.freshness:
            found.append((("freshness", "timestamp_column"), self.freshness.timestamp_column))
        return found

    def problems(self, path: Place) -> Iterator[Problem]:
        """Mistakes that no single key shows."""
        for column, (low, high) in self.range_constraints.items():
            yield from _range_problems((*path, "range_constraints", column), column, low, high)
        for entry in self.severity:
            family, dot, column = entry.partition(".")
            where = (*path, "severity", entry)
            if family not in FAMILIES:
                yield unknown(where, "check family", family, FAMILIES)
            elif dot and column not in self.columns(family):
                yield unknown(where, f"column of the {family} checks", column, self.columns(family))


def _range_problems(path: Place, column: str, low: Any, high: Any) -> Iterator[Problem]:
    if low is None and high is None:
        message = f"the range of {column!r} is open at both ends"
        yield Problem("config.range", message, path, fix="give a min or a max")
    if low is None or high is None:
        return
    numbers = [isinstance(bound, int | float) for bound in (low, high)]
    if numbers[0] != numbers[1]:
        message = f"the range of {column!r} mixes a number and a date"
        yield Problem("config.range", message, path, allowed=BOUND_TEXT, fix="give both ends the same kind")
    elif (low > high) if numbers[0] else parse_moment(low) > parse_moment(high):
        message = f"the range of {column!r} is empty: {low} is above {high}"
        yield Problem("config.range", message, path, allowed="[min, max]", fix="swap the two")
