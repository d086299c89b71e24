"""Full, append and merge over several runs, against the oracle; blocked runs; what a changed declaration does."""

from __future__ import annotations

import json
import math
import uuid
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from engine import Pipeline, run_pipeline, steps
from engine.errors import SourceError
from engine.history import collect_files
from engine.landing import LandedTable, land
from engine.landing.position import decode, earlier, encode, held_back
from engine.ledger import Ledger, Read
from engine.plan import compile_plan
from engine.sources import Chunk, Reading, Request, plain
from engine.spec import DatabaseSpec
from tests.landing.oracle import Oracle, Sums, multiset
from tests.landing.world import COLUMNS, Shop, rows_of, shop, small_chunks
from tests.run.world import DAY, T, write_world
from tests.servers.mariadb import MariaDB
from tests.servers.postgres import Postgres

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
    ("mark", "stays"), [("1", False), ("0", True), ("NULL", True), ("'2025-10-04'", False), ("''", True), ("'N'", True)]
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
def test_another_declaration_reads_everything_anew_when_asked(tmp_path: Path, change: dict[str, Any]) -> None:
    """What was appended may be gone from the source."""
    table = shop(tmp_path)
    table.insert(row(1, 10), row(2, 11), row(3, 12))
    table.run({"cursor": "at"})
    table.sql("DELETE FROM t WHERE id = 1")
    with pytest.raises(SourceError, match="its declaration has changed") as caught:
        table.run({"cursor": "at", **change})
    assert (caught.value.code, "--reread s" in str(caught.value.fix)) == ("source.table_changed", True)
    assert values(table) == [(1, 10, "a"), (2, 11, "a"), (3, 12, "a")]
    metrics = run_pipeline(table.pipeline({"cursor": "at", **change}), as_of=T, reread=["s"]).sources[0].metrics
    assert (metrics.records_read, metrics.rows) == (2, 2)


def test_a_merge_of_another_declaration_reads_everything_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table, source = shop(tmp_path), {"cursor": "at", "deduplicate": KEYED}
    table.insert(row(1, 10), row(2, 11), row(3, 12))
    table.run(source)
    table.sql("DELETE FROM t WHERE id = 1")
    metrics = table.run({**source, "critical_columns": ["v"]}).sources[0].metrics
    assert (metrics.records_read, metrics.rows) == (2, 2)
    assert "everything is read anew: its declaration has changed" in caplog.text


def test_a_host_may_move(tmp_path: Path) -> None:
    plans = [
        compile_plan(
            Pipeline(
                name="p",
                base=tmp_path,
                sources={"s": {"type": "database", "connection_string": f"postgresql://{host}/shop", "table": "t"}},
            )
        )
        for host in ("u:p@one:5432", "v:q@two")
    ]
    assert len({plan.sources[0].fingerprint for plan in plans}) == 1


def test_a_table_is_not_dropped_with_its_source_but_by_gc(tmp_path: Path) -> None:
    table = shop(tmp_path)
    table.insert(row(1, 10))
    table.run({"cursor": "at"})
    (tmp_path / "x.csv").write_text("a\n1\n")
    other = {"other": {"type": "file", "path": "x.csv"}}
    table.run({}, sources=other)
    table.sql("DELETE FROM t")
    table.run({"cursor": "at"})
    assert values(table) == [(1, 10, "a")]
    collect_files(compile_plan(table.pipeline({}, sources=other)), None)
    assert not (tmp_path / ".maestro/landing/p/s").exists()


def test_what_a_lost_ledger_knew_is_set_aside(tmp_path: Path) -> None:
    table = shop(tmp_path)
    table.insert(row(1, 10))
    table.run({"cursor": "at"})
    for file in (tmp_path / ".maestro").glob("ledger.db*"):
        file.unlink()
    table.sql("DELETE FROM t")
    table.run({"cursor": "at"})
    [aside] = (tmp_path / ".maestro" / "landing").glob("p.*")
    [kept] = aside.rglob("*.parquet")
    assert pl.read_parquet(kept)["id"].to_list() == [1]


