"""Every type of PostgreSQL and MariaDB, cell by cell, against the tables in types_postgres.py and types_mariadb.py.

A value arrives exactly, or the read fails with a SourceError that names the column and a way out.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import SourceError, TransientSourceError
from engine.ingestion import DatabaseIngestion, IngestionConfig
from tests.servers.mariadb import DATABASE, MariaDB
from tests.servers.postgres import Postgres
from tests.servers.process import run
from tests.sources import types_mariadb, types_postgres
from tests.sources.reads import database, read
from tests.sources.types_postgres import Case, Day, Moment, OneOf

EPOCH = dt.datetime(1970, 1, 1)
MARIADB_SETTINGS = {
    "time_zone": "'+09:00'",
    "sql_mode": "DEFAULT",
    "character_set_results": "DEFAULT",
    "character_set_client": "DEFAULT",
    "collation_connection": "DEFAULT",
    "div_precision_increment": "DEFAULT",
    "sql_select_limit": "DEFAULT",
    "group_concat_max_len": "DEFAULT",
    "max_sort_length": "DEFAULT",
}
WAY_OUT = re.compile(r"(?i)::|cast\(|nullif\(|st_as|to_char\(")


@pytest.fixture
def postgres(postgres_server: Postgres) -> Postgres:
    postgres_server.execute(
        'SET client_min_messages = error; DROP SCHEMA public CASCADE; CREATE SCHEMA public; DROP SCHEMA IF EXISTS "odd schema" CASCADE'
    )
    return postgres_server


@pytest.fixture
def mariadb(mariadb_server: MariaDB) -> MariaDB:
    mariadb_server.execute(
        "DROP DATABASE IF EXISTS `odd schema`; DROP DATABASE shop; CREATE DATABASE shop CHARACTER SET utf8mb4"
    )
    return mariadb_server


def cells(column: pl.Series) -> list[Any]:
    """The values of a column, dates and moments as the integers they are kept as."""
    kind = column.dtype
    if isinstance(kind, pl.Date):
        return [None if days is None else Day(days) for days in column.to_physical().to_list()]
    if isinstance(kind, pl.Datetime):
        assert kind.time_zone in (None, "UTC")
        scale = {"ns": 1000, "us": 1, "ms": 1 / 1000}[kind.time_unit]
        utc = kind.time_zone is not None
        return [None if ticks is None else Moment(int(ticks / scale) if scale != 1 else ticks, utc) for ticks in column.to_physical().to_list()]  # fmt: skip
    return [plain(value) for value in column.to_list()]


def plain(value: Any) -> Any:
    """Dates and moments, also those in lists, as `cells` gives them."""
    if isinstance(value, dt.datetime):
        return Moment((value.replace(tzinfo=None) - EPOCH) // dt.timedelta(microseconds=1), value.tzinfo is not None)
    if isinstance(value, dt.date):
        return Day((value - EPOCH.date()).days)
    return [plain(item) for item in value] if isinstance(value, list) else value


def equal(got: Any, expected: Any) -> bool:
    """Whether a value is the expected one, type, sign of zero and all."""
    if isinstance(expected, OneOf):
        return any(equal(got, value) for value in expected.values)
    expected = plain(expected)
    if type(got) is not type(expected):
        return False
    if isinstance(expected, float):
        return math.isnan(got) if math.isnan(expected) else (got, math.copysign(1, got)) == (expected, math.copysign(1, expected))  # fmt: skip
    if isinstance(expected, list):
        return len(got) == len(expected) and all(map(equal, got, expected))
    return bool(got == expected)


def differences(column: pl.Series, expected: Sequence[Any]) -> list[str]:
    """Each cell that is not what it must be."""
    got = cells(column)
    wrong = [f"{len(got)} rows, not {len(expected)}"] if len(got) != len(expected) else []
    pairs = zip(got, expected, strict=False)
    return wrong + [
        f"{column.name} ({column.dtype}) row {i}: got {g!r:.300}, expected {e!r:.300}"
        for i, (g, e) in enumerate(pairs)
        if not equal(g, e)
    ]


def expect(wrong: list[str]) -> None:
    assert not wrong, "\n".join(["", *wrong])


def landed(url: str, folder: Path, **keys: Any) -> pl.DataFrame:
    """A source's rows as the Parquet file of an ingestion has them."""
    target = folder / "rows.parquet"
    config = IngestionConfig("database", {"connection_string": url, **keys}, target, max_retries=0)
    DatabaseIngestion(config).run()
    return pl.read_parquet(target)


