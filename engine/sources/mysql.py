"""MySQL and MariaDB through connectorx.

A table with an integer primary key is read in key order, one range of bounded size at a time; anything else is one
query, refused above ``LIMIT_ROWS`` because connectorx holds its whole result in memory. One query is consistent in
itself; ranges are not one snapshot, so a table that changed while it was read (its count no longer fits) is an error.

Decimals arrive exact, of their declared precision (beyond 38 digits as text; the driver itself keeps ten decimals and
drops the rest); ``time`` as text (it may be negative or beyond 24 h); ``bit`` as integer; TIMESTAMP in UTC, without
zone; tinyint(1) as an integer. Zero dates and geometry cannot be read. The rows of a query keep its order, unless it
gives decimals or times: these are converted around it, and MariaDB ignores the order of a subquery.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc

from engine.duck import literal
from engine.errors import MissingExtra, SourceError
from engine.sources import is_panic
from engine.sources.relation import Relation, Snapshot

RANGE_ROWS = 250_000
RANGE_BYTES = 64 * 2**20
LIMIT_ROWS = 1_000_000
CONNECT_SECONDS = 10
DIGITS = 38
INTEGERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint"})
UNREADABLE = frozenset({"geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon"})


@dataclass(frozen=True)
class Column:
    """A column of a table as information_schema describes it, or of a query as connectorx reads it."""

    name: str
    type: str
    precision: int | None = None
    scale: int | None = None
    primary: bool = False

    @property
    def select(self) -> str:
        name = identifier(self.name)
        if self.type in ("decimal", "time"):
            return f"CAST({name} AS CHAR) AS {name}"
        return f"CAST({name} AS UNSIGNED) AS {name}" if self.type == "bit" else name


class Session:
    """Queries over one relation's connection string; each runs in UTC and is stopped by the server in time."""

    def __init__(self, relation: Relation) -> None:
        self._relation = relation
        self._url = "mysql://" + relation.url.partition("://")[2]
        self._settings = ["SET time_zone = '+00:00'"]
        _probe(relation)
        version = str(self.rows("SELECT version() AS v")[0]["v"])
        seconds = relation.spec.timeout_seconds
        limit = (
            f"max_statement_time = {seconds}" if "MariaDB" in version else f"max_execution_time = {int(seconds * 1000)}"
        )
        self._settings.append(f"SET SESSION {limit}")

    def table(self, sql: str) -> pa.Table:
        """The whole result of ``sql``.

        Raises:
            SourceError: the server refused it, or holds a value that connectorx panics at.
        """
        try:
            import connectorx
        except ImportError:
            raise MissingExtra("connectorx", "mysql", "reading MySQL") from None
        try:
            return connectorx.read_sql(self._url, sql, return_type="arrow", pre_execution_query=self._settings)
        except BaseException as error:
            if is_panic(error):
                raise _panic(self._relation, error) from None
            if isinstance(error, UnicodeError):
                raise self._relation.invalid_url() from None
            if not isinstance(error, RuntimeError):
                raise
            raise _failure(self._relation, error) from None

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """The rows of a small result."""
        found: list[dict[str, Any]] = self.table(sql).to_pylist()
        return found


@contextmanager
def snapshot(relation: Relation) -> Iterator[Snapshot]:
    """The relation's rows; a count taken before is compared with what was read (see the module's text)."""
    session = Session(relation)
    if relation.spec.query is not None:
        table = f"{relation.subquery(relation.spec.query)} AS source_rows"
        columns = _query_columns(session, table)
    else:
        table, columns = _table(session, relation)
    keys = [column for column in columns if column.primary]
    key = keys[0].name if len(keys) == 1 and keys[0].type in INTEGERS else None
    rows = int(session.rows(f"SELECT count(*) AS n FROM {table}")[0]["n"])
    if key is not None:
        yield Snapshot(rows, _ranges(session, relation, table, columns, key))
        return
    if rows > LIMIT_ROWS:
        raise relation.error(
            f"{rows} rows are too many for one read (the limit is {LIMIT_ROWS})",
            code="source.too_many_rows",
            allowed="any number of rows of a table with one integer primary key; else up to the limit",
            fix="give the table such a key, or read less with query",
        )
    as_they_are = all(column.select == identifier(column.name) for column in columns)
    whole = relation.spec.query if as_they_are else None  # unwrapped, so that its ORDER BY counts
    sql = whole or f"SELECT {_select(columns)} FROM {table}"
    yield Snapshot(rows, _batches(session.table(sql), columns))


def identifier(name: str) -> str:
    """``name`` quoted as MySQL quotes it."""
    return "`" + name.replace("`", "``") + "`"


def _select(columns: list[Column]) -> str:
    return ", ".join(column.select for column in columns)


def _query_columns(session: Session, table: str) -> list[Column]:
    schema = session.table(f"SELECT * FROM {table} LIMIT 0").schema
    named = [(field.name, field.type) for field in schema]
    return [
        Column(name, "decimal" if pa.types.is_decimal(kind) else "time" if pa.types.is_time(kind) else str(kind))
        for name, kind in named
    ]


