"""A small pipeline over files, and helpers to look at what it published."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from engine import Pipeline, RunReport, run_pipeline
from engine.ledger import Ledger

T = datetime(2025, 10, 4, tzinfo=UTC)
DAY = timedelta(days=1)
UTC_US = pl.Datetime("us", "UTC")

USERS = pl.DataFrame(
    {
        "id": ["u1", "u2", "u3", "u2", None],
        "email": ["a@x", "b@x", "c@x", "b@y", "d@x"],
        "experience_years": [1.0, 5.0, None, 6.0, 2.0],
        "skills": ["backend,sql", "devops", None, "devops", ""],
        "updated_at": [T - DAY, T - 2 * DAY, T - DAY, T - DAY, T],
    },
    schema_overrides={"updated_at": UTC_US},
)
ACTIVITIES = pl.DataFrame(
    {
        "user_id": ["u1", "u1", "u2", "u3", "u2", None],
        "timestamp": [T - DAY, T - 20 * DAY, T - 3 * DAY, T + DAY, T - 8 * DAY, T],
        "task_type": ["backend", "devops", "devops", "backend", "docs", "docs"],
        "completion_time": [3600.0, 7200.0, 1800.0, 60.0, None, 1.0],
        "collaborators": [["u2"], [], ["u1", "u9"], None, ["u1"], []],
        "bugs_introduced": [1, 0, None, 5, 2, 0],
    },
    schema_overrides={"timestamp": UTC_US},
)
SOURCES: dict[str, Any] = {
    "users": {
        "type": "file",
        "path": "data/users.parquet",
        "column_mapping": {"id": "user_id"},
        "critical_columns": ["user_id"],
        "deduplicate": {"keys": ["user_id"], "order_by": "updated_at"},
    },
    "activities": {"type": "file", "path": "data/activities/*.parquet"},
}


def write_world(folder: Path, users: pl.DataFrame = USERS, activities: pl.DataFrame = ACTIVITIES) -> None:
    data = folder / "data"
    (data / "activities").mkdir(parents=True, exist_ok=True)
    users.write_parquet(data / "users.parquet")
    half = activities.height // 2
    activities[:half].write_parquet(data / "activities" / "a.parquet")
    activities[half:].write_parquet(data / "activities" / "b.parquet")


def pipeline(folder: Path, **changes: Any) -> Pipeline:
    """A pipeline over `write_world`'s files; ``changes`` replace whole sections."""
    sections: dict[str, Any] = {
        "sources": SOURCES,
        "validation": {"users": {"required_columns": ["user_id"], "unique_columns": ["user_id"]}},
        "features": {"user_features": {"handle_missing": "keep", "normalize": False}},
    }
    return Pipeline(base=folder, name="small", **{**sections, **changes})


def run(folder: Path, as_of: Any = T, *, refit: bool = False, **changes: Any) -> RunReport:
    return run_pipeline(pipeline(folder, **changes), as_of=as_of, refit=refit)


def published(folder: Path, view: str = "user_features") -> pl.DataFrame:
    """All published rows of a view, by as-of and key, the wall-clock column aside."""
    frame = pl.scan_parquet(folder / "features" / view / "**/*.parquet", hive_partitioning=False).collect()
    key = frame.columns[0]
    return frame.drop("created_timestamp").sort("event_timestamp", key)


def files(folder: Path) -> Sequence[str]:
    """All files below the output folder, relative."""
    root = folder / "features"
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def landed_files(folder: Path, run_id: str, source: str) -> list[Path]:
    """The files of the table that a run landed of a source."""
    with Ledger(folder / ".maestro") as book:
        [read] = [read for read in book.reads(run_id) if read.source == source]
        return [book.workdir / file.path for file in read.files]
