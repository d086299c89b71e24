"""PostgreSQL sources, against a real server."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from engine.errors import SourceError, TransientSourceError
from engine.sources import Reading, Request, Shared, Source, open_source, postgres, postgres_tables, relation
from engine.sources.adbc import Session
from engine.sources.postgres_server import _driver
from engine.sources.relation import Probe, Relation
from tests.servers import proxy
from tests.servers.postgres import Postgres
from tests.sources.reads import chunks_of, collected, database, read


@pytest.fixture
def server(postgres_server: Postgres) -> Postgres:
    postgres_server.execute("SET client_min_messages = error; DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    return postgres_server


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces and chunks of a few hundred rows."""
    monkeypatch.setattr(postgres_tables, "CHUNK_ROWS", 300)
    monkeypatch.setattr(relation, "CHUNK_ROWS", 300)


@contextmanager
def opened(url: str, request: Request = Request(), shared: Shared | None = None, **keys: Any) -> Iterator[Reading]:  # noqa: B008
    with shared or Shared() as held, open_source("s", database(url, **keys), Path(), held).open(request) as reading:
        yield reading


@contextmanager
def retried(source: Source) -> Iterator[Reading]:
    """As a run does: the driver connects twice, and the server may not have seen yet that the first one is over."""
    with ExitStack() as stack:
        for tries in range(100):
            try:
                reading = stack.enter_context(source.open(Request()))
                break
            except TransientSourceError:
                if tries == 99:
                    raise
        yield reading


def session(server: Postgres) -> Session:
    return Session(_driver(), server.url)


@contextmanager
def role(server: Postgres, name: str, options: str = "") -> Iterator[str]:
    """A new user who may read what is there; its connection string."""
    server.execute(
        f"CREATE ROLE {name} LOGIN PASSWORD 'pw' {options}; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}; GRANT USAGE ON SCHEMA public TO {name}"
    )
    try:
        yield f"postgresql://{name}:pw@127.0.0.1:{server.port}/shop"
    finally:
        server.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


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
    chunks = chunks_of(open_source("s", database(server.url, table="t"), Path()))
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


TRANSFER = """
UPDATE a SET amount = amount - 1 WHERE id = {0}; UPDATE b SET amount = amount + 1 WHERE id = {1};
UPDATE a SET amount = amount - 1 WHERE id = {1}; UPDATE a SET amount = amount + 1 WHERE id = {0}
"""


def test_all_tables_of_a_run_are_of_one_moment(server: Postgres, small: None) -> None:
    """Money moves within a table and between two while they are read: no reading sees it on its way."""
    server.execute(
        "CREATE TABLE a AS SELECT i AS id, 100 AS amount FROM generate_series(1, 3000) i; CREATE TABLE b AS TABLE a; ANALYZE"
    )
    stop, moved = threading.Event(), [0]

    def move() -> None:
        with session(server) as writer:
            writer.begin()
            while not stop.is_set():
                for statement in TRANSFER.format(moved[0] % 3000 + 1, (moved[0] * 7919 + 1500) % 3000 + 1).split(";"):
                    writer.execute(statement)
                writer._connection.commit()
                moved[0] += 1

    thread = threading.Thread(target=move)
    thread.start()
    sums, apart = [], []
    try:
        for _ in range(8):
            before = moved[0]
            with Shared() as shared:
                total, promises = [], []
                for table in ("a", "b"):
                    with open_source("s", database(server.url, table=table), Path(), shared).open(Request()) as reading:
                        frame = collected(reading.chunks())
                        assert frame.height == 3000
                        total.append(frame["amount"].sum())
                        promises.append(reading.promise)
            while moved[0] == before:
                stop.wait(0.01)
            sums.append(sum(total))
            assert promises[0] == promises[1]
            apart.append(promises[0].shared)
            assert promises[0].snapshot == "one"
            assert promises[0].counted
    finally:
        stop.set()
        thread.join()
    assert sums == [600_000] * 8
    assert len(set(apart)) == 8


