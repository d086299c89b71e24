"""What each MariaDB type must arrive as, cell by cell; written from MariaDB's manual, not from the engine.

Geometry may arrive as the text that ST_AsText gives, or be refused. TIMESTAMP is UTC, with or without its zone.
"""

from __future__ import annotations

import datetime as dt

from tests.sources.types_postgres import EVERY_BYTE, NINES, TEXTS, Case, D, OneOf, Refusal, case, day, f4, single

SETTINGS = "SET NAMES utf8mb4; SET time_zone = '+00:00'; SET sql_mode = 'NO_BACKSLASH_ESCAPES';"


def text(value: str) -> str:
    """A SQL literal of any text."""
    return f"_utf8mb4 x'{value.encode().hex()}'"


def same(*values: str) -> tuple[tuple[str, str], ...]:
    """Values that arrive as the text that they are written as."""
    return tuple(("'" + value.replace("'", "''") + "'", value) for value in values)


def whole(type_: str, bits: int) -> tuple[Case, Case]:
    """An integer type, signed and unsigned, to its ends."""
    low, high, top = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1, 2**bits - 1
    return (
        case(type_, type_, (str(low), low), ("0", 0), (str(high), high)),
        case(f"{type_}_unsigned", f"{type_} unsigned", ("0", 0), (str(high + 1), high + 1), (str(top), top)),
    )


def at(moment: dt.datetime) -> OneOf:
    """A TIMESTAMP: in UTC, naive or not."""
    return OneOf((moment, moment.replace(tzinfo=dt.UTC)))


INTEGERS = (
    *whole("tinyint", 8), *whole("smallint", 16), *whole("mediumint", 24), *whole("int", 32), *whole("bigint", 64),
    case("tinyint_1", "tinyint(1)", ("0", 0), ("1", 1), ("127", 127), ("-128", -128)),
    case("bool", "bool", ("true", 1), ("false", 0)),
    case("int_zerofill", "int(5) zerofill", ("42", 42), ("4294967295", 2**32 - 1)),
    case("bigint_beyond_double", "bigint", ("9007199254740993", 2**53 + 1), ("-9007199254740993", -(2**53) - 1)),
    case("year", "year", ("2024", 2024), ("1901", 1901), ("2155", 2155), ("0", 0)),
    case("bit_1", "bit(1)", ("b'0'", 0), ("b'1'", 1)),
    case("bit_8", "bit(8)", ("b'00000101'", 5), ("255", 255), ("0", 0)),
    case("bit_17", "bit(17)", ("131071", 131071), ("49", 49)),
    case("bit_64", "bit(64)", ("~0", 2**64 - 1), ("9223372036854775808", 2**63), ("0", 0)),
    case("generated_virtual", "int GENERATED ALWAYS AS (id * 3 + 1) VIRTUAL", ("DEFAULT", 4), ("DEFAULT", 7), nullable=False),
    case("generated_stored", "bigint GENERATED ALWAYS AS (id * 3 + 1) STORED", ("DEFAULT", 4), ("DEFAULT", 7), nullable=False),
    case("generated_text", "varchar(20) GENERATED ALWAYS AS (concat('n', id)) VIRTUAL", ("DEFAULT", "n1"), ("DEFAULT", "n2"), nullable=False),
    case("generated_decimal", "decimal(10,2) GENERATED ALWAYS AS (id / 4) STORED", ("DEFAULT", D("0.25")), ("DEFAULT", D("0.50")), nullable=False),
    case("default_value", "int DEFAULT 7", ("DEFAULT", 7), ("1", 1)),
    case("not_null", "int NOT NULL", ("0", 0), ("-1", -1), nullable=False),
)  # fmt: skip

