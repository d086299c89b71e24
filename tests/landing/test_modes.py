"""Full, append and merge over several runs, against the oracle; blocked runs; what a changed declaration does."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine import run_pipeline, steps
from engine.errors import SourceError
from engine.landing import LandedTable
from tests.landing.oracle import Oracle, Sums, multiset
from tests.landing.world import COLUMNS, Shop, rows_of, shop, small_chunks
from tests.run.world import DAY, T, write_world

KEYED = {"keys": ["id"]}
BY_N = {"keys": ["id"], "order_by": "n"}
DECLARED: dict[str, dict[str, Any]] = {
    "full": {"mode": "full"},
    "full, last per key": {"deduplicate": BY_N},
    "full, without critical nulls": {"critical_columns": ["v"], "deduplicate": KEYED},
    "append": {"cursor": "at"},
    "append, late": {"cursor": "at", "lateness": 3, "critical_columns": ["v"]},
    "append, last per key": {"mode": "append", "cursor": "at", "deduplicate": BY_N},
    "append, last per key by the cursor": {"mode": "append", "cursor": "at", "lateness": 2, "deduplicate": KEYED},
    "merge": {"cursor": "at", "deduplicate": KEYED},
    "merge, late": {"cursor": "at", "lateness": 3, "deduplicate": KEYED, "critical_columns": ["v"]},
    "merge, another order": {"cursor": "at", "lateness": 1, "deduplicate": BY_N},
    "merge, compound key": {"cursor": "at", "deduplicate": {"keys": ["id", "v"]}},
    "merge, deletes ignored": {"cursor": "at", "deduplicate": KEYED, "deletes": "ignore"},
    "merge, tombstone": {"cursor": "at", "lateness": 2, "deduplicate": KEYED, "tombstone": "gone"},
    "merge, tombstone only": {"cursor": "at", "deduplicate": KEYED, "tombstone": "gone", "deletes": "ignore"},
    "merge without a cursor": {"mode": "merge", "deduplicate": KEYED},
    "merge without a cursor, another order": {"mode": "merge", "deduplicate": BY_N},
}


def oracle(source: dict[str, Any]) -> Oracle:
    rule = source.get("deduplicate") or {}
    cursor = source.get("cursor")
    return Oracle(
        mode=source.get("mode") or ("full" if cursor is None else "merge" if rule else "append"),
        cursor=cursor,
        keys=rule.get("keys", ()),
        order_by=rule.get("order_by"),
        lateness=source.get("lateness", 0),
        deletes=source.get("deletes", "find"),
        tombstone=source.get("tombstone"),
        critical=source.get("critical_columns", ()),
    )


# What may happen between two runs. A moment is counted from the largest one there is, or is None.
VALUES = st.sampled_from(["a", "b", None])
MOMENTS = st.sampled_from([0, 0, 1, 1, 2, -1, -2, -5, None])
NUMBERS = st.sampled_from([0, 1, 1, 2, None])
IDS = st.sampled_from([1, 1, 2, 3, 4, None])
MARKS = st.sampled_from([None, None, 0, 1])
INSERT = st.tuples(st.just("insert"), IDS, MOMENTS, VALUES, NUMBERS, MARKS)
UPDATE = st.tuples(st.just("update"), st.integers(0, 9), MOMENTS, VALUES, NUMBERS, MARKS)
CHANGES = st.one_of(
    INSERT,
    INSERT,
    UPDATE,
    st.tuples(st.just("delete"), st.integers(0, 9)),
    st.tuples(st.just("again"), st.integers(0, 9)),
    st.just(("widen",)),
    st.tuples(st.just("fraction"), IDS, MOMENTS),
)
RUNS = st.lists(st.lists(CHANGES, max_size=6), min_size=3, max_size=6)


def change(table: Shop, what: tuple[Any, ...]) -> None:
    """Changes the source's table."""
    rows = table.rows()
    newest = max((row["at"] for row in rows if row["at"] is not None), default=10)
    kind = what[0]
    if kind == "widen":
        if rows and "extra" not in rows[0]:
            table.sql("ALTER TABLE t ADD COLUMN extra TEXT")
            table.insert({"id": 3, "at": newest + 1, "v": "b", "extra": "x"})
        return
    if kind == "fraction":
        _, number, moment = what
        table.insert({"id": number, "at": None if moment is None else newest + moment, "v": "a", "n": 0.5})
        return
    if kind in ("insert", "update"):
        _, number, moment, value, n, mark = what
        facts = {"at": None if moment is None else newest + moment, "v": value, "n": n, "gone": mark}
        if kind == "insert":
            table.insert({"id": number, **facts})
            return
        if rows:
            assigned = ", ".join(f"{c} = {literal(v)}" for c, v in facts.items())
            table.sql(f"UPDATE t SET {assigned} WHERE rowid = {_rowid(what[1])}")
        return
    if rows and kind == "delete":
        table.sql(f"DELETE FROM t WHERE rowid = {_rowid(what[1])}")
    elif rows:
        names = ", ".join(rows[0])
        table.sql(f"INSERT INTO t ({names}) SELECT {names} FROM t WHERE rowid = {_rowid(what[1])}")


