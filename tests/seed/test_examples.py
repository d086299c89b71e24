"""The seed's usage examples, word for word but for import paths and data; each asserts the numbers.

What the examples print is printed: `capsys` shows it. Frames of polars and of pandas.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import polars as pl
import pytest

from engine.features import FeatureExtractionConfig, FeatureExtractor
from engine.ingestion import DatabaseIngestion, DataSourceType, IngestionConfig
from engine.validation import DataValidator

FRAMES = {"polars": pl.DataFrame, "pandas": pd.DataFrame}


@pytest.fixture(params=FRAMES)
def frame(request: pytest.FixtureRequest) -> Any:
    return FRAMES[request.param]


def values(table: Any, column: str) -> list[Any]:
    """A column as Python values, null and NaN as None."""
    return [None if value is None or value != value else value for value in table[column].to_list()]


# ruff: noqa: T201 - the examples print
def test_1_database_ingestion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection, connection:
        connection.execute("CREATE TABLE users (id TEXT, email TEXT, age INTEGER)")
        people = [(f"user_{n}" if n % 10 else None, f"{n}@example.com", 20 + n) for n in range(1, 41)]
        connection.executemany("INSERT INTO users VALUES (?, ?, ?)", people)

    config = IngestionConfig(
        source_type=DataSourceType.DATABASE,
        source_config={
            "connection_string": f"sqlite:///{tmp_path / 'app.db'}",
            "table": "users",
            "required_columns": ["user_id", "email"],
            "critical_columns": ["user_id"],
            "column_mapping": {"id": "user_id"},
        },
        target_path=str(tmp_path / "users.parquet"),
        batch_size=1000,
    )

    ingestion = DatabaseIngestion(config)
    metrics = ingestion.run()

    print(f"Ingested: {metrics.records_written} records")
    print(f"Duration: {metrics.duration_seconds}s")
    print(f"Error rate: {metrics.error_rate:.2%}")

    shown = capsys.readouterr().out.splitlines()
    assert (shown[0], shown[2]) == ("Ingested: 36 records", "Error rate: 10.00%")
    assert (metrics.records_read, metrics.records_written, metrics.records_failed) == (40, 36, 4)
    users = pd.read_parquet(tmp_path / "users.parquet")
    assert list(users.columns) == ["user_id", "email", "age", "ingestion_timestamp", "source"]
    assert users["user_id"].tolist() == [p[0] for p in people if p[0]]
    assert users["age"].tolist() == [p[2] for p in people if p[0]]
    assert set(users["source"]) == {"database"}


@pytest.mark.parametrize("bad", [False, True])
def test_2_data_validation(frame: Any, bad: bool, capsys: pytest.CaptureFixture[str]) -> None:
    ids = ["a", "b", "b", None] if bad else ["a", "b", "c", "d"]
    data = frame({"user_id": ids, "age": [30, 121, 0, -1], "status": ["active", "gone" if bad else "pending"] * 2})

    validator = DataValidator()

    validation_config = {
        "schema": {"user_id": "string", "age": "int"},
        "required_columns": ["user_id"],
        "unique_columns": ["user_id"],
        "range_constraints": {"age": (0, 120)},
        "categorical_constraints": {"status": ["active", "inactive", "pending"]},
    }

    passed, results = validator.validate_all(data, validation_config)

    if not passed:
        report = validator.generate_report()
        print(json.dumps(report, indent=2))

    assert passed is not bad
    found = {r.check_name.removesuffix("_validation"): (r.passed, str(r.severity), r.failed_records) for r in results}
    assert found == {
        "schema": (True, "info", 0),
        "completeness": (not bad, "error" if bad else "info", int(bad)),
        "uniqueness": (not bad, "error" if bad else "info", int(bad)),
        "range": (False, "warning", 2),
        "categorical": (not bad, "error" if bad else "info", 2 * bad),
        "row_count": (True, "info", 0),
    }
    shown = capsys.readouterr().out
    assert bool(shown) is bad
    if bad:
        said = json.loads(shown)
        assert [said[k] for k in ("total_checks", "passed", "failed", "errors", "warnings")] == [6, 2, 4, 3, 1]
        assert [r["check_name"] for r in said["results"]] == [r.check_name for r in results]
        assert said["results"][0]["details"]["type_mismatches"] == []


def test_3_feature_extraction(frame: Any) -> None:
    world = small_world(frame, datetime.now(UTC))
    users, activities, tasks = world.users, world.activities, world.tasks
    projects, teams = world.projects, world.teams

    config = FeatureExtractionConfig(
        feature_definitions={},
        aggregation_window="7d",
        normalize=True,
        handle_missing="impute",
    )

    extractor = FeatureExtractor(config)

    # Extract features
    user_features = extractor.extract_user_features(users, activities)
    task_features = extractor.extract_task_features(tasks)
    project_features = extractor.extract_project_features(projects, tasks)
    team_features = extractor.extract_team_features(teams, users)

    raw = user_features
    # Normalize and clean
    user_features = extractor.normalize_features(user_features)
    user_features = extractor.handle_missing_values(user_features)

    assert all(isinstance(f, frame) for f in (user_features, task_features, project_features, team_features))
    expect(
        raw,
        user_id=["u1", "u2", "u3"],
        skill_score_backend=[1 / 2, 0.0, 0.0],
        skill_score_frontend=[0.0, 0.0, 0.0],
        skill_score_database=[0.0, 0.0, 0.0],
        skill_score_devops=[0.0, 1 / 3, 0.0],
        current_workload_hours=[2.0, 2.0, 0.0],
        tasks_completed_7d=[1, 1, 0],
        tasks_completed_30d=[2, 1, 0],
        velocity_tasks_per_week=[14 / 30, 7 / 30, 0.0],
        avg_completion_time_hours=[1.0, 2.0, 0.0],
        avg_collaborators=[0.5, 2.0, None],
        bug_rate=[0.5, 0.0, 0.0],
        availability_hours_per_week=[20.0, 40.0, 40.0],
        current_capacity_percentage=[90.0, 95.0, 100.0],
        experience_years=[2.0, 6.0, None],
    )
    expect(
        user_features,
        user_id=["u1", "u2", "u3"],
        skill_score_backend=[1.0, 0.0, 0.0],
        skill_score_frontend=[0.0, 0.0, 0.0],
        skill_score_database=[0.0, 0.0, 0.0],
        skill_score_devops=[0.0, 1.0, 0.0],
        current_workload_hours=[1.0, 1.0, 0.0],
        tasks_completed_7d=[1.0, 1.0, 0.0],
        tasks_completed_30d=[1.0, 0.5, 0.0],
        velocity_tasks_per_week=[1.0, 0.5, 0.0],
        avg_completion_time_hours=[0.5, 1.0, 0.0],
        avg_collaborators=[0.0, 1.0, 0.5],
        bug_rate=[1.0, 0.0, 0.0],
        availability_hours_per_week=[0.0, 1.0, 1.0],
        current_capacity_percentage=[0.0, 0.5, 1.0],
        experience_years=[0.0, 1.0, 0.5],
    )
    expect(
        task_features,
        task_id=["t1", "t2", "t3"],
        description_length=[500, 0, 1500],
        complexity_score=[0.5, 0.0, 1.0],
        priority=[3, 2, 4],
        estimated_hours=[8.0, None, 1.5],
        requires_backend=[1, 0, 0],
        requires_frontend=[0, 0, 0],
        requires_database=[0, 0, 0],
        requires_devops=[0, 0, 1],
        requires_testing=[1, 0, 0],
        num_dependencies=[1, 0, 2],
        has_blockers=[1, 0, 1],
        days_until_deadline=[2.0, -2.0, None],
        is_urgent=[1, 1, 0],
    )
    expect(
        project_features,
        project_id=["p1", "p2"],
        total_tasks=[3, 0],
        completed_tasks=[1, 0],
        in_progress_tasks=[1, 0],
        blocked_tasks=[1, 0],
        completion_percentage=[100 / 3, 0.0],
        velocity_tasks_per_week=[1, 0],
        overdue_tasks=[1, 0],
        risk_score=[1 / 3, 0.0],
        team_size=[2, 0],
        estimated_budget=[100.0, 0.0],
        spent_budget=[50.0, 10.0],
        budget_utilization=[0.5, 0.0],
    )
    expect(
        team_features,
        team_id=["red"],
        team_size=[3],
        skill_diversity=[3],
        avg_experience_years=[4.0],
        min_experience_years=[2.0],
        max_experience_years=[6.0],
        avg_workload_hours=[20.0],
        workload_std=[200**0.5],
        is_balanced=[0],
        collaboration_score=[None],
    )


def test_the_sketches_of_its_test_suite_hold(tmp_path: Path) -> None:
    """`Unit Tests (To be created)`, created."""
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection, connection:
        connection.execute("CREATE TABLE users (user_id TEXT)")
        connection.execute("INSERT INTO users VALUES ('a')")
    source = {"connection_string": f"sqlite:///{tmp_path / 'app.db'}", "table": "users"}
    metrics = DatabaseIngestion(IngestionConfig(DataSourceType.DATABASE, source, tmp_path / "users.parquet")).run()
    assert metrics.records_written > 0
    assert metrics.error_rate < 0.05

    world = small_world(pd.DataFrame, datetime.now(UTC))
    result = DataValidator().validate_schema(world.users, {"user_id": "string", "experience_years": "float"})
    assert result.passed == True  # noqa: E712 - the seed's words

    features = FeatureExtractor(FeatureExtractionConfig()).extract_user_features(world.users, world.activities)
    assert len(features) == len(world.users)
    assert "skill_score_backend" in features.columns


def test_batches_and_tracking(tmp_path: Path) -> None:
    """`Batch Processing` reads CSV in chunks; `MLflow Tracking` logs these fields."""
    world = small_world(pd.DataFrame, datetime.now(UTC))
    world.users.to_csv(tmp_path / "large_file.csv", index=False)
    extractor = FeatureExtractor()
    for i, batch in enumerate(pd.read_csv(tmp_path / "large_file.csv", chunksize=2)):
        features = extractor.extract_user_features(batch, world.activities)
        features.to_parquet(tmp_path / f"batch_{i}.parquet")
    parts = [pd.read_parquet(tmp_path / f"batch_{i}.parquet") for i in range(2)]
    assert [len(part) for part in parts] == [2, 1]
    assert values(pd.concat(parts), "tasks_completed_30d") == [2, 1, 0]

    with closing(sqlite3.connect(tmp_path / "app.db")) as connection, connection:
        connection.execute("CREATE TABLE users (user_id TEXT)")
    source = {"connection_string": f"sqlite:///{tmp_path / 'app.db'}", "table": "users"}
    metrics = DatabaseIngestion(IngestionConfig(DataSourceType.DATABASE, source, tmp_path / "users.parquet")).run()
    validator = DataValidator()
    validator.validate_all(features, {"required_columns": ["user_id", "email"]})
    report = validator.generate_report()
    logged = {
        "records_ingested": metrics.records_written,
        "validation_pass_rate": report["passed"] / report["total_checks"],
        "feature_count": len(features.columns),
        **{k: getattr(metrics, k) for k in ("records_read", "records_failed", "bytes_processed", "duration_seconds")},
    }
    assert logged["records_ingested"] == 0
    assert logged["validation_pass_rate"] == pytest.approx(2 / 3), "email is missing"
    assert logged["feature_count"] == 2 + 14
    assert all(isinstance(value, int | float) for value in logged.values())


def small_world(frame: Any, now: datetime) -> SimpleNamespace:
    """Three users, three tasks, two projects and a team, an hour clear of every boundary."""
    day, hour = timedelta(days=1), timedelta(hours=1)
    return SimpleNamespace(
        users=frame(
            {
                "user_id": ["u1", "u2", "u3"],
                "skills": ["backend, SQL", "devops,sql", "rust"],
                "experience_years": [2.0, 6.0, None],
                "availability_hours_per_week": [20.0, None, None],
                "current_workload_hours": [10.0, 30.0, 99.0],
            }
        ),
        activities=frame(
            {
                "user_id": ["u1", "u1", "u2", "u2"],
                "timestamp": [now - day, now - 10 * day, now - 3 * day, now + hour],
                "task_type": ["backend", "backend", "devops", "devops"],
                "completion_time": [3600.0, 3600.0, 7200.0, 1.0],
                "collaborators": [["u2"], [], ["u1", "u3"], ["u3"]],
                "bugs_introduced": [1.0, 0.0, None, 9.0],
            }
        ),
        tasks=frame(
            {
                "task_id": ["t1", "t2", "t3"],
                "project_id": ["p1", "p1", "p1"],
                "description": ["x" * 500, None, "ü" * 1500],
                "priority": [" High", "whatever", "critical"],
                "estimated_hours": [8.0, None, 1.5],
                "required_skills": ["backend,testing", None, "DevOps"],
                "dependencies": ["t0", "", "t1, t2"],
                "deadline": [now + 2 * day + hour, now - day - hour, None],
                "status": ["completed", "in_progress", "blocked"],
                "completed_at": [now - day, None, None],
            }
        ),
        projects=frame(
            {
                "project_id": ["p1", "p2"],
                "team_members": ["u1,u2,u1", None],
                "budget": [100.0, 0.0],
                "spent": [50.0, 10.0],
            }
        ),
        teams=frame({"team_id": ["red"], "members": ["u1,u2,stranger"]}),
    )


def expect(features: Any, **columns: list[Any]) -> None:
    """Just these columns and the moment, with these values; floats to 1e-12."""
    assert sorted(features.columns) == sorted([*columns, "event_timestamp"])
    for name, expected in columns.items():
        found = values(features, name)
        assert [v is None for v in found] == [v is None for v in expected], name
        for got, wanted in zip(found, expected, strict=True):
            exact = wanted is None or isinstance(wanted, str)
            assert got == (wanted if exact else pytest.approx(wanted, rel=1e-12)), name
