"""Every family against the oracle, over generated tables."""

from __future__ import annotations

import json
import math
import string
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing.parametric import dataframes

from engine.checks import Report, Result, Suite
from engine.spec import ValidationSpec

from . import oracle

SOME = settings(max_examples=40, deadline=None)
AS_OF = datetime(2024, 6, 1, 12, tzinfo=UTC)

INT64 = st.one_of(st.integers(-4, 4), st.integers(-(2**63), 2**63 - 1), st.integers(2**53 - 2, 2**53 + 2))
UINT64 = st.one_of(st.integers(0, 4), st.integers(2**64 - 3, 2**64 - 1))
FLOATS = st.one_of(st.sampled_from([-0.0, 0.0, 0.1, 1.0, 2.0**53, math.inf, -math.inf, math.nan]), st.floats())
DECIMALS = st.decimals(-100, 100, places=2, allow_nan=False)
DATES = st.dates(date(1969, 12, 25), date(1970, 1, 7))
MOMENTS = st.datetimes(datetime(1969, 12, 30), datetime(1970, 1, 3))
TEXTS = st.one_of(st.sampled_from(["a", "A", "", " a", "1", "true", "é", "e\u0301", "猫", "\0"]), st.text(max_size=3))
COLUMNS = {
    "Float16": (pl.Float16(), st.floats(width=16)),
    "Null": (pl.Null(), st.none()),
    "Int64": (pl.Int64(), INT64),
    "Int8": (pl.Int8(), st.integers(-128, 127)),
    "UInt64": (pl.UInt64(), UINT64),
    "Int128": (pl.Int128(), st.one_of(INT64, st.integers(-(2**127), 2**127 - 1))),
    "Float64": (pl.Float64(), FLOATS),
    "Decimal": (pl.Decimal(20, 2), DECIMALS),
    "String": (pl.String(), TEXTS),
    "Categorical": (pl.Categorical(), TEXTS),
    "Boolean": (pl.Boolean(), st.booleans()),
    "Date": (pl.Date(), DATES),
    "Datetime": (pl.Datetime("us"), MOMENTS),
    "Datetime UTC": (pl.Datetime("ns", "UTC"), MOMENTS.map(lambda m: m.replace(tzinfo=UTC))),
    "List": (
        pl.List(pl.Float64),
        st.lists(st.one_of(st.none(), st.sampled_from([0.0, -0.0, 1.5, math.nan])), max_size=2),
    ),
    "Struct": (
        pl.Struct({"x": pl.Int64, "y": pl.Float64}),
        st.fixed_dictionaries({"x": st.integers(0, 1), "y": st.sampled_from([0.0, -0.0, math.nan])}),
    ),
}
NUMBERS = ("Int64", "Int8", "UInt64", "Int128", "Float64", "Float16", "Decimal")


def tables(*columns: str) -> st.SearchStrategy[pl.DataFrame]:
    """Tables with these columns, of null, repeated and fresh values; also with no row, and all null."""

    def frame(rows: list[tuple[Any, ...]]) -> pl.DataFrame:
        data = [[row[i] for row in rows] for i in range(len(columns))]
        return pl.DataFrame([pl.Series(c, data[i], dtype=COLUMNS[c][0], strict=True) for i, c in enumerate(columns)])

    row = st.tuples(*(st.one_of(st.none(), COLUMNS[c][1]) for c in columns))
    return st.lists(row, max_size=12).map(frame)


def check(frame: pl.DataFrame, column: str | None, **config: Any) -> Result:
    """The only result for ``column``."""
    report = Suite(ValidationSpec(**config), as_of=AS_OF).validate(frame)
    json.dumps(report.to_dict(), allow_nan=False)
    assert_counts(report)
    [result] = [r for r in report.results if r.column == column and r.check_name != "row_count_validation"]
    assert result.severity == "info" if result.passed else result.severity != "info"
    return result


def assert_counts(report: Report) -> None:
    found = report.to_dict()
    assert found["total_checks"] == found["passed"] + found["failed"] == len(found["results"])
    assert found["failed"] == found["errors"] + found["warnings"]
    assert report.ok == (found["errors"] == 0)


def assert_same(result: Result, expected: dict[str, Any]) -> None:
    assert (result.passed, result.failed_records) == (expected.pop("passed"), expected.pop("failed_records", 0))
    for name, value in expected.items():
        assert (
            result.details[name] == pytest.approx(value, rel=1e-9, nan_ok=True)
            if isinstance(value, float)
            else (result.details[name] == value)
        )


