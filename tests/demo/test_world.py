"""The demo's world holds exactly the dirt it promises, and its server hands all of it out."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from engine.config import load_pipeline
from engine.demo import server, world
from engine.errors import UsageError
from engine.spec import ApiSpec, Pipeline

NOW = datetime(2026, 3, 12, 9, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "demo-out"
    world.build(folder, now=NOW, port=8123)
    return folder


@pytest.fixture(scope="module")
def users(folder: Path) -> pl.DataFrame:
    with contextlib.closing(sqlite3.connect(folder / "data/app.db")) as connection:
        return pl.read_database("SELECT * FROM users", connection, infer_schema_length=None)


@pytest.fixture(scope="module")
def activities(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "data/activities/*.parquet", include_file_paths="file")


@pytest.fixture(scope="module")
def tasks(folder: Path) -> list[dict[str, Any]]:
    records = json.loads((folder / "data/tasks.json").read_text(encoding="utf-8"))
    assert isinstance(records, list)
    return records


@pytest.fixture(scope="module")
def declared(folder: Path) -> Pipeline:
    return load_pipeline(folder / "pipeline.yaml")


@pytest.fixture(scope="module")
def over_rest(folder: Path) -> Pipeline:
    return load_pipeline(folder / "pipeline-rest.yaml")


def moment(text: str) -> datetime:
    parsed = datetime.fromisoformat(text)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def everything(folder: Path) -> dict[str, object]:
    """What a world holds, file by file; the database by its rows, as SQLite's own header is not ours."""
    found: dict[str, object] = {
        str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.suffix != ".db"
    }
    with contextlib.closing(sqlite3.connect(folder / "data/app.db")) as connection:
        found["users"] = connection.execute("SELECT * FROM users").fetchall()
    return found


def test_the_world_follows_from_seed_and_now(folder: Path, tmp_path: Path) -> None:
    world.build(tmp_path / "same", now=NOW + timedelta(microseconds=17), port=8123)
    world.build(tmp_path / "other", now=NOW, port=8123, seed=8)
    same, other, first = everything(tmp_path / "same"), everything(tmp_path / "other"), everything(folder)
    assert same == first
    assert {name for name in first if first[name] != other[name]} == set(first) - {
        "pipeline.yaml",
        "pipeline-rest.yaml",
    }


@pytest.mark.parametrize("now", [datetime(2026, 3, 1, tzinfo=UTC), datetime(2028, 2, 29, 23, 59, 59, tzinfo=UTC)])
def test_late_events_exist_whatever_the_day_of_the_month(tmp_path: Path, now: datetime) -> None:
    world.build(tmp_path / "demo", now=now)
    last = pl.read_parquet(max((tmp_path / "demo/data/activities").glob("*.parquet")))
    assert last.filter(pl.col("timestamp") < now.replace(day=1, hour=0, minute=0, second=0)).height >= world.LATE_EVENTS


def test_a_folder_with_something_in_it_is_left_alone(folder: Path) -> None:
    before = everything(folder)
    with pytest.raises(UsageError, match="not empty") as error:
        world.build(folder, now=NOW)
    assert error.value.where == str(folder)
    assert everything(folder) == before


