"""What a run promises: the sums, whole files, clean re-runs, blocked runs, the ledger."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from engine import Pipeline, compile_plan, run_pipeline
from engine.errors import DataError, LedgerError, MaestroError, SinkError, SourceError, UsageError
from engine.inspection import validate
from engine.ledger import Ledger
from engine.run import execute
from engine.sinks.parquet import Part
from tests.run.world import ACTIVITIES, DAY, USERS, T, files, landed_files, pipeline, published, run, write_world


def ledger(folder: Path) -> Ledger:
    return Ledger(folder / ".maestro")


def test_a_run_publishes_the_features_and_says_what_it_did(tmp_path: Path) -> None:
    write_world(tmp_path)
    report = run(tmp_path)
    assert (report.status, report.exit_code) == ("done", 0)
    assert files(tmp_path) == ["user_features/event_date=2025-10-04/part-20251004T000000Z.parquet"]
    rows = published(tmp_path)
    assert rows["user_id"].to_list() == ["u1", "u2", "u3"]
    assert rows["tasks_completed_7d"].to_list() == [1, 1, 0]
    assert rows["experience_years"].to_list() == [1.0, 6.0, None], "the newest row of u2 counts"
    assert rows["bug_rate"].to_list() == [0.5, 1.0, 0.0]
    assert rows.schema["event_timestamp"] == pl.Datetime("us", "UTC")
    users = report.sources[0].metrics
    assert (users.records_read, users.records_written, users.records_failed, users.duplicates_removed) == (5, 3, 1, 1)
    assert users.error_rate == 0.2
    assert users.failed_by_column == {"user_id": 1}
    [view] = report.views
    assert view.rows == [3]
    assert view.settings["aggregation_window"] == "7d"
    assert view.timeless == {"users": ["experience_years"]}
    assert view.left_out == {"activities": {"null_keys": 1, "null_timestamps": 0}}
    json.dumps(report.to_dict(), allow_nan=False)


def test_a_file_holds_key_moment_features_and_creation_time(tmp_path: Path) -> None:
    write_world(tmp_path)
    report = run(tmp_path)
    frame = pl.read_parquet(tmp_path / "features" / files(tmp_path)[0], hive_partitioning=False)
    assert frame.columns[:2] == ["user_id", "event_timestamp"]
    assert frame.columns[-1] == "created_timestamp"
    assert frame["created_timestamp"].unique().to_list() == [report.created_timestamp]
    assert frame.schema["created_timestamp"] == pl.Datetime("us", "UTC")
    assert frame["user_id"].is_sorted()


def test_the_ledger_records_runs_reads_and_files(tmp_path: Path) -> None:
    write_world(tmp_path)
    report = run(tmp_path)
    with ledger(tmp_path) as book:
        [row] = book.runs()
        assert (row["run_id"], row["status"], row["as_of"]) == (report.run_id, "done", ["2025-10-04T00:00:00Z"])
        assert {r.source: r.state for r in book.reads(report.run_id)} == {
            "users": "accepted",
            "activities": "accepted",
        }
        [file] = book.published("small", "user_features")
        assert (file["path"], file["rows"], file["run_id"]) == (files(tmp_path)[0], 3, report.run_id)
        assert file["state"] == "published"
    chunks = landed_files(tmp_path, report.run_id, "activities")
    assert [pl.read_parquet(c).height for c in chunks] == [6]


def test_a_rerun_replaces_its_file_with_the_same_rows(tmp_path: Path) -> None:
    write_world(tmp_path)
    run(tmp_path)
    before, names = published(tmp_path), files(tmp_path)
    run(tmp_path)
    assert files(tmp_path) == names
    assert_frame_equal(published(tmp_path), before, rel_tol=1e-9)
    assert not list(tmp_path.glob(".features.staging*"))


def test_two_as_ofs_give_two_files(tmp_path: Path) -> None:
    write_world(tmp_path)
    run(tmp_path, [T, T - DAY, "2025-10-04T00:00:00.5Z"])
    assert files(tmp_path) == [
        "user_features/event_date=2025-10-03/part-20251003T000000Z.parquet",
        "user_features/event_date=2025-10-04/part-20251004T000000.500000Z.parquet",
        "user_features/event_date=2025-10-04/part-20251004T000000Z.parquet",
    ]


def test_a_failed_error_check_blocks_and_leaves_what_was_published(tmp_path: Path) -> None:
    write_world(tmp_path)
    run(tmp_path)
    before = (tmp_path / "features" / files(tmp_path)[0]).read_bytes()
    report = run(tmp_path, validation={"activities": {"categorical_constraints": {"task_type": ["backend"]}}})
    assert (report.status, report.exit_code, report.views) == ("blocked", 1, [])
    assert (tmp_path / "features" / files(tmp_path)[0]).read_bytes() == before
    with ledger(tmp_path) as book:
        states = {r.source: r.state for r in book.reads(report.run_id)}
        assert states == {"users": "accepted", "activities": "blocked"}
        assert book.runs()[-1]["status"] == "blocked"
    assert all(c.exists() for c in landed_files(tmp_path, report.run_id, "activities")), "blocked data stays landed"
    assert run(tmp_path).status == "done"


def test_a_warning_does_not_block(tmp_path: Path) -> None:
    write_world(tmp_path)
    report = run(tmp_path, validation={"activities": {"range_constraints": {"completion_time": [0, 60]}}})
    assert report.exit_code == 0
    [check] = [r for r in report.sources[1].report.results if not r.passed]  # type: ignore[union-attr]
    assert (check.check_name, check.severity, check.failed_records) == ("range_validation", "warning", 3)


def test_a_failing_source_costs_nothing_that_was_published(tmp_path: Path) -> None:
    write_world(tmp_path)
    run(tmp_path)
    before = published(tmp_path)
    (tmp_path / "data" / "users.parquet").write_bytes(b"PAR1 not a parquet file PAR1")
    with pytest.raises(SourceError) as caught:
        run(tmp_path)
    assert caught.value.exit_code == 3
    assert caught.value.where == "sources.users"
    assert caught.value.fix
    assert_frame_equal(published(tmp_path), before)
    with ledger(tmp_path) as book:
        assert [r["status"] for r in book.runs()] == ["done", "failed"]
        assert book.runs()[-1]["error"]["code"] == caught.value.code


def test_a_failure_while_computing_publishes_no_view_at_all(tmp_path: Path) -> None:
    write_world(tmp_path)
    tasks = pl.DataFrame({"task_id": ["t1", "t1"]})
    tasks.write_parquet(tmp_path / "data" / "tasks.parquet")
    sources = {**pipeline(tmp_path).model_dump()["sources"], "tasks": {"type": "file", "path": "data/tasks.parquet"}}
    with pytest.raises(DataError, match="t1"):
        run(tmp_path, sources=sources, features={"user_features": {}, "task_features": {}})
    assert not (tmp_path / "features").exists() or files(tmp_path) == []
    assert not list(tmp_path.glob(".features.staging*"))


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"required_columns": ["emial"]}, "source.missing_column", ["emial", "did you mean 'email'?"]),
        ({"critical_columns": ["user"]}, "source.missing_column", ["'user'", "critical_columns"]),
        ({"column_mapping": {"uid": "user_id"}}, "source.missing_column", ["'uid'", "column_mapping"]),
        ({"column_mapping": {"id": "email"}, "critical_columns": [], "deduplicate": None}, "source.mapping_collision", ["email"]),
        ({"deduplicate": {"keys": ["user_id"], "order_by": "modified"}}, "source.missing_column", ["'modified'"]),
        ({"path": "data/user.parquet"}, None, ["user.parquet"]),
    ],
)  # fmt: skip
def test_what_a_source_lacks_is_named(
    tmp_path: Path, change: dict[str, Any], code: str | None, words: list[str]
) -> None:
    write_world(tmp_path)
    sources = pipeline(tmp_path).model_dump()["sources"]
    with pytest.raises(SourceError) as caught:
        run(tmp_path, sources={**sources, "users": {**sources["users"], **change}})
    assert code is None or caught.value.code == code
    assert caught.value.fix
    for word in words:
        assert word in str(caught.value)


def test_one_run_at_a_time(tmp_path: Path) -> None:
    write_world(tmp_path)
    with ledger(tmp_path) as book, book.lease("small"), pytest.raises(LedgerError) as caught:
        run(tmp_path)
    assert caught.value.code == "ledger.locked"
    assert str(os.getpid()) in str(caught.value)
    assert run(tmp_path).status == "done"


KILLED = """
import os, signal, sys
from pathlib import Path
from datetime import timedelta
import engine.sinks.parquet as sink
sys.path.insert(0, sys.argv[2])
from tests.run.world import DAY, T, run
publish, count = sink.Part.publish, [0]
def die(part):
    if count[0] == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    count[0] += 1
    publish(part)
