"""SQLite sources: every cell as it was stored, or an error that says what to do."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import SourceError, TransientSourceError
from engine.sources import CursorValue, Promise, Request, database_file, open_source, sqlite
from engine.sources.relation import Relation
from tests.sources.interrupted import broken_off, continued
from tests.sources.reads import chunks_of, collected, database, read

Make = Callable[..., str]


@pytest.fixture(autouse=True)
def _chunks_of_100_000_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("relation", "database_file"):
        monkeypatch.setattr(f"engine.sources.{module}.CHUNK_ROWS", 100_000)
    monkeypatch.setattr("engine.sources.relation.CHUNK_BYTES", 2**25)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Create a table ``t`` of the given declaration and rows; gives the connection string."""

    def table(declaration: str, rows: list[tuple[Any, ...]], name: str = "t") -> str:
        with closing(sqlite3.connect(tmp_path / "app.db")) as connection, connection:
            quoted = '"' + name.replace('"', '""') + '"'
            connection.execute(f"CREATE TABLE {quoted} ({declaration})")
            if rows:
                connection.executemany(f"INSERT INTO {quoted} VALUES ({', '.join('?' * len(rows[0]))})", rows)
        return f"sqlite:///{tmp_path / 'app.db'}"

    return table


@pytest.mark.parametrize("name", ["br[ack]et*", "a?b#c%20", "\udcff"])
def test_below_a_folder_with_an_odd_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    with closing(sqlite3.connect(folder / "app.db")) as connection, connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS n")
    assert read(database("sqlite:///app.db", table="t"), folder).rows() == [(1,)]
    if "?" not in name:
        assert read(database(f"sqlite:///{folder}/app.db", table="t")).rows() == [(1,)]


@pytest.mark.parametrize(
    ("declared", "values", "dtype", "expected"),
    [
        ("INTEGER", [1, None, -(2**63), 2**63 - 1], pl.Int64, None),
        ("REAL", [0.1, None, 1e308, float("inf")], pl.Float64, None),
        ("NUMERIC", [1, 2.5, None, 2**53], pl.Float64, [1.0, 2.5, None, 2.0**53]),
        ("TEXT", ["", None, "naïve ☃ 𝄞", "a\nb"], pl.String, None),
        ("BLOB", [b"", None, b"\x00\xff"], pl.Binary, None),
        ("BOOLEAN", [1, 0, None], pl.Boolean, [True, False, None]),
        ("BOOLEAN", [1, 2, None], pl.Int64, None),
        ("INTEGER", [1, "two", 0.1 + 0.2, None], pl.String, ["1", "two", "0.30000000000000004", None]),
        ("", [2**63 - 1, "x"], pl.String, ["9223372036854775807", "x"]),
        ("DATETIME", ["2026-01-01T00:00:00+02:00", "2026-01-01 00:00", None], pl.String, None),
        ("TIMESTAMP", [1767225600, None], pl.Int64, None),
        ("INTEGER", [None], pl.Int64, None),
        ("VARCHAR(9)", [None], pl.String, None),
        ("DATE", [None], pl.String, None),
        ("DECIMAL(9,2)", [None], pl.Float64, None),
        ("BOOL", [None], pl.Boolean, None),
        ("BLOB", [None], pl.Binary, None),
        ("", [None], pl.String, None),
    ],
)
def test_each_kind_of_column(make: Make, declared: str, values: list[Any], dtype: Any, expected: Any) -> None:
    frame = read(database(make(f"c {declared}", [(v,) for v in values]), table="t"))
    assert frame.schema == {"c": dtype}
    assert frame["c"].to_list() == (values if expected is None else expected)


@pytest.mark.parametrize("late", [7, 0.5, "text", b"blob"])
def test_a_first_value_after_many_nulls_has_its_type(make: Make, late: Any) -> None:
    frame = read(database(make("c", [(None,)] * 60_000 + [(late,)]), table="t"))
    assert frame.height == 60_001
    assert frame["c"][-1] == late
    assert frame["c"].null_count() == 60_000