def test_users(users: pl.DataFrame) -> None:
    assert users["id"].null_count() == world.NAMELESS_USERS
    known = users.drop_nulls("id").with_columns(pl.col("updated_at").map_elements(moment, pl.Datetime("us", "UTC")))
    assert known.height == world.USERS + world.STALE_USERS
    newest = known.sort("updated_at").unique("id", keep="last")
    assert newest.height == world.USERS
    assert newest["email_address"].null_count() == world.MISSING_EMAILS
    assert newest["email_address"].drop_nulls().is_duplicated().sum() == 2
    assert timedelta(days=3) <= NOW - newest["updated_at"].max() <= timedelta(days=4)  # type: ignore[operator]
    for column in ("created_at", "updated_at"):
        styles = users.select(
            pl.col(column).str.contains(r"\+02:00$").sum().alias("offset"),
            pl.col(column).str.ends_with("Z").sum().alias("z"),
            pl.col(column).str.contains(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$").sum().alias("plain"),
        ).row(0)
        assert min(styles) > 50
        assert sum(styles) == users.height
    assert users["full_name"].str.contains("[^\x00-\x7f]").any()
    assert set(users["status"]) == {"active", "inactive", "pending"}


def test_activities(activities: pl.DataFrame) -> None:
    once = activities.unique("event_id", keep="first", maintain_order=True)
    assert (once.height, activities.height - once.height) == (world.EVENTS, world.REPEATED_EVENTS)
    assert once["timestamp"].null_count() == world.TIMELESS_EVENTS
    assert once["user_id"].null_count() == world.OWNERLESS_EVENTS
    assert once.filter(pl.col("timestamp") > NOW + timedelta(hours=1)).height == world.FUTURE_EVENTS
    assert once.filter(pl.col("timestamp") < NOW - timedelta(days=world.DAYS)).height == 0
    assert once.filter(pl.col("completion_time") > 86_400).height == world.ABSURD_EVENTS
    assert once["completion_time"].min() > 0  # type: ignore[operator]
    assert once["collaborators"].null_count() > 1000
    assert (once["collaborators"].list.len() == 0).any()
    files = once.drop_nulls("timestamp").filter(pl.col("timestamp") <= NOW)
    late = files.filter(~pl.col("file").str.ends_with(pl.col("timestamp").dt.strftime("%Y-%m") + ".parquet"))
    assert late.height == world.LATE_EVENTS
    assert late["file"].unique().to_list() == [activities["file"].max()]
    assert set(once["task_type"]) == {"backend", "frontend", "database", "devops", "testing", "docs"}


def test_projects_and_teams(folder: Path, users: pl.DataFrame) -> None:
    projects = pl.read_parquet(folder / "data/projects.parquet")
    assert projects["project_id"].n_unique() == projects.height == world.PROJECTS
    assert (projects["budget"].null_count(), (projects["budget"] == 0).sum()) == (1, 1)
    teams = pl.read_csv(folder / "data/teams.csv")
    members = teams["members"].str.split(", ").explode()
    assert teams.height == world.TEAMS
    assert set(members) - set(users["id"]) == {world.UNKNOWN_MEMBER}


def test_tasks(tasks: list[dict[str, Any]]) -> None:
    ids = [task["task_id"] for task in tasks]
    assert (len(ids), len(set(ids))) == (world.TASKS + 1, world.TASKS)
    assert tasks[world.PAGE_SIZE - 1] == tasks[world.PAGE_SIZE]
    once = {task["task_id"]: task for task in tasks}.values()
    usual = {"low", "medium", "high", "critical"}
    odd = [" MEDIUM ", "Critical", "High", "urgent!!", "urgent!!", "urgent!!"]
    assert sorted(t["priority"] for t in once if t["priority"] not in usual) == odd
    assert sum(t["estimated_hours"] is None for t in once) == world.MISSING_ESTIMATES
    assert [t["description"] for t in once].count(None) == 1
    assert max(len(t["description"] or "") for t in once) > 5000
    assert sum(moment(t["created_at"]) > NOW for t in once) == world.FUTURE_TASKS
    assert any(t["status"] == "completed" and t["completed_at"] is None for t in once)
    assert {d for t in once for d in t["dependencies"]} <= set(ids)
    assert all(moment(t["completed_at"]) <= NOW for t in once if t["completed_at"])


def test_the_pipeline_file_loads_and_fits_the_data(
    declared: Pipeline,
    folder: Path,
    users: pl.DataFrame,
    activities: pl.DataFrame,
    tasks: list[dict[str, Any]],
) -> None:
    assert len((folder / "pipeline.yaml").read_text(encoding="utf-8").splitlines()) <= 70
    assert set(declared.features) == {"user_features", "task_features", "project_features", "team_features"}
    assert declared.feast is not None
    renamed = declared.sources["users"].column_mapping
    columns = {
        "users": {renamed.get(c, c) for c in users.columns},
        "activities": set(activities.columns),
        "tasks": set(tasks[0]),
    }
    assert set(declared.validation) == set(columns)
    for name, checks in declared.validation.items():
        named = {c for family in ("schema", "completeness", "range", "categorical") for c in checks.columns(family)}
        assert named <= columns[name]
        assert set(declared.sources[name].critical_columns) <= columns[name]


def test_the_two_pipeline_files_differ_in_where_the_tasks_come_from_alone(
    declared: Pipeline, over_rest: Pipeline
) -> None:
    assert declared.sources["tasks"].type == "file"
    assert over_rest.sources["tasks"].type == "api"
    same = {"sources": {**over_rest.sources, "tasks": declared.sources["tasks"]}}
    assert over_rest.model_copy(update=same) == declared


# --- the server ---


def get(url: str, token: str | None = server.TOKEN) -> Any:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})  # noqa: S310
    with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
        return json.load(answer)