sink.Part.publish = die
run(Path(sys.argv[1]), [T, T + DAY])
"""


@pytest.mark.parametrize("after", [0, 1])
def test_a_run_killed_while_publishing_leaves_whole_files_and_the_next_one_mends(tmp_path: Path, after: int) -> None:
    """The process dies before its first or its second rename; that it did is counted by its exit code."""
    for name in ("killed", "whole"):
        (tmp_path / name).mkdir()
        write_world(tmp_path / name)
        run(tmp_path / name, T - DAY)
    folder = tmp_path / "killed"
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", KILLED, str(folder), str(root), str(after)]
    assert subprocess.run(command, check=False, timeout=120).returncode == -9
    assert published(folder)["event_timestamp"].unique().sort().to_list() == [T - DAY, T][: 1 + after]
    assert list(folder.glob(".features.staging*")), "the dead run left its staging behind"
    with ledger(folder) as book:
        states = [f["state"] for f in book.published("small", "user_features")]
        assert states == ["published", "publishing", "publishing"], "what a reader may see is on record"
    run(folder, [T, T + DAY])
    run(tmp_path / "whole", [T, T + DAY])
    assert_frame_equal(published(folder), published(tmp_path / "whole"), rel_tol=1e-9)
    assert not list(folder.glob(".features.staging*"))
    with ledger(folder) as book:
        assert [r["status"] for r in book.runs()] == ["done", "interrupted", "done"]
        assert {f["state"] for f in book.published("small", "user_features")} == {"published"}


def test_superseded_landings_are_removed(tmp_path: Path) -> None:
    write_world(tmp_path)
    run(tmp_path)
    report = run(tmp_path)
    landed = {path for name in ("users", "activities") for path in landed_files(tmp_path, report.run_id, name)}
    assert {p for p in (tmp_path / ".maestro" / "landing").rglob("*") if p.is_file()} == landed


def test_a_newer_ledger_is_refused(tmp_path: Path) -> None:
    write_world(tmp_path)
    run(tmp_path)
    with sqlite3.connect(tmp_path / ".maestro" / "ledger.db") as connection:
        connection.execute("UPDATE schema_version SET version = 99")
    connection.close()
    with pytest.raises(LedgerError, match="version 99") as caught:
        run(tmp_path)
    assert caught.value.fix == "upgrade maestro-engine"


def test_a_damaged_ledger_is_named(tmp_path: Path) -> None:
    write_world(tmp_path)
    (tmp_path / ".maestro").mkdir()
    (tmp_path / ".maestro" / "ledger.db").write_bytes(b"not a database" * 100)
    with pytest.raises(LedgerError) as caught:
        run(tmp_path)
    assert caught.value.code == "ledger.unreadable"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(st.sampled_from(["a", "b", "c", None]), st.sampled_from([1, 2, 3, None]), st.integers(0, 9)),
        max_size=12,
    ),
    cut=st.integers(0, 12),
)
def test_rows_in_are_rows_written_failed_and_removed(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str | None, int | None, int]], cut: int
) -> None:
    """Invariant 1, and deduplication, against plain Python."""
    folder = tmp_path_factory.mktemp("sums")
    schema = {"k": pl.String, "o": pl.Int64, "v": pl.Int64}
    frame = pl.DataFrame(rows, schema=schema, orient="row").with_row_index("n")
    frame[:cut].write_parquet(folder / "1.parquet")
    frame[cut:].write_parquet(folder / "2.parquet")
    source = {
        "type": "file",
        "path": "*.parquet",
        "critical_columns": ["v"],
        "deduplicate": {"keys": ["k"], "order_by": "o"},
    }
    declared = Pipeline(base=folder, name="sums", sources={"s": source})
    report = run_pipeline(declared, as_of=T)
    expected: dict[Any, dict[str, Any]] = {}
    for row in frame.iter_rows(named=True):
        key = row["k"] if row["k"] is not None else ("null", row["n"])
        known = expected.get(key)
        order = -1 if row["o"] is None else row["o"]
        if known is None or order >= (-1 if known["o"] is None else known["o"]):
            expected[key] = row
    metrics = report.sources[0].metrics
    assert metrics.records_read == len(rows)
    assert metrics.records_read == metrics.records_written + metrics.records_failed + metrics.duplicates_removed
    landed = pl.concat([pl.read_parquet(c) for c in landed_files(folder, report.run_id, "s")])
    assert sorted(landed["n"].to_list()) == sorted(r["n"] for r in expected.values())


def test_backfill_equals_single_runs(tmp_path: Path) -> None:
    """Invariant 4, under the same pin."""
    moments = [T - 2 * DAY, T - DAY, T]
    features = {"user_features": {"handle_missing": "impute", "normalize": True}}
    for name in ("all", "single"):
        (tmp_path / name).mkdir()
        write_world(tmp_path / name)
    run(tmp_path / "all", moments, features=features)
    for moment in moments:
        run(tmp_path / "single", moment, features=features)
    assert_frame_equal(published(tmp_path / "all"), published(tmp_path / "single"), rel_tol=1e-9)


def test_facts_after_the_as_of_change_nothing(tmp_path: Path) -> None:
    """Invariant 3, under a fixed pin."""
    write_world(tmp_path)
    features = {"user_features": {"handle_missing": "impute", "normalize": True}}
    run(tmp_path, features=features)
    before = published(tmp_path)
    later = ACTIVITIES.with_columns(pl.col("timestamp") + 40 * DAY, completion_time=pl.lit(1e6))
    write_world(tmp_path, activities=pl.concat([ACTIVITIES, later]))
    run(tmp_path, features=features)
    assert_frame_equal(published(tmp_path), before, rel_tol=1e-9)


def test_a_run_without_an_as_of_is_now(tmp_path: Path) -> None:
    write_world(tmp_path)
    plan = compile_plan(pipeline(tmp_path))
    report = execute(plan)
    assert report.as_of == plan.as_of
    assert published(tmp_path)["event_timestamp"].unique().to_list() == list(plan.as_of)


def test_what_plan_shows_is_what_run_does(tmp_path: Path) -> None:
    """Invariant 5: the ledger keeps the plan as printed, and just its files appear."""
    write_world(tmp_path)
    plan = compile_plan(pipeline(tmp_path), [T, T - DAY])
    report = execute(plan)
    with ledger(tmp_path) as book:
        assert book.runs()[0]["plan"] == plan.to_dict()
    assert files(tmp_path) == sorted(plan.views[0].files)
    assert [r.name for r in report.sources] == [s.name for s in plan.sources]


def test_a_changed_definition_is_published_again_as_a_whole(tmp_path: Path) -> None:
    write_world(tmp_path)
    run(tmp_path, [T - DAY, T])
    features = {"user_features": {"handle_missing": "keep", "normalize": False, "aggregation_window": "30d"}}
    plan = compile_plan(pipeline(tmp_path, features=features), T + DAY)
    assert plan.views[0].again == (T - DAY, T)
    execute(plan)
    rows = published(tmp_path)
    assert "tasks_completed_7d" not in rows.columns
    assert rows.group_by("event_timestamp").len().sort("event_timestamp")["event_timestamp"].to_list() == [
        T - DAY,
        T,
        T + DAY,
    ]
    assert compile_plan(pipeline(tmp_path, features=features), T).views[0].again == ()


def test_files_with_other_schemas_become_one_table(tmp_path: Path) -> None:
    write_world(tmp_path)
    extra = ACTIVITIES.head(1).select("user_id", "timestamp", "task_type", pl.lit(5).alias("completion_time"))
    extra.write_parquet(tmp_path / "data" / "activities" / "c.parquet")
    report = run(tmp_path)
    chunks = landed_files(tmp_path, report.run_id, "activities")
    schemas = {tuple(pl.read_parquet_schema(c).items()) for c in chunks}
    assert len(schemas) == 1
    assert published(tmp_path)["tasks_completed_7d"].to_list() == [2, 1, 0]


def test_whole_numbers_that_no_float_holds_are_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    pl.DataFrame({"n": [2**53 + 1]}).write_parquet(tmp_path / "data" / "1.parquet")
    pl.DataFrame({"n": [0.5]}).write_parquet(tmp_path / "data" / "2.parquet")
    declared = Pipeline(base=tmp_path, name="n", sources={"s": {"type": "file", "path": "data/*.parquet"}})
    with pytest.raises(SourceError, match="2\\^53") as caught:
        run_pipeline(declared)
    assert caught.value.code == "source.inexact"


def test_order_by_reads_texts_with_offsets_as_moments(tmp_path: Path) -> None:
    users = pl.DataFrame(
        {
            "id": ["u1", "u1"],
            "experience_years": [1.0, 2.0],
            "updated_at": ["2025-10-01T01:00:00Z", "2025-10-01T02:00:00+02:00"],
        }
    )
    write_world(tmp_path, users=users)
    run(tmp_path)
    assert published(tmp_path)["experience_years"].to_list() == [1.0], "02:00+02:00 is midnight UTC, the earlier"


def test_no_secret_in_any_output(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Invariant 7, on a run that fails at each kind of source that takes a secret."""
    secrets = [
        "hunter2-pa55word",
        "tok-0123456789abcdef",
        "AKIA-KEY-0123",
        "s3cr3t-key-4567",
        "query-param-secret-9",
        "url-query-secret-0",
    ]
    bad: dict[str, dict[str, Any]] = {
        "database": {"connection_string": f"postgresql://app:{secrets[0]}@127.0.0.1:1/db", "table": "t"},
        "api": {
            "url": f"http://127.0.0.1:1/tasks?token={secrets[5]}",
            "headers": {"Authorization": f"Bearer {secrets[1]}"},
            "params": {"key": secrets[4]},
        },
        "s3": {
            "bucket": "lake",
            "key": "x.parquet",
            "endpoint_url": "http://127.0.0.1:1",
            "access_key": secrets[2],
            "secret_key": secrets[3],
        },
    }
    caplog.set_level(logging.DEBUG)
    shown = ""
    for kind, keys in bad.items():
        folder = tmp_path / kind
        declared = Pipeline(
            base=folder, name="secret", sources={"s": {"type": kind, "max_retries": 0, "timeout_seconds": 2, **keys}}
        )
        with pytest.raises(MaestroError) as caught:
            run_pipeline(declared)
        shown += f"{caught.value} {caught.value!r} {caught.value.to_dict()} {declared!r}"
        cause = caught.value.__cause__
        while cause is not None:
            shown += f"{cause!r}"
            cause = cause.__cause__
        for path in folder.rglob("*"):
            if path.is_file():
                shown += path.read_bytes().decode("latin-1")
    shown += caplog.text
    assert "127.0.0.1" in shown, "the failures were recorded"
    for secret in secrets:
        assert secret not in shown


