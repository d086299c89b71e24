"""Files that are new or have changed; one schema over all of them; readings that go on; landed by whole pipelines."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine import Pipeline, RunReport, run_pipeline
from engine.errors import SourceError
from engine.ledger import Ledger
from engine.sources import Landed, Request, file_reading, open_source
from engine.spec import FileSpec
from tests.landing.world import rows_of
from tests.run.world import T


def run(folder: Path, **source: Any) -> RunReport:
    declared = {"type": "file", "path": "in/*.csv", "mode": "append", **source}
    return run_pipeline(Pipeline(base=folder, name="p", sources={"s": declared}), as_of=T)


def rows(folder: Path) -> list[dict[str, Any]]:
    with Ledger(folder / ".maestro") as book:
        read = book.table("p", "s")
    assert read is not None
    return rows_of(folder / ".maestro", read.files)


def put(folder: Path, name: str, text: str) -> None:
    (folder / "in").mkdir(exist_ok=True)
    path = folder / "in" / name
    path.with_suffix(".tmp").write_text(text)
    path.with_suffix(".tmp").replace(path)  # another inode: a change that no clock has to tell


def test_only_what_is_new(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", "n\n1\n2\n")
    put(tmp_path, "b.csv", "n\n2\n")
    assert run(tmp_path).sources[0].metrics.records_read == 3
    put(tmp_path, "c.csv", "n\n2\n3\n")  # equal rows of another file are rows
    report = run(tmp_path).sources[0].metrics
    assert (report.records_read, report.rows) == (2, 5)
    assert [row["n"] for row in rows(tmp_path)] == [1, 2, 2, 2, 3]
    assert run(tmp_path).sources[0].metrics.records_read == 0
    assert [row["n"] for row in rows(tmp_path)] == [1, 2, 2, 2, 3]


def test_a_changed_file_takes_the_place_of_its_rows(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", "n,v\n1,a\n2,a\n")
    put(tmp_path, "b.csv", "n,v\n1,b\n")
    run(tmp_path)
    put(tmp_path, "a.csv", "n,v\n2,changed\n5,new\n6,new\n")
    metrics = run(tmp_path).sources[0].metrics
    assert (metrics.records_read, metrics.rows_replaced, metrics.rows) == (3, 2, 4)
    assert [tuple(row.values()) for row in rows(tmp_path)] == [(1, "b"), (2, "changed"), (5, "new"), (6, "new")]


def test_a_file_that_is_gone_keeps_its_rows_also_when_it_comes_back(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", "n\n1\n")
    put(tmp_path, "b.csv", "n\n2\n")
    run(tmp_path)
    (tmp_path / "in" / "a.csv").rename(tmp_path / "aside")
    assert run(tmp_path).sources[0].metrics.records_read == 0
    (tmp_path / "aside").rename(tmp_path / "in" / "a.csv")
    assert run(tmp_path).sources[0].metrics.records_read == 0
    assert [row["n"] for row in rows(tmp_path)] == [1, 2]


def test_the_last_row_of_a_key(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", "n,v\n1,a\n2,a\n")
    run(tmp_path, deduplicate={"keys": ["n"]})
    put(tmp_path, "b.csv", "n,v\n2,b\n3,b\n")
    run(tmp_path, deduplicate={"keys": ["n"]})
    assert [tuple(row.values()) for row in rows(tmp_path)] == [(1, "a"), (2, "b"), (3, "b")]


def test_a_full_read_has_what_is_there_now(tmp_path: Path) -> None:
    put(tmp_path, "a.csv", "n\n1\n")
    put(tmp_path, "b.csv", "n\n2\n")
    run(tmp_path, mode="full")
    (tmp_path / "in" / "a.csv").unlink()
    assert run(tmp_path, mode="full").sources[0].metrics.records_read == 1
    assert [row["n"] for row in rows(tmp_path)] == [2]


# --- one schema ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "kind", "values"),
    [
        (["1", "2.5"], pl.Float64, [1.0, 2.5]),
        (["1", ""], pl.Int64, [1, None]),
        (["", "1"], pl.Int64, [None, 1]),
        (["1.50", "x"], pl.String, ["1.50", "x"]),
        (["x", "1.50"], pl.String, ["x", "1.50"]),
        (["007", "1"], pl.String, ["007", "1"]),
        (["TRUE", "yes"], pl.String, ["TRUE", "yes"]),
        (["true", "1"], pl.String, ["true", "1"]),
        (["9007199254740993", "0.5"], pl.String, ["9007199254740993", "0.5"]),
        (["1e3", "9007199254740993", "x"], pl.String, ["1e3", "9007199254740993", "x"]),
    ],
)
@pytest.mark.parametrize("together", [True, False])
def test_a_column_is_written_as_it_was_in_every_file(
    tmp_path: Path,
    files: list[str],
    kind: type[pl.DataType],
    values: list[Any],
    together: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not together:
        monkeypatch.setattr(file_reading, "BATCH_FILES", 1)
    for i, field in enumerate(files):
        put(tmp_path, f"{i}.csv", f"a,b\n{field},1\n")
    run(tmp_path, mode="full")
    found = rows(tmp_path)
    assert [row["a"] for row in found] == values
    with Ledger(tmp_path / ".maestro") as book:
        read = book.table("p", "s")
    assert read is not None
    assert read.schema == {"a": str(kind()), "b": "Int64"}


def test_columns_come_and_go(tmp_path: Path) -> None:
    put(tmp_path, "1.csv", "id,fee\n1,0.5\n")
    put(tmp_path, "2.csv", "fee,id,tip\n2,2,9\n")
    put(tmp_path, "3.csv", "id\n3\n")
    run(tmp_path, mode="full")
    assert rows(tmp_path) == [
        {"id": 1, "fee": 0.5, "tip": None},
        {"id": 2, "fee": 2.0, "tip": 9},
        {"id": 3, "fee": None, "tip": None},
    ]


def test_kinds_of_parquet_that_no_type_holds(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "in" / "1.parquet")
    pl.DataFrame({"a": [True]}).write_parquet(tmp_path / "in" / "2.parquet")
    with pytest.raises(SourceError, match="column 'a' is Int64 in one part and Boolean in another"):
        run(tmp_path, path="in/*.parquet")


# --- a reading that goes on ---------------------------------------------------------------------------------------


def spec(**keys: Any) -> FileSpec:
    return FileSpec(type="file", path="in/*.csv", **keys)


def test_what_has_landed_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_reading, "BATCH_FILES", 1)
    for i in range(4):
        put(tmp_path, f"{i}.csv", f"n\n{i}\n")
    source = open_source("s", spec(), tmp_path)
    with source.open(Request()) as first:
        chunks = {chunk.number: chunk for chunk in first.chunks()}
        seal = first.seal
    assert sorted(chunks) == [0, 1, 2, 3]
    landed = [Landed(n, 1, chunks[n].mark or {}) for n in (0, 2, 3)]
    put(tmp_path, "3.csv", "n\n9\n")
    with open_source("s", spec(), tmp_path).open(Request(seal=seal, landed=landed)) as second:
        assert second.kept == {0, 2}
        assert sorted(chunk.frame.collect()["n"][0] for chunk in second.chunks()) == [1, 9]
    other = open_source("s", spec(csv={"delimiter": ";"}), tmp_path)
    with other.open(Request(seal=seal, landed=landed)) as third:
        assert third.kept == frozenset()


def test_a_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.sources import formats

    put(tmp_path, "a.csv", "n\n1\n")
    real = formats.read

    def changing(job: formats.Job) -> Any:
        yield from real(job)
        os.utime(tmp_path / "in" / "a.csv", ns=(1, 1))

    monkeypatch.setattr(formats, "read", changing)
    with pytest.raises(SourceError, match="was changed while it was read") as caught:
        run(tmp_path, max_retries=0)
    assert caught.value.code == "source.changed"
    monkeypatch.setattr(formats, "read", real)
    assert run(tmp_path).sources[0].metrics.records_read == 1
