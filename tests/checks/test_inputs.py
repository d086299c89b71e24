"""One import and three lines: whatever holds the rows, the same is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from engine import Report, Suite
from engine.errors import DataError, UsageError

ROWS = {"user_id": ["a", "b", None, "b"], "score": [1.0, 101.0, 3.0, None]}
CONFIG: dict[str, Any] = {
    "required_columns": ["user_id"],
    "unique_columns": ["user_id"],
    "range_constraints": {"score": [0, 100]},
}


class Stream:
    """What has an Arrow stream, and can be read once."""

    def __init__(self) -> None:
        self._table: pa.Table | None = pa.table(ROWS)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        assert self._table is not None, "read twice"
        table, self._table = self._table, None
        return table.__arrow_c_stream__(requested_schema)


def folder(path: Path) -> Path:
    (path / "day=1").mkdir()
    frame = pl.DataFrame(ROWS)
    frame[:3].write_parquet(path / "a.parquet")
    frame[3:].write_parquet(path / "day=1" / "b.parquet")
    frame.write_parquet(path / ".hidden.parquet")
    return path


KINDS: dict[str, Callable[[Path], Any]] = {
    "polars": lambda _: pl.DataFrame(ROWS),
    "lazy": lambda _: pl.LazyFrame(ROWS),
    "lazy scan": lambda path: pl.scan_parquet([folder(path) / "a.parquet", path / "day=1" / "b.parquet"]),
    "arrow table": lambda _: pa.table(ROWS),
    "arrow batch": lambda _: pa.RecordBatch.from_pydict(ROWS),
    "arrow reader": lambda _: pa.table(ROWS).to_reader(max_chunksize=2),
    "arrow stream": lambda _: Stream(),
    "pandas": lambda _: pd.DataFrame(ROWS),
    "folder": folder,
    "folder's name": lambda path: str(folder(path)),
    "glob": lambda path: folder(path) / "**" / "*.parquet",
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_is_found(tmp_path: Path, kind: str) -> None:
    report = Suite(CONFIG).validate(KINDS[kind](tmp_path))
    assert isinstance(report, Report)
    assert [(r.name, r.passed, r.failed_records) for r in report.results] == [
        ("completeness.user_id", False, 1),
        ("uniqueness.user_id", False, 1),
        ("range.score", False, 1),
        ("row_count", True, 0),
    ]
    assert (report.rows, report.ok, report.errors, report.warnings) == (4, False, 2, 1)
    assert [r.sample[0]["row"] for r in report.results[:3]] == [2, 3, 1]


@pytest.mark.parametrize("kind", ["polars", "lazy", "folder", "pandas"])
def test_good_and_bad_rows(tmp_path: Path, kind: str) -> None:
    good, bad = Suite(CONFIG).filter(KINDS[kind](tmp_path))
    assert good.collect()["user_id"].to_list() == ["a"]
    assert bad.collect()["failed_checks"].to_list() == [
        ["range.score"],
        ["completeness.user_id"],
        ["uniqueness.user_id"],
    ]


def test_files_that_differ_are_one_table(tmp_path: Path) -> None:
    pl.DataFrame({"a": [1], "b": ["x"]}).write_parquet(tmp_path / "1.parquet")
    pl.DataFrame({"a": [2.5], "c": [True]}).write_parquet(tmp_path / "2.parquet")
    report = Suite({"schema": {"a": "float", "b": "string", "c": "bool"}, "not_null": ["b", "c"]}).validate(tmp_path)
    assert [(r.name, r.failed_records) for r in report.results] == [
        *(("schema", 0), ("not_null.b", 1), ("not_null.c", 1), ("row_count", 0))
    ]
    pl.DataFrame({"a": [[1]]}).write_parquet(tmp_path / "3.parquet")
    with pytest.raises(DataError, match="could not be read"):
        Suite({"not_null": ["a"]}).validate(tmp_path)


def test_what_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read a builtins\.int as a table"):
        Suite(CONFIG).validate(7)
    with pytest.raises(DataError, match="there is no Parquet file"):
        Suite(CONFIG).validate(tmp_path)


def test_a_pattern_may_be_empty() -> None:
    assert Suite({"patterns": {"user_id": ""}}).validate(pl.DataFrame(ROWS)).ok