def _rowid(number: int) -> str:
    return f"(SELECT rowid FROM t ORDER BY rowid LIMIT 1 OFFSET {number} % (SELECT count(*) FROM t))"


def literal(value: Any) -> str:
    return "NULL" if value is None else repr(value)


def check(made: LandedTable, table: list[dict[str, Any]], wanted: Sums, promised: Oracle) -> None:
    """A landed table is the oracle's in every row and every sum."""
    assert multiset(table) == multiset(promised.rows)
    metrics = made.metrics
    assert {name: getattr(metrics, name) for name in asdict(wanted)} == asdict(wanted)
    assert metrics.records_read == metrics.records_written + metrics.records_failed + metrics.duplicates_removed
    position = made.position
    assert (position and position["value"]) == (None if promised.position is None else str(promised.position))


@pytest.mark.parametrize("name", DECLARED)
@settings(max_examples=4, deadline=None)
@given(runs=RUNS)
@example(  # two rows of a key and a moment, read again: the later one stays the one that counts
    runs=[[("insert", 1, 0, "a", 1, None), ("insert", 1, 0, "b", 1, None)], [], []]
)
@example(runs=[[("insert", 1, 0, "a", 1, 0)] * 4, [("widen",), ("fraction", 1, 1)], [("delete", 0), ("again", 0)]])
@example(runs=[[], [("insert", None, None, "a", None, 1)] * 2, [("update", 0, 1, "b", 2, 1)], [("delete", 1)]])
@example(runs=[[("insert", 1, 0, "a", 0, None)], [("again", 0)], []])
def test_the_table_is_what_the_mode_promises(name: str, runs: list[list[tuple[Any, ...]]]) -> None:
    promised, base = oracle(DECLARED[name]), None
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        small_chunks(patch)
        table = shop(Path(folder))
        for number, changes in enumerate(runs):
            for what in changes:
                change(table, what)
            made, base = table.land(DECLARED[name], base, number)
            check(made, rows_of(Path(folder), made.files), promised.read(table.rows()), promised)


