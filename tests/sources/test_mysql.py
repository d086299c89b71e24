"""MySQL sources, against a real MariaDB server whose time zone is not UTC."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine.errors import SourceError, TransientSourceError
from engine.sources import mysql, open_source
from tests.servers.mariadb import MariaDB
from tests.sources.reads import collected, database, read


@pytest.fixture
def server(mariadb_server: MariaDB) -> MariaDB:
    mariadb_server.execute("DROP DATABASE shop; CREATE DATABASE shop CHARACTER SET utf8mb4")
    return mariadb_server


CASES: list[tuple[str, str, Any, Any]] = [
    ("int", "-5", pl.Int32, -5),
    ("bigint unsigned", "18446744073709551615", pl.UInt64, 2**64 - 1),
    ("tinyint(1)", "1", pl.Int8, 1),
    ("bit(3)", "b'101'", pl.UInt32, 5),
    ("bit(64)", "~0", pl.UInt64, 2**64 - 1),
    ("double", "0.1", pl.Float64, 0.1),
    ("decimal(10,2)", "12345678.90", pl.Decimal(10, 2), Decimal("12345678.90")),
    ("decimal(38,20)", "0.12345678901234567890", pl.Decimal(38, 20), Decimal("0.12345678901234567890")),
    ("decimal(65,30)", "1.5", pl.String, "1.5" + "0" * 29),
    ("varchar(20)", "'naïve ☃'", pl.String, "naïve ☃"),
    ("text", "''", pl.String, ""),
    ("blob", "x'00ff'", pl.Binary, b"\x00\xff"),
    ("json", "'{\"a\": 1.10}'", pl.String, '{"a": 1.10}'),
    ("enum('x','y')", "'y'", pl.String, "y"),
    ("date", "'2026-02-03'", pl.Date, dt.date(2026, 2, 3)),
    ("datetime(6)", "'2026-02-03 04:05:06.000007'", pl.Datetime("us"), dt.datetime(2026, 2, 3, 4, 5, 6, 7)),
    ("timestamp(6) NULL", "'2026-02-03 04:05:06.000007'", pl.Datetime("us"), dt.datetime(2026, 2, 2, 19, 5, 6, 7)),
    ("time", "'-100:00:00'", pl.String, "-100:00:00"),
]


def test_each_type_arrives_exactly(server: MariaDB) -> None:
    declared = ", ".join(f"c{i} {kind}" for i, (kind, *_) in enumerate(CASES))
    values = ", ".join(value for _, value, *_ in CASES)
    server.execute(f"CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, {declared});")
    names = ", ".join(f"c{i}" for i in range(len(CASES)))
    server.execute(f"INSERT INTO t ({names}) VALUES ({values}); INSERT INTO t () VALUES ();")
    frame = read(database(server.url, table="t"))
    for i, (kind, _, dtype, expected) in enumerate(CASES):
        column = frame[f"c{i}"]
        assert column.dtype == dtype, kind
        assert column.to_list() == [expected, None], kind


def test_a_keyed_table_is_read_in_ranges_of_rows(server: MariaDB, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mysql, "RANGE_ROWS", 1000)
    monkeypatch.setattr("engine.sources.database.CHUNK_ROWS", 1000)
    server.execute(
        "CREATE TABLE t (id bigint PRIMARY KEY, x int); INSERT INTO t SELECT 3 * seq, seq FROM seq_1_to_3500"
    )
    chunks = list(open_source("s", database(server.url, table="t"), Path()).chunks())
    assert [chunk.rows for chunk in chunks] == [1000, 1000, 1000, 500]
    assert collected(chunks).rows() == [(3 * i, i) for i in range(1, 3501)]


@pytest.mark.parametrize("rows", [0, 1000])
def test_ranges_that_end_at_a_border(server: MariaDB, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(mysql, "RANGE_ROWS", 1000)
    server.execute("CREATE TABLE t (id int PRIMARY KEY, name text)")
    if rows:
        server.execute(f"INSERT INTO t SELECT seq, 'n' FROM seq_1_to_{rows}")
    frame = read(database(server.url, table="t"))
    assert frame.schema == {"id": pl.Int32, "name": pl.String}
    assert frame["id"].to_list() == list(range(1, rows + 1))


def test_a_table_that_shrinks_while_it_is_read_is_an_error(server: MariaDB, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mysql, "RANGE_ROWS", 1000)
    monkeypatch.setattr("engine.sources.database.CHUNK_ROWS", 1000)
    server.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT seq FROM seq_1_to_2500")
    chunks = open_source("s", database(server.url, table="t"), Path()).chunks()
    next(chunks)
    server.execute("DELETE FROM t WHERE id > 2400")
    with pytest.raises(TransientSourceError, match="2400 rows were read where the database counts 2500"):
        list(chunks)


def test_without_a_key_the_whole_is_read_up_to_a_limit(server: MariaDB, monkeypatch: pytest.MonkeyPatch) -> None:
    server.execute("CREATE TABLE `or``der` (`select` int, `a b` decimal(5,1)); INSERT INTO `or``der` VALUES (1, 2.5)")
    assert read(database(server.url, table="shop.or`der")).rows(named=True) == [{"select": 1, "a b": Decimal("2.5")}]
    query = "SELECT seq AS n FROM seq_1_to_3 ORDER BY n DESC -- x"
    assert read(database(server.url, query=query))["n"].to_list() == [3, 2, 1]
    thirds = read(database(server.url, query="SELECT seq / 3 AS third FROM seq_1_to_3"))["third"].to_list()
    assert sorted(thirds) == [Decimal("0.3333"), Decimal("0.6667"), Decimal("1.0000")]
    monkeypatch.setattr(mysql, "LIMIT_ROWS", 2)
    with pytest.raises(SourceError, match="3 rows are too many for one read"):
        read(database(server.url, query=query))


@pytest.mark.parametrize(
    ("keys", "code", "text"),
    [
        ({"table": "user"}, "source.missing_table", "there is no table 'user'"),
        ({"table": "places"}, "source.unsupported_type", "column 'at' is of type point"),
        ({"query": "SELECT nope FROM users"}, "source.unreadable", "Unknown column 'nope'"),
        ({"query": "SELECT CAST('0000-00-00' AS date) AS d"}, "source.unsupported_value", "a value cannot be read"),
        ({"query": "SELECT sleep(9) AS a", "timeout_seconds": 0.3}, "source.timeout", "took longer than 0.3 s"),
    ],
)
def test_what_cannot_be_read(server: MariaDB, keys: dict[str, Any], code: str, text: str) -> None:
    server.execute("CREATE TABLE users (id int); CREATE TABLE places (at point)")
    with pytest.raises(SourceError, match=text) as caught:
        read(database(server.url, **keys))
    assert caught.value.code == code


def test_nothing_listens() -> None:
    with pytest.raises(
        TransientSourceError, match=r"cannot connect to mysql://127\.0\.0\.1:1/shop: Connection refused"
    ) as caught:
        read(database("mysql://me:hunter@two@127.0.0.1:1/shop", table="t"))
    assert "hunter" not in str(caught.value)