FLOATS = (
    case(
        "float", "float",
        ("16777217", 16777216.0), ("0.1", single(0.1)), ("1e0", 1.0), ("3.402823466e38", single(3.402823466e38)), ("1.175494351e-38", single(1.175494351e-38)),
        ("1e-45", single(1e-45)), ("123456.789", single(f4(123456.789))), ("-0.5", -0.5),
    ),
    case("float_unsigned", "float unsigned", ("0.1", single(0.1)), ("16777215", 16777215.0)),
    case("float_7_3", "float(7,3)", ("1234.567", single(1234.567)), ("0.0004", 0.0)),
    case(
        "double", "double",
        ("1.7976931348623157e308", 1.7976931348623157e308), ("-1.7976931348623157e308", -1.7976931348623157e308), ("2.2250738585072014e-308", 2.2250738585072014e-308),
        ("5e-324", 5e-324), ("0.1", 0.1), ("0.30000000000000004e0", 0.30000000000000004), ("9007199254740993e0", 9007199254740992.0), ("1e-45", 1e-45),
    ),
    case("double_unsigned", "double unsigned", ("0.1", 0.1), ("18446744073709551615", 18446744073709551616.0)),
)  # fmt: skip

DECIMALS = (
    case("decimal", "decimal", ("1", D(1)), ("-9999999999", D(-9999999999))),
    case("decimal_10_2", "decimal(10,2)", ("12345678.90", D("12345678.90")), ("-99999999.99", D("-99999999.99")), ("0.1", D("0.10")), ("0", D(0)), ("-0.01", D("-0.01"))),
    case("decimal_10_2_unsigned", "decimal(10,2) unsigned", ("99999999.99", D("99999999.99")), ("0", D(0))),
    case("decimal_10_2_zerofill", "decimal(10,2) zerofill", ("1.5", D("1.50")), ("99999999.99", D("99999999.99"))),
    case("decimal_5_0", "decimal(5,0)", ("99999", D(99999)), ("-1", D(-1))),
    case("decimal_18_0", "decimal(18,0)", ("9" * 18, D("9" * 18)), ("-" + "9" * 18, D("-" + "9" * 18)), ("0", D(0))),
    case("decimal_19_0", "decimal(19,0)", ("9" * 19, D("9" * 19)), ("-" + "9" * 19, D("-" + "9" * 19))),
    case("decimal_28_10", "decimal(28,10)", ("9" * 18 + "." + "9" * 10, D("9" * 18 + "." + "9" * 10)), ("-0.0000000001", D("-0.0000000001")), ("-" + "9" * 18 + "." + "9" * 10, D("-" + "9" * 18 + "." + "9" * 10))),
    case("decimal_28_9", "decimal(28,9)", ("9" * 19 + "." + "9" * 9, D("9" * 19 + "." + "9" * 9))),
    case("decimal_12_11", "decimal(12,11)", ("9." + "9" * 11, D("9." + "9" * 11)), ("-0.00000000001", D("-0.00000000001"))),
    case("decimal_18_1_unsigned", "decimal(18,1) unsigned", ("9" * 17 + ".9", D("9" * 17 + ".9")), ("0.1", D("0.1"))),
    case("decimal_38_0", "decimal(38,0)", (NINES, D(NINES)), ("-" + NINES, D("-" + NINES))),
    case("decimal_38_10", "decimal(38,10)", ("9999999999999999999999999999.9999999999", D("9999999999999999999999999999.9999999999")), ("-0.0000000001", D("-0.0000000001"))),
    case("decimal_38_20", "decimal(38,20)", ("0.12345678901234567890", D("0.12345678901234567890")), ("-999999999999999999.99999999999999999999", D("-999999999999999999.99999999999999999999"))),
    case("decimal_38_38", "decimal(38,38)", ("0." + NINES, D("0." + NINES))),
    case("decimal_39_0", "decimal(39,0)", ("9" * 39, "9" * 39), ("-1", "-1")),
    case("decimal_65_0", "decimal(65,0)", ("9" * 65, "9" * 65), ("0", "0")),
    case("decimal_65_30", "decimal(65,30)", ("9" * 35 + "." + "9" * 30, "9" * 35 + "." + "9" * 30), ("-1.5", "-1.5" + "0" * 29), ("0", "0." + "0" * 30)),
)  # fmt: skip

