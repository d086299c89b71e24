"""DuckDB files, read by DuckDB itself: read only, in one transaction, without access to any other file.

| type                                     | becomes                                                               |
|------------------------------------------|-----------------------------------------------------------------------|
| integers up to 64 bits, FLOAT, DOUBLE    | the same                                                              |
| HUGEINT, UHUGEINT                        | Int64, Decimal(38, 0) or String, as large as its values are           |
| DECIMAL, BOOLEAN, VARCHAR, BLOB          | the same                                                              |
| DATE, TIME, TIMESTAMP…, TIMESTAMPTZ      | the same, in UTC; an error for infinity and for the time 24:00:00     |
| LIST, ARRAY, STRUCT, MAP                 | List, List, Struct, Map, of what their parts become                   |
| UUID, JSON, ENUM, INTERVAL, BIT, TIMETZ… | String: the text that DuckDB prints                                   |

A table is read in ranges of its rowids, which a later reading can go on from while the file is unchanged; a view or a
query is one stream, in its own order. DuckDB itself takes at most `engine.types.DEFAULT_MEMORY_LIMIT` of memory,
whatever the pipeline's ``memory_limit`` is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from engine.duck import identifier, literal
from engine.duck import open_file as attached
from engine.sources import CursorValue, Reading, Request, Shared
from engine.sources.database_file import (
    Connection,
    Piece,
    Plan,
    cut,
    database_path,
    filtered,
    open_file,
    piece_rows,
    present,
    refused_cursor,
    where,
)
from engine.sources.relation import Probe, Relation, no_rows

BATCH_ROWS = 50_000
RUN_ROWS = 32_768  # rows are counted by runs of rowids; three runs are a piece
FAILURES = (duckdb.Error, pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OSError, UnicodeError)

WHOLE = ("tinyint", "smallint", "integer", "bigint", "utinyint", "usmallint", "uinteger", "ubigint")
HUGE = ("hugeint", "uhugeint")
ZONED = "timestamp with time zone"
STAMPS = ("timestamp", "timestamp_s", "timestamp_ms", "timestamp_ns", ZONED)
TIMES = ("time", "time_ns")
NESTED = ("list", "array", "struct", "map")
EXACT = {*WHOLE, "float", "double", "decimal", "boolean", "blob", "null", "date", *STAMPS, *TIMES}
# what a cursor is compared as: the types of columns, and of Python's values
ORDERED: dict[str, tuple[tuple[str, ...], tuple[type, ...]]] = {
    "number": ((*WHOLE, *HUGE, "decimal", "float", "double"), (int, float, Decimal)),
    "text": (("varchar", "uuid"), (str,)),
    "date": (("date",), (date,)),
    "moment": (STAMPS, (datetime,)),
}


@dataclass(frozen=True)
class Table:
    """What is selected from: the SQL after FROM, its columns' types, and whether it has rowids."""

    sql: str
    types: Mapping[str, Any]
    rowids: bool = False


def open_reading(relation: Relation, request: Request, _: Shared) -> AbstractContextManager[Reading]:
    """One transaction over the relation; no other process can open the file for writing until it ends."""
    path = database_path(relation)
    return open_file(
        _connection(relation, path),
        path,
        request,
        lambda connection: _plan(connection, relation, request),
        wal=".wal",
        changes=False,
    )


def probe(relation: Relation) -> Probe:
    """What would be read, and what stands in the way; looks at the values of dates and huge integers."""
    connection = _connection(relation, database_path(relation))
    try:
        return connection.call(lambda native: _probe(native, relation))
    finally:
        connection.close()


def _connection(relation: Relation, path: Path) -> Connection[duckdb.DuckDBPyConnection]:
    def opened() -> duckdb.DuckDBPyConnection:
        connection = attached(path)
        connection.execute("BEGIN")
        return connection

    return Connection(
        relation,
        opened,
        interrupt=lambda connection: connection.interrupt(),
        failures=FAILURES,
        worded=lambda error: _failure(relation, path, error),
    )


