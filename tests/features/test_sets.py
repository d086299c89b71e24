"""The four built-in sets against the slow oracle, and every rule of the page by a hand-computed example."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from engine.errors import MaestroError
from engine.features import FeatureExtractionConfig, FeatureExtractor
from tests.features.strategies import (
    DAY,
    PROPERTY,
    QUICK,
    US,
    UTC_US,
    Table,
    World,
    project_worlds,
    task_worlds,
    team_worlds,
    user_worlds,
)
from tests.oracles import features as oracle
from tests.oracles.features import same

T = datetime(2025, 10, 4, tzinfo=UTC)
INT, FLOAT = pl.Int64, pl.Float64

USER_FEATURES = {
    "skill_score_backend": FLOAT,
    "skill_score_frontend": FLOAT,
    "skill_score_database": FLOAT,
    "skill_score_devops": FLOAT,
    "current_workload_hours": FLOAT,
    "tasks_completed_7d": INT,
    "tasks_completed_30d": INT,
    "velocity_tasks_per_week": FLOAT,
    "avg_completion_time_hours": FLOAT,
    "avg_collaborators": FLOAT,
    "bug_rate": FLOAT,
    "availability_hours_per_week": FLOAT,
    "current_capacity_percentage": FLOAT,
    "experience_years": FLOAT,
}
TASK_FEATURES = {
    "description_length": INT,
    "complexity_score": FLOAT,
    "priority": INT,
    "estimated_hours": FLOAT,
    "requires_backend": INT,
    "requires_frontend": INT,
    "requires_database": INT,
    "requires_devops": INT,
    "requires_testing": INT,
    "num_dependencies": INT,
    "has_blockers": INT,
    "days_until_deadline": FLOAT,
    "is_urgent": INT,
}
PROJECT_FEATURES = {
    "total_tasks": INT,
    "completed_tasks": INT,
    "in_progress_tasks": INT,
    "blocked_tasks": INT,
    "completion_percentage": FLOAT,
    "velocity_tasks_per_week": FLOAT,
    "overdue_tasks": INT,
    "risk_score": FLOAT,
    "team_size": INT,
    "estimated_budget": FLOAT,
    "spent_budget": FLOAT,
    "budget_utilization": FLOAT,
}
TEAM_FEATURES = {
    "team_size": INT,
    "skill_diversity": INT,
    "avg_experience_years": FLOAT,
    "min_experience_years": FLOAT,
    "max_experience_years": FLOAT,
    "avg_workload_hours": FLOAT,
    "workload_std": FLOAT,
    "is_balanced": INT,
    "collaboration_score": FLOAT,
}


# The sets, called alike --------------------------------------------------------


@dataclass(frozen=True)
class Set:
    """One built-in set: how worlds of it are drawn, computed by the engine and computed by the oracle."""

    key: str
    features: dict[str, type[pl.DataType]]
    worlds: st.SearchStrategy[World]
    engine: Callable[[FeatureExtractor, dict[str, Any], Any], Any]
    oracle: Callable[[World], dict[Any, dict[str, Any]]]
    optional: dict[str, list[str]]


def rows(world: World, role: str) -> Any:
    return world.tables[role].rows if role in world.tables else None


SETS = {
    "user": Set(
        key="user_id",
        features=USER_FEATURES,
        worlds=user_worlds(),
        engine=lambda x, f, t: x.extract_user_features(f["users"], f["activities"], as_of=t),
        oracle=lambda w: oracle.user_features(
            rows(w, "users"),
            rows(w, "activities"),
            w.as_of,
            aggregation_window=w.window,
            min_data_points=w.min_data_points,
        ),
        optional={
            "users": ["experience_years", "availability_hours_per_week", "created_at"],
            "activities": ["collaborators", "bugs_introduced"],
        },
    ),
    "task": Set(
        key="task_id",
        features=TASK_FEATURES,
        worlds=task_worlds(),
        engine=lambda x, f, t: x.extract_task_features(f["tasks"], as_of=t),
        oracle=lambda w: oracle.task_features(rows(w, "tasks"), w.as_of),
        optional={
            "tasks": [
                "description",
                "priority",
                "estimated_hours",
                "required_skills",
                "dependencies",
                "deadline",
                "created_at",
            ]
        },
    ),
    "project": Set(
        key="project_id",
        features=PROJECT_FEATURES,
        worlds=project_worlds(),
        engine=lambda x, f, t: x.extract_project_features(f["projects"], f["tasks"], as_of=t),
        oracle=lambda w: oracle.project_features(rows(w, "projects"), rows(w, "tasks"), w.as_of),
        optional={"projects": ["created_at"], "tasks": ["created_at", "updated_at"]},
    ),
    "team": Set(
        key="team_id",
        features=TEAM_FEATURES,
        worlds=team_worlds(),
        engine=lambda x, f, t: x.extract_team_features(f["teams"], f["users"], f.get("activities"), as_of=t),
        oracle=lambda w: oracle.team_features(
            rows(w, "teams"), rows(w, "users"), rows(w, "activities"), w.as_of, aggregation_window=w.window
        ),
        optional={
            "users": ["experience_years", "created_at", "current_workload_hours"],
            "activities": ["collaborators"],
        },
    ),
}
ALL_SETS = pytest.mark.parametrize("name", list(SETS))


def compute(name: str, frames: dict[str, Any], as_of: Any = T, **config: Any) -> Any:
    """The raw features of a set from frames by role."""
    return SETS[name].engine(FeatureExtractor(FeatureExtractionConfig(**config)), frames, as_of)


def compute_world(name: str, world: World, as_of: Any = None) -> pl.DataFrame:
    frames = {role: table.frame() for role, table in world.tables.items()}
    result = compute(
        name,
        frames,
        world.as_of if as_of is None else as_of,
        aggregation_window=world.window,
        min_data_points=world.min_data_points,
    )
    assert isinstance(result, pl.DataFrame)
    return result


def by_key(frame: pl.DataFrame, key: str) -> dict[Any, dict[str, Any]]:
    found = {row[key]: row for row in frame.to_dicts()}
    assert len(found) == frame.height, f"more than one row for a {key}"
    return found


def assert_agrees(frame: pl.DataFrame, expected: dict[Any, dict[str, Any]], key: str, as_of: datetime) -> None:
    """One row per expected entity, at T, with the expected value and type in every feature."""
    got = by_key(frame, key)
    assert set(got) == set(expected)
    for name, features in expected.items():
        assert got[name]["event_timestamp"] == as_of
        wrong = {f: (got[name][f], value) for f, value in features.items() if not same(got[name][f], value)}
        assert not wrong, f"{key} {name}: feature: (engine, oracle) = {wrong}"


def expected_schema(name: str, key_dtype: Any, window: str = "7d") -> dict[str, Any]:
    """Key, event_timestamp, then the features in the order of the specification, each once."""
    features = {f.replace("completed_7d", f"completed_{window}"): dtype for f, dtype in SETS[name].features.items()}
    return {SETS[name].key: key_dtype, "event_timestamp": UTC_US, **features}


def schema_of(frame: pl.DataFrame) -> list[tuple[str, Any]]:
    """The frame's columns in order, without created_timestamp, which a library call may leave out."""
    return [(name, dtype) for name, dtype in frame.schema.items() if name != "created_timestamp"]