def test_users_without_rows_give_an_empty_file(tmp_path: Path) -> None:
    write_world(tmp_path, users=USERS.clear())
    report = run(tmp_path, validation={"users": {"min_rows": 0}}, features={"user_features": {}})
    assert report.views[0].rows == [0]
    assert published(tmp_path).height == 0


@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
@pytest.mark.parametrize("unit", ["ns", "us", "ms"])
def test_moments_of_any_unit_and_zone_are_floored_to_microseconds(tmp_path: Path, unit: str, zone: str | None) -> None:
    """The last nanosecond before T + 1 us is T, and counts; T + 1 us does not."""
    late = T.timestamp() * 10**9
    stamps = [int(late) + 999, int(late) + 10**6, int(late) - 7 * 86400 * 10**9 + 999]
    column = pl.Series(stamps, dtype=pl.Int64).cast(pl.Datetime("ns", "UTC"))
    column = column.dt.replace_time_zone(None) if zone is None else column.dt.convert_time_zone(zone)
    activities = pl.DataFrame(
        {"user_id": ["u1"] * 3, "task_type": ["x"] * 3, "completion_time": [1.0] * 3, "timestamp": column}
    ).with_columns(pl.col("timestamp").dt.cast_time_unit(unit))  # type: ignore[arg-type]
    write_world(tmp_path, activities=activities)
    run(tmp_path)
    assert published(tmp_path)["tasks_completed_7d"].to_list() == [1, 0, 0]