def test_the_same_through_the_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some runs with all kinds of changes, each with its own table, in one pipeline."""
    small_chunks(monkeypatch)
    table, promised = shop(tmp_path), oracle(DECLARED["merge, tombstone"])
    runs = [
        [("insert", 1, 0, "a", 1, None), ("insert", 2, 1, "b", 2, 0), ("insert", None, None, "a", 1, None)] * 3,
        [("update", 0, 1, "b", 2, None), ("widen",), ("delete", 1), ("again", 0), ("insert", 4, -1, "a", 1, 1)],
        [("fraction", 1, 1), ("update", 2, 2, None, None, 1), ("insert", 5, -2, "a", 1, None)],
        [],
    ]
    for changes in runs:
        for what in changes:
            change(table, what)
        wanted = promised.read(table.rows())
        metrics = table.run(DECLARED["merge, tombstone"]).sources[0].metrics
        assert multiset(table.landed()) == multiset(promised.rows)
        assert {name: getattr(metrics, name) for name in asdict(wanted)} == asdict(wanted)


def row(number: int | None, at: int | None, v: str | None = "a", **more: Any) -> dict[str, Any]:
    return {"id": number, "at": at, "v": v, **more}


def values(table: Shop) -> list[tuple[Any, ...]]:
    return sorted(((r["id"], r["at"], r["v"]) for r in table.landed()), key=str)


def test_append_keeps_what_the_source_deletes(tmp_path: Path) -> None:
    table = shop(tmp_path)
    table.insert(row(1, 10), row(2, 11))
    table.run({"cursor": "at"})
    table.sql("DELETE FROM t")
    table.insert(row(3, 12))
    metrics = table.run({"cursor": "at"}).sources[0].metrics
    assert values(table) == [(1, 10, "a"), (2, 11, "a"), (3, 12, "a")]
    assert (metrics.records_read, metrics.records_written, metrics.rows) == (1, 1, 3)


def test_a_read_begins_at_the_position_and_takes_null_cursors_along(tmp_path: Path) -> None:
    table = shop(tmp_path)
    table.insert(row(1, 10), row(2, 11), row(3, 11), row(4, None))
    assert table.run({"cursor": "at"}).sources[0].metrics.records_read == 4
    assert table.read().position == {"type": "int", "value": "11"}
    metrics = table.run({"cursor": "at"}).sources[0].metrics
    assert (metrics.records_read, metrics.duplicates_removed, metrics.rows) == (3, 3, 4), "the two of 11, and the null"
    table.insert(row(5, 8), row(6, 9))
    metrics = table.run({"cursor": "at", "lateness": 2}).sources[0].metrics
    assert (metrics.records_read, metrics.records_written) == (5, 1), "9 to 11 and the null; 8 came too late"
    assert values(table)[-1] == (6, 9, "a")


def test_two_equal_rows_are_two_and_stay_two(tmp_path: Path) -> None:
    table = shop(tmp_path)
    table.insert(row(1, 10), row(1, 10))
    table.run({"cursor": "at"})
    assert values(table) == [(1, 10, "a")] * 2
    table.insert(row(1, 10))
    metrics = table.run({"cursor": "at"}).sources[0].metrics
    assert values(table) == [(1, 10, "a")] * 3
    assert (metrics.records_read, metrics.duplicates_removed, metrics.records_written) == (3, 2, 1)


def test_merge_is_an_upsert_that_finds_deletes(tmp_path: Path) -> None:
    table, source = shop(tmp_path), {"cursor": "at", "deduplicate": KEYED}
    table.insert(row(1, 10), row(2, 11), row(None, 5, "x"))
    table.run(source)
    table.sql("UPDATE t SET v = 'b', at = 12 WHERE id = 1", "DELETE FROM t WHERE id = 2", "DELETE FROM t WHERE v = 'x'")
    metrics = table.run(source).sources[0].metrics
    assert values(table) == [(1, 12, "b"), (None, 5, "x")], "what has no key is nobody's to remove"
    assert (metrics.rows, metrics.rows_replaced, metrics.rows_deleted) == (2, 1, 1)
    table.sql("DELETE FROM t")
    table.run(source)
    assert values(table) == [(None, 5, "x")], "a source without rows has none of the keys"


def test_merge_may_leave_deletes_alone(tmp_path: Path) -> None:
    table, source = shop(tmp_path), {"cursor": "at", "deduplicate": KEYED, "deletes": "ignore"}
    table.insert(row(1, 10), row(2, 11))
    table.run(source)
    table.sql("DELETE FROM t WHERE id = 1")
    table.run(source)
    assert values(table) == [(1, 10, "a"), (2, 11, "a")]


@pytest.mark.parametrize(
    ("mark", "stays"), [("1", False), ("0", True), ("NULL", True), ("'2025-10-04'", False), ("''", False)]
)
def test_a_tombstone_is_anything_but_null_false_or_0(tmp_path: Path, mark: str, stays: bool) -> None:
    kind = "TEXT" if "'" in mark else "INTEGER"
    table = shop(tmp_path, f"id INTEGER, at INTEGER, v TEXT, gone {kind}")
    source = {"cursor": "at", "deduplicate": KEYED, "tombstone": "gone", "deletes": "ignore"}
    table.insert(row(1, 10), row(2, 10))
    table.run(source)
    table.sql(f"UPDATE t SET at = 11, gone = {mark} WHERE id = 1")
    metrics = table.run(source).sources[0].metrics
    assert [r["id"] for r in table.landed() if r["id"] == 1] == [1] * stays
    assert (metrics.rows, metrics.rows_deleted, metrics.rows_replaced) == (1 + stays, 1 - stays, 1)
    assert table.run(source).sources[0].metrics.rows == 1 + stays, "read again at the position, and still gone"


def test_keys_are_those_of_the_declared_names(tmp_path: Path) -> None:
    table = shop(tmp_path, "key INTEGER, at INTEGER, v TEXT")
    source = {"cursor": "moment", "column_mapping": {"key": "id", "at": "moment"}, "deduplicate": KEYED}
    table.insert({"key": 1, "at": 10, "v": "a"}, {"key": 2, "at": 10, "v": "a"})
    table.run(source)
    table.sql("DELETE FROM t WHERE key = 1", "UPDATE t SET v = 'b'")
    table.run(source)
    assert table.landed() == [{"id": 2, "moment": 10, "v": "b"}]


def test_rows_that_leave_the_filter_are_deleted(tmp_path: Path) -> None:
    table, source = shop(tmp_path), {"cursor": "at", "deduplicate": KEYED, "filter": "v <> 'hidden'"}
    table.insert(row(1, 10), row(2, 10))
    table.run(source)
    table.sql("UPDATE t SET v = 'hidden' WHERE id = 1")
    table.run(source)
    assert values(table) == [(2, 10, "a")]


def test_a_text_cursor_goes_on_from_its_moment(tmp_path: Path) -> None:
    table = shop(tmp_path, "id INTEGER, at TEXT, v TEXT")
    source = {"cursor": "at", "lateness": "1h"}
    table.insert(row(1, "2025-10-04 09:30:00"), row(2, "2025-10-04 10:00:00"))
    table.run(source)
    table.insert(row(3, "2025-10-04 09:00:00.5"), row(4, "2025-10-04 08:59:59"), row(5, "2025-10-04 10:00:00"))
    metrics = table.run(source).sources[0].metrics
    assert [r["id"] for r in table.landed()] == [1, 2, 3, 5]
    assert metrics.records_read == 4


@pytest.mark.parametrize("lateness", ["1h", 5])
def test_lateness_must_fit_the_cursor(tmp_path: Path, lateness: Any) -> None:
    kind = "INTEGER" if lateness == "1h" else "TEXT"
    table = shop(tmp_path, f"id INTEGER, at {kind}, v TEXT")
    table.insert(row(1, 10))
    table.run({"cursor": "at"})
    with pytest.raises(SourceError) as caught:
        table.run({"cursor": "at", "lateness": lateness})
    assert caught.value.code == "source.lateness"
    assert caught.value.fix


@pytest.mark.parametrize(
    "change",
    [
        {"critical_columns": ["v"]},
        {"column_mapping": {"v": "w"}},
        {"columns": ["id", "at", "v"]},
        {"filter": "id > 0"},
        {"deduplicate": KEYED, "mode": "append"},
        {"deduplicate": KEYED},
        {"cursor": "id"},
        {"query": "SELECT * FROM t", "table": None},
    ],
)
def test_another_declaration_reads_everything_anew(
    tmp_path: Path, change: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    table = shop(tmp_path)
    table.insert(row(1, 10), row(2, 11), row(3, 12))
    table.run({"cursor": "at"})
    table.sql("DELETE FROM t WHERE id = 1")
    metrics = table.run({"cursor": "at", **change}).sources[0].metrics
    assert (metrics.records_read, metrics.rows) == (2, 2)
    assert "everything is read anew: its declaration has changed" in caplog.text


@pytest.mark.parametrize(
    "change", [{"lateness": 1}, {"max_retries": 9}, {"batch_size": 7}, {"required_columns": ["v"]}]
)
def test_how_a_source_is_reached_is_not_its_declaration(tmp_path: Path, change: dict[str, Any]) -> None:
    table = shop(tmp_path)
    table.insert(row(1, 10), row(2, 20), row(3, 30))
    table.run({"cursor": "at"})
    assert table.run({"cursor": "at", **change}).sources[0].metrics.records_read == 1


@pytest.mark.parametrize("harm", ["gone", "short"])
def test_a_harmed_table_is_read_anew(tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture) -> None:
    table = shop(tmp_path)
    table.insert(row(1, 10), row(2, 20))
    table.run({"cursor": "at"})
    path = tmp_path / ".maestro" / table.read().files[0].path
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-9])
    assert table.run({"cursor": "at"}).sources[0].metrics.records_read == 2
    assert values(table) == [(1, 10, "a"), (2, 20, "a")]
    assert "everything is read anew" in caplog.text


def test_columns_that_come_later_are_null_before(tmp_path: Path) -> None:
    table = shop(tmp_path, "id INTEGER, at INTEGER, n INTEGER")
    table.insert({"id": 1, "at": 10, "n": 1})
    table.run({"cursor": "at"})
    table.sql("ALTER TABLE t ADD COLUMN w TEXT")
    table.insert({"id": 2, "at": 11, "n": 2.5, "w": "x"})
    table.run({"cursor": "at"})
    assert table.landed() == [{"id": 1, "at": 10, "n": 1.0, "w": None}, {"id": 2, "at": 11, "n": 2.5, "w": "x"}]
    assert table.read().schema == {"id": "Int64", "at": "Int64", "n": "Float64", "w": "String"}


# --- blocked runs ---------------------------------------------------------------------------------------------------

VIEWS = {
    "more": {"activities": {"type": "file", "path": "data/activities/*.parquet"}},
    "features": {"user_features": {"handle_missing": "keep", "normalize": False, "sources": {"users": "s"}}},
}
WORLD = "user_id TEXT, timestamp TEXT, at INTEGER, v TEXT, n INTEGER"


def fact(user: str | None, at: int, v: str = "a", n: int | None = 1) -> dict[str, Any]:
    return {"user_id": user, "timestamp": f"2025-10-0{at % 3 + 1} 00:00:00", "at": at, "v": v, "n": n}


def results(report: Any) -> dict[str, tuple[bool, int]]:
    source = report.sources[0]
    return {r.check_name.removesuffix("_validation"): (r.passed, r.failed_records) for r in source.report.results}


CHECKS = {
    "schema": {"v": "string"},
    "required_columns": ["n"],
    "max_null_percentage": 0.0,
    "unique_columns": ["user_id"],
    "range_constraints": {"n": [0, 9]},
    "categorical_constraints": {"v": ["a", "b"]},
    "freshness": {"timestamp_column": "timestamp", "max_age_hours": 48},
    "distribution": {"n": {"expected_mean": 1.0, "tolerance": 0.0}},
    "severity": {"uniqueness": "warning", "range": "error"},
    "min_rows": 3,
}


def test_row_wise_checks_judge_what_no_run_has_accepted_the_others_the_whole_table(tmp_path: Path) -> None:
    table, checks = shop(tmp_path, WORLD), {"validation": {"s": {**CHECKS, "min_rows": 2}}}
    table.insert(fact("u1", 10), fact("u2", 11))
    first = table.run({"cursor": "at"}, **checks)
    assert first.status == "done"
    assert all(passed for passed, _ in results(first).values())
    table.insert(fact("u1", 12, v="odd"), fact("u3", 13, v="odd"), fact("u4", 14, n=10), fact("u5", 15, n=None))
    second = table.run({"cursor": "at"}, validation={"s": CHECKS})
    assert second.status == "blocked"
    found = results(second)
    assert found["categorical"] == (False, 2)
    assert found["range"] == (False, 1)
    assert found["completeness"] == (False, 1)
    assert found["uniqueness"] == (False, 1), "u1 stands in an old row and a new one"
    assert found["row_count"] == (True, 0)
    assert found["distribution"] == (False, 0)
    [mean] = [r.details["actual_mean"] for r in second.sources[0].report.results if "actual_mean" in r.details]
    assert mean == (1 + 1 + 1 + 1 + 10) / 5, "of all rows, old and new"
    shares = [r.details for r in second.sources[0].report.results if r.check_name == "completeness_validation"]
    assert shares[0]["null_fraction"] == 1 / 4, "of the new rows only"


def test_a_blocked_run_moves_the_cursor_on_and_the_next_judges_again(tmp_path: Path) -> None:
    """The rows that blocked are judged with the new ones, until the source has mended them."""
    table, checks = shop(tmp_path, WORLD), {"validation": {"s": {"categorical_constraints": {"v": ["a"]}}}}
    source = {"cursor": "at", "deduplicate": {"keys": ["user_id"]}}
    write_world(tmp_path)
    table.insert(fact("u1", 10), fact("u2", 11))
    assert table.run(source, **checks, **VIEWS).status == "done"
    before = published(tmp_path)
    table.insert(fact("u3", 12, v="odd"), fact("u4", 13))
    blocked = table.run(source, **checks, **VIEWS)
    assert (blocked.status, blocked.exit_code, blocked.sources[0].state) == ("blocked", 1, "blocked")
    assert results(blocked)["categorical"] == (False, 1)
    assert published(tmp_path) == before, "features are untouched"
    assert table.read().position == {"type": "int", "value": "13"}, "the cursor has moved on"
    assert (table.read().state, table.read(accepted=True).position) == ("blocked", {"type": "int", "value": "11"})

    table.insert(fact("u5", 14, v="odder"))
    again = table.run(source, **checks, **VIEWS)
    assert again.sources[0].metrics.records_read == 2, "13 once more, and 14"
    assert results(again)["categorical"] == (False, 2), "the one of the blocked run, and the new one"
    assert again.status == "blocked"

    table.sql("UPDATE t SET v = 'a', at = 15 WHERE v LIKE 'odd%'")
    mended = table.run(source, **checks, **VIEWS)
    assert (mended.status, results(mended)["categorical"]) == ("done", (True, 0))
    assert published(tmp_path) != before
    assert table.read().state == "accepted"
    assert len(table.landed()) == 5


def published(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (folder / "features").rglob("*.parquet")}


@pytest.mark.parametrize("state", ["running", "blocked"])
def test_rows_that_nobody_judged_are_judged_by_the_next_run(
    tmp_path: Path, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those of a run that died between landing and judging."""
    table, checks = shop(tmp_path, WORLD), {"validation": {"s": {"categorical_constraints": {"v": ["a"]}}}}
    table.insert(fact("u1", 10))
    table.run({"cursor": "at"}, **checks)
    table.insert(fact("u2", 11, v="odd"))

    def die(step: str) -> None:
        if state == "running" and step == "table.landed":
            raise RuntimeError("died")

    with monkeypatch.context() as patch:
        patch.setattr(steps, "listener", die)
        if state == "running":
            with pytest.raises(RuntimeError, match="died"):
                table.run({"cursor": "at"}, **checks)
            assert table.read().state == "landed"
        else:
            table.run({"cursor": "at"}, **checks)
    table.insert(fact("u3", 12))
    report = table.run({"cursor": "at"}, **checks)
    assert (report.status, results(report)["categorical"]) == ("blocked", (False, 1))


