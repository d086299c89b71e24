"""Rows taken back from quarantine: as they are, or mended; once, as rows earlier than those that the table holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine import Pipeline, RunReport, quarantine, run_pipeline
from engine.errors import LedgerError, SourceError, UsageError
from engine.history import collect_files, verify_files
from engine.ledger import Ledger
from engine.plan import compile_plan
from tests.landing.world import Shop, shop
from tests.quarantine.world import ASIDE, balance, carried, entries, held, landed
from tests.run.world import T

COLUMNS = "id INTEGER, score REAL, kind TEXT, at INTEGER"
APPEND = {"type": "database", "connection_string": "sqlite:///shop.db", "table": "t", "cursor": "at", "mode": "append"}
MERGE = {**APPEND, "mode": "merge", "deduplicate": {"keys": ["id"]}}
WIDE = {**ASIDE, "range_constraints": {"score": [0, 1000]}}


def declared(folder: Path, source: dict[str, Any], checks: dict[str, Any] = ASIDE, **more: Any) -> Pipeline:
    return Pipeline(base=folder, name="p", sources={"s": source, **more}, validation={"s": checks})


def run(folder: Path, source: dict[str, Any] = APPEND, checks: dict[str, Any] = ASIDE) -> RunReport:
    return run_pipeline(declared(folder, source, checks), as_of=T)


def insert(table: Shop, *rows: tuple[int | None, float, int]) -> None:
    table.insert(*({"id": i, "score": score, "kind": "a", "at": at} for i, score, at in rows))


def scores(rows: Sequence[dict[str, Any]]) -> list[tuple[int | None, float]]:
    return sorted(((row["id"], row["score"]) for row in rows), key=repr)


@pytest.fixture
def table(tmp_path: Path) -> Shop:
    """Three rows, two of which a run has set aside."""
    made = shop(tmp_path, COLUMNS)
    insert(made, (1, 1.0, 10), (2, 200.0, 11), (3, 3000.0, 12))
    assert balance(run(tmp_path)) == (3, 1, 2, 0, 0)
    return made


def test_rows_that_pass_now_are_taken_and_the_others_go_back(table: Shop, tmp_path: Path) -> None:
    before = {row["id"]: row["quarantine"] for row in held(tmp_path)}
    report = quarantine.replay(declared(tmp_path, APPEND, WIDE), as_of=T)
    assert report.status == "done"
    assert balance(report) == (2, 1, 1, 0, 0)
    assert scores(landed(tmp_path)) == [(1, 1.0), (2, 200.0)]
    [row] = held(tmp_path)
    assert (row["id"], row["score"], row["at"], row["kind"]) == (3, 3000.0, 12, "a")
    reasons = row["quarantine"]
    assert (reasons["origin"], reasons["row"]) == (before[3]["origin"], before[3]["row"])
    assert (reasons["run"], reasons["checks"]) == (report.run_id, ["range.score"])
    assert reasons["id"] != before[3]["id"]
    assert sorted(entry.state for entry in entries(tmp_path)) == ["held", "replayed"]
    insert(table, (4, 4.0, 12))
    assert balance(run(tmp_path, APPEND, WIDE)) == (2, 1, 0, 0, 1), "the cursor stands where it stood; 3 is held"
    plan = compile_plan(declared(tmp_path, APPEND), T)
    assert verify_files(plan).ok
    assert collect_files(plan, None).files == 0


@pytest.mark.parametrize("suffix", ["csv", "ndjson", "parquet"])
def test_mended_rows_take_their_place(table: Shop, tmp_path: Path, suffix: str) -> None:
    pipeline, path = declared(tmp_path, APPEND), tmp_path / f"rows.{suffix}"
    assert quarantine.export(pipeline, path, source="s") == 2
    read: dict[str, Any] = {"csv": pl.read_csv, "ndjson": pl.read_ndjson, "parquet": pl.read_parquet}
    frame = read[suffix](path).filter(pl.col("id") == 3).with_columns(score=pl.lit(3.5))
    getattr(frame, f"write_{suffix}")(path)
    report = quarantine.replay(pipeline, mended=path, as_of=T)
    assert balance(report) == (1, 1, 0, 0, 0)
    assert scores(landed(tmp_path)) == [(1, 1.0), (3, 3.5)]
    assert scores(held(tmp_path)) == [(2, 200.0)]
    with pytest.raises(UsageError, match=r"no row '.*:1' is in quarantine"):
        quarantine.replay(pipeline, mended=path, as_of=T)
    assert quarantine.export(pipeline, path, source="s") == 1, "its id is the one it had"
    assert balance(quarantine.replay(pipeline, mended=path, as_of=T)) == (1, 0, 1, 0, 0), "not mended"


@pytest.mark.parametrize(
    ("source", "new", "stays"),
    [
        (MERGE, (2, 7.0, 20), 7.0),  # the row of the largest cursor
        ({**MERGE, "deduplicate": {"keys": ["id"], "order_by": "score"}}, (2, 7.0, 20), 200.0),
        ({**APPEND, "deduplicate": {"keys": ["id"], "order_by": "kind"}, "mode": "merge"}, (2, 7.0, 20), 7.0),
    ],
)
def test_a_newer_version_of_a_key_wins(
    tmp_path: Path, source: dict[str, Any], new: tuple[int, float, int], stays: float
) -> None:
    table = shop(tmp_path, COLUMNS)
    insert(table, (1, 1.0, 10), (2, 200.0, 11), (2, 300.0, 11), (None, 400.0, 9), (None, 400.0, 9))
    run(tmp_path, source)
    table.sql("DELETE FROM t WHERE id = 2")
    insert(table, new)
    run(tmp_path, source)
    kept = [(1, 1.0), (2, new[1])]
    assert scores(landed(tmp_path)) == kept
    before = len(held(tmp_path))
    report = quarantine.replay(declared(tmp_path, source, WIDE), as_of=T)
    best = max(row for row in [200.0, 300.0, stays] if row <= 300.0) if stays == 200.0 else stays
    assert scores(landed(tmp_path)) == sorted([(1, 1.0), (2, best), (None, 400.0), (None, 400.0)], key=repr)
    assert held(tmp_path) == []
    found = balance(report)
    assert found[0] == before
    assert found[1] + found[4] == before


def test_critical_columns_hold_for_rows_taken_back(tmp_path: Path) -> None:
    source = {**APPEND, "critical_columns": ["id"], "column_mapping": {"kind": "sort"}}
    checks = {**WIDE, "categorical_constraints": {"sort": ["a"]}}
    insert(shop(tmp_path, COLUMNS), (None, 1.0, 10), (2, 2.0, 11), (None, 3.0, 12))
    run(tmp_path, source, checks)
    pipeline, path = declared(tmp_path, source, checks), tmp_path / "rows.csv"
    assert balance(quarantine.replay(pipeline, as_of=T)) == (2, 0, 2, 0, 0)
    quarantine.export(pipeline, path, source="s", check="critical_columns")
    path.write_text(path.read_text().replace(",1.0,a,10", "9,1.0,a,10", 1))
    assert balance(quarantine.replay(pipeline, mended=path, as_of=T)) == (2, 1, 1, 0, 0)
    assert {(r["id"], r["sort"]) for r in landed(tmp_path)} == {(2, "a"), (9, "a")}
    [row] = held(tmp_path)
    assert row["quarantine"]["checks"] == ["critical_columns.id"]


def test_in_mode_full_the_next_run_reads_everything_anew(tmp_path: Path) -> None:
    source = {"type": "file", "path": "x.parquet"}
    pl.DataFrame({"id": [1, 2], "score": [1.0, 200.0], "kind": ["a", "a"]}).write_parquet(tmp_path / "x.parquet")
    run(tmp_path, source)
    report = quarantine.replay(declared(tmp_path, source, WIDE), as_of=T)
    assert balance(report) == (1, 1, 0, 0, 0)
    assert scores(landed(tmp_path)) == [(1, 1.0), (2, 200.0)]
    assert balance(run(tmp_path, source)) == (2, 1, 1, 0, 0)
    assert scores(landed(tmp_path)) == [(1, 1.0)]
    assert len(held(tmp_path)) == 1


def test_other_sources_take_part_as_they_landed(tmp_path: Path) -> None:
    """One that was blocked is judged again: what it refers to may be there now."""
    parents, children = tmp_path / "x.parquet", tmp_path / "y.parquet"
    pl.DataFrame({"id": [1, 2], "score": [1.0, 200.0], "kind": ["a", "a"]}).write_parquet(parents)
    pl.DataFrame({"n": [1, 2], "of": [1, 2]}).write_parquet(children)
    sources = {"s": {"type": "file", "path": "x.parquet"}, "child": {"type": "file", "path": "y.parquet"}}

    def pipeline(checks: dict[str, Any]) -> Pipeline:
        child = {"foreign_keys": {"of": "s.id"}, "severity": {"foreign_key": "error"}}
        return Pipeline(base=tmp_path, name="p", sources=sources, validation={"s": checks, "child": child})

    report = run_pipeline(pipeline(ASIDE), as_of=T)
    assert [(s.name, s.state) for s in report.sources] == [("s", "accepted"), ("child", "blocked")]
    children.unlink()
    report = quarantine.replay(pipeline(WIDE), as_of=T)
    assert (report.status, [(s.name, s.state) for s in report.sources]) == (
        "done",
        [("s", "accepted"), ("child", "accepted")],
    )
    assert (balance(report, "child"), carried(report, "child")) == ((0, 0, 0, 0, 0), (2, 0, 0))
    with Ledger(tmp_path / ".maestro") as book:
        table = book.table("p", "child", accepted=True)
    assert table is not None
    assert table.metrics["records_read"] == 2, "of the run that read it"


@pytest.mark.parametrize("source", [{**APPEND, "lateness": 5}, {**MERGE, "lateness": 5}, {**MERGE, "cursor": None}])
def test_what_was_replayed_or_given_up_does_not_come_back(tmp_path: Path, source: dict[str, Any]) -> None:
    """The source still has the rows as they were, and each run reads them again."""
    table = shop(tmp_path, COLUMNS)
    insert(table, (1, 1.0, 10), (2, 200.0, 11), (3, 3000.0, 12))
    pipeline, path = declared(tmp_path, source), tmp_path / "rows.csv"
    assert balance(run(tmp_path, source)) == (3, 1, 2, 0, 0)
    quarantine.export(pipeline, path, source="s")
    path.write_text("\n".join(line for line in path.read_text().splitlines() if not line.startswith("3,")))
    path.write_text(path.read_text().replace("200.0", "20.0"))
    assert balance(quarantine.replay(pipeline, mended=path, as_of=T)) == (1, 1, 0, 0, 0)
    assert quarantine.drop(pipeline, source="s") == 1
    for _ in range(3):
        assert balance(run(tmp_path, source))[1:4] == (0, 0, 0)
        assert scores(landed(tmp_path)) == [(1, 1.0), (2, 20.0)]
        assert held(tmp_path) == []
        collect_files(compile_plan(pipeline, T), None)
    kept = [tmp_path / ".maestro" / entry.file.path for entry in entries(tmp_path)]
    assert {entry.state for entry in entries(tmp_path)} == {"mended", "dropped"}
    assert all(file.is_file() for file in kept), "by which the rows are recognised"
    insert(table, (2, 300.0, 12))
    assert balance(run(tmp_path, source))[2] == 1, "another row is none that was replayed"
    table.sql("DELETE FROM t WHERE score = 300.0")
    assert balance(run_pipeline(pipeline, as_of=T, reread=["s"])) == (3, 1, 2, 0, 0), "asked for anew"
    assert scores(held(tmp_path)) == [(2, 200.0), (3, 3000.0)]
    collect_files(compile_plan(pipeline, T), None)
    assert not any(file.is_file() for file in kept)


def test_a_row_that_was_set_aside_is_recognised_once(tmp_path: Path) -> None:
    """However often it went through quarantine: where there is no key, an equal row is another row."""
    source = {**APPEND, "lateness": 5}
    table = shop(tmp_path, COLUMNS)
    insert(table, (1, 1.0, 10), (3, 3000.0, 12), (4, 4000.0, 12))
    pipeline, path = declared(tmp_path, source), tmp_path / "rows.csv"
    assert balance(run(tmp_path, source)) == (3, 1, 2, 0, 0)
    assert balance(quarantine.replay(pipeline, as_of=T)) == (2, 0, 2, 0, 0), "not mended"
    quarantine.export(pipeline, path, source="s")
    path.write_text("\n".join(line for line in path.read_text().splitlines() if not line.startswith("3,")))
    path.write_text(path.read_text().replace("4000.0", "4.0"))
    assert balance(quarantine.replay(pipeline, mended=path, as_of=T)) == (1, 1, 0, 0, 0), "3 is left"
    insert(table, (3, 3000.0, 12))
    assert balance(run(tmp_path, source)) == (4, 0, 1, 0, 3)
    assert quarantine.drop(pipeline, source="s") == 2
    insert(table, (3, 3000.0, 12), (4, 4000.0, 12))
    assert balance(run(tmp_path, source)) == (6, 0, 2, 0, 4)
    assert scores(held(tmp_path)) == [(3, 3000.0), (4, 4000.0)]
    assert scores(landed(tmp_path)) == [(1, 1.0), (4, 4.0)]


def test_held_files_that_are_missing(table: Shop, tmp_path: Path) -> None:
    """Nothing is said of the rows that are left, or taken, as if they were all; they can be given up."""
    pipeline, path = declared(tmp_path, APPEND), tmp_path / "rows.csv"
    insert(table, (4, -4.0, 13))
    run(tmp_path)
    first, second = entries(tmp_path)
    (tmp_path / ".maestro" / first.file.path).unlink()
    for action in (
        lambda: quarantine.held(pipeline),
        lambda: quarantine.rows(pipeline, source="s"),
        lambda: quarantine.export(pipeline, path, source="s"),
        lambda: quarantine.replay(pipeline, as_of=T),
    ):
        with pytest.raises(LedgerError, match=r"2 rows in quarantine are gone: .* is missing") as caught:
            action()
        assert (caught.value.code, caught.value.where) == ("quarantine.missing", "sources.s")
        assert caught.value.fix is not None
        assert f"--run {first.run_id}" in caught.value.fix
    assert not path.exists()
    assert quarantine.rows(pipeline, source="s", run=second.run_id).collect()["id"].to_list() == [4]
    assert quarantine.drop(pipeline, source="s", run=first.run_id) == 2
    assert [h.rows for h in quarantine.held(pipeline)] == [1]


def test_rows_of_a_source_that_is_no_longer_declared(table: Shop, tmp_path: Path) -> None:
    other = {"type": "file", "path": "x.parquet"}
    pl.DataFrame({"id": [1]}).write_parquet(tmp_path / "x.parquet")
    without = Pipeline(base=tmp_path, name="p", sources={"other": other}, validation={})
    run_pipeline(without, as_of=T)
    for options in ({}, {"source": "s"}):
        with pytest.raises(UsageError, match="has no source 's' any more") as caught:
            quarantine.replay(without, as_of=T, **options)
        assert (caught.value.code, caught.value.allowed) == ("quarantine.source", "other")
    assert quarantine.rows(without, source="s").collect().height == 2
    assert quarantine.drop(without, source="s") == 2
    with pytest.raises(UsageError, match="no row is in quarantine"):
        quarantine.replay(without, as_of=T)


@pytest.mark.parametrize(("name", "reasons"), [("kind", "quarantine"), ("quarantine", "_quarantine")])
def test_parquet_of_a_table_with_columns_of_these_names(tmp_path: Path, name: str, reasons: str) -> None:
    """`quarantine_score` is the table's own, and so may `quarantine` be."""
    source = {"type": "file", "path": "x.parquet"}
    frame = pl.DataFrame({"quarantine_score": [1.0, 200.0, 300.0], name: ["a", "b", "c"]})
    frame.write_parquet(tmp_path / "x.parquet")
    checks = {"range_constraints": {"quarantine_score": [0, 100]}, "on_violation": {"range": "quarantine"}}
    pipeline, path = declared(tmp_path, source, checks), tmp_path / "rows.parquet"
    assert balance(run(tmp_path, source, checks)) == (3, 1, 2, 0, 0)
    assert quarantine.export(pipeline, path, source="s") == 2
    out = pl.read_parquet(path)
    assert out.columns == [*frame.columns, reasons]
    out.filter(pl.col(name) == "c").with_columns(quarantine_score=pl.lit(3.0)).write_parquet(path)
    assert balance(quarantine.replay(pipeline, mended=path, as_of=T)) == (1, 1, 0, 0, 0)
    assert pl.DataFrame(landed(tmp_path)).sort(name).rows() == [(1.0, "a"), (3.0, "c")]
    assert [row[name] for row in held(tmp_path)] == ["b"]