@pytest.mark.parametrize("column", COLUMNS)
@SOME
@given(data=st.data(), threshold=st.sampled_from([0.0, 0.05, 0.5, 1 / 3, 1.0]))
def test_completeness(column: str, data: st.DataObject, threshold: float) -> None:
    frame = data.draw(tables(column))
    result = check(frame, column, required_columns=[column], max_null_percentage=threshold)
    assert_same(result, oracle.completeness(frame.to_dicts(), column, threshold))


@pytest.mark.parametrize("key", [*((c,) for c in COLUMNS), ("String", "Float64"), ("List", "Date", "Boolean")])
@pytest.mark.parametrize("memory_limit", ["512MiB", "1KiB"])
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_uniqueness(key: tuple[str, ...], memory_limit: str, data: st.DataObject, monkeypatch_grouping: Any) -> None:
    frame = data.draw(tables(*key))
    with monkeypatch_grouping(memory_limit):
        result = check(frame, ",".join(key), unique_columns=[list(key)])
    assert_same(result, oracle.uniqueness(frame.to_dicts(), key))
    assert_repeats(frame.to_dicts(), key, result)


def assert_repeats(rows: oracle.Rows, key: tuple[str, ...], result: Result) -> None:
    """Each sampled row has an earlier equal one, and is shown as it is."""
    values = [tuple(oracle.identity(oracle.known(r[c])) for c in key) for r in rows]
    assert len(result.sample) == min(5, result.details["duplicated_values"])
    for row in result.sample:
        assert values[row["row"]] in values[: row["row"]]
        shown = tuple(oracle.identity(oracle.known(row[c])) for c in key)
        assert shown == values[row["row"]]


@SOME
@given(frame=dataframes(max_cols=2, min_cols=1, max_size=8, allow_null=True, excluded_dtypes=[pl.Object]))
def test_uniqueness_of_any_type(frame: pl.DataFrame) -> None:
    for column in frame.columns:
        result = check(frame, column, unique_columns=[column])
        unique = frame.select(pl.col(column).drop_nulls())
        if frame.schema[column].is_float():
            unique = unique.select(pl.col(column).drop_nans())
        assert result.failed_records == unique.height - unique.n_unique()


BOUNDS = st.one_of(
    st.none(),
    st.integers(-5, 5),
    st.sampled_from([0.1, 0.5, -0.5, 2**53 + 1, -(2**53) - 1, 2**63, -(2**63) - 1, 2**64, 10**400, -(10**400)]),
    st.sampled_from([math.inf, -math.inf, 2**127, 1e300, 99.99]),
)


@pytest.mark.parametrize("column", NUMBERS)
@settings(max_examples=100, deadline=None)
@given(data=st.data(), low=BOUNDS, high=BOUNDS)
def test_range_of_numbers(column: str, data: st.DataObject, low: Any, high: Any) -> None:
    frame = data.draw(tables(column))
    result = check(frame, column, range_constraints={column: (low, high)})
    expected = oracle.range_(frame.to_dicts(), column, low, high)
    assert [row["row"] for row in result.sample] == expected.pop("positions")
    assert_same(result, expected)


TEMPORAL_BOUNDS = st.one_of(
    st.none(), DATES, MOMENTS, DATES.map(str), MOMENTS.map(str), MOMENTS.map(lambda m: f"{m.isoformat()}+02:00")
)


@pytest.mark.parametrize("column", ["Date", "Datetime", "Datetime UTC"])
@SOME
@given(data=st.data(), low=TEMPORAL_BOUNDS, high=TEMPORAL_BOUNDS, unit=st.sampled_from(["ms", "us", "ns"]))
def test_range_of_moments(column: str, data: st.DataObject, low: Any, high: Any, unit: Any) -> None:
    frame = data.draw(tables(column))
    if column != "Date":
        frame = frame.with_columns(pl.col(column).dt.cast_time_unit(unit))
    if low is None and high is None:
        low = "1970-01-01"
    result = check(frame, column, range_constraints={column: (low, high)})
    expected = oracle.range_(frame.to_dicts(), column, low, high)
    assert [row["row"] for row in result.sample] == expected.pop("positions")
    assert_same(result, expected)