@pytest.mark.parametrize("verb", [run, lambda folder: validate(compile_plan(pipeline(folder)))])
def test_a_workdir_that_cannot_be_made_is_named(tmp_path: Path, verb: Any) -> None:
    write_world(tmp_path)
    (tmp_path / ".maestro").write_text("a file")
    with pytest.raises(LedgerError) as caught:
        verb(tmp_path)
    assert caught.value.code == "workdir.unwritable"


@pytest.mark.parametrize(
    "moment", ["9999-12-31T23:59:59-05:00", "0001-01-01T00:00:00+05:00", "10000-01-01", "soon", ""]
)
def test_an_as_of_beyond_the_calendar_is_refused(tmp_path: Path, moment: str) -> None:
    with pytest.raises(UsageError) as caught:
        compile_plan(pipeline(tmp_path), moment)
    assert caught.value.code == "types.moment"


def test_early_years_have_four_digits(tmp_path: Path) -> None:
    [file] = compile_plan(pipeline(tmp_path), "0800-01-01").views[0].files
    assert file == "user_features/event_date=0800-01-01/part-08000101T000000Z.parquet"


def test_a_publish_that_fails_is_made_good_by_the_next_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_world(tmp_path)
    run(tmp_path, T)
    features = {"user_features": {"handle_missing": "keep", "normalize": False, "features": ["bug_rate"]}}

    def fail(part: Part) -> None:
        raise SinkError("no room", code="output.unwritable", where=str(part.target), fix="make room")

    with monkeypatch.context() as broken:
        broken.setattr(Part, "publish", fail)
        with pytest.raises(SinkError, match="no room"):
            run(tmp_path, T, features=features)
    assert "experience_years" in published(tmp_path).columns, "the old file is still there"
    plan = compile_plan(pipeline(tmp_path, features=features), T + DAY)
    assert plan.views[0].again == (T,), "it holds another definition than the ledger last meant"
    execute(plan)
    assert published(tmp_path).columns == ["user_id", "event_timestamp", "bug_rate"]