def test_what_is_held_and_why(table: Shop, tmp_path: Path) -> None:
    pipeline = declared(tmp_path, APPEND)
    insert(table, (4, -4.0, 13))
    second = run(tmp_path)
    found = quarantine.held(pipeline)
    assert [(h.source, h.rows, dict(h.checks)) for h in found] == [
        ("s", 2, {"range.score": 2}), ("s", 1, {"range.score": 1})
    ]  # fmt: skip
    assert found[1].run_id == second.run_id
    assert [*found[0].to_dict()] == ["source", "run_id", "rows", "checks", "since"]
    assert scores(quarantine.rows(pipeline, source="s").collect().to_dicts()) == [(2, 200.0), (3, 3000.0), (4, -4.0)]
    for check, count in (("range", 3), ("range.score", 3), ("range.sc", 0), ("custom", 0)):
        assert quarantine.rows(pipeline, source="s", check=check).collect().height == count
    assert quarantine.rows(pipeline, source="s", run=second.run_id).collect()["id"].to_list() == [4]
    assert quarantine.drop(pipeline, source="s", run=found[0].run_id) == 2
    assert [row["id"] for row in held(tmp_path)] == [4]
    assert balance(quarantine.replay(declared(tmp_path, APPEND, WIDE), run=second.run_id, as_of=T)) == (1, 0, 1, 0, 0)
    assert [row["id"] for row in held(tmp_path)] == [4]


