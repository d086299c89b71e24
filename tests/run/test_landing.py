"""Landing: odd names, open schemas, order, and the type that holds all parts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine import Pipeline, landing, run_pipeline
from engine.errors import SourceError, TransientSourceError
from engine.sources import Chunk, Reading, Request, plain
from engine.spec import FileSpec
from tests.run.world import T, landed_files


def land(folder: Path, **source: Any) -> pl.DataFrame:
    """The landed table of one file source, in reading order."""
    declared = Pipeline(base=folder, name="p", sources={"s": {"type": "file", **source}})
    report = run_pipeline(declared, as_of=T)
    metrics = report.sources[0].metrics
    assert metrics.records_read == metrics.records_written + metrics.records_failed + metrics.duplicates_removed
    return pl.concat([pl.read_parquet(path, glob=False) for path in landed_files(folder, report.run_id, "s")])


def ndjson(folder: Path, *records: dict[str, Any]) -> None:
    (folder / "x.ndjson").write_text("".join(f"{json.dumps(r)}\n" for r in records))


@pytest.mark.parametrize("batch_size", [1, 2, 10])
def test_what_records_mean_does_not_depend_on_how_they_are_cut(tmp_path: Path, batch_size: int) -> None:
    ndjson(tmp_path, {}, {}, {"a": 1}, {"a": 2, "b": "x"}, {"b": "y"})
    rows = land(tmp_path, path="x.ndjson", batch_size=batch_size)
    assert rows.select("a", "b").rows() == [(None, None), (None, None), (1, None), (2, "x"), (None, "y")]


@pytest.mark.parametrize("batch_size", [1, 10])
def test_a_column_that_no_record_of_a_batch_has_is_null_there(tmp_path: Path, batch_size: int) -> None:
    ndjson(tmp_path, {"i": 1, "v": 1}, {"v": 2}, {"i": 3})
    rows = land(tmp_path, path="x.ndjson", batch_size=batch_size, column_mapping={"i": "id"}, critical_columns=["id"])
    assert rows.select("id", "v").rows() == [(1, 1), (3, None)]


def test_a_column_that_no_record_has_is_named(tmp_path: Path) -> None:
    ndjson(tmp_path, {"a": 1}, {"a": 2})
    with pytest.raises(SourceError) as caught:
        land(tmp_path, path="x.ndjson", batch_size=1, required_columns=["aa"])
    assert caught.value.code == "source.missing_column"
    assert "did you mean 'a'?" in str(caught.value)


@pytest.mark.parametrize("values", [(1, "a"), (True, 1), ([1], "1"), ({"a": 1}, 1)])
@pytest.mark.parametrize("batch_size", [1, 10])
def test_kinds_do_not_mix_whatever_the_cut(tmp_path: Path, values: tuple[Any, Any], batch_size: int) -> None:
    ndjson(tmp_path, {"a": values[0]}, {"a": values[1]})
    with pytest.raises(SourceError) as caught:
        land(tmp_path, path="x.ndjson", batch_size=batch_size)
    assert caught.value.code == "source.mixed_column"
    assert "'a'" in str(caught.value)


def test_no_records_are_an_empty_table(tmp_path: Path) -> None:
    (tmp_path / "x.ndjson").write_text("")
    rows = land(tmp_path, path="x.ndjson", critical_columns=["id"], deduplicate={"keys": ["id"]})
    assert (rows.columns, rows.height) == (["id"], 0)
    declared = Pipeline(
        base=tmp_path, name="p", sources={"s": {"type": "file", "path": "x.ndjson"}}, validation={"s": {}}
    )
    report = run_pipeline(declared, as_of=T)
    assert report.exit_code == 1, "min_rows is what fails"


@pytest.mark.parametrize(
    ("names", "keys"),
    [(["id", "ID"], ["ID"]), (["filename", "file_row_number"], ["filename"]), (["row", "chunk"], ["row"])],
)
def test_names_that_the_engine_might_trip_over(tmp_path: Path, names: list[str], keys: list[str]) -> None:
    frame = pl.DataFrame({names[0]: ["x", "x", "y"], names[1]: ["1", "2", "1"]})
    frame.write_parquet(tmp_path / "x.parquet")
    rows = land(tmp_path, path="x.parquet", deduplicate={"keys": keys, "order_by": names[1]})
    wanted = frame.unique(keys, keep="last", maintain_order=True)
    assert rows.rows() == wanted.rows()


def test_a_name_that_looks_like_a_pattern_is_a_name(tmp_path: Path) -> None:
    pl.DataFrame({"^a.*$": [1, None, 3], "ab": [None, 2, 3]}).write_parquet(tmp_path / "x.parquet")
    rows = land(tmp_path, path="x.parquet", critical_columns=["^a.*$"])
    assert rows["ab"].to_list() == [None, 3]


def test_a_folder_that_looks_like_a_pattern_is_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "a[1]*?"
    folder.mkdir()
    pl.DataFrame({"id": [1, 1]}).write_csv(folder / "x.csv")
    pl.DataFrame({"id": [2], "v": [0.5]}).write_parquet(folder / "x.parquet")
    assert land(folder, path="x.csv", deduplicate={"keys": ["id"]}).height == 1
    assert land(folder, path="x.parquet").height == 1


def test_blank_texts_are_the_smallest_and_offsets_count(tmp_path: Path) -> None:
    texts = ["2024-01-01T23:00:00-08:00", "2024-01-02T01:00:00+00:00", "", None]
    frame = pl.DataFrame({"id": ["u1", "u1", "u1", "u1"], "n": [1, 2, 3, 4], "at": texts})
    frame.write_parquet(tmp_path / "x.parquet")
    rows = land(tmp_path, path="x.parquet", deduplicate={"keys": ["id"], "order_by": "at"})
    assert rows["n"].to_list() == [1], "07:00 UTC is the latest"


def test_an_order_that_is_half_moments_is_refused(tmp_path: Path) -> None:
    frame = pl.DataFrame({"id": ["u1", "u1"], "at": ["2024-01-01", "yesterday"]})
    frame.write_parquet(tmp_path / "x.parquet")
    with pytest.raises(SourceError, match="yesterday") as caught:
        land(tmp_path, path="x.parquet", deduplicate={"keys": ["id"], "order_by": "at"})
    assert caught.value.code == "source.unreadable_order"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([Decimal("12345678901234567.89")], [0.5]),
        ([[2**53 + 1]], [[0.5]]),
        ([True], [2]),
        ([datetime(2024, 1, 1)], ["x"]),
    ],
)
def test_parts_that_no_type_holds_exactly_are_refused(tmp_path: Path, first: list[Any], second: list[Any]) -> None:
    pl.DataFrame({"a": first}).write_parquet(tmp_path / "1.parquet")
    pl.DataFrame({"a": second}).write_parquet(tmp_path / "2.parquet")
    with pytest.raises(SourceError) as caught:
        land(tmp_path, path="*.parquet")
    assert caught.value.code == "source.mixed_column"


def test_codes_with_leading_zeros_keep_them(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("id\n007\n010\n")
    (tmp_path / "2.csv").write_text("id\na1\n")
    assert land(tmp_path, path="*.csv")["id"].to_list() == ["007", "010", "a1"]


def test_two_pipelines_may_share_a_workdir(tmp_path: Path) -> None:
    pl.DataFrame({"id": [1]}).write_parquet(tmp_path / "x.parquet")
    reports = {}
    for name in ("one", "two"):
        declared = Pipeline(base=tmp_path, name=name, sources={"s": {"type": "file", "path": "x.parquet"}})
        reports[name] = run_pipeline(declared, as_of=T)
    for report in reports.values():
        assert all(path.exists() for path in landed_files(tmp_path, report.run_id, "s"))


class Flaky:
    """A source that breaks off after its first chunk, so many times."""

    kind = "file"
    location = "flaky"

    def __init__(self, failures: int) -> None:
        self.failures, self.opened, self.closed = failures, 0, 0

    def open(self, _request: Request) -> AbstractContextManager[Reading]:
        return plain(self.chunks)

    def chunks(self) -> Iterator[Chunk]:
        self.opened += 1
        try:
            yield Chunk(0, "first", pl.LazyFrame({"id": [1, 2]}), 2)
            if self.opened <= self.failures:
                raise TransientSourceError("the line broke", code="source.no_connection", where="sources.s")
            yield Chunk(1, "second", pl.LazyFrame({"id": [3]}), 1)
        finally:
            self.closed += 1


def test_a_transient_failure_begins_the_source_anew(tmp_path: Path) -> None:
    source, waits = Flaky(failures=2), list[float]()
    spec = FileSpec(type="file", path="x.csv", max_retries=2)
    landed = landing.land(source, spec, tmp_path / "s", name="s", memory_limit="64MiB", wait=waits.append)
    assert landed.scan().collect()["id"].to_list() == [1, 2, 3], "nothing twice"
    assert (landed.metrics.retries, landed.metrics.records_read, len(waits)) == (2, 3, 2)
    assert source.opened == source.closed == 3, "every attempt was closed"
    assert set((tmp_path / "s").iterdir()) == set(landed.paths), "failed attempts leave nothing"


def test_a_failure_that_stays_is_raised_after_the_last_attempt(tmp_path: Path) -> None:
    source, waits = Flaky(failures=9), list[float]()
    spec = FileSpec(type="file", path="x.csv", max_retries=1)
    with pytest.raises(TransientSourceError):
        landing.land(source, spec, tmp_path / "s", name="s", memory_limit="64MiB", wait=waits.append)
    assert (source.opened, len(waits)) == (2, 1)
    assert not list((tmp_path / "s").iterdir())


def test_a_chunk_that_gives_fewer_rows_than_it_has_is_refused(tmp_path: Path) -> None:
    class Short(Flaky):
        def chunks(self) -> Iterator[Chunk]:
            yield Chunk(0, "short", pl.LazyFrame({"id": [1, None]}), 3)

    for critical in ((), ("id",)):
        spec = FileSpec(type="file", path="x.csv", critical_columns=critical)
        folder = tmp_path / f"s{len(critical)}"
        with pytest.raises(SourceError) as caught:
            landing.land(Short(0), spec, folder, name="s", memory_limit="64MiB")
        assert caught.value.code == "source.count_mismatch"


def test_critical_columns_are_counted_each(tmp_path: Path) -> None:
    frame = pl.DataFrame({"a": [1.0, None, float("nan"), 4.0], "b": [None, None, "x", "y"]})
    frame.write_parquet(tmp_path / "x.parquet")
    declared = Pipeline(
        base=tmp_path,
        name="p",
        sources={"s": {"type": "file", "path": "x.parquet", "critical_columns": ["a", "b"]}},
    )
    metrics = run_pipeline(declared, as_of=T).sources[0].metrics
    assert (metrics.records_written, metrics.records_failed) == (1, 3)
    assert metrics.failed_by_column == {"a": 2, "b": 2}
