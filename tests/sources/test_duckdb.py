"""DuckDB files: every cell as it was stored or as DuckDB prints it, and nothing but the file within reach."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import SourceError, TransientSourceError
from engine.sources import CursorValue, Promise, Request, duckdb_file, open_source
from engine.sources.relation import Relation
from tests.sources.interrupted import broken_off, continued
from tests.sources.reads import chunks_of, collected, database, read

Make = Callable[..., str]


@pytest.fixture(autouse=True)
def _chunks_of_100_000_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("relation", "database_file"):
        monkeypatch.setattr(f"engine.sources.{module}.CHUNK_ROWS", 100_000)
    monkeypatch.setattr("engine.sources.relation.CHUNK_BYTES", 2**25)


def run(path: Path, *statements: str) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for statement in statements:
            connection.execute(statement)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Run statements in a database file; gives the connection string."""

    def made(*statements: str) -> str:
        run(tmp_path / "app.db", *statements)
        return f"duckdb:///{tmp_path / 'app.db'}"

    return made


@pytest.mark.parametrize(
    ("declared", "values", "dtype", "expected"),
    [
        ("BOOLEAN", "true, NULL, false", pl.Boolean, [True, None, False]),
        ("TINYINT", "-128, NULL", pl.Int8, [-128, None]),
        ("SMALLINT", "32767", pl.Int16, [32767]),
        ("INTEGER", "-2147483648", pl.Int32, [-(2**31)]),
        ("BIGINT", "9223372036854775807, -9223372036854775808", pl.Int64, [2**63 - 1, -(2**63)]),
        ("UTINYINT", "255", pl.UInt8, [255]),
        ("USMALLINT", "65535", pl.UInt16, [65535]),
        ("UINTEGER", "4294967295", pl.UInt32, [2**32 - 1]),
        ("UBIGINT", "18446744073709551615", pl.UInt64, [2**64 - 1]),
        ("HUGEINT", "1, NULL, -2", pl.Int64, [1, None, -2]),
        ("HUGEINT", "9223372036854775808, -1", pl.Decimal(38, 0), [Decimal(2**63), Decimal(-1)]),
        ("HUGEINT", f"{10**38}, 1", pl.String, [str(10**38), "1"]),
        ("HUGEINT", f"{-(10**38)}", pl.String, [str(-(10**38))]),
        ("UHUGEINT", f"{2**128 - 1}", pl.String, [str(2**128 - 1)]),
        ("HUGEINT", "NULL", pl.Int64, [None]),
        ("DECIMAL(4,2)", "1.50, NULL", pl.Decimal(4, 2), [Decimal("1.50"), None]),
        ("DECIMAL(38,10)", "1234567890123456789012345678.0123456789", pl.Decimal(38, 10), None),
        ("FLOAT", "0.5, 'inf', '-inf'", pl.Float32, [0.5, float("inf"), float("-inf")]),
        ("DOUBLE", "0.1, 'inf', 1e308", pl.Float64, [0.1, float("inf"), 1e308]),
        ("VARCHAR", "'', 'naïve ☃ 𝄞', NULL", pl.String, ["", "naïve ☃ 𝄞", None]),
        ("BLOB", r"'\x00\xFF'::BLOB, ''::BLOB", pl.Binary, [b"\x00\xff", b""]),
        ("DATE", "'2026-02-28', NULL, '0001-01-01'", pl.Date, [date(2026, 2, 28), None, date(1, 1, 1)]),
        ("TIME", "'23:59:59.999999'", pl.Time, [clock(23, 59, 59, 999999)]),
        ("TIMESTAMP", "'2026-01-01 00:00:00.000001'", pl.Datetime("us"), [datetime(2026, 1, 1, 0, 0, 0, 1)]),
        ("TIMESTAMP_S", "'2026-01-01 00:00:01'", pl.Datetime("ms"), [datetime(2026, 1, 1, 0, 0, 1)]),
        ("TIMESTAMP_MS", "'2026-01-01 00:00:00.001'", pl.Datetime("ms"), [datetime(2026, 1, 1, 0, 0, 0, 1000)]),
        ("TIMESTAMPTZ", "'2026-01-01 02:00+02'", pl.Datetime("us", "UTC"), [datetime(2026, 1, 1, tzinfo=UTC)]),
        ("TIMETZ", "'12:00:00+01'", pl.String, ["12:00:00+01"]),
        ("INTERVAL", "'1 year 2 days 00:00:00.5'", pl.String, ["1 year 2 days 00:00:00.5"]),
        ("UUID", "'6F9619FF-8B86-D011-B42D-00C04FC964FF'", pl.String, ["6f9619ff-8b86-d011-b42d-00c04fc964ff"]),
        ("JSON", """'{"a":  1}'""", pl.String, ['{"a":  1}']),
        ("ENUM('b', 'a')", "'a', NULL", pl.String, ["a", None]),
        ("BIT", "'0101'", pl.String, ["0101"]),
        ("BIGNUM", f"{10**60}", pl.String, None),
        ("UNION(n INTEGER, s VARCHAR)", "1, 'x'", pl.String, ["1", "x"]),
        ("INTEGER[]", "[1, NULL], [], NULL", pl.List(pl.Int32), [[1, None], [], None]),
        ("INTEGER[2]", "[1, 2]", pl.List(pl.Int32), [[1, 2]]),
        ("DATE[][]", "[['2026-01-01']]", pl.List(pl.List(pl.Date)), [[[date(2026, 1, 1)]]]),
        ("HUGEINT[]", f"[{10**38}]", pl.List(pl.String), [[str(10**38)]]),
        (
            'STRUCT("a b" INTEGER, u UUID[])',
            "{'a b': 1, 'u': ['6f9619ff-8b86-d011-b42d-00c04fc964ff']}",
            pl.Struct({"a b": pl.Int32, "u": pl.List(pl.String)}),
            [{"a b": 1, "u": ["6f9619ff-8b86-d011-b42d-00c04fc964ff"]}],
        ),
    ],
)
def test_each_type(make: Make, declared: str, values: str, dtype: Any, expected: Any) -> None:
    # one statement each, as a list of values would give them a common type first
    rows = values.split(", ") if "[" not in values and "{" not in values else [values]
    if declared == "INTEGER[]":
        rows = ["[1, NULL]", "[]", "NULL"]
    url = make(f"CREATE TABLE t (c {declared})", *(f"INSERT INTO t VALUES ({row})" for row in rows))
    frame = read(database(url, table="t"))
    assert frame.schema == {"c": dtype}
    if expected is None:  # one number, as it was written
        assert [str(cell) for cell in frame["c"]] == [values]
    else:
        assert frame["c"].to_list() == expected


