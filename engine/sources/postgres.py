"""PostgreSQL through ADBC (binary COPY): one query, one snapshot, in bounded memory.

Integers, floats, booleans, text, bytea, date, timestamp and timestamptz (as UTC), and arrays of these (dates aside),
arrive as they are. ``numeric`` becomes Decimal: of its declared precision, else of the scale its values need; beyond
38 digits, or with NaN or infinity among its values, it stays the exact text. Every other type (uuid, json, interval,
time, inet, enums, ranges, …) arrives as the text PostgreSQL prints. Infinite dates are an error: nothing can hold
them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from engine.duck import identifier, literal
from engine.errors import MissingExtra
from engine.sources.adbc import FAILURES, Session, wording
from engine.sources.relation import Relation, Snapshot

SCALARS = frozenset({"int2", "int4", "int8", "float4", "float8", "bool", "text", "varchar", "bpchar", "name", "bytea"})
MOMENTS = frozenset({"date", "timestamp", "timestamptz"})
EXACT = SCALARS | MOMENTS | {f"_{scalar}" for scalar in SCALARS}
DIGITS = 38  # of a 128-bit decimal
CONNECT_SECONDS = 15


@dataclass(frozen=True)
class Column:
    """A column as PostgreSQL describes it; precision and scale of a numeric that declares them."""

    name: str
    type: str
    precision: int | None = None
    scale: int = 0

    @property
    def select(self) -> str:
        name = identifier(self.name)
        return name if self.type in EXACT else f"{name}::text AS {name}"


@contextmanager
def snapshot(relation: Relation) -> Iterator[Snapshot]:
    """One REPEATABLE READ transaction: the count and the rows are of the same moment."""
    try:
        session = Session(_driver(), _uri(relation))
    except FAILURES as error:
        raise _no_connection(relation, error) from None
    except ValueError:  # what cannot be handed to the driver
        raise relation.invalid_url() from None
    with session:
        try:
            _begin(session, relation)
            table = _table(relation)
            columns = _columns(session, relation, table)
            rows, target = _plan(session, relation, table, columns)
            yield Snapshot(rows, _batches(session, table, columns, target))
        except FAILURES as error:
            raise _failure(session, relation, error) from None


def _driver() -> str:
    try:
        import adbc_driver_postgresql
    except ImportError:
        raise MissingExtra("adbc-driver-postgresql", "postgres", "reading PostgreSQL") from None
    return str(adbc_driver_postgresql._driver_path())


def _uri(relation: Relation) -> str:
    """The connection string, with time-outs where it has none: no read hangs on a connection that has died."""
    seconds = relation.spec.timeout_seconds
    defaults = {
        "connect_timeout": max(2, min(CONNECT_SECONDS, int(seconds))),
        "tcp_user_timeout": int(seconds * 1000),
        "keepalives_idle": 30,
        "application_name": "maestro",
    }
    url = relation.url
    for option, value in defaults.items():
        if f"{option}=" not in url:
            url += f"{'&' if '?' in url else '?'}{option}={value}"
    return url


def _begin(session: Session, relation: Relation) -> None:
    session.begin()
    session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    session.execute(f"SET LOCAL statement_timeout = {max(1, int(relation.spec.timeout_seconds * 1000))}")
    for setting in (
        "TimeZone = 'UTC'",
        "DateStyle = 'ISO, YMD'",
        "IntervalStyle = 'postgres'",
        "extra_float_digits = 1",
    ):
        session.execute(f"SET LOCAL {setting}")


def _table(relation: Relation) -> str:
    if relation.spec.query is not None:
        return f"{relation.subquery(relation.spec.query)} AS source_rows"
    schema, dot, table = str(relation.spec.table).rpartition(".")
    return f"{identifier(schema)}.{identifier(table)}" if dot else identifier(table)


def _columns(session: Session, relation: Relation, table: str) -> list[Column]:
    columns: list[Column] = []
    for field in session.schema(f"SELECT * FROM {table}"):
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


def _plan(
    session: Session, relation: Relation, table: str, columns: list[Column]
) -> tuple[int, dict[str, pa.DataType]]:
    """The number of rows, and the decimal type of each numeric column that has one."""
    asked = ["count(*) AS n"]
    for i, column in enumerate(columns):
        c = identifier(column.name)
        if column.type in MOMENTS:
            asked.append(f"count(*) FILTER (WHERE NOT isfinite({c})) AS infinite{i}")
        elif column.type == "numeric":
            special = f"{c}::text IN ('NaN', 'Infinity', '-Infinity')"
            asked.append(f"count(*) FILTER (WHERE {special}) AS special{i}")
            if column.precision is None:
                plain = f"FILTER (WHERE NOT {special})"
                asked.append(f"max(scale({c})) {plain} AS scale{i}")
                asked.append(f"max(length(trunc(abs({c}))::text)) {plain} AS whole{i}")
    found: dict[str, Any] = session.rows(f"SELECT {', '.join(asked)} FROM {table}")[0]
    decimals: dict[str, pa.DataType] = {}
    for i, column in enumerate(columns):
        if found.get(f"infinite{i}"):
            raise relation.error(
                f"column {column.name!r} holds infinite dates ({found[f'infinite{i}']} rows), which cannot be kept",
                code="source.infinite_date",
                fix=f"replace them with query: SELECT …, NULLIF({column.name}, 'infinity') AS {column.name}",
            )
        if column.type == "numeric" and not found[f"special{i}"]:
            scale = column.scale if column.precision is not None else found[f"scale{i}"] or 0
            whole = column.precision - scale if column.precision is not None else found[f"whole{i}"] or 1
            if whole + scale <= DIGITS and 0 <= scale <= DIGITS:
                decimals[column.name] = pa.decimal128(DIGITS if column.precision is None else column.precision, scale)
    return found["n"], decimals


def _batches(
    session: Session, table: str, columns: list[Column], decimals: dict[str, pa.DataType]
) -> Iterator[pa.RecordBatch]:
    reader = session.stream(f"SELECT {', '.join(column.select for column in columns)} FROM {table}")
    target = pa.schema([field.with_type(decimals.get(field.name, field.type)) for field in reader.schema])
    empty = True
    for batch in reader:
        empty = False
        batch.validate(full=True)
        yield batch.cast(target).replace_schema_metadata(None)
    if empty:
        yield pa.RecordBatch.from_pylist([], schema=target.remove_metadata())


def _no_connection(relation: Relation, error: BaseException) -> Exception:
    text = wording(error)
    final = (
        "does not exist",
        "authentication failed",
        "translate host name",
        "no password",
        "pg_hba",
        "invalid",
    )
    return relation.error(
        f"cannot connect to {relation.location}: {text}",
        code="source.no_connection",
        fix="check host, port, database, user and password in connection_string, and that the server is up",
        transient=not any(mark in text for mark in final),
    )


def _failure(session: Session, relation: Relation, error: BaseException) -> Exception:
    text = wording(error)
    if relation.spec.table is not None and getattr(error, "sqlstate", None) == "42P01":
        session.rollback()
        return relation.missing_table(_tables(session))
    if "statement timeout" in str(error):
        return relation.error(
            f"the read took longer than {relation.spec.timeout_seconds:g} s and was stopped",
            code="source.timeout",
            fix="raise timeout_seconds, or read less with query",
        )
    lost = any(mark in str(error) for mark in ("connection", "terminating", "no COPY in progress", "SSL"))
    return relation.error(
        f"{relation.location} cannot be read: {text}",
        fix="check the table or query with psql",
        transient=lost,
    )


def _tables(session: Session) -> list[str]:
    hidden = ", ".join(literal(schema) for schema in ("pg_catalog", "information_schema"))
    rows = session.rows(
        "SELECT table_schema::text AS s, table_name::text AS t FROM information_schema.tables "
        f"WHERE table_schema NOT IN ({hidden})"
    )
    return [row["t"] if row["s"] == "public" else f"{row['s']}.{row['t']}" for row in rows]
