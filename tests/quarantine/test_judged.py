"""Rows that checks set aside leave the table, stand in quarantine once, and are counted; whatever becomes of the rest."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import Pipeline, RunReport, run_pipeline
from engine.history import collect_files, verify_files
from engine.inspection import validate
from engine.landing import files
from engine.plan import compile_plan
from tests.landing.world import shop, small_chunks
from tests.quarantine.world import ASIDE, balance, balance_of, carried, entries, held, landed
from tests.run.world import T

ROWS = pl.DataFrame(
    {
        "id": [1, 2, 3, 4, 5, None, 1],
        "score": [10.0, 101.0, 30.0, -1.0, 50.0, 60.0, 10.0],
        "kind": ["a", "a", "c", "c", "b", "a", "a"],
    }
)
SOURCE = {"type": "file", "path": "x.parquet", "critical_columns": ["id"], "deduplicate": {"keys": ["id"]}}


def declared(folder: Path, checks: dict[str, Any] = ASIDE, **sections: Any) -> Pipeline:
    return Pipeline(**{"base": folder, "name": "p", "sources": {"s": SOURCE}, "validation": {"s": checks}, **sections})


def run(folder: Path, **sections: Any) -> RunReport:
    return run_pipeline(declared(folder, **sections), as_of=T)


def test_one_run_sets_aside_drops_and_counts(tmp_path: Path) -> None:
    ROWS.write_parquet(tmp_path / "x.parquet")
    report = run(tmp_path)
    assert report.status == "done"
    assert balance(report) == (7, 2, 3, 1, 1)
    assert str(balance_of(report)) == "7 read = 2 passed + 3 quarantined + 1 dropped + 1 duplicates"
    assert [(r["id"], r["score"]) for r in landed(tmp_path)] == [(5, 50.0), (1, 10.0)]
    rows = {r["score"]: r for r in held(tmp_path)}
    assert [*rows[101.0]] == ["id", "score", "kind", "quarantine"]
    place = str(tmp_path / "x.parquet")
    reasons = {score: row["quarantine"] for score, row in rows.items()}
    assert {score: (r["origin"], r["row"], r["checks"]) for score, r in reasons.items()} == {
        60.0: (place, 5, ["critical_columns.id"]),
        101.0: (place, 1, ["range.score"]),
        -1.0: (place, 3, ["range.score", "categorical.kind"]),
    }
    assert len({r["id"] for r in reasons.values()}) == 3
    assert {r["run"] for r in reasons.values()} == {report.run_id}
    assert {r["read"] for r in reasons.values()} == {entries(tmp_path)[0].read_id}
    plan = compile_plan(declared(tmp_path), T)
    assert verify_files(plan).ok
    assert collect_files(plan, None).files == 0
    there = {p.relative_to(plan.workdir).as_posix() for p in plan.quarantine.rglob("*") if p.is_file()}
    assert there == {entry.file.path for entry in entries(tmp_path)}


def test_looking_sets_nothing_aside_and_finds_the_same(tmp_path: Path) -> None:
    ROWS.write_parquet(tmp_path / "x.parquet")
    [report] = validate(compile_plan(declared(tmp_path), T))
    assert str(report.balance) == "7 read = 2 passed + 3 quarantined + 1 dropped + 1 duplicates"
    assert not list((tmp_path / ".maestro").rglob("*.parquet"))


def test_a_table_of_which_nothing_is_left(tmp_path: Path) -> None:
    ROWS.with_columns(score=pl.lit(-1.0)).write_parquet(tmp_path / "x.parquet")
    report = run(tmp_path, validation={"s": {**ASIDE, "min_rows": 0}})
    assert balance(report) == (7, 0, 6, 0, 1)
    assert landed(tmp_path) == []


def test_whole_table_checks_judge_what_stays(tmp_path: Path) -> None:
    ROWS.write_parquet(tmp_path / "x.parquet")
    report = run(tmp_path, validation={"s": {**ASIDE, "min_rows": 3}})
    assert (report.status, balance(report)) == ("blocked", (7, 2, 3, 1, 1))


BLOCKED = {**ASIDE, "freshness": {"timestamp_column": "none", "max_age_hours": 1}}  # there is no such column
APPEND = {"type": "database", "connection_string": "sqlite:///shop.db", "table": "t", "cursor": "id"}
COLUMNS = "id INTEGER, score REAL, kind TEXT"


def test_blocked_rows_are_judged_again_and_counted_apart(tmp_path: Path) -> None:
    table = shop(tmp_path, COLUMNS)

    def insert(*rows: tuple[int, float, str]) -> None:
        table.insert(*({"id": i, "score": score, "kind": kind} for i, score, kind in rows))

    def run_with(checks: dict[str, Any]) -> RunReport:
        return run(tmp_path, sources={"s": APPEND}, validation={"s": checks})

    insert((1, 1.0, "a"), (2, 200.0, "a"))
    assert balance(run_with(ASIDE)) == (2, 1, 1, 0, 0)
    insert((3, 3.0, "a"), (4, -4.0, "a"), (5, 5.0, "c"), (6, 60.0, "a"))
    report = run_with(BLOCKED)
    assert (report.status, balance(report)) == ("blocked", (5, 2, 1, 1, 1)), "the cursor's last row is there already"
    assert [row["id"] for row in landed(tmp_path)] == [1, 3, 6], "set aside, though the rest is blocked"
    assert [row["id"] for row in held(tmp_path)] == [2, 4]
    insert((7, 70.0, "a"), (8, 8.0, "c"), (9, -9.0, "a"))
    stricter = {**ASIDE, "range_constraints": {"score": [0, 50]}, "categorical_constraints": {"kind": ["a"]}}
    report = run_with(stricter)
    assert report.status == "done"
    assert (balance(report), carried(report)) == ((4, 0, 2, 1, 1), (2, 1, 0))
    assert [row["id"] for row in landed(tmp_path)] == [1, 3]
    assert [row["id"] for row in held(tmp_path)] == [2, 4, 6, 7, 9]
    reads = [row["quarantine"]["read"] for row in held(tmp_path)]
    assert reads[0] != reads[1] == reads[2] != reads[3] == reads[4], "each with the read that it came in"
    report = run_with({**stricter, "range_constraints": {"score": [0, 2]}})
    assert (balance(report), carried(report)) == ((1, 0, 0, 0, 1), (0, 0, 0)), "accepted rows are judged no more"
    assert [row["id"] for row in landed(tmp_path)] == [1, 3]


def test_a_row_that_an_earlier_run_set_aside_and_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cursor reads its last row again each time."""
    small_chunks(monkeypatch)
    table = shop(tmp_path, COLUMNS)
    table.insert(*({"id": i, "score": float(i) * 60, "kind": "a"} for i in range(3)))
    for wanted in ((3, 2, 1, 0, 0), (1, 0, 0, 0, 1), (1, 0, 0, 0, 1)):
        assert balance(run(tmp_path, sources={"s": APPEND})) == wanted
        assert [row["id"] for row in held(tmp_path)] == [2]