def ways(url: str, quote: str, folder: Path) -> dict[str, Callable[[], pl.DataFrame]]:
    """All ways to read the table ``t``."""
    query = f"SELECT id, {quote}v_col{quote} FROM t"
    return {
        "table": lambda: read(database(url, table="t")),
        "query": lambda: read(database(url, query=query)),
        "parquet": lambda: landed(url, folder, table="t"),
    }


def cases_by_way(cases: Iterable[Case]) -> list[Any]:
    """Each case as a table and a query; as an ingested file where no table of all types has it."""
    together = set(map(id, widened(cases)))
    return [
        pytest.param(case, way, id=f"{case.name}-{way}")
        for case in cases
        for way in ("table", "query", "parquet")
        if way != "parquet" or id(case) not in together
    ]


def widened(cases: Iterable[Case]) -> list[Case]:
    """The cases that fit one table beside each other."""
    return [case for case in cases if case.nullable and case.refused is None and not (case.refusable or case.alone)]


def check(case: Case, reader: Callable[[], pl.DataFrame]) -> None:
    """Read one case; it must give its values, or refuse them as it should."""
    frame, error = attempt(reader)
    if error is not None:
        if case.refused is None and not case.refusable:
            raise error
        says = case.refused.says if case.refused else types_postgres.MAY_SAY
        assert (isinstance(error, TransientSourceError), "v_col" in error.message) == (False, True), error
        assert re.search(says, error.message), error
        assert WAY_OUT.search(error.fix or ""), error
        assert "v_col" in (error.fix or ""), error
    else:
        assert case.refused is None, f"read as {frame['v_col'].dtype} {cells(frame['v_col'])!r}"
        expected = [value for _, value in case.cells] + [None] * case.nullable
        expect(differences(frame.sort("id")["v_col"], expected))


def attempt(reader: Callable[[], pl.DataFrame]) -> tuple[pl.DataFrame, SourceError | None]:
    """What was read, or the engine's error."""
    try:
        return reader(), None
    except SourceError as error:
        return pl.DataFrame(), error


def inserts(table: str, rows: Iterable[Sequence[str]]) -> str:
    return "".join(f"INSERT INTO {table} VALUES ({', '.join(row)});\n" for row in rows)


def created(case: Case, table: str) -> str:
    """SQL that makes a case's table, with its rows and one more of NULL."""
    values = [sql for sql, _ in case.cells] + ["NULL"] * case.nullable
    rows = inserts(table, [(str(i), value) for i, value in enumerate(values, 1)]) if "GENERATED" not in case.type else (
        "".join(f"INSERT INTO {table} (id, v_col) VALUES ({i}, {value});\n" for i, value in enumerate(values, 1))
    )  # fmt: skip
    return (
        f"{case.setup};\n" * bool(case.setup) + f"CREATE TABLE {table} (id int PRIMARY KEY, v_col {case.type});\n{rows}"
    )


@pytest.mark.parametrize(("case", "way"), cases_by_way(types_postgres.CASES))
def test_postgres_cells(postgres: Postgres, tmp_path: Path, case: Case, way: str) -> None:
    postgres.execute(f"SET client_min_messages = error; SET TimeZone = 'UTC'; {created(case, 't')}")
    check(case, ways(postgres.url, '"', tmp_path)[way])


@pytest.mark.parametrize(("case", "way"), cases_by_way(types_mariadb.CASES))
def test_mariadb_cells(mariadb: MariaDB, tmp_path: Path, case: Case, way: str) -> None:
    mariadb.execute(types_mariadb.SETTINGS + created(case, "t"))
    check(case, ways(mariadb.url, "`", tmp_path)[way])