def test_what_cannot_be_replayed(table: Shop, tmp_path: Path) -> None:
    pipeline = declared(tmp_path, APPEND)
    with pytest.raises(UsageError, match="no row of ss is in quarantine") as caught:
        quarantine.replay(pipeline, source="ss")
    assert (caught.value.code, caught.value.fix) == ("quarantine.empty", "did you mean 's'?")
    with pytest.raises(UsageError, match="by the run nobody"):
        quarantine.drop(pipeline, source="s", run="nobody")
    with pytest.raises(SourceError, match="its declaration has changed") as refused:
        quarantine.replay(declared(tmp_path, {**APPEND, "critical_columns": ["id"]}))
    assert (refused.value.code, refused.value.where) == ("source.not_landed", "sources.s")
    with pytest.raises(SourceError, match="nothing has landed yet"):
        quarantine.replay(declared(tmp_path, APPEND, new={"type": "file", "path": "x.csv"}))
    assert scores(held(tmp_path)) == [(2, 200.0), (3, 3000.0)]
    run(tmp_path)
    quarantine.drop(pipeline, source="s")
    with pytest.raises(UsageError, match="no row is in quarantine"):
        quarantine.replay(pipeline)


def test_mended_rows_of_several_sources_are_told_apart(tmp_path: Path) -> None:
    source = {"type": "file", "path": "x.parquet"}
    pl.DataFrame({"id": [1], "score": [200.0], "kind": ["a"]}).write_parquet(tmp_path / "x.parquet")
    pipeline = Pipeline(
        base=tmp_path, name="p", sources={"s": source, "t": source}, validation={"s": ASIDE, "t": {**ASIDE}}
    )
    run_pipeline(pipeline, as_of=T)
    path = tmp_path / "rows.csv"
    quarantine.export(pipeline, path, source="t")
    with pytest.raises(UsageError, match="several sources") as caught:
        quarantine.replay(pipeline, mended=path)
    assert caught.value.allowed == "s, t"
    with pytest.raises(UsageError, match="is in quarantine"):
        quarantine.replay(pipeline, mended=path, source="s")
    assert balance(quarantine.replay(pipeline, mended=path, source="t", as_of=T), "t") == (1, 0, 1, 0, 0)