# Against the oracle ------------------------------------------------------------


@ALL_SETS
@PROPERTY
@given(data=st.data())
def test_a_set_equals_the_oracle(name: str, data: st.DataObject) -> None:
    world = data.draw(SETS[name].worlds)
    frame = compute_world(name, world)
    assert_agrees(frame, SETS[name].oracle(world), SETS[name].key, world.as_of)
    entity = world.tables[f"{name}s"]
    assert schema_of(frame) == list(expected_schema(name, entity.dtypes[SETS[name].key], world.window).items())


@ALL_SETS
@QUICK
@given(data=st.data())
def test_row_order_and_unrelated_columns_change_nothing(name: str, data: st.DataObject) -> None:
    world = data.draw(SETS[name].worlds)
    frames = {}
    for role, table in world.tables.items():
        frame = table.frame().reverse()
        decoys = DECOYS - READ[role] - set(frame.columns)
        frames[role] = frame.with_columns(pl.lit(7).alias(column) for column in sorted(decoys))
    frame = compute(
        name,
        frames,
        world.as_of,
        aggregation_window=world.window,
        min_data_points=world.min_data_points,
    )
    assert_agrees(frame, SETS[name].oracle(world), SETS[name].key, world.as_of)


DECOYS = {
    *USER_FEATURES,
    *TASK_FEATURES,
    *PROJECT_FEATURES,
    *TEAM_FEATURES,
    *("user_id", "task_id", "project_id", "team_id", "event_timestamp", "created_timestamp", "timestamp"),
    *("skills", "members", "team_members", "status", "deadline", "updated_at", "collaborators", "as_of"),
    *("key", "count", "len", "n", "value", "literal", "index", "_key", "T", "member", "actor", "skill"),
}
READ = {  # by any set, so no decoy
    "users": {
        *("user_id", "experience_years", "availability_hours_per_week", "skills", "created_at"),
        "current_workload_hours",
    },
    "activities": {
        "user_id",
        "timestamp",
        "task_type",
        "completion_time",
        "collaborators",
        "bugs_introduced",
    },
    "tasks": {
        *("task_id", "description", "priority", "estimated_hours", "required_skills", "dependencies"),
        *("deadline", "created_at", "project_id", "status", "completed_at", "updated_at"),
    },
    "projects": {"project_id", "team_members", "budget", "spent", "created_at"},
    "teams": {"team_id", "members", "created_at"},
}


@ALL_SETS
@QUICK
@given(data=st.data())
def test_an_absent_optional_column_equals_a_column_of_nulls(name: str, data: st.DataObject) -> None:
    world = data.draw(SETS[name].worlds)
    absent, null = {}, {}
    for role, table in world.tables.items():
        frame = table.frame()
        present = [column for column in SETS[name].optional.get(role, []) if column in frame.columns]
        chosen = data.draw(st.sets(st.sampled_from(present))) if present else set()
        absent[role] = frame.drop(chosen)
        untyped = data.draw(st.booleans())
        null[role] = frame.with_columns(
            pl.lit(None).cast(pl.Null if untyped else frame.schema[column]).alias(column) for column in chosen
        )
    config = {"aggregation_window": world.window, "min_data_points": world.min_data_points}
    assert_frame_equal(
        compute(name, absent, world.as_of, **config),
        compute(name, null, world.as_of, **config),
        check_row_order=False,
    )


# No leakage --------------------------------------------------------------------


@ALL_SETS
@QUICK
@given(data=st.data())
def test_no_fact_after_the_as_of_moves_a_feature(name: str, data: st.DataObject) -> None:
    """Facts after T are dropped, changed, pushed later and added: every row stays what it was, bit by bit."""
    world = data.draw(SETS[name].worlds)
    later = world.as_of + timedelta(days=data.draw(st.integers(1, 400)), microseconds=1)
    tables = {role: changed(table, role, world, later) for role, table in world.tables.items()}
    before = compute_world(name, world)
    after = compute_world(name, replace(world, tables=tables))
    assert_frame_equal(before, after, check_row_order=False, check_exact=True)


STAMP = {"users": "created_at", "activities": "timestamp", "projects": "created_at", "tasks": "created_at"}


def changed(table: Table, role: str, world: World, later: datetime) -> Table:
    """The table with another future: rows that begin after T are gone, new ones come, open ends move."""
    stamp = STAMP.get(role)
    if stamp is None or table.dtypes.get(stamp) in (None, pl.Null):
        return moved(table, world, later)
    kept = [row for row in table.rows if row[stamp] is None or oracle.at(row[stamp]) <= world.as_of]
    added = [
        {**row, stamp: stored(table, stamp, later), **new_key(row, role, number)} for number, row in enumerate(kept)
    ]
    return moved(table.with_rows(kept + added), world, later)


def new_key(row: dict[str, Any], role: str, number: int) -> dict[str, Any]:
    """Another key where the rows are entities (keys are unique); events keep theirs."""
    key = {"users": "user_id", "projects": "project_id", "tasks": "task_id"}.get(role)
    if key is None or key not in row:
        return {}
    return {key: 1_000 + number if isinstance(row[key], int) else f"new {number}"}


