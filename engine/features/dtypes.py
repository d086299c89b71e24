"""What users' SQL gives: the types of a view's aggregates and features, as DuckDB finds them over its tables."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar

import duckdb

from engine.duck import identifier
from engine.errors import DataError
from engine.features.definition import DATETIME, Aggregate, Feature, FeatureView, Rows
from engine.features.query import as_of_macro, rows_query, view_query

INTEGERS = (
    *("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"),
    *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"),
)
FLOATS = ("FLOAT", "DOUBLE")
_OF_NUMBERS = ("sum", "mean", "std", "var", "quantile")
_Part = TypeVar("_Part", Aggregate, Feature)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def resolved(view: FeatureView, connection: duckdb.DuckDBPyConnection) -> FeatureView:
    """``view`` as its tables have it: NaN is null in every value that is aggregated, and each feature has a dtype.

    Args:
        connection: holds the view's roles.

    Raises:
        DataError: an expression cannot be computed over them, or a feature has a type that is not published.
    """
    connection.execute(as_of_macro(_EPOCH))
    aggregates = {a.name: a for rows in view.rows for a in _valued(view, rows, connection)}
    view = replace(view, aggregates=tuple(aggregates.get(a.name, a) for a in view.aggregates))

    def query(features: Sequence[Feature]) -> str:
        return view_query(replace(view, features=tuple(features)).select([f.name for f in features]), _EPOCH)

    types = _types(connection, query, view.features, lambda f: place(view, f.name))
    return replace(view, features=tuple(_with_dtype(view, f, types[f.name]) for f in view.features))


def place(view: FeatureView, name: str) -> str:
    """A feature, or what serves one, in the words of the pipeline's file."""
    feature = next((f for f in view.features if f.name == name), None)
    if feature is None:
        feature = next((f for f in view.features if name in f.sql), None)
    return f"features.{view.name}.{feature.name if feature else name}"


def _valued(view: FeatureView, rows: Rows, connection: duckdb.DuckDBPyConnection) -> Sequence[Aggregate]:
    """The aggregates over ``rows``, each over values without NaN, after a look at their types."""
    over = view.over(rows)
    source = rows_query(view, rows, [])

    def query(aggregates: Sequence[Aggregate]) -> str:
        columns = [f"({a.value or 'NULL'}) AS {identifier(a.name)}" for a in aggregates]
        columns += [f"({a.where or 'true'}) AS {identifier(f'{a.name} where')}" for a in aggregates]
        return f"SELECT {', '.join(columns)} FROM (\n{source})"

    types = _types(connection, query, over, lambda a: place(view, a.name))
    found = []
    for aggregate in over:
        kind, condition = types[aggregate.name], types[f"{aggregate.name} where"]
        if condition not in ("BOOLEAN", "NULL"):
            raise DataError(
                f"its condition gives {condition.lower()}, not true or false",
                code="features.condition",
                where=place(view, aggregate.name),
                fix="write a condition, such as amount > 0",
            )
        if aggregate.function in _OF_NUMBERS and not _is_number(kind):
            raise DataError(
                f"{aggregate.function} of {aggregate.value}, which is {kind.lower()}",
                code="features.not_a_number",
                where=place(view, aggregate.name),
                allowed="numbers, true and false",
                fix="cast the value, or use another function",
            )
        if kind == "BOOLEAN" and aggregate.function in _OF_NUMBERS:
            aggregate = replace(aggregate, value=f"CAST({aggregate.value} AS TINYINT)")
        if kind in FLOATS:
            aggregate = replace(aggregate, value=f"nullif({aggregate.value}, 'NaN'::{kind})")
        found.append(aggregate)
    return found


def _types(
    connection: duckdb.DuckDBPyConnection,
    query: Callable[[Sequence[_Part]], str],
    parts: Sequence[_Part],
    where: Callable[[_Part], str],
) -> dict[str, str]:
    """The type of every column of a query; where it makes no sense, the first part that makes none is named."""
    if not parts:
        return {}
    try:
        return _described(connection, query(parts))
    except duckdb.Error as error:
        failed = error
    for part in parts:
        try:
            _described(connection, query([part]))
        except duckdb.Error as error:
            raise refused(error, where(part)) from None
    raise failed


def refused(error: duckdb.Error, where: str) -> DataError:
    """DuckDB's refusal of an expression, or of values in it."""
    if "INT128" in str(error) and "INT64" in str(error):
        return DataError(
            "it is beyond what 64-bit integers hold",
            code="features.overflow",
            where=where,
            fix="cast the values: sum(CAST(… AS DOUBLE))",
        )
    return DataError(
        f"it cannot be computed: {first_line(error)}",
        code="features.expression",
        where=where,
        fix="check its SQL against the columns of its source and their types",
    )


def first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]


def _described(connection: duckdb.DuckDBPyConnection, query: str) -> dict[str, str]:
    return {row[0]: str(row[1]).strip('"') for row in connection.execute(f"DESCRIBE {query}").fetchall()}


def _is_number(kind: str) -> bool:
    return kind in (*INTEGERS, *FLOATS, "BOOLEAN", "NULL", "BIGNUM") or kind.startswith("DECIMAL")


def _with_dtype(view: FeatureView, feature: Feature, kind: str) -> Feature:
    if feature.dtype is not None:
        return feature
    element = re.sub(r"\[[0-9]*\]$", "", kind)
    dtype = _dtype(element)
    if dtype is None:
        raise DataError(
            f"it is of type {kind.lower()}, which is not published",
            code="features.type",
            where=place(view, feature.name),
            allowed="numbers, texts, true and false, timestamps, bytes, and lists of these",
            fix="cast it to one of these in its SQL",
        )
    return replace(feature, dtype=dtype if element == kind else f"List({dtype})")


def _dtype(kind: str) -> str | None:
    if kind in INTEGERS:
        return "Int64"
    if kind in (*FLOATS, "BIGNUM") or kind.startswith("DECIMAL"):
        return "Float64"
    if kind.startswith("TIMESTAMP") or kind == "DATE":
        return DATETIME
    if kind in ("VARCHAR", "UUID", "NULL", "JSON") or kind.startswith("ENUM"):
        return "String"
    return {"BOOLEAN": "Boolean", "BLOB": "Binary"}.get(kind)