def test_an_output_that_is_a_mount_point_stages_inside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_world(tmp_path)
    monkeypatch.setattr(Path, "is_mount", lambda self: self.name == "features")
    seen: list[Path] = []
    publish = Part.publish
    monkeypatch.setattr(Part, "publish", lambda part: (seen.append(part.staged), publish(part))[1])
    run(tmp_path)
    assert seen[0].is_relative_to(tmp_path / "features" / ".staging")
    assert files(tmp_path) == ["user_features/event_date=2025-10-04/part-20251004T000000Z.parquet"]


def test_a_plan_made_before_another_run_published_is_refused(tmp_path: Path) -> None:
    write_world(tmp_path)
    features = {"user_features": {"handle_missing": "keep", "normalize": False, "features": ["bug_rate"]}}
    early = compile_plan(pipeline(tmp_path, features=features), T + DAY)
    run(tmp_path, T)
    with pytest.raises(LedgerError) as caught:
        execute(early)
    assert caught.value.code == "plan.outdated"


@pytest.mark.parametrize("name", ["per%cent", "br[ack]et", "star*q?", "sp ace ü\"'", "#a=b;$"])
def test_a_project_may_lie_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    write_world(folder)
    assert run(folder).status == "done"
    assert run(folder, T + DAY, features={"user_features": {}}).status == "done"
    assert len(files(folder)) == 2