def test_not_a_number_stays_so(make: Make) -> None:
    frame = read(database(make("CREATE TABLE t AS SELECT 'NaN'::DOUBLE AS c"), table="t"))
    assert frame["c"].is_nan().to_list() == [True]


def test_nanoseconds_and_maps(make: Make) -> None:
    url = make("CREATE TABLE t AS SELECT TIMESTAMP_NS '2026-01-01 00:00:00.123456789' AS ns, MAP {'k': uuid()} AS m")
    frame = read(database(url, table="t"))
    assert frame["ns"].dtype == pl.Datetime("ns")
    assert frame["ns"].dt.nanosecond().to_list() == [123_456_789]
    (pairs,) = frame["m"].to_list()
    assert list(pairs) == ["k"]
    assert len(pairs["k"]) == 36


@pytest.mark.parametrize(
    "value",
    [
        "DATE 'infinity'",
        "DATE '-infinity'",
        "TIMESTAMP 'infinity'",
        "TIMESTAMPTZ '-infinity'",
        "'infinity'::TIMESTAMP_S",
        "'infinity'::TIMESTAMP_NS",
        "TIME '24:00:00'",
        "[DATE 'infinity']",
        "[DATE 'infinity']::DATE[1]",
        "{'a': [{'b': DATE 'infinity'}]}",
        "MAP {'k': DATE 'infinity'}",
        "MAP {DATE 'infinity': 1}",
    ],
)
def test_infinity_is_refused(make: Make, value: str) -> None:
    url = make(f"CREATE TABLE t AS SELECT {value} AS c, 1 AS n UNION ALL SELECT NULL, 2")
    with pytest.raises(SourceError, match="column 'c' holds infinity, or the time 24:00:00, in 1 rows") as caught:
        read(database(url, table="t"))
    assert caught.value.code == "source.infinite_date"
    assert read(database(url, table="t", filter="n = 2")).height == 1
    assert read(database(url, query="SELECT CAST(c AS VARCHAR) AS c FROM t"))["c"].null_count() == 1


