"""Rows with a null in a critical column: set aside with their values, once each, whatever is read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine import Pipeline, run_pipeline
from engine.history import collect_files, verify_files
from engine.plan import compile_plan
from tests.landing.world import Shop, shop, small_chunks
from tests.quarantine.world import balance, entries, held
from tests.run.world import T

CURSOR = {"cursor": "at", "critical_columns": ["v"]}
MERGE = {**CURSOR, "deduplicate": {"keys": ["id"]}}
EVERYTHING = {"mode": "merge", "deduplicate": {"keys": ["id"]}, "critical_columns": ["v"]}


def row(number: int | None, at: int | None, v: str | None = "a") -> dict[str, Any]:
    return {"id": number, "at": at, "v": v}


def test_rows_of_files_keep_their_values_and_their_place(tmp_path: Path) -> None:
    frame = pl.DataFrame({"id": [1, None, 3, None], "v": ["a", "b", None, None]})
    frame.write_parquet(tmp_path / "x.parquet")
    source = {"type": "file", "path": "x.parquet", "column_mapping": {"id": "key"}, "critical_columns": ["key", "v"]}
    declared = Pipeline(base=tmp_path, name="p", sources={"s": source})
    report = run_pipeline(declared, as_of=T)
    assert balance(report) == (4, 1, 3, 0, 0)
    rows = held(tmp_path)
    assert [(r["key"], r["v"]) for r in rows] == [(None, "b"), (3, None), (None, None)]
    reasons = [r["quarantine"] for r in rows]
    assert [r["row"] for r in reasons] == [1, 2, 3]
    assert {r["origin"] for r in reasons} == {str(tmp_path / "x.parquet")}
    assert {r["run"] for r in reasons} == {report.run_id}
    assert [r["checks"] for r in reasons] == [
        ["critical_columns.key"], ["critical_columns.v"], ["critical_columns.key", "critical_columns.v"]
    ]  # fmt: skip
    [entry] = entries(tmp_path)
    assert entry.file.path.startswith(f"quarantine/p/s/{entry.read_id}/")
    assert verify_files(compile_plan(declared, T)).quarantined == 1


def test_a_full_read_supersedes_what_earlier_ones_set_aside(tmp_path: Path) -> None:
    declared = Pipeline(
        base=tmp_path,
        name="p",
        retention="7d",
        sources={"s": {"type": "file", "path": "x.parquet", "critical_columns": ["v"]}},
    )
    for values in (["a", None], [None, None], ["a", "b"]):
        pl.DataFrame({"v": values}, schema={"v": pl.String}).write_parquet(tmp_path / "x.parquet")
        run_pipeline(declared, as_of=T)
        assert len(held(tmp_path)) == values.count(None)
    assert [entry.state for entry in entries(tmp_path)] == ["superseded", "superseded"]
    paths = [tmp_path / ".maestro" / entry.file.path for entry in entries(tmp_path)]
    assert all(path.exists() for path in paths), "within retention"
    collect_files(compile_plan(declared, T), None)
    assert not any(path.exists() for path in paths)


def test_what_nothing_names_is_collected_and_damage_is_found(tmp_path: Path) -> None:
    declared = Pipeline(
        base=tmp_path, name="p", sources={"s": {"type": "file", "path": "x.parquet", "critical_columns": ["v"]}}
    )
    pl.DataFrame({"v": ["a", None]}).write_parquet(tmp_path / "x.parquet")
    run_pipeline(declared, as_of=T)
    stray = tmp_path / ".maestro" / "quarantine" / "p" / "gone" / "x.parquet"
    stray.parent.mkdir()
    stray.write_bytes(b"of a killed run")
    plan = compile_plan(declared, T)
    collect_files(plan, None)
    assert not stray.parent.exists()
    [entry] = entries(tmp_path)
    assert verify_files(plan).ok
    (tmp_path / ".maestro" / entry.file.path).write_bytes(b"x")
    [damage] = verify_files(plan).damage
    assert damage.belongs_to == "the quarantine of sources.s"


@pytest.mark.parametrize("source", [CURSOR, MERGE, EVERYTHING], ids=["append", "merge", "everything"])
def test_a_row_that_is_read_again_is_set_aside_once(
    tmp_path: Path, source: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    small_chunks(monkeypatch)
    table: Shop = shop(tmp_path)
    table.insert(row(1, 10), row(2, 11, None), row(3, 11, None), row(None, 11, None))
    assert balance(table.run(source)) == (4, 1, 3, 0, 0)
    for _ in range(2):
        found = balance(table.run(source))
        assert found[1:4] == (0, 0, 0)
        assert len(held(tmp_path)) == 3
    table.insert(row(3, 11, None), row(4, 12, None), row(2, 12, "b"))
    found = balance(table.run(source))
    keyed = source is not CURSOR
    assert found[2] == (1 if keyed else 2), "with a key, the same row again is the same row"
    assert found[1] == 1
    assert len(held(tmp_path)) == 3 + found[2]
    assert len({r["quarantine"]["id"] for r in held(tmp_path)}) == len(held(tmp_path))