def test_large_tables_come_in_chunks(make: Make) -> None:
    rows = [(i, f"name {i}", i / 7) for i in range(250_001)]
    source = open_source("s", database(make("id INTEGER PRIMARY KEY, name TEXT, x REAL", rows), table="t"), Path())
    chunks = list(chunks_of(source))
    assert [(chunk.number, chunk.part, chunk.last, chunk.rows) for chunk in chunks] == [
        (0, 0, True, 100_000),
        (1, 0, True, 100_000),
        (2, 0, True, 50_001),
    ]
    assert collected(chunks).rows() == rows


def test_a_read_may_stop_early_and_begin_again(make: Make) -> None:
    spec = database(make("id INTEGER", [(i,) for i in range(300_000)]), table="t")
    source = open_source("s", spec, Path())
    assert next(iter(chunks_of(source))).number == 0
    assert sum(chunk.rows or 0 for chunk in chunks_of(source)) == 300_000


def test_odd_names(make: Make) -> None:
    url = make('"select" INT, "a b" INT, "quo""te" INT, "日本" INT', [(1, 2, 3, 4)], name='or"der.by')
    for table in ('or"der.by', 'main.or"der.by', 'OR"DER.BY'):
        assert read(database(url, table=table)).rows(named=True) == [{"select": 1, "a b": 2, 'quo"te': 3, "日本": 4}]


def test_an_empty_table_keeps_its_columns(make: Make) -> None:
    frame = read(database(make("id INTEGER, name TEXT, at DATETIME", []), table="t"))
    assert frame.schema == {"id": pl.Int64, "name": pl.String, "at": pl.String}
    assert frame.height == 0


def test_a_query_keeps_its_order_and_may_end_in_a_comment(make: Make) -> None:
    url = make("id INTEGER", [(i,) for i in range(9)])
    assert read(database(url, query="SELECT id FROM t ORDER BY id DESC -- all"))["id"].to_list() == [*range(8, -1, -1)]
    assert read(database(url, query="WITH x AS (SELECT 1 AS a) SELECT a FROM x;"))["a"].to_list() == [1]


def test_a_relative_path_starts_at_the_base(make: Make, tmp_path: Path) -> None:
    make("id INTEGER", [(1,)])
    assert read(database("sqlite:///app.db", table="t"), tmp_path).height == 1
    odd = tmp_path / "a b%20?#.db"
    (tmp_path / "app.db").rename(odd)
    assert read(database(f"sqlite:///{odd.name}", table="t"), tmp_path).height == 1


@pytest.mark.parametrize(
    ("values", "code", "text"),
    [
        ([2**53 + 1, 0.5], "source.inexact_number", "column 'c' mixes fractions with integers beyond 2^53"),
        ([b"x", 1], "source.mixed_column", "column 'c' mixes blobs with integer values"),
    ],
)
def test_what_no_type_holds_is_refused(make: Make, values: list[Any], code: str, text: str) -> None:
    with pytest.raises(SourceError, match=text.replace("^", r"\^")) as caught:
        read(database(make("c", [(v,) for v in values]), table="t"))
    assert (caught.value.code, caught.value.where) == (code, "sources.s")
    assert "query: SELECT" in str(caught.value.fix)


def test_invalid_utf8_is_refused(make: Make) -> None:
    url = make("c TEXT", [])
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("INSERT INTO t VALUES (CAST(x'ff' AS TEXT))")
    with pytest.raises(SourceError, match="column 'c' holds a text that is not valid UTF-8"):
        read(database(url, table="t"))
    assert read(database(url, query="SELECT CAST(c AS BLOB) AS c FROM t"))["c"].to_list() == [b"\xff"]