def _table(session: Session, relation: Relation) -> tuple[str, list[Column]]:
    schema, dot, name = str(relation.spec.table).rpartition(".")
    owner = _text(schema) if dot else "database()"
    described = session.rows(
        "SELECT column_name AS c, data_type AS t, numeric_precision AS p, numeric_scale AS s, column_key AS k "
        f"FROM information_schema.columns WHERE table_schema = {owner} AND table_name = {_text(name)} "
        "ORDER BY ordinal_position"
    )
    if not described:
        tables = session.rows(f"SELECT table_name AS t FROM information_schema.tables WHERE table_schema = {owner}")
        raise relation.missing_table(row["t"] for row in tables)
    columns = [Column(row["c"], row["t"], row["p"], row["s"], row["k"] == "PRI") for row in described]
    for column in columns:
        if column.type in UNREADABLE:
            raise relation.error(
                f"column {column.name!r} is of type {column.type}, which cannot be read",
                code="source.unsupported_type",
                fix=f"read it as text with query: SELECT …, ST_AsText({column.name}) AS {column.name}",
            )
    return (f"{identifier(schema)}." if dot else "") + identifier(name), columns


def _ranges(
    session: Session, relation: Relation, table: str, columns: list[Column], key: str
) -> Iterator[pa.RecordBatch]:
    """Rows in key order, up to the largest key there is now; later rows are the next run's."""
    k = identifier(key)
    last = session.rows(f"SELECT max({k}) AS k FROM {table}")[0]["k"]
    limit = _range_rows(session, relation)
    after = ""
    while True:
        bounds = f"{k} <= {last}{after}" if last is not None else "FALSE"
        result = session.table(f"SELECT {_select(columns)} FROM {table} WHERE {bounds} ORDER BY {k} LIMIT {limit}")
        yield from _batches(result, columns)
        if result.num_rows < limit:
            return
        after = f" AND {k} > {result[key][-1].as_py()}"


def _range_rows(session: Session, relation: Relation) -> int:
    schema, dot, name = str(relation.spec.table).rpartition(".")
    (found,) = session.rows(
        "SELECT CAST(coalesce(max(avg_row_length), 0) AS SIGNED) AS width FROM information_schema.tables "
        f"WHERE table_schema = {_text(schema) if dot else 'database()'} AND table_name = {_text(name)}"
    )
    return max(1_000, min(RANGE_ROWS, RANGE_BYTES // max(1, int(found["width"]))))


def _batches(table: pa.Table, columns: list[Column]) -> Iterator[pa.RecordBatch]:
    """``table`` with its decimals as such; at least one batch."""
    for i, column in enumerate(columns):
        if column.type == "decimal" and (kind := _decimal(column, table[i])) is not None:
            table = table.set_column(i, column.name, table[i].cast(kind))
    yield from table.to_batches() or [pa.RecordBatch.from_pylist([], schema=table.schema)]


def _decimal(column: Column, texts: pa.ChunkedArray) -> pa.DataType | None:
    """The decimal type of a column read as text; MySQL prints every value of a column with the same scale."""
    if column.precision is not None and column.scale is not None:
        return pa.decimal128(column.precision, column.scale) if column.precision <= DIGITS else None
    digits = pc.utf8_length(pc.replace_substring_regex(texts, "[-.]", ""))
    fraction = pc.utf8_length(pc.replace_substring_regex(texts, r"^[^.]*\.?", ""))
    scale = pc.max(fraction).as_py() or 0
    return pa.decimal128(DIGITS, scale) if (pc.max(digits).as_py() or 0) <= DIGITS else None


def _text(text: str) -> str:
    return literal(text.replace("\\", "\\\\"))


def _probe(relation: Relation) -> None:
    """Fail at once where nothing listens; connectorx itself would try for 30 s."""
    try:
        parts = urlsplit(relation.url)
        host, port = parts.hostname or "localhost", parts.port or 3306
    except ValueError:  # a port that is none, or an IPv6 address with one bracket
        raise relation.invalid_url() from None
    try:
        socket.create_connection((host, port), timeout=min(CONNECT_SECONDS, relation.spec.timeout_seconds)).close()
    except UnicodeError:  # a host name with an empty or a too long part
        raise relation.invalid_url() from None
    except OSError as error:
        raise relation.error(
            f"cannot connect to {relation.location}: {error.strerror or error}",
            code="source.no_connection",
            fix="check host and port in connection_string, and that the server is up",
            transient=not isinstance(error, socket.gaierror),
        ) from None


def _panic(relation: Relation, error: BaseException) -> SourceError:
    return relation.error(
        f"a value cannot be read: {' '.join(str(error).split())[:200]}",
        code="source.unsupported_value",
        fix="zero dates: query: SELECT …, NULLIF(column, 0) AS column; geometry: ST_AsText(column)",
    )


def _failure(relation: Relation, error: BaseException) -> SourceError:
    text = " ".join(str(error).split())
    sentence = text.partition("ERROR ")[2].rstrip(" }") or text
    if "max_statement_time" in text or "maximum statement execution time" in text:
        return relation.error(
            f"the read took longer than {relation.spec.timeout_seconds:g} s and was stopped",
            code="source.timeout",
            fix="raise timeout_seconds, or read less with query",
        )
    if "waiting for connection" in text:
        return relation.error(
            f"cannot connect to {relation.location}: {sentence}",
            code="source.no_connection",
            fix="check user, password and database in connection_string",
            transient="1045" not in text and "1049" not in text,
        )
    return relation.error(
        f"{relation.location} cannot be read: {sentence}",
        fix="check the table or query with the mysql shell",
        transient=any(mark in text for mark in ("IoError", "1213", "1205", "2006", "2013")),
    )