def test_odd_names(make: Make) -> None:
    url = make(
        'CREATE SCHEMA "my schema"',
        'CREATE TABLE "my schema"."or""der.by" ("select" INT, "a b" INT, "quo""te" INT, "日本" INT, "at" INT)',
        'INSERT INTO "my schema"."or""der.by" VALUES (1, 2, 3, 4, 5)',
        'CREATE TABLE "a.b" AS SELECT 1 AS n',
        "CREATE SCHEMA a",
        "CREATE TABLE a.b AS SELECT 2 AS n",
        "CREATE TABLE a.c AS SELECT 3 AS n",
    )
    for table in ('my schema.or"der.by', '"my schema"."or""der.by"', 'MY SCHEMA.OR"DER.BY'):
        assert read(database(url, table=table)).row(0) == (1, 2, 3, 4, 5)
    assert read(database(url, table="a.b")).rows() == [(1,)]
    assert read(database(url, table='"a"."b"')).rows() == [(2,)]
    assert read(database(url, table="main.A.B")).rows() == [(1,)]
    assert read(database(url, table="A.C")).rows() == [(3,)]


def test_an_empty_table_keeps_its_columns(make: Make) -> None:
    frame = read(database(make("CREATE TABLE t (id BIGINT, u UUID, l DATE[])"), table="t"))
    assert frame.schema == {"id": pl.Int64, "u": pl.String, "l": pl.List(pl.Date)}
    assert frame.height == 0


def test_a_query_keeps_its_order_and_may_end_in_a_comment(make: Make) -> None:
    url = make("CREATE TABLE t AS SELECT range AS id FROM range(150_000)")
    got = read(database(url, query="SELECT id FROM t ORDER BY id DESC -- all"))["id"].to_list()
    assert got == list(range(149_999, -1, -1))
    assert read(database(url, query="WITH x AS (SELECT 1 AS a) SELECT a FROM x;"))["a"].to_list() == [1]


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("SELECT * FROM read_text('{}/secret.txt')", "file system operations are disabled"),
        ("SELECT * FROM '{}/secret.csv'", "file system operations are disabled"),
        ("SELECT * FROM glob('{}/*')", "file system operations are disabled"),
        ("COPY t TO '{}/out.csv'", "not one SELECT statement"),
        ("SELECT 1 AS a) TO 'x'; COPY (SELECT 1", "syntax error"),
        ("SELECT 1 AS a; COPY t TO '{}/out.csv'", "not one SELECT statement"),
        ("ATTACH '{}/other.db'", "not one SELECT statement"),
        ("SET enable_external_access = true", "not one SELECT statement"),
        ("DELETE FROM t", "not one SELECT statement"),
        ("CREATE TABLE memory.x AS SELECT 1", "not one SELECT statement"),
        ("SELECT nope FROM t", "nope"),
        ("SELECT id, id FROM t", "gives the column 'id' twice"),
        ("SELECT id, 1 AS ID FROM t", "gives the column 'ID' twice"),
        ("SELECT * FROM frame", "does not exist"),
    ],
)
def test_a_query_reads_this_file_and_nothing_else(make: Make, tmp_path: Path, query: str, text: str) -> None:
    frame = pl.DataFrame({"python": [1]})  # noqa: F841 - not to be found
    for name in ("secret.txt", "secret.csv"):
        (tmp_path / name).write_text("a\nsecret\n")
    url = make("CREATE TABLE t AS SELECT 1 AS id")
    with pytest.raises(SourceError, match=text):
        read(database(url, query=query.format(tmp_path)))
    assert not (tmp_path / "out.csv").exists()
    assert read(database(url, table="t")).rows() == [(1,)]


def test_a_filter_reads_no_other_file(make: Make, tmp_path: Path) -> None:
    url = make("CREATE TABLE t AS SELECT 1 AS id")
    for inner in (f"SELECT content FROM read_text('{tmp_path}/app.db')", "SELECT 1) IS NOT NULL); DROP TABLE t; --"):
        with pytest.raises(SourceError):
            read(database(url, table="t", filter=f"({inner}) IS NOT NULL"))
    assert read(database(url, table="t")).rows() == [(1,)]