@pytest.mark.parametrize(
    "case", [c for c in types_mariadb.CASES if c.refused or c.refusable], ids=lambda case: case.name
)
def test_a_refusal_of_mariadb_prints_no_panic(mariadb: MariaDB, case: Case, capfd: pytest.CaptureFixture[str]) -> None:
    mariadb.execute(types_mariadb.SETTINGS + created(case, "t"))
    for way in ("table", "query"):
        attempt(ways(mariadb.url, "`", Path())[way])
    assert capfd.readouterr().err == ""


def texts(case: Case) -> list[Any]:
    """The texts a case may arrive as, per cell; None where it arrives as no text."""
    choices = [value.values if isinstance(value, OneOf) else (value,) for _, value in case.cells]
    return [tuple(v for v in values if isinstance(v, str)) or None for values in choices]


def test_the_postgres_table_says_what_postgres_prints(postgres: Postgres) -> None:
    printed = [case for case in types_postgres.CASES if case.printed and any(texts(case))]
    assert len(printed) > 80
    script = ["SET client_min_messages = error; SET TimeZone = 'UTC';"]
    script += [created(case, f"t_{case.name}") for case in printed]
    aggregated = (
        "encode(convert_to(json_agg(v_col::text ORDER BY id)::text, 'UTF8'), 'hex')"  # psql drops odd characters
    )
    script += [f"SELECT {aggregated} FROM t_{case.name};" for case in printed]
    psql = (postgres.psql, "-q", "-At", "-v", "ON_ERROR_STOP=1", postgres.url)
    rows = [json.loads(bytes.fromhex(line)) for line in run(*psql, text="\n".join(script)).split()]
    for case, values in zip(printed, rows, strict=True):
        for got, allowed in zip(values, texts(case), strict=False):
            assert allowed is None or got in allowed, case.name


def test_the_mariadb_table_says_what_mariadb_prints(mariadb: MariaDB) -> None:
    printed = [case for case in types_mariadb.CASES if any(texts(case)) and "enum" not in case.name]
    assert len(printed) > 30
    script = [types_mariadb.SETTINGS, *(created(case, f"t_{case.name}") for case in printed)]
    for case in printed:
        cast = "ST_AsText(v_col)" if case in types_mariadb.GEOMETRY else "CAST(v_col AS CHAR CHARACTER SET utf8mb4)"
        script.append(f"SELECT concat('x', hex({cast})) FROM t_{case.name} WHERE id <= {len(case.cells)} ORDER BY id;")
    client = (mariadb.client, "--no-defaults", f"--socket={mariadb.socket}", "-u", "root", "-N", "-B", DATABASE)
    lines = iter(run(*client, text="\n".join(script)).splitlines())
    for case in printed:
        for allowed in texts(case):
            got = bytes.fromhex(next(lines)[1:]).decode()
            assert allowed is None or got in allowed, case.name
    assert list(lines) == []


def column(case: Case) -> str:
    """Its column of a wide table: many are named as their type, which SQL reserves."""
    return f"c_{case.name}"


def wide(cases: list[Case], table: str, *, rows: bool) -> str:
    """SQL that makes one table of all cases; each row has a cell of each, or NULL."""
    longest = max(len(case.cells) for case in cases)
    values = [
        [str(i), *(case.cells[i][0] if i < len(case.cells) else "NULL" for case in cases)] for i in range(longest + 1)
    ]
    columns = ", ".join(f"{column(case)} {case.type}" for case in cases)
    return f"CREATE TABLE {table} (id int PRIMARY KEY, {columns});\n" + inserts(table, values if rows else [])


def expect_wide(cases: list[Case], frame: pl.DataFrame) -> None:
    longest = max(len(case.cells) for case in cases)
    frame = frame.sort("id")
    wrong: list[str] = []
    for case in cases:
        expected = [value for _, value in case.cells]
        wrong += differences(frame[column(case)], expected + [None] * (longest + 1 - len(expected)))
    expect(wrong)


def expect_same_kinds(frame: pl.DataFrame, full: pl.DataFrame, cases: list[Case]) -> None:
    """Without values a column has the type it has with values, but for decimals whose digits only values tell."""
    assert frame.columns == full.columns
    by_values = {column(case) for case in cases if "numeric" in case.name and "," not in case.type}
    by_values |= {column(case) for case in cases if "nan" in case.name}
    kinds = {name: (kind, full.schema[name]) for name, kind in frame.schema.items() if name not in by_values}
    assert {name: pair for name, pair in kinds.items() if pair[0] != pair[1]} == {}


