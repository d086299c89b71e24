"""What a suite promises beyond counting: results, severities, order, samples, inputs, size."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine.checks import Report, Result, Suite, suite
from engine.checks.result import json_ready
from engine.checks.schema import matches
from engine.errors import DataError, UsageError
from engine.spec import ValidationSpec
from engine.types import Severity

AS_OF = datetime(2024, 6, 1, tzinfo=UTC)
USERS = pl.DataFrame(
    {
        "user_id": ["a", "b", "b", None],
        "age": [30, -1, 200, None],
        "status": ["active", "gone", "gone", None],
        "seen": [AS_OF - timedelta(hours=2), AS_OF - timedelta(hours=1), None, None],
    }
)


def validate(data: Any, **config: Any) -> Report:
    return Suite(ValidationSpec(**config), as_of=AS_OF).validate(data)


def one(data: Any, **config: Any) -> Result:
    """The result of the only check but the row count."""
    *results, _ = validate(data, **config).results
    [result] = results
    return result


def test_a_result_per_column_or_key_in_a_stable_order() -> None:
    config: dict[str, Any] = {
        "schema": {"user_id": "string", "age": "int"},
        "required_columns": ["user_id", "age"],
        "unique_columns": ["user_id", ["user_id", "age"]],
        "range_constraints": {"age": (0, 120)},
        "categorical_constraints": {"status": ["active"]},
        "freshness": {"timestamp_column": "seen", "max_age_hours": 2},
        "distribution": {"age": 8.0},
    }
    suite = Suite(ValidationSpec(**config), as_of=AS_OF)
    expected = [
        ("schema_validation", None),
        ("completeness_validation", "user_id"),
        ("completeness_validation", "age"),
        ("uniqueness_validation", "user_id"),
        ("uniqueness_validation", "user_id,age"),
        ("range_validation", "age"),
        ("categorical_validation", "status"),
        ("freshness_validation", "seen"),
        ("distribution_validation", "age"),
        ("row_count_validation", None),
    ]
    assert [(c.check_name, c.column) for c in suite.checks] == expected
    assert all(c.description for c in suite.checks)
    report = suite.validate(USERS)
    assert [(r.check_name, r.column) for r in report.results] == expected
    assert list(report.to_dict()) == ["timestamp", "total_checks", "passed", "failed", "errors", "warnings", "results"]
    assert list(report.to_dict()["results"][0]) == (
        ["check_name", "passed", "severity", "message", "failed_records", "details", "column", "sample"]
    )
    assert (report.total_checks, report.passed, report.failed, report.errors, report.warnings) == (10, 4, 6, 4, 2)
    assert not report.ok


def test_descriptions() -> None:
    config: dict[str, Any] = {
        "schema": {"a": "int", "b": "List(String)"},
        "required_columns": ["a"],
        "unique_columns": ["a", ["a", "b"]],
        "range_constraints": {"a": (0, None), "t": (None, "2024-01-01")},
        "categorical_constraints": {"a": [1, "x", True]},
        "freshness": {"timestamp_column": "t"},
        "distribution": {"a": 8.0, "b": {"expected_mean": 0, "tolerance": 0.5}},
    }
    assert [c.description for c in Suite(ValidationSpec(**config)).checks] == [
        "columns a: int, b: List(String)",
        "at most 5 % of a null",
        "a unique",
        "a + b unique",
        "a in [0, …]",
        "t in […, 2024-01-01]",
        "a one of 1, x, True",
        "newest t at most 24 h old",
        "mean of a within 20 % of 8",
        "mean of b within 0.5 of 0",
        "at least 1 rows",
    ]


def test_a_plan_needs_no_heavy_package() -> None:
    code = (
        "import sys; from engine.checks import Suite; from engine.spec import ValidationSpec\n"
        "suite = Suite(ValidationSpec(required_columns=['a'], schema={'a': 'int'}, range_constraints={'a': (0, 1)}))\n"
        "[c.description for c in suite.checks]\n"
        "import engine.validation\n"
        "print([m for m in ('polars', 'duckdb', 'pyarrow', 'pandas', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("config", "severity"),
    [
        ({"required_columns": ["user_id"]}, "error"),
        ({"unique_columns": ["user_id"]}, "error"),
        ({"range_constraints": {"age": (0, 120)}}, "warning"),
        ({"categorical_constraints": {"status": ["active"]}}, "error"),
        ({"freshness": {"timestamp_column": "seen", "max_age_hours": 0.5}}, "warning"),
        ({"distribution": {"age": 8.0}}, "warning"),
        ({"schema": {"age": "float"}}, "warning"),
        ({"schema": {"age": "float", "nope": "int"}}, "error"),
        ({"range_constraints": {"age": (0, 120)}, "severity": {"range": "error"}}, "error"),
        ({"range_constraints": {"age": (0, 120)}, "severity": {"range": "error", "range.age": "info"}}, "info"),
        ({"unique_columns": [["user_id", "status"]], "severity": {"uniqueness.user_id,status": "warning"}}, "warning"),
        ({"schema": {"nope": "int"}, "severity": {"schema": "warning"}}, "warning"),
        ({"schema": {"age": "float"}, "severity": {"schema": "error"}}, "error"),
        ({"schema": {"age": "float", "nope": "int"}, "severity": {"schema.nope": "info"}}, "warning"),
    ],
)
def test_severity_of_a_failure(config: dict[str, Any], severity: str) -> None:
    result = one(USERS, **config)
    assert (result.passed, result.severity) == (False, severity)


@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("completeness", {"required_columns": ["nope"]}),
        ("uniqueness", {"unique_columns": ["nope"]}),
        ("uniqueness", {"unique_columns": [["age", "nope"]]}),
        ("range", {"range_constraints": {"nope": (0, 1)}}),
        ("categorical", {"categorical_constraints": {"nope": [1]}}),
        ("freshness", {"freshness": {"timestamp_column": "nope"}}),
        ("distribution", {"distribution": {"nope": 1.0}}),
    ],
)
def test_a_missing_column_is_always_an_error(family: str, config: dict[str, Any]) -> None:
    result = one(USERS, **config, severity={family: "info"})
    assert (result.passed, result.severity, result.failed_records) == (False, "error", 0)
    assert result.message == f"the {family} check could not run: the column 'nope' is missing"
    assert result.details == {"cannot_run": True, "reason": "the column 'nope' is missing"}


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"range_constraints": {"status": (0, 1)}}, "the column 'status' is String, the bounds [0, 1] are numbers"),
        (
            {"range_constraints": {"age": ("2024-01-01", None)}},
            "the column 'age' is Int64, the bounds [2024-01-01, …] are moments",
        ),
        ({"range_constraints": {"age": (0, "2024-01-01")}}, "the range [0, 2024-01-01] mixes a number and a moment"),
        (
            {"range_constraints": {"status": (date(2024, 1, 1), None)}},
            "no text in the column 'status' is an ISO 8601 date or timestamp",
        ),
        ({"freshness": {"timestamp_column": "age"}}, "the column 'age' is Int64, which holds no points in time"),
        (
            {"freshness": {"timestamp_column": "status"}},
            "no text in the column 'status' is an ISO 8601 date or timestamp",
        ),
        ({"distribution": {"status": 1.0}}, "the column 'status' is String, which has no mean"),
    ],
)
def test_a_check_that_cannot_run_says_so(config: dict[str, Any], reason: str) -> None:
    result = one(USERS, **config)
    assert (result.passed, result.severity, result.failed_records) == (False, "error", 0)
    assert result.details == {"cannot_run": True, "reason": reason}


def test_no_row_passes_all_but_the_row_count() -> None:
    report = validate(
        USERS.clear(),
        schema={"age": "int"},
        required_columns=["user_id"],
        max_null_percentage=0.0,
        unique_columns=["user_id"],
        range_constraints={"age": (0, 1)},
        categorical_constraints={"status": ["active"]},
    )
    assert [r.failed_records for r in report.results] == [0] * 6
    *others, row_count = report.results
    assert all(r.passed for r in others)
    assert (row_count.passed, row_count.severity, row_count.details) == (False, "error", {"rows": 0, "min_rows": 1})
    assert validate(USERS.clear(), min_rows=0).ok


def test_messages() -> None:
    assert one(USERS, required_columns=["age"]).message == "age: 1 of 4 (25 %) null, allowed 5 %"
    assert one(USERS, unique_columns=["user_id"]).message == (
        "user_id: 1 of 4 (25 %) rows repeat an earlier one; 1 values stand in 2 rows"
    )
    assert one(USERS, range_constraints={"age": (0, 120)}).message == (
        "age: 2 of 4 (50 %) values outside [0, 120]; values run from -1 to 200"
    )
    assert one(USERS, categorical_constraints={"status": ["active"]}).message == (
        "status: 2 of 4 (50 %) values outside the allowed 1; most frequent: 'gone' (2)"
    )
    assert one(USERS, categorical_constraints={"age": ["1"]}).message.endswith(
        "the column is Int64, which none of the allowed values is"
    )
    assert one(USERS, freshness={"timestamp_column": "seen", "max_age_hours": 0.5}).message == (
        "seen: the newest is 2024-05-31T23:00:00Z, 1 h old, allowed 0.5 h"
    )
    assert (
        one(USERS, schema={"age": "float", "x": "int"}).message
        == "the column 'x' is missing; 'age' is Int64, expected float"
    )


def test_samples_show_position_keys_and_the_column() -> None:
    spec = ValidationSpec(range_constraints={"age": (0, 120)}, required_columns=["age"], unique_columns=["status"])
    suite = Suite(spec, key_columns=["user_id", "absent"])
    completeness, uniqueness, range_, _ = suite.validate(USERS).results
    assert completeness.sample == ({"row": 3, "user_id": None, "age": None},)
    assert uniqueness.sample == ({"row": 2, "user_id": "b", "status": "gone"},)
    assert uniqueness.details["sample"] == [{"value": "gone", "rows": 2, "first_row": 1, "last_row": 2}]
    assert range_.sample == ({"row": 1, "user_id": "b", "age": -1}, {"row": 2, "user_id": "b", "age": 200})


def test_samples_are_bounded() -> None:
    frame = pl.DataFrame({"a": [0] * 1000})
    spec = ValidationSpec(range_constraints={"a": (1, 2)}, unique_columns=["a"])
    uniqueness, range_, _ = Suite(spec, sample_size=3).validate(frame).results
    assert [row["row"] for row in range_.sample] == [0, 1, 2]
    assert len(uniqueness.sample) == 1
    assert [len(r.sample) for r in Suite(spec, sample_size=0).validate(frame).results] == [0, 0, 0]


def test_a_column_called_row() -> None:
    frame = pl.DataFrame({"row": [1, -1], "_row": [1, 1]})
    assert one(frame, range_constraints={"row": (0, None)}).sample == ({"__row": 1, "row": -1},)


@pytest.mark.parametrize(
    ("dtype", "names"),
    [
        (pl.Int8(), ["int", "Int8", "int8"]),
        (pl.UInt64(), ["int", "UInt64", "uint64"]),
        (pl.Int128(), ["int", "Int128"]),
        (pl.Float32(), ["float", "Float32"]),
        (pl.Float64(), ["float", "Float64", "double"]),
        (pl.String(), ["string", "String", "Utf8", "utf8", "large_string", "string_view"]),
        (pl.Categorical(), ["string", "Categorical", "dictionary"]),
        (pl.Enum(["a"]), ["string", "Enum", "dictionary", "Enum(categories=['a'])"]),
        (pl.Boolean(), ["bool", "Boolean", "boolean"]),
        (pl.Date(), ["date", "Date", "date32", "date32[day]"]),
        (pl.Decimal(10, 2), ["decimal", "Decimal", "decimal128", "Decimal(10, 2)", "decimal128(10, 2)"]),
        (pl.Decimal(10, 2), ["Decimal(precision=10, scale=2)"]),
        (pl.Datetime("us"), ["datetime", "Datetime", "timestamp", "timestamp[us]", "Datetime('us')"]),
        (pl.Datetime("us"), ["Datetime(time_unit='us', time_zone=None)"]),
        (pl.Datetime("us", "UTC"), ["datetime", "timestamp[us, tz=UTC]", "Datetime(time_unit='us', time_zone='UTC')"]),
        (pl.List(pl.String), ["list", "List", "List(String)", "list<item: string>", "large_list<item: large_string>"]),
        (pl.List(pl.String), ["list<element: string>", "large_list"]),
        (pl.Array(pl.Int64, 2), ["list", "Array", "fixed_size_list", "fixed_size_list<item: int64>[2]"]),
        (pl.Struct({"a": pl.Int64}), ["Struct", "struct", "struct<a: int64>"]),
        (pl.Duration("ms"), ["Duration", "duration", "duration[ms]"]),
        (pl.Time(), ["Time", "time64", "time64[ns]"]),
        (pl.Binary(), ["Binary", "binary", "large_binary"]),
        (pl.Null(), ["Null", "int", "string", "List(String)"]),
    ],
)
def test_type_names(dtype: pl.DataType, names: list[str]) -> None:
    for name in names:
        assert matches(dtype, name), name


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        (pl.Int64(), "float"),
        (pl.Float64(), "int"),
        (pl.Int64(), "Int32"),
        (pl.Float32(), "double"),
        (pl.String(), "date"),
        (pl.Date(), "datetime"),
        (pl.Datetime("us"), "timestamp[us, tz=UTC]"),
        (pl.Datetime("us", "UTC"), "Datetime(time_unit='us', time_zone=None)"),
        (pl.Datetime("ms"), "timestamp[us]"),
        (pl.List(pl.Int64), "List(String)"),
        (pl.Decimal(10, 2), "Decimal(10, 3)"),
        (pl.String(), "Binary"),
        (pl.Boolean(), "int"),
    ],
)
def test_other_type_names(dtype: pl.DataType, name: str) -> None:
    result = one(pl.DataFrame(schema={"a": dtype, "b": pl.Int8}), schema={"a": name})
    assert (result.passed, result.severity, result.failed_records) == (False, "warning", 0)
    assert result.details == {
        "missing_columns": [],
        "extra_columns": ["b"],
        "type_mismatches": [{"column": "a", "expected": name, "actual": str(dtype)}],
    }


def test_unreadable_texts_break_a_range_and_are_left_out_of_freshness() -> None:
    frame = pl.DataFrame({"t": ["2024-05-31T23:00Z", "31.5.2024", None, "2023-01-01 00:00:00+02"]})
    result = one(frame, range_constraints={"t": ("2024-01-01", None)})
    assert (result.failed_records, result.details["unreadable"]) == (2, 1)
    assert [row["row"] for row in result.sample] == [1, 3]
    assert "1 of them no date or timestamp" in result.message
    fresh = one(frame, freshness={"timestamp_column": "t"})
    assert (fresh.passed, fresh.details["age_hours"], fresh.details["unreadable"]) == (True, 1.0, 1)


def test_the_future_is_named() -> None:
    frame = pl.DataFrame({"t": [AS_OF, AS_OF + timedelta(minutes=5), AS_OF + timedelta(minutes=5, microseconds=1)]})
    result = one(frame, freshness={"timestamp_column": "t"})
    assert result.passed
    assert result.details["future_timestamps"] == 1
    assert result.message.endswith("1 are more than 5 minutes in the future")


def test_invalid_values_are_bounded_and_ordered() -> None:
    frame = pl.DataFrame({"a": [f"v{i:03d}" for i in range(500)] + ["z", "z"]})
    values = one(frame, categorical_constraints={"a": ["ok"]}).details["invalid_values"]
    assert values == [{"value": "z", "count": 2}, *({"value": f"v{i:03d}", "count": 1} for i in range(19))]


def test_positions_over_many_files(tmp_path: Path) -> None:
    """Row numbers and samples hold in a streamed scan of many files with many row groups."""
    n, size = 300_000, 37_000
    frame = pl.DataFrame({"id": range(n)}).with_columns(a=pl.col("id") % 1000, key=pl.col("id") % (n - 3))
    for i in range(0, n, size):
        frame[i : i + size].write_parquet(tmp_path / f"{i:09d}.parquet", row_group_size=5_000)
    spec = ValidationSpec(
        range_constraints={"a": (0, 998)}, unique_columns=["key"], categorical_constraints={"a": [*range(999)]}
    )
    scan = pl.scan_parquet(tmp_path / "*.parquet")
    for _ in range(3):
        uniqueness, range_, categorical, _ = Suite(spec, key_columns=["id"]).validate(scan).results
        assert [row["row"] for row in range_.sample] == [999, 1999, 2999, 3999, 4999]
        assert all(row["row"] == row["id"] for r in (uniqueness, range_, categorical) for row in r.sample)
        assert [row["row"] for row in uniqueness.sample] == [n - 3, n - 2, n - 1]
        assert (range_.failed_records, categorical.failed_records, uniqueness.failed_records) == (300, 300, 3)


@pytest.mark.parametrize("budget", [0, 2**40])
def test_grouping_spills(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "_bytes", lambda _: budget)
    n = 1_000_000
    frame = pl.select(id=pl.int_range(n).cast(pl.String) + "-" + "x" * 30)
    frame = pl.concat([frame, frame[: n // 2]])
    result = Suite(ValidationSpec(unique_columns=["id"]), memory_limit="64MiB").validate(frame).results[0]
    assert (result.failed_records, result.details["rows_involved"]) == (n // 2, n)
    assert [row["row"] for row in result.sample] == [n, n + 1, n + 2, n + 3, n + 4]


def test_equal_hashes_are_not_equal_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were all hashes equal, the count would still be exact."""
    monkeypatch.setattr(pl.Expr, "hash", lambda expr: expr.is_null().cast(pl.UInt64))
    frame = pl.DataFrame({"a": [*range(100), 5, 7, 7, None]})
    result = one(frame, unique_columns=["a"])
    assert (result.failed_records, result.details["duplicated_values"]) == (3, 2)