def status(url: str, token: str | None = server.TOKEN) -> tuple[int, str | None]:
    with pytest.raises(urllib.error.HTTPError) as error:
        get(url, token)
    with error.value:
        return error.value.code, error.value.headers["Retry-After"]


def test_pages_add_up_to_all_tasks_after_two_bad_moments(
    folder: Path, tasks: list[dict[str, Any]], over_rest: Pipeline
) -> None:
    source = over_rest.sources["tasks"]
    assert isinstance(source, ApiSpec)
    assert (source.url, source.pagination.size) == ("http://127.0.0.1:8123/tasks", world.PAGE_SIZE)
    assert source.headers["Authorization"].get_secret_value() == f"Bearer {server.TOKEN}"
    with server.serve(folder / "data/tasks.json") as tracker:
        url = f"{tracker.url}?per_page={world.PAGE_SIZE}&page="
        assert [status(f"{url}2"), status(f"{url}3")] == [(429, "0"), (503, None)]
        pages = [get(f"{url}{page}") for page in range(1, 9)]
    assert [task for page in pages for task in page["tasks"]] == tasks
    assert {page["total"] for page in pages} == {len(tasks)}
    assert pages[-1] == {"tasks": [], "page": 8, "total": len(tasks)}


def test_the_server_answers_mistakes(folder: Path) -> None:
    with server.serve(folder / "data/tasks.json") as tracker:
        assert status(tracker.url, token=None)[0] == 401
        assert status(tracker.url, token="wrong")[0] == 401
        assert status(f"{tracker.url}/T-0001")[0] == 404
        assert [status(f"{tracker.url}?{q}")[0] for q in ("page=0", "page=x", "per_page=1001")] == [400] * 3


def test_the_server_takes_the_port_asked_for_and_names_one_that_is_taken(folder: Path, tmp_path: Path) -> None:
    tasks_file = folder / "data/tasks.json"
    with server.serve(tasks_file) as first:
        assert server.free_port(first.port) != first.port
        with pytest.raises(UsageError, match=f"port {first.port}"), server.serve(tasks_file, first.port):
            pass
    assert server.free_port(first.port) == first.port
    with server.serve(tasks_file, first.port) as again:
        assert again == first
    with pytest.raises(UsageError, match="cannot be read"), server.serve(tmp_path / "none.json"):
        pass


def test_the_server_runs_from_the_command_line_until_interrupted(folder: Path) -> None:
    port = server.free_port()
    command = [
        sys.executable,
        "-m",
        "engine.demo.server",
        str(folder / "data/tasks.json"),
        "--port",
        str(port),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert f"http://127.0.0.1:{port}/tasks" in process.stderr.readline()
        assert get(f"http://127.0.0.1:{port}/tasks")["page"] == 1
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 0
        assert process.stderr.read() == ""
    assert server.main(["no-such-file"]) == 2


def test_the_server_needs_nothing_but_the_standard_library() -> None:
    heavy = "{'polars', 'httpx', 'pydantic'}"
    code = f"import sys, engine.demo.server; raise SystemExit(bool({heavy} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)