def moved(table: Table, world: World, later: datetime) -> Table:
    """A completion or an update after T happens at another moment after T, and says something else."""
    moved_rows = []
    for row in table.rows:
        row = dict(row)
        for stamp in ("completed_at", "updated_at"):
            if row.get(stamp) is not None and oracle.at(row[stamp]) > world.as_of:
                row[stamp] = stored(table, stamp, later)
                if stamp == "updated_at":
                    row["status"] = {"blocked": "completed", "completed": "in_progress"}.get(row["status"], "blocked")
        moved_rows.append(row)
    dtypes = dict(table.dtypes)
    if dtypes.get("status") == pl.Null:
        dtypes["status"] = pl.String
    return Table(moved_rows, dtypes)


def stored(table: Table, stamp: str, value: datetime) -> Any:
    return value.date() if table.dtypes[stamp] == pl.Date else value


def test_an_entity_created_after_the_as_of_has_no_row() -> None:
    created = [T - US, T, T + US, None]
    users = pl.DataFrame({"user_id": ["before", "at", "after", "unknown"], "created_at": created})
    frame = compute("user", {"users": users, "activities": NO_ACTIVITIES})
    assert sorted(frame["user_id"]) == ["at", "before", "unknown"]


# One table row of the specification at a time ----------------------------------

ACTIVITY_SCHEMA = {
    "user_id": pl.String,
    "timestamp": UTC_US,
    "task_type": pl.String,
    "completion_time": pl.Float64,
    "collaborators": pl.List(pl.String),
    "bugs_introduced": pl.Int64,
}
NO_ACTIVITIES = pl.DataFrame(schema=ACTIVITY_SCHEMA)
NAN = float("nan")


def activity(ago: timedelta = DAY, user_id: str | None = "u1", **cells: Any) -> dict[str, Any]:
    return {"user_id": user_id, "timestamp": T - ago, **cells}


def activities_frame(*events: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame([{**dict.fromkeys(ACTIVITY_SCHEMA), **e} for e in events], schema=ACTIVITY_SCHEMA)


def user(*events: dict[str, Any], attributes: dict[str, Any] | None = None, **config: Any) -> dict[str, Any]:
    """The features of u1 at T after these events."""
    users = pl.DataFrame([{"user_id": "u1", **(attributes or {})}])
    frame = compute("user", {"users": users, "activities": activities_frame(*events)}, **config)
    return frame.row(0, named=True)


def backend(*seconds: float | None) -> list[dict[str, Any]]:
    return [activity(task_type="backend", completion_time=s) for s in seconds]


@pytest.mark.parametrize(
    ("feature", "events", "expected"),
    [
        ("skill_score_backend", backend(3600, 7200), 0.4),  # mean 5400 s: 1 / (1 + 1.5)
        ("skill_score_backend", backend(3600, None, NAN), 0.5),  # null times are left out of the mean
        ("skill_score_backend", backend(None), 0.0),
        ("skill_score_backend", backend(0), 1.0),
        ("skill_score_backend", [], 0.0),
        ("skill_score_frontend", backend(3600), 0.0),
        (
            "skill_score_frontend",
            [activity(400 * DAY, task_type="frontend", completion_time=3600)],
            0.5,
        ),
        ("skill_score_database", [activity(task_type="database", completion_time=10_800)], 0.25),
        ("skill_score_devops", [activity(task_type="DevOps", completion_time=3600)], 0.0),  # compares exactly
        ("skill_score_devops", [activity(task_type="devops", completion_time=3600)], 0.5),
        ("current_workload_hours", [activity(), activity(2 * DAY), activity(8 * DAY)], 4.0),
        ("current_workload_hours", [], 0.0),
        ("tasks_completed_7d", [activity(), activity(), activity(7 * DAY - US), activity(7 * DAY)], 3),
        ("tasks_completed_7d", [activity(0 * DAY), activity(-US)], 1),
        ("tasks_completed_30d", [activity(), activity(30 * DAY - US), activity(30 * DAY)], 2),
        ("velocity_tasks_per_week", [activity(n * DAY) for n in range(15)], 3.5),  # 15 × 7 / 30
        (
            "avg_completion_time_hours",
            [activity(completion_time=3600), activity(completion_time=10_800), activity()],
            2.0,
        ),
        ("avg_completion_time_hours", [activity(8 * DAY, completion_time=3600)], 0.0),
        ("avg_collaborators", [activity(collaborators=["b", "c"]), activity(collaborators=[])], 1.0),
        ("avg_collaborators", [activity(collaborators=["b", "b", "c"]), activity(collaborators=None)], 1.5),
        ("avg_collaborators", [activity(90 * DAY, collaborators=[" ", "", None, "b "])], 1.0),
        ("avg_collaborators", [activity(-US, collaborators=["b"])], None),
        ("bug_rate", [activity(bugs_introduced=3), activity(bugs_introduced=None)], 1.5),
        ("bug_rate", [activity(90 * DAY, bugs_introduced=1)], 1.0),
        ("bug_rate", [], 0.0),
    ],
)
def test_user_features_of_events(feature: str, events: list[dict[str, Any]], expected: Any) -> None:
    assert same(user(*events)[feature], expected)


@pytest.mark.parametrize(
    ("attributes", "availability", "capacity"),
    [
        ({"availability_hours_per_week": 10.0}, 10.0, 60.0),  # two activities: 4 h of 10
        ({"availability_hours_per_week": 5}, 5.0, 20.0),
        ({"availability_hours_per_week": 3.0}, 3.0, 0.0),  # 100 × (1 − 4/3) is below 0
        ({"availability_hours_per_week": 0.0}, 0.0, 0.0),
        ({"availability_hours_per_week": -8.0}, -8.0, 0.0),
        ({"availability_hours_per_week": None}, 40.0, 90.0),
        ({"availability_hours_per_week": NAN}, 40.0, 90.0),
        ({}, 40.0, 90.0),
    ],
)
def test_user_capacity(attributes: dict[str, Any], availability: float, capacity: float) -> None:
    row = user(activity(), activity(), attributes=attributes)
    assert same(row["availability_hours_per_week"], availability)
    assert same(row["current_capacity_percentage"], capacity)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"experience_years": 4}, 4.0),
        ({"experience_years": None}, None),
        ({"experience_years": NAN}, None),
        ({}, None),
    ],
)
def test_user_experience(attributes: dict[str, Any], expected: float | None) -> None:
    assert same(user(attributes=attributes)["experience_years"], expected)