def test_a_wide_postgres_table_with_and_without_rows(postgres: Postgres, tmp_path: Path) -> None:
    cases = widened(types_postgres.CASES)
    assert len(cases) > 110
    script = [
        "SET client_min_messages = error; SET TimeZone = 'UTC';",
        *(f"{case.setup};" for case in cases if case.setup),
    ]
    script += [wide(cases, "wide", rows=True), wide(cases, "empty", rows=False), wide(cases, "nothing", rows=False)]
    postgres.execute("\n".join([*script, "INSERT INTO nothing SELECT i FROM generate_series(1, 3) i;"]))
    full = read(database(postgres.url, table="wide"))
    expect_wide(cases, full)
    expect_wide(cases, landed(postgres.url, tmp_path, table="wide"))
    expect_bare(cases, full, *(read(database(postgres.url, table=table)) for table in ("empty", "nothing")))


def test_a_wide_mariadb_table_with_and_without_rows(mariadb: MariaDB, tmp_path: Path) -> None:
    cases = widened(types_mariadb.CASES)
    assert len(cases) > 70
    script = [types_mariadb.SETTINGS]
    script += [wide(cases, "wide", rows=True), wide(cases, "empty", rows=False), wide(cases, "nothing", rows=False)]
    nothing = ", ".join(["id", *(column(case) for case in cases if case.name == "default_value")])
    mariadb.execute("\n".join([*script, f"INSERT INTO nothing ({nothing}) SELECT seq, NULL FROM seq_1_to_3;"]))
    full = read(database(mariadb.url, table="wide"))
    expect_wide(cases, full)
    expect_wide(cases, landed(mariadb.url, tmp_path, table="wide"))
    expect_bare(cases, full, *(read(database(mariadb.url, table=table)) for table in ("empty", "nothing")))


def expect_bare(cases: list[Case], full: pl.DataFrame, empty: pl.DataFrame, nothing: pl.DataFrame) -> None:
    """A table without rows, and one of three rows of NULL, keep their columns and types."""
    assert empty.height == 0
    assert nothing.height == 3
    for case in cases:
        assert nothing[column(case)].to_list() == [None] * 3, case.name
    expect_same_kinds(empty, full, cases)
    expect_same_kinds(nothing, full, cases)


def keyed(case: Case) -> str:
    """SQL that makes a case's column the key of its table."""
    values = inserts("t", [(sql, str(i)) for i, (sql, _) in enumerate(case.cells)])
    return f"{case.setup};\n" * bool(case.setup) + f"CREATE TABLE t (v_col {case.type} PRIMARY KEY, n int);\n{values}"


def picked(cases: Iterable[Case], names: str) -> list[Any]:
    found = [pytest.param(case, id=case.name) for case in cases if case.name in names.split()]
    assert len(found) == len(names.split())
    return found


@pytest.mark.parametrize(
    "case",
    picked(
        types_postgres.CASES,
        "int2 int4 int8 bool float4 float8 numeric_38_0 numeric_mixed_scales numeric_specials varchar_10 char_4 bytea_key date "
        "timestamp timestamptz uuid enum inet int4_array oid domain_int interval_second_3",
    ),
)
def test_postgres_keys_of_any_type(postgres: Postgres, case: Case) -> None:
    postgres.execute(f"SET client_min_messages = error; SET TimeZone = 'UTC'; {keyed(case)}")
    frame = read(database(postgres.url, table="t")).sort("n")
    expect(differences(frame["v_col"], [value for _, value in case.cells]))


@pytest.mark.parametrize(
    "case",
    picked(
        types_mariadb.CASES,
        "tinyint tinyint_unsigned int bigint bigint_unsigned bit_8 bit_64 year decimal_38_0 decimal_65_0 double date "
        "datetime_6 time_6 char_4 binary_4 varbinary enum uuid inet6",
    ),
)
def test_mariadb_keys_of_any_type(mariadb: MariaDB, case: Case) -> None:
    mariadb.execute(types_mariadb.SETTINGS + keyed(case))
    frame = read(database(mariadb.url, table="t")).sort("n")
    expect(differences(frame["v_col"], [value for _, value in case.cells]))