def test_columns_and_filter(make: Make) -> None:
    url = make("CREATE TABLE t AS SELECT * FROM (VALUES (1, 'a', 5), (2, 'b', 7), (3, 'c', NULL)) v(id, name, age)")
    spec = database(url, table="t", columns=("years", "id"), column_mapping={"age": "years"}, filter="age > 5 -- old")
    assert read(spec).rows(named=True) == [{"id": 2, "age": 7}]
    assert read(database(url, query="FROM t", columns=("name",), filter="id <> 2")).rows() == [("a",), ("c",)]
    spec = database(url, table="t", filter="1 = 1 OR 1 = 1", cursor="id")
    assert since(spec, 3)["id"].to_list() == [3]
    with pytest.raises(SourceError, match="has no column 'nam', which columns names"):
        read(database(url, table="t", columns=("nam",)))


def since(spec: Any, value: CursorValue) -> pl.DataFrame:
    return collected(chunks_of(open_source("s", spec, Path()), Request(since=value)))


@pytest.mark.parametrize(
    ("declared", "values", "begin", "expected"),
    [
        ("INTEGER", [1, 5, None, 9], 5, [5, None, 9]),
        ("HUGEINT", [2**63, 1], 2**63, [Decimal(2**63)]),
        ("DECIMAL(5,2)", ["1.25", "1.50"], Decimal("1.50"), [Decimal("1.50")]),
        ("FLOAT", [0.5, 0.1], 0.10000000149011612, [0.5, 0.10000000149011612]),
        ("DOUBLE", [0.1 + 0.2, 0.3], 0.1 + 0.2, [0.1 + 0.2]),
        ("VARCHAR", ["it's", "it"], "it's", ["it's"]),
        ("VARCHAR COLLATE NOCASE", ["a", "B"], "a", ["a"]),
        ("DATE", ["2026-01-01", "2026-01-02"], date(2026, 1, 2), [date(2026, 1, 2)]),
        (
            "TIMESTAMP",
            ["2026-01-01 00:00:00.000001", "2026-01-01"],
            datetime(2026, 1, 1, 0, 0, 0, 1),
            [datetime(2026, 1, 1, 0, 0, 0, 1)],
        ),
        (
            "TIMESTAMPTZ",
            ["2026-01-01 02:00+02", "2025-12-31 23:59+00"],
            datetime(2026, 1, 1, tzinfo=UTC),
            [datetime(2026, 1, 1, tzinfo=UTC)],
        ),
        ("UUID", ["6f9619ff-8b86-d011-b42d-00c04fc964ff"], "6f", None),
    ],
)
def test_a_cursor(make: Make, declared: str, values: list[Any], begin: CursorValue, expected: Any) -> None:
    shown = ["NULL" if v is None else "'{}'".format(str(v).replace("'", "''")) for v in values]
    url = make(f"CREATE TABLE t (c {declared})", *(f"INSERT INTO t VALUES ({v})" for v in shown))
    spec = database(url, table="t", cursor="c")
    if expected is None:
        with pytest.raises(SourceError, match="Could not convert string '6f'"):
            since(spec, begin)
        begin, expected = values[0], values
    assert since(spec, begin)["c"].to_list() == expected


@pytest.mark.parametrize(
    ("value", "begin", "text"),
    [
        ("1", "a", "cannot begin at 'a', a str: it is of type INTEGER"),
        ("1", True, "cannot begin at True, a bool"),
        ("DATE '2026-01-01'", datetime(2026, 1, 1), "it is of type DATE"),
        ("true", None, "is of type BOOLEAN"),
        ("'{}'::JSON", None, "is of type JSON"),
        ("'a'::BLOB", None, "is of type BLOB"),
    ],
)
def test_what_is_no_cursor(make: Make, value: str, begin: Any, text: str) -> None:
    with pytest.raises(SourceError, match=f"the cursor 'c' .*{text}") as caught:
        since(database(make(f"CREATE TABLE t AS SELECT {value} AS c"), table="t", cursor="c"), begin)
    assert caught.value.code == "source.cursor"