def test_a_user_without_events_has_a_row() -> None:
    row = user()
    assert {name: row[name] for name in USER_FEATURES} == {
        **dict.fromkeys(USER_FEATURES, 0),
        "avg_collaborators": None,
        "availability_hours_per_week": 40.0,
        "current_capacity_percentage": 100.0,
        "experience_years": None,
    }


def test_min_data_points_blanks_what_rests_on_too_little_history() -> None:
    blanked = {
        *("skill_score_backend", "skill_score_frontend", "skill_score_database", "skill_score_devops"),
        *("avg_completion_time_hours", "avg_collaborators", "bug_rate"),
    }
    enough = [activity(), activity(90 * DAY)]
    not_counted = [activity(-US), activity(user_id=None), {**activity(), "timestamp": None}]
    row = user(*enough, *not_counted, attributes={"experience_years": 3.0}, min_data_points=3)
    assert {name for name in USER_FEATURES if row[name] is None} == blanked
    assert row["tasks_completed_30d"] == 1
    full = user(*enough, *not_counted, attributes={"experience_years": 3.0}, min_data_points=2)
    assert not {name for name in USER_FEATURES if full[name] is None}


def test_the_aggregation_window_names_its_count() -> None:
    events = [activity(), activity(10 * DAY), activity(20 * DAY)]
    row = user(*events, aggregation_window="14d")
    assert "tasks_completed_7d" not in row
    assert (row["tasks_completed_14d"], row["tasks_completed_30d"]) == (2, 3)
    assert row["current_workload_hours"] == 4.0
    assert same(row["velocity_tasks_per_week"], 0.7)


def test_a_30d_window_is_counted_once() -> None:
    row = user(activity(), activity(20 * DAY), aggregation_window="30d")
    assert [name for name in row if name.startswith("tasks_completed")] == ["tasks_completed_30d"]
    assert (row["tasks_completed_30d"], row["current_workload_hours"]) == (2, 4.0)


TASK_SCHEMA = {
    "task_id": pl.String,
    "description": pl.String,
    "priority": pl.String,
    "estimated_hours": pl.Float64,
    "required_skills": pl.List(pl.String),
    "dependencies": pl.List(pl.String),
    "deadline": UTC_US,
}


def task(**cells: Any) -> dict[str, Any]:
    """The features of one task at T."""
    tasks = pl.DataFrame([{**dict.fromkeys(TASK_SCHEMA), "task_id": "t1", **cells}], schema=TASK_SCHEMA)
    return compute("task", {"tasks": tasks}).row(0, named=True)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ({"description": "añ日😀"}, {"description_length": 4, "complexity_score": 0.004}),
        ({"description": "e\u0301"}, {"description_length": 2}),  # code points, not what the eye sees
        ({"description": "x" * 2500}, {"description_length": 2500, "complexity_score": 1.0}),
        ({"description": "  "}, {"description_length": 2}),
        ({}, {"description_length": 0, "complexity_score": 0.0}),
        ({"priority": "low"}, {"priority": 1}),
        ({"priority": " Medium\t"}, {"priority": 2}),
        ({"priority": "HIGH"}, {"priority": 3}),
        ({"priority": "critical"}, {"priority": 4}),
        ({"priority": "4"}, {"priority": 2}),
        ({}, {"priority": 2, "estimated_hours": None}),
        ({"estimated_hours": 2.5}, {"estimated_hours": 2.5}),
        ({"estimated_hours": NAN}, {"estimated_hours": None}),
        (
            {"required_skills": [" Backend", "TESTING", "back", None]},
            {
                "requires_backend": 1,
                "requires_frontend": 0,
                "requires_database": 0,
                "requires_devops": 0,
                "requires_testing": 1,
            },
        ),
        (
            {"required_skills": ["frontend", "database", "devops"]},
            {"requires_backend": 0, "requires_devops": 1},
        ),
        ({"dependencies": ["a", "a", " ", None]}, {"num_dependencies": 2, "has_blockers": 1}),
        ({"dependencies": []}, {"num_dependencies": 0, "has_blockers": 0}),
        ({}, {"num_dependencies": 0, "has_blockers": 0}),
        ({"deadline": T + 3 * DAY}, {"days_until_deadline": 3.0, "is_urgent": 0}),
        ({"deadline": T + 3 * DAY - US}, {"days_until_deadline": 2.0, "is_urgent": 1}),
        ({"deadline": T}, {"days_until_deadline": 0.0, "is_urgent": 1}),
        ({"deadline": T - US}, {"days_until_deadline": -1.0, "is_urgent": 1}),
        ({"deadline": T - DAY}, {"days_until_deadline": -1.0}),
        ({}, {"days_until_deadline": None, "is_urgent": 0}),
        # 2.5e17 µs: binary floating point would round this up to a whole day more
        ({"deadline": T + 2_900_000 * DAY - US}, {"days_until_deadline": 2_899_999.0}),
    ],
)
def test_task_features(cells: dict[str, Any], expected: dict[str, Any]) -> None:
    row = task(**cells)
    assert {name: row[name] for name in expected} == expected


PROJECT_TASK_SCHEMA = {
    "project_id": pl.String,
    "status": pl.String,
    "completed_at": UTC_US,
    "deadline": UTC_US,
    "created_at": UTC_US,
    "updated_at": UTC_US,
}


def project(*tasks: dict[str, Any], **attributes: Any) -> dict[str, Any]:
    """The features of p1 at T with these tasks."""
    cells = {"project_id": "p1", "team_members": None, "budget": None, "spent": None, **attributes}
    defaults = {**dict.fromkeys(PROJECT_TASK_SCHEMA), "project_id": "p1"}
    frames = {
        "projects": pl.DataFrame([cells]),
        "tasks": pl.DataFrame([{**defaults, **t} for t in tasks], schema=PROJECT_TASK_SCHEMA),
    }
    return compute("project", frames).row(0, named=True)