def test_a_thousand_columns_and_thousands_of_checks() -> None:
    names = [f"c{i}" for i in range(1000)]
    frame = pl.DataFrame({name: [i, i + 1, None] for i, name in enumerate(names)})
    spec = ValidationSpec(
        schema=dict.fromkeys(names, "int"),
        required_columns=names,
        range_constraints=dict.fromkeys(names, (0, 500)),
        categorical_constraints={name: [*range(1001)] for name in names},
        distribution=dict.fromkeys(names, 500.0),
        unique_columns=names[:100],
    )
    report = Suite(spec).validate(frame)
    assert report.total_checks == 4102
    assert sum(r.failed_records for r in report.results if r.check_name == "range_validation") == 499 * 2 + 1


def test_data_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no such thing PAR1")
    with pytest.raises(DataError, match="the data could not be read") as caught:
        validate(pl.scan_parquet(tmp_path / "a.parquet"))
    assert caught.value.code == "data.unreadable"
    failing = pl.LazyFrame({"a": ["x"]}).select(pl.col("a").cast(pl.Int64))
    with pytest.raises(DataError, match="could not be read"):
        validate(failing, required_columns=["a"])


def test_python_objects_cannot_be_compared() -> None:
    frame = pl.DataFrame({"a": [object(), None]}, schema={"a": pl.Object})
    config: dict[str, Any] = {"required_columns": ["a"], "unique_columns": ["a"], "range_constraints": {"a": (0, 1)}}
    *results, _ = validate(frame, **config, categorical_constraints={"a": [1]}).results
    reason = "the column 'a' holds Python objects, which cannot be compared"
    assert [r.details["reason"] for r in results] == [reason] * 4


