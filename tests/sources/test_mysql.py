"""MySQL sources, against a real MariaDB server whose time zone is not UTC."""

from __future__ import annotations

import datetime as dt
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine.errors import SourceError, TransientSourceError
from engine.sources import Chunk, Landed, Reading, Request, mysql, mysql_plan, open_source
from engine.sources.relation import Relation
from engine.spec import DatabaseSpec
from tests.servers.mariadb import DATABASE, MariaDB
from tests.servers.process import run
from tests.servers.proxy import running
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


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of a hundred rows, with digests."""
    monkeypatch.setattr(mysql_plan, "CHUNK_ROWS", 100)
    monkeypatch.setattr(mysql, "DIGEST_ROWS", 0)


def selected(server: MariaDB, sql: str) -> list[str]:
    """The lines that the server's own client prints."""
    client = (server.client, "--no-defaults", f"--socket={server.socket}", "-u", "root", "-N", "-B", DATABASE)
    return run(*client, text=sql).splitlines()


def opened(spec: DatabaseSpec, request: Request | None = None) -> Any:
    return open_source("s", spec, Path()).open(request or Request())


def fully(spec: DatabaseSpec, request: Request | None = None) -> tuple[list[Chunk], Reading]:
    """All chunks of a reading, and the reading after them."""
    with opened(spec, request) as reading:
        return list(reading.chunks()), reading


# Declaration of the key's columns, of the key, the SELECT that fills them from seq, and the number of ranges of 100.
KEYS = {
    "int_with_gaps": ("k int", "PRIMARY KEY (k)", "seq * seq", 10),
    "negative": ("k int", "PRIMARY KEY (k)", "500 - CAST(seq AS SIGNED)", 10),
    "unsigned_max": ("k bigint unsigned", "PRIMARY KEY (k)", "18446744073709551615 - seq * 9223372036854775", 10),
    "text_ci": ("k varchar(40) COLLATE utf8mb4_general_ci", "PRIMARY KEY (k)", "CONCAT(IF(seq % 2, 'É', 'z'), CONV(seq, 10, 36), \"'\\\\ \")", 10),
    "text_latin1": ("k varchar(40) CHARACTER SET latin1 COLLATE latin1_german2_ci", "PRIMARY KEY (k)", "CONCAT('ß', CHAR(97 + seq % 26), seq)", 10),
    "text_utf16": ("k varchar(40) CHARACTER SET utf16", "PRIMARY KEY (k)", "CONCAT('☃', seq)", 10),
    "uuid": ("k uuid", "PRIMARY KEY (k)", "UUID()", 10),
    "binary": ("k binary(16)", "PRIMARY KEY (k)", "UNHEX(MD5(seq))", 10),
    "decimal": ("k decimal(38,20)", "PRIMARY KEY (k)", "seq / 7", 10),
    "date": ("k date", "PRIMARY KEY (k)", "'2024-01-01' + INTERVAL seq DAY", 10),
    "datetime": ("k datetime(6)", "PRIMARY KEY (k)", "'2024-01-01' + INTERVAL seq MICROSECOND", 10),
    "timestamp": ("k timestamp(6)", "PRIMARY KEY (k)", "'2024-01-01' + INTERVAL seq MINUTE", 10),
    "time": ("k time", "PRIMARY KEY (k)", "SEC_TO_TIME(500 - CAST(seq AS SIGNED))", 10),
    "double": ("k double", "PRIMARY KEY (k)", "seq / 3e0", 10),
    "compound": ("a char(2) COLLATE utf8mb4_general_ci, k int, c date", "PRIMARY KEY (a, k, c)", "ELT(1 + seq % 4, 'a', 'A', 'b', 'B'), seq DIV 3, '2024-01-01' + INTERVAL seq % 3 DAY", 10),
    "enum_first": ("a enum('z', 'm', 'a'), k int", "PRIMARY KEY (a, k)", "1 + seq % 3, seq", 10),
    "unique": ("k varchar(40) NOT NULL", "UNIQUE (k), KEY (v)", "CONCAT('k', seq)", 10),
    "unique_nullable": ("k int", "UNIQUE (k)", "IF(seq % 4, seq, NULL)", 9),
    "unique_half_nullable": ("a int NOT NULL, k int", "UNIQUE (a, k)", "seq DIV 100, IF(seq % 4, seq, NULL)", 9),
    "unique_of_nulls": ("k int", "UNIQUE (k)", "NULL", 1),
    "unique_prefix": ("k varchar(90) NOT NULL", "UNIQUE (k(10))", "CONCAT('k', seq)", 1),
    "none": ("k int", "KEY (k)", "seq", 1),
}  # fmt: skip


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.usefixtures("small")
def test_ranges_of_any_key_have_every_row_once(server: MariaDB, kind: str) -> None:
    columns, key, values, ranges = KEYS[kind]
    server.execute(
        f"SET NAMES utf8mb4; CREATE TABLE t ({columns}, v int, {key}); INSERT INTO t SELECT {values}, seq FROM seq_1_to_1000"
    )
    chunks, reading = fully(database(server.url, table="t"))
    frame = collected(chunks)
    assert sorted(frame["v"].to_list()) == list(range(1, 1001))
    assert len({chunk.number for chunk in chunks}) == ranges
    if ranges > 1:
        assert max(chunk.rows or 0 for chunk in chunks) == (100 if ranges == 10 else 250)
        order = key[key.index("(") + 1 : key.index(")")]
        present = f"{order.split(', ')[-1]} IS NULL, " if ranges == 9 else ""
        assert [str(v) for v in frame["v"].to_list()][:750] == selected(
            server, f"SELECT v FROM t ORDER BY {present}{order}"
        )[:750]
    assert reading.promise.to_dict() == {
        "snapshot": "one" if ranges == 1 else "per_chunk",
        "shared": None,
        "counted": True,
        "late_commits": None,
        "note": None if ranges == 1 else "read in ranges, each of its own moment",
    }