@pytest.mark.parametrize(
    ("cells", "state"),
    [
        ({"status": "open"}, "other"),
        ({}, "other"),
        ({"created_at": T}, "other"),
        ({"created_at": T + US}, "absent"),
        ({"created_at": T + US, "completed_at": T}, "absent"),
        ({"completed_at": T}, "completed"),
        ({"completed_at": T - US, "status": "blocked"}, "completed"),
        ({"completed_at": T + US}, "other"),
        ({"completed_at": T + US, "status": "completed"}, "other"),  # its own time says: not yet
        ({"completed_at": T + US, "status": "in_progress"}, "in_progress"),
        ({"status": "completed"}, "completed"),
        ({"status": "completed", "updated_at": T}, "completed"),
        ({"status": "completed", "updated_at": T + US}, "other"),  # the status was written after T
        ({"status": "Completed"}, "other"),  # compares exactly
        ({"status": "in_progress"}, "in_progress"),
        ({"status": "in_progress", "updated_at": T}, "in_progress"),
        ({"status": "in_progress", "updated_at": T + US}, "other"),
        ({"status": "blocked"}, "blocked"),
        ({"status": "blocked", "updated_at": T + US}, "other"),
        ({"status": "blocked", "updated_at": T + US, "completed_at": T}, "completed"),
        ({"project_id": None, "status": "blocked"}, "absent"),
        ({"project_id": "p2", "status": "blocked"}, "absent"),
    ],
)
def test_the_state_of_a_task_at_the_as_of(cells: dict[str, Any], state: str) -> None:
    row = project(cells)
    counts = ("total_tasks", "completed_tasks", "in_progress_tasks", "blocked_tasks")
    assert {name: row[name] for name in counts} == {
        "total_tasks": int(state != "absent"),
        "completed_tasks": int(state == "completed"),
        "in_progress_tasks": int(state == "in_progress"),
        "blocked_tasks": int(state == "blocked"),
    }


def test_project_shares() -> None:
    row = project(
        {"completed_at": T},
        {"deadline": T - US},
        {"deadline": T, "status": "blocked"},
        {"deadline": T - DAY, "completed_at": T + US},  # done, but only after T
    )
    assert same(row["completion_percentage"], 25.0)
    assert same(row["overdue_tasks"], 2)
    assert same(row["risk_score"], 0.5)


def test_a_project_without_tasks() -> None:
    row = project()
    assert row["total_tasks"] == 0
    assert same(row["completion_percentage"], 0.0)
    assert same(row["risk_score"], 0.0)


def test_a_task_completed_on_time_is_not_overdue_after_its_deadline() -> None:
    assert project({"deadline": T - DAY, "completed_at": T - 2 * DAY})["overdue_tasks"] == 0
    assert project({"deadline": T - DAY, "completed_at": T})["overdue_tasks"] == 0
    assert project({"deadline": T - DAY, "created_at": T + US})["overdue_tasks"] == 0


def test_project_velocity_counts_completions_in_seven_days() -> None:
    times = [T, T + US, T - 7 * DAY + US, T - 7 * DAY, None]
    row = project(*({"completed_at": t, "status": "completed"} for t in times))
    assert same(row["velocity_tasks_per_week"], 2.0)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"team_members": ["a", "b", "a", " b ", "", None]}, {"team_size": 2}),
        ({"team_members": "a, b,,a"}, {"team_size": 2}),
        ({"team_members": ""}, {"team_size": 0}),
        ({}, {"team_size": 0, "estimated_budget": None, "spent_budget": None, "budget_utilization": None}),
        (
            {"budget": 200, "spent": 50},
            {"estimated_budget": 200.0, "spent_budget": 50.0, "budget_utilization": 0.25},
        ),
        ({"budget": 100.0, "spent": 150.0}, {"budget_utilization": 1.5}),
        ({"budget": 0.0, "spent": 5.0}, {"budget_utilization": 0.0}),
        ({"budget": -1.0, "spent": 5.0}, {"budget_utilization": 0.0}),
        ({"budget": 0.0, "spent": None}, {"budget_utilization": None}),
        ({"budget": NAN, "spent": 5.0}, {"estimated_budget": None, "budget_utilization": None}),
    ],
)
def test_project_attributes(attributes: dict[str, Any], expected: dict[str, Any]) -> None:
    row = project(**attributes)
    assert all(same(row[name], value) for name, value in expected.items())


def team(
    members: Any,
    users: list[dict[str, Any]],
    events: list[dict[str, Any]] | None = None,
    **config: Any,
) -> dict[str, Any]:
    """The features of one team at T."""
    schema = {
        "user_id": pl.String,
        "skills": pl.List(pl.String),
        "experience_years": pl.Float64,
        "created_at": UTC_US,
    }
    if any("current_workload_hours" in u for u in users):
        schema["current_workload_hours"] = pl.Float64
    frames = {
        "teams": pl.DataFrame({"team_id": ["t1"], "members": [members]}),
        "users": pl.DataFrame([{**dict.fromkeys(schema), **u} for u in users], schema=schema),
    }
    if events is not None:
        frames["activities"] = activities_frame(*events)
    return compute("team", frames, **config).row(0, named=True)


ANN = {"user_id": "ann", "skills": ["Backend", " sql"], "experience_years": 2.0}
BOB = {"user_id": "bob", "skills": ["SQL", "devops", "devops"], "experience_years": 7.0}
CEM = {"user_id": "cem", "skills": None, "experience_years": None}
NEW = {"user_id": "new", "skills": ["go"], "experience_years": 30.0, "created_at": T + US}


@pytest.mark.parametrize(
    ("members", "size", "diversity", "years"),
    [
        (["ann", "bob", "ann"], 2, 3, (4.5, 2.0, 7.0)),
        ("ann , bob,", 2, 3, (4.5, 2.0, 7.0)),
        (["ann", "stranger"], 2, 2, (2.0, 2.0, 2.0)),
        (["bob", "cem"], 2, 2, (7.0, 7.0, 7.0)),
        (["bob", "new"], 2, 2, (7.0, 7.0, 7.0)),  # not there yet at T
        (["cem"], 1, 0, (None, None, None)),
        (["Ann"], 1, 0, (None, None, None)),  # keys compare as text, exactly
        ([], 0, 0, (None, None, None)),
        (None, 0, 0, (None, None, None)),
    ],
)
def test_team_members(members: Any, size: int, diversity: int, years: tuple[Any, ...]) -> None:
    row = team(members, [ANN, BOB, CEM, NEW])
    assert same(row["team_size"], size)
    assert same(row["skill_diversity"], diversity)
    assert (row["avg_experience_years"], row["min_experience_years"], row["max_experience_years"]) == years


