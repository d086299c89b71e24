"""Daily runs go on from saved state, take in what came late, changed or went, and publish what a backfill would."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from engine import Pipeline, RunReport, backfill, load_pipeline, run_pipeline, steps
from engine.backfilling import plan_backfill
from engine.demo.world import build
from engine.features import FeatureExtractor
from engine.ledger import Ledger
from engine.plan import compile_plan
from tests.run.world import DAY, UTC_US, T

SCHEMA = {"who": pl.String, "at": UTC_US, "n": pl.Int64, "x": pl.Float64, "text": pl.String}
Row = tuple[str, datetime, int | None, float | None, str | None]


def aggregates() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every running aggregate over every kind of span, and those that need rows over windows."""
    spans: dict[str, dict[str, Any]] = {
        "all": {},
        "until": {"offset": "1d"},
        "win": {"window": "36h"},
        "before": {"window": "1d", "offset": "12h"},
        "tumbling": {"window": "1d", "tumbling": True},
    }
    for name, span in spans.items():
        yield f"count_{name}", {"function": "count", **span}
        for function in ("sum", "mean", "std", "var"):
            yield f"{function}_{name}", {"function": function, "value": "x", **span}
        yield f"sum_n_{name}", {"function": "sum", "value": "n", "where": "text <> 'a'", **span}
        for function in ("min", "max", "first", "last"):
            yield f"{function}_{name}", {"function": function, "value": "text", **span}
            yield f"{function}_x_{name}", {"function": function, "value": "x", **span}
    yield "since", {"function": "time_since", "where": "n > 1"}
    yield "distinct", {"function": "count_distinct", "value": "text", "window": "2d"}
    yield "newest", {"function": "last_n", "value": "n", "n": 2, "window": "2d"}


EVERY: dict[str, Any] = {
    "entity": "who",
    "source": "events",
    "timestamp": "at",
    "aggregates": dict(aggregates()),
}
SOME = ("count_all", "sum_all", "std_until", "last_all", "first_win", "sum_n_tumbling", "max_before", "distinct")
VIEW: dict[str, Any] = {**EVERY, "aggregates": {name: EVERY["aggregates"][name] for name in SOME}}