@pytest.mark.parametrize(
    "hostile",
    [
        {"TimeZone": "America/St_Johns", "DateStyle": "German, DMY", "IntervalStyle": "sql_standard"},
        {"TimeZone": "Asia/Kolkata", "DateStyle": "SQL, DMY", "IntervalStyle": "iso_8601", "extra_float_digits": "-15"},
        {"TimeZone": "UTC+11:30", "DateStyle": "Postgres", "bytea_output": "escape", "xmlbinary": "hex"},
        {"client_encoding": "LATIN1"},
        {"standard_conforming_strings": "off", "backslash_quote": "on", "escape_string_warning": "off"},
        {"array_nulls": "off", "default_transaction_isolation": "read committed", "jit": "off"},
    ],
    ids=lambda hostile: "_".join(hostile),
)
def test_settings_of_the_role_change_no_value(postgres: Postgres, hostile: dict[str, str]) -> None:
    cases = widened(types_postgres.CASES)
    script = [
        "SET client_min_messages = error; SET TimeZone = 'UTC';",
        *(f"{case.setup};" for case in cases if case.setup),
    ]
    postgres.execute("\n".join([*script, wide(cases, "wide", rows=True)]))
    quoted = {name: value if name == "DateStyle" else f"'{value}'" for name, value in hostile.items()}
    try:
        postgres.execute("".join(f"ALTER ROLE maestro SET {name} = {value};" for name, value in quoted.items()))
        expect_wide(cases, read(database(postgres.url, table="wide")))
    finally:
        postgres.execute("ALTER ROLE maestro RESET ALL")


@pytest.mark.parametrize(
    "hostile",
    [
        {"time_zone": "'-11:30'"},
        {"sql_mode": "'ANSI,NO_BACKSLASH_ESCAPES'"},
        {"sql_mode": "'ORACLE'"},
        {"character_set_results": "latin1", "character_set_client": "latin1", "collation_connection": "latin1_bin"},
        {"div_precision_increment": "0", "group_concat_max_len": "4", "max_sort_length": "8"},
        {"sql_select_limit": "2"},
    ],
    ids=lambda hostile: "_".join(hostile),
)
def test_settings_of_the_server_change_no_value(mariadb: MariaDB, hostile: dict[str, str]) -> None:
    cases = widened(types_mariadb.CASES)
    mariadb.execute(types_mariadb.SETTINGS + wide(cases, "wide", rows=True))
    try:
        mariadb.execute("; ".join(f"SET GLOBAL {name} = {value}" for name, value in hostile.items()))
        expect_wide(cases, read(database(mariadb.url, table="wide")))
    finally:
        mariadb.execute("; ".join(f"SET GLOBAL {name} = {value}" for name, value in MARIADB_SETTINGS.items()))


