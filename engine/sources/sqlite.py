"""SQLite through ADBC.

A SQLite column may hold values of several types, whatever it was declared as, and ADBC guesses a column's type from
the first batch only. So the types are planned before the read, from all values, in the same transaction:

| values of the column (nulls aside)           | becomes                                                        |
|----------------------------------------------|----------------------------------------------------------------|
| integers                                     | Int64; Boolean when declared BOOL… and only 0 and 1 occur      |
| reals, or integers and reals                 | Float64; an error if an integer beyond ±2^53 would be rounded  |
| texts, or texts and numbers                  | String; numbers as SQLite prints them (reals with 17 digits)   |
| blobs                                        | Binary; an error when mixed with other types                   |
| none                                         | by the declared type: Int64, Float64, Boolean, Binary, String  |

Dates are what they are stored as: texts stay the same texts, numbers the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import adbc_driver_sqlite
import pyarrow as pa

from engine.duck import identifier
from engine.sources.adbc import FAILURES, Session, wording
from engine.sources.relation import Relation, Snapshot

BATCH_ROWS = 50_000
EXACT = 2**53  # the largest integer up to which every integer is a float64
COLUMNS_PER_PASS = 200  # SQLite's limit is 2,000 result columns

# kind: (a value of it, the expression that reads a column as it, its Arrow type)
KINDS = {
    "integer": ("0", "{}", pa.int64()),
    "boolean": ("0", "{}", pa.bool_()),
    "real": ("0.0", "CAST({} AS REAL)", pa.float64()),
    "text": ("''", "CAST({} AS TEXT)", pa.string()),
    "blob": ("x''", "{}", pa.binary()),
}


@contextmanager
def snapshot(relation: Relation) -> Iterator[Snapshot]:
    """One read transaction over the relation; a writer may have to wait until it ends."""
    path = _path(relation)
    try:
        with Session(adbc_driver_sqlite._driver_path(), f"file:{quote(bytes(path))}?mode=ro") as session:
            session.rows(f"PRAGMA busy_timeout = {min(10_000, int(relation.spec.timeout_seconds * 1000))}")
            session.begin()
            table, declared = _resolve(session, relation)
            columns = _columns(session, relation, table)
            rows, kinds = _plan(session, relation, table, columns, declared)
            yield Snapshot(rows, _batches(session, relation, table, kinds))
    except FAILURES as error:
        raise _failure(relation, path, error) from None


def _path(relation: Relation) -> Path:
    text = relation.url.removeprefix("sqlite://").removeprefix("/")
    if text in ("", ":memory:"):
        raise relation.error(
            "the connection string names no database file",
            code="source.missing_file",
            allowed="sqlite:///relative/path.db, sqlite:////absolute/path.db",
            fix="add the path of the file",
        )
    path = relation.base / Path(text).expanduser()
    if not path.is_file():
        what = "is a directory" if path.is_dir() else "does not exist"
        raise relation.error(
            f"the database file {path} {what}",
            code="source.missing_file",
            allowed="sqlite:///path relative to the pipeline file, sqlite:////absolute/path",
            fix="correct the path in connection_string",
        )
    return path


def _resolve(session: Session, relation: Relation) -> tuple[str, dict[str, str]]:
    """What to select from, and the declared type of each column (unknown for a query)."""
    names = {row["name"] for row in session.rows("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")}
    if relation.spec.query is not None:
        return relation.subquery(relation.spec.query), {}
    asked = str(relation.spec.table)
    plain = asked if asked.lower() in {n.lower() for n in names} else asked.removeprefix("main.")
    if plain.lower() not in {n.lower() for n in names}:
        raise relation.missing_table(n for n in names if not n.startswith("sqlite_"))
    table = f"main.{identifier(plain)}"
    described = session.rows(f"PRAGMA main.table_xinfo({identifier(plain)})")
    return table, {row["name"]: row["type"].upper() for row in described}


def _columns(session: Session, relation: Relation, table: str) -> list[str]:
    names: list[str] = session.stream(f"SELECT * FROM {table} LIMIT 0").schema.names
    for name in names:  # SQLite renames the second id of a subquery to id:1
        original, colon, number = name.rpartition(":")
        if relation.spec.query is not None and colon and number.isdigit() and original in names:
            raise relation.repeated_column(original)
    return names


def _plan(
    session: Session, relation: Relation, table: str, columns: list[str], declared: dict[str, str]
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
        (found,) = session.rows(f"SELECT {', '.join(asked)} FROM {table}")
        rows = found["n"]
        for i, column in enumerate(part):
            low, high = found[f"low{i}"], found[f"high{i}"]
            kinds[column] = _kind(session, relation, table, column, declared.get(column, ""), low, high)
    return rows, kinds


def _kind(
    session: Session, relation: Relation, table: str, column: str, declared: str, low: str | None, high: str | None
) -> str:
    """The kind of a column whose types, in the order blob < integer < real < text, lie from ``low`` to ``high``."""
    if low is None or high is None:
        return _declared_kind(declared)
    if low == "blob" and high != "blob":
        raise relation.error(
            f"column {column!r} mixes blobs with {high} values",
            code="source.mixed_column",
            fix=f"read it with query: SELECT …, CAST({column} AS TEXT) AS {column}, or hex({column})",
        )
    if (low, high) == ("integer", "real") and _any(session, table, column, f"NOT BETWEEN {-EXACT} AND {EXACT}"):
        raise relation.error(
            f"column {column!r} mixes fractions with integers beyond 2^53, which no float holds exactly",
            code="source.inexact_number",
            fix=f"read it as text with query: SELECT …, CAST({column} AS TEXT) AS {column}",
        )
    if high == "integer" and "BOOL" in declared and not _any(session, table, column, "NOT IN (0, 1)"):
        return "boolean"
    return high


def _any(session: Session, table: str, column: str, condition: str) -> bool:
    """Whether an integer of the column meets the condition."""
    c = identifier(column)
    sql = f"SELECT EXISTS (SELECT 1 FROM {table} WHERE typeof({c}) = 'integer' AND {c} {condition}) AS found"
    return bool(session.rows(sql)[0]["found"])


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


def _batches(session: Session, relation: Relation, table: str, kinds: dict[str, str]) -> Iterator[pa.RecordBatch]:
    """The rows. One row with a value of every planned kind goes first, so that ADBC sees the types, and is dropped."""
    values = ", ".join(f"{KINDS[kind][0]} AS {identifier(c)}" for c, kind in kinds.items())
    reads = ", ".join(KINDS[kind][1].format(identifier(c)) for c, kind in kinds.items())
    sql = f"SELECT {values} UNION ALL SELECT {reads} FROM {table}"
    target = pa.schema([(c, KINDS[kind][2]) for c, kind in kinds.items()])
    for number, batch in enumerate(session.stream(sql, **{"adbc.sqlite.query.batch_rows": str(BATCH_ROWS)})):
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


def _failure(relation: Relation, path: Path, error: BaseException) -> Exception:
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
