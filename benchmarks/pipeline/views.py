"""The four views by name, key and types, and how a stack without this engine tells Feast of them and loads them."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

PROJECT = "work"
USER = [
    *(f"skill_score_{skill}" for skill in ("backend", "frontend", "database", "devops")),
    *("current_workload_hours", "tasks_completed_7d", "tasks_completed_30d", "velocity_tasks_per_week"),
    *("avg_completion_time_hours", "avg_collaborators", "bug_rate", "availability_hours_per_week"),
    *("current_capacity_percentage", "experience_years"),
]
TASK = [
    *("description_length", "complexity_score", "priority", "estimated_hours"),
    *(f"requires_{skill}" for skill in ("backend", "frontend", "database", "devops", "testing")),
    *("num_dependencies", "has_blockers", "days_until_deadline", "is_urgent"),
]
PROJECT_COUNTS = ["total_tasks", "completed_tasks", "in_progress_tasks", "blocked_tasks", "overdue_tasks", "team_size"]
PROJECT_FEATURES = [
    *("total_tasks", "completed_tasks", "in_progress_tasks", "blocked_tasks", "completion_percentage"),
    *("velocity_tasks_per_week", "overdue_tasks", "risk_score", "team_size", "estimated_budget", "spent_budget"),
    "budget_utilization",
]
TEAM = [
    *("team_size", "skill_diversity", "avg_experience_years", "min_experience_years", "max_experience_years"),
    *("avg_workload_hours", "workload_std", "is_balanced", "collaboration_score"),
]
# View: its key, whether it is scaled (and all of it fractions then), its features.
VIEWS = {
    "user_features": ("user_id", True, USER),
    "task_features": ("task_id", True, TASK),
    "project_features": ("project_id", False, PROJECT_FEATURES),
    "team_features": ("team_id", True, TEAM),
}


def is_count(view: str, feature: str) -> bool:
    return view == "project_features" and feature in PROJECT_COUNTS


def write_store(folder: Path, redis: str) -> None:
    """``feature_store.yaml`` with Redis; the offline store is Feast's DuckDB, its fastest for files."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    configuration = {
        "project": PROJECT,
        "provider": "local",
        "registry": "data/registry.db",
        "online_store": {"type": "redis", "connection_string": redis},
        "offline_store": {"type": "duckdb"},
        "entity_key_serialization_version": 3,
        "materialization": {"online_write_batch_size": 10_000},
    }
    (folder / "feature_store.yaml").write_text(json.dumps(configuration))


def materialize(repo: Path, features: Path, last: datetime) -> None:
    """Feast's own ``apply`` and ``materialize`` of the last day: every entity has a row there."""
    import warnings

    warnings.simplefilter("ignore")
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
    from feast.data_format import ParquetFormat
    from feast.types import Float64, Int64

    store = FeatureStore(repo_path=str(repo))
    made: list = []
    for view, (key, _, names) in VIEWS.items():
        kind = ValueType.STRING if key in ("user_id", "task_id") else ValueType.INT64
        entity = Entity(name=key.removesuffix("_id"), join_keys=[key], value_type=kind)
        source = FileSource(
            name=f"{view}_source",
            path=str(features / view / "*.parquet"),
            file_format=ParquetFormat(),
            timestamp_field="event_timestamp",
        )
        schema = [Field(name=name, dtype=Int64 if is_count(view, name) else Float64) for name in names]
        made += [entity, FeatureView(name=view, entities=[entity], ttl=timedelta(0), schema=schema, source=source)]
    store.apply(made)
    store.materialize(last - timedelta(hours=1), last)