@contextmanager
def encoded(postgres: Postgres, encoding: str, sql: str) -> Iterator[str]:
    """The URL of a database of another encoding, made with ``sql``."""
    url = postgres.url.replace("/shop", "/encoded")
    postgres.execute(f"CREATE DATABASE encoded ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    try:
        run(postgres.psql, "-q", "-v", "ON_ERROR_STOP=1", url, text=f"SET client_encoding = 'UTF8'; {sql}")
        yield url
    finally:
        postgres.execute("DROP DATABASE encoded WITH (FORCE)")


@pytest.mark.parametrize(
    ("encoding", "word"),
    [
        ("LATIN1", "naïve"),
        ("LATIN1", "Ã©"),  # its bytes are UTF-8 of something else
        ("WIN1252", "100 € – ï"),
        ("EUC_JP", "日本"),
        ("KOI8R", "Привет"),
    ],
)
def test_a_database_of_another_encoding(postgres: Postgres, encoding: str, word: str) -> None:
    made = f"CREATE TABLE t (v text, l text[], j jsonb); INSERT INTO t VALUES ('{word}', '{{{word}}}', '[\"{word}\"]')"
    with encoded(postgres, encoding, made) as url:
        assert read(database(url, table="t")).rows() == [(word, [word], f'["{word}"]')]


def test_names_in_a_database_of_another_encoding(postgres: Postgres) -> None:
    with encoded(postgres, "LATIN1", 'CREATE TABLE "tüt" ("naïve" uuid)') as url:
        assert read(database(url, table="tüt")).columns == ["naïve"]
        assert read(database(url, query="SELECT 'é' AS \"ü\"")).rows(named=True) == [{"ü": "é"}]


def test_a_database_without_encoding(postgres: Postgres) -> None:
    made = "CREATE TABLE t (v_col text); INSERT INTO t VALUES ('naïve ☃')"
    with encoded(postgres, "SQL_ASCII", made) as url:
        assert read(database(url, table="t"))["v_col"].to_list() == ["naïve ☃"]
        run(postgres.psql, "-q", url, text="INSERT INTO t VALUES (E'na\\xefve')")
        _, error = attempt(lambda: read(database(url, table="t")))
        assert error is not None
        assert re.search(r"(?i)utf-?8|encod", error.message)


@pytest.mark.parametrize(("expression", "expected"), types_postgres.EXPRESSIONS)
def test_expressions_of_a_postgres_query(postgres: Postgres, expression: str, expected: Any) -> None:
    frame = read(database(postgres.url, query=f"SELECT {expression} AS v"))
    expect(differences(frame["v"], [expected]))


@pytest.mark.parametrize(("expression", "expected"), types_mariadb.EXPRESSIONS)
def test_expressions_of_a_mariadb_query(mariadb: MariaDB, expression: str, expected: Any) -> None:
    frame = read(database(mariadb.url, query=f"SELECT {expression} AS v"))
    expect(differences(frame["v"], [expected]))


# A type that arrives as it is, and some that a reader has to convert by the column's name.
POSTGRES_NAMED = (
    ("int4", "7", 7),
    ("uuid", f"'{types_postgres.U1}'", types_postgres.U1),
    ("numeric", "1.5", Decimal("1.5")),
    ("timestamptz", "'2026-01-01 00:00+00'", dt.datetime(2026, 1, 1, tzinfo=dt.UTC)),
)
MARIADB_NAMED = (
    ("int", "7", 7),
    ("decimal(10,2)", "1.5", Decimal("1.5")),
    ("time", "'01:02:03'", "01:02:03"),
    ("bit(9)", "5", 5),
    ("json", "'{}'", "{}"),
)


def quoted(name: str, mark: str) -> str:
    return mark + name.replace(mark, mark * 2) + mark


@pytest.mark.parametrize("way", ["table", "query"])
@pytest.mark.parametrize(("kind", "sql", "expected"), POSTGRES_NAMED, ids=[kind for kind, *_ in POSTGRES_NAMED])
def test_postgres_columns_of_any_name(postgres: Postgres, kind: str, sql: str, expected: Any, way: str) -> None:
    names = types_postgres.COLUMNS
    declared = ", ".join(f"{quoted(name, chr(34))} {kind}" for name in names)
    postgres.execute(f"SET TimeZone = 'UTC'; CREATE TABLE t ({declared});\n{inserts('t', [[sql] * len(names)])}")
    frame = read(database(postgres.url, **{"table": {"table": "t"}, "query": {"query": "SELECT * FROM t"}}[way]))
    assert tuple(frame.columns) == names
    expect([difference for name in names for difference in differences(frame[name], [expected])])


@pytest.mark.parametrize("way", ["table", "query"])
@pytest.mark.parametrize(("kind", "sql", "expected"), MARIADB_NAMED, ids=[kind for kind, *_ in MARIADB_NAMED])
def test_mariadb_columns_of_any_name(mariadb: MariaDB, kind: str, sql: str, expected: Any, way: str) -> None:
    names = types_mariadb.COLUMNS
    declared = ", ".join(f"{quoted(name, '`')} {kind}" for name in names)
    mariadb.execute(f"{types_mariadb.SETTINGS} CREATE TABLE t ({declared});\n{inserts('t', [[sql] * len(names)])}")
    frame = read(database(mariadb.url, **{"table": {"table": "t"}, "query": {"query": "SELECT * FROM t"}}[way]))
    assert tuple(frame.columns) == names
    expect([difference for name in names for difference in differences(frame[name], [expected])])


@pytest.mark.parametrize("key", ["id int", "id int PRIMARY KEY"])
@pytest.mark.parametrize(("sql", "name"), types_postgres.TABLES)
def test_postgres_tables_of_any_name(postgres: Postgres, sql: str, name: str, key: str) -> None:
    others = {"public.plain", "plain"}
    made = [table for table, _ in types_postgres.TABLES if table not in others]
    postgres.execute(
        'CREATE SCHEMA "odd schema"; CREATE TABLE plain (id int); CREATE SCHEMA a; CREATE TABLE a.b (id int);'
        + "".join(f"CREATE TABLE {table} (id int);" for table in made)
        + "".join(f"DROP TABLE {table}; CREATE TABLE {table} ({key}, v uuid);" for table in [sql])
        + f"INSERT INTO {sql} VALUES (1, '{types_postgres.U1}')"
    )
    try:
        assert read(database(postgres.url, table=name)).rows() == [(1, types_postgres.U1)]
    finally:
        postgres.execute('SET client_min_messages = error; DROP SCHEMA a, "odd schema" CASCADE')


@pytest.mark.parametrize("key", ["id int", "id int PRIMARY KEY"])
@pytest.mark.parametrize(("sql", "name"), types_mariadb.TABLES)
def test_mariadb_tables_of_any_name(mariadb: MariaDB, sql: str, name: str, key: str) -> None:
    made = [table for table, _ in types_mariadb.TABLES if table != "shop.plain"]
    mariadb.execute(
        "SET NAMES utf8mb4; CREATE DATABASE `odd schema`; DROP DATABASE IF EXISTS a; CREATE DATABASE a; CREATE TABLE a.b (id int);"
        + "".join(f"CREATE TABLE {table} (id int);" for table in made)
        + f"DROP TABLE {sql}; CREATE TABLE {sql} ({key}, v decimal(5,1)); INSERT INTO {sql} VALUES (1, 2.5)"
    )
    try:
        assert read(database(mariadb.url, table=name)).rows() == [(1, Decimal("2.5"))]
    finally:
        mariadb.execute("DROP DATABASE a; DROP DATABASE `odd schema`")


def optional(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


INSTANTS = st.datetimes(dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59, 999999))
WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


def fixed(whole: int, fraction: int) -> st.SearchStrategy[Decimal]:
    """Decimals of at most so many digits before and after the point."""
    top = 10 ** (whole + fraction) - 1
    return st.integers(-top, top).map(lambda n: Decimal(n).scaleb(-fraction))


def plainly(value: Decimal) -> str:
    return format(value, "f")


# Of each column: its type, random values, and how SQL writes them.
POSTGRES_MIX: dict[str, tuple[str, st.SearchStrategy[Any], Callable[[Any], str]]] = {
    "i4": ("int4", st.integers(-(2**31), 2**31 - 1), str),
    "i8": ("int8", st.integers(-(2**63), 2**63 - 1), "'{}'".format),
    "f4": ("float4", st.floats(width=32), "'{!r}'".format),
    "f8": ("float8", st.floats(), "'{!r}'".format),
    "b": ("bool", st.booleans(), str),
    "n": ("numeric(24,6)", fixed(18, 6), plainly),
    "m": ("numeric", st.integers(0, 12).flatmap(lambda places: fixed(20, places)), plainly),
    "t": ("text", WORDS, types_postgres.text),
    "y": ("bytea", st.binary(max_size=20), lambda value: f"'\\x{value.hex()}'"),
    "d": ("date", st.dates(), "'{}'".format),
    "ts": ("timestamp", INSTANTS, "'{}'".format),
    "tz": ("timestamptz", INSTANTS.map(lambda value: value.replace(tzinfo=dt.UTC)), "'{}'".format),
    "u": ("uuid", st.uuids().map(str), "'{}'".format),
    "ia": ("int8[]", st.lists(optional(st.integers(-(2**63), 2**63 - 1)), max_size=4), lambda v: "'{" + ",".join("NULL" if x is None else str(x) for x in v) + "}'"),
    "ta": ("text[]", st.lists(optional(WORDS), max_size=4), lambda v: f"ARRAY[{', '.join('NULL' if x is None else types_postgres.text(x) for x in v)}]::text[]"),
    "j": ("json", st.recursive(st.none() | st.booleans() | st.integers() | WORDS, lambda x: st.lists(x, max_size=3) | st.dictionaries(WORDS, x, max_size=3), max_leaves=5).map(json.dumps), lambda v: f"{types_postgres.text(v)}::json"),
}  # fmt: skip
MARIADB_MIX: dict[str, tuple[str, st.SearchStrategy[Any], Callable[[Any], str]]] = {
    "i4": ("int", st.integers(-(2**31), 2**31 - 1), str),
    "i8": ("bigint", st.integers(-(2**63), 2**63 - 1), str),
    "u8": ("bigint unsigned", st.integers(0, 2**64 - 1), str),
    "f4": ("float", st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False).map(lambda v: v + 0.0), repr),
    "f8": ("double", st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False).map(lambda v: v + 0.0), repr),
    "bit": ("bit(33)", st.integers(0, 2**33 - 1), str),
    "n": ("decimal(24,6)", fixed(18, 6), plainly),
    "t": ("varchar(20)", WORDS, types_mariadb.text),
    "y": ("varbinary(20)", st.binary(max_size=20), lambda value: f"x'{value.hex()}'"),
    "d": ("date", st.dates(), "'{}'".format),
    "ts": ("datetime(6)", INSTANTS, "'{}'".format),
    "tm": ("time(6)", st.integers(-(839 * 3_600_000_000) + 1_000_000, 839 * 3_600_000_000 - 1).map(lambda us: f"{'-' * (us < 0)}{abs(us) // 3_600_000_000:02}:{abs(us) // 60_000_000 % 60:02}:{abs(us) // 1_000_000 % 60:02}.{abs(us) % 1_000_000:06}"), "'{}'".format),
    "e": ("enum('a','b','')", st.sampled_from(["a", "b", ""]), "'{}'".format),
    "s": ("char(5)", st.text("ab☃", max_size=5), types_mariadb.text),
}  # fmt: skip
RARELY = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def rows_of(mix: dict[str, Any]) -> st.SearchStrategy[list[tuple[Any, ...]]]:
    return st.lists(st.tuples(*(optional(values) for _, values, _ in mix.values())), max_size=8)


