"""The checks of a table as they are declared."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from engine.errors import Problem
from engine.spec.anomalies import Anomalies
from engine.spec.drift import DriftSpec
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

ROW_WISE = (
    "completeness",
    "not_null",
    "range",
    "categorical",
    "pattern",
    "length",
    "increasing",
    "compare",
    "foreign_key",
    "custom",
)
ALL = "all"  # the entry of on_violation, max_failed and where that holds where no other does
FAMILIES = ("schema", *ROW_WISE, "uniqueness", "freshness", "distribution", "row_count", "drift", "anomaly")


class Freshness(Spec):
    """How old the newest row may be."""

    timestamp_column: Column
    max_age_hours: Annotated[Finite, Field(gt=0)] = 24.0


class Expected(Spec):
    """The mean a column should have."""

    expected_mean: Finite
    tolerance: Annotated[Finite, Field(ge=0, description="allowed |mean − expected| / |expected|")] = 0.2


class RowCount(Spec):
    """How many rows the whole table may have, both ends included."""

    min: Annotated[int, Field(ge=0)] = 1
    max: Annotated[int | None, Field(ge=0)] = None


class Increasing(Spec):
    """A column whose values never fall (or, if ``strict``, always rise) in the order the rows are read."""

    column: Column
    strict: bool = False


class Compare(Spec):
    """What two columns must be to each other in every row in which both have a value."""

    left: Column
    operator: Literal["<", "<=", "==", "!=", ">=", ">"]
    right: Column

    @property
    def name(self) -> str:
        return f"{self.left} {self.operator} {self.right}"


class ForeignKey(Spec):
    """Columns whose values must stand in columns of a source."""

    columns: Annotated[Columns, Field(min_length=1)]
    source: Text
    to: Annotated[tuple[Column, ...], Field(strict=False, min_length=1)]

    @property
    def name(self) -> str:
        return ",".join(self.columns)


class Custom(Spec):
    """A rule of the user's: ``sql``, a boolean expression, or ``function``, which gives a Polars expression."""

    sql: Text | None = None
    function: Annotated[str | None, StringConstraints(pattern=r"^[\w.]+:[A-Za-z_]\w*$")] = None


class Threshold(Spec):
    """How many rows may break a check: a count, or a percentage of the rows judged (exact, as it was written)."""

    count: int | None = None
    percent: Decimal | None = None

    def allows(self, failed: int, judged: int) -> bool:
        """Whether so many failed rows of so many judged are few enough."""
        if self.count is not None:
            return failed <= self.count
        return self.percent is None or 100 * failed <= Fraction(self.percent) * judged

    def __str__(self) -> str:
        return f"{self.count:,}" if self.percent is None else f"{self.percent} %"


def _for_all(value: Any) -> Any:
    """One value for all checks as an entry of its own."""
    return value if isinstance(value, dict) else {ALL: value}