def frame(rows: Sequence[Row]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def declared(folder: Path, view: Mapping[str, Any] = VIEW, **sources: Any) -> Pipeline:
    events = {"type": "file", "path": "data/*.parquet", "mode": "append"}
    return Pipeline(base=folder, name="daily", sources={"events": events, **sources}, features={"v": dict(view)})


def write(folder: Path, files: Mapping[str, Sequence[Row]]) -> None:
    (folder / "data").mkdir(exist_ok=True)
    for name, rows in files.items():
        frame(rows).write_parquet(folder / "data" / f"{name}.parquet")


def published(folder: Path) -> dict[datetime, pl.DataFrame]:
    """By as-of, what is published, but for when it was."""
    found = pl.scan_parquet(folder / "features" / "v" / "**/*.parquet", hive_partitioning=False).collect()
    parts = found.drop("created_timestamp").partition_by("event_timestamp", as_dict=True)
    return {as_of: part.sort("who") for (as_of,), part in sorted(parts.items())}


def expected(view: Mapping[str, Any], tables: Mapping[datetime, Sequence[Row]]) -> dict[datetime, pl.DataFrame]:
    """The rows at each as-of over a table of its own, each table read as a whole."""
    extractor, found = FeatureExtractor(), {}
    for table in {tuple(rows) for rows in tables.values()}:
        as_ofs = [t for t, rows in tables.items() if tuple(rows) == table]
        for as_of, rows in extractor.extract_many(dict(view), {"events": frame(table)}, as_ofs):
            if rows.height:
                found[as_of] = rows.sort("who")
    return dict(sorted(found.items()))


def assert_same(found: Mapping[datetime, pl.DataFrame], wanted: Mapping[datetime, pl.DataFrame]) -> None:
    assert list(found) == list(wanted)
    for as_of, rows in found.items():
        assert_frame_equal(rows, wanted[as_of], rel_tol=1e-9, abs_tol=1e-9)


# --- any sequence of runs ---------------------------------------------------------------------------------------------

LATENESS = 2 * DAY
_hours = st.integers(0, 23)
_values = st.tuples(
    st.sampled_from(["u1", "u2", "u3"]),
    st.integers(-7 * 24, 24),  # hours from the as-of before
    st.none() | st.integers(0, 5),
    st.none() | st.integers(-8, 8).map(lambda n: n / 4),
    st.none() | st.sampled_from(["a", "b", "é"]),
)
_days = st.lists(
    st.fixed_dictionaries(
        {
            "come": st.lists(_values, max_size=6),
            "go": st.lists(st.integers(0, 9), max_size=1),  # files of which a row goes
            "change": st.lists(st.integers(0, 9), max_size=1),
            "step": st.sampled_from([24, 24, 24, 12, 48, 0, -24]),  # hours
        }
    ),
    min_size=3,
    max_size=4,
)


class Model:
    """What has to be published: of each as-of, the table that it was computed from last."""

    def __init__(self) -> None:
        self.before: list[Row] = []
        self.tables: dict[datetime, list[Row]] = {}
        self.late = 0

    def run(self, as_of: datetime, table: list[Row]) -> None:
        come, gone = Counter(table) - Counter(self.before), Counter(self.before) - Counter(table)
        self.late = 0
        moments = [row[1] for row in gone]
        if self.tables:
            newest = max(self.tables)
            moments += [row[1] for row in come if newest - LATENESS <= row[1] <= newest]
            self.late = sum(count for row, count in come.items() if row[1] < newest - LATENESS)
        for moment in self.tables:
            if moments and moment >= min(moments):
                self.tables[moment] = table
        self.tables[as_of] = table
        self.before = table


@settings(deadline=None, max_examples=5)
@given(days=_days)
def test_any_sequence_of_runs_publishes_what_the_rules_say(days: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, model, as_of = Path(name), Model(), T
        files: dict[str, list[Row]] = {"0": [("u1", T - 3 * DAY, 1, 0.5, "a"), ("u2", T - 30 * DAY, 2, 1.5, "b")]}
        for number, day in enumerate(days, 1):
            come = [(who, as_of + timedelta(hours=h), n, x, text) for who, h, n, x, text in day["come"]]
            files[str(number)] = come
            for place in day["go"]:
                rows = files[str(place % (number + 1))]
                del rows[:1]
            for place in day["change"]:
                rows = files[str(place % (number + 1))]
                if rows:
                    rows[0] = (*rows[0][:2], 9, -1.0, "z")
            as_of += timedelta(hours=day["step"])
            write(folder, files)
            report = run_pipeline(declared(folder, {**VIEW, "lateness": "2d"}), as_of=as_of)
            model.run(as_of, [row for rows in files.values() for row in rows])
            start = report.views[0].start
            assert start["late"].get("events", 0) == model.late
        assert_same(published(folder), expected(VIEW, model.tables))


# --- one thing at a time ----------------------------------------------------------------------------------------------

FILES: dict[str, list[Row]] = {
    f"d{day:02}": [
        (f"u{(day * 7 + i) % 4}", T + day * DAY - timedelta(hours=1 + 5 * i), i, (i - day) / 4, "abé"[(day + i) % 3])
        for i in range(5)
    ]
    for day in range(-6, 4)
}
LATE: list[Row] = [("u1", T - 8 * DAY, 3, 7.0, "late"), ("new", T - 20 * DAY, 1, -9.0, None)]


def until(day: int) -> dict[str, list[Row]]:
    """The files that are there on a day."""
    return {name: rows for name, rows in FILES.items() if int(name[1:]) <= day}


def daily(folder: Path, day: int, view: Mapping[str, Any] = VIEW, **more: list[Row]) -> RunReport:
    write(folder, {**until(day), **more})
    return run_pipeline(declared(folder, view), as_of=T + day * DAY)


def whole(view: Mapping[str, Any], days: Sequence[int], **more: list[Row]) -> dict[datetime, pl.DataFrame]:
    """As runs publish it that never had anything to go on from."""
    late = [row for rows in more.values() for row in rows]
    tables = {T + day * DAY: [*(row for rows in until(day).values() for row in rows), *late] for day in days}
    return expected(view, tables)


def test_every_aggregate_over_every_span_goes_through_saving_and_loading(tmp_path: Path) -> None:
    for day in range(4):
        more = {"late": LATE} if day else {}
        report = daily(tmp_path, day, EVERY, **more)
        assert report.views[0].start["from"] == ("saved state" if day else "tables")
    first, rest = whole(EVERY, [0]), whole(EVERY, [1, 2, 3], late=LATE)
    assert_same(published(tmp_path), {**first, **rest})


def test_a_backfill_goes_on_from_the_state_of_a_run(tmp_path: Path) -> None:
    daily(tmp_path, 0, EVERY)
    write(tmp_path, {**until(3), "late": LATE})
    report = backfill(declared(tmp_path, EVERY), start=T + DAY, end=T + 3 * DAY)
    assert report.views[0].start["from"] == "saved state"
    assert_same(published(tmp_path), {**whole(EVERY, [0]), **expected_of_all(range(1, 4))})


def expected_of_all(days: Sequence[int] | range) -> dict[datetime, pl.DataFrame]:
    table = [*(row for rows in until(3).values() for row in rows), *LATE]
    return expected(EVERY, {T + day * DAY: table for day in days})


def test_a_run_reads_what_is_new_and_what_is_saved(tmp_path: Path) -> None:
    """Not the rows of years ago: those are in the state."""
    old: list[Row] = [("u1", T - 900 * DAY + i * timedelta(minutes=1), 1, 1.0, "a") for i in range(5000)]
    write(tmp_path, {"old": old})
    first = daily(tmp_path, 0).views[0].start
    assert (first["from"], first["because"]) == ("tables", "no state has been saved yet")
    assert first["rows_read"] == 5000 + 7 * 5
    for day in (1, 2, 3):
        start = daily(tmp_path, day).views[0].start
        assert (start["from"], start["new"], start["late"]) == ("saved state", {"events": 5}, {"events": 0})
        # What the longest window, 2d (before: 1d until 12h ago), and the offset of the history may need.
        assert start["rows_read"] <= 5 + 3 * 5
    assert_same(published(tmp_path), whole(VIEW, range(4), old=old))


def test_late_rows(tmp_path: Path) -> None:
    view = {**VIEW, "lateness": "2d"}
    for day in (0, 1, 2):
        daily(tmp_path, day, view)
    late: list[Row] = [("u1", T + DAY / 2, 1, 1.0, "a"), ("u1", T - DAY, 1, 1.0, "a")]
    report = daily(tmp_path, 3, view, late=late).views[0]
    assert report.start["late"] == {"events": 1}, "the second came three days late"
    assert report.start["from"] == "saved state"
    assert [path[-24:-16] for path in report.redone] == ["20251005", "20251006"]
    assert len(report.files) == 3
    tables = {T + day * DAY: [row for rows in until(day and 3).values() for row in rows] for day in range(4)}
    wanted = expected(VIEW, {t: rows if t == T else [*rows, *late] for t, rows in tables.items()})
    assert_same(published(tmp_path), wanted)
    backfill(declared(tmp_path, view), start=T, end=T)
    assert_same(published(tmp_path), {**wanted, **expected(VIEW, {T: [*tables[T], *late]})})


@pytest.mark.parametrize("harm", ["lost", "corrupt", "of another version"])
def test_saved_state_that_cannot_be_used_is_made_anew(tmp_path: Path, harm: str) -> None:
    daily(tmp_path, 0)
    for path in (tmp_path / ".maestro" / "checkpoints").rglob("*.parquet"):
        if harm == "lost":
            path.unlink()
        elif harm == "corrupt":
            path.write_bytes(path.read_bytes()[:-1] + b"x")
    if harm == "of another version":
        with closing(sqlite3.connect(tmp_path / ".maestro" / "ledger.db")) as connection, connection:
            connection.execute("UPDATE checkpoints SET state = json_set(state, '$.format', 0)")
    report = daily(tmp_path, 1, late=LATE).views[0]
    why = "another version of the engine saved its state" if "version" in harm else "its saved state is gone or damaged"
    assert (report.start["because"], report.start["late"]) == (why, {"events": 2})
    assert daily(tmp_path, 2, late=LATE).views[0].start["from"] == "saved state"
    assert_same(published(tmp_path), {**whole(VIEW, [0]), **whole(VIEW, [1, 2], late=LATE)})


def test_a_changed_definition_computes_again_what_it_changes_and_the_plan_says_so(tmp_path: Path) -> None:
    for day in range(3):
        daily(tmp_path, day)
    other = {**VIEW, "aggregates": {**VIEW["aggregates"], "more": "sum(x) over 3d"}}
    plan = plan_backfill(declared(tmp_path, other), start=T + 2 * DAY, end=T + 3 * DAY)
    start = plan.views[0].start
    assert start
    assert (start.because, start.new, start.again, start.replaced, start.unchanged) == (
        "its definition has changed",
        *(1, 3, 0, 0),
    )
    with Ledger(tmp_path / ".maestro") as ledger:
        [read] = ledger.tables("daily")
    assert (start.rows_read, start.files_read, start.days) == (9 * 5, len(read.files), 4)
    report = backfill(declared(tmp_path, other), start=T + 2 * DAY, end=T + 3 * DAY).views[0]
    assert (report.start["rows_read"], len(report.files), len(report.again)) == (start.rows_read, 4, 2)
    assert sum(report.rows) == start.rows_written
    table = [row for rows in until(2).values() for row in rows]
    assert_same(published(tmp_path), expected(other, {T + day * DAY: table for day in range(4)}))


def test_what_the_plan_says_is_what_the_run_reads(tmp_path: Path) -> None:
    for day in range(2):
        daily(tmp_path, day)
    again = compile_plan(declared(tmp_path, VIEW), T + 2 * DAY).views[0].start
    assert again
    report = run_pipeline(declared(tmp_path, VIEW), as_of=T + 2 * DAY).views[0]
    assert (again.because, report.start["from"]) == (None, "saved state")
    assert again.rows_read == report.start["rows_read"]
    assert (again.rows_written, again.new, again.unchanged) == (sum(report.rows), len(report.files), 2)
    past = compile_plan(declared(tmp_path, VIEW), T).views[0].start
    assert past
    assert past.because
    assert (past.because[:37], past.replaced) == ("the saved state is of a later time th", 1)


def test_attributes_that_carry_no_time_rewrite_nothing_that_is_published(tmp_path: Path) -> None:
    """They are taken as they stand, from the next as-of on."""
    view = {**VIEW, "entities": {"source": "people", "key": "who"}, "derive": {"height": "size"}}
    people = {"type": "file", "path": "people.csv"}

    def run(day: int, size: int) -> RunReport:
        write(tmp_path, until(day))
        (tmp_path / "people.csv").write_text(f"who,size\nu1,{size}\nu2,{size}\n")
        return run_pipeline(declared(tmp_path, view, people=people), as_of=T + day * DAY)

    run(0, 1)
    report = run(1, 2)
    assert (report.views[0].redone, report.views[0].start["from"]) == ([], "saved state")
    assert [set(rows["height"]) for rows in published(tmp_path).values()] == [{1}, {2}]


# --- changed and deleted rows of a database ---------------------------------------------------------------------------


def rows_of(database: Path) -> list[Row]:
    with closing(sqlite3.connect(database)) as connection:
        found = connection.execute("SELECT who, at, n, x, text FROM events ORDER BY id").fetchall()
    return [(who, datetime.fromisoformat(at), n, x, text) for who, at, n, x, text in found]


@pytest.mark.parametrize("lateness", ["1s", "30d"])
def test_changed_and_deleted_rows_are_computed_again_from_their_earliest_moment(tmp_path: Path, lateness: str) -> None:
    database = tmp_path / "app.db"
    events = {"type": "database", "connection_string": f"sqlite:///{database}", "table": "events", "cursor": "changed"}
    events |= {"deduplicate": {"keys": ["id"]}, "deletes": "find"}
    view = {**VIEW, "lateness": lateness}

    def change(*statements: str) -> None:
        with closing(sqlite3.connect(database)) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    def run(day: int) -> Any:
        pipeline = Pipeline(base=tmp_path, name="daily", sources={"events": events}, features={"v": view})
        return run_pipeline(pipeline, as_of=T + day * DAY).views[0]

    change(
        "CREATE TABLE events (id INTEGER, who TEXT, at TEXT, n INTEGER, x REAL, text TEXT, note TEXT, changed INTEGER)"
    )
    for i, (who, at, n, x, text) in enumerate(row for rows in FILES.values() for row in rows):
        values = f"{i}, '{who}', '{at.isoformat()}', {n}, {x}, '{text}', '', {i}"
        change(f"INSERT INTO events VALUES ({values})")
    tables = {}
    for day in range(3):
        run(day)
        tables[T + day * DAY] = rows_of(database)
    change("UPDATE events SET note = 'no view reads it', changed = 100 WHERE id = 0")
    report = run(3)
    assert (report.redone, report.start["changed"], report.start["from"]) == ([], {"events": 0}, "saved state")
    tables[T + 3 * DAY] = rows_of(database)
    moved = T + DAY - timedelta(hours=3)
    at = f"(SELECT id FROM events WHERE at > '{(T + 2 * DAY).isoformat()}' ORDER BY at LIMIT 1)"
    change(f"UPDATE events SET at = '{moved.isoformat()}', x = 77, changed = 101 WHERE id = {at}")
    report = run(4)
    assert (len(report.redone), report.start["changed"]) == (3, {"events": 1}), "from where the row is now"
    assert report.start["from"] == ("tables" if lateness == "1s" else "saved state")
    tables |= dict.fromkeys((T + day * DAY for day in (1, 2, 3, 4)), rows_of(database))
    change("DELETE FROM events WHERE x = 77", "INSERT INTO events VALUES (900, 'u9', 'x', 1, 1, 'x', '', 102)")
    change("DELETE FROM events WHERE id = 900")
    report = run(5)
    assert (len(report.redone), report.start["changed"]) == (4, {"events": 1})
    tables |= dict.fromkeys((T + day * DAY for day in (1, 2, 3, 4, 5)), rows_of(database))
    assert_same(published(tmp_path), expected(VIEW, tables))


# --- killed -----------------------------------------------------------------------------------------------------------


def _killed(folder: Path, step: str) -> None:
    steps.listener = lambda name: os.kill(os.getpid(), signal.SIGKILL) if name == step else None
    daily(folder, 2, {**VIEW, "lateness": "30d"}, late=LATE)


@pytest.mark.parametrize("step", ["table.judged", "file.published", "files.published"])
def test_killed_before_the_checkpoint_is_kept(tmp_path: Path, step: str) -> None:
    view = {**VIEW, "lateness": "30d"}
    for day in range(2):
        daily(tmp_path, day, view)
    child = multiprocessing.get_context("spawn").Process(target=_killed, args=(tmp_path, step))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    daily(tmp_path, 3, view, late=LATE)
    days = [0, 1, 3] if step == "table.judged" else [0, 1, 2, 3]
    first = expected(VIEW, {T + d * DAY: [r for rows in until(3).values() for r in rows] + LATE for d in days})
    assert_same(published(tmp_path), first)
    kept = {path.name for path in (tmp_path / ".maestro" / "checkpoints").rglob("*.parquet")}
    with Ledger(tmp_path / ".maestro") as ledger:
        [checkpoint] = ledger.checkpoints("daily").values()
    assert kept == {Path(file.path).name for file in checkpoint.files.values()}


# --- the built-in sets ------------------------------------------------------------------------------------------------


def test_a_week_of_daily_runs_over_the_demo_equals_a_backfill(tmp_path: Path) -> None:
    build(tmp_path / "demo", now=T)
    data = tmp_path / "demo" / "data"
    activities = pl.concat(map(pl.read_parquet, sorted((data / "activities").glob("*.parquet"))))
    rng = random.Random(3)
    delays = pl.Series([rng.choice([0] * 20 + [1, 2]) for _ in range(activities.height)])
    day = (activities["timestamp"].fill_null(T - 60 * DAY).dt.truncate("1d") - T).dt.total_days() + 1 + delays
    days = activities.with_columns(day=day.clip(-6, 0)).partition_by("day", as_dict=True, include_key=False)
    text = (tmp_path / "demo" / "pipeline.yaml").read_text().partition("\nfeast:")[0].partition("\nvalidation:")
    features = text[2][text[2].index("\nfeatures:") :]
    features = features.replace("handle_missing: impute, normalize: true", "handle_missing: keep, normalize: false")
    features = "\n".join(line for line in features.splitlines() if "task_f" not in line and "project_f" not in line)
    late = features.replace("user_features: {", "user_features: {lateness: 3d, ")
    late = late.replace("team_features: {", "team_features: {lateness: 3d, ")
    sources = text[0].replace("path: data/activities/*.parquet", "path: data/by_day/*.parquet\n    mode: append")
    (tmp_path / "demo" / "daily.yaml").write_text(sources + late.replace("./features", "./daily"))
    whole = (sources + features).replace("mode: append", "mode: full").replace("./.maestro", "./.whole")
    (tmp_path / "demo" / "whole.yaml").write_text(whole)
    (data / "by_day").mkdir()
    for number in range(-6, 1):
        days[number,].write_parquet(data / "by_day" / f"{number + 6}.parquet")
        report = run_pipeline(load_pipeline(tmp_path / "demo" / "daily.yaml"), as_of=T + number * DAY)
        for view in report.views:
            assert view.start["from"] == ("tables" if number == -6 else "saved state")
            assert len(view.redone) == min(number + 6, 2)
    backfill(load_pipeline(tmp_path / "demo" / "whole.yaml"), start=T - 6 * DAY, end=T)
    for view in ("user_features", "team_features"):
        found, wanted = (
            pl.scan_parquet(tmp_path / "demo" / folder / view / "**/*.parquet", hive_partitioning=False)
            .collect()
            .drop("created_timestamp")
            for folder in ("daily", "features")
        )
        keys = ["event_timestamp", found.columns[0]]
        assert_frame_equal(found.sort(keys), wanted.sort(keys), rel_tol=1e-9, abs_tol=1e-9)