def test_a_bad_version_that_comes_back_replaces_a_good_one_as_it_did_before(tmp_path: Path) -> None:
    """The source has it now, whether or not it is held already."""
    source = {**APPEND, "cursor": None, "mode": "merge", "deduplicate": {"keys": ["id"]}}
    table = shop(tmp_path, COLUMNS)
    table.insert({"id": 1, "score": 200.0, "kind": "a"})
    for score, stays, wanted in (
        (200.0, [], (1, 0, 1, 0, 0)),
        (50.0, [50.0], (1, 1, 0, 0, 0)),
        (200.0, [], (1, 0, 0, 0, 1)),
    ):
        table.sql(f"UPDATE t SET score = {score}")
        report = run(tmp_path, sources={"s": source}, validation={"s": {**ASIDE, "min_rows": 0}})
        assert balance(report) == wanted
        assert [row["score"] for row in landed(tmp_path)] == stays
        assert [row["score"] for row in held(tmp_path)] == [200.0]


def test_rows_are_looked_up_in_what_is_left_of_other_tables(tmp_path: Path) -> None:
    pl.DataFrame({"id": [1, 2, 3], "score": [1.0, 200.0, 3.0], "kind": ["a", "a", "a"]}).write_parquet(
        tmp_path / "x.parquet"
    )
    pl.DataFrame({"n": [1, 2, 3, 4], "of": [1, 2, 3, 9]}).write_parquet(tmp_path / "y.parquet")
    report = run(
        tmp_path,
        sources={"child": {"type": "file", "path": "y.parquet"}, "s": SOURCE},
        validation={
            "child": {"foreign_keys": {"of": "s.id"}, "on_violation": {"foreign_key": "quarantine"}},
            "s": ASIDE,
        },
    )
    assert [source.name for source in report.sources] == ["child", "s"]
    assert balance(report, "child") == (4, 2, 2, 0, 0)
    assert [row["n"] for row in held(tmp_path, "child")] == [2, 4]


