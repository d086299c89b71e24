"""Columns and keys of MySQL and MariaDB: what each is read as, planned from the server's description before the read.

| column                                  | becomes                                                                |
|-----------------------------------------|------------------------------------------------------------------------|
| integers, year                          | integers of the same size and sign; tinyint(1) too; year Int16         |
| bit(n)                                  | UInt32, beyond 32 bits UInt64                                          |
| float, double                           | Float32, Float64                                                       |
| decimal                                 | Decimal of its precision; beyond 38 digits the exact text              |
| sums and the like in a query            | Decimal of up to 38 digits; refused if a value does not fit            |
| date; datetime, timestamp               | Date; Datetime in microseconds without zone, timestamp in UTC. Zero,   |
|                                         | partial and impossible dates, and the year 0, are refused              |
| time                                    | text: it may be negative, or beyond a day                              |
| char, text, enum, set, json, uuid, inet | String                                                                 |
| binary, blob                            | Binary                                                                 |
| geometry, vector                        | refused                                                                |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from engine.sources import CursorValue
from engine.sources.mysql_session import Field
from engine.sources.relation import Relation

DIGITS = 38  # of a 128-bit decimal
NATIVE = (18, 10)  # digits before and after the point of decimals that connectorx keeps exactly
LONG = 1024  # bytes of a text that are hashed by themselves: together they could be too long for the server
UNSIGNED, ZEROFILL = 32, 64  # flags of a field
BYTES = 63  # the charset of what is no text
INTEGERS = {1: (pa.int8(), pa.uint8()), 2: (pa.int16(), pa.uint16()), 3: (pa.int32(), pa.uint32())}
INTEGERS |= {9: INTEGERS[3], 8: (pa.int64(), pa.uint64())}
DATES = {7: "timestamp", 10: "date", 12: "datetime", 14: "date"}
# The year 1 as it is kept, and what as; pyarrow would import pandas to make a scalar of a date.
EARLIEST = {pa.date32(): (pa.int32(), -719_162), pa.timestamp("us"): (pa.int64(), -719_162 * 86_400 * 10**6)}
TEXTS = frozenset({15, 247, 248, 249, 250, 251, 252, 253, 254})
AS_TEXT = {6: "null", 11: "time", 245: "json"}  # what CAST(… AS CHAR) gives
NUMBERS = frozenset({*INTEGERS, 0, 4, 5, 13, 16, 246})


@dataclass(frozen=True)
class Column:
    """A column that is read: its expression in SQL, and the type it arrives as."""

    field: Field
    select: str
    arrow: pa.DataType

    @property
    def name(self) -> str:
        return self.field.name


def identifier(name: str) -> str:
    """``name`` quoted as MySQL quotes it."""
    return "`" + name.replace("`", "``") + "`"


def planned(relation: Relation, field: Field) -> Column:
    """What a column is read as.

    Raises:
        SourceError: its type cannot be read.
    """
    name = identifier(field.name)
    text = f"CAST({name} AS CHAR CHARACTER SET utf8mb4)"
    if field.type in INTEGERS:
        return Column(field, name, INTEGERS[field.type][bool(field.flags & UNSIGNED)])
    if field.type == 13:
        return Column(field, name, pa.int16())
    if field.type == 16:
        return Column(field, f"CAST({name} AS UNSIGNED)", pa.uint32() if field.length <= 32 else pa.uint64())
    if field.type in (4, 5):
        return Column(field, name, pa.float32() if field.type == 4 else pa.float64())
    if field.type in (0, 246):
        precision = field.length - (field.scale > 0) - (not field.flags & UNSIGNED)
        if precision > DIGITS and not field.computed:
            return Column(field, text, pa.string())
        fits = precision - field.scale <= NATIVE[0] and field.scale <= NATIVE[1]
        if fits and not field.computed and not field.flags & ZEROFILL:
            return Column(field, name, pa.decimal128(precision, field.scale))
        return Column(field, text, pa.decimal128(min(precision, DIGITS), field.scale))
    if field.type in DATES:
        return Column(field, name, pa.date32() if DATES[field.type] == "date" else pa.timestamp("us"))
    if field.type in AS_TEXT:
        return Column(field, text, pa.string())
    if field.computed and field.type == 254 and field.charset == BYTES and not field.length:  # a bare NULL
        return Column(field, text, pa.string())
    if field.type in TEXTS:
        return Column(field, name, pa.large_binary() if field.charset == BYTES else pa.string())
    kind = {242: "vector", 255: "geometry"}.get(field.type, f"number {field.type}")
    raise relation.error(
        f"column {field.name!r} is of type {kind}, which cannot be read",
        code="source.unsupported_type",
        fix=f"read it as text with query: SELECT …, ST_AsText({name}) AS {name}; or leave it out with columns",
    )


def check_cursor(relation: Relation, field: Field) -> None:
    """Makes sure that a cursor's values have an order that can be kept.

    Raises:
        SourceError: they have none.
    """
    kind = {242: "vector", 245: "json", 255: "geometry"}.get(field.type)
    if kind is None and field.type in TEXTS and field.charset == BYTES and (field.length or not field.computed):
        kind = "binary"
    if kind is not None:
        raise relation.error(
            f"the cursor {field.name!r} is of type {kind}, by which no reading can go on",
            code="source.cursor",
            fix="choose a column of numbers, dates or texts as the cursor",
        )


def converted(relation: Relation, columns: Sequence[Column], table: pa.Table) -> pa.Table:
    """What connectorx read, of the types that were planned.

    Raises:
        SourceError: a value does not fit its column's type.
    """
    arrays = []
    for column, read in zip(columns, table.columns, strict=True):
        try:
            arrays.append(read if read.type == column.arrow else _cast(read, column.arrow))
        except pa.ArrowInvalid as error:
            name = identifier(column.name)
            raise relation.error(
                f"column {column.name!r} has a value that cannot be read as {column.arrow}: {str(error)[:200]}",
                code="source.unsupported_value",
                fix=f"read it as text with query: SELECT …, CAST({name} AS CHAR) AS {name}",
            ) from None
    return pa.table(arrays, schema=pa.schema([(column.name, column.arrow) for column in columns]))


def _cast(read: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if pa.types.is_decimal(kind) and pa.types.is_string(read.type):
        read = pc.replace_substring_regex(read, r"^(-?)0+(\d)", r"\1\2")  # of zerofill
    return read.cast(kind)


def digest(columns: Sequence[Column]) -> str:
    """A number of 40 bits for a row's values in these columns; a million of them can be added up in 64 bits.

    It is the row's CRC-32, squared, as CRCs are linear: two rows that exchange a value could leave their sum the same.
    MD5 would take the server twice as long.
    """
    values = []
    for column in columns:
        if column.field.type in (4, 5):  # as a text FLOAT has six digits
            values.append(f"CAST({identifier(column.name)} + 0e0 AS BINARY)")
        elif column.field.type in {*TEXTS, 245} and column.field.length > LONG:
            values.append(f"MD5({column.select})")
        else:
            values.append(f"CAST({column.select} AS BINARY)")
    nulls = ", ".join(f"{identifier(column.name)} IS NULL" for column in columns)
    row = f"CONCAT_WS(x'1f', CONCAT({nulls}), {', '.join(values)})"
    return f"CAST(POW(CRC32({row}), 2) / {2**24} AS UNSIGNED)"


def impossible(column: Column) -> str | None:
    """A condition that is true (1) of the column's dates that no calendar has; None: it has none."""
    if column.field.type not in DATES:
        return None
    name = identifier(column.name)
    return f"({name} IS NOT NULL AND COALESCE(FROM_DAYS(TO_DAYS({name})) <> DATE({name}), TRUE))"


