"""SQLite through ADBC.

A SQLite column may hold values of several types, whatever it was declared as, and ADBC guesses a column's type from
the first batch only. So the types are planned before the read, in the same transaction, from all values that
meet the filter, also where a cursor leaves out most of them: a column's type is the same in every run.

| values of the column (nulls aside)           | becomes                                                        |
|----------------------------------------------|----------------------------------------------------------------|
| integers                                     | Int64; Boolean when declared BOOL… and only 0 and 1 occur      |
| reals, or integers and reals                 | Float64; an error if an integer beyond ±2^53 would be rounded  |
| texts, or texts and numbers                  | String; numbers as SQLite prints them (reals with 17 digits)   |
| blobs                                        | Binary; an error when mixed with other types                   |
| none                                         | by the declared type: Int64, Float64, Boolean, Binary, String  |

Dates are what they are stored as: texts stay the same texts, numbers the same numbers.

A table with rowids is read in ranges of them, which a later reading can go on from while the file is unchanged; a
view, a query or a table WITHOUT ROWID is one stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import adbc_driver_sqlite
import pyarrow as pa

from engine.duck import identifier
from engine.sources import CursorValue, Reading, Request, Shared
from engine.sources.adbc import FAILURES, Session, wording
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
from engine.sources.relation import Probe, Relation

BATCH_ROWS = 50_000
EXACT = 2**53  # the largest integer up to which every integer is a float64
COLUMNS_PER_PASS = 200  # SQLite's limit is 2,000 result columns
ROWIDS = ("rowid", "oid", "_rowid_")

# kind: (a value of it, the expression that reads a column as it, its Arrow type)
KINDS = {
    "integer": ("0", "{}", pa.int64()),
    "boolean": ("0", "{}", pa.bool_()),
    "real": ("0.0", "CAST({} AS REAL)", pa.float64()),
    "text": ("''", "CAST({} AS TEXT)", pa.string()),
    "blob": ("x''", "{}", pa.binary()),
}
ORDERED = {"integer": "numbers", "real": "numbers", "text": "texts"}  # what has an order, by typeof


@dataclass(frozen=True)
class Table:
    """What is selected from.

    Attributes:
        sql: after FROM.
        columns: all of them.
        declared: their declared types; nothing is known of a query's.
        rowid: a name of the rowid; None: it has none, or columns hide all its names.
    """

    sql: str
    columns: Sequence[str]
    declared: dict[str, str]
    rowid: str | None = None


def open_reading(relation: Relation, request: Request, _: Shared) -> AbstractContextManager[Reading]:
    """One read transaction over the relation; without WAL a writer waits until it ends."""
    path = database_path(relation)
    return open_file(
        _connection(relation),
        path,
        request,
        lambda session: _plan(session, relation, request),
        wal="-wal",
        changes=True,
    )


def probe(relation: Relation) -> Probe:
    """What would be read, and what stands in the way; looks at every value."""
    connection = _connection(relation)
    try:
        return connection.call(lambda session: _probe(session, relation))
    finally:
        connection.close()


def _connection(relation: Relation) -> Connection[Session]:
    path = database_path(relation)

    def opened() -> Session:
        session = Session(adbc_driver_sqlite._driver_path(), f"file:{quote(bytes(path))}?mode=ro")
        try:
            session.rows(f"PRAGMA busy_timeout = {min(10_000, int(relation.spec.timeout_seconds * 500))}")
            session.begin()
        except BaseException:
            session.close()
            raise
        return session

    return Connection(
        relation,
        opened,
        interrupt=Session.cancel,
        failures=FAILURES,
        worded=lambda error: _failure(relation, path, error),
    )


def _plan(session: Session, relation: Relation, request: Request) -> Plan:
    bound = present(wall=True) if relation.cursor is not None else None  # its texts may be moments
    table = _resolve(session, relation)
    columns = relation.chosen(table.columns)
    condition = filtered(relation)
    since = None
    if relation.cursor is not None:
        since = _since(session, relation, table, relation.cursor, request.since)
    rows, kinds = _kinds(session, relation, table, columns, where(condition))
    if relation.cursor is not None and kinds.get(relation.cursor) in ("boolean", "blob"):
        raise refused_cursor(relation, f"holds {kinds[relation.cursor]}s", "choose a column of numbers or texts")
    if since:
        rows = session.rows(f"SELECT count(*) AS n FROM {table.sql}{where(condition, since)}")[0]["n"]
    size = piece_rows(rows)
    pieces = [Piece(0, rows)]
    sql = table.sql
    if table.rowid and rows > size:
        sql += " NOT INDEXED"  # else each piece might be looked for in all of the cursor's index
        pieces = cut(_ends(session, table, (condition, since), size, rows), rows)

    def batches(piece: Piece) -> Iterator[pa.RecordBatch]:
        within = piece.condition(table.rowid) if table.rowid else None
        return _batches(session, relation, sql + where(condition, since, within), kinds)

    def keys_of(names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        return _batches(session, relation, table.sql + where(condition), {name: kinds[name] for name in names})

    select = f"{_select(kinds)} FROM {sql}{where(condition, since)}" if table.rowid else None
    return Plan(rows, pieces, select, batches, keys_of, bound)


def _ends(
    session: Session, table: Table, conditions: Sequence[str | None], size: int, rows: int
) -> Iterator[tuple[int, int]]:
    """Of each piece but the last one, its last rowid and its rows, which are ``size``."""
    last: int | None = None
    for _ in range(size, rows, size):
        beyond = f"{table.rowid} > {last}" if last is not None else None
        found = session.rows(
            f"SELECT {table.rowid} AS last FROM {table.sql} NOT INDEXED{where(*conditions, beyond)} "
            f"ORDER BY {table.rowid} LIMIT 1 OFFSET {size - 1}"
        )
        if not found:
            return
        last = int(found[0]["last"])
        yield last, size


def _since(session: Session, relation: Relation, table: Table, cursor: str, since: CursorValue | None) -> str | None:
    """The condition on the cursor; its values and ``since`` must have one order: that of numbers, or of bytes."""
    c = identifier(cursor)
    held = []
    for end in ("min", "max"):  # SQLite orders numbers before texts before blobs
        (row,) = session.rows(
            f"SELECT typeof((SELECT {end}({c} COLLATE BINARY) FROM {table.sql}{where(filtered(relation))})) AS type"
        )
        held.append(row["type"])
    kinds = [ORDERED.get(kind, f"{kind}s") for kind in held if kind != "null"]
    if len(set(kinds)) > 1:
        raise refused_cursor(
            relation,
            f"holds {kinds[0]} and {kinds[1]}, which have no common order",
            f"read it with query: SELECT …, CAST({cursor} AS TEXT) AS {cursor}, if texts of it grow",
        )
    if since is None:
        return None
    if isinstance(since, bool) or not isinstance(since, int | float | str):
        raise refused_cursor(relation, f"cannot begin at {since!r}, a {type(since).__name__}", "read all rows anew")
    begins = "texts" if isinstance(since, str) else "numbers"
    if kinds and kinds[0] != begins:
        raise refused_cursor(relation, f"held {begins} until now, and holds {kinds[0]}", "read all rows anew")
    return f"({c} COLLATE BINARY >= {_literal(since)} OR {c} IS NULL)"


def _literal(value: float | str) -> str:
    if isinstance(value, str):
        return f"CAST(x'{value.encode().hex()}' AS TEXT)"
    return repr(value).replace("inf", "9e999")


def _probe(session: Session, relation: Relation) -> Probe:
    table = _resolve(session, relation)
    columns = relation.chosen(table.columns)
    rows, kinds = _kinds(session, relation, table, columns, where(filtered(relation)))
    warnings = []
    mode = session.rows("PRAGMA journal_mode")[0]["journal_mode"]
    if mode != "wal":
        warnings.append(f"writers wait while it is read: its journal mode is {mode}; in WAL mode they need not")
    if relation.cursor is not None:
        _since(session, relation, table, relation.cursor, None)
        c = identifier(relation.cursor)
        asked = f"SELECT 1 FROM {table.sql} WHERE {c} COLLATE BINARY >= 0 OR {c} IS NULL"
        steps = [str(row["detail"]) for row in session.rows(f"EXPLAIN QUERY PLAN {asked}")]
        if any(step.startswith("SCAN") for step in steps):
            warnings.append(f"no index on the cursor {relation.cursor!r}: every run looks for new rows in all rows")
    version = session.rows("SELECT sqlite_version() AS version")[0]["version"]
    arrives = ((c, table.declared.get(c, ""), str(KINDS[kind][2])) for c, kind in kinds.items())
    return Probe(f"SQLite {version}", rows, tuple(arrives), tuple(warnings))


def _resolve(session: Session, relation: Relation) -> Table:
    if relation.spec.query is not None:
        sql = relation.subquery(relation.spec.query)
        return Table(sql, _columns(session, relation, sql), {})
    tables = session.rows("PRAGMA main.table_list")
    names = {str(row["name"]).lower(): row for row in tables if row["schema"] == "main"}
    asked = str(relation.spec.table)
    found = names.get(asked.lower()) or names.get(asked.removeprefix("main.").lower())
    if found is None:
        raise relation.missing_table(row["name"] for row in names.values() if not row["name"].startswith("sqlite_"))
    sql = f"main.{identifier(found['name'])}"
    columns = _columns(session, relation, sql)
    described = session.rows(f"PRAGMA main.table_xinfo({identifier(found['name'])})")
    declared = {row["name"]: row["type"].upper() for row in described}
    hidden = {column.lower() for column in declared}
    free = [name for name in ROWIDS if name not in hidden]
    stored = found["type"] == "table" and not found["wr"]
    return Table(sql, columns, declared, free[0] if stored and free else None)


def _columns(session: Session, relation: Relation, sql: str) -> list[str]:
    with session.query(f"SELECT * FROM {sql} LIMIT 0") as reader:
        names: list[str] = reader.schema.names
    for name in names:  # SQLite renames the second id of a subquery to id:1
        original, colon, number = name.rpartition(":")
        if relation.spec.query is not None and colon and number.isdigit() and original in names:
            raise relation.repeated_column(original)
    return names


def _kinds(
    session: Session, relation: Relation, table: Table, columns: Sequence[str], condition: str
) -> tuple[int, dict[str, str]]:
    """The number of rows, and the kind of each column."""
    kinds: dict[str, str] = {}
    rows = 0
    for start in range(0, len(columns), COLUMNS_PER_PASS):
        part = columns[start : start + COLUMNS_PER_PASS]
        asked = ["count(*) AS n"]
        for i, column in enumerate(part):
            type_ = f"nullif(typeof({identifier(column)}), 'null')"
            asked.append(f"min({type_}) AS low{i}, max({type_}) AS high{i}")
        (found,) = session.rows(f"SELECT {', '.join(asked)} FROM {table.sql}{condition}")
        rows = found["n"]
        for i, column in enumerate(part):
            low, high = found[f"low{i}"], found[f"high{i}"]

            def any_integer(test: str, c: str = identifier(column)) -> bool:
                among = f"SELECT {c} AS c FROM {table.sql}{condition}"
                sql = f"SELECT EXISTS (SELECT 1 FROM ({among}) WHERE typeof(c) = 'integer' AND c {test}) AS found"
                return bool(session.rows(sql)[0]["found"])

            kinds[column] = _kind(relation, column, table.declared.get(column, ""), (low, high), any_integer)
    return rows, kinds


def _kind(
    relation: Relation,
    column: str,
    declared: str,
    types: tuple[str | None, str | None],
    any_integer: Callable[[str], bool],
) -> str:
    """The kind of a column by the first and last of its ``types`` in the order blob < integer < real < text."""
    low, high = types
    if low is None or high is None:
        return _declared_kind(declared)
    if low == "blob" and high != "blob":
        raise relation.error(
            f"column {column!r} mixes blobs with {high} values",
            code="source.mixed_column",
            fix=f"read it with query: SELECT …, CAST({column} AS TEXT) AS {column}, or hex({column})",
        )
    if (low, high) == ("integer", "real") and any_integer(f"NOT BETWEEN {-EXACT} AND {EXACT}"):
        raise relation.error(
            f"column {column!r} mixes fractions with integers beyond 2^53, which no float holds exactly",
            code="source.inexact_number",
            fix=f"read it as text with query: SELECT …, CAST({column} AS TEXT) AS {column}",
        )
    if high == "integer" and "BOOL" in declared and not any_integer("NOT IN (0, 1)"):
        return "boolean"
    return high


def _declared_kind(declared: str) -> str:
    """The kind of a column without values: SQLite's affinity rules, but dates are text and BOOL is boolean."""
    rules = {
        "integer": ("INT",),
        "text": ("CHAR", "CLOB", "TEXT", "DATE", "TIME"),
        "boolean": ("BOOL",),
        "blob": ("BLOB",),
        "real": ("REAL", "FLOA", "DOUB", "DEC", "NUM"),
    }
    return next((kind for kind, marks in rules.items() if any(m in declared for m in marks)), "text")


