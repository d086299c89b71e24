"""Rows written for people to mend come back exactly, or are refused by row and column."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from engine.errors import UsageError
from engine.landing.mending import check_ids, export, mended
from engine.landing.quarantine import REASONS

AT = datetime(2025, 10, 4, 6, 30, 0, 123456)
FLAT = pl.DataFrame(
    {
        "text": ["a", "", None, 'x"y, "z"\n', " pad "],
        "code": ["007", "1.50", "true", "null", "2025-10-04"],
        "int": [1, -(2**63), None, 2**63 - 1, 0],
        "uint": pl.Series([1, 2**64 - 1, None, 0, 7], dtype=pl.UInt64),
        "small": pl.Series([1, -128, None, 127, 0], dtype=pl.Int8),
        "float": [0.1, 1e300, None, -5e-324, 3.0],
        "half": pl.Series([0.1, 2.5, None, 1e30, 3.0], dtype=pl.Float32),
        "bool": [True, False, None, True, False],
        "day": [date(2025, 10, 4), date(1, 1, 1), None, date(9999, 12, 31), date(1969, 12, 31)],
        "clock": [time(6, 30), time(0, 0, 0, 1), None, time(23, 59, 59, 999999), time(0)],
        "naive": [AT, datetime(1, 1, 1), None, datetime(9999, 12, 31), AT],
        "milli": pl.Series([AT, None, None, AT, AT], dtype=pl.Datetime("ms")),
        "nano": pl.Series([AT, None, None, AT, AT], dtype=pl.Datetime("ns")),
        "utc": pl.Series([AT.replace(tzinfo=UTC)] * 5, dtype=pl.Datetime("us", "UTC")),
        "zoned": pl.Series(
            [datetime(2025, 10, 26, 0, 30, tzinfo=UTC), datetime(2025, 10, 26, 1, 30, tzinfo=UTC), None, None, None],
            dtype=pl.Datetime("us", "Europe/Berlin"),
        ),
        "money": pl.Series([Decimal("1.20"), Decimal("-99999999999999.99"), None, Decimal(0), Decimal("0.01")], dtype=pl.Decimal(18, 2)),
        "nothing": pl.Series([None] * 5, dtype=pl.Null),
    }
)  # fmt: skip
NESTED = FLAT.with_columns(
    tags=pl.Series([["a", None], [], None, ["b"], [""]]),
    pair=pl.Series([{"x": 1, "y": "a"}, {"x": None, "y": None}, {"x": 2, "y": ""}, {"x": 0, "y": "b"}, {"x": 9, "y": "c"}]),
)  # fmt: skip


def aside(frame: pl.DataFrame, name: str = "quarantine") -> pl.DataFrame:
    reasons = [
        {
            "id": f"null-0:{i}",
            "checks": ["range.float", "custom.a, b"],
            "origin": "x.csv",
            "row": i,
            "run": "r",
            "read": "d",
        }
        for i in range(frame.height)
    ]
    return frame.with_columns(pl.Series(name, reasons, dtype=REASONS))


def back(frame: pl.DataFrame, path: Path, name: str = "quarantine") -> pl.DataFrame:
    assert export(aside(frame, name).lazy(), path) == frame.height
    return pl.read_parquet(mended(path, dict(frame.schema), path.parent))


@pytest.mark.parametrize(
    ("suffix", "frame"), [("csv", FLAT), ("ndjson", NESTED), ("jsonl", NESTED), ("parquet", NESTED)]
)
def test_every_value_comes_back_exactly(tmp_path: Path, suffix: str, frame: pl.DataFrame) -> None:
    found = back(frame, tmp_path / f"rows.{suffix}")
    assert_frame_equal(found.drop("quarantine_id"), frame, check_exact=True)
    assert found["quarantine_id"].to_list() == [f"null-0:{i}" for i in range(5)]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_numbers_that_are_none(tmp_path: Path, suffix: str) -> None:
    found = back(pl.DataFrame({"x": [math.nan, math.inf, -math.inf, None]}), tmp_path / f"rows.{suffix}")
    assert str(found["x"].to_list()) == "[nan, inf, -inf, None]"


@pytest.mark.parametrize("suffix", ["csv", "ndjson", "parquet"])
def test_a_table_that_has_columns_of_these_names(tmp_path: Path, suffix: str) -> None:
    frame = pl.DataFrame({"quarantine": [1, 2], "quarantine_id": ["a", "b"]})
    found = back(frame, tmp_path / f"rows.{suffix}", "_quarantine")
    assert found.rows() == [(1, "a", "null-0:0"), (2, "b", "null-0:1")]


@pytest.mark.parametrize(
    ("suffix", "values"),
    [
        ("csv", pl.Series("v", [[1]])),
        ("csv", pl.Series("v", [b"x"])),
        ("csv", pl.Series("v", [timedelta(1)])),
        ("ndjson", pl.Series("v", [[AT]])),
        ("ndjson", pl.Series("v", [math.nan])),
        ("ndjson", pl.Series("v", [{"a": b"x"}])),
    ],
)
def test_what_a_format_does_not_hold_is_refused(tmp_path: Path, suffix: str, values: pl.Series) -> None:
    with pytest.raises(UsageError, match="'v'") as caught:
        export(aside(values.to_frame()).lazy(), tmp_path / f"rows.{suffix}")
    assert (caught.value.code, caught.value.fix) == ("quarantine.format", "write rows.parquet")
    assert not list(tmp_path.iterdir())


def test_a_suffix_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="suffix") as caught:
        export(aside(FLAT).lazy(), tmp_path / "rows.xlsx")
    assert caught.value.allowed == ".parquet, .csv, .ndjson, .jsonl"


@pytest.mark.parametrize("suffix", ["csv", "ndjson", "parquet"])
@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("int", "1.5", "row 2: int is '1.5', which is no Int64"),
        ("small", "128", "row 2: small is '128', which is no Int8"),
        ("bool", "yes", "row 2: bool is 'yes', which is no Boolean"),
        ("day", "4.10.2025", "row 2: day is '4.10.2025', which is no Date"),
        ("naive", "2025-10-04 06:30:00+00:00", "row 2: naive is"),
        ("utc", "2025-10-04 06:30:00", "row 2: utc is"),
        ("float", "many", "row 2: float is 'many', which is no Float64"),
    ],
)
def test_a_value_that_is_none_of_its_type(tmp_path: Path, suffix: str, column: str, value: str, words: str) -> None:
    text = pl.Series(column, [None, value, None], dtype=pl.String)
    path = tmp_path / f"rows.{suffix}"
    ids = pl.Series("quarantine_id", ["a", "b", "c"])
    write: dict[str, Callable[[Any], Any]] = {
        "csv": pl.DataFrame.write_csv, "ndjson": pl.DataFrame.write_ndjson, "parquet": pl.DataFrame.write_parquet,
    }  # fmt: skip
    write[suffix](pl.DataFrame([text, ids]), path)  # type: ignore[call-arg]
    with pytest.raises(UsageError) as caught:
        mended(path, {column: FLAT.schema[column]}, tmp_path)
    assert caught.value.message.startswith(words)
    assert (caught.value.code, caught.value.where) == ("quarantine.mended_value", str(path))


def test_numbers_of_another_type_are_taken_only_if_they_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pl.DataFrame({"x": [1.0, 2.0], "quarantine_id": ["a", "b"]}).write_parquet(path)
    assert pl.read_parquet(mended(path, {"x": pl.Int64()}, tmp_path))["x"].to_list() == [1, 2]
    for value, want in ((2**53 + 1, pl.Float64()), (0.5, pl.Int64()), (300, pl.UInt8()), (-1, pl.UInt64())):
        pl.DataFrame({"x": [value], "quarantine_id": ["a"]}).write_parquet(path)
        with pytest.raises(UsageError, match="row 1: x is"):
            mended(path, {"x": want}, tmp_path)


def test_columns_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    for header, words, fix in (
        ("a,quarantine_id", "'score' is missing", "take it from"),
        ("score,scores,quarantine_id", "no column 'scores'", "did you mean 'score'?"),
        ("score,zzz,quarantine_id", "no column 'zzz'", "remove it"),
        ("score", "no column 'quarantine_id'", "--out"),
    ):
        path.write_text(f"{header}\n")
        with pytest.raises(UsageError, match=words) as caught:
            mended(path, {"score": pl.Int64()}, tmp_path)
        assert caught.value.code == "quarantine.mended"
        assert fix in (caught.value.fix or "")
    with pytest.raises(UsageError, match="there is no file"):
        mended(tmp_path / "none.csv", {}, tmp_path)


@pytest.mark.parametrize(
    ("ids", "words"), [(["a", None], "row 2"), (["a", "c"], "'c'"), (["a", "a"], "'a' is there twice")]
)
def test_each_row_is_known_and_there_once(ids: list[Any], words: str) -> None:
    check_ids(pl.Series(["b", "a"]), pl.Series(["a", "b"]), Path("x.csv"))
    with pytest.raises(UsageError, match=words):
        check_ids(pl.Series(ids), pl.Series(["a", "b"]), Path("x.csv"))