@pytest.mark.parametrize(("keys", "expected"), [(None, [(1, "eu"), (2, "us")]), (KEYED, [(1, "eu"), (2, "us")])])
def test_a_column_that_is_added_doubles_no_row(tmp_path: Path, keys: Any, expected: list[Any]) -> None:
    table = shop(tmp_path)
    source = {"cursor": "at", "lateness": 5, "mode": "append", "deduplicate": keys}
    table.insert(row(1, 10), row(2, 11))
    table.run(source)
    table.sql("ALTER TABLE t ADD COLUMN region TEXT DEFAULT 'eu'", "UPDATE t SET region = 'us' WHERE id = 2")
    table.run(source)
    assert [(r["id"], r["region"]) for r in sorted(table.landed(), key=lambda r: r["id"])] == expected
    table.sql("ALTER TABLE t DROP COLUMN region")
    table.run(source)
    assert len(table.landed()) == 2


def test_a_moment_to_come_does_not_stop_the_cursor(tmp_path: Path) -> None:
    table, source = shop(tmp_path, "id INTEGER, at TEXT, v TEXT"), {"cursor": "at"}
    table.insert({"id": 1, "at": "9999-12-31 00:00:00", "v": "a"})
    table.run(source)
    now = datetime.now(UTC).replace(tzinfo=None)
    table.insert({"id": 2, "at": now.isoformat(" ", "seconds"), "v": "b"})
    table.run(source)
    assert sorted(r["id"] for r in table.landed()) == [1, 2]


def test_a_pipeline_of_any_name(tmp_path: Path) -> None:
    table = shop(tmp_path)
    table.insert(row(1, 10))
    for name in ("ledger", "lock", "landing"):
        assert run_pipeline(table.pipeline({}, name=name), as_of=T).status == "done"


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
    with pytest.raises(SourceError, match="gone or damaged"):
        table.run({"cursor": "at"})
    merged = {"cursor": "at", "deduplicate": KEYED}
    run_pipeline(table.pipeline(merged), as_of=T, reread=["s"])
    (tmp_path / ".maestro" / table.read().files[0].path).unlink()
    assert table.run(merged).sources[0].metrics.records_read == 2
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


# --- positions ------------------------------------------------------------------------------------------------------


def land_frames(folder: Path, reads: list[pl.DataFrame], **keys: Any) -> list[LandedTable]:
    """What several reads of a database land that gives these frames, whatever it is asked for."""
    spec = DatabaseSpec(type="database", connection_string=SecretStr("sqlite:///x"), table="t", cursor="at", **keys)
    landed: list[LandedTable] = []
    for number, frame in enumerate(reads):
        base = None
        if landed:
            facts = {"pipeline": "p", "source": "s", "run_id": "r", "location": "", "fingerprint": "", "started_at": ""}
            base = Read(
                read_id="", mode="append", state="landed", files=landed[-1].files, position=landed[-1].position, **facts
            )
        source = Frames(frame)
        landed.append(land(source, spec, folder / str(number), name="s", memory_limit="64MiB", root=folder, base=base))
        since = source.asked[0].since
        assert since == (None if base is None or base.position is None else decode(base.position))
    return landed


class Frames:
    kind, location = "database", "frames"

    def __init__(self, *frames: pl.DataFrame) -> None:
        self.frames, self.asked = frames, list[Request]()

    def open(self, request: Request) -> AbstractContextManager[Reading]:
        self.asked.append(request)
        return plain(lambda: (Chunk(i, "frame", f.lazy(), f.height) for i, f in enumerate(self.frames)))


@pytest.mark.parametrize(
    ("dtype", "values", "position"),
    [
        (pl.Int64, [3, None, -1], {"type": "int", "value": "3"}),
        (pl.UInt64, [2**64 - 1, 0], {"type": "int", "value": str(2**64 - 1)}),
        (pl.Float64, [0.1, 1e300, None, math.nan, math.inf], {"type": "float", "value": "1e+300"}),
        (pl.String, ["b", "a", "B"], {"type": "str", "value": "b"}),
        (pl.Decimal(38, 9), [Decimal("1.000000001"), Decimal("-2")], {"type": "decimal", "value": "1.000000001"}),
        (pl.Date, [date(2025, 10, 4), None], {"type": "date", "value": "2025-10-04"}),
        (pl.Datetime("us"), [datetime(2025, 10, 4, 1, 2, 3, 4)], {"type": "datetime", "value": "2025-10-04T01:02:03.000004"}),
        (pl.Datetime("us", "UTC"), [T], {"type": "datetime", "value": "2025-10-04T00:00:00+00:00"}),
        (pl.Int64, [None, None], None),
        (pl.Int64, [], None),
    ],
)  # fmt: skip
def test_a_position_is_the_largest_value_exactly(tmp_path: Path, dtype: Any, values: list[Any], position: Any) -> None:
    frame = pl.DataFrame({"at": values}, schema={"at": dtype})
    first, second = land_frames(tmp_path, [frame, frame])
    assert first.position == second.position == position
    assert json.loads(json.dumps(first.position)) == position
    assert encode(decode(position)) == position
    assert second.metrics.rows == len(values), "read again, and there once"