def times_(count: int, user_id: str, ago: timedelta = DAY) -> list[dict[str, Any]]:
    return [activity(ago, user_id=user_id) for _ in range(count)]


@pytest.mark.parametrize(
    ("members", "events", "mean", "std", "balanced"),
    [
        (["ann", "bob"], times_(1, "ann") + times_(3, "bob"), 4.0, 8**0.5, 1),
        (["ann", "bob"], times_(9, "ann", 8 * DAY), 0.0, 0.0, 1),
        (["ann", "bob", "cem"], times_(5, "ann") + times_(10, "bob"), 10.0, 10.0, 0),  # not below 10
        (
            ["ann", "stranger", "new"],
            times_(2, "ann") + times_(9, "new") + times_(9, "stranger"),
            4.0,
            0.0,
            1,
        ),
        (["stranger"], times_(2, "stranger"), None, None, 0),
    ],
)
def test_team_workload(members: Any, events: list[Any], mean: Any, std: Any, balanced: int) -> None:
    row = team(members, [ANN, BOB, CEM, NEW], events)
    assert same(row["avg_workload_hours"], mean)
    assert same(row["workload_std"], std)
    assert same(row["is_balanced"], balanced)


def test_team_workload_without_activities_comes_from_the_users() -> None:
    users = [{**ANN, "current_workload_hours": 10.0}, {**BOB, "current_workload_hours": 30.0}]
    row = team(["ann", "bob"], users)
    assert same(row["avg_workload_hours"], 20.0)
    assert same(row["workload_std"], 200**0.5)
    assert same(row["is_balanced"], 0)
    assert row["collaboration_score"] is None


def test_team_workload_by_activities_comes_before_the_users_column() -> None:
    users = [{**ANN, "current_workload_hours": 10.0}, {**BOB, "current_workload_hours": 30.0}]
    assert same(team(["ann", "bob"], users, times_(2, "ann"))["avg_workload_hours"], 2.0)


def test_team_workload_without_activities_and_column_is_null() -> None:
    row = team(["ann", "bob"], [ANN, BOB])
    assert row["avg_workload_hours"] is None
    assert row["workload_std"] is None
    assert row["collaboration_score"] is None
    assert same(row["is_balanced"], 0)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([], None),
        ([activity(user_id="zoe", collaborators=["ann"])], None),  # not a member's activity
        ([activity(user_id="ann", collaborators=["bob"])], 1.0),
        ([activity(user_id="ann", collaborators=["zoe", " bob"])], 1.0),
        ([activity(user_id="ann", collaborators=["ann"])], 0.0),  # the actor does not count
        ([activity(user_id="ann", collaborators=["zoe"])], 0.0),
        ([activity(user_id="ann", collaborators=["stranger"])], 1.0),  # a member, known to users or not
        ([activity(user_id="stranger", collaborators=["ann"])], 1.0),
        ([activity(user_id="ann", collaborators=["Bob"])], 0.0),
        ([activity(user_id="ann", collaborators=None)], 0.0),
        ([activity(30 * DAY, user_id="ann", collaborators=["bob"])], None),
        ([activity(30 * DAY - US, user_id="ann", collaborators=["bob"])], 1.0),
        ([activity(-US, user_id="ann", collaborators=["bob"])], None),
        ([activity(user_id="ann", collaborators=["bob", "stranger", "bob"]), *times_(3, "bob")], 0.25),
    ],
)
def test_team_collaboration(events: list[dict[str, Any]], expected: float | None) -> None:
    row = team(["ann", "bob", "stranger"], [ANN, BOB], events)
    assert same(row["collaboration_score"], expected)


def test_one_user_in_two_teams_counts_in_both() -> None:
    frames = {
        "teams": pl.DataFrame({"team_id": [1, 2], "members": ["ann,bob", "ann,cem"]}),
        "users": pl.DataFrame({"user_id": ["ann", "bob", "cem"], "skills": ["a", "b", "c"]}),
        "activities": activities_frame(activity(user_id="ann", collaborators=["bob"])),
    }
    got = by_key(compute("team", frames), "team_id")
    assert [got[n]["collaboration_score"] for n in (1, 2)] == [1.0, 0.0]
    assert [got[n]["avg_workload_hours"] for n in (1, 2)] == [1.0, 1.0]