def guard(columns: Sequence[Column]) -> str | None:
    """A condition that is true, or by which the server fails at a date that no calendar has; None: they have no dates.

    connectorx would panic at the date. Nearly all values pass by the first part, which costs the server half of what
    `impossible` does; the second overflows (error 1690) where they must not pass.
    """
    conditions = []
    for column in columns:
        if wrong := impossible(column):
            name = identifier(column.name)
            passes = f"{name} > '1970-01-01'"
            if DATES[column.field.type] != "timestamp":
                passes = f"MONTH({name}) > 0 AND DAYOFMONTH({name}) BETWEEN 1 AND 28"
            conditions.append(f"(({passes}) OR IF({wrong}, EXP(1000 + DAYOFMONTH({name})), 1))")
    return " AND ".join(conditions) or None


def too_early(columns: Sequence[Column], table: pa.Table) -> bool:
    """Whether there is a date before the year 1, which `guard` may let pass."""
    for column, read in zip(columns, table.columns, strict=True):
        if column.arrow in EARLIEST:
            kept_as, earliest = EARLIEST[column.arrow]
            least = pc.min(read.cast(kept_as)).as_py()
            if least is not None and least < earliest:
                return True
    return False


def comparable(field: Field) -> str:
    """An expression in whose order a cursor grows.

    Numbers and dates compare as the server compares them, but FLOAT exactly. Texts compare byte by byte, as they do in
    the engine, whatever their collation: in the server's order rows could be left out.
    """
    name = identifier(field.name)
    if field.type in DATES:
        return name
    if field.type in (4, 16):
        return f"({name} + {'0e0' if field.type == 4 else '0'})"
    if field.type in NUMBERS:
        return name
    return f"CAST({name} AS CHAR CHARACTER SET utf8mb4) COLLATE utf8mb4_bin"