def test_a_missing_table_names_the_nearest(make: Make) -> None:
    make("id INTEGER", [], name="users")
    url = make("id INTEGER", [], name="orders")
    with pytest.raises(SourceError, match="there is no table 'user'") as caught:
        read(database(url, table="user"))
    assert caught.value.allowed == "orders, users"
    assert caught.value.fix == "did you mean 'users'?"


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("SELECT nope FROM t", "no such column: nope"),
        ("DELETE FROM t", "syntax error"),
        ("SELECT 1 AS a; SELECT 2 AS a", "syntax error"),
        ("SELECT id, id FROM t", "gives the column 'id' twice"),
    ],
)
def test_a_wrong_query(make: Make, query: str, text: str) -> None:
    with pytest.raises(SourceError, match=text):
        read(database(make("id INTEGER", [(1,)]), query=query))


def test_a_missing_or_foreign_file(tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("just some notes, long enough to look like a file header")
    with pytest.raises(SourceError, match="is not a SQLite database"):
        read(database("sqlite:///notes.db", table="t"), tmp_path)
    with pytest.raises(SourceError, match=r"none\.db does not exist"):
        read(database("sqlite:///none.db", table="t"), tmp_path)
    with pytest.raises(SourceError, match="is a directory"):
        read(database(f"sqlite:///{tmp_path}", table="t"))
    with pytest.raises(SourceError, match="names no database file"):
        read(database("sqlite://", table="t"))
    assert not (tmp_path / "none.db").exists()


def test_a_locked_database_may_be_tried_again(make: Make) -> None:
    url = make("id INTEGER", [(1,)])
    # In a process of its own: two SQLite libraries in one process do not see each other's locks.
    script = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); "
        "c.execute('BEGIN EXCLUSIVE'); print(1, flush=True); input()"
    )
    command = [sys.executable, "-c", script, url.removeprefix("sqlite:///")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "1\n"
        with pytest.raises(TransientSourceError, match="is locked by another process"):
            read(database(url, table="t", timeout_seconds=0.2))
        holder.stdin.write("\n")
    assert read(database(url, table="t")).height == 1


def test_a_reading_vouches_for_what_it_gives(make: Make) -> None:
    url = make("id INTEGER PRIMARY KEY", [(1,)])
    with open_source("s", database(url, table="t"), Path()).open(Request()) as reading:
        assert reading.promise == Promise(snapshot="one", counted=True)
        assert (reading.bound, reading.trace, reading.kept) == (None, None, frozenset())
        assert collected(reading.chunks()).rows() == [(1,)]
    with open_source("s", database(url, table="t", cursor="id"), Path()).open(Request()) as reading:
        assert reading.promise.late_commits == "none_missed"
        assert "lateness" in str(reading.promise.note)


def rows_of(number: int) -> list[tuple[int, str]]:
    return [(i * 3 - 1000, f"name {i}") for i in range(number)]


@pytest.mark.parametrize("declaration", ["id INTEGER PRIMARY KEY, name TEXT", "rowid TEXT, oid TEXT"])
def test_an_interrupted_reading_goes_on(make: Make, declaration: str) -> None:
    rows = rows_of(250_000)
    if "oid" in declaration:  # one name of the rowid is left
        rows = [(str(i), name) for i, name in rows]  # type: ignore[misc]
    source = open_source("s", database(make(declaration, rows), table="t"), Path())
    began = broken_off(source, pieces=2)
    assert [(piece.number, piece.rows) for piece in began.landed] == [(0, 100_000), (1, 100_000)]
    kept, rest = continued(source, began)
    assert kept == {0, 1}
    assert rest.rows() == rows[200_000:]


def test_a_piece_that_lost_rows_is_read_anew(make: Make) -> None:
    source = open_source("s", database(make("id INTEGER PRIMARY KEY, name TEXT", rows_of(250_000)), table="t"), Path())
    began = broken_off(source, pieces=2)
    short = replace(began, landed=[began.landed[0], replace(began.landed[1], rows=99_999)])
    kept, rest = continued(source, short)
    assert kept == {0}
    assert rest.rows() == rows_of(250_000)[100_000:]


def test_a_changed_file_is_read_anew(make: Make) -> None:
    url = make("id INTEGER PRIMARY KEY, name TEXT", rows_of(150_000))
    source = open_source("s", database(url, table="t"), Path())
    began = broken_off(source, pieces=1)
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("UPDATE t SET name = 'NAME 0' WHERE id = -1000")
    kept, rest = continued(source, began)
    assert kept == frozenset()
    assert rest.rows() == [(-1000, "NAME 0"), *rows_of(150_000)[1:]]


def test_what_is_still_in_the_wal_is_read_and_a_change_there_seen(make: Make) -> None:
    url = make("id INTEGER PRIMARY KEY, name TEXT", rows_of(150_000))
    source = open_source("s", database(url, table="t"), Path())
    script = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
        "c.execute('PRAGMA journal_mode = WAL'); c.execute('DELETE FROM t WHERE id < 0'); print(1, flush=True); "
        "input(); c.execute('DELETE FROM t WHERE id < 3000'); print(2, flush=True); input()"
    )
    command = [sys.executable, "-c", script, url.removeprefix("sqlite:///")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdin is not None
        assert writer.stdout.readline() == "1\n"
        began = broken_off(source, pieces=1)
        kept, rest = continued(source, began)
        assert kept == {0}
        assert rest.height == 150_000 - 334 - 100_000
        with source.open(Request()) as reading:
            chunks = reading.chunks()
            first = next(chunks)
            writer.stdin.write("\n")
            writer.stdin.flush()
            assert writer.stdout.readline() == "2\n"  # a writer does not wait, nor is it seen
            assert collected([first, *chunks]).height == 150_000 - 334
        kept, rest = continued(source, began)
        assert kept == frozenset()
        assert rest["id"].to_list() == [i for i, _ in rows_of(150_000) if i >= 3000]
        writer.stdin.write("\n")


def test_another_selection_is_read_anew(make: Make) -> None:
    url = make("id INTEGER PRIMARY KEY, name TEXT", rows_of(150_000))
    began = broken_off(open_source("s", database(url, table="t"), Path()), pieces=1)
    for keys in ({"columns": ("id",)}, {"filter": "id > 0"}):
        kept, rest = continued(open_source("s", database(url, table="t", **keys), Path()), began)
        assert kept == frozenset()
        assert rest.height == (150_000 if "columns" in keys else 150_000 - 334)


@pytest.mark.parametrize("kind", ["query", "view", "without rowid", "hidden rowid"])
def test_what_has_no_rowid_is_one_piece(make: Make, kind: str) -> None:
    hidden = kind == "hidden rowid"
    declaration = "rowid INT, OID INT, _rowid_ INT" if hidden else "id INTEGER PRIMARY KEY, name TEXT"
    rows = [(i, i, i) for i in range(150_000)] if hidden else rows_of(150_000)
    url = make(declaration + (") WITHOUT ROWID --" if kind == "without rowid" else ""), rows)
    if kind == "view":
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
            connection.execute("CREATE VIEW v AS SELECT * FROM t")
    asked = {"query": "SELECT * FROM t"} if kind == "query" else {"table": "v" if kind == "view" else "t"}
    with open_source("s", database(url, **asked), Path()).open(Request()) as reading:
        assert reading.seal is None
        chunks = list(reading.chunks())
    assert [(c.number, c.part, c.last, c.mark) for c in chunks] == [(0, 0, False, None), (0, 1, True, None)]
    assert collected(chunks).rows() == rows


def test_wide_rows_come_in_parts(make: Make) -> None:
    url = make("id INTEGER PRIMARY KEY, data BLOB", [(i, bytes([i % 256]) * 2000) for i in range(60_000)])
    chunks = list(chunks_of(open_source("s", database(url, table="t"), Path())))
    assert [(c.number, c.part, c.last) for c in chunks] == [(0, 0, False), (0, 1, True)]
    assert collected(chunks)["id"].to_list() == list(range(60_000))


def test_columns_and_filter(make: Make) -> None:
    url = make("id INTEGER, name TEXT, age INT", [(1, "a", 5), (2, "b", 7), (3, "c", None)])
    spec = database(url, table="t", columns=("years", "id"), column_mapping={"age": "years"}, filter="age > 5 -- old")
    assert read(spec).rows(named=True) == [{"id": 2, "age": 7}]
    assert read(database(url, query="SELECT * FROM t", columns=("name",), filter="id <> 2")).rows() == [("a",), ("c",)]
    # 1 OR 1 must not open the other conditions
    spec = database(url, table="t", filter="1 OR 1", cursor="id")
    assert since(spec, 3)["id"].to_list() == [3]
    with pytest.raises(SourceError, match="has no column 'nam', which columns names"):
        read(database(url, table="t", columns=("nam",)))
    with pytest.raises(SourceError, match="no such column: nope"):
        read(database(url, table="t", filter="nope > 1"))


def since(spec: Any, value: CursorValue) -> pl.DataFrame:
    return collected(chunks_of(open_source("s", spec, Path()), Request(since=value)))


@pytest.mark.parametrize(
    ("declared", "values", "begin", "expected"),
    [
        ("INTEGER", [1, 5, None, 9], 5, [5, None, 9]),
        ("INTEGER", [2**63 - 1, -(2**63)], 2**63 - 1, [2**63 - 1]),
        ("INTEGER", [2**63 - 1, -(2**63)], -(2**63), [2**63 - 1, -(2**63)]),
        ("REAL", [0.1, 0.1 + 0.2, 0.3, float("inf")], 0.1 + 0.2, [0.1 + 0.2, float("inf")]),
        ("", [1, 2.5, 3], 2.5, [2.5, 3.0]),
        ("TEXT", ["2026-01-01", "2026-01-02", None], "2026-01-02", ["2026-01-02", None]),
        ("TEXT", ["10", "9"], "9", ["9"]),
        ("TEXT COLLATE NOCASE", ["a", "B"], "a", ["a"]),
        ("DATETIME", ["2026-01-01 00:00", "2026-01-01T00:00"], "2026-01-01T00:00", ["2026-01-01T00:00"]),
        ("TEXT", ["it's", "it"], "it's", ["it's"]),
    ],
)
def test_a_cursor(make: Make, declared: str, values: list[Any], begin: CursorValue, expected: list[Any]) -> None:
    url = make(f"c {declared}", [(v,) for v in values])
    assert since(database(url, table="t", cursor="c"), begin)["c"].to_list() == expected
    assert since(database(url, query="SELECT * FROM t", cursor="c"), begin)["c"].to_list() == expected


def test_a_cursor_beyond_every_row_gives_none(make: Make) -> None:
    frame = since(database(make("id INTEGER, name TEXT", [(1, "a")]), table="t", cursor="id"), 2)
    assert frame.schema == {"id": pl.Int64, "name": pl.String}
    assert frame.height == 0


@pytest.mark.parametrize(
    ("values", "begin", "text"),
    [
        ([1, "a"], None, "the cursor 'c' holds numbers and texts, which have no common order"),
        ([1, "a"], 1, "the cursor 'c' holds numbers and texts, which have no common order"),
        ([1, 2], "a", "the cursor 'c' held texts until now, and holds numbers"),
        (["a"], 1, "the cursor 'c' held numbers until now, and holds texts"),
        ([b"a"], None, "the cursor 'c' holds blobs"),
        ([1], True, "the cursor 'c' cannot begin at True, a bool"),
    ],
)
def test_what_is_no_cursor(make: Make, values: list[Any], begin: Any, text: str) -> None:
    spec = database(make("c", [(v,) for v in values]), table="t", cursor="c")
    with pytest.raises(SourceError, match=text) as caught:
        since(spec, begin)
    assert caught.value.code == "source.cursor"


def test_a_boolean_is_no_cursor(make: Make) -> None:
    with pytest.raises(SourceError, match="the cursor 'c' holds booleans"):
        read(database(make("c BOOLEAN", [(1,)]), table="t", cursor="c"))


def test_a_large_increment_is_read_in_pieces(make: Make) -> None:
    url = make("id INTEGER PRIMARY KEY, at INT", [(i, i % 10) for i in range(300_000)])
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("CREATE INDEX i ON t (at)")
    source = open_source("s", database(url, table="t", cursor="at"), Path())
    chunks = list(chunks_of(source, Request(since=5)))
    assert [c.rows for c in chunks] == [100_000, 50_000]
    assert collected(chunks)["id"].to_list() == [i for i in range(300_000) if i % 10 >= 5]


def test_the_keys_of_all_rows_are_equal_to_those_read(make: Make) -> None:
    url = make("k, at INT, v TEXT", [("a", 1, "x"), (1, 2, "y"), (2, 3, "z"), (3, None, "filtered")])
    spec = database(
        url,
        table="t",
        cursor="at",
        deduplicate={"keys": ["key"]},
        column_mapping={"k": "key"},
        filter="v <> 'filtered'",
    )
    with open_source("s", spec, Path()).open(Request(since=2)) as reading:
        assert collected(reading.chunks()).rows() == [("1", 2, "y"), ("2", 3, "z")]
        assert collected(reading.keys(["k"])).rows() == [("a",), ("1",), ("2",)]


@pytest.mark.parametrize(
    ("declared", "values", "begin", "dtype", "expected"),
    [
        ("INT", ["text", None, None], 2, pl.String, [None, None]),
        ("", [1, None, None], 2, pl.Int64, [None, None]),
        ("", [b"x", None, None], 2, pl.Binary, [None, None]),
        ("BOOL", [2, 0, 1], 2, pl.Int64, [0, 1]),
        ("BOOL", [0, 1, None], 2, pl.Boolean, [True, None]),
        ("NUMERIC", [0.5, 1, 2], 2, pl.Float64, [1.0, 2.0]),
        ("", ["a", 1, 0.5], 2, pl.String, ["1", "0.5"]),
        ("", [0.5, 7, 8], 9, pl.Float64, []),
    ],
)
def test_the_new_rows_have_the_types_of_all(
    make: Make, declared: str, values: list[Any], begin: int, dtype: Any, expected: list[Any]
) -> None:
    url = make(f"at INTEGER, c {declared}", list(enumerate(values, 1)))
    spec = database(url, table="t", cursor="at")
    assert since(spec, begin)["c"].to_list() == expected
    assert since(spec, begin)["c"].dtype == dtype == read(spec)["c"].dtype


def test_rows_that_the_filter_leaves_out_decide_no_type(make: Make) -> None:
    url = make("at INTEGER, c", [(1, b"x"), (2, 5), (3, 6)])
    assert since(database(url, table="t", cursor="at", filter="at > 1"), 3)["c"].to_list() == [6]
    with pytest.raises(SourceError, match="column 'c' mixes blobs with integer values"):
        since(database(url, table="t", cursor="at"), 3)  # as a read of all rows does


def test_a_cursor_is_bounded_by_the_present(make: Make) -> None:
    url = make("id INTEGER, at TEXT", [(1, "2026-01-01 00:00:00"), (2, "9999-12-31 00:00:00")])
    for cursor in ("at", "id"):  # who uses it knows whether the largest value is a moment
        before = datetime.now(UTC)
        with open_source("s", database(url, table="t", cursor=cursor), Path()).open(Request()) as reading:
            assert reading.bound is not None
            assert timedelta(seconds=-2) < reading.bound - before < timedelta(0)


@pytest.mark.parametrize(
    ("zone", "now", "expected"),
    [
        ("UTC", "2026-01-01T12:00:00", "2026-01-01T11:59:59"),
        ("Asia/Tokyo", "2026-01-01T12:00:00", "2026-01-01T11:59:59"),
        ("America/New_York", "2026-01-01T12:00:00", "2026-01-01T06:59:59"),
        ("America/New_York", "2026-11-01T05:30:00", "2026-11-01T01:00:00"),  # 01:30, to be set back to 01:00 at 06:00
    ],
)
def test_the_present_of_wall_clocks(monkeypatch: pytest.MonkeyPatch, zone: str, now: str, expected: str) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.fromisoformat(now).replace(tzinfo=tz)

    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        monkeypatch.setattr(database_file, "datetime", Clock)
        assert database_file.present(wall=True).isoformat() == f"{expected}+00:00"
        assert database_file.present(wall=False) == datetime.fromisoformat(now + "Z") - timedelta(seconds=1)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_lost_rows_are_an_error(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    url = make("id INTEGER", [(1,), (2,)])
    whole = sqlite._batches

    def short(*asked: Any) -> Any:
        for batch in whole(*asked):
            yield batch.slice(1)

    monkeypatch.setattr(sqlite, "_batches", short)
    with pytest.raises(TransientSourceError, match="1 rows were read where the database counts 2"):
        read(database(url, table="t"))


def test_an_interrupt_ends_it_at_once(make: Make) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    counting = (
        "WITH RECURSIVE c (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c LIMIT 20000000) SELECT max(i) AS m FROM c"
    )
    spec = database(make("id INTEGER", []), query=counting)
    before = signal.signal(signal.SIGALRM, interrupt)
    began = time.monotonic()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(KeyboardInterrupt):
            read(spec)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - began < 2


def test_a_query_without_end_is_given_up(make: Make) -> None:
    endless = "WITH RECURSIVE c (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c LIMIT 3000000) SELECT max(i) AS m FROM c"
    spec = database(make("id INTEGER", []), query=endless, timeout_seconds=0.05)
    with pytest.raises(TransientSourceError, match="gave nothing within") as caught:
        read(spec)
    assert caught.value.code == "source.timeout"


def test_a_probe_tells_types_and_what_slows(make: Make) -> None:
    url = make("id INTEGER PRIMARY KEY, at DATETIME, x", [(1, "2026-01-01", 0.5), (2, "2026-01-02", 1)])
    probe = sqlite.probe(Relation("s", database(url, table="t", cursor="at"), Path()))
    assert probe.server.startswith("SQLite 3.")
    assert probe.rows_estimate == 2
    assert probe.columns == (("id", "INTEGER", "int64"), ("at", "DATETIME", "string"), ("x", "", "double"))
    assert probe.warnings == (
        "writers wait while it is read: its journal mode is delete; in WAL mode they need not",
        "no index on the cursor 'at': every run looks for new rows in all rows",
    )
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE INDEX i ON t (at)")
    assert sqlite.probe(Relation("s", database(url, table="t", cursor="at"), Path())).warnings == ()


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
exact = st.integers(-(2**53), 2**53)
reals = st.floats(allow_nan=False)
columns = st.sampled_from(
    [st.integers(-(2**63), 2**63 - 1), reals, texts, st.binary(max_size=5), exact | reals, texts | exact | reals]
)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_column_comes_back(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    values = data.draw(st.lists(st.none() | data.draw(columns), max_size=20))
    path = tmp_path_factory.mktemp("any") / "app.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, c)")
        connection.executemany("INSERT INTO t (c) VALUES (?)", [(v,) for v in values])
    got = read(database(f"sqlite:///{path}", table="t"))["c"].to_list()
    assert len(got) == len(values)
    as_text = any(isinstance(v, str) for v in values)
    for value, cell in zip(values, got, strict=True):
        if as_text and isinstance(value, int | float):
            assert isinstance(cell, str)
            assert type(value)(cell.replace("Inf", "inf")) == value
        else:
            assert cell == value
