"""PostgreSQL sources, against a real server."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine.errors import SourceError, TransientSourceError
from engine.sources import open_source
from tests.servers.postgres import Postgres
from tests.sources.reads import database, read


@pytest.fixture
def server(postgres_server: Postgres) -> Postgres:
    postgres_server.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public; SET client_min_messages = error")
    return postgres_server


CASES: list[tuple[str, str, Any, Any]] = [
    ("int2", "-32768", pl.Int16, -32768),
    ("int4", "2147483647", pl.Int32, 2147483647),
    ("int8", "9223372036854775807", pl.Int64, 2**63 - 1),
    ("oid", "4294967295", pl.String, "4294967295"),
    ("real", "1.5", pl.Float32, 1.5),
    ("float8", "0.1", pl.Float64, 0.1),
    ("boolean", "true", pl.Boolean, True),
    ("text", "'naïve ☃'", pl.String, "naïve ☃"),
    ("char(4)", "'ab'", pl.String, "ab  "),
    ("bytea", "'\\x00ff'", pl.Binary, b"\x00\xff"),
    ("date", "'2026-02-03'", pl.Date, dt.date(2026, 2, 3)),
    ("timestamp", "'2026-02-03 04:05:06.000007'", pl.Datetime("us"), dt.datetime(2026, 2, 3, 4, 5, 6, 7)),
    (
        "timestamptz",
        "'2026-02-03 04:05:06.000007+05'",
        pl.Datetime("us", "UTC"),
        dt.datetime(2026, 2, 2, 23, 5, 6, 7, dt.UTC),
    ),
    ("numeric(10,2)", "12345678.90", pl.Decimal(10, 2), Decimal("12345678.90")),
    ("numeric(38,20)", "0.12345678901234567890", pl.Decimal(38, 20), Decimal("0.12345678901234567890")),
    ("numeric", "12345678901234567890.125", pl.Decimal(38, 3), Decimal("12345678901234567890.125")),
    ("numeric", "1e39", pl.String, "1" + "0" * 39),
    ("numeric(4,1)", "'NaN'", pl.String, "NaN"),
    ("uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", pl.String, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("json", "'{\"a\": 1.10}'", pl.String, '{"a": 1.10}'),
    ("jsonb", "'{\"a\": 1.10}'", pl.String, '{"a": 1.10}'),
    ("interval", "'1 mon 2 days 03:00'", pl.String, "1 mon 2 days 03:00:00"),
    ("time", "'24:00:00'", pl.String, "24:00:00"),
    ("timetz", "'12:00+02'", pl.String, "12:00:00+02"),
    ("inet", "'10.0.0.1/8'", pl.String, "10.0.0.1/8"),
    ("int4range", "'[1,5)'", pl.String, "[1,5)"),
    ("point", "'(1,2)'", pl.String, "(1,2)"),
    ("text[]", "ARRAY['a', NULL, '']", pl.List(pl.String), ["a", None, ""]),
    ("int[]", "ARRAY[1, NULL]", pl.List(pl.Int32), [1, None]),
    ("numeric[]", "ARRAY[1.50]", pl.String, "{1.50}"),
    ("uuid[]", "NULL", pl.String, None),
]


def test_each_type_arrives_exactly_or_as_its_text(server: Postgres) -> None:
    declared = ", ".join(f"c{i} {kind}" for i, (kind, *_) in enumerate(CASES))
    values = ", ".join(value for _, value, *_ in CASES)
    server.execute(f"CREATE TABLE t ({declared}); INSERT INTO t VALUES ({values}); INSERT INTO t DEFAULT VALUES")
    server.execute("ALTER USER maestro SET TimeZone = 'Asia/Tokyo'")
    frame = read(database(server.url, table="t"))
    server.execute("ALTER USER maestro RESET TimeZone")
    for i, (kind, _, dtype, expected) in enumerate(CASES):
        column = frame[f"c{i}"]
        assert column.dtype == dtype, kind
        assert column.to_list() == [expected, None], kind


def test_names_schemas_and_queries(server: Postgres) -> None:
    server.execute('CREATE SCHEMA "Odd"; CREATE TABLE "Odd"."or""der" ("select" int, "a b" text)')
    server.execute("""INSERT INTO "Odd"."or""der" VALUES (1, 'x')""")
    assert read(database(server.url, table='Odd.or"der')).rows(named=True) == [{"select": 1, "a b": "x"}]
    frame = read(
        database(server.url, query="SELECT i, i / 2.0 AS half FROM generate_series(1, 3) i ORDER BY i DESC -- x")
    )
    assert frame["i"].to_list() == [3, 2, 1]
    assert [float(h) for h in frame["half"]] == [1.5, 1.0, 0.5]
    server.execute('DROP SCHEMA "Odd" CASCADE')


def test_an_empty_table_keeps_its_columns(server: Postgres) -> None:
    server.execute("CREATE TABLE t (id int8, name text, price numeric(8,2), at timestamptz)")
    frame = read(database(server.url, table="t"))
    assert frame.schema == {
        "id": pl.Int64, "name": pl.String, "price": pl.Decimal(8, 2), "at": pl.Datetime("us", "UTC")
    }  # fmt: skip


def test_a_large_table_is_one_moment_of_it(server: Postgres) -> None:
    server.execute("CREATE TABLE t AS SELECT i, repeat('x', 100) AS name FROM generate_series(1, 300000) i")
    chunks = open_source("s", database(server.url, table="t"), Path()).chunks()
    first = next(chunks)
    server.execute("DELETE FROM t WHERE i > 299000; INSERT INTO t SELECT i, 'new' FROM generate_series(1, 5) i")
    frames = [first.frame.collect(), *(chunk.frame.collect() for chunk in chunks)]
    assert len(frames) > 1
    rows = sorted(pl.concat(frames).rows())
    assert rows == [(i, "x" * 100) for i in range(1, 300_001)]


def test_infinite_dates_are_refused(server: Postgres) -> None:
    with pytest.raises(SourceError, match="column 'd' holds infinite dates") as caught:
        read(database(server.url, query="SELECT 'infinity'::timestamptz AS d"))
    assert "NULLIF(d, 'infinity')" in str(caught.value.fix)


@pytest.mark.parametrize(
    ("keys", "code", "text"),
    [
        ({"table": "user"}, "source.missing_table", "there is no table 'user'"),
        ({"query": "SELECT 1 / 0 AS a"}, "source.unreadable", "division by zero"),
        ({"query": "SELECT nope FROM users"}, "source.unreadable", 'column "nope" does not exist'),
        ({"query": "SELECT 1 AS a, 2 AS a"}, "source.repeated_column", "gives the column 'a' twice"),
        ({"query": "DELETE FROM users"}, "source.unreadable", "syntax error"),
        ({"query": "SELECT pg_sleep(9) AS a", "timeout_seconds": 0.3}, "source.timeout", "took longer than 0.3 s"),
    ],
)
def test_what_cannot_be_read(server: Postgres, keys: dict[str, Any], code: str, text: str) -> None:
    server.execute("CREATE TABLE users (id int); CREATE TABLE orders (id int)")
    with pytest.raises(SourceError, match=text) as caught:
        read(database(server.url, **keys))
    assert caught.value.code == code
    if code == "source.missing_table":
        assert (caught.value.allowed, caught.value.fix) == ("orders, users", "did you mean 'users'?")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (("p%40ss", "wr%40ng"), "password authentication failed"),
        (("127.0.0.1", "no-such-host.invalid"), "could not translate host name"),
        (("/shop", "/nothing"), 'database "nothing" does not exist'),
    ],
)
def test_no_connection(postgres_server: Postgres, change: tuple[str, str], text: str) -> None:
    url = postgres_server.url.replace(*change)
    with pytest.raises(SourceError, match=text) as caught:
        read(database(url, table="t"))
    assert not isinstance(caught.value, TransientSourceError)
    assert caught.value.code == "source.no_connection"
    for secret in ("p%40ss", "p@ss", "wr@ng", "ss:w/rd-pg", "ss%3Aw"):
        assert secret not in str(caught.value)


def test_a_raw_at_sign_in_the_password_leaks_nothing() -> None:
    with pytest.raises(TransientSourceError, match="Connection refused") as caught:
        read(database("postgresql://me:hunter@two@127.0.0.1:1/x", table="t"))
    assert "hunter" not in str(caught.value)
    assert "two" not in str(caught.value)
