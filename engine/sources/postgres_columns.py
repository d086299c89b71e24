"""PostgreSQL's columns as Arrow: what arrives as it is, what as a decimal, what as text.

Integers, floats, booleans, text, bytea, date, timestamp and timestamptz (as UTC), and arrays of these (dates aside),
arrive as they are; arrays of which one has several dimensions, or is not counted from 1, as text. ``numeric`` becomes
Decimal: of its declared precision, else of the scale its values need; beyond 38 digits, or with NaN or infinity among
its values, it stays the exact text. Every other type (uuid, json, interval, time, inet, enums, ranges, …) arrives as
the text PostgreSQL prints. Infinite dates are an error: nothing can hold them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from engine.duck import identifier
from engine.errors import SourceError
from engine.sources.relation import Relation

SCALARS = frozenset({"int2", "int4", "int8", "float4", "float8", "bool", "text", "varchar", "bpchar", "name", "bytea"})
MOMENTS = frozenset({"date", "timestamp", "timestamptz"})
EXACT = SCALARS | MOMENTS | {f"_{scalar}" for scalar in SCALARS}
# What may be a cursor: what arrives in the order that PostgreSQL compares it by.
ORDERED = MOMENTS | (SCALARS - {"bool", "bytea"}) | {"numeric", "uuid"}
DIGITS = 38  # of a 128-bit decimal
FIRST_DAY = (
    -2_440_588
)  # of PostgreSQL's calendar, since 1970; the driver gives infinite and overflowing dates before it
FIRST_MICROSECOND = FIRST_DAY * 86_400_000_000


@dataclass(frozen=True)
class Column:
    """A column as PostgreSQL describes it.

    Attributes:
        precision: of a numeric that declares it, with its ``scale``.
        decimal: what a numeric becomes; None: text.
        flat: an array whose values all have one dimension, counted from 1.
    """

    name: str
    type: str
    precision: int | None = None
    scale: int = 0
    decimal: pa.DataType | None = None
    flat: bool = True

    @property
    def select(self) -> str:
        name = identifier(self.name)
        return name if self.type in EXACT and self.flat else f"{name}::text AS {name}"

    @property
    def declared(self) -> str:
        return f"numeric({self.precision},{self.scale})" if self.precision is not None else self.type

    @property
    def doubtful(self) -> bool:
        """Whether its values decide what it becomes."""
        return self.type == "numeric" or (self.type.startswith("_") and self.type in EXACT)


class Unkept(Exception):  # noqa: N818 - what happened, for the caller to word
    """A column holds a date that nothing can hold."""

    def __init__(self, column: str) -> None:
        super().__init__(column)
        self.column = column


def described(relation: Relation, schema: pa.Schema) -> list[Column]:
    """The columns of a prepared query.

    Raises:
        SourceError: two have one name.
    """
    columns: list[Column] = []
    for field in schema:
        if any(field.name == column.name for column in columns):
            raise relation.repeated_column(field.name)
        facts = field.metadata or {}
        kind = facts.get(b"POSTGRESQL:type", b"").decode()
        modifier = int(facts.get(b"POSTGRESQL:typmod", b"-1")) - 4
        if kind == "numeric" and modifier >= 0:
            scale = ((modifier & 0x7FF) ^ 1024) - 1024  # 11 bits, signed
            columns.append(Column(field.name, kind, modifier >> 16, scale))
        else:
            columns.append(Column(field.name, kind))
    return columns


def refused(relation: Relation, why: str) -> SourceError:
    """The cursor cannot be one."""
    return relation.error(
        f"the cursor {relation.cursor!r} {why}",
        code="source.cursor",
        fix="choose a column of numbers, dates or texts",
    )


def ordered(relation: Relation, cursor: Column) -> None:
    """Nothing, if the values of the cursor can be compared here as PostgreSQL does.

    Raises:
        SourceError: they cannot.
    """
    if cursor.type not in ORDERED:
        kind = f"{cursor.type[1:]}[]" if cursor.type.startswith("_") else cursor.type
        raise refused(relation, f"is of type {kind or 'unknown'}, whose values cannot be compared here")


def asked(doubtful: Sequence[Column]) -> str:
    """The select list that `settled` needs; NaN is greater than all numbers."""
    asked = ["count(*) AS n"]
    for i, column in enumerate(doubtful):
        c = identifier(column.name)
        if column.type != "numeric":
            asked.append(f"bool_or(array_ndims({c}) > 1 OR array_lower({c}, 1) <> 1) AS odd{i}")
            continue
        asked.append(f"max({c})::text AS high{i}")
        if column.precision is None:
            asked += [f"min({c})::text AS low{i}", f"max(scale({c})) AS scale{i}"]
    return ", ".join(asked)


def settled(doubtful: Sequence[Column], found: Mapping[str, Any]) -> list[Column]:
    """The columns as their values decide."""
    return [
        replace(column, decimal=_decimal(column, found, i))
        if column.type == "numeric"
        else replace(column, flat=not found[f"odd{i}"])
        for i, column in enumerate(doubtful)
    ]


def _decimal(column: Column, found: Mapping[str, Any], i: int) -> pa.DataType | None:
    """The decimal type that holds the values of a column."""
    ends = [(found.get(f"{end}{i}") or "0").lstrip("-") for end in ("high", "low")]
    if any(end in ("NaN", "Infinity") for end in ends):
        return None
    if column.precision is not None:
        scale, digits = column.scale, max(column.precision, column.scale)
    else:
        scale = found[f"scale{i}"] or 0
        digits = max(DIGITS, scale + max(len(end.partition(".")[0].lstrip("0")) for end in ends))
    return pa.decimal128(digits, scale) if digits <= DIGITS and scale >= 0 else None


def converted(batch: pa.RecordBatch, target: pa.Schema) -> pa.RecordBatch:
    """A batch as it goes on.

    Raises:
        Unkept: a date is infinite.
    """
    import pyarrow.compute as pc

    batch.validate(full=True)
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if pa.types.is_date32(column.type):
            first, numbers = FIRST_DAY, column.view(pa.int32())
        elif pa.types.is_timestamp(column.type):
            first, numbers = FIRST_MICROSECOND, column.view(pa.int64())
        else:
            continue
        least = pc.min(numbers).as_py()
        if least is not None and least < first:
            raise Unkept(name)
    return batch.cast(target).replace_schema_metadata(None)