# The terms ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "physical"),
    [(pl.Datetime("ns"), 1_000), (pl.Datetime("ns", "UTC"), 1_000), (pl.Datetime("ns", "Asia/Tokyo"), 1_000)],
)
@pytest.mark.parametrize("as_of", [T, datetime(1969, 12, 31, tzinfo=UTC)])
def test_nanoseconds_are_floored(dtype: pl.Datetime, physical: int, as_of: datetime) -> None:
    """999 ns after T is T; 999 ns after T − 7d is outside the window, as T − 7d is. Also before 1970."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    at, start = ((moment - epoch) // US * physical for moment in (as_of, as_of - 7 * DAY))
    stamps = [at + 999, at + 1_000, at, start + 999, start + 1_000]
    activities = activities_frame(*times_(5, "u1")).with_columns(
        pl.Series("timestamp", stamps, dtype=pl.Int64).cast(pl.Datetime("ns")).cast(dtype)
        if dtype.time_zone is None
        else pl.Series("timestamp", stamps, dtype=pl.Int64)
        .cast(pl.Datetime("ns", "UTC"))
        .dt.convert_time_zone(dtype.time_zone)
    )
    frame = compute("user", {"users": pl.DataFrame({"user_id": ["u1"]}), "activities": activities}, as_of)
    assert frame["tasks_completed_7d"].to_list() == [3]


@pytest.mark.parametrize(
    "stamps",
    [
        pl.Series([date(2025, 10, 4), date(2025, 9, 27), date(2025, 9, 28)]),
        pl.Series([datetime(2025, 10, 4), datetime(2025, 9, 27), datetime(2025, 9, 28)], dtype=pl.Datetime("ms")),
        pl.Series(["2025-10-04", "2025-09-27", "2025-09-28"]),
        pl.Series(["2025-10-04T00:00:00", "2025-09-27T00:00:00Z", "2025-09-28T02:00:00+02:00"]),
    ],
    ids=["date", "milliseconds", "text dates", "text"],
)
def test_dates_and_zoneless_timestamps_are_utc(stamps: pl.Series) -> None:
    activities = activities_frame(*times_(3, "u1")).with_columns(stamps.alias("timestamp"))
    frame = compute("user", {"users": pl.DataFrame({"user_id": ["u1"]}), "activities": activities})
    assert frame["tasks_completed_7d"].to_list() == [2]


@pytest.mark.parametrize(
    "as_of",
    [
        "2025-10-04",
        "2025-10-04T00:00:00Z",
        "2025-10-04T02:00:00+02:00",
        date(2025, 10, 4),
        datetime(2025, 10, 4),
        datetime(2025, 10, 3, 19, tzinfo=timezone(-timedelta(hours=5))),
    ],
)
@ALL_SETS
def test_the_as_of_in_any_form(name: str, as_of: Any) -> None:
    frame = compute(name, SAMPLE, as_of)
    assert_frame_equal(frame, compute(name, SAMPLE), check_exact=True)
    assert set(frame["event_timestamp"]) == {T}


@ALL_SETS
def test_without_an_as_of_it_is_now(name: str) -> None:
    before = datetime.now(UTC)
    stamps = set(compute(name, SAMPLE, None)["event_timestamp"])
    assert len(stamps) == 1
    assert before <= stamps.pop() <= datetime.now(UTC)


def test_events_without_a_key_or_a_timestamp_take_part_in_nothing() -> None:
    lost = [activity(user_id=None, bugs_introduced=9), {**activity(bugs_introduced=9), "timestamp": None}]
    assert user(*lost, activity(bugs_introduced=1)) == user(activity(bugs_introduced=1))


@pytest.mark.parametrize("key_dtype", [pl.Int64, pl.Int32, pl.UInt8, pl.String, pl.Categorical])
@pytest.mark.parametrize("event_dtype", [pl.Int64, pl.UInt32, pl.String, pl.Categorical])
def test_keys_compare_as_text_and_come_out_as_in_the_source(key_dtype: Any, event_dtype: Any) -> None:
    def keys(dtype: Any, *values: str) -> pl.Series:
        return pl.Series("user_id", values).cast(dtype)

    users = pl.DataFrame([keys(key_dtype, "1", "2")])
    activities = activities_frame(*times_(3, "x")).with_columns(keys(event_dtype, "1", "1", "3"))
    frame = compute("user", {"users": users, "activities": activities})
    assert frame.schema["user_id"] == key_dtype
    counts = dict(zip(frame["user_id"].cast(pl.String), frame["tasks_completed_7d"], strict=True))
    assert counts == {"1": 2, "2": 0}


def test_categories_compare_as_their_text() -> None:
    activities = activities_frame(*backend(3600)).with_columns(pl.col("task_type").cast(pl.Categorical))
    frame = compute("user", {"users": pl.DataFrame({"user_id": ["u1"]}), "activities": activities})
    assert frame["skill_score_backend"].to_list() == [0.5]
    tasks = pl.DataFrame({"task_id": [1], "priority": ["High"]}, schema_overrides={"priority": pl.Categorical})
    assert compute("task", {"tasks": tasks})["priority"].to_list() == [3]


def test_numbers_of_any_type() -> None:
    projects = pl.DataFrame(
        {"project_id": [1], "team_members": [None], "budget": [Decimal("200.50")], "spent": [100]},
        schema_overrides={"budget": pl.Decimal(10, 2), "spent": pl.UInt8},
    )
    frame = compute("project", {**SAMPLE, "projects": projects})
    assert frame.select("estimated_budget", "spent_budget").row(0) == (200.5, 100.0)
    assert same(frame["budget_utilization"][0], 100 / 200.5)
    bugs = pl.Series("bugs_introduced", [100, 100], dtype=pl.Int8)
    activities = activities_frame(*times_(2, "u1")).with_columns(bugs)
    users = pl.DataFrame({"user_id": ["u1"], "experience_years": pl.Series([5], dtype=pl.Int8)})
    frame = compute("user", {"users": users, "activities": activities})
    assert frame.select("bug_rate", "experience_years").row(0) == (100.0, 5.0)


def test_a_priority_that_is_no_text_is_medium() -> None:
    assert compute("task", {"tasks": pl.DataFrame({"task_id": [1], "priority": [4]})})["priority"].to_list() == [2]


@pytest.mark.parametrize(
    ("name", "role", "column"),
    [
        *(("user", "users", c) for c in SETS["user"].optional["users"]),
        *(("user", "activities", c) for c in ("task_type", "completion_time", "collaborators", "bugs_introduced")),
        *(("task", "tasks", c) for c in SETS["task"].optional["tasks"]),
        *(("project", "projects", c) for c in ("team_members", "budget", "spent", "created_at")),
        *(("project", "tasks", c) for c in ("status", "completed_at", "deadline", "created_at", "updated_at")),
        *(("team", "teams", c) for c in ("members",)),
        *(("team", "users", c) for c in ("skills", "experience_years", "created_at")),
    ],
)
def test_a_column_of_nan_is_a_column_of_nulls(name: str, role: str, column: str) -> None:
    """What pandas reads from an empty CSV column: NaN counts as null everywhere, whatever the column is for."""
    nan, null = ({**SAMPLE, role: SAMPLE[role].with_columns(pl.lit(value).alias(column))} for value in (NAN, None))
    assert_frame_equal(compute(name, nan), compute(name, null))


@pytest.mark.parametrize("reverse", [False, True])
def test_column_names_that_differ_in_case_are_different_columns(reverse: bool) -> None:
    cells = {"USER_ID": "x", "user_id": "u1", "Experience_Years": 1.0, "experience_years": 3.0}
    names = list(reversed(cells)) if reverse else list(cells)
    users = pl.DataFrame([{name: cells[name] for name in names}])
    frame = compute("user", {"users": users, "activities": NO_ACTIVITIES})
    assert frame.select("user_id", "experience_years").rows() == [("u1", 3.0)]


@pytest.mark.parametrize("window", ["7d", "14d", "30d"])
@ALL_SETS
def test_no_entities_give_no_rows_of_the_same_columns(name: str, window: str) -> None:
    frames = {**SAMPLE, f"{name}s": SAMPLE[f"{name}s"].clear()}
    frame = compute(name, frames, aggregation_window=window)
    key_dtype = SAMPLE[f"{name}s"].schema[SETS[name].key]
    assert frame.height == 0
    assert schema_of(frame) == list(expected_schema(name, key_dtype, window).items())


@pytest.mark.parametrize("events", [NO_ACTIVITIES, NO_ACTIVITIES.cast(pl.Null)], ids=["typed", "untyped"])
def test_no_events_still_give_a_row_per_entity(events: pl.DataFrame) -> None:
    frame = compute("user", {**SAMPLE, "activities": events})
    assert sorted(frame["user_id"]) == ["u1", "u2"]
    assert set(frame["tasks_completed_7d"]) == {0}


@ALL_SETS
def test_two_rows_with_one_key_are_an_error_that_names_it(name: str) -> None:
    entity = SAMPLE[f"{name}s"]
    key = entity[SETS[name].key][-1]
    with pytest.raises(MaestroError, match=str(key)) as caught:
        compute(name, {**SAMPLE, f"{name}s": pl.concat([entity, entity.tail(1)])})
    assert SETS[name].key in str(caught.value)


@ALL_SETS
def test_a_missing_key_column_is_an_error_that_names_it(name: str) -> None:
    with pytest.raises(MaestroError, match=SETS[name].key):
        compute(name, {**SAMPLE, f"{name}s": SAMPLE[f"{name}s"].drop(SETS[name].key)})


@pytest.mark.parametrize("column", ["user_id", "timestamp"])
def test_events_without_a_key_or_time_column_are_an_error(column: str) -> None:
    with pytest.raises(MaestroError, match=column):
        compute("user", {**SAMPLE, "activities": SAMPLE["activities"].drop(column)})


# Kinds of frames ---------------------------------------------------------------

SAMPLE = {
    "users": pl.DataFrame(
        {
            "user_id": ["u1", "u2"],
            "skills": [["Backend", "sql"], None],
            "experience_years": [3.5, None],
            "availability_hours_per_week": [20.0, None],
            "created_at": [T - DAY, None],
        }
    ),
    "activities": activities_frame(
        activity(task_type="backend", completion_time=3600.0, collaborators=["u2"], bugs_introduced=1),
        activity(20 * DAY, task_type="devops", completion_time=None, collaborators=[]),
        activity(user_id=None),
        activity(user_id="u9"),
    ),
    "tasks": pl.DataFrame(
        {
            "task_id": [1, 2],
            "project_id": ["p1", None],
            "description": ["Ünïcode", None],
            "priority": ["high", None],
            "estimated_hours": [1.5, None],
            "required_skills": ["Backend, testing", None],
            "dependencies": ["2", None],
            "deadline": [T + 2 * DAY, None],
            "created_at": [T, None],
            "status": ["in_progress", "blocked"],
            "completed_at": pl.Series([None, None], dtype=UTC_US),
        }
    ),
    "projects": pl.DataFrame(
        {
            "project_id": ["p1", "p2"],
            "team_members": [["u1", "u2"], []],
            "budget": [10.0, None],
            "spent": [5, 1],
        }
    ),
    "teams": pl.DataFrame({"team_id": ["a", "b"], "members": [["u1", "u2"], ["u9"]]}),
}


def pandas_frame(frame: pl.DataFrame) -> pd.DataFrame:
    """As a user of pandas has it: objects for text and lists, NaN for null numbers."""
    result = frame.to_pandas()
    for name, dtype in frame.schema.items():
        if isinstance(dtype, pl.List):
            result[name] = pd.Series(frame[name].to_list(), dtype=object)
    return result


@pytest.mark.parametrize(
    ("convert", "kind"),
    [
        (lambda f: f.lazy(), pl.LazyFrame),
        (lambda f: f.to_arrow(), pa.Table),
        (lambda f: pa.Table.from_pylist(f.to_dicts()), pa.Table),
        (pandas_frame, pd.DataFrame),
        (lambda f: f.to_pandas(use_pyarrow_extension_array=True), pd.DataFrame),
    ],
    ids=["lazy", "arrow of polars", "arrow", "pandas", "pandas with arrow types"],
)
@ALL_SETS
def test_the_same_kind_of_frame_comes_out(name: str, convert: Callable[[pl.DataFrame], Any], kind: type) -> None:
    expected = compute(name, SAMPLE)
    result = compute(name, {role: convert(frame) for role, frame in SAMPLE.items()})
    assert isinstance(result, kind)
    assert_frame_equal(as_polars(result), expected, check_row_order=False, check_dtypes=kind is pl.LazyFrame)


def as_polars(frame: Any) -> pl.DataFrame:
    if isinstance(frame, pl.LazyFrame):
        return frame.collect()
    frame = pl.from_pandas(frame) if isinstance(frame, pd.DataFrame) else pl.from_arrow(frame)
    assert isinstance(frame, pl.DataFrame)
    return frame


@ALL_SETS
def test_arrow_out_has_the_types_of_the_specification(name: str) -> None:
    result = compute(name, {role: frame.to_arrow() for role, frame in SAMPLE.items()})
    assert result.schema.field("event_timestamp").type == pa.timestamp("us", "UTC")
    for feature, dtype in SETS[name].features.items():
        assert result.schema.field(feature).type == (pa.int64() if dtype == INT else pa.float64())


@ALL_SETS
def test_the_input_frames_are_left_as_they_were(name: str) -> None:
    frames = {role: frame.clone() for role, frame in SAMPLE.items()}
    compute(name, frames)
    for role, frame in SAMPLE.items():
        assert_frame_equal(frames[role], frame)