def test_the_keys_of_all_rows_are_equal_to_those_read(make: Make) -> None:
    url = make(f"CREATE TABLE t AS SELECT * FROM (VALUES ({2**63}::HUGEINT, 1), (1, 2), (2, 3)) v(k, n)")
    spec = database(url, table="t", cursor="n", deduplicate={"keys": ["k"]})
    with open_source("s", spec, Path()).open(Request(since=2)) as reading:
        assert reading.promise.late_commits == "none_missed"
        rows = collected(reading.chunks())
        keys = collected(reading.keys(["k"]))
    assert rows["k"].to_list() == [Decimal(1), Decimal(2)]
    assert keys["k"].to_list() == [Decimal(2**63), Decimal(1), Decimal(2)]
    assert keys["k"].dtype == rows["k"].dtype


def test_the_new_rows_have_the_types_of_all(make: Make) -> None:
    url = make(f"CREATE TABLE t AS SELECT * FROM (VALUES ({2**63}::HUGEINT, 1), (1, 2), (NULL, 3)) v(h, n)")
    new = since(database(url, table="t", cursor="n"), 2)["h"]
    assert new.dtype == since(database(url, table="t", cursor="n"), 1)["h"].dtype == pl.Decimal(38, 0)
    assert new.to_list() == [Decimal(1), None]


@pytest.mark.parametrize(
    ("declared", "bounded"),
    [
        ("TIMESTAMP", True),
        ("TIMESTAMP_S", True),
        ("TIMESTAMP_NS", True),
        ("TIMESTAMPTZ", True),
        ("DATE", True),
        ("VARCHAR", False),
    ],
)
def test_a_cursor_of_moments_is_bounded_by_the_present(make: Make, declared: str, bounded: bool) -> None:
    url = make(f"CREATE TABLE t AS SELECT '2200-01-01'::{declared} AS at, 1 AS n")
    before = datetime.now(UTC)
    with open_source("s", database(url, table="t", cursor="at"), Path()).open(Request()) as reading:
        assert (reading.bound is not None) == bounded
        if reading.bound is not None:
            assert timedelta(seconds=-2) < reading.bound - before < timedelta(0)
    for keys in ({"cursor": "n"}, {}):
        with open_source("s", database(url, table="t", **keys), Path()).open(Request()) as reading:
            assert reading.bound is None


TABLE = "CREATE TABLE t AS SELECT range AS id, 'name ' || range AS name FROM range(250_000)"


def test_a_large_table_comes_in_pieces_in_order(make: Make) -> None:
    source = open_source(
        "s", database(make(TABLE, "DELETE FROM t WHERE id BETWEEN 50_000 AND 59_999"), table="t"), Path()
    )
    with source.open(Request()) as reading:
        assert reading.promise == Promise(snapshot="one", counted=True)
        chunks = list(reading.chunks())
    assert [(c.number, c.part, c.last) for c in chunks] == [(0, 0, True), (1, 0, True), (2, 0, True)]
    assert all(c.rows and 40_000 < c.rows <= 100_000 for c in chunks)
    frame = collected(chunks)
    assert frame["id"].to_list() == [*range(50_000), *range(60_000, 250_000)]
    assert frame["name"][-1] == "name 249999"


def test_an_interrupted_reading_goes_on(make: Make) -> None:
    source = open_source("s", database(make(TABLE), table="t"), Path())
    began = broken_off(source, pieces=2)
    kept, rest = continued(source, began)
    assert kept == {0, 1}
    assert rest["id"].to_list() == list(range(sum(p.rows for p in began.landed), 250_000))


@pytest.mark.parametrize("close", [True, False])
def test_a_changed_file_is_read_anew(make: Make, tmp_path: Path, close: bool) -> None:
    source = open_source("s", database(make(TABLE), table="t"), Path())
    began = broken_off(source, pieces=1)
    checkpoint = "" if close else "PRAGMA disable_checkpoint_on_shutdown;"  # the change stays in app.db.wal
    make(f"{checkpoint} UPDATE t SET name = 'new' WHERE id = 0")
    assert (tmp_path / "app.db.wal").exists() != close
    kept, rest = continued(source, began)
    assert kept == frozenset()
    assert sorted(rest.rows()) == [(0, "new"), *((i, f"name {i}") for i in range(1, 250_000))]