def mixed(mix: dict[str, Any], rows: list[tuple[Any, ...]]) -> str:
    declared = ", ".join(f"{name} {kind}" for name, (kind, *_) in mix.items())
    writers = [write for *_, write in mix.values()]
    values = [
        [str(i), *("NULL" if v is None else write(v) for v, write in zip(row, writers, strict=True))]
        for i, row in enumerate(rows)
    ]
    return f"DROP TABLE IF EXISTS t; CREATE TABLE t (id int PRIMARY KEY, {declared});\n{inserts('t', values)}"


def expect_mixed(mix: dict[str, Any], rows: list[tuple[Any, ...]], frame: pl.DataFrame) -> None:
    frame = frame.sort("id")
    wrong = [d for i, name in enumerate(mix) for d in differences(frame[name], [row[i] for row in rows])]
    expect(wrong)


@given(rows=rows_of(POSTGRES_MIX))
@RARELY
def test_random_postgres_rows(postgres: Postgres, rows: list[tuple[Any, ...]]) -> None:
    postgres.execute(f"SET client_min_messages = error; {mixed(POSTGRES_MIX, rows)}")
    expect_mixed(POSTGRES_MIX, rows, read(database(postgres.url, table="t")))


@given(rows=rows_of(MARIADB_MIX))
@RARELY
def test_random_mariadb_rows(mariadb: MariaDB, rows: list[tuple[Any, ...]]) -> None:
    mariadb.execute(types_mariadb.SETTINGS + mixed(MARIADB_MIX, rows))
    expect_mixed(MARIADB_MIX, rows, read(database(mariadb.url, table="t")))
