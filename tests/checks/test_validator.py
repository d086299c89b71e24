"""The library face: the seed's example, one call per family, every kind of frame, real data."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from engine.checks import Result
from engine.errors import ConfigError
from engine.validation import DataValidator

TAXI = Path(__file__).parent / "fixtures" / "taxi.csv"
ROWS = {
    "user_id": ["u1", "u2", "u2", None],
    "age": [30, 130, -5, 41],
    "status": ["active", "retired", "inactive", None],
    "score": [8.0, 7.5, float("nan"), 8.5],
}
KINDS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "polars": pl.DataFrame,
    "polars lazy": pl.LazyFrame,
    "pyarrow": pa.table,
    "pandas": pd.DataFrame,
    "pandas arrow": lambda rows: pd.DataFrame(rows).convert_dtypes(dtype_backend="pyarrow"),
}


@pytest.fixture(params=KINDS)
def data(request: pytest.FixtureRequest) -> Any:
    return KINDS[request.param](ROWS)


def test_the_seed(data: Any, capsys: pytest.CaptureFixture[str]) -> None:
    validator = DataValidator()

    validation_config = {
        "schema": {"user_id": "string", "age": "int"},
        "required_columns": ["user_id"],
        "unique_columns": ["user_id"],
        "range_constraints": {"age": (0, 120)},
        "categorical_constraints": {"status": ["active", "inactive", "pending"]},
    }

    passed, results = validator.validate_all(data, validation_config)

    if not passed:
        report = validator.generate_report()
        print(json.dumps(report, indent=2))  # noqa: T201 - the seed's own line

    assert not passed
    assert [(r.check_name, r.column, r.passed, r.severity, r.failed_records) for r in results] == [
        ("schema_validation", None, True, "info", 0),
        ("completeness_validation", "user_id", False, "error", 1),
        ("uniqueness_validation", "user_id", False, "error", 1),
        ("range_validation", "age", False, "warning", 2),
        ("categorical_validation", "status", False, "error", 1),
        ("row_count_validation", None, True, "info", 0),
    ]
    printed = json.loads(capsys.readouterr().out)
    assert printed == report
    assert [printed[name] for name in ("total_checks", "passed", "failed", "errors", "warnings")] == [6, 2, 4, 3, 1]


def test_one_result_per_family(data: Any) -> None:
    validator = DataValidator()
    schema = validator.validate_schema(data, {"user_id": "string", "age": "int"})
    assert schema.passed
    assert schema.details["extra_columns"] == ["status", "score"]

    completeness = validator.validate_completeness(data, ["user_id", "score", "age"], max_null_percentage=0.1)
    assert (completeness.passed, completeness.failed_records, completeness.column) == (False, 2, None)
    assert completeness.details["age"] == {
        "passed": True,
        "failed_records": 0,
        "nulls": 0,
        "null_fraction": 0.0,
        "threshold": 0.1,
    }
    assert validator.validate_completeness(data, ["user_id"], 0.25).passed

    uniqueness = validator.validate_uniqueness(data, ["user_id", ["user_id", "age"], "age"])
    assert (uniqueness.passed, uniqueness.failed_records) == (False, 1)
    assert list(uniqueness.details) == ["user_id", "user_id,age", "age"]

    ranges = validator.validate_ranges(data, {"age": (0, 120), "score": (None, 8)})
    assert (ranges.passed, ranges.severity, ranges.failed_records) == (False, "warning", 3)
    assert ranges.details["age"]["actual_range"] == [-5, 130]

    categorical = validator.validate_categorical(data, {"status": ["active", "inactive"]})
    assert (categorical.severity, categorical.failed_records) == ("error", 1)
    assert categorical.details["status"]["invalid_values"] == [{"value": "retired", "count": 1}]

    distribution = validator.validate_distribution(data, "score", expected_mean=8)
    assert (distribution.passed, distribution.details["actual_mean"]) == (True, 8.0)
    assert not validator.validate_distribution(data, "age", 8.0, tolerance=0.3).passed

    report = validator.generate_report()
    assert report["total_checks"] == 8
    json.dumps(report, allow_nan=False)


def test_freshness_is_measured_from_now() -> None:
    validator = DataValidator()
    frame = pl.DataFrame({"t": [datetime.now(UTC) - timedelta(hours=30), None]})
    stale = validator.validate_freshness(frame, "t")
    assert (stale.passed, stale.severity, stale.column) == (False, "warning", "t")
    assert stale.details["age_hours"] == pytest.approx(30, abs=0.1)
    assert validator.validate_freshness(frame, timestamp_column="t", max_age_hours=48).passed
    for frame in (pl.DataFrame({"t": [datetime.now(UTC)]}), pd.DataFrame({"t": [pd.Timestamp.now("UTC")]})):
        assert validator.validate_freshness(frame, "t", 1).passed


def test_a_missing_column_fails_its_family() -> None:
    result = DataValidator().validate_ranges(pl.DataFrame({"a": [1]}), {"a": (0, 1), "b": (0, 1)})
    assert (result.passed, result.severity) == (False, "error")
    assert result.message == "the range check could not run: the column 'b' is missing"
    assert result.details["b"]["cannot_run"] is True
    assert not DataValidator().validate_schema(pl.DataFrame({"a": [1]}), {"b": "int"}).passed


def test_the_report_covers_the_calls_since_validate_all() -> None:
    validator = DataValidator()
    assert validator.generate_report()["total_checks"] == 0
    frame = pl.DataFrame({"a": [1]})
    validator.validate_completeness(frame, ["a"])
    validator.validate_all(frame, {"required_columns": ["a"]})
    validator.validate_uniqueness(frame, ["a"])
    names = [result["check_name"] for result in validator.generate_report()["results"]]
    assert names == ["completeness_validation", "row_count_validation", "uniqueness_validation"]


def test_a_mistake_in_the_configuration() -> None:
    frame = pl.DataFrame({"a": [1]})
    with pytest.raises(ConfigError, match="unknown key 'unique_column'") as caught:
        DataValidator().validate_all(frame, {"unique_column": ["a"]})
    assert caught.value.fix == "did you mean 'unique_columns'?"
    with pytest.raises(ConfigError, match="unknown type"):
        DataValidator().validate_schema(frame, {"a": "strin"})


def test_nothing_to_check_passes() -> None:
    result = DataValidator().validate_ranges(pl.DataFrame({"a": [1]}), {})
    assert (result.passed, result.message) == (True, "nothing to check: no column was given")


def test_taxi_trips() -> None:
    """Counts on real data, against the csv module's reading of the same file."""
    with TAXI.open(newline="") as file:
        rows = list(csv.DictReader(file))
    frame = pl.scan_csv(TAXI)
    config: dict[str, Any] = {
        "schema": {"vendor_id": "int", "pickup_datetime": "string", "total_amount": "float", "tip": "float"},
        "required_columns": ["vendor_id", "fare_amount"],
        "unique_columns": ["pickup_datetime", ["pickup_datetime", "pickup_location_id", "dropoff_location_id"]],
        "range_constraints": {
            "total_amount": (0, 100),
            "trip_distance": (0.1, None),
            "pickup_datetime": ("2020-07-05", "2020-07-25 12:00"),
        },
        "categorical_constraints": {"payment_type": [1, 2.0], "store_and_fwd_flag": ["N"]},
        "distribution": {"fare_amount": 12.0},
        "min_rows": 600,
    }
    _, results = DataValidator().validate_all(frame, config)
    found: dict[tuple[str, str | None], Result] = {(r.check_name.partition("_")[0], r.column): r for r in results}

    def failed(family: str, column: str) -> int:
        return found[family, column].failed_records

    def repeats(*columns: str) -> int:
        keys = [tuple(r[c] for c in columns) for r in rows]
        known = [k for k in keys if all(k)]
        return len(known) - len(set(known))

    assert found["schema", None].details["missing_columns"] == ["tip"]
    assert failed("completeness", "vendor_id") == sum(not r["vendor_id"] for r in rows) > 0
    assert found["completeness", "fare_amount"].passed
    assert failed("uniqueness", "pickup_datetime") == repeats("pickup_datetime")
    key = ("pickup_datetime", "pickup_location_id", "dropoff_location_id")
    assert failed("uniqueness", ",".join(key)) == repeats(*key)
    assert failed("range", "total_amount") == sum(not 0 <= float(r["total_amount"]) <= 100 for r in rows) > 0
    assert failed("range", "trip_distance") == sum(float(r["trip_distance"]) < 0.1 for r in rows) > 0
    days = [r["pickup_datetime"] for r in rows]
    assert failed("range", "pickup_datetime") == sum(not "2020-07-05" <= d <= "2020-07-25 12:00:00" for d in days) > 0
    payments = [r["payment_type"] for r in rows if r["payment_type"]]
    assert failed("categorical", "payment_type") == sum(float(p) not in (1, 2) for p in payments) > 0
    assert failed("categorical", "store_and_fwd_flag") == sum(r["store_and_fwd_flag"] == "Y" for r in rows)
    mean = sum(float(r["fare_amount"]) for r in rows) / len(rows)
    assert found["distribution", "fare_amount"].details["actual_mean"] == pytest.approx(mean, rel=1e-9)
    assert found["row", None].details == {"rows": len(rows), "min_rows": 600}