def test_an_accepted_table_that_is_gone_is_no_reason_to_fail(tmp_path: Path) -> None:
    """Then everything is judged."""
    table, checks = shop(tmp_path, WORLD), {"validation": {"s": {"categorical_constraints": {"v": ["a"]}}}}
    source = {"cursor": "at", "deduplicate": {"keys": ["user_id"]}}
    table.insert(fact("u1", 10), fact("u2", 11))
    table.run(source, **checks)
    accepted = table.read().files
    table.insert(fact("u1", 12, v="odd"))
    assert table.run(source, **checks).status == "blocked"
    [lost] = [f for f in accepted if f not in table.read().files]
    (tmp_path / ".maestro" / lost.path).unlink()
    table.sql("UPDATE t SET v = 'a', at = 13")
    assert table.run(source, **checks).status == "done"


def test_a_new_column_between_an_accepted_and_a_judged_table(tmp_path: Path) -> None:
    """Files that were cast to more columns hold no new rows."""
    table = shop(tmp_path, WORLD)
    checks = {"validation": {"s": {"categorical_constraints": {"v": ["a"]}, "severity": {"categorical": "warning"}}}}
    table.insert(fact("u1", 10, v="odd"), fact("u2", 11))
    assert results(table.run({"cursor": "at"}, **checks))["categorical"] == (False, 1)
    table.sql("ALTER TABLE t ADD COLUMN extra REAL", "ALTER TABLE t ADD COLUMN more TEXT")
    table.insert(fact("u3", 12, v="odd") | {"n": 0.5, "extra": 1.5})
    report = table.run({"cursor": "at"}, **checks)
    assert results(report)["categorical"] == (False, 1), "the new row only"
    assert report.sources[0].metrics.rows == 3