def test_a_position_never_goes_back(tmp_path: Path) -> None:
    found = land_frames(
        tmp_path, [pl.DataFrame({"at": [n]}) for n in (5, 3)] + [pl.DataFrame({"at": [None]}, schema={"at": pl.Int64})]
    )
    assert [decode(f.position) for f in found] == [5, 5, 5]


def test_a_nan_in_the_cursor_is_there_once(tmp_path: Path) -> None:
    """Databases order NaN above all numbers, so it is read again each time."""
    nan = math.nan
    reads = [pl.DataFrame({"at": rows}) for rows in ([nan, 1.0], [nan, 1.0, 5.0], [nan, 5.0, 7.0], [nan], [nan, nan])]
    found = land_frames(tmp_path, reads)
    assert [f.metrics.rows for f in found] == [2, 3, 4, 4, 5]


@pytest.mark.parametrize(
    ("value", "lateness", "earliest"),
    [
        (10, 3, 7),
        (0.5, 1, -0.5),
        (Decimal("10.5"), 3, Decimal("7.5")),
        (datetime(2025, 10, 4, 1), "90m", datetime(2025, 10, 3, 23, 30)),
        (T, "1d", T - DAY),
        (date(2025, 10, 4), "1h", date(2025, 10, 3)),
        (date(2025, 10, 4), "2d", date(2025, 10, 2)),
        (datetime(1, 1, 1, 0, 30), "1h", datetime(1, 1, 1, 0, 30)),
        ("2025-10-04", "1h", "2025-10-03"),
        ("2025-10-04T01:00:00.25Z", "1h", "2025-10-04T00:00:00"),
        ("2025-10-04 01:00", "1h", "2025-10-04 00:00"),
        (7, None, 7),
        ("x", None, "x"),
    ],
)
def test_lateness_is_taken_from_the_position(value: Any, lateness: Any, earliest: Any) -> None:
    assert earlier(value, lateness, "s") == earliest


@pytest.mark.parametrize(
    ("largest", "bound", "position"),
    [
        (T, T - DAY, T - DAY),
        (T - DAY, T, T - DAY),
        (datetime(2025, 10, 4), T - DAY, datetime(2025, 10, 3)),
        (date(2025, 10, 4), T - DAY, date(2025, 10, 3)),
        (5, T, 5),
        ("x", T, "x"),
        (None, T, None),
        (T, None, T),
    ],
)
def test_a_position_is_held_back_to_what_is_committed(largest: Any, bound: Any, position: Any) -> None:
    assert held_back(largest, bound) == position


# --- on servers -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Served:
    """A table of a server, and a source that reads it."""

    server: Postgres | MariaDB
    name: str
    folder: Path

    def sql(self, *statements: str) -> None:
        for statement in statements:
            self.server.execute(statement.replace("{t}", self.name) + ";")

    def run(self, **source: Any) -> Any:
        declared = {"type": "database", "connection_string": self.server.url, "table": self.name, **source}
        report = run_pipeline(Pipeline(base=self.folder, name="p", sources={"s": declared}), as_of=T)
        return report.sources[0]

    def landed(self) -> list[tuple[Any, ...]]:
        with Ledger(self.folder / ".maestro") as book:
            read = book.table("p", "s")
        assert read is not None
        return sorted((tuple(r.values()) for r in rows_of(self.folder / ".maestro", read.files)), key=str)