@pytest.mark.parametrize("kind", ["query", "view", "hidden rowid"])
def test_what_has_no_rowid_is_one_piece(make: Make, kind: str) -> None:
    column = "ROWID" if kind == "hidden rowid" else "id"
    url = make(f'CREATE TABLE t AS SELECT range AS "{column}" FROM range(150_000)', "CREATE VIEW v AS SELECT * FROM t")
    asked = {"query": "SELECT * FROM t"} if kind == "query" else {"table": "v" if kind == "view" else "t"}
    with open_source("s", database(url, **asked), Path()).open(Request()) as reading:
        assert reading.seal is None
        chunks = list(reading.chunks())
    assert [(c.number, c.part, c.last, c.mark) for c in chunks] == [(0, 0, False, None), (0, 1, True, None)]
    assert collected(chunks)[column].to_list() == list(range(150_000))


def test_a_read_may_stop_early_and_begin_again(make: Make) -> None:
    source = open_source("s", database(make(TABLE), table="t"), Path())
    with source.open(Request()) as reading:
        chunks = reading.chunks()
        assert next(chunks).number == 0  # and is left suspended
    assert sum(chunk.rows or 0 for chunk in chunks_of(source)) == 250_000


def test_the_file_may_not_change_while_it_is_read(make: Make, tmp_path: Path) -> None:
    source = open_source("s", database(make(TABLE), table="t"), Path())
    with source.open(Request()) as reading:
        with (tmp_path / "app.db").open("ab") as file:
            file.write(b"\0")
        with pytest.raises(TransientSourceError, match="was written to while it was read"):
            list(reading.chunks())


def test_lost_rows_are_an_error(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    url = make("CREATE TABLE t AS SELECT range AS id FROM range(2)")
    whole = duckdb_file._batches

    def short(*asked: Any) -> Any:
        for batch in whole(*asked):
            yield batch.slice(1)

    monkeypatch.setattr(duckdb_file, "_batches", short)
    with pytest.raises(TransientSourceError, match="1 rows were read where the database counts 2"):
        read(database(url, table="t"))


ENDLESS = "SELECT count(*) AS n FROM range(10_000_000) a, range(10_000_000) b WHERE (a.range * b.range) % 7 = 3"


def test_a_query_without_end_is_given_up_and_ended(make: Make) -> None:
    spec = database(make("CREATE TABLE t AS SELECT 1 AS id"), query=ENDLESS, timeout_seconds=0.5)
    began = time.monotonic()
    with pytest.raises(TransientSourceError, match="gave nothing within") as caught:
        read(spec)
    assert caught.value.code == "source.timeout"
    assert time.monotonic() - began < 5
    for _ in range(100):
        if not [thread for thread in threading.enumerate() if thread.name == "within"]:
            break
        time.sleep(0.05)
    assert not [thread for thread in threading.enumerate() if thread.name == "within"]


def test_an_interrupt_ends_it_at_once(make: Make) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    spec = database(make("CREATE TABLE t AS SELECT 1 AS id"), query=ENDLESS)
    before = signal.signal(signal.SIGALRM, interrupt)
    began = time.monotonic()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(KeyboardInterrupt):
            read(spec)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - began < 2


def test_a_missing_table_names_the_nearest(make: Make) -> None:
    url = make("CREATE TABLE users (id INT)", "CREATE SCHEMA s", "CREATE TABLE s.orders (id INT)")
    with pytest.raises(SourceError, match="there is no table 'user'") as caught:
        read(database(url, table="user"))
    assert caught.value.allowed == "s.orders, users"
    assert caught.value.fix == "did you mean 'users'?"


def test_a_missing_or_foreign_file(tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("just some notes, long enough to look like a file header" * 200)
    with pytest.raises(SourceError, match=r"notes\.db is not a DuckDB database"):
        read(database("duckdb:///notes.db", table="t"), tmp_path)
    with pytest.raises(SourceError, match=r"none\.db does not exist"):
        read(database("duckdb:///none.db", table="t"), tmp_path)
    with pytest.raises(SourceError, match="is a directory"):
        read(database(f"duckdb:///{tmp_path}", table="t"))
    for url in ("duckdb:///:memory:", "duckdb://:memory:"):
        with pytest.raises(SourceError, match="names no database file"):
            read(database(url, table="t"))
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize("name", ["br[ack]et*", "a#b%20", "it's", "a@b"])
def test_below_a_folder_with_an_odd_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    run(tmp_path / name / "app.db", "CREATE TABLE t AS SELECT 1 AS n")
    assert read(database("duckdb:///app.db", table="t"), tmp_path / name).rows() == [(1,)]
    assert read(database(f"duckdb:///{tmp_path / name / 'app.db'}", table="t")).rows() == [(1,)]


def test_a_damaged_file(make: Make, tmp_path: Path) -> None:
    url = make(TABLE)
    whole = (tmp_path / "app.db").read_bytes()
    (tmp_path / "app.db").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match="cannot be read: Could not read"):
        read(database(url, table="t"))


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ('IO Error: Cannot open file "x": Permission denied', "source.access_denied", "must not be read by this user"),
        (
            "IO Error: Trying to read a database file with version number 99, but we can only read versions up to 68.",
            "source.unsupported_version",
            "was written by another version of DuckDB: Trying to read",
        ),
    ],
)
def test_what_else_stands_in_the_way(
    make: Make, monkeypatch: pytest.MonkeyPatch, text: str, code: str, message: str
) -> None:
    def failing(_: Path) -> None:
        raise duckdb.IOException(text)

    monkeypatch.setattr(duckdb_file, "attached", failing)
    with pytest.raises(SourceError, match=message) as caught:
        read(database(make("CREATE TABLE t (id INT)"), table="t"))
    assert caught.value.code == code