def test_a_shrunk_table_in_mode_full_is_judged_as_a_whole(tmp_path: Path) -> None:
    table, checks = shop(tmp_path, WORLD), {"validation": {"s": {"categorical_constraints": {"v": ["a"]}}}}
    table.insert(fact("u1", 10, v="odd"), fact("u2", 11, v="odd"))
    assert results(table.run({}, **checks))["categorical"] == (False, 2)
    table.sql("DELETE FROM t WHERE at = 10")
    report = table.run({}, **checks)
    assert results(report)["categorical"] == (False, 1)
    assert report.sources[0].metrics.rows == 1


def test_the_first_read_after_a_table_without_rows(tmp_path: Path) -> None:
    table = shop(tmp_path, COLUMNS)
    assert table.run({"cursor": "at"}, validation={"s": {"min_rows": 0}}).status == "done"
    assert table.read().position is None
    table.insert(row(1, 10))
    assert table.run({"cursor": "at"}, validation={"s": {"min_rows": 0}}).sources[0].metrics.records_written == 1
    assert values(table) == [(1, 10, "a")]


def test_a_run_at_another_as_of_reads_on(tmp_path: Path) -> None:
    """The cursor belongs to the pipeline, not to the as-of."""
    table = shop(tmp_path)
    table.insert(row(1, 10), row(2, 11))
    table.run({"cursor": "at"})
    report = run_pipeline(table.pipeline({"cursor": "at"}), as_of=T + DAY)
    assert report.sources[0].metrics.records_read == 1