def compared(field: Field, sign: str, value: CursorValue) -> str:
    """The condition that a cursor is ``>=`` or ``<=`` a value, or null."""
    literal = repr(value) if isinstance(value, float) else str(value)
    if field.type in DATES:
        if isinstance(value, datetime) and value.tzinfo is not None:
            value = value.astimezone(UTC).replace(tzinfo=None)
        literal = f"'{str(value)[:10]}'" if DATES[field.type] == "date" else f"'{value}'"
    elif field.type not in NUMBERS:
        literal = f"_utf8mb4 {_hex(literal.encode())} COLLATE utf8mb4_bin"
    elif isinstance(value, str):  # a decimal of more digits than a number here can have
        literal = f"CAST(_utf8mb4 {_hex(value.encode())} AS DECIMAL(65,30))"
    return f"({comparable(field)} {sign} {literal} OR {identifier(field.name)} IS NULL)"


def _hex(data: bytes) -> str:
    return f"x'{data.hex()}'"


@dataclass(frozen=True)
class Part:
    """A column of a key, as information_schema describes it."""

    name: str
    type: str
    charset: str | None
    collation: str | None
    nullable: bool

    @property
    def exact(self) -> str:
        """An expression that gives a text from which `literal` makes the very value."""
        name = identifier(self.name)
        if self.type in ("enum", "set", "bit"):
            return f"CAST({name} + 0 AS CHAR)" if self.type != "bit" else f"CAST(CAST({name} AS UNSIGNED) AS CHAR)"
        if self.type in ("float", "double"):
            return f"CAST({name} + 0e0 AS CHAR)"
        if self.charset is not None or self.type in ("binary", "varbinary") or self.type.endswith("blob"):
            return f"HEX({name})"
        return f"CAST({name} AS CHAR)"

    def literal(self, text: str) -> str:
        """The value in SQL, of the column's own character set and collation: it compares as its index is sorted."""
        if self.type in ("enum", "set", "bit", "year", "decimal") or self.type.endswith("int"):
            return text
        if self.type in ("float", "double"):
            return text if "e" in text else f"{text}e0"
        if self.charset is not None:
            return f"_{self.charset} x'{text}' COLLATE {self.collation}"
        if self.exact.startswith("HEX"):
            return f"x'{text}'"
        return f"'{text}'"


@dataclass(frozen=True)
class Key:
    """A unique index whose order cuts a table into ranges."""

    index: str
    parts: tuple[Part, ...]

    @property
    def order(self) -> str:
        return ", ".join(identifier(part.name) for part in self.parts)

    @property
    def exact(self) -> str:
        return ", ".join(part.exact for part in self.parts)

    def literals(self, values: Sequence[str]) -> list[str]:
        """A row of `exact` as SQL."""
        return [part.literal(value) for part, value in zip(self.parts, values, strict=True)]

    @property
    def nulls(self) -> str | None:
        """The condition of rows that no range has, as one of their columns is null."""
        return " OR ".join(f"{identifier(part.name)} IS NULL" for part in self.parts if part.nullable) or None

    def beyond(self, literals: Sequence[str]) -> str:
        """The condition of rows after this one."""
        return self._compared(literals, ">", ">")

    def upto(self, literals: Sequence[str]) -> str:
        """The condition of rows up to and with this one."""
        return self._compared(literals, "<", "<=")

    def _compared(self, literals: Sequence[str], inner: str, last: str) -> str:
        """``a >= x AND (a > x OR (a = x AND b > y))``: the server finds its way into the index by the first part."""
        pairs = [(identifier(p.name), value) for p, value in zip(self.parts, literals, strict=True)]
        *before, (name, value) = pairs
        condition = f"{name} {last} {value}"
        for name, value in reversed(before):
            condition = f"{name} {inner}= {value} AND ({name} {inner} {value} OR ({name} = {value} AND {condition}))"
        return f"({condition})"