@pytest.mark.usefixtures("small")
def test_a_range_finds_its_way_by_the_index(server: MariaDB) -> None:
    server.execute(
        "CREATE TABLE t (a int, b varchar(9) CHARACTER SET latin1, v int, PRIMARY KEY (a, b)); INSERT INTO t SELECT seq % 3, seq, seq FROM seq_1_to_3000"
    )
    with opened(database(server.url, table="t")) as reading:
        plan = reading._plan
    sql = plan.sql(plan.pieces[15], None)
    touched = selected(server, f"SET NAMES utf8mb4; FLUSH STATUS; {sql}; SHOW STATUS LIKE 'Handler_read_next'")[-1]
    assert int(touched.split()[1]) <= 101


@pytest.mark.parametrize("rows", [0, 99, 100, 101, 200, 201])
@pytest.mark.usefixtures("small")
def test_ranges_that_end_at_a_border(server: MariaDB, rows: int) -> None:
    server.execute(
        f"CREATE TABLE t (id int PRIMARY KEY, name text); INSERT INTO t SELECT seq, 'n' FROM seq_1_to_201 WHERE seq <= {rows}"
    )
    chunks, reading = fully(database(server.url, table="t"))
    frame = collected(chunks)
    assert frame.schema == {"id": pl.Int32, "name": pl.String}
    assert frame["id"].to_list() == list(range(1, rows + 1))
    assert len(chunks) == max(1, -(-rows // 100))
    assert reading.promise.counted


@pytest.mark.usefixtures("small")
def test_wide_rows_make_shorter_ranges(server: MariaDB, monkeypatch: pytest.MonkeyPatch) -> None:
    server.execute(
        "CREATE TABLE t (id int PRIMARY KEY, d varchar(9000)); INSERT INTO t SELECT seq, repeat('x', 8000) FROM seq_1_to_100; ANALYZE TABLE t"
    )
    monkeypatch.setattr(mysql_plan, "CHUNK_BYTES", 200_000)
    chunks, _ = fully(database(server.url, table="t"))
    assert collected(chunks).height == 100
    assert 4 <= len(chunks) <= 20


def landed(chunks: list[Chunk]) -> list[Landed]:
    return [Landed(c.number, c.rows or 0, c.mark or {}) for c in chunks]


@pytest.mark.usefixtures("small")
def test_an_interrupted_reading_goes_on(server: MariaDB, monkeypatch: pytest.MonkeyPatch) -> None:
    server.execute(
        "CREATE TABLE t (id char(36) PRIMARY KEY, n int); INSERT INTO t SELECT UUID(), seq FROM seq_1_to_950"
    )
    spec = database(server.url, table="t")
    with opened(spec) as reading:
        chunks = reading.chunks()
        first = [next(chunks) for _ in range(4)]
        seal = reading.seal
    assert threading.active_count() < 20
    server.execute("INSERT INTO t VALUES ('zzz', -1)")  # above the largest key there was
    request = Request(seal=seal, landed=landed(first))
    rest, again = fully(spec, request)
    bounds = [*seal["bounds"], ["_utf8mb4 x'7A7A7A' COLLATE utf8mb4_general_ci"]]
    assert again.seal == {**seal, "bounds": bounds, "token": again.seal["token"]}
    assert again.kept == {chunk.number for chunk in first}
    assert sorted(collected([*first, *rest])["n"].to_list()) == [-1, *range(1, 951)]
    assert (again.promise.counted, again.promise.snapshot) == (True, "per_chunk")
    assert "4 ranges were kept" in str(again.promise.note)
    assert "the server's checksums of them are still the same" in str(again.promise.note)
    # Another selection, a range that has changed, an hour: what has landed is read again.
    for other in ({"columns": ["n"]}, {"filter": "n < 900"}, {"consistent": True}):
        assert fully(database(server.url, table="t", **other), request)[1].kept == frozenset()
    gone = first[0].frame.collect()["id"][0]
    server.execute(f"DELETE FROM t WHERE id = '{gone}'")
    rest, again = fully(spec, request)
    assert again.kept == {chunk.number for chunk in first[1:]}
    assert collected([*first[1:], *rest]).height == 950
    monkeypatch.setattr(mysql, "RESUME_SECONDS", 0)
    chunks, again = fully(spec, request)
    assert (again.kept, again.seal == seal) == (frozenset(), False)
    assert collected(chunks).height == 950


@pytest.mark.usefixtures("small")
def test_what_came_since_an_interrupted_reading_is_read_too(server: MariaDB) -> None:
    server.execute("CREATE TABLE t (id int PRIMARY KEY, c int); INSERT INTO t SELECT seq, seq FROM seq_1_to_950")
    spec = database(server.url, table="t", cursor="c")
    with opened(spec) as reading:
        seal, chunks = reading.seal, reading.chunks()
        first = [next(chunks) for _ in range(3)]
    server.execute("INSERT INTO t SELECT seq, seq FROM seq_951_to_1200")
    rest, again = fully(spec, Request(seal=seal))  # nothing has landed: planned anew
    assert (again.kept, again.promise.counted, len(rest)) == (frozenset(), True, 12)
    assert collected(rest)["id"].to_list() == list(range(1, 1201))
    rest, again = fully(spec, Request(seal=seal, landed=landed(first)))
    assert (len(again.kept), again.promise.counted, len(rest)) == (3, True, 10)
    assert collected([*first, *rest])["id"].to_list() == list(range(1, 1201))
    # A third attempt goes on from the second one's ranges.
    third, last = fully(spec, Request(seal=again.seal, landed=landed([*first, *rest])))
    assert (third, len(last.kept), last.promise.counted) == ([], 13, True)
    server.execute("DELETE FROM t WHERE id > 700; UPDATE t SET c = c + 1")  # none still holds, and the largest is gone
    rest, again = fully(spec, Request(seal=seal, landed=landed(first)))
    assert (again.kept, again.promise.counted, len(rest)) == (frozenset(), True, 7)
    assert collected(rest)["c"].to_list() == list(range(2, 702))


CHANGES = {
    "n": ("int", "seq", "5"),
    "nothing": ("int", "NULL", "0"),
    "empty": ("varchar(9)", "NULL", "''"),
    "float": ("float", "1.0000001", "1.0000003"),
    "double": ("double", "0.1", "0.30000000000000004 - 0.2"),
    "decimal": ("decimal(65,30)", "1", "1.000000000000000000000000000001"),
    "case": ("varchar(9) COLLATE utf8mb4_general_ci", "'a'", "'A'"),
    "utf16": ("varchar(9) CHARACTER SET utf16", "'☃'", "'☂'"),
    "long": ("longtext", "REPEAT('x', 70000)", "CONCAT(REPEAT('x', 69999), 'y')"),
    "blob": ("blob", "x'00ff'", "x'00fe'"),
    "bit": ("bit(64)", "~0", "~0 - 1"),
    "moment": ("timestamp(6) NULL", "'2026-02-03 04:05:06.000007'", "'2026-02-03 04:05:06.000008'"),
}


@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.usefixtures("small")
def test_a_landed_range_that_was_updated_is_read_again(server: MariaDB, kind: str) -> None:
    declared, before, after = CHANGES[kind]
    server.execute(
        f"SET NAMES utf8mb4; CREATE TABLE t (id int PRIMARY KEY, v {declared}, w char(3) CHARACTER SET latin1);"
        f"INSERT INTO t SELECT seq, {before}, 'é' FROM seq_1_to_300"
    )
    spec = database(server.url, table="t")
    with opened(spec) as reading:
        seal, chunks = reading.seal, list(reading.chunks())
    _, again = fully(spec, Request(seal=seal, landed=landed(chunks)))
    assert again.kept == set(range(len(chunks)))
    server.execute(f"SET NAMES utf8mb4; UPDATE t SET v = {after} WHERE id = 1")
    rest, again = fully(spec, Request(seal=seal, landed=landed(chunks)))
    assert again.kept == set(range(1, len(chunks)))
    changed = collected(rest).row(0)
    assert changed[1] != collected(chunks).row(0)[1]
    assert changed[2] == "é"


DAMAGED = {
    "d": ("date", "0000-00-00"),
    "dt": ("datetime(6)", "2024-00-05 00:00:00"),
    "ts": ("timestamp NULL", "0000-00-00 00:00:00"),
}


@pytest.mark.parametrize("kind", DAMAGED)
@pytest.mark.parametrize("key", ["id int PRIMARY KEY", "id int"])
@pytest.mark.usefixtures("small")
def test_a_date_that_no_calendar_has_is_met_in_the_read(
    server: MariaDB, kind: str, key: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mysql_plan, "LIMIT_ROWS", 600)
    monkeypatch.setattr(mysql_plan, "HASH_ROWS", 250)
    declared, value = DAMAGED[kind]
    server.execute(
        f"CREATE TABLE t ({key}, v {declared}, w date NOT NULL, x timestamp NULL);"
        "INSERT INTO t SELECT seq, IF(seq % 7, '2024-01-31 10:00:00', NULL), '2024-02-29', NULL FROM seq_1_to_1000"
    )
    spec = database(server.url, table="t")
    with opened(spec) as reading:
        chunks = reading.chunks()
        next(chunks)
        # As many rows as before are readable, and counted: nothing but the read itself shows the damage.
        server.execute(f"SET sql_mode = ''; UPDATE t SET v = '{value}' WHERE id > 700 AND id <= 702")
        with pytest.raises(SourceError, match="column 'v' has zero or impossible dates in 2 rows") as caught:
            list(chunks)
    assert (caught.value.code, type(caught.value)) == ("source.unsupported_value", SourceError)
    assert "CAST(`v` AS CHAR) AS `v`" in str(caught.value.fix)
    assert read_counted(database(server.url, table="t", columns=["id", "w", "x"]), "w") == 1000
    assert capfd.readouterr().err == ""


def read_counted(spec: DatabaseSpec, column: str) -> int:
    """The rows of a source, which has no null in the column."""
    frame = read(spec)
    assert frame[column].null_count() == 0
    return frame.height


@pytest.mark.usefixtures("small")
def test_a_value_out_of_range_elsewhere_is_no_date(server: MariaDB) -> None:
    server.execute("CREATE TABLE t (id int PRIMARY KEY, d date); INSERT INTO t SELECT seq, NULL FROM seq_1_to_300")
    with pytest.raises(SourceError, match="DOUBLE value is out of range"):
        read(database(server.url, table="t", filter="EXP(id + 600) > 0"))


@pytest.mark.usefixtures("small")
def test_the_count_beside_the_read_ends_with_it(server: MariaDB, monkeypatch: pytest.MonkeyPatch) -> None:
    server.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT seq FROM seq_1_to_1000")
    monkeypatch.setattr(mysql_plan.Plan, "counting", lambda _, __=None: "SELECT sleep(20)")
    running_ = "SELECT info FROM information_schema.processlist WHERE info = 'SELECT sleep(20)'"
    with opened(database(server.url, table="t")) as reading:
        next(reading.chunks())
        assert len(selected(server, running_)) == 1  # it is not waited for
    deadline = time.monotonic() + 5
    while selected(server, running_) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert selected(server, running_) == []


@pytest.mark.usefixtures("small")
def test_a_count_that_fails_fails_the_read(server: MariaDB, monkeypatch: pytest.MonkeyPatch) -> None:
    server.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT seq FROM seq_1_to_1000")
    monkeypatch.setattr(mysql_plan.Plan, "counting", lambda _, __=None: "SELECT COUNT(*) FROM nowhere")
    with pytest.raises(SourceError, match="nowhere"):
        read(database(server.url, table="t"))


@pytest.mark.usefixtures("small")
def test_consistent_does_not_go_on_from_ranges(server: MariaDB) -> None:
    server.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT seq FROM seq_1_to_500")
    with opened(database(server.url, table="t")) as reading:
        seal, first = reading.seal, [next(reading.chunks())]
    server.execute("INSERT INTO t VALUES (501)")
    chunks, again = fully(database(server.url, table="t", consistent=True), Request(seal=seal, landed=landed(first)))
    assert (again.seal, again.kept, again.promise.snapshot, again.promise.counted) == (None, frozenset(), "one", True)
    assert collected(chunks)["id"].to_list() == list(range(1, 502))


@pytest.mark.usefixtures("small")
def test_consistent_is_one_query_or_nothing(server: MariaDB, monkeypatch: pytest.MonkeyPatch) -> None:
    server.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT seq FROM seq_1_to_1000")
    chunks, reading = fully(database(server.url, table="t", consistent=True))
    assert {chunk.number for chunk in chunks} == {0}
    assert collected(chunks)["id"].to_list() == list(range(1, 1001))
    assert (reading.promise.snapshot, reading.promise.counted, reading.seal) == ("one", True, None)
    monkeypatch.setattr(mysql_plan, "LIMIT_ROWS", 999)
    with pytest.raises(SourceError, match="1000 rows are too many for one read") as caught:
        fully(database(server.url, table="t", consistent=True))
    assert caught.value.fix == "remove consistent, or read less with filter"


@pytest.mark.usefixtures("small")
def test_without_a_key_parts_by_hash(server: MariaDB, monkeypatch: pytest.MonkeyPatch) -> None:
    server.execute(
        "CREATE TABLE t (a int, b varchar(9) CHARACTER SET latin1, c text COLLATE utf8mb4_bin, d date, e blob, f time, g json);"
        "INSERT INTO t SELECT seq, IF(seq % 3, 'é', NULL), seq, '2024-01-01', x'ff', '00:00:01', '{}' FROM seq_1_to_1000; INSERT INTO t () VALUES (), ()"
    )
    monkeypatch.setattr(mysql_plan, "LIMIT_ROWS", 600)
    monkeypatch.setattr(mysql_plan, "HASH_ROWS", 250)
    chunks, reading = fully(database(server.url, table="t"))
    assert len({chunk.number for chunk in chunks}) == 5
    assert sorted(collected(chunks)["a"].to_list(), key=str) == sorted([None, None, *range(1, 1001)], key=str)
    assert (reading.promise.snapshot, reading.promise.counted, reading.seal) == ("per_chunk", False, None)
    assert reading.promise.note == (
        "without a key it takes 5 scans, each of its own moment: rows changed while they were read may be missing or "
        "twice, which no count shows; give the table a primary key"
    )
    server.execute("TRUNCATE t; INSERT INTO t (a) SELECT 1 FROM seq_1_to_1000")
    with pytest.raises(SourceError, match="1000 rows are too many") as caught:
        fully(database(server.url, table="t"))
    assert "too many of its rows are alike" in str(caught.value.fix)


@pytest.mark.usefixtures("small")
def test_views_and_queries_are_one_query(server: MariaDB, monkeypatch: pytest.MonkeyPatch) -> None:
    server.execute("CREATE TABLE `or``der` (`select` int, `a b` decimal(5,1)); INSERT INTO `or``der` VALUES (1, 2.5)")
    assert read(database(server.url, table="shop.or`der")).rows(named=True) == [{"select": 1, "a b": Decimal("2.5")}]
    query = "SELECT seq AS n FROM seq_1_to_300 ORDER BY n DESC -- x"
    assert read(database(server.url, query=query))["n"].to_list() == list(range(300, 0, -1))
    thirds = read(database(server.url, query="SELECT seq / 3 AS third FROM seq_1_to_3"))["third"].to_list()
    assert sorted(thirds) == [Decimal("0.3333"), Decimal("0.6667"), Decimal("1.0000")]
    server.execute(
        "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT seq FROM seq_1_to_300; CREATE VIEW v AS SELECT * FROM t"
    )
    chunks, reading = fully(database(server.url, table="v"))
    assert (len({c.number for c in chunks}), collected(chunks).height, reading.promise.snapshot) == (1, 300, "one")
    monkeypatch.setattr(mysql_plan, "LIMIT_ROWS", 299)
    for keys in ({"query": query}, {"table": "v"}):
        with pytest.raises(SourceError, match="300 rows are too many for one read") as caught:
            read(database(server.url, **keys))
        assert caught.value.code == "source.too_many_rows"


def test_one_query_has_a_limit_of_bytes(server: MariaDB, monkeypatch: pytest.MonkeyPatch) -> None:
    server.execute(
        "CREATE TABLE t (n int, d longtext); INSERT INTO t SELECT seq, repeat('x', 100000) FROM seq_1_to_50; CREATE VIEW v AS SELECT * FROM t"
    )
    monkeypatch.setattr(mysql_plan, "CHUNK_BYTES", 2**20)
    monkeypatch.setattr(mysql_plan, "LIMIT_BYTES", 4 * 2**20)
    for keys in ({"query": "SELECT * FROM t"}, {"table": "v"}, {"table": "t", "consistent": True}):
        with pytest.raises(SourceError, match=r"50 rows of about 4\.8 MiB are too large for one read") as caught:
            read(database(server.url, **keys))
        assert caught.value.code == "source.too_large"
        assert str(caught.value.fix).endswith(", or fewer columns")
    assert read(database(server.url, table="v", columns=["n"])).height == 50
    assert read(database(server.url, query="SELECT * FROM t", filter="n <= 40")).height == 40
    chunks, reading = fully(database(server.url, table="t"))  # a table without a key: in parts
    assert (collected(chunks).height, reading.promise.counted) == (50, False)


def test_sums_of_a_query_are_numbers(server: MariaDB) -> None:
    server.execute(
        "CREATE TABLE t (g int, b bigint, d decimal(65,30)); INSERT INTO t VALUES (1, 9223372036854775807, 1.5), (1, 9223372036854775807, 2)"
    )
    row = read(database(server.url, query="SELECT g, sum(b) AS s, max(d) AS m, count(*) AS n FROM t GROUP BY g")).row(0)
    assert row[:2] == (1, Decimal(18446744073709551614))
    assert row[3] == 2
    server.execute("INSERT INTO t VALUES (2, 0, 99999999999999999999999999999999999.5)")
    with pytest.raises(SourceError, match="column 's' has a value that cannot be read as decimal128") as caught:
        read(database(server.url, query="SELECT g, sum(d) AS s FROM t GROUP BY g"))
    assert "CAST(`s` AS CHAR) AS `s`" in str(caught.value.fix)


@pytest.mark.usefixtures("small")
def test_counts_under_writers(server: MariaDB) -> None:
    server.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT seq FROM seq_1_to_3000")
    spec = database(server.url, table="t")
    with opened(spec) as reading:  # rows are gone before they are read: a number between the two counts
        chunks = reading.chunks()
        first = next(chunks)
        server.execute("DELETE FROM t WHERE id > 2900")
        rest = list(chunks)
    assert len({c.number for c in [first, *rest]}) == 30
    assert collected([first, *rest])["id"].to_list() == list(range(1, 2901))
    assert (reading.promise.counted, reading.promise.snapshot) == (False, "per_chunk")
    with opened(spec) as reading:  # as many come as go, but where it has been read already
        chunks = reading.chunks()
        next(chunks)
        server.execute("DELETE FROM t WHERE id > 2800; INSERT INTO t SELECT -seq FROM seq_1_to_100")
        with pytest.raises(
            TransientSourceError, match="2800 rows were read where the database counts 2900, and 2900 before"
        ) as caught:
            list(chunks)
    assert caught.value.code == "source.lost_rows"
    with opened(spec) as reading:  # rows above the largest key are the next reading's
        chunks = reading.chunks()
        next(chunks)
        server.execute("INSERT INTO t SELECT 5000 + seq FROM seq_1_to_100")
        list(chunks)
    assert reading.promise.counted


def test_columns_filter_and_mapping(server: MariaDB) -> None:
    server.execute(
        "CREATE TABLE t (id int PRIMARY KEY, at point, `na``me` time, x int); INSERT INTO t SELECT seq, point(1, 1), '01:02:03', seq % 2 FROM seq_1_to_4"
    )
    keys: dict[str, Any] = {"column_mapping": {"na`me": "name"}, "columns": ["name", "id"], "filter": "x = 1 -- odd"}
    for source in ({"table": "t"}, {"query": "SELECT id, `na``me`, x FROM t"}):
        assert sorted(read(database(server.url, **source, **keys)).rows()) == [(1, "01:02:03"), (3, "01:02:03")]
    with pytest.raises(SourceError, match="has no column 'named'") as caught:
        read(database(server.url, table="t", columns=["named"]))
    assert caught.value.code == "source.missing_column"
    with pytest.raises(SourceError, match="the query gives the column 'ID' twice") as caught:
        read(database(server.url, query="SELECT id, 1 AS ID FROM t"))
    assert caught.value.code == "source.repeated_column"


CURSORS: dict[str, tuple[str, str, Any, list[int]]] = {
    "int": ("int", "seq", 998, [998, 999, 1000]),
    "unsigned": ("bigint unsigned", "18446744073709550615 + seq", 2**64 - 3, [998, 999, 1000]),
    "decimal": ("decimal(20,3)", "seq / 1000", Decimal("0.998"), [998, 999, 1000]),
    "double": ("double", "seq / 3e0", 998 / 3, [998, 999, 1000]),
    "float": ("float", "seq + 0.1", float(pl.Series([998.1], dtype=pl.Float32)[0]), [998, 999, 1000]),
    "date": ("date", "'2024-01-01' + INTERVAL seq DAY", dt.date(2026, 9, 25), [998, 999, 1000]),
    "date_by_moment": ("date", "'2024-01-01' + INTERVAL seq DAY", dt.datetime(2026, 9, 25, 11), [998, 999, 1000]),
    "datetime": ("datetime(6)", "'2024-01-01' + INTERVAL seq MICROSECOND", dt.datetime(2024, 1, 1, 0, 0, 0, 998), [998, 999, 1000]),
    "timestamp": ("timestamp NULL", "'2024-01-01 09:00:00' + INTERVAL seq SECOND", dt.datetime(2024, 1, 1, 0, 16, 38, tzinfo=dt.UTC), [998, 999, 1000]),
    "text": ("varchar(9)", "LPAD(seq, 4, '0')", "0998", [998, 999, 1000]),
    "text_byte_by_byte": ("varchar(9) COLLATE utf8mb4_general_ci", "IF(seq = 7, 'b', IF(seq = 8, 'C', 'A'))", "a", [7]),
}  # fmt: skip


@pytest.mark.parametrize("kind", CURSORS)
@pytest.mark.parametrize("key", ["id int PRIMARY KEY", "id int"])
@pytest.mark.usefixtures("small")
def test_since_a_cursor_of_any_type(server: MariaDB, kind: str, key: str) -> None:
    declared, values, since, expected = CURSORS[kind]
    server.execute(
        f"CREATE TABLE t ({key}, c {declared}, KEY (c)); INSERT INTO t SELECT seq, {values} FROM seq_1_to_1000; INSERT INTO t VALUES (0, NULL)"
    )
    spec = database(server.url, table="t", cursor="c")
    assert collected(fully(spec)[0]).height == 1001
    chunks, reading = fully(spec, Request(since=since))
    assert sorted(collected(chunks)["id"].to_list()) == [0, *expected]
    assert reading.promise.counted
    moments = kind.startswith(("date", "timestamp"))
    assert reading.promise.late_commits == ("none_missed" if moments else "within_lateness")
    assert (reading.bound is not None) == moments
    if not moments:
        assert "rows committed late with a smaller c are found within lateness only" in str(reading.promise.note)


@pytest.mark.usefixtures("small")
def test_a_large_delta_is_read_in_ranges(server: MariaDB) -> None:
    server.execute(
        "CREATE TABLE t (id int PRIMARY KEY, c int, KEY (c)); INSERT INTO t SELECT seq, seq % 2 FROM seq_1_to_1000"
    )
    chunks, reading = fully(database(server.url, table="t", cursor="c"), Request(since=1))
    assert [chunk.rows for chunk in sorted(chunks, key=lambda c: c.number)] == [100] * 5 + [0]
    assert collected(chunks)["id"].to_list() == list(range(1, 1001, 2))
    assert (reading.promise.counted, reading.seal is not None) == (True, True)


@pytest.mark.parametrize("declared", ["int", "double", "varchar(9)", "bit(20)"])
@pytest.mark.usefixtures("small")
def test_rows_that_come_while_ranges_are_read_are_the_next_reading_s(server: MariaDB, declared: str) -> None:
    server.execute(
        f"CREATE TABLE t (id int PRIMARY KEY, c {declared}, KEY (c)); INSERT INTO t SELECT seq * 10, 10000 + seq FROM seq_1_to_3000"
    )
    spec = database(server.url, table="t", cursor="c")
    with opened(spec) as reading:
        chunks = reading.chunks()
        first = next(chunks)
        server.execute("INSERT INTO t VALUES (15, 20001), (29995, 20002)")
        rest = list(chunks)
    assert collected([first, *rest])["id"].to_list() == [10 * n for n in range(1, 3001)]
    assert reading.promise.counted
    since: Any = "20000" if declared.startswith("varchar") else 20000
    assert sorted(collected(fully(spec, Request(since=since))[0])["id"].to_list()) == [15, 29995]
    again, resumed = fully(spec, Request(seal=reading.seal, landed=landed([first])))
    assert resumed.kept == {first.number} - {0}  # a row has come into the first one
    assert collected([*([first] if resumed.kept else []), *again]).height == 3002


@pytest.mark.usefixtures("small")
def test_keys_are_those_of_all_rows(server: MariaDB) -> None:
    server.execute(
        "CREATE TABLE t (id int PRIMARY KEY, k decimal(5,1), c int); INSERT INTO t SELECT seq, seq / 10, seq FROM seq_1_to_1000"
    )
    with opened(database(server.url, table="t", cursor="c", filter="id <= 950"), Request(since=990)) as reading:
        assert [chunk.rows for chunk in reading.chunks()] == [0]
        chunks = list(reading.keys(["k"]))
    assert len(chunks) == 10
    frame = collected(chunks)
    assert frame.schema == {"k": pl.Decimal(5, 1)}
    assert frame["k"].to_list() == [Decimal(n) / 10 for n in range(1, 951)]


@contextmanager
def client(server: MariaDB) -> Iterator[Any]:
    """A connection that stays open; call it with SQL, which is done when it returns."""
    command = [
        server.client,
        "--no-defaults",
        f"--socket={server.socket}",
        "-u",
        "root",
        "-N",
        "-B",
        "--unbuffered",
        DATABASE,
    ]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    assert process.stdin is not None
    assert process.stdout is not None

    def execute(sql: str) -> None:
        process.stdin.write(f"{sql}; SELECT 'done';\n")
        process.stdin.flush()
        assert process.stdout.readline() == "done\n"

    try:
        yield execute
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(10)


def seen_and_next(spec: DatabaseSpec, since: dt.datetime | None) -> tuple[list[int], dt.datetime]:
    """The ids of one reading, and where the next one starts: the largest moment seen, but not above the bound."""
    chunks, reading = fully(spec, Request(since=since))
    frame = collected(chunks)
    assert reading.promise.late_commits == "none_missed"
    assert reading.bound is not None
    bound = reading.bound.replace(tzinfo=None)
    largest = frame["c"].max()
    return frame["id"].to_list(), bound if largest is None else min(largest, bound)  # type: ignore[type-var]


@pytest.mark.parametrize("declared", ["datetime", "timestamp(6)"])
def test_a_transaction_left_open_is_not_missed(server: MariaDB, declared: str) -> None:
    server.execute(
        f"CREATE TABLE t (id int PRIMARY KEY, c {declared} DEFAULT CURRENT_TIMESTAMP{declared[declared.index('(') :] if '(' in declared else ''})"
    )
    spec = database(server.url, table="t", cursor="c")
    with client(server) as late:
        late("BEGIN; INSERT INTO t (id) VALUES (1)")
        time.sleep(1.2)
        server.execute("INSERT INTO t (id) VALUES (2)")
        first, since = seen_and_next(spec, None)
        time.sleep(1.2)
        server.execute("INSERT INTO t (id) VALUES (3)")
        second, since = seen_and_next(spec, since)
        late("COMMIT")
    third, since = seen_and_next(spec, since)
    assert (first, second, third) == ([2], [2, 3], [1, 2, 3])


def test_bounds_are_in_the_zone_a_column_is_written_in(server: MariaDB) -> None:
    server.execute("CREATE TABLE t (d date, dt datetime, ts timestamp NULL, i int)")
    bounds = {}
    for name in ("d", "dt", "ts", "i"):
        with opened(database(server.url, table="t", cursor=name)) as reading:
            bounds[name] = reading.bound
    now = dt.datetime.now(dt.UTC)
    assert dt.timedelta(0) <= now - bounds["ts"] < dt.timedelta(seconds=5)
    assert dt.timedelta(0) <= now + dt.timedelta(hours=9) - bounds["dt"] < dt.timedelta(seconds=5)
    assert bounds["d"] == bounds["dt"].replace(hour=0, minute=0, second=0)
    assert bounds["i"] is None


@pytest.mark.parametrize(("cursor", "noted"), [("d", True), ("dt", True), ("ts", False)])
def test_a_zone_that_puts_its_clocks_back_is_noted(
    server: MariaDB, monkeypatch: pytest.MonkeyPatch, cursor: str, noted: bool
) -> None:
    server.execute("CREATE TABLE t (d date, dt datetime, ts timestamp NULL)")
    monkeypatch.setattr("engine.sources.mysql_cursor.FIXED", re.compile("UTC"))
    with opened(database(server.url, table="t", cursor=cursor)) as reading:
        assert reading.promise.late_commits == "none_missed"
        assert reading.promise.note == (
            f"{cursor} is in the server's zone +09:00: when its clocks are put back, lateness has to cover that"
            if noted
            else None
        )


def test_a_statement_under_way_holds_the_bound_back(server: MariaDB) -> None:
    server.execute("CREATE TABLE t (id int PRIMARY KEY, c timestamp(6) NULL)")
    with client(server) as slow:
        thread = threading.Thread(target=slow, args=("DO sleep(3)",))
        thread.start()
        time.sleep(2)
        with opened(database(server.url, table="t", cursor="c")) as reading:
            age = (dt.datetime.now(dt.UTC) - reading.bound).total_seconds()
        thread.join()
    assert 2.5 < age < 6


def test_late_commits_of_six_writers_are_not_missed(server: MariaDB) -> None:
    server.execute("CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, c timestamp(6) NULL, KEY (c))")
    spec = database(server.url, table="t", cursor="c")
    stop = threading.Event()

    def write(pause: float) -> None:
        with client(server) as execute:
            while not stop.is_set():
                execute(
                    f"BEGIN; INSERT INTO t (c) VALUES (NOW(6)); DO sleep({pause}); INSERT INTO t (c) VALUES (NOW(6)); COMMIT"
                )

    threads = [threading.Thread(target=write, args=(0.01 * 3**i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    found: set[int] = set()
    since = None
    for _ in range(12):
        ids, since = seen_and_next(spec, since)
        found |= set(ids)
        time.sleep(0.2)
    stop.set()
    for thread in threads:
        thread.join()
    ids, since = seen_and_next(spec, since)
    assert sorted(found | set(ids)) == [int(line) for line in selected(server, "SELECT id FROM t ORDER BY id")]


@pytest.fixture
def reader(server: MariaDB) -> Iterator[str]:
    """The URL of a user who may only read."""
    server.execute("CREATE USER reader@'%' IDENTIFIED BY 'r'; GRANT SELECT ON shop.* TO reader@'%'")
    yield server.url.replace("maestro:p%40ss-maria", "reader:r")
    server.execute("DROP USER reader@'%'")


def test_without_the_right_to_see_transactions(server: MariaDB, reader: str) -> None:
    server.execute("CREATE TABLE t (c timestamp NULL)")
    _, reading = fully(database(reader, table="t", cursor="c"))
    assert reading.promise.late_commits == "within_lateness"
    assert "GRANT PROCESS" in str(reading.promise.note)


def test_a_moment_far_ahead_does_not_carry_the_bound_beyond_the_present(server: MariaDB, reader: str) -> None:
    server.execute("CREATE TABLE t (id int, d date, dt datetime, ts timestamp NULL)")
    server.execute("INSERT INTO t VALUES (1, '9999-12-31', '9999-12-31', '2038-01-01')")
    bounds = {}
    for name in ("d", "dt", "ts"):
        chunks, reading = fully(database(reader, table="t", cursor=name))
        bounds[name] = reading.bound
        assert (collected(chunks).height, reading.promise.late_commits) == (1, "within_lateness")
    now = dt.datetime.now(dt.UTC)
    local = now + dt.timedelta(hours=9)
    assert dt.timedelta(seconds=1) <= now - bounds["ts"] < dt.timedelta(seconds=5)
    assert dt.timedelta(seconds=1) <= local - bounds["dt"] < dt.timedelta(seconds=6)
    assert bounds["d"] == bounds["dt"].replace(hour=0, minute=0, second=0)
    server.execute("INSERT INTO t VALUES (2, NOW(), NOW(), NOW())")
    for name, bound in bounds.items():
        chunks, _ = fully(database(reader, table="t", cursor=name), Request(since=bound))
        assert collected(chunks)["id"].to_list() == [1, 2]


@pytest.mark.parametrize(
    ("declared", "kind"),
    [("varbinary(9)", "binary"), ("binary(16)", "binary"), ("blob", "binary"), ("point", "geometry")],
)
def test_a_cursor_without_an_order_is_refused_at_once(server: MariaDB, declared: str, kind: str) -> None:
    server.execute(f"CREATE TABLE t (id int PRIMARY KEY, c {declared}); INSERT INTO t (id) VALUES (1)")
    spec = database(server.url, table="t", cursor="c")
    for use in (lambda: opened(spec).__enter__(), lambda: mysql.probe(Relation("s", spec, Path()))):
        with pytest.raises(SourceError, match=f"the cursor 'c' is of type {kind}") as caught:
            use()
        assert caught.value.code == "source.cursor"
        assert caught.value.fix == "choose a column of numbers, dates or texts as the cursor"


def test_a_probe(server: MariaDB, reader: str) -> None:
    server.execute(
        "CREATE TABLE t (id int, c timestamp NULL, n decimal(5,1), b bit(40)); INSERT INTO t (id) SELECT seq FROM seq_1_to_50; ANALYZE TABLE t"
    )
    found = mysql.probe(Relation("s", database(server.url, table="t", cursor="c", columns=["id", "n", "b"]), Path()))
    assert "MariaDB" in found.server
    assert found.rows_estimate == 50
    assert found.columns == (
        ("id", "int(11)", "Int32"),
        ("n", "decimal(5,1)", "Decimal(precision=5, scale=1)"),
        ("b", "bit(40)", "UInt64"),
    )
    assert [warning.split(" (")[0].split(":")[0] for warning in found.warnings] == [
        "the user may write",
        "no index begins with the cursor c",
        "no primary or unique key",
    ]
    (process, _, _) = mysql.probe(Relation("s", database(reader, table="t", cursor="c"), Path())).warnings
    assert "GRANT PROCESS" in process
    assert mysql.probe(Relation("s", database(reader, query="SELECT 1 AS a"), Path())).warnings == ()


@pytest.mark.parametrize(
    ("keys", "code", "text"),
    [
        ({"table": "user"}, "source.missing_table", "there is no table 'user'"),
        ({"table": "places"}, "source.unsupported_type", "column 'at' is of type geometry"),
        ({"query": "SELECT nope FROM users"}, "source.unreadable", "Unknown column 'nope'"),
        ({"query": "SELEC 1"}, "source.unreadable", "error in your SQL syntax"),
        ({"table": "users", "filter": "nope = 1"}, "source.unreadable", "Unknown column 'nope'"),
        ({"query": "SELECT CAST('0000-00-00' AS date) AS d"}, "source.unsupported_value", "column 'd' has zero or impossible dates in 1 rows"),
        ({"query": "SELECT sleep(9) AS a", "timeout_seconds": 0.3}, "source.timeout", "took longer than 0.3 s"),
    ],
)  # fmt: skip
def test_what_cannot_be_read(server: MariaDB, keys: dict[str, Any], code: str, text: str) -> None:
    server.execute("CREATE TABLE users (id int); CREATE TABLE places (at point)")
    with pytest.raises(SourceError, match=text) as caught:
        read(database(server.url, **keys))
    assert (caught.value.code, type(caught.value)) == (code, SourceError)


def test_what_the_user_may_not_read(server: MariaDB, reader: str) -> None:
    server.execute("CREATE TABLE mysql.hidden (id int)")
    try:
        with pytest.raises(SourceError, match="SELECT command denied to user 'reader'") as caught:
            read(database(reader, query="SELECT * FROM mysql.hidden"))
    finally:
        server.execute("DROP TABLE mysql.hidden")
    assert (caught.value.code, type(caught.value)) == ("source.access_denied", SourceError)


@pytest.mark.parametrize(
    ("old", "new", "text", "kind"),
    [
        ("p%40ss-maria", "p%40ss-wrong", r"Access denied for user 'maestro'@'localhost' \(using password: YES\)", SourceError),
        ("/shop", "/shup", "Unknown database 'shup'", SourceError),
        ("127.0.0.1", "nowhere.invalid", "cannot connect to mysql://nowhere.invalid", SourceError),
    ],
)  # fmt: skip
def test_a_failed_login_is_told_at_once(
    server: MariaDB, old: str, new: str, text: str, kind: type[SourceError]
) -> None:
    start = time.monotonic()
    with pytest.raises(SourceError, match=text) as caught:
        read(database(server.url.replace(old, new), table="t"))
    assert time.monotonic() - start < 2
    assert (caught.value.code, type(caught.value)) == ("source.no_connection", kind)
    assert "ss-wrong" not in str(caught.value)


def test_nothing_listens() -> None:
    with pytest.raises(
        TransientSourceError, match=r"cannot connect to mysql://127\.0\.0\.1:1/shop: Connection refused"
    ) as caught:
        read(database("mysql://me:hunter@two@127.0.0.1:1/shop", table="t"))
    assert "hunter" not in str(caught.value)


def test_an_option_that_the_driver_does_not_know(server: MariaDB) -> None:
    with pytest.raises(SourceError, match="Unknown URL parameter `charset'") as caught:
        read(database(f"{server.url}?charset=utf8mb4", query="SELECT 1 AS a"))
    assert caught.value.code == "source.invalid_request"


def test_too_many_connections_may_pass(server: MariaDB) -> None:
    server.execute(
        "ALTER USER maestro@'%' WITH MAX_USER_CONNECTIONS 1; ALTER USER maestro@localhost WITH MAX_USER_CONNECTIONS 1"
    )
    try:
        server.execute("CREATE TABLE t (id int)")
        with opened(database(server.url, table="t")):
            pass
        with (
            mysql.Session(Relation("s", database(server.url, table="t"), Path())),
            pytest.raises(TransientSourceError, match="max_user_connections") as caught,
        ):
            read(database(server.url, table="t"))
    finally:
        server.execute(
            "ALTER USER maestro@'%' WITH MAX_USER_CONNECTIONS 0; ALTER USER maestro@localhost WITH MAX_USER_CONNECTIONS 0"
        )
    assert caught.value.code == "source.no_connection"


@pytest.mark.parametrize("fault", ["reset_after", "close_after"])
@pytest.mark.parametrize("size", [0, 100, 60_000])
def test_a_broken_connection_may_mend(server: MariaDB, fault: str, size: int) -> None:
    server.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v char(100)); INSERT INTO t SELECT seq, repeat('x', 100) FROM seq_1_to_5000"
    )
    with running(server.port) as proxy:
        spec = database(proxy.url(server.url), table="t")
        getattr(proxy, fault)(size)
        start = time.monotonic()
        with pytest.raises(TransientSourceError):
            read(spec)
        assert time.monotonic() - start < 5
        assert proxy.fired.total() == 1
        assert read(spec).height == 5000


@pytest.mark.parametrize("size", [0, 100, 60_000])
@pytest.mark.parametrize("fault", ["black_hole", "drip"])
def test_a_black_hole_is_given_up(server: MariaDB, monkeypatch: pytest.MonkeyPatch, fault: str, size: int) -> None:
    monkeypatch.setattr(mysql, "GRACE_SECONDS", 0.5)
    monkeypatch.setattr("engine.sources.mysql_session.GRACE_SECONDS", 0.5)
    server.execute(
        "CREATE TABLE t (id int PRIMARY KEY, v char(100)); INSERT INTO t SELECT seq, repeat('x', 100) FROM seq_1_to_5000"
    )
    with running(server.port) as proxy:
        arm = (
            proxy.black_hole_after if fault == "black_hole" else lambda at, times: proxy.drip_after(at, 30, times=times)
        )
        arm(size, times=9)
        start = time.monotonic()
        with pytest.raises(TransientSourceError) as caught:
            read(database(proxy.url(server.url), table="t", timeout_seconds=1))
        assert time.monotonic() - start < 5
        assert proxy.fired[fault] >= 1
    assert caught.value.code == "source.stalled"


def test_leaving_in_the_middle_ends_what_runs_on_the_server(server: MariaDB) -> None:
    query = "SELECT seq, sleep(if(seq > 3, 30, 0)) AS s FROM seq_1_to_5"
    relation = Relation("s", database(server.url, query=query), Path())
    with mysql.Session(relation) as session:
        bulk = mysql.Bulk(relation, session.settings)
        errors: list[SourceError] = []

        def run_it() -> None:
            try:
                bulk.table(query)
            except SourceError as error:
                errors.append(error)

        thread = threading.Thread(target=run_it)
        thread.start()
        time.sleep(0.5)
        bulk.stop()
        thread.join(5)
        assert not thread.is_alive()
    assert isinstance(errors[0], TransientSourceError)
    assert selected(
        server,
        "SELECT count(*) FROM information_schema.processlist WHERE info LIKE '%sleep(if%' AND info NOT LIKE '%processlist%'",
    ) == ["0"]