CHARACTERS = (
    case("varchar", "varchar(200)", *((text(value), value) for value in TEXTS if len(value) <= 200)),
    case("text", "text", *((text(value), value) for value in TEXTS if len(value) <= 200)),
    case("longtext", "longtext", *((text(value), value) for value in TEXTS)),
    case("tinytext", "tinytext", ("''", ""), (text("👍" * 60), "👍" * 60)),
    case("mediumtext", "mediumtext", ("''", ""), ("repeat('ab', 50000)", "ab" * 50_000)),
    case("char_4", "char(4)", ("'ab'", "ab"), ("'abcd'", "abcd"), ("''", ""), (text("é☃👍"), "é☃👍")),
    case("char_0", "char(0)", ("''", "")),
    case("varchar_spaces", "varchar(9)", ("'a  '", "a  "), ("'  '", "  "), ("''", "")),
    case("latin1", "varchar(20) CHARACTER SET latin1", (text("é€ÿ"), "é€ÿ"), ("''", "")),
    case("latin1_text", "text CHARACTER SET latin1", (text("é€ÿ"), "é€ÿ")),
    case("latin1_char", "char(5) CHARACTER SET latin1", (text("é€"), "é€")),
    case("utf8mb3", "varchar(20) CHARACTER SET utf8mb3", (text("naïve ☃"), "naïve ☃")),
    case("utf16", "varchar(20) CHARACTER SET utf16", (text("é👍"), "é👍")),
    case("ucs2", "varchar(20) CHARACTER SET ucs2", (text("é☃"), "é☃")),
    case("sjis", "varchar(20) CHARACTER SET sjis", (text("日本"), "日本")),
    case("cp1251", "varchar(20) CHARACTER SET cp1251", (text("Привет"), "Привет")),
    case("ascii", "varchar(20) CHARACTER SET ascii", ("'abc'", "abc")),
    case("utf8mb4_bin", "varchar(20) COLLATE utf8mb4_bin", (text("aA👍"), "aA👍")),
    case("utf8mb4_unicode_520", "varchar(20) COLLATE utf8mb4_unicode_520_ci", (text("ß ss"), "ß ss")),
    case("binary_4", "binary(4)", ("x'00ff'", b"\x00\xff\x00\x00"), ("''", b"\0\0\0\0"), ("'abcd'", b"abcd")),
    case("varbinary", "varbinary(300)", ("x'00ff00'", b"\x00\xff\x00"), ("''", b""), (f"x'{EVERY_BYTE.hex()}'", EVERY_BYTE)),
    case("blob", "blob", ("x'00ff00'", b"\x00\xff\x00"), ("''", b""), (f"x'{EVERY_BYTE.hex()}'", EVERY_BYTE)),
    case("tinyblob", "tinyblob", ("x'0000'", b"\0\0"), ("''", b"")),
    case("mediumblob", "mediumblob", ("x'80'", b"\x80"), ("''", b"")),
    case("longblob", "longblob", ("repeat(x'00ff', 50000)", b"\x00\xff" * 50_000), ("''", b"")),
    case("enum", "enum('x','y z','it''s','')", *same("x", "y z", "it's", "")),
    case("enum_unicode", "enum('ünï','日本')", (text("ünï"), "ünï"), (text("日本"), "日本")),
    case("enum_latin1", "enum('a','b') CHARACTER SET latin1", *same("a", "b")),
    case("enum_invalid", "enum('x','y')", ("'nope'", ""), ("'y'", "y")),
    case("set", "set('a','b','it''s')", ("''", ""), ("'a'", "a"), ("'b,a'", "a,b"), ("7", "a,b,it's")),
    case("json", "json", *same('{"a": 12345678901234567890.10, "a": 2,   "b" : [1, 2 ]}', '"x"', "null", "{}", "  {\n}  ", "1.10", '{"e": "\\u2603"}'), (text('{"☃": "👍"}'), '{"☃": "👍"}')),
    case("uuid", "uuid", *same("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "00000000-0000-0000-0000-000000000000")),
    case("inet6", "inet6", *same("::1", "2001:db8::ff00:42:8329", "::", "::ffff:10.0.0.1")),
    case("inet4", "inet4", *same("10.0.0.1", "0.0.0.0", "255.255.255.255")),  # noqa: S104
)  # fmt: skip

ZERO = r"(?i)zero|0000|date|cannot be read"
DATES = (
    case("date", "date", ("'1000-01-01'", dt.date(1000, 1, 1)), ("'9999-12-31'", dt.date(9999, 12, 31)), ("'2024-02-29'", dt.date(2024, 2, 29)), ("'1969-12-31'", dt.date(1969, 12, 31)), ("'0001-01-01'", dt.date(1, 1, 1))),
    case("date_zero", "date", ("'0000-00-00'", Refusal(ZERO))),
    case("date_zero_not_null", "date NOT NULL", ("'0000-00-00'", Refusal(ZERO)), nullable=False),
    case("date_no_month", "date", ("'2024-00-10'", Refusal(ZERO))),
    case("date_no_day", "date", ("'2024-01-00'", Refusal(ZERO))),
    case("date_year_zero", "date", ("'0000-01-01'", OneOf((day(0, 1, 1), "0000-01-01"))), refusable=True),
    case("date_no_day_no_month", "date", ("'2024-00-00'", Refusal(ZERO))),
    case("datetime_31_february", "datetime(6)", ("'2023-02-29 10:11:12.5'", Refusal(ZERO)), setup="SET sql_mode = 'ALLOW_INVALID_DATES'"),
    case("date_ends", "date", *((f"'{day}'", dt.date.fromisoformat(day)) for day in ("2023-02-28", "2024-02-29", "2023-01-31", "2023-04-30", "2023-12-31", "1900-02-28", "2000-02-29"))),
    case("datetime_ends", "datetime(6)", *((f"'{day} 23:59:59.999999'", dt.datetime.fromisoformat(f"{day} 23:59:59.999999")) for day in ("2023-02-28", "2024-02-29", "2023-01-31", "2023-04-30", "2023-12-31"))),
    case("date_31_february", "date", ("'2024-02-31'", Refusal(ZERO)), setup="SET sql_mode = 'ALLOW_INVALID_DATES'"),
    case("datetime", "datetime", ("'1000-01-01 00:00:00'", dt.datetime(1000, 1, 1)), ("'9999-12-31 23:59:59'", dt.datetime(9999, 12, 31, 23, 59, 59)), ("'0001-01-01 00:00:00'", dt.datetime(1, 1, 1))),
    case("datetime_3", "datetime(3)", ("'2026-02-03 04:05:06.789'", dt.datetime(2026, 2, 3, 4, 5, 6, 789000)),),
    case(
        "datetime_6", "datetime(6)",
        ("'2026-02-03 04:05:06.000007'", dt.datetime(2026, 2, 3, 4, 5, 6, 7)), ("'9999-12-31 23:59:59.999999'", dt.datetime(9999, 12, 31, 23, 59, 59, 999999)),
        ("'1969-12-31 23:59:59.999999'", dt.datetime(1969, 12, 31, 23, 59, 59, 999999)), ("'2024-02-29 00:00:00'", dt.datetime(2024, 2, 29)),
    ),
    case("datetime_zero", "datetime", ("'0000-00-00 00:00:00'", Refusal(ZERO))),
    case("datetime_6_zero", "datetime(6)", ("'0000-00-00 00:00:00.000000'", Refusal(ZERO))),
    case("datetime_no_day", "datetime", ("'2024-01-00 10:00:00'", Refusal(ZERO))),
    case("datetime_no_month", "datetime(6)", ("'2024-00-10 10:00:00'", Refusal(ZERO))),
    case("timestamp", "timestamp NULL DEFAULT NULL", ("'1970-01-01 00:00:01'", at(dt.datetime(1970, 1, 1, 0, 0, 1))), ("'2038-01-19 03:14:07'", at(dt.datetime(2038, 1, 19, 3, 14, 7)))),
    case("timestamp_6", "timestamp(6) NULL DEFAULT NULL", ("'2026-02-03 04:05:06.000007'", at(dt.datetime(2026, 2, 3, 4, 5, 6, 7))), ("'2038-01-19 03:14:07.999999'", at(dt.datetime(2038, 1, 19, 3, 14, 7, 999999)))),
    case("timestamp_zero", "timestamp NULL DEFAULT NULL", ("'0000-00-00 00:00:00'", Refusal(ZERO))),
    case("timestamp_zero_not_null", "timestamp(6) NOT NULL DEFAULT '0000-00-00 00:00:00'", ("DEFAULT", Refusal(ZERO)), nullable=False),
    case("time", "time", *same("00:00:00", "12:34:56", "-00:00:01", "838:59:59", "-838:59:59", "24:00:00")),
    case("time_3", "time(3)", *same("12:34:56.789", "-100:00:00.001")),
    case("time_6", "time(6)", *same("00:00:00.000000", "-838:59:59.000000", "838:59:59.999999", "-00:00:00.000001", "23:59:59.999999")),
)  # fmt: skip


def shape(type_: str, wkt: str) -> Case:
    return case(type_, type_, (f"ST_GeomFromText('{wkt}')", wkt), refusable=True)


GEOMETRY = (
    shape("geometry", "POINT(1 2)"),
    shape("point", "POINT(1.5 -2)"),
    shape("linestring", "LINESTRING(0 0,1 1)"),
    shape("polygon", "POLYGON((0 0,1 0,1 1,0 0))"),
    shape("multipoint", "MULTIPOINT(0 0,1 1)"),
    shape("multilinestring", "MULTILINESTRING((0 0,1 1),(2 2,3 3))"),
    shape("multipolygon", "MULTIPOLYGON(((0 0,1 0,1 1,0 0)))"),
    shape("geometrycollection", "GEOMETRYCOLLECTION(POINT(1 2))"),
)

CASES = (*INTEGERS, *FLOATS, *DECIMALS, *CHARACTERS, *DATES, *GEOMETRY)

# A query's columns have types that no table can have.
EXPRESSIONS = (
    ("NULL", None),
    ("'x'", "x"),
    ("1 = 1", 1),
    ("count(*)", 1),
    ("18446744073709551615", 2**64 - 1),
    ("1 / 3", D("0.3333")),
    ("CAST(1.5 AS decimal(65,30))", OneOf(("1.5" + "0" * 29, D("1.5")))),
    ("1e0 / 4", 0.25),
    ("sum(2147483647)", D(2147483647)),
    ("avg(1)", D("1.0000")),
    ("CAST('-100:00:00' AS time)", "-100:00:00"),
    ("TIMEDIFF('2026-01-01 00:00:00', '2026-01-01 00:00:01')", "-00:00:01"),
    ("CAST('2026-02-03' AS date)", dt.date(2026, 2, 3)),
    ("x'00ff'", b"\x00\xff"),
    ("b'101'", OneOf((5, b"\x05"))),
    ("JSON_OBJECT('a', 1.10)", '{"a": 1.10}'),
    ("UNIX_TIMESTAMP('2026-01-01')", 1767225600),
)

# Column names as they are, and tables as SQL writes them beside how a declaration names them.
COLUMNS = (
    "select", "user", "order", "key", "Mixed Case", 'with "quote"', "it's", "with`tick", "ünïcode", "日本", "a.b", " leading", "n" * 64, "%s", "$1", "a;b",
    "back\\slash", "tab\tname", "{x}", "--", "/*", "#x", ":name", "?", "count", "n", "k", "v",
)  # fmt: skip
TABLES = (
    ("plain", "plain"),
    ("shop.plain", "shop.plain"),
    ("`Mixed Case`", "Mixed Case"),
    ("`select`", "select"),
    ("`ünï ☃`", "ünï ☃"),
    ("`odd schema`.`Mixed`", "odd schema.Mixed"),
    ("`odd schema`.`select`", "`odd schema`.`select`"),
    ("`a.b`", "`a.b`"),
    ("`odd schema`.`a.b`", "`odd schema`.`a.b`"),
)