def _select(kinds: dict[str, str]) -> str:
    return "SELECT " + ", ".join(KINDS[kind][1].format(identifier(c)) for c, kind in kinds.items())


def _batches(session: Session, relation: Relation, selected: str, kinds: dict[str, str]) -> Iterator[pa.RecordBatch]:
    """The rows. One row with a value of every planned kind goes first, so that ADBC sees the types, and is dropped."""
    values = ", ".join(f"{KINDS[kind][0]} AS {identifier(c)}" for c, kind in kinds.items())
    sql = f"SELECT {values} UNION ALL {_select(kinds)} FROM {selected}"
    target = pa.schema([(c, KINDS[kind][2]) for c, kind in kinds.items()])
    with session.query(sql, **{"adbc.sqlite.query.batch_rows": str(BATCH_ROWS)}) as reader:
        for number, batch in enumerate(reader):
            kept: Any = batch.slice(1) if number == 0 else batch
            for column, kind in kinds.items():
                if kind == "text":
                    _check_text(relation, column, kept[column])
            yield kept.cast(target)


def _check_text(relation: Relation, column: str, texts: pa.Array) -> None:
    """SQLite stores any bytes as a text; Arrow's readers rely on UTF-8."""
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        raise relation.error(
            f"column {column!r} holds a text that is not valid UTF-8",
            code="source.invalid_text",
            fix=f"read it as bytes with query: SELECT …, CAST({column} AS BLOB) AS {column}",
        ) from None


def _failure(relation: Relation, path: Path, error: Exception) -> Exception:
    text = wording(error)
    if "locked" in text or "busy" in text:
        return relation.error(
            f"the database {path} is locked by another process",
            code="source.locked",
            fix="wait until its writer is done; a database in WAL mode lets readers pass",
            transient=True,
        )
    if "not a database" in text:
        return relation.error(f"{path} is not a SQLite database", fix="correct the path in connection_string")
    return relation.error(f"{path} cannot be read: {text}", fix="check the table or query with the sqlite3 shell")