@SOME
@given(
    values=st.lists(
        st.one_of(st.none(), MOMENTS.map(str), DATES.map(lambda d: f" {d} "), MOMENTS.map(lambda m: f"{m}Z"))
    ),
    low=TEMPORAL_BOUNDS.filter(bool),
)
def test_range_of_texts(values: list[str | None], low: Any) -> None:
    frame = pl.DataFrame({"t": pl.Series(values, dtype=pl.String)})
    result = check(frame, "t", range_constraints={"t": (low, None)})
    assert result.failed_records == oracle.range_(frame.to_dicts(), "t", low, None)["failed_records"]


CATEGORIES = st.lists(
    st.one_of(
        st.sampled_from(["a", "1", "true", "", "é", 1, 1.0, 0, True, False, 0.1, 2**53 + 1, 2**64 - 1, 10**400, -0.0]),
        st.integers(-3, 3),
        st.text(max_size=2),
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize("column", [*NUMBERS, "String", "Categorical", "Boolean", "Date", "Datetime UTC"])
@SOME
@given(data=st.data(), allowed=CATEGORIES)
def test_categorical(column: str, data: st.DataObject, allowed: list[Any]) -> None:
    frame = data.draw(tables(column))
    result = check(frame, column, categorical_constraints={column: allowed})
    expected = oracle.categorical(frame.to_dicts(), column, tuple(allowed))
    if column == "Int128":  # a tie among integers this wide is broken by their text
        assert len(result.details["invalid_values"]) == len(expected.pop("invalid_values"))
    else:
        found = [(item["value"], item["count"]) for item in result.details["invalid_values"]]
        assert found == expected.pop("invalid_values")
    assert_same(result, expected)


@pytest.mark.parametrize("column", ["Date", "Datetime", "Datetime UTC"])
@SOME
@given(data=st.data(), hours=st.sampled_from([0.5, 24.0, 1000.0]), shift=st.integers(-48, 48))
def test_freshness(column: str, data: st.DataObject, hours: float, shift: int) -> None:
    frame = data.draw(tables(column))
    as_of = datetime(1970, 1, 2, tzinfo=UTC) + timedelta(hours=shift)
    spec = ValidationSpec(freshness={"timestamp_column": column, "max_age_hours": hours})
    result = Suite(spec, as_of=as_of).validate(frame).results[0]
    assert_same(result, oracle.freshness(frame.to_dicts(), column, hours, as_of))


@pytest.mark.parametrize("column", [*NUMBERS, "Boolean"])
@SOME
@given(data=st.data(), expected=st.sampled_from([0.0, 1.0, -2.5, 8]), tolerance=st.sampled_from([0.0, 0.2, 3.0]))
def test_distribution(column: str, data: st.DataObject, expected: float, tolerance: float) -> None:
    frame = data.draw(tables(column))
    values = [v for v in frame[column].to_list() if v is not None]
    if any(isinstance(v, float) and (abs(v) > 1e15) for v in values):
        return  # sums of such floats depend on their order
    config = {"expected_mean": expected, "tolerance": tolerance}
    result = check(frame, column, distribution={column: config})
    wanted = oracle.distribution(frame.to_dicts(), column, expected, tolerance)
    if wanted["deviation"] is not None and abs(wanted["deviation"] - tolerance) < 1e-9 * max(1.0, tolerance):
        wanted["passed"] = result.passed
    if wanted["actual_mean"] is not None:
        assert result.details["actual_mean"] == pytest.approx(wanted["actual_mean"], rel=1e-9, abs=1e-6)
    assert result.passed == wanted["passed"]


@SOME
@given(names=st.lists(st.text(string.printable + "é^*$", min_size=1, max_size=5), min_size=1, max_size=4, unique=True))
def test_columns_of_any_name(names: list[str]) -> None:
    frame = pl.DataFrame({name: [i, None, i] for i, name in enumerate(names)})
    config: dict[str, Any] = {
        "schema": dict.fromkeys(names, "int"),
        "required_columns": names,
        "unique_columns": names,
        "range_constraints": dict.fromkeys(names, (0, None)),
        "categorical_constraints": {name: [-1] for name in names},
        "distribution": dict.fromkeys(names, 0.0),
    }
    report = Suite(ValidationSpec(**config), key_columns=names).validate(frame)
    expected = {"schema": 0, "completeness": 1, "uniqueness": 1, "range": 0, "categorical": 2, "distribution": 0}
    for result in report.results[:-1]:
        assert result.failed_records == expected[result.check_name.removesuffix("_validation")]
        assert "cannot_run" not in result.details