def test_what_is_no_table_or_no_amount() -> None:
    with pytest.raises(UsageError, match="as a table"):
        validate([1, 2])
    with pytest.raises(UsageError, match="'lots' is not an amount of memory"):
        Suite(ValidationSpec(), memory_limit="lots").validate(USERS)


def test_json() -> None:
    values = {
        "nan": (math.nan, None),
        "infinite": ([math.inf, -math.inf], ["inf", "-inf"]),
        "plain": ([1.5, 2**70, True, None, "é"], [1.5, 2**70, True, None, "é"]),
        "bytes": (b"\xff", "ff"),
        "decimal": (Decimal("1.10"), "1.10"),
        "date": (date(2024, 1, 2), "2024-01-02"),
        "local": (datetime(2024, 1, 2, 3), "2024-01-02T03:00:00"),
        "moment": (datetime(2024, 1, 2, 3, tzinfo=UTC), "2024-01-02T03:00:00Z"),
        "span": (timedelta(seconds=90), 90.0),
        "nested": ({1: (math.nan,)}, {"1": [None]}),
    }
    assert json_ready({k: v for k, (v, _) in values.items()}) == {k: v for k, (_, v) in values.items()}
    frame = pl.DataFrame(
        {"f": [math.inf, math.nan, -math.inf], "d": [Decimal("1.10")] * 3, "l": [pl.Series([1.0, math.nan])] * 3}
    )
    report = validate(
        frame,
        required_columns=["f", "l"],
        unique_columns=["d", "l"],
        range_constraints={"f": (0, math.inf), "d": (2, None)},
        distribution={"f": 1.0},
    )
    text = json.dumps(report.to_dict(), allow_nan=False)
    assert '"inf"' in text
    assert '"1.10"' in text


def test_results_are_values() -> None:
    result = one(USERS, range_constraints={"age": (0, 120)})
    assert result == one(USERS.lazy(), range_constraints={"age": (0, 120)})
    assert result.severity is Severity.WARNING
    assert result.details["expected_range"] == [0, 120]
    assert result.details["actual_range"] == [-1, 200]