def test_a_file_that_is_being_written_may_be_tried_again(make: Make, tmp_path: Path) -> None:
    url = make("CREATE TABLE t AS SELECT 1 AS id")
    script = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print(1, flush=True); input()"
    command = [sys.executable, "-c", script, str(tmp_path / "app.db")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "1\n"
        with pytest.raises(TransientSourceError, match=rf"is open for writing in another process \(PID {holder.pid}\)"):
            read(database(url, table="t"))
        holder.stdin.write("\n")
    assert read(database(url, table="t")).height == 1


def test_a_probe_tells_types(make: Make) -> None:
    url = make("CREATE TABLE t AS SELECT 1::BIGINT AS id, uuid() AS u, 5::HUGEINT AS h, [1] AS l FROM range(3)")
    probe = duckdb_file.probe(Relation("s", database(url, table="t"), Path()))
    assert probe.server.startswith("DuckDB v")
    assert probe.rows_estimate == 3
    assert probe.columns == (
        ("id", "BIGINT", "BIGINT"),
        ("u", "UUID", "VARCHAR"),
        ("h", "HUGEINT", "BIGINT"),
        ("l", "INTEGER[]", "INTEGER[]"),
    )


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
moments = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31))
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "BIGINT": st.integers(-(2**63), 2**63 - 1),
    "HUGEINT": st.integers(-(2**127) + 1, 2**127 - 1),
    "DOUBLE": st.floats(allow_nan=False),
    "VARCHAR": texts,
    "BLOB": st.binary(max_size=5),
    "BOOLEAN": st.booleans(),
    "DATE": st.dates(),
    "TIMESTAMP": moments,
    "TIME": st.times(),
    "UUID": st.uuids(),
    "DECIMAL(18,3)": st.decimals(-(10**14), 10**14, places=3),
    "VARCHAR[]": st.lists(st.none() | texts, max_size=3),
    "STRUCT(a BIGINT, b VARCHAR)": st.fixed_dictionaries({"a": st.integers(0, 9), "b": st.none() | texts}),
    "INTERVAL": st.timedeltas(timedelta(0), timedelta(days=9)),
}


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_column_comes_back(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    kind = data.draw(st.sampled_from(sorted(KINDS)))
    values = data.draw(st.lists(st.none() | KINDS[kind], max_size=8))
    path = tmp_path_factory.mktemp("any") / "app.db"
    with duckdb.connect(str(path)) as connection:
        connection.execute(f"CREATE TABLE t (id INTEGER, c {kind})")
        for i, value in enumerate(values):
            connection.execute("INSERT INTO t VALUES (?, ?)", [i, value])
        printed = [c for (c,) in connection.execute("SELECT c::VARCHAR FROM t ORDER BY id").fetchall()]
    frame = read(database(f"duckdb:///{path}", table="t"))
    assert frame["id"].to_list() == list(range(len(values)))
    got = frame["c"].to_list()
    if kind in ("UUID", "INTERVAL"):
        assert got == printed
    elif frame["c"].dtype == pl.String and kind == "HUGEINT":
        assert [None if c is None else int(c) for c in got] == values
    else:
        assert got == values