def _threshold(value: Any) -> Any:
    if isinstance(value, Threshold):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return Threshold(count=value)
    if isinstance(value, str) and (match := re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*%\s*", value)):
        percent = Decimal(match[1])
        if percent <= 100:
            return Threshold(percent=percent)
    raise PydanticCustomError("threshold", "{value} is no threshold", {"value": repr(value), "allowed": _THRESHOLD})


_THRESHOLD = "a count of rows such as 5, or a share of them such as 0.1%"


def _foreign_keys(value: Any) -> Any:
    """``{user_id: users.id}`` and ``{user_id: {source: users, column: id}}`` as a list of whole declarations."""
    if not isinstance(value, dict):
        return value
    found = []
    for column, target in value.items():
        if isinstance(target, str) and "." in target:
            source, _, to = target.partition(".")
            found.append({"columns": [column], "source": source, "to": [to]})
        elif isinstance(target, dict) and set(target) == {"source", "column"}:
            found.append({"columns": [column], "source": target["source"], "to": [target["column"]]})
        else:
            allowed = "source.column, or a list of {columns, source, to}"
            raise PydanticCustomError(
                "foreign_key", "{value} is no foreign key", {"value": repr(target), "allowed": allowed}
            )
    return found


def _increasing(value: Any) -> Any:
    return {"column": value} if isinstance(value, str) else value


def _custom(value: Any) -> Any:
    return {"sql": value} if isinstance(value, str) else value


def _expected(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"expected_mean": float(value)}
    return value


Length = Annotated[int | None, Field(ge=0)]
OnViolation = Literal["report", "quarantine", "drop", "block"]
Allowed = Annotated[
    Threshold,
    BeforeValidator(_threshold),
    WithJsonSchema(
        {
            "oneOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*%\s*$"},
            ]
        }
    ),
]


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
    row_count: Annotated[RowCount | None, Field(description="fewest and most rows of the whole table")] = None
    not_null: Annotated[Columns, Field(description="columns that must have a value in every row")] = ()
    patterns: Annotated[
        dict[Column, str],
        Field(description="column: regular expression (Rust syntax) found anywhere in each text; anchor with ^ and $"),
    ] = {}
    lengths: Annotated[
        dict[Column, Annotated[tuple[Length, Length], Field(strict=False)]],
        Field(description="column: [min, max] characters of a text, elements of a list, bytes of binary"),
    ] = {}
    increasing: Annotated[
        tuple[Annotated[Increasing, BeforeValidator(_increasing, json_schema_input_type=str | Increasing)], ...],
        Field(strict=False, description="columns whose values never fall in the order the rows are read"),
    ] = ()
    compare: Annotated[
        tuple[Compare, ...], Field(strict=False, description="{left, operator, right}: column against column")
    ] = ()
    foreign_keys: Annotated[
        tuple[ForeignKey, ...],
        Field(strict=False, description="column: source.column, or a list of {columns, source, to}"),
        BeforeValidator(_foreign_keys, json_schema_input_type=dict[Column, Any] | list[ForeignKey]),
    ] = ()
    custom: Annotated[
        dict[Text, Annotated[Custom, BeforeValidator(_custom, json_schema_input_type=str | Custom)]],
        Field(description="name: SQL boolean expression, false breaks it; or {function: module:name}, a Polars one"),
    ] = {}
    anomalies: Annotated[
        Anomalies | None, Field(description="figures held against those of past runs; judged by runs only")
    ] = None
    drift: Annotated[DriftSpec | None, Field(description="compare each column with what it was")] = None
    severity: Annotated[
        dict[Text, Literal["error", "warning", "info"]],
        Field(description="family or family.column: severity of a failed check"),
    ] = {}
    on_violation: Annotated[
        dict[Text, OnViolation],
        BeforeValidator(_for_all, json_schema_input_type=OnViolation | dict[Text, OnViolation]),
        Field(description="what becomes of rows that break a row-wise check: for all, or by family or family.column"),
    ] = {}
    max_failed: Annotated[
        dict[Text, Allowed],
        BeforeValidator(_for_all, json_schema_input_type=Allowed | dict[Text, Allowed]),
        Field(description="rows that may break a row-wise check, a count or a percentage; keys as in on_violation"),
    ] = {}
    where: Annotated[
        dict[Text, Text],
        BeforeValidator(_for_all, json_schema_input_type=Text | dict[Text, Text]),
        Field(description="SQL condition of the rows that a row-wise check judges; keys as in on_violation"),
    ] = {}

    def columns(self, family: str) -> tuple[str, ...]:
        """What a family's checks are named after: columns, comma-joined compound keys, comparisons, custom names."""
        table: dict[str, tuple[str, ...]] = {
            "schema": tuple(self.schema_),
            "completeness": self.required_columns,
            "not_null": self.not_null,
            "uniqueness": tuple(k if isinstance(k, str) else ",".join(k) for k in self.unique_columns),
            "range": tuple(self.range_constraints),
            "categorical": tuple(self.categorical_constraints),
            "pattern": tuple(self.patterns),
            "length": tuple(self.lengths),
            "increasing": tuple(rule.column for rule in self.increasing),
            "compare": tuple(rule.name for rule in self.compare),
            "foreign_key": tuple(key.name for key in self.foreign_keys),
            "custom": tuple(self.custom),
            "freshness": (self.freshness.timestamp_column,) if self.freshness else (),
            "distribution": tuple(self.distribution),
            "row_count": (),
            "anomaly": self.anomalies.names if self.anomalies else (),
            "drift": (self.drift.columns or ()) if self.drift else (),
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
        found += [(("not_null", i), c) for i, c in enumerate(self.not_null)]
        found += [(("patterns", c), c) for c in self.patterns]
        found += [(("lengths", c), c) for c in self.lengths]
        found += [(("drift", "columns", i), c) for i, c in enumerate(self.columns("drift"))]
        found += [(("increasing", i), rule.column) for i, rule in enumerate(self.increasing)]
        for i, rule in enumerate(self.compare):
            found += [(("compare", i, "left"), rule.left), (("compare", i, "right"), rule.right)]
        for i, key in enumerate(self.foreign_keys):
            found += [(("foreign_keys", i), c) for c in key.columns]
        if self.anomalies:
            for name in ("null_rate", "mean"):
                found += [(("anomalies", name, i), c) for i, c in enumerate(getattr(self.anomalies, name))]
            if self.anomalies.freshness:
                found.append((("anomalies", "freshness"), self.anomalies.freshness))
        if self.freshness:
            found.append((("freshness", "timestamp_column"), self.freshness.timestamp_column))
        return found

    def problems(self, path: Place) -> Iterator[Problem]:
        """Mistakes that no single key shows."""
        for column, (low, high) in self.range_constraints.items():
            yield from _range_problems((*path, "range_constraints", column), column, low, high)
        for column, (fewest, most) in self.lengths.items():
            if fewest is None and most is None:
                message = f"the length of {column!r} is open at both ends"
                yield Problem("config.range", message, (*path, "lengths", column), fix="give a min or a max")
            elif fewest is not None and most is not None and fewest > most:
                message = f"the length of {column!r} is empty: {fewest} is above {most}"
                place = (*path, "lengths", column)
                yield Problem("config.range", message, place, allowed="[min, max]", fix="swap the two")
        yield from self._table_problems(path)
        for i, key in enumerate(self.foreign_keys):
            if len(key.columns) != len(key.to):
                message = f"{len(key.columns)} columns refer to {len(key.to)}"
                yield Problem("config.foreign_key", message, (*path, "foreign_keys", i), fix="name as many of each")
        for name, rule in self.custom.items():
            if (rule.sql is None) == (rule.function is None):
                message = f"the rule {name!r} is neither SQL nor a function, or both"
                place = (*path, "custom", name)
                yield Problem("config.custom", message, place, allowed="sql, or function", fix="give one of the two")
        for family in FAMILIES:
            names = self.columns(family)
            for name in {name for name in names if names.count(name) > 1}:
                yield Problem("config.repeated", f"{name!r} has two {family} checks", path, fix="remove one of them")
        yield from self._entry_problems((*path, "severity"), self.severity, FAMILIES)
        for option in ("on_violation", "max_failed", "where"):
            entries = {entry: value for entry, value in getattr(self, option).items() if entry != ALL}
            families = ROW_WISE if option == "on_violation" else (*ROW_WISE, "uniqueness")
            yield from self._entry_problems((*path, option), entries, families)

    def _table_problems(self, path: Place) -> Iterator[Problem]:
        if self.drift:
            yield from self.drift.problems((*path, "drift"))
        counts = self.row_count
        if counts is None:
            return
        if "min_rows" in self.model_fields_set:
            message = "min_rows and row_count both say how many rows there must be"
            yield Problem("config.range", message, (*path, "row_count"), fix="keep row_count: {min, max}")
        if counts.max is not None and counts.max < counts.min:
            message = f"the row count is empty: {counts.min} is above {counts.max}"
            yield Problem("config.range", message, (*path, "row_count"), allowed="{min, max}", fix="swap the two")

    def _entry_problems(self, path: Place, entries: dict[str, Any], families: tuple[str, ...]) -> Iterator[Problem]:
        """Entries by ``family`` or ``family.column`` that no check goes by."""
        for entry in entries:
            family, dot, column = entry.partition(".")
            where = (*path, entry)
            if family not in families and family in FAMILIES:
                message = f"{family} checks judge the table as a whole, not its rows"
                yield Problem("config.not_row_wise", message, where, allowed=", ".join(families), fix="remove it")
            elif family not in families:
                yield unknown(where, "check family", family, families)
            elif family == "drift" and self.drift and self.drift.columns is None:
                continue  # of any column
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