@pytest.fixture(params=["postgres", "mariadb"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Served:
    return Served(request.getfixturevalue(f"{request.param}_server"), f"t_{uuid.uuid4().hex[:12]}", tmp_path)


def test_merge_on_a_server(served: Served) -> None:
    served.sql(
        "CREATE TABLE {t} (id INTEGER PRIMARY KEY, at INTEGER, v VARCHAR(9))",
        "INSERT INTO {t} VALUES (1, 10, 'a'), (2, 11, 'b'), (3, NULL, 'c')",
    )
    first = served.run(cursor="at", deduplicate=KEYED)
    assert (first.metrics.records_read, first.metrics.rows, first.mode) == (3, 3, "merge")
    served.sql(
        "UPDATE {t} SET at = 12, v = 'A' WHERE id = 1",
        "DELETE FROM {t} WHERE id = 2",
        "INSERT INTO {t} VALUES (4, 11, 'd')",
    )
    metrics = served.run(cursor="at", deduplicate=KEYED).metrics
    assert served.landed() == [(1, 12, "A"), (3, None, "c"), (4, 11, "d")]
    assert (metrics.records_read, metrics.rows_replaced, metrics.rows_deleted) == (3, 1, 1)
    again = served.run(cursor="at", deduplicate=KEYED).metrics
    assert (again.records_written, again.rows) == (0, 3)


@pytest.mark.parametrize(("kind", "values"), [("DATE", ["2025-10-01", "2025-10-03"]), ("DECIMAL(20, 6)", ["1.000001", "2.5"]), ("VARCHAR(20)", ["a", "b"])])  # fmt: skip
def test_append_on_a_server_by_cursors_of_several_types(served: Served, kind: str, values: list[str]) -> None:
    served.sql(
        f"CREATE TABLE {{t}} (id INTEGER, at {kind})",
        f"INSERT INTO {{t}} VALUES (1, '{values[0]}'), (1, '{values[0]}')",
    )
    served.run(cursor="at")
    served.sql(f"INSERT INTO {{t}} VALUES (2, '{values[1]}'), (1, '{values[0]}')")
    metrics = served.run(cursor="at").metrics
    assert (metrics.records_read, metrics.duplicates_removed, metrics.rows) == (4, 2, 4)
    assert [row[0] for row in served.landed()] == [1, 1, 1, 2]
    assert served.run(cursor="at").metrics.records_read == 1


def test_a_moment_as_cursor_on_a_server(served: Served) -> None:
    """Moments of the past, of which none is held back."""
    served.sql(
        "CREATE TABLE {t} (id INTEGER, at TIMESTAMP(6) NULL)",
        "INSERT INTO {t} VALUES (1, '2025-10-01 00:00:00.000001')",
    )
    served.run(cursor="at")
    served.sql("INSERT INTO {t} VALUES (2, '2025-10-01 00:00:00.000002'), (3, '2025-09-30 23:30:00'), (4, NULL)")
    assert served.run(cursor="at", lateness="1h").metrics.records_written == 3
    assert [row[0] for row in served.landed()] == [1, 2, 3, 4]


def test_rows_of_a_text_key_are_found_deleted_on_a_server(served: Served) -> None:
    served.sql(
        "CREATE TABLE {t} (id VARCHAR(9) PRIMARY KEY, at INTEGER)",
        "INSERT INTO {t} VALUES ('a', 1), ('b', 2), ('c', 3)",
    )
    served.run(cursor="at", deduplicate=KEYED)
    served.sql("DELETE FROM {t} WHERE id = 'a'")
    assert served.run(cursor="at", deduplicate=KEYED).metrics.rows_deleted == 1
    assert served.landed() == [("b", 2), ("c", 3)]


@pytest.mark.parametrize(
    ("declared", "value"), [("", 7), ("TEXT", 7), ("NUMERIC", 2**53 + 1), ("DATE", 0.5), ("BOOLEAN", 2)]
)
def test_a_read_without_values_in_a_column_leaves_its_type_as_it_was(tmp_path: Path, declared: str, value: Any) -> None:
    """What SQLite says of a column without values may have nothing to do with the values it had."""
    table = shop(tmp_path, f"id INTEGER, at INTEGER, n {declared}")
    query = {"": "SELECT * FROM t", "TEXT": "SELECT id, at, n + 0 AS n FROM t"}.get(declared)
    source = {"cursor": "at", "query": query, "table": None if query else "t"}
    table.insert({"id": 1, "at": 10, "n": value})
    table.run(source)
    before = table.read().schema
    table.sql("DELETE FROM t")
    table.insert({"id": 2, "at": 11, "n": None})
    table.run(source)
    assert table.read().schema == before
    assert [r["n"] for r in table.landed()] == [value, None]
    table.insert({"id": 3, "at": 12, "n": value})
    table.run(source)
    assert [r["n"] for r in table.landed()] == [value, None, value]
