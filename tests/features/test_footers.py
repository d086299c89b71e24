"""Footers of Parquet files against a reading of their rows."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.duck import connect
from engine.features import footers
from engine.features.definition import Settings
from engine.features.inputs import Counts, Inputs
from engine.features.sets.user import view

_T = datetime(2026, 1, 1, tzinfo=UTC)


def test_names_are_those_of_the_file_whatever_is_nested(tmp_path: Path) -> None:
    struct = pa.struct([("x", pa.int64()), ("more", pa.struct([("y", pa.list_(pa.string())), ("z", pa.int8())]))])
    fields = [("a", pa.int64()), ("A", pa.string()), ("s", struct), ("l", pa.list_(struct)), ("", pa.int64())]
    fields += [("m", pa.map_(pa.string(), struct)), ("x, y", pa.int64()), ("b.c", pa.int64())]
    pq.write_table(pa.schema(fields).empty_table(), tmp_path / "a.parquet")
    assert footers.names(connect(), tmp_path / "a.parquet") == [name for name, _ in fields]


@pytest.mark.parametrize(
    ("keys", "moments", "expected"),
    [
        (["a", "b"], [_T, _T], Counts(2, 0, 0)),
        (["a", None], [_T, _T], Counts(2, 1, 0)),
        (["a", None, "b"], [_T, None, None], Counts(3, 1, 1)),
        ([1.0, float("nan")], [_T, _T], Counts(2, 1, 0)),
        ([1, 2], [_T, _T], Counts(2, 0, 0)),
        ([], [], Counts(0, 0, 0)),
        (["a", "b"], ["2026-01-01", " "], Counts(2, 0, 1)),
    ],
)
@pytest.mark.parametrize("statistics", [True, False])
def test_counts_are_those_of_the_rows(
    tmp_path: Path, keys: list[Any], moments: list[Any], expected: Counts, *, statistics: bool
) -> None:
    columns = {"user_id": keys, "timestamp": moments, "task_type": "backend", "completion_time": 1.0}
    whole = pl.DataFrame(columns, strict=False, schema_overrides={} if keys else {"user_id": pl.String})
    if not keys:
        whole = whole.clear().with_columns(pl.col("timestamp").cast(pl.Datetime("us", "UTC")))
    activities = [tmp_path / "1.parquet", tmp_path / "2.parquet"]
    for part, file in zip((whole.head(1), whole.slice(1)), activities, strict=True):
        pq.write_table(part.to_arrow(), file, write_statistics=statistics)
    users = pa.table({"user_id": pa.array([], pa.string())})
    with Inputs(view(Settings()), {"users": users, "activities": activities}, spill=tmp_path / "spill") as inputs:
        assert inputs.counts["activities"] == expected


def test_infinite_moments_are_null(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    connect().execute(
        "COPY (SELECT 'a' AS user_id, unnest(['infinity', '2026-01-01']::TIMESTAMP[]) AS timestamp, 'x' AS task_type, "
        f"1.0::DOUBLE AS completion_time) TO '{file}' (FORMAT parquet)"
    )
    users = pa.table({"user_id": ["a"]})
    with Inputs(view(Settings()), {"users": users, "activities": [file]}, spill=tmp_path / "spill") as inputs:
        assert inputs.counts["activities"] == Counts(2, 0, 1)


def test_a_column_beside_a_nested_one_of_its_name(tmp_path: Path) -> None:
    nested = pa.array([{"b": 1}, {"b": None}])
    pq.write_table(pa.table({"a": nested, "b": pa.array([1, 2])}), tmp_path / "a.parquet")
    assert footers.no_nulls(connect(), [tmp_path / "a.parquet"], ["b"], [])
    assert not footers.no_nulls(connect(), [tmp_path / "a.parquet"], ["a"], [])
    pq.write_table(pa.table({"t": pa.array([_T]), "n": pa.array([None], pa.int64())}), tmp_path / "b.parquet")
    assert footers.no_nulls(connect(), [tmp_path / "b.parquet"], [], ["t"])
    assert not footers.no_nulls(connect(), [tmp_path / "b.parquet"], ["n"], ["t"])
    assert footers.rows(connect(), [tmp_path / "a.parquet"]) == 2
