"""One rule for points in time, against datetime and against DuckDB."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, timezone

import duckdb
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine import duck
from engine.errors import DataError
from engine.moments import MOMENT, readable, to_moment, unreadable

MICROSECOND = timedelta(microseconds=1)


def moments(values: list[object], dtype: pl.DataType) -> list[datetime | None]:
    frame = pl.DataFrame({"t": pl.Series(values, dtype=dtype)})
    found = frame.lazy().select(to_moment(pl.col("t"), dtype)).collect()["t"]
    assert found.dtype == MOMENT
    return found.to_list()


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Timestamps in each of the forms that are read."""
    day = draw(st.dates(date(2, 1, 1), date(9998, 12, 31))).isoformat()
    if draw(st.integers(0, 9)) == 0:
        return day
    clock = draw(st.times()).strftime("%H:%M")
    if draw(st.booleans()):
        clock += f":{draw(st.integers(0, 59)):02d}"
        if draw(st.booleans()):
            clock += "." + draw(st.text("0123456789", min_size=1, max_size=11))
    hours, minutes, sign = draw(st.integers(0, 14)), draw(st.integers(0, 59)), draw(st.sampled_from("+-"))
    zone = draw(
        st.sampled_from(
            ["", "Z", f"{sign}{hours:02d}", f"{sign}{hours:02d}{minutes:02d}", f"{sign}{hours:02d}:{minutes:02d}"]
        )
    )
    return f"{day}{draw(st.sampled_from('T '))}{clock}{zone}"


def reference(text: str) -> datetime:
    value = datetime.fromisoformat(re.sub(r"(\.[0-9]{6})[0-9]+", r"\1", text))
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


@settings(max_examples=200, deadline=None)
@given(st.lists(texts(), min_size=1, max_size=50), st.sampled_from(["", " ", "\t", "\n "]))
@example(["1969-12-31T23:59:59.9999999", "2024-02-29 10:11-02:30", "2024-01-01T00:00"], " ")
def test_texts_as_datetime_reads_them(values: list[str], blank: str) -> None:
    assert moments([f"{blank}{v}{blank}" for v in values], pl.String()) == [reference(v) for v in values]


@settings(max_examples=50, deadline=None)
@given(st.lists(texts(), min_size=1, max_size=50))
def test_texts_as_duckdb_reads_them(values: list[str]) -> None:
    # DuckDB wants seconds, rounds the digits beyond microseconds, and wants a colon in an offset.
    plain = [v for v in values if re.search(r":[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}(:[0-9]{2})?)?$", v)]
    connection: duckdb.DuckDBPyConnection = duck.connect()
    sql = "SELECT epoch_us(TRY_CAST(unnest(?::VARCHAR[]) AS TIMESTAMPTZ))"
    expected = [row[0] for row in connection.execute(sql, [plain]).fetchall()]
    found = [
        None if m is None else (m - datetime(1970, 1, 1, tzinfo=UTC)) // MICROSECOND
        for m in moments([*plain], pl.String())
    ]
    assert found == expected


OTHER_TEXTS = """
x now 2024 2024-01 20240101 2024-1-1 2024-02-30 2024-13-01 0000-01-01 -2024-01-01 12024-01-01 2024-W01-1 01/02/2024
2024-01-01Z 1704067200 ٢٠٢٤-٠١-٠١ 2024-01-01T 2024-01-01T10 2024-01-01T24:00 2024-01-01T10:60 2024-01-01T10:00:60
2024-01-01T10:00:00. 2024-01-01T10:00:00,5 2024-01-01T10:00z 2024-01-01T10:00+2 2024-01-01T10:00+24:00
2024-01-01T10:00+02:60 0001-01-01T00:00+00:01 9999-12-31T23:59-00:01
""".split()  # noqa: SIM905 - thirty quoted texts would be harder to read
BLANK_TEXTS = ["", " ", "2024-01-01  10:00", "2024-01-01T10:00 Z", "2024-01-01\n2024-01-02"]


@pytest.mark.parametrize("text", [*OTHER_TEXTS, *BLANK_TEXTS])
def test_other_texts_are_unreadable(text: str) -> None:
    frame = pl.DataFrame({"t": [text, None, "2024-01-01"]})
    found = frame.select(m=to_moment(pl.col("t"), pl.String()), u=unreadable(pl.col("t"), pl.String()))
    assert found["m"].to_list() == [None, None, datetime(2024, 1, 1, tzinfo=UTC)]
    assert found["u"].to_list() == [True, False, False]


@given(st.lists(st.one_of(st.none(), st.integers(-(10**12), 10**12)), max_size=20), st.sampled_from(["ms", "us", "ns"]))
@settings(deadline=None)
def test_datetimes_of_any_unit_are_floored(values: list[int | None], unit: str) -> None:
    dtype = pl.Datetime(unit, None)  # type: ignore[arg-type]
    frame = pl.DataFrame({"t": pl.Series(values, dtype=pl.Int64).cast(dtype)})
    found = frame.select(to_moment(pl.col("t"), dtype).to_physical())["t"].to_list()
    assert found == [None if v is None else {"ms": v * 1000, "us": v, "ns": v // 1000}[unit] for v in values]


def test_zones_are_converted() -> None:
    paris = pl.Datetime("ms", "Europe/Paris")
    value = datetime(2024, 7, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    assert moments([value, None], paris) == [datetime(2024, 7, 1, 10, tzinfo=UTC), None]


@pytest.mark.parametrize("dtype", [pl.Categorical(), pl.Enum(["2024-01-01", "x"])])
def test_categories_are_texts(dtype: pl.DataType) -> None:
    assert moments(["2024-01-01", "x", None], dtype) == [datetime(2024, 1, 1, tzinfo=UTC), None, None]


def test_dates_and_nulls() -> None:
    assert moments([date(1969, 12, 31), None], pl.Date()) == [datetime(1969, 12, 31, tzinfo=UTC), None]
    assert moments([None, None], pl.Null()) == [None, None]


@pytest.mark.parametrize("dtype", [pl.Int64(), pl.Boolean(), pl.Time(), pl.Duration(), pl.List(pl.Date)])
def test_other_types_are_refused(dtype: pl.DataType) -> None:
    assert not readable(dtype)
    with pytest.raises(DataError, match="holds no points in time") as caught:
        to_moment(pl.col("t"), dtype)
    assert caught.value.code == "data.not_a_moment"