def _plan(connection: duckdb.DuckDBPyConnection, relation: Relation, request: Request) -> Plan:
    now = {wall: present(wall=wall) for wall in (True, False)}
    table = _resolve(connection, relation)
    columns = relation.chosen(list(table.types))
    condition = filtered(relation)
    since = _since(relation, table, request.since)
    reads = _reads(connection, relation, table, columns)
    rows = _checked(connection, relation, table, columns, where(condition, since))
    pieces = [Piece(0, rows)]
    if table.rowids and rows > piece_rows(rows):
        runs = f"SELECT rowid // {RUN_ROWS} AS number, count(*) FROM {table.sql}{where(condition, since)}"
        counted = connection.sql(f"{runs} GROUP BY ALL ORDER BY ALL").fetchall()
        pieces = cut(_ends(counted, piece_rows(rows)), rows)

    def batches(piece: Piece) -> Iterator[pa.RecordBatch]:
        return _batches(connection, reads, table.sql + where(condition, since, piece.condition("rowid")))

    def keys(names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        return _batches(connection, {name: reads[name] for name in names}, table.sql + where(condition))

    select = f"{list(reads.values())} {table.sql}{where(condition, since)}" if table.rowids else None
    type_ = table.types[relation.cursor].id if relation.cursor is not None else None
    bound = now[type_ != ZONED] if type_ == "date" or type_ in STAMPS else None
    return Plan(rows, pieces, select, batches, keys, bound)


def _ends(runs: Sequence[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    """Of each piece but the last one, its last rowid and its rows; a piece is some runs, of at most ``size`` rows."""
    rows = 0
    for number, count in runs:
        if rows + count > size:
            yield number * RUN_ROWS - 1, rows
            rows = 0
        rows += count


def _resolve(connection: duckdb.DuckDBPyConnection, relation: Relation) -> Table:
    if relation.spec.query is not None:
        _check_query(connection, relation, relation.spec.query)
        sql = relation.subquery(relation.spec.query)
        return Table(sql, _types(connection, sql))
    found = connection.execute(
        "SELECT schema_name, table_name, true FROM duckdb_tables() WHERE database_name = 'source' AND NOT internal "
        "UNION ALL SELECT schema_name, view_name, false FROM duckdb_views() "
        "WHERE database_name = 'source' AND NOT internal"
    ).fetchall()
    found.sort(key=lambda one: one[0] == "main")  # main comes last, and wins: its a.b before b of a
    spellings: dict[str, tuple[str, bool]] = {}
    for schema, name, stored in found:
        sql = f"source.{identifier(schema)}.{identifier(name)}"
        names = [f"{s}.{n}" for s in (schema, identifier(schema)) for n in (name, identifier(name))]
        names += [name, identifier(name)] if schema == "main" else []
        spellings |= {spelling.lower(): (sql, stored) for spelling in names}
    asked = str(relation.spec.table).lower()
    if asked not in spellings:
        raise relation.missing_table(name if schema == "main" else f"{schema}.{name}" for schema, name, _ in found)
    sql, stored = spellings[asked]
    types = _types(connection, sql)
    return Table(sql, types, rowids=stored and "rowid" not in {column.lower() for column in types})


def _check_query(connection: duckdb.DuckDBPyConnection, relation: Relation, query: str) -> None:
    """It is one SELECT, with columns of different names: DuckDB renames the second id of a subquery to id_1."""
    statements = connection.extract_statements(query)
    if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
        kinds = ", ".join(str(statement.type).rpartition(".")[2] for statement in statements)
        raise relation.error(
            f"the query is not one SELECT statement (but {kinds or 'none'})", fix="write one SELECT statement"
        )
    seen: set[str] = set()
    for name, *_ in connection.execute(f"DESCRIBE {relation.subquery(query)[1:-1]}").fetchall():
        if name.lower() in seen:
            raise relation.repeated_column(name)
        seen.add(name.lower())


def _types(connection: duckdb.DuckDBPyConnection, sql: str) -> dict[str, Any]:
    found = connection.sql(f"SELECT * FROM {sql}")
    return dict(zip(found.columns, found.types, strict=True))


def _target(type_: Any) -> str:
    """The type that ``type_`` is cast to, which Arrow and Polars carry exactly."""
    if type_.id in EXACT:
        return str(type_)
    children = dict(type_.children) if type_.id in NESTED else {}
    if type_.id in ("list", "array"):
        return f"{_target(children['child'])}[]"
    if type_.id == "map":
        return f"MAP({_target(children['key'])}, {_target(children['value'])})"
    if type_.id == "struct":
        return f"STRUCT({', '.join(f'{identifier(name)} {_target(child)}' for name, child in children.items())})"
    return "VARCHAR"


def _reads(
    connection: duckdb.DuckDBPyConnection, relation: Relation, table: Table, columns: Sequence[str]
) -> dict[str, str]:
    """The expression that reads each column; of huge integers by all values, whatever the cursor."""
    targets = {column: _target(table.types[column]) for column in columns}
    huge = [column for column in columns if table.types[column].id in HUGE]
    if huge:
        ends = ", ".join(f"min({identifier(c)}), max({identifier(c)})" for c in huge)
        found = connection.sql(f"SELECT {ends} FROM {table.sql}{where(filtered(relation))}").fetchall()[0]
        for i, column in enumerate(huge):
            low, high = found[2 * i] or 0, found[2 * i + 1] or 0
            if low >= -(2**63) and high < 2**63:
                targets[column] = "BIGINT"
            elif max(-low, high) < 10**38:
                targets[column] = "DECIMAL(38,0)"
    return {c: f"CAST({identifier(c)} AS {target}) AS {identifier(c)}" for c, target in targets.items()}


def _checked(
    connection: duckdb.DuckDBPyConnection, relation: Relation, table: Table, columns: Sequence[str], condition: str
) -> int:
    """The number of rows; every moment among them is one that Polars has."""
    tests = {c: test for c in columns if (test := _out_of_range(identifier(c), table.types[c]))}
    asked = ["count(*)", *(f"count(*) FILTER (WHERE {test})" for test in tests.values())]
    rows, *counts = connection.sql(f"SELECT {', '.join(asked)} FROM {table.sql}{condition}").fetchall()[0]
    for column, count in zip(tests, counts, strict=True):
        if count:
            raise relation.error(
                f"column {column!r} holds infinity, or the time 24:00:00, in {count} rows, which cannot be kept",
                code="source.infinite_date",
                fix=f"read it as text with query: SELECT …, CAST({column} AS VARCHAR) AS {column}",
            )
    return int(rows)


def _out_of_range(value: str, type_: Any, depth: int = 0) -> str | None:
    """SQL: whether ``value`` is, or holds, a moment beyond Polars' types; None where its type has none."""
    if type_.id == "date" or type_.id in STAMPS:
        return f"NOT isfinite({value})"
    if type_.id in TIMES:
        return f"{value} = '24:00:00'"
    children = list(type_.children) if type_.id in NESTED else []
    tests: list[str] = []
    for name, child in children:
        if type_.id == "struct":
            test = _out_of_range(f"struct_extract({value}, {literal(name)})", child, depth)
        elif name == "size":  # of an array
            continue
        else:
            values = f"map_{name}s({value})" if type_.id == "map" else f"CAST({value} AS {child}[])"
            inner = _out_of_range(f"item{depth}", child, depth + 1)
            test = f"len(list_filter({values}, lambda item{depth}: {inner})) > 0" if inner else None
        if test:
            tests.append(f"({test})")
    return " OR ".join(tests) or None


def _since(relation: Relation, table: Table, since: CursorValue | None) -> str | None:
    """The condition on the cursor."""
    if relation.cursor is None:
        return None
    type_ = table.types[relation.cursor]
    kind = next((kind for kind, (ids, _) in ORDERED.items() if type_.id in ids and str(type_) != "JSON"), None)
    if kind is None:
        fix = "choose a column of numbers, texts, dates or timestamps"
        raise refused_cursor(relation, f"is of type {type_}, whose values cannot be compared here", fix)
    if since is None:
        return None
    if isinstance(since, bool) or type(since) not in ORDERED[kind][1]:
        message = f"cannot begin at {since!r}, a {type(since).__name__}: it is of type {type_}"
        raise refused_cursor(relation, message, "read all rows anew")
    text = since.isoformat(" ") if isinstance(since, datetime) else str(since)
    c = identifier(relation.cursor)
    order = ' COLLATE "binary"' if type_.id == "varchar" else ""  # as Polars compares, whatever the column's order
    return f"({c}{order} >= CAST({literal(text)} AS {type_}) OR {c} IS NULL)"


def _batches(
    connection: duckdb.DuckDBPyConnection, reads: Mapping[str, str], selected: str
) -> Iterator[pa.RecordBatch]:
    """The rows; at least one batch."""
    result = connection.sql(f"SELECT {', '.join(reads.values())} FROM {selected}")
    with closing(result), result.to_arrow_reader(BATCH_ROWS) as reader:
        blank = True
        for batch in reader:
            blank = False
            yield batch
        if blank:
            yield no_rows(reader.schema)


def _probe(connection: duckdb.DuckDBPyConnection, relation: Relation) -> Probe:
    table = _resolve(connection, relation)
    columns = relation.chosen(list(table.types))
    _since(relation, table, None)
    rows = _checked(connection, relation, table, columns, where(filtered(relation)))
    reads = _reads(connection, relation, table, columns)
    types = connection.sql(f"SELECT {', '.join(reads.values())} FROM {table.sql}").types
    arrives = ((c, str(table.types[c]), str(type_)) for c, type_ in zip(columns, types, strict=True))
    version = connection.sql("SELECT version()").fetchall()[0][0]
    return Probe(f"DuckDB {version}", rows, tuple(arrives), ())


def _failure(relation: Relation, path: Path, error: Exception) -> Exception:
    text = " ".join(str(error).strip().partition("\n\n")[0].split())
    text = text.partition("Error: ")[2] or text
    if "Could not set lock" in text:
        process = text.partition("(PID ")[2].partition(")")[0]
        return relation.error(
            f"the database {path} is open for writing in another process{f' (PID {process})' if process else ''}",
            code="source.locked",
            fix="close it there, or read a copy of the file",
            transient=True,
        )
    if "not a valid DuckDB database" in text:
        return relation.error(f"{path} is not a DuckDB database", fix="correct the path in connection_string")
    if "version number" in text:
        return relation.error(
            f"{path} was written by another version of DuckDB: {text}",
            code="source.unsupported_version",
            fix="pip install -U duckdb, or write the file with an older STORAGE_VERSION",
        )
    if "Permission denied" in text:
        return relation.error(
            f"{path} must not be read by this user", code="source.access_denied", fix="grant the right to read it"
        )
    return relation.error(f"{path} cannot be read: {text}", fix="check the table or query with the duckdb shell")