SHAPES = {
    "no key": ("CREATE TABLE t AS SELECT i AS k, i AS v FROM generate_series(1, 1000) i", True),
    "integer key": (
        "CREATE TABLE t (k int PRIMARY KEY, v int); INSERT INTO t SELECT -i, i FROM generate_series(1, 1000) i",
        True,
    ),
    "text key": (
        "CREATE TABLE t (k text PRIMARY KEY, v int); INSERT INTO t SELECT md5(i::text), i FROM generate_series(1, 1000) i",
        True,
    ),
    "uuid key": (
        "CREATE TABLE t (k uuid PRIMARY KEY, v int); INSERT INTO t SELECT gen_random_uuid(), i FROM generate_series(1, 1000) i",
        True,
    ),
    "two keys": (
        "CREATE TABLE t (k int, v int, PRIMARY KEY (k, v)); INSERT INTO t SELECT i % 3, i FROM generate_series(1, 1000) i",
        True,
    ),
    "null keys": (
        "CREATE TABLE t (k int UNIQUE, v int); INSERT INTO t SELECT nullif(i % 2, 0) * i, i FROM generate_series(1, 1000) i",
        True,
    ),
    "materialised": ("CREATE MATERIALIZED VIEW t AS SELECT i AS k, i AS v FROM generate_series(1, 1000) i", True),
    "unlogged": ("CREATE UNLOGGED TABLE t AS SELECT i AS k, i AS v FROM generate_series(1, 1000) i", True),
    "view": ("CREATE VIEW t AS SELECT i AS k, i AS v FROM generate_series(1, 1000) i", False),
    "partitioned": (
        "CREATE TABLE t (k int, v int) PARTITION BY RANGE (v); CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (500);"
        "CREATE TABLE t2 PARTITION OF t DEFAULT; INSERT INTO t SELECT i, i FROM generate_series(1, 1000) i",
        False,
    ),
    "inherited": (
        "CREATE TABLE t (k int, v int); CREATE TABLE t1 () INHERITS (t); INSERT INTO t SELECT i, i FROM generate_series(1, 500) i;"
        "INSERT INTO t1 SELECT i, i FROM generate_series(501, 1000) i",
        False,
    ),
    "moved about": (
        "CREATE TABLE t (k int, v int); INSERT INTO t SELECT i, 0 FROM generate_series(1, 3000) i; DELETE FROM t WHERE k BETWEEN 500 AND 2499;"
        "UPDATE t SET v = k; UPDATE t SET v = 0; DELETE FROM t; INSERT INTO t SELECT i, i FROM generate_series(1, 1000) i",
        True,
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("analyzed", [True, False])
def test_every_row_of_every_kind_of_table_is_read_once(
    server: Postgres, small: None, shape: str, analyzed: bool
) -> None:
    sql, resumable = SHAPES[shape]
    server.execute(sql + ("; ANALYZE" if analyzed else ""))
    with opened(server.url, table="t") as reading:
        chunks = [(c.number, c.part, c.last, c.mark, c.frame.collect()) for c in reading.chunks()]
        assert (reading.seal is not None) is resumable
        assert reading.promise.counted
    rows = [row for *_, frame in chunks for row in frame.rows()]
    assert sorted(v for _, v in rows) == list(range(1, 1001))
    assert all((mark is not None) is resumable for *_, mark, _ in chunks)
    numbers = {number for number, *_ in chunks}
    assert numbers == set(range(len(numbers)))
    assert sum(last for _, _, last, *_ in chunks) == len(numbers)
    if shape == "null keys":
        assert sum(k is None for k, _ in rows) == 500


def test_an_empty_table_is_one_chunk(server: Postgres) -> None:
    server.execute("CREATE TABLE t (id int8, price numeric(8,2))")
    with opened(server.url, table="t") as reading:
        (chunk,) = reading.chunks()
    assert (chunk.number, chunk.rows, chunk.last) == (0, 0, True)
    assert chunk.frame.collect_schema() == {"id": pl.Int64, "price": pl.Decimal(8, 2)}


def test_large_values_arrive_in_bounded_parts(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """All large values are in the first blocks, which a piece cannot foresee."""
    monkeypatch.setattr(relation, "CHUNK_BYTES", 2**20)
    server.execute(
        "CREATE TABLE t (id int, body text); INSERT INTO t SELECT i, repeat(md5(i::text), CASE WHEN i <= 200 THEN 4000 ELSE 1 END)"
        "FROM generate_series(1, 2000) i"
    )
    sizes: dict[int, list[tuple[int, bool]]] = {}
    ids = []
    for chunk in chunks_of(open_source("s", database(server.url, table="t"), Path())):
        frame = chunk.frame.collect()
        assert frame["body"].str.len_bytes().sum() < 6 * 2**20
        ids += frame["id"].to_list()
        sizes.setdefault(chunk.number, []).append((chunk.part, chunk.last))
    assert sorted(ids) == list(range(1, 2001))
    assert max(len(found) for found in sizes.values()) > 4
    for found in sizes.values():
        assert found == [(part, part == len(found) - 1) for part in range(len(found))]


def test_columns_filter_and_what_they_name(server: Postgres) -> None:
    server.execute(
        "CREATE TABLE t (id int PRIMARY KEY, old text, n int, secret text);"
        "INSERT INTO t SELECT i, 'v' || i, i % 10, 's' FROM generate_series(1, 1000) i; ANALYZE t"
    )
    keys = {"columns": ["new", "id"], "column_mapping": {"old": "new"}}
    frame = read(database(server.url, table="t", filter="n = 3 -- a comment", **keys)).sort("id")
    assert frame.columns == ["id", "old"]
    assert frame["id"].to_list() == list(range(3, 1000, 10))
    with opened(server.url, table="t", filter="n = 3") as reading:
        assert reading.seal is not None
    with opened(server.url, table="t", filter="id = 3") as reading:
        assert reading.seal is None, "an index finds it sooner"
        assert collected(reading.chunks())["old"].to_list() == ["v3"]
    assert read(database(server.url, query="SELECT * FROM t", filter="id < 3"))["id"].to_list() == [1, 2]
    with pytest.raises(SourceError, match=r'filter is no condition on t: .*column "nope" does not exist') as caught:
        read(database(server.url, table="t", filter="nope = 3"))
    assert caught.value.code == "source.invalid_filter"
    with pytest.raises(SourceError, match="has no column 'nam'"):
        read(database(server.url, table="t", columns=["nam"]))


@pytest.mark.parametrize(
    ("kind", "values", "since", "expected"),
    [
        ("timestamptz", "'2026-01-01 00:00+00', '2026-01-02 09:00+09', '2026-01-03', NULL", dt.datetime(2026, 1, 2, tzinfo=dt.UTC), [2, 3, 4]),
        ("timestamp", "'2026-01-01', '2026-01-02', '2026-01-03', NULL", dt.datetime(2026, 1, 2, tzinfo=dt.UTC), [2, 3, 4]),
        ("date", "'2026-01-01', '2026-01-02', '2026-01-03', NULL", dt.date(2026, 1, 2), [2, 3, 4]),
        ("date", "'2026-01-01', '2026-01-02', '2026-01-03', NULL", dt.datetime(2026, 1, 2, 5, tzinfo=dt.UTC), [2, 3, 4]),
        ("int8", "1, 2, 3, NULL", 2, [2, 3, 4]),
        ("numeric", "1.25, 1.5, 2, NULL", Decimal("1.50"), [2, 3, 4]),
        ("float8", "1.25, 1.5, 'Infinity', NULL", 1.5, [2, 3, 4]),
        ("text", "'B', 'a', 'ä', NULL", "a", [2, 3, 4]),
        ("uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'c0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', NULL", "b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", [2, 3, 4]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("indexed", [False, True])
def test_a_cursor_of_any_type(
    server: Postgres, kind: str, values: str, since: Any, expected: list[int], indexed: bool
) -> None:
    rows = ", ".join(f"({i}, {value})" for i, value in enumerate(values.split(", "), 1))
    server.execute(
        f"CREATE TABLE t (id int, at {kind}); INSERT INTO t VALUES {rows}"
        + ("; CREATE INDEX ON t (at)" if indexed else "")
    )
    for keys in ({"table": "t"}, {"query": "SELECT * FROM t"}):
        with opened(server.url, Request(since=since), cursor="at", **keys) as reading:
            assert sorted(collected(reading.chunks())["id"].to_list()) == expected
            every = collected(reading.keys(["id"]))
            assert every.columns == ["id"]
            assert sorted(every["id"].to_list()) == [1, 2, 3, 4]
            assert (reading.bound is not None) == (kind.startswith("timestamp") or kind == "date")


def test_a_transaction_that_is_open_across_a_reading_holds_the_position_back(server: Postgres) -> None:
    """Rows of a moment are committed after a reading has seen later ones: the bound lies before them."""
    server.execute(
        "CREATE TABLE t (id int, at timestamptz DEFAULT now(), wall timestamp DEFAULT (now() AT TIME ZONE 'Asia/Tokyo'))"
    )
    server.execute("ALTER DATABASE shop SET TimeZone = 'Asia/Tokyo'")
    try:
        with session(server) as early:
            early.begin()
            early.execute("INSERT INTO t VALUES (1)")
            server.execute("INSERT INTO t VALUES (2)")
            with opened(server.url, table="t", cursor="at") as reading:
                seen = collected(reading.chunks())
                bound = reading.bound
                assert reading.promise.late_commits == "none_missed"
            with opened(server.url, table="t", cursor="wall") as reading:
                wall = reading.bound
            early._connection.commit()
        late = read(database(server.url, table="t")).filter(pl.col("id") == 1)
        assert seen["id"].to_list() == [2]
        assert bound is not None
        assert wall is not None
        assert bound <= late["at"][0] < seen["at"][0]
        assert wall.replace(tzinfo=None) <= late["wall"][0]
        assert abs(wall - bound) < dt.timedelta(minutes=1), "who writes may have set UTC"
        with opened(server.url, Request(since=min(seen["at"].max(), bound)), table="t", cursor="at") as reading:
            assert 1 in collected(reading.chunks())["id"]
            assert reading.bound is not None
            assert reading.bound > bound
    finally:
        server.execute("ALTER DATABASE shop RESET TimeZone")


@pytest.mark.parametrize(
    ("zone", "hours"),
    [
        ("America/Lima", -5),
        ("'america/lima'", -5),
        ("'-7.5'", -7.5),
        ("'<-04>+4'", -4),
        ("Asia/Tokyo", 0),
    ],
)
@pytest.mark.parametrize("kind", ["timestamp", "date"])
def test_a_wall_clock_is_that_of_the_writer_furthest_west(server: Postgres, zone: str, hours: float, kind: str) -> None:
    zone = zone if zone.startswith("'") else f"'{zone}'"
    server.execute(
        f"CREATE TABLE t (at {kind}); CREATE ROLE writer LOGIN PASSWORD 'pw'; ALTER ROLE writer SET TimeZone = {zone};"
        "ALTER DATABASE shop SET TimeZone = 'Europe/Berlin'; GRANT USAGE ON SCHEMA public TO writer;"
        "GRANT INSERT ON t TO writer;"
        "INSERT INTO t VALUES ('9999-12-31')"
    )
    try:
        with opened(server.url, table="t", cursor="at") as reading:
            bound, promise = reading.bound, reading.promise
        now = dt.datetime.now(dt.UTC)
        assert bound is not None
        assert abs(bound - now - dt.timedelta(hours=hours)) < dt.timedelta(seconds=10)
        assert promise.late_commits == "none_missed"
        assert "at has no time zone" in str(promise.note)
        with Session(_driver(), f"postgresql://writer:pw@127.0.0.1:{server.port}/shop") as writer:
            writer.execute("INSERT INTO t VALUES (localtimestamp)")
        since = bound.replace(tzinfo=None)
        with opened(
            server.url, Request(since=since if kind == "timestamp" else since.date()), table="t", cursor="at"
        ) as reading:
            assert collected(reading.chunks()).height == 2
    finally:
        server.execute("ALTER DATABASE shop RESET TimeZone; DROP OWNED BY writer; DROP ROLE writer")


@pytest.mark.parametrize(
    "kind",
    ["boolean", "bytea", "int[]", "uuid[]", "interval", "jsonb", "inet", "oid", "timetz", "int4range", "money", "mood"],
)
def test_what_is_no_cursor(server: Postgres, kind: str) -> None:
    server.execute(f"CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE TABLE t (id int, at {kind})")
    shown = {"int[]": r"int4\[\]", "uuid[]": r"uuid\[\]", "boolean": "bool", "int4range": "unnamed<oid:3904>"}.get(
        kind, kind
    )
    for keys in ({"table": "t"}, {"query": "SELECT * FROM t"}):
        spec = database(server.url, cursor="at", **keys)
        for ask in (lambda s: read(s), lambda s: postgres.probe(Relation("s", s, Path()))):
            with pytest.raises(SourceError, match=f"the cursor 'at' is of type {shown}, whose values") as caught:
                ask(spec)
            assert (caught.value.code, caught.value.where) == ("source.cursor", "sources.s")
            assert caught.value.fix == "choose a column of numbers, dates or texts"


@pytest.mark.parametrize(("kind", "value"), [("numeric(4,1)", "'NaN'"), ("numeric", "1e39")])
def test_numbers_that_arrive_as_text_are_no_cursor(server: Postgres, kind: str, value: str) -> None:
    server.execute(f"CREATE TABLE t (at {kind}); INSERT INTO t VALUES (1), ({value})")
    with pytest.raises(SourceError, match="the cursor 'at' holds NaN, infinity or more than 38 digits") as caught:
        read(database(server.url, table="t", cursor="at"))
    assert caught.value.code == "source.cursor"


def test_the_new_rows_have_the_types_of_all(server: Postgres) -> None:
    server.execute(
        "CREATE TABLE t (at int, n numeric, big numeric, a int[]); INSERT INTO t VALUES"
        "(1, 0.125, 1e39, ARRAY[[1, 2], [3, 4]]), (2, 5, 6, ARRAY[7]), (3, NULL, NULL, NULL)"
    )
    with opened(server.url, Request(since=2), table="t", cursor="at") as reading:
        frame = collected(reading.chunks()).sort("at")
    assert frame.schema == {"at": pl.Int32, "n": pl.Decimal(38, 3), "big": pl.String, "a": pl.String}
    assert frame.rows() == [(2, Decimal("5.000"), "6", "{7}"), (3, None, None, None)]


def test_an_integer_cursor_finds_what_was_committed_late_by_its_transaction(server: Postgres) -> None:
    server.execute("CREATE TABLE t (id int); INSERT INTO t SELECT generate_series(1, 50)")
    with session(server) as early:
        early.begin()
        early.execute("INSERT INTO t VALUES (60)")
        server.execute("INSERT INTO t SELECT generate_series(61, 100)")
        with opened(server.url, table="t", cursor="id") as reading:
            assert collected(reading.chunks())["id"].max() == 100
            trace = reading.trace
            assert reading.promise.late_commits == "none_missed"
        early._connection.commit()
    with opened(server.url, Request(since=100, trace=trace), table="t", cursor="id") as reading:
        found = collected(reading.chunks())["id"].to_list()
        assert reading.promise.late_commits == "none_missed"
        later = reading.trace
    assert {60, 100} <= set(found)
    assert not set(found) & set(range(1, 51)), "those are not late"
    with opened(server.url, Request(since=100, trace=later), table="t", cursor="id") as reading:
        assert collected(reading.chunks())["id"].to_list() == [100]
    for trace in (None, {"oid": 1, "xmin": 3}, {**(later or {}), "xmin": 2**40}):
        with opened(server.url, Request(since=100, trace=trace), table="t", cursor="id") as reading:
            assert reading.promise.late_commits == "within_lateness"
            assert "another table" in str(reading.promise.note)
    with opened(server.url, query="SELECT * FROM t", cursor="id") as reading:
        assert reading.promise.late_commits == "within_lateness"
        assert reading.trace is None


def test_who_cannot_see_others_is_told_so(server: Postgres) -> None:
    server.execute("CREATE TABLE t (at timestamptz); INSERT INTO t VALUES (now())")
    with role(server, "limited") as url:
        with opened(url, table="t", cursor="at") as reading:
            alone = reading.promise
        with session(server), opened(url, table="t", cursor="at") as reading:
            blind = reading.promise
        server.execute("GRANT pg_read_all_stats TO limited")
        with session(server), opened(url, table="t", cursor="at") as reading:
            seeing = reading.promise
    assert (alone.late_commits, blind.late_commits, seeing.late_commits) == (
        "none_missed",
        "within_lateness",
        "none_missed",
    )
    assert "GRANT pg_read_all_stats" in str(blind.note)


@pytest.mark.parametrize(
    ("options", "sql", "why"),
    [
        ("CONNECTION LIMIT 1", "", "too many connections"),
        ("", "REVOKE EXECUTE ON FUNCTION pg_export_snapshot() FROM PUBLIC", "permission denied for function"),
    ],
)
def test_one_session_does_everything_where_it_must(
    server: Postgres, small: None, options: str, sql: str, why: str
) -> None:
    server.execute(
        "CREATE TABLE a AS SELECT i AS id, 1.5 AS x FROM generate_series(1, 1000) i; CREATE TABLE b AS TABLE a; ANALYZE;"
        + sql
    )
    try:
        with role(server, "single", options) as url, Shared() as shared:
            for table in ("a", "b"):
                with retried(open_source("s", database(url, table=table), Path(), shared)) as reading:
                    assert collected(reading.chunks()).height == 1000
                    promise = reading.promise
                    assert promise.snapshot == "one"
                    assert promise.counted
                    assert why in str(promise.note)
                    assert collected(reading.keys(["id"])).height == 1000
                server.execute("INSERT INTO b SELECT * FROM b LIMIT 0; DELETE FROM b WHERE false")
    finally:
        server.execute("GRANT EXECUTE ON FUNCTION pg_export_snapshot() TO PUBLIC")


@pytest.mark.parametrize("limit", [2, 3, 4])
def test_few_connections_are_enough(server: Postgres, small: None, limit: int) -> None:
    """One holds the snapshot, one asks; those that read share with it what there is."""
    server.execute("CREATE TABLE t AS SELECT i AS id, 1.5 AS x FROM generate_series(1, 1000) i; ANALYZE t")
    with role(server, "few", f"CONNECTION LIMIT {limit}") as url, opened(url, table="t") as reading:
        assert reading.promise.note is None
        chunks = list(reading.chunks())
        assert len(chunks) > 3
        assert sorted(collected(chunks)["id"]) == list(range(1, 1001))
        assert reading.promise.counted
        assert collected(reading.keys(["id"])).height == 1000


def test_leaving_few_connections_in_the_middle_ends_everything(server: Postgres, small: None) -> None:
    server.execute(
        "CREATE TABLE t AS SELECT i AS id, repeat('x', 500) AS x FROM generate_series(1, 20000) i; ANALYZE t"
    )
    with role(server, "few", "CONNECTION LIMIT 2") as url:
        with opened(url, table="t") as reading:
            next(reading.chunks())
        assert gone(server)


def test_a_lost_snapshot_is_replaced(server: Postgres) -> None:
    server.execute("CREATE TABLE t AS SELECT 1 AS id")
    with Shared() as shared:
        source = open_source("s", database(server.url, table="t"), Path(), shared)
        with source.open(Request()) as reading:
            first = reading.promise.shared
        server.execute(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE application_name = 'maestro'; INSERT INTO t VALUES (2)"
        )
        with source.open(Request()) as reading:
            assert collected(reading.chunks()).height == 2
            assert reading.promise.shared != first
            assert reading.promise.note is None, "nothing was read at the other moment"
        for lost in (False, True, True):
            if lost:
                server.execute(
                    "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE application_name = 'maestro'"
                )
            with source.open(Request()) as reading:
                assert collected(reading.chunks()).height == 2
                assert reading.promise.note == (
                    "read at another moment than the sources before it: their session was lost" if lost else None
                )


def test_lost_rows_are_an_error(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    server.execute("CREATE TABLE t AS SELECT i AS id FROM generate_series(1, 1000) i")
    whole = postgres.converted

    def lossy(batch: pa.RecordBatch, target: pa.Schema) -> pa.RecordBatch:
        return whole(batch, target).slice(1)

    monkeypatch.setattr(postgres, "converted", lossy)
    with pytest.raises(TransientSourceError, match="999 rows were read where the database counts 1000") as caught:
        read(database(server.url, table="t"))
    assert caught.value.code == "source.lost_rows"


def test_a_killed_back_end_is_transient_and_what_has_landed_stays(server: Postgres, small: None) -> None:
    server.execute(
        "CREATE TABLE t AS SELECT i AS id, repeat('x', 500) AS x FROM generate_series(1, 20000) i; ANALYZE t"
    )
    with Shared() as shared:
        source = open_source("s", database(server.url, table="t"), Path(), shared)
        landed: dict[int, tuple[pl.DataFrame, Any]] = {}

        def interrupted() -> None:
            with source.open(Request()) as reading:
                seals.append(reading.seal)
                for chunk in reading.chunks():
                    landed[chunk.number] = (chunk.frame.collect(), chunk.mark)
                    assert chunk.last
                    if len(landed) == 3:
                        server.execute(
                            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE application_name = 'maestro'"
                        )

        seals: list[Any] = []
        with pytest.raises(TransientSourceError):
            interrupted()
        assert 3 <= len(landed) < 60
        request = Request(seal=seals[0], landed=[postgres.Landed(n, f.height, m) for n, (f, m) in landed.items()])
        with source.open(request) as reading:
            assert reading.kept == set(landed)
            rest = {chunk.number: chunk.frame.collect() for chunk in reading.chunks()}
            assert reading.promise.counted
    assert not set(rest) & set(landed)
    ids = [i for frame in (*rest.values(), *(f for f, _ in landed.values())) for i in frame["id"]]
    assert sorted(ids) == list(range(1, 20001))


@pytest.mark.parametrize("fault", ["black_hole_after", "reset_after", "close_after"])
def test_a_connection_that_dies_is_transient(server: Postgres, fault: str) -> None:
    server.execute(
        "CREATE TABLE t AS SELECT i AS id, repeat('x', 500) AS x FROM generate_series(1, 20000) i; ANALYZE t"
    )
    with proxy.running(server.port) as between:
        getattr(between, fault)(500_000)
        with pytest.raises(TransientSourceError) as caught:
            read(database(between.url(server.url), table="t", timeout_seconds=2))
        assert sum(between.fired.values()) == 1
        assert caught.value.code == ("source.stalled" if fault == "black_hole_after" else "source.unreadable")


def back_ends(server: Postgres) -> int:
    with session(server) as asking:
        return int(asking.rows("SELECT count(*) AS n FROM pg_stat_activity WHERE application_name = 'maestro'")[0]["n"])


def gone(server: Postgres) -> bool:
    """Whether all our back ends end soon."""
    pause = threading.Event()
    return any(back_ends(server) == 0 or pause.wait(0.1) for _ in range(100))


@pytest.mark.parametrize(
    "start",
    [
        lambda reading: next(reading.chunks()),
        lambda reading: next(reading.keys(["a"])),
    ],
)
def test_ctrl_c_ends_a_read_that_waits(
    server: Postgres, monkeypatch: pytest.MonkeyPatch, start: Callable[[Reading], object]
) -> None:
    """The caller is interrupted while the server sleeps for a minute; nothing of it goes on there."""
    server.execute("CREATE VIEW v AS SELECT a, pg_sleep(60)::text AS slept FROM generate_series(1, 2) a")
    import queue

    wait = queue.Queue.get

    def interrupted(self: queue.Queue[Any], block: bool = True, timeout: float | None = None) -> Any:
        if threading.current_thread() is threading.main_thread():
            try:
                return wait(self, block, 1.0)
            except queue.Empty:
                raise KeyboardInterrupt from None
        return wait(self, block, timeout)

    monkeypatch.setattr(queue.Queue, "get", interrupted)
    with pytest.raises(KeyboardInterrupt), opened(server.url, table="v") as reading:
        start(reading)
    assert gone(server)


def test_leaving_in_the_middle_ends_everything(server: Postgres, small: None) -> None:
    server.execute(
        "CREATE TABLE t AS SELECT i AS id, repeat('x', 500) AS x FROM generate_series(1, 20000) i; ANALYZE t"
    )
    with opened(server.url, table="t") as reading:
        next(reading.chunks())
    assert gone(server)


def test_what_a_probe_tells(server: Postgres) -> None:
    server.execute(
        "CREATE TABLE t (id int, price numeric(8,2), x numeric, u uuid, at timestamptz); INSERT INTO t VALUES (1); ANALYZE t"
    )

    def probe(url: str, **keys: Any) -> Probe:
        return postgres.probe(Relation("s", database(url, **keys), Path()))

    columns = (
        ("id", "int4", "int32"),
        ("price", "numeric(8,2)", "decimal(8, 2), or string where there is NaN"),
        ("x", "numeric", "decimal of the scale its values need, else string"),
        ("u", "uuid", "string"),
        ("at", "timestamptz", "timestamp[us, tz=UTC]"),
    )
    with role(server, "reader") as url:
        found = probe(url, table="t")
        assert found.server.startswith("PostgreSQL 1")
        assert (found.rows_estimate, found.columns, found.warnings) == (1, columns, ())
        no_stats, no_index = probe(url, table="t", cursor="at").warnings
        assert "GRANT pg_read_all_stats TO reader" in no_stats
        assert "no index begins with the cursor at" in no_index
        server.execute("CREATE INDEX ON t (at); GRANT INSERT, DELETE ON t TO reader; GRANT pg_read_all_stats TO reader")
        (writes,) = probe(url, table="t", cursor="at").warnings
        assert "reader has write rights (INSERT, DELETE)" in writes
        assert "GRANT SELECT ON t" in writes
        server.execute("CREATE TABLE hidden (id int)")
        with pytest.raises(SourceError, match="permission denied for table hidden") as caught:
            probe(url, table="hidden")
        assert caught.value.code == "source.permission_denied"
        assert probe(url, query="SELECT id FROM t").columns == columns[:1]
    assert "superuser" in probe(server.url, table="t").warnings[0]
    with pytest.raises(SourceError, match="there is no table 'tt'"):
        probe(server.url, table="tt")