def test_a_table_may_refer_to_itself_and_two_to_each_other(tmp_path: Path) -> None:
    for name in ("x", "y"):
        pl.DataFrame({"id": [1, 2], "of": [2, 9]}).write_parquet(tmp_path / f"{name}.parquet")
    aside = {"on_violation": {"foreign_key": "quarantine"}}
    report = run(
        tmp_path,
        sources={name: {"type": "file", "path": f"{name}.parquet"} for name in ("x", "y")},
        validation={
            "x": {"foreign_keys": {"of": "y.id", "id": "x.id"}, **aside},
            "y": {"foreign_keys": {"of": "x.id"}, **aside},
        },
    )
    assert [[row["id"] for row in landed(tmp_path, name)] for name in "xy"] == [[], [1]], "x is judged last"
    assert sum(balance(report, "x")[1:]) == 2


SCORES = st.lists(
    st.tuples(
        st.one_of(st.none(), st.integers(1, 8)), st.sampled_from([1.0, 50.0, 200.0, None]), st.sampled_from("abcd")
    ),
    max_size=10,
)


@settings(max_examples=25, deadline=None)
@given(runs=st.lists(st.tuples(SCORES, st.booleans()), min_size=1, max_size=4), keyed=st.booleans())
def test_rows_add_up_and_each_is_in_one_place(runs: list[Any], keyed: bool) -> None:
    """However runs are blocked: what was read is in the table, in quarantine, dropped, or was there already."""
    source = {**APPEND, "cursor": "at", "critical_columns": ["id"], "column_mapping": {"n": "number"}}
    if keyed:
        source |= {"mode": "merge", "deduplicate": {"keys": ["number"]}}
    else:
        source |= {"mode": "append"}
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        small_chunks(patch)
        patch.setattr(files, "MANY", 3)
        folder = Path(name)
        table = shop(folder, f"{COLUMNS}, n INTEGER, at INTEGER")
        inserted: list[dict[str, Any]] = []
        passed = quarantined = 0
        for moment, (rows, blocks) in enumerate(runs):
            new = [
                {"id": i, "score": score, "kind": kind, "n": len(inserted) + k, "at": moment}
                for k, (i, score, kind) in enumerate(rows)
            ]
            inserted += new
            table.insert(*new)
            checks = {**(BLOCKED if blocks else ASIDE), "min_rows": 0}
            report = run(folder, sources={"s": source}, validation={"s": checks})
            assert (report.status == "blocked") is blocks
            found = balance_of(report)
            passed += found.passed
            quarantined += found.quarantined + found.carried_over.quarantined
            passed -= found.carried_over.quarantined + found.carried_over.dropped
            bad = [r for r in inserted if r["id"] is None or r["score"] == 200.0]
            out = [r for r in inserted if r not in bad and r["kind"] in "cd"]
            good = [r["n"] for r in inserted if r not in bad and r not in out]
            assert sorted(r["number"] for r in landed(folder)) == good
            assert sorted(r["number"] for r in held(folder)) == [r["n"] for r in bad]
            assert (passed, quarantined) == (len(good), len(bad))
