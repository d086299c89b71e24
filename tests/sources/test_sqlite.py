"""SQLite sources: every cell as it was stored, or an error that says what to do."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import SourceError, TransientSourceError
from engine.sources import open_source
from tests.sources.reads import database, read

Make = Callable[..., str]


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
    frames = [chunk.frame.collect() for chunk in source.chunks()]
    assert len(frames) == 2
    assert pl.concat(frames).rows() == rows


def test_a_read_may_stop_early_and_begin_again(make: Make) -> None:
    spec = database(make("id INTEGER", [(i,) for i in range(300_000)]), table="t")
    source = open_source("s", spec, Path())
    assert next(iter(source.chunks())).number == 0
    assert sum(chunk.rows or 0 for chunk in source.chunks()) == 300_000


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
